//! What peers may do on this node, and what is said of them elsewhere.

use crate::call::Call;
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get, put};
use atoll_node::Permission;
use atoll_node::peer::{self, Asked, Granted};
use atoll_storage::{Field, Type};
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    let node = Can(Permission::SyncAdminister);
    vec![
        get("/api/v1/sync/grants", node, grants).gives_fields(GRANT).pages().doc(
            "What this node says that others may do, what it heard others say, and which of it counts here.",
        ),
        get("/api/v1/sync/peers/{id}/grant", node, grant).gives_fields(GRANT).doc(
            "What a peer may do here, by its id, key or name: what this node says, narrowed by what trusted peers say.",
        ),
        put("/api/v1/sync/peers/{id}/grant", node, set_grant)
            .takes_fields(ASKED)
            .gives_fields(GRANT)
            .doc("Says what a node may do from now on, here and on the nodes that trust this one. What is left out is not limited."),
    ]
}

const GRANT: &[Field] = &[
    Field::text(1, "holder").required().doc("The node that may."),
    Field::text(2, "holder_name").required(),
    Field::text(3, "issuer").required().doc("The node that says so."),
    Field::text(4, "issuer_name").required(),
    Field::set(5, "tenants", Type::Text).doc("By id; null: all."),
    Field::set(6, "scopes", Type::Text).doc("Null: all."),
    Field::set(7, "may", Type::Text).required().doc("Of read, write and relay."),
    Field::time(8, "until").doc("Null: without end."),
    Field::flag(9, "counts").required().doc("Whether it counts on this node."),
    Field::time(10, "issued_at").doc("Null while nothing was said: then it may do everything."),
    Field::text(11, "words").required().doc("The whole in words."),
];
const ASKED: &[Field] = &[
    Field::set(1, "tenants", Type::Text).doc("By id or slug; all if absent or with `*` in it."),
    Field::set(2, "scopes", Type::Text).doc("All if absent or with `*` in it."),
    Field::set(3, "may", Type::Text)
        .doc("Of `read`, `write` and `relay`; all three if absent. Empty: nothing any more."),
    Field::text(4, "until").doc("A date, its last moment in UTC, or a time; absent: without end."),
];

/// A node keeps a bounded number of them: they are one page.
async fn grants(call: Call) -> Answer {
    let granted = peer::granted(&call.node, &call.actor)?;
    let rows: Vec<Json> = granted.iter().map(row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

async fn grant(call: Call) -> Answer {
    Reply::data(row(&peer::granted_to(&call.node, &call.actor, call.path("id"))?))
}

async fn set_grant(call: Call) -> Answer {
    let asked: Asked = call.json()?;
    let named = call.path("id").to_owned();
    Reply::data(row(&peer::grant(&call.node, &call.actor, &named, &asked, true).await?))
}

fn row(granted: &Granted) -> Json {
    let rights = &granted.rights;
    let all = [(rights.read, "read"), (rights.write, "write"), (rights.relay, "relay")];
    let may: Vec<&str> = all.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| *word).collect();
    json!({
        "holder": granted.holder.to_string(),
        "holder_name": granted.holder_name,
        "issuer": granted.issuer.to_string(),
        "issuer_name": granted.issuer_name,
        "tenants": rights.tenants,
        "scopes": rights.scopes,
        "may": may,
        "until": rights.until_ms.map(Moment::of),
        "counts": granted.counts,
        "issued_at": granted.issued_ms.map(Moment::of),
        "words": granted.words,
    })
}
