//! The log packs its rows into blocks, and everything that reads or rewrites it finds there what it found before.

use atoll_storage::erasure;
use atoll_storage::{
    Carries, Changes, Clock, Db, Error, Field, Id, Kind, Lane, NodeId, Op, OpenOptions, Payload,
    Read, Record, Replica, Rule, SearchText, Store, StreamId, Vector,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
const ON: Field = Field::text(1, "on");
static NOTE: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(500, "note", "notes", "content") };
static LIKE: Kind =
    Kind { fields: &[ON], search: Some(found), ..Kind::new(501, "like", "likes", "community") };
static MARK: Kind = erasure::marks(502, "mark", "marks", "community");
static KINDS: &[&Kind] = &[&NOTE, &LIKE, &MARK];
const TENANT: Id = Id([7; 16]);
const BEGIN_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 86_400_000;

fn found(like: &Record) -> Option<SearchText> {
    Some(SearchText {
        title: like.text(&ON).to_owned(),
        body: String::new(),
        keywords: vec![],
        public: true,
        status: String::new(),
        parent: None,
        facets: vec![],
        date_ms: 0,
    })
}

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

    /// The disk loses what is in the blocks that there are.
    fn damage_blocks(&self) {
        self.execute("UPDATE block SET ops = zeroblob(20)");
    }

    fn execute(&self, sql: &'static str) {
        let done: Result<(), Error> =
            self.store.write_blocking(move |tx| Ok(tx.conn().execute_batch(sql)?));
        done.unwrap();
    }

    fn trim_older(&self, than_ms: u64, acknowledged: Option<&BTreeMap<StreamId, Vector>>) -> u64 {
        let mut dropped = 0;
        loop {
            match self.store.trim_older(than_ms, 30, acknowledged).unwrap() {
                0 => return dropped,
                step => dropped += step,
            }
        }
    }

    /// Likes that the search index is told of, until it has all.
    fn feed(&self) -> BTreeSet<Id> {
        let mut told = BTreeSet::new();
        loop {
            let fed = self.store.unindexed(50).unwrap();
            if fed.is_empty() {
                return told;
            }
            told.extend(fed.records.iter().filter(|(kind, _)| *kind == LIKE.code).map(|(_, k)| *k));
            self.store.note_indexed(&fed).unwrap();
        }
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
    bench.damage_blocks();
    let left = bench.ops(&BTreeMap::new());
    assert!(left.iter().all(|op| !packs(op)) && !left.is_empty());
    assert!(bench.store.verify().unwrap().problems.iter().any(|p| p.contains("block")));
    bench.write(40..60);
    bench.pass_day();
    bench.pack(0);
    assert_eq!(bench.number("SELECT count(*) FROM block"), 2);
}

#[test]
fn a_damaged_block_leaves_the_log_with_its_age() {
    let bench = Bench::new();
    bench.write(0..100);
    let first_ms = bench.pass_day();
    bench.pack(0);
    bench.damage_blocks();
    bench.write(100..150);
    bench.pass_day();
    bench.pack(0);
    assert_eq!(bench.number("SELECT count(*) FROM block"), 2);
    let later = bench.ops(&BTreeMap::new()).into_iter().filter(packs).collect::<Vec<_>>();
    bench.trim_older(first_ms, None);
    assert_eq!(bench.number("SELECT count(*) FROM block"), 1);
    assert_eq!(
        bench.number("SELECT count(*) FROM block_run WHERE block NOT IN (SELECT last FROM block)"),
        0
    );
    bench.verify();
    let left = bench.ops(&bench.floors());
    assert_eq!(
        left.into_iter().filter(packs).collect::<Vec<_>>(),
        later,
        "those of the second day"
    );
}

#[test]
fn a_damaged_block_leaves_early_only_if_everybody_has_all_that_was_in_it() {
    let bench = Bench::new();
    bench.write(0..100);
    let now_ms = bench.pass_day();
    bench.pack(0);
    bench.damage_blocks();
    let blocks = || bench.number("SELECT count(*) FROM block");
    let heads = bench.store.clone().heads(None).unwrap();
    let mut acknowledged: BTreeMap<StreamId, Vector> =
        heads.iter().map(|head| (head.stream.clone(), head.vector.clone())).collect();
    let all = acknowledged.clone();
    // One peer lacks the last op of one stream.
    for vector in acknowledged.values_mut().take(1) {
        vector.0.values_mut().for_each(|seq| *seq -= 1);
    }
    bench.trim_older(now_ms, Some(&acknowledged));
    assert_eq!(blocks(), 1);
    bench.trim_older(now_ms, Some(&all));
    assert_eq!(blocks(), 0);
    bench.verify();
}

#[test]
fn a_damaged_block_goes_once_all_of_its_streams_are_shortened() {
    let bench = Bench::new();
    bench.write(0..100);
    bench.pass_day();
    bench.pack(0);
    bench.damage_blocks();
    let heads = bench.store.clone().heads(None).unwrap();
    assert_eq!(heads.len(), 2);
    for (n, head) in heads.iter().enumerate() {
        let mut half = head.vector.clone();
        half.0.values_mut().for_each(|seq| *seq /= 2);
        bench.store.trim(head.stream.clone(), half).unwrap();
        assert_eq!(bench.number("SELECT count(*) FROM block_run"), 2 - n as i64, "not by halves");
        bench.store.trim(head.stream.clone(), head.vector.clone()).unwrap();
        assert_eq!(bench.number("SELECT count(*) FROM block_run"), 1 - n as i64);
    }
    assert_eq!(bench.number("SELECT count(*) FROM block"), 0);
    bench.verify();
}

#[test]
fn streams_that_are_carried_no_more_leave_a_damaged_block() {
    let bench = Bench::new();
    bench.write(0..60);
    bench.pass_day();
    bench.pack(0);
    bench.damage_blocks();
    let rule = Rule { tenant: None, scope: "content".into(), leaves: false };
    bench.store.carry(Carries::of([rule]).unwrap()).unwrap();
    while bench.store.shed(10).unwrap() {}
    let heads = bench.store.clone().heads(None).unwrap();
    assert_eq!(heads.iter().map(|head| &*head.stream.scope).collect::<Vec<_>>(), ["content"]);
    assert_eq!(bench.number("SELECT count(DISTINCT stream) FROM block_run"), 1);
    assert!(bench.store.verify().unwrap().problems.iter().any(|p| p.contains("block")));
    bench.store.carry(Carries::of([]).unwrap()).unwrap();
    while bench.store.shed(10).unwrap() {}
    assert_eq!(bench.number("SELECT count(*) FROM block"), 0);
    bench.verify();
}

#[test]
fn what_is_erased_is_in_no_damaged_block_and_no_damaged_row() {
    let bench = Bench::new();
    bench.write(1..50);
    bench.pass_day();
    bench.pack(0);
    bench.write(50..60);
    let whole = bench.number("SELECT sum(length(ops)) FROM block");
    bench.execute("UPDATE block SET ops = substr(ops, 1, length(ops) - 1)");
    bench.execute("UPDATE op SET payload = x'ffff' WHERE kind = 501");
    assert!(whole > 1_000);
    let erased: Result<(), Error> = bench.store.write_blocking(|tx| {
        tx.erase(&MARK, &LIKE, TENANT, like(8))?;
        tx.erase(&MARK, &LIKE, TENANT, like(51))
    });
    erased.unwrap();
    while bench.store.erase_step(11).unwrap() {}
    assert_eq!(bench.store.read(|r| erasure::pending(r)).unwrap(), 0);
    assert_eq!(bench.number("SELECT sum(length(ops)) FROM block"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM op WHERE payload = x''"), 1, "the one sought");
    // It is still known for a damaged one, and what was in it.
    assert!(bench.store.verify().unwrap().problems.iter().any(|p| p.contains("block")));
    assert!(bench.number("SELECT count(*) FROM block_run") > 0);
    let now_ms = bench.pass_day();
    bench.trim_older(now_ms, None);
    bench.verify();
}

#[test]
fn search_misses_nothing_of_a_damaged_block() {
    for is_trimmed in [false, true] {
        let bench = Bench::new();
        bench.write(0..40);
        let first_ms = bench.pass_day();
        bench.pack(0);
        bench.damage_blocks();
        bench.write(40..60);
        if is_trimmed {
            bench.trim_older(first_ms, None);
        }
        let told = bench.feed();
        let alive = (0..60).filter(|n| n % 5 != 0).map(like);
        assert!(alive.into_iter().all(|like| told.contains(&like)), "trimmed: {is_trimmed}");
        assert_eq!(bench.store.unindexed_depth().unwrap(), 0);
        bench.write(60..61);
        assert_eq!(bench.feed(), [like(60)].into());
    }
}

#[test]
fn a_walk_over_the_blocks_counts_the_damaged_ones_and_forgets_those_that_left() {
    let bench = Bench::new();
    for day in 0..3 {
        bench.write(day * 2_000..(day + 1) * 2_000);
        bench.pass_day();
        bench.pack(0);
    }
    let blocks = bench.number("SELECT count(*) FROM block") as usize;
    assert!(blocks > 1);
    let walk = || while bench.store.scrub_log(1).unwrap() > 0 {};
    walk();
    assert_eq!(bench.store.damaged_blocks(), 0);
    bench.damage_blocks();
    assert_eq!(bench.store.scrub_log(1).unwrap(), 1);
    assert_eq!(bench.store.damaged_blocks(), 1, "the first one");
    walk();
    assert_eq!(bench.store.damaged_blocks(), blocks);
    assert_eq!(bench.store.scrub_log(1_000).unwrap(), blocks);
    assert_eq!(bench.store.damaged_blocks(), blocks, "each once");
    bench.trim_older(bench.now_ms.load(Ordering::Relaxed), None);
    walk();
    assert_eq!(bench.store.damaged_blocks(), 0);
}
