//! Links to posts that are not out yet, over HTTP. A token is shown once and stands in no answer that is kept.

use crate::call::Call;
use crate::moment::Moment;
use crate::posts::rendered;
use crate::reply::Reply;
use crate::route::Access::{Author, Public};
use crate::route::{Answer, Route, delete, get, post};
use crate::site::Site;
use atoll_node::Permission::PostsWrite;
use atoll_node::content::post::POST;
use atoll_node::content::preview::{self, DEFAULT_HOURS, EXPIRES_AT, PREVIEW_LINK};
use atoll_storage::{Field, Id};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::json;

pub fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/posts/{id}/preview-links", Author(PostsWrite), create)
            .takes_fields(NEW)
            .gives_fields(MADE)
            .strict()
            .doc("A link by which anybody reads the post as it is, for so many hours. Its token is shown now and never again."),
        get("/api/v1/posts/{id}/preview-links", Author(PostsWrite), list)
            .lists(&PREVIEW_LINK)
            .doc("The links of a post, the latest first, without their tokens."),
        delete("/api/v1/posts/{id}/preview-links/{link}", Author(PostsWrite), revoke)
            .doc("Takes a link back."),
        get("/api/v1/preview/{token}", Public, open)
            .gives(&POST)
            .doc("The post that a link leads to, rendered. Not for search engines."),
    ]
}

const NEW: &[Field] =
    &[Field::int(1, "hours").doc("How long it is good: from 1 to 720, 72 if absent.")];
const MADE: &[Field] = &[
    Field::text(1, "id"),
    Field::text(2, "token"),
    Field::text(3, "url"),
    Field::time(4, "expires_at"),
];
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct New {
    hours: Option<u64>,
}

async fn create(call: Call) -> Answer {
    let form: New = if call.body().is_empty() { New::default() } else { call.json()? };
    let hours = form.hours.unwrap_or(DEFAULT_HOURS);
    let key = call.key(&POST, "id")?;
    let (link, token) = preview::create(&call.node, &call.actor, key, hours).await?;
    let url = format!("{}/preview/{token}", Site::of(&call)?.base);
    let expires_at = link.int(&EXPIRES_AT).map(Moment);
    let made = json!({ "id": link.key, "token": token, "url": url, "expires_at": expires_at });
    Ok(Reply::data(made)?.status(StatusCode::CREATED))
}

async fn list(call: Call) -> Answer {
    let query = call.query(&PREVIEW_LINK, &[])?.sorted_by("created_at", true);
    let key = call.key(&POST, "id")?;
    let page = preview::list(&call.node, &call.actor, key, query.to_query(call.tenant()))?;
    Reply::list(&call, page, &query)
}

async fn revoke(call: Call) -> Answer {
    let link = Id::parse(call.path("link")).unwrap_or_default();
    preview::revoke(&call.node, &call.actor, call.key(&POST, "id")?, link).await?;
    Reply::none()
}

async fn open(call: Call) -> Answer {
    let post = preview::open(&call.node, call.tenant(), call.path("token"))?;
    let more = rendered(&call, &post).await?;
    let reply = Reply::record_with(&call, &post, Some(&more))?;
    Ok(reply.header(CACHE_CONTROL, "no-store").header(ROBOTS, "noindex, nofollow"))
}
