//! A bucket: a store of objects where nodes leave bundles for each other that are never up together. Decides what to
//! take, what to leave and what to clear away, of what is written and of files, from what stands in the bucket. Does no I/O and reads no clock.
//!
//! Each node writes under its own name alone, and never writes an object twice: a name stands for the same bytes as long as
//! it is there. So nobody overwrites anything, whatever the order, and whatever a store shows late.

mod listing;
mod name;
mod parcels;
mod plan;

pub use listing::{Listed, Listing, MAX_OBJECTS, Pile, WantObject};
pub use name::{BundleName, ObjectName};
pub use parcels::{Asker, Parcel, foreseen, obsolete_parcels, parcels, wanted_parcels};
pub use plan::{
    Has, Left, Member, differing, lead, merge, obsolete, publications, reach, repairs, wanted,
};

use crate::bundle::{Contents, Cover, Lack, Repair};
use atoll_storage::{Digest, NodeId};
use bincode::{Decode, Encode};

/// What a node knows of an object and need not read again: names stand for the same bytes always.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum About {
    Bundle {
        /// None: everybody.
        readers: Option<Vec<NodeId>>,
        covers: Vec<Cover>,
        /// Volumes that were taken in.
        taken: u32,
        repair: Option<Repair>,
        /// How the streams stood here that it covers when all of it had come and waited for something else; it is not read
        /// again as long as they stand so.
        waits_at: Option<Digest>,
    },
    /// Locked for others.
    Closed,
    Refused {
        why: String,
        /// Its maker is asked to leave it once more.
        is_damage: bool,
        /// As it was then: a folder that something else keeps in sync may show a part before the whole.
        size_bytes: u64,
    },
    Parcel {
        /// None: everybody.
        readers: Option<Vec<NodeId>>,
        contents: Contents,
    },
}

/// Which files a node asked for last, and who could read that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Asks {
    pub lacks: Vec<Lack>,
    pub readers: Vec<NodeId>,
}

/// What this node itself asked for last, and when, by its own clock: the number in the name of what it left may be far ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct OwnAsks {
    pub asks: Asks,
    pub said_ms: u64,
}
