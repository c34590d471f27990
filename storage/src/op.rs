//! Ops: the only truth. What a node accepted, named by its dot, with what its author had seen.

use crate::clock::Hlc;
use crate::id::{Dot, Id, StreamId};
use crate::value::Value;
use bincode::{Decode, Encode};

/// One replicated write.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug)]
pub struct Op {
    pub stream: StreamId,
    pub dot: Dot,
    pub hlc: Hlc,
    /// The kind's code. An unknown one is stored and passed on.
    pub kind: u16,
    /// The kind's schema version at the author's.
    pub schema: u16,
    pub key: Id,
    pub payload: Payload,
}

#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug)]
pub enum Payload {
    /// Makes the record (then its dot is a creation dot), or writes to the creations it saw.
    Write(Write),
    /// Ends the creations it saw.
    Delete { seen: Seen },
    /// States of counters and sketches, merged by maximum.
    Count(Vec<Count>),
    /// What stood here was erased; the hash of it stays, so that what names this op still holds.
    Erased { hash: [u8; 32] },
}

#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug, Default)]
pub struct Write {
    pub creates: bool,
    pub seen: Seen,
    pub cells: Vec<CellWrite>,
    pub bodies: Vec<BodyWrite>,
}

/// What the author knew of the record: its surviving creations, and the highest dot an origin that it saw.
/// What is not covered by `context` was written concurrently.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug, Default)]
pub struct Seen {
    pub creations: Vec<Dot>,
    pub context: Vec<Dot>,
}

impl Seen {
    pub fn covers(&self, dot: Dot) -> bool {
        self.context.iter().any(|seen| seen.origin == dot.origin && seen.seq >= dot.seq)
    }

    /// Everything that must be here before the op can be applied.
    pub fn needs(&self) -> impl Iterator<Item = Dot> + '_ {
        self.creations.iter().chain(&self.context).copied()
    }
}

/// A register (`element` absent) or one element of a set. `value` absent removes the element.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug)]
pub struct CellWrite {
    pub field: u16,
    pub element: Option<Value>,
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug)]
pub struct BodyWrite {
    pub field: u16,
    pub edit: BodyEdit,
}

#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug)]
pub enum BodyEdit {
    /// The text that a body is born with, in its creation op.
    Born(String),
    /// An automerge change to the body of the creation named.
    Change { creation: Dot, bytes: Vec<u8> },
}

#[derive(Clone, PartialEq, Eq, Encode, Decode, Debug)]
pub enum Count {
    /// The origin's own total so far.
    Total { field: u16, total: u64 },
    /// Registers of a HyperLogLog sketch that rose: (index, rank).
    Sketch { field: u16, registers: Vec<(u16, u8)> },
}

impl Op {
    /// What must have been applied before this op. Delivery in the sender's order makes it so;
    /// an op that comes too early is parked.
    pub fn needs(&self) -> Vec<Dot> {
        match &self.payload {
            Payload::Write(write) => write.seen.needs().collect(),
            Payload::Delete { seen } => seen.needs().collect(),
            Payload::Count(_) | Payload::Erased { .. } => Vec::new(),
        }
    }

    pub fn size_bytes(&self) -> usize {
        let payload = match &self.payload {
            Payload::Write(write) => {
                let cells: usize = write.cells.iter().map(|c| 8 + value_bytes(c)).sum();
                let bodies: usize = write.bodies.iter().map(body_bytes).sum();
                cells + bodies + 28 * (write.seen.creations.len() + write.seen.context.len())
            }
            Payload::Delete { seen } => 28 * (seen.creations.len() + seen.context.len()),
            Payload::Count(counts) => counts.iter().map(count_bytes).sum(),
            Payload::Erased { .. } => 32,
        };
        96 + payload
    }
}

fn value_bytes(cell: &CellWrite) -> usize {
    [&cell.element, &cell.value]
        .into_iter()
        .flatten()
        .map(|value| match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 16,
        })
        .sum()
}

fn body_bytes(body: &BodyWrite) -> usize {
    match &body.edit {
        BodyEdit::Born(text) => text.len(),
        BodyEdit::Change { bytes, .. } => bytes.len() + 28,
    }
}

fn count_bytes(count: &Count) -> usize {
    match count {
        Count::Total { .. } => 12,
        Count::Sketch { registers, .. } => 3 * registers.len(),
    }
}
