//! What of the log is proven to be what its authors wrote.

use crate::call::Call;
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get};
use atoll_node::{Permission, seal};
use atoll_storage::Field;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/sync/seals", Can(Permission::SyncAdminister), seals).gives_fields(SEALS).doc(
            "How many ops are proven by their authors' seals, and what does not fit its seal: the latest 20.",
        ),
    ]
}

const SEALS: &[Field] = &[
    Field::int(1, "proven_ops").required(),
    Field::int(2, "waiting")
        .required()
        .doc("Seals that were not looked at yet, or whose ops are not all here."),
    Field::int(3, "broken").required().doc("Seals that do not fit the ops that are here."),
];

async fn seals(call: Call) -> Answer {
    let standing = seal::standing(&call.node, &call.actor)?;
    let row = |broken: &atoll_storage::seal::Broken| json!({ "at": Moment::of(broken.at_ms), "words": broken.words });
    Reply::data(json!({
        "proven_ops": standing.proven_ops,
        "waiting": standing.waiting,
        "broken": standing.broken,
        "latest": standing.latest.iter().map(row).collect::<Vec<Json>>(),
    }))
}
