//! What the search index has not taken in yet: read from the log behind a cursor, and from the list of what came
//! otherwise. Never says that the index holds something before it was told so.

use super::Store;
use crate::error::Result;
use crate::id::Id;
use crate::log::{self, Met, damage};
use crate::read::Read;
use crate::schema;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// What the search index is to take in, and how far that brings it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unindexed {
    /// Kind and key; one may stand there more than once.
    pub records: Vec<(u16, Id)>,
    /// In the log: how far the index was fed, and how far it is now.
    before: u64,
    pos: u64,
    /// On the list of what came without an op.
    listed: u64,
    /// Blocks of the log that cannot be read: all records of their streams go onto the list once this is noted.
    damaged: Vec<i64>,
    /// There may be others after these.
    pub more: bool,
}

impl Unindexed {
    pub fn is_empty(&self) -> bool {
        self.pos == self.before && self.listed == 0
    }

    /// Where in the log the index stands once it holds these.
    pub fn cursor(&self) -> u64 {
        self.pos
    }
}

/// Of the ops that are taken into the index at once: as much is held in memory.
const UNINDEXED_BYTES: usize = 16 << 20;
const INDEXED: &str = "indexed_pos";

/// Up to where in the log the search index knows everything.
pub(crate) fn indexed_pos(conn: &Connection) -> Result<u64> {
    let bytes = schema::meta(conn, INDEXED)?.and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map_or(0, u64::from_le_bytes))
}

impl Store {
    /// Records to be searched that changed since the index was last fed: those that the log tells of, and those on the
    /// list of what came otherwise.
    pub fn unindexed(&self, limit: usize) -> Result<Unindexed> {
        self.read(|reader| {
            let pos = indexed_pos(reader.conn)?;
            let mut found = Unindexed { before: pos, pos, ..Unindexed::default() };
            let sql = "SELECT pos, kind, key FROM dirty ORDER BY pos LIMIT ?1";
            let mut statement = reader.conn.prepare_cached(sql)?;
            let mut rows = statement.query([limit as i64])?;
            while let Some(row) = rows.next()? {
                found.listed = row.get::<_, i64>(0)? as u64;
                found.records.push((row.get(1)?, Id(row.get(2)?)));
            }
            found.more = found.records.len() >= limit;
            let (mut ops, mut bytes) = (0, 0);
            log::scan_with(reader.conn, pos as i64 + 1, |met| {
                let entry = match met {
                    Met::Op(entry) => entry,
                    Met::Damaged(name, error) => {
                        tracing::warn!(%error, block = name, "a block of the log is damaged: what it changed is searched anew");
                        found.damaged.push(name);
                        found.pos = name as u64;
                        return Ok(ControlFlow::Continue(()));
                    }
                };
                found.pos = entry.pos as u64;
                ops += 1;
                bytes += entry.payload()?.len();
                if reader.plans.of(entry.kind).is_some_and(|plan| plan.kind.search.is_some()) {
                    found.records.push((entry.kind, entry.key));
                }
                let is_enough = ops >= limit || bytes > UNINDEXED_BYTES;
                Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            found.more |= ops >= limit || bytes > UNINDEXED_BYTES || !found.damaged.is_empty();
            Ok(found)
        })
    }

    /// How many changes the index may not hold yet.
    pub fn unindexed_depth(&self) -> Result<u64> {
        self.read(|reader| {
            let sql = "SELECT count(*) FROM dirty";
            let listed: i64 = reader.conn.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
            let n = listed + log::last(reader.conn)?;
            Ok((n as u64).saturating_sub(indexed_pos(reader.conn)?))
        })
    }

    /// Notes that the index holds what [`Store::unindexed`] gave. Call from a thread that may wait.
    pub fn note_indexed(&self, fed: &Unindexed) -> Result<()> {
        let (pos, listed, damaged) = (fed.pos, fed.listed, fed.damaged.clone());
        self.write_blocking(move |tx| {
            // Before the list gets shorter, so that their places lie behind what leaves it.
            let mut streams = BTreeSet::new();
            for block in damaged {
                streams.extend(damage::runs(tx.conn(), block)?.iter().map(|run| run.stream));
            }
            damage::queue(tx.conn(), tx.plans(), &streams)?;
            if listed > 0 {
                tx.conn().execute("DELETE FROM dirty WHERE pos <= ?1", [listed as i64])?;
            }
            schema::put_meta(tx.conn(), INDEXED, &pos.to_le_bytes())
        })
    }

    /// Queues every record of the searched kinds, for an index that is made anew.
    pub fn mark_all_dirty(&self) -> Result<()> {
        self.write_blocking(move |tx| {
            for kind in tx.plans().kinds.iter().filter(|k| k.search.is_some()) {
                let table = schema::table_of(kind);
                let sql =
                    format!("INSERT INTO dirty (kind, key) SELECT {}, key FROM {table}", kind.code);
                tx.conn().execute(&sql, [])?;
            }
            Ok(())
        })
    }
}
