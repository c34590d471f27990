//! What follows from what stands in a bucket. A bundle of it leads from one state of the streams to another; what a member can
//! reach is what it has, and where bundles that it can read lead from there. All else follows from that: what has to be left
//! for somebody, and what nobody needs any more. Of a member only the streams that it carries count: it lacks nothing of others,
//! and takes nothing of them from a bundle that holds them too.

mod repair;

pub use repair::{differing, repairs};

use super::name::BundleName;
use crate::bundle::{Cover, Repair};
use atoll_storage::{Carries, Digest, NodeId, StreamId, Vector};
use std::collections::{BTreeMap, BTreeSet};

pub type Has = BTreeMap<StreamId, Vector>;

/// Bundles that are left in one round at most; more in the next.
const MAX_PUBLICATIONS: usize = 8;
/// A node with more bundles than this in the bucket puts the latest of them together.
const MERGE_FROM: usize = 16;

/// A whole bundle in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub name: BundleName,
    /// None: everybody.
    pub readers: Option<Vec<NodeId>>,
    pub covers: Vec<Cover>,
    pub repair: Option<Repair>,
    pub size_bytes: u64,
}

/// Somebody who takes from the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// None for whoever comes.
    pub node: Option<NodeId>,
    pub has: Has,
    /// Of those streams that it has, as far as it says. None: it says nothing of any.
    pub states: Option<BTreeMap<StreamId, Digest>>,
    pub carries: Carries,
    /// Bundles that it could not use.
    pub refused: BTreeSet<BundleName>,
    /// Nodes of which it takes nothing.
    pub strangers: BTreeSet<NodeId>,
    /// Bundles that it merged for their states.
    pub mended: BTreeSet<BundleName>,
}

impl Left {
    fn is_for(&self, member: &Member) -> bool {
        let can_read = match (&self.readers, member.node) {
            (None, _) => true,
            (Some(readers), Some(node)) => readers.contains(&node),
            (Some(_), None) => false,
        };
        let is_taken = !member.strangers.contains(&self.name.node);
        can_read && is_taken && !member.refused.contains(&self.name)
    }

    fn covers_of<'l>(&'l self, carries: &'l Carries) -> impl Iterator<Item = &'l Cover> {
        self.covers.iter().filter(|cover| carries.carries(&cover.stream))
    }

    /// True if it leads on from there, for whom carries that.
    pub fn begins_within(&self, has: &Has, carries: &Carries) -> bool {
        self.covers_of(carries).all(|cover| includes(has, &cover.stream, &cover.from))
    }

    /// True if it brings nothing to whom has and carries that.
    pub fn ends_within(&self, has: &Has, carries: &Carries) -> bool {
        self.covers_of(carries).all(|cover| includes(has, &cover.stream, &cover.to))
    }

    /// As if what it brings were there.
    pub fn lift(&self, has: &mut Has, carries: &Carries) {
        for cover in self.covers_of(carries) {
            has.entry(cover.stream.clone()).or_default().merge(&cover.to);
        }
    }
}

pub(super) fn includes(has: &Has, stream: &StreamId, vector: &Vector) -> bool {
    match has.get(stream) {
        Some(mine) => mine.includes(vector),
        None => vector.0.values().all(|seq| *seq == 0),
    }
}

/// How many ops `has` has that `other` lacks, of what the other one carries.
pub fn lead(has: &Has, other: &Has, carries: &Carries) -> u64 {
    let nothing = Vector::default();
    let carried = has.iter().filter(|(stream, _)| carries.carries(stream));
    let leads =
        carried.map(|(stream, vector)| vector.lead_over(other.get(stream).unwrap_or(&nothing)));
    leads.fold(0, u64::saturating_add)
}

/// What to take next: of those that bring something and build on nothing that is missing, the shortest.
pub fn wanted<'l>(me: &Member, left: impl Iterator<Item = &'l Left>) -> Option<&'l Left> {
    let brings = |one: &&Left| {
        one.is_for(me)
            && one.begins_within(&me.has, &me.carries)
            && (!one.ends_within(&me.has, &me.carries) || one.mends(me))
    };
    left.filter(brings).min_by_key(|one| (one.size_bytes, one.name))
}

/// What a member has once it took all that is there for it.
pub fn reach(member: &Member, left: &[Left]) -> Has {
    let mut has = member.has.clone();
    let mut open: Vec<&Left> = left.iter().filter(|one| one.is_for(member)).collect();
    loop {
        let before = open.len();
        open.retain(|one| {
            let fits = one.begins_within(&has, &member.carries);
            if fits {
                one.lift(&mut has, &member.carries);
            }
            !fits
        });
        if open.len() == before {
            return has;
        }
    }
}

/// What to leave so that every member can reach all that is here and that it carries: of each bundle its streams, with what its
/// takers have before.
pub fn publications(mine: &Has, members: &[Member], left: &[Left]) -> Vec<Has> {
    let mut reaches: Vec<(&Carries, Has)> =
        members.iter().map(|member| (&member.carries, reach(member, left))).collect();
    let mut publications = Vec::new();
    while publications.len() < MAX_PUBLICATIONS {
        reaches.retain(|(carries, has)| lead(mine, has, carries) > 0);
        // What is short first: who can begin there need not take what is long.
        let next = reaches.iter().min_by_key(|(carries, has)| lead(mine, has, carries));
        let Some((carries, next)) = next else { break };
        let known = both(mine, next, carries);
        for (carries, has) in &mut reaches {
            let brings = || {
                let brings = known.iter().filter(|(stream, from)| mine[*stream] != **from);
                brings.filter(|(stream, _)| carries.carries(stream))
            };
            if brings().all(|(stream, from)| includes(has, stream, from)) {
                for (stream, _) in brings() {
                    has.entry(stream.clone()).or_default().merge(&mine[stream]);
                }
            }
        }
        publications.push(known);
    }
    publications
}

/// What both have, of the first one's streams that the other carries.
fn both(mine: &Has, other: &Has, carries: &Carries) -> Has {
    let nothing = Vector::default();
    let least = |(stream, vector): (&StreamId, &Vector)| {
        (stream.clone(), vector.least(other.get(stream).unwrap_or(&nothing)))
    };
    mine.iter().filter(|(stream, _)| carries.carries(stream)).map(least).collect()
}

/// What all members have who carry it, of `mine`; without members, nothing.
fn had(mine: &Has, members: &[Member]) -> Has {
    let mut had = if members.is_empty() { Has::new() } else { mine.clone() };
    for member in members {
        for (stream, vector) in both(mine, &member.has, &member.carries) {
            if let Some(least) = had.get_mut(&stream) {
                *least = least.least(&vector);
            }
        }
    }
    had
}

/// Of this node's bundles those that are of no use: every member has what they bring, or one could not use them. Without
/// members nobody is asked, and all stay; so does what could not be left anew, since this node has it no more.
pub fn obsolete(me: &Member, members: &[Member], left: &[Left]) -> Vec<BundleName> {
    let is_refused = |one: &Left| {
        let is_refused = members.iter().any(|member| member.refused.contains(&one.name));
        is_refused && is_still_here(one, &me.has)
    };
    let is_had = |one: &Left| {
        !members.is_empty()
            && members.iter().all(|member| one.ends_within(&member.has, &member.carries))
            && !one.is_awaited(me, members, left)
    };
    left.iter()
        .filter(|one| Some(one.name.node) == me.node && (is_refused(one) || is_had(one)))
        .map(|one| one.name)
        .collect()
}

/// Whether this node has all that a bundle brings: it may have dropped some of it since.
fn is_still_here(one: &Left, mine: &Has) -> bool {
    one.ends_within(mine, &Carries::everything())
}

/// When this node's bundles are many: from where to make one that takes the place of the latest of them, and their names. The
/// longer ones before them stay, so that not all is written anew each time.
pub fn merge(me: &Member, members: &[Member], left: &[Left]) -> Option<(Has, Vec<BundleName>)> {
    let mine = &me.has;
    let is_own = |one: &&Left| Some(one.name.node) == me.node && is_still_here(one, mine);
    let own = left.iter().filter(is_own).filter(|one| !one.is_awaited(me, members, left));
    let mut own: Vec<&Left> = own.collect();
    if own.len() <= MERGE_FROM {
        return None;
    }
    own.sort_by_key(|one| one.name);
    let mut sum = 0;
    let mut from = own.len();
    // As far back as each one is not much longer than all that came after it.
    while from > 0 && (from + 2 > own.len() || own[from - 1].size_bytes <= 2 * sum) {
        from -= 1;
        sum += own[from].size_bytes;
    }
    let merged = &own[from..];
    let mut begin = mine.clone();
    for cover in merged.iter().flat_map(|one| &one.covers) {
        if let Some(vector) = begin.get_mut(&cover.stream) {
            *vector = vector.least(&cover.from);
        }
    }
    // What all members have is not left again.
    let had = had(mine, members);
    for (stream, vector) in &had {
        begin.entry(stream.clone()).or_default().merge(vector);
    }
    let names: Vec<BundleName> = merged.iter().map(|one| one.name).collect();
    let is_enough = |begin: &Has| {
        let rest = left.iter().filter(|one| !names.contains(&one.name)).cloned();
        let covers = covers(mine, begin);
        let merged = Left { name: names[0], readers: None, covers, repair: None, size_bytes: 0 };
        let after: Vec<Left> = rest.chain([merged]).collect();
        members
            .iter()
            .all(|member| lead(&reach(member, left), &reach(member, &after), &member.carries) == 0)
    };
    // Bundles that lead past each other can need one of the merged in between: then all begins where the members are.
    let begin = if is_enough(&begin) { begin } else { had };
    Some((begin, names))
}

/// What a bundle brings to whom `known` is known of.
fn covers(mine: &Has, known: &Has) -> Vec<Cover> {
    let cover = |(stream, to): (&StreamId, &Vector)| {
        let from = known.get(stream).cloned().unwrap_or_default();
        (to.lead_over(&from) > 0).then(|| Cover { stream: stream.clone(), from, to: to.clone() })
    };
    mine.iter().filter_map(cover).collect()
}

#[cfg(test)]
mod tests;
