//! States that are left in a bucket for whom they differ though the ops are the same.

use super::{KINDS, NOTE, Node, Outcome, Shelf, assert_equal, carry, key_of, node, slices};
use atoll_storage::{Clock, Db, Digest, NodeId, Read as _, Replica as _, StreamId, Vector};
use atoll_sync::bundle::{self, Brings, Cover, Order, Repair, Tells, Volume};
use atoll_sync::key::NodeKey;
use std::collections::BTreeSet;
use std::io::Cursor;

/// Of the one stream that there is, or of all.
fn export(from: &mut Node, tells: Tells<'_>, whole: BTreeSet<StreamId>) -> Outcome<Vec<Vec<u8>>> {
    let order = Order {
        known: [].into(),
        carries: &|_| true,
        recipients: vec![],
        whole,
        tells,
        lacks: &[],
        files: None,
        volume_bytes: bundle::MIN_VOLUME_BYTES,
        batch_ops: bundle::BATCH_OPS,
        snapshot_from_ops: bundle::SNAPSHOT_FROM_OPS,
        name: "campus",
        now_ms: 5,
    };
    let mut shelf = Shelf::default();
    bundle::export(&mut from.db, &from.key, &order, &mut shelf, |_, _| {})?;
    Ok(shelf.0)
}

fn stand(node: &mut Node) -> Outcome<(StreamId, Vector, Digest)> {
    let head = node.db.heads(None)?.pop().ok_or("nothing is here")?;
    Ok((head.stream, head.vector, head.digest))
}

fn state_for(from: &mut Node, node: NodeId) -> Outcome<Vec<Vec<u8>>> {
    let whole = [stand(from)?.0].into();
    export(from, Tells::Repairs { nodes: &[node], tries: 3 }, whole)
}

/// Each heard of another life of one node, which gave out the same number.
fn told_apart() -> Outcome<(Node, Node)> {
    let (mut one, mut other) = (node()?, node()?);
    let key = NodeKey::generate()?;
    for (n, heard) in [(1, &mut one), (2, &mut other)] {
        let clock = Clock::from_fn(|| 1_700_000_000_000);
        let db = Db::open_in_memory(KINDS, key.node_id(), clock)?;
        let mut life = Node { db, key: key.clone() };
        life.write(n, "of this life")?;
        carry(&mut life, heard)?;
    }
    assert_eq!(one.want()?, other.want()?);
    assert_ne!(one.db.root()?, other.db.root()?);
    Ok((one, other))
}

#[test]
fn a_state_is_merged_by_whom_it_differs_though_he_has_all_of_its_ops() -> Outcome {
    let (mut one, mut other) = told_apart()?;
    for _ in 0..2 {
        let (stream, to, digest) = stand(&mut one)?;
        let nodes = vec![other.key.node_id()];
        let volumes = state_for(&mut one, other.key.node_id())?;
        let mut volume = Volume::open(Cursor::new(&volumes[0]))?;
        let covers = vec![Cover { stream, from: Vector::default(), to }];
        let repair = Some(Repair { digest, nodes, tries: 3 });
        assert_eq!(volume.brings()?, Some(Brings { covers, repair }));
        let report = other.import(&slices(&volumes))?;
        assert!(report.is_whole() && report.records > 0, "{report:?}");
        std::mem::swap(&mut one, &mut other);
    }
    assert_equal(&mut one, &mut other)?;
    for n in [1, 2] {
        assert!(one.db.reader().get(&NOTE, key_of(n))?.is_some(), "note {n} is lost");
    }
    Ok(())
}

#[test]
fn a_state_goes_to_whom_has_nothing_too() -> Outcome {
    let (mut one, mut new) = (node()?, node()?);
    one.fill(0..50)?;
    let volumes = state_for(&mut one, new.key.node_id())?;
    assert!(new.import(&slices(&volumes))?.is_whole());
    assert_equal(&mut one, &mut new)
}

#[test]
fn a_state_that_is_cut_off_before_it_says_what_it_is_says_nothing() -> Outcome {
    let (mut one, other) = told_apart()?;
    let volumes = state_for(&mut one, other.key.node_id())?;
    let all = Volume::open(Cursor::new(&volumes[0]))?.brings()?;
    for end in 0..volumes[0].len() {
        let Ok(mut volume) = Volume::open(Cursor::new(&volumes[0][..end])) else { continue };
        let brings = volume.brings()?;
        assert!(brings.is_none() || brings == all, "{end}: {brings:?}");
    }
    Ok(())
}

#[test]
fn what_a_node_says_in_a_bucket_tells_how_its_streams_stand() -> Outcome {
    let (mut one, _) = told_apart()?;
    let (stream, _, digest) = stand(&mut one)?;
    let says = export(&mut one, Tells::Says { refused: &[] }, [].into())?;
    let report = node()?.import(&slices(&says))?;
    assert!(report.is_sound());
    assert_eq!(report.want, Some(one.want()?));
    let told = report.states.unwrap_or_default().into_iter();
    let told: Vec<_> = told.map(|(stream, state)| (stream, state.digest, state.is_ahead)).collect();
    assert_eq!(told, [(stream, digest, false)]);
    let wants = export(&mut one, Tells::Wants, [].into())?;
    assert_eq!(node()?.import(&slices(&wants))?.states, None);
    Ok(())
}
