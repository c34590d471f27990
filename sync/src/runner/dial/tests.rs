//! When a dialler tries again.

use super::super::obstacle::Ended;
use super::super::roster::{Roster, Standing};
use super::*;
use atoll_storage::peer::Peer;
use atoll_storage::{Clock, NodeId};
use std::collections::BTreeSet;

const KEY: PublicKey = PublicKey([7; 32]);

fn roster() -> Roster {
    let peer = Peer {
        node: KEY.node_id(),
        public_key: KEY.0,
        name: "a peer".to_owned(),
        address: Some("192.0.2.1:4433".to_owned()),
        added_ms: 1,
        removed_ms: None,
        contact_ms: None,
        carries: None,
    };
    Roster::new(vec![peer], BTreeSet::new(), Standing::default(), Clock::from_fn(|| 1_000))
}

/// With the senders that keep them open.
fn waits() -> (Waits, [watch::Sender<bool>; 2]) {
    let senders = [watch::Sender::new(false), watch::Sender::new(false)];
    (Waits { paused: senders[0].subscribe(), stopped: senders[1].subscribe() }, senders)
}

/// A link that the peer dialled, and that ends at once.
fn link(roster: &Roster) {
    let place = roster.claim(KEY, KEY.node_id(), None).unwrap();
    roster.release(&place, &Ended::session("the disk is full"));
}

/// Whether it is over without anything else happening.
async fn is_over(waiting: impl Future) -> bool {
    tokio::time::timeout(Duration::ZERO, waiting).await.is_ok()
}

#[tokio::test]
async fn links_that_end_at_once_cut_no_pause_short() {
    let (roster, (mut waits, _open)) = (roster(), waits());
    let target = roster.target(&KEY).unwrap();
    link(&roster);
    assert!(!is_over(waits.longer(&target, LONGEST_PAUSE)).await);
    let short = Duration::from_nanos(1);
    link(&roster);
    assert_eq!(waits.longer(&target, short).await, short * 2, "the next pause is longer");
}

#[tokio::test]
async fn whoever_asks_for_it_is_dialled_at_once() {
    let (roster, (mut waits, _open)) = (roster(), waits());
    let target = roster.target(&KEY).unwrap();
    for wake in [Roster::wake_all, |roster: &Roster| roster.wake(KEY.node_id())] {
        wake(&roster);
        assert_eq!(waits.longer(&target, LONGEST_PAUSE).await, FIRST_PAUSE);
    }
    // Another node is meant.
    roster.wake(NodeId([9; 16]));
    assert!(!is_over(waits.longer(&target, LONGEST_PAUSE)).await);
}

#[tokio::test]
async fn who_lets_the_other_dial_first_does_so_when_a_link_is_asked_for_too() {
    let (roster, (mut waits, open)) = (roster(), waits());
    roster.wake_all();
    assert!(!is_over(waits.courtesy()).await);
    open[0].send_replace(true);
    assert!(is_over(waits.courtesy()).await, "links are paused");
}

#[tokio::test]
async fn the_end_of_a_link_is_seen_by_who_waits_for_it() {
    let (roster, (mut waits, _open)) = (roster(), waits());
    let target = roster.target(&KEY).unwrap();
    assert!(!is_over(waits.while_linked(&target, LONGEST_PAUSE)).await);
    link(&roster);
    assert!(is_over(waits.while_linked(&target, LONGEST_PAUSE)).await);
}
