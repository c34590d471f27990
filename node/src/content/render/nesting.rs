//! How deep a body nests, bounded. A parser of HTML looks through all elements that are open at each tag, so a body of a
//! hundred thousand tags that never end would take it hours. Safety is the sanitiser's alone: what goes through here
//! goes through it afterwards.

use std::borrow::Cow;

/// Elements within elements; tags beyond are shown as text.
const MAX_DEPTH: usize = 256;
/// Bodies with fewer tags cost little however they nest, and are left as they are.
const FEW: usize = 2_000;

/// Elements that hold nothing.
const VOID: &[&str] = &["area", "br", "col", "hr", "img", "input", "wbr"];
/// Elements that may be left open where another one begins or the one around them ends.
const OPTIONAL: &[&str] =
    &["p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup", "rt", "rp"];
/// Elements of which nothing is shown.
const SILENT: &[&str] = &["script", "style"];

/// `is_known`: whether the sanitiser lets an element through; others lose their tags here already, and comments go.
pub(super) fn bounded(html: &str, is_known: impl Fn(&str) -> bool) -> Cow<'_, str> {
    if html.bytes().filter(|byte| *byte == b'<').count() <= FEW {
        return Cow::Borrowed(html);
    }
    let mut out = String::with_capacity(html.len());
    let mut open: Vec<String> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(tag) = Tag::read(rest) else {
            out.push_str("&lt;");
            rest = &rest[1..];
            continue;
        };
        let raw = &rest[..tag.bytes];
        rest = &rest[tag.bytes..];
        if SILENT.contains(&tag.name.as_str()) && !tag.ends {
            rest = behind(rest, &tag.name);
        } else if is_known(&tag.name) {
            keep(&tag, raw, &mut open, &mut out);
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn keep(tag: &Tag, raw: &str, open: &mut Vec<String>, out: &mut String) {
    let is_optional = |name: &str| OPTIONAL.contains(&name);
    if tag.ends {
        let left_open = open.iter().rev().take_while(|name| **name != tag.name);
        let count = left_open.clone().count();
        if count < open.len() && left_open.clone().all(|name| is_optional(name)) {
            open.truncate(open.len() - count - 1);
        }
        return out.push_str(raw);
    }
    if VOID.contains(&tag.name.as_str()) {
        return out.push_str(raw);
    }
    if is_optional(&tag.name) && open.last() == Some(&tag.name) {
        open.pop();
    }
    if open.len() >= MAX_DEPTH {
        out.push_str("&lt;");
        return out.push_str(&raw[1..]);
    }
    open.push(tag.name.clone());
    out.push_str(raw);
}

/// One tag, or what begins like one and is no element: a comment has an empty name.
struct Tag {
    name: String,
    ends: bool,
    bytes: usize,
}

impl Tag {
    /// `text` begins with `<`. None if that is no tag, or one that does not end.
    fn read(text: &str) -> Option<Self> {
        let inner = &text[1..];
        if inner.starts_with("!--") {
            let end = inner.find("-->").map_or(text.len(), |at| at + 4);
            return Some(Self { name: String::new(), ends: false, bytes: end });
        }
        if inner.starts_with(['!', '?']) {
            let bytes = text.find('>')? + 1;
            return Some(Self { name: String::new(), ends: false, bytes });
        }
        let (ends, inner) = inner.strip_prefix('/').map_or((false, inner), |rest| (true, rest));
        if !inner.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return None;
        }
        let name =
            inner.split(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).next()?;
        let from = 1 + usize::from(ends) + name.len();
        let bytes = from + end_of_attributes(&text[from..])?;
        Some(Self { name: name.to_ascii_lowercase(), ends, bytes })
    }
}

/// Behind the `>` that stands in no quoted value.
fn end_of_attributes(text: &str) -> Option<usize> {
    let (mut quote, mut is_value) = (None, false);
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), byte) => {
                if byte == open {
                    quote = None;
                }
            }
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') if is_value => {
                quote = Some(byte);
                is_value = false;
            }
            (None, b'=') => is_value = true,
            (None, byte) if byte.is_ascii_whitespace() => {}
            (None, _) => is_value = false,
        }
    }
    None
}

/// What follows the end of an element whose content is no HTML.
fn behind<'a>(text: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(at) = text[from..].find("</") {
        let end = from + at + 2;
        let is_it = text.as_bytes()[end..]
            .get(..name.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()));
        if is_it {
            return text[end..].find('>').map_or("", |at| &text[end + at + 1..]);
        }
        from = end;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(name: &str) -> bool {
        !name.is_empty() && name != "x"
    }

    #[test]
    fn a_body_with_few_tags_is_left_as_it_is() {
        let html = "<div>".repeat(1_000);
        assert!(matches!(bounded(&html, all), Cow::Borrowed(_)));
    }

    #[test]
    fn tags_beyond_the_depth_become_text() {
        let deep = bounded(&"<div>a".repeat(3_000), all).into_owned();
        assert_eq!(deep.matches("<div>").count(), MAX_DEPTH);
        assert_eq!(deep.matches("&lt;div>").count(), 3_000 - MAX_DEPTH);
    }

    #[test]
    fn a_long_body_that_is_well_made_does_not_change() {
        let row =
            "<tr><td>a<td title=\"</td>>\">b<br></tr><p>c<p>d<ul><li>e<li>f</ul><b><i>g</i></b>";
        let long = row.repeat(500);
        assert_eq!(bounded(&long, all), long);
    }

    #[test]
    fn what_is_no_tag_opens_and_ends_nothing() {
        let odd = "<div><!-- </div> --><div title='</div>'>1 < 2<script></div></script><x></div>";
        let html = bounded(&odd.repeat(1_000), all).into_owned();
        assert_eq!(html.matches("<div").count(), 1_000 + MAX_DEPTH - 1);
        for gone in ["<!--", "<script", "<x>"] {
            assert!(!html.contains(gone), "{gone}");
        }
        bounded(&"<".repeat(5_000), all);
        bounded(&"<a \"é".repeat(5_000), all);
        bounded(&"<script></é".repeat(5_000), all);
    }
}
