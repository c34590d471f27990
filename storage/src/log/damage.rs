//! Blocks that cannot be read. Of such a one its runs are known, from a table beside it: what was in it, but not what that
//! said. Never guesses more.

use crate::error::Result;
use crate::read::Plans;
use crate::schema;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// Ops of one origin in one stream, by their numbers, that stand in a block.
pub(crate) struct Run {
    /// The block's name: no op in it has a later position.
    pub block: i64,
    pub stream: i64,
    pub origin: i64,
    pub low: u64,
    pub high: u64,
}

pub(crate) fn runs(conn: &Connection, block: i64) -> Result<Vec<Run>> {
    let sql = "SELECT stream, origin, low, high FROM block_run WHERE block = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([block], |r| {
        let (low, high) = (r.get::<_, i64>(2)? as u64, r.get::<_, i64>(3)? as u64);
        Ok(Run { block, stream: r.get(0)?, origin: r.get(1)?, low, high })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The position of a block's first op, before all others in it.
pub(crate) fn first(conn: &Connection, block: i64) -> Result<i64> {
    let sql = "SELECT first FROM block WHERE last = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([block], |r| r.get(0))?)
}

/// Takes out of a block the runs that `leaves` names, and the block with its last one. How many went.
pub(crate) fn drop_runs(
    conn: &Connection,
    block: i64,
    mut leaves: impl FnMut(&Run) -> bool,
) -> Result<u64> {
    let (mut gone, mut left) = (0, 0);
    let sql = "DELETE FROM block_run WHERE stream = ?1 AND origin = ?2 AND low = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    for run in runs(conn, block)? {
        if leaves(&run) {
            statement.execute(params![run.stream, run.origin, run.low as i64])?;
            gone += 1;
        } else {
            left += 1;
        }
    }
    if left == 0 {
        conn.prepare_cached("DELETE FROM block WHERE last = ?1")?.execute([block])?;
    }
    Ok(gone)
}

/// Throws away the bytes of a block; its runs stay, and it stays damaged. False if it had none any more.
pub(crate) fn empty(conn: &Connection, block: i64) -> Result<bool> {
    let sql = "UPDATE block SET ops = x'' WHERE last = ?1 AND length(ops) > 0";
    Ok(conn.prepare_cached(sql)?.execute([block])? > 0)
}

/// Puts all searched records of streams onto the search index's list, since it cannot be told which of them changed.
pub(crate) fn queue(conn: &Connection, plans: &Plans, streams: &BTreeSet<i64>) -> Result<()> {
    for stream in streams {
        for kind in plans.kinds.iter().filter(|kind| kind.search.is_some()) {
            let (table, code) = (schema::table_of(kind), kind.code);
            let sql = format!(
                "INSERT INTO dirty (kind, key) SELECT {code}, key FROM {table} WHERE stream = ?1"
            );
            conn.prepare_cached(&sql)?.execute([stream])?;
        }
    }
    Ok(())
}
