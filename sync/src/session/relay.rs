//! Ops that came from elsewhere and are passed on. In a mesh a peer most often has them by another way: whoever has seen
//! that a link is such a one only says there what he has, holds the ops back for a moment, and sends what the peer has
//! not said to have by then. A link that turns out to be needed carries everything at once again.

use super::{Result, Session};
use crate::message::{MAX_OPS, Message};
use atoll_storage::{Lane, Op, Replica, StreamId, Vector, codec};
use std::collections::BTreeSet;

/// How long ops of others wait for the peer's word that it has them.
const HOLD_MS: u64 = 900;
/// Between two words about what is here.
const SAY_EVERY_MS: u64 = 50;

#[derive(Default)]
pub(super) struct Relays {
    /// What this node was sent over the link and had already came by another way: so will what it would pass on.
    is_redundant: bool,
    /// All that was here before was pushed: what the log gives from now on is new.
    pub(super) is_live: bool,
    held: Option<Held>,
    said_ms: Option<u64>,
    /// Streams of which there is more than was said.
    unsaid: BTreeSet<StreamId>,
}

/// Since when something is held back, and up to where the log went then.
#[derive(Clone, Copy)]
struct Held {
    since_ms: u64,
    upto: u64,
}

/// As much as goes into one acknowledgement.
const MAX_PART_BYTES: usize = 1 << 20;

/// Cut to what a peer takes in one acknowledgement.
fn parts(vectors: Vec<(StreamId, Vector)>) -> Vec<Vec<(StreamId, Vector)>> {
    let mut parts: Vec<Vec<(StreamId, Vector)>> = Vec::new();
    let mut bytes = 0;
    for one in vectors {
        let size = codec::encode(&one).len();
        bytes += size;
        match parts.last_mut() {
            Some(part) if part.len() < MAX_OPS && bytes <= MAX_PART_BYTES => part.push(one),
            _ => {
                parts.push(vec![one]);
                bytes = size;
            }
        }
    }
    parts
}

impl Session {
    /// Ops of others that this node had already when the peer sent them.
    pub(super) fn note_doubled(&mut self, ops: usize) {
        self.relays.is_redundant |= ops > 0;
    }

    /// Of what the log gave, the ops that are to go now.
    pub(super) fn hold_back(&mut self, replica: &mut dyn Replica, ops: Vec<Op>) -> Result<Vec<Op>> {
        if !(self.relays.is_live && self.relays.is_redundant) {
            return Ok(ops);
        }
        let me = replica.origin().node;
        let (own, others): (Vec<Op>, Vec<Op>) =
            ops.into_iter().partition(|op| op.dot.origin.node == me);
        if !others.is_empty() {
            if self.relays.held.is_none() {
                let upto = replica.log_end()?;
                self.relays.held = Some(Held { since_ms: self.now.elapsed_ms, upto });
            }
            self.relays.unsaid.extend(others.into_iter().map(|op| op.stream));
        }
        Ok(own)
    }

    /// Tells what is here of the streams whose ops are held back.
    pub(super) fn say_what_is_here(&mut self, replica: &mut dyn Replica) -> Result<()> {
        let is_soon = |ms: u64| ms + SAY_EVERY_MS > self.now.elapsed_ms;
        if self.relays.unsaid.is_empty() || self.relays.said_ms.is_some_and(is_soon) {
            return Ok(());
        }
        self.relays.said_ms = Some(self.now.elapsed_ms);
        let mut vectors = Vec::new();
        for stream in std::mem::take(&mut self.relays.unsaid) {
            if let Some(head) = replica.head(&stream)? {
                vectors.push((stream, head.vector));
            }
        }
        // No batch has this number: it acknowledges nothing, and says only what is here.
        for vectors in parts(vectors) {
            self.send(&Message::Ack { batch: 0, vectors });
        }
        Ok(())
    }

    /// Sends what was held back for long enough and the peer still lacks. Then the link is no redundant one.
    pub(super) fn tick_relays(&mut self, replica: &mut dyn Replica) -> Result<()> {
        self.say_what_is_here(replica)?;
        let Some(Held { since_ms, upto }) = self.relays.held else { return Ok(()) };
        if since_ms + HOLD_MS > self.now.elapsed_ms || !self.pushing.flights.is_empty() {
            return Ok(());
        }
        self.relays.held = None;
        let end = replica.log_end()?;
        for lane in [Lane::Urgent, Lane::Rest] {
            let lacking = replica.start_of(lane, &self.known)?;
            if lacking <= upto {
                self.relays.is_redundant = false;
                return self.rewind(replica);
            }
            // What came since then has its own time.
            if lacking <= end {
                self.relays.held = Some(Held { since_ms: self.now.elapsed_ms, upto: end });
            }
        }
        Ok(())
    }
}
