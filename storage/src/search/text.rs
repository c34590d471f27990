//! Reads what a person typed: words, "quoted phrases", -unwanted ones. There is no syntax to get wrong: any text is a
//! query, and none gives an error.

use super::words::{clip, stands_alone, words};

const MAX_CHARS: usize = 500;
const MAX_WORDS: usize = 32;
const MIN_PREFIX_CHARS: usize = 2;

/// Words that stand together: a single one, a quoted phrase, or something like `e-mail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    pub words: Vec<String>,
    pub quoted: bool,
    /// The last word may go on: the person is still typing.
    pub prefix: bool,
}

#[derive(Debug, Default)]
pub struct Asked {
    pub wanted: Vec<Clause>,
    pub unwanted: Vec<Clause>,
    /// Nothing was typed at all, so that everything may be listed.
    pub blank: bool,
}

impl Asked {
    pub fn read(text: &str) -> Self {
        let mut asked = Self { blank: text.trim().is_empty(), ..Self::default() };
        let mut rest = first_chars(text).trim_start();
        let mut budget = MAX_WORDS;
        while !rest.is_empty() && budget > 0 {
            let unwanted = is_minus(rest);
            let (chunk, quoted, after) = next_chunk(if unwanted { &rest[1..] } else { rest });
            rest = after.trim_start();
            let words: Vec<String> = words(chunk, budget).into_iter().map(|w| w.text).collect();
            budget -= words.len();
            let prefix = !unwanted && !quoted && rest.is_empty() && may_go_on(&words);
            let into = if unwanted { &mut asked.unwanted } else { &mut asked.wanted };
            if !words.is_empty() {
                into.push(Clause { words, quoted, prefix });
            }
        }
        asked
    }
}

fn first_chars(text: &str) -> &str {
    text.char_indices().nth(MAX_CHARS).map_or(text, |(at, _)| clip(text, at))
}

fn is_minus(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|after| after.starts_with(|c: char| !c.is_whitespace()))
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '“' | '”' | '„' | '«' | '»')
}

/// What stands between quotes or up to the next blank; a quote that is never closed reaches to the end.
fn next_chunk(text: &str) -> (&str, bool, &str) {
    let Some(inner) = text.strip_prefix(is_quote) else {
        let end = text.find(|c: char| c.is_whitespace() || is_quote(c)).unwrap_or(text.len());
        return (&text[..end], false, &text[end..]);
    };
    match inner.split_once(is_quote) {
        Some((chunk, after)) => (chunk, true, after),
        None => (inner, true, ""),
    }
}

pub fn may_go_on(words: &[String]) -> bool {
    words.last().is_some_and(|word| {
        !word.starts_with(stands_alone) && word.chars().nth(MIN_PREFIX_CHARS - 1).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_phrases_and_unwanted_ones_are_told_apart() {
        let asked = Asked::read("Red \"two words\" -blue well-known gre");
        let words: Vec<_> = asked.wanted.iter().map(|c| c.words.join(" ")).collect();
        assert_eq!(words, ["red", "two words", "well known", "gre"]);
        assert_eq!(asked.unwanted[0].words, ["blue"]);
        let prefixes: Vec<_> = asked.wanted.iter().map(|c| c.prefix).collect();
        assert_eq!(prefixes, [false, false, false, true]);
    }

    #[test]
    fn any_text_is_a_query() {
        for text in
            ["", "-", "--", "\"", "-\"", "\"\"", "- -", "a\"b", "+(:~^*?[TO", "\u{0}", "-é", "«"]
        {
            Asked::read(text);
        }
        assert!(Asked::read("  ").blank);
        assert!(!Asked::read("!").blank);
    }

    #[test]
    fn a_long_text_is_cut_at_characters_and_at_words() {
        assert_eq!(Asked::read(&"é ".repeat(10_000)).wanted.len(), MAX_WORDS);
        assert_eq!(Asked::read(&"日".repeat(10_000)).wanted[0].words.len(), MAX_WORDS);
    }
}
