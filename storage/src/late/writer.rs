//! What takes an op back is written as ordinary ops are.

use super::{Slot, TextChange};
use crate::apply::Place;
use crate::body;
use crate::clock::Hlc;
use crate::db::Db;
use crate::error::Result;
use crate::id::{Dot, StreamId};
use crate::op::{BodyEdit, BodyWrite, CellWrite, Op, Payload, Seen, Write};
use crate::state::{LostWrite, State};
use std::collections::BTreeSet;

/// Writes to one record that take one op back.
pub(super) struct Writer<'d> {
    pub db: &'d mut Db,
    pub place: &'d Place,
    pub stream: &'d StreamId,
    /// Of the op.
    pub dot: Dot,
}

impl Writer<'_> {
    pub fn state(&self) -> Result<State> {
        Ok(self.db.load_state(self.place)?.map(|stored| stored.state).unwrap_or_default())
    }

    /// Replaces nothing but what the op wrote, and names it as what is taken back.
    pub fn seen(&self, state: &State) -> Seen {
        let creations = state.creations.keys().copied().chain([self.dot]).collect();
        Seen { creations, context: vec![self.dot] }
    }

    /// With the time of what comes back, or of now.
    pub fn issue(&mut self, hlc: Option<Hlc>, payload: Payload) -> Result<Dot> {
        let origin = self.db.origin;
        let seq = self.db.heads.head(self.stream).map_or(0, |head| head.vector.get(origin)) + 1;
        let now_ms = self.db.clock.now_ms();
        let hlc = hlc.unwrap_or_else(|| {
            self.db.heads.hlc = self.db.heads.hlc.tick(now_ms, Hlc(0));
            self.db.heads.hlc
        });
        // The last op of the log does not tell the clock then.
        self.db.heads.hlc_must_be_kept = true;
        let Place { kind, key, .. } = *self.place;
        let schema = self.db.plans.of(kind).map_or(1, |plan| plan.kind.schema);
        let dot = Dot { origin, seq };
        let op = Op { stream: self.stream.clone(), dot, hlc, kind, schema, key, payload };
        self.db.apply_op(&op)?;
        Ok(dot)
    }

    /// Each value with its own time, so that it wins and loses as before; in as few ops as that allows. `emptied` are slots
    /// in which the op's own value goes.
    pub fn put_values(&mut self, values: &[LostWrite], mut emptied: BTreeSet<Slot>) -> Result<()> {
        let mut left: Vec<LostWrite> = values.to_vec();
        while let Some(first) = left.first() {
            let hlc = first.hlc;
            let mut slots: BTreeSet<Slot> = BTreeSet::new();
            let (mut cells, mut rest) = (Vec::new(), Vec::new());
            for value in left {
                let slot = (value.field, value.element.clone());
                if value.hlc == hlc && slots.insert(slot.clone()) {
                    emptied.remove(&slot);
                    let LostWrite { field, element, value, .. } = value;
                    cells.push(CellWrite { field, element, value: Some(value) });
                } else {
                    rest.push(value);
                }
            }
            left = rest;
            let seen = self.seen(&self.state()?);
            let write = Write { creates: false, seen, cells, bodies: vec![] };
            self.issue(Some(hlc), Payload::Write(write))?;
        }
        if !emptied.is_empty() {
            let empty = |(field, element): Slot| CellWrite { field, element, value: None };
            let cells = emptied.into_iter().map(empty).collect();
            let seen = self.seen(&self.state()?);
            let write = Write { creates: false, seen, cells, bodies: vec![] };
            self.issue(None, Payload::Write(write))?;
        }
        Ok(())
    }

    /// What the op changed in texts is changed back; what others changed since stays. If nothing of it is left, an empty write
    /// tells so to others, whose texts before the op may hold what was late too.
    pub fn put_texts(&mut self, texts: &[TextChange]) -> Result<()> {
        let state = self.state()?;
        let (mut bodies, mut is_there) = (Vec::new(), false);
        for (field, creation, heads, text) in texts {
            if state.body_of(*field, *creation).is_none() {
                continue;
            }
            is_there = true;
            let content = self.db.content(self.place, *field, *creation)?;
            // By one author, so that two nodes that take one op back make one change.
            let author = self.dot.origin;
            if let Some(bytes) = body::edit_from(&content, *creation, author, heads, text)? {
                let edit = BodyEdit::Change { creation: *creation, bytes };
                bodies.push(BodyWrite { field: *field, edit });
            }
        }
        if !is_there {
            return Ok(());
        }
        // A change builds on those before it.
        let mut seen = state.seen();
        seen.creations.push(self.dot);
        self.issue(None, Payload::Write(Write { creates: false, seen, cells: vec![], bodies }))?;
        Ok(())
    }
}
