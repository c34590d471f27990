//! Documents that were loaded a moment ago, by the hash of the bytes that they load from. Whoever saves a text over and
//! over then loads its history once. What is found here is what loading would give, so nothing ever makes an entry stale.

use automerge::AutoCommit;
use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Of all bytes that the documents load from; in memory they take some times as much. The latest is kept whatever its
/// size.
const MAX_BYTES: usize = 1 << 20;
const MAX_DOCUMENTS: usize = 32;

struct Entry {
    hash: blake3::Hash,
    size: usize,
    doc: AutoCommit,
}

/// The latest at the back.
static RECENT: LazyLock<Mutex<VecDeque<Entry>>> = LazyLock::new(Mutex::default);

/// Names the document that loads from these bytes, one after the other.
pub fn name_of(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Out of the memo: whoever takes a document puts it back when nothing went wrong with it.
pub fn take(hash: blake3::Hash) -> Option<AutoCommit> {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = recent.iter().position(|entry| entry.hash == hash)?;
    recent.remove(at).map(|entry| entry.doc)
}

pub fn put(hash: blake3::Hash, size: usize, doc: AutoCommit) {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.retain(|entry| entry.hash != hash);
    recent.push_back(Entry { hash, size, doc });
    let mut bytes: usize = recent.iter().map(|entry| entry.size).sum();
    while recent.len() > 1 && (bytes > MAX_BYTES || recent.len() > MAX_DOCUMENTS) {
        bytes -= recent.pop_front().map_or(0, |entry| entry.size);
    }
}
