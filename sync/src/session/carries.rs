//! What the two ends carry: said when their roots differ and whenever it changes, and what follows from it. Only streams
//! that both carry are compared, sent and taken. Which those are changes while the link lasts.
//!
//! Roots hold what each side knows of both: equal ones mean that they compared the same streams, and that nothing in
//! them differs. So two nodes that know each other's parts greet as shortly as two that carry everything.

use super::{Reason, Result, Session};
use crate::message::Message;
use atoll_storage::{Carries, Digest, Replica, StreamHead, StreamId};
use std::sync::Arc;

/// The first version that says what it carries. Older peers carry everything.
const SAYS_IT_FROM: u16 = 2;

#[derive(Default)]
pub(super) struct Parts {
    /// As told to the peer, or about to be.
    mine: Arc<Carries>,
    /// None until it is known.
    theirs: Option<Arc<Carries>>,
    /// The peer understands being told.
    pub is_told: bool,
    /// Of this side's last word, and of the peer's last.
    said: u32,
    heard: u32,
    /// Since when the peer's word is awaited.
    waiting_since_ms: Option<u64>,
}

impl Session {
    pub(super) fn shares_all(&self) -> bool {
        let theirs = self.parts.theirs.as_ref().is_none_or(|theirs| theirs.is_everything());
        theirs && self.parts.mine.is_everything()
    }

    /// What the peer carries, as it said itself; none as long as it has not.
    pub fn peer_carries(&self) -> Option<&Carries> {
        self.parts.theirs.as_deref()
    }

    pub(super) fn knows_parts(&self) -> bool {
        self.parts.theirs.is_some()
    }

    /// Whether both ends carry the stream.
    pub(super) fn shares(&self, stream: &StreamId) -> bool {
        let theirs = self.parts.theirs.as_ref().is_none_or(|theirs| theirs.carries(stream));
        theirs && self.parts.mine.carries(stream)
    }

    /// The heads of streams that both ends carry.
    pub(super) fn shared_heads(
        &self,
        replica: &mut dyn Replica,
        tenants: Option<&[atoll_storage::Id]>,
    ) -> Result<Vec<StreamHead>> {
        let mut heads = replica.heads(tenants)?;
        heads.retain(|head| self.shares(&head.stream));
        Ok(heads)
    }

    pub(super) fn root_over(&self, replica: &dyn Replica, heads: &[StreamHead]) -> Digest {
        let mut root = super::compare::root_of(heads);
        root.add(self.parts.mine.leaf(replica.origin().node));
        let peer = self.peer.as_ref().map(|peer| peer.origin.node).or(self.options.peer);
        if let (Some(peer), Some(theirs)) = (peer, &self.parts.theirs) {
            root.add(theirs.leaf(peer));
        }
        root
    }

    /// Before anything was said: the peer carries what it did when last heard of, or else the same as this node.
    pub(super) fn assume_parts(&mut self, replica: &dyn Replica) {
        self.parts.mine = replica.carries();
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

    pub(super) fn note_version(&mut self, version: u16) {
        self.parts.is_told = version >= SAYS_IT_FROM;
    }

    /// Said before each round, since a word may be lost.
    pub(super) fn say_parts(&mut self) {
        if !self.parts.is_told {
            return;
        }
        let carries = Carries::clone(&self.parts.mine);
        let (number, seen) = (self.parts.said, self.parts.theirs.is_some());
        self.send(&Message::Carries { number, carries, seen });
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

    pub(super) fn on_carries(
        &mut self,
        replica: &mut dyn Replica,
        number: u32,
        carries: Carries,
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
        self.pushing.begin_anew();
        self.pulls.begin_anew();
    }
}
