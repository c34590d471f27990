//! Bundles made and taken in as jobs, for who asks over HTTP: with a percentage, and with the volumes to fetch. A job that
//! was cut off begins anew, which does no harm.

use super::{Made, Order, check, export, import, info, verify};
use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::exchange::{BODY, Folder, Upload, fetched, file_of};
use crate::job::{self, Job, Progress, Task};
use crate::runtime::Node;
use atoll_storage::Id;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// The queue whose jobs make bundles or take them in.
pub const QUEUE: &str = "sync.bundle";
/// In the job's folder; later volumes have their number in the name.
const FIRST: &str = "bundle.atoll";
/// Between two notes of how far it is.
const STEP: u64 = 16;
const STEP_BYTES: u64 = 8 << 20;

#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(flatten)]
    work: Work,
    folder: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Work {
    Export { order: Order },
    Info,
    Verify,
    Import,
}

/// What to do with a volume that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Info,
    Verify,
    Import,
}

/// Puts the making of a bundle into the queue.
///
/// # Errors
/// As of [`export`], for whom the bundle cannot be made.
pub async fn start_export(node: &Node, actor: &Actor, order: Order) -> Result<Job> {
    actor.require(Permission::SyncAdminister)?;
    check(node, &order)?;
    start(node, actor, Work::Export { order }, Folder::make(node)?).await
}

/// Puts the reading of a volume into the queue.
pub async fn read_upload(
    node: &Node,
    actor: &Actor,
    reading: Reading,
    volume: Upload,
) -> Result<Job> {
    actor.require(Permission::SyncAdminister)?;
    let work = match reading {
        Reading::Info => Work::Info,
        Reading::Verify => Work::Verify,
        Reading::Import => Work::Import,
    };
    start(node, actor, work, volume.finish().await?).await
}

async fn start(node: &Node, actor: &Actor, work: Work, folder: Folder) -> Result<Job> {
    let payload = serde_json::to_value(Payload { work, folder: folder.name().to_owned() });
    let job = job::start(node, actor, QUEUE, payload.map_err(internal)?).await?;
    folder.keep();
    Ok(job)
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

/// A volume of a bundle that is made, by its number from 1.
///
/// # Errors
/// `Conflict` (`not_ready`) while it goes on; `NotFound` for a number that it has not, and once it is gone.
pub fn file(node: &Node, job: &Job, volume: u32) -> Result<PathBuf> {
    if job.state != job::DONE {
        return Err(Error::conflict("not_ready", "the bundle is not made yet: look at its job"));
    }
    let name = if volume == 1 { FIRST.to_owned() } else { format!("bundle.{volume}.atoll") };
    fetched(node, job, &name).ok_or(Error::NotFound("volume"))
}

pub(crate) async fn work(node: Arc<Node>, job: Job) -> Result<()> {
    let work = move || perform(&Arc::new(Task::new(node, job)));
    tokio::task::spawn_blocking(work).await.map_err(internal)?
}

fn perform(task: &Arc<Task>) -> Result<()> {
    let payload: Payload = serde_json::from_value(task.job.payload.clone()).map_err(internal)?;
    let actor = task.actor()?;
    let result = match payload.work {
        Work::Export { order } => {
            serde_json::to_value(make(task, &actor, &order, &payload.folder)?).map_err(internal)
        }
        Work::Info => read(task, &actor, Reading::Info),
        Work::Verify => read(task, &actor, Reading::Verify),
        Work::Import => read(task, &actor, Reading::Import),
    };
    let (job, result) = (task.job.clone(), result?);
    task.node.store.write_blocking(move |tx| job::finish_in(tx, &job, &result))
}

fn make(task: &Arc<Task>, actor: &Actor, order: &Order, folder: &str) -> Result<Made> {
    let folder = Id::parse(folder).unwrap_or_default();
    let path = task.node.folder().exchange().join(folder.to_string());
    // What an earlier attempt left.
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::Store(atoll_storage::Error::Io(error)));
        }
        _ => fs::create_dir_all(&path)
            .map_err(|error| Error::Store(atoll_storage::Error::Io(error)))?,
    }
    let mut teller = Teller::new(task, STEP, "ops, records and parts of files");
    let made =
        export(&task.node, actor, order, &path.join(FIRST), |done, of| teller.tell(done, of));
    teller.outcome?;
    let mut made = made?;
    // Where they lie is nobody's business.
    for file in &mut made.files {
        *file = std::path::Path::new(file).file_name().unwrap_or_default().to_string_lossy().into();
    }
    Ok(made)
}

fn read(task: &Arc<Task>, actor: &Actor, reading: Reading) -> Result<Json> {
    let path = file_of(&task.node, &task.job, BODY).ok_or(Error::NotFound("file"))?;
    let (node, files) = (&task.node, std::slice::from_ref(&path));
    let mut teller = Teller::new(task, STEP_BYTES, "bytes");
    let tell = |done, of| teller.tell(done, of);
    let told = match reading {
        Reading::Info => info(node, actor, files).map(|mut told| {
            let files = told.bundles.iter_mut().flat_map(|bundle| &mut bundle.files);
            files.for_each(|one| "the file".clone_into(&mut one.file));
            serde_json::to_value(told)
        }),
        Reading::Verify => verify(node, actor, files, tell).map(serde_json::to_value),
        Reading::Import => import(node, actor, files, tell).map(serde_json::to_value),
    };
    teller.outcome?;
    let told = told?.map_err(internal)?;
    crate::exchange::drop_file(&path);
    Ok(told)
}

/// Notes progress now and then, which keeps the lease.
struct Teller<'t> {
    task: &'t Arc<Task>,
    step: u64,
    unit: &'static str,
    next: u64,
    outcome: Result<()>,
}

impl<'t> Teller<'t> {
    fn new(task: &'t Arc<Task>, step: u64, unit: &'static str) -> Self {
        Self { task, step, unit, next: 0, outcome: Ok(()) }
    }

    fn tell(&mut self, done: u64, of: u64) {
        if done < self.next || self.outcome.is_err() {
            return;
        }
        self.next = done + self.step;
        let note = format!("{done} {}", self.unit);
        let to = Progress { done, of: of.max(done), note, position: Json::Null };
        let holder = self.task.clone();
        self.outcome = self.task.node.store.write_blocking(move |tx| holder.advance(tx, &to));
    }
}
