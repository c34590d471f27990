//! Unique names without a UNIQUE constraint: claims on (tenant, space, name), settled by a rule over the set of
//! claims, so that every node that has the same claims gives each name to the same record.
//!
//! A confirmed claim first, then the earliest, then the lower dot. A loser answers to `name~suffix`.

use crate::clock::Hlc;
use crate::error::Result;
use crate::id::{Dot, Id};
use rusqlite::{Connection, OptionalExtension, params};
use unicode_normalization::UnicodeNormalization;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    pub key: Id,
    pub kind: u16,
    pub field: u16,
    pub hlc: Hlc,
    pub dot: Dot,
    pub confirmed: bool,
    pub won: bool,
}

/// Names are compared in NFKC, lower case, without space around them.
pub fn normalise(name: &str) -> String {
    let name = name.trim();
    // Which NFKC leaves alone.
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfkc().flat_map(char::to_lowercase).collect()
}

/// Splits `name~suffix` into the name claimed and the suffix of who lost it.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('~') {
        Some((base, suffix)) if suffix.len() == 6 => (base, Some(suffix)),
        _ => (name, None),
    }
}

/// What a loser answers to.
pub fn lost_name(name: &str, key: Id) -> String {
    format!("{}~{}", name.trim(), key.suffix())
}

pub fn holder(conn: &Connection, tenant: Id, space: &str, name: &str) -> Result<Option<Id>> {
    let name = normalise(name);
    let winner = "SELECT key FROM claim WHERE tenant = ?1 AND space = ?2 AND name = ?3 AND won = 1";
    let mut statement = conn.prepare_cached(winner)?;
    let found: Option<[u8; 16]> =
        statement.query_row(params![tenant.0, space, name], |r| r.get(0)).optional()?;
    if let Some(key) = found {
        return Ok(Some(Id(key)));
    }
    let (base, Some(suffix)) = split(&name) else { return Ok(None) };
    let losers = claimants(conn, tenant, space, base)?.into_iter().filter(|claim| !claim.won);
    Ok(losers.map(|claim| claim.key).find(|key| key.suffix() == suffix))
}

/// All claims on one name, the one that holds it first.
pub fn claimants(conn: &Connection, tenant: Id, space: &str, name: &str) -> Result<Vec<Claim>> {
    let sql = "SELECT key, kind, field, hlc, dot, confirmed, won FROM claim \
               WHERE tenant = ?1 AND space = ?2 AND name = ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params![tenant.0, space, name], |r| {
        Ok(Claim {
            key: Id(r.get(0)?),
            kind: r.get(1)?,
            field: r.get(2)?,
            hlc: Hlc(r.get::<_, i64>(3)? as u64),
            dot: Dot::from_slice(r.get_ref(4)?.as_blob().unwrap_or_default()).unwrap_or_default(),
            confirmed: r.get(5)?,
            won: r.get(6)?,
        })
    })?;
    let mut claims = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    claims.sort_by_key(|claim| (!claim.confirmed, claim.hlc, claim.dot, claim.key));
    Ok(claims)
}

pub fn put(conn: &Connection, tenant: Id, space: &str, name: &str, claim: &Claim) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO claim VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    conn.prepare_cached(sql)?.execute(params![
        tenant.0,
        space,
        name,
        claim.key.0,
        claim.kind,
        claim.field,
        claim.hlc.0 as i64,
        claim.dot.to_bytes(),
        claim.confirmed,
        claim.won
    ])?;
    Ok(())
}

pub fn remove(conn: &Connection, tenant: Id, space: &str, name: &str, key: Id) -> Result<()> {
    let sql = "DELETE FROM claim WHERE tenant = ?1 AND space = ?2 AND name = ?3 AND key = ?4";
    conn.prepare_cached(sql)?.execute(params![tenant.0, space, name, key.0])?;
    Ok(())
}
