//! Erasing a record: what the log, the inbox and other nodes keep of it.

use atoll_storage::blob::BlobId;
use atoll_storage::erasure::{self, marks};
use atoll_storage::reference;
use atoll_storage::store::OpenOptions;
use atoll_storage::tx::Tx;
use atoll_storage::{
    Changes, Clock, Db, Field, Id, Kind, Lane, NodeId, Payload, Query, Read, Replica, Store, Type,
};
use std::collections::BTreeMap;

const NAME: Field = Field::text(1, "name").claim("person.name");
const MAIL: Field = Field::text(2, "mail").column();
const HOBBIES: Field = Field::set(3, "hobbies", Type::Text).column();
const ABOUT: Field = Field::body(4, "about");
const PICTURE: Field = Field::text(5, "picture").blob();

static PERSON: Kind = Kind {
    fields: &[NAME, MAIL, HOBBIES, ABOUT, PICTURE],
    counted: &["mail"],
    ..Kind::new(100, "person", "people", "identity")
};
static MARK: Kind = marks(101, "mark", "marks", "identity");
static OTHER: Kind = marks(102, "other", "others", "content");
static KINDS: &[&Kind] = &[&PERSON, &MARK, &OTHER];
const TENANT: Id = Id([7; 16]);
const ADA: Id = Id([1; 16]);
const SECRET: &str = "Lovelace";

fn node(n: u8) -> Db {
    let clock = Clock::from_fn(move || 1_700_000_000_000 + u64::from(n));
    Db::open_in_memory(KINDS, NodeId([n; 16]), clock).unwrap()
}

fn ada() -> Changes {
    Changes::new()
        .set(&NAME, format!("Ada {SECRET}"))
        .set(&MAIL, format!("{SECRET}@example.org"))
        .add(&HOBBIES, SECRET)
        .body(&ABOUT, format!("{SECRET} writes about engines"))
}

fn send(from: &mut Db, to: &mut Db) {
    let known = to.heads(None).unwrap().into_iter().map(|h| (h.stream, h.vector)).collect();
    for lane in [Lane::Urgent, Lane::Rest] {
        let start = from.start_of(lane, &known).unwrap();
        let batch = from.ops(lane, start, &known, 10_000, 1 << 24).unwrap();
        to.apply(batch.ops).unwrap();
    }
}

fn snapshot(from: &mut Db, to: &mut Db) {
    for head in from.heads(None).unwrap() {
        let index = from.snapshot_index(&head.stream).unwrap();
        let chunk = from.snapshot_chunk(&head.stream, None, None).unwrap();
        to.merge_chunk(&chunk).unwrap();
        to.finish_snapshot(&head.stream, &index.vector).unwrap();
    }
}

/// Everything that a node would send to one that has nothing, and what its inbox shows.
fn told(db: &mut Db) -> String {
    let mut told = String::new();
    for lane in [Lane::Urgent, Lane::Rest] {
        let start = db.start_of(lane, &BTreeMap::new()).unwrap();
        let batch = db.ops(lane, start, &BTreeMap::new(), 10_000, 1 << 24).unwrap();
        for op in batch.ops {
            told += &format!("{:?}", op.payload);
        }
    }
    for head in db.heads(None).unwrap() {
        for record in db.snapshot_chunk(&head.stream, None, None).unwrap().records {
            told += &String::from_utf8_lossy(&record.state);
            told += &format!("{:?}", record.bodies);
        }
    }
    told += &format!("{:?}", db.reader().conflicts(None, 100, None).unwrap());
    // Changes of bodies and elements print as bytes.
    let bytes: Vec<String> = SECRET.bytes().map(|byte| byte.to_string()).collect();
    told.replace(&bytes.join(", "), SECRET)
}

fn erase(db: &mut Db) {
    db.transact(|tx| tx.erase(&MARK, &PERSON, TENANT, ADA)).unwrap();
    finish(db);
}

fn finish(db: &mut Db) {
    while db.erase_step(2).unwrap() {}
    assert_eq!(erasure::pending(&db.reader()).unwrap(), 0);
    assert_eq!(db.verify().unwrap().problems, Vec::<String>::new());
}

fn assert_equal(a: &mut Db, b: &mut Db) {
    let leaves = |db: &mut Db| db.heads(None).unwrap().iter().map(|h| h.leaf()).collect::<Vec<_>>();
    assert_eq!(leaves(a), leaves(b));
}

#[test]
fn nothing_of_an_erased_record_is_told_and_every_number_stays() {
    let mut a = node(1);
    a.transact(|tx| tx.create(&PERSON, TENANT, ADA, ada())).unwrap();
    a.transact(|tx| tx.edit(&PERSON, ADA, Changes::new().body(&ABOUT, format!("{SECRET}!"))))
        .unwrap();
    a.transact(|tx| tx.create(&PERSON, TENANT, Id([2; 16]), Changes::new().set(&NAME, "Bob")))
        .unwrap();
    assert!(told(&mut a).contains(SECRET));
    erase(&mut a);
    assert!(!told(&mut a).contains(SECRET), "{}", told(&mut a));
    assert!(erasure::is_marked(&a.reader(), &MARK, &PERSON, ADA).unwrap());
    assert!(!erasure::is_marked(&a.reader(), &MARK, &PERSON, Id([2; 16])).unwrap());
    // A node that has nothing gets it op by op, and is the same.
    let mut b = node(2);
    send(&mut a, &mut b);
    finish(&mut b);
    assert_equal(&mut a, &mut b);
    assert!(b.reader().get(&PERSON, ADA).unwrap().is_none());
    assert_eq!(b.reader().count(&Query::of(&PERSON, TENANT)).unwrap(), 1);
}

#[test]
fn a_node_that_was_away_erases_it_when_it_comes_back_and_what_it_wrote_meanwhile_is_kept_nowhere() {
    for by_snapshot in [false, true] {
        let (mut a, mut b, mut c) = (node(1), node(2), node(3));
        a.transact(|tx| tx.create(&PERSON, TENANT, ADA, ada())).unwrap();
        send(&mut a, &mut b);
        send(&mut a, &mut c);
        let edit = || Changes::new().set(&MAIL, format!("new-{SECRET}@example.org"));
        b.transact(|tx| tx.edit(&PERSON, ADA, edit())).unwrap();
        b.transact(|tx| {
            tx.edit(&PERSON, ADA, Changes::new().body(&ABOUT, format!("{SECRET}, too")))
        })
        .unwrap();
        erase(&mut a);
        if by_snapshot {
            snapshot(&mut a, &mut c);
        } else {
            send(&mut a, &mut c);
        }
        // What was written apart reaches one that has heard, and one that has not.
        send(&mut b, &mut c);
        finish(&mut c);
        send(&mut a, &mut b);
        finish(&mut b);
        send(&mut b, &mut a);
        finish(&mut a);
        send(&mut c, &mut a);
        send(&mut b, &mut c);
        for db in [&mut a, &mut b, &mut c] {
            assert!(db.reader().get(&PERSON, ADA).unwrap().is_none());
            assert!(!told(db).contains(SECRET), "by snapshot: {by_snapshot}: {}", told(db));
            assert_eq!(db.verify().unwrap().problems, Vec::<String>::new());
        }
        assert_equal(&mut a, &mut b);
        assert_equal(&mut a, &mut c);
    }
}

#[test]
fn what_is_made_anew_under_the_key_stays() {
    let (mut a, mut b) = (node(1), node(2));
    a.transact(|tx| tx.create(&PERSON, TENANT, ADA, ada())).unwrap();
    send(&mut a, &mut b);
    a.transact(|tx| {
        tx.erase(&MARK, &PERSON, TENANT, ADA)?;
        tx.create(&PERSON, TENANT, ADA, Changes::new().set(&NAME, "nobody").body(&ABOUT, "gone"))
    })
    .unwrap();
    finish(&mut a);
    send(&mut a, &mut b);
    finish(&mut b);
    assert_equal(&mut a, &mut b);
    for db in [&mut a, &mut b] {
        let now = db.reader().get_full(&PERSON, ADA).unwrap().unwrap();
        assert_eq!((now.text(&NAME), now.body(&ABOUT)), ("nobody", "gone"));
        assert!(!told(db).contains(SECRET), "{}", told(db));
        db.transact(|tx| tx.edit(&PERSON, ADA, Changes::new().body(&ABOUT, "gone for good")))
            .unwrap();
    }
    send(&mut a, &mut b);
    send(&mut b, &mut a);
    assert_equal(&mut a, &mut b);
    // Erased once more, after a second life.
    a.transact(|tx| tx.erase(&MARK, &PERSON, TENANT, ADA)).unwrap();
    finish(&mut a);
    assert!(!told(&mut a).contains("gone for good"), "{}", told(&mut a));
}

#[test]
fn a_walk_through_the_log_goes_on_where_it_was_after_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("atoll.db");
    let open =
        || Db::open(&path, KINDS, NodeId([1; 16]), Clock::from_fn(|| 1_700_000_000_000)).unwrap();
    let mut db = open();
    for n in 0..20_u8 {
        db.transact(|tx| tx.create(&PERSON, TENANT, Id([n + 100; 16]), Changes::new())).unwrap();
    }
    db.transact(|tx| tx.create(&PERSON, TENANT, ADA, ada())).unwrap();
    db.transact(|tx| tx.erase(&MARK, &PERSON, TENANT, ADA)).unwrap();
    assert!(db.erase_step(5).unwrap());
    drop(db);
    let mut db = open();
    assert_eq!(erasure::pending(&db.reader()).unwrap(), 1);
    finish(&mut db);
    assert!(!told(&mut db).contains(SECRET));
    let ops = db.ops(Lane::Rest, 0, &BTreeMap::new(), 10_000, 1 << 24).unwrap().ops;
    let urgent = db.ops(Lane::Urgent, 0, &BTreeMap::new(), 10_000, 1 << 24).unwrap().ops;
    let emptied =
        ops.iter().chain(&urgent).filter(|op| matches!(op.payload, Payload::Erased { .. }));
    assert_eq!(emptied.count(), 1);
}

/// All ops, as they leave.
fn leaving(db: &mut Db) -> Vec<atoll_storage::Op> {
    let all = |lane| db.ops(lane, 0, &BTreeMap::new(), 10_000, 1 << 24).unwrap().ops;
    [Lane::Urgent, Lane::Rest].map(all).concat()
}

#[test]
fn what_leaves_before_the_walk_has_come_to_it_is_what_the_walk_will_leave() {
    let mut a = node(1);
    a.transact(|tx| tx.create(&PERSON, TENANT, ADA, ada())).unwrap();
    for n in 0..5 {
        let edit = Changes::new().body(&ABOUT, format!("{SECRET} {n}")).set(&MAIL, SECRET);
        a.transact(|tx| tx.edit(&PERSON, ADA, edit)).unwrap();
    }
    a.transact(|tx| {
        tx.erase(&MARK, &PERSON, TENANT, ADA)?;
        tx.create(&PERSON, TENANT, ADA, Changes::new().set(&NAME, "nobody"))
    })
    .unwrap();
    let left = leaving(&mut a);
    assert!(erasure::is_pending(&a.reader()).unwrap());
    assert!(!told(&mut a).contains(SECRET), "{}", told(&mut a));
    let emptied = left.iter().filter(|op| matches!(op.payload, Payload::Erased { .. }));
    assert_eq!(emptied.count(), 6);
    let mut steps = 0;
    while a.erase_step(2).unwrap() {
        steps += 1;
        assert_eq!(leaving(&mut a), left);
    }
    assert!(steps > 2);
    finish(&mut a);
    assert_eq!(leaving(&mut a), left);
    let mut b = node(2);
    b.apply(left).unwrap();
    finish(&mut b);
    assert_equal(&mut a, &mut b);
}

#[test]
fn a_copy_of_the_file_waits_for_the_walk() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::from_fn(|| 1_700_000_000_000);
    let dir_of = |name: &str| dir.path().join(name);
    let store = Store::open(OpenOptions {
        dir: dir_of("node"),
        kinds: KINDS,
        node: NodeId([1; 16]),
        clock,
    });
    let store = store.unwrap();
    let write = |f: fn(&mut Tx<'_>) -> atoll_storage::Result<()>| store.write_blocking(f).unwrap();
    write(|tx| tx.create(&PERSON, TENANT, ADA, ada()).map(drop));
    let copied = |name: &str| {
        store.backup_to(&dir_of(name), |_, _| {}).unwrap();
        let bytes = std::fs::read(dir_of(name)).unwrap();
        bytes.windows(SECRET.len()).any(|words| words == SECRET.as_bytes())
    };
    assert!(copied("before.db"));
    write(|tx| tx.erase(&MARK, &PERSON, TENANT, ADA));
    assert!(!copied("after.db"));
    store.close();
}

#[test]
fn an_op_of_another_tenant_under_the_key_of_an_erased_record_stops_nothing() {
    let (mut a, mut b) = (node(1), node(2));
    a.transact(|tx| tx.create(&PERSON, TENANT, ADA, ada())).unwrap();
    let there = Id([8; 16]);
    b.transact(|tx| tx.create(&PERSON, there, ADA, Changes::new().set(&NAME, "Ben"))).unwrap();
    send(&mut b, &mut a);
    a.transact(|tx| {
        tx.erase(&MARK, &PERSON, TENANT, ADA)?;
        tx.create(&PERSON, TENANT, ADA, Changes::new().set(&NAME, "nobody"))
    })
    .unwrap();
    let left = leaving(&mut a);
    while a.erase_step(2).unwrap() {}
    assert_eq!(leaving(&mut a), left);
    assert!(!told(&mut a).contains(SECRET), "{}", told(&mut a));
}

#[test]
fn files_of_an_erased_record_are_known_in_whatever_order_it_is_told() {
    let hex = |n: u8| BlobId([n; 32]).to_string();
    let (mut a, mut b) = (node(1), node(2));
    a.transact(|tx| tx.create(&PERSON, TENANT, ADA, ada().set(&PICTURE, hex(1)))).unwrap();
    a.transact(|tx| tx.edit(&PERSON, ADA, Changes::new().set(&PICTURE, hex(2)))).unwrap();
    let shared = Changes::new().set(&NAME, "Bob").set(&PICTURE, hex(2));
    a.transact(|tx| tx.create(&PERSON, TENANT, Id([2; 16]), shared)).unwrap();
    send(&mut a, &mut b);
    erase(&mut a);
    let mut left = leaving(&mut a);
    left.reverse();
    for op in left {
        b.apply(vec![op]).unwrap();
    }
    for db in [&a, &b] {
        let erased = reference::erased(&db.reader(), 0, None, 10).unwrap();
        assert_eq!(erased, [BlobId([1; 32]), BlobId([2; 32])]);
        let is_erased = |n| reference::is_erased(&db.reader(), &BlobId([n; 32])).unwrap();
        assert_eq!([is_erased(1), is_erased(2), is_erased(3)], [true, false, false]);
    }
    a.transact(|tx| reference::forget_left(tx, u64::MAX >> 1)).unwrap();
    assert_eq!(reference::erased(&a.reader(), 0, None, 10).unwrap().len(), 2);
    a.transact(|tx| reference::forget_erased(tx, &BlobId([1; 32]))).unwrap();
    assert_eq!(reference::erased(&a.reader(), 0, None, 10).unwrap(), [BlobId([2; 32])]);
}

#[test]
fn marks_of_another_scope_are_refused() {
    let mut a = node(1);
    assert!(a.transact(|tx| tx.erase(&OTHER, &PERSON, TENANT, ADA)).is_err());
    assert!(a.transact(|tx| tx.erase(&PERSON, &PERSON, TENANT, ADA)).is_err());
}
