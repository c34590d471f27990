//! Statements about who may what, as this node keeps them: the latest of each issuer about each holder. Local: once a
//! statement was heard an earlier one never counts again, whatever becomes of the record that brought it. What stands in
//! one, and whether it was signed, is for whoever opens it.

use crate::error::Result;
use crate::id::NodeId;
use crate::read::Read;
use crate::tx::Tx;
use rusqlite::{OptionalExtension, params};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub issuer: NodeId,
    pub holder: NodeId,
    /// Rises with each statement of one issuer about one holder.
    pub serial: u64,
    pub bytes: Vec<u8>,
}

/// A node keeps no more statements of others than this; its own are as many as its peers.
pub const MAX_STATEMENTS: usize = 4_096;

const COLUMNS: &str = "issuer, holder, serial, statement";

fn statement_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Statement> {
    Ok(Statement {
        issuer: NodeId(row.get(0)?),
        holder: NodeId(row.get(1)?),
        serial: row.get::<_, i64>(2)? as u64,
        bytes: row.get(3)?,
    })
}

pub fn list(reader: &impl Read) -> Result<Vec<Statement>> {
    let sql = format!("SELECT {COLUMNS} FROM granted ORDER BY issuer, holder LIMIT ?1");
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map([2 * MAX_STATEMENTS as i64], statement_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn find(reader: &impl Read, issuer: NodeId, holder: NodeId) -> Result<Option<Statement>> {
    let sql = format!("SELECT {COLUMNS} FROM granted WHERE issuer = ?1 AND holder = ?2");
    let mut statement = reader.conn().prepare_cached(&sql)?;
    Ok(statement.query_row([issuer.0, holder.0], statement_of).optional()?)
}

/// Keeps a statement that was opened and found to be sound. False if a later one is kept, or this one.
pub fn keep(tx: &mut Tx<'_>, statement: &Statement) -> Result<bool> {
    let Statement { issuer, holder, serial, bytes } = statement;
    let sql = "INSERT INTO granted VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE \
               SET serial = excluded.serial, statement = excluded.statement WHERE excluded.serial > serial";
    let args = params![issuer.0, holder.0, *serial as i64, bytes];
    Ok(tx.conn().prepare_cached(sql)?.execute(args)? > 0)
}

pub fn count(reader: &impl Read) -> Result<usize> {
    let sql = "SELECT count(*) FROM granted";
    let count: i64 = reader.conn().prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(count as usize)
}
