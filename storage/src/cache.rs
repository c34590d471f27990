//! A cache on disk of what can be made again, and the only place that knows `sled`. It never fails a request: what goes
//! wrong is a miss and a warning. It never grows past its budget, as entries live in two generations, each a database
//! in a folder of its own: when the young one has reached half the budget, the old one goes with its folder and the
//! young one becomes old. What is read from the old one moves to the young.
//!
//! A database that could not write may never close again: none is closed where somebody waits for an answer, and none
//! is written to when the disk is nearly full.

mod generation;

use generation::{Closing, Generation, forget_damaged, open_new, open_slots};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};

pub const MAX_NAMESPACE_BYTES: usize = 64;
pub const MAX_KEY_BYTES: usize = 512;
/// Larger values are not kept.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Below this the database's own files would be most of it.
const MIN_BYTES: u64 = 8 << 20;
/// The size on disk is looked at after so many bytes written.
const LOOK_EVERY_BYTES: u64 = 512 << 10;
/// With less room on the disk, nothing more is kept: the room is for what cannot be made again.
const SPARE_BYTES: u64 = 64 << 20;
/// After a failure, or for want of room, the cache stays off for so long.
const RETRY_AFTER_MS: u64 = 10_000;
/// While so many databases are being closed, no other is opened.
const MAX_CLOSING: usize = 3;
const CLEAR_BATCH: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another process uses this cache folder ({0}): stop it first")]
    Locked(PathBuf),
    #[error("the cache folder cannot be used: {0}")]
    Io(#[from] std::io::Error),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub hits: u64,
    pub misses: u64,
    /// Errors of the database; each cost one of its two generations.
    pub failures: u64,
    /// How often the old generation was let go.
    pub rotations: u64,
}

pub struct Cache {
    dir: PathBuf,
    /// Of one generation.
    budget_bytes: u64,
    slots: RwLock<Slots>,
    /// Held by whoever exchanges generations.
    turning: Mutex<()>,
    closing: Arc<Closing>,
    unlooked_bytes: AtomicU64,
    /// There is no room on the disk.
    paused: AtomicBool,
    retry_at_ms: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
    rotations: AtomicU64,
}

#[derive(Default)]
struct Slots {
    young: Option<Arc<Generation>>,
    old: Option<Arc<Generation>>,
    /// The number of the next generation's folder.
    next: u64,
}

enum Looked {
    Absent,
    Expired,
    Fresh(sled::IVec),
}

impl Cache {
    /// Opens or makes the cache in `dir`, of at most some `max_bytes` (at least 8 MiB) on disk.
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, Error> {
        fs::create_dir_all(dir)?;
        let closing = Arc::new(Closing::default());
        let slots = open_slots(dir, &closing)?;
        let cache = Self {
            dir: dir.to_owned(),
            budget_bytes: max_bytes.max(MIN_BYTES) / 2,
            slots: RwLock::new(slots),
            turning: Mutex::new(()),
            closing,
            unlooked_bytes: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            retry_at_ms: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            rotations: AtomicU64::new(0),
        };
        cache.look_for_room();
        Ok(cache)
    }

    pub fn get(&self, namespace: &str, key: &[u8], now_ms: u64) -> Option<Vec<u8>> {
        let value = entry_key(namespace, key).and_then(|key| self.find(&key, now_ms));
        let counter = if value.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Relaxed);
        value
    }

    /// Keeps `value` until it is `ttl_ms` old, or until its room is needed. What is too large is not kept.
    pub fn put(&self, namespace: &str, key: &[u8], value: &[u8], ttl_ms: Option<u64>, now_ms: u64) {
        let Some(key) = entry_key(namespace, key) else { return };
        if value.len() > MAX_VALUE_BYTES {
            return self.remove_entry(&key);
        }
        let expires_ms = ttl_ms.map_or(u64::MAX, |ttl| now_ms.saturating_add(ttl));
        let mut entry = expires_ms.to_le_bytes().to_vec();
        entry.extend_from_slice(value);
        self.recover(now_ms);
        self.insert(&key, entry.into());
    }

    pub fn remove(&self, namespace: &str, key: &[u8]) {
        if let Some(key) = entry_key(namespace, key) {
            self.remove_entry(&key);
        }
    }

    /// Takes time with the number of entries, as each is removed.
    pub fn clear_namespace(&self, namespace: &str) {
        let Some(prefix) = entry_key(namespace, b"") else { return };
        for generation in self.generations() {
            self.ask(&generation, |database| clear_prefix(database, &prefix));
        }
    }

    pub fn stats(&self) -> Stats {
        Stats {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            failures: self.failures.load(Relaxed),
            rotations: self.rotations.load(Relaxed),
        }
    }

    pub fn size_bytes(&self) -> u64 {
        let sizes = self.generations().into_iter().map(|g| self.ask(&g, sled::Db::size_on_disk));
        sizes.map(Option::unwrap_or_default).sum()
    }

    fn find(&self, key: &[u8], now_ms: u64) -> Option<Vec<u8>> {
        for (age, generation) in self.generations().into_iter().enumerate() {
            let entry = self.ask(&generation, |database| database.get(key))?;
            match look(entry, now_ms) {
                Looked::Absent => {}
                Looked::Expired => {
                    self.remove_entry(key);
                    return None;
                }
                Looked::Fresh(entry) => {
                    let value = entry[8..].to_vec();
                    if age > 0 {
                        self.insert(key, entry);
                    }
                    return Some(value);
                }
            }
        }
        None
    }

    fn insert(&self, key: &[u8], entry: sled::IVec) {
        if self.paused.load(Relaxed) || !self.makes_room((key.len() + entry.len()) as u64) {
            return self.remove_entry(key);
        }
        if let Some(young) = self.read_slots(|slots| slots.young.clone()) {
            self.ask(&young, |database| database.insert(key, entry));
        }
    }

    /// Whether so much more may be written. Now and then it looks at the disk, and begins a new generation.
    fn makes_room(&self, bytes: u64) -> bool {
        if self.unlooked_bytes.fetch_add(bytes, Relaxed) + bytes < LOOK_EVERY_BYTES {
            return true;
        }
        self.unlooked_bytes.store(0, Relaxed);
        self.look_for_room();
        let Some(young) = self.read_slots(|slots| slots.young.clone()) else { return true };
        let on_disk = self.ask(&young, sled::Db::size_on_disk).unwrap_or(0);
        if on_disk < self.budget_bytes || self.rotate(&young) {
            return true;
        }
        // Whoever comes next looks again.
        self.unlooked_bytes.store(LOOK_EVERY_BYTES, Relaxed);
        false
    }

    /// Stops the cache where the disk is nearly full, and gives back what the old generation takes.
    fn look_for_room(&self) {
        let short = fs4::available_space(&self.dir).is_ok_and(|free| free < SPARE_BYTES);
        let old = if short { self.write_slots(|slots| slots.old.take()) } else { None };
        if let Some(old) = old {
            old.doom();
        }
        if short != self.paused.swap(short, Relaxed) {
            tracing::warn!(short, "the room on the disk for the cache has changed");
        }
    }

    fn remove_entry(&self, key: &[u8]) {
        for generation in self.generations() {
            self.ask(&generation, |database| database.remove(key));
        }
    }

    /// The young one first.
    fn generations(&self) -> Vec<Arc<Generation>> {
        self.read_slots(|slots| slots.young.iter().chain(&slots.old).cloned().collect())
    }

    fn read_slots<T>(&self, read: impl FnOnce(&Slots) -> T) -> T {
        read(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write_slots<T>(&self, write: impl FnOnce(&mut Slots) -> T) -> T {
        write(&mut self.slots.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs one call on the database; one that fails or panics takes its generation with it.
    fn ask<T>(
        &self,
        generation: &Arc<Generation>,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Option<T> {
        let database = generation.database.as_ref()?;
        let why = match catch_unwind(AssertUnwindSafe(|| call(database))) {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database panicked".to_owned(),
        };
        tracing::warn!(why, folder = %generation.path.display(), "a part of the cache failed and is made anew");
        self.failures.fetch_add(1, Relaxed);
        let is_it = |slot: &Option<Arc<Generation>>| {
            slot.as_ref().is_some_and(|g| Arc::ptr_eq(g, generation))
        };
        self.write_slots(|slots| {
            if is_it(&slots.young) {
                slots.young = None;
            }
            if is_it(&slots.old) {
                slots.old = None;
            }
        });
        generation.fail();
        None
    }

    /// Lets the old generation go and begins a new one; whether there is one. There is none yet while another thread is
    /// doing so, or the one that went before still takes its room.
    fn rotate(&self, full: &Arc<Generation>) -> bool {
        let Some(_turn) = self.take_turn() else { return false };
        let still_young =
            |slots: &Slots| slots.young.as_ref().is_some_and(|g| Arc::ptr_eq(g, full));
        if !self.read_slots(still_young) {
            return true;
        }
        // Whoever writes faster than databases are closed waits here, so that they don't pile up.
        if !self.closing.wait_for_replaced() {
            return false;
        }
        forget_damaged(&self.dir);
        let fresh = self.open_next();
        let oldest = self.write_slots(|slots| {
            let grown = std::mem::replace(&mut slots.young, fresh);
            std::mem::replace(&mut slots.old, grown)
        });
        self.rotations.fetch_add(1, Relaxed);
        if let Some(oldest) = oldest {
            oldest.doom();
        }
        true
    }

    /// Looks, now and then, whether a cache that is off can be on again.
    fn recover(&self, now_ms: u64) {
        let lost = self.read_slots(|slots| slots.young.is_none());
        if !(lost || self.paused.load(Relaxed)) || now_ms < self.retry_at_ms.load(Relaxed) {
            return;
        }
        let Some(_turn) = self.take_turn() else { return };
        self.retry_at_ms.store(now_ms.saturating_add(RETRY_AFTER_MS), Relaxed);
        self.look_for_room();
        if self.read_slots(|slots| slots.young.is_none()) && !self.paused.load(Relaxed) {
            let fresh = self.open_next();
            self.write_slots(|slots| slots.young = fresh);
        }
    }

    fn take_turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turning.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn open_next(&self) -> Option<Arc<Generation>> {
        if self.closing.count() >= MAX_CLOSING {
            tracing::warn!(
                "the cache is off, as parts of it that failed cannot be closed: start the node anew"
            );
            return None;
        }
        let number = self.write_slots(|slots| {
            slots.next += 1;
            slots.next - 1
        });
        open_new(&self.dir, number, &self.closing)
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("dir", &self.dir)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.write_slots(std::mem::take);
        self.closing.wait_for_all();
    }
}

/// Keys of a namespace lie together and never begin like those of another.
fn entry_key(namespace: &str, key: &[u8]) -> Option<Vec<u8>> {
    if namespace.len() > MAX_NAMESPACE_BYTES || key.len() > MAX_KEY_BYTES {
        return None;
    }
    let mut name = Vec::with_capacity(1 + namespace.len() + key.len());
    name.push(namespace.len() as u8);
    name.extend_from_slice(namespace.as_bytes());
    name.extend_from_slice(key);
    Some(name)
}

fn look(entry: Option<sled::IVec>, now_ms: u64) -> Looked {
    let Some(entry) = entry else { return Looked::Absent };
    match entry.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) {
        Some(expires_ms) if now_ms < expires_ms => Looked::Fresh(entry),
        _ => Looked::Expired,
    }
}

fn clear_prefix(database: &sled::Db, prefix: &[u8]) -> sled::Result<()> {
    loop {
        let mut batch = sled::Batch::default();
        let mut count = 0;
        for key in database.scan_prefix(prefix).keys().take(CLEAR_BATCH) {
            batch.remove(key?);
            count += 1;
        }
        database.apply_batch(batch)?;
        if count < CLEAR_BATCH {
            return Ok(());
        }
    }
}
