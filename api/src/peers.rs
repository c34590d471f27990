//! Nodes that leave: cut off from this node, or refused by the whole network.

use crate::call::Call;
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, delete, get};
use atoll_node::identity::{password, user};
use atoll_node::peer::{self, Revoked};
use atoll_node::{Error, Permission};
use atoll_storage::Field;
use serde::Deserialize;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    let node = Can(Permission::SyncAdminister);
    vec![
        delete("/api/v1/sync/peers/{id}", node, remove)
            .query(&["everywhere", "reason"])
            .takes_fields(REMOVAL)
            .doc("Cuts a peer off from this node, by its id, key or name. With everywhere=true every node that hears of it refuses its key, for good; it need not be a peer of this one then. That takes the password of whoever asks, and no API key may."),
        get("/api/v1/sync/removed", node, removed).gives_fields(REMOVED).pages().doc(
            "The nodes that the whole network refuses, the earliest first.",
        ),
    ]
}

const REMOVAL: &[Field] = &[Field::text(1, "password")
    .max(password::MAX_BYTES)
    .doc("Of whoever asks; required with `everywhere`, else without a meaning.")];
const REMOVED: &[Field] = &[
    Field::text(1, "node").required(),
    Field::text(2, "name").required(),
    Field::text(3, "by").required().doc("Who did it, and on which node."),
    Field::time(4, "at").required(),
    Field::text(5, "reason"),
    Field::text(6, "words").required().doc("The whole in a sentence."),
];

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Removal {
    password: Option<String>,
}

async fn remove(call: Call) -> Answer {
    let (node, actor, named) = (&call.node, &call.actor, call.path("id"));
    if call.param_as("everywhere")?.unwrap_or(false) {
        let form: Removal = if call.body().is_empty() { Removal::default() } else { call.json()? };
        let password = form.password.ok_or_else(|| {
            let message = "is required to remove a node everywhere: give your own";
            Error::field("password", "required", message)
        })?;
        user::confirm_in_person(node, actor, password).await?;
        peer::revoke(node, actor, named, call.param("reason")).await?;
    } else {
        peer::remove(node, actor, named).await?;
    }
    Reply::none()
}

/// A network removes a bounded number of nodes: they are one page.
async fn removed(call: Call) -> Answer {
    let removed = peer::removed(&call.node, &call.actor)?;
    let rows: Vec<Json> = removed.iter().map(row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

fn row(revoked: &Revoked) -> Json {
    json!({
        "node": revoked.node.to_string(),
        "name": revoked.name,
        "by": revoked.by,
        "at": Moment::of(revoked.at_ms),
        "reason": revoked.reason,
        "words": revoked.words(),
    })
}
