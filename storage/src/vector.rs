//! Version vectors: what of a stream is here, one counter an origin.

use crate::id::{Dot, Origin};
use bincode::{Decode, Encode};
use std::collections::BTreeMap;

/// Origin to the highest seq of a dense prefix.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Default, Debug)]
pub struct Vector(pub BTreeMap<Origin, u64>);

impl Vector {
    pub fn get(&self, origin: Origin) -> u64 {
        self.0.get(&origin).copied().unwrap_or(0)
    }

    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.origin) >= dot.seq
    }

    /// True if nothing in `other` is missing here.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(origin, seq)| self.get(*origin) >= *seq)
    }

    pub fn raise(&mut self, origin: Origin, seq: u64) {
        if seq > 0 {
            let mine = self.0.entry(origin).or_default();
            *mine = (*mine).max(seq);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(origin, seq)| self.raise(*origin, *seq));
    }

    /// What both have.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        let both = self.0.iter().map(|(origin, seq)| (*origin, (*seq).min(other.get(*origin))));
        Self(both.filter(|(_, seq)| *seq > 0).collect())
    }

    /// Of these origins alone.
    #[must_use]
    pub fn of(&self, is_meant: impl Fn(Origin) -> bool) -> Self {
        let meant = self.0.iter().filter(|(origin, _)| is_meant(**origin));
        Self(meant.map(|(origin, seq)| (*origin, *seq)).collect())
    }

    /// How many ops `self` has that `other` lacks. Others may say any numbers: those that add up to more than fits are as many
    /// as fit.
    pub fn lead_over(&self, other: &Self) -> u64 {
        let leads = self.0.iter().map(|(origin, seq)| seq.saturating_sub(other.get(*origin)));
        leads.fold(0, u64::saturating_add)
    }

    /// A 256-bit hash of the vector, equal for equal vectors on every node.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (origin, seq) in self.0.iter().filter(|(_, seq)| **seq > 0) {
            hasher.update(&origin.to_bytes());
            hasher.update(&seq.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn numbers_that_nobody_counts_to_lead_by_the_most() {
        let origin = |n| Origin { node: NodeId([n; 16]), epoch: 1 };
        let absurd = Vector((1..4).map(|n| (origin(n), u64::MAX)).collect());
        let near = Vector((1..4).map(|n| (origin(n), u64::MAX - 2)).collect());
        assert_eq!(absurd.lead_over(&Vector::default()), u64::MAX);
        assert_eq!(absurd.lead_over(&near), 6);
    }
}
