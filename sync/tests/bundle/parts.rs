//! Bundles from and for nodes that carry a part of the network.

use super::{Changes, LOGIN, MEMBER, NOTE, Node, Outcome, Shelf, TENANT, assert_equal, key_of};
use super::{carry, node, slices};
use atoll_storage::{Carries, Id, Read as _, Replica as _, StreamId};
use atoll_sync::bundle::{self, Order, Tells};
use std::collections::BTreeSet;

fn content() -> StreamId {
    StreamId::new(TENANT, "content")
}

fn without_content() -> Outcome<Carries> {
    Ok(Carries::parse(["*", "-*/content"], |_| None)?)
}

fn with_member(node: &mut Node, n: u8) -> Outcome {
    let member = Changes::new().set(&LOGIN, format!("member {n}"));
    node.db.transact(|tx| tx.create(&MEMBER, TENANT, Id([n; 16]), member))?;
    Ok(())
}

fn shed(node: &mut Node) -> Outcome {
    while node.db.shed(200)? {}
    Ok(())
}

#[test]
fn whoever_leaves_something_out_takes_nothing_of_it_and_lacks_nothing() -> Outcome {
    let (mut core, mut part) = (node()?, node()?);
    core.fill(0..2_500)?;
    with_member(&mut core, 9)?;
    part.db.carry(without_content()?)?;
    let (done, volumes) = core.export(&vec![], &[])?;
    assert_eq!((done.records, done.ops), (2_500, 1));
    let report = part.import(&slices(&volumes))?;
    assert_eq!((report.not_carried, report.applied, report.is_whole()), (2_500, 1, true));
    core.write(9_000, "an op of what is not carried")?;
    let report = carry(&mut core, &mut part)?;
    assert_eq!((report.not_carried, report.waiting, report.is_whole()), (2_501, 0, true));
    assert!(part.db.head(&content())?.is_none());
    // The same volumes, once it carries more.
    part.db.carry(Carries::everything())?;
    part.import(&slices(&volumes))?;
    carry(&mut core, &mut part)?;
    assert_equal(&mut core, &mut part)
}

#[test]
fn a_maker_tells_what_it_carries_and_nobody_takes_the_rest_for_had() -> Outcome {
    let (mut core, mut part, mut new) = (node()?, node()?, node()?);
    core.fill(0..2_500)?;
    with_member(&mut core, 9)?;
    carry(&mut core, &mut part)?;
    assert_equal(&mut core, &mut part)?;
    // It is dropping the notes, and has come half-way.
    part.db.carry(without_content()?)?;
    assert!(part.db.shed(200)?);
    with_member(&mut part, 8)?;
    let (done, volumes) = part.export(&vec![], &[])?;
    assert_eq!((done.records, done.ops), (0, 2));
    let report = new.import(&slices(&volumes))?;
    assert_eq!(report.carries, Some(without_content()?));
    assert!(report.is_whole() && new.db.head(&content())?.is_none(), "{report:?}");
    let told = report.want.unwrap_or_default();
    assert!(told.iter().all(|(stream, _)| *stream != content()));
    // Who had the notes keeps them, and who has not gets them elsewhere.
    assert!(core.import(&slices(&volumes))?.is_whole());
    assert!(core.db.reader().get(&NOTE, key_of(7))?.is_some());
    carry(&mut core, &mut new)?;
    assert_equal(&mut core, &mut new)?;
    // Taken again, from a bundle of what it is thought to have still: nothing counts that is not here.
    shed(&mut part)?;
    let before = core.want()?;
    core.write(9_000, "later")?;
    part.db.carry(Carries::everything())?;
    let report = part.import(&slices(&core.export(&before, &[])?.1))?;
    assert_eq!((report.ops, report.waiting), (1, 1), "{report:?}");
    assert!(part.db.reader().get(&NOTE, key_of(9_000))?.is_none());
    carry(&mut core, &mut part)?;
    assert_equal(&mut core, &mut part)
}

#[test]
fn a_snapshot_that_was_half_taken_before_its_stream_was_dropped_is_not_finished_by_the_other_half()
-> Outcome {
    let (mut core, mut part) = (node()?, node()?);
    core.fill(0..9_000)?;
    let (_, volumes) = core.export_in(&vec![], &[], bundle::MIN_VOLUME_BYTES)?;
    assert!(volumes.len() >= 2);
    part.import(&[&volumes[0]])?;
    part.db.carry(without_content()?)?;
    shed(&mut part)?;
    part.db.carry(Carries::everything())?;
    let last = volumes.last().ok_or("there are two")?;
    let report = part.import(&[last])?;
    assert_eq!(report.unfinished, [content()]);
    part.import(&slices(&volumes))?;
    assert_equal(&mut core, &mut part)
}

#[test]
fn a_bundle_holds_and_tells_of_what_its_receiver_carries() -> Outcome {
    let mut core = node()?;
    core.fill(0..5)?;
    with_member(&mut core, 9)?;
    let carries = without_content()?;
    let order = Order {
        known: [].into(),
        carries: &|stream| carries.carries(stream),
        recipients: vec![],
        whole: BTreeSet::default(),
        tells: Tells::Has,
        lacks: &[],
        files: None,
        volume_bytes: bundle::MAX_VOLUME_BYTES,
        batch_ops: bundle::BATCH_OPS,
        snapshot_from_ops: bundle::SNAPSHOT_FROM_OPS,
        name: "core",
        now_ms: 5,
    };
    let mut shelf = Shelf::default();
    let done = bundle::export(&mut core.db, &core.key, &order, &mut shelf, |_, _| {})?;
    assert_eq!(done.ops, 1);
    let report = node()?.import(&slices(&shelf.0))?;
    assert_eq!((report.carries.clone(), report.is_whole()), (None, true));
    let mut told = core.want()?;
    told.retain(|(stream, _)| *stream != content());
    assert_eq!(report.want, Some(told));
    Ok(())
}
