//! Shortening the log: what goes is no longer sent op by op, and whoever lacks it is reconciled by state. Never drops what a
//! record still needs.

use crate::apply::Place;
use crate::codec;
use crate::db::Db;
use crate::error::Result;
use crate::heads::read_heads;
use crate::id::{Dot, Id, Origin, StreamId};
use crate::log::damage::{self, Run};
use crate::log::{self, Met, block};
use crate::op::{BodyEdit, Payload};
use crate::schema;
use crate::store::indexed_pos;
use crate::vector::Vector;
use rusqlite::{OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

/// Between two notes of how far the log was at a time.
const MARK_EVERY_MS: u64 = 3_600_000;

impl Db {
    /// Notes how far the log is now. By these notes its parts have an age, whatever time the ops themselves bear.
    pub(crate) fn mark_log(&mut self, now_ms: u64) -> Result<()> {
        let sql = "SELECT max(at_ms) FROM log_mark";
        let last: Option<i64> = self.conn.query_row(sql, [], |r| r.get(0))?;
        // A clock that was set back marks anew.
        if last.is_none_or(|last| now_ms.abs_diff(last as u64) >= MARK_EVERY_MS) {
            let sql = "INSERT OR REPLACE INTO log_mark VALUES (?1, ?2)";
            self.conn.execute(sql, params![now_ms as i64, self.heads.next_pos - 1])?;
        }
        Ok(())
    }

    /// Drops ops that were in the log already at a time, some `max_ops`: of a block all go together. With `acknowledged`
    /// only what is covered there, from the beginning of the log up to the first op that is not. How many went.
    pub(crate) fn trim_older(
        &mut self,
        than_ms: u64,
        max_ops: usize,
        acknowledged: Option<&BTreeMap<StreamId, Vector>>,
    ) -> Result<u64> {
        let sql = "SELECT at_ms, pos FROM log_mark WHERE at_ms <= ?1 ORDER BY at_ms DESC LIMIT 1";
        let mark = self
            .conn
            .query_row(sql, [than_ms as i64], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)));
        let Some((at_ms, pos)) = mark.optional()? else { return Ok(0) };
        let dropped = self.trim_streams(&self.oldest(pos, max_ops, acknowledged)?)?;
        if dropped == 0 && acknowledged.is_none() {
            self.conn.execute("DELETE FROM log_mark WHERE at_ms < ?1", [at_ms])?;
        }
        Ok(dropped)
    }

    /// The first ops of the log up to a position, as the vectors that end with them.
    fn oldest(
        &self,
        pos: i64,
        max_ops: usize,
        acknowledged: Option<&BTreeMap<StreamId, Vector>>,
    ) -> Result<BTreeMap<StreamId, Vector>> {
        let streams = read_heads(&self.conn, None)?.into_iter().map(|(id, head)| (id, head.stream));
        let (streams, origins) = (streams.collect(), log::origins(&self.conn)?);
        let mut oldest =
            Oldest { streams, origins, acknowledged, vectors: BTreeMap::new(), ops: 0 };
        log::scan_with(&self.conn, 0, |met| {
            let (last, is_packed) = match &met {
                Met::Op(entry) => (entry.pos, entry.is_packed()),
                Met::Damaged(name, _) => (*name, false),
            };
            if last > pos || (oldest.ops >= max_ops && !is_packed) {
                return Ok(ControlFlow::Break(()));
            }
            let is_taken = match met {
                Met::Op(entry) => oldest.take(entry.stream, entry.origin, (entry.seq, entry.seq)),
                Met::Damaged(name, _) => oldest.take_all(&damage::runs(&self.conn, name)?),
            };
            let is_enough = oldest.ops >= max_ops.max(block::FULL_OPS);
            Ok(if !is_taken || is_enough {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        Ok(oldest.vectors)
    }

    /// Moves what still needs the text of ops that go: bodies that were never edited into a table of their own, and
    /// what the search index has not seen onto its list.
    fn take_out(&self, stream: i64, tenant: Id, origin: i64, upto: u64) -> Result<()> {
        let sql = "INSERT INTO dirty (kind, key) SELECT kind, key FROM op \
                   WHERE stream = ?1 AND origin = ?2 AND seq <= ?3 AND pos > ?4";
        let indexed = indexed_pos(&self.conn)? as i64;
        self.conn.prepare_cached(sql)?.execute(params![stream, origin, upto as i64, indexed])?;
        let sql = "SELECT o.seq, o.kind, o.key, o.payload, g.bytes FROM op o JOIN origin g ON g.id = o.origin \
                   WHERE o.stream = ?1 AND o.origin = ?2 AND o.seq <= ?3";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params![stream, origin, upto as i64])?;
        while let Some(row) = rows.next()? {
            // Of an op that is damaged nothing can be taken.
            let payload = codec::unpack(row.get_ref(3)?.as_blob().unwrap_or_default());
            let Ok(Payload::Write(write)) = payload else { continue };
            let place = Place { stream, tenant, kind: row.get(1)?, key: Id(row.get(2)?) };
            let origin = row.get_ref(4)?.as_blob().ok().and_then(Origin::from_slice);
            let (Some(origin), seq) = (origin, row.get::<_, i64>(0)? as u64) else { continue };
            let creation = Dot { origin, seq };
            for body in write.bodies {
                let BodyEdit::Born(text) = body.edit else { continue };
                let record = self.load_state(&place).ok().flatten();
                if record.is_some_and(|r| r.state.body_of(body.field, creation).is_some()) {
                    let sql = "INSERT OR IGNORE INTO body (key, field, creation, born) VALUES (?1, ?2, ?3, ?4)";
                    let args = params![place.key.0, body.field, creation.to_bytes(), text];
                    self.conn.prepare_cached(sql)?.execute(args)?;
                }
            }
        }
        Ok(())
    }

    /// Drops what the log holds of a stream at or below `upto`, as far as it is here at all.
    pub fn trim(&mut self, stream: &StreamId, upto: &Vector) -> Result<u64> {
        self.trim_streams(&BTreeMap::from([(stream.clone(), upto.clone())]))
    }

    fn trim_streams(&mut self, streams: &BTreeMap<StreamId, Vector>) -> Result<u64> {
        let mut floors = Vec::new();
        for (stream, upto) in streams {
            let Some(head) = self.heads.head(stream) else { continue };
            let mut floor = Vector::default();
            let tops = upto.0.iter().map(|(origin, seq)| (*origin, *seq));
            tops.for_each(|(origin, seq)| floor.raise(origin, seq.min(head.vector.get(origin))));
            floors.push((stream, floor));
        }
        if floors.is_empty() {
            return Ok(0);
        }
        self.begin()?;
        let result = self.savepoint(|db| {
            let (mut dropped, mut ends, mut blocks) = (0, HashMap::new(), BTreeSet::new());
            for (stream, floor) in &floors {
                let number = db.heads.stream_number(&db.conn, stream)?;
                for (origin, seq) in &floor.0 {
                    let origin = db.heads.origin_number(&db.conn, *origin)?;
                    db.take_out(number, stream.tenant, origin, *seq)?;
                    let sql = "DELETE FROM op WHERE stream = ?1 AND origin = ?2 AND seq <= ?3";
                    dropped += db.conn.execute(sql, params![number, origin, *seq as i64])? as u64;
                    blocks.extend(block::with(&db.conn, number, Some((origin, *seq)))?);
                    ends.insert((number, origin), *seq);
                }
            }
            dropped += db.take_out_of_blocks(blocks, &ends)?;
            schema::put_meta(&db.conn, "next_pos", &db.heads.next_pos.to_le_bytes())?;
            db.heads.hlc_must_be_kept = true;
            for (stream, floor) in &floors {
                let number = db.heads.stream_number(&db.conn, stream)?;
                db.heads.raise_floor(number, floor);
            }
            Ok(dropped)
        });
        self.commit()?;
        result
    }

    /// What the search index has not seen goes onto its list.
    fn take_out_of_blocks(
        &self,
        blocks: BTreeSet<i64>,
        ends: &HashMap<(i64, i64), u64>,
    ) -> Result<u64> {
        let indexed = indexed_pos(&self.conn)? as i64;
        let (mut unseen, mut unread) = (Vec::new(), BTreeSet::new());
        let leaves = |stream: i64, origin: i64, seq: u64| {
            ends.get(&(stream, origin)).is_some_and(|end| seq <= *end)
        };
        let entry_leaves = |entry: &block::Packed| {
            let leaves = leaves(entry.stream, entry.origin, entry.seq);
            if leaves && entry.pos > indexed {
                unseen.push((entry.kind, entry.key));
            }
            leaves
        };
        let run_leaves = |run: &Run| {
            let leaves = leaves(run.stream, run.origin, run.high);
            if leaves && run.block > indexed {
                unread.insert(run.stream);
            }
            leaves
        };
        let dropped = self.rewrite_blocks(blocks, entry_leaves, run_leaves)?;
        damage::queue(&self.conn, &self.plans, &unread)?;
        let mut statement =
            self.conn.prepare_cached("INSERT INTO dirty (kind, key) VALUES (?1, ?2)")?;
        for (kind, key) in unseen {
            statement.execute(params![kind, key.0])?;
        }
        Ok(dropped)
    }
}

/// What is old enough to go, as vectors.
struct Oldest<'a> {
    streams: HashMap<i64, StreamId>,
    origins: HashMap<i64, Origin>,
    acknowledged: Option<&'a BTreeMap<StreamId, Vector>>,
    vectors: BTreeMap<StreamId, Vector>,
    ops: usize,
}

impl Oldest<'_> {
    fn is_acknowledged(&self, stream: i64, origin: i64, seq: u64) -> bool {
        let names = self.streams.get(&stream).zip(self.origins.get(&origin));
        let (Some((stream, origin)), Some(all)) = (names, self.acknowledged) else { return true };
        all.get(stream).is_some_and(|vector| vector.covers(Dot { origin: *origin, seq }))
    }

    /// False if somebody may lack the last of them.
    fn take(&mut self, stream: i64, origin: i64, (low, high): (u64, u64)) -> bool {
        if !self.is_acknowledged(stream, origin, high) {
            return false;
        }
        if let Some((stream, origin)) = self.streams.get(&stream).zip(self.origins.get(&origin)) {
            self.vectors.entry(stream.clone()).or_default().raise(*origin, high);
            self.ops += (high - low + 1) as usize;
        }
        true
    }

    /// All or none, and false if none.
    fn take_all(&mut self, runs: &[Run]) -> bool {
        runs.iter().all(|run| self.is_acknowledged(run.stream, run.origin, run.high))
            && runs.iter().all(|run| self.take(run.stream, run.origin, (run.low, run.high)))
    }
}
