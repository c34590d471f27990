//! Whom this node talks to, and the one-time invitations it gave out. Local: every node keeps its own list.

use crate::carries::Carries;
use crate::codec;
use crate::error::Result;
use crate::id::{NodeId, StreamId};
use crate::read::Read;
use crate::rights::Rights;
use crate::tx::Tx;
use rusqlite::{Connection, OptionalExtension, params};

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Peer {
    #[serde(serialize_with = "as_text")]
    pub node: NodeId,
    #[serde(skip)]
    pub public_key: [u8; 32],
    pub name: String,
    /// Where to dial it; none for a peer that only dials in.
    pub address: Option<String>,
    pub added_ms: u64,
    pub removed_ms: Option<u64>,
    pub contact_ms: Option<u64>,
    /// What it said that it carries, when it last said so.
    #[serde(skip)]
    pub carries: Option<Carries>,
}

fn as_text<S: serde::Serializer>(node: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(node)
}

/// A node has no more peers than this.
pub const MAX_PEERS: usize = 256;
/// Of those removed, so many are looked through by name.
const MAX_REMOVED: usize = 1_000;

const COLUMNS: &str = "node, public_key, name, address, added_ms, removed_ms, contact_ms, carries";

fn peer_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Peer> {
    Ok(Peer {
        node: NodeId(row.get(0)?),
        public_key: row.get(1)?,
        name: row.get(2)?,
        address: row.get(3)?,
        added_ms: row.get::<_, i64>(4)? as u64,
        removed_ms: row.get::<_, Option<i64>>(5)?.map(|ms| ms as u64),
        contact_ms: row.get::<_, Option<i64>>(6)?.map(|ms| ms as u64),
        carries: row.get::<_, Option<Vec<u8>>>(7)?.and_then(|bytes| codec::decode(&bytes).ok()),
    })
}

/// Those listed, without those removed.
pub fn list(reader: &impl Read) -> Result<Vec<Peer>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM peer WHERE removed_ms IS NULL ORDER BY added_ms LIMIT {MAX_PEERS}"
    );
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map([], peer_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Those taken off the list, the last ones first.
pub fn removed(reader: &impl Read) -> Result<Vec<Peer>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM peer WHERE removed_ms IS NOT NULL ORDER BY removed_ms DESC LIMIT {MAX_REMOVED}"
    );
    let mut statement = reader.conn().prepare_cached(&sql)?;
    let rows = statement.query_map([], peer_of)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A peer, also one that was removed.
pub fn find(reader: &impl Read, node: NodeId) -> Result<Option<Peer>> {
    let sql = format!("SELECT {COLUMNS} FROM peer WHERE node = ?1");
    Ok(reader.conn().prepare_cached(&sql)?.query_row([node.0], peer_of).optional()?)
}

/// Lists a peer, or lists a removed one again.
pub fn add(
    tx: &mut Tx<'_>,
    public_key: &[u8; 32],
    name: &str,
    address: Option<&str>,
) -> Result<NodeId> {
    let node = NodeId::of_public_key(public_key);
    let sql = "INSERT INTO peer (node, public_key, name, address, added_ms) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT DO UPDATE SET name = excluded.name, removed_ms = NULL, \
               address = coalesce(excluded.address, address)";
    tx.conn().execute(sql, params![node.0, public_key, name, address, tx.now_ms() as i64])?;
    Ok(node)
}

/// Takes a peer off the list. False if it was not on it.
pub fn remove(tx: &mut Tx<'_>, node: NodeId) -> Result<bool> {
    let sql = "UPDATE peer SET removed_ms = ?2 WHERE node = ?1 AND removed_ms IS NULL";
    Ok(tx.conn().execute(sql, params![node.0, tx.now_ms() as i64])? > 0)
}

pub fn note_contact(tx: &mut Tx<'_>, node: NodeId) -> Result<()> {
    let sql = "UPDATE peer SET contact_ms = ?2 WHERE node = ?1";
    tx.conn().execute(sql, params![node.0, tx.now_ms() as i64])?;
    Ok(())
}

/// Keeps what a peer said that it carries, so that the two can greet each other in few words.
pub fn note_carries(tx: &mut Tx<'_>, node: NodeId, carries: &Carries) -> Result<()> {
    let sql = "UPDATE peer SET carries = ?2 WHERE node = ?1";
    tx.conn().execute(sql, params![node.0, codec::encode(carries)])?;
    Ok(())
}

/// Names of listed peers that said that they carry this stream.
pub(crate) fn who_carry(conn: &Connection, stream: &StreamId) -> Result<Vec<String>> {
    let sql = "SELECT name, carries FROM peer WHERE removed_ms IS NULL AND carries IS NOT NULL ORDER BY added_ms";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        let carries: Option<Carries> =
            codec::decode(row.get_ref(1)?.as_blob().unwrap_or_default()).ok();
        if carries.is_some_and(|carries| carries.carries(stream)) {
            names.push(row.get(0)?);
        }
    }
    Ok(names)
}

/// Gives out an invitation; only the hash of its secret is kept, and what whoever shows it may do.
pub fn invite(
    tx: &mut Tx<'_>,
    secret_hash: &[u8; 32],
    expires_ms: u64,
    rights: &Rights,
) -> Result<()> {
    tx.conn().execute("DELETE FROM invitation WHERE expires_ms < ?1", [tx.now_ms() as i64])?;
    tx.conn().execute(
        "INSERT INTO invitation (secret_hash, expires_ms, rights) VALUES (?1, ?2, ?3)",
        params![secret_hash, expires_ms as i64, codec::encode(rights)],
    )?;
    Ok(())
}

/// Takes an invitation, once; what whoever showed it may do.
pub fn redeem(tx: &mut Tx<'_>, secret_hash: &[u8; 32]) -> Result<Option<Rights>> {
    let sql = "DELETE FROM invitation WHERE secret_hash = ?1 AND expires_ms > ?2 RETURNING rights";
    let args = params![secret_hash, tx.now_ms() as i64];
    let rights: Option<Option<Vec<u8>>> =
        tx.conn().query_row(sql, args, |row| row.get(0)).optional()?;
    match rights {
        // Of a release that knew no grants.
        Some(None) => Ok(Some(Rights::everything())),
        Some(Some(bytes)) => Ok(Some(codec::decode(&bytes)?)),
        None => Ok(None),
    }
}
