//! A store as one node may write to it, for what comes by other ways than a link: what the node may not write does not
//! reach it, and is not waited for either.

use atoll_storage::{
    Applied, Carries, Digest, Id, Lane, NodeId, Op, OpBatch, Origin, RecordKey, RecordRange,
    Replica, Result, Rights, SnapshotChunk, SnapshotIndex, StreamHead, StreamId, Vector,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Guarded<'r> {
    inner: &'r mut dyn Replica,
    maker: NodeId,
    rights: Rights,
    /// How far the ops went that were refused.
    refused: BTreeMap<StreamId, Vector>,
    pub refused_ops: u64,
    /// Records of snapshots.
    pub refused_records: u64,
}

impl<'r> Guarded<'r> {
    /// `maker` may do this here.
    pub fn new(inner: &'r mut dyn Replica, maker: NodeId, rights: Rights) -> Self {
        let refused = BTreeMap::new();
        Self { inner, maker, rights, refused, refused_ops: 0, refused_records: 0 }
    }

    fn takes(&self, op: &Op) -> bool {
        self.rights.writes(&op.stream, op.dot.origin.node == self.maker)
    }

    /// A state cannot be told apart by who wrote it.
    fn takes_states(&self, stream: &StreamId) -> bool {
        self.rights.writes(stream, true) && self.rights.writes(stream, false)
    }
}

impl Replica for Guarded<'_> {
    fn origin(&self) -> Origin {
        self.inner.origin()
    }
    fn carries(&self) -> Arc<Carries> {
        self.inner.carries()
    }
    fn root(&mut self) -> Result<Digest> {
        self.inner.root()
    }
    fn tenants(&mut self) -> Result<Vec<(Id, Digest)>> {
        self.inner.tenants()
    }
    fn heads(&mut self, tenants: Option<&[Id]>) -> Result<Vec<StreamHead>> {
        self.inner.heads(tenants)
    }
    /// With what was refused, as if it had come: nobody is to wait for it.
    fn head(&mut self, stream: &StreamId) -> Result<Option<StreamHead>> {
        let head = self.inner.head(stream)?;
        let Some(refused) = self.refused.get(stream) else { return Ok(head) };
        let mut head = head.unwrap_or_else(|| StreamHead {
            stream: stream.clone(),
            vector: Vector::default(),
            floor: Vector::default(),
            digest: Digest::default(),
            records: 0,
            is_ahead: false,
        });
        head.vector.merge(refused);
        Ok(Some(head))
    }
    fn log_end(&mut self) -> Result<u64> {
        self.inner.log_end()
    }
    fn start_of(&mut self, lane: Lane, known: &BTreeMap<StreamId, Vector>) -> Result<u64> {
        self.inner.start_of(lane, known)
    }
    fn ops(
        &mut self,
        lane: Lane,
        from_pos: u64,
        known: &BTreeMap<StreamId, Vector>,
        max_ops: usize,
        max_bytes: usize,
    ) -> Result<OpBatch> {
        self.inner.ops(lane, from_pos, known, max_ops, max_bytes)
    }
    fn apply(&mut self, ops: Vec<Op>) -> Result<Applied> {
        let (taken, refused): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(|op| self.takes(op));
        self.refused_ops += refused.len() as u64;
        for op in refused {
            let top = self.refused.entry(op.stream).or_default();
            top.raise(op.dot.origin, op.dot.seq);
        }
        self.inner.apply(taken)
    }
    fn snapshot_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.inner.snapshot_index(stream)
    }
    fn served_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.inner.served_index(stream)
    }
    fn snapshot_chunk(
        &mut self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<SnapshotChunk> {
        self.inner.snapshot_chunk(stream, after, upto)
    }
    fn merge_chunk(&mut self, chunk: &SnapshotChunk) -> Result<()> {
        if self.takes_states(&chunk.stream) {
            return self.inner.merge_chunk(chunk);
        }
        self.refused_records += chunk.records.len() as u64;
        Ok(())
    }
    fn hold(&mut self, stream: &StreamId, ranges: &[RecordRange], vector: &Vector) -> Result<()> {
        if self.takes_states(stream) { self.inner.hold(stream, ranges, vector) } else { Ok(()) }
    }
    fn finish_snapshot(&mut self, stream: &StreamId, vector: &Vector) -> Result<()> {
        if self.takes_states(stream) { self.inner.finish_snapshot(stream, vector) } else { Ok(()) }
    }
    fn finish_held(&mut self, stream: &StreamId) -> Result<bool> {
        if self.takes_states(stream) { self.inner.finish_held(stream) } else { Ok(true) }
    }
}
