//! Nodes that were removed from the whole network, as this node keeps it. Local: what was heard once holds here, whatever
//! becomes of the record that said so. With it the cuts: how far a removed node's writes are those from before.

use crate::ahead;
use crate::carries::Carries;
use crate::codec;
use crate::db::Db;
use crate::error::Result;
use crate::heads::StreamHead;
use crate::id::{Dot, NodeId, Origin, StreamId};
use crate::kind::{Field, Type};
use crate::read::Read;
use crate::record::Record;
use crate::tx::Tx;
use crate::value::Value;
use crate::vector::Vector;
use bincode::{Decode, Encode};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of a kind that [`crate::kind::Kind::revokes`]: the removed node in 32 hex digits.
pub const REVOKED_NODE: Field = Field::text(1, "node").required().max(32).read_only();
/// Of such a kind: encoded [`Cut`]s.
pub const REVOKED_CUTS: Field = Field::set(6, "cuts", Type::Bytes).secret();
/// A node that wrote to more streams is removed without a cut.
const MAX_CUT_STREAMS: usize = 20_000;
/// More cuts of one node are not kept.
const MAX_CUTS: usize = 64;

/// What a node had of a removed one when it said that it is removed: for the streams it speaks of, what is beyond was
/// written late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Cut {
    /// It speaks of the streams that its node carries,
    carries: Carries,
    /// and of which no earlier cut spoke.
    without: Vec<Carries>,
    /// The highest number by epoch. A stream that is not here has none.
    tops: BTreeMap<StreamId, BTreeMap<u32, u64>>,
}

impl Cut {
    fn speaks_of(&self, stream: &StreamId) -> bool {
        self.carries.carries(stream) && !self.without.iter().any(|one| one.carries(stream))
    }

    fn covers(&self, stream: &StreamId, dot: Dot) -> bool {
        let top = self.tops.get(stream).and_then(|tops| tops.get(&dot.origin.epoch));
        top.is_some_and(|top| *top >= dot.seq)
    }
}

/// All cuts that were heard, with the origin of each.
#[derive(Debug, Default)]
pub(crate) struct Cuts(BTreeMap<NodeId, Vec<(Origin, Cut)>>);

impl Cuts {
    pub fn load(conn: &Connection) -> Result<Self> {
        let mut cuts = Self::default();
        let mut statement = conn.prepare_cached("SELECT node, said_by, cut FROM cut")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let by = Origin::from_slice(row.get_ref(1)?.as_blob().unwrap_or_default());
            let cut = codec::decode(row.get_ref(2)?.as_blob().unwrap_or_default());
            if let (Some(by), Ok(cut)) = (by, cut) {
                cuts.0.entry(NodeId(row.get(0)?)).or_default().push((by, cut));
            }
        }
        Ok(cuts)
    }

    fn of(&self, node: NodeId, stream: &StreamId) -> impl Iterator<Item = &(Origin, Cut)> {
        let all = self.0.get(&node).into_iter().flatten();
        all.filter(|(_, cut)| cut.speaks_of(stream))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the op's node had been removed when it was written: by all cuts that speak of its stream.
    pub fn is_late(&self, stream: &StreamId, dot: Dot) -> bool {
        let mut cuts = self.of(dot.origin.node, stream).peekable();
        cuts.peek().is_some() && cuts.all(|(_, cut)| !cut.covers(stream, dot))
    }

    /// Whether `by` is the one of those who spoke of the stream that takes back what comes late. It had nothing of that when
    /// it spoke.
    pub fn is_said_by(&self, node: NodeId, stream: &StreamId, by: Origin) -> bool {
        self.speaker(node, stream) == Some(by)
    }

    /// The one of those who spoke of the stream that takes back what comes late.
    pub fn speaker(&self, node: NodeId, stream: &StreamId) -> Option<Origin> {
        self.of(node, stream).map(|(said_by, _)| *said_by).min()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub node: NodeId,
    /// Unix milliseconds: when it was removed, by the clock of whoever did it.
    pub at_ms: u64,
    /// What else was said of it, so that it can be said again.
    pub about: String,
}

/// A network removes no more nodes than this.
pub const MAX_REVOKED: usize = 1_000;

/// The earliest first.
pub fn list(reader: &impl Read) -> Result<Vec<Mark>> {
    let sql = "SELECT node, at_ms, about FROM revoked ORDER BY at_ms, node LIMIT ?1";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let rows = statement.query_map([MAX_REVOKED as i64], |row| {
        let node = NodeId(row.get(0)?);
        Ok(Mark { node, at_ms: row.get::<_, i64>(1)? as u64, about: row.get(2)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn has(reader: &impl Read, node: NodeId) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM revoked WHERE node = ?1)";
    Ok(reader.conn().prepare_cached(sql)?.query_row([node.0], |row| row.get(0))?)
}

/// Keeps it for good; nothing if it is kept already.
pub fn note(tx: &mut Tx<'_>, mark: &Mark) -> Result<()> {
    let sql = "INSERT INTO revoked VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    tx.conn().prepare_cached(sql)?.execute(params![mark.node.0, mark.at_ms as i64, mark.about])?;
    Ok(())
}

/// The cuts of a node that were heard, encoded.
pub fn cuts(reader: &impl Read, node: NodeId) -> Result<Vec<Value>> {
    let sql = "SELECT cut FROM cut WHERE node = ?1 ORDER BY name LIMIT ?2";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![node.0, MAX_CUTS as i64], |row| row.get(0))?;
    Ok(rows.map(|bytes| bytes.map(Value::Bytes)).collect::<rusqlite::Result<_>>()?)
}

/// Whether this node carries streams that a removed node wrote to and that no cut speaks of, as committed.
pub fn lacks_cut(reader: &impl Read, node: NodeId) -> Result<bool> {
    let cuts = Cuts::load(reader.conn())?;
    let wrote = |head: &StreamHead| head.vector.0.keys().any(|origin| origin.node == node);
    if !cuts.0.contains_key(&node) {
        return Ok(true);
    }
    let is_full = cuts.0[&node].len() >= MAX_CUTS;
    let lacks = |head: StreamHead| wrote(&head) && cuts.of(node, &head.stream).next().is_none();
    Ok(!is_full && reader.streams()?.into_iter().any(lacks))
}

impl Tx<'_> {
    /// What is to be said now of a node that is removed, beside what was said: a cut of the streams that this node carries
    /// and of which no cut speaks. What others are known to have, `elsewhere`, is in time too. None if there are no such
    /// streams, or too many.
    pub fn cut_of(
        &mut self,
        node: NodeId,
        elsewhere: &BTreeMap<StreamId, Vector>,
    ) -> Result<Option<Value>> {
        let known = self.db.cuts()?;
        let known = known.0.get(&node).map_or(&[][..], Vec::as_slice);
        let is_new = |stream: &StreamId| !known.iter().any(|(_, cut)| cut.speaks_of(stream));
        let mut cut = Cut {
            carries: Carries::clone(&self.db.carries),
            without: known.iter().map(|(_, cut)| cut.carries.clone()).collect(),
            tops: BTreeMap::new(),
        };
        let mut has_new = known.is_empty();
        for (_, head) in self.db.heads.all() {
            if !cut.carries.carries(&head.stream) || !is_new(&head.stream) {
                continue;
            }
            let mut held = ahead::held_by_any(&self.db.conn, head)?;
            elsewhere.get(&head.stream).into_iter().for_each(|more| held.merge(more));
            let tops = held.0.iter().filter(|(origin, _)| origin.node == node);
            let tops: BTreeMap<u32, u64> = tops.map(|(o, seq)| (o.epoch, *seq)).collect();
            if !tops.is_empty() {
                has_new = true;
                cut.tops.insert(head.stream.clone(), tops);
            }
        }
        let fits = cut.tops.len() <= MAX_CUT_STREAMS && known.len() < MAX_CUTS;
        Ok((has_new && fits).then(|| Value::Bytes(codec::encode(&cut))))
    }
}

impl Db {
    /// As the transaction has them.
    pub(crate) fn cuts(&mut self) -> Result<Arc<Cuts>> {
        if let Some(cuts) = &self.known_cuts {
            return Ok(Arc::clone(cuts));
        }
        let cuts = Arc::new(Cuts::load(&self.conn)?);
        self.known_cuts = Some(Arc::clone(&cuts));
        Ok(cuts)
    }

    /// To be called with each row of a kind that revokes. What the removed node itself says of it does not count, nor what
    /// others say that are removed themselves.
    pub(crate) fn note_cuts(&mut self, stream: &StreamId, record: &Record) -> Result<()> {
        let Some(node) = NodeId::parse(record.text(&REVOKED_NODE)) else { return Ok(()) };
        let known = self.cuts()?;
        let counts = |dot: Dot| dot.origin.node != node && !known.is_late(stream, dot);
        if !record.state.creations.keys().any(|dot| counts(*dot)) {
            return Ok(());
        }
        for cell in record.state.cells_of(REVOKED_CUTS.code).iter().filter(|c| counts(c.dot)) {
            let Some(bytes) = cell.element.as_ref().and_then(Value::as_bytes) else { continue };
            if codec::decode::<Cut>(bytes).is_err() {
                continue;
            }
            let sql = "INSERT INTO cut SELECT ?1, ?2, ?3, ?4 \
                       WHERE (SELECT count(*) FROM cut WHERE node = ?1) < ?5 ON CONFLICT DO NOTHING";
            let name = blake3::hash(bytes);
            let by = cell.dot.origin.to_bytes();
            let args = params![node.0, name.as_bytes(), by, bytes, MAX_CUTS as i64];
            if self.conn.prepare_cached(sql)?.execute(args)? > 0 {
                self.known_cuts = None;
                let sql = "INSERT OR REPLACE INTO late_walk VALUES (?1, 0)";
                self.conn.prepare_cached(sql)?.execute([node.0])?;
            }
        }
        Ok(())
    }
}
