//! One generation of the cache: a database in a folder of its own. It opens, closes and goes; what stands in it is not
//! known here. It is never closed by a thread on which somebody waits.

use super::{Error, Slots};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Memory for pages, shared by the two generations.
const PAGE_CACHE_BYTES: u64 = 4 << 20;
/// The unit of the database's buffers; at its own 512 KiB, memory in use was measured half as large again.
const SEGMENT_BYTES: usize = 128 << 10;
const FLUSH_EVERY_MS: u64 = 30_000;
const MAX_CLOSE_TIME: Duration = Duration::from_secs(3);
/// A folder that is locked is looked at so often, at such intervals, before it counts as another process's.
const LOCK_LOOKS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const GENERATION: &str = "generation-";
const DAMAGED: &str = "damaged";

/// One database; its folder goes with the last user of a doomed one.
pub struct Generation {
    pub database: Option<sled::Db>,
    pub path: PathBuf,
    doomed: AtomicBool,
    failed: AtomicBool,
    closing: Arc<Closing>,
}

/// How many databases are being closed, each by a thread of its own.
#[derive(Default)]
pub struct Closing {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Default)]
struct Counts {
    replaced: usize,
    /// Some of these may never end.
    failed: usize,
    /// One of the replaced ones was waited for in vain.
    is_slow: bool,
}

enum OpenFailure {
    Locked,
    /// The folder is of no use, but another would be.
    Damaged(String),
    /// No folder would be of use now.
    Disk(String),
}

impl Generation {
    /// Its folder goes once nobody uses it any more.
    pub fn doom(&self) {
        self.doomed.store(true, Relaxed);
    }

    /// The same, of one that may not close any more.
    pub fn fail(&self) {
        self.failed.store(true, Relaxed);
        self.doom();
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let (database, path) = (self.database.take(), std::mem::take(&mut self.path));
        let (doomed, failed) = (*self.doomed.get_mut(), *self.failed.get_mut());
        let closing = Arc::clone(&self.closing);
        closing.begin(failed);
        let close = move || {
            if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
                tracing::warn!(folder = %path.display(), "a part of the cache panicked as it was closed");
            }
            if doomed {
                remove_folder(&path);
            }
            closing.end(failed);
        };
        if let Err(error) = std::thread::Builder::new().name("cache-close".to_owned()).spawn(close)
        {
            tracing::warn!(%error, "no thread to close a part of the cache");
            self.closing.end(failed);
        }
    }
}

impl Closing {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count(&self) -> usize {
        let counts = self.lock();
        counts.replaced + counts.failed
    }

    fn begin(&self, failed: bool) {
        let mut counts = self.lock();
        let count = if failed { &mut counts.failed } else { &mut counts.replaced };
        *count += 1;
    }

    fn end(&self, failed: bool) {
        let mut counts = self.lock();
        let count = if failed { &mut counts.failed } else { &mut counts.replaced };
        *count -= 1;
        counts.is_slow &= failed;
        self.changed.notify_all();
    }

    /// Until no generation that was replaced takes room any more; false if that takes too long, and at once from then on
    /// until one has ended.
    pub fn wait_for_replaced(&self) -> bool {
        let counts = self.lock();
        if counts.is_slow {
            return counts.replaced == 0;
        }
        let mut counts = self.wait_while(counts, |counts| counts.replaced > 0);
        counts.is_slow = counts.replaced > 0;
        !counts.is_slow
    }

    pub fn wait_for_all(&self) {
        drop(self.wait_while(self.lock(), |counts| counts.replaced + counts.failed > 0));
    }

    fn wait_while<'c>(
        &self,
        counts: MutexGuard<'c, Counts>,
        is_so: fn(&mut Counts) -> bool,
    ) -> MutexGuard<'c, Counts> {
        let waited = self.changed.wait_timeout_while(counts, MAX_CLOSE_TIME, is_so);
        let (counts, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        if outcome.timed_out() {
            tracing::warn!("a part of the cache does not close");
        }
        counts
    }
}

fn folder_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{GENERATION}{number}"))
}

/// Takes up the last two generations, the latest as the young one, and removes what a kill left of others.
pub fn open_slots(dir: &Path, closing: &Arc<Closing>) -> Result<Slots, Error> {
    let mut numbers: Vec<u64> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        numbers.extend(
            name.to_string_lossy().strip_prefix(GENERATION).and_then(|n| n.parse::<u64>().ok()),
        );
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let next = numbers.first().map_or(1, |n| n + 1);
    for number in numbers.iter().skip(2) {
        remove_folder(&folder_of(dir, *number));
    }
    let mut open: Vec<Arc<Generation>> = Vec::new();
    for number in numbers.into_iter().take(2) {
        open.extend(open_or_set_aside(dir, number, closing)?);
    }
    let mut open = open.into_iter();
    let mut slots = Slots { young: open.next(), old: open.next(), next };
    if slots.young.is_none() {
        slots.young = open_new(dir, next, closing);
        slots.next += 1;
    }
    Ok(slots)
}

fn open_or_set_aside(
    dir: &Path,
    number: u64,
    closing: &Arc<Closing>,
) -> Result<Option<Arc<Generation>>, Error> {
    let path = folder_of(dir, number);
    match open_generation(&path, closing) {
        Ok(generation) => Ok(Some(generation)),
        Err(OpenFailure::Locked) => Err(Error::Locked(dir.to_owned())),
        Err(OpenFailure::Damaged(why)) => {
            let aside = dir.join(DAMAGED);
            tracing::warn!(why, aside = %aside.display(), "a part of the cache is damaged and set aside");
            remove_folder(&aside);
            if fs::rename(&path, &aside).is_err() {
                remove_folder(&path);
            }
            Ok(None)
        }
        Err(OpenFailure::Disk(why)) => {
            tracing::warn!(why, "a part of the cache cannot be opened");
            Ok(None)
        }
    }
}

pub fn open_new(dir: &Path, number: u64, closing: &Arc<Closing>) -> Option<Arc<Generation>> {
    let path = folder_of(dir, number);
    match open_generation(&path, closing) {
        Ok(generation) => Some(generation),
        Err(OpenFailure::Locked) => None,
        Err(OpenFailure::Damaged(why) | OpenFailure::Disk(why)) => {
            tracing::warn!(why, "the cache is off for now, as no new part of it can be made");
            remove_folder(&path);
            None
        }
    }
}

fn open_generation(path: &Path, closing: &Arc<Closing>) -> Result<Arc<Generation>, OpenFailure> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(PAGE_CACHE_BYTES / 2)
        .segment_size(SEGMENT_BYTES)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(FLUSH_EVERY_MS));
    let mut opened = catch_unwind(AssertUnwindSafe(|| config.open()));
    // Threads of a database that has just been closed may hold its lock a moment longer.
    for _ in 0..LOCK_LOOKS {
        if !matches!(&opened, Ok(Err(sled::Error::Io(error))) if is_lock(error)) {
            break;
        }
        std::thread::park_timeout(LOCK_PAUSE);
        opened = catch_unwind(AssertUnwindSafe(|| config.open()));
    }
    match opened {
        Ok(Ok(database)) => {
            let (database, path) = (Some(database), path.to_owned());
            let closing = Arc::clone(closing);
            Ok(Arc::new(Generation {
                database,
                path,
                doomed: AtomicBool::new(false),
                failed: AtomicBool::new(false),
                closing,
            }))
        }
        Ok(Err(sled::Error::Io(error))) if is_lock(&error) => Err(OpenFailure::Locked),
        Ok(Err(sled::Error::Io(error))) if error.raw_os_error().is_some() => {
            Err(OpenFailure::Disk(error.to_string()))
        }
        Ok(Err(error)) => Err(OpenFailure::Damaged(error.to_string())),
        Err(_) => Err(OpenFailure::Damaged("the database panicked".to_owned())),
    }
}

/// The database says so in words only.
fn is_lock(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
        || error.to_string().contains("could not acquire lock")
}

fn remove_folder(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %path.display(), "a part of the cache could not be removed");
        }
        _ => {}
    }
}
/// Removes what was set aside.
pub fn forget_damaged(dir: &Path) {
    remove_folder(&dir.join(DAMAGED));
}
