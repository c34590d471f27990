//! One's own sessions: on which devices somebody is signed in, and how to end that.

use crate::call::Call;
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::Access::User;
use crate::route::{Answer, Route, delete, get};
use atoll_node::identity::session::{self, EXPIRES_AT, USER_AGENT};
use atoll_node::identity::user;
use atoll_storage::{Field, Record};
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/auth/sessions", User, list)
            .gives_fields(SESSION)
            .pages()
            .doc("One's own sessions that hold, the latest first."),
        delete("/api/v1/auth/sessions/{id}", User, end).doc("Ends one of one's own sessions."),
        delete("/api/v1/auth/sessions", User, end_others)
            .doc("Ends all of one's own sessions but this one, on every node."),
    ]
}

const SESSION: &[Field] = &[
    Field::refers(1, "id", "session").required(),
    Field::text(2, "user_agent").doc("What the device said of itself."),
    Field::text(3, "node").doc("The node that the session began on."),
    Field::time(4, "created_at").required(),
    Field::time(5, "last_used_at").required().doc("When its tokens were last renewed."),
    Field::time(6, "expires_at"),
    Field::flag(7, "current").required().doc("The session that asks."),
];

/// They are bounded, and so one page.
async fn list(call: Call) -> Answer {
    let all = session::list(&call.node, &call.actor)?;
    let rows: Vec<Json> = all.iter().map(|session| row(&call, session)).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

fn row(call: &Call, session: &Record) -> Json {
    json!({
        "id": session.key,
        "user_agent": session.opt_text(&USER_AGENT),
        "node": session::node_of(session).map(|node| node.to_string()),
        "created_at": Moment::of(session.created_ms()),
        "last_used_at": Moment::of(session.updated_ms()),
        "expires_at": session.int(&EXPIRES_AT).map(Moment),
        "current": call.actor.session == Some(session.key),
    })
}

async fn end(call: Call) -> Answer {
    session::end(&call.node, &call.actor, call.id("id")?).await?;
    Reply::none()
}

async fn end_others(call: Call) -> Answer {
    user::sign_out_elsewhere(&call.node, &call.actor).await?;
    Reply::none()
}
