//! How this node stands with its peers, and the conflict inbox of a tenant. Never shows a value of a field
//! that its kind does not show.

use crate::call::Call;
use crate::download;
use crate::moment::Moment;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get, post, put};
use crate::show;
use atoll_node::conflict::author::{self, Source};
use atoll_node::conflict::{self, Resolution};
use atoll_node::{Node, Permission, blob, bucket, carries as parts, kinds, peer};
use atoll_storage::blob::BlobId;
use atoll_storage::body;
use atoll_storage::conflict::{Conflict, ConflictValue};
use atoll_storage::heads::StreamHead;
use atoll_storage::op::BodyEdit;
use atoll_storage::{Field, Id, NodeId, Op, Payload, Shown, Type, Value, Vector};
use atoll_sync::blob::TransferStatus;
use atoll_sync::runner::{Obstacle, PeerStatus};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

pub fn routes() -> Vec<Route> {
    let node = Can(Permission::SyncAdminister);
    let reads = Can(Permission::ConflictsRead);
    let resolves = Can(Permission::ConflictsResolve);
    vec![
        get("/api/v1/sync/status", node, status)
            .gives_fields(STATUS)
            .doc("This node among its peers."),
        get("/api/v1/sync/peers", node, peers)
            .gives_fields(PEER)
            .pages()
            .doc("The nodes this one knows, how far they lag, and when they were last in contact."),
        get("/api/v1/sync/plan", node, plan).gives_fields(PLAN).pages().doc(
            "For every peer what is missing on either side, since when, and why it does not come, also in plain words.",
        ),
        get("/api/v1/sync/streams", node, streams).gives_fields(STREAM).pages()
            .query(&["limit", "cursor"]).doc(
            "Every stream with its vector and digest: nodes with equal digests hold the same.",
        ),
        get("/api/v1/sync/quarantine", node, quarantine).gives_fields(QUARANTINED).pages()
            .query(&["limit"]).doc(
            "Ops that could not be applied, and what nodes wrote after they were removed, newest first: kept, passed on, not shown to readers. `values` tells what an op wrote.",
        ),
        get("/api/v1/sync/nearby", node, nearby).gives_fields(NEIGHBOUR).pages().doc(
            "The nodes that were heard on this network. It takes a ticket to join one, whatever it says of itself.",
        ),
        get("/api/v1/sync/blobs", node, blobs)
            .gives_fields(BLOBS)
            .doc("The files that records name: how many are here, what is on its way."),
        get("/api/v1/sync/blobs/{id}", node, blob_file)
            .doc("One file by its hash, fetched from another node if it is not here. Takes Range."),
        get("/api/v1/sync/carries", node, carries)
            .gives_fields(CARRIES)
            .doc("What of the network this node carries, and what it is removing."),
        put("/api/v1/sync/carries", node, set_carries)
            .takes_fields(CARRIES_CHANGE)
            .gives_fields(CARRIES)
            .doc("Carries what these rules say and nothing else. What another node is not known to have is dropped by force only."),
        post("/api/v1/sync/now", node, now).doc("Contacts all peers at once, and visits all buckets."),
        get("/api/v1/sync/conflicts", reads, conflicts)
            .gives_fields(CONFLICT)
            .pages()
            .query(&["limit", "cursor"])
            .doc("What nodes wrote apart from each other and a rule had to settle, newest first. Each of `values` has \
                  `author` (`id`, `username`, `display_name`; null if it is not known who wrote it, or nobody did), \
                  `node` and `node_name` (null if this node does not know that one)."),
        get("/api/v1/sync/conflicts/{id}", reads, show_conflict)
            .gives_fields(CONFLICT)
            .doc("One conflict with all its values, and of each text what differs from the one that shows, by word."),
        post("/api/v1/sync/conflicts/{id}/resolve", resolves, resolve)
            .takes_fields(RESOLUTION)
            .doc("Takes one of the values by its place, writes another, deletes after all what an edit kept, or leaves it as it is."),
    ]
}

const STATUS: &[Field] = &[
    Field::text(1, "node").required(),
    Field::int(2, "epoch").required().doc("Raised by a restore."),
    Field::text(3, "public_key").required(),
    Field::text(4, "name").required(),
    Field::text(5, "digest").required().doc("Over all streams: equal on nodes that hold the same."),
    Field::int(6, "streams").required(),
    Field::int(7, "records").required(),
    Field::int(8, "conflicts").required(),
    Field::int(9, "quarantined").required(),
    Field::int(10, "parked").required().doc("Ops that wait for their causes."),
    Field::int(11, "peers").required(),
    Field::int(12, "connected").required(),
    Field::flag(13, "disk_full").required().doc("No files are fetched before there is room again."),
    Field::int(15, "late").required().doc("Ops that removed nodes wrote too late."),
    Field::int(14, "removed").required().doc("Nodes that the whole network refuses."),
];
const PEER: &[Field] = &[
    Field::text(1, "node").required(),
    Field::text(2, "name").required(),
    Field::text(3, "public_key").required(),
    Field::text(4, "address"),
    Field::flag(5, "connected").required(),
    Field::int(6, "lag_ops").doc("Ops of ours that it has not acknowledged."),
    Field::time(7, "contact_at"),
    Field::text(8, "last_error"),
    Field::flag(9, "disk_full").required().doc("It says that its disk is full."),
    Field::text(10, "carries").doc("What it carries, as rules; absent until it said so."),
    Field::text(11, "may").required().doc("What it may do here, in words."),
    Field::text(12, "lets").doc("What it lets this node do, in words; absent until it said so."),
    Field::int(13, "refused_ops")
        .required()
        .doc("Ops that came since the start of this node, and that it may not write here."),
];
const BLOBS: &[Field] = &[
    Field::int(1, "wanted").required().doc("Files that records name."),
    Field::int(2, "here").required(),
    Field::int(3, "missing").required(),
    Field::int(4, "resting").required().doc("Of the missing, those that come when somebody asks."),
    Field::int(5, "size_bytes").required().doc("What all files take here."),
    Field::int(6, "quota_bytes").doc("Null without a quota."),
    Field::flag(7, "disk_full").required(),
    Field::int(8, "fetched_bytes").required().doc("From other nodes, since the start."),
    Field::int(9, "served_bytes").required().doc("To other nodes, since the start."),
    Field::int(10, "false_parts").required().doc("Parts that were not what they should be."),
];
const PLAN: &[Field] = &[
    Field::text(1, "node").required(),
    Field::text(2, "name").required(),
    Field::text(3, "state")
        .required()
        .doc("paused, waiting, dialling, catching_up, level or removed."),
    Field::int(4, "missing_here_ops").doc("Null while nothing was heard of the peer."),
    Field::int(5, "missing_there_ops").doc("What it did not acknowledge."),
    Field::time(6, "since")
        .doc("When the two were last equal, or at least in contact; when it was removed."),
    Field::text(7, "obstacle").doc("Why there is no link, in one word; null while there is one."),
    Field::text(8, "reason").doc("The same in a sentence."),
    Field::text(9, "advice").doc("What to do about it."),
    Field::int(10, "clock_skew_ms").doc("By how much its clock is ahead of this one's."),
];
const NEIGHBOUR: &[Field] = &[
    Field::text(1, "node").required(),
    Field::text(2, "name").required().doc("As it calls itself."),
    Field::flag(3, "known").required().doc("It is a peer of this node."),
];
const CARRIES: &[Field] = &[
    Field::set(1, "rules", Type::Text).required().doc("In order; the last one that fits decides."),
    Field::flag(2, "everything").required(),
    Field::set(3, "leaving", Type::Text).required().doc("Streams that are being removed."),
];
const CARRIES_CHANGE: &[Field] = &[
    Field::set(1, "rules", Type::Text).required().doc(
        "`tenant/scope`, with `*` for any, and `-` in front of what is left out. A tenant by id or slug.",
    ),
    Field::flag(2, "force").doc("Drops what no other node is known to have, too."),
];
const STREAM: &[Field] = &[
    Field::text(1, "tenant_id").required(),
    Field::text(2, "scope").required(),
    Field::int(3, "records").required(),
    Field::text(4, "digest").required(),
];
const QUARANTINED: &[Field] = &[
    Field::text(1, "op").required(),
    Field::text(2, "stream").required(),
    Field::text(3, "kind").required(),
    Field::text(4, "key").required(),
    Field::time(5, "at").required().doc(
        "By this node's clock, when it was put here: as it came, or, if it had been applied before, when this node heard that its node was removed.",
    ),
    Field::text(6, "reason").required(),
    Field::text(7, "did").required().doc("created, changed, deleted, counted or erased."),
    Field::time(8, "written_at").required().doc("By the clock of the node that wrote it."),
];
const CONFLICT: &[Field] = &[
    Field::text(1, "id").required(),
    Field::text(2, "cause").required(),
    Field::text(3, "kind").required(),
    Field::text(4, "key").required(),
    Field::text(5, "field").doc("Null for what is about the whole record."),
    Field::time(6, "at").required(),
    Field::text(7, "explanation").required(),
];
const RESOLUTION: &[Field] = &[
    Field::int(1, "take").doc("A place in `values`, from 0."),
    Field::text(2, "write").doc("Another value."),
    Field::flag(3, "dismiss").doc("It stays as it is."),
    Field::flag(4, "delete")
        .doc("What an edit kept from the trash goes there after all (`edit_overruled_deletion`)."),
];

async fn status(call: Call) -> Answer {
    let status = peer::status(&call.node, &call.actor)?;
    Reply::data(json!({
        "node": status.origin.node.to_string(),
        "epoch": status.origin.epoch,
        "public_key": status.public_key,
        "name": status.name,
        "digest": hex(&status.digest.to_bytes()),
        "streams": status.streams,
        "records": status.records,
        "conflicts": status.conflicts,
        "quarantined": status.quarantined,
        "late": status.late,
        "parked": status.parked,
        "peers": status.peers.len(),
        "connected": status.peers.iter().filter(|peer| peer.is_linked()).count(),
        "disk_full": call.node.exchange.is_disk_full(),
        "removed": status.removed.len(),
    }))
}

/// A node has a bounded number of peers: they are one page.
async fn peers(call: Call) -> Answer {
    let rows: Vec<Json> = {
        let full = full_peers(&call.node);
        let peers = peer::list(&call.node, &call.actor)?;
        peers.iter().map(|peer| peer_row(&call.node, peer, full.contains(&peer.node))).collect()
    };
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

fn full_peers(node: &Node) -> Vec<NodeId> {
    let peers = node.exchange.peers().into_iter();
    peers.filter(|(_, is_full)| *is_full).map(|(peer, _)| peer).collect()
}

fn peer_row(node: &Node, peer: &PeerStatus, is_full: bool) -> Json {
    json!({
        "node": peer.node.to_string(),
        "name": peer.name,
        "public_key": peer.public_key.to_string(),
        "address": peer.address,
        "connected": peer.is_linked(),
        "lag_ops": peer.ahead,
        "contact_at": peer.contact_ms.map(Moment::of),
        "last_error": (!peer.reason.is_empty()).then_some(&peer.reason),
        "disk_full": is_full,
        "carries": peer.carries.as_ref().map(ToString::to_string),
        "may": peer::words(node, &peer.may),
        "lets": peer.lets.as_ref().map(|lets| peer::words(node, lets)),
        "refused_ops": peer.refused,
    })
}

async fn plan(call: Call) -> Answer {
    let plans = peer::plan(&call.node, &call.actor)?;
    let rows: Vec<Json> = plans.iter().map(plan_row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

fn plan_row(plan: &peer::Plan) -> Json {
    let gap = |gap: &peer::Gap| {
        json!({
            "tenant_id": gap.stream.tenant,
            "scope": gap.stream.scope,
            "missing_here_ops": gap.here,
            "missing_there_ops": gap.there,
        })
    };
    let peer = &plan.peer;
    json!({
        "node": peer.node.to_string(),
        "name": peer.name,
        "state": peer.state.name(),
        "missing_here_ops": plan.missing_here,
        "missing_there_ops": plan.missing_there,
        "since": plan.since_ms.map(Moment::of),
        "obstacle": plan.obstacle.map(Obstacle::name),
        "reason": (!peer.reason.is_empty()).then_some(&peer.reason),
        "advice": plan.obstacle.map(Obstacle::advice),
        "clock_skew_ms": peer.clock_skew_ms,
        "streams": plan.gaps.iter().map(gap).collect::<Vec<_>>(),
        "words": plan.words,
    })
}

async fn nearby(call: Call) -> Answer {
    let row = |neighbour: &peer::Neighbour| {
        json!({
            "node": neighbour.heard.node.to_string(),
            "name": neighbour.heard.name,
            "addresses": neighbour.heard.addrs,
            "known": neighbour.is_known,
        })
    };
    let rows: Vec<Json> = peer::nearby(&call.node, &call.actor)?.iter().map(row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

async fn blobs(call: Call) -> Answer {
    Reply::data(blob_status(&blob::status(&call.node, &call.actor)?))
}

fn blob_status(status: &blob::Status) -> Json {
    let transfer = |transfer: &TransferStatus| {
        let percent = (transfer.here_bytes * 100).checked_div(transfer.size_bytes).unwrap_or(0);
        json!({
            "id": transfer.id,
            "size_bytes": transfer.size_bytes,
            "here_bytes": transfer.here_bytes,
            "percent": percent,
            "peers": transfer.peers,
        })
    };
    json!({
        "wanted": status.counts.named,
        "here": status.counts.named - status.counts.missing.min(status.counts.named),
        "missing": status.counts.missing,
        "resting": status.counts.resting,
        "size_bytes": status.size_bytes,
        "quota_bytes": (status.quota_bytes > 0).then_some(status.quota_bytes),
        "disk_full": status.disk_full,
        "fetched_bytes": status.figures.fetched_bytes,
        "served_bytes": status.figures.served_bytes,
        "false_parts": status.figures.false_parts,
        "transfers": status.transfers.iter().map(transfer).collect::<Vec<_>>(),
        "full_peers": status.full_peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

async fn blob_file(call: Call) -> Answer {
    let id = BlobId::parse(call.path("id")).ok_or_else(|| Problem::not_found("blob"))?;
    let path = blob::file(&call.node, &call.actor, id).await?;
    let name = id.to_string();
    download::file(&call, &path, "application/octet-stream", &name, &name).await
}

/// Ordered by tenant and scope; the cursor is the last one shown.
async fn streams(call: Call) -> Answer {
    let limit = call.limit()?;
    let mut heads = peer::streams(&call.node, &call.actor)?;
    heads.sort_by(|a, b| a.stream.cmp(&b.stream));
    let total = heads.len() as u64;
    if let Some(after) = call.param("cursor") {
        heads.retain(|head| head.stream.to_string().as_str() > after);
    }
    let next = heads.get(limit).and(heads.get(limit - 1)).map(|head| head.stream.to_string());
    heads.truncate(limit);
    let rows: Vec<Json> = heads.iter().map(stream_row).collect();
    Reply::rows(&call, &rows, next.as_deref(), total)
}

fn stream_row(head: &StreamHead) -> Json {
    json!({
        "tenant_id": head.stream.tenant,
        "scope": head.stream.scope,
        "records": head.records,
        "digest": hex(&head.digest.to_bytes()),
        "vector": vector(&head.vector),
        "floor": vector(&head.floor),
    })
}

fn vector(vector: &Vector) -> Map<String, Json> {
    vector.0.iter().map(|(origin, seq)| (origin.to_string(), json!(seq))).collect()
}

async fn quarantine(call: Call) -> Answer {
    let ops = peer::quarantined(&call.node, &call.actor, call.limit()?)?;
    let row = |quarantined: &atoll_storage::read::Quarantined| {
        let op = &quarantined.op;
        json!({
            "op": format!("{}:{}", op.dot.origin, op.dot.seq),
            "stream": op.stream.to_string(),
            "kind": kind_name(op.kind),
            "key": op.key,
            "at": Moment::of(quarantined.at_ms),
            "reason": quarantined.reason,
            "did": peer::did(op),
            "written_at": Moment::of(op.hlc.ms()),
            "values": values_of(&call, op),
        })
    };
    let rows: Vec<Json> = ops.iter().map(row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

/// What an op wrote, by the names of the fields, as far as the caller may see them: the value of a register, the elements
/// that a set got, a body's first text. Of a change to a body, the passages that it added and how many letters it took away;
/// of one that is too long or cannot be read, that there was one.
fn values_of(call: &Call, op: &Op) -> Map<String, Json> {
    let mut values = Map::new();
    let Some(kind) = kinds::ALL.iter().find(|kind| kind.code == op.kind) else { return values };
    let Payload::Write(write) = &op.payload else { return values };
    let seen = |code: u16| {
        let field = kind.field_by_code(code)?;
        let is_seen = match field.shown {
            Shown::Always => true,
            Shown::Privately => show::administers(&call.actor, kind),
            Shown::Never => false,
        };
        is_seen.then_some(field)
    };
    for cell in &write.cells {
        let Some(field) = seen(cell.field) else { continue };
        match (&cell.element, &cell.value) {
            (Some(element), Some(_)) => {
                let list = values.entry(field.name).or_insert_with(|| json!([]));
                if let Json::Array(list) = list {
                    list.push(shown(element, Some(field)));
                }
            }
            (Some(_), None) => {}
            (None, value) => {
                let value = value.as_ref().map(|value| shown(value, Some(field)));
                values.insert(field.name.to_owned(), json!(value));
            }
        }
    }
    for body in &write.bodies {
        let Some(field) = seen(body.field) else { continue };
        let text = match &body.edit {
            BodyEdit::Born(text) => json!(text),
            BodyEdit::Change { bytes, .. } => match body::told(bytes) {
                Some(told) => json!({ "added": told.added, "removed": told.removed }),
                None => json!("(changed)"),
            },
        };
        values.insert(field.name.to_owned(), text);
    }
    values
}

fn kind_name(code: u16) -> String {
    let kind = kinds::ALL.iter().find(|kind| kind.code == code);
    kind.map_or_else(|| format!("unknown ({code})"), |kind| kind.name.to_owned())
}

async fn carries(call: Call) -> Answer {
    Reply::data(parts::show(&call.node, &call.actor)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCarries {
    rules: Vec<String>,
    #[serde(default)]
    force: bool,
}

async fn set_carries(call: Call) -> Answer {
    let NewCarries { rules, force } = call.json()?;
    Reply::data(parts::set(&call.node, &call.actor, &rules, force).await?)
}

async fn now(call: Call) -> Answer {
    peer::sync_now(&call.node, &call.actor)?;
    bucket::visit_now(&call.node, &call.actor)?;
    Ok(Reply::data(json!({ "asked": true }))?.status(StatusCode::ACCEPTED))
}

async fn conflicts(call: Call) -> Answer {
    let wrong =
        || Problem::parameter("cursor", "wrong_cursor", "give the `next` of a page as it stands");
    let after = call.param("cursor").map(|text| Id::parse(text).ok_or_else(wrong)).transpose()?;
    let inbox = conflict::list(&call.node, &call.actor, call.limit()?, after)?;
    let sources = author::sources(&call.node, &inbox.conflicts)?;
    let both = inbox.conflicts.iter().zip(&sources);
    let rows: Vec<Json> =
        both.map(|(conflict, sources)| conflict_row(&call, conflict, sources)).collect();
    let next = inbox.next.map(|id| id.to_string());
    let total = conflict::count(&call.node, &call.actor)?;
    Reply::rows(&call, &rows, next.as_deref(), total)
}

async fn show_conflict(call: Call) -> Answer {
    let found = conflict::get(&call.node, &call.actor, call.id("id")?)?;
    let sources = author::sources(&call.node, std::slice::from_ref(&found))?;
    let mut row = conflict_row(&call, &found, sources.first().map_or(&[], Vec::as_slice));
    let differences = conflict::differences(&call.node, &found).await?;
    let values = row["values"].as_array_mut().into_iter().flatten();
    for (value, difference) in values.zip(differences) {
        if !value["value"].is_null() {
            value["diff"] = json!(difference);
        }
    }
    Reply::data(row)
}

fn conflict_row(call: &Call, conflict: &Conflict, sources: &[Source]) -> Json {
    let kind = kinds::ALL.iter().find(|kind| kind.code == conflict.kind);
    let field = kind.and_then(|kind| kind.field_by_code(conflict.field_code));
    let is_seen = match (kind, field.map(|field| field.shown)) {
        (_, Some(Shown::Always)) => true,
        (Some(kind), Some(Shown::Privately)) => show::administers(&call.actor, kind),
        _ => false,
    };
    let value = |(value, source): (&ConflictValue, &Source)| {
        json!({
            "value": is_seen.then(|| shown(&value.value, field)),
            "key": value.key,
            "author": source.author.as_ref().filter(|_| is_seen),
            "node": value.dot.origin.node.to_string(),
            "node_name": source.node_name,
            "at": Moment::of(value.hlc.ms()),
            "won": value.won,
        })
    };
    json!({
        "id": conflict.id,
        "cause": conflict.cause.name(),
        "kind": conflict.kind_name,
        "key": conflict.key,
        "field": Some(&conflict.field).filter(|field| !field.is_empty()),
        "at": Moment::of(conflict.at_ms),
        "explanation": conflict.explanation,
        "values": conflict.values.iter().zip(sources).map(value).collect::<Vec<_>>(),
    })
}

fn shown(value: &Value, field: Option<&Field>) -> Json {
    match (value, field.map(|field| field.ty)) {
        (Value::Int(ms), Some(Type::Time)) => json!(Moment(*ms)),
        (value, _) => json!(value),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settle {
    take: Option<usize>,
    write: Option<String>,
    dismiss: Option<bool>,
    delete: Option<bool>,
}

async fn resolve(call: Call) -> Answer {
    let id = call.id("id")?;
    let Settle { take, write, dismiss, delete } = call.json()?;
    let resolution = match (take, write, dismiss, delete) {
        (Some(place), None, None, None) => Resolution::Take(place),
        (None, Some(text), None, None) => Resolution::Write(text),
        (None, None, Some(true), None) => Resolution::Dismiss,
        (None, None, None, Some(true)) => Resolution::Delete,
        _ => {
            let message = "send one of `take`, `write`, `dismiss: true` and `delete: true`";
            return Err(Problem::malformed(message));
        }
    };
    conflict::resolve(&call.node, &call.actor, id, resolution).await?;
    Reply::none()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
