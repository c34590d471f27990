//! How text becomes words, alike for what is indexed, asked for and highlighted. Any change here changes what is on
//! disk: raise `FORMAT` in `schema.rs` with it. Never drops a word and never panics, whatever the bytes.

use super::gate::Gate;
use tantivy::tokenizer::{AsciiFoldingFilter, TextAnalyzer, Token, TokenStream, Tokenizer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Longer words are cut here, so that a pasted key or address still finds itself.
const MAX_WORD_BYTES: usize = 64;
/// Of a run of letters without a break only this much is read.
const MAX_RAW_BYTES: usize = 256;

/// A word with the place it was found at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub from: usize,
    pub to: usize,
}

/// Finds no more words in a text once `gate` is shut: nothing that was cut so may be kept.
pub fn analyzer_until(gate: Gate) -> TextAnalyzer {
    let words = Words { token: Token::default(), gate };
    TextAnalyzer::builder(words).filter(AsciiFoldingFilter).build()
}

/// The first `limit` words of a text.
pub fn words(text: &str, limit: usize) -> Vec<Word> {
    let mut analyzer = analyzer_until(Gate::default());
    let mut stream = analyzer.token_stream(text);
    let mut found = Vec::new();
    while found.len() < limit && stream.advance() {
        let token = stream.token();
        found.push(Word { text: token.text.clone(), from: token.offset_from, to: token.offset_to });
    }
    found
}

/// The longest start of `text` of at most `bytes` bytes that ends between two characters.
pub fn clip(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Scripts written without spaces: each character is a word, and what was typed together is found as a phrase.
pub fn stands_alone(c: char) -> bool {
    matches!(u32::from(c),
        0x0E01..=0x0EFF // Thai, Lao
        | 0x1000..=0x109F // Burmese
        | 0x1780..=0x17FF // Khmer
        | 0x3041..=0x30FF | 0x31F0..=0x31FF // kana
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF // Han
        | 0xAC00..=0xD7AF) // Hangul
}

/// Marks and joiners belong to the word they stand in.
fn continues(c: char) -> bool {
    c.is_alphanumeric() || is_mark(c)
}

fn is_mark(c: char) -> bool {
    !c.is_ascii() && (is_combining_mark(c) || is_joiner(c))
}

fn is_joiner(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200c}' | '\u{200d}')
}

#[derive(Clone)]
struct Words {
    token: Token,
    gate: Gate,
}

struct WordStream<'a> {
    text: &'a str,
    at: usize,
    token: &'a mut Token,
    gate: &'a Gate,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, at: 0, token: &mut self.token, gate: &self.gate }
    }
}

impl WordStream<'_> {
    /// The byte range of the next word.
    fn next_range(&mut self) -> Option<(usize, usize)> {
        let mut chars = self.text[self.at..].char_indices();
        let (start, first) = chars.find(|(_, c)| c.is_alphanumeric())?;
        let alone = stands_alone(first);
        let goes_on = |c: char| if alone { is_mark(c) } else { continues(c) && !stands_alone(c) };
        let end = chars.find(|(_, c)| !goes_on(*c)).map_or(self.text.len(), |(at, _)| self.at + at);
        let range = (self.at + start, end);
        self.at = end;
        Some(range)
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        if self.gate.is_shut() {
            return false;
        }
        let Some((from, to)) = self.next_range() else { return false };
        self.token.offset_from = from;
        self.token.offset_to = to;
        self.token.position = self.token.position.wrapping_add(1);
        self.token.text.clear();
        fold(clip(&self.text[from..to], MAX_RAW_BYTES), &mut self.token.text);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Lower case without accents; what has no ASCII letter keeps its own.
fn fold(raw: &str, into: &mut String) {
    if raw.is_ascii() {
        into.extend(raw.chars().map(|c| c.to_ascii_lowercase()));
    } else {
        let plain = raw.nfkc().flat_map(char::to_lowercase).nfd();
        into.extend(plain.filter(|c| !matches!(c, '\u{300}'..='\u{36f}') && !is_joiner(*c)).nfc());
    }
    into.truncate(clip(into, MAX_WORD_BYTES).len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        words(text, 100).into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn case_accents_and_composition_do_not_matter() {
        assert_eq!(texts("Café CAFE\u{301} cafe"), ["cafe", "cafe", "cafe"]);
        assert_eq!(texts("Straße Łódź Ærø"), ["strasse", "lodz", "aero"]);
        assert_eq!(texts("Ελληνικά ЁЛКА"), ["ελληνικα", "елка"]);
    }

    #[test]
    fn marks_and_joiners_stay_within_their_word() {
        assert_eq!(texts("हिन्दी भाषा").len(), 2);
        assert_eq!(texts("soft\u{ad}ware"), ["software"]);
    }

    #[test]
    fn scripts_without_spaces_are_cut_by_character() {
        assert_eq!(texts("東京tower2号"), ["東", "京", "tower2", "号"]);
        assert_eq!(texts("ที่"), ["ที่"]);
    }

    #[test]
    fn places_are_those_of_the_original_text() {
        let text = "«Où» est ça?";
        let cut: Vec<_> = words(text, 9).iter().map(|w| &text[w.from..w.to]).collect();
        assert_eq!(cut, ["Où", "est", "ça"]);
    }

    #[test]
    fn an_endless_word_is_cut_and_not_lost() {
        let long = "é".repeat(100_000);
        assert_eq!(texts(&long), ["e".repeat(64)]);
    }
}
