//! Making a backup and proving it: written, restored into a scratch folder, verified, compared by its digest; then the
//! old ones go. As a job of the node's own schedule or of an administrator's, on a thread that stands back behind all
//! that requests wait for.

use super::kept::{self, PREFIX, Proof};
use super::{Error, Manifest, Result, fill, prove, size_bytes, write_all};
use crate::access::{Actor, Permission};
use crate::identity::tenant;
use crate::job::{self, DEAD, DONE, Job, Progress, RUNNING, Task, WAITING};
use crate::moment::Moment;
use crate::runtime::Node;
use atoll_storage::job::of_queue;
use atoll_storage::tx::Tx;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The queue whose jobs are backups.
pub const QUEUE: &str = "node.backup";
/// Left free beside the backup and its scratch folder: the node goes on writing.
const RESERVE_BYTES: u64 = 64 << 20;
/// Ended jobs of the schedule that are kept to be looked at.
const ENDED_KEPT: usize = 20;
/// Where a backup is restored to be proven, and what is not whole yet.
const SCRATCH: &str = "scratch";
const UNFINISHED: &str = "unfinished";
/// Between two notes of how far it is.
const BEAT: Duration = Duration::from_secs(1);
/// A job that notes nothing loses its lease.
const BEATS_TO_LEASE: u32 = 60;

/// Puts a backup into the queue.
///
/// # Errors
/// `Conflict` (`backup_under_way`) while one waits or is made.
pub async fn start(node: &Node, actor: &Actor) -> crate::Result<Job> {
    actor.require(Permission::SyncAdminister)?;
    if node.store.read(|reader| of_queue(reader, QUEUE, 1))?.iter().any(is_under_way) {
        return Err(kept::under_way());
    }
    job::start(node, actor, QUEUE, json!({})).await
}

fn is_under_way(job: &Job) -> bool {
    job.state == WAITING || job.state == RUNNING
}

/// The schedule: called every minute.
pub async fn round(node: &Arc<Node>) -> crate::Result<()> {
    let looking = node.clone();
    let is_due = tokio::task::spawn_blocking(move || {
        kept::look(&looking)?;
        kept::is_due(&looking)
    });
    let is_due = is_due.await.map_err(|error| crate::Error::Internal(error.to_string()))?;
    if !is_due.map_err(Error::hopeless)? || !tenant::exists(node)? {
        return Ok(());
    }
    let queued = node
        .store
        .write(|tx: &mut Tx| {
            let ended = of_queue(tx, QUEUE, 1_000)?;
            if ended.iter().any(is_under_way) {
                return Ok(());
            }
            let own = ended.iter().filter(|job| job.tenant.is_none());
            let own = own.filter(|job| job.state == DONE || job.state == DEAD);
            for job in own.skip(ENDED_KEPT) {
                tx.drop_job(job.id)?;
            }
            let now_ms = tx.now_ms();
            tx.enqueue(QUEUE, &json!({}), now_ms).map(|_| ())
        })
        .await;
    Ok(queued?)
}

/// How far it is, between the thread that works and the task that notes it.
#[derive(Default)]
struct Far {
    progress: Mutex<Progress>,
    is_stopped: AtomicBool,
}

impl Far {
    fn tell(&self, done: u64, of: u64, note: &str) -> Result<()> {
        let to = Progress { done, of, note: note.to_owned(), position: Json::Null };
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = to;
        if self.is_stopped.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    fn told(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whoever drops the task ends the thread's work at its next word.
struct StopsWhenDropped(Arc<Far>);

impl Drop for StopsWhenDropped {
    fn drop(&mut self) {
        self.0.is_stopped.store(true, Ordering::Relaxed);
    }
}

pub(crate) async fn work(node: Arc<Node>, job: Job) -> crate::Result<()> {
    let far = Arc::new(Far::default());
    let _stops = StopsWhenDropped(far.clone());
    let task = Arc::new(Task::new(node.clone(), job));
    let (working, telling) = (node.clone(), far.clone());
    let made = node.run_in_background("atoll-backup", move || {
        let made = make(&working, &|done, of, note| telling.tell(done, of, note));
        if let Err(error) = kept::look(&working) {
            tracing::warn!(%error, "the backups that there are could not be looked through");
        }
        made
    });
    tokio::pin!(made);
    let mut beats = tokio::time::interval(BEAT);
    let (mut noted, mut silent) = (Progress::default(), 0);
    let proof = loop {
        tokio::select! {
            made = &mut made => break made?.map_err(Error::hopeless)?,
            _ = beats.tick() => {}
        }
        let to = far.told();
        silent += 1;
        if (to.done, &to.note) != (noted.done, &noted.note) || silent >= BEATS_TO_LEASE {
            (noted, silent) = (to.clone(), 0);
            let task = task.clone();
            node.store.write(move |tx| task.advance(tx, &to)).await?;
        }
    };
    let result =
        serde_json::to_value(&proof).map_err(|error| crate::Error::Internal(error.to_string()))?;
    let job = task.job.clone();
    node.store.write(move |tx| job::finish_in(tx, &job, &result)).await
}

/// Makes a backup in the folder of the settings, proves it, and removes the old ones. For a thread that may wait.
///
/// # Errors
/// `NoRoom` before anything is written, if it and its scratch folder would not fit.
pub fn make(node: &Node, tell: &dyn Fn(u64, u64, &str) -> Result<()>) -> Result<Proof> {
    let _alone = node.backups.take()?;
    let folder = kept::folder(node);
    fs::create_dir_all(&folder).map_err(|error| Error::io("make", &folder, error))?;
    // What a killed process left.
    for left in [SCRATCH, UNFINISHED].map(|name| folder.join(own(node, name))) {
        clear(&left)?;
    }
    let estimated = size_bytes(node)?;
    has_room(&folder, 2 * estimated)?;
    let draft = folder.join(own(node, UNFINISHED));
    super::file::make_folder(&draft)?;
    let made = write_all(node, &draft, &|done, of| tell(done, 3 * of, "copying"));
    if made.is_err() {
        clear(&draft)?;
    }
    let made = made?;
    let name = name_of(&folder, node.clock.now_ms());
    let path = folder.join(&name);
    fs::rename(&draft, &path).map_err(|error| Error::io("make", &path, error))?;
    let scratch = folder.join(own(node, SCRATCH));
    let proven = has_room(&folder, made.bytes).and_then(|()| {
        let of = 3 * made.bytes;
        prove_in(
            &path,
            &scratch,
            &|done, _| tell(made.bytes + done, of, "restoring into a scratch folder"),
            &|| tell(2 * made.bytes, of, "verifying what was restored"),
        )
    });
    let cleared = clear(&scratch);
    let (manifest, report) = proven?;
    let proof = Proof {
        node: manifest.node.clone(),
        epoch: manifest.epoch,
        created_ms: manifest.created_ms,
        proven_ms: node.clock.now_ms(),
        digest: manifest.digest.clone(),
        records: report.records,
        ops: report.ops,
        files: manifest.files.len(),
        size_bytes: manifest.size_bytes(),
    };
    kept::write_proof(&path, &proof)?;
    cleared?;
    let removed = kept::prune(node)?;
    tracing::info!(backup = %path.display(), bytes = made.bytes, removed, "a backup was made and proven");
    Ok(proof)
}

fn prove_in(
    from: &Path,
    scratch: &Path,
    tell: super::Tell<'_>,
    verifying: &dyn Fn() -> Result<()>,
) -> Result<(Manifest, atoll_storage::Report)> {
    let manifest = Manifest::read(from)?;
    super::file::make_folder(scratch)?;
    fill(from, &manifest, scratch, tell)?;
    verifying()?;
    let report = prove(scratch, &manifest)?;
    Ok((manifest, report))
}

/// Several nodes may share a folder.
fn own(node: &Node, name: &str) -> String {
    format!("{name}-{}", node.id())
}

/// `backup-2026-01-31T12-00-00`, with a number if there is one of this second.
fn name_of(folder: &Path, now_ms: u64) -> String {
    let moment = Moment::of(now_ms / 1_000 * 1_000).to_string();
    let second = moment.get(..19).unwrap_or(&moment).replace(':', "-");
    let numbered = |n: u32| if n == 1 { String::new() } else { format!("-{n}") };
    let names = (1_u32..).map(|n| format!("{PREFIX}{second}{}", numbered(n)));
    names.into_iter().find(|name| !folder.join(name).exists()).unwrap_or_default()
}

fn clear(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn has_room(folder: &Path, bytes: u64) -> Result<()> {
    let free = fs4::available_space(folder).map_err(|error| Error::io("measure", folder, error))?;
    if free >= bytes + RESERVE_BYTES {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::NoRoom(format!(
        "{} MiB are needed and {} MiB are free in {}: free some space, or set backup.folder to a larger disk",
        mib(bytes + RESERVE_BYTES),
        free >> 20,
        folder.display()
    )))
}
