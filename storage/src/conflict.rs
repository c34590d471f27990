//! The conflict inbox: what nodes wrote apart from each other and one rule had to settle. Rows say where to look;
//! the values are read from the records, so that the inbox can never disagree with them.

use crate::claim;
use crate::clock::Hlc;
use crate::codec;
use crate::error::Result;
use crate::id::{Dot, Id};
use crate::kind::Kind;
use crate::read::{Plans, load};
use crate::record::Record;
use crate::state::LostWrite;
use crate::value::Value;
use rusqlite::{Connection, OptionalExtension, params};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// One register written on two nodes.
    Concurrent,
    /// One name claimed by two records.
    Claim,
    /// A write that met the deletion of its record.
    LostWrite,
    /// A removal overruled by an edit.
    Revived,
    /// Two moves that made a circle.
    Cycle,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrent => "concurrent",
            Self::Claim => "name_taken",
            Self::LostWrite => "edit_of_deleted",
            Self::Revived => "edit_overruled_deletion",
            Self::Cycle => "cycle",
        }
    }

    fn of(code: u8) -> Self {
        match code {
            0 => Self::Concurrent,
            1 => Self::Claim,
            2 => Self::LostWrite,
            3 => Self::Revived,
            _ => Self::Cycle,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Conflict {
    pub id: Id,
    pub tenant: Id,
    pub kind: u16,
    pub kind_name: String,
    pub key: Id,
    pub cause: Cause,
    /// The field's name, "" for what is about the whole record.
    pub field: String,
    pub field_code: u16,
    pub at_ms: u64,
    pub values: Vec<ConflictValue>,
    pub explanation: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictValue {
    pub value: Value,
    /// The record that the value belongs to: for names, each value another's.
    pub key: Id,
    /// Of the op that wrote it.
    pub dot: Dot,
    pub hlc: Hlc,
    pub won: bool,
}

pub(crate) fn id_of(kind: u16, key: Id, cause: Cause, field: u16, extra: &[u8]) -> Id {
    Id::natural(&[
        b"conflict",
        &kind.to_le_bytes(),
        &key.0,
        &[cause as u8],
        &field.to_le_bytes(),
        extra,
    ])
}

pub(crate) struct Entry<'a> {
    pub tenant: Id,
    pub stream: i64,
    pub kind: u16,
    pub key: Id,
    pub cause: Cause,
    pub field: u16,
    pub hlc: Hlc,
    pub extra: &'a [u8],
    pub detail: &'a [u8],
}

pub(crate) fn put(conn: &Connection, entry: &Entry<'_>) -> Result<()> {
    let id = id_of(entry.kind, entry.key, entry.cause, entry.field, entry.extra);
    let sql = "INSERT OR REPLACE INTO conflict VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    conn.prepare_cached(sql)?.execute(params![
        id.0,
        entry.tenant.0,
        entry.stream,
        entry.kind,
        entry.key.0,
        entry.cause as u8,
        entry.field,
        entry.hlc.0 as i64,
        entry.detail
    ])?;
    Ok(())
}

pub(crate) fn remove(conn: &Connection, kind: u16, key: Id, cause: Cause) -> Result<()> {
    let sql = "DELETE FROM conflict WHERE kind = ?1 AND key = ?2 AND cause = ?3";
    conn.prepare_cached(sql)?.execute(params![kind, key.0, cause as u8])?;
    Ok(())
}

pub(crate) fn remove_id(conn: &Connection, id: Id) -> Result<()> {
    conn.prepare_cached("DELETE FROM conflict WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}

/// Drops what an earlier release told of fields that are silent now.
pub(crate) fn hush(conn: &Connection, kind: &Kind) -> Result<()> {
    let silent: Vec<Option<u16>> = if kind.silent {
        vec![None]
    } else {
        kind.fields.iter().filter(|field| field.silent).map(|f| Some(f.code)).collect()
    };
    let which = "kind = ?1 AND (?2 IS NULL OR field = ?2) AND cause IN (?3, ?4)";
    for field in silent {
        let these = params![kind.code, field, Cause::Concurrent as u8, Cause::LostWrite as u8];
        // To delete is a write, and a full disk takes none.
        let any = format!("SELECT EXISTS (SELECT 1 FROM conflict WHERE {which})");
        if conn.prepare_cached(&any)?.query_row(these, |r| r.get(0))? {
            conn.execute(&format!("DELETE FROM conflict WHERE {which}"), these)?;
        }
    }
    Ok(())
}

/// Lost writes of one record, with the ids of their rows.
pub(crate) fn lost_writes(conn: &Connection, kind: u16, key: Id) -> Result<Vec<(Id, LostWrite)>> {
    let sql = "SELECT id, detail FROM conflict WHERE kind = ?1 AND key = ?2 AND cause = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![kind, key.0, Cause::LostWrite as u8])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let detail: Vec<u8> = row.get(1)?;
        all.push((Id(row.get(0)?), codec::decode(&detail)?));
    }
    Ok(all)
}

/// The fields of a record with concurrent values that differ and that people look at.
pub(crate) fn disputed(record: &Record) -> Vec<u16> {
    let mut fields = Vec::new();
    for pair in record.state.cells.windows(2) {
        let [a, b] = pair else { continue };
        let is_one = a.field == b.field && a.element.is_none() && b.element.is_none();
        let clash = is_one && a.value != b.value && !record.kind.is_silent(a.field);
        if clash && fields.last() != Some(&a.field) {
            fields.push(a.field);
        }
    }
    fields
}

const COLUMNS: &str = "id, tenant, kind, key, cause, field, hlc, detail";

struct Row {
    id: Id,
    tenant: Id,
    kind: u16,
    key: Id,
    cause: Cause,
    field: u16,
    hlc: Hlc,
    detail: Vec<u8>,
}

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        id: Id(row.get(0)?),
        tenant: Id(row.get(1)?),
        kind: row.get(2)?,
        key: Id(row.get(3)?),
        cause: Cause::of(row.get(4)?),
        field: row.get(5)?,
        hlc: Hlc(row.get::<_, i64>(6)? as u64),
        detail: row.get(7)?,
    })
}

pub(crate) fn list(
    conn: &Connection,
    plans: &Plans,
    tenant: Option<Id>,
    limit: usize,
    after: Option<Id>,
) -> Result<Vec<Conflict>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM conflict WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR id > ?2) \
         ORDER BY id LIMIT ?3"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let limit = limit.min(1_000) as i64;
    let rows =
        statement.query_map(params![tenant.map(|t| t.0), after.map(|a| a.0), limit], row_of)?;
    let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    rows.into_iter().map(|row| explain(conn, plans, row)).collect()
}

pub(crate) fn find(conn: &Connection, plans: &Plans, id: Id) -> Result<Option<Conflict>> {
    let sql = format!("SELECT {COLUMNS} FROM conflict WHERE id = ?1");
    let row = conn.prepare_cached(&sql)?.query_row([id.0], row_of).optional()?;
    row.map(|row| explain(conn, plans, row)).transpose()
}

fn explain(conn: &Connection, plans: &Plans, row: Row) -> Result<Conflict> {
    let plan = plans.of(row.kind);
    let field = plan.and_then(|p| p.kind.field_by_code(row.field));
    let name = plan.map_or_else(|| format!("kind {}", row.kind), |p| p.kind.name.to_owned());
    let field_name = match field {
        Some(field) => field.name.to_owned(),
        None if row.cause == Cause::Revived => String::new(),
        None => row.field.to_string(),
    };
    let record = plan.map(|plan| load(conn, plan, row.key)).transpose()?.flatten();
    let mut values = Vec::new();
    if let Some(record) = record.filter(|_| row.cause != Cause::LostWrite) {
        let winner = record.state.register(row.field).map(|c| c.dot);
        let cells = record.state.cells_of(row.field).iter().filter(|c| c.element.is_none());
        let of = |c: &crate::state::Cell| ConflictValue {
            value: c.value.clone(),
            key: row.key,
            dot: c.dot,
            hlc: c.hlc,
            won: winner == Some(c.dot),
        };
        values.extend(cells.map(of));
        if let (Cause::Claim, Some(space)) = (row.cause, field.and_then(|f| f.claim)) {
            let wanted = field.map(|f| record.wanted(f).to_owned()).unwrap_or_default();
            let claims = claim::claimants(conn, row.tenant, space, &claim::normalise(&wanted))?;
            let of = |c: claim::Claim| ConflictValue {
                value: Value::Text(wanted.clone()),
                key: c.key,
                dot: c.dot,
                hlc: c.hlc,
                won: c.won,
            };
            values = claims.into_iter().map(of).collect();
        }
    } else if row.cause == Cause::LostWrite {
        let lost: LostWrite = codec::decode(&row.detail)?;
        let value = lost.element.unwrap_or(lost.value);
        values.push(ConflictValue {
            value,
            key: row.key,
            dot: lost.dot,
            hlc: lost.hlc,
            won: false,
        });
    }
    let explanation = match row.cause {
        Cause::Concurrent => format!(
            "{field_name} was written on two nodes apart from each other; the later one shows"
        ),
        Cause::Claim => format!(
            "another {name} holds this {field_name}; this one answers to its name with a suffix"
        ),
        Cause::LostWrite => format!(
            "{field_name} was written while the {name} was deleted elsewhere; the deletion stands"
        ),
        Cause::Revived => format!(
            "somebody deleted the {name} while somebody else edited it on another node; the edit stands and the {name} is kept"
        ),
        Cause::Cycle => {
            let plural = plan.map_or("records", |p| p.kind.plural);
            format!("moves of {plural} made a circle; the latest of them does not count")
        }
    };
    Ok(Conflict {
        id: row.id,
        tenant: row.tenant,
        kind: row.kind,
        kind_name: name,
        key: row.key,
        cause: row.cause,
        field: field_name,
        field_code: row.field,
        at_ms: row.hlc.ms(),
        values,
        explanation,
    })
}
