//! Damaged copies of good inputs.

use crate::rng::Rng;

/// Lengths and numbers that code gets wrong, as they are encoded.
const ODD: [&[u8]; 9] = [
    &[0],
    &[0xFF],
    &[0xFB, 0xFF, 0xFF],
    &[0xFC, 0xFF, 0xFF, 0xFF, 0x7F],
    &[0xFD, 0, 0, 0, 0, 0, 0, 0, 0x80],
    &[0xFD, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    &[0xFD, 0, 0, 0, 0, 0, 0, 0x20, 0],
    &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x7F, 0xFF, 0xFF, 0xFF],
];

fn place(rng: &mut Rng, bytes: &[u8]) -> usize {
    rng.below(bytes.len() + 1)
}

/// One to four changes to `bytes`; some take a piece of `other`.
pub fn mutated(rng: &mut Rng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.between(1, 4) {
        let at = place(rng, &bytes);
        let length = rng.between(1, 32) as usize;
        let end = (at + length).min(bytes.len());
        match rng.below(9) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => bytes[at] = rng.number() as u8,
            3 => {
                let odd = rng.pick(&ODD);
                let end = (at + odd.len()).min(bytes.len());
                bytes.splice(at..end, odd.iter().copied());
            }
            4 => drop(bytes.splice(at..at, rng.pick(&ODD).iter().copied())),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let piece = bytes[at..end].to_vec();
                let to = place(rng, &bytes);
                bytes.splice(to..to, piece);
            }
            7 if !other.is_empty() => {
                let from = rng.below(other.len());
                let upto = (from + rng.between(1, 400) as usize).min(other.len());
                bytes.splice(at..end, other[from..upto].iter().copied());
            }
            8 => bytes.truncate(at),
            _ => bytes.push(rng.number() as u8),
        }
    }
    bytes
}
