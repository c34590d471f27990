//! The handle that everybody else holds: a writer thread that commits in groups, a pool of readers, and a thread
//! that moves the write-ahead log into the file.

use crate::clock::Clock;
use crate::db::{Applied, Db};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::heads::StreamHead;
use crate::id::{Id, NodeId, Origin, StreamId};
use crate::kind::Kind;
use crate::op::Op;
use crate::read::{Plans, Read, Reader};
use crate::replica::{
    Lane, LogReader, OpBatch, RecordKey, RecordRange, Replica, SnapshotChunk, SnapshotIndex,
};
use crate::schema;
use crate::tx::Tx;
use crate::vector::Vector;
use crate::verify::Report;
use rusqlite::{Connection, OpenFlags, params};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that may wait for the writer; more are refused.
const QUEUE: usize = 1_024;
/// Requests that share a commit, at most.
const GROUP: usize = 256;
/// Pooled readers; above it connections are made and thrown away.
const MAX_POOL: usize = 16;
/// The write-ahead log is moved into the file at least this often while it grows.
const CHECKPOINT: Duration = Duration::from_millis(1_000);
/// From this size on the log is begun anew at each checkpoint.
const WAL_BYTES: u64 = 32 << 20;
/// Where commits take longer, no thread of the runtime makes one.
const QUICK_COMMIT_US: u64 = 2_000;
/// What a checkpoint waits for readers, at most: writers wait with it.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(10);

pub struct OpenOptions {
    /// Holds `atoll.db`.
    pub dir: PathBuf,
    pub kinds: &'static [&'static Kind],
    pub node: NodeId,
    pub clock: Clock,
}

type Reply = Box<dyn FnOnce(Option<Error>) + Send>;
type Request = Box<dyn FnOnce(&mut Db) -> Reply + Send>;

struct Shared {
    path: PathBuf,
    plans: Arc<Plans>,
    node: NodeId,
    /// May rise while the store is open.
    epoch: AtomicU32,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    /// Whoever holds it writes; none once the store is closed.
    db: Mutex<Option<Db>>,
    /// Requests sent to the writer's thread and not yet answered.
    waiting: AtomicU64,
    /// What a commit took lately.
    commit_us: AtomicU64,
    idle: Mutex<Vec<Connection>>,
    commits: watch::Sender<u64>,
    access_changes: AtomicU64,
    parked: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Mutex<Option<std::sync::mpsc::Sender<()>>>,
}

#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

pub const FILE: &str = "atoll.db";

impl Store {
    /// Opens or makes the file, brings the read models up to date and starts the writer.
    pub fn open(options: OpenOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.dir)?;
        let path = options.dir.join(FILE);
        check_file(&path)?;
        let db = Db::open(&path, options.kinds, options.node, options.clock)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (commits, _) = watch::channel(0);
        let (stop, stopped) = std::sync::mpsc::channel();
        let shared = Arc::new(Shared {
            path: path.clone(),
            plans: Arc::clone(&db.plans),
            node: db.origin().node,
            epoch: AtomicU32::new(db.origin().epoch),
            requests: Mutex::new(Some(sender)),
            db: Mutex::new(None),
            waiting: AtomicU64::new(0),
            commit_us: AtomicU64::new(u64::MAX),
            idle: Mutex::new(vec![]),
            commits,
            access_changes: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            threads: Mutex::new(vec![]),
            stop: Mutex::new(Some(stop)),
        });
        *lock(&shared.db) = Some(db);
        let (writer, keeper) = (Arc::clone(&shared), Arc::clone(&shared));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work)
        };
        let threads = vec![
            spawn("writer", Box::new(move || write_groups(receiver, &writer)))?,
            spawn("checkpoint", Box::new(move || checkpoint(&path, &stopped, &keeper)))?,
        ];
        *lock(&shared.threads) = threads;
        Ok(Self { shared })
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
                commit_group(db, request, None, &self.shared);
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
        let is_quick = shared.commit_us.load(Ordering::Relaxed) < QUICK_COMMIT_US;
        if !is_quick || shared.waiting.load(Ordering::Relaxed) > 0 {
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
        let (answer, wait) = std::sync::mpsc::channel();
        let request: Request = Box::new(move |db| {
            let result = f(db);
            Box::new(move |failed| {
                let _ = answer.send(failed.map_or(result, |error| Err(error.into())));
            })
        });
        // The queue is bounded: whoever finds it full waits its turn.
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
        wait.recv().unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Reads in one transaction, on the calling thread.
    pub fn read<T>(&self, f: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        self.with_connection(|conn| f(&Reader { conn, plans: &self.shared.plans }))
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

    /// Records to be searched that changed since the index was last fed: those that the log tells of, and those on the
    /// list of what came otherwise.
    pub fn unindexed(&self, limit: usize) -> Result<Unindexed> {
        self.read(|reader| {
            let pos = indexed_pos(reader.conn)?;
            let mut found = Unindexed { records: vec![], before: pos, pos, listed: 0, more: false };
            let sql = "SELECT pos, kind, key FROM dirty ORDER BY pos LIMIT ?1";
            let mut statement = reader.conn.prepare_cached(sql)?;
            let mut rows = statement.query([limit as i64])?;
            while let Some(row) = rows.next()? {
                found.listed = row.get::<_, i64>(0)? as u64;
                found.records.push((row.get(1)?, Id(row.get(2)?)));
            }
            found.more = found.records.len() >= limit;
            let (mut ops, mut bytes) = (0, 0);
            let sql =
                "SELECT pos, kind, key, length(payload) FROM op WHERE pos > ?1 ORDER BY pos LIMIT ?2";
            let mut statement = reader.conn.prepare_cached(sql)?;
            let mut rows = statement.query(params![found.pos as i64, limit as i64])?;
            while let Some(row) = rows.next()? {
                found.pos = row.get::<_, i64>(0)? as u64;
                ops += 1;
                bytes += row.get::<_, i64>(3)?;
                let kind: u16 = row.get(1)?;
                if reader.plans.of(kind).is_some_and(|plan| plan.kind.search.is_some()) {
                    found.records.push((kind, Id(row.get(2)?)));
                }
                if bytes > UNINDEXED_BYTES {
                    break;
                }
            }
            found.more |= ops >= limit || bytes > UNINDEXED_BYTES;
            Ok(found)
        })
    }

    /// How many changes the index may not hold yet.
    pub fn unindexed_depth(&self) -> Result<u64> {
        self.read(|reader| {
            let sql =
                "SELECT (SELECT count(*) FROM dirty) + coalesce((SELECT max(pos) FROM op), 0)";
            let n: i64 = reader.conn.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
            Ok((n as u64).saturating_sub(indexed_pos(reader.conn)?))
        })
    }

    /// Notes that the index holds what [`Store::unindexed`] gave. Call from a thread that may wait.
    pub fn note_indexed(&self, fed: &Unindexed) -> Result<()> {
        let (pos, listed) = (fed.pos, fed.listed);
        self.write_blocking(move |tx| {
            if listed > 0 {
                tx.conn().execute("DELETE FROM dirty WHERE pos <= ?1", [listed as i64])?;
            }
            schema::put_meta(tx.conn(), INDEXED, &pos.to_le_bytes())
        })
    }

    /// Queues every record of the searched kinds, for an index that is made anew.
    pub fn mark_all_dirty(&self) -> Result<()> {
        self.write_blocking(move |tx| {
            for kind in tx.plans().kinds.iter().filter(|k| k.search.is_some()) {
                let table = schema::table_of(kind);
                let sql =
                    format!("INSERT INTO dirty (kind, key) SELECT {}, key FROM {table}", kind.code);
                tx.conn().execute(&sql, [])?;
            }
            Ok(())
        })
    }

    /// On a connection of its own, while writes go on.
    pub fn backup_to(&self, to: &Path, progress: impl FnMut(u64, u64)) -> Result<()> {
        let conn = open_reader(&self.shared.path)?;
        Db::backup_from(&conn, to, progress)
    }

    /// Holds the writer for as long as it takes.
    pub fn verify(&self) -> Result<Report> {
        self.call(|db| db.verify())
    }

    /// Drops what the log holds at or below a vector; those who lack it are reconciled by state.
    pub fn trim(&self, stream: StreamId, upto: Vector) -> Result<u64> {
        self.outside(move |db| db.trim(&stream, &upto))
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

/// What the search index is to take in, and how far that brings it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unindexed {
    /// Kind and key; one may stand there more than once.
    pub records: Vec<(u16, Id)>,
    /// In the log: how far the index was fed, and how far it is now.
    before: u64,
    pos: u64,
    /// On the list of what came without an op.
    listed: u64,
    /// There may be others after these.
    pub more: bool,
}

impl Unindexed {
    pub fn is_empty(&self) -> bool {
        self.pos == self.before && self.listed == 0
    }

    /// Where in the log the index stands once it holds these.
    pub fn cursor(&self) -> u64 {
        self.pos
    }
}

/// Of the ops that are taken into the index at once: as much is held in memory.
const UNINDEXED_BYTES: i64 = 16 << 20;
const INDEXED: &str = "indexed_pos";

/// Up to where in the log the search index knows everything.
pub(crate) fn indexed_pos(conn: &Connection) -> Result<u64> {
    let bytes = schema::meta(conn, INDEXED)?.and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map_or(0, u64::from_le_bytes))
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
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0))?;
    let size: i64 = conn.query_row("PRAGMA page_size", [], |r| r.get(0))?;
    let has_log = path.with_extension("db-wal").exists();
    if !has_log && (meta.len() as i64) < pages * size {
        return Err(Error::Damaged(format!("{} bytes of {} are there", meta.len(), pages * size)));
    }
    Ok(())
}

fn write_groups(mut requests: mpsc::Receiver<Request>, shared: &Shared) {
    while let Some(first) = requests.blocking_recv() {
        let mut db = lock(&shared.db);
        let Some(db) = db.as_mut() else { return };
        let done = commit_group(db, first, Some(&mut requests), shared);
        shared.waiting.fetch_sub(done, Ordering::Relaxed);
    }
    drop(lock(&shared.db).take());
}

/// Runs a request, and those that wait behind it, in one transaction; answers them when it is on disk. How many.
fn commit_group(
    db: &mut Db,
    first: Request,
    mut others: Option<&mut mpsc::Receiver<Request>>,
    shared: &Shared,
) -> u64 {
    if let Err(error) = db.begin() {
        first(db)(Some(error));
        return 1;
    }
    let mut replies = vec![first(db)];
    while replies.len() < GROUP
        && let Some(next) = others.as_mut().and_then(|others| others.try_recv().ok())
    {
        replies.push(next(db));
    }
    let started = Instant::now();
    let failed = db.commit().err();
    let took_us = started.elapsed().as_micros() as u64;
    let usual_us = shared.commit_us.load(Ordering::Relaxed);
    let usual_us = if usual_us == u64::MAX { took_us } else { (7 * usual_us + took_us) / 8 };
    shared.commit_us.store(usual_us, Ordering::Relaxed);
    if let Some(error) = &failed {
        tracing::error!(%error, "a group of writes could not be committed; none of it was kept");
    }
    shared.parked.store(db.parked() as u64, Ordering::Relaxed);
    shared.epoch.store(db.origin().epoch, Ordering::Relaxed);
    // Before the answers: what is cached under an older number must not outlive an acknowledged write.
    if failed.is_some() || db.heads.changed_access {
        shared.access_changes.fetch_add(1, Ordering::Release);
    }
    shared.commits.send_modify(|n| *n += 1);
    let done = replies.len() as u64;
    for reply in replies {
        reply(failed.as_ref().map(again));
    }
    done
}

/// The same error for each of the group.
fn again(error: &Error) -> Error {
    match error {
        Error::Full => Error::Full,
        Error::Damaged(what) => Error::Damaged(what.clone()),
        other => Error::Internal(other.to_string()),
    }
}

fn checkpoint_once(conn: &Connection, mode: &str) {
    let _ = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
}

fn checkpoint(path: &Path, stopped: &std::sync::mpsc::Receiver<()>, shared: &Shared) {
    let Ok(conn) = Connection::open(path) else { return };
    let _ = conn.busy_timeout(CHECKPOINT_WAIT);
    let mut seen = 0;
    loop {
        let stop = !matches!(
            stopped.recv_timeout(CHECKPOINT),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        );
        let version: i64 = conn.query_row("PRAGMA data_version", [], |r| r.get(0)).unwrap_or(0);
        if version != seen || stop {
            seen = version;
            let size = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |m| m.len());
            checkpoint_once(&conn, "PASSIVE");
            if stop {
                checkpoint_once(&conn, "TRUNCATE");
            } else if size > WAL_BYTES {
                // The second pass leaves next to nothing for the third, which writers wait for. The file keeps its size:
                // to write over it costs the disk less than to make it grow.
                checkpoint_once(&conn, "PASSIVE");
                let _seat = lock(&shared.db);
                checkpoint_once(&conn, "RESTART");
            }
        }
        if stop {
            return;
        }
    }
}

impl Store {
    fn log<T>(&self, f: impl FnOnce(&LogReader<'_>) -> Result<T>) -> Result<T> {
        self.with_connection(|conn| f(&LogReader { conn, plans: &self.shared.plans }))
    }
}

impl Replica for Store {
    fn origin(&self) -> Origin {
        Self::origin(self)
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
        self.call(move |db| db.apply_in_group(ops))
    }
    fn snapshot_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.log(|log| log.snapshot_index(stream))
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
        self.call(move |db| db.merge_chunk_in_group(&chunk))
    }
    fn hold(&mut self, stream: &StreamId, ranges: &[RecordRange], vector: &Vector) -> Result<()> {
        let (stream, ranges, vector) = (stream.clone(), ranges.to_vec(), vector.clone());
        self.call(move |db| db.hold_in_group(&stream, &ranges, &vector))
    }
    fn finish_snapshot(&mut self, stream: &StreamId, vector: &Vector) -> Result<()> {
        let (stream, vector) = (stream.clone(), vector.clone());
        self.call(move |db| db.finish_snapshot_in_group(&stream, &vector))
    }
}
