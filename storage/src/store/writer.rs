//! The writer's thread and the syncing behind it. Requests that wait are run in one transaction; the thread goes on
//! with the next ones while another brings the last ones to the disk and answers them. Never answers a write before
//! it is on disk, and never lets replication see one.

use super::checkpoint::close_sparingly;
use super::{Shared, lock};
use crate::db::Db;
use crate::error::{Error, Result};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// Requests that share a commit, at most and, if so many wait, at least.
const GROUP: usize = 256;
const SMALL_GROUP: usize = 4;
/// Groups that wait to be synced, beside the one that is.
pub(super) const UNSYNCED: usize = 1;

pub(super) type Reply = Box<dyn FnOnce(Option<Error>) + Send>;
pub(super) type Request = Box<dyn FnOnce(&mut Db) -> Reply + Send>;

/// A group that was committed and is perhaps not on disk yet.
pub(super) struct Group {
    number: u64,
    replies: Vec<Reply>,
    failed: Option<Error>,
    changed_access: bool,
    /// Of those, how many came through the writer's queue.
    queued: u64,
}

/// How far commits have come, and how far they are on disk.
pub(super) struct Synced {
    wal: File,
    /// A disk that failed once may forget what it was given and still say later that all is well.
    failed: AtomicBool,
    /// Given out before a group's commit, so that whoever sees the commit sees the number too.
    begun: AtomicU64,
    done: Mutex<u64>,
    rose: Condvar,
}

impl Synced {
    /// The write-ahead log must be there: call when the database is open.
    pub fn open(database: &Path) -> Result<Self> {
        let wal = File::options().write(true).open(database.with_extension("db-wal"))?;
        let failed = AtomicBool::new(false);
        Ok(Self {
            wal,
            failed,
            begun: AtomicU64::new(0),
            done: Mutex::new(0),
            rose: Condvar::new(),
        })
    }

    /// Brings all groups to the disk that were committed up to this one.
    fn sync(&self, upto: u64) -> Result<()> {
        let result = if self.has_failed() { Err(Error::Closed) } else { self.sync_now() };
        let mut done = lock(&self.done);
        match &result {
            Ok(()) => *done = (*done).max(upto),
            Err(_) => self.failed.store(true, Ordering::Release),
        }
        self.rose.notify_all();
        result
    }

    fn sync_now(&self) -> Result<()> {
        Ok(self.wal.sync_data()?)
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Waits until all that can be read now is on disk.
    ///
    /// # Errors
    /// `Closed` if it does not get there: the disk failed.
    pub fn wait(&self) -> Result<()> {
        let upto = self.begun.load(Ordering::Acquire);
        let mut done = lock(&self.done);
        while *done < upto {
            if self.has_failed() {
                return Err(Error::Closed);
            }
            done = self.rose.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

pub(super) fn write_groups(
    mut requests: mpsc::Receiver<Request>,
    unsynced: &SyncSender<Group>,
    shared: &Shared,
) {
    while let Some(first) = requests.blocking_recv() {
        let group = {
            let mut db = lock(&shared.db);
            let Some(db) = db.as_mut() else { return };
            let mut group = run_group(db, first, Some(&mut requests), shared);
            group.queued = group.replies.len() as u64;
            group
        };
        if unsynced.send(group).is_err() {
            return;
        }
    }
    if let Some(db) = lock(&shared.db).take()
        && let Err(error) = close_sparingly(&db.conn, &shared.path)
    {
        tracing::debug!(%error, "how the database is closed could not be chosen");
    }
}

/// Syncs what was committed and answers it, as many groups at once as there are.
pub(super) fn sync_groups(groups: &Receiver<Group>, shared: &Shared) {
    while let Ok(first) = groups.recv() {
        let mut ready = vec![first];
        ready.extend(groups.try_iter().take(UNSYNCED));
        finish(ready, shared);
    }
}

/// A request that met no other: run, synced and answered where it was asked for.
pub(super) fn write_alone(db: &mut Db, request: Request, shared: &Shared) {
    let group = run_group(db, request, None, shared);
    finish(vec![group], shared);
}

/// Runs a request, and those that wait behind it, in one transaction.
fn run_group(
    db: &mut Db,
    first: Request,
    mut others: Option<&mut mpsc::Receiver<Request>>,
    shared: &Shared,
) -> Group {
    let mut group =
        Group { number: 0, replies: vec![], failed: None, changed_access: false, queued: 0 };
    if let Err(error) = db.begin() {
        group.number = shared.synced.begun.fetch_add(1, Ordering::AcqRel) + 1;
        group.replies.push(first(db));
        group.failed = Some(error);
        return group;
    }
    group.replies.push(first(db));
    // Half of those under way: the others are being synced and answered meanwhile. If all went together, this thread, the
    // disk and whoever waits would take turns.
    let under_way = shared.waiting.load(Ordering::Relaxed) as usize;
    let most = (under_way / 2).clamp(SMALL_GROUP, GROUP);
    while group.replies.len() < most
        && let Some(next) = others.as_mut().and_then(|others| others.try_recv().ok())
    {
        group.replies.push(next(db));
    }
    // No sooner: whoever reads meanwhile sees nothing of it, and shall not wait for it.
    group.number = shared.synced.begun.fetch_add(1, Ordering::AcqRel) + 1;
    group.failed = db.commit().err();
    shared.listings.committed(group.number, db.take_touched().kinds());
    group.changed_access = group.failed.is_some() || db.heads.changed_access;
    shared.parked.store(db.parked() as u64, Ordering::Relaxed);
    shared.epoch.store(db.origin().epoch, Ordering::Relaxed);
    lock(&shared.carries).clone_from(&db.carries);
    if let Some(error) = &group.failed {
        tracing::error!(%error, "a group of writes could not be committed; none of it was kept");
    }
    group
}

/// Brings groups to the disk and answers their requests.
fn finish(groups: Vec<Group>, shared: &Shared) {
    let Some(last) = groups.last().map(|group| group.number) else { return };
    let started = Instant::now();
    let unsynced = shared.synced.sync(last).err();
    note_pace(started.elapsed().as_micros() as u64, shared);
    if let Some(error) = &unsynced {
        tracing::error!(%error, "the disk does not keep what is written: nothing more is taken until a restart");
        drop(lock(&shared.requests).take());
    }
    // Before the answers: what is cached under an older number must not outlive an acknowledged write.
    if unsynced.is_some() || groups.iter().any(|group| group.changed_access) {
        shared.access_changes.fetch_add(1, Ordering::Release);
    }
    shared.commits.send_modify(|n| *n += 1);
    for group in groups {
        let failed = group.failed.as_ref().or(unsynced.as_ref());
        shared.waiting.fetch_sub(group.queued, Ordering::Relaxed);
        for reply in group.replies {
            reply(failed.map(again));
        }
    }
}

fn note_pace(took_us: u64, shared: &Shared) {
    let usual_us = shared.sync_us.load(Ordering::Relaxed);
    let usual_us = if usual_us == u64::MAX { took_us } else { (7 * usual_us + took_us) / 8 };
    shared.sync_us.store(usual_us, Ordering::Relaxed);
}

/// The same error for each of the group.
fn again(error: &Error) -> Error {
    match error {
        Error::Full => Error::Full,
        Error::Damaged(what) => Error::Damaged(what.clone()),
        other => Error::Internal(other.to_string()),
    }
}
