//! Blobs on a real disk: what is acknowledged, what a broken-off writer leaves, damage and limits.

use atoll_storage::blob::tree::{self, Checker, Run, Step};
use atoll_storage::blob::{
    BlobId, Blobs, DIRECT_ALIGNMENT, Error, MAX_RANGE_BYTES, Partial, Verified,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

fn path_of(dir: &Path, id: &BlobId) -> PathBuf {
    let name = id.to_string();
    dir.join(&name[..2]).join(&name[2..4]).join(&name)
}

#[test]
fn a_blob_written_in_pieces_is_read_back_under_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut writer = blobs.writer(1_000_000).unwrap();
    for piece in [&b"some "[..], b"", b"bytes"] {
        writer.write(piece).unwrap();
    }
    assert_eq!(writer.size_bytes(), 10);
    let id = writer.finish().unwrap();

    assert_eq!(id, BlobId::of(b"some bytes"));
    assert_eq!(files(dir.path()), [path_of(dir.path(), &id)]);
    let mut text = String::new();
    blobs.get(&id).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "some bytes");
    assert_eq!(blobs.size_bytes(&id).unwrap(), Some(10));
    assert_eq!(blobs.verify(&id).unwrap(), Verified::Intact);
}

#[test]
fn an_id_reads_back_what_it_shows() {
    let id = BlobId::of(b"x");
    assert_eq!(BlobId::parse(&id.to_string()), Some(id));
    for bad in ["", "ab", &"g".repeat(64), &"é".repeat(32), &"a".repeat(65)] {
        assert_eq!(BlobId::parse(bad), None, "{bad}");
    }
}

#[test]
fn ranges_end_where_the_blob_ends() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let id = blobs.put(b"0123456789").unwrap();
    let range = |offset, len| blobs.read_range(&id, offset, len).unwrap().unwrap();
    assert_eq!(range(3, 4), b"3456");
    assert_eq!(range(8, usize::MAX), b"89");
    assert_eq!(range(10, 1), b"");
    assert_eq!(range(u64::MAX, 1), b"");
    assert_eq!(blobs.read_range(&BlobId::of(b"none"), 0, 1).unwrap(), None);

    let large = blobs.put(&vec![7; MAX_RANGE_BYTES + 1]).unwrap();
    assert_eq!(blobs.read_range(&large, 0, usize::MAX).unwrap().unwrap().len(), MAX_RANGE_BYTES);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut writer = blobs.writer(100).unwrap();
    writer.write(b"half of it").unwrap();
    assert_eq!(files(dir.path()).len(), 1);
    drop(writer);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn what_a_killed_process_left_is_cleared_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let id = blobs.put(b"kept").unwrap();
    let mut writer = blobs.writer(100).unwrap();
    writer.write(b"half").unwrap();
    std::mem::forget(writer);
    drop(blobs);
    assert_eq!(files(dir.path()).len(), 2);
    let blobs = Blobs::open(dir.path()).unwrap();
    assert_eq!(files(dir.path()), [path_of(dir.path(), &id)]);
    assert_eq!(blobs.verify(&id).unwrap(), Verified::Intact);
}

#[test]
fn a_file_above_its_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut writer = blobs.writer(8).unwrap();
    writer.write(b"12345678").unwrap();
    assert!(matches!(writer.write(b"9"), Err(Error::TooLarge { limit_bytes: 8 })));
    drop(writer);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn bytes_of_another_blob_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let wanted = BlobId::of(b"the right ones");
    let mut writer = blobs.writer(100).unwrap();
    writer.write(b"the wrong ones").unwrap();
    assert!(matches!(writer.finish_as(&wanted), Err(Error::Mismatch { .. })));
    assert!(files(dir.path()).is_empty());

    let mut writer = blobs.writer(100).unwrap();
    writer.write(b"the right ones").unwrap();
    writer.finish_as(&wanted).unwrap();
    assert_eq!(blobs.verify(&wanted).unwrap(), Verified::Intact);
}

#[test]
fn damage_is_seen_and_healed_by_writing_the_blob_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let bytes = vec![5; 1_000_000];
    let id = blobs.put(&bytes).unwrap();
    let path = path_of(dir.path(), &id);

    let mut flipped = bytes.clone();
    flipped[700_000] ^= 1;
    fs::write(&path, &flipped).unwrap();
    assert_eq!(blobs.verify(&id).unwrap(), Verified::Damaged);
    blobs.put(&bytes).unwrap();
    assert_eq!(blobs.verify(&id).unwrap(), Verified::Intact);

    fs::write(&path, &bytes[..10]).unwrap();
    assert_eq!(blobs.verify(&id).unwrap(), Verified::Damaged);
    fs::remove_file(&path).unwrap();
    assert_eq!(blobs.verify(&id).unwrap(), Verified::Missing);
}

#[test]
fn the_total_follows_what_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let first = blobs.put(&[1; 100]).unwrap();
    assert_eq!(blobs.total_bytes().unwrap(), 100);
    blobs.put(&[2; 50]).unwrap();
    blobs.put(&[2; 50]).unwrap();
    blobs.put(b"").unwrap();
    assert_eq!(blobs.total_bytes().unwrap(), 150);
    assert!(blobs.remove(&first).unwrap());
    assert!(!blobs.remove(&first).unwrap());
    assert_eq!(blobs.total_bytes().unwrap(), 50);
    assert_eq!(Blobs::open(dir.path()).unwrap().total_bytes().unwrap(), 50);
}

#[test]
fn the_list_is_in_order_and_holds_blobs_only() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut put = BTreeMap::new();
    for n in 0..300_u64 {
        let bytes = n.to_le_bytes().repeat(n as usize);
        put.insert(blobs.put(&bytes).unwrap(), bytes.len() as u64);
    }
    let (misplaced, stray) = (BlobId::of(b"misplaced"), dir.path().join("ab"));
    fs::create_dir_all(stray.join("not-a-shard")).unwrap();
    fs::write(stray.join("readme"), "x").unwrap();
    fs::create_dir_all(stray.join("00")).unwrap();
    fs::write(stray.join("00").join(misplaced.to_string()), "x").unwrap();

    let listed: Vec<_> = blobs.iter().map(Result::unwrap).collect();
    assert_eq!(listed, put.into_iter().collect::<Vec<_>>());
}

#[test]
fn writers_of_the_same_blob_do_not_get_in_each_others_way() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let blobs = &blobs;
            scope.spawn(move || {
                for n in 0..30_u8 {
                    let bytes = [n % 10; 5_000];
                    let id = blobs.put(&bytes).unwrap();
                    assert_eq!(blobs.verify(&id).unwrap(), Verified::Intact);
                    blobs.put(&[thread, n]).unwrap();
                }
            });
        }
    });
    assert_eq!(blobs.total_bytes().unwrap(), 10 * 5_000 + 4 * 30 * 2);
    assert_eq!(blobs.iter().count(), 10 + 4 * 30);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_has_an_error_of_its_own() {
    let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = full.write_all(b"x").unwrap_err();
    assert!(matches!(Error::from(error), Error::Full));
}

fn bytes_of(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// Takes runs of a blob from one folder into another as a node takes them from a peer.
fn carry(from: &Blobs, to: &Partial, id: &BlobId, runs: Vec<Run>) {
    let mut slice = from.slice(id, runs.clone()).unwrap().unwrap();
    let mut checker = Checker::new(id, slice.size_bytes(), runs);
    let (mut bytes, mut pairs) = (Vec::new(), Vec::new());
    while let Some(piece) = slice.next_piece(100_000).unwrap() {
        bytes.extend(piece);
    }
    let mut rest = &bytes[..];
    while let Some(step) = checker.next_step() {
        let (part, more) = rest.split_at(checker.next_len().unwrap());
        checker.take(part).unwrap();
        rest = more;
        match step {
            Step::Pair(place) => pairs.push((place, part.try_into().unwrap())),
            Step::Group { index, .. } => {
                to.write(&[(index, part)], &pairs).unwrap();
                pairs.clear();
            }
        }
    }
    assert!(rest.is_empty());
}

/// What is not in memory is for a thread that may wait, and nothing of the slice is skipped by asking.
#[cfg(target_os = "linux")]
#[test]
fn a_slice_is_the_same_from_memory_and_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let bytes = bytes_of((5 << 20) + 4_321);
    let id = blobs.put(&bytes).unwrap();
    let groups = tree::groups_of(bytes.len() as u64);
    let runs = vec![
        Run { first: 3, count: 70 },
        Run { first: 90, count: 1 },
        Run { first: groups - 40, count: 40 },
    ];
    let whole =
        blobs.slice(&id, runs.clone()).unwrap().unwrap().next_piece(6 << 20).unwrap().unwrap();
    let forget = || {
        let file = blobs.get(&id).unwrap().unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    };
    let mut buffer = vec![0; 300_000];
    let mut read = |is_forgotten: bool| {
        let mut slice = blobs.slice(&id, runs.clone()).unwrap().unwrap();
        let (mut came, mut waits) = (Vec::new(), 0);
        loop {
            if is_forgotten {
                forget();
            }
            let at_once = slice.fill_from_memory(&mut buffer).unwrap();
            waits += usize::from(at_once.is_none());
            let filled = at_once.unwrap_or_else(|| slice.fill(&mut buffer).unwrap());
            if filled == 0 {
                return (came, waits);
            }
            came.extend_from_slice(&buffer[..filled]);
        }
    };
    let (came, waits) = read(true);
    assert!(came == whole, "{} bytes, {waits} of them waited for", came.len());
    let (came, waits) = read(false);
    assert!(came == whole, "{} bytes, {waits} of them waited for", came.len());
}

#[test]
fn a_blob_comes_in_parts_over_two_lives_of_the_process_and_serves_as_it_was_served() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let bytes = bytes_of((3 << 20) + 77);
    let first = Blobs::open(dirs[0].path()).unwrap();
    let id = first.put(&bytes).unwrap();
    let groups = tree::groups_of(bytes.len() as u64);
    let size = bytes.len() as u64;

    let second = Blobs::open(dirs[1].path()).unwrap();
    assert_eq!(second.partial_size(&id).unwrap(), None);
    let partial = second.partial(&id, size).unwrap();
    carry(&first, &partial, &id, vec![Run { first: groups - 1, count: 1 }]);
    carry(&first, &partial, &id, vec![Run { first: 10, count: 50 }]);
    partial.keep().unwrap();
    // It is written, and not in the map: as after a kill.
    carry(&first, &partial, &id, vec![Run { first: 100, count: 9 }]);
    drop((partial, second));

    let second = Blobs::open(dirs[1].path()).unwrap();
    assert_eq!(second.partial_size(&id).unwrap(), Some(size));
    assert_eq!(second.partials().unwrap(), [id]);
    let partial = second.partial(&id, size).unwrap();
    assert_eq!(partial.progress(), (51, groups));
    assert!(partial.finish().is_err() && second.get(&id).unwrap().is_none());
    let missing = partial.missing(Run { first: 0, count: groups });
    assert_eq!(missing, [Run { first: 0, count: 10 }, Run { first: 60, count: groups - 61 }]);
    missing.into_iter().for_each(|run| carry(&first, &partial, &id, vec![run]));
    partial.finish().unwrap();
    assert_eq!(second.verify(&id).unwrap(), Verified::Intact);
    assert_eq!(second.total_bytes().unwrap(), size);
    assert_eq!(second.partials().unwrap(), []);

    let third = Blobs::open(dirs[2].path()).unwrap();
    let partial = third.partial(&id, size).unwrap();
    carry(&second, &partial, &id, vec![Run { first: 0, count: groups }]);
    partial.finish().unwrap();
    assert_eq!(third.verify(&id).unwrap(), Verified::Intact);
    assert!(third.remove(&id).unwrap());
    assert_eq!(files(dirs[2].path()), Vec::<PathBuf>::new());
}

/// In memory that begins at such an address, and some that does not; on a disk, and in memory as some have `/tmp`.
#[test]
fn groups_come_to_the_disk_from_whatever_memory_they_stand_in() {
    let shm = Path::new("/dev/shm");
    let in_memory = shm.is_dir().then(|| tempfile::tempdir_in(shm).unwrap());
    for dir in [Some(tempfile::tempdir().unwrap()), in_memory].into_iter().flatten() {
        let bytes = bytes_of(40 * tree::GROUP_BYTES + 77);
        let size = bytes.len() as u64;
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        let blobs = Blobs::open(dir.path()).unwrap();
        let partial = blobs.partial(&id, size).unwrap();
        let mut memory = vec![0; bytes.len() + DIRECT_ALIGNMENT];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGNMENT);
        memory[start..start + bytes.len()].copy_from_slice(&bytes);
        let aligned: Vec<&[u8]> =
            memory[start..start + bytes.len()].chunks(tree::GROUP_BYTES).collect();
        let others: Vec<&[u8]> = bytes.chunks(tree::GROUP_BYTES).collect();
        let one = |index: usize| {
            let from = if index.is_multiple_of(3) { &others } else { &aligned };
            (index as u64, from[index])
        };
        for batch in [30..41, 0..8, 9..16, 16..30, 8..9] {
            let groups: Vec<(u64, &[u8])> = match batch.start {
                0 => batch.map(|index| (index as u64, aligned[index])).collect(),
                _ => batch.map(one).collect(),
            };
            partial.write(&groups, &[]).unwrap();
        }
        assert_eq!(partial.progress(), (41, 41));
        partial.finish().unwrap();
        assert_eq!(blobs.verify(&id).unwrap(), Verified::Intact);
        assert_eq!(fs::read(path_of(dir.path(), &id)).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_map_begins_anew() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let bytes = bytes_of(200_000);
    let first = Blobs::open(dirs[0].path()).unwrap();
    let id = first.put(&bytes).unwrap();
    let second = Blobs::open(dirs[1].path()).unwrap();
    let partial = second.partial(&id, 200_000).unwrap();
    carry(&first, &partial, &id, vec![Run { first: 0, count: 5 }]);
    partial.keep().unwrap();
    // As after a new start: nobody is at it any more.
    drop(partial);
    let map = dirs[1].path().join("partial").join(format!("{id}.map"));
    let mut damaged = fs::read(&map).unwrap();
    damaged[9] ^= 0x80;
    fs::write(&map, damaged).unwrap();
    assert_eq!(second.partial_size(&id).unwrap(), None);
    assert_eq!(second.partial(&id, 200_000).unwrap().progress(), (0, 13));
}

#[test]
fn a_tree_that_is_gone_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let id = blobs.put(&bytes_of(2 << 20)).unwrap();
    let tree = path_of(dir.path(), &id).with_extension("tree");
    let kept = fs::read(&tree).unwrap();
    fs::remove_file(&tree).unwrap();
    let run = Run { first: 3, count: 1 };
    let piece = blobs.slice(&id, vec![run]).unwrap().unwrap().next_piece(1 << 20).unwrap().unwrap();
    assert_eq!(piece.len(), 7 * tree::PAIR_BYTES + tree::GROUP_BYTES);
    assert_eq!(fs::read(&tree).unwrap(), kept);
}

#[test]
fn a_blob_that_was_used_since_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let id = blobs.put(b"seldom read").unwrap();
    let came = blobs.used_at(&id).unwrap().unwrap();
    assert!(!blobs.remove_unused(&id, came).unwrap());
    let used = came + std::time::Duration::from_secs(60);
    blobs.note_used(&id, used).unwrap();
    assert_eq!(blobs.used_at(&id).unwrap(), Some(used));
    assert!(blobs.remove_unused(&id, used + std::time::Duration::from_secs(1)).unwrap());
    assert_eq!(blobs.total_bytes().unwrap(), 0);
}
