//! The part of a text that shows why it was found. Everything but the marks is escaped: the text is never trusted.

use super::find::typos_allowed;
use super::text::{Asked, Clause};
use super::words::{Word, clip, words};

const MAX_TEXT_BYTES: usize = 64 << 10;
const MAX_WORDS: usize = 20_000;
const WINDOW_BYTES: usize = 240;
const LEAD_BYTES: usize = 60;

/// HTML of at most some 300 characters of `text`, hits within `<mark>`.
pub fn snippet(query: &str, text: &str) -> String {
    let text = clip(text, MAX_TEXT_BYTES);
    let found = words(text, MAX_WORDS);
    let asked = Asked::read(query);
    let mut hits = hits(&asked.wanted, &found, is_hit);
    if hits.is_empty() {
        hits = self::hits(&asked.wanted, &found, is_near);
    }
    let (from, to) = window(text, &found, &hits);
    render(text, from, to, hits.iter().map(|(_, word)| *word))
}

/// Words of the text that answer one of the query, with the number of that one.
fn hits<'a>(
    wanted: &[Clause],
    found: &'a [Word],
    answers: fn(&str, &str, bool) -> bool,
) -> Vec<(usize, &'a Word)> {
    let asked: Vec<(&str, bool)> = wanted
        .iter()
        .flat_map(|c| {
            c.words
                .iter()
                .enumerate()
                .map(|(i, w)| (w.as_str(), c.prefix && i + 1 == c.words.len()))
        })
        .collect();
    let number =
        |word: &Word| asked.iter().position(|(text, prefix)| answers(text, &word.text, *prefix));
    found.iter().filter_map(|word| Some((number(word)?, word))).collect()
}

fn is_hit(asked: &str, word: &str, prefix: bool) -> bool {
    word == asked || (prefix && word.starts_with(asked))
}

fn is_near(asked: &str, word: &str, prefix: bool) -> bool {
    let limit = usize::from(typos_allowed(asked));
    limit > 0 && distance(asked, word, prefix) <= limit
}

/// How many letters must change, two swapped neighbours counting as one; of a prefix, up to its best place to end.
fn distance(asked: &str, word: &str, prefix: bool) -> usize {
    let (asked, word): (Vec<char>, Vec<char>) = (asked.chars().collect(), word.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (i, a) in asked.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, w) in word.iter().enumerate() {
            let mut best = (row[j] + usize::from(a != w)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == word[j - 1] && asked[i - 1] == *w {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    let whole = row.last().copied().unwrap_or(asked.len());
    if prefix { row.iter().copied().min().unwrap_or(whole) } else { whole }
}

/// The stretch of text with the most different words of the query, with a little before it.
fn window(text: &str, found: &[Word], hits: &[(usize, &Word)]) -> (usize, usize) {
    let mut best = (0, 0, 0);
    for (i, (_, first)) in hits.iter().enumerate().take(500) {
        let near = hits[i..].iter().take_while(|(_, word)| word.to <= first.from + WINDOW_BYTES);
        let (mut seen, mut count) = (0_u64, 0);
        for (number, _) in near {
            seen |= 1 << (number % 64);
            count += 1;
        }
        let different = seen.count_ones();
        if (different, count) > (best.0, best.1) {
            best = (different, count, first.from);
        }
    }
    let from = start_of_word(found, best.2.saturating_sub(LEAD_BYTES), best.2);
    (from, end_of_word(text, found, from))
}

fn start_of_word(found: &[Word], at_least: usize, at_most: usize) -> usize {
    if at_least == 0 {
        return 0;
    }
    let at = found.partition_point(|word| word.from < at_least);
    found.get(at).map_or(at_most, |word| word.from.min(at_most))
}

fn end_of_word(text: &str, found: &[Word], from: usize) -> usize {
    let limit = from + LEAD_BYTES + WINDOW_BYTES;
    if limit >= text.len() {
        return text.len();
    }
    let last = found[..found.partition_point(|word| word.to <= limit)].last();
    last.map_or(0, |word| word.to).max(from + clip(&text[from..], LEAD_BYTES).len())
}

fn render<'a>(text: &str, from: usize, to: usize, hits: impl Iterator<Item = &'a Word>) -> String {
    let mut html = String::with_capacity((to - from) * 2);
    if from > 0 {
        html.push('…');
    }
    let (mut at, mut open) = (from, false);
    for word in hits.filter(|word| word.from >= from && word.to <= to) {
        if word.from > at || !open {
            close(&mut html, &mut open);
            escape(&text[at..word.from], &mut html);
            html.push_str("<mark>");
            open = true;
        }
        escape(&text[word.from..word.to], &mut html);
        at = word.to;
    }
    close(&mut html, &mut open);
    escape(&text[at..to], &mut html);
    if to < text.len() {
        html.push('…');
    }
    html
}

fn close(html: &mut String, open: &mut bool) {
    if std::mem::take(open) {
        html.push_str("</mark>");
    }
}

fn escape(text: &str, html: &mut String) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_marked_and_all_else_is_escaped() {
        let html = snippet("café scri", "A <b>Cafe\u{301}</b> & <script>alert('1')</script>");
        assert_eq!(
            html,
            "A &lt;b&gt;<mark>Cafe\u{301}</mark>&lt;/b&gt; &amp; &lt;<mark>script</mark>&gt;alert(&#39;1&#39;)\
             &lt;/<mark>script</mark>&gt;"
        );
    }

    #[test]
    fn the_best_part_of_a_long_text_is_shown() {
        let text = format!(
            "needle {} needle in the haystack {}",
            "padding ".repeat(500),
            "more ".repeat(500)
        );
        let html = snippet("haystack needle", &text);
        assert!(html.contains("<mark>needle</mark> in the <mark>haystack</mark>"), "{html}");
        assert!(html.starts_with('…') && html.ends_with('…') && html.len() < 450, "{html}");
    }

    #[test]
    fn typed_wrong_is_marked_where_nothing_fits_exactly() {
        assert_eq!(snippet("sceince fair", "Science"), "<mark>Science</mark>");
        assert_eq!(snippet("東京", "私は東京にいる"), "私は<mark>東京</mark>にいる");
        assert_eq!(distance("abcd", "abdc", false), 1);
        assert_eq!(distance("univresit", "university", true), 1);
    }

    #[test]
    fn any_text_gives_a_snippet() {
        for text in
            ["", "é", "\u{0}<", &"ß".repeat(90_000), &"日本 ".repeat(30_000), &" ".repeat(70_000)]
        {
            for query in ["", "\"", "日", "s", "-x", "ß ß"] {
                snippet(query, text);
            }
        }
    }
}
