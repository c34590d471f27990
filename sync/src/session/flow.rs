//! What of a stream goes from one end of a link to the other: nothing, what the sender made itself, or everything. It
//! follows from what each end lets the other do, and both ends come to the same result.

use atoll_storage::{NodeId, Rights, StreamId, Vector};

/// In one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// Ops that the sender made.
    pub own: bool,
    /// Ops of others that it has.
    pub others: bool,
}

impl Flow {
    pub const ALL: Self = Self { own: true, others: true };

    /// `reader`: what the sender lets the receiver do; `writer`: what the receiver lets the sender do.
    pub fn between(reader: &Rights, writer: &Rights, stream: &StreamId) -> Self {
        if !reader.reads(stream) {
            return Self::default();
        }
        Self { own: writer.writes(stream, true), others: writer.writes(stream, false) }
    }

    pub fn is_any(self) -> bool {
        self.own || self.others
    }

    /// States go only where everything does: a part of one cannot be told apart from what was deleted.
    pub fn is_all(self) -> bool {
        self.own && self.others
    }

    pub fn takes(self, origin: NodeId, sender: NodeId) -> bool {
        if origin == sender { self.own } else { self.others }
    }

    /// Ops that `there` lacks of `here`, and that go this way.
    pub fn lead(self, sender: NodeId, here: &Vector, there: &Vector) -> u64 {
        if self.is_all() {
            return here.lead_over(there);
        }
        here.of(|origin| self.takes(origin.node, sender)).lead_over(there)
    }
}
