//! The buckets that this node meets others in, what it knows of the objects in them, and who else takes from them. Local:
//! every node has its own. What an object says is kept as its reader encoded it.

use crate::carries::Carries;
use crate::codec;
use crate::digest::Digest;
use crate::error::Result;
use crate::id::{NodeId, StreamId};
use crate::read::Read;
use crate::tx::Tx;
use crate::vector::Vector;
use bincode::{Decode, Encode};
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeMap;

/// A node has no more buckets than this.
pub const MAX_BUCKETS: usize = 16;

#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    pub id: i64,
    pub name: String,
    pub url: String,
    /// How it is reached, with the secrets for that; encoded.
    pub access: Vec<u8>,
    /// Whoever can read the bucket can read what this node leaves there.
    pub is_open: bool,
    pub added_ms: u64,
    /// The end of the last round that went well.
    pub contact_ms: Option<u64>,
}

/// Without the secrets.
impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.name)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// What a node says of its state of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StreamState {
    pub digest: Digest,
    /// As of [`crate::StreamHead`].
    pub is_ahead: bool,
}

pub type States = BTreeMap<StreamId, StreamState>;

/// Somebody who takes from a bucket, or this node itself: what it said there last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub name: String,
    /// The object that says it; empty if that is to be read anew.
    pub object: String,
    pub has: BTreeMap<StreamId, Vector>,
    /// None of a release that does not say.
    pub states: Option<States>,
    pub carries: Carries,
    pub bundle_key: [u8; 32],
    /// Names of bundles that it could not use.
    pub refused: Vec<String>,
    /// Files that it asks for, as whoever reads buckets encoded them, and the object that says it; empty: it asks for none.
    pub lacks: Vec<u8>,
    pub lacks_object: String,
    /// When this node first saw that object, by its own clock.
    pub seen_ms: u64,
}

const COLUMNS: &str = "id, name, url, access, is_open, added_ms, contact_ms";

fn bucket_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Bucket> {
    Ok(Bucket {
        id: row.get(0)?,
        name: row.get(1)?,
        url: row.get(2)?,
        access: row.get(3)?,
        is_open: row.get(4)?,
        added_ms: row.get::<_, i64>(5)? as u64,
        contact_ms: row.get::<_, Option<i64>>(6)?.map(|ms| ms as u64),
    })
}

pub fn list(reader: &impl Read) -> Result<Vec<Bucket>> {
    let sql = format!("SELECT {COLUMNS} FROM bucket ORDER BY id LIMIT {MAX_BUCKETS}");
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map([], bucket_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A bucket by its name.
pub fn find(reader: &impl Read, name: &str) -> Result<Option<Bucket>> {
    let sql = format!("SELECT {COLUMNS} FROM bucket WHERE name = ?1");
    Ok(reader.conn().prepare_cached(&sql)?.query_row([name], bucket_of).optional()?)
}

/// Adds one; of the name that there is already, it takes that one's place.
pub fn add(tx: &mut Tx<'_>, name: &str, url: &str, access: &[u8], is_open: bool) -> Result<()> {
    // What was known of another place says nothing of this one.
    if let Some(other) = find(tx, name)?.filter(|other| other.url != url) {
        remove(tx, other.id)?;
    }
    let sql = "INSERT INTO bucket (name, url, access, is_open, added_ms) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT (name) DO UPDATE SET access = excluded.access, is_open = excluded.is_open";
    tx.conn().execute(sql, params![name, url, access, is_open, tx.now_ms() as i64])?;
    Ok(())
}

pub fn remove(tx: &mut Tx<'_>, id: i64) -> Result<()> {
    for table in ["bucket_object", "bucket_member"] {
        tx.conn().execute(&format!("DELETE FROM {table} WHERE bucket = ?1"), [id])?;
    }
    tx.conn().execute("DELETE FROM bucket WHERE id = ?1", [id])?;
    Ok(())
}

pub fn note_contact(tx: &mut Tx<'_>, id: i64) -> Result<()> {
    let sql = "UPDATE bucket SET contact_ms = ?2 WHERE id = ?1";
    tx.conn().execute(sql, params![id, tx.now_ms() as i64])?;
    Ok(())
}

/// What is known of objects, by their names.
pub fn objects(reader: &impl Read, id: i64) -> Result<BTreeMap<String, Vec<u8>>> {
    let sql = "SELECT name, about FROM bucket_object WHERE bucket = ?1";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn note_object(tx: &mut Tx<'_>, id: i64, name: &str, about: &[u8]) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO bucket_object VALUES (?1, ?2, ?3)";
    tx.conn().execute(sql, params![id, name, about])?;
    Ok(())
}

pub fn forget_objects(tx: &mut Tx<'_>, id: i64, names: &[String]) -> Result<()> {
    for name in names {
        let sql = "DELETE FROM bucket_object WHERE bucket = ?1 AND name = ?2";
        tx.conn().prepare_cached(sql)?.execute(params![id, name])?;
    }
    Ok(())
}

pub fn members(reader: &impl Read, id: i64) -> Result<Vec<Member>> {
    // A release that knew of no states read the object for the rest alone: to this one it is unread.
    let sql = "SELECT node, name, CASE WHEN states IS NULL THEN '' ELSE object END, has, bundle_key, refused, seen_ms, carries, lacks, \
               lacks_object, states FROM bucket_member WHERE bucket = ?1";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let mut members = Vec::new();
    while let Some(row) = rows.next()? {
        let carries: Option<Vec<u8>> = row.get(7)?;
        let states: Option<Vec<u8>> = row.get(10)?;
        members.push(Member {
            node: NodeId(row.get(0)?),
            name: row.get(1)?,
            object: row.get(2)?,
            has: codec::decode(row.get_ref(3)?.as_blob().unwrap_or_default())?,
            states: states.and_then(|bytes| codec::decode(&bytes).ok()),
            carries: carries.map(|bytes| codec::decode(&bytes)).transpose()?.unwrap_or_default(),
            bundle_key: row.get(4)?,
            refused: codec::decode(row.get_ref(5)?.as_blob().unwrap_or_default())?,
            lacks: row.get(8)?,
            lacks_object: row.get(9)?,
            seen_ms: row.get::<_, i64>(6)? as u64,
        });
    }
    Ok(members)
}

pub fn note_member(tx: &mut Tx<'_>, id: i64, member: &Member) -> Result<()> {
    let Member { node, name, object, bundle_key, lacks, lacks_object, .. } = member;
    let (has, carries) = (codec::encode(&member.has), codec::encode(&member.carries));
    // Nothing encoded: it was looked for.
    let states = member.states.as_ref().map(codec::encode).unwrap_or_default();
    let (refused, seen_ms) = (codec::encode(&member.refused), member.seen_ms as i64);
    let sql = "INSERT OR REPLACE INTO bucket_member \
               (bucket, node, name, object, has, bundle_key, refused, seen_ms, carries, lacks, lacks_object, \
               states) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let args = params![
        id,
        node.0,
        name,
        object,
        has,
        bundle_key,
        refused,
        seen_ms,
        carries,
        lacks,
        lacks_object,
        states
    ];
    tx.conn().execute(sql, args)?;
    Ok(())
}

pub fn forget_member(tx: &mut Tx<'_>, id: i64, node: NodeId) -> Result<()> {
    let sql = "DELETE FROM bucket_member WHERE bucket = ?1 AND node = ?2";
    tx.conn().execute(sql, params![id, node.0])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;
    use crate::error::Error;
    use crate::{Clock, Id};

    #[test]
    fn what_a_release_without_states_read_is_unread_once() -> Result<()> {
        let node = NodeId([2; 16]);
        let mut db = Db::open_in_memory(&[], NodeId([1; 16]), Clock::from_fn(|| 1_000))?;
        let said = |states| Member {
            node,
            name: "lagoon".to_owned(),
            object: "want".to_owned(),
            has: BTreeMap::new(),
            states,
            carries: Carries::everything(),
            bundle_key: [0; 32],
            refused: vec![],
            lacks: vec![],
            lacks_object: String::new(),
            seen_ms: 1,
        };
        let state = StreamState { digest: Digest([1; 4]), is_ahead: false };
        let states = States::from([(StreamId::new(Id([7; 16]), "content"), state)]);
        db.transact(|tx| {
            note_member(tx, 1, &said(Some(states.clone())))?;
            // As that release left it.
            tx.conn().execute("UPDATE bucket_member SET states = NULL", [])?;
            Ok::<_, Error>(())
        })?;
        let unread = Member { object: String::new(), ..said(None) };
        assert_eq!(members(&db.reader(), 1)?, [unread]);
        // Read by this release, of a node that says none, of one that has none, and of one that has some.
        for states in [None, Some(States::new()), Some(states)] {
            db.transact(|tx| note_member(tx, 1, &said(states.clone())))?;
            assert_eq!(members(&db.reader(), 1)?, [said(states)]);
        }
        Ok(())
    }
}
