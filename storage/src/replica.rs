//! What replication drives: a store seen as streams of ops, and as states that can be compared and merged.

mod log;

pub(crate) use log::LogReader;

use crate::ahead;
use crate::apply::Place;
use crate::body::{self, Content};
use crate::carries::Carries;
use crate::db::{Applied, Db};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::heads::StreamHead;
use crate::id::{Dot, Id, Origin, StreamId};
use crate::op::Op;
use crate::state::{Lost, LostEdit, LostWrite, State};
use crate::value::Value;
use crate::vector::Vector;
use bincode::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Who may do what travels before everything else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    Urgent,
    Rest,
}

impl Lane {
    pub fn carries(self, stream: &StreamId) -> bool {
        stream.is_urgent() == (self == Self::Urgent)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpBatch {
    pub ops: Vec<Op>,
    /// Where to read on.
    pub next_pos: u64,
}

/// Kind and key: the order in which a stream's records are compared.
pub type RecordKey = (u16, Id);

/// Above the first, up to and with the second; none is the stream's end.
pub type RecordRange = (Option<RecordKey>, Option<RecordKey>);

/// A stream's records cut into chunks by their content, so that two nodes cut alike where they are alike.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotIndex {
    pub stream: StreamId,
    pub vector: Vector,
    pub chunks: Vec<ChunkHead>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkHead {
    pub last: RecordKey,
    pub count: u32,
    pub digest: Digest,
}

/// All records of a range of keys, complete, with the vector that they stood at.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotChunk {
    pub stream: StreamId,
    pub vector: Vector,
    pub after: Option<RecordKey>,
    /// The range's end; none: to the end of the stream.
    pub upto: Option<RecordKey>,
    pub records: Vec<SnapshotRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotRecord {
    pub kind: u16,
    pub key: Id,
    pub state: Vec<u8>,
    pub bodies: Vec<SnapshotBody>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotBody {
    pub field: u16,
    pub creation: Dot,
    pub born: String,
    pub doc: Option<Vec<u8>>,
}

/// A store as replication sees it. Calls are synchronous; writes are on disk when they return.
pub trait Replica {
    fn origin(&self) -> Origin;
    /// What of the network is here. Ops, chunks and snapshots of all else are dropped.
    fn carries(&self) -> Arc<Carries>;
    /// Over all streams' vectors and digests: equal means that nothing differs.
    fn root(&mut self) -> Result<Digest>;
    fn tenants(&mut self) -> Result<Vec<(Id, Digest)>>;
    fn heads(&mut self, tenants: Option<&[Id]>) -> Result<Vec<StreamHead>>;
    fn head(&mut self, stream: &StreamId) -> Result<Option<StreamHead>>;
    fn log_end(&mut self) -> Result<u64>;
    /// The lowest position in the log of an op that `known` lacks; one past the end if there is none.
    fn start_of(&mut self, lane: Lane, known: &BTreeMap<StreamId, Vector>) -> Result<u64>;
    /// Ops in the order in which they were applied here, without those that `known` covers.
    fn ops(
        &mut self,
        lane: Lane,
        from_pos: u64,
        known: &BTreeMap<StreamId, Vector>,
        max_ops: usize,
        max_bytes: usize,
    ) -> Result<OpBatch>;
    fn apply(&mut self, ops: Vec<Op>) -> Result<Applied>;
    fn snapshot_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex>;
    /// The same for a peer: ranges that hold more than the index's vector differ from whatever he has, so that he asks for
    /// them and hears how far they stand. To count them as held at the vector alone would part a deletion from what it
    /// deleted.
    fn served_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex>;
    /// The records in `(after, upto]`, as many as fit in two megabytes, and one at least; the answer's `upto` says how far it
    /// goes.
    fn snapshot_chunk(
        &mut self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<SnapshotChunk>;
    /// Reconciles the chunk's range by causal context.
    fn merge_chunk(&mut self, chunk: &SnapshotChunk) -> Result<()>;
    /// As `merge_chunk`, but may return while the chunk is still being merged: at most a few are, and an error is given by a
    /// later call that writes. All are merged and on disk when a later call that writes something else returns.
    fn begin_chunk(&mut self, chunk: SnapshotChunk) -> Result<()> {
        self.merge_chunk(&chunk)
    }
    /// These ranges are, record by record, as a peer has them at `vector`: what it holds stands in them here too.
    fn hold(&mut self, stream: &StreamId, ranges: &[RecordRange], vector: &Vector) -> Result<()>;
    /// Counts a whole snapshot as received. The log cannot serve what it covers.
    fn finish_snapshot(&mut self, stream: &StreamId, vector: &Vector) -> Result<()>;
    /// As `finish_snapshot`, if chunks of whatever snapshots have come for all of the stream's keys; with the vector that all
    /// of them hold. False if some have not.
    fn finish_held(&mut self, stream: &StreamId) -> Result<bool>;
}

impl Db {
    pub(crate) fn log_reader(&self) -> LogReader<'_> {
        LogReader { conn: &self.conn, plans: &self.plans }
    }

    /// Makes an index fit to be served, as [`Replica::served_index`] gives it.
    pub fn mark_ahead(&self, index: &mut SnapshotIndex) -> Result<()> {
        self.log_reader().mark_ahead(index)
    }

    pub(crate) fn merge_chunk_in_group(&mut self, chunk: &SnapshotChunk) -> Result<()> {
        if !self.is_carried(&chunk.stream) {
            return Ok(());
        }
        self.leave_foreign_epoch(&chunk.stream, chunk.vector.get(self.origin))?;
        self.savepoint(|db| {
            let stream = db.heads.stream_number(&db.conn, &chunk.stream)?;
            let mine = db.heads.vector(stream).cloned().unwrap_or_default();
            let mut keys: BTreeSet<RecordKey> =
                chunk.records.iter().map(|r| (r.kind, r.key)).collect();
            let inside = |key: &RecordKey| {
                chunk.after.is_none_or(|a| *key > a) && chunk.upto.is_none_or(|u| *key <= u)
            };
            if !keys.iter().all(inside) || keys.len() != chunk.records.len() {
                return Err(Error::Malformed(
                    "a snapshot chunk holds records outside of its range".into(),
                ));
            }
            let is_strange = |(kind, _): &RecordKey| {
                db.plans.of(*kind).is_some_and(|plan| plan.kind.scope != chunk.stream.scope)
            };
            if keys.iter().any(is_strange) {
                return Err(Error::Malformed("the kind's records stand in another stream".into()));
            }
            db.log_reader().scan(&chunk.stream, chunk.after, chunk.upto, |key, _, _| {
                keys.insert(key);
                Ok(true)
            })?;
            let theirs: HashMap<RecordKey, &SnapshotRecord> =
                chunk.records.iter().map(|r| ((r.kind, r.key), r)).collect();
            let was_ahead = db.heads.is_ahead(stream);
            for (kind, key) in keys {
                let place = Place { stream, tenant: chunk.stream.tenant, kind, key };
                let mut mine = mine.clone();
                if was_ahead && let Some(more) = ahead::at(&db.conn, stream, (kind, key))? {
                    mine.merge(&more);
                }
                let theirs = theirs.get(&(kind, key)).copied();
                db.merge_record(&place, &chunk.stream, theirs, &mine, &chunk.vector)?;
            }
            db.note_ahead(stream, (chunk.after, chunk.upto), &chunk.vector)?;
            db.settle()
        })
    }

    pub(crate) fn hold_in_group(
        &mut self,
        stream: &StreamId,
        ranges: &[RecordRange],
        vector: &Vector,
    ) -> Result<()> {
        if !self.is_carried(stream) {
            return Ok(());
        }
        self.leave_foreign_epoch(stream, vector.get(self.origin))?;
        self.savepoint(|db| {
            let number = db.heads.stream_number(&db.conn, stream)?;
            ranges.iter().try_for_each(|range| db.note_ahead(number, *range, vector))
        })
    }

    fn note_ahead(&mut self, stream: i64, range: RecordRange, vector: &Vector) -> Result<()> {
        if self.heads.vector(stream).is_none_or(|mine| !mine.includes(vector)) {
            ahead::note(&self.conn, stream, range.0, range.1, vector)?;
            self.heads.set_ahead(stream, true);
        }
        Ok(())
    }

    fn merge_record(
        &mut self,
        place: &Place,
        stream: &StreamId,
        theirs: Option<&SnapshotRecord>,
        mine: &Vector,
        vector: &Vector,
    ) -> Result<()> {
        let other = theirs.map(|r| State::from_bytes(&r.state)).transpose()?.unwrap_or_default();
        let old = self.load_state(place)?;
        let before = old.as_ref().map(|o| o.state.clone()).unwrap_or_default();
        if before == other {
            return Ok(());
        }
        let mut state = before.clone();
        let lost = state.merge(mine, &other, vector);
        let bodies = theirs.map_or(&[][..], |r| &r.bodies);
        let wanted: Vec<_> = state.bodies.clone();
        for known in wanted {
            let there = before.body_of(known.field, known.creation);
            let Some(sent) =
                bodies.iter().find(|b| (b.field, b.creation) == (known.field, known.creation))
            else {
                if there.is_none() {
                    return Err(Error::Malformed(
                        "a snapshot's record names a body that is not with it".into(),
                    ));
                }
                continue;
            };
            let doc = sent.doc.clone();
            let sent = Content { born: sent.born.clone(), text: String::new(), doc, heads: vec![] };
            if blake3::hash(sent.born.as_bytes()).as_bytes() != &known.born {
                return Err(Error::Malformed(
                    "a snapshot's body is not the one its record names".into(),
                ));
            }
            let content = match there {
                Some(_) => {
                    let mine = self.content(place, known.field, known.creation)?;
                    let mine = body::apply_if_edited(&mine, known.creation)?;
                    body::merge(&mine, &sent, known.creation)?
                }
                None => {
                    let born = Content::born(sent.born.clone());
                    body::merge(&born, &sent, known.creation)?
                }
            };
            state.put_body(crate::state::BodyState {
                heads: content.heads.clone(),
                ..known.clone()
            });
            self.save_content(place.key, known.field, known.creation, &content)?;
        }
        let lost = self.with_sent_texts(place, lost, &before, bodies)?;
        self.drop_bodies(place, Some(&before), &state)?;
        if !lost.is_empty() && !self.is_erased(place)? {
            self.keep_lost(place, &lost)?;
        }
        let after = (!self.cuts()?.is_empty()).then(|| state.clone());
        self.put_state(place, old, state)?;
        after.map_or(Ok(()), |after| self.take_back_merged(place, stream, &before, &after))
    }

    /// Edits of bodies that were deleted here come with the text that the peer sent.
    fn with_sent_texts(
        &self,
        place: &Place,
        lost: Lost,
        before: &State,
        sent: &[SnapshotBody],
    ) -> Result<Vec<LostWrite>> {
        let is_here = |edit: &LostEdit| before.body_of(edit.field, edit.creation).is_some();
        let (here, there): (Vec<_>, Vec<_>) = lost.edits.into_iter().partition(is_here);
        let mut writes = self.with_texts(place, Lost { writes: lost.writes, edits: here })?;
        for LostEdit { field, creation, dot, hlc } in there {
            let of_edit = |body: &&SnapshotBody| (body.field, body.creation) == (field, creation);
            let Some(body) = sent.iter().find(of_edit) else { continue };
            let (born, doc) = (body.born.clone(), body.doc.clone());
            let sent = Content { born: born.clone(), text: String::new(), doc, heads: vec![] };
            let value = Value::Text(body::merge(&Content::born(born), &sent, creation)?.text);
            writes.push(LostWrite { field, element: None, dot, hlc, value });
        }
        Ok(writes)
    }

    pub(crate) fn finish_snapshot_in_group(
        &mut self,
        stream: &StreamId,
        vector: &Vector,
    ) -> Result<()> {
        if !self.is_carried(stream) {
            return Ok(());
        }
        self.leave_foreign_epoch(stream, vector.get(self.origin))?;
        self.savepoint(|db| {
            let number = db.heads.stream_number(&db.conn, stream)?;
            let mine = db.heads.vector(number).cloned().unwrap_or_default();
            if !mine.includes(vector) && !ahead::hold_all(&db.conn, number, &mine, vector)? {
                // The stream was dropped while its snapshot was taken, and with it what had come.
                return Ok(());
            }
            let mut floor = Vector::default();
            for (origin, seq) in vector.0.iter().filter(|(origin, seq)| mine.get(**origin) < **seq)
            {
                db.heads.origin_number(&db.conn, *origin)?;
                db.heads.advance(number, Dot { origin: *origin, seq: *seq });
                floor.raise(*origin, *seq);
            }
            db.prune_ahead(number)?;
            // The last step: it is not undone.
            db.heads.raise_floor(number, &floor);
            Ok(())
        })
    }

    pub(crate) fn finish_held_in_group(&mut self, stream: &StreamId) -> Result<bool> {
        let Some(head) = self.heads.head(stream).cloned() else { return Ok(true) };
        if !head.is_ahead {
            return Ok(true);
        }
        let number = self.heads.stream_number(&self.conn, stream)?;
        let Some(held) = ahead::held_by_all(&self.conn, number, &head.vector)? else {
            return Ok(false);
        };
        self.finish_snapshot_in_group(stream, &held)?;
        Ok(true)
    }

    /// Forgets what the stream's vector has caught up with.
    pub(crate) fn prune_ahead(&mut self, stream: i64) -> Result<()> {
        let vector = self.heads.vector(stream).filter(|_| self.heads.is_ahead(stream));
        if let Some(vector) = vector
            && !ahead::prune(&self.conn, stream, vector)?
        {
            self.heads.set_ahead(stream, false);
        }
        Ok(())
    }

    fn grouped<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.begin()?;
        let result = f(self);
        self.commit()?;
        result
    }
}

impl Replica for Db {
    fn origin(&self) -> Origin {
        self.origin
    }
    fn carries(&self) -> Arc<Carries> {
        Arc::clone(&self.carries)
    }
    fn root(&mut self) -> Result<Digest> {
        self.log_reader().root()
    }
    fn tenants(&mut self) -> Result<Vec<(Id, Digest)>> {
        self.log_reader().tenants()
    }
    fn heads(&mut self, tenants: Option<&[Id]>) -> Result<Vec<StreamHead>> {
        self.log_reader().heads(tenants)
    }
    fn head(&mut self, stream: &StreamId) -> Result<Option<StreamHead>> {
        self.log_reader().head(stream)
    }
    fn log_end(&mut self) -> Result<u64> {
        self.log_reader().log_end()
    }
    fn start_of(&mut self, lane: Lane, known: &BTreeMap<StreamId, Vector>) -> Result<u64> {
        self.log_reader().start_of(lane, known)
    }
    fn ops(
        &mut self,
        lane: Lane,
        from_pos: u64,
        known: &BTreeMap<StreamId, Vector>,
        max_ops: usize,
        max_bytes: usize,
    ) -> Result<OpBatch> {
        self.log_reader().ops(lane, from_pos, known, max_ops, max_bytes)
    }
    fn apply(&mut self, ops: Vec<Op>) -> Result<Applied> {
        Self::apply(self, ops)
    }
    fn snapshot_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        self.log_reader().snapshot_index(stream)
    }
    fn served_index(&mut self, stream: &StreamId) -> Result<SnapshotIndex> {
        let mut index = self.log_reader().snapshot_index(stream)?;
        self.mark_ahead(&mut index)?;
        Ok(index)
    }
    fn snapshot_chunk(
        &mut self,
        stream: &StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    ) -> Result<SnapshotChunk> {
        self.log_reader().snapshot_chunk(stream, after, upto)
    }
    fn merge_chunk(&mut self, chunk: &SnapshotChunk) -> Result<()> {
        self.grouped(|db| db.merge_chunk_in_group(chunk))
    }
    fn hold(&mut self, stream: &StreamId, ranges: &[RecordRange], vector: &Vector) -> Result<()> {
        self.grouped(|db| db.hold_in_group(stream, ranges, vector))
    }
    fn finish_snapshot(&mut self, stream: &StreamId, vector: &Vector) -> Result<()> {
        self.grouped(|db| db.finish_snapshot_in_group(stream, vector))
    }
    fn finish_held(&mut self, stream: &StreamId) -> Result<bool> {
        self.grouped(|db| db.finish_held_in_group(stream))
    }
}
