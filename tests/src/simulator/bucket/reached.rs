//! The bucket as one visitor of those that are there at once reaches it: step by step, each at his turn, until it is broken off.
//! Here as a folder; see the store for the other way.

use super::ground::Ground;
use super::turns::Turns;
use atoll_node::bucket::{Obstacle, Place, Trouble};
use atoll_storage::NodeId;
use atoll_sync::bucket::Listed;
use std::cell::Cell;
use std::io::Write;

type Result<T> = std::result::Result<T, Trouble>;

/// Where a visit is broken off.
#[derive(Clone, Copy, Debug)]
pub struct Break {
    pub step: u64,
    /// What was asked for in that step is done, and nobody hears of it.
    pub is_done: bool,
}

pub struct Reached<'g> {
    pub ground: &'g Ground,
    pub turns: &'g Turns,
    pub number: usize,
    pub me: NodeId,
    pub breaks: Option<Break>,
    pub steps: Cell<u64>,
    pub is_broken: Cell<bool>,
    /// Requests that a store failed.
    pub failed: Cell<u64>,
}

impl Reached<'_> {
    pub fn step<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.turns.wait(self.number);
        let (step, at) = (self.steps.get(), {
            let mut past = self.ground.past();
            past.steps += 2;
            let now = past.steps;
            past.break_at.filter(|at| [now, now - 1].contains(at))
        });
        self.steps.set(step + 1);
        let breaks = self.breaks.filter(|one| one.step == step).map(|one| one.is_done);
        let breaks = breaks.or(at.map(|at| at % 2 == 0));
        if self.is_broken.get() || breaks == Some(false) {
            return Err(self.broken());
        }
        let done = work()?;
        if breaks == Some(true) { Err(self.broken()) } else { Ok(done) }
    }

    fn broken(&self) -> Trouble {
        self.is_broken.set(true);
        Trouble::new(Obstacle::Offline, "the visit is broken off")
    }
}

impl Place for Reached<'_> {
    fn begin(&self) -> Result<()> {
        self.ground.folder.begin()
    }

    fn list(&self) -> Result<Vec<Listed>> {
        self.step(|| self.ground.list(self.me))
    }

    fn get(&self, name: &str, most: u64, to: &mut dyn Write) -> Result<bool> {
        self.step(|| self.ground.folder.get(name, most, to))
    }

    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.step(|| self.ground.put(name, bytes))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.step(|| self.ground.remove(name).map(|_| ()))
    }

    fn clear(&self, me: NodeId) -> Result<()> {
        self.step(|| self.ground.folder.clear(me))
    }
}
