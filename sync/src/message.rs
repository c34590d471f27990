//! What two nodes say to each other, and the bounds on it. One message is one frame.
//! Decoding never panics and never takes memory for what was only announced.

use crate::piece::{self, Piece};
use atoll_storage::{
    Carries, ChunkHead, Digest, Id, Op, Origin, RecordKey, Rights, SnapshotChunk, StreamHead,
    StreamId, Vector, codec,
};
use bincode::{Decode, Encode};
use std::collections::BTreeMap;
use std::io::Read;
use thiserror::Error;

/// The protocol that this release speaks, and the oldest that it still understands.
pub const VERSION: u16 = 4;
pub const OLDEST_VERSION: u16 = 1;

/// The most that a compressed part may unfold to.
pub const MAX_UNPACKED_BYTES: usize = 8 << 20;
const SEAL_BYTES: usize = 8;
const MAX_NAME_BYTES: usize = 64;
const MAX_SCOPE_BYTES: usize = 64;
const MAX_ORIGINS: usize = 10_000;
pub const MAX_OPS: usize = 1_000;
/// Enough for a quarter of a million tenants, or for tens of millions of records in one stream.
pub const MAX_PAGES: u16 = 64;
/// Below this, compressing costs more than it saves.
const PACK_FROM_BYTES: usize = 256;
/// A page of a list is about this long at most.
const PAGE_BYTES: usize = 256 << 10;
/// One item alone may make a page longer; a longer one than this is refused.
const MAX_PAGE_BYTES: usize = 1 << 20;
/// Greater counters are nobody's honest ones.
const MAX_SEQ: u64 = 1 << 53;

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    Hello(Hello),
    /// Opens a round of comparing: the sender's digests by tenant.
    Compare {
        round: u32,
        page: Page<(Id, Digest)>,
    },
    /// Answers it: the tenants that differ.
    Differ {
        round: u32,
        page: Page<Id>,
    },
    /// The sender's streams in those tenants. `asked` tells whose round it is: the sender's own or not.
    Heads {
        asked: bool,
        round: u32,
        page: Page<StreamHead>,
    },
    Ops {
        batch: u64,
        ops: Packed,
    },
    /// What the sender has now of the streams of a batch.
    Ack {
        batch: u64,
        vectors: Vec<(StreamId, Vector)>,
    },
    /// Said from time to time: equal roots mean that nothing is missing.
    Root {
        root: Digest,
        time_ms: u64,
    },
    IndexRequest {
        request: u64,
        stream: StreamId,
    },
    Index {
        request: u64,
        vector: Vector,
        page: Page<ChunkHead>,
    },
    ChunkRequest {
        request: u64,
        stream: StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
    },
    Chunk {
        request: u64,
        chunk: Packed,
    },
    /// The sender took a snapshot of this stream; ops can flow from here on.
    Pulled {
        head: StreamHead,
    },
    /// What the sender carries, from version 2 on. `number` rises with each change; `seen` tells that it knows what the
    /// receiver carries.
    Carries {
        number: u32,
        carries: Carries,
        seen: bool,
    },
    /// The same, and what the sender lets the receiver do, from version 3 on.
    Parts {
        number: u32,
        carries: Carries,
        rights: Rights,
        seen: bool,
    },
    /// From version 4 on: a piece of a chunk that is too long for a message. The first one answers a `ChunkRequest`.
    Piece {
        request: u64,
        piece: Piece,
    },
    /// Asks for another piece; the range is that of the `ChunkRequest`.
    PieceRequest {
        request: u64,
        stream: StreamId,
        after: Option<RecordKey>,
        upto: Option<RecordKey>,
        number: u16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    pub version: u16,
    pub oldest_version: u16,
    pub origin: Origin,
    pub root: Digest,
    pub time_ms: u64,
    pub name: String,
    /// The sender has had the receiver's hello.
    pub seen: bool,
}

/// One part of a list that may be too long for one frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Page<T> {
    pub number: u16,
    pub of: u16,
    pub items: Vec<T>,
}

/// A value's bytes, compressed where that pays.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Packed {
    Plain(Vec<u8>),
    Zstd(Vec<u8>),
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MessageError {
    #[error("the bytes are no message: {0}")]
    Malformed(String),
    #[error("too many {what}: {count}, at most {limit}")]
    TooMany { what: &'static str, count: usize, limit: usize },
    #[error("the bytes are damaged")]
    Damaged,
    #[error("a compressed part unfolds to more bytes than it may")]
    TooLong,
    #[error("a counter or clock is beyond all reason")]
    Absurd,
}

type Result<T> = std::result::Result<T, MessageError>;

fn seal_of(body: &[u8]) -> [u8; SEAL_BYTES] {
    let mut seal = [0; SEAL_BYTES];
    seal.copy_from_slice(&blake3::hash(body).as_bytes()[..SEAL_BYTES]);
    seal
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<()> {
    if count > limit {
        return Err(MessageError::TooMany { what, count, limit });
    }
    Ok(())
}

impl Message {
    /// The message, and a short hash after it: a flipped bit must not become another value.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = codec::encode(self);
        let seal = seal_of(&bytes);
        bytes.extend_from_slice(&seal);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (body, seal) = bytes.split_last_chunk().ok_or(MessageError::Damaged)?;
        if seal_of(body) != *seal {
            return Err(MessageError::Damaged);
        }
        let message: Self =
            codec::decode(body).map_err(|e| MessageError::Malformed(e.to_string()))?;
        if message.is_paged() {
            at_most("bytes in a page", bytes.len(), MAX_PAGE_BYTES)?;
        }
        message.check()?;
        Ok(message)
    }

    fn is_paged(&self) -> bool {
        matches!(
            self,
            Self::Compare { .. } | Self::Differ { .. } | Self::Heads { .. } | Self::Index { .. }
        )
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Hello(hello) => at_most("bytes in a name", hello.name.len(), MAX_NAME_BYTES),
            Self::Compare { page, .. } => page.check(|_| Ok(())),
            Self::Differ { page, .. } => page.check(|_| Ok(())),
            Self::Heads { page, .. } => page.check(check_head),
            Self::Ops { .. } | Self::Root { .. } | Self::Chunk { .. } => Ok(()),
            Self::Ack { vectors, .. } => {
                at_most("streams in an acknowledgement", vectors.len(), MAX_OPS)?;
                vectors.iter().try_for_each(|(stream, vector)| {
                    check_stream(stream)?;
                    check_vector(vector)
                })
            }
            Self::IndexRequest { stream, .. }
            | Self::ChunkRequest { stream, .. }
            | Self::PieceRequest { stream, .. } => check_stream(stream),
            Self::Piece { piece, .. } => piece.check(),
            Self::Index { vector, page, .. } => {
                check_vector(vector)?;
                page.check(|_| Ok(()))
            }
            Self::Pulled { head } => check_head(head),
            Self::Carries { carries, .. } => carries.check().map_err(malformed),
            Self::Parts { carries, rights, .. } => {
                carries.check().and_then(|()| rights.check()).map_err(malformed)
            }
        }
    }
}

fn malformed(error: atoll_storage::Error) -> MessageError {
    MessageError::Malformed(error.to_string())
}

fn check_stream(stream: &StreamId) -> Result<()> {
    at_most("bytes in a scope", stream.scope.len(), MAX_SCOPE_BYTES)
}

fn check_vector(vector: &Vector) -> Result<()> {
    at_most("origins in a vector", vector.0.len(), MAX_ORIGINS)?;
    if vector.0.values().any(|seq| *seq > MAX_SEQ) {
        return Err(MessageError::Absurd);
    }
    Ok(())
}

fn check_head(head: &StreamHead) -> Result<()> {
    check_stream(&head.stream)?;
    check_vector(&head.vector)?;
    check_vector(&head.floor)
}

/// The ops of a batch, each checked for what the store cannot hold.
pub fn unpack_ops(packed: &Packed) -> Result<Vec<Op>> {
    let ops: Vec<Op> = packed.open()?;
    at_most("ops in a batch", ops.len(), MAX_OPS)?;
    for op in &ops {
        check_stream(&op.stream)?;
        if op.dot.seq == 0 || op.dot.seq > MAX_SEQ || op.hlc.0 >= 1 << 63 {
            return Err(MessageError::Absurd);
        }
    }
    Ok(ops)
}

pub fn unpack_chunk(packed: &Packed) -> Result<SnapshotChunk> {
    check_chunk(packed.open()?)
}

/// A chunk of the pieces that it was cut into by [`piece::cut`], joined again.
pub fn unpack_long_chunk(joined: &[u8]) -> Result<SnapshotChunk> {
    let packed: Packed = codec::decode_long(joined).map_err(malformed)?;
    check_chunk(match packed {
        Packed::Plain(bytes) => codec::decode_long(&bytes).map_err(malformed)?,
        Packed::Zstd(bytes) => {
            codec::decode_long(&unfold(&bytes, piece::MAX_BYTES)?).map_err(malformed)?
        }
    })
}

fn check_chunk(chunk: SnapshotChunk) -> Result<SnapshotChunk> {
    check_stream(&chunk.stream)?;
    check_vector(&chunk.vector)?;
    Ok(chunk)
}

impl Packed {
    pub fn of<T: Encode>(value: &T) -> Self {
        Self::of_bytes(codec::encode(value))
    }

    /// Of a value that is encoded already.
    pub fn of_bytes(plain: Vec<u8>) -> Self {
        if plain.len() <= PACK_FROM_BYTES {
            return Self::Plain(plain);
        }
        match zstd::bulk::compress(&plain, 1) {
            Ok(packed) if packed.len() < plain.len() => Self::Zstd(packed),
            _ => Self::Plain(plain),
        }
    }

    pub fn open<T: Decode<()>>(&self) -> Result<T> {
        match self {
            Self::Plain(bytes) => codec::decode(bytes).map_err(malformed),
            Self::Zstd(bytes) => {
                codec::decode(&unfold(bytes, MAX_UNPACKED_BYTES)?).map_err(malformed)
            }
        }
    }
}

/// Takes memory as the bytes come out, and at most the limit.
fn unfold(bytes: &[u8], limit: usize) -> Result<Vec<u8>> {
    let damaged = |_| MessageError::Damaged;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
    decoder.window_log_max(23).map_err(damaged)?;
    let mut plain = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut plain).map_err(damaged)?;
    if plain.len() > limit {
        return Err(MessageError::TooLong);
    }
    Ok(plain)
}

impl<T> Page<T> {
    fn check(&self, item: impl Fn(&T) -> Result<()>) -> Result<()> {
        at_most("pages", usize::from(self.of), usize::from(MAX_PAGES))?;
        if self.number >= self.of {
            return Err(MessageError::Malformed("a page beyond the last one".into()));
        }
        self.items.iter().try_for_each(item)
    }
}

/// Cuts a list into pages by the size of its items; an empty list is one empty page.
pub fn pages<T: Encode>(items: Vec<T>) -> Vec<Page<T>> {
    let mut lists = vec![vec![]];
    let mut bytes = 0;
    for item in items {
        let size = codec::encode(&item).len();
        if bytes > 0 && bytes + size > PAGE_BYTES {
            lists.push(vec![]);
            bytes = 0;
        }
        bytes += size;
        if let Some(list) = lists.last_mut() {
            list.push(item);
        }
    }
    let of = lists.len() as u16;
    (0..).zip(lists).map(|(number, items)| Page { number, of, items }).collect()
}

/// Puts pages together again, whatever order they come in. Another label begins anew.
#[derive(Debug)]
pub struct Collector<T> {
    label: u64,
    of: u16,
    pages: BTreeMap<u16, Vec<T>>,
}

impl<T> Default for Collector<T> {
    fn default() -> Self {
        Self { label: 0, of: 0, pages: BTreeMap::new() }
    }
}

impl<T> Collector<T> {
    /// The whole list, once its last page is here.
    pub fn put(&mut self, label: u64, page: Page<T>) -> Option<Vec<T>> {
        if self.label != label || self.of != page.of {
            (self.label, self.of) = (label, page.of);
            self.pages.clear();
        }
        self.pages.insert(page.number, page.items);
        if self.pages.len() < usize::from(self.of) {
            return None;
        }
        self.of = 0;
        Some(std::mem::take(&mut self.pages).into_values().flatten().collect())
    }
}

impl Hello {
    /// A name fit for the wire: short, and nothing in it that could garble a terminal.
    pub fn short_name(name: &str) -> String {
        let mut short = String::new();
        for c in name.chars().filter(|c| !c.is_control()) {
            if short.len() + c.len_utf8() > MAX_NAME_BYTES {
                break;
            }
            short.push(c);
        }
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_storage::NodeId;

    fn hello() -> Message {
        Message::Hello(Hello {
            version: VERSION,
            oldest_version: OLDEST_VERSION,
            origin: Origin { node: NodeId([255; 16]), epoch: u32::MAX },
            root: Digest([u64::MAX; 4]),
            time_ms: u64::MAX,
            name: Hello::short_name(&"n\u{7}é".repeat(99)),
            seen: true,
        })
    }

    #[test]
    fn the_longest_hello_is_under_200_bytes_framed() {
        let bytes = hello().encode();
        assert!(bytes.len() + crate::frame::HEADER_BYTES < 200, "{}", bytes.len());
        assert_eq!(Message::decode(&bytes), Ok(hello()));
    }

    #[test]
    fn cut_and_flipped_bytes_are_refused_and_sealed_ones_never_panic() {
        let page = Page { number: 0, of: 1, items: vec![(Id::NIL, Digest::default()); 9] };
        let messages = [hello(), Message::Compare { round: 3, page }];
        for bytes in messages.map(|m| m.encode()) {
            for end in 0..bytes.len() {
                assert!(Message::decode(&bytes[..end]).is_err());
            }
            for at in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[at / 8] ^= 1 << (at % 8);
                assert_eq!(Message::decode(&flipped), Err(MessageError::Damaged));
                // As somebody would who means harm.
                let mut body = flipped[..bytes.len() - SEAL_BYTES].to_vec();
                body.extend(seal_of(&body));
                let _ = Message::decode(&body);
            }
        }
    }

    #[test]
    fn a_bomb_does_not_unfold() {
        let zeros = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap_or_default();
        assert!(zeros.len() < 100_000);
        assert_eq!(Packed::Zstd(zeros).open::<Vec<u8>>(), Err(MessageError::TooLong));
    }

    #[test]
    fn announced_lengths_take_nothing() {
        // An `Ack` that says it holds 2^60 streams.
        let mut bytes = vec![5, 1, 253];
        bytes.extend((1u64 << 60).to_le_bytes());
        bytes.extend(seal_of(&bytes));
        assert!(Message::decode(&bytes).is_err());
    }

    #[test]
    fn a_list_comes_back_whole_from_pages_in_any_order() {
        let list: Vec<(Id, Digest)> = (0..20_000u64)
            .map(|n| (Id::natural(&[&n.to_le_bytes()]), Digest([u64::MAX - n; 4])))
            .collect();
        let mut pages = pages(list.clone());
        assert!(pages.len() > 2);
        pages.reverse();
        let mut collector = Collector::default();
        let twice = pages.iter().skip(1).chain(&pages).cloned();
        let whole: Vec<_> = twice.filter_map(|page| collector.put(7, page)).collect();
        assert_eq!(whole, vec![list]);
    }
}
