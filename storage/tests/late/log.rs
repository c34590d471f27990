//! Logs that were trimmed or packed, snapshots, and nodes that go on under another epoch.

use super::{
    KEY, NEW, OTHER, TAGS, TITLE, assert_equal, edit, find, late_dots, make, network, quarantined,
    remove, send, shown, snapshot,
};
use atoll_storage::{Changes, Error, Read, Replica, late};

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
