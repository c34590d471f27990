//! Bodies as people read them: Markdown to HTML, sanitised; excerpts; reading time. Never gives out HTML that did
//! not go through the sanitiser, whoever wrote it.

mod nesting;

use crate::error::Result;
use crate::runtime::Node;
use ammonia::Builder;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::HashSet;
use std::sync::LazyLock;

/// Raised whenever the same text comes out otherwise: what was kept under the old number is not found any more.
const RENDERER: u8 = 2;
/// Before the names of places in a body, so that none of them is one of the page's own.
const PLACES: &str = "in-";
const WORDS_A_MINUTE: usize = 220;
/// Characters of an excerpt that nobody wrote.
const EXCERPT_MAX: usize = 280;

static SANITISER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut builder = Builder::default();
    builder
        .add_tags(["input"])
        .add_tag_attributes("code", ["class"])
        .add_tag_attributes("sup", ["class"])
        .add_tag_attributes("div", ["class", "id"])
        .id_prefix(Some(PLACES))
        .add_tag_attributes("input", ["checked", "disabled"])
        .add_tag_attribute_values("input", "type", ["checkbox"])
        .set_tag_attribute_value("input", "disabled", "")
        .attribute_filter(|element, attribute, value| match (element, attribute) {
            // Only what names a language, as fenced code does.
            ("code", "class") => value.starts_with("language-").then(|| value.into()),
            // Notes at the foot, and the links to them.
            ("sup" | "div", "class") => value.starts_with("footnote-").then(|| value.into()),
            ("a", "href") => Some(match value.strip_prefix('#') {
                Some(place) if !place.is_empty() => format!("#{PLACES}{place}").into(),
                _ => value.into(),
            }),
            _ => Some(value.into()),
        })
        .url_schemes(HashSet::from(["http", "https", "mailto", "tel"]))
        .link_rel(Some("noopener noreferrer"));
    builder
});

fn options() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES
}

/// A body in `format` (`markdown` or `html`) as HTML that is safe to show.
pub fn to_html(format: &str, body: &str) -> String {
    if format == "html" {
        return clean(body);
    }
    let mut html = String::with_capacity(body.len() * 5 / 4);
    pulldown_cmark::html::push_html(&mut html, Parser::new_ext(body, options()));
    clean(&html)
}

fn clean(html: &str) -> String {
    static TAGS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| SANITISER.clone_tags());
    SANITISER.clean(&nesting::bounded(html, |name| TAGS.contains(name))).to_string()
}

/// As [`to_html`], kept in the node's cache and made on its pool.
pub async fn html(node: &Node, format: &str, body: String) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[RENDERER, u8::from(format == "html")]);
    hasher.update(body.as_bytes());
    let key = *hasher.finalize().as_bytes();
    if let Some(kept) = node
        .cache
        .get(SPACE, &key, node.clock.now_ms())
        .and_then(|bytes| String::from_utf8(bytes).ok())
    {
        return Ok(kept);
    }
    let format = format.to_owned();
    let html = node.run_on_pool(move || to_html(&format, &body)).await?;
    node.cache.put(SPACE, &key, html.as_bytes(), None, node.clock.now_ms());
    Ok(html)
}

/// The part of the cache that holds rendered bodies.
const SPACE: &str = "html";

/// At least one minute for whoever reads anything at all.
pub fn reading_minutes(body: &str) -> usize {
    body.split_whitespace().count().div_ceil(WORDS_A_MINUTE)
}

/// The first words of a body without its markup.
pub fn excerpt(format: &str, body: &str) -> String {
    if format == "html" {
        let text = Builder::empty().clean(clip(body, 64 * EXCERPT_MAX)).to_string();
        // An excerpt is plain text: whoever puts it into a page escapes it.
        return first_words(&unescaped(&text));
    }
    let mut text = String::new();
    let mut in_heading = false;
    for event in Parser::new_ext(clip(body, 64 * EXCERPT_MAX), options()) {
        match event {
            Event::Start(Tag::Heading { .. } | Tag::CodeBlock(_)) => in_heading = true,
            Event::End(TagEnd::Heading(_) | TagEnd::CodeBlock) => in_heading = false,
            Event::Text(part) | Event::Code(part) if !in_heading => text.push_str(&part),
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            Event::End(end) if !is_inline(end) => text.push(' '),
            _ => {}
        }
        if text.len() > 8 * EXCERPT_MAX {
            break;
        }
    }
    first_words(&text)
}

/// Longer bodies are searched as they were written: reading them costs too much for a list of hits.
const PLAIN_MAX: usize = 64 << 10;

/// The words of a body without its markup, for snippets; not for showing as HTML.
pub fn plain(format: &str, body: &str) -> String {
    if body.len() > PLAIN_MAX {
        return body.to_owned();
    }
    if format == "html" {
        return unescaped(
            &Builder::empty().clean(&nesting::bounded(body, |name| !name.is_empty())).to_string(),
        );
    }
    let mut text = String::with_capacity(body.len());
    for event in Parser::new_ext(body, options()) {
        match event {
            Event::Text(part) | Event::Code(part) => text.push_str(&part),
            Event::Html(part) => {
                text.push_str(&unescaped(&Builder::empty().clean(&part).to_string()));
            }
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            Event::End(end) if !is_inline(end) => text.push('\n'),
            _ => {}
        }
    }
    text
}

/// What the sanitiser escapes in plain text.
fn unescaped(text: &str) -> String {
    let text = text.replace("&nbsp;", " ").replace("&lt;", "<").replace("&gt;", ">");
    text.replace("&amp;", "&")
}

fn is_inline(end: TagEnd) -> bool {
    matches!(
        end,
        TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough | TagEnd::Link | TagEnd::Image
    )
}

/// The longest head of at most `max` bytes that ends at a character.
fn clip(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn first_words(text: &str) -> String {
    let mut excerpt = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count() + usize::from(length > 0);
        if length + width > EXCERPT_MAX {
            excerpt.push('…');
            return excerpt;
        }
        if length > 0 {
            excerpt.push(' ');
        }
        excerpt.push_str(word);
        length += width;
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_html() {
        let html = to_html(
            "markdown",
            "# Hello\n\n- [x] done\n\n```rust\nfn a() {}\n```\n\n| a |\n|---|\n| b |\n",
        );
        assert!(html.contains("<h1>Hello</h1>"), "{html}");
        assert!(html.contains("<code class=\"language-rust\">"), "{html}");
        assert!(html.contains("<td>b</td>"), "{html}");
        assert!(html.contains("type=\"checkbox\""), "{html}");
    }

    #[test]
    fn what_could_run_in_a_browser_is_taken_out() {
        let hostile = [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[a](javascript:alert(1))",
            "<a href=\"data:text/html;base64,PHNjcmlwdD4=\">a</a>",
            "<svg onload=alert(1)>",
            "<iframe src=\"https://example.org\"></iframe>",
            "<input type=\"image\" src=\"x\" onerror=\"alert(1)\">",
            "<code class=\"x\" style=\"position:fixed\">a</code>",
            "<form action=\"https://example.org\"><button>a</button></form>",
        ];
        for text in hostile {
            for format in ["markdown", "html"] {
                let html = to_html(format, text).to_lowercase();
                for bad in [
                    "<script",
                    "onerror=",
                    "\"javascript:",
                    "\"data:",
                    "onload=",
                    "<iframe",
                    "style=",
                    "class=",
                    "<form",
                ] {
                    assert!(!html.contains(bad), "{text}: {html}");
                }
            }
        }
    }

    /// What took hours: each tag was looked for among all that were open.
    #[test]
    fn a_body_that_nests_without_end_is_rendered_at_once() {
        for part in ["<div>", "<a><i>", "<table><tr><td>", "<p><b title=\"1\">", "<b>", "> ", "- "]
        {
            let body = part.repeat(1_000_000 / part.len());
            for format in ["html", "markdown"] {
                let started = std::time::Instant::now();
                let html = to_html(format, &body);
                assert!(started.elapsed().as_secs() < 20, "{part} as {format}");
                assert!(html.len() < 64 << 20, "{part} as {format}");
            }
        }
    }

    #[test]
    fn notes_are_linked_and_no_name_is_one_of_the_page() {
        let html = to_html("markdown", "Text[^main].\n\n[^main]: The note.\n");
        assert!(html.contains("href=\"#in-main\""), "{html}");
        assert!(html.contains("id=\"in-main\""), "{html}");
        assert!(html.contains("class=\"footnote-definition\""), "{html}");
        let html = to_html("html", "<div id=\"main\" class=\"site\">a</div>");
        assert_eq!(html, "<div id=\"in-main\">a</div>");
    }

    #[test]
    fn an_excerpt_has_no_markup_and_ends_at_a_word() {
        let body = format!(
            "# Title\n\nSome *fine* `code` and [a link](https://example.org). {}",
            "word ".repeat(200)
        );
        let short = excerpt("markdown", &body);
        assert!(short.starts_with("Some fine code and a link. word"), "{short}");
        assert!(short.ends_with("word…") && short.chars().count() <= EXCERPT_MAX + 1);
        assert_eq!(excerpt("html", "<p>One</p> <b>two</b>"), "One two");
        assert_eq!(plain("markdown", "# A *b*\n\n`c` [d](e)"), "A b\nc d\n");
        assert_eq!(plain("markdown", "<div>a &lt; b</div>"), "a < b\n");
        assert_eq!(plain("html", "<p>1 &lt; 2</p>"), "1 < 2");
        assert_eq!(excerpt("markdown", ""), "");
    }

    #[test]
    fn reading_takes_a_minute_at_least() {
        assert_eq!(reading_minutes(""), 0);
        assert_eq!(reading_minutes("word"), 1);
        assert_eq!(reading_minutes(&"word ".repeat(221)), 2);
    }
}
