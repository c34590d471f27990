//! Rows into blocks, and blocks made anew without what leaves them. Runs beside everything else that rewrites the log, in
//! steps; each step is one transaction.

use super::block::{self, Block, FULL_BYTES, FULL_OPS, Packed};
use super::damage::{self, Run};
use super::{Entry, scan_part};
use crate::codec;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::op::{BodyEdit, Payload};
use crate::schema;
use rusqlite::{Connection, params};
use std::ops::ControlFlow;

/// One step looks at no more rows than this.
const MAX_SCAN: usize = 16_384;
/// An op that is longer is as small as it gets, alone.
const LONG_BYTES: usize = 64 << 10;
const PACKED_POS: &str = "packed_pos";

/// What one step is to write: a block, and how far the rows have been looked at.
pub(crate) struct Step {
    from: i64,
    upto: i64,
    block: Option<Block>,
    /// A small block whose entries stand in `block` now.
    replaces: Option<i64>,
    rows: Vec<i64>,
}

fn packed_pos(conn: &Connection) -> Result<i64> {
    let bytes = schema::meta(conn, PACKED_POS)?.and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map_or(0, i64::from_le_bytes))
}

/// What the next step does; none if the log has no more to pack. The newest `keep` stay rows: live links read them.
/// Rows up to `old_pos` are packed however few they are.
pub(crate) fn plan(conn: &Connection, old_pos: i64, keep: u32) -> Result<Option<Step>> {
    let from = packed_pos(conn)?;
    let newest: Option<i64> = conn.query_row("SELECT max(pos) FROM op", [], |r| r.get(0))?;
    let end = newest.unwrap_or(0) - i64::from(keep);
    if end <= from {
        return Ok(None);
    }
    let mut step = Step { from, upto: from, block: None, replaces: None, rows: vec![] };
    let small = block::last_if_small(conn, FULL_BYTES / 2)?;
    let small = small.filter(|block| block.entries.len() <= FULL_OPS / 2);
    step.replaces = small.as_ref().map(|block| block.last);
    let mut entries = small.map(|block| block.entries).unwrap_or_default();
    let mut bytes: usize = entries.iter().map(|entry| entry.payload.len() + 40).sum();
    let mut looked_at = 0;
    let _ = scan_part(conn, from + 1, end, None, &mut |entry| {
        looked_at += 1;
        if let Some(payload) = packable(entry)? {
            bytes += payload.len() + 40;
            step.rows.push(entry.pos);
            entries.push(packed(entry, payload));
        }
        step.upto = entry.pos;
        let is_full = entries.len() >= FULL_OPS || bytes >= FULL_BYTES;
        Ok(if is_full || looked_at >= MAX_SCAN {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    let is_full = entries.len() >= FULL_OPS || bytes >= FULL_BYTES;
    if !is_full && looked_at < MAX_SCAN {
        // Only what is old.
        entries.retain(|entry| entry.pos <= old_pos);
        step.rows.retain(|pos| *pos <= old_pos);
        step.upto = step.upto.min(old_pos);
    }
    if step.upto <= from {
        return Ok(None);
    }
    match entries.last() {
        Some(last) if !step.rows.is_empty() => {
            step.block = Some(Block { last: last.pos, entries });
        }
        _ => step.replaces = None,
    }
    Ok(Some(step))
}

/// The payload as a block holds it. None for an op that a body's text stands in, which is read by its number; for one that is
/// long; and for one that is damaged, which is left for `verify` to find.
fn packable(entry: &Entry<'_>) -> Result<Option<Vec<u8>>> {
    let row = entry.payload()?;
    if row.len() > LONG_BYTES {
        return Ok(None);
    }
    let Ok(payload) = codec::unpack(row) else { return Ok(None) };
    if let Payload::Write(write) = &payload
        && write.bodies.iter().any(|body| matches!(body.edit, BodyEdit::Born(_)))
    {
        return Ok(None);
    }
    let plain = codec::encode(&payload);
    Ok(Some(plain).filter(|plain| plain.len() <= LONG_BYTES))
}

fn packed(entry: &Entry<'_>, payload: Vec<u8>) -> Packed {
    Packed {
        pos: entry.pos,
        stream: entry.stream,
        origin: entry.origin,
        seq: entry.seq,
        hlc: entry.hlc,
        kind: entry.kind,
        schema: entry.schema,
        key: entry.key,
        payload,
    }
}

impl Db {
    /// Packs the next rows of the log but the newest `keep`: if there are enough, or those that were in it at a time
    /// already, however few; without a time, all. False once there is nothing to do.
    ///
    /// # Errors
    /// None that leave anything half done.
    pub fn pack_log(&mut self, older_than_ms: Option<u64>, keep: u32) -> Result<bool> {
        let old_pos = marked_pos(&self.conn, older_than_ms)?;
        let Some(step) = plan(&self.conn, old_pos, keep)? else { return Ok(false) };
        self.put_packed(step)
    }

    /// Writes what was planned. False if another step came between; nothing else may have rewritten the log.
    pub(crate) fn put_packed(&mut self, step: Step) -> Result<bool> {
        self.begin()?;
        let result = self.savepoint(|db| {
            if packed_pos(&db.conn)? != step.from {
                return Ok(false);
            }
            if let Some(replaced) = step.replaces {
                block::put(&db.conn, &Block { last: replaced, entries: vec![] })?;
            }
            if let Some(block) = &step.block {
                block::put(&db.conn, block)?;
            }
            let mut statement =
                db.conn.prepare_cached("DELETE FROM op WHERE pos >= ?1 AND pos <= ?2")?;
            for (first, last) in ranges(&step.rows) {
                statement.execute(params![first, last])?;
            }
            schema::put_meta(&db.conn, PACKED_POS, &step.upto.to_le_bytes())?;
            Ok::<_, Error>(true)
        });
        self.commit()?;
        result
    }

    /// Makes blocks anew without the entries that `leaves` names, and those that cannot be read without the runs that
    /// `run_leaves` names. How many went; a run counts as one, whatever was in it.
    pub(crate) fn rewrite_blocks(
        &self,
        names: impl IntoIterator<Item = i64>,
        mut leaves: impl FnMut(&Packed) -> bool,
        mut run_leaves: impl FnMut(&Run) -> bool,
    ) -> Result<u64> {
        let mut gone = 0;
        for name in names {
            let mut block = match block::get(&self.conn, name)? {
                Some(Ok(block)) => block,
                Some(Err(_)) => {
                    gone += damage::drop_runs(&self.conn, name, &mut run_leaves)?;
                    continue;
                }
                None => continue,
            };
            let before = block.entries.len();
            block.entries.retain(|entry| !leaves(entry));
            if block.entries.len() < before {
                gone += (before - block.entries.len()) as u64;
                block::put(&self.conn, &block)?;
            }
        }
        Ok(gone)
    }
}

/// How far the log was at a time, as far as it was noted.
pub(crate) fn marked_pos(conn: &Connection, at_ms: Option<u64>) -> Result<i64> {
    let Some(at_ms) = at_ms else { return Ok(i64::MAX) };
    let sql = "SELECT coalesce(max(pos), 0) FROM log_mark WHERE at_ms <= ?1";
    Ok(conn.prepare_cached(sql)?.query_row([at_ms as i64], |r| r.get(0))?)
}

/// Positions that follow each other, as first and last.
fn ranges(positions: &[i64]) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for pos in positions {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *pos => *last = *pos,
            _ => ranges.push((*pos, *pos)),
        }
    }
    ranges
}
