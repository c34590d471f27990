//! Segments: runs of ops of one origin in one stream that their origin has sealed. A segment is named by a BLAKE3 hash
//! over its ops, names the one before it, and is signed by its origin; so whoever holds the ops can prove that they are
//! what their author wrote, by whatever ways and hands they came.
//!
//! A seal is a record of the stream that it seals, of a kind that [`Kind::seals`]; it travels as all records do. A name is
//! made of the hashes of what ops say, so it holds too once they are erased. How a node keeps ops is its own affair: a seal
//! holds for rows and blocks alike.

use crate::codec;
use crate::error::{Error, Result};
use crate::heads::read_heads;
use crate::id::{Id, NodeId, Origin, StreamId};
use crate::kind::{Field, Kind, Type};
use crate::log::{self, Met};
use crate::read::Read;
use crate::record::Record;
use crate::schema::{self, table_of};
use crate::tx::{Changes, Tx};
use crate::value::Value;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::ops::ControlFlow;

pub const ORIGIN: Field = bytes(1, "origin", 20).column();
pub const LOW: Field = Field::int(2, "low").required().read_only();
pub const HIGH: Field = Field::int(3, "high").required().read_only().column();
pub const NAME: Field = bytes(4, "name", 32);
/// Absent of the first segment, and of one that follows ops that had left its origin's log.
pub const BEFORE: Field = Field { ty: Type::Bytes, ..Field::text(5, "before") }.max(32).read_only();
pub const KEY: Field = bytes(6, "public_key", 32);
pub const SIGNATURE: Field = bytes(7, "signature", 64);

/// A segment is full with so many ops.
pub const FULL_OPS: u64 = 4_096;
/// Seals that one look goes through. The next one goes on behind them, so that seals whose ops never come hold up no others.
pub const MAX_LOOKED_AT: usize = 10_000;
const LOOKED_UPTO: &str = "seals_looked_upto";
const CONTEXT: &str = "atoll 2026 segment of ops";

const fn bytes(code: u16, name: &'static str, size: usize) -> Field {
    Field { ty: Type::Bytes, ..Field::text(code, name) }.required().max(size).read_only()
}

/// The kind of the seals of a scope.
pub const fn seals(
    code: u16,
    name: &'static str,
    plural: &'static str,
    scope: &'static str,
) -> Kind {
    Kind {
        fields: &[ORIGIN, LOW, HIGH, NAME, BEFORE, KEY, SIGNATURE],
        seals: true,
        silent: true,
        doc: "That a run of ops is what its origin wrote, signed by it.",
        ..Kind::new(code, name, plural, scope)
    }
}

/// What a seal seals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub stream: StreamId,
    pub origin: Origin,
    pub low: u64,
    pub high: u64,
    pub before: Option<[u8; 32]>,
    pub name: [u8; 32],
}

impl Segment {
    /// What its origin signs.
    pub fn message(&self) -> Vec<u8> {
        [CONTEXT.as_bytes(), &self.name].concat()
    }

    /// Of its seal.
    pub fn key(&self) -> Id {
        let parts: [&[u8]; 5] = [
            b"seal",
            &self.stream.tenant.0,
            self.stream.scope.as_bytes(),
            &self.origin.to_bytes(),
            &self.low.to_le_bytes(),
        ];
        Id::natural(&parts)
    }
}

/// A seal as it was found, with who should have signed it.
struct Found {
    segment: Segment,
    public_key: [u8; 32],
    signature: Vec<u8>,
}

impl Found {
    fn of(record: &Record, scope: &str) -> Option<Self> {
        let fixed =
            |field: &Field| -> Option<[u8; 32]> { record.value(field).as_bytes()?.try_into().ok() };
        let number = |field: &Field| u64::try_from(record.int(field)?).ok();
        let segment = Segment {
            stream: StreamId { tenant: record.tenant, scope: scope.to_owned() },
            origin: Origin::from_slice(record.value(&ORIGIN).as_bytes()?)?,
            low: number(&LOW)?,
            high: number(&HIGH)?,
            before: fixed(&BEFORE),
            name: fixed(&NAME)?,
        };
        let signature = record.value(&SIGNATURE).as_bytes()?.to_vec();
        let is_sound = segment.low >= 1
            && segment.low <= segment.high
            && segment.high - segment.low < FULL_OPS
            && segment.key() == record.key;
        is_sound.then_some(Self { segment, public_key: fixed(&KEY)?, signature })
    }
}

/// What an op says, and when, in 32 bytes: the same before and after it is erased.
fn leaf(entry: &log::Entry<'_>) -> Result<[u8; 32]> {
    let plain = codec::plain(entry.payload()?)?;
    let said = match codec::erased(&plain) {
        Some(hash) => hash,
        None => *blake3::hash(&plain).as_bytes(),
    };
    let head = (entry.seq, entry.hlc, entry.kind, entry.schema, entry.key);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&codec::encode(&head));
    hasher.update(&said);
    Ok(*hasher.finalize().as_bytes())
}

/// Calls `each` with an origin's ops of a stream (both by their numbers) from one number on, in order and without a gap,
/// until it breaks or comes to a block that cannot be read.
fn each_op(
    conn: &Connection,
    (stream, origin): (i64, i64),
    low: u64,
    mut each: impl FnMut(&log::Entry<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Some(from) = log::near(conn, stream, origin, low)? else { return Ok(()) };
    let mut next = low;
    log::scan_with(conn, from, |met| {
        let Met::Op(entry) = met else { return Ok(ControlFlow::Break(())) };
        if entry.stream != stream || entry.origin != origin || entry.seq < low {
            return Ok(ControlFlow::Continue(()));
        }
        if entry.seq != next {
            return Ok(ControlFlow::Break(()));
        }
        next += 1;
        each(entry)
    })
}

/// The name of a segment as the ops of this log make it; none if they are not all there, or damaged.
fn name_of(
    conn: &Connection,
    numbers: (i64, i64),
    stream: &StreamId,
    origin: Origin,
    (low, high): (u64, u64),
    before: Option<[u8; 32]>,
) -> Result<Option<[u8; 32]>> {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&codec::encode(&(stream, origin, low, high, before)));
    let mut next = low;
    let read = each_op(conn, numbers, low, |entry| {
        hasher.update(&leaf(entry)?);
        next += 1;
        let is_last = entry.seq >= high;
        Ok(if is_last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    match read {
        // `verify` finds and names what is damaged.
        Ok(()) | Err(Error::Damaged(_) | Error::Malformed(_)) => {}
        Err(error) => return Err(error),
    }
    Ok((next == high + 1).then(|| *hasher.finalize().as_bytes()))
}

/// How far an origin's ops of a stream are known to be sealed, and under what name the last segment.
fn sealed(conn: &Connection, (stream, origin): (i64, i64)) -> Result<(u64, Option<[u8; 32]>)> {
    let sql = "SELECT high, name FROM sealed WHERE stream = ?1 AND origin = ?2";
    let row = conn
        .prepare_cached(sql)?
        .query_row([stream, origin], |r| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?)))
        .optional()?;
    Ok(row.map_or((0, None), |(high, name)| (high, Some(name))))
}

fn numbers(conn: &Connection) -> Result<HashMap<Origin, i64>> {
    Ok(log::origins(conn)?.into_iter().map(|(number, origin)| (origin, number)).collect())
}

/// Segments of this node's own ops that are to be sealed: full ones, and those that hold an op, other than seals, from
/// before a time. At most `most`.
pub fn due(
    reader: &impl Read,
    node: NodeId,
    older_than_ms: u64,
    most: usize,
) -> Result<Vec<Segment>> {
    let conn = reader.conn();
    let numbers = numbers(conn)?;
    let mut due = Vec::new();
    for (stream, head) in read_heads(conn, None)? {
        let Some(kind) = kind_of(reader, &head.stream.scope) else { continue };
        for (origin, seq) in head.vector.0.iter().filter(|(origin, _)| origin.node == node) {
            let Some(number) = numbers.get(origin) else { continue };
            let at = (stream, *number);
            let (mut high, mut before) = sealed(conn, at)?;
            if head.floor.get(*origin) > high {
                (high, before) = (head.floor.get(*origin), None);
            }
            while high < *seq && due.len() < most {
                let (low, top) = (high + 1, (high + FULL_OPS).min(*seq));
                if top - high < FULL_OPS && !is_old(conn, at, (low, top), kind, older_than_ms)? {
                    break;
                }
                let stream = head.stream.clone();
                let range = (low, top);
                let Some(name) = name_of(conn, at, &stream, *origin, range, before)? else { break };
                due.push(Segment { stream, origin: *origin, low, high: top, before, name });
                (high, before) = (top, Some(name));
            }
        }
    }
    Ok(due)
}

/// Whether the first op that is no seal is from before a time.
fn is_old(
    conn: &Connection,
    at: (i64, i64),
    (low, high): (u64, u64),
    seals: &Kind,
    than_ms: u64,
) -> Result<bool> {
    let mut is_old = false;
    each_op(conn, at, low, |entry| {
        let is_other = entry.kind != seals.code;
        is_old = is_other && entry.hlc.ms() < than_ms;
        let is_known = is_other || entry.seq >= high;
        Ok(if is_known { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(is_old)
}

fn kind_of(reader: &impl Read, scope: &str) -> Option<&'static Kind> {
    reader.plans().kinds.iter().find(|kind| kind.seals && kind.scope == scope).copied()
}

/// What became of looking at a seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The ops here are those that their origin sealed.
    Proven,
    /// Not all of them are in the log any more: nothing can be said.
    Gone,
    /// A sentence.
    Broken(String),
}

/// A seal that was looked at.
#[derive(Clone, Debug)]
pub struct Examined {
    kind: u16,
    key: Id,
    segment: Option<Segment>,
    pub verdict: Verdict,
}

/// One look over seals that are not proven yet.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub examined: Vec<Examined>,
    /// Of what it went through; none if that is all there is.
    upto: Option<(u16, Id)>,
}

impl Look {
    /// True if nothing came of it that is to be noted.
    pub fn is_idle(&self) -> bool {
        self.examined.is_empty() && self.upto.is_none()
    }
}

/// Looks over seals that are not proven yet, from behind the last look that was noted on, and examines those of which all
/// ops are here, at most `most`. `is_signed` is asked whether a public key is that of a node, and whether its owner signed
/// a message.
pub fn examine(
    reader: &impl Read,
    most: usize,
    is_signed: impl Fn(&[u8; 32], NodeId, &[u8], &[u8]) -> bool,
) -> Result<Look> {
    let conn = reader.conn();
    let numbers = numbers(conn)?;
    let heads: HashMap<StreamId, (i64, crate::heads::StreamHead)> =
        read_heads(conn, None)?.into_iter().map(|(id, h)| (h.stream.clone(), (id, h))).collect();
    let waiting = waiting(conn)?;
    let is_all = waiting.len() < MAX_LOOKED_AT;
    let (mut examined, mut upto) = (Vec::new(), None);
    for (code, key) in waiting {
        if examined.len() >= most {
            return Ok(Look { examined, upto });
        }
        upto = Some((code, key));
        let mut end =
            |segment, verdict| examined.push(Examined { kind: code, key, segment, verdict });
        let kind = reader.plans().kinds.iter().find(|kind| kind.code == code).copied();
        let record = kind.map_or(Ok(None), |kind| reader.get(kind, key))?;
        let (Some(kind), Some(record)) = (kind, record) else {
            end(None, Verdict::Gone);
            continue;
        };
        let Some(found) = Found::of(&record, kind.scope) else {
            end(None, Verdict::Broken("a seal is not what a seal is".into()));
            continue;
        };
        let Found { segment, public_key, signature } = found;
        let Segment { stream, origin, low, high, before, name } = segment.clone();
        if !is_signed(&public_key, origin.node, &segment.message(), &signature) {
            let words = format!(
                "a seal for ops {low} to {high} of {origin} in {stream} was not signed by it"
            );
            end(None, Verdict::Broken(words));
            continue;
        }
        let Some((number, head)) = heads.get(&stream) else { continue };
        if head.vector.get(origin) < high {
            continue;
        }
        let of = numbers.get(&origin).filter(|_| head.floor.get(origin) < low);
        let made = match of {
            Some(of) => name_of(conn, (*number, *of), &stream, origin, (low, high), before)?,
            None => None,
        };
        let verdict = match made {
            None => Verdict::Gone,
            Some(made) if made == name => Verdict::Proven,
            Some(_) => Verdict::Broken(format!(
                "ops {low} to {high} of {origin} in {stream} are not those that it sealed: somebody changed them on their way"
            )),
        };
        end(Some(segment), verdict);
    }
    Ok(Look { examined, upto: upto.filter(|_| !is_all) })
}

/// Those behind the last look, then those from the beginning.
fn waiting(conn: &Connection) -> Result<Vec<(u16, Id)>> {
    let last = schema::meta(conn, LOOKED_UPTO)?.and_then(|bytes| codec::decode(&bytes).ok());
    let (kind, key): (u16, Id) = last.unwrap_or_default();
    let mut waiting = Vec::new();
    for side in [">", "<="] {
        let sql = format!(
            "SELECT kind, key FROM seal_due WHERE (kind, key) {side} (?1, ?2) ORDER BY kind, key LIMIT ?3"
        );
        let left = (MAX_LOOKED_AT - waiting.len()) as i64;
        let mut statement = conn.prepare_cached(&sql)?;
        let rows =
            statement.query_map(params![kind, key.0, left], |r| Ok((r.get(0)?, Id(r.get(1)?))))?;
        for row in rows {
            waiting.push(row?);
        }
    }
    Ok(waiting)
}

/// To be called with each row of a seal.
pub(crate) fn note_seal(conn: &Connection, seal: &Record) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO seal_due (kind, key) VALUES (?1, ?2)";
    conn.prepare_cached(sql)?.execute(params![seal.kind.code, seal.key.0])?;
    Ok(())
}

impl Tx<'_> {
    /// Puts a seal on a segment of this node's own.
    pub fn seal(
        &mut self,
        segment: &Segment,
        public_key: [u8; 32],
        signature: &[u8],
    ) -> Result<()> {
        let kind = kind_of(self, &segment.stream.scope)
            .ok_or_else(|| Error::Internal(format!("{} has no seals", segment.stream)))?;
        let (low, high) = (segment.low as i64, segment.high as i64);
        let mut changes = Changes::new()
            .set(&ORIGIN, Value::Bytes(segment.origin.to_bytes().to_vec()))
            .set(&LOW, low)
            .set(&HIGH, high)
            .set(&NAME, Value::Bytes(segment.name.to_vec()))
            .set(&KEY, Value::Bytes(public_key.to_vec()))
            .set(&SIGNATURE, Value::Bytes(signature.to_vec()));
        if let Some(before) = segment.before {
            changes = changes.set(&BEFORE, Value::Bytes(before.to_vec()));
        }
        let key = segment.key();
        if self.get(kind, key)?.is_some() {
            self.edit(kind, key, changes)?;
        } else {
            self.create(kind, segment.stream.tenant, key, changes)?;
        }
        note_sealed(self.conn(), segment)
    }

    /// Keeps what was found of seals, and how far that look went. How many are broken that were not known to be.
    pub fn note_examined(&mut self, look: &Look) -> Result<u64> {
        let conn = self.conn();
        let now_ms = self.now_ms() as i64;
        if let Some(upto) = &look.upto {
            schema::put_meta(conn, LOOKED_UPTO, &codec::encode(upto))?;
        }
        let mut broken = 0;
        for one in &look.examined {
            let sql = "DELETE FROM seal_due WHERE kind = ?1 AND key = ?2";
            conn.prepare_cached(sql)?.execute(params![one.kind, one.key.0])?;
            match &one.verdict {
                Verdict::Proven => {
                    let sql = "DELETE FROM seal_broken WHERE kind = ?1 AND key = ?2";
                    conn.prepare_cached(sql)?.execute(params![one.kind, one.key.0])?;
                    one.segment.iter().try_for_each(|segment| note_sealed(conn, segment))?;
                }
                Verdict::Gone => {}
                Verdict::Broken(words) => {
                    let sql = "INSERT OR IGNORE INTO seal_broken VALUES (?1, ?2, ?3, ?4)";
                    let args = params![one.kind, one.key.0, now_ms, words];
                    broken += conn.prepare_cached(sql)?.execute(args)? as u64;
                }
            }
        }
        Ok(broken)
    }

    /// Drops seals of this node whose ops have left its log, at most `most`.
    pub fn drop_old_seals(&mut self, node: NodeId, most: usize) -> Result<usize> {
        let mut old = Vec::new();
        for (_, head) in read_heads(self.conn(), None)? {
            let Some(kind) = kind_of(self, &head.stream.scope) else { continue };
            for (origin, floor) in head.floor.0.iter().filter(|(o, _)| o.node == node) {
                let sql = format!(
                    "SELECT key FROM {} WHERE tenant = ?1 AND c_origin = ?2 AND c_high <= ?3 LIMIT ?4",
                    table_of(kind)
                );
                let mut statement = self.conn().prepare_cached(&sql)?;
                let left = most.saturating_sub(old.len()) as i64;
                let args = params![head.stream.tenant.0, origin.to_bytes(), *floor as i64, left];
                let rows = statement.query_map(args, |r| Ok(Id(r.get(0)?)))?;
                for key in rows {
                    old.push((kind, key?));
                }
            }
        }
        for (kind, key) in &old {
            self.remove(kind, *key)?;
        }
        Ok(old.len())
    }
}

fn note_sealed(conn: &Connection, segment: &Segment) -> Result<()> {
    let sql = "INSERT INTO sealed \
               SELECT s.id, g.id, ?4, ?5 FROM stream s, origin g \
               WHERE s.tenant = ?1 AND s.scope = ?2 AND g.bytes = ?3 \
               ON CONFLICT DO UPDATE SET high = excluded.high, name = excluded.name WHERE excluded.high > high";
    conn.prepare_cached(sql)?.execute(params![
        segment.stream.tenant.0,
        segment.stream.scope,
        segment.origin.to_bytes(),
        segment.high as i64,
        segment.name
    ])?;
    Ok(())
}

/// A seal that does not fit what is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub at_ms: u64,
    pub words: String,
}

/// How it stands with all segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Ops that are proven to be what their origins wrote, or were when they were looked at.
    pub proven_ops: u64,
    /// Seals that came and were not looked at yet, or not all of whose ops are here.
    pub waiting: u64,
    pub broken: u64,
    /// The latest, at most 20.
    pub latest: Vec<Broken>,
}

pub fn standing(reader: &impl Read) -> Result<Standing> {
    let conn = reader.conn();
    let count = |sql| -> Result<u64> {
        Ok(conn.prepare_cached(sql)?.query_row([], |r| r.get::<_, i64>(0))? as u64)
    };
    let sql = "SELECT at_ms, words FROM seal_broken ORDER BY at_ms DESC LIMIT 20";
    let mut statement = conn.prepare_cached(sql)?;
    let latest = statement
        .query_map([], |r| Ok(Broken { at_ms: r.get::<_, i64>(0)? as u64, words: r.get(1)? }))?;
    Ok(Standing {
        proven_ops: count("SELECT coalesce(sum(high), 0) FROM sealed")?,
        waiting: count("SELECT count(*) FROM seal_due")?,
        broken: count("SELECT count(*) FROM seal_broken")?,
        latest: latest.collect::<rusqlite::Result<_>>()?,
    })
}
