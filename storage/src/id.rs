//! The names of things: records, nodes, origins, streams, dots. Pure values; nothing here reads a clock or a disk.

use bincode::{Decode, Encode};
use std::fmt;

/// A record, tenant or event: a UUIDv7, or a hash of a natural key (then a UUIDv8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// The tenant of what belongs to the whole network.
    pub const NIL: Self = Self([0; 16]);

    /// A UUIDv7 of `now_ms` (Unix milliseconds) and 74 of the given random bits.
    pub fn v7(now_ms: u64, random: [u8; 10]) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// The id of what is unique by meaning: two nodes that name the same parts make the same record.
    pub fn natural(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        bytes[6] = 0x80 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// Reads the usual hyphenated form, or 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 36 && text.len() != 32 {
            return None;
        }
        let mut bytes = [0u8; 16];
        let mut digits = text.bytes().filter(|b| *b != b'-');
        for byte in &mut bytes {
            let high = char::from(digits.next()?).to_digit(16)?;
            let low = char::from(digits.next()?).to_digit(16)?;
            *byte = (high * 16 + low) as u8;
        }
        digits.next().is_none().then_some(Self(bytes))
    }

    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Unix milliseconds of a UUIDv7; meaningless for a natural key.
    pub fn created_ms(&self) -> u64 {
        self.0[..6].iter().fold(0, |ms, b| ms << 8 | u64::from(*b))
    }

    /// Six characters that tell this record's name from another's of the same spelling.
    pub fn suffix(&self) -> String {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        self.0[10..].iter().map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a UUID"))
    }
}

/// A node: the first half of the BLAKE3 hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    pub fn of_public_key(key: &[u8; 32]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(key).as_bytes()[..16]);
        Self(bytes)
    }

    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == 32 { Id::parse(text).map(|id| Self(id.0)) } else { None }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Who counts: a node in one of its lives. A restore, a clone or a copied image raises the epoch,
/// so that a counter that stepped back can never name two ops alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct Origin {
    pub node: NodeId,
    pub epoch: u32,
}

impl Origin {
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.node.0);
        bytes[16..].copy_from_slice(&self.epoch.to_be_bytes());
        bytes
    }

    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let node = NodeId(bytes.get(..16)?.try_into().ok()?);
        let epoch = u32::from_be_bytes(bytes.get(16..)?.try_into().ok()?);
        Some(Self { node, epoch })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.epoch)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.node, self.epoch)
    }
}

/// The unit of partial replication. A record never changes its stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct StreamId {
    pub tenant: Id,
    pub scope: String,
}

impl StreamId {
    pub fn new(tenant: Id, scope: &str) -> Self {
        Self { tenant, scope: scope.to_owned() }
    }

    /// What belongs to the whole network: its tenants, its keys, who was removed and who may what.
    pub fn is_network(&self) -> bool {
        self.scope == "network"
    }

    /// Streams that travel before all others: who may do what.
    pub fn is_urgent(&self) -> bool {
        matches!(self.scope.as_str(), "network" | "identity")
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.scope)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an op within its stream; `seq` is dense from 1 in each (origin, stream).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default)]
pub struct Dot {
    pub origin: Origin,
    pub seq: u64,
}

impl Dot {
    pub fn to_bytes(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..20].copy_from_slice(&self.origin.to_bytes());
        bytes[20..].copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let origin = Origin::from_slice(bytes.get(..20)?)?;
        Some(Self { origin, seq: u64::from_be_bytes(bytes.get(20..)?.try_into().ok()?) })
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.origin, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_shows() {
        let id = Id::v7(1_700_000_000_123, [7; 10]);
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        assert_eq!(id.created_ms(), 1_700_000_000_123);
        assert_eq!(Id::parse("not-an-id"), None);
        assert_eq!(Id::parse("é2345678-1234-1234-1234-12345678901"), None);
    }
}
