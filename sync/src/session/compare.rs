//! Rounds of comparing: digests by tenant, then the heads of the streams that differ. What comes out is what the
//! peer has, what must be pulled as a snapshot, and whether two equal vectors stand for different states.
//!
//! Digests are over streams that go both ways whole. Of others one end may well hold more than the other ever has: of those,
//! the heads are told in each round.

use super::{Effect, Reason, Result, Session};
use crate::message::{Collector, MAX_PAGES, Message, Page, pages};
use crate::session::pull::Why;
use atoll_storage::{Digest, Id, Replica, StreamHead, StreamId, Vector};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Rounds {
    last: u32,
    /// This side's own round: what it had when it asked.
    asked: Option<(u32, Vec<StreamHead>)>,
    /// Since when the peer's part of a round is awaited.
    waiting_since_ms: Option<u64>,
    pub finished_ms: u64,
    /// What was missing on either side when a round was last begun because of it.
    pub lag: (u64, u64),
    /// Streams that did not advance since the last round though the peer is ahead, and for how many rounds.
    stuck: BTreeMap<StreamId, (Vector, u32)>,
    compares: Collector<(Id, Digest)>,
    differs: Collector<Id>,
    /// Of this side's rounds, and of the peer's.
    heads: [Collector<StreamHead>; 2],
}

/// So many rounds without progress make a stream stuck.
const STUCK_ROUNDS: u32 = 4;

impl Rounds {
    /// True of a stream whose ops came but could not be applied, round after round: they build on what nobody has
    /// any more.
    fn is_stuck(&mut self, stream: &StreamId, vector: &Vector, lead: u64) -> bool {
        if lead == 0 {
            self.stuck.remove(stream);
            return false;
        }
        let entry = self.stuck.entry(stream.clone()).or_default();
        if entry.0 == *vector {
            entry.1 += 1;
        } else {
            *entry = (vector.clone(), 0);
        }
        entry.1 >= STUCK_ROUNDS
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting_since_ms.is_some()
    }
}

pub(super) fn root_of<'h>(heads: impl Iterator<Item = &'h StreamHead>) -> Digest {
    let mut root = Digest::default();
    heads.for_each(|head| root.add(head.leaf()));
    root
}

fn tenants_of(heads: &[StreamHead]) -> BTreeMap<Id, Digest> {
    let mut tenants: BTreeMap<Id, Digest> = BTreeMap::new();
    heads.iter().for_each(|head| tenants.entry(head.stream.tenant).or_default().add(head.leaf()));
    tenants
}

fn checked<T>(pages: Vec<Page<T>>) -> Result<Vec<Page<T>>> {
    if pages.len() > usize::from(MAX_PAGES) {
        let what = "a list too long for the protocol: this network is larger than it was made for";
        return Err(Reason::Store(what.into()));
    }
    Ok(pages)
}

impl Session {
    pub(super) fn start_round(&mut self, replica: &mut dyn Replica) -> Result<()> {
        self.say_parts();
        let heads = self.even_heads(replica)?;
        self.rounds.last += 1;
        let round = self.rounds.last;
        for page in checked(pages(tenants_of(&heads).into_iter().collect()))? {
            self.send(&Message::Compare { round, page });
        }
        self.rounds.asked = Some((round, heads));
        self.await_round()
    }

    fn even_heads(&self, replica: &mut dyn Replica) -> Result<Vec<StreamHead>> {
        let mut heads = self.shared_heads(replica, None)?;
        heads.retain(|head| self.is_even(&head.stream));
        Ok(heads)
    }

    /// The heads of the tenants that differ, and those that no digest was over.
    fn heads_to_tell(&self, replica: &mut dyn Replica, differ: &[Id]) -> Result<Vec<StreamHead>> {
        let only = self.is_unlimited().then_some(differ);
        let mut heads = self.shared_heads(replica, only)?;
        heads.retain(|head| {
            differ.binary_search(&head.stream.tenant).is_ok() || !self.is_even(&head.stream)
        });
        Ok(heads.into_iter().filter_map(|head| self.told(head)).collect())
    }

    pub(super) fn await_round(&mut self) -> Result<()> {
        self.rounds.waiting_since_ms = Some(self.now.elapsed_ms);
        Ok(())
    }

    pub(super) fn tick_round(&mut self, replica: &mut dyn Replica) -> Result<()> {
        match self.rounds.waiting_since_ms {
            Some(since_ms) if self.is_overdue(since_ms) => self.start_round(replica),
            _ => Ok(()),
        }
    }

    pub(super) fn on_compare(
        &mut self,
        replica: &mut dyn Replica,
        round: u32,
        page: Page<(Id, Digest)>,
    ) -> Result<()> {
        let Some(theirs) = self.rounds.compares.put(u64::from(round), page) else { return Ok(()) };
        let theirs: BTreeMap<Id, Digest> = theirs.into_iter().collect();
        let heads = self.even_heads(replica)?;
        let mine = tenants_of(&heads);
        let all: BTreeSet<Id> = mine.keys().chain(theirs.keys()).copied().collect();
        let differ: Vec<Id> = all.into_iter().filter(|t| mine.get(t) != theirs.get(t)).collect();
        for page in checked(pages(differ.clone()))? {
            self.send(&Message::Differ { round, page });
        }
        self.learn_equal(&heads, &differ)?;
        if differ.is_empty() && self.is_unlimited() {
            return self.finish_round(replica);
        }
        let heads = self.heads_to_tell(replica, &differ)?;
        self.send_heads(false, round, heads)?;
        self.await_round()
    }

    /// In the tenants that do not differ, the peer has what is here.
    fn learn_equal(&mut self, heads: &[StreamHead], differ: &[Id]) -> Result<()> {
        let is_equal = |head: &&StreamHead| differ.binary_search(&head.stream.tenant).is_err();
        let mut equal = heads.iter().filter(is_equal);
        equal.try_for_each(|head| self.learn(&head.stream, &head.vector))
    }

    fn send_heads(&mut self, asked: bool, round: u32, heads: Vec<StreamHead>) -> Result<()> {
        for page in checked(pages(heads))? {
            self.send(&Message::Heads { asked, round, page });
        }
        Ok(())
    }

    pub(super) fn on_differ(
        &mut self,
        replica: &mut dyn Replica,
        round: u32,
        page: Page<Id>,
    ) -> Result<()> {
        if self.rounds.asked.as_ref().is_none_or(|(asked, _)| *asked != round) {
            return Ok(());
        }
        let Some(mut differ) = self.rounds.differs.put(u64::from(round), page) else {
            return Ok(());
        };
        differ.sort_unstable();
        let Some((_, heads)) = self.rounds.asked.take() else { return Ok(()) };
        self.learn_equal(&heads, &differ)?;
        if differ.is_empty() && self.is_unlimited() {
            return self.finish_round(replica);
        }
        let heads = self.heads_to_tell(replica, &differ)?;
        self.send_heads(true, round, heads)
    }

    pub(super) fn on_heads(
        &mut self,
        replica: &mut dyn Replica,
        asked: bool,
        round: u32,
        page: Page<StreamHead>,
    ) -> Result<()> {
        let collector = &mut self.rounds.heads[usize::from(asked)];
        let Some(theirs) = collector.put(u64::from(round), page) else { return Ok(()) };
        let tenants: BTreeSet<Id> = theirs.iter().map(|head| head.stream.tenant).collect();
        let tenants: Vec<Id> = tenants.into_iter().collect();
        let mine = replica.heads(Some(&tenants))?;
        let mut mine: BTreeMap<StreamId, StreamHead> =
            mine.into_iter().map(|head| (head.stream.clone(), head)).collect();
        for head in theirs {
            if !self.shares(&head.stream) {
                continue;
            }
            let own = mine.remove(&head.stream);
            self.compare_heads(own.as_ref(), &head)?;
        }
        self.finish_round(replica)
    }

    fn finish_round(&mut self, replica: &mut dyn Replica) -> Result<()> {
        self.rounds.waiting_since_ms = None;
        self.rounds.finished_ms = self.now.elapsed_ms;
        self.offer_snapshots(replica)?;
        self.begin_pushing(replica)?;
        self.pull_next();
        Ok(())
    }

    /// What follows from the peer's head of one stream.
    pub(super) fn compare_heads(
        &mut self,
        mine: Option<&StreamHead>,
        theirs: &StreamHead,
    ) -> Result<()> {
        self.learn(&theirs.stream, &theirs.vector)?;
        let nothing = Vector::default();
        let (vector, floor) = mine.map_or((&nothing, &nothing), |m| (&m.vector, &m.floor));
        let (outward, inward) = (self.outward(&theirs.stream), self.inward(&theirs.stream));
        if outward.is_all() && is_above(floor, &theirs.vector) {
            self.block(&theirs.stream, vector, false);
        } else {
            self.unblock_unless_pulling(&theirs.stream);
        }
        if !inward.is_all() {
            // What this node holds is no part of what the peer does: there is nothing to compare, and no state to take.
            return Ok(());
        }
        let is_new = vector.0.is_empty();
        let lead = theirs.vector.lead_over(vector);
        let is_stuck = self.rounds.is_stuck(&theirs.stream, vector, lead);
        let is_long = is_new && lead >= self.options.snapshot_from_ops;
        if is_above(&theirs.floor, vector) || is_long || is_stuck {
            self.pulls.want(theirs.stream.clone(), Why::Behind);
        }
        let digest = mine.map_or(Digest::default(), |mine| mine.digest);
        if *vector == theirs.vector && digest != theirs.digest && !self.pulls.wants(&theirs.stream)
        {
            // After a snapshot that was broken off, equal vectors may well stand for different states.
            if !theirs.is_ahead && mine.is_none_or(|mine| !mine.is_ahead) {
                self.figures.alarms += 1;
                let (stream, mine, theirs) = (theirs.stream.clone(), digest, theirs.digest);
                self.effects.push(Effect::Alarm { stream, mine, theirs });
            }
            self.pulls.want(theirs.stream.clone(), Why::Diverged);
        }
        Ok(())
    }
}

/// True if ops up to `floor` are needed beyond `vector`: the log that held them was trimmed.
fn is_above(floor: &Vector, vector: &Vector) -> bool {
    floor.0.iter().any(|(origin, seq)| *seq > vector.get(*origin))
}
