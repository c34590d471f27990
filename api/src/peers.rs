//! Nodes that leave: cut off from this node, or refused by the whole network.

use crate::call::Call;
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, delete, get};
use atoll_node::Permission;
use atoll_node::peer::{self, Revoked};
use atoll_storage::Field;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    let node = Can(Permission::SyncAdminister);
    vec![
        delete("/api/v1/sync/peers/{id}", node, remove).query(&["everywhere", "reason"]).doc(
            "Cuts a peer off from this node, by its id, key or name. With everywhere=true every node that hears of it refuses its key, for good; it need not be a peer of this one then.",
        ),
        get("/api/v1/sync/removed", node, removed).gives_fields(REMOVED).pages().doc(
            "The nodes that the whole network refuses, the earliest first.",
        ),
    ]
}

const REMOVED: &[Field] = &[
    Field::text(1, "node").required(),
    Field::text(2, "name").required(),
    Field::text(3, "by").required().doc("Who did it, and on which node."),
    Field::time(4, "at").required(),
    Field::text(5, "reason"),
    Field::text(6, "words").required().doc("The whole in a sentence."),
];

async fn remove(call: Call) -> Answer {
    let (node, actor, named) = (&call.node, &call.actor, call.path("id"));
    if call.param_as("everywhere")?.unwrap_or(false) {
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
