//! What a bundle says that is left since states differ where vectors do not.

use atoll_storage::{Digest, NodeId};
use bincode::{Decode, Encode};

/// The bundle brings the whole state of its one stream, for nodes whose state is another one though they have the same ops.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Repair {
    /// Of the state, at the vector where the cover ends.
    pub digest: Digest,
    /// Who takes it.
    pub nodes: Vec<NodeId>,
    /// So many that the maker left before were not enough.
    pub tries: u32,
}
