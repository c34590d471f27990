//! One node: a real database in memory or in a file, a clock that can be turned, and the ends of its links.

use super::bucket::{Held, Shared};
use super::files::Shelf;
use super::small::Small;
use crate::kinds;
use crate::rng::Rng;
use atoll_node::blob::keeper::look_at_all;
use atoll_storage::{
    Chance, Clock, Db, Error, Kind, Lane, NodeId, Op, Read, Replica, StreamId, Vector,
};
use atoll_sync::key::NodeKey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Unix milliseconds at which every run begins.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

pub struct Node {
    pub number: usize,
    pub kinds: &'static [&'static Kind],
    pub db: Db,
    /// How far its clock is off.
    pub skew_ms: Arc<AtomicI64>,
    now_ms: Arc<AtomicU64>,
    /// What the ids and the epochs of all its lives are drawn from.
    chance: Arc<Mutex<Rng>>,
    pub chunk_records: Option<usize>,
    /// Of a node that visits buckets.
    pub key: Option<NodeKey>,
    /// Where its files are.
    pub shelf: Option<Shelf>,
    file: Option<PathBuf>,
    /// A copy of its file, as an administrator would have kept one.
    pub backup: Option<PathBuf>,
    /// The process that runs on a copy of its disk, and that nobody hears now.
    twin: Option<(Db, Option<PathBuf>)>,
    pub is_away: bool,
    /// Bits have flipped in its log.
    pub is_rotten: bool,
    /// Its disk has no room until then.
    pub full_until_ms: u64,
    /// The latest time that its clock ever showed.
    pub latest_wall_ms: u64,
}

pub fn clock(now_ms: &Arc<AtomicU64>, skew_ms: &Arc<AtomicI64>) -> Clock {
    let (now_ms, skew_ms) = (now_ms.clone(), skew_ms.clone());
    Clock::from_fn(move || {
        let now_ms = (BEGIN_MS + now_ms.load(Ordering::Relaxed)) as i64;
        (now_ms + skew_ms.load(Ordering::Relaxed)) as u64
    })
}

fn chance(of: &Arc<Mutex<Rng>>) -> Chance {
    let of = of.clone();
    Box::new(move || {
        let mut bytes = [0; 16];
        let mut dice = of.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&dice.number().to_le_bytes()));
        std::array::from_fn(|at| bytes[at])
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Node {
    pub fn new(
        number: usize,
        is_old: bool,
        now_ms: Arc<AtomicU64>,
        chunk_records: Option<usize>,
        dir: Option<&Path>,
        key: Option<NodeKey>,
        shelf: Option<Shelf>,
    ) -> Result<Self, String> {
        let skew_ms = Arc::new(AtomicI64::new(0));
        let kinds = if is_old { kinds::OLD } else { kinds::NEW };
        let file = dir.map(|dir| dir.join(format!("{number}.0.db")));
        let clock = clock(&now_ms, &skew_ms);
        let id = key.as_ref().map_or(NodeId([number as u8 + 1; 16]), NodeKey::node_id);
        let db = match &file {
            Some(file) => Db::open(file, kinds, id, clock),
            None => Db::open_in_memory(kinds, id, clock),
        };
        Ok(Self {
            number,
            kinds,
            db: db.map_err(text)?,
            skew_ms,
            now_ms,
            chance: Arc::new(Mutex::new(Rng::new(number as u64))),
            chunk_records,
            key,
            shelf,
            file,
            backup: None,
            twin: None,
            is_away: false,
            is_rotten: false,
            full_until_ms: 0,
            latest_wall_ms: 0,
        })
    }

    /// Ids and epochs are those of the seed.
    pub fn draw_from(&mut self, seed: u64) {
        self.chance = Arc::new(Mutex::new(Rng::new(seed.rotate_left(47) ^ self.number as u64)));
        self.db.draw_from(chance(&self.chance));
    }

    pub fn id(&self) -> NodeId {
        self.db.origin().node
    }

    /// What its clock shows is made of.
    pub fn time(&self) -> (Arc<AtomicU64>, Arc<AtomicI64>) {
        (self.now_ms.clone(), self.skew_ms.clone())
    }

    pub fn wall_ms(&self) -> u64 {
        clock(&self.now_ms, &self.skew_ms).now_ms()
    }

    /// Notes what its clock shows, now that it works with it.
    pub fn look_at_clock(&mut self) {
        self.latest_wall_ms = self.latest_wall_ms.max(self.wall_ms());
    }

    pub fn is_full(&self) -> bool {
        self.full_until_ms > 0
    }

    /// From here on the file cannot grow; 0 gives it room again.
    pub fn fill_disk(&mut self, until_ms: u64) -> Result<(), String> {
        self.full_until_ms = until_ms;
        let pages = if until_ms > 0 { 1 } else { 1 << 30 };
        let limit = format!("PRAGMA max_page_count = {pages}");
        self.db.transact(|tx| tx.conn().execute_batch(&limit).map_err(Error::from)).map_err(text)
    }

    pub fn is_old(&self) -> bool {
        self.kinds.len() == kinds::OLD.len()
    }

    /// Lends the database as sessions see it.
    pub fn with_replica<T>(&mut self, f: impl FnOnce(&mut dyn Replica) -> T) -> T {
        match self.chunk_records {
            Some(chunk_records) => f(&mut Small { db: &mut self.db, chunk_records }),
            None => f(&mut self.db),
        }
    }

    /// Copies the files as they lie there, with the database open: what a killed process leaves.
    pub fn copy(&self, name: &str) -> Result<Option<PathBuf>, String> {
        let Some(file) = &self.file else { return Ok(None) };
        let to = file.with_file_name(format!("{}.{name}.db", self.number));
        copy_files(file, &to)?;
        Ok(Some(to))
    }

    /// Goes on from another copy of the file, which is left as it is.
    pub fn reopen(&mut self, from: &Path, name: &str) -> Result<(), String> {
        let file = from.with_file_name(format!("{}.{name}.db", self.number));
        copy_files(from, &file)?;
        let clock = clock(&self.now_ms, &self.skew_ms);
        let id = self.db.origin().node;
        self.db = Db::open(&file, self.kinds, id, clock).map_err(text)?;
        self.db.draw_from(chance(&self.chance));
        (self.file, self.full_until_ms) = (Some(file), 0);
        if let Some(shelf) = &mut self.shelf {
            shelf.reopen()?;
        }
        self.look_at_files()
    }

    /// What it does with files when it starts.
    pub fn look_at_files(&mut self) -> Result<(), String> {
        let (clock, is_full) = (clock(&self.now_ms, &self.skew_ms), self.is_full());
        let Some(shelf) = &self.shelf else { return Ok(()) };
        let base = Shared::new(&mut self.db, self.chunk_records);
        look_at_all(&Held { base, shelf, clock, is_full }).map_err(text)
    }

    pub fn has_twin(&self) -> bool {
        self.twin.is_some()
    }

    /// A copy of its disk is put into another machine, which is switched on.
    pub fn clone_disk(&mut self, name: &str) -> Result<(), String> {
        let Some(file) = self.copy(name)? else { return Ok(()) };
        let clock = clock(&self.now_ms, &self.skew_ms);
        let mut db = Db::open(&file, self.kinds, self.db.origin().node, clock).map_err(text)?;
        db.draw_from(chance(&self.chance));
        self.twin = Some((db, Some(file)));
        Ok(())
    }

    /// From now on the other one of the two is heard.
    pub fn swap_twin(&mut self) {
        if let Some((db, file)) = &mut self.twin {
            std::mem::swap(&mut self.db, db);
            std::mem::swap(&mut self.file, file);
        }
    }

    /// Only the one that is heard stays.
    pub fn end_twin(&mut self) {
        self.twin = None;
    }

    pub fn log_end(&mut self) -> u64 {
        self.db.log_end().unwrap_or_default()
    }

    pub fn vectors(&mut self) -> Result<BTreeMap<StreamId, Vector>, Error> {
        Ok(self.db.heads(None)?.into_iter().map(|head| (head.stream, head.vector)).collect())
    }

    /// The ops in the log that `known` lacks, in the order in which they were applied.
    pub fn ops_since(&mut self, known: &BTreeMap<StreamId, Vector>) -> Result<Vec<Op>, Error> {
        let mut ops = Vec::new();
        for lane in [Lane::Urgent, Lane::Rest] {
            let start = self.db.start_of(lane, known)?;
            ops.extend(self.db.ops(lane, start, known, 100_000, 1 << 30)?.ops);
        }
        Ok(ops)
    }
}

fn copy_files(from: &Path, to: &Path) -> Result<(), String> {
    std::fs::copy(from, to).map_err(text)?;
    let wal = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    if wal(from).exists() {
        std::fs::copy(wal(from), wal(to)).map_err(text)?;
    }
    Ok(())
}
