//! Which blobs records name, and which of those are not here. The first is a view of the records; the second is kept by
//! this node alone, and may be behind what is on the disk, never behind what records name.

use crate::apply::Place;
use crate::blob::BlobId;
use crate::db::Db;
use crate::error::Result;
use crate::id::{Id, StreamId};
use crate::kind::Kind;
use crate::read::Read;
use crate::record::Record;
use crate::tx::Tx;
use crate::value::Value;
use crate::verify::Report;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeSet;

/// A blob that records name and that may not be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Grows with each want that is added.
    pub pos: u64,
    pub blob: BlobId,
    /// Not fetched before somebody asks for it.
    pub rests: bool,
    /// As a peer said.
    pub size_bytes: Option<u64>,
    pub since_ms: u64,
}

/// A blob that is not here and should come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    pub blob: BlobId,
    /// Somebody asked for it, whatever its policy is.
    pub is_asked: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blobs that records name.
    pub named: u64,
    /// Of those, not here as far as is known.
    pub missing: u64,
    /// Of the missing, those that rest until somebody asks for them.
    pub resting: u64,
}

/// The blobs that a record names, by field. Values that lost against others are among them: a person may choose one.
fn named_by(record: &Record) -> BTreeSet<(BlobId, u16)> {
    let fields = record.kind.fields.iter().filter(|field| field.blob);
    let cells = fields.flat_map(|field| record.state.cells_of(field.code));
    let named = |value: &Value| match value {
        Value::Text(text) => BlobId::parse(text),
        Value::Bytes(bytes) => bytes.as_slice().try_into().ok().map(BlobId),
        _ => None,
    };
    cells
        .filter_map(|cell| Some((named(cell.element.as_ref().unwrap_or(&cell.value))?, cell.field)))
        .collect()
}

impl Db {
    pub(crate) fn move_references(
        &self,
        place: &Place,
        old: Option<&Record>,
        new: Option<&Record>,
    ) -> Result<()> {
        let before = old.map(named_by).unwrap_or_default();
        let now = new.map(named_by).unwrap_or_default();
        let erased = if before.is_subset(&now) { false } else { self.is_erased(place)? };
        for (blob, field) in before.difference(&now) {
            let sql = "INSERT OR REPLACE INTO blob_left VALUES (?1, ?2, ?3, ?4, ?5)";
            let at_ms = self.clock.now_ms() as i64;
            let args = params![blob.0, place.kind, place.key.0, at_ms, erased];
            self.conn.prepare_cached(sql)?.execute(args)?;
            let sql =
                "DELETE FROM blob_ref WHERE blob = ?1 AND kind = ?2 AND key = ?3 AND field = ?4";
            let args = params![blob.0, place.kind, place.key.0, field];
            self.conn.prepare_cached(sql)?.execute(args)?;
            let sql = "DELETE FROM blob_want WHERE blob = ?1 \
                       AND NOT EXISTS (SELECT 1 FROM blob_ref WHERE blob = ?1)";
            self.conn.prepare_cached(sql)?.execute([blob.0])?;
        }
        for (blob, field) in now.difference(&before) {
            let sql = "INSERT OR REPLACE INTO blob_ref VALUES (?1, ?2, ?3, ?4, ?5)";
            let args = params![blob.0, place.kind, place.key.0, field, place.stream];
            self.conn.prepare_cached(sql)?.execute(args)?;
            let sql = "INSERT OR IGNORE INTO blob_want (blob, since_ms) VALUES (?1, ?2)";
            let args = params![blob.0, self.clock.now_ms() as i64];
            self.conn.prepare_cached(sql)?.execute(args)?;
        }
        Ok(())
    }

    /// How many references the record has.
    pub(crate) fn verify_references(&self, record: &Record, report: &mut Report) -> Result<u64> {
        let named = named_by(record);
        let sql = "SELECT EXISTS (SELECT 1 FROM blob_ref WHERE blob = ?1 AND kind = ?2 AND key = ?3 AND field = ?4)";
        for (blob, field) in &named {
            let args = params![blob.0, record.kind.code, record.key.0, field];
            if !self.conn.prepare_cached(sql)?.query_row(args, |row| row.get::<_, bool>(0))? {
                let name = record.kind.name;
                report.problem(format!(
                    "{name} {}: blob {blob} is not known to be named by it",
                    record.key
                ));
            }
        }
        Ok(named.len() as u64)
    }

    pub(crate) fn verify_reference_count(
        &self,
        kind: &Kind,
        counted: u64,
        report: &mut Report,
    ) -> Result<()> {
        let sql = "SELECT count(*) FROM blob_ref WHERE kind = ?1";
        let known: i64 = self.conn.query_row(sql, [kind.code], |row| row.get(0))?;
        if known as u64 != counted {
            report.problem(format!(
                "{known} blobs are known to be named by {}, {counted} are",
                kind.plural
            ));
        }
        Ok(())
    }
}

/// The record was erased: so are the files that it named lately.
pub(crate) fn note_erased(conn: &Connection, kind: u16, key: Id) -> Result<()> {
    let sql = "UPDATE blob_left SET erased = 1 WHERE kind = ?1 AND key = ?2";
    conn.prepare_cached(sql)?.execute(params![kind, key.0])?;
    Ok(())
}

const COLUMNS: &str = "pos, blob, rests, size, since_ms";

fn want_of(row: &Row<'_>) -> rusqlite::Result<Want> {
    Ok(Want {
        pos: row.get::<_, i64>(0)? as u64,
        blob: BlobId(row.get(1)?),
        rests: row.get(2)?,
        size_bytes: row.get::<_, Option<i64>>(3)?.map(|size| size as u64),
        since_ms: row.get::<_, i64>(4)? as u64,
    })
}

/// What is to be looked for, oldest first; what rests is left out.
pub fn next_wants(reader: &impl Read, after: u64, limit: usize) -> Result<Vec<Want>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM blob_want WHERE rests = 0 AND pos > ?1 ORDER BY pos LIMIT ?2"
    );
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map(params![after as i64, limit as i64], want_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn counts(reader: &impl Read) -> Result<Counts> {
    let sql = "SELECT (SELECT count(DISTINCT blob) FROM blob_ref), count(*), coalesce(sum(rests), 0) FROM blob_want";
    let counts = reader.conn().prepare_cached(sql)?.query_row([], |row| {
        Ok(Counts {
            named: row.get::<_, i64>(0)? as u64,
            missing: row.get::<_, i64>(1)? as u64,
            resting: row.get::<_, i64>(2)? as u64,
        })
    });
    Ok(counts?)
}

pub fn is_named(reader: &impl Read, blob: &BlobId) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM blob_ref WHERE blob = ?1)";
    Ok(reader.conn().prepare_cached(sql)?.query_row([blob.0], |row| row.get(0))?)
}

/// The scopes of the records that name a blob.
pub fn scopes_of(reader: &impl Read, blob: &BlobId) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT s.scope FROM blob_ref r JOIN stream s ON s.id = r.stream WHERE r.blob = ?1";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let rows = statement.query_map([blob.0], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The streams of the records that name a blob.
pub fn streams_of(reader: &impl Read, blob: &BlobId) -> Result<Vec<StreamId>> {
    let sql = "SELECT DISTINCT s.tenant, s.scope FROM blob_ref r JOIN stream s ON s.id = r.stream WHERE r.blob = ?1";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let stream = |row: &Row<'_>| Ok(StreamId { tenant: Id(row.get(0)?), scope: row.get(1)? });
    let rows = statement.query_map([blob.0], stream)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The blobs that a record names now, those that lost against others among them.
pub fn of_record(reader: &impl Read, kind: u16, key: Id) -> Result<Vec<BlobId>> {
    let Some(plan) = reader.plans().of(kind) else { return Ok(vec![]) };
    if !plan.kind.fields.iter().any(|field| field.blob) {
        return Ok(vec![]);
    }
    let record = reader.get(plan.kind, key)?;
    let mut named: Vec<BlobId> = record.iter().flat_map(named_by).map(|(blob, _)| blob).collect();
    named.dedup();
    Ok(named)
}

/// What is not here and is not left to rest, or was asked for by somebody since `asked_since_ms`: first what was asked for
/// last, then the oldest.
pub fn sought(reader: &impl Read, asked_since_ms: u64, limit: usize) -> Result<Vec<Sought>> {
    let sql = "SELECT blob, asked_ms >= ?1 AS asked FROM blob_want WHERE rests = 0 OR asked_ms >= ?1 \
               ORDER BY asked IS NOT 1, asked_ms DESC, pos LIMIT ?2";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![asked_since_ms as i64, limit as i64], |row| {
        let is_asked = row.get::<_, Option<bool>>(1)?.unwrap_or_default();
        Ok(Sought { blob: BlobId(row.get(0)?), is_asked })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// When somebody last asked in vain for a blob that is not here.
pub fn asked_at(reader: &impl Read, blob: &BlobId) -> Result<Option<u64>> {
    let sql = "SELECT asked_ms FROM blob_want WHERE blob = ?1";
    let asked: Option<Option<i64>> =
        reader.conn().prepare_cached(sql)?.query_row([blob.0], |row| row.get(0)).optional()?;
    Ok(asked.flatten().map(|ms| ms as u64))
}

/// Notes that somebody asked for a blob that is not here, if records name it.
pub fn note_asked(tx: &mut Tx<'_>, blob: &BlobId) -> Result<()> {
    let sql = "INSERT INTO blob_want (blob, since_ms, asked_ms) SELECT ?1, ?2, ?2 \
               WHERE EXISTS (SELECT 1 FROM blob_ref WHERE blob = ?1) \
               ON CONFLICT (blob) DO UPDATE SET asked_ms = excluded.asked_ms";
    tx.conn().prepare_cached(sql)?.execute(params![blob.0, tx.now_ms() as i64])?;
    Ok(())
}

/// Blobs that records name and that are not noted as missing, in the order of their ids.
pub fn held(reader: &impl Read, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>> {
    let sql = "SELECT DISTINCT blob FROM blob_ref r WHERE blob > ?1 \
               AND NOT EXISTS (SELECT 1 FROM blob_want w WHERE w.blob = r.blob) ORDER BY blob LIMIT ?2";
    let after = after.map(|blob| blob.0.to_vec()).unwrap_or_default();
    let mut statement = reader.conn().prepare_cached(sql)?;
    let rows = statement.query_map(params![after, limit as i64], |row| Ok(BlobId(row.get(0)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Notes that blobs are here.
pub fn note_here(tx: &mut Tx<'_>, blobs: &[BlobId]) -> Result<()> {
    for blob in blobs {
        tx.conn().prepare_cached("DELETE FROM blob_want WHERE blob = ?1")?.execute([blob.0])?;
    }
    Ok(())
}

/// Notes that blobs are not here, if records name them.
pub fn note_missing(tx: &mut Tx<'_>, blobs: &[BlobId], rests: bool) -> Result<()> {
    let sql = "INSERT INTO blob_want (blob, rests, since_ms) SELECT ?1, ?2, ?3 \
               WHERE EXISTS (SELECT 1 FROM blob_ref WHERE blob = ?1) \
               ON CONFLICT (blob) DO UPDATE SET rests = excluded.rests";
    for blob in blobs {
        let args = params![blob.0, rests, tx.now_ms() as i64];
        tx.conn().prepare_cached(sql)?.execute(args)?;
    }
    Ok(())
}

/// Lets wants rest until somebody asks for them.
pub fn note_resting(tx: &mut Tx<'_>, blobs: &[(BlobId, Option<u64>)]) -> Result<()> {
    let sql = "UPDATE blob_want SET rests = 1, size = coalesce(?2, size) WHERE blob = ?1";
    for (blob, size) in blobs {
        let args = params![blob.0, size.map(|size| size as i64)];
        tx.conn().prepare_cached(sql)?.execute(args)?;
    }
    Ok(())
}

/// Looks for all wants anew: other settings may fetch what rested.
pub fn wake_resting(tx: &mut Tx<'_>) -> Result<()> {
    tx.conn().execute("UPDATE blob_want SET rests = 0 WHERE rests = 1", [])?;
    Ok(())
}

/// Since when a blob that is here was seen to be named by nothing.
pub fn loose_since(reader: &impl Read, blob: &BlobId) -> Result<Option<u64>> {
    let sql = "SELECT since_ms FROM blob_loose WHERE blob = ?1";
    let since: Option<i64> =
        reader.conn().prepare_cached(sql)?.query_row([blob.0], |row| row.get(0)).optional()?;
    Ok(since.map(|ms| ms as u64))
}

pub fn note_loose(tx: &mut Tx<'_>, blobs: &[BlobId]) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO blob_loose VALUES (?1, ?2)";
    for blob in blobs {
        tx.conn().prepare_cached(sql)?.execute(params![blob.0, tx.now_ms() as i64])?;
    }
    Ok(())
}

/// Forgets it of those that are gone, and of all that are named again.
pub fn forget_loose(tx: &mut Tx<'_>, gone: &[BlobId]) -> Result<()> {
    for blob in gone {
        tx.conn().prepare_cached("DELETE FROM blob_loose WHERE blob = ?1")?.execute([blob.0])?;
    }
    let sql = "DELETE FROM blob_loose WHERE EXISTS (SELECT 1 FROM blob_ref r WHERE r.blob = blob_loose.blob)";
    tx.conn().execute(sql, [])?;
    Ok(())
}

/// Blobs of erased records that left them since a time, Unix milliseconds, in the order of their ids.
pub fn erased(
    reader: &impl Read,
    since_ms: u64,
    after: Option<BlobId>,
    limit: usize,
) -> Result<Vec<BlobId>> {
    let sql = "SELECT DISTINCT blob FROM blob_left WHERE erased = 1 AND at_ms >= ?1 AND blob > ?2 ORDER BY blob LIMIT ?3";
    let after = after.map(|blob| blob.0.to_vec()).unwrap_or_default();
    let mut statement = reader.conn().prepare_cached(sql)?;
    let args = params![since_ms as i64, after, limit as i64];
    let rows = statement.query_map(args, |row| Ok(BlobId(row.get(0)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether a blob was one of an erased record, and no record names it now.
pub fn is_erased(reader: &impl Read, blob: &BlobId) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM blob_left WHERE blob = ?1 AND erased = 1) \
               AND NOT EXISTS (SELECT 1 FROM blob_ref WHERE blob = ?1)";
    Ok(reader.conn().prepare_cached(sql)?.query_row([blob.0], |row| row.get(0))?)
}

/// A blob is about to be named by another record, whatever became of those before.
pub fn forget_erased(tx: &mut Tx<'_>, blob: &BlobId) -> Result<()> {
    tx.conn().prepare_cached("DELETE FROM blob_left WHERE blob = ?1")?.execute([blob.0])?;
    Ok(())
}

/// Forgets which blobs left records before a time, Unix milliseconds, but those of erased records.
pub fn forget_left(tx: &mut Tx<'_>, before_ms: u64) -> Result<()> {
    let sql = "DELETE FROM blob_left WHERE erased = 0 AND at_ms < ?1";
    tx.conn().prepare_cached(sql)?.execute([before_ms as i64])?;
    Ok(())
}
