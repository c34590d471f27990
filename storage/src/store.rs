//! The handle that everybody else holds: a writer thread that commits in groups, one that brings them to the disk, a
//! pool of readers, and a thread that moves the write-ahead log into the file.

pub(crate) mod checkpoint;
mod scrub;
mod unindexed;
mod writer;

pub use unindexed::Unindexed;
pub(crate) use unindexed::indexed_pos;

use crate::carries::Carries;
use crate::clock::Clock;
use crate::db::{Applied, Db};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::heads::StreamHead;
use crate::id::{Id, NodeId, Origin, StreamId};
use crate::kind::Kind;
use crate::listing::Listings;
use crate::log::pack;
use crate::op::Op;
use crate::read::{Plans, Reader};
use crate::replica::{
    Lane, LogReader, OpBatch, RecordKey, RecordRange, Replica, SnapshotChunk, SnapshotIndex,
};
use crate::schema;
use crate::tx::Tx;
use crate::vector::Vector;
use crate::verify::Report;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use writer::{Request, Synced, UNSYNCED, sync_groups, write_alone, write_groups};

/// Requests that may wait for the writer; more are refused.
const QUEUE: usize = 1_024;
/// Chunks of a snapshot that one handle may have in the queue when it brings another: the writer is not to wait for them,
/// and those that wait share a commit.
const MERGING: usize = 7;
/// Pooled readers; above it connections are made and thrown away.
const MAX_POOL: usize = 16;
/// Where a sync of the disk takes longer, no thread of the runtime makes one.
const QUICK_SYNC_US: u64 = 2_000;
/// Ops that are looked through for erased records while all else waits.
pub const ERASE_OPS: u64 = 5_000;

pub struct OpenOptions {
    /// Holds `atoll.db`.
    pub dir: PathBuf,
    pub kinds: &'static [&'static Kind],
    pub node: NodeId,
    pub clock: Clock,
}

struct Shared {
    path: PathBuf,
    plans: Arc<Plans>,
    node: NodeId,
    /// May rise while the store is open.
    epoch: AtomicU32,
    /// May change while the store is open.
    carries: Mutex<Arc<Carries>>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    /// Whoever holds it writes; none once the store is closed.
    db: Mutex<Option<Db>>,
    /// Requests sent to the writer's thread and not yet answered.
    waiting: AtomicU64,
    synced: Synced,
    /// What bringing writes to the disk took lately.
    sync_us: AtomicU64,
    /// Held by whatever rewrites the log.
    rewriting: Mutex<()>,
    scrub: Mutex<scrub::Scrub>,
    idle: Mutex<Vec<Connection>>,
    commits: watch::Sender<u64>,
    access_changes: AtomicU64,
    listings: Listings,
    parked: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Mutex<Option<std::sync::mpsc::Sender<()>>>,
}

/// A handle; clones share the store.
pub struct Store {
    shared: Arc<Shared>,
    /// What this handle has begun to merge and has not heard of, the oldest first.
    merging: Mutex<VecDeque<Receiver<Result<()>>>>,
}

impl Clone for Store {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), merging: Mutex::default() }
    }
}

pub const FILE: &str = "atoll.db";

impl Store {
    /// Opens or makes the file, brings the read models up to date and starts the writer.
    pub fn open(options: OpenOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.dir)?;
        let path = options.dir.join(FILE);
        check_file(&path)?;
        let db = Db::open(&path, options.kinds, options.node, options.clock)?;
        // The store brings commits to the disk itself, several at once, before it answers them.
        db.leave_syncing()?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (commits, _) = watch::channel(0);
        let (stop, stopped) = std::sync::mpsc::channel();
        let (unsynced, groups) = std::sync::mpsc::sync_channel(UNSYNCED);
        let shared = Arc::new(Shared {
            path: path.clone(),
            plans: Arc::clone(&db.plans),
            node: db.origin().node,
            epoch: AtomicU32::new(db.origin().epoch),
            carries: Mutex::new(Arc::clone(&db.carries)),
            requests: Mutex::new(Some(sender)),
            db: Mutex::new(None),
            waiting: AtomicU64::new(0),
            synced: Synced::open(&path)?,
            sync_us: AtomicU64::new(u64::MAX),
            rewriting: Mutex::new(()),
            scrub: Mutex::default(),
            idle: Mutex::new(vec![]),
            commits,
            access_changes: AtomicU64::new(0),
            listings: Listings::new(options.kinds.iter().map(|kind| kind.code)),
            parked: AtomicU64::new(0),
            threads: Mutex::new(vec![]),
            stop: Mutex::new(Some(stop)),
        });
        *lock(&shared.db) = Some(db);
        let (writer, syncer) = (Arc::clone(&shared), Arc::clone(&shared));
        let keeper = Arc::clone(&shared);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work)
        };
        let threads = vec![
            spawn("writer", Box::new(move || write_groups(receiver, &unsynced, &writer)))?,
            spawn("sync", Box::new(move || sync_groups(&groups, &syncer)))?,
            spawn("checkpoint", Box::new(move || checkpoint::run(&path, &stopped, &keeper)))?,
        ];
        *lock(&shared.threads) = threads;
        Ok(Self { shared, merging: Mutex::default() })
    }

    pub fn origin(&self) -> Origin {
        Origin { node: self.shared.node, epoch: self.shared.epoch.load(Ordering::Relaxed) }
    }

    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn sender(&self) -> Result<mpsc::Sender<Request>> {
        lock(&self.shared.requests).clone().ok_or(Error::Closed)
    }

    /// Runs `f` in a transaction; answered when it is on disk. A full queue refuses at once.
    pub async fn write<T, E>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let request = request(move |db| db.run(f), answer);
        if let Some(mut seat) = self.seat() {
            if let Some(db) = seat.as_mut() {
                write_alone(db, request, &self.shared);
            }
        } else {
            let sender = self.sender()?;
            self.shared.waiting.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = sender.try_send(request) {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                return Err(refused(error).into());
            }
        }
        wait.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// As `write`, from a thread that may wait: a full queue is waited for.
    pub fn write_blocking<T, E>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.call(move |db| db.run(f))
    }

    /// A write that meets no other is made where it is asked for, which spares it the way to the writer's thread and
    /// back. Not where it would hold up all else: on a runtime of one thread, or on a slow disk.
    fn seat(&self) -> Option<MutexGuard<'_, Option<Db>>> {
        let shared = &self.shared;
        let is_quick = shared.sync_us.load(Ordering::Relaxed) < QUICK_SYNC_US;
        if !is_quick || shared.synced.has_failed() || shared.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        if runtime.metrics().num_workers() < 2 {
            return None;
        }
        shared.db.try_lock().ok().filter(|db| db.is_some())
    }

    fn call<T, E>(&self, f: impl FnOnce(&mut Db) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.begin_call(f)?.recv().unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Puts a write into the queue, whose answer comes when it is on disk. The queue is bounded: whoever finds it full waits
    /// his turn.
    fn begin_call<T, E>(
        &self,
        f: impl FnOnce(&mut Db) -> Result<T, E> + Send + 'static,
    ) -> Result<Receiver<Result<T, E>>, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, wait) = std::sync::mpsc::channel();
        let request: Request = Box::new(move |db| {
            let result = f(db);
            Box::new(move |failed| {
                let _ = answer.send(failed.map_or(result, |error| Err(error.into())));
            })
        });
        let sender = self.sender()?;
        let mut request = Some(request);
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        while let Some(waiting) = request.take() {
            match sender.try_send(waiting) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(back)) => {
                    request = Some(back);
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    return Err(Error::Closed.into());
                }
            }
        }
        Ok(wait)
    }

    /// Reads in one transaction, on the calling thread.
    pub fn read<T>(&self, f: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        let listings = Some(self.shared.listings.now());
        self.with_connection(|conn| f(&Reader { conn, plans: &self.shared.plans, listings }))
    }

    fn with_connection<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let pooled = lock(&self.shared.idle).pop();
        let conn = match pooled {
            Some(conn) => conn,
            None => open_reader(&self.shared.path)?,
        };
        begin(&conn)?;
        let result = f(&conn);
        if conn.prepare_cached("COMMIT").and_then(|mut s| s.execute([])).is_ok() {
            let mut idle = lock(&self.shared.idle);
            if idle.len() < MAX_POOL {
                idle.push(conn);
            }
        }
        result
    }

    /// A number that rises with each commit.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.commits.subscribe()
    }

    /// A number that rises with each commit that changed who may do what: users, sessions, keys, tenants. Whoever caches
    /// such a thing asks for the number before he reads it.
    pub fn access_changes(&self) -> u64 {
        self.shared.access_changes.load(Ordering::Acquire)
    }

    /// Waits of the writer's queue, of `1024`.
    pub fn queue_depth(&self) -> usize {
        lock(&self.shared.requests).as_ref().map_or(0, |s| s.max_capacity() - s.capacity())
    }

    pub fn parked(&self) -> u64 {
        self.shared.parked.load(Ordering::Relaxed)
    }

    /// On a connection of its own, while writes go on. Waits until nothing of erased records is left in the log: a copy of
    /// the file is not told op by op.
    pub fn backup_to(&self, to: &Path, progress: impl FnMut(u64, u64)) -> Result<()> {
        while self.erase_step(ERASE_OPS)? {}
        let conn = open_reader(&self.shared.path)?;
        Db::backup_from(&conn, to, progress)
    }

    /// Holds the writer for as long as it takes.
    pub fn verify(&self) -> Result<Report> {
        self.call(|db| db.verify())
    }

    /// From now on this node carries these streams and no others. What it has of others is removed by [`Store::shed`].
    pub fn carry(&self, carries: Carries) -> Result<()> {
        self.call(move |db| db.carry_in_group(carries))
    }

    /// Removes a piece of what is carried no more; whether something is left.
    pub fn shed(&self, most: usize) -> Result<bool> {
        let _alone = lock(&self.shared.rewriting);
        self.call(move |db| db.shed_in_group(most))
    }

    /// Drops what the log holds at or below a vector; those who lack it are reconciled by state.
    pub fn trim(&self, stream: StreamId, upto: Vector) -> Result<u64> {
        let _alone = lock(&self.shared.rewriting);
        self.outside(move |db| db.trim(&stream, &upto))
    }

    /// Notes how far the log is now, so that its parts have an age. To be called now and then.
    pub fn mark_log(&self, now_ms: u64) -> Result<()> {
        self.outside(move |db| db.mark_log(now_ms))
    }

    /// Drops ops that were in the log at a time already, some `max_ops`; those who lack them are reconciled by state. With
    /// `acknowledged` only what is covered there, from the beginning of the log up to the first op that is not. How many
    /// went.
    pub fn trim_older(
        &self,
        than_ms: u64,
        max_ops: usize,
        acknowledged: Option<&BTreeMap<StreamId, Vector>>,
    ) -> Result<u64> {
        let acknowledged = acknowledged.cloned();
        let _alone = lock(&self.shared.rewriting);
        self.outside(move |db| db.trim_older(than_ms, max_ops, acknowledged.as_ref()))
    }

    /// Packs the next rows of the log but the newest `keep`: if there are enough, or those that were in it at a time
    /// already, however few; without a time, all. Reads and compresses on the calling thread. False once there is nothing
    /// to do.
    pub fn pack_log(&self, older_than_ms: Option<u64>, keep: u32) -> Result<bool> {
        let _alone = lock(&self.shared.rewriting);
        let step = self.with_connection(|conn| {
            let old_pos = pack::marked_pos(conn, older_than_ms)?;
            pack::plan(conn, old_pos, keep)
        })?;
        match step {
            Some(step) => self.outside(move |db| db.put_packed(step)),
            None => Ok(false),
        }
    }

    /// Takes what is left of erased records out of the next `max_ops` of the log. False once nothing is left.
    pub fn erase_step(&self, max_ops: u64) -> Result<bool> {
        let _alone = lock(&self.shared.rewriting);
        self.outside(move |db| db.erase_step(max_ops))
    }

    /// Shows in quarantine what removed nodes wrote late and the next `max_ops` of the log hold. False once nothing is left.
    pub fn find_late(&self, max_ops: usize) -> Result<bool> {
        let _alone = lock(&self.shared.rewriting);
        self.outside(move |db| db.find_late(max_ops))
    }

    /// Takes back, as far as nobody has, at most so many of the late ops that came before a time, Unix milliseconds. False
    /// if nothing is left of before then.
    pub fn take_back_before(&self, at_ms: u64, most: usize) -> Result<bool> {
        self.outside(move |db| db.take_back_before(at_ms, most))
    }

    pub fn rebuild(&self, progress: impl FnMut(u64, u64) + Send + 'static) -> Result<()> {
        self.outside(move |db| db.rebuild(progress))
    }

    /// Work that makes transactions of its own: the group under way is committed first.
    fn outside<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Db) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(move |db| {
            db.commit()?;
            let result = f(db);
            db.begin()?;
            result
        })
    }

    /// Stops the threads after what is queued. Later calls answer `Closed`.
    pub fn close(&self) {
        drop(lock(&self.shared.requests).take());
        drop(lock(&self.shared.stop).take());
        for thread in lock(&self.shared.threads).drain(..) {
            let _ = thread.join();
        }
        lock(&self.shared.idle).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: mpsc::error::TrySendError<Request>) -> Error {
    match error {
        mpsc::error::TrySendError::Full(_) => Error::Busy,
        mpsc::error::TrySendError::Closed(_) => Error::Closed,
    }
}

fn request<T, E>(
    f: impl FnOnce(&mut Db) -> Result<T, E> + Send + 'static,
    answer: oneshot::Sender<Result<T, E>>,
) -> Request
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    Box::new(move |db| {
        let result = f(db);
        Box::new(move |failed| {
            let _ = answer.send(failed.map_or(result, |error| Err(error.into())));
        })
    })
}

fn begin(conn: &Connection) -> Result<()> {
    conn.prepare_cached("BEGIN")?.execute([])?;
    Ok(())
}

fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_prepared_statement_cache_capacity(128);
    schema::plan_once(&conn)?;
    conn.pragma_update(None, "cache_size", -2_000)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    Ok(conn)
}

/// A file that is there but no whole database is told apart from a new one.
fn check_file(path: &Path) -> Result<()> {
    let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
    if meta.len() == 0 {
        return Ok(());
    }
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // It only looks. On a disk that is full the file would take what the start needs.
    checkpoint::leave_log(&conn, true)?;
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0))?;
    let size: i64 = conn.query_row("PRAGMA page_size", [], |r| r.get(0))?;
    let has_log = path.with_extension("db-wal").exists();
    if !has_log && (meta.len() as i64) < pages * size {
        return Err(Error::Damaged(format!("{} bytes of {} are there", meta.len(), pages * size)));
    }
    Ok(())
}

impl Store {
    fn log<T>(&self, f: impl FnOnce(&LogReader<'_>) -> Result<T>) -> Result<T> {
        let read = self.with_connection(|conn| f(&LogReader { conn, plans: &self.shared.plans }));
        // What this node may still lose is told to nobody: another write could come under the same dot.
        self.shared.synced.wait()?;
        read
    }

    /// As `call`, after what was begun.
    fn call_next<T: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut Db) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.end_merging(0)?;
        self.call(f)
    }

    /// Waits until no more than so many are being merged.
    fn end_merging(&mut self, left: usize) -> Result<()> {
        let mut merging = lock(&self.merging);
        let mut result = Ok(());
        // After one that failed, those behind it are nobody's any more.
        while merging.len() > if result.is_ok() { left } else { 0 } {
            let oldest = merging.pop_front().map_or(Ok(Ok(())), |merging| merging.recv());
            result = result.and(oldest.unwrap_or(Err(Error::Closed)));
        }
        result
    }
}

impl Replica for Store {
    fn origin(&self) -> Origin {
        Self::origin(self)
    }
    fn carries(&self) -> Arc<Carries> {
        Arc::clone(&lock(&self.shared.carries))
    }
    fn root(&mut self) -> Result<Digest> {
        self.log(|log| log.root())
    }
    fn tenants(&mut self) -> Result<Vec<(Id, Digest)>> {
        self.log(|log| log.tenants())
    }
    fn heads(&mut self, tenants: Option<&[Id]>) -> Result<Vec<StreamHead>> {
        self.log(|log| log.heads(tenants))
    }
    fn head(&mut self, stream: &StreamId) -> Result<Option<StreamHead>> {
        self.log(|log| log.head(stream))
    }
    fn log_end(&mut self) -> Result<u64> {
        self.log(|log| log.log_end())
    }
    fn start_of(&mut self, lane: Lane, known: &BTreeMap<StreamId, Vector>) -> Result<u64> {
        self.log(|log| log.start_of(lane, known))
    }
    fn ops(
        &mut self,
        lane: Lane,
        from_pos: u64,
        known: &BTreeMap<StreamId, Vector>,
        max_ops: usize,
        max_bytes: usize,
    ) -> Result<OpBatch> {
        self.log(|log| log.ops(lane, from_pos, known, max_ops, max_bytes))
    }
    fn apply(&mut self, ops: Vec<Op>) -> Result<Applied> {
        self.call_next(move |db| db.apply_in_group(ops))
    }
    fn snapshot_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.log(|log| log.snapshot_index(stream))
    }
    fn served_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.log(|log| {
            let mut index = log.snapshot_index(stream)?;
            log.mark_ahead(&mut index)?;
            Ok(index)
        })
    }
    fn snapshot_chunk(
        &mut self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<SnapshotChunk> {
        self.log(|log| log.snapshot_chunk(stream, after, upto))
    }
    fn merge_chunk(&mut self, chunk: &SnapshotChunk) -> Result<()> {
        let chunk = chunk.clone();
        self.call_next(move |db| db.merge_chunk_in_group(&chunk))
    }
    fn begin_chunk(&mut self, chunk: SnapshotChunk) -> Result<()> {
        let next = self.begin_call(move |db| db.merge_chunk_in_group(&chunk))?;
        lock(&self.merging).push_back(next);
        self.end_merging(MERGING)
    }
    fn hold(&mut self, stream: &StreamId, ranges: &[RecordRange], vector: &Vector) -> Result<()> {
        let (stream, ranges, vector) = (stream.clone(), ranges.to_vec(), vector.clone());
        self.call_next(move |db| db.hold_in_group(&stream, &ranges, &vector))
    }
    fn finish_snapshot(&mut self, stream: &StreamId, vector: &Vector) -> Result<()> {
        let (stream, vector) = (stream.clone(), vector.clone());
        self.call_next(move |db| db.finish_snapshot_in_group(&stream, &vector))
    }
    fn finish_held(&mut self, stream: &StreamId) -> Result<bool> {
        let stream = stream.clone();
        self.call_next(move |db| db.finish_held_in_group(&stream))
    }
}
