//! Where two members have the same ops of a stream and not the same state: two lives of a node gave out a number twice, or a
//! part of a snapshot came to one of them by some other way. Each leaves its state for the other, as both take each other's
//! over a link, and whoever takes one merges it.

use super::{Left, MAX_PUBLICATIONS, Member, includes};
use crate::bundle::Repair;
use atoll_storage::{Digest, StreamId};

/// So many follow each other at once. A state that cannot mend what differs is left ever more seldom.
const EAGER_TRIES: u32 = 4;
const FIRST_PAUSE_MS: u64 = 60_000;
const LONGEST_PAUSE_MS: u64 = 24 * 3_600_000;

impl Member {
    /// None if it does not say.
    fn state(&self, stream: &StreamId) -> Option<Digest> {
        let states = self.states.as_ref()?;
        let is_there = self.has.contains_key(stream);
        states.get(stream).copied().or((!is_there).then(Digest::default))
    }

    /// Whether the state of a stream is the same; none if that cannot be told, since they do not have the same ops.
    fn agrees(&self, other: &Self, stream: &StreamId) -> Option<bool> {
        let agree = self.state(stream)? == other.state(stream)?;
        let is_carried = self.carries.carries(stream) && other.carries.carries(stream);
        let has_what = |one: &Self, other: &Self| {
            other.has.get(stream).is_none_or(|vector| includes(&one.has, stream, vector))
        };
        (is_carried && has_what(self, other) && has_what(other, self)).then_some(agree)
    }
}

impl Left {
    /// The stream whose state it brings to whom has all of it.
    fn repairs(&self) -> Option<(&StreamId, &Repair)> {
        let [cover] = self.covers.as_slice() else { return None };
        self.repair.as_ref().map(|repair| (&cover.stream, repair))
    }

    /// True if it brings a state that the member has yet to merge.
    pub(super) fn mends(&self, member: &Member) -> bool {
        let Some((stream, repair)) = self.repairs() else { return false };
        let is_named = member.node.is_some_and(|node| repair.nodes.contains(&node));
        let is_open = is_named && !member.mended.contains(&self.name);
        is_open && member.carries.carries(stream) && !self.is_state_of(member, stream, repair)
    }

    /// Whether the member says that it stands where this leads to.
    fn is_state_of(&self, member: &Member, stream: &StreamId, repair: &Repair) -> bool {
        let to = &self.covers[0].to;
        let is_there = includes(&member.has, stream, to)
            && member.has.get(stream).is_none_or(|vector| to.includes(vector));
        is_there && member.state(stream) == Some(repair.digest)
    }

    /// Of this node's, true while one that it was left for may not have merged it, or has merged it and needs another one.
    pub(super) fn is_awaited(&self, me: &Member, members: &[Member], left: &[Self]) -> bool {
        let Some((stream, repair)) = self.repairs() else { return false };
        let is_last = last(me, stream, left).is_some_and(|last| last.name == self.name);
        let is_open = |member: &Member| {
            let is_named = member.node.is_some_and(|node| repair.nodes.contains(&node));
            let can_tell = member.states.is_some() && member.carries.carries(stream);
            is_named && can_tell && me.agrees(member, stream) != Some(true)
        };
        is_last && me.carries.carries(stream) && members.iter().any(is_open)
    }
}

/// The latest of this node's that repairs a stream.
fn last<'l>(me: &Member, stream: &StreamId, left: &'l [Left]) -> Option<&'l Left> {
    let own = left.iter().filter(|one| Some(one.name.node) == me.node);
    own.filter(|one| one.repairs().is_some_and(|(of, _)| of == stream)).max_by_key(|one| one.name)
}

fn pause_ms(tries: u32) -> u64 {
    let Some(doublings) = tries.checked_sub(EAGER_TRIES) else { return 0 };
    (FIRST_PAUSE_MS << doublings.min(20)).min(LONGEST_PAUSE_MS)
}

/// Streams of which `me` has the same ops as the other, and not the same state.
pub fn differing<'m>(me: &'m Member, other: &'m Member) -> impl Iterator<Item = &'m StreamId> {
    let states = me.states.iter().flatten();
    let differ = states.filter(|(stream, digest)| other.state(stream) != Some(**digest));
    differ.map(|(stream, _)| stream).filter(|stream| me.agrees(other, stream) == Some(false))
}

/// The streams whose state to leave, and for whom: those who have the same ops and another state, and cannot take this one yet.
pub fn repairs(
    me: &Member,
    members: &[Member],
    left: &[Left],
    now_ms: u64,
) -> Vec<(StreamId, Repair)> {
    let mut differ: Vec<(&StreamId, &Member)> = Vec::new();
    for member in members {
        differ.extend(differing(me, member).map(|stream| (stream, member)));
    }
    differ.sort_by_key(|(stream, _)| *stream);
    let mut repairs = Vec::new();
    for differ in differ.chunk_by(|one, next| one.0 == next.0) {
        let stream = differ[0].0;
        let Some(digest) = me.state(stream) else { continue };
        let is_offered = |member: &Member| {
            left.iter().any(|one| {
                let brings = one.repairs().filter(|(of, _)| *of == stream);
                brings.is_some_and(|(_, repair)| {
                    let is_named = member.node.is_some_and(|node| repair.nodes.contains(&node));
                    is_named && one.is_for(member) && one.is_state_of(me, stream, repair)
                })
            })
        };
        if differ.iter().all(|(_, member)| is_offered(member)) {
            continue;
        }
        let before = last(me, stream, left);
        let tries = before
            .and_then(|one| one.repairs())
            .map_or(0, |(_, repair)| repair.tries.saturating_add(1));
        let is_early = |one: &Left| one.name.number.abs_diff(now_ms) < pause_ms(tries);
        if before.is_some_and(is_early) {
            continue;
        }
        let nodes = differ.iter().filter_map(|(_, member)| member.node).collect();
        repairs.push((stream.clone(), Repair { digest, nodes, tries }));
        if repairs.len() == MAX_PUBLICATIONS {
            break;
        }
    }
    repairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::plan::{BundleName, Has, obsolete, wanted};
    use crate::bundle::Cover;
    use atoll_storage::{Carries, Id, NodeId, Origin, Vector};

    const ORIGIN: Origin = Origin { node: NodeId([9; 16]), epoch: 0 };

    fn stream() -> StreamId {
        StreamId::new(Id([1; 16]), "content")
    }

    fn vector(seq: u64) -> Vector {
        Vector([(ORIGIN, seq)].into())
    }

    fn digest(state: u64) -> Digest {
        Digest([state; 4])
    }

    fn member(n: u8, seq: u64, state: u64) -> Member {
        Member {
            node: Some(NodeId([n; 16])),
            has: Has::from([(stream(), vector(seq))]),
            states: Some([(stream(), digest(state))].into()),
            ..Member::default()
        }
    }

    /// What the first one leaves of its state.
    fn left(me: &Member, number: u64, repair: &Repair) -> Left {
        let node = me.node.unwrap_or(ORIGIN.node);
        let to = me.has[&stream()].clone();
        Left {
            name: BundleName { number, random: 0, node },
            readers: None,
            covers: vec![Cover { stream: stream(), from: Vector::default(), to }],
            repair: Some(repair.clone()),
            size_bytes: 1,
        }
    }

    fn only(repairs: Vec<(StreamId, Repair)>) -> Repair {
        let [(of, repair)] = repairs.as_slice() else { panic!("{repairs:?}") };
        assert_eq!(*of, stream());
        repair.clone()
    }

    #[test]
    fn a_state_is_left_for_whom_it_is_another_one_and_goes_when_he_has_it() {
        let (me, mut other) = (member(1, 5, 50), member(2, 5, 60));
        let same = member(3, 5, 50);
        let members = [other.clone(), same.clone()];
        let repair = only(repairs(&me, &members, &[], 0));
        assert_eq!(
            (&repair.nodes, repair.digest, repair.tries),
            (&vec![NodeId([2; 16])], digest(50), 0)
        );
        let there = [left(&me, 7, &repair)];
        assert_eq!(repairs(&me, &members, &there, 7), []);
        assert_eq!(repairs(&same, &members, &there, 7), [], "one is enough");
        assert_eq!(wanted(&same, there.iter()), None);
        assert_eq!(wanted(&other, there.iter()), Some(&there[0]));
        // Also by one that has written on.
        assert_eq!(wanted(&member(2, 6, 61), there.iter()), Some(&there[0]));
        assert_eq!(obsolete(&me, &members, &there), []);
        // It had something that is lacking here, so that it leaves its own in turn.
        other.mended.insert(there[0].name);
        other.states = member(2, 5, 110).states;
        assert_eq!(wanted(&other, there.iter()), None);
        let answer = only(repairs(&other, &[me.clone(), same], &there, 8));
        assert_eq!(answer.nodes, [NodeId([1; 16]), NodeId([3; 16])]);
        let there = [there[0].clone(), left(&other, 8, &answer)];
        assert_eq!(wanted(&me, there.iter()), Some(&there[1]));
        let me = member(1, 5, 110);
        assert_eq!(repairs(&me, &[other.clone()], &there, 9), []);
        assert_eq!(obsolete(&me, &[other], &there), [there[0].name]);
    }

    #[test]
    fn nothing_is_left_where_nobody_can_tell_that_states_differ() {
        let me = member(1, 5, 50);
        let behind = member(2, 4, 60);
        let older = Member { states: None, ..member(2, 5, 60) };
        let half = Member { states: Some([].into()), ..member(2, 5, 60) };
        let new = Member { has: Has::new(), ..half.clone() };
        let elsewhere = Member { carries: Carries::nothing(), ..member(2, 5, 60) };
        let whoever = Member::default();
        assert_eq!(repairs(&me, &[behind, older, half, new, elsewhere, whoever], &[], 0), []);
        // Records may be here without an op: a part of a snapshot.
        let me = Member { has: Has::from([(stream(), Vector::default())]), ..me };
        let new =
            Member { node: Some(NodeId([2; 16])), states: Some([].into()), ..Member::default() };
        assert_eq!(only(repairs(&me, &[new], &[], 0)).nodes, [NodeId([2; 16])]);
    }

    #[test]
    fn what_a_state_cannot_mend_is_tried_ever_more_seldom() {
        let other = member(2, 5, 60);
        let mut there = vec![];
        let (mut now_ms, mut left_at) = (1_000, vec![]);
        while now_ms < 10 * LONGEST_PAUSE_MS {
            // It changes, and is never the other one's.
            let me = member(1, 5, 1_000 + now_ms);
            if let Some((_, repair)) =
                repairs(&me, std::slice::from_ref(&other), &there, now_ms).pop()
            {
                there.push(left(&me, now_ms, &repair));
                left_at.push(now_ms);
            }
            let gone = obsolete(&me, std::slice::from_ref(&other), &there);
            there.retain(|one| !gone.contains(&one.name));
            assert_eq!(there.len(), 1);
            now_ms += FIRST_PAUSE_MS;
        }
        assert!((20..30).contains(&left_at.len()), "{}", left_at.len());
        assert!(left_at.windows(2).rev().take(8).all(|two| two[1] - two[0] >= LONGEST_PAUSE_MS));
    }
}
