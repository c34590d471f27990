//! What a removed node wrote after it was removed. It is applied as all ops are, so that equal vectors stay equal states
//! on nodes that have heard and on nodes that have not, over trimmed logs and snapshots; it is shown in quarantine; and
//! what it did is taken back by ordinary writes, which travel.
//!
//! Whoever gets such an op after it has heard knows what the record was before, and keeps the op's inverse. The node that
//! said the cut writes the inverse in the same transaction. Others wait, and write it if nobody else has: a write that
//! takes an op back names it among the creations that it saw, as no other write does.

mod found;
mod texts;
mod writer;

pub use found::{count, waiting};

use crate::apply::Place;
use crate::body;
use crate::clock::Hlc;
use crate::codec;
use crate::conflict;
use crate::db::{Applied, Db};
use crate::error::{Error, Result};
use crate::id::{Dot, Id, Origin, StreamId};
use crate::op::{BodyEdit, BodyWrite, Op, Payload, Seen, Write};
use crate::state::{Cell, LostWrite, State};
use crate::value::Value;
use bincode::{Decode, Encode};
use rusqlite::{OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};
use writer::Writer;

/// Of a row of the quarantine.
pub const REASON: &str = "written after its node was removed";

/// A register, or one element of a set.
type Slot = (u16, Option<Value>);

/// The field, the creation, the heads after it, the text before.
type TextChange = (u16, Dot, body::Heads, String);

/// What takes an op back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Inverse {
    /// It made the record, or made it once more.
    creates: bool,
    /// It deleted the record, which had been made then,
    made: Option<Hlc>,
    /// by these creations.
    ended: Vec<Dot>,
    /// The creation that takes their place, once it is written. Then nothing else is left to be done, but to end it too if
    /// somebody deleted the record apart from all this.
    revived: Option<Dot>,
    /// Texts that went with the record.
    born: Vec<(u16, String)>,
    /// Where it put values.
    slots: Vec<Slot>,
    /// Values that it took away, as they were; several in one slot had been written apart from each other.
    values: Vec<LostWrite>,
    /// Texts that it changed.
    texts: Vec<TextChange>,
}

/// A record before a late op.
struct Before {
    place: Place,
    state: State,
    texts: BTreeMap<(u16, Dot), String>,
}

fn slot_of(cell: &Cell) -> Slot {
    (cell.field, cell.element.clone())
}

fn is_same(a: &Cell, b: &Cell) -> bool {
    (a.dot, a.field) == (b.dot, b.field) && a.element == b.element
}

/// What is known of a record before an op. If the op is tried alone, it is taken without that too.
fn forgiven<T>(before: Result<T>, alone: bool) -> Result<Option<T>> {
    match before {
        Err(error @ (Error::Full | Error::Damaged(_))) => Err(error),
        Err(error) if !alone => Err(error),
        before => Ok(before.ok()),
    }
}

impl Db {
    /// As `accept`, for an op that came from a peer: if it is late, it is also taken back.
    pub(crate) fn accept_in_time(
        &mut self,
        op: &Op,
        applied: &mut Applied,
        one_by_one: bool,
    ) -> Result<()> {
        let cuts = self.cuts()?;
        if cuts.is_empty() {
            return self.accept(op, applied, one_by_one);
        }
        if !self.is_late(&op.stream, op.dot)? {
            let texts = self.texts_before(op);
            let texts = forgiven(texts, one_by_one)?.unwrap_or_default();
            self.accept(op, applied, one_by_one)?;
            return self.alone_if(one_by_one, |db| {
                db.note_taken_back(op)?;
                db.rebase_texts(op, texts)
            });
        }
        let before = self.before(op);
        let before = forgiven(before, one_by_one)?;
        let failed = applied.quarantined;
        self.accept(op, applied, one_by_one)?;
        let Some(before) = before.filter(|_| applied.quarantined == failed) else { return Ok(()) };
        self.alone_if(one_by_one, |db| db.note_late(op, before, applied))
    }

    /// What goes with an op. If that was tried alone, so is this; and what cannot be done then keeps no op from being taken.
    fn alone_if(&mut self, alone: bool, f: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if !alone {
            return f(self);
        }
        let done = self.savepoint(|db| {
            f(db)?;
            db.settle()
        });
        match done {
            Err(error) if !matches!(error, Error::Full | Error::Damaged(_)) => {
                tracing::error!(%error, "what a removed node wrote cannot be taken back");
                Ok(())
            }
            done => done,
        }
    }

    /// Whether its node had been removed when the op was written. What this node wrote itself never is late here.
    pub(crate) fn is_late(&mut self, stream: &StreamId, dot: Dot) -> Result<bool> {
        Ok(dot.origin.node != self.origin.node && self.cuts()?.is_late(stream, dot))
    }

    fn before(&mut self, op: &Op) -> Result<Before> {
        let place = self.place_of(op)?;
        let state = self.load_state(&place)?.map(|stored| stored.state).unwrap_or_default();
        let mut texts = BTreeMap::new();
        let changed: BTreeSet<(u16, Dot)> = match &op.payload {
            Payload::Delete { .. } => {
                let fields: BTreeSet<u16> = state.bodies.iter().map(|body| body.field).collect();
                let shown = fields.iter().filter_map(|field| state.body(*field));
                shown.map(|body| (body.field, body.creation)).collect()
            }
            Payload::Write(write) => {
                let changes = write.bodies.iter().filter_map(|body| match &body.edit {
                    BodyEdit::Change { creation, .. } => Some((body.field, *creation)),
                    BodyEdit::Born(_) => None,
                });
                changes.filter(|(field, c)| state.body_of(*field, *c).is_some()).collect()
            }
            Payload::Count(_) | Payload::Erased { .. } => BTreeSet::new(),
        };
        for (field, creation) in changed {
            texts.insert((field, creation), self.text_in_time(&place, field, creation)?);
        }
        Ok(Before { place, state, texts })
    }

    fn note_late(&mut self, op: &Op, before: Before, applied: &mut Applied) -> Result<()> {
        let now_ms = self.clock.now_ms();
        self.note_quarantine(op, REASON, now_ms)?;
        applied.late += 1;
        let place = before.place.clone();
        // What it wrote to a record that was gone already is nobody's loss.
        for (id, lost) in conflict::lost_writes(&self.conn, place.kind, place.key)? {
            if lost.dot == op.dot {
                conflict::remove_id(&self.conn, id)?;
            }
        }
        let after = self.load_state(&place)?.map(|stored| stored.state).unwrap_or_default();
        let inverse = self.inverse(op, before, &after)?;
        if inverse == Inverse::default() {
            return Ok(());
        }
        self.take_over_texts(&place, &inverse.texts)?;
        if self.cuts()?.is_said_by(op.dot.origin.node, &op.stream, self.origin) {
            return self.take_back(&place, &op.stream, op.dot, inverse);
        }
        self.keep_inverse(&place, op.dot, Some(now_ms), &inverse)
    }

    /// Until a time after `at_ms`; without one, for good.
    fn keep_inverse(
        &mut self,
        place: &Place,
        dot: Dot,
        at_ms: Option<u64>,
        inverse: &Inverse,
    ) -> Result<()> {
        let origin = self.heads.origin_number(&self.conn, dot.origin)?;
        let sql = "INSERT OR REPLACE INTO late (stream, origin, seq, at_ms, kind, key, inverse) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.conn.prepare_cached(sql)?.execute(params![
            place.stream,
            origin,
            dot.seq as i64,
            at_ms.map(|at_ms| at_ms as i64),
            place.kind,
            place.key.0,
            codec::encode(inverse)
        ])?;
        Ok(())
    }

    fn inverse(&mut self, op: &Op, before: Before, after: &State) -> Result<Inverse> {
        let Before { place, state, texts } = before;
        let cuts = self.cuts()?;
        let is_late = |dot: &Dot| cuts.is_late(&op.stream, *dot);
        let mut inverse =
            Inverse { creates: after.creations.contains_key(&op.dot), ..Inverse::default() };
        let gone = |dot: &Dot| !after.creations.contains_key(dot) && !is_late(dot);
        let ended = state.creations.iter().filter(|(dot, _)| gone(dot));
        (inverse.ended, inverse.made) =
            (ended.clone().map(|(dot, _)| *dot).collect(), ended.map(|(_, hlc)| *hlc).min());
        let news = after.cells.iter().filter(|cell| {
            cell.dot == op.dot && !inverse.creates && !state.cells.iter().any(|c| is_same(c, cell))
        });
        inverse.slots = news.map(slot_of).collect();
        let lacks = |cell: &&Cell| !after.cells.iter().any(|c| is_same(c, cell));
        for cell in state.cells.iter().filter(lacks) {
            if cell.on.iter().all(|dot| is_late(dot)) {
                continue;
            }
            if is_late(&cell.dot) {
                // It took away what is taken back itself: what that took away stands for it.
                let earlier = self.inverse_of(&place, cell.dot)?.unwrap_or_default();
                let of_slot = |v: &&LostWrite| (v.field, v.element.clone()) == slot_of(cell);
                inverse.values.extend(earlier.values.iter().filter(of_slot).cloned());
            } else {
                let Cell { field, element, dot, hlc, value, .. } = cell.clone();
                inverse.values.push(LostWrite { field, element, dot, hlc, value });
            }
        }
        inverse.values.sort_by_key(|value| (value.hlc, value.dot));
        for ((field, creation), text) in texts {
            match after.body_of(field, creation) {
                None if !is_late(&creation) => inverse.born.push((field, text)),
                Some(body) if state.body_of(field, creation).is_some_and(|b| b != body) => {
                    inverse.texts.push((field, creation, body.heads.clone(), text));
                }
                _ => {}
            }
        }
        Ok(inverse)
    }

    fn inverse_of(&mut self, place: &Place, dot: Dot) -> Result<Option<Inverse>> {
        let origin = self.heads.origin_number(&self.conn, dot.origin)?;
        let sql = "SELECT inverse FROM late WHERE stream = ?1 AND origin = ?2 AND seq = ?3";
        let args = params![place.stream, origin, dot.seq as i64];
        let bytes: Option<Vec<u8>> =
            self.conn.prepare_cached(sql)?.query_row(args, |r| r.get(0)).optional()?;
        bytes.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Forgets the inverses of the ops that this one takes back.
    fn note_taken_back(&mut self, op: &Op) -> Result<()> {
        let (seen, is_deletion) = match &op.payload {
            Payload::Write(write) => (&write.seen, false),
            Payload::Delete { seen } => (seen, true),
            Payload::Count(_) | Payload::Erased { .. } => return Ok(()),
        };
        let named = seen.creations.clone();
        if is_deletion {
            self.end_with(op, &named)?;
        }
        for dot in named {
            if !self.is_late(&op.stream, dot)? {
                continue;
            }
            let place = self.place_of(op)?;
            let Some(inverse) = self.inverse_of(&place, dot)? else { continue };
            // A write to a record that a late op made names it too, and takes nothing back.
            if is_deletion || !inverse.creates {
                self.forget_inverse(place.stream, dot)?;
            }
        }
        Ok(())
    }

    /// Somebody deleted the record in good faith and apart from a late deletion of it: so it does not come back.
    fn end_with(&mut self, op: &Op, named: &[Dot]) -> Result<()> {
        let place = self.place_of(op)?;
        for (id, mut inverse) in self.inverses_at(&place)? {
            if !inverse.ended.iter().any(|dot| named.contains(dot)) {
                continue;
            }
            inverse.ended.retain(|dot| !named.contains(dot));
            if !inverse.ended.is_empty() {
                self.put_inverse(id, &inverse)?;
                continue;
            }
            self.conn.prepare_cached("DELETE FROM late WHERE id = ?1")?.execute([id])?;
            if let Some(revived) = inverse.revived {
                let known = self.heads.head(&op.stream).map_or(0, |h| h.vector.get(revived.origin));
                let context = vec![Dot { origin: revived.origin, seq: known }];
                let seen = Seen { creations: vec![revived], context };
                let mut writer =
                    Writer { db: self, place: &place, stream: &op.stream, dot: op.dot };
                if writer.state()?.creations.contains_key(&revived) {
                    writer.issue(None, Payload::Delete { seen })?;
                }
            }
        }
        Ok(())
    }

    /// All that are kept for a record, the earliest first, with their ids.
    fn inverses_at(&self, place: &Place) -> Result<Vec<(i64, Inverse)>> {
        let sql =
            "SELECT id, inverse FROM late WHERE kind = ?1 AND key = ?2 AND stream = ?3 ORDER BY id";
        let rows: Vec<(i64, Vec<u8>)> = self
            .conn
            .prepare_cached(sql)?
            .query_map(params![place.kind, place.key.0, place.stream], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        rows.into_iter().map(|(id, bytes)| Ok((id, codec::decode(&bytes)?))).collect()
    }

    fn put_inverse(&self, id: i64, inverse: &Inverse) -> Result<()> {
        let sql = "UPDATE late SET inverse = ?2 WHERE id = ?1";
        self.conn.prepare_cached(sql)?.execute(params![id, codec::encode(inverse)])?;
        Ok(())
    }

    fn forget_inverse(&mut self, stream: i64, dot: Dot) -> Result<()> {
        let origin = self.heads.origin_number(&self.conn, dot.origin)?;
        let sql = "DELETE FROM late WHERE stream = ?1 AND origin = ?2 AND seq = ?3";
        self.conn.prepare_cached(sql)?.execute(params![stream, origin, dot.seq as i64])?;
        Ok(())
    }

    /// Takes back, as far as nobody has, at most so many of the late ops that came before a time, Unix milliseconds. To be
    /// called once this node has what its peers have. False if nothing is left of before then.
    pub fn take_back_before(&mut self, at_ms: u64, most: usize) -> Result<bool> {
        self.begin()?;
        let result = self.take_back_in_group(at_ms, most);
        self.commit()?;
        result
    }

    fn take_back_in_group(&mut self, at_ms: u64, most: usize) -> Result<bool> {
        // Of a record all or none, the latest first: each finds what it left.
        let sql = "SELECT id FROM late l WHERE at_ms IS NOT NULL AND EXISTS \
                   (SELECT 1 FROM late e WHERE e.kind = l.kind AND e.key = l.key AND e.at_ms < ?1) \
                   ORDER BY id DESC LIMIT ?2";
        let ids: Vec<i64> = self
            .conn
            .prepare_cached(sql)?
            .query_map(params![at_ms as i64, most as i64], |r| r.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for id in &ids {
            let done = self.savepoint(|db| {
                db.take_back_row(*id)?;
                db.settle()
            });
            match done {
                Ok(()) => {}
                Err(error @ (Error::Full | Error::Damaged(_) | Error::Closed)) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::error!(%error, "what a removed node wrote cannot be taken back");
                    self.conn.prepare_cached("DELETE FROM late WHERE id = ?1")?.execute([id])?;
                }
            }
        }
        Ok(ids.len() == most)
    }

    fn take_back_row(&mut self, row_id: i64) -> Result<()> {
        let sql = "SELECT l.stream, g.bytes, l.seq, l.kind, l.key, l.inverse FROM late l \
                   JOIN origin g ON g.id = l.origin WHERE l.id = ?1";
        let row = self.conn.prepare_cached(sql)?.query_row([row_id], |r| {
            let dot = (r.get::<_, Vec<u8>>(1)?, r.get::<_, i64>(2)? as u64);
            Ok((r.get::<_, i64>(0)?, dot, r.get(3)?, Id(r.get(4)?), r.get::<_, Vec<u8>>(5)?))
        });
        let Some((stream, (origin, seq), kind, key, inverse)) = row.optional()? else {
            return Ok(());
        };
        let id = self.heads.all().find(|(number, _)| *number == stream);
        let Some(id) = id.map(|(_, head)| head.stream.clone()) else { return Ok(()) };
        let Some(origin) = Origin::from_slice(&origin) else { return Ok(()) };
        self.conn.prepare_cached("DELETE FROM late WHERE id = ?1")?.execute([row_id])?;
        let dot = Dot { origin, seq };
        // A cut that came meanwhile may cover it.
        if !self.is_carried(&id) || !self.is_late(&id, dot)? {
            return Ok(());
        }
        let place = Place { stream, tenant: id.tenant, kind, key };
        self.take_back(&place, &id, dot, codec::decode(&inverse)?)
    }

    /// Writes what takes a late op back, as far as it still shows.
    fn take_back(
        &mut self,
        place: &Place,
        stream: &StreamId,
        dot: Dot,
        inverse: Inverse,
    ) -> Result<()> {
        let mut writer = Writer { db: self, place, stream, dot };
        let state = writer.state()?;
        if inverse.creates && state.creations.contains_key(&dot) {
            // All that its node wrote to it goes with it.
            let known = writer.db.heads.head(stream).map_or(0, |head| head.vector.get(dot.origin));
            let context = vec![Dot { origin: dot.origin, seq: dot.seq.max(known) }];
            let seen = Seen { creations: vec![dot], context };
            writer.issue(None, Payload::Delete { seen })?;
        }
        let state = writer.state()?;
        if state.creations.is_empty() {
            let Some(made) = inverse.made else { return Ok(()) };
            let bodies = inverse.born.iter();
            let bodies = bodies.map(|(field, text)| BodyWrite {
                field: *field,
                edit: BodyEdit::Born(text.clone()),
            });
            let write = Write {
                creates: true,
                seen: writer.seen(&State::default()),
                cells: vec![],
                bodies: bodies.collect(),
            };
            let revived = Some(writer.issue(Some(made), Payload::Write(write))?);
            writer.put_values(&inverse.values, BTreeSet::new())?;
            let done = Inverse { ended: inverse.ended, revived, ..Inverse::default() };
            return self.keep_inverse(place, dot, None, &done);
        }
        if inverse.made.is_none() {
            let shows =
                |slot: &Slot| state.cells.iter().any(|c| c.dot == dot && slot_of(c) == *slot);
            let is_free = |slot: &Slot| !state.cells.iter().any(|c| slot_of(c) == *slot);
            let slots: BTreeSet<Slot> =
                inverse.slots.iter().filter(|slot| shows(slot)).cloned().collect();
            let values: Vec<LostWrite> = inverse
                .values
                .iter()
                .filter(|v| {
                    let slot = (v.field, v.element.clone());
                    slots.contains(&slot) || is_free(&slot)
                })
                .cloned()
                .collect();
            writer.put_values(&values, slots)?;
        }
        writer.put_texts(&inverse.texts)
    }

    /// Of a snapshot's record: what late ops made in it or put into it goes, and what it took the place of here is back.
    pub(crate) fn take_back_merged(
        &mut self,
        place: &Place,
        stream: &StreamId,
        before: &State,
        after: &State,
    ) -> Result<()> {
        // Nobody keeps the inverse of what comes so. What it took the place of is known here under any epoch.
        let (cuts, mine) = (self.cuts()?, self.origin.node);
        let is_due = |dot: &Dot| {
            let speaker = cuts.speaker(dot.origin.node, stream);
            cuts.is_late(stream, *dot) && speaker.is_some_and(|by| by.node == mine)
        };
        let mut inverses: BTreeMap<Dot, Inverse> = BTreeMap::new();
        for dot in after.creations.keys().filter(|dot| is_due(dot)) {
            inverses.entry(*dot).or_default().creates = true;
        }
        for cell in after.cells.iter().filter(|cell| is_due(&cell.dot)) {
            let stood = before.cells.iter().filter(|c| slot_of(c) == slot_of(cell));
            let gone = stood.filter(|c| !after.cells.iter().any(|a| is_same(a, c)));
            let values: Vec<LostWrite> = gone
                .filter(|c| !cuts.is_late(stream, c.dot))
                .map(|c| {
                    let Cell { field, element, dot, hlc, value, .. } = c.clone();
                    LostWrite { field, element, dot, hlc, value }
                })
                .collect();
            // Without what stood here before, a value is better than none.
            if !values.is_empty() {
                let inverse = inverses.entry(cell.dot).or_default();
                inverse.slots.push(slot_of(cell));
                inverse.values.extend(values);
            }
        }
        for (dot, mut inverse) in inverses {
            inverse.values.sort_by_key(|value| (value.hlc, value.dot));
            self.take_back(place, stream, dot, inverse)?;
        }
        Ok(())
    }
}
