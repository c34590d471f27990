//! Several visits at once: each on a thread of its own, of which one goes on at a time, from step to step, in an order that
//! the seed gives.

use crate::rng::Rng;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    rng: Rng,
    /// Those whose visit is not over.
    there: usize,
    waiting: BTreeSet<usize>,
    turn: Option<usize>,
}

impl State {
    /// Once all wait, one is let on.
    fn choose(&mut self) {
        if self.there > 0 && self.waiting.len() == self.there {
            let waiting: Vec<usize> = self.waiting.iter().copied().collect();
            self.turn = Some(self.rng.pick(&waiting));
        }
    }
}

impl Turns {
    pub fn new(there: usize, rng: Rng) -> Self {
        let state = State { rng, there, waiting: BTreeSet::new(), turn: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Comes back when it is this one's turn.
    pub fn wait(&self, visitor: usize) {
        let mut state = self.state();
        state.waiting.insert(visitor);
        state.choose();
        self.changed.notify_all();
        while state.turn != Some(visitor) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.remove(&visitor);
        state.turn = None;
    }

    /// One visit is over.
    pub fn leave(&self) {
        let mut state = self.state();
        state.there -= 1;
        state.choose();
        self.changed.notify_all();
    }
}
