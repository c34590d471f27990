//! Ops on their way: batches out of the log in the order in which they were applied, at most a window of them
//! unacknowledged; and batches that come in.

use super::pace::{Batches, Load};
use super::{Result, Session};
use crate::message::{Message, Packed, unpack_ops};
use atoll_storage::{Lane, Op, Replica, StreamHead, StreamId, Vector};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Pushing {
    /// Where to read on in the log, by lane.
    cursors: [u64; 2],
    last: u64,
    pub flights: BTreeMap<u64, Flight>,
    /// Streams that the peer must take, or is taking, as a snapshot.
    pub blocked: BTreeMap<StreamId, Block>,
    /// Streams that the peer has nothing of and had time to take as a snapshot.
    offered: BTreeSet<StreamId>,
    /// Since when it has been known that something sent did not arrive in the peer's vector.
    gap_since_ms: Option<u64>,
    misses: u32,
    batches: Batches,
}

pub(super) struct Flight {
    sent_ms: u64,
    load: Load,
    tops: BTreeMap<StreamId, Vector>,
}

pub(super) struct Block {
    /// What the peer really has.
    pub real: Vector,
    /// When the peer last asked for a part of the snapshot.
    pulled_ms: Option<u64>,
}

/// How long a peer that pulls may be silent before ops flow again.
const PULL_SILENCE: u64 = 6;
const MAX_MISSES: u32 = 4;

fn tops_of(ops: &[Op]) -> BTreeMap<StreamId, Vector> {
    let mut tops: BTreeMap<StreamId, Vector> = BTreeMap::new();
    for op in ops {
        match tops.get_mut(&op.stream) {
            Some(top) => top.raise(op.dot.origin, op.dot.seq),
            None => {
                let mut top = Vector::default();
                top.raise(op.dot.origin, op.dot.seq);
                tops.insert(op.stream.clone(), top);
            }
        }
    }
    tops
}

impl Pushing {
    pub fn begin_anew(&mut self) {
        self.flights.clear();
        self.blocked.clear();
        self.offered.clear();
        self.gap_since_ms = None;
    }

    fn load(&self, ops: &[Op], window: usize) -> Load {
        let bytes = ops.iter().map(Op::size_bytes).sum();
        let before: usize = self.flights.values().map(|flight| flight.load.bytes).sum();
        Load {
            bytes,
            size_bytes: self.batches.size_bytes(),
            on_way_bytes: before + bytes,
            fills_window: self.flights.len() + 1 >= window,
        }
    }
}

impl Session {
    /// The peer's vectors are known anew: everything that they lack flows from here.
    pub(super) fn begin_pushing(&mut self, replica: &mut dyn Replica) -> Result<()> {
        self.compared = true;
        self.pushing.gap_since_ms = None;
        self.rewind(replica)?;
        self.push(replica)
    }

    /// A peer that has nothing of a long stream asks for a snapshot, and ops on their way would only double it. One that
    /// does not ask gets the ops after a while.
    pub(super) fn offer_snapshots(&mut self, replica: &mut dyn Replica) -> Result<()> {
        let nothing = Vector::default();
        for head in self.shared_heads(replica, None)? {
            let is_new = self.known(&head.stream).is_none_or(|known| known.0.is_empty());
            let is_long = head.vector.lead_over(&nothing) >= self.options.snapshot_from_ops;
            let can_take = self.outward(&head.stream).is_all();
            if can_take && is_new && is_long && self.pushing.offered.insert(head.stream.clone()) {
                self.block(&head.stream, &head.vector, true);
            }
        }
        Ok(())
    }

    pub(super) fn rewind(&mut self, replica: &mut dyn Replica) -> Result<()> {
        self.pushing.flights.clear();
        self.relays.is_live = false;
        self.skip_what_is_not_shared(replica)?;
        for (cursor, lane) in self.pushing.cursors.iter_mut().zip([Lane::Urgent, Lane::Rest]) {
            *cursor = replica.start_of(lane, &self.known)?;
        }
        Ok(())
    }

    /// What the peer does not take is not read: as if it had all that is there now.
    fn skip_what_is_not_shared(&mut self, replica: &mut dyn Replica) -> Result<()> {
        if self.shares_all() {
            return Ok(());
        }
        let me = self.me();
        for StreamHead { stream, vector, .. } in replica.heads(None)? {
            let outward = self.outward(&stream);
            if !self.shares(&stream) {
                self.known.insert(stream, vector);
            } else if !outward.is_all() {
                let known = self.known.entry(stream.clone()).or_default();
                self.lifted.entry(stream).or_insert_with(|| known.clone());
                known.merge(&vector.of(|origin| !outward.takes(origin.node, me)));
            }
        }
        Ok(())
    }

    pub(super) fn push(&mut self, replica: &mut dyn Replica) -> Result<()> {
        if !self.compared {
            return Ok(());
        }
        let end = replica.log_end()?;
        while self.pushing.flights.len() < self.options.window {
            let ops = self.next_ops(replica, end)?;
            if ops.is_empty() {
                self.relays.is_live = true;
                break;
            }
            self.pushing.last += 1;
            let (batch, sent_ms) = (self.pushing.last, self.now.elapsed_ms);
            self.busy_ms = sent_ms;
            let load = self.pushing.load(&ops, self.options.window);
            self.pushing.flights.insert(batch, Flight { sent_ms, load, tops: tops_of(&ops) });
            self.send(&Message::Ops { batch, ops: Packed::of(&ops) });
        }
        self.say_what_is_here(replica)
    }

    /// The next batch: all of the urgent lane first.
    fn next_ops(&mut self, replica: &mut dyn Replica, end: u64) -> Result<Vec<Op>> {
        for (n, lane) in [Lane::Urgent, Lane::Rest].into_iter().enumerate() {
            while self.pushing.cursors[n] <= end {
                let from = self.pushing.cursors[n];
                let max_ops = self.options.batch_ops;
                let max_bytes = self.options.batch_bytes.min(self.pushing.batches.size_bytes());
                let batch = replica.ops(lane, from, &self.known, max_ops, max_bytes)?;
                let mut ops = batch.ops;
                let me = self.me();
                ops.retain(|op| {
                    self.outward(&op.stream).takes(op.dot.origin.node, me)
                        && !self.pushing.blocked.contains_key(&op.stream)
                });
                self.pushing.cursors[n] = batch.next_pos.max(from);
                let ops = self.hold_back(replica, ops)?;
                if !ops.is_empty() {
                    return Ok(ops);
                }
                if batch.next_pos <= from {
                    break;
                }
            }
        }
        Ok(vec![])
    }

    pub(super) fn on_ops(
        &mut self,
        replica: &mut dyn Replica,
        batch: u64,
        packed: &Packed,
    ) -> Result<()> {
        let mut ops = unpack_ops(packed)?;
        self.busy_ms = self.now.elapsed_ms;
        let tops = tops_of(&ops);
        // The sender has what it sends, and all that its origin wrote before.
        tops.iter().try_for_each(|(stream, top)| self.learn(stream, top))?;
        let theirs = self.peer.as_ref().map(|peer| peer.origin.node);
        let relayed = ops.iter().filter(|op| Some(op.dot.origin.node) != theirs).count();
        let refused = self.refuse_what_is_not_let(&mut ops);
        let applied = replica.apply(ops)?;
        self.note_doubled(relayed.min(applied.skipped));
        if applied.quarantined > 0 {
            self.note(format!("{} ops were put in quarantine", applied.quarantined));
        }
        if applied.refused > 0 {
            self.note(format!("{} ops of what is not carried here were dropped", applied.refused));
        }
        if refused > 0 {
            self.note(format!("{refused} ops were refused: the peer may not write them here"));
        }
        let mut vectors = Vec::with_capacity(tops.len());
        for (stream, top) in tops {
            let mut vector = replica.head(&stream)?.map(|head| head.vector).unwrap_or_default();
            if !self.parts.is_told && !self.shares(&stream) {
                // An older peer does not know that it is left out, and would send it for ever.
                vector.merge(&top);
            }
            let vector = self.told_vector(&stream, vector);
            vectors.push((stream, vector));
        }
        self.send(&Message::Ack { batch, vectors });
        Ok(())
    }

    /// What the peer was told that it may not write never reaches the store, and is not acknowledged. How many ops that were.
    fn refuse_what_is_not_let(&mut self, ops: &mut Vec<Op>) -> usize {
        let Some(peer) = self.peer_node().filter(|_| !self.is_unlimited()) else { return 0 };
        let came = ops.len();
        // What neither end carries is dropped by the store, which counts it.
        ops.retain(|op| {
            let is_let = self.inward(&op.stream).takes(op.dot.origin.node, peer);
            is_let || !self.both_carry(&op.stream)
        });
        let refused = came - ops.len();
        self.figures.refused += refused as u64;
        refused
    }

    pub(super) fn on_ack(
        &mut self,
        replica: &mut dyn Replica,
        batch: u64,
        vectors: Vec<(StreamId, Vector)>,
    ) -> Result<()> {
        vectors.iter().try_for_each(|(stream, vector)| self.learn(stream, vector))?;
        self.pushing.misses = 0;
        if let Some(flight) = self.pushing.flights.remove(&batch) {
            let took_ms = self.now.elapsed_ms.saturating_sub(flight.sent_ms);
            self.pushing.batches.learn(flight.load, took_ms, &self.options);
            let arrived = |(stream, top): (&StreamId, &Vector)| {
                !self.shares(stream) || self.known(stream).is_some_and(|known| known.includes(top))
            };
            if !flight.tops.iter().all(arrived) {
                self.pushing.gap_since_ms.get_or_insert(self.now.elapsed_ms);
            }
        }
        self.push(replica)
    }

    pub(super) fn tick_push(&mut self, replica: &mut dyn Replica) -> Result<()> {
        self.tick_relays(replica)?;
        let usual_ms = self.pushing.batches.patience_ms(&self.options);
        let patience_ms = usual_ms << self.pushing.misses;
        let oldest_ms = self.pushing.flights.values().map(|f| f.sent_ms).min();
        if oldest_ms.is_some_and(|sent_ms| sent_ms + patience_ms <= self.now.elapsed_ms) {
            self.pushing.misses = (self.pushing.misses + 1).min(MAX_MISSES);
            self.rewind(replica)?;
        }
        let gap = self.pushing.gap_since_ms.is_some_and(|since_ms| self.is_overdue(since_ms));
        if gap && self.pushing.flights.is_empty() && !self.rounds.is_waiting() {
            self.pushing.gap_since_ms = None;
            self.start_round(replica)?;
        }
        self.push(replica)
    }

    /// Holds back a stream's ops while the peer takes them as a snapshot.
    pub(super) fn block(&mut self, stream: &StreamId, mine: &Vector, is_pulling: bool) {
        let pulled_ms = is_pulling.then_some(self.now.elapsed_ms);
        if let Some(block) = self.pushing.blocked.get_mut(stream) {
            block.pulled_ms = pulled_ms.or(block.pulled_ms);
            return;
        }
        let known = self.known.entry(stream.clone()).or_default();
        let real = known.clone();
        known.merge(mine);
        self.pushing.blocked.insert(stream.clone(), Block { real, pulled_ms });
    }

    /// The peer is still taking the stream.
    pub(super) fn note_pulling(&mut self, stream: &StreamId) {
        if let Some(block) = self.pushing.blocked.get_mut(stream) {
            block.pulled_ms = Some(self.now.elapsed_ms);
        }
    }

    pub(super) fn unblock(&mut self, stream: &StreamId) {
        if let Some(block) = self.pushing.blocked.remove(stream) {
            self.known.insert(stream.clone(), block.real);
        }
    }

    pub(super) fn unblock_unless_pulling(&mut self, stream: &StreamId) {
        let silence_ms = PULL_SILENCE * self.options.answer_timeout_ms;
        let is_pulling = |ms: u64| ms + silence_ms > self.now.elapsed_ms;
        let block = self.pushing.blocked.get(stream);
        if !block.is_some_and(|b| b.pulled_ms.is_some_and(is_pulling)) {
            self.unblock(stream);
        }
    }
}
