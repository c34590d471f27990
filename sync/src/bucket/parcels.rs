//! Files in a bucket: who asks for what, what is left for them already, what to leave, and what nobody needs any more. A
//! *parcel* is one object of a bounded size: some small files, or a part of a large one. Pure, as the plan for bundles is.

use super::name::BundleName;
use super::plan::{Has, includes};
use crate::bundle::{Contents, Lack, MAX_SHARES, Share};
use atoll_storage::blob::BlobId;
use atoll_storage::blob::tree::{GROUP_BYTES, Run, groups_of};
use atoll_storage::{Carries, NodeId, StreamId};
use std::collections::{BTreeMap, BTreeSet};

/// What the shares of a parcel hold of files, at most.
const PARCEL_BYTES: u64 = 3 << 20;
/// What a share takes beside its bytes: the proof, and the file's last group.
const SHARE_BYTES: u64 = 2 * GROUP_BYTES as u64;

/// A parcel that stands in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    pub name: BundleName,
    /// None: everybody.
    pub readers: Option<Vec<NodeId>>,
    pub contents: Contents,
    pub size_bytes: u64,
}

/// Somebody who takes files from the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    pub node: NodeId,
    pub has: Has,
    pub carries: Carries,
    pub lacks: Vec<Lack>,
    /// Parcels that it could not use.
    pub refused: BTreeSet<BundleName>,
    /// Nodes of which it takes nothing.
    pub strangers: BTreeSet<NodeId>,
}

impl Asker {
    /// True if ops of a stream that it carries have yet to come to it.
    fn is_behind(&self, stream: &StreamId, vector: &atoll_storage::Vector) -> bool {
        self.carries.carries(stream) && !includes(&self.has, stream, vector)
    }
}

/// What one asks for, by file.
struct Asked<'a>(BTreeMap<BlobId, &'a Lack>);

impl<'a> Asked<'a> {
    fn of(asker: &'a Asker) -> Self {
        Self(asker.lacks.iter().map(|lack| (lack.blob, lack)).collect())
    }

    fn asks_for(&self, share: &Share) -> bool {
        self.0.get(&share.blob).is_some_and(|lack| {
            let runs = lack.runs(groups_of(share.size_bytes));
            share.size_bytes <= lack.max_bytes && runs.iter().any(|run| meet(*run, share.run))
        })
    }

    fn asks_for_any(&self, parcel: &Parcel) -> bool {
        parcel.contents.shares.iter().any(|share| self.asks_for(share))
    }
}

fn meet(a: Run, b: Run) -> bool {
    a.first < b.end() && b.first < a.end()
}

/// What is left of runs without those of others.
fn without(mut runs: Vec<Run>, others: &[Run]) -> Vec<Run> {
    for other in others {
        let cut = |run: Run| {
            if !meet(run, *other) {
                return [Some(run), None];
            }
            let low = run.first.max(other.first);
            let high = run.end().min(other.end());
            let before = Run { first: run.first, count: low - run.first };
            let after = Run { first: high, count: run.end() - high };
            [before, after].map(|run| (run.count > 0).then_some(run))
        };
        runs = runs.into_iter().flat_map(cut).flatten().collect();
    }
    runs
}

impl Parcel {
    fn is_for(&self, asker: &Asker) -> bool {
        let can_read = self.readers.as_ref().is_none_or(|readers| readers.contains(&asker.node));
        can_read
            && !asker.strangers.contains(&self.name.node)
            && !asker.refused.contains(&self.name)
    }
}

/// What a share takes in a parcel, about.
fn bytes_of(share: &Share) -> u64 {
    let bytes = share.run.count.saturating_mul(GROUP_BYTES as u64).min(share.size_bytes);
    bytes.saturating_add(SHARE_BYTES)
}

/// The parcels that bring something to whom asks, in the order in which they were left.
pub fn wanted_parcels<'p>(
    asker: &Asker,
    parcels: impl Iterator<Item = &'p Parcel>,
) -> Vec<BundleName> {
    let asked = Asked::of(asker);
    let brings = |parcel: &&Parcel| parcel.is_for(asker) && asked.asks_for_any(parcel);
    let mut names: Vec<BundleName> = parcels.filter(brings).map(|parcel| parcel.name).collect();
    names.sort();
    names
}

/// Of this node's parcels those that are of no use: of all who can use one, nobody asks for anything in it, and everybody
/// has heard of the records that name what it holds.
pub fn obsolete_parcels(me: NodeId, askers: &[Asker], parcels: &[Parcel]) -> Vec<BundleName> {
    let askers: Vec<(&Asker, Asked<'_>)> =
        askers.iter().map(|asker| (asker, Asked::of(asker))).collect();
    let is_of_use = |parcel: &&Parcel| {
        askers.iter().filter(|(asker, _)| parcel.is_for(asker)).any(|(asker, asked)| {
            let mut named_at = parcel.contents.named_at.iter();
            asked.asks_for_any(parcel)
                || named_at.any(|(stream, vector)| asker.is_behind(stream, vector))
        })
    };
    let own = parcels.iter().filter(|parcel| parcel.name.node == me);
    own.filter(|parcel| !is_of_use(parcel)).map(|parcel| parcel.name).collect()
}

/// As if those asked for files who have yet to hear of records that name them: each with the streams of these records.
pub fn foreseen(
    askers: &[Asker],
    mine: &Has,
    named: &BTreeMap<BlobId, Vec<StreamId>>,
    max_bytes: u64,
) -> Vec<Asker> {
    let is_new = |asker: &Asker, stream: &StreamId| {
        mine.get(stream).is_some_and(|vector| asker.is_behind(stream, vector))
    };
    let of = |asker: &Asker| {
        let news = named.iter().filter(|(_, streams)| streams.iter().any(|s| is_new(asker, s)));
        let lacks = news.map(|(blob, _)| Lack::whole(*blob, max_bytes)).collect();
        Asker { lacks, ..asker.clone() }
    };
    askers.iter().map(of).collect()
}

/// What to leave, parcel by parcel: what somebody asks for, this node has, and no parcel brings that he can use. `size_of`
/// tells how large a file is that is here and may be left. Takes at most `room_bytes`, about.
pub fn parcels(
    askers: &[Asker],
    there: &[Parcel],
    mut size_of: impl FnMut(&BlobId) -> Option<u64>,
    room_bytes: u64,
) -> Vec<Vec<Share>> {
    let mut packer = Packer { packed: vec![], last_bytes: 0, room_bytes };
    // All who ask can read what is left now.
    let mut leaving: BTreeMap<BlobId, Vec<Run>> = BTreeMap::new();
    for asker in askers {
        let mut offered: BTreeMap<BlobId, Vec<Run>> = BTreeMap::new();
        let shares = there.iter().filter(|parcel| parcel.is_for(asker));
        for share in shares.flat_map(|parcel| &parcel.contents.shares) {
            offered.entry(share.blob).or_default().push(share.run);
        }
        for lack in &asker.lacks {
            let size = size_of(&lack.blob).filter(|size| *size <= lack.max_bytes);
            let Some(size_bytes) = size else { continue };
            let mut runs = lack.runs(groups_of(size_bytes));
            for taken in [&offered, &leaving] {
                runs = without(runs, taken.get(&lack.blob).map_or(&[], Vec::as_slice));
            }
            for run in runs.into_iter().flat_map(pieces) {
                if !packer.put(Share { blob: lack.blob, size_bytes, run }) {
                    return packer.packed;
                }
                leaving.entry(lack.blob).or_default().push(run);
            }
        }
    }
    packer.packed
}

struct Packer {
    packed: Vec<Vec<Share>>,
    last_bytes: u64,
    room_bytes: u64,
}

impl Packer {
    /// False if there is no room for it.
    fn put(&mut self, share: Share) -> bool {
        let bytes = bytes_of(&share);
        if bytes > self.room_bytes {
            return false;
        }
        self.room_bytes -= bytes;
        let fits = self.last_bytes + bytes <= PARCEL_BYTES;
        match self.packed.last_mut().filter(|last| fits && last.len() < MAX_SHARES) {
            Some(last) => {
                last.push(share);
                self.last_bytes += bytes;
            }
            None => {
                self.packed.push(vec![share]);
                self.last_bytes = bytes;
            }
        }
        true
    }
}

/// A run in pieces of which each fits a parcel.
fn pieces(run: Run) -> impl Iterator<Item = Run> {
    const MOST: u64 = (PARCEL_BYTES - SHARE_BYTES) / GROUP_BYTES as u64;
    let firsts = (run.first..run.end()).step_by(MOST as usize);
    firsts.map(move |first| Run { first, count: MOST.min(run.end() - first) })
}

#[cfg(test)]
mod tests;
