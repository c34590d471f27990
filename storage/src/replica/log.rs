//! Reading for replication: heads, ops out of the log, snapshots in chunks. Changes nothing.

use super::{
    ChunkHead, Lane, OpBatch, RecordKey, RecordRange, SnapshotBody, SnapshotChunk, SnapshotIndex,
    SnapshotRecord,
};
use crate::ahead;
use crate::apply::{Place, digest_of};
use crate::codec;
use crate::digest::Digest;
use crate::erasure::Telling;
use crate::error::Result;
use crate::heads::{StreamHead, read_heads};
use crate::id::{Dot, Id, Origin, StreamId};
use crate::log::{self, Met};
use crate::op::Op;
use crate::read::{Plans, load_content};
use crate::schema::table_of;
use crate::state::State;
use crate::vector::Vector;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

/// The reading half, alike over the writer's connection and a pooled one.
pub(crate) struct LogReader<'c> {
    pub conn: &'c Connection,
    pub plans: &'c Plans,
}

/// A chunk ends when it holds so much.
const CHUNK_BYTES: usize = 1 << 20;
/// And before a record with which it would hold more than this: that one stands alone, however long it is.
const MAX_CHUNK_BYTES: usize = 2 << 20;
const CHUNK_RECORDS: u32 = 1_024;
/// No record's: a chunk up to here has what lies behind the last one.
const LAST_KEY: RecordKey = (u16::MAX, Id([0xff; 16]));
/// One call looks at no more rows of the log than this.
const MAX_SCAN: usize = 20_000;

impl LogReader<'_> {
    pub fn heads(&self, tenants: Option<&[Id]>) -> Result<Vec<StreamHead>> {
        let all = read_heads(self.conn, None)?.into_iter().map(|(_, head)| head);
        Ok(all
            .filter(|h| !h.is_empty() && tenants.is_none_or(|t| t.contains(&h.stream.tenant)))
            .collect())
    }

    pub fn root(&self) -> Result<Digest> {
        let mut root = Digest::default();
        self.heads(None)?.iter().for_each(|head| root.add(head.leaf()));
        Ok(root)
    }

    pub fn tenants(&self) -> Result<Vec<(Id, Digest)>> {
        let mut tenants: BTreeMap<Id, Digest> = BTreeMap::new();
        for head in self.heads(None)? {
            tenants.entry(head.stream.tenant).or_default().add(head.leaf());
        }
        Ok(tenants.into_iter().collect())
    }

    pub fn head(&self, stream: &StreamId) -> Result<Option<StreamHead>> {
        let heads = read_heads(self.conn, Some(stream.tenant))?;
        Ok(heads.into_iter().map(|(_, head)| head).find(|head| head.stream == *stream))
    }

    pub fn log_end(&self) -> Result<u64> {
        Ok(log::last(self.conn)? as u64)
    }

    fn origin_numbers(&self) -> Result<HashMap<Origin, i64>> {
        Ok(log::origins(self.conn)?.into_iter().map(|(number, origin)| (origin, number)).collect())
    }

    pub fn start_of(&self, lane: Lane, known: &BTreeMap<StreamId, Vector>) -> Result<u64> {
        let numbers = self.origin_numbers()?;
        let mut start = self.log_end()? + 1;
        let nothing = Vector::default();
        for (id, head) in read_heads(self.conn, None)? {
            if !lane.carries(&head.stream) {
                continue;
            }
            let theirs = known.get(&head.stream).unwrap_or(&nothing);
            for (origin, seq) in &head.vector.0 {
                let next = theirs.get(*origin).max(head.floor.get(*origin)) + 1;
                if next <= *seq
                    && let Some(number) = numbers.get(origin)
                {
                    let pos = log::near(self.conn, id, *number, next)?;
                    start = start.min(pos.map_or(start, |pos| pos as u64));
                }
            }
        }
        Ok(start)
    }

    pub fn ops(
        &self,
        lane: Lane,
        from_pos: u64,
        known: &BTreeMap<StreamId, Vector>,
        max_ops: usize,
        max_bytes: usize,
    ) -> Result<OpBatch> {
        let heads: HashMap<i64, StreamHead> = read_heads(self.conn, None)?.into_iter().collect();
        let origins = log::origins(self.conn)?;
        let telling = Telling::of(self.conn, self.plans)?;
        let mut batch = OpBatch { ops: vec![], next_pos: from_pos };
        let (mut bytes, mut looked_at) = (0, 0);
        // Who needs what is damaged stays behind, notices, and takes the state instead.
        let mut past_damage = 0;
        log::scan_with(self.conn, from_pos as i64, |met| {
            let entry = match met {
                Met::Op(entry) => entry,
                Met::Damaged(name, error) => {
                    past_damage = name as u64 + 1;
                    tracing::error!(%error, block = name, "a block of the log is damaged and cannot be sent: verify this node");
                    return Ok(ControlFlow::Continue(()));
                }
            };
            looked_at += 1;
            if looked_at > MAX_SCAN {
                return Ok(ControlFlow::Break(()));
            }
            let next_pos = entry.pos as u64 + 1;
            let (Some(head), Some(origin)) = (heads.get(&entry.stream), origins.get(&entry.origin))
            else {
                batch.next_pos = next_pos;
                return Ok(ControlFlow::Continue(()));
            };
            let dot = Dot { origin: *origin, seq: entry.seq };
            let theirs = known.get(&head.stream);
            let has = theirs.is_some_and(|v| v.covers(dot));
            // Without what was trimmed before it, an op would only be parked there: that takes a snapshot.
            let unreachable = head.floor.get(dot.origin) > theirs.map_or(0, |v| v.get(dot.origin));
            if !lane.carries(&head.stream) || has || unreachable {
                batch.next_pos = next_pos;
                return Ok(ControlFlow::Continue(()));
            }
            let payload = entry.payload()?;
            bytes += payload.len() + 96;
            if !batch.ops.is_empty() && (batch.ops.len() >= max_ops || bytes > max_bytes) {
                return Ok(ControlFlow::Break(()));
            }
            batch.next_pos = next_pos;
            let payload = match codec::unpack(payload) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::error!(%error, pos = entry.pos, "an op of the log is damaged and cannot be sent: verify this node");
                    return Ok(ControlFlow::Continue(()));
                }
            };
            let op = Op {
                stream: head.stream.clone(),
                dot,
                hlc: entry.hlc,
                kind: entry.kind,
                schema: entry.schema,
                key: entry.key,
                payload,
            };
            batch.ops.push(telling.tell(entry.stream, op)?);
            Ok(ControlFlow::Continue(()))
        })?;
        if batch.ops.is_empty() {
            batch.next_pos = batch.next_pos.max(past_damage);
        }
        Ok(batch)
    }

    /// Calls `each` with (kind, key, digest) of the stream's records in order, until it says stop.
    pub(super) fn scan(
        &self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
        each: impl FnMut(RecordKey, Digest, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let sql = "SELECT id FROM stream WHERE tenant = ?1 AND scope = ?2 AND leaving = 0";
        let number: Option<i64> = self
            .conn
            .query_row(sql, params![stream.tenant.0, stream.scope], |r| r.get(0))
            .optional()?;
        number.map_or(Ok(()), |number| self.scan_number(number, stream, (after, upto), each))
    }

    /// The same of a stream by its number, even of one that is being removed.
    pub(crate) fn scan_number(
        &self,
        number: i64,
        stream: &StreamId,
        (after, upto): RecordRange,
        mut each: impl FnMut(RecordKey, Digest, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut statement =
            self.conn.prepare_cached("SELECT DISTINCT kind FROM alien ORDER BY kind")?;
        let aliens = statement
            .query_map([], |r| r.get::<_, u16>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut kinds: BTreeSet<u16> = self.plans.kinds.iter().map(|k| k.code).collect();
        kinds.extend(aliens);
        for code in kinds {
            let low = after.filter(|(kind, _)| *kind >= code);
            if low.is_some_and(|(kind, _)| kind > code) || upto.is_some_and(|(kind, _)| kind < code)
            {
                continue;
            }
            let low = low.map(|(_, key)| key.0);
            let high = upto.filter(|(kind, _)| *kind == code).map(|(_, key)| key.0);
            let known = self.plans.of(code);
            if known.is_some_and(|plan| plan.kind.scope != stream.scope) {
                continue;
            }
            let table = known.map_or("alien".to_owned(), |plan| table_of(plan.kind));
            let digest = if known.is_some() { "digest" } else { "NULL" };
            let only = if known.is_some() { String::new() } else { format!("kind = {code} AND ") };
            let sql = format!(
                "SELECT key, {digest}, state FROM {table} WHERE {only}stream = ?1 AND key > ?2 AND key <= ?3 ORDER BY key"
            );
            let mut statement = self.conn.prepare_cached(&sql)?;
            let low = low.map_or(vec![], |key| key.to_vec());
            let high = high.map_or(vec![0xff; 17], |key| key.to_vec());
            let mut rows = statement.query(params![number, low, high])?;
            while let Some(row) = rows.next()? {
                let key = Id(row.get(0)?);
                let state = row.get_ref(2)?.as_blob().unwrap_or_default();
                let place = Place { stream: number, tenant: stream.tenant, kind: code, key };
                let stored = row.get_ref(1)?.as_blob().ok().and_then(Digest::from_slice);
                let digest = stored.unwrap_or_else(|| digest_of(&place, state));
                if !each((code, key), digest, state)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    pub fn snapshot_index(&self, stream: &StreamId) -> Result<SnapshotIndex> {
        let vector = self.head(stream)?.map(|head| head.vector).unwrap_or_default();
        let mut chunks: Vec<ChunkHead> = Vec::new();
        let mut open = false;
        self.scan(stream, None, None, |key, digest, _| {
            match chunks.last_mut().filter(|c| open && c.last.0 == key.0) {
                Some(chunk) => {
                    chunk.last = key;
                    chunk.count += 1;
                    chunk.digest.add(digest);
                }
                None => chunks.push(ChunkHead { last: key, count: 1, digest }),
            }
            let full = chunks.last().is_some_and(|c| c.count >= CHUNK_RECORDS);
            // The boundary depends on the record alone, so that both sides cut at the same places.
            open = !full && blake3::hash(&key.1.0).as_bytes()[0] != 0;
            Ok(true)
        })?;
        Ok(SnapshotIndex { stream: stream.clone(), vector, chunks })
    }

    /// Makes chunks with records that stand further than the index's vector differ from all others.
    pub fn mark_ahead(&self, index: &mut SnapshotIndex) -> Result<()> {
        let heads = read_heads(self.conn, Some(index.stream.tenant))?;
        let Some((number, head)) = heads.into_iter().find(|(_, h)| h.stream == index.stream) else {
            return Ok(());
        };
        if !head.is_ahead {
            return Ok(());
        }
        let beyond = ahead::beyond(self.conn, number, &index.vector)?;
        let mark = Digest::of(b"ahead");
        let mut after = None;
        for chunk in &mut index.chunks {
            if beyond.meets(after, Some(chunk.last)) {
                chunk.digest.add(mark);
            }
            after = Some(chunk.last);
        }
        if beyond.meets(after, None) {
            index.chunks.push(ChunkHead { last: LAST_KEY, count: 0, digest: mark });
        }
        Ok(())
    }

    pub fn snapshot_chunk(
        &self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<SnapshotChunk> {
        let heads = read_heads(self.conn, Some(stream.tenant))?;
        let found = heads.into_iter().find(|(_, head)| head.stream == *stream);
        let (number, head) = found.map_or((0, None), |(number, head)| (number, Some(head)));
        let is_ahead = head.as_ref().is_some_and(|head| head.is_ahead);
        let mut vector = head.map(|head| head.vector).unwrap_or_default();
        let mut upto = upto;
        if is_ahead {
            let (end, more) = ahead::part(self.conn, number, after, upto)?;
            vector.merge(&more);
            upto = end;
        }
        let mut records: Vec<SnapshotRecord> = Vec::new();
        let mut bytes = 0;
        let mut cut = false;
        self.scan(stream, after, upto, |(kind, key), _, state| {
            if bytes > CHUNK_BYTES {
                cut = true;
                return Ok(false);
            }
            let bodies = self.bodies_of(number, key, state)?;
            let text = |b: &SnapshotBody| b.born.len() + b.doc.as_ref().map_or(0, Vec::len);
            let size = 32 + state.len() + bodies.iter().map(text).sum::<usize>();
            if !records.is_empty() && bytes + size > MAX_CHUNK_BYTES {
                cut = true;
                return Ok(false);
            }
            bytes += size;
            records.push(SnapshotRecord { kind, key, state: state.to_vec(), bodies });
            Ok(true)
        })?;
        let upto = if cut { records.last().map(|r| (r.kind, r.key)) } else { upto };
        Ok(SnapshotChunk { stream: stream.clone(), vector, after, upto, records })
    }

    fn bodies_of(&self, stream: i64, key: Id, state: &[u8]) -> Result<Vec<SnapshotBody>> {
        let state = State::from_bytes(state)?;
        let mut bodies = Vec::with_capacity(state.bodies.len());
        for body in &state.bodies {
            let content = load_content(self.conn, stream, key, body.field, body.creation)?;
            let (field, creation) = (body.field, body.creation);
            bodies.push(SnapshotBody { field, creation, born: content.born, doc: content.doc });
        }
        Ok(bodies)
    }
}
