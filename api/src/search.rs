//! Full-text search over what the caller may see.

use crate::call::Call;
use crate::jobs::{self, JOB};
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, get, post};
use atoll_node::Permission;
use atoll_node::search::{self, MAX_SUGGESTIONS, Wanted};
use serde_json::{Map, Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/search", Public, find)
            .pages()
            .query(&["q", "type", "limit", "offset", "sort", "category", "tag", "author"])
            .doc(
                "Finds posts and comments. All words are wanted, \"quoted ones\" as a phrase, -those not; the last \
                 may be unfinished, and small slips are forgiven. `type` names kinds, separated by commas; \
                 `sort=-date` lists the newest first.",
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
    let facet = |name: &str| call.param(name).map(|value| (name.to_owned(), value.to_owned()));
    let wanted = Wanted {
        text: call.param("q").unwrap_or_default().to_owned(),
        kinds: kinds.map(str::to_owned).collect(),
        limit: call.limit()?,
        offset: call.param_as("offset")?.unwrap_or(0),
        newest_first,
        facets: ["category", "tag", "author"].into_iter().filter_map(facet).collect(),
    };
    let found = search::find(&call.node, &call.actor, &wanted)?;
    let mut facets = Map::new();
    for (name, values) in found.facets {
        let rows =
            values.into_iter().map(|(value, count)| json!({ "value": value, "count": count }));
        facets.insert(name, Value::Array(rows.collect()));
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
