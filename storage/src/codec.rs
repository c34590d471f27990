//! The one place that knows the binary encoding. Every decode is bounded, so that hostile lengths cost nothing.
//!
//! A row of the log holds a payload as it is encoded, or packed: two packed ones of 2 KiB share a page of the file that one
//! alone would fill.

use crate::error::{Error, Result};
use crate::op::Payload;
use bincode::{Decode, Encode, config};
use std::borrow::Cow;

/// The most that one decoded value may take: an op's body is at most 4 MiB, a batch at most 8.
pub const MAX_BYTES: usize = 16 << 20;
/// The same of what holds one whole record, with all texts of it and their histories.
const MAX_LONG_BYTES: usize = 160 << 20;
/// Before what is packed. No encoded payload begins with it: those begin with the number of their variant.
const PACKED: u8 = 0xF4;
/// An encoded `Payload::Erased` begins with it.
const ERASED: u8 = 3;
/// Below this, a row takes little of its page either way.
const PACK_FROM_BYTES: usize = 512;

pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, config::standard()).unwrap_or_default()
}

/// # Errors
/// `Malformed` if the bytes are not exactly one `T`.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T> {
    decode_up_to::<T, MAX_BYTES>(bytes)
}

/// As `decode`, of what may be a long record, from bytes whose number is bounded elsewhere.
///
/// # Errors
/// `Malformed` if the bytes are not exactly one `T`.
pub fn decode_long<T: Decode<()>>(bytes: &[u8]) -> Result<T> {
    decode_up_to::<T, MAX_LONG_BYTES>(bytes)
}

fn decode_up_to<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T> {
    match bincode::decode_from_slice(bytes, config::standard().with_limit::<LIMIT>()) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok(_) => Err(Error::Malformed("bytes are left over".into())),
        Err(error) => Err(Error::Malformed(error.to_string())),
    }
}

/// A payload as a row of the log holds it.
pub fn pack(payload: &Payload) -> Vec<u8> {
    let plain = encode(payload);
    if plain.len() < PACK_FROM_BYTES {
        return plain;
    }
    let mut packed = vec![0; 5 + lz4_flex::block::get_maximum_output_size(plain.len())];
    packed[0] = PACKED;
    packed[1..5].copy_from_slice(&(plain.len() as u32).to_le_bytes());
    match lz4_flex::block::compress_into(&plain, &mut packed[5..]) {
        Ok(length) if length + 5 < plain.len() => {
            packed.truncate(length + 5);
            packed
        }
        _ => plain,
    }
}

/// # Errors
/// `Malformed` if the bytes are not what `pack` makes.
pub fn unpack(row: &[u8]) -> Result<Payload> {
    decode(&plain(row)?)
}

/// What `unpack` decodes.
pub(crate) fn plain(row: &[u8]) -> Result<Cow<'_, [u8]>> {
    let [PACKED, a, b, c, d, packed @ ..] = row else { return Ok(Cow::Borrowed(row)) };
    let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    if length > MAX_BYTES {
        return Err(Error::Malformed("a packed row says that it is longer than any is".into()));
    }
    let plain = lz4_flex::block::decompress(packed, length);
    Ok(Cow::Owned(plain.map_err(|error| Error::Malformed(error.to_string()))?))
}

/// Of an encoded payload that was erased, the hash of what it was.
pub(crate) fn erased(plain: &[u8]) -> Option<[u8; 32]> {
    match plain {
        [ERASED, ..] => match decode(plain) {
            Ok(Payload::Erased { hash }) => Some(hash),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{BodyEdit, BodyWrite, Write};

    fn born(text: String) -> Payload {
        let bodies = vec![BodyWrite { field: 1, edit: BodyEdit::Born(text) }];
        Payload::Write(Write { creates: true, bodies, ..Write::default() })
    }

    #[test]
    fn rows_of_the_log_come_back_packed_or_not() {
        let erased = Payload::Erased { hash: [PACKED; 32] };
        let payloads = ["", "short", &"a word and another ".repeat(200)].map(|t| born(t.into()));
        for payload in payloads.into_iter().chain([erased]) {
            assert_eq!(unpack(&pack(&payload)).ok(), Some(payload));
        }
        let long = born("a word and another ".repeat(200));
        assert!(pack(&long).len() < encode(&long).len() / 4);
    }

    #[test]
    fn what_was_erased_tells_its_hash() {
        let erased_one = encode(&Payload::Erased { hash: [9; 32] });
        assert_eq!(erased(&erased_one), Some([9; 32]));
        assert_eq!(erased(&encode(&born("a word".into()))), None);
        assert_eq!(erased(&encode(&Payload::Count(vec![]))), None);
    }

    #[test]
    fn a_damaged_row_is_refused_and_takes_no_memory_for_what_it_announces() {
        let mut row = pack(&born("a word and another ".repeat(200)));
        for end in 0..row.len() {
            assert!(unpack(&row[..end]).is_err());
        }
        row[1..5].fill(0xFF);
        assert!(unpack(&row).is_err());
    }
}
