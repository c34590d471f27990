//! What must be true in the end, computed from the acknowledged ops alone and as plainly as possible: no order, no
//! increments, no store.

use atoll_storage::op::{BodyEdit, CellWrite, Count, Write};
use atoll_storage::sketch::Sketch;
use atoll_storage::state::Cell;
use atoll_storage::{Dot, Hlc, Id, Kind, Op, Origin, Payload, State, StreamId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Model {
    /// Every acknowledged op, in the order of their acknowledgement.
    pub ops: Vec<Op>,
    /// Acknowledged by a node that was then set back to an older copy: lost unless a peer had them.
    pub set_back: BTreeSet<(StreamId, Dot)>,
    /// Kind, tenant and key of everything ever made.
    pub keys: BTreeSet<(u16, Id, Id)>,
    /// Words put into bodies: kind, key, field, creation, word.
    pub words: Vec<(u16, Id, u16, Dot, String)>,
    /// Words that somebody took out.
    pub unwritten: BTreeSet<String>,
    /// Keys that only poison touched.
    pub poisoned: BTreeSet<Id>,
    /// Records that two lives of a node wrote to under one dot: what becomes of them is nobody's promise, but they
    /// must be equal everywhere.
    pub collided: BTreeSet<(u16, Id)>,
}

/// A write that the deletion of its record hit without having seen it: it must be in an inbox.
#[derive(Debug)]
pub struct Lost {
    pub kind: u16,
    pub key: Id,
    pub field: u16,
    pub dot: Dot,
    pub hlc: Hlc,
    pub is_body: bool,
}

/// How far ahead of its wall a node's clock may be, with what counts up within a millisecond.
const DRAG_MS: u64 = 60_000 + 100;

impl Model {
    /// A node accepted this op; its clock never showed more than `latest_wall_ms`.
    ///
    /// # Errors
    /// If the op's clock is ahead of that, though nothing that it changes is.
    pub fn acknowledge(&mut self, op: Op, latest_wall_ms: u64) -> Result<(), String> {
        let is_same = |other: &&Op| (other.kind, other.key) == (op.kind, op.key);
        let past_ms = self.ops.iter().filter(is_same).map(|other| other.hlc.ms()).max();
        if op.hlc.ms() > (latest_wall_ms + DRAG_MS).max(past_ms.unwrap_or_default() + 100) {
            return Err(format!("a clock was dragged into the future: {op:?}"));
        }
        let twins = self.ops.iter().filter(|o| o.dot == op.dot && o.stream == op.stream);
        let places: Vec<_> = twins.map(|twin| (twin.kind, twin.key)).collect();
        if !places.is_empty() {
            self.collided.insert((op.kind, op.key));
            self.collided.extend(places);
        }
        self.ops.push(op);
        Ok(())
    }

    pub fn keys_of(&self, kind: &Kind) -> Vec<(Id, Id)> {
        self.keys.iter().filter(|(code, ..)| *code == kind.code).map(|(_, t, k)| (*t, *k)).collect()
    }

    /// The states that the ops which arrived make, and the writes that they lost.
    pub fn expected(
        &self,
        has_arrived: impl Fn(&Op) -> bool,
    ) -> (BTreeMap<(u16, Id), State>, Vec<Lost>) {
        let mut by_key: BTreeMap<(u16, Id), Vec<&Op>> = BTreeMap::new();
        for op in self.ops.iter().filter(|op| has_arrived(op)) {
            by_key.entry((op.kind, op.key)).or_default().push(op);
        }
        let mut lost = Vec::new();
        let states = by_key.into_iter().map(|(place, ops)| (place, state_of(&ops, &mut lost)));
        (states.collect(), lost)
    }
}

fn writes<'a>(ops: &[&'a Op]) -> impl Iterator<Item = (&'a Op, &'a Write)> {
    let ops: Vec<&'a Op> = ops.to_vec();
    ops.into_iter().filter_map(|op| match &op.payload {
        Payload::Write(write) => Some((op, write)),
        _ => None,
    })
}

fn state_of(ops: &[&Op], lost: &mut Vec<Lost>) -> State {
    let deletes: Vec<_> = ops
        .iter()
        .filter_map(|op| match &op.payload {
            Payload::Delete { seen } => Some(seen),
            _ => None,
        })
        .collect();
    let is_ended = |dot: &Dot| deletes.iter().any(|seen| seen.creations.contains(dot));
    let mut state = State::default();
    for (op, write) in writes(ops) {
        if write.creates && !is_ended(&op.dot) {
            state.creations.insert(op.dot, op.hlc);
        }
    }
    for (op, write) in writes(ops) {
        let on: Vec<Dot> = if write.creates { vec![op.dot] } else { write.seen.creations.clone() };
        let on: Vec<Dot> = on.into_iter().filter(|c| state.creations.contains_key(c)).collect();
        let deleted_knowingly = deletes.iter().any(|seen| seen.covers(op.dot));
        for cell in &write.cells {
            let Some(value) = &cell.value else { continue };
            let is_replaced = writes(ops).any(|(other, later)| {
                other.dot != op.dot
                    && later.seen.covers(op.dot)
                    && later.cells.iter().any(|c| is_same_slot(c, cell))
            });
            if is_replaced {
                continue;
            }
            if on.is_empty() {
                if !deleted_knowingly {
                    lost.push(lost_write(op, cell.field, false));
                }
                continue;
            }
            state.cells.push(Cell {
                field: cell.field,
                element: cell.element.clone(),
                dot: op.dot,
                hlc: op.hlc,
                on: on.clone(),
                value: value.clone(),
            });
        }
        for body in &write.bodies {
            if let BodyEdit::Change { creation, .. } = &body.edit
                && !state.creations.contains_key(creation)
                && !deleted_knowingly
            {
                lost.push(lost_write(op, body.field, true));
            }
        }
    }
    state.cells.sort();
    state.cells.dedup(); // one write may say the same twice
    count(ops, &mut state);
    state
}

fn lost_write(op: &Op, field: u16, is_body: bool) -> Lost {
    Lost { kind: op.kind, key: op.key, field, dot: op.dot, hlc: op.hlc, is_body }
}

fn is_same_slot(a: &CellWrite, b: &CellWrite) -> bool {
    a.field == b.field && a.element == b.element
}

fn count(ops: &[&Op], state: &mut State) {
    for op in ops {
        let Payload::Count(counts) = &op.payload else { continue };
        for count in counts {
            match count {
                Count::Total { field, total } => raise(state, *field, op.dot.origin, *total),
                Count::Sketch { field, registers } => {
                    let sketch: &mut Sketch = state.sketches.entry(*field).or_default();
                    sketch.raise(registers);
                }
            }
        }
    }
}

fn raise(state: &mut State, field: u16, origin: Origin, total: u64) {
    let mine = state.totals.entry((field, origin)).or_default();
    *mine = total.max(*mine);
}

/// What differs between what should be and what is, apart from bodies' heads.
pub fn difference(expected: &State, found: &State) -> Option<String> {
    if expected.creations != found.creations {
        return Some(format!("creations {:?}, not {:?}", found.creations, expected.creations));
    }
    if expected.cells != found.cells {
        return Some(format!("cells\n  {:?}, not\n  {:?}", found.cells, expected.cells));
    }
    if expected.totals != found.totals {
        return Some(format!("totals {:?}, not {:?}", found.totals, expected.totals));
    }
    (expected.sketches != found.sketches).then(|| "another sketch".into())
}
