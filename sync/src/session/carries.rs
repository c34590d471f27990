//! What the two ends carry, and what each lets the other do: said when their roots differ and whenever it changes, and what
//! follows from it. Only streams that both carry are compared, sent and taken, and of those only what both let the other
//! have. What is carried changes while the link lasts; what is let does not.
//!
//! Roots hold what each side knows of both: equal ones mean that they compared the same streams, and that nothing in
//! them differs. So two nodes that know each other's parts greet as shortly as two that carry everything.

use super::{Flow, Reason, Result, Session};
use crate::message::Message;
use atoll_storage::{Carries, Digest, NodeId, Replica, Rights, StreamHead, StreamId, Vector};
use std::sync::Arc;

/// The first version that says what it carries. Older peers carry everything.
const SAYS_IT_FROM: u16 = 2;
/// The first version that says what it lets the peer do. Older ones let it do everything.
const LETS_FROM: u16 = 3;
/// The first version that takes a long chunk in pieces.
const PIECES_FROM: u16 = 4;

#[derive(Default)]
pub(super) struct Parts {
    /// As told to the peer, or about to be.
    mine: Arc<Carries>,
    /// None until it is known.
    theirs: Option<Arc<Carries>>,
    /// What this node lets the peer do.
    lets: Rights,
    /// What the peer lets this node do; everything until it says otherwise.
    let_us: Rights,
    /// The peer understands being told what is carried, and what it may do.
    pub is_told: bool,
    is_let: bool,
    /// The peer takes a long chunk in pieces.
    pub takes_pieces: bool,
    /// The peer has said what it lets this node do.
    heard_of: bool,
    me: NodeId,
    /// Of this side's last word, and of the peer's last.
    said: u32,
    heard: u32,
    /// Since when the peer's word is awaited.
    waiting_since_ms: Option<u64>,
}

impl Session {
    pub(super) fn shares_all(&self) -> bool {
        let theirs = self.parts.theirs.as_ref().is_none_or(|theirs| theirs.is_everything());
        theirs && self.parts.mine.is_everything() && self.is_unlimited()
    }

    /// What the peer carries, as it said itself; none as long as it has not.
    pub fn peer_carries(&self) -> Option<&Carries> {
        self.parts.theirs.as_deref()
    }

    pub(super) fn knows_parts(&self) -> bool {
        self.parts.theirs.is_some()
    }

    /// What the peer lets this node do, as it said itself; none as long as it has not.
    pub fn peer_lets(&self) -> Option<&Rights> {
        self.parts.heard_of.then_some(&self.parts.let_us)
    }

    /// Whether the two trust each other with everything.
    pub(super) fn is_unlimited(&self) -> bool {
        self.parts.lets.is_whole() && self.parts.let_us.is_whole()
    }

    pub(super) fn both_carry(&self, stream: &StreamId) -> bool {
        let theirs = self.parts.theirs.as_ref().is_none_or(|theirs| theirs.carries(stream));
        theirs && self.parts.mine.carries(stream)
    }

    /// What of the stream goes to the peer.
    pub(super) fn outward(&self, stream: &StreamId) -> Flow {
        match self.both_carry(stream) {
            false => Flow::default(),
            true if self.is_unlimited() => Flow::ALL,
            true => Flow::between(&self.parts.lets, &self.parts.let_us, stream),
        }
    }

    /// What of the stream is taken from the peer.
    pub(super) fn inward(&self, stream: &StreamId) -> Flow {
        match self.both_carry(stream) {
            false => Flow::default(),
            true if self.is_unlimited() => Flow::ALL,
            true => Flow::between(&self.parts.let_us, &self.parts.lets, stream),
        }
    }

    /// Whether anything of the stream crosses the link.
    pub(super) fn shares(&self, stream: &StreamId) -> bool {
        self.outward(stream).is_any() || self.inward(stream).is_any()
    }

    /// Whether everything of the stream crosses the link both ways, so that both ends come to hold the same.
    pub(super) fn is_even(&self, stream: &StreamId) -> bool {
        self.outward(stream).is_all() && self.inward(stream).is_all()
    }

    pub(super) fn me(&self) -> NodeId {
        self.parts.me
    }

    pub(super) fn peer_node(&self) -> Option<NodeId> {
        self.peer.as_ref().map(|peer| peer.origin.node).or(self.options.peer)
    }

    /// The heads of streams of which anything crosses the link.
    pub(super) fn shared_heads(
        &self,
        replica: &mut dyn Replica,
        tenants: Option<&[atoll_storage::Id]>,
    ) -> Result<Vec<StreamHead>> {
        let mut heads = replica.heads(tenants)?;
        heads.retain(|head| self.shares(&head.stream));
        Ok(heads)
    }

    /// What the peer may know of a vector: of a stream that it may not read, how far what it wrote itself has come.
    pub(super) fn told_vector(&self, stream: &StreamId, vector: Vector) -> Vector {
        if self.parts.lets.is_whole() || self.parts.lets.reads(stream) {
            return vector;
        }
        let Some(peer) = self.peer_node() else { return Vector::default() };
        let flow = self.inward(stream);
        vector.of(|origin| flow.takes(origin.node, peer))
    }

    /// The same of a head; none if that is nothing.
    pub(super) fn told(&self, head: StreamHead) -> Option<StreamHead> {
        if self.parts.lets.is_whole() || self.parts.lets.reads(&head.stream) {
            return Some(head);
        }
        let vector = self.told_vector(&head.stream, head.vector);
        let (floor, digest) = (Vector::default(), Digest::default());
        let told =
            StreamHead { stream: head.stream, vector, floor, digest, records: 0, is_ahead: false };
        (!told.vector.0.is_empty()).then_some(told)
    }

    pub(super) fn root_over(&self, replica: &dyn Replica, heads: &[StreamHead]) -> Digest {
        let even = heads.iter().filter(|head| self.is_even(&head.stream));
        let mut root = super::compare::root_of(even);
        let me = replica.origin().node;
        root.add(self.parts.mine.leaf(me));
        root.add(self.parts.lets.leaf(me));
        if let (Some(peer), Some(theirs)) = (self.peer_node(), &self.parts.theirs) {
            root.add(theirs.leaf(peer));
            root.add(self.parts.let_us.leaf(peer));
        }
        root
    }

    /// Before anything was said: the peer carries what it did when last heard of, or else the same as this node.
    pub(super) fn assume_parts(&mut self, replica: &dyn Replica) {
        self.parts.mine = replica.carries();
        self.parts.lets = self.options.lets.clone();
        self.parts.me = replica.origin().node;
        let known = self.options.peer_carries.clone().map(Arc::new);
        self.parts.theirs = Some(known.unwrap_or_else(|| self.parts.mine.clone()));
    }

    /// The peer's version is known, and that what was assumed does not hold, or that something else differs.
    pub(super) fn ask_parts(&mut self, version: u16) {
        self.parts.is_told = version >= SAYS_IT_FROM;
        self.parts.theirs = (!self.parts.is_told).then(Arc::default);
        if self.parts.is_told {
            self.parts.waiting_since_ms = Some(self.now.elapsed_ms);
            self.say_parts();
        }
    }

    /// # Errors
    /// `NoGrants` if the peer would not understand what it may do here.
    pub(super) fn note_version(&mut self, version: u16) -> Result<()> {
        self.parts.is_told = version >= SAYS_IT_FROM;
        self.parts.is_let = version >= LETS_FROM;
        self.parts.takes_pieces = version >= PIECES_FROM;
        if !self.parts.is_let && !self.parts.lets.is_whole() {
            return Err(Reason::NoGrants { theirs: version });
        }
        Ok(())
    }

    /// Said before each round, since a word may be lost.
    pub(super) fn say_parts(&mut self) {
        if !self.parts.is_told {
            return;
        }
        let carries = Carries::clone(&self.parts.mine);
        let (number, seen) = (self.parts.said, self.parts.theirs.is_some());
        if self.parts.is_let {
            let rights = self.parts.lets.clone();
            self.send(&Message::Parts { number, carries, rights, seen });
        } else {
            self.send(&Message::Carries { number, carries, seen });
        }
    }

    pub(super) fn tick_parts(&mut self) {
        if self.parts.waiting_since_ms.is_some_and(|since_ms| self.is_overdue(since_ms)) {
            self.parts.waiting_since_ms = Some(self.now.elapsed_ms);
            self.say_parts();
        }
    }

    /// To be called before each step: what this node carries may have changed.
    pub(super) fn follow_parts(&mut self, replica: &mut dyn Replica) -> Result<()> {
        let carries = replica.carries();
        // Each change makes another value, even one back to what was: meanwhile a stream may have been emptied.
        if self.greeting.is_none() || Arc::ptr_eq(&carries, &self.parts.mine) {
            return Ok(());
        }
        self.parts.mine = carries;
        self.parts.said += 1;
        if self.peer.is_none() || !self.knows_parts() {
            return Ok(());
        }
        self.begin_anew();
        self.start_round(replica)
    }

    /// Whether what was said in the greeting still holds.
    pub(super) fn has_kept_parts(&self) -> bool {
        self.parts.said == 0
    }

    pub(super) fn on_parts(
        &mut self,
        replica: &mut dyn Replica,
        number: u32,
        (carries, rights): (Carries, Rights),
        seen: bool,
    ) -> Result<()> {
        carries.check().map_err(|error| Reason::Malformed(error.to_string()))?;
        let is_first = !self.knows_parts();
        let is_new = is_first || number > self.parts.heard;
        if number < self.parts.heard {
            return Ok(());
        }
        (self.parts.heard, self.parts.waiting_since_ms) = (number, None);
        if is_new {
            self.parts.theirs = Some(Arc::new(carries));
            (self.parts.let_us, self.parts.heard_of) = (rights, true);
            self.begin_anew();
        }
        if !seen {
            self.say_parts();
        }
        if !is_new {
            return Ok(());
        }
        let peer = self.peer.as_ref().map(|peer| peer.origin);
        let begins = is_first && peer.is_some_and(|peer| replica.origin() < peer);
        if begins { self.start_round(replica) } else { self.await_round() }
    }

    /// What was known of the peer may not hold any more, since a stream may have been emptied and be taken anew. Nothing
    /// is sent until it was compared.
    fn begin_anew(&mut self) {
        self.compared = false;
        self.known.clear();
        self.lifted.clear();
        self.pushing.begin_anew();
        self.pulls.begin_anew();
    }
}
