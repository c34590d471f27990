//! What a removed node wrote after it was removed: on nodes that had heard, on nodes that had not, and between them.

#[path = "late/cut.rs"]
mod cut;
#[path = "late/log.rs"]
mod log;
#[path = "late/seals.rs"]
mod seals;
#[path = "late/text.rs"]
mod text;

use atoll_storage::late;
use atoll_storage::revoked::{REVOKED_CUTS, REVOKED_NODE};
use atoll_storage::seal;
use atoll_storage::{
    Cause, Changes, Clock, Db, Dot, Error, Field, Id, Kind, Lane, NodeId, Query, Read, Replica,
    Type,
};
use std::collections::BTreeMap;
use std::fmt::Write;

const TITLE: Field = Field::text(1, "title").column();
const SLUG: Field = Field::text(2, "slug").claim("note.slug");
const TAGS: Field = Field::set(3, "tags", Type::Text).column();
const BODY: Field = Field::body(4, "body");
const VIEWS: Field = Field::counter(1, "views").column();

static NOTE: Kind = Kind {
    fields: &[TITLE, SLUG, TAGS, BODY],
    counted: &["title"],
    ..Kind::new(100, "note", "notes", "content")
};
static STATS: Kind = Kind { fields: &[VIEWS], ..Kind::new(101, "stat", "stats", "insight") };
static REVOCATION: Kind = Kind {
    fields: &[REVOKED_NODE, REVOKED_CUTS],
    revokes: true,
    ..Kind::new(3, "revocation", "revocations", "network")
};
static SEAL: Kind = seal::seals(96, "seal", "seals", "content");
static KINDS: &[&Kind] = &[&NOTE, &STATS, &REVOCATION, &SEAL];
const TENANT: Id = Id([7; 16]);
const KEY: Id = Id([1; 16]);
const OTHER: Id = Id([2; 16]);
const NEW: Id = Id([9; 16]);

fn node(n: u8) -> Db {
    let clock = Clock::from_fn(move || 1_700_000_000_000 + u64::from(n));
    Db::open_in_memory(KINDS, NodeId([n; 16]), clock).unwrap()
}

fn send(from: &mut Db, to: &mut Db) {
    let known = to.heads(None).unwrap().into_iter().map(|h| (h.stream, h.vector)).collect();
    for lane in [Lane::Urgent, Lane::Rest] {
        let start = from.start_of(lane, &known).unwrap();
        let batch = from.ops(lane, start, &known, 10_000, 1 << 24).unwrap();
        to.apply(batch.ops).unwrap();
    }
    assert_eq!(to.parked(), 0);
}

fn snapshot(from: &mut Db, to: &mut Db) {
    for head in from.heads(None).unwrap() {
        let index = from.snapshot_index(&head.stream).unwrap();
        let chunk = from.snapshot_chunk(&head.stream, None, None).unwrap();
        to.merge_chunk(&chunk).unwrap();
        to.finish_snapshot(&head.stream, &index.vector).unwrap();
    }
}

fn remove(db: &mut Db, node: NodeId) {
    db.transact(|tx| {
        let key = Id::natural(&[b"revocation", &node.0]);
        let cut = tx.cut_of(node, &BTreeMap::new())?.unwrap();
        let changes = Changes::new().set(&REVOKED_NODE, node.to_string()).add(&REVOKED_CUTS, cut);
        match tx.get(&REVOCATION, key)? {
            Some(_) => tx.edit(&REVOCATION, key, changes),
            None => tx.create(&REVOCATION, Id::NIL, key, changes),
        }
    })
    .unwrap();
}

fn make(db: &mut Db, key: Id, title: &str, slug: &str, body: &str) {
    let changes = Changes::new().set(&TITLE, title).set(&SLUG, slug).add(&TAGS, "sea");
    db.transact(|tx| tx.create(&NOTE, TENANT, key, changes.body(&BODY, body))).unwrap();
}

fn edit(db: &mut Db, key: Id, changes: Changes) {
    db.transact(|tx| tx.edit(&NOTE, key, changes)).unwrap();
}

/// Everything that a reader sees of notes.
fn shown(db: &Db) -> String {
    let mut out = String::new();
    let query = Query::everywhere(&NOTE).sort("key", false).with_bodies();
    for record in db.reader().list(&query).unwrap().records {
        let tags: Vec<_> = record.set(&TAGS).collect();
        let (title, slug, body) = (record.text(&TITLE), record.text(&SLUG), record.body(&BODY));
        let made = record.created_ms();
        let _ = writeln!(out, "{} {title} {slug} {body} {tags:?} {made}", record.key);
    }
    out
}

/// The dots of a node beyond a number that are in any state.
fn late_dots(db: &Db, node: NodeId, from: u64) -> Vec<Dot> {
    let query = Query::everywhere(&NOTE).limit(1_000);
    let mut dots = Vec::new();
    for record in db.reader().list(&query).unwrap().records {
        dots.extend(record.state.creations.keys().copied());
        dots.extend(record.state.cells.iter().map(|cell| cell.dot));
    }
    dots.retain(|dot| dot.origin.node == node && dot.seq > from);
    dots
}

fn quarantined(db: &Db) -> usize {
    let rows = db.reader().quarantined(1_000).unwrap();
    assert!(rows.iter().all(|row| row.reason == "written after its node was removed"));
    rows.len()
}

fn find(db: &mut Db) {
    while db.find_late(3).unwrap() {}
}

fn assert_equal(nodes: &mut [&mut Db]) {
    let leaves = |db: &mut Db| -> Vec<_> {
        db.heads(None).unwrap().iter().map(|h| (h.stream.clone(), h.leaf())).collect()
    };
    let first = leaves(nodes[0]);
    for db in nodes {
        assert_eq!(leaves(db), first);
        assert_eq!(db.verify().unwrap().problems, Vec::<String>::new());
    }
}

type LateWrite = fn(&mut Db);

/// What a thief may do with the node: a write of each sort.
fn late_writes() -> Vec<(&'static str, LateWrite)> {
    vec![
        ("creation", |p| make(p, NEW, "Spam", "spam", "buy")),
        ("a taken name", |p| make(p, NEW, "Spam", "reef", "buy")),
        ("value", |p| edit(p, KEY, Changes::new().set(&TITLE, "Hacked"))),
        ("value twice", |p| {
            edit(p, KEY, Changes::new().set(&TITLE, "Hacked"));
            edit(p, KEY, Changes::new().set(&TITLE, "Hacked again").set(&SLUG, "hacked"));
        }),
        ("no value", |p| edit(p, KEY, Changes::new().set(&TITLE, atoll_storage::Value::Null))),
        ("elements", |p| edit(p, KEY, Changes::new().add(&TAGS, "spam").drop(&TAGS, "sea"))),
        ("text", |p| edit(p, KEY, Changes::new().body(&BODY, "nothing is left of it"))),
        ("text twice", |p| {
            edit(p, KEY, Changes::new().body(&BODY, "nothing is left of it"));
            edit(p, KEY, Changes::new().body(&BODY, "nothing is left of it, nothing"));
        }),
        ("text, and less of it", |p| {
            edit(p, KEY, Changes::new().body(&BODY, "the reef at low tide, in time, spam, ham"));
            edit(p, KEY, Changes::new().body(&BODY, "the reef at low tide, in time, ham"));
        }),
        ("deletion", |p| p.transact(|tx| tx.remove(&NOTE, KEY)).unwrap()),
        ("change and deletion", |p| {
            edit(p, KEY, Changes::new().set(&TITLE, "Hacked").body(&BODY, "x"));
            p.transact(|tx| tx.remove(&NOTE, KEY)).unwrap();
        }),
        ("deletion and another life", |p| {
            p.transact(|tx| tx.remove(&NOTE, KEY)).unwrap();
            make(p, KEY, "Spam", "spam", "buy");
            edit(p, KEY, Changes::new().set(&TITLE, "More spam"));
        }),
        ("creation, change and deletion", |p| {
            make(p, NEW, "Spam", "spam", "buy");
            edit(p, NEW, Changes::new().set(&TITLE, "More spam"));
            p.transact(|tx| tx.remove(&NOTE, NEW)).unwrap();
        }),
    ]
}

/// A and B and P hold the same; P, which is to be removed, has written some of it.
fn network() -> (Db, Db, Db, u64) {
    let (mut a, mut b, mut p) = (node(1), node(2), node(3));
    make(&mut a, KEY, "Reef", "reef", "the reef at low tide");
    edit(&mut a, KEY, Changes::new().add(&TAGS, "tide"));
    send(&mut a, &mut p);
    make(&mut p, OTHER, "Lagoon", "lagoon", "by P, in time");
    edit(&mut p, KEY, Changes::new().body(&BODY, "the reef at low tide, in time"));
    send(&mut p, &mut a);
    send(&mut a, &mut b);
    let cut = p.heads(None).unwrap()[0].vector.get(p.origin());
    (a, b, p, cut)
}

#[test]
fn what_comes_late_is_taken_back_on_nodes_that_had_heard_and_on_those_that_had_not() {
    for (name, write) in late_writes() {
        let (mut a, mut b, mut p, cut) = network();
        let before = shown(&a);
        remove(&mut a, p.origin().node);
        write(&mut p);
        // B has not heard, and takes it.
        send(&mut p, &mut b);
        assert_ne!((shown(&b), name.contains("and deletion")), (before.clone(), false), "{name}");
        send(&mut a, &mut b);
        find(&mut b);
        assert!(quarantined(&b) > 0, "{name}");
        send(&mut b, &mut a);
        assert_eq!(quarantined(&a), quarantined(&b), "{name}");
        assert_eq!(shown(&a), before, "{name}");
        send(&mut a, &mut b);
        assert_eq!(shown(&b), before, "{name}");
        assert_eq!(late_dots(&a, p.origin().node, cut), vec![], "{name}");
        // One that comes later gets it op by op, or as a state; and one that heard first.
        let (mut by_op, mut by_state, mut heard_first) = (node(4), node(5), node(6));
        send(&mut b, &mut by_op);
        snapshot(&mut b, &mut by_state);
        find(&mut by_state);
        while by_op.take_back_before(u64::MAX >> 1, 1).unwrap() {}
        assert_eq!(late::waiting(&by_op.reader()).unwrap(), 0, "{name}");
        send(&mut by_op, &mut heard_first);
        assert_eq!((shown(&by_op), shown(&by_state)), (before.clone(), before.clone()), "{name}");
        assert_eq!(quarantined(&by_op), quarantined(&a), "{name}");
        assert_equal(&mut [&mut a, &mut b, &mut by_op, &mut heard_first]);
        assert_equal(&mut [&mut a, &mut by_state]);
        // What was put back, and deleted by an op that had not seen that, is told as any write that met a deletion.
        let mut entries = a.reader().conflicts(None, 100, None).unwrap();
        entries.retain(|entry| entry.cause != Cause::LostWrite || name != "change and deletion");
        assert!(entries.is_empty(), "{name}: {entries:?}");
    }
}

#[test]
fn a_node_that_had_heard_takes_it_back_if_the_one_that_said_so_is_gone() {
    for (name, write) in late_writes() {
        let (mut a, mut b, mut p, cut) = network();
        let before = shown(&a);
        remove(&mut a, p.origin().node);
        let mut c = node(4);
        send(&mut a, &mut c);
        drop(a);
        write(&mut p);
        send(&mut p, &mut b);
        send(&mut b, &mut c);
        assert!(late::waiting(&c.reader()).unwrap() > 0, "{name}");
        while c.take_back_before(u64::MAX >> 1, 1).unwrap() {}
        assert_eq!(shown(&c), before, "{name}");
        assert_eq!(late_dots(&c, p.origin().node, cut), vec![], "{name}");
        send(&mut c, &mut b);
        assert_eq!(shown(&b), before, "{name}");
        assert_equal(&mut [&mut b, &mut c]);
    }
}

#[test]
fn what_others_wrote_over_it_stays() {
    let (mut a, mut b, mut p, _) = network();
    remove(&mut a, p.origin().node);
    edit(&mut p, KEY, Changes::new().set(&TITLE, "Hacked"));
    edit(&mut p, OTHER, Changes::new().set(&TITLE, "Hacked").body(&BODY, "Hacked, in time"));
    make(&mut p, NEW, "Spam", "spam", "buy");
    send(&mut p, &mut b);
    // Somebody at B makes something of it, and does not know.
    edit(&mut b, KEY, Changes::new().set(&TITLE, "The reef"));
    edit(&mut b, OTHER, Changes::new().set(&SLUG, "the-lagoon").body(&BODY, "Hacked, in time: no"));
    edit(&mut b, NEW, Changes::new().set(&TITLE, "No spam"));
    send(&mut b, &mut a);
    send(&mut a, &mut b);
    assert_equal(&mut [&mut a, &mut b]);
    let get = |db: &Db, key| db.reader().get_full(&NOTE, key).unwrap();
    let reef = get(&a, KEY).unwrap();
    assert_eq!(reef.text(&TITLE), "The reef");
    let lagoon = get(&a, OTHER).unwrap();
    assert_eq!((lagoon.text(&TITLE), lagoon.text(&SLUG)), ("Lagoon", "the-lagoon"));
    assert_eq!(lagoon.body(&BODY), "by P, in time: no");
    // What was written to what goes is in the inbox.
    assert!(get(&a, NEW).is_none());
    let rows = a.reader().conflicts(None, 100, None).unwrap();
    assert!(rows.iter().any(|row| row.key == NEW && row.field == "title"), "{rows:?}");
}

#[test]
fn what_somebody_deleted_apart_from_a_late_deletion_does_not_come_back() {
    for says in [true, false] {
        let (mut a, mut b, mut p, _) = network();
        remove(&mut a, p.origin().node);
        let (mut heard, mut apart) = (node(4), node(5));
        send(&mut a, &mut heard);
        send(&mut b, &mut apart);
        for key in [KEY, OTHER] {
            p.transact(|tx| tx.remove(&NOTE, key)).unwrap();
        }
        // The one apart has not got the late deletions, and deletes one of the two itself.
        apart.transact(|tx| tx.remove(&NOTE, KEY)).unwrap();
        let one = if says { &mut a } else { &mut heard };
        send(&mut p, &mut b);
        send(&mut b, one);
        if says {
            assert!(one.reader().get(&NOTE, KEY).unwrap().is_some());
        }
        send(&mut apart, one);
        while one.take_back_before(u64::MAX >> 1, 1).unwrap() {}
        assert!(one.reader().get(&NOTE, KEY).unwrap().is_none(), "{says}");
        assert!(one.reader().get(&NOTE, OTHER).unwrap().is_some(), "{says}");
        send(one, &mut apart);
        assert_equal(&mut [one, &mut apart]);
    }
}

#[test]
fn counts_stay_and_a_failed_request_forgets_what_it_said() {
    let (mut a, mut b, mut p, _) = network();
    let node_p = p.origin().node;
    let failed: Result<(), Error> = a.transact(|tx| {
        let key = Id::natural(&[b"revocation", &node_p.0]);
        let cut = tx.cut_of(node_p, &BTreeMap::new())?.unwrap();
        let changes = Changes::new().set(&REVOKED_NODE, node_p.to_string());
        tx.create(&REVOCATION, Id::NIL, key, changes.add(&REVOKED_CUTS, cut))?;
        Err(Error::Missing("reason to go on"))
    });
    assert!(failed.is_err());
    edit(&mut p, KEY, Changes::new().set(&TITLE, "In time"));
    send(&mut p, &mut a);
    assert_eq!(quarantined(&a), 0);
    remove(&mut a, node_p);
    p.transact(|tx| tx.count(&STATS, TENANT, KEY, &[(&VIEWS, 3)], &[])).unwrap();
    send(&mut p, &mut b);
    send(&mut b, &mut a);
    assert_eq!(quarantined(&a), 1);
    send(&mut a, &mut b);
    assert_equal(&mut [&mut a, &mut b]);
    assert_eq!(a.reader().get(&STATS, KEY).unwrap().unwrap().total(&VIEWS), 3);
}
