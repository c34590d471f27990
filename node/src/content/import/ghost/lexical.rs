//! A body as Ghost's newer editor keeps it (Lexical), as HTML. Nested no deeper than its JSON may be; what is not known
//! is told and left out, but never the text that stands in it.

use super::card::{self, Page};
use serde_json::Value as Json;

/// Bits of a text's format, and the elements they are.
const FORMATS: [(u64, &str); 8] = [
    (1, "strong"),
    (2, "em"),
    (4, "s"),
    (8, "u"),
    (16, "code"),
    (32, "sub"),
    (64, "sup"),
    (128, "mark"),
];

/// # Errors
/// What is wrong with it, if it is no such body.
pub(super) fn page(text: &str) -> Result<Page, String> {
    let body: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let root = body["root"]["children"].as_array().ok_or("it has no root")?;
    let mut page = Page::default();
    root.iter().for_each(|node| put(&mut page, node));
    Ok(page)
}

fn children(page: &mut Page, node: &Json) {
    node["children"].as_array().into_iter().flatten().for_each(|child| put(page, child));
}

fn around(page: &mut Page, name: &str, node: &Json) {
    page.open(name, &[]);
    children(page, node);
    page.close(name);
}

fn put(page: &mut Page, node: &Json) {
    let of = |name: &str| node[name].as_str().unwrap_or_default();
    let kind = of("type");
    match kind.strip_prefix("extended-").unwrap_or(kind) {
        "text" | "tk" => text(page, node),
        "linebreak" => page.raw("<br>"),
        "tab" => page.raw("\t"),
        "link" | "autolink" | "at-link" => {
            page.open("a", &[("href", of("url")), ("title", of("title"))]);
            children(page, node);
            page.close("a");
        }
        "paragraph" => block(page, "p", node),
        "heading" => match of("tag") {
            tag @ ("h1" | "h2" | "h3" | "h4" | "h5" | "h6") => block(page, tag, node),
            _ => block(page, "h2", node),
        },
        "quote" | "aside" => {
            page.raw("<blockquote>");
            block(page, "p", node);
            page.raw("</blockquote>\n");
        }
        "list" => {
            let is_numbered = of("listType") == "number" || of("tag") == "ol";
            let start = node["start"].as_u64().filter(|start| is_numbered && *start > 1);
            let start = start.map(|start| start.to_string()).unwrap_or_default();
            let name = if is_numbered { "ol" } else { "ul" };
            page.open(name, &[("start", &start)]);
            children(page, node);
            page.close(name);
            page.raw("\n");
        }
        "listitem" => around(page, "li", node),
        // What only stands around others.
        "root" | "at-link-search" | "zwnj" => children(page, node),
        name => {
            card::put(page, name, node);
            if page.left_out.contains(name) {
                children(page, node);
            }
        }
    }
}

fn block(page: &mut Page, name: &str, node: &Json) {
    let before = page.html.len();
    around(page, name, node);
    // An empty paragraph is what stands at the end of every post.
    if page.html.len() == before + name.len() * 2 + 5 {
        page.html.truncate(before);
    } else {
        page.raw("\n");
    }
}

fn text(page: &mut Page, node: &Json) {
    let format = node["format"].as_u64().unwrap_or(0);
    let names: Vec<&str> =
        FORMATS.iter().filter(|(bit, _)| format & bit != 0).map(|(_, name)| *name).collect();
    names.iter().for_each(|name| page.open(name, &[]));
    page.text(node["text"].as_str().unwrap_or_default());
    names.iter().rev().for_each(|name| page.close(name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn html(nodes: &Json) -> (String, Option<String>) {
        let page = page(&json!({ "root": { "children": nodes } }).to_string()).unwrap();
        (page.html.trim_end().to_owned(), page.note())
    }

    #[test]
    fn texts_links_and_lists_become_html() {
        let nodes = json!([
            { "type": "heading", "tag": "h3", "children": [{ "type": "text", "text": "A & <b>" }] },
            { "type": "paragraph", "children": [
                { "type": "extended-text", "format": 3, "text": "bold" },
                { "type": "linebreak" },
                { "type": "link", "url": "https://x.org/?a=1&b=\"", "children": [{ "type": "text", "text": "x" }] },
            ] },
            { "type": "paragraph", "children": [] },
            { "type": "list", "listType": "number", "start": 3, "children": [
                { "type": "listitem", "children": [{ "type": "text", "format": 16, "text": "1 < 2" }] },
            ] },
            { "type": "extended-quote", "children": [{ "type": "text", "text": "q" }] },
        ]);
        let wanted = "<h3>A &amp; &lt;b&gt;</h3>\n<p><strong><em>bold</em></strong><br>\
                      <a href=\"https://x.org/?a=1&amp;b=&quot;\">x</a></p>\n\
                      <ol start=\"3\"><li><code>1 &lt; 2</code></li></ol>\n<blockquote><p>q</p>\n</blockquote>";
        assert_eq!(html(&nodes), (wanted.to_owned(), None));
    }

    #[test]
    fn cards_become_html_and_those_that_are_not_known_are_told() {
        let nodes = json!([
            { "type": "image", "src": "/a.png", "alt": "\"a\"", "caption": "<em>c</em>" },
            { "type": "codeblock", "language": "rust", "code": "a < b" },
            { "type": "markdown", "markdown": "**m**" },
            { "type": "html", "html": "<b>h</b>" },
            { "type": "callout", "calloutEmoji": "💡", "calloutText": "<p>t</p>" },
            { "type": "bookmark", "url": "https://x.org", "metadata": { "title": "X", "description": "d" } },
            { "type": "embed", "url": "https://y.org", "html": "<iframe></iframe>" },
            { "type": "gallery", "images": [{ "src": "1.png" }, { "src": "2.png" }] },
            { "type": "horizontalrule" },
            { "type": "of-tomorrow", "children": [{ "type": "text", "text": "kept" }] },
            { "type": "email", "html": "<p>mail</p>" },
        ]);
        let (html, note) = html(&nodes);
        for wanted in [
            "<img src=\"/a.png\" alt=\"&quot;a&quot;\"><figcaption><em>c</em></figcaption>",
            "<pre><code class=\"language-rust\">a &lt; b</code></pre>",
            "<strong>m</strong>",
            "<b>h</b>",
            "💡",
            "<a href=\"https://x.org\">X</a>",
            "<a href=\"https://y.org\">https://y.org</a>",
            "<img src=\"1.png\"><img src=\"2.png\">",
            "<hr>",
            "kept",
        ] {
            assert!(html.contains(wanted), "{wanted} in {html}");
        }
        assert!(!html.contains("mail") && !html.contains("iframe"), "{html}");
        assert!(note.is_some_and(|note| note.ends_with("email, of-tomorrow")));
    }

    #[test]
    fn what_is_no_body_is_told() {
        for odd in ["", "{}", "[1]", "{\"root\":1}", &"[".repeat(100_000)] {
            assert!(page(odd).is_err());
        }
        let deep = format!(
            "{{\"root\":{{\"children\":[{}]}}}}",
            "{\"children\":[".repeat(1_000) + &"]}".repeat(1_000)
        );
        assert!(page(&deep).is_err());
        assert!(
            page("{\"root\":{\"children\":[1,null,[],{\"type\":\"text\",\"text\":2}]}}").is_ok()
        );
    }
}
