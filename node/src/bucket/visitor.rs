//! Who visits a bucket, as far as a visit needs to know: the running node, or one of the simulator.

use super::trouble::{Result, Trouble};
use crate::blob::Files;
use crate::peer::revocation;
use crate::runtime::{Node, Stop};
use atoll_storage::{NodeId, Reader, Replica, Store, Tx, peer};
use atoll_sync::bundle;
use atoll_sync::grant::standing;
use atoll_sync::key::NodeKey;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

/// What a node has, and what it keeps of its buckets. Clones share it.
pub trait Base: Replica + Clone {
    fn read<T>(
        &self,
        f: impl FnOnce(&Reader<'_>) -> atoll_storage::Result<T>,
    ) -> atoll_storage::Result<T>;

    /// In one transaction, which is on disk when this returns.
    fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> atoll_storage::Result<T> + Send + 'static,
    ) -> atoll_storage::Result<T>;
}

impl Base for Store {
    fn read<T>(
        &self,
        f: impl FnOnce(&Reader<'_>) -> atoll_storage::Result<T>,
    ) -> atoll_storage::Result<T> {
        Store::read(self, f)
    }

    fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> atoll_storage::Result<T> + Send + 'static,
    ) -> atoll_storage::Result<T> {
        self.write_blocking(f)
    }
}

/// How a bundle that is left is cut, and what files may take.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Ops in one part at most.
    pub batch_ops: usize,
    /// A stream of which all is left goes as a snapshot from so many ops on.
    pub snapshot_from_ops: u64,
    /// What parcels take in the bucket, by whomever they are.
    pub files_bytes: u64,
    /// What of files goes, and comes, in one visit.
    pub visit_bytes: u64,
}

pub trait Visitor {
    type Base: Base;
    type Files: Files;

    fn base(&self) -> Self::Base;
    fn key(&self) -> &NodeKey;
    fn name(&self) -> &str;
    fn now_ms(&self) -> u64;
    fn random(&self) -> u32;
    /// A visit that is stopped ends before its next step.
    fn is_stopped(&self) -> bool;
    /// A new file that goes with the process.
    fn scratch(&self) -> Result<File>;
    /// Those that it lists and that may have all, with their names here.
    fn peers(&self) -> Result<BTreeMap<NodeId, String>>;
    fn sizes(&self) -> Sizes;
    /// None: it neither asks for files nor leaves any.
    fn files(&self) -> Option<&Self::Files>;
}

/// The node itself.
pub(super) struct Here<'a> {
    pub node: &'a Arc<Node>,
    pub stop: &'a Stop,
}

impl Visitor for Here<'_> {
    type Base = Store;
    type Files = Node;

    fn base(&self) -> Store {
        self.node.store.clone()
    }

    fn key(&self) -> &NodeKey {
        self.node.key()
    }

    fn name(&self) -> &str {
        &self.node.config.name
    }

    fn now_ms(&self) -> u64 {
        self.node.clock.now_ms()
    }

    fn random(&self) -> u32 {
        u32::from_le_bytes(self.node.random())
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }

    fn scratch(&self) -> Result<File> {
        tempfile::tempfile_in(self.node.folder().path()).map_err(|error| Trouble::here(&error))
    }

    /// A bundle of a bucket is taken and left whole: whoever may not have, or write, all of it has no part in it.
    fn peers(&self) -> Result<BTreeMap<NodeId, String>> {
        let node = self.node;
        let peers = node.store.read(|reader| peer::list(reader))?;
        let revoked = revocation::nodes(node)?;
        let standing = node.store.read(|reader| standing(reader, node.id()))?;
        let now_ms = node.clock.now_ms();
        let may_all = |one: &NodeId| {
            standing.get(one).is_none_or(|rights| rights.is_whole() && !rights.is_over(now_ms))
        };
        let known = peers.into_iter();
        let known = known.filter(|one| !revoked.contains(&one.node) && may_all(&one.node));
        Ok(known.map(|one| (one.node, one.name)).collect())
    }

    fn sizes(&self) -> Sizes {
        let sync = &self.node.config.sync;
        Sizes {
            batch_ops: bundle::BATCH_OPS,
            snapshot_from_ops: bundle::SNAPSHOT_FROM_OPS,
            files_bytes: sync.bucket_files_bytes,
            visit_bytes: sync.bucket_visit_bytes,
        }
    }

    fn files(&self) -> Option<&Node> {
        Some(self.node)
    }
}
