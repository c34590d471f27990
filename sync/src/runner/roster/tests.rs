//! Which link of a peer counts, and what is shown of it.

use super::*;

fn peer(number: u8) -> Peer {
    let key = [number; 32];
    Peer {
        node: NodeId::of_public_key(&key),
        public_key: key,
        name: format!("peer {number}"),
        address: None,
        added_ms: u64::from(number),
        removed_ms: None,
        contact_ms: None,
        carries: None,
    }
}

fn roster(peers: Vec<Peer>, revoked: BTreeSet<NodeId>) -> Roster {
    Roster::new(peers, revoked, Standing::default(), Clock::from_fn(|| NOW_MS))
}

const NOW_MS: u64 = 1_000;

/// What of peer 7 was said.
fn standing(may: Rights) -> Standing {
    let may = [(PublicKey([7; 32]).node_id(), may)].into();
    Standing { may, ..Standing::default() }
}

#[test]
fn a_peer_that_may_do_something_else_is_cut_and_comes_again() {
    let roster = roster(vec![peer(7), peer(8)], BTreeSet::new());
    let keys = [PublicKey([7; 32]), PublicKey([8; 32])];
    let places = keys.map(|key| roster.claim(key, NodeId([1; 16]), None).unwrap());
    let reads = Rights { write: false, ..Rights::everything() };
    roster.stand(standing(reads.clone()));
    assert_eq!(places.each_ref().map(|place| *place.cut.borrow()), [Some(Cut::Granted), None]);
    assert_eq!(roster.admission(&keys[0]), Admission::Peer);
    assert_eq!(roster.status()[0].may, reads);
    let place = roster.claim(keys[0], NodeId([1; 16]), None).unwrap();
    roster.stand(standing(reads));
    assert_eq!(*place.cut.borrow(), None, "nothing new was said");
    roster.stand(standing(Rights::nothing()));
    assert_eq!(*place.cut.borrow(), Some(Cut::Withdrawn));
    assert_eq!(roster.admission(&keys[0]), Admission::Withdrawn);
    assert_eq!(roster.shut_out(&keys[0]), Some(Obstacle::GrantWithdrawn));
    assert_eq!(roster.shut_out(&keys[1]), None);
}

/// Whoever dials it may be in a long pause, and knows the old one.
#[tokio::test]
async fn a_peer_with_a_new_address_is_dialled_there_at_once() {
    let roster = roster(vec![peer(7)], BTreeSet::new());
    let key = PublicKey([7; 32]);
    let is_woken = async |address: &str| {
        roster.add(Peer { address: Some(address.to_owned()), ..peer(7) });
        let target = roster.target(&key).unwrap();
        assert_eq!(target.address.as_deref(), Some(address));
        tokio::time::timeout(std::time::Duration::ZERO, target.wake.notified()).await.is_ok()
    };
    assert!(is_woken("old.example:8081").await);
    assert!(!is_woken("old.example:8081").await, "it is where it was");
    assert!(is_woken("new.example:8081").await);
}

#[test]
fn a_peer_whose_time_is_over_is_refused() {
    let roster = roster(vec![peer(7)], BTreeSet::new());
    let key = PublicKey([7; 32]);
    for (until_ms, admission) in [(NOW_MS, Admission::Expired), (NOW_MS + 1, Admission::Peer)] {
        let until_ms = Some(until_ms);
        roster.stand(standing(Rights { until_ms, ..Rights::everything() }));
        assert_eq!(roster.admission(&key), admission);
    }
}

#[test]
fn of_two_links_both_sides_keep_the_same_one() {
    let (low, high) = (NodeId([1; 16]), NodeId([2; 16]));
    let key = PublicKey([7; 32]);
    for order in [[low, high], [high, low]] {
        let roster = roster(vec![peer(7)], BTreeSet::new());
        let places: Vec<_> =
            order.iter().map(|dialler| roster.claim(key, *dialler, None)).collect();
        let kept = |i: usize| places[i].as_ref().is_ok_and(|place| place.cut.borrow().is_none());
        let kept: Vec<_> = (0..2).filter(|i| kept(*i)).map(|i| order[i]).collect();
        assert_eq!(kept, [low]);
    }
}

#[test]
fn a_link_that_was_replaced_changes_nothing_when_it_ends() {
    let roster = roster(vec![peer(7)], BTreeSet::new());
    let key = PublicKey([7; 32]);
    let old = roster.claim(key, NodeId([1; 16]), None).unwrap();
    let new = roster.claim(key, NodeId([1; 16]), None).unwrap();
    roster.update(&new, |status| status.state = PeerState::Level);
    roster.update(&old, |status| status.state = PeerState::Waiting);
    roster.release(&old, &Ended::session("gone"));
    assert!(roster.status()[0].is_level());
    roster.release(&new, &Ended::session("gone"));
    assert_eq!(
        (roster.status()[0].state, roster.status()[0].reason.as_str()),
        (PeerState::Waiting, "gone")
    );
}

#[test]
fn a_removed_peer_is_cut_and_unknown() {
    let roster = roster(vec![peer(7), peer(8)], BTreeSet::new());
    let key = PublicKey([7; 32]);
    let place = roster.claim(key, NodeId([1; 16]), None).unwrap();
    roster.remove(key.node_id());
    assert_eq!(*place.cut.borrow(), Some(Cut::Removed));
    assert_eq!(roster.admission(&key), Admission::Stranger);
    assert!(roster.claim(key, NodeId([1; 16]), None).is_err());
    assert_eq!(roster.status().len(), 1);
}

#[test]
fn a_revoked_peer_is_cut_refused_and_never_listed_again() {
    let roster = roster(vec![peer(7), peer(8)], BTreeSet::new());
    let key = PublicKey([7; 32]);
    let place = roster.claim(key, NodeId([1; 16]), None).unwrap();
    roster.revoke([key.node_id()].into());
    assert_eq!(*place.cut.borrow(), Some(Cut::Revoked));
    roster.add(peer(7));
    assert_eq!(roster.admission(&key), Admission::Revoked);
    assert_eq!(roster.status().len(), 1);
    let from_the_start = self::roster(vec![peer(7)], [key.node_id()].into());
    assert_eq!(from_the_start.admission(&key), Admission::Revoked);
    assert_eq!(from_the_start.status().len(), 0);
}
