//! Who visits a bucket, as far as a visit needs to know: the running node, or one of the simulator.

use super::trouble::{Result, Trouble};
use crate::blob::Files;
use crate::peer::{grant, revocation};
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

    fn peers(&self) -> Result<BTreeMap<NodeId, String>> {
        peers_of(self.node)
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

/// A bundle of a bucket is taken and left whole: whoever may not have, or write, all of it has no part in it.
fn peers_of(node: &Node) -> Result<BTreeMap<NodeId, String>> {
    grant::catch_up(node)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use atoll_storage::{Changes, Id, Rights, Value};
    use atoll_sync::grant::Grant;

    type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

    /// Nobody follows the records here: the workers of the node do not run.
    #[test]
    fn what_came_in_a_visit_says_who_has_no_part_in_the_rest_of_it() -> Outcome {
        let folder = tempfile::tempdir()?;
        let node = Node::open(Config { data: folder.path().to_owned(), ..Config::default() })?;
        let (first, second) = (NodeKey::generate()?, NodeKey::generate()?);
        for (key, name) in [(&first, "first"), (&second, "second")] {
            let key = key.public().0;
            let add = move |tx: &mut Tx<'_>| peer::add(tx, &key, name, None);
            node.store.write_blocking(add)?;
        }
        let listed = || peers_of(&node).map_err(|trouble| trouble.message);
        assert_eq!(listed()?.len(), 2);
        let said = Grant {
            issuer: first.public(),
            holder: second.public(),
            rights: Rights { write: false, ..Rights::everything() },
            serial: 1,
            issued_ms: 1,
        };
        let &[issuer, holder, statement] = grant::GRANT.fields else {
            return Err("a grant has three fields".into());
        };
        let (one, other) = (first.node_id(), second.node_id());
        let key = Id::natural(&[b"grant", &one.0, &other.0]);
        let told = Changes::new()
            .set(&issuer, one.to_string())
            .set(&holder, other.to_string())
            .set(&statement, Value::Bytes(said.sign(&first)?));
        let tell = move |tx: &mut Tx<'_>| tx.create(&grant::GRANT, Id::NIL, key, told).map(drop);
        node.store.write_blocking(tell)?;
        let left: Vec<NodeId> = listed()?.into_keys().collect();
        assert_eq!(left, [one]);
        Ok(())
    }
}
