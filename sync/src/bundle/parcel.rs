//! Files without anything that is written, for buckets: what a parcel brings stands at its beginning, its slices behind that.

use super::export::{Order, Volumes, Writer};
use super::slice::{BlobSlice, cut};
use super::{Part, Result, Want};
use crate::key::NodeKey;
use atoll_storage::blob::tree::Run;
use atoll_storage::blob::{BlobId, Blobs};
use bincode::{Decode, Encode};

/// Of one parcel.
pub const MAX_SHARES: usize = 500;

/// Some groups of a file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Share {
    pub blob: BlobId,
    pub size_bytes: u64,
    pub run: Run,
}

/// What a parcel tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Contents {
    pub shares: Vec<Share>,
    /// Whoever has less of these streams has not heard yet of records that name some of the files. Empty if all of them were
    /// asked for.
    pub named_at: Want,
}

/// Writes those of the shares that are here and sound, at most [`MAX_SHARES`]; which. All of them are held in memory.
pub fn export_parcel<V: Volumes>(
    key: &NodeKey,
    blobs: &Blobs,
    order: &Order<'_>,
    contents: Contents,
    volumes: &mut V,
) -> Result<Contents> {
    let (mut here, mut slices) = (Vec::new(), Vec::new());
    for share in contents.shares.into_iter().take(MAX_SHARES) {
        let runs = [share.run];
        let of_share: Result<Vec<Option<BlobSlice>>> =
            cut(&runs).map(|run| Ok(BlobSlice::read(blobs, &share.blob, run)?)).collect();
        match of_share?.into_iter().collect::<Option<Vec<_>>>() {
            Some(of_share) => {
                here.push(share);
                slices.extend(of_share);
            }
            None => {
                tracing::warn!(blob = %share.blob, "a file could not be packed: it is gone, or damaged here");
            }
        }
    }
    let contents = Contents { shares: here, ..contents };
    if contents.shares.is_empty() {
        return Ok(contents);
    }
    let mut out = Writer::begin(key, order, volumes)?;
    out.put(&Part::Contents(contents.clone()))?;
    slices.into_iter().try_for_each(|slice| out.put(&Part::Slice(slice)))?;
    out.finish()?;
    Ok(contents)
}
