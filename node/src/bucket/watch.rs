//! How the buckets stand: what the last round of each found, when the next one is due, and who waits for one.

use super::trouble::{Obstacle, Trouble};
use atoll_storage::{Carries, NodeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Pauses after failures double up to so many times the usual one, and up to this.
const MOST_DOUBLINGS: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// Names that are told of what was refused or is foreign.
pub(super) const MAX_TOLD: usize = 20;

/// Somebody else who takes from a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub node: NodeId,
    pub name: String,
    /// Ops that it lacks of what it carries, as far as it said.
    pub lacks_ops: u64,
    /// Streams of which it has the same ops as this node, and not the same state.
    pub differs_in: u64,
    pub carries: Carries,
    /// Files that it asks for.
    pub lacks_files: u64,
    /// It did not come for long: nothing is left for it until it comes.
    pub is_absent: bool,
}

/// What a round found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub members: Vec<Seen>,
    /// In the bucket after the round, and of those the ones that this node left.
    pub objects: u64,
    pub own_objects: u64,
    pub size_bytes: u64,
    /// Bundles that this node cannot take in yet, since what they build on is not here.
    pub waiting: u64,
    /// What was passed over, with the reason.
    pub refused: Vec<(String, String)>,
    /// Objects that no node wrote.
    pub foreign: Vec<String>,
    /// Bundles that came and went, in this round.
    pub taken: u64,
    pub left: u64,
    /// Of those that went, the ones that bring a state for whom it is another one.
    pub repairs: u64,
    /// Own bundles that one took the place of.
    pub merged: u64,
    /// Own objects that were cleared away.
    pub removed: u64,
    /// Files that this node asks for, and those that came whole in this round.
    pub files_asked: u64,
    pub files_taken: u64,
    /// Files that could have come and were not taken, with the reason.
    pub files_left_out: Vec<(String, String)>,
    /// Parcels with files after the round, and those that this node left in it.
    pub parcels: u64,
    pub parcels_left: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub found: Option<Found>,
    pub trouble: Option<Trouble>,
    failures: u32,
    pub next: Option<Instant>,
    /// Since the start of the node.
    pub taken: u64,
    pub left: u64,
}

pub(crate) struct Watch {
    states: Mutex<BTreeMap<i64, State>>,
    wake: Notify,
    asked: AtomicU64,
    done: watch::Sender<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        let (states, wake, asked) = Default::default();
        Self { states, wake, asked, done: watch::Sender::new(0) }
    }
}

impl Watch {
    fn states(&self) -> MutexGuard<'_, BTreeMap<i64, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self, id: i64) -> State {
        self.states().get(&id).cloned().unwrap_or_default()
    }

    pub fn forget(&self, id: i64) {
        self.states().remove(&id);
    }

    /// Asks for a round of all buckets now; the number to wait for.
    pub fn ask(&self) -> u64 {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake.notify_one();
        asked
    }

    /// Waits until a round that began after the asking is over.
    pub async fn answered(&self, asked: u64) {
        let mut done = self.done.subscribe();
        // The sender lives as long as this.
        let _ = done.wait_for(|done| *done >= asked).await;
    }

    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn answer(&self, asked: u64) {
        self.done.send_replace(asked);
    }

    pub fn is_answered(&self, asked: u64) -> bool {
        *self.done.borrow() >= asked
    }

    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    pub fn is_due(&self, id: i64, now: Instant) -> bool {
        self.states().get(&id).is_none_or(|state| state.next.is_none_or(|next| next <= now))
    }

    /// When the next round of any is due.
    pub fn next(&self) -> Option<Instant> {
        self.states().values().filter_map(|state| state.next).min()
    }

    pub fn went_well(&self, id: i64, found: Found, next: Instant) {
        let mut states = self.states();
        let state = states.entry(id).or_default();
        (state.taken, state.left) = (state.taken + found.taken, state.left + found.left);
        (state.found, state.trouble, state.failures) = (Some(found), None, 0);
        state.next = Some(next);
    }

    /// True if it is another trouble than that of the last round.
    pub fn failed(&self, id: i64, trouble: Trouble, now: Instant, usual: Duration) -> bool {
        let mut states = self.states();
        let state = states.entry(id).or_default();
        state.next = Some(now + pause_after(state.failures, usual));
        state.failures = state.failures.saturating_add(1);
        let was: Option<Obstacle> = state.trouble.as_ref().map(|trouble| trouble.obstacle);
        let is_new = was != Some(trouble.obstacle);
        state.trouble = Some(trouble);
        is_new
    }
}

/// After the first failure the usual one, then longer and longer; never shorter than the usual one.
fn pause_after(failures: u32, usual: Duration) -> Duration {
    let longer = usual.saturating_mul(1 << failures.min(MOST_DOUBLINGS));
    longer.min(LONGEST_PAUSE).max(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_after_failures_and_are_bounded() {
        let s = Duration::from_secs;
        let pauses = [0, 1, 2, 5, 40].map(|failures| pause_after(failures, s(60)));
        assert_eq!(pauses, [s(60), s(120), s(240), s(1_800), s(1_800)]);
        assert_eq!(pause_after(3, s(86_400)), s(86_400));
    }
}
