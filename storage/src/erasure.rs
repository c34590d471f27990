//! Erasing: what the log says of a record goes, on every node, and what nodes still send of it that had not heard.
//!
//! A record is erased by a deletion and a mark beside it, a record of a kind that [`Kind::erases`]; both travel as all
//! records do, with ops and with snapshots. Whoever has the mark empties the ops that name no living creation of the
//! record: in the place of what they said stands its hash, so that dots, vectors and digests stay what they are. A
//! record that is made again under its key is another life, and nothing of it goes.

use crate::apply::{Place, load_stored};
use crate::codec;
use crate::conflict::{self, Cause};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{Dot, Id, Origin};
use crate::kind::{Field, Kind, Type};
use crate::log::damage::{self, Run};
use crate::log::{self, block};
use crate::op::{Op, Payload};
use crate::read::{Plans, Read, Reader, load};
use crate::record::Record;
use crate::reference;
use crate::state::State;
use crate::tx::{Changes, Tx};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;

/// The kind's code of what was erased.
pub const ERASED_KIND: Field = Field::int(1, "kind").required();
pub const ERASED_KEY: Field = Field { ty: Type::Id, ..Field::text(2, "key") }.required();
/// The last time.
pub const ERASED_AT: Field = Field::time(3, "erased_at");

/// Marks that one walk through the log looks for.
const AT_ONCE: usize = 1_000;

/// The kind of the marks of a scope.
pub const fn marks(
    code: u16,
    name: &'static str,
    plural: &'static str,
    scope: &'static str,
) -> Kind {
    Kind {
        fields: &[ERASED_KIND, ERASED_KEY, ERASED_AT],
        erases: true,
        silent: true,
        doc: "That a record was erased, so that nothing of it is kept wherever it comes from.",
        ..Kind::new(code, name, plural, scope)
    }
}

fn mark_of(kind: u16, key: Id) -> Id {
    Id::natural(&[b"erasure", &kind.to_le_bytes(), &key.0])
}

fn target_of(mark: &Record) -> Option<(u16, Id)> {
    let kind = u16::try_from(mark.int(&ERASED_KIND)?).ok()?;
    Some((kind, mark.value(&ERASED_KEY).as_id()?))
}

impl Tx<'_> {
    /// Deletes a record, if it is alive, and has all that was ever written to it erased everywhere. The marks' kind must
    /// be of the record's scope. What is made anew under the key stays.
    pub fn erase(
        &mut self,
        marks: &'static Kind,
        kind: &'static Kind,
        tenant: Id,
        key: Id,
    ) -> Result<()> {
        if !marks.erases || marks.scope != kind.scope {
            return Err(Error::Internal(format!("{} do not mark {}", marks.plural, kind.plural)));
        }
        if self.get(kind, key)?.is_some() {
            self.remove(kind, key)?;
        }
        let mark = mark_of(kind.code, key);
        let now_ms = self.now_ms() as i64;
        match self.get(marks, mark)?.map(|mark| mark.int(&ERASED_AT).unwrap_or_default()) {
            // Each time it is written, each node walks through its log.
            Some(last) => {
                self.edit(marks, mark, Changes::new().set(&ERASED_AT, now_ms.max(last + 1)))?;
            }
            None => {
                let changes = Changes::new().set(&ERASED_KIND, i64::from(kind.code));
                let changes = changes.set(&ERASED_KEY, key).set(&ERASED_AT, now_ms);
                self.create(marks, tenant, mark, changes)?;
            }
        }
        Ok(())
    }
}

impl Db {
    /// To be called with each row of a mark.
    pub(crate) fn note_erasure(&self, mark: &Record) -> Result<()> {
        let Some((kind, key)) = target_of(mark) else { return Ok(()) };
        conflict::remove(&self.conn, kind, key, Cause::LostWrite)?;
        let sql = "DELETE FROM late WHERE kind = ?1 AND key = ?2";
        self.conn.prepare_cached(sql)?.execute(params![kind, key.0])?;
        // Events may tell names beside ids.
        let sql = "DELETE FROM outbox WHERE instr(payload, ?1) > 0";
        self.conn.prepare_cached(sql)?.execute([key.to_string()])?;
        // So may answers that are kept for whoever asks once more.
        let sql = "DELETE FROM answer WHERE instr(body, CAST(?1 AS BLOB)) > 0";
        self.conn.prepare_cached(sql)?.execute([key.to_string()])?;
        reference::note_erased(&self.conn, kind, key)?;
        let sql = "INSERT OR REPLACE INTO erasing (kind, key, pos) VALUES (?1, ?2, 0)";
        self.conn.prepare_cached(sql)?.execute(params![kind, key.0])?;
        Ok(())
    }

    /// Whether what comes late of a record that is dead here must not be kept.
    pub(crate) fn is_erased(&self, place: &Place) -> Result<bool> {
        let Some(scope) = self.plans.of(place.kind).map(|plan| plan.kind.scope) else {
            return Ok(false);
        };
        let mark = mark_of(place.kind, place.key);
        for kind in self.plans.kinds.iter().filter(|kind| kind.erases && kind.scope == scope) {
            let there = self.get(kind, mark)?;
            if there.is_some_and(|there| there.tenant == place.tenant) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Empties the next `max_ops` of the log, as far as they are of erased records. False once there is nothing left to do.
    ///
    /// # Errors
    /// None that leave anything half done: what was walked through is noted with what was emptied.
    pub fn erase_step(&mut self, max_ops: u64) -> Result<bool> {
        let from: Option<i64> =
            self.conn.query_row("SELECT min(pos) FROM erasing", [], |r| r.get(0))?;
        let Some(from) = from else { return Ok(false) };
        let (first, last) = self.log_span()?;
        let start = from.max(first);
        let end = start.saturating_add(max_ops as i64);
        self.begin()?;
        let result = self.savepoint(|db| {
            let sought = db.sought(from)?;
            db.empty_ops(&sought, start, end)?;
            for (kind, key) in &sought {
                if end > last {
                    let sql = "DELETE FROM erasing WHERE kind = ?1 AND key = ?2";
                    db.conn.prepare_cached(sql)?.execute(params![kind, key.0])?;
                    // What was counted by a value that nobody has any more.
                    let sql = "DELETE FROM total WHERE kind = ?1 AND n = 0";
                    db.conn.prepare_cached(sql)?.execute([kind])?;
                } else {
                    let sql = "UPDATE erasing SET pos = ?3 WHERE kind = ?1 AND key = ?2";
                    db.conn.prepare_cached(sql)?.execute(params![kind, key.0, end])?;
                }
            }
            Ok::<_, Error>(())
        });
        self.commit()?;
        result?;
        let left = "SELECT EXISTS (SELECT 1 FROM erasing)";
        Ok(self.conn.query_row(left, [], |r| r.get(0))?)
    }

    fn log_span(&self) -> Result<(i64, i64)> {
        Ok((log::first(&self.conn)?, log::last(&self.conn)?))
    }

    fn sought(&self, from: i64) -> Result<HashSet<(u16, Id)>> {
        let sql = "SELECT kind, key FROM erasing WHERE pos = ?1 LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![from, AT_ONCE as i64], |r| {
            Ok((r.get::<_, u16>(0)?, Id(r.get(1)?)))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Positions from `start` up to but not including `end`.
    fn empty_ops(&mut self, sought: &HashSet<(u16, Id)>, start: i64, end: i64) -> Result<()> {
        let mut found = Vec::new();
        {
            let sql = "SELECT pos, kind, key FROM op WHERE pos >= ?1 AND pos < ?2";
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([start, end])?;
            while let Some(row) = rows.next()? {
                if sought.contains(&(row.get(1)?, Id(row.get(2)?))) {
                    found.push(row.get::<_, i64>(0)?);
                }
            }
        }
        for pos in found {
            self.empty_op(pos)?;
        }
        for name in block::between(&self.conn, start, end)? {
            let mut block = match block::get(&self.conn, name)? {
                Some(Ok(block)) => block,
                Some(Err(error)) => {
                    self.empty_damaged(name, sought, &error)?;
                    continue;
                }
                None => continue,
            };
            let mut is_changed = false;
            for entry in &mut block.entries {
                if (start..end).contains(&entry.pos) && sought.contains(&(entry.kind, entry.key)) {
                    let name = (entry.stream, entry.origin, entry.seq);
                    let record = (entry.kind, entry.key);
                    if let Some(emptied) = self.without_words(name, record, &entry.payload)? {
                        entry.payload = codec::encode(&emptied);
                        is_changed = true;
                    }
                }
            }
            if is_changed {
                block::put(&self.conn, &block)?;
            }
        }
        Ok(())
    }

    /// What a damaged block says of erased records cannot be told from the rest, and none of it can be read or sent: all of
    /// its bytes go.
    fn empty_damaged(&self, name: i64, sought: &HashSet<(u16, Id)>, error: &Error) -> Result<()> {
        if damage::empty(&self.conn, name)? {
            tracing::warn!(%error, block = name, "a damaged block of the log may tell of erased records: its bytes were thrown away");
        }
        for run in damage::runs(&self.conn, name)? {
            self.leave_quarantine(&run, sought)?;
        }
        Ok(())
    }

    fn leave_quarantine(&self, run: &Run, sought: &HashSet<(u16, Id)>) -> Result<()> {
        let sql =
            "SELECT op FROM quarantine WHERE stream = ?1 AND origin = ?2 AND seq BETWEEN ?3 AND ?4";
        let mut statement = self.conn.prepare_cached(sql)?;
        let args = params![run.stream, run.origin, run.low as i64, run.high as i64];
        let kept = statement.query_map(args, |r| r.get::<_, Vec<u8>>(0))?;
        for bytes in kept.collect::<rusqlite::Result<Vec<_>>>()? {
            let op: Op = codec::decode(&bytes)?;
            let record = (op.kind, op.key);
            if sought.contains(&record) {
                let name = (run.stream, run.origin, op.dot.seq);
                self.without_words(name, record, &codec::encode(&op.payload))?;
            }
        }
        Ok(())
    }

    fn empty_op(&self, pos: i64) -> Result<()> {
        let sql = "SELECT stream, origin, seq, kind, key, payload FROM op WHERE pos = ?1";
        let row = self.conn.prepare_cached(sql)?.query_row([pos], |r| {
            let name = (r.get(0)?, r.get(1)?, r.get::<_, i64>(2)? as u64);
            Ok((name, (r.get(3)?, Id(r.get(4)?)), r.get::<_, Vec<u8>>(5)?))
        });
        let Some((name, record, packed)) = row.optional()? else { return Ok(()) };
        let left = if codec::unpack(&packed).is_ok() {
            self.without_words(name, record, &packed)?.map(|emptied| codec::pack(&emptied))
        } else {
            tracing::warn!(pos, "an op of an erased record is damaged: its bytes were thrown away");
            Some(Vec::new())
        };
        let Some(left) = left else { return Ok(()) };
        let sql = "UPDATE op SET payload = ?2 WHERE pos = ?1";
        self.conn.prepare_cached(sql)?.execute(params![pos, left])?;
        Ok(())
    }

    /// What is to stand in the place of an op's payload, if it is to be emptied; it leaves quarantine too. The op by its
    /// stream, origin (by their numbers) and number.
    fn without_words(
        &self,
        (stream, origin, seq): (i64, i64, u64),
        (kind, key): (u16, Id),
        packed: &[u8],
    ) -> Result<Option<Payload>> {
        let sql = "SELECT s.tenant, g.bytes FROM stream s, origin g WHERE s.id = ?1 AND g.id = ?2";
        let row = self
            .conn
            .prepare_cached(sql)?
            .query_row([stream, origin], |r| Ok((Id(r.get(0)?), r.get::<_, Vec<u8>>(1)?)));
        let Some((tenant, bytes)) = row.optional()? else { return Ok(None) };
        let payload: Payload = codec::unpack(packed)?;
        let named = Origin::from_slice(&bytes)
            .ok_or_else(|| Error::Damaged("an origin of the log is no origin".into()))?;
        let place = Place { stream, tenant, kind, key };
        let dot = Dot { origin: named, seq };
        let Some(left) = left_of(&self.conn, &self.plans, &place, dot, &payload)? else {
            return Ok(None);
        };
        let sql = "DELETE FROM quarantine WHERE stream = ?1 AND origin = ?2 AND seq = ?3";
        self.conn.prepare_cached(sql)?.execute(params![stream, origin, seq as i64])?;
        Ok(Some(left))
    }

    /// The op without what it says, if that is of an erased record and nothing of it is alive in `state`.
    pub(crate) fn emptied_if_erased(
        &self,
        place: &Place,
        op: &Op,
        state: &State,
    ) -> Result<Option<Op>> {
        if names_the_living(&op.payload, op.dot, state) || !self.is_erased(place)? {
            return Ok(None);
        }
        Ok(Some(Op { payload: emptied(&op.payload), ..op.clone() }))
    }
}

/// What the ops of the log say to others. The walk that empties them takes its time, and what leaves this node does not wait
/// for it: ops that it has yet to come to leave as it will leave them.
pub(crate) struct Telling<'c> {
    reader: Reader<'c>,
    is_walking: bool,
}

impl<'c> Telling<'c> {
    pub fn of(conn: &'c Connection, plans: &'c Plans) -> Result<Self> {
        let reader = Reader { conn, plans, listings: None };
        Ok(Self { is_walking: is_pending(&reader)?, reader })
    }

    /// The op, of the stream with this number, as it may leave.
    pub fn tell(&self, stream: i64, op: Op) -> Result<Op> {
        if !self.is_walking || matches!(op.payload, Payload::Erased { .. }) {
            return Ok(op);
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM erasing WHERE kind = ?1 AND key = ?2)";
        let mut statement = self.reader.conn.prepare_cached(sql)?;
        if !statement.query_row(params![op.kind, op.key.0], |r| r.get::<_, bool>(0))? {
            return Ok(op);
        }
        let place = Place { stream, tenant: op.stream.tenant, kind: op.kind, key: op.key };
        let conn = self.reader.conn;
        match left_of(conn, self.reader.plans, &place, op.dot, &op.payload)? {
            Some(payload) => Ok(Op { payload, ..op }),
            None => Ok(op),
        }
    }
}

/// What is left of an op of an erased record; none if it stays.
fn left_of(
    conn: &Connection,
    plans: &Plans,
    place: &Place,
    dot: Dot,
    payload: &Payload,
) -> Result<Option<Payload>> {
    // The key is that of another tenant's record. That one was erased, and this op could not be applied.
    if let Some(plan) = plans.of(place.kind)
        && load(conn, plan, place.key)?.is_some_and(|record| record.tenant != place.tenant)
    {
        return Ok(None);
    }
    let state = load_stored(conn, plans, place)?.map(|stored| stored.state).unwrap_or_default();
    Ok((!names_the_living(payload, dot, &state)).then(|| emptied(payload)))
}

/// Only writes say something of a record; of deletions and counts nothing goes.
fn names_the_living(payload: &Payload, dot: Dot, state: &State) -> bool {
    match payload {
        Payload::Write(write) if write.creates => state.creations.contains_key(&dot),
        Payload::Write(write) => {
            write.seen.creations.iter().any(|dot| state.creations.contains_key(dot))
        }
        Payload::Delete { .. } | Payload::Count(_) | Payload::Erased { .. } => true,
    }
}

fn emptied(payload: &Payload) -> Payload {
    Payload::Erased { hash: *blake3::hash(&codec::encode(payload)).as_bytes() }
}

/// Marks whose records the log still tells of.
pub fn pending(reader: &impl Read) -> Result<u64> {
    let n: i64 = reader.conn().query_row("SELECT count(*) FROM erasing", [], |r| r.get(0))?;
    Ok(n as u64)
}

/// Whether the log may still tell of erased records.
pub fn is_pending(reader: &impl Read) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM erasing)";
    Ok(reader.conn().prepare_cached(sql)?.query_row([], |r| r.get(0))?)
}

/// Whether a record was erased, and the mark is here.
pub fn is_marked(reader: &impl Read, marks: &'static Kind, kind: &Kind, key: Id) -> Result<bool> {
    Ok(reader.get(marks, mark_of(kind.code, key))?.is_some())
}
