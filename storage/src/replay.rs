//! A database as it stood at a time: an older copy of it, and after it the log of a newer one up to then.

use crate::clock::Hlc;
use crate::codec;
use crate::db::{Applied, Db};
use crate::error::{Error, Result};
use crate::heads::read_heads;
use crate::id::{Dot, Id, NodeId, Origin, StreamId};
use crate::op::Op;
use crate::vector::Vector;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Ops of one transaction.
const BATCH: usize = 500;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What was written after the copy and up to the time.
    pub ops: u64,
    /// What the log holds beyond it.
    pub left_out: u64,
}

/// Part of a log, by position: everything before `upto`, and from `unsure` on only what says that it was written by then.
struct Cut {
    unsure: i64,
    upto: i64,
}

impl Db {
    /// Applies what the log of another database of the same node holds beyond this one, as far as it was there at
    /// `at_ms`, Unix milliseconds. What this node wrote tells when that was: what others wrote came in between.
    ///
    /// # Errors
    /// `Behind` if the log no longer reaches back to where this database ends. Nothing is applied then.
    pub fn replay(
        &mut self,
        from: &Path,
        at_ms: u64,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Replayed> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let log = Connection::open_with_flags(from, flags)?;
        log.execute_batch("BEGIN")?;
        let mine: BTreeMap<StreamId, Vector> =
            read_heads(&self.conn, None)?.into_iter().map(|(_, h)| (h.stream, h.vector)).collect();
        reaches_back(&log, &mine)?;
        let cut = cut_at(&log, self.origin().node, at_ms)?;
        let last: i64 = log.query_row("SELECT coalesce(max(pos), 0) FROM op", [], |r| r.get(0))?;
        let mut replayed = Replayed::default();
        // Of an origin that was left out once nothing more comes: its numbers are dense.
        let mut closed: BTreeSet<(StreamId, Origin)> = BTreeSet::new();
        let sql = "SELECT o.pos, s.tenant, s.scope, g.bytes, o.seq, o.hlc, o.kind, o.schema, o.key, o.payload \
                   FROM op o JOIN stream s ON s.id = o.stream JOIN origin g ON g.id = o.origin ORDER BY o.pos";
        let mut statement = log.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(row) = rows.next()? {
            let pos: i64 = row.get(0)?;
            let stream = StreamId { tenant: Id(row.get(1)?), scope: row.get(2)? };
            let origin = Origin::from_slice(row.get_ref(3)?.as_blob().unwrap_or_default())
                .ok_or_else(|| Error::Damaged("an origin of the log is no origin".into()))?;
            let dot = Dot { origin, seq: row.get::<_, i64>(4)? as u64 };
            if mine.get(&stream).is_some_and(|vector| vector.covers(dot)) {
                continue;
            }
            let hlc = Hlc(row.get::<_, i64>(5)? as u64);
            let is_late = pos >= cut.upto || (pos >= cut.unsure && hlc.ms() > at_ms);
            if is_late || closed.contains(&(stream.clone(), origin)) {
                closed.insert((stream, origin));
                replayed.left_out += 1;
                continue;
            }
            let payload = codec::unpack(row.get_ref(9)?.as_blob().unwrap_or_default())?;
            let (kind, schema, key) = (row.get(6)?, row.get(7)?, Id(row.get(8)?));
            batch.push(Op { stream, dot, hlc, kind, schema, key, payload });
            if batch.len() == BATCH {
                self.follow(std::mem::take(&mut batch), &mut replayed)?;
                progress(pos as u64, last as u64);
            }
        }
        self.follow(batch, &mut replayed)?;
        progress(last as u64, last as u64);
        Ok(replayed)
    }

    /// Not as from a peer: that ops of this node itself come is no sign of another life of it. What builds on something
    /// that was left out is left out too.
    fn follow(&mut self, ops: Vec<Op>, replayed: &mut Replayed) -> Result<()> {
        self.begin()?;
        let result = self.savepoint(|db| {
            let mut applied = Applied::default();
            for op in &ops {
                if db.is_ready(&op.stream, op) {
                    db.accept(op, &mut applied, true)?;
                    replayed.ops += 1;
                } else {
                    replayed.left_out += 1;
                }
            }
            db.settle()
        });
        self.commit()?;
        result
    }
}

/// What is not here must be in the log from its first number on.
fn reaches_back(log: &Connection, mine: &BTreeMap<StreamId, Vector>) -> Result<()> {
    let nothing = Vector::default();
    for (_, head) in read_heads(log, None)? {
        let here = mine.get(&head.stream).unwrap_or(&nothing);
        if let Some((origin, floor)) =
            head.floor.0.iter().find(|(o, floor)| here.get(**o) < **floor)
        {
            return Err(Error::Behind {
                stream: head.stream.to_string(),
                missing: *floor - here.get(*origin),
            });
        }
    }
    Ok(())
}

fn cut_at(log: &Connection, node: NodeId, at_ms: u64) -> Result<Cut> {
    let sql = "SELECT o.pos FROM op o JOIN origin g ON g.id = o.origin \
               WHERE substr(g.bytes, 1, 16) = ?1 AND (o.hlc >> 16) > ?2 ORDER BY o.pos LIMIT 1";
    let upto: Option<i64> =
        log.query_row(sql, params![node.0, at_ms as i64], |r| r.get(0)).optional()?;
    let upto = upto.unwrap_or(i64::MAX);
    let sql = "SELECT coalesce(max(o.pos), 0) FROM op o JOIN origin g ON g.id = o.origin \
               WHERE substr(g.bytes, 1, 16) = ?1 AND o.pos < ?2";
    let last: i64 = log.query_row(sql, params![node.0, upto], |r| r.get(0))?;
    Ok(Cut { unsure: last + 1, upto })
}
