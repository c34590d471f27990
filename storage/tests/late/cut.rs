//! From where on what a removed node wrote is late, when several say so, or say it anew.

use super::{
    KEY, NEW, NOTE, REVOCATION, TITLE, assert_equal, edit, find, make, network, node, quarantined,
    remove, send, shown,
};
use atoll_storage::revoked::REVOKED_CUTS;
use atoll_storage::{Changes, Db, Id, NodeId, Read};
use std::collections::BTreeMap;

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
