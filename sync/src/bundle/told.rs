//! How much a bundle may tell of streams and vectors. What a node keeps of that lies in memory and in one row of its store.

use super::Cover;
use atoll_storage::bucket::StreamState;
use atoll_storage::{Origin, StreamId, Vector, codec};

/// Of what a maker has, of how its streams stand and of what a bundle brings, each, counted as it lies in memory. What is
/// within it can be encoded and read back; how long a list is takes a few bytes more.
pub const MAX_TOLD_BYTES: usize = codec::MAX_BYTES - 64;
/// Why a part is left.
pub const TOO_MUCH: &str = "it tells of more streams than a node takes in from one bundle";

/// What a bundle may still tell of one thing.
#[derive(Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MAX_TOLD_BYTES)
    }
}

impl Room {
    pub const fn of(bytes: usize) -> Self {
        Self(bytes)
    }

    /// False if that does not fit; then it stays as it was.
    pub fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    pub fn take_all<T: Told>(&mut self, told: &[T]) -> bool {
        self.take(told.iter().map(Told::bytes).sum())
    }
}

/// Something that a bundle tells of a stream.
pub trait Told {
    /// At least what it takes in memory, and encoded.
    fn bytes(&self) -> usize;
}

impl Told for StreamId {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.scope.len()
    }
}

impl Told for Vector {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.0.len() * size_of::<(Origin, u64)>()
    }
}

impl Told for (StreamId, Vector) {
    fn bytes(&self) -> usize {
        self.0.bytes() + self.1.bytes()
    }
}

impl Told for (StreamId, StreamState) {
    fn bytes(&self) -> usize {
        self.0.bytes() + size_of::<StreamState>()
    }
}

impl Told for Cover {
    fn bytes(&self) -> usize {
        self.stream.bytes() + self.from.bytes() + self.to.bytes()
    }
}

#[cfg(test)]
mod tests;
