//! Pieces of what is too long for one message or one part of a bundle: a record with the whole history of a text that was
//! written anew over and over. Knows bytes, and not what they stand for.

use crate::message::{MessageError, Page};
use atoll_storage::Digest;
use bincode::{Decode, Encode};
use std::collections::BTreeMap;

/// The most that all pieces together may be, and unfold to.
pub const MAX_BYTES: usize = 64 << 20;
pub const PIECE_BYTES: usize = 512 << 10;
const MAX_PIECES: usize = MAX_BYTES / PIECE_BYTES;

/// One of several.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Piece {
    /// Of all the bytes: pieces of two lengths or states are never put together.
    pub name: u64,
    pub page: Page<u8>,
}

impl Piece {
    /// # Errors
    /// `TooMany` and `Malformed` for what [`cut`] does not make.
    pub fn check(&self) -> Result<(), MessageError> {
        let Page { number, of, items } = &self.page;
        let bounds =
            [("pieces", usize::from(*of), MAX_PIECES), ("bytes", items.len(), PIECE_BYTES)];
        for (what, count, limit) in bounds {
            if count > limit {
                return Err(MessageError::TooMany { what, count, limit });
            }
        }
        if number >= of {
            return Err(MessageError::Malformed("a piece beyond the last one".into()));
        }
        Ok(())
    }
}

/// Pieces of so many bytes, at most [`PIECE_BYTES`]; none if they would be more than may be.
pub fn cut(bytes: &[u8], piece_bytes: usize) -> Option<Vec<Piece>> {
    let size = piece_bytes.clamp(1, PIECE_BYTES);
    let of = bytes.len().div_ceil(size);
    if of > MAX_PIECES {
        return None;
    }
    let name = Digest::of(bytes).0[0];
    let page =
        |(number, items): (u16, &[u8])| Page { number, of: of as u16, items: items.to_vec() };
    let pages = (0..).zip(bytes.chunks(size)).map(page);
    Some(pages.map(|page| Piece { name, page }).collect())
}

/// Pieces that came, in whatever order. A piece of another name begins anew.
#[derive(Debug, Default)]
pub struct Joining {
    name: u64,
    of: u16,
    here: BTreeMap<u16, Vec<u8>>,
}

impl Joining {
    /// Whether the piece is one of these; anything is, as long as there are none.
    pub fn is_of(&self, piece: &Piece) -> bool {
        self.here.is_empty() || (self.name, self.of) == (piece.name, piece.page.of)
    }

    /// All bytes, once the last piece is here.
    pub fn put(&mut self, piece: Piece) -> Option<Vec<u8>> {
        if !self.is_of(&piece) {
            self.here.clear();
        }
        let Piece { name, page: Page { number, of, items } } = piece;
        (self.name, self.of) = (name, of);
        self.here.insert(number, items);
        if self.here.len() < usize::from(of) {
            return None;
        }
        let bytes = std::mem::take(&mut self.here).into_values().collect::<Vec<_>>().concat();
        (Digest::of(&bytes).0[0] == name).then_some(bytes)
    }

    /// Numbers of pieces that are not here.
    pub fn missing(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.of).filter(|number| !self.here.contains_key(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes() -> Vec<u8> {
        (0..1_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn pieces_in_any_order_and_twice_are_the_bytes_again() {
        let pieces = cut(&bytes(), 300).unwrap_or_default();
        assert_eq!(pieces.len(), 14);
        let mut joining = Joining::default();
        let came = pieces.iter().rev().chain(&pieces).cloned();
        let whole: Vec<_> = came.filter_map(|piece| joining.put(piece)).take(1).collect();
        assert_eq!(whole, [bytes()]);
    }

    #[test]
    fn pieces_of_two_states_are_never_put_together() {
        let (mut other, mut joining) = (bytes(), Joining::default());
        other[0] ^= 1;
        let (first, second) = (cut(&bytes(), 3_000), cut(&other, 3_000));
        let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
        assert_eq!(joining.put(first[0].clone()), None);
        assert!(!joining.is_of(&second[1]));
        assert_eq!(joining.put(second[1].clone()), None);
        assert_eq!(joining.missing().collect::<Vec<_>>(), [0]);
        assert_eq!(joining.put(second[0].clone()), Some(other));
    }

    #[test]
    fn what_is_too_long_is_not_cut_and_pieces_beyond_all_bounds_are_refused() {
        assert_eq!(cut(&bytes(), 10), None);
        let piece =
            |number, of, bytes| Piece { name: 1, page: Page { number, of, items: vec![0; bytes] } };
        assert_eq!(piece(0, 1, PIECE_BYTES).check(), Ok(()));
        let wrong =
            [piece(0, 1, PIECE_BYTES + 1), piece(0, 129, 1), piece(1, 1, 1), piece(0, 0, 1)];
        assert!(wrong.iter().all(|piece| piece.check().is_err()));
    }
}
