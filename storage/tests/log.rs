//! The log packs its rows into blocks, and everything that reads or rewrites it finds there what it found before.

use atoll_storage::erasure;
use atoll_storage::{
    Carries, Changes, Clock, Db, Error, Field, Id, Kind, Lane, NodeId, Op, OpenOptions, Payload,
    Read, Replica, Rule, Store, StreamId, Vector,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
const ON: Field = Field::text(1, "on");
static NOTE: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(500, "note", "notes", "content") };
static LIKE: Kind = Kind { fields: &[ON], ..Kind::new(501, "like", "likes", "community") };
static MARK: Kind = erasure::marks(502, "mark", "marks", "community");
static KINDS: &[&Kind] = &[&NOTE, &LIKE, &MARK];
const TENANT: Id = Id([7; 16]);
const BEGIN_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 86_400_000;

struct Bench {
    store: Store,
    now_ms: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

fn open(folder: &std::path::Path, now_ms: &Arc<AtomicU64>) -> Store {
    let now_ms = now_ms.clone();
    let clock = Clock::from_fn(move || now_ms.load(Ordering::Relaxed));
    let (dir, node) = (folder.to_owned(), NodeId([1; 16]));
    Store::open(OpenOptions { dir, kinds: KINDS, node, clock }).unwrap()
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicU64::new(BEGIN_MS));
        let store = open(folder.path(), &now_ms);
        Self { store, now_ms, folder }
    }

    fn reopen(&mut self) {
        self.store.close();
        self.store = open(self.folder.path(), &self.now_ms);
    }

    fn pass_day(&self) -> u64 {
        let now_ms = self.now_ms.fetch_add(DAY_MS, Ordering::Relaxed) + DAY_MS;
        self.store.mark_log(now_ms).unwrap();
        now_ms
    }

    /// Notes with a like each, an edit of every third, and every fifth like taken back.
    fn write(&self, numbers: std::ops::Range<u64>) {
        let made: Result<(), Error> = self.store.write_blocking(move |tx| {
            for n in numbers {
                let changes = Changes::new().set(&TITLE, format!("note {n}"));
                tx.create(&NOTE, TENANT, key(n), changes.body(&BODY, format!("text {n}")))?;
                let on = Changes::new().set(&ON, format!("note {n}"));
                tx.create(&LIKE, TENANT, like(n), on)?;
                if n % 3 == 0 {
                    let changes = Changes::new().set(&TITLE, format!("better {n}"));
                    tx.edit(&NOTE, key(n), changes)?;
                }
                if n % 5 == 0 {
                    tx.remove(&LIKE, like(n))?;
                }
            }
            Ok(())
        });
        made.unwrap();
    }

    /// All that was in the log at the time of the last mark goes into blocks, but the last few.
    fn pack(&self, keep: u32) -> u32 {
        let mut steps = 0;
        while self.store.pack_log(Some(self.now_ms.load(Ordering::Relaxed)), keep).unwrap() {
            steps += 1;
        }
        steps
    }

    fn rows(&self) -> i64 {
        self.number("SELECT count(*) FROM op")
    }

    fn number(&self, sql: &'static str) -> i64 {
        self.store.read(|r| Ok(r.conn().query_row(sql, [], |r| r.get(0))?)).unwrap()
    }

    fn ops(&self, known: &BTreeMap<StreamId, Vector>) -> Vec<Op> {
        let mut store = self.store.clone();
        let mut at = store.start_of(Lane::Rest, known).unwrap();
        let mut ops = Vec::new();
        while at <= store.log_end().unwrap() {
            let batch = store.ops(Lane::Rest, at, known, 7, 64 << 20).unwrap();
            if batch.next_pos == at {
                break;
            }
            ops.extend(batch.ops);
            at = batch.next_pos;
        }
        ops
    }

    fn floors(&self) -> BTreeMap<StreamId, Vector> {
        let heads = self.store.clone().heads(None).unwrap();
        heads.into_iter().map(|head| (head.stream, head.floor)).collect()
    }

    fn verify(&self) {
        assert_eq!(self.store.verify().unwrap().problems, Vec::<String>::new());
    }
}

fn key(n: u64) -> Id {
    Id::natural(&[&n.to_le_bytes()])
}

fn like(n: u64) -> Id {
    Id::natural(&[b"like", &n.to_le_bytes()])
}

fn known_of(ops: &[Op]) -> BTreeMap<StreamId, Vector> {
    let mut known: BTreeMap<StreamId, Vector> = BTreeMap::new();
    for op in ops {
        known.entry(op.stream.clone()).or_default().raise(op.dot.origin, op.dot.seq);
    }
    known
}

#[test]
fn a_packed_log_gives_the_same_ops_from_wherever_it_is_read() {
    let mut bench = Bench::new();
    bench.write(0..300);
    bench.pass_day();
    let early = bench.rows();
    bench.write(300..400);
    let before = bench.ops(&BTreeMap::new());
    let packed = before[..early as usize].iter().filter(|op| packs(op)).count() as i64;
    assert_eq!(bench.rows(), before.len() as i64);
    assert!(bench.pack(10) > 0);
    // Notes keep their rows, for the sake of their texts; the second day's ops are too few and too young.
    assert_eq!(bench.rows(), before.len() as i64 - packed);
    for restart in [false, true] {
        if restart {
            bench.reopen();
        }
        assert_eq!(bench.ops(&BTreeMap::new()), before);
        for cut in [1, 2, 50, 333, before.len() - 1, before.len()] {
            assert_eq!(bench.ops(&known_of(&before[..cut])), before[cut..], "after {cut}");
        }
        bench.verify();
    }
    // What is written on goes on behind.
    bench.write(400..410);
    let after = bench.ops(&BTreeMap::new());
    assert_eq!(after[..before.len()], before);
    // A second day's rows join the block of the first.
    bench.pass_day();
    assert!(bench.pack(0) > 0);
    assert_eq!(bench.ops(&BTreeMap::new()), after);
    assert_eq!(bench.number("SELECT count(*) FROM block"), 1);
    bench.verify();
    // And a new node is made of it.
    let mut to = Db::open_in_memory(KINDS, NodeId([2; 16]), Clock::from_fn(|| BEGIN_MS)).unwrap();
    to.apply(after).unwrap();
    assert_eq!(bench.store.clone().root().unwrap(), to.root().unwrap());
}

fn packs(op: &Op) -> bool {
    !matches!(&op.payload, Payload::Write(write) if !write.bodies.is_empty())
}

#[test]
fn many_ops_fill_blocks_and_take_a_fraction_of_their_rows() {
    let bench = Bench::new();
    let made: Result<(), Error> = bench.store.write_blocking(|tx| {
        for n in 0..20_000_u64 {
            let on = Changes::new().set(&ON, key(n % 700).to_string());
            tx.create(&LIKE, TENANT, like(n), on)?;
        }
        Ok(())
    });
    made.unwrap();
    let before = bench.ops(&BTreeMap::new());
    bench.pack(1_000);
    assert_eq!(bench.rows(), 20_000 - 4 * 4_096);
    assert_eq!(bench.number("SELECT count(*) FROM block"), 4);
    assert_eq!(bench.ops(&BTreeMap::new()), before);
    let bytes = bench.number("SELECT sum(length(ops)) FROM block");
    assert!(bytes / (4 * 4_096) < 60, "{bytes} bytes");
    bench.verify();
}

#[test]
fn old_blocks_leave_the_log_with_their_age() {
    let bench = Bench::new();
    bench.write(0..100);
    let first_ms = bench.pass_day();
    bench.pack(0);
    bench.write(100..150);
    bench.pass_day();
    bench.pack(0);
    let all = bench.ops(&BTreeMap::new());
    let mut dropped = 0;
    loop {
        match bench.store.trim_older(first_ms, 30, None).unwrap() {
            0 => break,
            step => dropped += step as usize,
        }
    }
    assert!(dropped > 100);
    let left = bench.ops(&bench.floors());
    assert_eq!(left[..], all[dropped..], "those of the second day");
    bench.verify();
    let title = bench.store.read(|r| r.get_full(&NOTE, key(7))).unwrap().unwrap();
    assert_eq!(title.body(&BODY), "text 7");
}

#[test]
fn what_is_erased_is_emptied_in_blocks_too() {
    let bench = Bench::new();
    bench.write(1..50);
    bench.pass_day();
    bench.pack(0);
    let before = bench.ops(&BTreeMap::new());
    let erased: Result<(), Error> =
        bench.store.write_blocking(|tx| tx.erase(&MARK, &LIKE, TENANT, like(8)));
    erased.unwrap();
    while bench.store.erase_step(11).unwrap() {}
    let after = bench.ops(&BTreeMap::new());
    let emptied: Vec<&Op> =
        after.iter().filter(|op| matches!(op.payload, Payload::Erased { .. })).collect();
    assert_eq!(emptied.iter().map(|op| op.key).collect::<Vec<_>>(), [like(8)]);
    let others =
        |ops: &[Op]| ops.iter().filter(|op| op.key != like(8)).cloned().collect::<Vec<_>>();
    assert_eq!(others(&after)[..others(&before).len()], others(&before));
    bench.verify();
}

#[test]
fn a_stream_that_is_carried_no_more_leaves_the_blocks() {
    let bench = Bench::new();
    bench.write(0..60);
    bench.pass_day();
    bench.pack(0);
    let rule = Rule { tenant: None, scope: "content".into(), leaves: false };
    bench.store.carry(Carries::of([rule]).unwrap()).unwrap();
    while bench.store.shed(10).unwrap() {}
    let left = bench.ops(&BTreeMap::new());
    assert!(left.iter().all(|op| op.stream.scope == "content"));
    assert!(!left.is_empty());
    bench.verify();
}

#[test]
fn a_point_in_time_is_found_in_a_packed_log() {
    let bench = Bench::new();
    bench.write(0..10);
    let copy = bench.folder.path().join("copy.db");
    bench.store.backup_to(&copy, |_, _| {}).unwrap();
    bench.write(10..20);
    let at_ms = bench.now_ms.load(Ordering::Relaxed) + DAY_MS / 2;
    bench.pass_day();
    bench.write(20..30);
    bench.pass_day();
    bench.pack(0);
    let clock = Clock::from_fn(|| BEGIN_MS);
    let mut restored = Db::open(&copy, KINDS, NodeId([1; 16]), clock).unwrap();
    restored.replay(bench.store.path(), at_ms, |_, _| {}).unwrap();
    let there = |n| restored.reader().get(&NOTE, key(n)).unwrap().is_some();
    assert!(there(19) && !there(20));
}

#[test]
fn a_damaged_block_is_found_and_holds_up_nothing_else() {
    let bench = Bench::new();
    bench.write(0..40);
    bench.pass_day();
    bench.pack(0);
    let done: Result<(), Error> = bench.store.write_blocking(|tx| {
        tx.conn().execute_batch("UPDATE block SET ops = zeroblob(20)")?;
        Ok(())
    });
    done.unwrap();
    let left = bench.ops(&BTreeMap::new());
    assert!(left.iter().all(|op| !packs(op)) && !left.is_empty());
    assert!(bench.store.verify().unwrap().problems.iter().any(|p| p.contains("block")));
    bench.write(40..60);
    bench.pass_day();
    bench.pack(0);
    assert_eq!(bench.number("SELECT count(*) FROM block"), 2);
}
