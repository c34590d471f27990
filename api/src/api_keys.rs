//! One's own keys for programs. A key is shown when it is made and never again.

use crate::call::Call;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::User;
use crate::route::{Answer, Route, delete, get, post};
use crate::show;
use atoll_node::identity::api_key::{self, API_KEY};
use atoll_storage::{Field, Record, Type};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/api-keys", User, list)
            .gives_fields(KEY)
            .pages()
            .doc("One's own keys that hold, the latest first."),
        post("/api/v1/api-keys", User, create)
            .takes(&API_KEY)
            .gives_fields(MADE)
            .strict()
            .doc("Makes a key, shown this once. It goes where an access token goes, and may what its scopes and its owner's role both allow."),
        delete("/api/v1/api-keys/{id}", User, revoke).doc("Ends a key, on every node."),
    ]
}

const fn shown(code: u16, name: &'static str) -> Field {
    Field::text(code, name).required()
}

const KEY: &[Field] = &[
    Field::refers(1, "id", "api_key").required(),
    shown(2, "name"),
    shown(3, "prefix"),
    Field::set(4, "scopes", Type::Text),
    Field::time(5, "expires_at"),
    Field::time(6, "last_used_at"),
    Field::time(7, "created_at").required(),
];
const MADE: &[Field] = &[
    Field::refers(1, "id", "api_key").required(),
    shown(2, "name"),
    shown(3, "prefix"),
    Field::set(4, "scopes", Type::Text),
    Field::time(5, "expires_at"),
    Field::time(7, "created_at").required(),
    shown(8, "key"),
];

/// They are bounded, and so one page.
async fn list(call: Call) -> Answer {
    let all = api_key::list(&call.node, &call.actor)?;
    let rows = all.iter().map(|key| row(&call, key)).collect::<Result<Vec<Json>, Problem>>()?;
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

fn row(call: &Call, key: &Record) -> Result<Json, Problem> {
    let mut shown = show::value(call, key)?;
    shown["last_used_at"] = json!(api_key::last_used_ms(&call.node, key).map(Moment::of));
    Ok(shown)
}

async fn create(call: Call) -> Answer {
    let changes = call.changes(&API_KEY)?;
    let made = api_key::create(&call.node, &call.actor, changes).await?;
    let mut shown = show::value(&call, &made.record)?;
    shown["key"] = made.key.into();
    let reply = Reply::data(shown)?.status(StatusCode::CREATED);
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

async fn revoke(call: Call) -> Answer {
    api_key::revoke(&call.node, &call.actor, call.id("id")?).await?;
    Reply::none()
}
