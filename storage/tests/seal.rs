//! Origins seal runs of their ops, and whoever holds the ops can prove them: as rows, in blocks, erased or relayed. What
//! somebody changed on its way is found.

use atoll_storage::erasure;
use atoll_storage::seal::{self, FULL_OPS, Look, MAX_LOOKED_AT, Segment, Verdict};
use atoll_storage::{
    Applied, Changes, Clock, Db, Error, Field, Id, Kind, Lane, NodeId, Op, Origin, Payload, Read,
    Replica, StreamId, Value,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
static NOTE: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(500, "note", "notes", "content") };
static SEAL: Kind = seal::seals(501, "seal", "seals", "content");
static MARK: Kind = erasure::marks(502, "mark", "marks", "content");
static KINDS: &[&Kind] = &[&NOTE, &SEAL, &MARK];
const TENANT: Id = Id([7; 16]);
const DAY_MS: u64 = 86_400_000;

struct Bench {
    now_ms: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        Self { now_ms: Arc::new(AtomicU64::new(1_700_000_000_000)) }
    }

    fn node(&self, n: u8) -> Db {
        let now_ms = self.now_ms.clone();
        let clock = Clock::from_fn(move || now_ms.load(Ordering::Relaxed));
        Db::open_in_memory(KINDS, NodeId([n; 16]), clock).unwrap()
    }

    fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn pass_days(&self, days: u64) {
        self.now_ms.fetch_add(days * DAY_MS, Ordering::Relaxed);
    }

    /// Seals what is due at a node after a day. How many segments.
    fn seal(&self, db: &mut Db) -> usize {
        let node = db.origin().node;
        let due = seal::due(&db.reader(), node, self.now() - DAY_MS, 100).unwrap();
        let made: Result<(), Error> = db.transact(|tx| {
            due.iter().try_for_each(|segment| {
                tx.seal(segment, [node.0[0]; 32], &signature(node, &segment.message()))
            })
        });
        made.unwrap();
        due.len()
    }
}

/// What stands for a signature here: whoever knows the node can make it, but no test forges one by it.
fn signature(node: NodeId, message: &[u8]) -> Vec<u8> {
    let hash = blake3::keyed_hash(&[node.0[0]; 32], message);
    [hash.as_bytes().as_slice(), hash.as_bytes()].concat()
}

fn look(db: &mut Db, most: usize) -> Look {
    let is_signed = |key: &[u8; 32], node: NodeId, message: &[u8], sign: &[u8]| {
        *key == [node.0[0]; 32] && sign == signature(node, message)
    };
    let look = seal::examine(&db.reader(), most, is_signed).unwrap();
    let noted: Result<u64, Error> = db.transact(|tx| tx.note_examined(&look));
    noted.unwrap();
    look
}

fn examine(db: &mut Db) -> Vec<Verdict> {
    look(db, 1_000).examined.into_iter().map(|one| one.verdict).collect()
}

fn key(n: u64) -> Id {
    Id::natural(&[&n.to_le_bytes()])
}

fn write(db: &mut Db, numbers: std::ops::Range<u64>) {
    let made: Result<(), Error> = db.transact(|tx| {
        for n in numbers {
            let changes = Changes::new().set(&TITLE, format!("note {n}"));
            let changes = if n.is_multiple_of(2) {
                changes.body(&BODY, "words ".repeat(200))
            } else {
                changes
            };
            tx.create(&NOTE, TENANT, key(n), changes)?;
        }
        Ok(())
    });
    made.unwrap();
}

fn ops(db: &mut Db) -> Vec<Op> {
    let batch = db.ops(Lane::Rest, 1, &BTreeMap::new(), 100_000, 64 << 20).unwrap();
    batch.ops
}

fn pass_on(from: &mut Db, to: &mut Db) -> Applied {
    let heads = to.heads(None).unwrap().into_iter().map(|head| (head.stream, head.vector));
    let known = heads.collect();
    to.apply(from.ops(Lane::Rest, 1, &known, 100_000, 64 << 20).unwrap().ops).unwrap()
}

#[test]
fn what_an_origin_sealed_is_proven_wherever_it_is() {
    let bench = Bench::new();
    let (mut a, mut b, mut c) = (bench.node(1), bench.node(2), bench.node(3));
    write(&mut a, 0..30);
    // Too young.
    assert_eq!(bench.seal(&mut a), 0);
    bench.pass_days(2);
    assert_eq!(bench.seal(&mut a), 1);
    // The seal alone is no reason to seal again, ever.
    bench.pass_days(2);
    assert_eq!(bench.seal(&mut a), 0);
    // Not yet by a node that lacks the ops of it: the seal is there first.
    let all = ops(&mut a);
    pass_on(&mut a, &mut b);
    assert_eq!(examine(&mut b), [Verdict::Proven]);
    assert_eq!(examine(&mut b), []);
    // In blocks, and by way of another.
    while b.pack_log(None, 0).unwrap() {}
    pass_on(&mut b, &mut c);
    while c.pack_log(None, 0).unwrap() {}
    assert_eq!(examine(&mut c), [Verdict::Proven]);
    assert_eq!(seal::standing(&c.reader()).unwrap().proven_ops, 30);
    assert_eq!(ops(&mut c), all);
    // The next segment names the one before it, and holds its seal.
    write(&mut a, 30..40);
    bench.pass_days(2);
    let due = seal::due(&a.reader(), NodeId([1; 16]), bench.now() - DAY_MS, 100).unwrap();
    assert_eq!((due.len(), due[0].low, due[0].high), (1, 31, 41));
    assert!(due[0].before.is_some());
    assert_eq!(bench.seal(&mut a), 1);
    pass_on(&mut a, &mut c);
    assert_eq!(examine(&mut c), [Verdict::Proven]);
    assert_eq!(a.root().unwrap(), c.root().unwrap());
}

#[test]
fn many_ops_are_sealed_at_once_however_young() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    write(&mut a, 0..FULL_OPS + 5);
    assert_eq!(bench.seal(&mut a), 1);
    assert_eq!(bench.seal(&mut a), 0);
    pass_on(&mut a, &mut b);
    assert_eq!(examine(&mut b), [Verdict::Proven]);
    assert_eq!(seal::standing(&b.reader()).unwrap().proven_ops, FULL_OPS);
}

#[test]
fn what_is_erased_is_still_what_was_sealed() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    write(&mut a, 0..10);
    bench.pass_days(2);
    bench.seal(&mut a);
    let erased: Result<(), Error> = a.transact(|tx| tx.erase(&MARK, &NOTE, TENANT, key(4)));
    erased.unwrap();
    while a.erase_step(100).unwrap() {}
    let emptied =
        ops(&mut a).iter().filter(|o| matches!(o.payload, Payload::Erased { .. })).count();
    assert_eq!(emptied, 1);
    pass_on(&mut a, &mut b);
    assert_eq!(examine(&mut b), [Verdict::Proven]);
}

#[test]
fn what_a_relay_changed_is_found() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    write(&mut a, 0..10);
    bench.pass_days(2);
    bench.seal(&mut a);
    let mut all = ops(&mut a);
    let Payload::Write(write) = &mut all[3].payload else { panic!("a creation") };
    write.cells[0].value = Some(Value::Text("forged".into()));
    b.apply(all).unwrap();
    assert!(matches!(&examine(&mut b)[..], [Verdict::Broken(words)] if words.contains("1 to 10")));
    let standing = seal::standing(&b.reader()).unwrap();
    assert_eq!((standing.broken, standing.proven_ops, standing.waiting), (1, 0, 0));
}

#[test]
fn a_seal_that_its_origin_did_not_sign_proves_nothing() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    write(&mut a, 0..10);
    bench.pass_days(2);
    pass_on(&mut a, &mut b);
    // Node 2 seals in the name of node 1.
    let due = seal::due(&b.reader(), NodeId([1; 16]), bench.now() - DAY_MS, 100).unwrap();
    let forged: Result<(), Error> = b.transact(|tx| tx.seal(&due[0], [1; 32], &[0; 64]));
    forged.unwrap();
    assert!(
        matches!(&examine(&mut b)[..], [Verdict::Broken(words)] if words.contains("not signed"))
    );
}

#[test]
fn a_seal_waits_for_its_ops_and_says_nothing_of_those_that_are_gone() {
    let bench = Bench::new();
    let (mut a, mut b, mut c) = (bench.node(1), bench.node(2), bench.node(3));
    write(&mut a, 0..10);
    bench.pass_days(2);
    bench.seal(&mut a);
    // By a snapshot, without the ops.
    for head in a.heads(None).unwrap() {
        let chunk = a.snapshot_chunk(&head.stream, None, None).unwrap();
        c.merge_chunk(&chunk).unwrap();
        assert_eq!(examine(&mut c), [], "the vector does not count the ops yet");
        c.finish_snapshot(&head.stream, &chunk.vector).unwrap();
    }
    assert_eq!(examine(&mut c), [Verdict::Gone]);
    // With the ops trimmed at their origin, its seals go too, everywhere.
    pass_on(&mut a, &mut b);
    let head = a.heads(None).unwrap().remove(0);
    a.trim(&head.stream, &head.vector).unwrap();
    let dropped: Result<usize, Error> = a.transact(|tx| tx.drop_old_seals(NodeId([1; 16]), 100));
    assert_eq!(dropped.unwrap(), 1);
    pass_on(&mut a, &mut b);
    let left = b.reader().list(&atoll_storage::Query::of(&SEAL, TENANT)).unwrap();
    assert_eq!(left.records.len(), 0);
    assert_eq!(a.root().unwrap(), b.root().unwrap());
    // And a later segment begins a new chain.
    write(&mut a, 10..12);
    bench.pass_days(2);
    assert_eq!(bench.seal(&mut a), 1);
    pass_on(&mut a, &mut b);
    assert!(examine(&mut b).contains(&Verdict::Proven));
}

/// Signed seals of a node of which no ops ever come, with keys below one. So many.
fn seals_without_ops(db: &mut Db, many: usize, below: Id) {
    let node = NodeId([77; 16]);
    let segment = |epoch| Segment {
        stream: StreamId::new(TENANT, "content"),
        origin: Origin { node, epoch },
        low: 1,
        high: 10,
        before: None,
        name: [9; 32],
    };
    let made: Result<(), Error> = db.transact(|tx| {
        let segments = (0..).map(segment).filter(|segment| segment.key() < below);
        for segment in segments.take(many) {
            tx.seal(&segment, [77; 32], &signature(node, &segment.message()))?;
        }
        Ok(())
    });
    made.unwrap();
}

#[test]
fn seals_whose_ops_never_come_hold_up_no_others() {
    let bench = Bench::new();
    let (mut a, mut b) = (bench.node(1), bench.node(2));
    write(&mut a, 0..10);
    bench.pass_days(2);
    let due = seal::due(&a.reader(), NodeId([1; 16]), bench.now() - DAY_MS, 100).unwrap();
    bench.seal(&mut a);
    // As many come before it as one look goes through.
    seals_without_ops(&mut b, MAX_LOOKED_AT, due[0].key());
    pass_on(&mut a, &mut b);
    let mut looks = 0;
    while seal::standing(&b.reader()).unwrap().proven_ops == 0 {
        let look = look(&mut b, 16);
        assert!(!look.is_idle(), "there is more to look at");
        looks += 1;
        assert!(looks <= 2, "{:?}", seal::standing(&b.reader()));
    }
    assert_eq!(seal::standing(&b.reader()).unwrap().waiting, MAX_LOOKED_AT as u64);
    // And one that comes later, wherever the looks have got to.
    for n in 0..4_u8 {
        let mut c = bench.node(10 + n);
        let from = 100 * u64::from(n + 1);
        write(&mut c, from..from + 10);
        bench.pass_days(2);
        bench.seal(&mut c);
        pass_on(&mut c, &mut b);
        let mut looks = 0;
        while seal::standing(&b.reader()).unwrap().proven_ops < 10 * u64::from(n + 2) {
            look(&mut b, 16);
            looks += 1;
            assert!(looks <= 2, "{:?}", seal::standing(&b.reader()));
        }
    }
}

#[test]
fn a_look_that_found_as_many_as_it_may_is_gone_on_with() {
    let bench = Bench::new();
    let mut b = bench.node(99);
    for n in 1..=5_u8 {
        let mut a = bench.node(n);
        write(&mut a, u64::from(n) * 10..u64::from(n) * 10 + 3);
        bench.pass_days(2);
        bench.seal(&mut a);
        pass_on(&mut a, &mut b);
    }
    let mut proven = Vec::new();
    loop {
        let look = look(&mut b, 2);
        if look.is_idle() {
            break;
        }
        proven.push(look.examined.len());
    }
    assert_eq!(proven, [2, 2, 1]);
}
