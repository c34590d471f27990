//! The state of one record: a pure function of the set of ops on it, whatever order they came in
//! (causes before effects). No I/O here, and no knowledge of what the fields mean.
//!
//! Values hang on the creations their author saw. A record is there while one creation survives; a value is
//! there while one of its creations survives and no later write that saw it took its place.

use crate::clock::Hlc;
use crate::codec;
use crate::error::{Error, Result};
use crate::id::{Dot, Origin};
use crate::op::{BodyEdit, CellWrite, Count, Seen, Write};
use crate::sketch::Sketch;
use crate::value::Value;
use crate::vector::Vector;
use bincode::{Decode, Encode};
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Surviving creations, by dot.
    pub creations: BTreeMap<Dot, Hlc>,
    /// Sorted by (field, element, dot). More than one value of a register are concurrent writes.
    pub cells: Vec<Cell>,
    /// Sorted by (field, creation).
    pub bodies: Vec<BodyState>,
    /// Counters: a total an origin.
    pub totals: BTreeMap<(u16, Origin), u64>,
    pub sketches: BTreeMap<u16, Sketch>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cell {
    pub field: u16,
    pub element: Option<Value>,
    pub dot: Dot,
    pub hlc: Hlc,
    /// The surviving creations that its author saw; never empty.
    pub on: Vec<Dot>,
    pub value: Value,
}

/// What a body is, without its text: that stands in a table of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct BodyState {
    pub field: u16,
    pub creation: Dot,
    /// BLAKE3 of the text it was born with.
    pub born: [u8; 32],
    /// Heads of its automerge document, sorted; empty until the first edit.
    pub heads: Vec<[u8; 32]>,
    /// The latest edit of each origin, sorted.
    pub edits: Vec<(Dot, Hlc)>,
}

/// A write that met the deletion of what it changed: it goes to the conflict inbox.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LostWrite {
    pub field: u16,
    pub element: Option<Value>,
    pub dot: Dot,
    pub hlc: Hlc,
    pub value: Value,
}

/// What a deletion took away unseen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lost {
    pub writes: Vec<LostWrite>,
    pub edits: Vec<LostEdit>,
}

/// An edit of a body that went with its record: whoever holds the text makes a [`LostWrite`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostEdit {
    pub field: u16,
    pub creation: Dot,
    pub dot: Dot,
    pub hlc: Hlc,
}

impl State {
    pub fn is_alive(&self) -> bool {
        !self.creations.is_empty() || !self.totals.is_empty() || !self.sketches.is_empty()
    }

    /// The winning value of a register: the latest by (hlc, dot).
    pub fn register(&self, field: u16) -> Option<&Cell> {
        self.cells_of(field).iter().filter(|c| c.element.is_none()).max_by_key(|c| (c.hlc, c.dot))
    }

    pub fn set(&self, field: u16) -> impl Iterator<Item = &Value> {
        let mut last = None;
        let elements = self.cells_of(field).iter().filter_map(|c| c.element.as_ref());
        elements.filter(move |e| last.replace(*e) != Some(*e))
    }

    pub fn cells_of(&self, field: u16) -> &[Cell] {
        let start = self.cells.partition_point(|c| c.field < field);
        let len = self.cells[start..].partition_point(|c| c.field == field);
        &self.cells[start..start + len]
    }

    /// The body that shows: that of the latest surviving creation.
    pub fn body(&self, field: u16) -> Option<&BodyState> {
        let stamp = |b: &BodyState| (self.creations.get(&b.creation).copied(), b.creation);
        self.bodies.iter().filter(|b| b.field == field).max_by_key(|b| stamp(b))
    }

    pub fn total(&self, field: u16) -> u64 {
        let all = self.totals.iter().filter(|((f, _), _)| *f == field);
        all.fold(0, |sum: u64, (_, total)| sum.saturating_add(*total))
    }

    pub fn latest_hlc(&self) -> Hlc {
        let edits = self.bodies.iter().flat_map(|body| body.edits.iter().map(|(_, hlc)| *hlc));
        let written = self.cells.iter().map(|cell| cell.hlc).chain(edits);
        written.chain(self.creations.values().copied()).max().unwrap_or_default()
    }

    pub fn created_hlc(&self) -> Hlc {
        self.creations.values().min().copied().unwrap_or_default()
    }

    /// What a write made here and now has seen.
    pub fn seen(&self) -> Seen {
        let mut context = Vector::default();
        let edits = self.bodies.iter().flat_map(|b| b.edits.iter().map(|(dot, _)| *dot));
        let dots =
            self.creations.keys().copied().chain(self.cells.iter().map(|c| c.dot)).chain(edits);
        dots.for_each(|dot| context.raise(dot.origin, dot.seq));
        let context = context.0.into_iter().map(|(origin, seq)| Dot { origin, seq }).collect();
        Seen { creations: self.creations.keys().copied().collect(), context }
    }

    /// Applies cells and births of bodies; changes of bodies are applied by whoever holds their text.
    /// Returns the values that met a deletion.
    pub fn write(&mut self, dot: Dot, hlc: Hlc, write: &Write) -> Vec<LostWrite> {
        let on: Vec<Dot> = if write.creates {
            self.creations.insert(dot, hlc);
            vec![dot]
        } else {
            let seen = write.seen.creations.iter();
            seen.filter(|c| self.creations.contains_key(c)).copied().collect()
        };
        let mut lost = Vec::new();
        for cell in &write.cells {
            self.write_cell(dot, hlc, cell, &write.seen, &on, &mut lost);
        }
        for body in &write.bodies {
            if let BodyEdit::Born(text) = &body.edit
                && write.creates
                && self.body_of(body.field, dot).is_none()
            {
                let born = *blake3::hash(text.as_bytes()).as_bytes();
                let state = BodyState {
                    field: body.field,
                    creation: dot,
                    born,
                    heads: vec![],
                    edits: vec![],
                };
                self.put_body(state);
            }
        }
        lost
    }

    fn write_cell(
        &mut self,
        dot: Dot,
        hlc: Hlc,
        cell: &CellWrite,
        seen: &Seen,
        on: &[Dot],
        lost: &mut Vec<LostWrite>,
    ) {
        let same = |c: &Cell| c.field == cell.field && c.element == cell.element;
        self.cells.retain(|c| !(same(c) && (seen.covers(c.dot) || c.dot == dot)));
        let Some(value) = cell.value.clone() else { return };
        let (field, element) = (cell.field, cell.element.clone());
        if on.is_empty() {
            lost.push(LostWrite { field, element, dot, hlc, value });
            return;
        }
        let cell = Cell { field, element, dot, hlc, on: on.to_vec(), value };
        let order = |c: &Cell| (c.field, c.element.cmp(&cell.element), c.dot);
        let at = self.cells.partition_point(|c| {
            let (f, e, d) = order(c);
            (f, e, d) < (cell.field, std::cmp::Ordering::Equal, cell.dot)
        });
        self.cells.insert(at, cell);
    }

    /// Ends the creations seen. Returns what the deleting side had not seen.
    pub fn delete(&mut self, seen: &Seen) -> Lost {
        self.creations.retain(|dot, _| !seen.creations.contains(dot));
        self.drop_orphans(|dot| !seen.covers(dot))
    }

    fn drop_orphans(&mut self, is_lost: impl Fn(Dot) -> bool) -> Lost {
        let mut lost = Lost::default();
        let creations = &self.creations;
        self.cells.retain_mut(|cell| {
            cell.on.retain(|dot| creations.contains_key(dot));
            if cell.on.is_empty() && is_lost(cell.dot) {
                lost.writes.push(LostWrite {
                    field: cell.field,
                    element: cell.element.clone(),
                    dot: cell.dot,
                    hlc: cell.hlc,
                    value: cell.value.clone(),
                });
            }
            !cell.on.is_empty()
        });
        self.bodies.retain(|body| {
            let is_alive = creations.contains_key(&body.creation);
            let unseen = body.edits.iter().filter(|(dot, _)| !is_alive && is_lost(*dot));
            lost.edits.extend(unseen.map(|(dot, hlc)| LostEdit {
                field: body.field,
                creation: body.creation,
                dot: *dot,
                hlc: *hlc,
            }));
            is_alive
        });
        lost
    }

    /// Merges counter and sketch states; the same or an older state changes nothing.
    pub fn count(&mut self, origin: Origin, counts: &[Count]) {
        for count in counts {
            match count {
                Count::Total { field, total } => {
                    let mine = self.totals.entry((*field, origin)).or_default();
                    *mine = (*mine).max(*total);
                }
                Count::Sketch { field, registers } => {
                    self.sketches.entry(*field).or_default().raise(registers);
                }
            }
        }
    }

    pub fn body_of(&self, field: u16, creation: Dot) -> Option<&BodyState> {
        self.bodies.iter().find(|b| b.field == field && b.creation == creation)
    }

    pub fn put_body(&mut self, body: BodyState) {
        self.bodies.retain(|b| (b.field, b.creation) != (body.field, body.creation));
        let at =
            self.bodies.partition_point(|b| (b.field, b.creation) < (body.field, body.creation));
        self.bodies.insert(at, body);
    }

    /// Reconciles with the state of the same record on a node whose vector is `theirs`, by causal context:
    /// what one side has and the other lacks was deleted there if the other's vector covers its dot, and is
    /// new to it if it does not. Bodies that both sides edited keep the heads of `self`: the caller merges
    /// their documents. Returns what met a deletion unseen.
    ///
    /// With equal vectors two states can only differ by damage. Then nothing that either side has is taken for
    /// deleted: both keep the union, and of two values or times under one dot the greater.
    pub fn merge(&mut self, mine: &Vector, other: &Self, theirs: &Vector) -> Lost {
        let is_repair = mine == theirs;
        let deleted_there = |dot: Dot| theirs.covers(dot) && !is_repair;
        let deleted_here = |dot: Dot| mine.covers(dot) && !is_repair;
        self.creations.retain(|dot, _| other.creations.contains_key(dot) || !deleted_there(*dot));
        let news = other.creations.iter().filter(|(dot, _)| !deleted_here(**dot));
        let news: Vec<_> = news.map(|(dot, hlc)| (*dot, *hlc)).collect();
        for (dot, hlc) in news {
            let known = self.creations.entry(dot).or_insert(hlc);
            *known = (*known).max(hlc);
        }

        let find = |cells: &[Cell], c: &Cell| {
            let same = |o: &&Cell| o.dot == c.dot && o.field == c.field && o.element == c.element;
            cells.iter().find(same).cloned()
        };
        let mut cells = Vec::new();
        for cell in &self.cells {
            match find(&other.cells, cell) {
                Some(twin) => {
                    let mut cell = cell.clone();
                    cell.on.extend(twin.on);
                    cell.value = cell.value.max(twin.value);
                    cell.hlc = cell.hlc.max(twin.hlc);
                    cells.push(cell);
                }
                None if !deleted_there(cell.dot) => cells.push(cell.clone()),
                None => {}
            }
        }
        for cell in &other.cells {
            if !deleted_here(cell.dot) && find(&self.cells, cell).is_none() {
                cells.push(cell.clone());
            }
        }
        cells.sort();
        for cell in &mut cells {
            cell.on.sort();
            cell.on.dedup();
        }
        self.cells = cells;
        self.even_stamps();
        for body in &other.bodies {
            match self
                .bodies
                .iter_mut()
                .find(|b| (b.field, b.creation) == (body.field, body.creation))
            {
                Some(twin) => twin.edits = merge_edits(&twin.edits, &body.edits),
                None => self.put_body(body.clone()),
            }
        }
        for (slot, total) in &other.totals {
            let mine = self.totals.entry(*slot).or_default();
            *mine = (*mine).max(*total);
        }
        for (field, sketch) in &other.sketches {
            self.sketches.entry(*field).or_default().raise(&sketch.registers());
        }
        self.drop_orphans(|dot| !(mine.covers(dot) && theirs.covers(dot)))
    }

    /// One time a dot, as the bytes have it: two lives of a node may have given one dot to two writes.
    fn even_stamps(&mut self) {
        let mut stamps = self.creations.clone();
        for cell in &self.cells {
            let stamp = stamps.entry(cell.dot).or_insert(cell.hlc);
            *stamp = (*stamp).max(cell.hlc);
        }
        for (dot, hlc) in &mut self.creations {
            *hlc = stamps.get(dot).copied().unwrap_or(*hlc);
        }
        for cell in &mut self.cells {
            cell.hlc = stamps.get(&cell.dot).copied().unwrap_or(cell.hlc);
        }
    }

    /// The canonical bytes: equal on every node that applied the same ops.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut stamps: BTreeMap<Dot, Hlc> = self.creations.clone();
        stamps.extend(self.cells.iter().map(|c| (c.dot, c.hlc)));
        let index: BTreeMap<Dot, u32> = stamps.keys().zip(0..).map(|(dot, i)| (*dot, i)).collect();
        let at = |dot: &Dot| index.get(dot).copied().unwrap_or(u32::MAX);
        let cell = |c: &Cell| CellBytes {
            field: c.field,
            element: c.element.clone(),
            stamp: at(&c.dot),
            on: c.on.iter().map(at).collect(),
            value: c.value.clone(),
        };
        codec::encode(&StateBytes {
            creations: self.creations.keys().map(at).collect(),
            cells: self.cells.iter().map(cell).collect(),
            bodies: self.bodies.clone(),
            totals: self.totals.iter().map(|((f, o), n)| (*f, *o, *n)).collect(),
            sketches: self.sketches.iter().map(|(f, s)| (*f, s.registers())).collect(),
            stamps: stamps.into_iter().collect(),
        })
    }

    /// # Errors
    /// `Malformed` if the bytes are no state, or name a dot that they do not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wire: StateBytes = codec::decode(bytes)?;
        let bad = || Error::Malformed("a record names an unknown dot".into());
        let at = |i: u32| wire.stamps.get(i as usize).copied().ok_or_else(bad);
        let creations = wire.creations.iter().map(|i| at(*i)).collect::<Result<_>>()?;
        let mut cells = Vec::with_capacity(wire.cells.len());
        for c in wire.cells {
            let (dot, hlc) = at(c.stamp)?;
            let on = c.on.iter().map(|i| at(*i).map(|(dot, _)| dot)).collect::<Result<_>>()?;
            cells.push(Cell { field: c.field, element: c.element, dot, hlc, on, value: c.value });
        }
        let sketches = wire.sketches.into_iter().map(|(field, registers)| {
            let mut sketch = Sketch::default();
            sketch.raise(&registers);
            (field, sketch)
        });
        Ok(Self {
            creations,
            cells,
            bodies: wire.bodies,
            totals: wire.totals.into_iter().map(|(f, o, n)| ((f, o), n)).collect(),
            sketches: sketches.collect(),
        })
    }
}

fn merge_edits(a: &[(Dot, Hlc)], b: &[(Dot, Hlc)]) -> Vec<(Dot, Hlc)> {
    let mut latest: BTreeMap<Origin, (Dot, Hlc)> = BTreeMap::new();
    for edit in a.iter().chain(b) {
        let known = latest.entry(edit.0.origin).or_insert(*edit);
        *known = (*known).max(*edit);
    }
    latest.into_values().collect()
}

impl BodyState {
    pub fn note_edit(&mut self, dot: Dot, hlc: Hlc) {
        self.edits = merge_edits(&self.edits, &[(dot, hlc)]);
    }
}

/// Dots stand once, in a table; cells name them by index.
#[derive(Encode, Decode)]
struct StateBytes {
    stamps: Vec<(Dot, Hlc)>,
    creations: Vec<u32>,
    cells: Vec<CellBytes>,
    bodies: Vec<BodyState>,
    totals: Vec<(u16, Origin, u64)>,
    sketches: Vec<(u16, Vec<(u16, u8)>)>,
}

#[derive(Encode, Decode)]
struct CellBytes {
    field: u16,
    element: Option<Value>,
    stamp: u32,
    on: Vec<u32>,
    value: Value,
}
