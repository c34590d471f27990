//! Changing what of the network is carried: taking in is only a matter of rules, since what is new is empty and is
//! fetched; what is carried no more is marked, seen by nobody from then on, and removed piece by piece. A node that is
//! killed meanwhile goes on where it was.

use crate::apply::Place;
use crate::carries::Carries;
use crate::codec;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{Id, StreamId};
use crate::log::block;
use crate::log::damage::Run;
use crate::peer;
use crate::replica::RecordKey;
use crate::schema;
use crate::state::State;
use rusqlite::{Connection, params};
use std::sync::Arc;

const CARRIES: &str = "carries";

pub(crate) fn told_carries(conn: &Connection) -> Result<Option<Carries>> {
    schema::meta(conn, CARRIES)?.map(|bytes| codec::decode(&bytes)).transpose()
}

/// Everything on a node that was never told.
pub(crate) fn kept_carries(conn: &Connection) -> Result<Carries> {
    Ok(told_carries(conn)?.unwrap_or_default())
}

impl Db {
    /// Whether the stream is here. One of which something is still to be removed is not, even if it shall come back.
    pub(crate) fn is_carried(&self, stream: &StreamId) -> bool {
        self.carries.carries(stream) && !self.heads.is_leaving(stream)
    }

    pub(crate) fn must_carry(&self, stream: &StreamId) -> Result<()> {
        if self.is_carried(stream) {
            return Ok(());
        }
        let known = peer::who_carry(&self.conn, stream)?;
        let advice = match &known[..] {
            [] => "write on a node that does, or let this one carry it (`atoll sync carry add`)"
                .to_owned(),
            names => format!("write on {}", names.join(" or ")),
        };
        Err(Error::NotCarried { stream: stream.to_string(), advice })
    }

    /// What this node carries from now on. Streams that it has and carries no more are gone at once for whoever reads
    /// them over a link, and are removed by [`Db::shed`].
    pub fn carry(&mut self, carries: Carries) -> Result<()> {
        self.begin()?;
        let result = self.carry_in_group(carries);
        self.commit()?;
        result
    }

    pub(crate) fn carry_in_group(&mut self, carries: Carries) -> Result<()> {
        carries.check()?;
        let leaving: Vec<(i64, StreamId)> = self
            .heads
            .all()
            .filter(|(_, head)| !carries.carries(&head.stream))
            .map(|(id, head)| (id, head.stream.clone()))
            .collect();
        self.savepoint(|db| {
            schema::put_meta(&db.conn, CARRIES, &codec::encode(&carries))?;
            let mut has_written = false;
            for (id, stream) in &leaving {
                let sql = "UPDATE stream SET leaving = 1 WHERE id = ?1";
                db.conn.prepare_cached(sql)?.execute([id])?;
                let vector = db.heads.vector(*id);
                has_written |= vector.is_some_and(|vector| vector.get(db.origin) > 0);
                db.forget_parked(stream);
            }
            if has_written {
                // It forgets how far it had counted in them.
                db.raise_epoch()?;
            }
            Ok::<_, Error>(())
        })?;
        leaving.iter().for_each(|(id, _)| self.heads.leave(*id));
        self.carries = Arc::new(carries);
        Ok(())
    }

    /// Removes a piece of what is carried no more, at most so many records or ops; whether something is left.
    pub fn shed(&mut self, most: usize) -> Result<bool> {
        self.begin()?;
        let result = self.shed_in_group(most);
        self.commit()?;
        result
    }

    pub(crate) fn shed_in_group(&mut self, most: usize) -> Result<bool> {
        let Some((number, stream)) = self.heads.first_leaving() else { return Ok(false) };
        let is_done = self.savepoint(|db| {
            if db.remove_records(number, &stream, most)? || db.remove_ops(number, most)? {
                return Ok::<_, Error>(false);
            }
            for table in ["conflict", "quarantine", "late", "ahead", "sealed"] {
                db.conn.execute(&format!("DELETE FROM {table} WHERE stream = ?1"), [number])?;
            }
            db.conn.execute("DELETE FROM stream WHERE id = ?1", [number])?;
            Ok(true)
        })?;
        if is_done {
            self.heads.forget(number);
            tracing::info!(%stream, "a stream that is carried no more was removed");
        }
        Ok(self.heads.first_leaving().is_some())
    }

    fn remove_records(&mut self, number: i64, stream: &StreamId, most: usize) -> Result<bool> {
        let mut keys: Vec<RecordKey> = Vec::new();
        self.log_reader().scan_number(number, stream, (None, None), |key, _, _| {
            keys.push(key);
            Ok(keys.len() < most)
        })?;
        for (kind, key) in &keys {
            let place = Place { stream: number, tenant: stream.tenant, kind: *kind, key: *key };
            let Some(old) = self.load_state(&place)? else { continue };
            self.drop_bodies(&place, Some(&old.state), &State::default())?;
            self.put_state(&place, Some(old), State::default())?;
        }
        self.settle()?;
        Ok(!keys.is_empty())
    }

    fn remove_ops(&mut self, number: i64, most: usize) -> Result<bool> {
        let sql = "DELETE FROM op WHERE pos IN (SELECT pos FROM op WHERE stream = ?1 LIMIT ?2)";
        let mut removed = self.conn.execute(sql, params![number, most as i64])? as u64;
        if removed == 0 {
            let blocks = block::with(&self.conn, number, None)?.into_iter().take(1);
            let is_theirs = |run: &Run| run.stream == number;
            removed = self.rewrite_blocks(blocks, |entry| entry.stream == number, is_theirs)?;
        }
        if removed > 0 {
            // Positions and the clock go on from where they were.
            schema::put_meta(&self.conn, "next_pos", &self.heads.next_pos.to_le_bytes())?;
            self.heads.hlc_must_be_kept = true;
        }
        Ok(removed > 0)
    }
}

/// Streams of which something is left to be removed.
pub(crate) fn leaving(conn: &Connection) -> Result<Vec<StreamId>> {
    let sql = "SELECT tenant, scope FROM stream WHERE leaving = 1 ORDER BY tenant, scope";
    let mut statement = conn.prepare_cached(sql)?;
    let rows =
        statement.query_map([], |r| Ok(StreamId { tenant: Id(r.get(0)?), scope: r.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
