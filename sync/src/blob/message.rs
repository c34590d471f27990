//! What nodes say about blobs, and the bounds on it. A request is the first frame of its stream, the answer the first
//! one back; after the answer to `Slice` come the slice's bytes, whose number both sides know.

use atoll_storage::blob::BlobId;
use atoll_storage::blob::tree::{GROUP_BYTES, MAX_BLOB_BYTES, Run};
use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use thiserror::Error;

pub(super) const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// Blobs that one request names.
pub const MAX_IDS: usize = 256;
/// Groups of one slice: 2 MiB.
pub(super) const MAX_GROUPS: u64 = 128;
pub(super) const MAX_SLICE_BYTES: usize = MAX_GROUPS as usize * GROUP_BYTES;
const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_MESSAGE_BYTES>> =
    bincode::config::standard().with_limit::<MAX_MESSAGE_BYTES>();

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Which of these are there?
    Find { ids: Vec<BlobId> },
    /// Parts of a blob, with their proof.
    Slice { id: BlobId, runs: Vec<Run> },
    /// The sender would drop these: which of them does the receiver have, and keep?
    Release { ids: Vec<BlobId> },
    /// What the peer should know of the sender.
    Tell { disk_full: bool },
    /// What the receiver sent of this blob was not the blob's.
    Complain { id: BlobId },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Of each blob its size, if it is there.
    Found(Vec<Option<u64>>),
    /// The bytes follow.
    Slice {
        size_bytes: u64,
    },
    Missing,
    /// Of each blob, whether it is kept.
    Kept(Vec<bool>),
    Noted,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MessageError {
    #[error("the bytes are no message about blobs")]
    Malformed,
    #[error("too many {0} at once")]
    TooMany(&'static str),
    #[error("parts of a blob in disorder")]
    Disorder,
}

impl Request {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let request: Self = decode(bytes)?;
        match &request {
            Self::Find { ids } | Self::Release { ids } if ids.len() > MAX_IDS => {
                Err(MessageError::TooMany("blobs"))
            }
            Self::Slice { runs, .. } => check_runs(runs).map(|()| request),
            _ => Ok(request),
        }
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let answer: Self = decode(bytes)?;
        match &answer {
            Self::Found(sizes) if sizes.len() > MAX_IDS => Err(MessageError::TooMany("blobs")),
            Self::Found(sizes) if sizes.iter().flatten().any(|size| *size > MAX_BLOB_BYTES) => {
                Err(MessageError::Malformed)
            }
            Self::Slice { size_bytes } if *size_bytes > MAX_BLOB_BYTES => {
                Err(MessageError::Malformed)
            }
            Self::Kept(kept) if kept.len() > MAX_IDS => Err(MessageError::TooMany("blobs")),
            _ => Ok(answer),
        }
    }
}

fn check_runs(runs: &[Run]) -> Result<(), MessageError> {
    let (mut before, mut groups) = (None, 0_u64);
    for run in runs {
        let is_apart = before.is_none_or(|end| run.first > end);
        if run.count == 0 || !is_apart || run.first > MAX_BLOB_BYTES / GROUP_BYTES as u64 {
            return Err(MessageError::Disorder);
        }
        groups = groups.saturating_add(run.count);
        if groups > MAX_GROUPS {
            return Err(MessageError::TooMany("parts of a blob"));
        }
        before = Some(run.end());
    }
    if runs.is_empty() { Err(MessageError::Disorder) } else { Ok(()) }
}

fn encode(message: &impl Encode) -> Vec<u8> {
    // Fails for what is beyond the bounds alone, and nothing here makes such a message: the peer refuses an empty one.
    bincode::encode_to_vec(message, CONFIG).unwrap_or_default()
}

fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, MessageError> {
    match bincode::decode_from_slice(bytes, CONFIG) {
        Ok((message, used)) if used == bytes.len() => Ok(message),
        _ => Err(MessageError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(runs: &[(u64, u64)]) -> Request {
        let runs = runs.iter().map(|(first, count)| Run { first: *first, count: *count });
        Request::Slice { id: BlobId([7; 32]), runs: runs.collect() }
    }

    #[test]
    fn the_largest_messages_fit_and_come_back() {
        let ids = vec![BlobId([9; 32]); MAX_IDS];
        let runs: Vec<(u64, u64)> = (0..MAX_GROUPS).map(|n| (1_000_000 + 2 * n, 1)).collect();
        for request in [
            Request::Find { ids: ids.clone() },
            Request::Release { ids },
            slice(&runs),
            Request::Tell { disk_full: true },
            Request::Complain { id: BlobId([3; 32]) },
        ] {
            let bytes = request.encode();
            assert!(bytes.len() <= MAX_MESSAGE_BYTES);
            assert_eq!(Request::decode(&bytes), Ok(request));
        }
        let answer = Answer::Found(vec![Some(MAX_BLOB_BYTES); MAX_IDS]);
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn runs_in_disorder_and_more_than_a_slice_holds_are_refused() {
        for bad in [
            &[][..],
            &[(0, 0)],
            &[(5, 1), (3, 1)],
            &[(0, 2), (1, 2)],
            &[(0, 2), (2, 2)],
            &[(0, MAX_GROUPS + 1)],
            &[(0, 100), (200, 100)],
            &[(0, u64::MAX)],
            &[(u64::MAX, 1)],
            &[(3, u64::MAX), (9, 1)],
        ] {
            assert!(Request::decode(&slice(bad).encode()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cut_and_hostile_bytes_are_refused_and_take_no_memory() {
        let whole = slice(&[(0, 3), (9, 1)]).encode();
        for end in 0..whole.len() {
            assert!(Request::decode(&whole[..end]).is_err());
        }
        for at in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let _ = Request::decode(&flipped);
            let _ = Answer::decode(&flipped);
        }
        // A `Find` that announces 2^60 blobs.
        let mut bytes = vec![0, 253];
        bytes.extend((1_u64 << 60).to_le_bytes());
        assert_eq!(Request::decode(&bytes), Err(MessageError::Malformed));
        let too_large = Answer::Found(vec![Some(MAX_BLOB_BYTES + 1)]);
        assert!(Answer::decode(&too_large.encode()).is_err());
    }
}
