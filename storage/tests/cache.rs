//! The cache on a real disk: expiry, its budget, and that damage costs entries and nothing else.

use atoll_storage::cache::{Cache, MAX_KEY_BYTES, MAX_NAMESPACE_BYTES, MAX_VALUE_BYTES};
use std::fs;
use std::path::{Path, PathBuf};

const BUDGET: u64 = 8 << 20;

type Spoiling = (&'static str, fn(&Path));

fn open(dir: &Path) -> Cache {
    Cache::open(dir, BUDGET).unwrap()
}

fn size_of(dir: &Path) -> u64 {
    // Folders may go while they are read.
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |path: PathBuf| {
        if path.is_dir() { size_of(&path) } else { fs::metadata(path).map_or(0, |m| m.len()) }
    };
    entries.flatten().map(|entry| size(entry.path())).sum()
}

fn databases(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().path().join("db")).collect();
    all.retain(|path| path.is_file());
    all.sort();
    all
}

/// Bytes that no compression makes small.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn what_was_put_is_there_until_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    cache.put("page", b"a", b"short", Some(100), 1_000);
    cache.put("page", b"b", b"", None, 1_000);
    assert_eq!(cache.get("page", b"a", 1_099).as_deref(), Some(&b"short"[..]));
    assert_eq!(cache.get("page", b"a", 1_100), None);
    assert_eq!(cache.get("page", b"b", u64::MAX - 1).as_deref(), Some(&b""[..]));
    assert_eq!(cache.get("other", b"b", 0), None);
    cache.put("page", b"b", b"new", None, 1_000);
    assert_eq!(cache.get("page", b"b", 1_000).as_deref(), Some(&b"new"[..]));
    cache.remove("page", b"b");
    assert_eq!(cache.get("page", b"b", 1_000), None);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.failures), (3, 3, 0));
}

#[test]
fn entries_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).put("page", b"a", b"kept", None, 1);
    assert_eq!(open(dir.path()).get("page", b"a", 2).as_deref(), Some(&b"kept"[..]));
}

#[test]
fn a_namespace_is_cleared_without_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    for n in 0..2_500_u32 {
        cache.put("page", &n.to_be_bytes(), b"x", None, 1);
        cache.put("pages", &n.to_be_bytes(), b"y", None, 1);
    }
    cache.clear_namespace("page");
    for n in 0..2_500_u32 {
        assert_eq!(cache.get("page", &n.to_be_bytes(), 1), None);
        assert!(cache.get("pages", &n.to_be_bytes(), 1).is_some());
    }
}

#[test]
fn what_is_too_large_is_not_kept_and_hides_nothing_old() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    cache.put("n", b"k", b"before", None, 1);
    cache.put("n", b"k", &vec![0; MAX_VALUE_BYTES + 1], None, 1);
    assert_eq!(cache.get("n", b"k", 1), None);
    cache.put("n", &vec![0; MAX_KEY_BYTES + 1], b"x", None, 1);
    assert_eq!(cache.get("n", &vec![0; MAX_KEY_BYTES + 1], 1), None);
    let long = "n".repeat(MAX_NAMESPACE_BYTES + 1);
    cache.put(&long, b"k", b"x", None, 1);
    assert_eq!(cache.get(&long, b"k", 1), None);
    cache.put("n", b"large", &vec![9; MAX_VALUE_BYTES], None, 1);
    assert_eq!(cache.get("n", b"large", 1).map(|v| v.len()), Some(MAX_VALUE_BYTES));
}

#[test]
fn it_never_grows_past_its_budget_and_keeps_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    cache.put("hot", b"key", b"read all the time", None, 1);
    let mut largest = 0;
    for n in 0..4_000_u64 {
        let len = if n % 50 == 0 { 300_000 } else { 4_000 };
        cache.put("page", &n.to_be_bytes(), &noise(n, len), None, 1);
        assert!(cache.get("hot", b"key", 1).is_some(), "lost after {n}");
        if n % 100 == 0 {
            largest = largest.max(size_of(dir.path()));
        }
    }
    let stats = cache.stats();
    assert!(stats.rotations >= 4, "{stats:?}");
    assert_eq!(stats.failures, 0);
    // Buffers not yet written, and a folder that is just being closed.
    assert!(largest <= 2 * BUDGET, "{largest} bytes on disk");
    assert!(cache.get("page", &0_u64.to_be_bytes(), 1).is_none());
    assert!(cache.get("page", &3_999_u64.to_be_bytes(), 1).is_some());
}

#[test]
fn no_damage_is_more_than_a_miss() {
    let ways: [Spoiling; 5] = [
        ("cut in half", |db| {
            let bytes = fs::read(db).unwrap();
            fs::write(db, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("emptied", |db| fs::write(db, "").unwrap()),
        ("flipped", |db| {
            let mut bytes = fs::read(db).unwrap();
            for at in (100..bytes.len()).step_by(5_003) {
                bytes[at] ^= 0x40;
            }
            fs::write(db, bytes).unwrap();
        }),
        ("overwritten", |db| fs::write(db, noise(1, 700_000)).unwrap()),
        ("with a spoilt configuration", |db| {
            fs::write(db.with_file_name("conf"), [0xff; 40]).unwrap();
        }),
    ];
    for (what, spoil) in ways {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        for n in 0..600_u64 {
            cache.put("page", &n.to_be_bytes(), &noise(n, 3_000), None, 1);
        }
        drop(cache);
        for db in databases(dir.path()) {
            spoil(&db);
        }

        let cache = open(dir.path());
        for n in 0..600_u64 {
            let value = cache.get("page", &n.to_be_bytes(), 1);
            assert!(value.is_none_or(|value| value == noise(n, 3_000)), "{what}: a wrong value");
        }
        // Off for ten seconds at most, then it works again.
        for now_ms in [1, 20_000, 40_000] {
            cache.put("page", b"after", b"works", None, now_ms);
        }
        assert_eq!(cache.get("page", b"after", 40_001).as_deref(), Some(&b"works"[..]), "{what}");
        drop(cache);
        assert!(open(dir.path()).get("page", b"after", 40_001).is_some(), "{what}");
    }
}

#[test]
fn a_folder_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    assert!(matches!(Cache::open(dir.path(), BUDGET), Err(atoll_storage::cache::Error::Locked(_))));
}

#[test]
fn many_threads_share_it() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let cache = &cache;
            scope.spawn(move || {
                for n in 0..1_500_u64 {
                    let value = noise(n, 3_000);
                    cache.put("page", &n.to_be_bytes(), &value, None, 1);
                    let other = (n * 7 + thread) % 1_500;
                    let read = cache.get("page", &other.to_be_bytes(), 1);
                    assert!(read.is_none_or(|read| read == noise(other, 3_000)));
                    if n % 100 == thread {
                        cache.remove("page", &other.to_be_bytes());
                    }
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.failures == 0 && stats.hits > 0, "{stats:?}");
}
