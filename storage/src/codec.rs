//! The one place that knows the binary encoding. Every decode is bounded, so that hostile lengths cost nothing.

use crate::error::{Error, Result};
use bincode::{Decode, Encode, config};

/// The most that one decoded value may take: an op's body is at most 4 MiB, a batch at most 8.
const MAX_BYTES: usize = 16 << 20;

pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, config::standard()).unwrap_or_default()
}

/// # Errors
/// `Malformed` if the bytes are not exactly one `T`.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T> {
    let config = config::standard().with_limit::<MAX_BYTES>();
    match bincode::decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok(_) => Err(Error::Malformed("bytes are left over".into())),
        Err(error) => Err(Error::Malformed(error.to_string())),
    }
}
