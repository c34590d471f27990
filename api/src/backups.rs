//! The backups that this node makes of itself: which there are and which are proven. Shows no place on the disk, and
//! gives none out: a backup holds the node's private keys.

use crate::call::Call;
use crate::jobs::{self, JOB};
use crate::moment::Moment;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get, post};
use atoll_node::Permission::SyncAdminister;
use atoll_node::backup::{kept, work};
use atoll_storage::Field;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/backups", Can(SyncAdminister), list)
            .gives_fields(BACKUP)
            .pages()
            .doc("The backups that this node made of itself, newest first."),
        post("/api/v1/backups", Can(SyncAdminister), create).gives_fields(JOB).doc(
            "Makes a backup now: written, restored into a scratch folder, verified; then old ones go.",
        ),
    ]
}

const BACKUP: &[Field] = &[
    Field::text(1, "name").required().doc("Its folder."),
    Field::time(2, "created_at").required(),
    Field::int(3, "files").required(),
    Field::int(4, "size_bytes").required(),
    Field::text(5, "digest").required().doc("Over all streams, as in the status of the node."),
    Field::time(6, "proven_at").doc("When it was restored and found whole; null if it was not."),
    Field::int(7, "records").doc("Found in what was restored."),
];

/// There are only so many: they are one page.
async fn list(call: Call) -> Answer {
    let (node, actor) = (call.node.clone(), call.actor);
    let kept = tokio::task::spawn_blocking(move || kept::list(&node, &actor)).await;
    let kept = kept.map_err(|error| atoll_node::Error::Internal(error.to_string()))??;
    let rows: Vec<Json> = kept.iter().map(row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

fn row(kept: &kept::Kept) -> Json {
    json!({
        "name": kept.name,
        "created_at": Moment::of(kept.created_ms),
        "files": kept.files,
        "size_bytes": kept.size_bytes,
        "digest": kept.digest,
        "proven_at": kept.proof.as_ref().map(|proof| Moment::of(proof.proven_ms)),
        "records": kept.proof.as_ref().map(|proof| proof.records),
    })
}

async fn create(call: Call) -> Answer {
    let job = work::start(&call.node, &call.actor).await?;
    jobs::accepted(&job, jobs::shown(&job), "/api/v1/jobs")
}
