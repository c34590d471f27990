//! What is missing between this node and each of its peers, since when, and why it does not come; and where a record has
//! arrived. Read from what peers acknowledged, or told by bundles: nobody is asked.

use super::{Revoked, Told, grant};
use crate::access::{Actor, Permission};
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::heads::StreamHead;
use atoll_storage::peer::{self, Peer};
use atoll_storage::read::Read;
use atoll_storage::{Carries, NodeId, Record, StreamId, Vector};
use atoll_sync::runner::{Obstacle, PeerState, PeerStatus};
use atoll_sync::session::Flow;
use std::collections::BTreeMap;

/// Streams that are told of one peer: those with the widest gaps.
const MAX_GAPS: usize = 20;
/// A clock off by more is told: of two writes the later one shows.
const SKEW_MS: u64 = 60_000;

/// Ops of one stream that one of the two has and the other lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub stream: StreamId,
    pub here: u64,
    pub there: u64,
}

/// How it stands with one peer.
#[derive(Clone, Debug)]
pub struct Plan {
    pub peer: PeerStatus,
    /// Ops that this node lacks and the peer has, as far as it said; none if nothing was heard of it yet.
    pub missing_here: Option<u64>,
    /// Ops that the peer did not acknowledge.
    pub missing_there: Option<u64>,
    pub gaps: Vec<Gap>,
    /// Unix milliseconds: when the two were last equal, or at least in contact; when it was removed.
    pub since_ms: Option<u64>,
    /// None while there is a link.
    pub obstacle: Option<Obstacle>,
    /// The whole in plain words, a sentence each.
    pub words: Vec<String>,
}

pub fn plan(node: &Node, actor: &Actor) -> Result<Vec<Plan>> {
    actor.require(Permission::SyncAdminister)?;
    let (heads, carries) =
        node.store.read(|reader| Ok((reader.streams()?, reader.carries()?.unwrap_or_default())))?;
    let now_ms = node.clock.now_ms();
    let plan = |peer| plan_of(node, peer, &heads, &carries, now_ms);
    let mut plans =
        super::peers(node).into_iter().map(plan).collect::<atoll_storage::Result<Vec<Plan>>>()?;
    let (removed, once_listed) =
        node.store.read(|reader| Ok((super::revocation::all(reader)?, peer::removed(reader)?)))?;
    for revoked in removed {
        let found = once_listed.iter().find(|peer| peer.node == revoked.node);
        plans.extend(found.map(|peer| plan_of_removed(peer.clone(), &revoked)));
    }
    Ok(plans)
}

/// Nothing goes to it or comes from it any more.
fn plan_of_removed(peer: Peer, revoked: &Revoked) -> Plan {
    let (words, since_ms) = (revoked.words(), Some(revoked.at_ms));
    let (state, obstacle) = (PeerState::Removed, Some(Obstacle::Revoked));
    let name = revoked.name.clone();
    let reason = words.clone();
    let peer = PeerStatus { state, obstacle, name, reason, ..PeerStatus::unlinked(peer) };
    let (missing_here, missing_there, gaps) = (None, None, Vec::new());
    Plan { peer, missing_here, missing_there, gaps, since_ms, obstacle, words: vec![words] }
}

fn plan_of(
    node: &Node,
    peer: PeerStatus,
    heads: &[StreamHead],
    carries: &Carries,
    now_ms: u64,
) -> atoll_storage::Result<Plan> {
    let me = node.id();
    let told = super::told(node, &peer)?;
    let theirs = peer.carries.clone().or_else(|| told.as_ref()?.carries.clone());
    let theirs = theirs.unwrap_or_default();
    let lets = peer.lets.clone().unwrap_or_default();
    let flows = |stream: &StreamId| {
        if !(carries.carries(stream) && theirs.carries(stream)) {
            return (Flow::default(), Flow::default());
        }
        (Flow::between(&lets, &peer.may, stream), Flow::between(&peer.may, &lets, stream))
    };
    let gaps = told.as_ref().map(|told| gaps(heads, &told.has, (me, peer.node), flows));
    let sum = |of: fn(&Gap) -> u64| gaps.as_ref().map(|gaps| gaps.iter().map(of).sum());
    let (missing_here, missing_there) = (sum(|gap| gap.here), sum(|gap| gap.there));
    let mut gaps = gaps.unwrap_or_default();
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.here + gap.there));
    gaps.truncate(MAX_GAPS);
    let since_ms = peer.level_ms.or(peer.contact_ms).max(told.and_then(|told| told.heard_ms));
    let obstacle = peer.obstacle.filter(|_| !peer.is_linked());
    let mut plan =
        Plan { peer, missing_here, missing_there, gaps, since_ms, obstacle, words: Vec::new() };
    plan.words = words(&plan, now_ms);
    plan.words.extend(of_grants(node, &plan.peer));
    Ok(plan)
}

/// `flows`: what of a stream comes here, and what goes there.
fn gaps(
    heads: &[StreamHead],
    acknowledged: &BTreeMap<StreamId, Vector>,
    (me, peer): (NodeId, NodeId),
    flows: impl Fn(&StreamId) -> (Flow, Flow),
) -> Vec<Gap> {
    let nothing = Vector::default();
    let mut mine: BTreeMap<&StreamId, &Vector> =
        heads.iter().map(|head| (&head.stream, &head.vector)).collect();
    for stream in acknowledged.keys() {
        mine.entry(stream).or_insert(&nothing);
    }
    let gap = |(stream, mine): (&StreamId, &Vector)| {
        let theirs = acknowledged.get(stream).unwrap_or(&nothing);
        let (inward, outward) = flows(stream);
        let here = inward.lead(peer, theirs, mine);
        let there = outward.lead(me, mine, theirs);
        (here + there > 0).then(|| Gap { stream: stream.clone(), here, there })
    };
    mine.into_iter().filter_map(gap).collect()
}

fn words(plan: &Plan, now_ms: u64) -> Vec<String> {
    let peer = &plan.peer;
    let name = &peer.name;
    let ago = |ms: u64| format!("{} ago", span(now_ms.saturating_sub(ms)));
    let mut words = Vec::new();
    let since = plan.since_ms.map_or_else(|| "it was never heard".to_owned(), ago);
    words.push(match (plan.missing_here, plan.missing_there) {
        (Some(0), Some(0)) if peer.is_linked() => format!("{name} and this node hold the same."),
        (Some(0), Some(0)) => format!("{name} and this node held the same; last heard: {since}."),
        (Some(here), Some(there)) => {
            let lacks = |who: &str, ops: u64| match ops {
                0 => format!("{who} lacks nothing"),
                1 => format!("{who} lacks 1 op"),
                ops => format!("{who} lacks {ops} ops"),
            };
            let (here, there) = (lacks("this node", here), lacks(name, there));
            format!("{there}, {here}; last equal or heard: {since}.")
        }
        _ => format!("What {name} has is not known: nothing was heard of it since this node was started, and no bundle of it came; last heard: {since}."),
    });
    if peer.is_linked() {
        if !peer.is_level() {
            words.push("They are linked: what is missing is on its way.".to_owned());
        }
    } else {
        let advice = plan.obstacle.map_or("", Obstacle::advice);
        let end = if advice.is_empty() { String::new() } else { format!(" To do: {advice}.") };
        words.push(format!("There is no link: {}.{end}", peer.reason));
    }
    words.extend(of_clock(peer));
    if let Some(at) = peer.copy_at {
        words.push(format!("A copy of its data folder runs at {at}: {}.", Obstacle::Copy.advice()));
    }
    if peer.diverged {
        words.push(
            "The two have the same ops and another state: a bug, which is being repaired. Keep both logs and report it."
                .to_owned(),
        );
    }
    words
}

/// That the clock of a peer is off, or this one, and what to do.
pub fn of_clock(peer: &PeerStatus) -> Option<String> {
    let skew_ms = peer.clock_skew_ms.filter(|ms| ms.unsigned_abs() >= SKEW_MS)?;
    let way = if skew_ms > 0 { "ahead of" } else { "behind" };
    let span = span(skew_ms.unsigned_abs());
    Some(format!(
        "Its clock is {span} {way} this one's: set the wrong one. Nothing is held up by it, but of two writes the later one shows."
    ))
}

/// What does not go or come since it may not.
fn of_grants(node: &Node, peer: &PeerStatus) -> Vec<String> {
    let name = &peer.name;
    let mut words = Vec::new();
    if !peer.may.is_whole() || peer.may.until_ms.is_some() {
        words.push(format!("{name} {} here.", grant::words(node, &peer.may)));
    }
    if let Some(lets) = peer.lets.as_ref().filter(|l| !l.is_whole() || l.until_ms.is_some()) {
        let what = grant::words(node, lets);
        let stays = match (lets.write, lets.is_whole()) {
            (false, _) => ": what is written here does not leave for it",
            (true, false) => ": what it may not write there does not leave for it",
            (true, true) => "",
        };
        words.push(format!("There, this node {what}{stays}."));
    }
    if peer.refused > 0 {
        words.push(format!(
            "{} ops that came from it were refused: it may not write them here.",
            peer.refused
        ));
    }
    words
}

/// `40 s`, `9 minutes`, `5 hours`, `3 days`.
fn span(ms: u64) -> String {
    let s = (ms + 500) / 1_000;
    let rounded = |unit: u64| (s + unit / 2) / unit;
    match s {
        0..=119 => format!("{s} s"),
        120..=7_199 => format!("{} minutes", rounded(60)),
        7_200..=172_799 => format!("{} hours", rounded(3_600)),
        _ => format!("{} days", rounded(86_400)),
    }
}

/// Whether a record, as it is here, has reached one peer.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub node: NodeId,
    pub name: String,
    /// None: nothing was heard of this peer since this node was started, and no bundle came of it.
    pub has_arrived: Option<bool>,
    /// When it was last heard, by a link or a bundle.
    pub contact_ms: Option<u64>,
}

/// On which peers a record has arrived with all that was written to it and is known here.
pub fn arrival(node: &Node, record: &Record) -> Result<Vec<Arrival>> {
    let stream = StreamId::new(record.tenant, record.kind.scope);
    let mut written = Vector::default();
    record.state.seen().context.into_iter().for_each(|dot| written.raise(dot.origin, dot.seq));
    let nothing = Vector::default();
    let arrival = |peer: PeerStatus| {
        let told = super::told(node, &peer)?;
        let includes = |told: &Told| told.has.get(&stream).unwrap_or(&nothing).includes(&written);
        Ok(Arrival {
            node: peer.node,
            has_arrived: told.as_ref().map(includes),
            contact_ms: peer.contact_ms.max(told.and_then(|told| told.heard_ms)),
            name: peer.name,
        })
    };
    super::peers(node).into_iter().map(arrival).collect()
}
