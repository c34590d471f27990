//! Made-up text with the word frequencies of a real one, so that neither side stores a string that compresses to
//! nothing nor one that does not compress at all. The same seed gives the same text: both sides write the same.

const SYLLABLES: [&str; 32] = [
    "bo", "cor", "de", "fin", "ga", "hol", "is", "jo", "ka", "lum", "mar", "ne", "or", "pa", "qui",
    "ra", "sol", "ta", "un", "vel", "wa", "xe", "yon", "za", "bri", "cla", "dro", "flu", "gri",
    "sta", "tri", "pli",
];
const VOCABULARY: u64 = 4_096;

/// At least `size_bytes` and at most one word more of lower-case ASCII words.
pub fn words(seed: u64, size_bytes: usize) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::with_capacity(size_bytes + 16);
    while text.len() < size_bytes {
        push_word(&mut text, next(&mut state));
        text.push(' ');
    }
    text
}

/// Low ranks come far more often than high ones, as they do in language.
fn push_word(text: &mut String, random: u64) {
    let first = random % VOCABULARY;
    let second = (random >> 16) % VOCABULARY;
    let third = (random >> 32) % VOCABULARY;
    let rank = first.min(second).min(third) as usize;
    text.push_str(SYLLABLES[rank % 32]);
    text.push_str(SYLLABLES[(rank / 32) % 32]);
    if rank > 1_023 {
        text.push_str(SYLLABLES[rank / 1_024]);
    }
}

/// xorshift64: fast, and even enough for text.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_for_a_seed_and_another_for_the_next() {
        assert_eq!(words(7, 2_048), words(7, 2_048));
        assert_ne!(words(7, 2_048), words(8, 2_048));
        assert!((2_048..2_064).contains(&words(7, 2_048).len()));
    }
}
