//! Files in bundles. A part holds some groups of a blob and what proves them and the blob's size against its name, so that
//! each part counts for itself, in any order, and a blob goes on where an earlier bundle was cut off.

use atoll_storage::blob::tree::{
    Checker, False, GROUP_BYTES, MAX_BLOB_BYTES, PAIR_BYTES, Pair, Run, Step, groups_of,
};
use atoll_storage::blob::{self, BlobId, Blobs};
use bincode::{Decode, Encode};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// With the proof and the last group it fits into the shortest volume.
pub const MAX_SLICE_GROUPS: u64 = 60;
/// Its groups, the last one, and pairs on the way to them; more than there ever are.
const MAX_SLICE_BYTES: usize =
    (MAX_SLICE_GROUPS as usize + 1) * (GROUP_BYTES + PAIR_BYTES) + 64 * PAIR_BYTES;
/// Of a part beside its bytes: header, signature, a lock's tag, and what names the blob.
const PART_OVERHEAD_BYTES: usize = 256;
/// Files that one bundle asks for. Once these have come, the next asks for others.
pub const MAX_LACKS: usize = 10_000;
/// Files of one bundle that are looked at.
pub const MAX_BLOBS: usize = 1_000_000;
/// Of one file; what is in more pieces is asked for from the last of them on as a whole.
const MAX_LACK_RUNS: usize = 64;

/// A file that a node is without and asks for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lack {
    pub blob: BlobId,
    /// If it is larger, it is not asked for.
    pub max_bytes: u64,
    /// The groups that are missing; none: all of them.
    missing: Vec<Run>,
}

impl Lack {
    pub fn whole(blob: BlobId, max_bytes: u64) -> Self {
        Self { blob, max_bytes, missing: vec![] }
    }

    /// Of a file that a part of is there.
    pub fn rest(blob: BlobId, max_bytes: u64, mut missing: Vec<Run>) -> Self {
        if missing.len() > MAX_LACK_RUNS {
            missing.truncate(MAX_LACK_RUNS);
            if let Some(last) = missing.last_mut() {
                last.count = u64::MAX;
            }
        }
        Self { blob, max_bytes, missing }
    }

    /// Of another node, which may have told anything: one in too many pieces is lacking as a whole.
    pub(super) fn bounded(mut self) -> Self {
        if self.missing.len() > MAX_LACK_RUNS {
            self.missing = vec![];
        }
        self
    }

    /// What to bring of a file of so many groups. What cannot be, brings all of it.
    pub fn runs(&self, groups: u64) -> Vec<Run> {
        let all = vec![Run { first: 0, count: groups }];
        let is_sound = self.missing.len() <= MAX_LACK_RUNS
            && self.missing.iter().all(|run| run.first < groups && run.count > 0)
            && self.missing.windows(2).all(|pair| pair[0].end() < pair[1].first);
        if self.missing.is_empty() || !is_sound {
            return all;
        }
        let clip = |run: &Run| Run { count: run.end().min(groups) - run.first, ..*run };
        self.missing.iter().map(clip).collect()
    }
}

/// Several nodes ask for a file: all that any of them lacks.
pub fn all_of(lists: impl IntoIterator<Item = Vec<Lack>>) -> Vec<Lack> {
    let mut all: Vec<Lack> = vec![];
    let mut places = BTreeMap::new();
    for lack in lists.into_iter().flatten() {
        let place = *places.entry(lack.blob).or_insert(all.len());
        match all.get_mut(place) {
            Some(known) => {
                known.max_bytes = known.max_bytes.max(lack.max_bytes);
                known.missing = vec![];
            }
            None => all.push(lack),
        }
    }
    all
}

/// Parts of runs that fit one part of a bundle each.
pub fn cut(runs: &[Run]) -> impl Iterator<Item = Run> + '_ {
    runs.iter().flat_map(|run| {
        let firsts = (run.first..run.end()).step_by(MAX_SLICE_GROUPS as usize);
        firsts.map(|first| Run { first, count: MAX_SLICE_GROUPS.min(run.end() - first) })
    })
}

/// Some groups of a blob, with their proof.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobSlice {
    pub blob: BlobId,
    pub size_bytes: u64,
    pub run: Run,
    bytes: Vec<u8>,
}

/// What of a slice was proved: groups with their numbers, and pairs with their places in the tree.
#[derive(Debug, Default)]
pub struct Proved<'a> {
    pub groups: Vec<(u64, &'a [u8])>,
    pub pairs: Vec<(u64, Pair)>,
}

impl BlobSlice {
    /// Reads it from the disk. None if the blob is not there, or is damaged.
    pub fn read(blobs: &Blobs, blob: &BlobId, run: Run) -> blob::Result<Option<Self>> {
        let Some(size_bytes) = blobs.size_bytes(blob)? else { return Ok(None) };
        let Some(mut slice) = blobs.slice(blob, with_last(size_bytes, run))? else {
            return Ok(None);
        };
        let bytes = slice.next_piece(MAX_SLICE_BYTES)?.unwrap_or_default();
        let slice = Self { blob: *blob, size_bytes: slice.size_bytes(), run, bytes };
        Ok(slice.prove().is_ok().then_some(slice))
    }

    /// Checks it against the blob's name. The size is proved too.
    pub fn prove(&self) -> Result<Proved<'_>, False> {
        let groups = groups_of(self.size_bytes);
        let run = self.run;
        if self.size_bytes > MAX_BLOB_BYTES
            || run.count == 0
            || run.count > MAX_SLICE_GROUPS
            || run.end() > groups
        {
            return Err(False);
        }
        let mut proved = Proved::default();
        let mut checker =
            Checker::new(&self.blob, self.size_bytes, with_last(self.size_bytes, run));
        let mut rest = &self.bytes[..];
        while let Some(step) = checker.next_step() {
            let len = match step {
                Step::Pair(_) => PAIR_BYTES,
                Step::Group { len, .. } => len,
            };
            let (part, after) = rest.split_at_checked(len).ok_or(False)?;
            checker.take(part)?;
            match step {
                Step::Pair(place) => {
                    proved.pairs.push((place, Pair::try_from(part).map_err(|_| False)?));
                }
                Step::Group { index, .. } => proved.groups.push((index, part)),
            }
            rest = after;
        }
        if rest.is_empty() { Ok(proved) } else { Err(False) }
    }

    /// Bytes of the file in it.
    pub fn file_bytes(&self) -> u64 {
        let start = self.run.first.saturating_mul(GROUP_BYTES as u64);
        let end = self.run.end().saturating_mul(GROUP_BYTES as u64).min(self.size_bytes);
        end.saturating_sub(start)
    }

    /// What it takes in a bundle, at most.
    pub fn part_bytes(&self) -> u64 {
        (self.bytes.len() + PART_OVERHEAD_BYTES) as u64
    }

    pub fn is_all(&self) -> bool {
        self.run.first == 0 && self.run.count == groups_of(self.size_bytes)
    }
}

/// The groups of a slice: what it is for, and the blob's last one, which proves how large the blob is.
fn with_last(size_bytes: u64, run: Run) -> Vec<Run> {
    let last = groups_of(size_bytes) - 1;
    match run.end().cmp(&last) {
        Ordering::Greater => vec![run],
        Ordering::Equal => vec![Run { count: run.count + 1, ..run }],
        Ordering::Less => vec![run, Run { first: last, count: 1 }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn a_slice_proves_its_groups_and_the_size_and_nothing_else_passes_for_it() -> Outcome {
        let folder = tempfile::tempdir()?;
        let blobs = Blobs::open(folder.path())?;
        let bytes: Vec<u8> = (0..9 * GROUP_BYTES + 77).map(|n| (n * 31 + n / 251) as u8).collect();
        let id = blobs.put(&bytes)?;
        for run in
            [Run { first: 2, count: 3 }, Run { first: 8, count: 1 }, Run { first: 0, count: 10 }]
        {
            let slice = BlobSlice::read(&blobs, &id, run)?.ok_or("it is there")?;
            let proved = slice.prove()?;
            for group in run.first..run.end() {
                let start = group as usize * GROUP_BYTES;
                let end = (start + GROUP_BYTES).min(bytes.len());
                assert!(proved.groups.contains(&(group, &bytes[start..end])), "{group}");
            }
            assert!(proved.groups.iter().any(|(group, _)| *group == 9), "the last one is in each");
            for at in (0..slice.bytes.len()).step_by(997) {
                let mut other = slice.clone();
                other.bytes[at] ^= 1;
                assert_eq!(other.prove().err(), Some(False), "byte {at}");
            }
            let size = slice.size_bytes;
            for lie in [0, 1, size - 1, size + 1, size - 77, size + GROUP_BYTES as u64, u64::MAX] {
                assert!(BlobSlice { size_bytes: lie, ..slice.clone() }.prove().is_err(), "{lie}");
            }
            for lie in
                [Run { first: 2, count: 4 }, Run { first: 3, count: 3 }, Run { first: 2, count: 0 }]
            {
                assert!(BlobSlice { run: lie, ..slice.clone() }.prove().is_err(), "{lie:?}");
            }
            let longer = [&slice.bytes[..], &[0]].concat();
            assert!(BlobSlice { bytes: longer, ..slice.clone() }.prove().is_err());
        }
        let mut huge = BlobSlice::read(&blobs, &id, Run { first: 0, count: 1 })?.ok_or("there")?;
        huge.run = Run { first: u64::MAX, count: u64::MAX };
        assert!(huge.prove().is_err());
        assert_eq!(BlobSlice::read(&blobs, &BlobId::of(b"other"), huge.run)?, None);
        Ok(())
    }
}
