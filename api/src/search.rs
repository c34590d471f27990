//! Full-text search over what the caller may see.

use crate::call::Call;
use crate::jobs::{self, JOB};
use crate::posts::time_of;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, get, post};
use atoll_node::Permission;
use atoll_node::search::{self, MAX_SUGGESTIONS, Wanted};
use serde_json::{Map, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/search", Public, find)
            .pages()
            .query(&[
                "q", "type", "limit", "offset", "sort", "category", "tag", "author", "from", "to",
            ])
            .doc(
                "Finds posts and comments. All words are wanted, \"quoted ones\" as a phrase, -those not; the last \
                 may be unfinished, and small slips are forgiven. `type` names kinds, separated by commas; \
                 `sort=-date` lists the newest first. category (with all under it) and tag take an id or a slug, author \
                 an id or a username; from and to bound the time of publication. Totals and facets count what the \
                 caller may see.",
            ),
        get("/api/v1/search/suggestions", Public, suggest)
            .query(&["q", "limit"])
            .doc("Titles that fit what was typed so far."),
        post("/api/v1/search/index", Can(Permission::SearchAdminister), rebuild)
            .gives_fields(JOB)
            .doc("Makes the search index again, in the background."),
    ]
}

async fn find(call: Call) -> Answer {
    let newest_first = match call.param("sort") {
        None | Some("-score") => false,
        Some("-date") => true,
        Some(other) => {
            let text = format!("{other:?} is not understood: give -score or -date");
            return Err(Problem::parameter("sort", "unknown_choice", text));
        }
    };
    let kinds = call
        .param("type")
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let named = |name: &str| call.param(name).map(str::to_owned);
    let wanted = Wanted {
        text: call.param("q").unwrap_or_default().to_owned(),
        kinds: kinds.map(str::to_owned).collect(),
        limit: call.limit()?,
        offset: call.param_as("offset")?.unwrap_or(0),
        newest_first,
        category: named("category"),
        tag: named("tag"),
        author: named("author"),
        from_ms: time_of(&call, "from")?,
        // The index leaves the end out, and a list of posts does not.
        to_ms: time_of(&call, "to")?.map(|at_ms| at_ms.saturating_add(1)),
    };
    let found = search::find(&call.node, &call.actor, &wanted)?;
    let mut facets = Map::new();
    for (name, values) in found.facets {
        facets.insert(name, json!(values));
    }
    let end = wanted.offset + wanted.limit;
    let next = (found.total > end as u64).then_some(end);
    let page = json!({ "next": null, "next_offset": next, "total": found.total });
    Reply::json(json!({ "data": found.matches, "page": page, "facets": facets }))
}

async fn suggest(call: Call) -> Answer {
    let limit = call.param_as("limit")?.unwrap_or(10).min(MAX_SUGGESTIONS);
    let titles =
        search::suggest(&call.node, &call.actor, call.param("q").unwrap_or_default(), limit)?;
    Reply::data(titles)
}

async fn rebuild(call: Call) -> Answer {
    let job = search::rebuild(&call.node, &call.actor).await?;
    jobs::accepted(&job, jobs::shown(&job), "/api/v1/jobs")
}
