//! Files in bundles: each part proved alone, in any order, cut, flipped and repeated, and the rest by the next bundle.

use super::{NOTE, Node, Outcome, PICTURE, Shelf, TENANT, key_of, node, slices};
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::{Changes, Id, reference};
use atoll_sync::bundle::{
    self, BundleKey, Exported, Lack, Landing, Order, Packing, Recipient, Report, Tells, Volume,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

const MIB: usize = 1 << 20;
/// Notes have numbers below this.
const NOTES: u32 = 40;

/// A node with a folder for files.
struct Holder {
    node: Node,
    blobs: Blobs,
    _folder: tempfile::TempDir,
}

struct Pack {
    asked: Vec<Lack>,
    up_to_bytes: u64,
    room_bytes: u64,
    volume_bytes: u64,
    to: Vec<Recipient>,
}

impl Default for Pack {
    fn default() -> Self {
        let (up_to_bytes, room_bytes) = (u64::MAX, u64::MAX);
        let volume_bytes = bundle::MAX_VOLUME_BYTES;
        Self { asked: vec![], up_to_bytes, room_bytes, volume_bytes, to: vec![] }
    }
}

fn holder() -> Outcome<Holder> {
    let folder = tempfile::tempdir()?;
    Ok(Holder { node: node()?, blobs: Blobs::open(folder.path())?, _folder: folder })
}

/// What does not compress, and is other for each seed.
fn bytes_of(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

impl Holder {
    /// A note with a picture.
    fn picture(&mut self, n: u32, bytes: &[u8]) -> Outcome<BlobId> {
        let id = self.blobs.put(bytes)?;
        let changes = Changes::new().set(&PICTURE, id.to_string());
        self.node.db.transact(|tx| tx.create(&NOTE, TENANT, key_of(n), changes))?;
        Ok(id)
    }

    /// What `to` lacks of what is written, and files.
    fn export(&mut self, to: &mut Self, pack: Pack) -> Outcome<(Exported, Vec<Vec<u8>>)> {
        let mut pictures: BTreeMap<Id, Vec<BlobId>> = BTreeMap::new();
        for key in (0..NOTES).map(key_of) {
            pictures.insert(key, reference::of_record(&self.node.db.reader(), NOTE.code, key)?);
        }
        let named_by = |_, key| Ok(pictures.get(&key).cloned().unwrap_or_default());
        let room_bytes = || pack.room_bytes;
        let lacks = self.lacks()?;
        let order = Order {
            known: to.node.want()?.into_iter().collect(),
            carries: &|_| true,
            recipients: pack.to,
            whole: BTreeSet::new(),
            tells: Tells::Has,
            lacks: &lacks,
            files: Some(Packing {
                blobs: &self.blobs,
                named_by: &named_by,
                asked: pack.asked,
                up_to_bytes: pack.up_to_bytes,
                room_bytes: &room_bytes,
            }),
            volume_bytes: pack.volume_bytes,
            batch_ops: bundle::BATCH_OPS,
            snapshot_from_ops: bundle::SNAPSHOT_FROM_OPS,
            name: "campus",
            now_ms: 5,
        };
        let mut shelf = Shelf::default();
        let Node { db, key } = &mut self.node;
        Ok((bundle::export(db, key, &order, &mut shelf, |_, _| {})?, shelf.0))
    }

    /// What is missing here, with what is here of it.
    fn lacks(&self) -> Outcome<Vec<Lack>> {
        let mut lacks = Vec::new();
        for want in reference::next_wants(&self.node.db.reader(), 0, 100)? {
            let blob = want.blob;
            if self.blobs.path(&blob).is_none() {
                lacks.push(match self.blobs.partial_missing(&blob)? {
                    Some((_, missing)) => Lack::rest(blob, u64::MAX, missing),
                    None => Lack::whole(blob, u64::MAX),
                });
            }
        }
        Ok(lacks)
    }

    fn import(&mut self, volumes: &[&[u8]]) -> Outcome<Report> {
        self.import_if(volumes, |_, _, _| Ok(()))
    }

    fn import_if(
        &mut self,
        volumes: &[&[u8]],
        mut admit: impl FnMut(&BlobId, u64, u64) -> Result<(), String>,
    ) -> Outcome<Report> {
        let mine = BundleKey::of(&self.node.key)?;
        let mut open = Vec::new();
        for bytes in volumes {
            let mut volume = Volume::open(Cursor::new(bytes.to_vec()))?;
            volume.unlock(&mine)?;
            open.push(volume);
        }
        let mut landing = Landing::new(&self.blobs, &mut admit);
        Ok(bundle::import(Some(&mut self.node.db), Some(&mut landing), open, |_, _| {})?)
    }

    fn has(&self, id: &BlobId, bytes: &[u8]) -> bool {
        self.blobs.get(id).is_ok_and(|file| file.is_some())
            && std::fs::read(self.blobs.path(id).unwrap_or_default()).is_ok_and(|all| all == bytes)
    }
}

#[test]
fn pictures_go_along_the_small_ones_and_those_that_are_asked_for() -> Outcome {
    let (mut school, mut core) = (holder()?, holder()?);
    let sizes = [0, 1, 40_000, 3 * MIB + 5];
    let bytes: Vec<Vec<u8>> = (0..4).map(|n| bytes_of(n, sizes[usize::from(n)])).collect();
    let mut ids = Vec::new();
    for (n, bytes) in (0..).zip(&bytes) {
        ids.push(school.picture(n, bytes)?);
    }
    let small = || Pack { up_to_bytes: MIB as u64, ..Pack::default() };
    let (done, there) = school.export(&mut core, small())?;
    assert_eq!((done.blobs, done.blob_bytes, done.blobs_left.larger), (3, 40_001, 1));
    let report = core.import(&slices(&there))?;
    assert_eq!((report.blobs, report.blobs_whole, report.blobs_new), (3, 3, 3));
    assert_eq!((report.blob_bytes, report.is_whole()), (40_001, true));
    for n in 0..3 {
        assert!(core.has(&ids[n], &bytes[n]), "{n}");
    }
    // Again does no harm.
    assert_eq!(core.import(&slices(&there))?.blobs_had, 3);
    // What is missing stands in the bundle home, and the next one there brings that and no more.
    let (_, home) = core.export(&mut school, Pack::default())?;
    let asked = school.import(&slices(&home))?.lacks;
    assert_eq!(asked, [Lack::whole(ids[3], u64::MAX)]);
    let (done, there) = school.export(&mut core, Pack { asked, ..small() })?;
    assert_eq!((done.ops, done.blobs, done.blob_bytes), (0, 1, sizes[3] as u64));
    assert!(core.import(&slices(&there))?.is_whole());
    assert!(core.has(&ids[3], &bytes[3]));
    let (done, _) = core.export(&mut school, Pack::default())?;
    assert_eq!((done.parts, done.blobs), (3, 0));
    Ok(())
}

#[test]
fn volumes_split_a_file_and_come_in_any_order() -> Outcome {
    let (mut school, mut core) = (holder()?, holder()?);
    let bytes = bytes_of(1, 4 * MIB + 12_345);
    let id = school.picture(1, &bytes)?;
    let pack = Pack { volume_bytes: bundle::MIN_VOLUME_BYTES, ..Pack::default() };
    let (done, volumes) = school.export(&mut core, pack)?;
    assert!(done.volumes >= 5, "{done:?}");
    assert!(volumes.iter().all(|volume| volume.len() as u64 <= bundle::MIN_VOLUME_BYTES));
    for (came, volume) in volumes.iter().rev().enumerate() {
        assert!(!core.has(&id, &bytes));
        let report = core.import(&[volume])?;
        let is_last = came + 1 == volumes.len();
        assert_eq!((report.blobs_new == 1, report.blobs_unfinished == 1), (is_last, !is_last));
    }
    assert!(core.has(&id, &bytes));
    Ok(())
}

#[test]
fn what_a_cut_volume_brought_counts_and_the_next_bundle_brings_the_rest() -> Outcome {
    let (mut school, mut core) = (holder()?, holder()?);
    let bytes = bytes_of(1, 6 * MIB);
    let id = school.picture(1, &bytes)?;
    let (_, volumes) = school.export(&mut core, Pack::default())?;
    let cut = &volumes[0][..volumes[0].len() * 6 / 10];
    let report = core.import(&[cut])?;
    assert_eq!((report.blobs_unfinished, report.blobs_new, report.damaged.len()), (1, 0, 1));
    let came = report.blob_bytes;
    assert!((2 * MIB as u64..4 * MIB as u64).contains(&came), "{came}");
    let (_, home) = core.export(&mut school, Pack::default())?;
    let asked = school.import(&slices(&home))?.lacks;
    let (done, rest) = school.export(&mut core, Pack { asked, ..Pack::default() })?;
    // The last group goes with each part.
    let left = bytes.len() as u64 - came - (16 << 10);
    assert_eq!((done.ops, done.blob_bytes), (0, left));
    assert_eq!(core.import(&slices(&rest))?.blobs_new, 1);
    assert!(core.has(&id, &bytes) && core.blobs.partials()?.is_empty());
    Ok(())
}

#[test]
fn a_flipped_bit_costs_one_part_and_that_is_named() -> Outcome {
    let (mut school, mut core) = (holder()?, holder()?);
    let bytes = bytes_of(1, 3 * MIB);
    let id = school.picture(1, &bytes)?;
    let (done, volumes) = school.export(&mut core, Pack::default())?;
    for share in 1..16 {
        let at = volumes[0].len() * share / 16;
        let mut flipped = volumes[0].clone();
        flipped[at] ^= 0x20;
        let mut core = holder()?;
        let report = core.import(&[&flipped])?;
        let hole = &report.damaged[0];
        assert!((hole.from_byte..hole.to_byte).contains(&(at as u64)), "{hole:?} {at}");
        assert_eq!((report.parts + 1, report.blobs_unfinished), (done.parts, 1));
        // The sound copy brings what is missing.
        assert_eq!(core.import(&slices(&volumes))?.blobs_new, 1);
        assert!(core.has(&id, &bytes));
    }
    Ok(())
}

#[test]
fn a_file_that_is_damaged_at_its_maker_does_not_go_along() -> Outcome {
    let (mut school, mut core) = (holder()?, holder()?);
    let id = school.picture(1, &bytes_of(1, 5_000))?;
    let path = school.blobs.path(&id).ok_or("it is there")?;
    std::fs::write(path, bytes_of(2, 5_000))?;
    let (done, volumes) = school.export(&mut core, Pack::default())?;
    assert_eq!((done.blobs, done.blobs_left.not_here), (0, 1));
    let report = core.import(&slices(&volumes))?;
    assert_eq!((report.blobs, report.is_whole()), (0, true));
    Ok(())
}

#[test]
fn what_is_not_admitted_is_told_and_comes_with_a_later_bundle() -> Outcome {
    let (mut school, mut core) = (holder()?, holder()?);
    let bytes: Vec<Vec<u8>> = (0..3).map(|n| bytes_of(n, 2 * MIB)).collect();
    for (n, bytes) in (0..).zip(&bytes) {
        school.picture(n, bytes)?;
    }
    let (_, volumes) = school.export(&mut core, Pack::default())?;
    let quota = 5 * MIB as u64;
    let mut left = quota;
    let report = core.import_if(&slices(&volumes), |_, size, coming| {
        if size + coming > left {
            return Err("no room".to_owned());
        }
        left -= size;
        Ok(())
    })?;
    assert_eq!((report.blobs_new, report.blobs_left, report.is_whole()), (2, 1, true));
    assert_eq!(report.blobs_left_out[0].why, "no room");
    assert_eq!(core.lacks()?.len(), 1);
    assert_eq!(core.import(&slices(&volumes))?.blobs_new, 1);
    Ok(())
}

#[test]
fn a_bundle_has_room_for_so_much_and_the_next_one_goes_on() -> Outcome {
    let (mut school, mut core) = (holder()?, holder()?);
    let bytes = bytes_of(1, 5 * MIB);
    let id = school.picture(1, &bytes)?;
    let (mut trips, mut asked) = (0, vec![]);
    while !core.has(&id, &bytes) {
        let room_bytes = 2 * MIB as u64;
        let pack = Pack { asked, room_bytes, ..Pack::default() };
        let (done, volumes) = school.export(&mut core, pack)?;
        let is_last = done.blobs == 1;
        assert_eq!(done.blobs_left.no_room, u64::from(!is_last));
        let size: usize = volumes.iter().map(Vec::len).sum();
        assert!(size < 2 * MIB + 10_000, "{size}");
        core.import(&slices(&volumes))?;
        let (_, home) = core.export(&mut school, Pack::default())?;
        asked = school.import(&slices(&home))?.lacks;
        trips += 1;
        assert!(trips < 5, "each brings some of it");
    }
    assert_eq!(trips, 3);
    Ok(())
}

#[test]
fn a_locked_bundle_shows_nothing_of_its_files_and_goes_over_two_hops() -> Outcome {
    let (mut school, mut campus, mut core) = (holder()?, holder()?, holder()?);
    let bytes = bytes_of(1, 100_000);
    let id = school.picture(1, &bytes)?;
    let to = |node: &Node| -> Outcome<Pack> {
        Ok(Pack { to: vec![node.as_recipient()?], ..Pack::default() })
    };
    let pack = to(&campus.node)?;
    let (_, locked) = school.export(&mut campus, pack)?;
    let shows = |volume: &[u8], part: &[u8]| volume.windows(32).any(|window| window == part);
    assert!(!shows(&locked[0], &id.0) && !shows(&locked[0], &bytes[5_000..5_032]));
    assert_eq!(campus.import(&slices(&locked))?.blobs_new, 1);
    let (_, open) = campus.export(&mut core, Pack::default())?;
    assert!(shows(&open[0], &id.0) && shows(&open[0], &bytes[5_000..5_032]));
    assert_eq!(core.import(&slices(&open))?.blobs_new, 1);
    assert!(core.has(&id, &bytes));
    Ok(())
}

#[test]
fn many_lists_of_what_is_lacking_are_put_together_and_odd_ones_bring_all() {
    use atoll_storage::blob::tree::Run;
    let run = |first, count| Run { first, count };
    let id = BlobId::of(b"tide");
    let rest = |missing: &[Run]| Lack::rest(id, 9, missing.to_vec());
    assert_eq!(rest(&[run(2, 3), run(7, 90)]).runs(10), [run(2, 3), run(7, 3)]);
    for odd in [&[run(12, 1)][..], &[run(4, 4), run(5, 1)], &[run(2, 0)], &[]] {
        assert_eq!(rest(odd).runs(10), [run(0, 10)], "{odd:?}");
    }
    let many: Vec<Run> = (0..100).map(|n| run(n * 3, 1)).collect();
    let runs = rest(&many).runs(1_000);
    assert_eq!((runs.len(), runs[63]), (64, run(189, 811)));
    let both = bundle::all_of([vec![rest(&[run(2, 3)])], vec![Lack::whole(id, 20)]]);
    assert_eq!(both, [Lack::whole(id, 20)]);
}
