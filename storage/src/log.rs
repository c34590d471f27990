//! The log: every op that this node took, by position, in the order in which it took them. New ops are rows; later the
//! small ones stand together in compressed blocks. The one place, with its folder, that reads those tables.

pub(crate) mod block;
pub(crate) mod damage;
pub(crate) mod pack;

use crate::clock::Hlc;
use crate::error::{Error, Result};
use crate::id::{Id, Origin};
use block::Block;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// An op as the log holds it: streams and origins by their short numbers.
pub(crate) struct Entry<'a> {
    pub pos: i64,
    pub stream: i64,
    pub origin: i64,
    pub seq: u64,
    pub hlc: Hlc,
    pub kind: u16,
    pub schema: u16,
    pub key: Id,
    payload: Source<'a>,
}

/// Read only if somebody asks: most of a long row stands on pages of its own.
enum Source<'a> {
    Row(&'a Row<'a>),
    Block(&'a [u8]),
}

const COLUMNS: &str = "pos, stream, origin, seq, hlc, kind, schema, key, payload";

impl<'a> Entry<'a> {
    fn of_row(row: &'a Row<'a>) -> Result<Self> {
        Ok(Self {
            pos: row.get(0)?,
            stream: row.get(1)?,
            origin: row.get(2)?,
            seq: row.get::<_, i64>(3)? as u64,
            hlc: Hlc(row.get::<_, i64>(4)? as u64),
            kind: row.get(5)?,
            schema: row.get(6)?,
            key: Id(row.get(7)?),
            payload: Source::Row(row),
        })
    }

    fn of_block(block: &'a Block, at: usize) -> Self {
        let entry = &block.entries[at];
        Self {
            pos: entry.pos,
            stream: entry.stream,
            origin: entry.origin,
            seq: entry.seq,
            hlc: entry.hlc,
            kind: entry.kind,
            schema: entry.schema,
            key: entry.key,
            payload: Source::Block(&entry.payload),
        }
    }

    pub fn is_packed(&self) -> bool {
        matches!(self.payload, Source::Block(_))
    }

    /// As [`crate::codec::unpack`] takes it.
    pub fn payload(&self) -> Result<&[u8]> {
        match &self.payload {
            Source::Row(row) => Ok(row.get_ref(8)?.as_blob().unwrap_or_default()),
            Source::Block(bytes) => Ok(bytes),
        }
    }
}

/// What a walk through the log meets.
pub(crate) enum Met<'m, 'a> {
    Op(&'m Entry<'a>),
    /// A block that cannot be read, by its name, after the rows that stand among its ops or before them.
    Damaged(i64, Error),
}

/// Calls `each` with the ops from a position on, in order, and with blocks that cannot be read, until it breaks.
pub(crate) fn scan_with(
    conn: &Connection,
    from: i64,
    mut each: impl FnMut(Met<'_, '_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut at = from;
    while let Some((upto, block)) = block::next(conn, at)? {
        let (block, damage) = match block {
            Ok(block) => (Some(block), None),
            Err(damage) => (None, Some(damage)),
        };
        let part = scan_part(conn, at, upto, block.as_ref(), &mut |entry| each(Met::Op(entry)))?;
        if part.is_break() {
            return Ok(());
        }
        if let Some(damage) = damage
            && each(Met::Damaged(upto, damage))?.is_break()
        {
            return Ok(());
        }
        at = upto + 1;
    }
    let _ = scan_part(conn, at, i64::MAX, None, &mut |entry| each(Met::Op(entry)))?;
    Ok(())
}

/// Rows and the entries of one block, both in order.
fn scan_part(
    conn: &Connection,
    from: i64,
    upto: i64,
    block: Option<&Block>,
    each: &mut impl FnMut(&Entry<'_>) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let sql = format!("SELECT {COLUMNS} FROM op WHERE pos >= ?1 AND pos <= ?2 ORDER BY pos");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![from, upto])?;
    let entries = block.map_or(&[][..], |block| &block.entries);
    let mut next = entries.partition_point(|entry| entry.pos < from);
    while let Some(row) = rows.next()? {
        let entry = Entry::of_row(row)?;
        while let Some(block) =
            block.filter(|b| b.entries.get(next).is_some_and(|e| e.pos < entry.pos))
        {
            if each(&Entry::of_block(block, next))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            next += 1;
        }
        if each(&entry)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    if let Some(block) = block {
        for at in next..block.entries.len() {
            if each(&Entry::of_block(block, at))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The first position that holds an op, 0 if none does.
pub(crate) fn first(conn: &Connection) -> Result<i64> {
    let sql = "SELECT min(pos) FROM (SELECT min(pos) AS pos FROM op UNION ALL SELECT min(first) FROM block)";
    let pos: Option<i64> = conn.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
    Ok(pos.unwrap_or(0))
}

/// The last position that holds an op, 0 if none does.
pub(crate) fn last(conn: &Connection) -> Result<i64> {
    let sql = "SELECT max(pos) FROM (SELECT max(pos) AS pos FROM op UNION ALL SELECT max(last) FROM block)";
    let pos: Option<i64> = conn.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
    Ok(pos.unwrap_or(0))
}

/// A position from which on the op with this number can be found, no later than its own. None if it is not in the log.
pub(crate) fn near(conn: &Connection, stream: i64, origin: i64, seq: u64) -> Result<Option<i64>> {
    let args = params![stream, origin, seq as i64];
    let sql = "SELECT pos FROM op WHERE stream = ?1 AND origin = ?2 AND seq = ?3";
    let pos = conn.prepare_cached(sql)?.query_row(args, |r| r.get(0)).optional()?;
    if pos.is_some() {
        return Ok(pos);
    }
    let sql = "SELECT b.first, r.high FROM block_run r JOIN block b ON b.last = r.block \
               WHERE r.stream = ?1 AND r.origin = ?2 AND r.low <= ?3 ORDER BY r.low DESC LIMIT 1";
    let run = conn
        .prepare_cached(sql)?
        .query_row(args, |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))
        .optional()?;
    Ok(run.filter(|(_, high)| *high >= seq as i64).map(|(first, _)| first))
}

/// Origins by their short numbers.
pub(crate) fn origins(conn: &Connection) -> Result<HashMap<i64, Origin>> {
    let mut statement = conn.prepare_cached("SELECT id, bytes FROM origin")?;
    let mut rows = statement.query([])?;
    let mut origins = HashMap::new();
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(1)?.as_blob().unwrap_or_default();
        if let Some(origin) = Origin::from_slice(bytes) {
            origins.insert(row.get(0)?, origin);
        }
    }
    Ok(origins)
}
