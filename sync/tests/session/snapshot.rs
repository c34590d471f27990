//! Snapshots from a node that holds no whole one, or that changes while its index is on its way.

use super::{NOTE, Outcome, Pair, content, node, write};
use atoll_storage::{Db, Error, Id, Read, Replica, Vector};
use atoll_sync::message::{Message, Page};
use atoll_sync::session::{Event, Options};

fn key(n: u32) -> Id {
    Id::natural(&[b"note", &n.to_le_bytes()])
}

fn has(db: &Db, n: u32) -> Result<bool, Error> {
    Ok(db.reader().get(&NOTE, key(n))?.is_some())
}

fn vector(db: &mut Db) -> Result<Vector, Error> {
    Ok(db.head(&content())?.map(|head| head.vector).unwrap_or_default())
}

fn ops(db: &mut Db) -> Result<Vec<atoll_storage::Op>, Error> {
    let known = [].into();
    Ok(db.ops(atoll_storage::Lane::Rest, 0, &known, 100, 1 << 20)?.ops)
}

/// One that took a part of a snapshot and deleted a record of it counts its deletion and not what it deleted. Whoever
/// takes the stream from it must not hold the one without the other.
#[test]
fn what_was_deleted_out_of_half_a_snapshot_does_not_come_back() -> Outcome {
    let (mut a, mut b, c) = (node(1)?, node(2)?, node(3)?);
    write(&mut a, &NOTE, 1, "deleted")?;
    write(&mut a, &NOTE, 2, "kept")?;
    let (first, second) = (key(1).min(key(2)), key(1).max(key(2)));
    let deleted = if first == key(1) { 1 } else { 2 };
    let upto = Some((NOTE.code, first));
    b.merge_chunk(&a.snapshot_chunk(&content(), None, upto)?)?;
    b.transact(|tx| tx.remove(&NOTE, first))?;
    assert!(
        second > first && !has(&b, deleted)? && vector(&mut b)?.lead_over(&Vector::default()) == 1
    );

    let options = Options { snapshot_from_ops: 1, ..Options::default() };
    let mut pair = Pair::new(b, c, &options);
    pair.step(0, Event::Open);
    pair.step(1, Event::Open);
    pair.carry();
    pair.wait(3_000);
    let [mut b, mut c] = pair.dbs;
    assert_eq!(vector(&mut b)?, vector(&mut c)?);

    let from_a = ops(&mut a)?;
    for db in [&mut b, &mut c] {
        db.apply(from_a.clone())?;
        assert!(!has(db, deleted)?, "{:?} has it again", db.origin());
        assert!(has(db, 3 - deleted)?);
    }
    a.apply(ops(&mut b)?)?;
    assert_eq!([a.root()?, b.root()?, c.root()?], [a.root()?; 3]);
    Ok(())
}

/// A part of a snapshot that somebody carried here is told on, though no op of its stream ever came.
#[test]
fn what_half_a_snapshot_brought_goes_on_to_others() -> Outcome {
    let (mut a, mut b, c) = (node(1)?, node(2)?, node(3)?);
    write(&mut a, &NOTE, 1, "one")?;
    write(&mut a, &NOTE, 2, "two")?;
    let first = key(1).min(key(2));
    b.merge_chunk(&a.snapshot_chunk(&content(), None, Some((NOTE.code, first)))?)?;
    assert_eq!(vector(&mut b)?, Vector::default());

    let mut pair = Pair::open(b, c);
    assert!(pair.are_equal());
    assert_eq!(pair.ends.each_ref().map(|end| end.status().alarms), [0, 0]);
    assert!(pair.dbs[1].reader().get(&NOTE, first)?.is_some());
    let [b, c] = pair.dbs;
    let mut pair = Pair::open(a, c);
    assert!(pair.are_equal());
    let [mut a, c] = pair.dbs;
    let mut pair = Pair::open(c, b);
    assert!(pair.are_equal());
    assert_eq!(pair.dbs[1].root()?, a.root()?);
    Ok(())
}

/// The stream moved on between two answers to one request: a page of the first and a page of the second tell of no state
/// that there ever was.
#[test]
fn pages_of_two_answers_make_no_index() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    write(&mut a, &NOTE, 1, "deleted")?;
    let mut pair = Pair::open(a, b);
    let early = pair.dbs[0].snapshot_index(&content())?;
    pair.dbs[0].transact(|tx| tx.remove(&NOTE, key(1)))?;
    let all = vector(&mut pair.dbs[0])?;
    pair.dbs[0].trim(&content(), &all)?;
    let late = pair.dbs[0].snapshot_index(&content())?;
    let [a, b] = pair.dbs;
    let mut pair = Pair::new(a, b, &Options::default());
    pair.step(0, Event::Open);
    pair.step(1, Event::Open);
    let mut is_mixed = false;
    while let Some((to, bytes)) = pair.wire.pop_front() {
        if let (1, Ok(Message::Index { request, .. })) = (to, Message::decode(&bytes)) {
            let page = |number, items| Page { number, of: 2, items };
            let first = page(0, early.chunks.clone());
            let second = page(1, vec![]);
            for (vector, page) in [(&early.vector, first), (&late.vector, second)] {
                let index = Message::Index { request, vector: vector.clone(), page };
                pair.step(1, Event::Frame(index.encode()));
            }
            is_mixed = true;
            break;
        }
        pair.step(to, Event::Frame(bytes));
    }
    assert!(is_mixed);
    assert_ne!(vector(&mut pair.dbs[1])?, all, "it took no deletion and counts it");
    pair.wire.clear();
    pair.wait(20_000);
    assert!(pair.are_equal() && !has(&pair.dbs[1], 1)?);
    Ok(())
}
