//! The markup in a WordPress export: what is HTML with blank lines for paragraphs, and what is to be plain text.

/// The character that a reference stands for: `amp`, `#39`, `#x2014`. None for those that only a browser knows.
pub(super) fn character(name: &str) -> Option<char> {
    let number = match name {
        "amp" => return Some('&'),
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        "nbsp" => return Some('\u{a0}'),
        "hellip" => return Some('…'),
        name => name.strip_prefix('#')?,
    };
    let hex = number.strip_prefix(['x', 'X']).map(|digits| u32::from_str_radix(digits, 16).ok());
    let number = hex.unwrap_or_else(|| number.parse().ok())?;
    char::from_u32(number).filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

/// Percent signs resolved, where that gives text.
pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// Text without tags, its references resolved and its ends trimmed.
pub(super) fn plain(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        text.push_str(&rest[..at]);
        let tail = &rest[at..];
        let end = if tail.starts_with('<') { tail.find('>') } else { tail.find(';') };
        rest = match end {
            Some(end) if tail.starts_with('<') && begins_a_tag(tail) => {
                if tail.starts_with("<br") || tail.starts_with("</p") {
                    text.push('\n');
                }
                &tail[end + 1..]
            }
            Some(end)
                if end < 12 && tail.starts_with('&') && character(&tail[1..end]).is_some() =>
            {
                text.extend(character(&tail[1..end]));
                &tail[end + 1..]
            }
            _ => {
                text.push_str(&tail[..1]);
                &tail[1..]
            }
        };
    }
    text.push_str(rest);
    text.trim().to_owned()
}

fn begins_a_tag(tail: &str) -> bool {
    tail[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!'))
}

/// The HTML of a post: without the marks of its editor, and with paragraphs where there were only blank lines.
pub(super) fn body(content: &str) -> String {
    let html = without_marks(content);
    if html.contains("<p>") || html.contains("<p ") || html.trim().is_empty() {
        return html.trim().to_owned();
    }
    let text = html.replace("\r\n", "\n");
    let mut paragraphs = String::with_capacity(text.len() + 64);
    for part in text.split("\n\n").map(str::trim).filter(|part| !part.is_empty()) {
        if is_block(part) {
            paragraphs.push_str(part);
        } else {
            paragraphs.push_str("<p>");
            paragraphs.push_str(&part.replace('\n', "<br>\n"));
            paragraphs.push_str("</p>");
        }
        paragraphs.push_str("\n\n");
    }
    paragraphs.trim_end().to_owned()
}

fn is_block(part: &str) -> bool {
    const BLOCKS: &[&str] = &[
        "<h",
        "<ul",
        "<ol",
        "<li",
        "<pre",
        "<div",
        "<table",
        "<blockquote",
        "<figure",
        "<section",
        "</",
        "<hr",
        "<!--",
        "<details",
        "<dl",
        "<iframe",
    ];
    let start: String = part.chars().take(12).collect::<String>().to_ascii_lowercase();
    BLOCKS.iter().any(|block| start.starts_with(block))
}

/// The editor keeps its blocks apart by comments: `<!-- wp:paragraph {...} -->`.
fn without_marks(content: &str) -> String {
    let mut html = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.find("<!--") {
        let mark = &rest[at..];
        let inner = mark[4..].trim_start();
        let is_mark = inner.starts_with("wp:") || inner.starts_with("/wp:");
        html.push_str(&rest[..at]);
        match mark.find("-->") {
            Some(end) if is_mark => rest = mark[end + 3..].trim_start_matches(['\n', '\r']),
            _ => {
                html.push_str("<!--");
                rest = &mark[4..];
            }
        }
    }
    html.push_str(rest);
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_or_left() {
        assert_eq!(character("amp"), Some('&'));
        assert_eq!((character("#39"), character("#x2014")), (Some('\''), Some('—')));
        for odd in ["", "#", "#x", "#0", "#xd800", "#99999999999", "eacute"] {
            assert_eq!(character(odd), None, "{odd}");
        }
    }

    #[test]
    fn plain_text_has_no_tags() {
        assert_eq!(plain("<p>A &amp; <b>B</b><br/>C</p>"), "A & B\nC");
        assert_eq!(plain("1 < 2 & 3 > 2 &unknown; &"), "1 < 2 & 3 > 2 &unknown; &");
        assert_eq!(plain("ä <é &ü"), "ä <é &ü");
    }

    #[test]
    fn blank_lines_become_paragraphs_and_marks_go() {
        assert_eq!(body("One\ntwo\n\n<h2>Three</h2>"), "<p>One<br>\ntwo</p>\n\n<h2>Three</h2>");
        let gutenberg = "<!-- wp:paragraph {\"a\":1} -->\n<p>Hi</p>\n<!-- /wp:paragraph -->";
        assert_eq!(body(gutenberg), "<p>Hi</p>");
        assert_eq!(body("<!--more--> and <!-- open"), "<!--more--> and <!-- open");
    }

    #[test]
    fn percent_signs_are_resolved() {
        assert_eq!(unescaped("%d0%bc%d0%b8%d1%80"), "мир");
        assert_eq!(unescaped("100%-sure%zz"), "100%-sure%zz");
        assert_eq!(unescaped("%ff"), "%ff");
    }
}
