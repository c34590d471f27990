use super::*;
use crate::message::Packed;
use atoll_storage::{Changes, Clock, Db, Field, Id, Kind, Lane, NodeId, Op, Origin};

const TITLE: Field = Field::text(1, "title").column();
static NOTE: Kind = Kind { fields: &[TITLE], ..Kind::new(300, "note", "notes", "content") };
static KINDS: &[&Kind] = &[&NOTE];
const ONE: Id = Id([1; 16]);
const TWO: Id = Id([2; 16]);

type Outcome<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn node(n: u8) -> Outcome<Db> {
    Ok(Db::open_in_memory(KINDS, NodeId([n; 16]), Clock::from_fn(|| 1_700_000_000_000))?)
}

/// With a note in the stream of each tenant.
fn full() -> Outcome<Db> {
    let mut db = node(1)?;
    db.transact(|tx| {
        for tenant in [ONE, TWO] {
            let key = Id::natural(&[&tenant.0]);
            tx.create(&NOTE, tenant, key, Changes::new().set(&TITLE, "tide"))?;
        }
        Ok::<_, atoll_storage::Error>(())
    })?;
    Ok(db)
}

/// With room for one stream, and for so much more.
fn taking(more_bytes: usize) -> Taking {
    let stream = StreamId::new(ONE, NOTE.scope).bytes();
    let rooms = Rooms { open: Room::of(stream + more_bytes), ..Rooms::default() };
    Taking { rooms, ..Taking::default() }
}

/// Of three parts, the second one is of the second stream.
fn assert_second_left(to: &mut Db, report: &Report) -> Outcome {
    assert_eq!((report.parts, &report.missing[..]), (2, &[(1, 1)][..]));
    let damaged = report.damaged.iter().map(|one| (one.part, one.why.as_str()));
    assert_eq!(damaged.collect::<Vec<_>>(), [(Some(1), TOO_MUCH)]);
    let here: Vec<Id> = to.heads(None)?.into_iter().map(|head| head.stream.tenant).collect();
    assert_eq!(here, [ONE]);
    Ok(())
}

#[test]
fn ops_of_more_streams_than_can_be_remembered_are_left_and_the_rest_is_taken() -> Outcome {
    let (mut from, mut to) = (full()?, node(2)?);
    let ops = from.ops(Lane::Rest, 1, &BTreeMap::new(), 100, 1 << 20)?.ops;
    let mut taking = taking(Vector::default().bytes() + size_of::<(Origin, u64)>());
    for (number, tenant) in [ONE, TWO, ONE].into_iter().enumerate() {
        let of_one: Vec<&Op> = ops.iter().filter(|op| op.stream.tenant == tenant).collect();
        let part = Part::Ops(Packed::of(&of_one));
        taking.take(&mut Some(&mut to), &mut None, number as u32, part)?;
    }
    let report = taking.finish(Some(&mut to))?;
    assert_eq!((report.applied, report.had_already, report.waiting), (1, 1, 0));
    assert_second_left(&mut to, &report)
}

#[test]
fn chunks_of_more_streams_than_can_be_remembered_are_left_and_the_rest_is_taken() -> Outcome {
    let (mut from, mut to) = (full()?, node(2)?);
    let mut taking = taking(0);
    for (number, tenant) in [ONE, TWO, ONE].into_iter().enumerate() {
        let chunk = from.snapshot_chunk(&StreamId::new(tenant, NOTE.scope), None, None)?;
        let part = Part::Chunk(Packed::of(&chunk));
        taking.take(&mut Some(&mut to), &mut None, number as u32, part)?;
    }
    let report = taking.finish(Some(&mut to))?;
    assert!(report.unfinished.is_empty());
    assert_second_left(&mut to, &report)
}
