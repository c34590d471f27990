//! What bundles told of the nodes that made them: what they have and carry, which files they lack, and what answers to
//! them can be locked with. Local; a guess that is behind costs a larger bundle, and nothing else.

use crate::carries::Carries;
use crate::codec;
use crate::error::Result;
use crate::id::{NodeId, StreamId};
use crate::read::Read;
use crate::tx::Tx;
use crate::vector::Vector;
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correspondent {
    pub node: NodeId,
    pub has: BTreeMap<StreamId, Vector>,
    pub carries: Carries,
    pub bundle_key: [u8; 32],
    /// Files that it is without and asks for, as whoever reads bundles encoded them; empty: it told of none.
    pub lacks: Vec<u8>,
    /// When the bundle was made, by its maker's clock.
    pub made_ms: u64,
    /// When it came, by this node's.
    pub heard_ms: u64,
}

/// None for a node that no bundle came from.
pub fn find(reader: &impl Read, node: NodeId) -> Result<Option<Correspondent>> {
    let sql =
        "SELECT has, bundle_key, lacks, made_ms, heard_ms, carries FROM courier WHERE node = ?1";
    let mut statement = reader.conn().prepare_cached(sql)?;
    let row = statement.query_row([node.0], |r| {
        let heard = Correspondent {
            node,
            has: BTreeMap::new(),
            carries: Carries::default(),
            bundle_key: r.get(1)?,
            lacks: r.get(2)?,
            made_ms: r.get::<_, i64>(3)? as u64,
            heard_ms: r.get::<_, i64>(4)? as u64,
        };
        Ok((r.get::<_, Vec<u8>>(0)?, r.get::<_, Option<Vec<u8>>>(5)?, heard))
    });
    let Some((has, carries, heard)) = row.optional()? else { return Ok(None) };
    let carries = carries.map(|bytes| codec::decode(&bytes)).transpose()?.unwrap_or_default();
    Ok(Some(Correspondent { has: codec::decode(&has)?, carries, ..heard }))
}

/// Keeps what the bundle told, unless a later one was here before it.
pub fn note(tx: &mut Tx<'_>, correspondent: &Correspondent) -> Result<()> {
    let Correspondent { node, has, carries, bundle_key, lacks, made_ms, heard_ms } = correspondent;
    let sql = "INSERT INTO courier (node, has, bundle_key, made_ms, heard_ms, lacks, carries) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET \
               has = excluded.has, bundle_key = excluded.bundle_key, made_ms = excluded.made_ms, \
               heard_ms = excluded.heard_ms, lacks = excluded.lacks, carries = excluded.carries WHERE excluded.made_ms >= made_ms";
    let (made_ms, heard_ms) = (*made_ms as i64, *heard_ms as i64);
    let (has, carries) = (codec::encode(has), codec::encode(carries));
    let args = params![node.0, has, bundle_key, made_ms, heard_ms, lacks, carries];
    tx.conn().execute(sql, args)?;
    Ok(())
}
