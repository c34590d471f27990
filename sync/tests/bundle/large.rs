//! Records that are longer than a part of a bundle.

use super::{
    Changes, NOTE, Node, Outcome, TENANT, TEXT, assert_equal, carry, key_of, node, slices,
};
use atoll_storage::{Record, Replica as _, StreamId};
use atoll_sync::bundle;

/// A node whose log is trimmed, with a record of more than 9 MiB among others: ten nodes made it apart from each other, each
/// with a text of its own.
fn with_a_long_record() -> Outcome<Node> {
    let mut core = node()?;
    for n in 0..10_u32 {
        let mut other = node()?;
        let mut hash = blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof();
        let mut noise = vec![0; 1_000_000];
        hash.fill(&mut noise);
        let text: String = noise.iter().map(|byte| char::from(b' ' + byte % 95)).collect();
        let changes = Changes::new().body(&TEXT, text);
        other.db.transact(|tx| tx.create(&NOTE, TENANT, key_of(1), changes).map(|_: Record| ()))?;
        carry(&mut other, &mut core)?;
    }
    core.fill(2..200)?;
    let content = StreamId::new(TENANT, "content");
    let all = core.db.head(&content)?.map(|head| head.vector).unwrap_or_default();
    core.db.trim(&content, &all)?;
    Ok(core)
}

#[test]
fn a_record_that_is_longer_than_a_part_comes_whole_out_of_small_volumes_in_any_order() -> Outcome {
    let (mut core, mut new) = (with_a_long_record()?, node()?);
    let to = [new.as_recipient()?];
    let (done, volumes) = core.export_in(&vec![], &to, bundle::MIN_VOLUME_BYTES)?;
    assert!(done.volumes >= 2, "{done:?}");
    let mut records = 0;
    for volume in volumes.iter().rev() {
        records += new.import(&[volume])?.records;
    }
    assert_eq!((records, done.records), (199, 199));
    assert_equal(&mut core, &mut new)
}

#[test]
fn a_damaged_piece_is_named_and_a_copy_brings_the_record() -> Outcome {
    let (mut core, mut new) = (with_a_long_record()?, node()?);
    let (_, volumes) = core.export(&vec![], &[])?;
    let mut damaged = volumes[0].clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let report = new.import(&[&damaged])?;
    assert_eq!((report.damaged.len(), report.is_whole()), (1, false), "{report:?}");
    assert!(new.want()?.iter().all(|(_, vector)| vector.0.is_empty()), "nothing counts as whole");
    let report = new.import(&[&damaged, &volumes[0]])?;
    assert_eq!(report.records, 199);
    let report = new.import(&slices(&volumes))?;
    assert!(report.is_whole(), "{report:?}");
    assert_equal(&mut core, &mut new)
}
