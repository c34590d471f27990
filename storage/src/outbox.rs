//! Events, written in the transaction of the command that caused them, read by position.

use crate::error::Result;
use crate::id::Id;
use crate::read::Read;
use crate::tx::Tx;
use rusqlite::params;

#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// `service.entity.action`
    pub event_type: &'a str,
    pub tenant: Id,
    pub user: Option<Id>,
    pub payload: serde_json::Value,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct StoredEvent {
    #[serde(skip)]
    pub pos: u64,
    pub event_id: Id,
    pub event_type: String,
    /// Unix milliseconds.
    pub timestamp: u64,
    pub tenant_id: Id,
    pub user_id: Option<Id>,
    pub payload: serde_json::Value,
}

/// Older events than this many are dropped.
pub const KEPT: u64 = 100_000;

impl Tx<'_> {
    pub fn emit(&mut self, event: &Event<'_>) -> Result<Id> {
        let id = self.new_id();
        let sql = "INSERT INTO outbox (id, type, at_ms, tenant, user, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.conn().prepare_cached(sql)?.execute(params![
            id.0,
            event.event_type,
            self.now_ms() as i64,
            event.tenant.0,
            event.user.map(|u| u.0),
            event.payload.to_string()
        ])?;
        Ok(id)
    }

    /// Drops events beyond those kept. Returns how many.
    pub fn trim_outbox(&mut self) -> Result<usize> {
        let sql = "DELETE FROM outbox WHERE pos <= (SELECT max(pos) FROM outbox) - ?1";
        Ok(self.conn().execute(sql, [KEPT as i64])?)
    }
}

/// Events of one tenant after a position, in order.
pub fn events_after(
    reader: &impl Read,
    tenant: Option<Id>,
    pos: u64,
    limit: usize,
) -> Result<Vec<StoredEvent>> {
    let sql = "SELECT pos, id, type, at_ms, tenant, user, payload FROM outbox \
               WHERE pos > ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY pos LIMIT ?3";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let rows = statement.query_map(
        params![pos as i64, tenant.map(|t| t.0), limit.min(1_000) as i64],
        |r| {
            let payload: String = r.get(6)?;
            Ok(StoredEvent {
                pos: r.get::<_, i64>(0)? as u64,
                event_id: Id(r.get(1)?),
                event_type: r.get(2)?,
                timestamp: r.get::<_, i64>(3)? as u64,
                tenant_id: Id(r.get(4)?),
                user_id: r.get::<_, Option<[u8; 16]>>(5)?.map(Id),
                payload: serde_json::from_str(&payload).unwrap_or_default(),
            })
        },
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The position of the newest event.
pub fn last_position(reader: &impl Read) -> Result<u64> {
    let pos: i64 =
        reader.conn().query_row("SELECT coalesce(max(pos), 0) FROM outbox", [], |r| r.get(0))?;
    Ok(pos as u64)
}

/// The position of the oldest event that is kept; 1 if there was none yet.
pub fn first_position(reader: &impl Read) -> Result<u64> {
    let first: Option<i64> =
        reader.conn().query_row("SELECT min(pos) FROM outbox", [], |r| r.get(0))?;
    Ok(first.unwrap_or(1) as u64)
}
