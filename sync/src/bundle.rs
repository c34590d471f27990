//! Bundles: what a courier carries, on a stick or a card, between nodes that no network joins.
//!
//! A bundle is one file or several, its *volumes*. A volume is a row of parts, each signed by the node that made the
//! bundle, so that every part counts for itself: what is cut off or damaged is named, and all else is taken. Parts hold
//! what a link would carry: ops in the order in which the maker applied them, chunks of snapshots, and the maker's own
//! vectors, so that the next bundle home holds just what is missing.
//!
//! A courier needs no trust. He can lose a bundle, bring it twice, late, in part or in any order; he cannot change it,
//! and cannot read one that was locked for its recipients.

mod came;
mod export;
mod frame;
mod import;
mod info;
mod land;
mod lock;
mod pack;
mod parcel;
mod repair;
mod slice;
mod told;
mod volume;

pub use export::{Exported, Order, Tells, Volumes, export};
pub use import::{Damage, Report, import};
pub use info::{Info, Lists, VolumeInfo, info};
pub use land::{FULL, Landing, LeftOut};
pub use lock::{BundleKey, Recipient};
pub use pack::{Left, Packing};
pub use parcel::{Contents, MAX_SHARES, Share, export_parcel};
pub use repair::Repair;
pub use slice::{Lack, MAX_LACKS, all_of};
pub use told::MAX_TOLD_BYTES;
pub use volume::{Brings, Head, Volume, VolumeWriter};

use crate::key::PublicKey;
use crate::message::Packed;
use crate::piece::Piece;
use atoll_storage::bucket::StreamState;
use atoll_storage::{Carries, Id, NodeId, StreamId, Vector, blob};
use bincode::{Decode, Encode};
use slice::BlobSlice;
use std::io;
use thiserror::Error;

/// The format that this release writes, and the latest that it reads.
pub const FORMAT: u16 = 1;
/// What fits on any file system that a stick comes with.
pub const MAX_VOLUME_BYTES: u64 = 2 << 30;
pub const MIN_VOLUME_BYTES: u64 = 1 << 20;
/// As on a link.
pub const BATCH_OPS: usize = 1_000;
pub const SNAPSHOT_FROM_OPS: u64 = 2_000;
/// As many as a node knows.
pub const MAX_RECIPIENTS: usize = atoll_storage::peer::MAX_PEERS;
/// Names of bundles that one can refuse, and how long each is at most.
pub const MAX_REFUSED: usize = 1_000;
const MAX_REFUSED_BYTES: usize = 128;

#[derive(Debug, Error)]
pub enum Error {
    #[error("reading or writing the bundle failed: {0}")]
    Io(#[from] io::Error),
    #[error("this is no bundle, or its beginning and its end are both lost")]
    NoBundle,
    #[error("this bundle has format {0}, this release reads up to {FORMAT}: upgrade this node")]
    Newer(u16),
    #[error(
        "the bundle is locked for other nodes ({for_whom}): have it made for this one, from what `atoll bundle want` \
         writes here"
    )]
    NotForMe { for_whom: String },
    #[error(
        "the bundle was made by {name} ({key}), whom this node does not know: add that node as a peer first"
    )]
    Stranger { name: String, key: PublicKey },
    #[error("these volumes are of different bundles: take in each bundle by itself")]
    Mixed,
    #[error("a bundle is locked for {MAX_RECIPIENTS} nodes at most")]
    TooManyRecipients,
    #[error(
        "the record {key} in {stream} is too long for a bundle: delete it, and make another one of its text"
    )]
    TooLong { stream: StreamId, key: Id },
    #[error("the key of recipient {0} is not one")]
    Recipient(NodeId),
    #[error("the system gave no random bytes: check the machine, then try again")]
    Random,
    #[error(transparent)]
    Store(#[from] atoll_storage::Error),
    #[error(transparent)]
    Blob(#[from] blob::Error),
}

impl Error {
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Store(error) => matches!(error, atoll_storage::Error::Full),
            Self::Blob(error) => matches!(error, blob::Error::Full),
            _ => false,
        }
    }
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// What a node has: streams with their vectors.
pub type Want = Vec<(StreamId, Vector)>;

/// What a bundle brings of one stream: whoever has `from` has `to` once all of the bundle was taken. What came as a snapshot
/// takes nothing to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Cover {
    pub stream: StreamId,
    pub from: Vector,
    pub to: Vector,
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Part {
    /// A piece of what the maker has. All pieces together are all of it.
    Want(Want),
    /// `Vec<Op>`.
    Ops(Packed),
    /// `SnapshotChunk`.
    Chunk(Packed),
    /// The last part, in the last volume.
    End { parts: u32, volumes: u32 },
    /// A piece of what the bundle brings. All pieces stand before what they tell of.
    Covers(Vec<Cover>),
    /// Names of bundles that the maker could not use: they have to be made again.
    Refused(Vec<String>),
    /// A piece of the files that the maker is without and asks for.
    Lacks(Vec<Lack>),
    /// A part of a file.
    Slice(BlobSlice),
    /// What of the network the maker carries; told with what it has, unless it is everything.
    Carries(Carries),
    /// What of files a parcel brings, before anything else.
    Contents(Contents),
    /// A piece of how the maker's streams stand; told with what it has.
    States(Vec<(StreamId, StreamState)>),
    /// That the bundle brings a state to whom has all of its ops. Stands behind the covers and an empty `Refused`: releases
    /// that do not know this kind see by that one where the covers end.
    Repair(Repair),
    /// A piece of a `SnapshotChunk` that is too long for a part. All of them stand in one volume, one after the other.
    Piece(Piece),
}

impl Part {
    /// Kinds of parts that this release knows. Others are counted and left, whatever stands in them.
    const KINDS: u32 = 13;

    /// Whether bytes begin as a part of a kind does that came later than this release.
    fn is_newer(bytes: &[u8]) -> bool {
        let config = bincode::config::standard().with_limit::<16>();
        let kind = bincode::decode_from_slice::<u32, _>(bytes, config);
        kind.is_ok_and(|(kind, _)| kind >= Self::KINDS)
    }
}
