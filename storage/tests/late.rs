//! What a removed node wrote after it was removed: on nodes that had heard, on nodes that had not, and between them.

use atoll_storage::late;
use atoll_storage::revoked::{REVOKED_CUTS, REVOKED_NODE};
use atoll_storage::seal::{self, Verdict};
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

/// Two late changes of one text, the second one made without what takes the first one back.
#[test]
fn of_a_text_what_one_node_took_back_another_does_not_do_again() {
    let texts = [
        ("the reef at low tide, in time, spam", "the reef at low tide, in time"),
        ("the reef at low tide, in time, spam, ham", "the reef at low tide, in time, ham"),
        ("the reef", "the reef, spam"),
        ("", "spam"),
    ];
    for (first, second) in texts {
        for is_gone in [false, true] {
            let (mut a, mut b, mut p, _) = network();
            let before = shown(&a);
            remove(&mut a, p.origin().node);
            let mut c = node(4);
            send(&mut a, &mut c);
            edit(&mut p, KEY, Changes::new().body(&BODY, first));
            send(&mut p, &mut b);
            send(&mut b, &mut a);
            edit(&mut p, KEY, Changes::new().body(&BODY, second));
            send(&mut p, &mut b);
            send(&mut b, &mut c);
            // Of the second one, the node that said so may hear too, or never.
            if !is_gone {
                send(&mut b, &mut a);
            }
            send(&mut a, &mut c);
            while c.take_back_before(u64::MAX >> 1, 1).unwrap() {}
            assert_eq!(shown(&c), before, "{first:?} {second:?} {is_gone}");
            send(&mut c, &mut b);
            assert_eq!(shown(&b), before, "{first:?} {second:?} {is_gone}");
            // Who said so is there again, and does at once what it had not heard of.
            send(&mut c, &mut a);
            send(&mut a, &mut b);
            send(&mut a, &mut c);
            assert_eq!((shown(&a), shown(&b)), (before.clone(), before), "{first:?} {second:?}");
            assert_equal(&mut [&mut a, &mut b, &mut c]);
        }
    }
}

/// It heard between two late changes of a text, and so takes the first one for what was there before.
#[test]
fn of_a_text_that_is_clean_again_everybody_is_told() {
    let (mut a, mut b, mut p, _) = network();
    let before = shown(&a);
    remove(&mut a, p.origin().node);
    edit(&mut p, KEY, Changes::new().body(&BODY, "the reef at low tide, in time, spam"));
    send(&mut p, &mut b);
    let mut c = node(4);
    send(&mut b, &mut c);
    // A takes the first one back, of which B does not hear before the second one comes.
    send(&mut a, &mut b);
    send(&mut c, &mut a);
    edit(&mut p, KEY, Changes::new().body(&BODY, "the reef at low tide, in time"));
    send(&mut p, &mut c);
    send(&mut c, &mut b);
    assert_eq!(late::waiting(&b.reader()).unwrap(), 1);
    send(&mut c, &mut a);
    send(&mut a, &mut b);
    assert_eq!(late::waiting(&b.reader()).unwrap(), 0);
    while b.take_back_before(u64::MAX >> 1, 1).unwrap() {}
    assert_eq!((shown(&a), shown(&b)), (before.clone(), before));
    assert_equal(&mut [&mut a, &mut b]);
}

#[test]
fn a_snapshot_brings_nothing_late_to_one_that_goes_on_under_another_epoch() {
    let (mut a, mut b, mut p, cut) = network();
    let before = shown(&a);
    remove(&mut a, p.origin().node);
    a.transact(|_| Ok::<_, Error>(())).unwrap();
    a.raise_epoch().unwrap();
    make(&mut p, NEW, "Spam", "spam", "buy");
    edit(&mut p, KEY, Changes::new().set(&TITLE, "Hacked"));
    send(&mut p, &mut b);
    snapshot(&mut b, &mut a);
    assert_eq!(shown(&a), before);
    assert_eq!(late_dots(&a, p.origin().node, cut), vec![]);
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
fn a_log_that_was_trimmed_and_a_snapshot_bring_nothing_late_back() {
    let (mut a, mut b, mut p, cut) = network();
    let before = shown(&a);
    remove(&mut a, p.origin().node);
    edit(&mut p, KEY, Changes::new().set(&TITLE, "Hacked").add(&TAGS, "spam"));
    make(&mut p, NEW, "Spam", "spam", "buy");
    send(&mut p, &mut b);
    for head in b.heads(None).unwrap() {
        b.trim(&head.stream, &head.vector).unwrap();
    }
    snapshot(&mut b, &mut a);
    assert_eq!(shown(&a).replace(r#", Text("spam")"#, ""), before);
    send(&mut a, &mut b);
    assert_equal(&mut [&mut a, &mut b]);
    assert_eq!(late_dots(&b, p.origin().node, cut).len(), 1);
}

#[test]
fn of_two_who_remove_it_at_one_time_what_either_had_counts() {
    let (mut a, mut b, mut p, _) = network();
    edit(&mut p, KEY, Changes::new().set(&TITLE, "In time for B"));
    send(&mut p, &mut b);
    let (node_p, with_b) = (p.origin().node, shown(&b));
    remove(&mut a, node_p);
    remove(&mut b, node_p);
    edit(&mut p, KEY, Changes::new().set(&TITLE, "Late for both"));
    let mut c = node(4);
    send(&mut p, &mut c);
    send(&mut a, &mut b);
    send(&mut b, &mut a);
    assert_eq!((quarantined(&a), quarantined(&b)), (0, 0));
    assert_eq!(shown(&a), with_b);
    send(&mut c, &mut a);
    send(&mut a, &mut b);
    send(&mut a, &mut c);
    assert_eq!((shown(&b), quarantined(&b)), (with_b, 1));
    assert_equal(&mut [&mut a, &mut b, &mut c]);
}

#[test]
fn what_the_removed_node_says_of_itself_and_what_is_said_late_does_not_count() {
    let (mut a, mut b, mut p, _) = network();
    let before = shown(&a);
    let (node_a, node_p) = (a.origin().node, p.origin().node);
    remove(&mut a, node_p);
    send(&mut a, &mut p);
    make(&mut p, NEW, "Spam", "spam", "buy");
    // It says that nothing of it is late, takes the removal back, and removes who removed it.
    remove(&mut p, node_a);
    p.transact(|tx| {
        let key = Id::natural(&[b"revocation", &node_p.0]);
        let mut changes = Changes::new();
        for cut in atoll_storage::revoked::cuts(tx, node_p)? {
            changes = changes.drop(&REVOKED_CUTS, cut);
        }
        tx.edit(&REVOCATION, key, changes)?;
        tx.remove(&REVOCATION, key)
    })
    .unwrap();
    let mut c = node(4);
    send(&mut p, &mut c);
    send(&mut c, &mut a);
    assert_eq!(shown(&a), before);
    let revoked = |db: &Db, node: NodeId| {
        let key = Id::natural(&[b"revocation", &node.0]);
        let record = db.reader().get(&REVOCATION, key).unwrap();
        record.map(|record| record.set(&REVOKED_CUTS).count())
    };
    assert_eq!((revoked(&a, node_p), revoked(&a, node_a)), (Some(1), None));
    make(&mut a, Id([8; 16]), "Shore", "shore", "by A");
    send(&mut a, &mut b);
    assert!(b.reader().get(&NOTE, Id([8; 16])).unwrap().is_some());
    assert_eq!(shown(&b), shown(&a));
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

#[test]
fn a_part_that_nobody_spoke_of_has_its_cut_from_the_first_who_carries_it() {
    let (mut a, mut b, mut p, _) = network();
    let node_p = p.origin().node;
    let mut part = node(4);
    part.carry(atoll_storage::Carries::parse(["*", "-*/content"], |_| None).unwrap()).unwrap();
    remove(&mut part, node_p);
    edit(&mut p, KEY, Changes::new().set(&TITLE, "In time for A"));
    send(&mut p, &mut a);
    let before = shown(&a);
    send(&mut part, &mut a);
    remove(&mut a, node_p);
    assert!(a.transact(|tx| tx.cut_of(node_p, &BTreeMap::new())).unwrap().is_none());
    edit(&mut p, KEY, Changes::new().set(&TITLE, "Late"));
    send(&mut p, &mut b);
    send(&mut b, &mut a);
    send(&mut a, &mut b);
    assert_eq!((shown(&a), shown(&b)), (before.clone(), before));
    assert_equal(&mut [&mut a, &mut b]);
}

#[test]
fn what_was_packed_before_a_node_heard_is_found_in_the_blocks_and_damaged_ones_are_passed_over() {
    for is_damaged in [false, true] {
        let (mut a, mut b, mut p, _) = network();
        let before = shown(&a);
        remove(&mut a, p.origin().node);
        edit(&mut p, KEY, Changes::new().set(&TITLE, "Hacked"));
        edit(&mut p, KEY, Changes::new().set(&TITLE, "Hacked again"));
        send(&mut p, &mut b);
        while b.pack_log(None, 0).unwrap() {}
        // This one comes after the block.
        edit(&mut p, OTHER, Changes::new().set(&TITLE, "Hacked too"));
        send(&mut p, &mut b);
        send(&mut b, &mut a);
        if is_damaged {
            b.transact(|tx| {
                let sql = "UPDATE block SET ops = zeroblob(20)";
                tx.conn().execute_batch(sql).map_err(Error::from)
            })
            .unwrap();
        }
        send(&mut a, &mut b);
        find(&mut b);
        assert_eq!(quarantined(&a), 3);
        assert_eq!(quarantined(&b), if is_damaged { 1 } else { 3 });
        assert_eq!((shown(&a), shown(&b)), (before.clone(), before));
    }
}

#[test]
fn a_node_that_goes_on_under_another_epoch_takes_back_like_any_other() {
    let (mut a, mut b, mut p, cut) = network();
    let before = shown(&a);
    remove(&mut a, p.origin().node);
    a.transact(|_| Ok::<_, Error>(())).unwrap();
    a.raise_epoch().unwrap();
    edit(&mut p, KEY, Changes::new().set(&TITLE, "Hacked"));
    send(&mut p, &mut b);
    send(&mut b, &mut a);
    assert_eq!((late::waiting(&a.reader()).unwrap(), quarantined(&a)), (1, 1));
    while a.take_back_before(u64::MAX >> 1, 1).unwrap() {}
    send(&mut a, &mut b);
    assert_eq!((shown(&a), shown(&b)), (before.clone(), before));
    assert_eq!(late_dots(&b, p.origin().node, cut), vec![]);
    assert_equal(&mut [&mut a, &mut b]);
}

#[test]
fn what_one_took_back_before_it_heard_of_a_wider_cut_stays_so_and_stays_shown() {
    let (mut a, mut b, mut p, _) = network();
    let (before, node_p) = (shown(&a), p.origin().node);
    edit(&mut p, KEY, Changes::new().set(&TITLE, "In time for B"));
    send(&mut p, &mut b);
    let mut c = node(4);
    send(&mut p, &mut c);
    remove(&mut a, node_p);
    remove(&mut b, node_p);
    send(&mut c, &mut a);
    assert_eq!((shown(&a), quarantined(&a)), (before.clone(), 1));
    send(&mut a, &mut b);
    send(&mut b, &mut a);
    find(&mut b);
    assert_eq!((shown(&a), shown(&b)), (before.clone(), before));
    assert_eq!((quarantined(&a), quarantined(&b)), (1, 0));
    assert_equal(&mut [&mut a, &mut b]);
}

/// Seals all that a node wrote.
fn seal_all(db: &mut Db) {
    let due = seal::due(&db.reader(), db.origin().node, u64::MAX >> 1, 100).unwrap();
    let made: Result<(), Error> = db.transact(|tx| {
        due.iter().try_for_each(|segment| tx.seal(segment, [3; 32], segment.message().as_slice()))
    });
    made.unwrap();
}

fn verdicts(db: &mut Db) -> Vec<Verdict> {
    let found = seal::examine(&db.reader(), 1_000, |_, _, _, _| true).unwrap();
    let noted: Result<u64, Error> = db.transact(|tx| tx.note_examined(&found));
    noted.unwrap();
    found.into_iter().map(|one| one.verdict).collect()
}

#[test]
fn seals_that_came_late_go_and_those_from_before_still_prove() {
    let (mut a, mut b, mut p, _) = network();
    seal_all(&mut p);
    send(&mut p, &mut a);
    send(&mut a, &mut b);
    let seals = |db: &Db| {
        let query = Query::everywhere(&SEAL).limit(100);
        db.reader().list(&query).unwrap().records.len()
    };
    let in_time = seals(&a);
    assert!(in_time > 0 && verdicts(&mut a).iter().all(|one| *one == Verdict::Proven));
    let before = seal::standing(&a.reader()).unwrap();
    remove(&mut a, p.origin().node);
    make(&mut p, NEW, "Spam", "spam", "buy");
    seal_all(&mut p);
    assert!(seals(&p) > in_time);
    send(&mut p, &mut b);
    send(&mut b, &mut a);
    send(&mut a, &mut b);
    find(&mut b);
    for db in [&mut a, &mut b] {
        assert_eq!(seals(db), in_time);
        assert!(!verdicts(db).iter().any(|one| matches!(one, Verdict::Broken(_))));
    }
    assert_eq!(seal::standing(&a.reader()).unwrap().proven_ops, before.proven_ops);
    assert_equal(&mut [&mut a, &mut b]);
}
