//! Bundles between real databases: whole, in part, in any order, over several hops, cut, flipped and locked; with files; of nodes that
//! carry a part.

#[path = "bundle/cost.rs"]
mod cost;
#[path = "bundle/files.rs"]
mod files;
#[path = "bundle/large.rs"]
mod large;
#[path = "bundle/parts.rs"]
mod parts;
#[path = "bundle/repair.rs"]
mod repair;

use atoll_storage::{Changes, Clock, Db, Field, Id, Kind, Read, Replica, StreamId, Vector};
use atoll_sync::bundle::{
    self, BundleKey, Error, Exported, Order, Recipient, Report, Tells, Volume, Volumes, Want,
};
use atoll_sync::key::NodeKey;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor};

const TITLE: Field = Field::text(1, "title").column();
const TEXT: Field = Field::body(2, "text");
const LOGIN: Field = Field::text(1, "login").column();
const PICTURE: Field = Field::text(3, "picture").blob();
static NOTE: Kind =
    Kind { fields: &[TITLE, TEXT, PICTURE], ..Kind::new(300, "note", "notes", "content") };
static MEMBER: Kind = Kind { fields: &[LOGIN], ..Kind::new(301, "member", "members", "identity") };
static KINDS: &[&Kind] = &[&NOTE, &MEMBER];
const TENANT: Id = Id([7; 16]);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

struct Node {
    db: Db,
    key: NodeKey,
}

/// Volumes in memory.
#[derive(Default)]
struct Shelf(Vec<Vec<u8>>);

impl Volumes for Shelf {
    type File = Vec<u8>;
    fn begin(&mut self, volume: u32) -> io::Result<Vec<u8>> {
        assert_eq!(volume as usize, self.0.len() + 1);
        Ok(vec![])
    }
    fn end(&mut self, _: u32, file: Vec<u8>) -> io::Result<()> {
        self.0.push(file);
        Ok(())
    }
}

fn node() -> Outcome<Node> {
    let key = NodeKey::generate()?;
    let clock = Clock::from_fn(|| 1_700_000_000_000);
    Ok(Node { db: Db::open_in_memory(KINDS, key.node_id(), clock)?, key })
}

fn key_of(n: u32) -> Id {
    Id::natural(&[b"note", &n.to_le_bytes()])
}

impl Node {
    fn write(&mut self, n: u32, text: &str) -> Outcome {
        let changes = Changes::new().set(&TITLE, text).body(&TEXT, text);
        self.db.transact(|tx| tx.create(&NOTE, TENANT, key_of(n), changes))?;
        Ok(())
    }

    fn fill(&mut self, numbers: std::ops::Range<u32>) -> Outcome {
        self.db.transact(|tx| {
            for n in numbers {
                // What does not compress, so that there is something to cut.
                let words: String = (0..8).map(|i| key_of(n * 8 + i).to_string()).collect();
                let text = format!("note {n} {words}");
                let changes = Changes::new().set(&TITLE, format!("note {n}")).body(&TEXT, text);
                tx.create(&NOTE, TENANT, key_of(n), changes)?;
            }
            Ok::<_, atoll_storage::Error>(())
        })?;
        Ok(())
    }

    fn export(&mut self, want: &Want, to: &[Recipient]) -> Outcome<(Exported, Vec<Vec<u8>>)> {
        self.export_in(want, to, bundle::MAX_VOLUME_BYTES)
    }

    fn export_in(
        &mut self,
        want: &Want,
        to: &[Recipient],
        volume_bytes: u64,
    ) -> Outcome<(Exported, Vec<Vec<u8>>)> {
        let known: BTreeMap<StreamId, Vector> = want.iter().cloned().collect();
        let order = Order {
            known,
            carries: &|_| true,
            recipients: to.to_vec(),
            whole: BTreeSet::new(),
            tells: Tells::Has,
            lacks: &[],
            files: None,
            volume_bytes,
            batch_ops: bundle::BATCH_OPS,
            snapshot_from_ops: bundle::SNAPSHOT_FROM_OPS,
            name: "campus",
            now_ms: 5,
        };
        let mut shelf = Shelf::default();
        let done = bundle::export(&mut self.db, &self.key, &order, &mut shelf, |_, _| {})?;
        assert_eq!(done.volumes as usize, shelf.0.len());
        assert_eq!(done.bytes, shelf.0.iter().map(|v| v.len() as u64).sum::<u64>());
        Ok((done, shelf.0))
    }

    fn import(&mut self, volumes: &[&[u8]]) -> Outcome<Report> {
        let mine = BundleKey::of(&self.key)?;
        let mut open = Vec::new();
        for bytes in volumes {
            let mut volume = Volume::open(Cursor::new(bytes.to_vec()))?;
            volume.unlock(&mine)?;
            open.push(volume);
        }
        Ok(bundle::import(Some(&mut self.db), None, open, |_, _| {})?)
    }

    fn want(&mut self) -> Outcome<Want> {
        Ok(self.db.heads(None)?.into_iter().map(|head| (head.stream, head.vector)).collect())
    }

    fn as_recipient(&self) -> Outcome<Recipient> {
        Ok(Recipient { node: self.key.node_id(), key: BundleKey::of(&self.key)?.public() })
    }
}

/// A bundle of what the receiver lacks.
fn carry(from: &mut Node, to: &mut Node) -> Outcome<Report> {
    let (_, volumes) = from.export(&to.want()?, &[])?;
    to.import(&slices(&volumes))
}

fn slices(volumes: &[Vec<u8>]) -> Vec<&[u8]> {
    volumes.iter().map(Vec::as_slice).collect()
}

fn assert_equal(a: &mut Node, b: &mut Node) -> Outcome {
    assert_eq!(a.db.root()?, b.db.root()?);
    for node in [a, b] {
        assert_eq!(node.db.verify()?.problems, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_bundle_there_and_one_home_make_two_nodes_equal() -> Outcome {
    let (mut school, mut core) = (node()?, node()?);
    school.fill(0..50)?;
    core.fill(100..130)?;
    let member = Changes::new().set(&LOGIN, "mara");
    school.db.transact(|tx| tx.create(&MEMBER, TENANT, Id([9; 16]), member))?;
    assert_eq!(school.import(&slices(&node()?.export(&vec![], &[])?.1))?.want, Some(vec![]));
    let (done, there) = school.export(&vec![], &[])?;
    assert_eq!((done.ops, done.records), (51, 0));
    let report = core.import(&slices(&there))?;
    assert_eq!((report.applied, report.waiting, report.is_whole()), (51, 0, true));
    // What came tells what the school has: home goes just what it lacks.
    let (done, home) = core.export(&report.want.unwrap_or_default(), &[])?;
    assert_eq!(done.ops, 30);
    assert!(school.import(&slices(&home))?.is_whole());
    assert_equal(&mut school, &mut core)?;
    // Brought twice.
    let again = school.import(&slices(&home))?;
    assert_eq!((again.applied, again.had_already), (0, 30));
    let (done, _) = core.export(&school.want()?, &[])?;
    assert_eq!((done.ops, done.parts), (0, 3));
    Ok(())
}

#[test]
fn a_new_node_is_made_from_volumes_in_any_order() -> Outcome {
    let (mut core, mut new) = (node()?, node()?);
    core.fill(0..9_000)?;
    let (done, volumes) = core.export_in(&vec![], &[], bundle::MIN_VOLUME_BYTES)?;
    assert!(done.volumes >= 2 && done.records == 9_000, "{done:?}");
    let mut last = Report::default();
    for volume in volumes.iter().rev() {
        last = new.import(&[volume])?;
        assert!(!last.is_whole());
    }
    assert!(last.unfinished.is_empty());
    assert_equal(&mut core, &mut new)?;
    // What came on the way there is not lost on it.
    new.write(20_000, "from the new one")?;
    carry(&mut new, &mut core)?;
    assert_equal(&mut core, &mut new)
}

#[test]
fn three_hops_carry_everything() -> Outcome {
    let (mut a, mut b, mut c) = (node()?, node()?, node()?);
    a.fill(0..20)?;
    b.fill(20..40)?;
    b.import(&slices(&a.export(&vec![], &[])?.1))?;
    c.import(&slices(&b.export(&vec![], &[])?.1))?;
    let key = key_of(3);
    c.db.transact(|tx| tx.edit(&NOTE, key, Changes::new().set(&TITLE, "changed at the far end")))?;
    carry(&mut c, &mut a)?;
    carry(&mut c, &mut b)?;
    assert_equal(&mut a, &mut c)?;
    assert_equal(&mut b, &mut c)
}

#[test]
fn deletions_travel_also_when_the_log_was_trimmed() -> Outcome {
    let (mut school, mut core) = (node()?, node()?);
    school.fill(0..30)?;
    let first = core.import(&slices(&school.export(&vec![], &[])?.1))?;
    school.db.transact(|tx| tx.remove(&NOTE, key_of(4)))?;
    core.write(500, "of the core")?;
    let head = school.db.heads(None)?.remove(0);
    school.db.trim(&head.stream, &head.vector)?;
    let before = core.want()?;
    let (done, bundle) = school.export(&before, &[])?;
    assert_eq!((done.ops, done.records), (0, 29));
    assert!(core.import(&slices(&bundle))?.is_whole());
    assert!(core.db.reader().get(&NOTE, key_of(4))?.is_none());
    assert!(core.db.reader().get(&NOTE, key_of(500))?.is_some());
    carry(&mut core, &mut school)?;
    assert!(first.want.is_some_and(|want| !want.is_empty()));
    assert_equal(&mut school, &mut core)
}

/// Somebody whom a bundle reaches and no link never heard of what stood in the block.
#[test]
fn what_a_damaged_log_lost_travels_as_a_state() -> Outcome {
    let (mut school, mut core, mut late) = (node()?, node()?, node()?);
    school.fill(0..30)?;
    core.import(&slices(&school.export(&vec![], &[])?.1))?;
    let changes = Changes::new().set(&TITLE, "behind what was carried");
    school.db.transact(|tx| tx.edit(&NOTE, key_of(3), changes))?;
    while school.db.pack_log(None, 0)? {}
    let flip = "UPDATE block SET ops = zeroblob(length(ops))";
    school.db.transact(|tx| tx.conn().execute_batch(flip).map_err(atoll_storage::Error::from))?;
    for (other, ops) in [(&mut core, 0), (&mut late, 30)] {
        let (done, bundle) = school.export(&other.want()?, &[])?;
        assert_eq!((done.ops, done.records), (ops, 30));
        assert!(other.import(&slices(&bundle))?.is_whole());
        assert_eq!(other.db.root()?, school.db.root()?);
    }
    assert_equal(&mut core, &mut late)
}

#[test]
fn what_is_cut_off_or_flipped_is_named_and_the_rest_counts() -> Outcome {
    let mut core = node()?;
    core.fill(0..1_900)?;
    let (done, volumes) = core.export(&vec![], &[])?;
    let bytes = &volumes[0];
    assert_eq!((done.parts, done.ops), (5, 1_900));
    for share in 1..20 {
        let mut new = node()?;
        let cut = &bytes[..bytes.len() * share / 20];
        match new.import(&[cut]) {
            Ok(report) => {
                assert!(!report.is_whole() && report.of_parts.is_none());
                assert!(report.damaged.len() <= 1);
            }
            Err(error) => assert!(error.to_string().contains("no bundle"), "{error}"),
        }
    }
    for share in 0..40 {
        let mut new = node()?;
        let at = bytes.len() * share / 40 + 3;
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let report = new.import(&[&flipped])?;
        assert!(!report.damaged.is_empty(), "byte {at}");
        let hole = &report.damaged[0];
        assert!(hole.from_byte <= at as u64 && (at as u64) < hole.to_byte, "{hole:?} {at}");
        assert!(report.parts + 1 >= done.parts, "only one part is lost: {report:?}");
        // The undamaged copy brings what is missing.
        assert!(new.import(&[bytes])?.is_whole());
    }
    Ok(())
}

#[test]
fn random_bytes_and_other_files_are_no_bundles() -> Outcome {
    for bytes in [&b""[..], b"PK\x03\x04", &[0x93; 4_096], b"\x93ATOLL\r\n"] {
        assert!(matches!(Volume::open(Cursor::new(bytes.to_vec())), Err(Error::NoBundle)));
    }
    Ok(())
}

#[test]
fn a_locked_bundle_is_for_its_recipients() -> Outcome {
    let (mut core, mut school, mut stranger) = (node()?, node()?, node()?);
    core.write(1, "the headmaster's secret plan, and some more words to find it by")?;
    let to = [school.as_recipient()?];
    let (_, open) = core.export(&vec![], &[])?;
    let (_, locked) = core.export(&vec![], &to)?;
    let shows = |bytes: &[u8]| bytes.windows(10).any(|w| w == b"headmaster");
    assert!(shows(&open[0]) && !shows(&locked[0]));
    assert!(school.import(&slices(&locked))?.is_whole());
    assert_equal(&mut core, &mut school)?;
    let refused = stranger.import(&slices(&locked)).expect_err("not for it");
    assert!(refused.to_string().contains(&school.key.node_id().to_string()), "{refused}");
    Ok(())
}

#[test]
fn a_part_of_another_volume_does_not_count() -> Outcome {
    let mut core = node()?;
    core.fill(0..10)?;
    let (_, first) = core.export(&vec![], &[])?;
    core.fill(10..20)?;
    let (_, second) = core.export(&vec![], &[])?;
    // The head of the first with the parts of the second.
    let length = u32::from_le_bytes(first[0][16..20].try_into()?) as usize + 28 + 64;
    let mixed = [&first[0][..length], &second[0][length..second[0].len() - length]].concat();
    let mut new = node()?;
    let report = new.import(&[&mixed])?;
    assert_eq!((report.parts, report.applied), (0, 0));
    assert!(!report.damaged.is_empty());
    Ok(())
}

#[test]
fn volumes_of_different_bundles_or_makers_are_not_taken_as_one_bundle() -> Outcome {
    let (mut core, mut stranger) = (node()?, node()?);
    core.write(1, "of the core")?;
    stranger.write(2, "of somebody else")?;
    let (_, genuine) = core.export(&vec![], &[])?;
    let (_, later) = core.export(&vec![], &[])?;
    let (_, foreign) = stranger.export(&vec![], &[])?;
    for other in [&foreign[0], &later[0]] {
        for mixed in [[&genuine[0][..], other], [other, &genuine[0][..]]] {
            let mut new = node()?;
            let refused = new.import(&mixed).expect_err("they are two");
            assert!(refused.to_string().contains("different bundles"), "{refused}");
            assert!(new.want()?.is_empty(), "and nothing of them counts");
        }
    }
    Ok(())
}
