//! One SQLite file and the one connection that writes to it. Requests run in savepoints of a group; the group
//! commits once. Synchronous and without threads, so that a simulator can drive it as well as the writer thread.

use crate::carries::Carries;
use crate::clock::{Clock, Hlc};
use crate::codec;
use crate::error::{Error, Result};
use crate::heads::Heads;
use crate::id::{Dot, Id, NodeId, Origin, StreamId};
use crate::kind::Kind;
use crate::op::Op;
use crate::read::{Plans, Reader, load};
use crate::record::Record;
use crate::revoked::Cuts;
use crate::schema;
use crate::tx::Tx;
use crate::view::Unsettled;
use rusqlite::{Connection, OpenFlags, params};
use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Ops that came too early, at most; more are dropped, and come again since they do not count as received.
const MAX_PARKED: usize = 20_000;
const MAX_PARKED_BYTES: usize = 64 << 20;
/// A minute and more ahead of this node's wall.
const FUTURE_MS: u64 = 60_000;

pub struct Db {
    pub(crate) conn: Connection,
    pub(crate) plans: Arc<Plans>,
    pub(crate) heads: Heads,
    pub(crate) origin: Origin,
    pub(crate) unsettled: Unsettled,
    pub(crate) clock: Clock,
    /// What of the network is here; all else is refused.
    pub(crate) carries: Arc<Carries>,
    /// None until somebody asks.
    pub(crate) known_cuts: Option<Arc<Cuts>>,
    kept: Kept,
    touched: RefCell<Touched>,
    parked: BTreeMap<StreamId, BTreeMap<Dot, Op>>,
    parked_count: usize,
    parked_bytes: usize,
    /// Ops that the running attempt took from the parked ones; they go back if it fails.
    released: Vec<Op>,
    /// What is written now is also in the log, and need not be told twice.
    pub(crate) is_logging: bool,
    /// Nothing was written since the group began: to undo a request is to begin again, and needs no savepoint.
    is_fresh: bool,
    /// Ops seen whose clock was far ahead.
    pub future_ops: u64,
    /// Instead of the system's randomness.
    chance: Option<Chance>,
}

/// What ids and epochs are made of.
pub type Chance = Box<dyn FnMut() -> [u8; 10] + Send>;

/// Records of kinds that are read by most writes, as the transaction has them. A change forgets its record, a failure all.
#[derive(Default)]
struct Kept(RefCell<HashMap<(u16, Id), Record>>);

impl Kept {
    /// More are not kept.
    const MOST: usize = 256;

    fn get(&self, kind: &Kind, key: Id) -> Option<Record> {
        self.0.borrow().get(&(kind.code, key)).cloned()
    }

    fn put(&self, record: &Record) {
        let mut records = self.0.borrow_mut();
        if records.len() >= Self::MOST {
            records.clear();
        }
        records.insert((record.kind.code, record.key), record.clone());
    }

    fn remove(&self, kind: u16, key: Id) {
        self.0.borrow_mut().remove(&(kind, key));
    }

    fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The kinds whose records were written since somebody asked.
#[derive(Default)]
pub(crate) struct Touched {
    kinds: HashSet<u16>,
    all: bool,
}

impl Touched {
    /// `None` for all kinds.
    pub fn kinds(&self) -> Option<&HashSet<u16>> {
        (!self.all).then_some(&self.kinds)
    }
}

fn kept_epoch(conn: &Connection) -> Result<Option<u32>> {
    let bytes = schema::meta(conn, "epoch")?.and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map(u32::from_le_bytes))
}

/// What became of a batch of a peer's ops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub applied: usize,
    pub skipped: usize,
    pub parked: usize,
    pub quarantined: usize,
    /// Written by a removed node after it was removed: applied, and taken back.
    pub late: usize,
    /// Of streams that are not carried here: dropped.
    pub refused: usize,
    pub streams: Vec<StreamId>,
}

impl Db {
    pub fn open(
        path: &Path,
        kinds: &'static [&'static Kind],
        node: NodeId,
        clock: Clock,
    ) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        crate::store::checkpoint::close_sparingly(&conn, path)?;
        conn.pragma_update(None, "page_size", 4096)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.pragma_update(None, "journal_size_limit", 128 << 20)?;
        conn.pragma_update(None, "cache_size", -16_000)?;
        // What was deleted is not left in the pages that are written anyway.
        conn.pragma_update(None, "secure_delete", "FAST")?;
        // Each request is a savepoint: what undoes it is kept in memory, not in a file of its own.
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        Self::over(conn, kinds, node, clock)
    }

    pub fn open_in_memory(
        kinds: &'static [&'static Kind],
        node: NodeId,
        clock: Clock,
    ) -> Result<Self> {
        Self::over(Connection::open_in_memory()?, kinds, node, clock)
    }

    fn over(
        conn: Connection,
        kinds: &'static [&'static Kind],
        node: NodeId,
        clock: Clock,
    ) -> Result<Self> {
        conn.set_prepared_statement_cache_capacity(256);
        crate::schema::plan_once(&conn)?;
        conn.pragma_update(None, "trusted_schema", false)?;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let stale = schema::prepare(&conn, kinds)?;
        let epoch = match kept_epoch(&conn)? {
            Some(epoch) => epoch,
            None => {
                schema::put_meta(&conn, "epoch", &1u32.to_le_bytes())?;
                1
            }
        };
        let carries = Arc::new(crate::shed::kept_carries(&conn)?);
        conn.execute_batch("COMMIT")?;
        let heads = Heads::load(&conn)?;
        let mut db = Self {
            conn,
            plans: Arc::new(Plans::new(kinds)),
            heads,
            origin: Origin { node, epoch },
            unsettled: Unsettled::default(),
            clock,
            carries,
            known_cuts: None,
            kept: Kept::default(),
            touched: RefCell::default(),
            parked: BTreeMap::new(),
            parked_count: 0,
            parked_bytes: 0,
            released: vec![],
            is_logging: false,
            is_fresh: false,
            future_ops: 0,
            chance: None,
        };
        db.rebuild_kinds(&stale)?;
        Ok(db)
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Draws from `chance` from now on, so that a simulated run can be repeated. It must not begin anew in another life of
    /// the node.
    pub fn draw_from(&mut self, chance: Chance) {
        self.chance = Some(chance);
    }

    /// From now on a commit is on disk only once the caller has synced the write-ahead log.
    pub(crate) fn leave_syncing(&self) -> Result<()> {
        Ok(self.conn.pragma_update(None, "synchronous", "NORMAL")?)
    }

    /// Starts a new life: after a restore, a clone or a copied image no dot can be named twice. The leap is random,
    /// since one backup may be put back twice.
    pub fn raise_epoch(&mut self) -> Result<Origin> {
        let [a, b, c, ..] = self.random();
        let leap = u32::from_le_bytes([a, b, c, 0]) + 1;
        self.origin.epoch = self.origin.epoch.wrapping_add(leap);
        schema::put_meta(&self.conn, "epoch", &self.origin.epoch.to_le_bytes())?;
        Ok(self.origin)
    }

    /// Somebody has ops of this node that this node has not: its file is an older copy, put back by hand or running
    /// twice. What it counted on from there would name other ops alike.
    pub(crate) fn leave_foreign_epoch(&mut self, stream: &StreamId, theirs: u64) -> Result<()> {
        let mine = self.heads.head(stream).map_or(0, |head| head.vector.get(self.origin));
        if theirs > mine {
            self.savepoint(Self::raise_epoch)?;
            let epoch = self.origin.epoch;
            tracing::warn!(%stream, epoch, "a peer has writes of this node that it has not: the data folder is an older copy. It goes on under a new epoch; if the other one still runs, give it a new folder and let it join");
        }
        Ok(())
    }

    pub(crate) fn random(&mut self) -> [u8; 10] {
        if let Some(chance) = &mut self.chance {
            return chance();
        }
        let mut bytes = [0; 10];
        if getrandom::fill(&mut bytes).is_err() {
            // Without the system's randomness ids still differ, by node and by clock.
            self.heads.hlc = Hlc(self.heads.hlc.0 + 1);
            let hash = blake3::hash(
                &[&self.origin.to_bytes()[..], &self.heads.hlc.0.to_le_bytes()].concat(),
            );
            bytes.copy_from_slice(&hash.as_bytes()[..10]);
        }
        bytes
    }

    /// A record as the transaction has it so far.
    pub(crate) fn get(&self, kind: &'static Kind, key: Id) -> Result<Option<Record>> {
        let Some(plan) = self.plans.of(kind.code) else { return Ok(None) };
        if !kind.kept {
            return load(&self.conn, plan, key);
        }
        if let Some(record) = self.kept.get(kind, key) {
            return Ok(Some(record));
        }
        let found = load(&self.conn, plan, key)?;
        found.iter().for_each(|record| self.kept.put(record));
        Ok(found)
    }

    /// To be called by whatever writes a row.
    pub(crate) fn forget_kept(&self, kind: u16, key: Id) {
        self.kept.remove(kind, key);
        self.touched.borrow_mut().kinds.insert(kind);
    }

    pub(crate) fn forget_all_kept(&self) {
        self.kept.clear();
        self.touched.borrow_mut().all = true;
    }

    pub(crate) fn take_touched(&self) -> Touched {
        self.touched.take()
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader { conn: &self.conn, plans: &self.plans, listings: None }
    }

    /// One request in a group of its own.
    pub fn transact<T, E: From<Error>>(
        &mut self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin()?;
        let result = self.run(f);
        self.commit()?;
        result
    }

    pub(crate) fn begin(&mut self) -> Result<()> {
        self.execute("BEGIN IMMEDIATE")?;
        self.is_fresh = true;
        Ok(())
    }

    /// Commits the group. If that fails nothing of it is kept.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let done = self.has_transaction().and_then(|()| {
            self.heads.flush(&self.conn)?;
            self.conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(())
        });
        if let Err(error) = done {
            let _ = self.conn.execute_batch("ROLLBACK");
            self.heads = Heads::load(&self.conn)?;
            self.kept.clear();
            self.known_cuts = None;
            self.origin.epoch = kept_epoch(&self.conn)?.unwrap_or(self.origin.epoch);
            self.carries = Arc::new(crate::shed::kept_carries(&self.conn)?);
            return Err(error);
        }
        Ok(())
    }

    /// A disk that is full in the middle of a statement makes SQLite give up the whole transaction. What would be
    /// written then would be on its own, without the ops of the group that it builds on.
    fn has_transaction(&self) -> Result<()> {
        if self.conn.is_autocommit() { Err(Error::Full) } else { Ok(()) }
    }

    /// One request of the group: a failure, even a panic, undoes it alone.
    pub(crate) fn run<T, E: From<Error>>(
        &mut self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let now_ms = self.clock.now_ms();
        self.savepoint(|db| {
            let value = f(&mut Tx { db, now_ms })?;
            db.settle()?;
            Ok(value)
        })
    }

    pub(crate) fn savepoint<T, E: From<Error>>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.has_transaction()?;
        let is_first = std::mem::take(&mut self.is_fresh);
        if !is_first {
            self.execute("SAVEPOINT request")?;
        }
        self.heads.begin();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let value = f(self)?;
            self.has_transaction()?;
            Ok(value)
        }));
        if let Ok(Ok(value)) = result {
            if !is_first {
                self.execute("RELEASE request")?;
            }
            return Ok(value);
        }
        self.heads.roll_back();
        self.kept.clear();
        self.known_cuts = None;
        self.is_logging = false;
        self.unsettled = Unsettled::default();
        if is_first {
            // SQLite ends the transaction itself after some failures, a full disk among them.
            if !self.conn.is_autocommit() {
                self.execute("ROLLBACK")?;
            }
            self.begin()?;
        } else if self.has_transaction().is_ok() {
            self.execute("ROLLBACK TO request")?;
            self.execute("RELEASE request")?;
        }
        match result {
            Ok(result) => result,
            Err(_) => {
                Err(Error::Internal("a write panicked; nothing of it was kept".into()).into())
            }
        }
    }

    fn execute(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Applies a peer's ops: what the vector covers is skipped, what comes too early is parked, what cannot be
    /// applied is quarantined and counted as received. Everything else is one transaction.
    pub fn apply(&mut self, ops: Vec<Op>) -> Result<Applied> {
        self.begin()?;
        let result = self.apply_in_group(ops);
        self.commit()?;
        result
    }

    pub(crate) fn apply_in_group(&mut self, ops: Vec<Op>) -> Result<Applied> {
        let result = self.receive_all(ops);
        for stream in result.iter().flat_map(|applied| &applied.streams) {
            let number = self.heads.stream_number(&self.conn, stream)?;
            self.prune_ahead(number)?;
        }
        result
    }

    fn receive_all(&mut self, mut ops: Vec<Op>) -> Result<Applied> {
        self.released.clear();
        let came = ops.len();
        ops.retain(|op| self.is_carried(&op.stream));
        let refused = came - ops.len();
        for op in &ops {
            if op.dot.origin == self.origin {
                self.leave_foreign_epoch(&op.stream, op.dot.seq)?;
            }
        }
        let attempt = self.savepoint(|db| {
            let mut applied = Applied { refused, ..Applied::default() };
            for op in &ops {
                db.receive(op, &mut applied, false)?;
            }
            db.settle()?;
            Ok::<_, Error>(applied)
        });
        match attempt {
            Err(Error::Full | Error::Damaged(_) | Error::Closed) | Ok(_) => attempt,
            Err(_) => {
                std::mem::take(&mut self.released).into_iter().for_each(|op| self.park(op));
                let mut applied = Applied { refused, ..Applied::default() };
                for op in &ops {
                    self.receive(op, &mut applied, true)?;
                }
                Ok(applied)
            }
        }
    }

    fn receive(&mut self, op: &Op, applied: &mut Applied, one_by_one: bool) -> Result<()> {
        if self.heads.covers(&op.stream, op.dot) {
            applied.skipped += 1;
            return Ok(());
        }
        if !self.is_ready(&op.stream, op) {
            self.park(op.clone());
            applied.parked += 1;
            return Ok(());
        }
        self.accept_in_time(op, applied, one_by_one)?;
        while let Some(next) = self.unpark(&op.stream) {
            self.accept_in_time(&next, applied, one_by_one)?;
        }
        Ok(())
    }

    pub(crate) fn accept(
        &mut self,
        op: &Op,
        applied: &mut Applied,
        one_by_one: bool,
    ) -> Result<()> {
        let now_ms = self.clock.now_ms();
        if op.hlc.ms() > now_ms + FUTURE_MS {
            self.future_ops += 1;
        }
        self.heads.hlc = self.heads.hlc.observe(now_ms, op.hlc);
        self.heads.hlc_must_be_kept = true;
        if !applied.streams.contains(&op.stream) {
            applied.streams.push(op.stream.clone());
        }
        if !one_by_one {
            self.apply_op(op)?;
            applied.applied += 1;
            return Ok(());
        }
        let result = self.savepoint(|db| {
            db.apply_op(op)?;
            db.settle()
        });
        match result {
            Ok(()) => applied.applied += 1,
            Err(error @ (Error::Full | Error::Damaged(_))) => return Err(error),
            Err(error) => {
                self.savepoint(|db| db.quarantine(op, &error.to_string(), now_ms))?;
                applied.quarantined += 1;
            }
        }
        Ok(())
    }

    fn quarantine(&mut self, op: &Op, reason: &str, now_ms: u64) -> Result<()> {
        tracing::warn!(stream = %op.stream, dot = ?op.dot, reason, "an op cannot be applied and is kept in quarantine");
        let stream = self.note_quarantine(op, reason, now_ms)?;
        self.log(stream, op)
    }

    /// Shows an op among those in quarantine. The number of its stream.
    pub(crate) fn note_quarantine(&mut self, op: &Op, reason: &str, now_ms: u64) -> Result<i64> {
        let stream = self.heads.stream_number(&self.conn, &op.stream)?;
        let origin = self.heads.origin_number(&self.conn, op.dot.origin)?;
        let sql = "INSERT OR REPLACE INTO quarantine VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let args =
            params![stream, origin, op.dot.seq as i64, now_ms as i64, reason, codec::encode(op)];
        self.conn.prepare_cached(sql)?.execute(args)?;
        Ok(stream)
    }

    fn park(&mut self, op: Op) {
        let bytes = op.size_bytes();
        if self.parked_count >= MAX_PARKED || self.parked_bytes + bytes > MAX_PARKED_BYTES {
            return;
        }
        let slot = self.parked.entry(op.stream.clone()).or_default();
        if let Entry::Vacant(place) = slot.entry(op.dot) {
            place.insert(op);
            (self.parked_count, self.parked_bytes) =
                (self.parked_count + 1, self.parked_bytes + bytes);
        }
    }

    /// A parked op whose past has come. Looks at the next one of each origin only, however many wait.
    fn unpark(&mut self, stream: &StreamId) -> Option<Op> {
        let waiting = self.parked.get(stream)?;
        let (mut gone, mut ready) = (Vec::new(), None);
        let mut at = waiting.keys().next().map(|dot| dot.origin);
        while let Some(origin) = at {
            let seq = self.heads.head(stream).map_or(0, |head| head.vector.get(origin)) + 1;
            gone.extend(
                waiting.range(Dot { origin, seq: 0 }..Dot { origin, seq }).map(|(dot, _)| *dot),
            );
            let next = waiting.get(&Dot { origin, seq }).filter(|op| self.is_ready(stream, op));
            if let Some(op) = next {
                gone.push(op.dot);
                ready = Some(op.clone());
                break;
            }
            let others = (Bound::Excluded(Dot { origin, seq: u64::MAX }), Bound::Unbounded);
            at = waiting.range(others).next().map(|(dot, _)| dot.origin);
        }
        let waiting = self.parked.get_mut(stream)?;
        for op in gone.iter().filter_map(|dot| waiting.remove(dot)) {
            self.parked_count -= 1;
            self.parked_bytes -= op.size_bytes();
        }
        if waiting.is_empty() {
            self.parked.remove(stream);
        }
        self.released.extend(ready.clone());
        ready
    }

    pub(crate) fn forget_parked(&mut self, stream: &StreamId) {
        for op in self.parked.remove(stream).unwrap_or_default().into_values() {
            self.parked_count -= 1;
            self.parked_bytes -= op.size_bytes();
        }
    }

    pub fn parked(&self) -> usize {
        self.parked_count
    }
}
