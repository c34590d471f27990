//! Tags over HTTP, each with the number of posts that the public sees under it.

use crate::call::Call;
use crate::categories::Merge;
use crate::posts::expected;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show::{self, More};
use atoll_node::Error;
use atoll_node::Permission::{TagsAdminister, TagsWrite};
use atoll_node::content::tag::{self, TAG};
use atoll_storage::{Field, Record};
use serde_json::Value as Json;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/tags", Public, list)
            .lists(&TAG)
            .doc("By name, each with post_count: the posts that are public."),
        get("/api/v1/tags/suggestions", Public, suggest)
            .gives_fields(SUGGESTION)
            .pages()
            .query(&["q", "limit"])
            .doc("Tags whose slug or name begins with q, the most used first."),
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
        post("/api/v1/tags/{id}/merge", Can(TagsAdminister), merge)
            .takes_fields(MERGE)
            .gives(&TAG)
            .doc("Every post that carries it carries the other one instead, and it is deleted."),
    ]
}

const MERGE: &[Field] = &[Field::text(1, "into").required().doc("An id or a slug.")];
const SUGGESTION: &[Field] =
    &[Field::text(1, "id"), tag::NAME, tag::SLUG, tag::DESCRIPTION, Field::int(5, "post_count")];

async fn list(call: Call) -> Answer {
    let query = call.query(&TAG, &[])?.sorted_by("name", false);
    let (page, counts) = tag::list(&call.node, &call.actor, &query.to_query(call.tenant()))?;
    let wanted = query.view.wants_added("post_count");
    let more: Vec<More> = counts.into_iter().map(|posts| count(posts, wanted)).collect();
    Reply::list_with(&call, page, &query, &more)
}

fn count(posts: u64, wanted: bool) -> More {
    let count = wanted.then(|| ("post_count".to_owned(), Json::from(posts)));
    count.into_iter().collect()
}

fn counted(call: &Call, tag: &Record, posts: u64) -> Answer {
    let wanted = call.view(&TAG)?.wants_added("post_count");
    Reply::record_with(call, tag, Some(&count(posts, wanted)))
}

async fn suggest(call: Call) -> Answer {
    let beginning = call.param("q").unwrap_or_default();
    let found = tag::suggest(&call.node, &call.actor, beginning, call.limit()?)?;
    let row = |(tag, posts): &(Record, u64)| {
        let mut value = show::value(&call, tag)?;
        value["post_count"] = Json::from(*posts);
        Ok(value)
    };
    let rows = found.iter().map(row).collect::<Result<Vec<Json>, Problem>>()?;
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

async fn get_one(call: Call) -> Answer {
    let (tag, posts) = tag::get(&call.node, &call.actor, call.path("id"))?;
    counted(&call, &tag, posts)
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

async fn merge(call: Call) -> Answer {
    let (seen, _) = tag::get(&call.node, &call.actor, call.path("id"))?;
    let expected = expected(&call, &seen)?;
    let form: Merge = call.json()?;
    let unknown = |_| Error::field("into", "unknown_reference", "there is no such tag");
    let into = tag::get(&call.node, &call.actor, &form.into).map_err(unknown)?.0.key;
    let (merged, posts) = tag::merge(&call.node, &call.actor, seen.key, into, expected).await?;
    counted(&call, &merged, posts)
}
