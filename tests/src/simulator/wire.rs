//! The wire: frames on their way between the two ends of a link, with what can befall them.

use super::plan::Plan;
use crate::rng::Rng;
use atoll_sync::session::Session;
use std::collections::BTreeMap;

pub struct Link {
    /// The nodes at its ends.
    pub nodes: [usize; 2],
    pub ends: Option<[Session; 2]>,
    /// Counts connections: frames of an earlier one never arrive.
    pub connection: u64,
    pub down_until_ms: u64,
    /// From which end nothing arrives, and until when.
    pub deaf: Option<(usize, u64)>,
    /// One end knows that the other was removed.
    pub is_refused: bool,
    last_due_ms: [u64; 2],
}

impl Link {
    pub fn new(a: usize, b: usize) -> Self {
        Self {
            nodes: [a, b],
            ends: None,
            connection: 0,
            down_until_ms: 0,
            deaf: None,
            is_refused: false,
            last_due_ms: [0; 2],
        }
    }

    pub fn joins(&self, node: usize) -> bool {
        self.nodes.contains(&node)
    }

    pub fn hang_up(&mut self) {
        self.ends = None;
        self.connection += 1;
    }
}

pub struct Frame {
    pub link: usize,
    pub connection: u64,
    /// The end that it goes to.
    pub to: usize,
    pub bytes: Vec<u8>,
}

#[derive(Default)]
pub struct Wire {
    frames: BTreeMap<(u64, u64), Frame>,
    count: u64,
    pub calm: bool,
    pub sent: u64,
    pub flipped: u64,
}

impl Wire {
    /// Puts a frame on its way, or loses it.
    pub fn send(
        &mut self,
        rng: &mut Rng,
        plan: &Plan,
        link: (usize, &mut Link),
        from: usize,
        bytes: Vec<u8>,
        now_ms: u64,
    ) {
        let (number, link) = link;
        self.sent += 1;
        let to = 1 - from;
        let is_deaf = link.deaf.is_some_and(|(end, until_ms)| end == from && now_ms < until_ms);
        if is_deaf || (!self.calm && rng.percent(plan.loss)) {
            return;
        }
        let copies = if !self.calm && rng.percent(plan.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let mut due_ms = now_ms + rng.between(5, 150);
            if plan.reorders && !self.calm {
                due_ms += rng.between(0, 600);
            } else {
                due_ms = due_ms.max(link.last_due_ms[to]);
                link.last_due_ms[to] = due_ms;
            }
            let mut bytes = bytes.clone();
            if !self.calm && plan.flips && rng.percent(2) && !bytes.is_empty() {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
                self.flipped += 1;
            }
            self.count += 1;
            let frame = Frame { link: number, connection: link.connection, to, bytes };
            self.frames.insert((due_ms, self.count), frame);
        }
    }

    pub fn next_due(&mut self, now_ms: u64) -> Option<Frame> {
        let first = self.frames.first_entry().filter(|entry| entry.key().0 <= now_ms)?;
        Some(first.remove())
    }

    /// What is on its way over links from this one on will never arrive.
    pub fn forget_from(&mut self, link: usize) {
        self.frames.retain(|_, frame| frame.link < link);
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}
