//! Which files go into a bundle: those that receivers ask for, then those that its records name, the small ones first, as far
//! as there is room. Files go after all that is written, so that a bundle that is cut off loses them first.

use super::Result;
use super::slice::{Lack, MAX_BLOBS};
use atoll_storage::Id;
use atoll_storage::blob::tree::{Run, groups_of};
use atoll_storage::blob::{BlobId, Blobs};
use std::collections::BTreeSet;

/// What of the maker's files goes along.
pub struct Packing<'a> {
    pub blobs: &'a Blobs,
    /// The blobs that a record names, by its kind and key.
    pub named_by: &'a dyn Fn(u16, Id) -> atoll_storage::Result<Vec<BlobId>>,
    /// What receivers ask for.
    pub asked: Vec<Lack>,
    /// Files that are larger go only if they are asked for.
    pub up_to_bytes: u64,
    /// What all of them may take; asked once all that is written stands in the bundle.
    pub room_bytes: &'a dyn Fn() -> u64,
}

/// Files that did not go along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Left {
    /// Larger than what goes unasked.
    pub larger: u64,
    /// Of which a part or nothing went, since there was no room for more.
    pub no_room: u64,
    /// That the maker is without itself, or whose bytes are damaged there.
    pub not_here: u64,
    /// Of the first two.
    pub bytes: u64,
}

/// A file to put into the bundle, or what a receiver lacks of it.
pub(super) struct Chosen {
    pub blob: BlobId,
    pub size_bytes: u64,
    pub runs: Vec<Run>,
}

/// Gathers what goes along while ops and records are written.
pub(super) struct Pack<'a> {
    pub packing: &'a Packing<'a>,
    named: BTreeSet<BlobId>,
    last: Option<(u16, Id)>,
}

impl<'a> Pack<'a> {
    pub fn new(packing: &'a Packing<'a>) -> Self {
        Self { packing, named: BTreeSet::new(), last: None }
    }

    /// A record that the bundle tells of.
    pub fn note(&mut self, kind: u16, key: Id) -> Result<()> {
        // Ops of one record often follow each other.
        if self.last == Some((kind, key)) || self.named.len() >= MAX_BLOBS {
            return Ok(());
        }
        self.last = Some((kind, key));
        let named = (self.packing.named_by)(kind, key)?;
        self.named.extend(named);
        Ok(())
    }

    /// In the order in which they are to go.
    pub fn choose(mut self, left: &mut Left) -> Result<Vec<Chosen>> {
        let Packing { blobs, asked, up_to_bytes, .. } = self.packing;
        let mut chosen = Vec::new();
        for lack in asked {
            let Some(size_bytes) = blobs.size_bytes(&lack.blob)? else { continue };
            if size_bytes <= lack.max_bytes.max(*up_to_bytes) {
                self.named.remove(&lack.blob);
                let runs = lack.runs(groups_of(size_bytes));
                chosen.push(Chosen { blob: lack.blob, size_bytes, runs });
            }
        }
        let mut unasked = Vec::new();
        for blob in self.named {
            let Some(size_bytes) = blobs.size_bytes(&blob)? else {
                left.not_here += 1;
                continue;
            };
            if size_bytes > *up_to_bytes {
                left.larger += 1;
                left.bytes += size_bytes;
                continue;
            }
            let runs = vec![Run { first: 0, count: groups_of(size_bytes) }];
            unasked.push(Chosen { blob, size_bytes, runs });
        }
        unasked.sort_by_key(|chosen| chosen.size_bytes);
        chosen.extend(unasked);
        Ok(chosen)
    }
}
