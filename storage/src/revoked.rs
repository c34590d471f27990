//! Nodes that were removed from the whole network, as this node keeps it. Local: what was heard once holds here, whatever
//! becomes of the record that said so.

use crate::error::Result;
use crate::id::NodeId;
use crate::read::Read;
use crate::tx::Tx;
use rusqlite::params;

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
