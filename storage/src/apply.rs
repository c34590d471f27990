//! The one function through which every op goes, local or a peer's: op, record, row, names, counters, vector and
//! digest change together or not at all.

use crate::ahead;
use crate::body::{self, Content};
use crate::codec;
use crate::conflict::{self, Cause, Entry};
use crate::db::Db;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::{Dot, Id, StreamId};
use crate::op::{BodyEdit, Op, Payload, Write};
use crate::read::{Plans, load, load_content};
use crate::record::Record;
use crate::state::{BodyState, Lost, LostEdit, LostWrite, State};
use crate::value::Value;
use rusqlite::{Connection, OptionalExtension, params};

/// Where a record stands, whether or not its kind is known here.
#[derive(Clone)]
pub(crate) struct Place {
    pub stream: i64,
    pub tenant: Id,
    pub kind: u16,
    pub key: Id,
}

/// The record as it stands. A key that stands in another stream is refused: a record never moves.
pub(crate) fn load_stored(
    conn: &Connection,
    plans: &Plans,
    place: &Place,
) -> Result<Option<Stored>> {
    let Some(plan) = plans.of(place.kind) else { return load_alien(conn, place) };
    let Some(record) = load(conn, plan, place.key)? else { return Ok(None) };
    if record.tenant != place.tenant {
        return Err(Error::Malformed("the key belongs to a record of another stream".into()));
    }
    Ok(Some(Stored::of(record)))
}

fn load_alien(conn: &Connection, place: &Place) -> Result<Option<Stored>> {
    let sql = "SELECT stream, state FROM alien WHERE kind = ?1 AND key = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let row = statement.query_row(params![place.kind, place.key.0], |r| {
        Ok((r.get::<_, i64>(0)?, r.get::<_, Vec<u8>>(1)?))
    });
    let Some((stream, bytes)) = row.optional()? else { return Ok(None) };
    if stream != place.stream {
        return Err(Error::Malformed("the key belongs to a record of another stream".into()));
    }
    Ok(Some(Stored {
        state: State::from_bytes(&bytes)?,
        digest: digest_of(place, &bytes),
        record: None,
    }))
}

impl Db {
    /// Applies an op whose past is here, and logs it.
    pub(crate) fn apply_op(&mut self, op: &Op) -> Result<Option<Record>> {
        let place = self.place_of(op)?;
        let old = self.load_state(&place)?;
        self.apply_to(&place, old, op)
    }

    /// Where the op's record stands.
    pub(crate) fn place_of(&mut self, op: &Op) -> Result<Place> {
        if self.plans.of(op.kind).is_some_and(|plan| plan.kind.scope != op.stream.scope) {
            return Err(Error::Malformed("the kind's records stand in another stream".into()));
        }
        let stream = self.heads.stream_number(&self.conn, &op.stream)?;
        Ok(Place { stream, tenant: op.stream.tenant, kind: op.kind, key: op.key })
    }

    /// As `apply_op`, on what is known to stand in the op's place.
    pub(crate) fn apply_to(
        &mut self,
        place: &Place,
        old: Option<Stored>,
        op: &Op,
    ) -> Result<Option<Record>> {
        let stream = place.stream;
        if self.heads.is_ahead(stream)
            && ahead::at(&self.conn, stream, (op.kind, op.key))?.is_some_and(|v| v.covers(op.dot))
        {
            // A snapshot brought its effect, and what came after it.
            let state = old.as_ref().map(|r| r.state.clone()).unwrap_or_default();
            let emptied = self.emptied_if_erased(place, op, &state)?;
            self.log(stream, emptied.as_ref().unwrap_or(op))?;
            return Ok(old.and_then(|o| o.record));
        }
        let mut state = old.as_ref().map(|r| r.state.clone()).unwrap_or_default();
        let mut lost = match &op.payload {
            Payload::Write(write) => self.apply_write(place, &mut state, op, write)?,
            Payload::Delete { seen } => {
                self.forget_lost(place, |lost| seen.covers(lost.dot))?;
                let lost = state.delete(seen);
                let lost = self.with_texts(place, lost)?;
                self.drop_bodies(place, old.as_ref().map(|r| &r.state), &state)?;
                lost
            }
            Payload::Count(counts) => {
                state.count(op.dot.origin, counts);
                vec![]
            }
            Payload::Erased { .. } => vec![],
        };
        let emptied = self.emptied_if_erased(place, op, &state)?;
        if emptied.is_some() {
            lost.clear();
        }
        self.keep_lost(place, &lost)?;
        // The log tells the search index.
        self.is_logging = true;
        let record = self.put_state(place, old, state);
        self.is_logging = false;
        let record = record?;
        self.log(stream, emptied.as_ref().unwrap_or(op))?;
        Ok(record)
    }

    fn apply_write(
        &mut self,
        place: &Place,
        state: &mut State,
        op: &Op,
        write: &Write,
    ) -> Result<Vec<LostWrite>> {
        let mut lost = state.write(op.dot, op.hlc, write);
        let was_dead =
            !write.creates && !write.seen.creations.iter().any(|c| state.creations.contains_key(c));
        if was_dead {
            // What this write takes the place of, in a register or for one element of a set.
            let replaces = |old: &LostWrite| {
                write.cells.iter().any(|c| c.field == old.field && c.element == old.element)
            };
            self.forget_lost(place, |old| replaces(old) && write.seen.covers(old.dot))?;
        }
        for body in &write.bodies {
            match &body.edit {
                // The text stands in the log, and moves to a table of its own when it is edited or its op goes.
                BodyEdit::Born(text) if text.len() > 4 * body::MAX_BYTES => {
                    return Err(Error::TooLong { size: text.len(), limit: body::MAX_BYTES });
                }
                BodyEdit::Born(_) => {}
                BodyEdit::Change { creation, bytes } => {
                    match state.body_of(body.field, *creation).cloned() {
                        Some(known) => {
                            let content = self.content(place, body.field, *creation)?;
                            let content = body::apply(&content, *creation, &[bytes])?;
                            let mut known = BodyState { heads: content.heads.clone(), ..known };
                            known.note_edit(op.dot, op.hlc);
                            state.put_body(known);
                            self.save_content(place.key, body.field, *creation, &content)?;
                        }
                        None => {
                            let value = Value::Bytes(bytes.clone());
                            let (field, dot, hlc) = (body.field, op.dot, op.hlc);
                            lost.push(LostWrite { field, element: None, dot, hlc, value });
                        }
                    }
                }
            }
        }
        Ok(lost)
    }

    pub(crate) fn content(&self, place: &Place, field: u16, creation: Dot) -> Result<Content> {
        load_content(&self.conn, place.stream, place.key, field, creation)
    }

    pub(crate) fn save_content(
        &self,
        key: Id,
        field: u16,
        creation: Dot,
        content: &Content,
    ) -> Result<()> {
        let sql = "INSERT INTO body VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                   ON CONFLICT DO UPDATE SET text = excluded.text, doc = excluded.doc";
        let text = content.doc.as_ref().map(|_| &content.text);
        let args = params![key.0, field, creation.to_bytes(), content.born, text, content.doc];
        self.conn.prepare_cached(sql)?.execute(args)?;
        Ok(())
    }

    pub(crate) fn drop_bodies(
        &self,
        place: &Place,
        old: Option<&State>,
        new: &State,
    ) -> Result<()> {
        for body in old.map_or(&[][..], |state| &state.bodies) {
            if new.body_of(body.field, body.creation).is_none() {
                let sql = "DELETE FROM body WHERE key = ?1 AND field = ?2 AND creation = ?3";
                let args = params![place.key.0, body.field, body.creation.to_bytes()];
                self.conn.prepare_cached(sql)?.execute(args)?;
            }
        }
        Ok(())
    }

    /// The lost writes, edits of bodies among them with the whole text that they had made. Bodies must still be there.
    pub(crate) fn with_texts(&self, place: &Place, lost: Lost) -> Result<Vec<LostWrite>> {
        let mut writes = lost.writes;
        for LostEdit { field, creation, dot, hlc } in lost.edits {
            let value = Value::Text(self.content(place, field, creation)?.text);
            writes.push(LostWrite { field, element: None, dot, hlc, value });
        }
        Ok(writes)
    }

    pub(crate) fn keep_lost(&self, place: &Place, lost: &[LostWrite]) -> Result<()> {
        let kind = self.plans.of(place.kind).map(|plan| plan.kind);
        for write in lost.iter().filter(|lost| !kind.is_some_and(|k| k.is_silent(lost.field))) {
            let mut extra = write.dot.to_bytes().to_vec();
            extra.extend(codec::encode(&write.element));
            conflict::put(
                &self.conn,
                &Entry {
                    tenant: place.tenant,
                    stream: place.stream,
                    kind: place.kind,
                    key: place.key,
                    cause: Cause::LostWrite,
                    field: write.field,
                    hlc: write.hlc,
                    extra: &extra,
                    detail: &codec::encode(write),
                },
            )?;
        }
        Ok(())
    }

    fn forget_lost(&self, place: &Place, is_settled: impl Fn(&LostWrite) -> bool) -> Result<()> {
        for (id, lost) in conflict::lost_writes(&self.conn, place.kind, place.key)? {
            if is_settled(&lost) {
                conflict::remove_id(&self.conn, id)?;
            }
        }
        Ok(())
    }

    /// As [`load_stored`].
    pub(crate) fn load_state(&self, place: &Place) -> Result<Option<Stored>> {
        load_stored(&self.conn, &self.plans, place)
    }

    /// Stores the new state, or removes the record if nothing of it is alive; the views follow.
    pub(crate) fn put_state(
        &mut self,
        place: &Place,
        old: Option<Stored>,
        state: State,
    ) -> Result<Option<Record>> {
        let alive = state.is_alive();
        let bytes = if alive { state.to_bytes() } else { vec![] };
        let digest = alive.then(|| digest_of(place, &bytes));
        let before = old.as_ref().map(|o| o.digest);
        if before == digest {
            return Ok(old.and_then(|o| o.record));
        }
        self.heads.swap_digest(place.stream, before, digest);
        if self.plans.of(place.kind).is_none() {
            self.put_alien(place, digest.map(|_| bytes))?;
            return Ok(None);
        }
        let old = old.and_then(|o| o.record);
        let Some(digest) = digest else {
            if let Some(old) = old {
                self.remove_row(place, &old)?;
            }
            return Ok(None);
        };
        let mut record = match &old {
            Some(old) => Record { state, texts: vec![], ..old.clone() },
            None => Record::new(self.plans.kind(place.kind)?, place.key, place.tenant, state),
        };
        record.digest = digest;
        self.put_row(place, old.as_ref(), &mut record, digest, &bytes)?;
        Ok(Some(record))
    }

    fn put_alien(&self, place: &Place, bytes: Option<Vec<u8>>) -> Result<()> {
        if let Some(bytes) = bytes {
            let sql = "INSERT OR REPLACE INTO alien VALUES (?1, ?2, ?3, ?4, ?5)";
            let args = params![place.kind, place.key.0, place.tenant.0, place.stream, bytes];
            self.conn.prepare_cached(sql)?.execute(args)?;
        } else {
            let sql = "DELETE FROM alien WHERE kind = ?1 AND key = ?2";
            self.conn.prepare_cached(sql)?.execute(params![place.kind, place.key.0])?;
        }
        Ok(())
    }

    /// Puts an op into the log and counts it.
    pub(crate) fn log(&mut self, stream: i64, op: &Op) -> Result<()> {
        let origin = self.heads.origin_number(&self.conn, op.dot.origin)?;
        let pos = self.heads.next_pos;
        self.heads.next_pos += 1;
        let sql = "INSERT INTO op VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        self.conn.prepare_cached(sql)?.execute(params![
            pos,
            stream,
            origin,
            op.dot.seq as i64,
            op.hlc.0 as i64,
            op.kind,
            op.schema,
            op.key.0,
            codec::pack(&op.payload)
        ])?;
        self.heads.advance(stream, op.dot);
        Ok(())
    }

    /// True if everything that the op builds on is here.
    pub(crate) fn is_ready(&self, stream: &StreamId, op: &Op) -> bool {
        let next = self.heads.head(stream).map_or(0, |head| head.vector.get(op.dot.origin)) + 1;
        op.dot.seq == next && op.needs().iter().all(|dot| self.heads.covers(stream, *dot))
    }
}

/// A record as it was before a write.
pub(crate) struct Stored {
    pub state: State,
    pub digest: Digest,
    pub record: Option<Record>,
}

impl Stored {
    pub fn of(record: Record) -> Self {
        Self { state: record.state.clone(), digest: record.digest, record: Some(record) }
    }
}

/// A record's part in its stream's digest: over kind, key and canonical state.
pub(crate) fn digest_of(place: &Place, state: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&place.kind.to_le_bytes());
    hasher.update(&place.key.0);
    hasher.update(state);
    Digest::from_hash(hasher.finalize().as_bytes())
}
