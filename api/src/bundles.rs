//! Bundles over HTTP: jobs that make them, take them in, check them and tell of them, and the volumes to fetch.

use crate::call::Call;
use crate::jobs::{self, JOB};
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, get, post};
use crate::{download, upload};
use atoll_node::Error;
use atoll_node::Permission::SyncAdminister;
use atoll_node::courier::{self, Order, QUEUE, Reading};
use atoll_node::job::{self, Job};
use atoll_storage::Field;
use atoll_storage::job::Wanted;

pub fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/sync/bundles", Can(SyncAdminister), create)
            .takes_fields(ORDER)
            .gives_fields(JOB)
            .doc(CREATE_DOC),
        post("/api/v1/sync/bundles/import", Can(SyncAdminister), import)
            .gives_fields(JOB)
            .uploads()
            .doc(IMPORT_DOC),
        post("/api/v1/sync/bundles/verify", Can(SyncAdminister), verify)
            .gives_fields(JOB)
            .uploads()
            .doc(VERIFY_DOC),
        post("/api/v1/sync/bundles/info", Can(SyncAdminister), info)
            .gives_fields(JOB)
            .uploads()
            .doc(INFO_DOC),
        get("/api/v1/sync/bundles", Can(SyncAdminister), list)
            .gives_fields(JOB)
            .pages()
            .query(&["limit", "cursor"])
            .doc("Bundles made, taken in, checked and looked at, newest first."),
        get("/api/v1/sync/bundles/{id}", Can(SyncAdminister), get_one).gives_fields(JOB).doc(
            "How far it is; under `result` the volumes that were made, or what came or was seen.",
        ),
        get("/api/v1/sync/bundles/{id}/volumes/{number}", Can(SyncAdminister), volume)
            .doc("A volume, by its number from 1, once the bundle is made. Takes Range."),
    ]
}

const PATH: &str = "/api/v1/sync/bundles";
const ORDER: &[Field] = &[
    Field::set(1, "to", atoll_storage::Type::Text).doc(
        "Peers by id, key or name: it holds what they lack, as far as their last bundles told.",
    ),
    Field::flag(2, "lock").doc("Only those peers can read it."),
    Field::flag(3, "want_only").doc("Nothing but what this node has."),
    Field::int(4, "volume_mib").doc("A volume is at most so long, 1 to 2048 MiB."),
    Field::text(5, "files").choices(&["none", "small", "all"]).doc(
        "Files that records in it name: `none`, `small` (up to `blobs.eager_bytes`; if nothing is said) or `all`. With the last \
         two come also those that the peers asked for.",
    ),
    Field::int(6, "files_mib").doc("What all files in it take at most, in MiB; 8192 if nothing is said."),
];
/// A TiB.
const MAX_FILES_MIB: u64 = 1 << 20;
const CREATE_DOC: &str =
    "Makes a bundle of what other nodes lack, for a courier to carry to where no network reaches.";
const IMPORT_DOC: &str = "Takes in the volume that is the body. Parts that are damaged are named in the job's result, and \
    all others count; to send a volume again does no harm. Its maker has to be a peer of this node.";
const VERIFY_DOC: &str = "Checks every part of the volume that is the body, and takes nothing in. What is locked for other \
    nodes is checked without being read.";
const INFO_DOC: &str = "Tells of the volume that is the body who made it and when, who can read it, what it brings by stream and \
    from where to where, and what its maker has and asks for. Takes nothing in.";

async fn create(call: Call) -> Answer {
    let order: Order = call.json()?;
    if order.volume_mib.is_some_and(|mib| !(1..=2_048).contains(&mib)) {
        return Err(Error::field("volume_mib", "out_of_range", "must be from 1 to 2048").into());
    }
    if order.files_mib.is_some_and(|mib| mib > MAX_FILES_MIB) {
        let message = format!("must be from 0 to {MAX_FILES_MIB}");
        return Err(Error::field("files_mib", "out_of_range", message).into());
    }
    let job = courier::start_export(&call.node, &call.actor, order).await?;
    jobs::accepted(&job, jobs::shown(&job), PATH)
}

async fn import(call: Call) -> Answer {
    read(call, Reading::Import).await
}

async fn verify(call: Call) -> Answer {
    read(call, Reading::Verify).await
}

async fn info(call: Call) -> Answer {
    read(call, Reading::Info).await
}

async fn read(call: Call, reading: Reading) -> Answer {
    let received = upload::receive(&call).await?;
    let job = courier::read_upload(&call.node, &call.actor, reading, received).await?;
    jobs::accepted(&job, jobs::shown(&job), PATH)
}

fn find(call: &Call) -> Result<Job, Problem> {
    let id = jobs::id(call, "bundle")?;
    Ok(job::get_of(&call.node, &call.actor, QUEUE, id, "bundle")?)
}

async fn list(call: Call) -> Answer {
    jobs::page(&call, Wanted { queue: Some(QUEUE), ..Wanted::default() }, jobs::shown)
}

async fn get_one(call: Call) -> Answer {
    Reply::data(jobs::shown(&find(&call)?))
}

async fn volume(call: Call) -> Answer {
    let job = find(&call)?;
    let number = call.path("number").parse::<u32>().unwrap_or_default();
    let path = courier::file(&call.node, &job, number)?;
    let name = format!("atoll-bundle-{}.{number}.atoll", job.id);
    let tag = format!("{}-{}-{number}", job.id, job.lease);
    download::file(&call, &path, download::BUNDLE, &name, &tag).await
}
