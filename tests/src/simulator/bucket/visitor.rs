//! A node of the simulator as one that visits a bucket.

use super::reached::Break;
use crate::simulator::files::Shelf;
use crate::simulator::node::clock;
use crate::simulator::small::Small;
use atoll_node::blob::Files;
use atoll_node::bucket::{Base, Sizes, Trouble, Visitor};
use atoll_node::config;
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::bucket::{self as kept, Bucket};
use atoll_storage::{
    Applied, Carries, Clock, Db, Digest, Id, Lane, NodeId, Op, OpBatch, Origin, Reader, RecordKey,
    RecordRange, Replica, Result, SnapshotChunk, SnapshotIndex, StreamHead, StreamId, Tx, Vector,
    revoked,
};
use atoll_sync::key::NodeKey;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

/// What a visit needs, as it goes to the thread of that visit.
pub struct Caller<'w> {
    pub number: usize,
    pub db: &'w mut Db,
    pub shelf: Option<&'w Shelf>,
    pub is_full: bool,
    pub chunk_records: Option<usize>,
    pub key: NodeKey,
    pub now_ms: Arc<AtomicU64>,
    pub skew_ms: Arc<AtomicI64>,
    pub others: Vec<NodeId>,
    /// The one that is taken for none of them by whoever has heard that it was removed.
    pub removed: Option<NodeId>,
    pub sizes: Sizes,
    pub dice: u64,
    pub breaks: Option<Break>,
}

impl<'w> Caller<'w> {
    pub fn visitor(self, folder: &'w Path) -> Guest<'w> {
        let clock = clock(&self.now_ms, &self.skew_ms);
        let base = Shared::new(self.db, self.chunk_records);
        let is_full = self.is_full;
        let held = |shelf| Held { base: base.clone(), shelf, clock: clock.clone(), is_full };
        Guest {
            name: format!("node {}", self.number),
            held: self.shelf.map(held),
            clock,
            base,
            key: self.key,
            others: self.others,
            removed: self.removed,
            sizes: self.sizes,
            dice: Cell::new(self.dice),
            folder,
        }
    }
}

/// That node while it visits.
pub struct Guest<'w> {
    name: String,
    base: Shared<'w>,
    held: Option<Held<'w>>,
    key: NodeKey,
    clock: Clock,
    others: Vec<NodeId>,
    removed: Option<NodeId>,
    sizes: Sizes,
    dice: Cell<u64>,
    folder: &'w Path,
}

impl Guest<'_> {
    pub fn bucket(&self, name: &str) -> Result<Option<Bucket>> {
        self.base.read(|reader| kept::find(reader, name))
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl<'w> Visitor for Guest<'w> {
    type Base = Shared<'w>;
    type Files = Held<'w>;

    fn base(&self) -> Shared<'w> {
        self.base.clone()
    }

    fn key(&self) -> &NodeKey {
        &self.key
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn random(&self) -> u32 {
        self.dice.set(self.dice.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
        (self.dice.get() >> 32) as u32
    }

    /// A step that fails ends a visit as well.
    fn is_stopped(&self) -> bool {
        false
    }

    fn scratch(&self) -> Result<File, Trouble> {
        tempfile::tempfile_in(self.folder).map_err(|error| Trouble::here(&error))
    }

    fn peers(&self) -> Result<BTreeMap<NodeId, String>, Trouble> {
        let is_there = match self.removed {
            Some(node) => self.base.read(|reader| revoked::cuts(reader, node))?.is_empty(),
            None => true,
        };
        let others = self.others.iter().copied();
        let others = others.filter(|node| is_there || Some(*node) != self.removed);
        Ok(others.map(|node| (node, node.to_string())).collect())
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn files(&self) -> Option<&Held<'w>> {
        self.held.as_ref()
    }
}

/// Its files.
pub struct Held<'w> {
    pub base: Shared<'w>,
    pub shelf: &'w Shelf,
    pub clock: Clock,
    pub is_full: bool,
}

impl<'w> Files for Held<'w> {
    type Base = Shared<'w>;

    fn base(&self) -> Shared<'w> {
        self.base.clone()
    }

    fn blobs(&self) -> &Blobs {
        &self.shelf.blobs
    }

    fn settings(&self) -> &config::Blobs {
        &self.shelf.settings
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn look_for_room(&self) -> bool {
        !self.is_full
    }

    /// No link tells that another one has a file, so none is dropped for another.
    fn make_room(&self, _: &BlobId, _: u64) -> u64 {
        self.shelf.room_bytes()
    }
}

/// A database that several hold within one visit.
#[derive(Clone)]
pub struct Shared<'d> {
    db: Rc<RefCell<&'d mut Db>>,
    chunk_records: Option<usize>,
}

impl<'d> Shared<'d> {
    pub fn new(db: &'d mut Db, chunk_records: Option<usize>) -> Self {
        Self { db: Rc::new(RefCell::new(db)), chunk_records }
    }

    fn with<T>(&self, f: impl FnOnce(&mut dyn Replica) -> T) -> T {
        let db = &mut **self.db.borrow_mut();
        match self.chunk_records {
            Some(chunk_records) => f(&mut Small { db, chunk_records }),
            None => f(db),
        }
    }
}

impl Base for Shared<'_> {
    fn read<T>(&self, f: impl FnOnce(&Reader<'_>) -> Result<T>) -> Result<T> {
        f(&self.db.borrow().reader())
    }

    fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db.borrow_mut().transact(f)
    }
}

impl Replica for Shared<'_> {
    fn origin(&self) -> Origin {
        self.with(|replica| replica.origin())
    }
    fn carries(&self) -> Arc<Carries> {
        self.with(|replica| replica.carries())
    }
    fn root(&mut self) -> Result<Digest> {
        self.with(|replica| replica.root())
    }
    fn tenants(&mut self) -> Result<Vec<(Id, Digest)>> {
        self.with(|replica| replica.tenants())
    }
    fn heads(&mut self, tenants: Option<&[Id]>) -> Result<Vec<StreamHead>> {
        self.with(|replica| replica.heads(tenants))
    }
    fn head(&mut self, stream: &StreamId) -> Result<Option<StreamHead>> {
        self.with(|replica| replica.head(stream))
    }
    fn log_end(&mut self) -> Result<u64> {
        self.with(|replica| replica.log_end())
    }
    fn start_of(&mut self, lane: Lane, known: &BTreeMap<StreamId, Vector>) -> Result<u64> {
        self.with(|replica| replica.start_of(lane, known))
    }
    fn ops(
        &mut self,
        lane: Lane,
        from_pos: u64,
        known: &BTreeMap<StreamId, Vector>,
        max_ops: usize,
        max_bytes: usize,
    ) -> Result<OpBatch> {
        self.with(|replica| replica.ops(lane, from_pos, known, max_ops, max_bytes))
    }
    fn apply(&mut self, ops: Vec<Op>) -> Result<Applied> {
        self.with(|replica| replica.apply(ops))
    }
    fn snapshot_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.with(|replica| replica.snapshot_index(stream))
    }
    fn served_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.with(|replica| replica.served_index(stream))
    }
    fn snapshot_chunk(
        &mut self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<SnapshotChunk> {
        self.with(|replica| replica.snapshot_chunk(stream, after, upto))
    }
    fn merge_chunk(&mut self, chunk: &SnapshotChunk) -> Result<()> {
        self.with(|replica| replica.merge_chunk(chunk))
    }
    fn hold(&mut self, stream: &StreamId, ranges: &[RecordRange], vector: &Vector) -> Result<()> {
        self.with(|replica| replica.hold(stream, ranges, vector))
    }
    fn finish_snapshot(&mut self, stream: &StreamId, vector: &Vector) -> Result<()> {
        self.with(|replica| replica.finish_snapshot(stream, vector))
    }
    fn finish_held(&mut self, stream: &StreamId) -> Result<bool> {
        self.with(|replica| replica.finish_held(stream))
    }
}
