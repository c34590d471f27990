//! The buckets that this node meets others in. They are added on the command line, by who runs the node: keys do not come
//! over HTTP, and nobody is sent to addresses of somebody else's choice.

use crate::call::Call;
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get};
use atoll_node::Permission::SyncAdminister;
use atoll_node::bucket::{self, Found, Obstacle, Seen, Standing};
use atoll_storage::Field;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![get("/api/v1/sync/buckets", Can(SyncAdminister), list).gives_fields(BUCKET).pages().doc(
        "The stores and folders in which this node meets others that are never up with it: who comes there, what stands \
         there, and why the last visit failed if it did.",
    )]
}

const BUCKET: &[Field] = &[
    Field::text(1, "name").required(),
    Field::text(2, "url").required(),
    Field::text(3, "endpoint").doc("Of an S3-compatible store."),
    Field::flag(4, "open").required().doc("What is left there is not locked for its readers."),
    Field::text(5, "state")
        .required()
        .doc("new, reached, or waiting for the next visit after one that failed."),
    Field::time(6, "contact_at").doc("The last visit that went well."),
    Field::text(7, "obstacle").doc("Why the last visit failed, in one word; null if it did not."),
    Field::text(8, "reason").doc("The same in a sentence."),
    Field::text(9, "advice").doc("What to do about it."),
    Field::int(10, "next_s").doc("Seconds until the next visit."),
    Field::int(11, "taken").required().doc("Bundles taken in, since the start."),
    Field::int(12, "left").required().doc("Bundles left for others, since the start."),
];

/// A node has a bounded number of buckets: they are one page.
async fn list(call: Call) -> Answer {
    let rows: Vec<Json> = bucket::list(&call.node, &call.actor)?.iter().map(row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

fn row(standing: &Standing) -> Json {
    let obstacle = standing.obstacle;
    json!({
        "name": standing.name,
        "url": standing.url,
        "endpoint": standing.endpoint,
        "open": standing.is_open,
        "state": standing.state(),
        "contact_at": standing.contact_ms.map(Moment::of),
        "obstacle": obstacle.map(Obstacle::name),
        "reason": (!standing.reason.is_empty()).then_some(&standing.reason),
        "advice": obstacle.map(Obstacle::advice).filter(|advice| !advice.is_empty()),
        "next_s": standing.next_s,
        "taken": standing.taken,
        "left": standing.left,
        "found": standing.found.as_ref().map(found),
    })
}

/// What the last visit found.
fn found(found: &Found) -> Json {
    let member = |seen: &Seen| {
        json!({
            "node": seen.node.to_string(),
            "name": seen.name,
            "lacks_ops": seen.lacks_ops,
            "differs_in": seen.differs_in,
            "carries": (!seen.carries.is_everything()).then(|| seen.carries.to_string()),
            "lacks_files": seen.lacks_files,
            "absent": seen.is_absent,
        })
    };
    let refused =
        |(object, reason): &(String, String)| json!({ "object": object, "reason": reason });
    let left_out = |(file, reason): &(String, String)| json!({ "file": file, "reason": reason });
    json!({
        "members": found.members.iter().map(member).collect::<Vec<_>>(),
        "objects": found.objects,
        "own_objects": found.own_objects,
        "size_bytes": found.size_bytes,
        "waiting": found.waiting,
        "refused": found.refused.iter().map(refused).collect::<Vec<_>>(),
        "foreign": found.foreign,
        "files_asked": found.files_asked,
        "files_taken": found.files_taken,
        "files_left_out": found.files_left_out.iter().map(left_out).collect::<Vec<_>>(),
        "parcels": found.parcels,
    })
}
