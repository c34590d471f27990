//! A replica that cuts snapshots fine, so that a few dozen records make many chunks. All else is the store's.

use atoll_storage::{
    Carries, ChunkHead, Db, Digest, Id, Lane, Op, OpBatch, Origin, RecordKey, RecordRange, Replica,
    Result, SnapshotChunk, SnapshotIndex, StreamHead, StreamId, Vector, codec,
};
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct Small<'d> {
    pub db: &'d mut Db,
    pub chunk_records: usize,
}

impl Replica for Small<'_> {
    fn origin(&self) -> Origin {
        Replica::origin(self.db)
    }
    fn carries(&self) -> Arc<Carries> {
        self.db.carries()
    }
    fn root(&mut self) -> Result<Digest> {
        self.db.root()
    }
    fn tenants(&mut self) -> Result<Vec<(Id, Digest)>> {
        self.db.tenants()
    }
    fn heads(&mut self, tenants: Option<&[Id]>) -> Result<Vec<StreamHead>> {
        self.db.heads(tenants)
    }
    fn head(&mut self, stream: &StreamId) -> Result<Option<StreamHead>> {
        self.db.head(stream)
    }
    fn log_end(&mut self) -> Result<u64> {
        self.db.log_end()
    }
    fn start_of(&mut self, lane: Lane, known: &BTreeMap<StreamId, Vector>) -> Result<u64> {
        self.db.start_of(lane, known)
    }
    fn ops(
        &mut self,
        lane: Lane,
        from_pos: u64,
        known: &BTreeMap<StreamId, Vector>,
        max_ops: usize,
        max_bytes: usize,
    ) -> Result<OpBatch> {
        self.db.ops(lane, from_pos, known, max_ops, max_bytes)
    }
    fn apply(&mut self, ops: Vec<Op>) -> Result<atoll_storage::Applied> {
        Replica::apply(self.db, ops)
    }

    fn snapshot_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        // What stands in every chunk is at least this.
        let vector = self.db.snapshot_index(stream)?.vector;
        let mut records = Vec::new();
        let mut after = None;
        loop {
            let chunk = self.db.snapshot_chunk(stream, after, None)?;
            records.extend(chunk.records);
            after = chunk.upto;
            if after.is_none() {
                break;
            }
        }
        let mut chunks: Vec<ChunkHead> = Vec::new();
        let mut open = false;
        for record in &records {
            let last = (record.kind, record.key);
            let digest = Digest::of(&codec::encode(&(record.kind, record.key, &record.state)));
            match chunks.last_mut().filter(|c| open && c.last.0 == record.kind) {
                Some(chunk) => {
                    (chunk.last, chunk.count) = (last, chunk.count + 1);
                    chunk.digest.add(digest);
                }
                None => chunks.push(ChunkHead { last, count: 1, digest }),
            }
            let first = usize::from(Id::natural(&[&record.key.0]).0[0]);
            open = !first.is_multiple_of(self.chunk_records + 1);
        }
        Ok(SnapshotIndex { stream: stream.clone(), vector, chunks })
    }

    fn served_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        let mut index = self.snapshot_index(stream)?;
        self.db.mark_ahead(&mut index)?;
        Ok(index)
    }

    fn snapshot_chunk(
        &mut self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<SnapshotChunk> {
        let mut chunk = self.db.snapshot_chunk(stream, after, upto)?;
        if chunk.records.len() > self.chunk_records {
            chunk.records.truncate(self.chunk_records);
            chunk.upto = chunk.records.last().map(|r| (r.kind, r.key));
        }
        Ok(chunk)
    }

    fn merge_chunk(&mut self, chunk: &SnapshotChunk) -> Result<()> {
        self.db.merge_chunk(chunk)
    }
    fn hold(&mut self, stream: &StreamId, ranges: &[RecordRange], vector: &Vector) -> Result<()> {
        self.db.hold(stream, ranges, vector)
    }
    fn finish_snapshot(&mut self, stream: &StreamId, vector: &Vector) -> Result<()> {
        self.db.finish_snapshot(stream, vector)
    }
    fn finish_held(&mut self, stream: &StreamId) -> Result<bool> {
        self.db.finish_held(stream)
    }
}
