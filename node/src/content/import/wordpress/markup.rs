//! The markup in a WordPress export: what is HTML with blank lines for paragraphs, and what is to be plain text.

use super::super::entry::beginning;
use std::collections::BTreeSet;

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
        let end = near(tail, if tail.starts_with('<') { '>' } else { ';' });
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

/// What ends no sooner is no tag and no reference, and is not looked for to the end of a long text.
const NEAR_BYTES: usize = 2_000;

fn near(text: &str, end: char) -> Option<usize> {
    beginning(text, NEAR_BYTES).find(end)
}

fn begins_a_tag(tail: &str) -> bool {
    tail[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!'))
}

/// The HTML of a post: without the marks of its editor, and with paragraphs where there were only blank lines.
pub(super) fn body(content: &str) -> String {
    let html = without_marks(content);
    let has_paragraphs = html.contains("<p>") || html.contains("<p ");
    if is_of_blocks(content) || has_paragraphs || html.trim().is_empty() {
        return html.trim().to_owned();
    }
    let mut out = String::with_capacity(html.len() + 64);
    paragraphs(&mut out, &html.replace("\r\n", "\n"), 0);
    out.trim_end().to_owned()
}

/// What the newer editor wrote has its paragraphs already.
fn is_of_blocks(content: &str) -> bool {
    content.contains("<!-- wp:")
}

const BLOCKS: &[&str] = &[
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "dl",
    "pre",
    "div",
    "table",
    "blockquote",
    "figure",
    "section",
    "article",
    "aside",
    "header",
    "footer",
    "details",
    "form",
    "iframe",
    "script",
    "style",
    "address",
    "hr",
];
/// Within these, too, blank lines stand for paragraphs.
const AROUND: &[&str] = &["div", "blockquote", "section", "article", "aside"];
const MAX_NESTED: usize = 16;

/// Blocks stay as they are; what stands between them becomes paragraphs.
fn paragraphs(out: &mut String, html: &str, depth: usize) {
    let (mut from, mut at) = (0, 0);
    while let Some(found) = html[at..].find('<') {
        let start = at + found;
        let Some((name, end)) = block(html, start) else {
            at = start + 1;
            continue;
        };
        text(out, &html[from..start]);
        let element = &html[start..end];
        let opening = element.find('>').map_or(element.len(), |at| at + 1);
        let closing = element.rfind("</").unwrap_or(element.len()).max(opening);
        let inner = &element[opening..closing];
        if depth < MAX_NESTED && AROUND.contains(&name) && inner.contains("\n\n") {
            out.push_str(&element[..opening]);
            out.push('\n');
            paragraphs(out, inner, depth + 1);
            out.push_str(element[closing..].trim_end());
        } else {
            out.push_str(element);
        }
        out.push_str("\n\n");
        (from, at) = (end, end);
    }
    text(out, &html[from..]);
}

fn text(out: &mut String, html: &str) {
    for part in html.split("\n\n").map(str::trim).filter(|part| !part.is_empty()) {
        if part.starts_with("<!--") && part.find("-->") == Some(part.len() - 3) {
            out.push_str(part);
        } else {
            out.push_str("<p>");
            out.push_str(&part.replace('\n', "<br>\n"));
            out.push_str("</p>");
        }
        out.push_str("\n\n");
    }
}

/// The block that begins here, and where it ends: with the text if nothing closes it.
fn block(html: &str, start: usize) -> Option<(&'static str, usize)> {
    let tail = &html[start..];
    let name = BLOCKS.iter().find(|name| opens(tail, name))?;
    if *name == "hr" {
        return Some((name, start + near(tail, '>')? + 1));
    }
    let (mut depth, mut at) = (1_usize, start + 1);
    while let Some(found) = html[at..].find('<') {
        at += found;
        let tail = &html[at..];
        if opens(tail, name) {
            depth += 1;
        } else if tail.strip_prefix("</").is_some_and(|tail| begins(tail, name)) {
            depth -= 1;
            if depth == 0 {
                return Some((name, tail.find('>').map_or(html.len(), |end| at + end + 1)));
            }
        }
        at += 1;
    }
    Some((name, html.len()))
}

fn opens(tail: &str, name: &str) -> bool {
    tail.strip_prefix('<').is_some_and(|tail| begins(tail, name))
}

fn begins(tail: &str, name: &str) -> bool {
    let is_named = tail.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name));
    is_named && !tail[name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '-')
}

/// What WordPress would have put something in the place of, and what it makes anew at each view.
pub(super) fn notes(content: &str) -> Vec<String> {
    let codes = names(content, "[", |rest, name| {
        let end = rest[name.len()..].chars().next();
        let closes = |tail: &str| near(tail, ']').is_some_and(|at| !tail[..at].contains('\n'));
        KNOWN_CODES.contains(&name) && matches!(end, Some(' ' | ']')) && closes(rest)
    });
    let blocks = names(content, "<!-- wp:", |rest, _| {
        let rest = beginning(rest, NEAR_BYTES);
        rest.find("-->").is_some_and(|end| rest[..end].trim_end().ends_with('/'))
    });
    let told = |names: BTreeSet<String>, what: &str| {
        let names: Vec<String> = names.into_iter().collect();
        (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
    };
    let codes = told(codes, "holds shortcodes, which stay as they are");
    let blocks = told(blocks, "holds blocks without a text of their own, which are left out");
    codes.into_iter().chain(blocks).collect()
}

/// Shortcodes that WordPress itself and its common plugins have: other words in brackets are words.
const KNOWN_CODES: &[&str] = &[
    "audio",
    "caption",
    "wp_caption",
    "embed",
    "gallery",
    "playlist",
    "video",
    "contact-form-7",
    "contact-form",
    "et_pb_section",
    "vc_row",
    "fusion_builder_container",
    "youtube",
    "vimeo",
    "tweet",
    "code",
    "sourcecode",
    "button",
    "columns",
    "tabs",
    "toggle",
    "woocommerce_cart",
    "products",
    "gravityform",
    "wpforms",
    "ninja_form",
    "tablepress",
    "slideshow",
    "googlemaps",
    "instagram",
    "soundcloud",
];

fn names(content: &str, opening: &str, is_wanted: impl Fn(&str, &str) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in content.match_indices(opening) {
        let rest = &content[at + opening.len()..];
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/')))
            .unwrap_or(rest.len());
        let name = &rest[..length];
        if length <= 60 && found.len() < 10 && is_wanted(rest, name) {
            found.insert(name.to_owned());
        }
    }
    found
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
            Some(end) => {
                html.push_str(&mark[..end + 3]);
                rest = &mark[end + 3..];
            }
            // Nor does any other end.
            None => {
                rest = mark;
                break;
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
        assert_eq!(body("<!--more--> and <!-- open"), "<p><!--more--> and <!-- open</p>");
    }

    #[test]
    fn blocks_keep_their_blank_lines() {
        let pre = "Text\n<pre>a\n\nb</pre>\nmore";
        assert_eq!(body(pre), "<p>Text</p>\n\n<pre>a\n\nb</pre>\n\n<p>more</p>");
        let nested = "<div>one\n\n<div>two</div></div>\n\nthree";
        assert_eq!(body(nested), "<div>\n<p>one</p>\n\n<div>two</div>\n\n</div>\n\n<p>three</p>");
        assert_eq!(body("a\n\n<ul>\n\n<li>b"), "<p>a</p>\n\n<ul>\n\n<li>b");
        assert_eq!(body("a<hr/>b <header-x> <hr"), "<p>a</p>\n\n<hr/>\n\n<p>b <header-x> <hr</p>");
        let code = "<!-- wp:code -->\n<pre><code>a\n\nb</code></pre>\n<!-- /wp:code -->";
        assert_eq!(body(code), "<pre><code>a\n\nb</code></pre>");
        assert!(body(&"<div>\n\n".repeat(10_000)).len() > 50_000);
    }

    #[test]
    fn what_wordpress_would_have_made_is_told() {
        let content = "[caption id=\"a\"]x[/caption] [see note] [gallery] a[0]\n<!-- wp:latest-posts {\"n\":1} /-->";
        let notes = notes(content);
        assert!(
            notes[0].ends_with("caption, gallery") && notes[1].ends_with("latest-posts"),
            "{notes:?}"
        );
    }

    #[test]
    fn percent_signs_are_resolved() {
        assert_eq!(unescaped("%d0%bc%d0%b8%d1%80"), "мир");
        assert_eq!(unescaped("100%-sure%zz"), "100%-sure%zz");
        assert_eq!(unescaped("%ff"), "%ff");
    }
}
