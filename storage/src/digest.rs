//! The digest of a set: the sum of its members' hashes, so that one member changes it in constant time.
//! It finds bugs and bit rot; it is no defence against somebody who makes up records to collide.

use bincode::{Decode, Encode};
use std::fmt;

/// Four 64-bit lanes, each the wrapping sum of its quarter of the members' BLAKE3 hashes.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode, Default, Hash)]
pub struct Digest(pub [u64; 4]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(blake3::hash(bytes).as_bytes())
    }

    pub fn from_hash(hash: &[u8; 32]) -> Self {
        let mut lanes = [0; 4];
        for (lane, chunk) in lanes.iter_mut().zip(hash.chunks_exact(8)) {
            *lane = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        }
        Self(lanes)
    }

    pub fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(lane, o)| *lane = lane.wrapping_add(o));
    }

    pub fn sub(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(lane, o)| *lane = lane.wrapping_sub(o));
    }

    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }

    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_hash(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().take(8).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
