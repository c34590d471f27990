//! Tags over HTTP, each with the number of posts that the public sees under it.

use crate::call::Call;
use crate::posts::expected;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show;
use atoll_node::Permission::{TagsAdminister, TagsWrite};
use atoll_node::content::tag::{self, TAG};
use atoll_storage::Record;
use serde_json::Value as Json;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/tags", Public, list)
            .lists(&TAG)
            .doc("By name, each with post_count: the posts that are public."),
        post("/api/v1/tags", Can(TagsWrite), create)
            .takes(&TAG)
            .gives(&TAG)
            .doc("Its slug is made from the name if it is left out."),
        get("/api/v1/tags/{id}", Public, get_one)
            .gives(&TAG)
            .doc("By id or slug, with post_count."),
        put("/api/v1/tags/{id}", Can(TagsWrite), edit)
            .takes(&TAG)
            .gives(&TAG)
            .doc("What is left out stays."),
        delete("/api/v1/tags/{id}", Can(TagsAdminister), remove)
            .doc("Takes it from every post first."),
    ]
}

async fn list(call: Call) -> Answer {
    let query = call.query(&TAG, &[])?.sorted_by("name", false);
    let (page, counts) = tag::list(&call.node, &query.to_query(call.tenant()))?;
    let rows = page.records.iter().zip(counts).map(|(tag, posts)| counted(&call, tag, posts));
    let rows = rows.collect::<Result<Vec<Json>, _>>()?;
    let next = page.next.map(|cursor| cursor.to_text());
    Reply::rows(&call, &rows, next.as_deref(), page.total)
}

/// The tag with its count; of its other fields only those that the request wants.
fn counted(call: &Call, tag: &Record, posts: u64) -> Result<Json, Problem> {
    let mut value = show::value(call, tag)?;
    if let (Json::Object(fields), Some(wanted)) = (&mut value, call.param("fields")) {
        fields
            .retain(|name, _| name == "id" || wanted.split(',').any(|field| field.trim() == name));
    }
    value["post_count"] = Json::from(posts);
    Ok(value)
}

async fn get_one(call: Call) -> Answer {
    let (tag, posts) = tag::get(&call.node, &call.actor, call.path("id"))?;
    let mut reply = Reply::data(counted(&call, &tag, posts)?)?;
    reply.version = Some(tag.version());
    Ok(reply)
}

async fn create(call: Call) -> Answer {
    let changes = call.changes(&TAG)?;
    let tag = tag::create(&call.node, &call.actor, changes).await?;
    Reply::created(&call, &tag, format!("/api/v1/tags/{}", tag.key))
}

async fn edit(call: Call) -> Answer {
    let (seen, _) = tag::get(&call.node, &call.actor, call.path("id"))?;
    let expected = expected(&call, &seen)?;
    let changes = call.changes_to(&seen)?;
    Reply::record(&call, &tag::edit(&call.node, &call.actor, seen.key, changes, expected).await?)
}

async fn remove(call: Call) -> Answer {
    let (seen, _) = tag::get(&call.node, &call.actor, call.path("id"))?;
    let expected = expected(&call, &seen)?;
    tag::remove(&call.node, &call.actor, seen.key, expected).await?;
    Reply::none()
}
