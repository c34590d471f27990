//! Views and visitors: told by pages, read by authors and editors.

use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Author, Public};
use crate::route::{Answer, Route, get, post};
use atoll_node::Permission;
use atoll_node::content::post::POST;
use atoll_node::insight::{self, Hit, MAX_DAYS};
use atoll_storage::{Field, Id};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::json;

const EVENT: &[Field] = &[
    Field::text(1, "type").required().choices(&["view"]),
    Field::refers(2, "post_id", "post").required(),
    Field::set(3, "events", atoll_storage::Type::Text)
        .doc("Or several of these at once, at most 100."),
];

pub fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/analytics/track", Public, track)
            .takes_fields(EVENT)
            .doc("Tells of one event, or of up to 100 in `events`. No cookie is set and bots do not count."),
        get("/api/v1/analytics/posts/{id}", Author(Permission::AnalyticsRead), of_post)
            .query(&["days"])
            .doc("Views and unique visitors of a post, in all and by day."),
    ]
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Many { events: Vec<Event> },
    One(Event),
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    post_id: Id,
}

async fn track(call: Call) -> Answer {
    let events = match call.json()? {
        Told::Many { events } => events,
        Told::One(event) => vec![event],
    };
    if let Some(unknown) = events.iter().find(|event| event.kind != "view") {
        let text = format!("{:?} is not counted: the type must be view", unknown.kind);
        return Err(Problem::from(atoll_node::Error::field("type", "unknown_choice", text)));
    }
    let agent = call.user_agent();
    let told = events.len();
    let mut counted = 0;
    if !insight::is_bot(agent) {
        let address = call.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let visitor = insight::visitor(call.tenant(), &address, agent);
        let hits = events.into_iter().map(|event| Hit { post: event.post_id, visitor }).collect();
        counted = insight::track(&call.node, &call.actor, hits).await?;
    }
    let answer = Reply::data(json!({ "counted": counted, "ignored": told - counted }))?;
    Ok(answer.status(StatusCode::ACCEPTED))
}

async fn of_post(call: Call) -> Answer {
    let days = call.param_as("days")?.unwrap_or(30);
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(Problem::parameter(
            "days",
            "out_of_range",
            format!("must be a number from 1 to {MAX_DAYS}"),
        ));
    }
    let post = call.key(&POST, "id")?;
    Reply::data(insight::of_post(&call.node, &call.actor, post, days)?)
}
