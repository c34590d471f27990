//! First answers to requests that name an idempotency key, so that a repeat does nothing a second time.

use crate::error::Result;
use crate::read::Read;
use crate::tx::Tx;
use rusqlite::{OptionalExtension, params};

/// Answers are kept a day.
pub const KEPT_MS: u64 = 86_400_000;

#[derive(Clone, Debug)]
pub struct Stored {
    pub request_hash: [u8; 32],
    pub status: u16,
    pub body: Vec<u8>,
}

/// `scope` is who asks: tenant and user, or address.
pub fn find(reader: &impl Read, scope: &[u8], key: &str) -> Result<Option<Stored>> {
    let sql = "SELECT request, status, body FROM answer WHERE scope = ?1 AND name = ?2";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let row = statement.query_row(params![scope, key], |r| {
        Ok(Stored { request_hash: r.get(0)?, status: r.get(1)?, body: r.get(2)? })
    });
    Ok(row.optional()?)
}

/// Keeps an answer, and drops those that are too old.
pub fn put(tx: &mut Tx<'_>, scope: &[u8], key: &str, stored: &Stored) -> Result<()> {
    let now_ms = tx.now_ms();
    let old = now_ms.saturating_sub(KEPT_MS) as i64;
    tx.conn().prepare_cached("DELETE FROM answer WHERE at_ms < ?1")?.execute([old])?;
    let sql = "INSERT OR REPLACE INTO answer VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let args = params![scope, key, now_ms as i64, stored.request_hash, stored.status, stored.body];
    tx.conn().prepare_cached(sql)?.execute(args)?;
    Ok(())
}

/// Forgets a key: whoever comes under it next is the first.
pub fn remove(tx: &mut Tx<'_>, scope: &[u8], key: &str) -> Result<()> {
    let sql = "DELETE FROM answer WHERE scope = ?1 AND name = ?2";
    tx.conn().prepare_cached(sql)?.execute(params![scope, key])?;
    Ok(())
}
