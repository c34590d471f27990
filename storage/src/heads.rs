//! What the writer knows by heart: vectors, digests, clocks and the short numbers of streams and origins.
//! Every change is undone if its request fails, and written to the tables when its group commits.

use crate::clock::Hlc;
use crate::codec;
use crate::digest::Digest;
use crate::error::Result;
use crate::id::{Dot, Id, Origin, StreamId};
use crate::log;
use crate::schema;
use crate::value::Value;
use crate::vector::Vector;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A stream as others see it.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct StreamHead {
    pub stream: StreamId,
    pub vector: Vector,
    /// Ops at or below are not in the log: they were trimmed, or never came one by one.
    pub floor: Vector,
    pub digest: Digest,
    pub records: u64,
    /// Some records stand further than the vector says: a snapshot is under way, or was broken off.
    pub is_ahead: bool,
}

impl StreamHead {
    /// Equal for streams with the same ops and the same state.
    pub fn leaf(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.stream.tenant.0);
        hasher.update(self.stream.scope.as_bytes());
        hasher.update(&self.vector.digest());
        hasher.update(&self.digest.to_bytes());
        Digest::from_hash(hasher.finalize().as_bytes())
    }

    /// True if there is nothing to speak of. Records may stand in a stream without ops: a part of a snapshot.
    pub fn is_empty(&self) -> bool {
        self.records == 0 && self.vector.0.values().all(|seq| *seq == 0)
    }
}

type Bucket = (u16, Id, &'static str, Value);

enum Undo {
    Seq(i64, Origin, u64),
    State(i64, Digest, u64),
    Stream(StreamId, i64),
    Origin(Origin),
    Ahead(i64, bool),
    Total(Bucket, i64),
}

#[derive(Default)]
pub struct Heads {
    pub hlc: Hlc,
    /// The clock was moved by others' ops: the last op of the log does not tell it.
    pub hlc_must_be_kept: bool,
    /// The group that was flushed last changed who may do what.
    pub changed_access: bool,
    pub next_pos: i64,
    streams: HashMap<i64, StreamHead>,
    /// Streams that are carried no more, and of which something is left to be removed.
    leaving: BTreeSet<i64>,
    stream_ids: HashMap<StreamId, i64>,
    origins: HashMap<Origin, i64>,
    totals: BTreeMap<Bucket, i64>,
    dirty: BTreeSet<i64>,
    undo: Vec<Undo>,
}

impl Heads {
    pub fn load(conn: &Connection) -> Result<Self> {
        let mut heads = Self::default();
        let (hlc, upto) = kept_hlc(&schema::meta(conn, "hlc")?.unwrap_or_default());
        // After the clock was kept there are only this node's own ops, none of which it was dragged by.
        let sql = "SELECT hlc FROM op WHERE pos >= ?1 ORDER BY pos DESC LIMIT 1";
        let last: Option<i64> = conn.query_row(sql, [upto], |r| r.get(0)).optional()?;
        heads.hlc = Hlc(hlc.max(last.unwrap_or_default() as u64));
        heads.next_pos = log::last(conn)? + 1;
        if let Some(floor) = schema::meta(conn, "next_pos")?.and_then(|b| b.try_into().ok()) {
            heads.next_pos = heads.next_pos.max(i64::from_le_bytes(floor));
        }
        let mut statement = conn.prepare("SELECT id, bytes FROM origin")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(origin) = Origin::from_slice(row.get_ref(1)?.as_blob().unwrap_or_default())
            {
                heads.origins.insert(origin, row.get(0)?);
            }
        }
        for (id, head, is_leaving) in read_all_heads(conn, None)? {
            heads.stream_ids.insert(head.stream.clone(), id);
            heads.streams.insert(id, head);
            if is_leaving {
                heads.leaving.insert(id);
            }
        }
        Ok(heads)
    }

    pub fn begin(&mut self) {
        self.undo.clear();
    }

    pub fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Seq(stream, origin, seq) => {
                    if let Some(head) = self.streams.get_mut(&stream) {
                        head.vector.0.insert(origin, seq);
                        if seq == 0 {
                            head.vector.0.remove(&origin);
                        }
                    }
                }
                Undo::State(stream, digest, records) => {
                    if let Some(head) = self.streams.get_mut(&stream) {
                        (head.digest, head.records) = (digest, records);
                    }
                }
                Undo::Stream(stream, id) => {
                    self.stream_ids.remove(&stream);
                    self.streams.remove(&id);
                    self.dirty.remove(&id);
                }
                Undo::Origin(origin) => {
                    self.origins.remove(&origin);
                }
                Undo::Ahead(stream, was) => {
                    if let Some(head) = self.streams.get_mut(&stream) {
                        head.is_ahead = was;
                    }
                }
                Undo::Total(bucket, by) => *self.totals.entry(bucket).or_default() -= by,
            }
        }
    }

    /// Writes what the group changed; the caller commits.
    pub fn flush(&mut self, conn: &Connection) -> Result<()> {
        self.changed_access = false;
        for id in std::mem::take(&mut self.dirty) {
            let Some(head) = self.streams.get(&id) else { continue };
            self.changed_access |= head.stream.is_urgent();
            let sql = "UPDATE stream SET digest = ?2, records = ?3, vectors = ?4 WHERE id = ?1";
            let (digest, records) = (head.digest.to_bytes(), head.records as i64);
            let vectors = codec::encode(&(&head.vector, &head.floor));
            conn.prepare_cached(sql)?.execute(params![id, digest, records, vectors])?;
        }
        for ((kind, tenant, col, value), by) in std::mem::take(&mut self.totals) {
            if by != 0 {
                let sql = "INSERT INTO total VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET n = n + excluded.n";
                conn.prepare_cached(sql)?.execute(params![
                    kind,
                    tenant.0,
                    col,
                    total_value(&value),
                    by
                ])?;
            }
        }
        if std::mem::take(&mut self.hlc_must_be_kept) {
            let kept = [self.hlc.0.to_le_bytes(), self.next_pos.to_le_bytes()].concat();
            schema::put_meta(conn, "hlc", &kept)?;
        }
        self.undo.clear();
        Ok(())
    }

    pub fn stream_number(&mut self, conn: &Connection, stream: &StreamId) -> Result<i64> {
        if let Some(id) = self.stream_ids.get(stream) {
            return Ok(*id);
        }
        let sql = "INSERT INTO stream (tenant, scope, digest) VALUES (?1, ?2, ?3)";
        conn.execute(sql, params![stream.tenant.0, stream.scope, Digest::default().to_bytes()])?;
        let id = conn.last_insert_rowid();
        let (vector, floor) = (Vector::default(), Vector::default());
        let head = StreamHead {
            stream: stream.clone(),
            vector,
            floor,
            digest: Digest::default(),
            records: 0,
            is_ahead: false,
        };
        self.streams.insert(id, head);
        self.stream_ids.insert(stream.clone(), id);
        self.undo.push(Undo::Stream(stream.clone(), id));
        Ok(id)
    }

    pub fn origin_number(&mut self, conn: &Connection, origin: Origin) -> Result<i64> {
        if let Some(id) = self.origins.get(&origin) {
            return Ok(*id);
        }
        conn.execute("INSERT INTO origin (bytes) VALUES (?1)", [origin.to_bytes()])?;
        let id = conn.last_insert_rowid();
        self.origins.insert(origin, id);
        self.undo.push(Undo::Origin(origin));
        Ok(id)
    }

    pub fn vector(&self, stream: i64) -> Option<&Vector> {
        self.streams.get(&stream).map(|head| &head.vector)
    }

    pub fn head(&self, stream: &StreamId) -> Option<&StreamHead> {
        self.streams.get(self.stream_ids.get(stream)?)
    }

    pub fn covers(&self, stream: &StreamId, dot: Dot) -> bool {
        self.head(stream).is_some_and(|head| head.vector.covers(dot))
    }

    pub fn advance(&mut self, stream: i64, dot: Dot) {
        if let Some(head) = self.streams.get_mut(&stream) {
            self.undo.push(Undo::Seq(stream, dot.origin, head.vector.get(dot.origin)));
            head.vector.raise(dot.origin, dot.seq);
            self.dirty.insert(stream);
        }
    }

    pub fn is_ahead(&self, stream: i64) -> bool {
        self.streams.get(&stream).is_some_and(|head| head.is_ahead)
    }

    pub fn set_ahead(&mut self, stream: i64, is_ahead: bool) {
        if let Some(head) = self.streams.get_mut(&stream) {
            self.undo.push(Undo::Ahead(stream, head.is_ahead));
            head.is_ahead = is_ahead;
        }
    }

    pub fn raise_floor(&mut self, stream: i64, floor: &Vector) {
        if let Some(head) = self.streams.get_mut(&stream) {
            head.floor.merge(floor);
            self.dirty.insert(stream);
        }
    }

    pub fn all(&self) -> impl Iterator<Item = (i64, &StreamHead)> {
        self.streams.iter().map(|(id, head)| (*id, head))
    }

    pub fn is_leaving(&self, stream: &StreamId) -> bool {
        !self.leaving.is_empty()
            && self.stream_ids.get(stream).is_some_and(|id| self.leaving.contains(id))
    }

    pub fn first_leaving(&self) -> Option<(i64, StreamId)> {
        let id = *self.leaving.first()?;
        Some((id, self.streams.get(&id)?.stream.clone()))
    }

    /// Not undone: to be the last step of what needs it.
    pub fn leave(&mut self, stream: i64) {
        self.leaving.insert(stream);
    }

    /// Forgets a stream of which nothing is left. Not undone, as `leave`.
    pub fn forget(&mut self, stream: i64) {
        self.leaving.remove(&stream);
        self.dirty.remove(&stream);
        if let Some(head) = self.streams.remove(&stream) {
            self.stream_ids.remove(&head.stream);
        }
    }

    /// One record's digest in the stream's: `old` out, `new` in.
    pub fn swap_digest(&mut self, stream: i64, old: Option<Digest>, new: Option<Digest>) {
        let Some(head) = self.streams.get_mut(&stream) else { return };
        self.undo.push(Undo::State(stream, head.digest, head.records));
        if let Some(old) = old {
            head.digest.sub(old);
            head.records = head.records.saturating_sub(1);
        }
        if let Some(new) = new {
            head.digest.add(new);
            head.records += 1;
        }
        self.dirty.insert(stream);
    }

    pub fn count(&mut self, kind: u16, tenant: Id, column: &'static str, value: Value, by: i64) {
        let bucket = (kind, tenant, column, value);
        *self.totals.entry(bucket.clone()).or_default() += by;
        self.undo.push(Undo::Total(bucket, by));
    }
}

/// The bucket that a record with this value is counted in. A flag that is not set has none: how many those are follows
/// from how many are set.
pub fn bucket_of(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(true) => Some(Value::Int(1)),
        Value::Bool(false) => None,
        value => Some(total_value(value)),
    }
}

/// The clock, and the first position in the log after it was kept.
fn kept_hlc(bytes: &[u8]) -> (u64, i64) {
    let part = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
    (part(0).map_or(0, u64::from_le_bytes), part(8).map_or(0, i64::from_le_bytes))
}

/// NULL cannot stand in a primary key.
pub fn total_value(value: &Value) -> Value {
    if value.is_null() { Value::Text(String::new()) } else { value.clone() }
}

/// The heads of all streams, or of one tenant's, as committed. Without those that are being removed.
pub fn read_heads(conn: &Connection, tenant: Option<Id>) -> Result<Vec<(i64, StreamHead)>> {
    let all = read_all_heads(conn, tenant)?.into_iter();
    Ok(all.filter(|(.., is_leaving)| !is_leaving).map(|(id, head, _)| (id, head)).collect())
}

/// With whether each is being removed.
fn read_all_heads(conn: &Connection, tenant: Option<Id>) -> Result<Vec<(i64, StreamHead, bool)>> {
    let sql = "SELECT id, tenant, scope, digest, records, vectors, leaving FROM stream \
               WHERE ?1 IS NULL OR tenant = ?1 ORDER BY tenant, scope";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([tenant.map(|t| t.0)])?;
    let mut heads = Vec::new();
    while let Some(row) = rows.next()? {
        let tenant = Id(row.get(1)?);
        let stream = StreamId { tenant, scope: row.get(2)? };
        let mut lanes = Digest::default();
        let bytes: [u8; 32] = row.get(3)?;
        lanes.add(Digest::from_hash(&bytes));
        let records: i64 = row.get(4)?;
        let (vector, floor) = match row.get_ref(5)? {
            ValueRef::Blob(bytes) => codec::decode(bytes)?,
            _ => (Vector::default(), Vector::default()),
        };
        heads.push((
            row.get(0)?,
            StreamHead {
                stream,
                vector,
                floor,
                digest: lanes,
                records: records as u64,
                is_ahead: false,
            },
            row.get(6)?,
        ));
    }
    let mut statement = conn.prepare_cached("SELECT DISTINCT stream FROM ahead")?;
    let ahead: BTreeSet<i64> =
        statement.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    for (id, head, _) in &mut heads {
        head.is_ahead = ahead.contains(id);
    }
    Ok(heads)
}
