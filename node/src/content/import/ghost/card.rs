//! The cards of Ghost's editors, old and new, as HTML: each by its name and its fields. One that is not known, or lives
//! in e-mails alone, is told and left out. What a card holds as HTML goes through the sanitiser like any other body.

use crate::content::render;
use serde_json::Value as Json;
use std::collections::BTreeSet;

/// HTML as it grows, and what could not become any.
#[derive(Default)]
pub(super) struct Page {
    pub html: String,
    pub left_out: BTreeSet<String>,
}

/// Names that a note tells.
const TOLD: usize = 10;

impl Page {
    pub fn text(&mut self, text: &str) {
        escape(&mut self.html, text);
    }

    pub fn raw(&mut self, html: &str) {
        self.html.push_str(html);
    }

    /// `<name attribute="...">`, without the attributes that have no value.
    pub fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.html.push('<');
        self.html.push_str(name);
        for (key, value) in attributes.iter().filter(|(_, value)| !value.is_empty()) {
            self.html.push(' ');
            self.html.push_str(key);
            self.html.push_str("=\"");
            escape(&mut self.html, value);
            self.html.push('"');
        }
        self.html.push('>');
    }

    pub fn close(&mut self, name: &str) {
        self.html.push_str("</");
        self.html.push_str(name);
        self.html.push('>');
    }

    pub fn leave_out(&mut self, name: &str) {
        if self.left_out.len() < TOLD {
            self.left_out.insert(name.chars().take(40).collect());
        }
    }

    /// A sentence for the report, if something was left out.
    pub fn note(&self) -> Option<String> {
        let names: Vec<&str> = self.left_out.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("holds cards that were left out: {}", names.join(", ")))
    }

    fn caption(&mut self, html: &str) {
        if !html.is_empty() {
            self.raw("<figcaption>");
            self.raw(html);
            self.raw("</figcaption>");
        }
    }

    fn link(&mut self, address: &str, text: &str) {
        if !address.is_empty() {
            self.open("a", &[("href", address)]);
            self.text(if text.is_empty() { address } else { text });
            self.close("a");
        }
    }

    fn paragraph(&mut self, html: &str) {
        if !html.trim().is_empty() {
            self.raw("<p>");
            self.raw(html);
            self.raw("</p>");
        }
    }
}

fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
    }
}

/// The first of these fields that has a text.
fn field<'a>(card: &'a Json, names: &[&str]) -> &'a str {
    names.iter().find_map(|name| card[*name].as_str().filter(|text| !text.is_empty())).unwrap_or("")
}

/// One card by its name, which the two editors write alike but for its strokes.
pub(super) fn put(page: &mut Page, name: &str, card: &Json) {
    let of = |names: &[&str]| field(card, names);
    match name.replace(['-', '_'], "").to_lowercase().as_str() {
        "image" => image(page, card),
        "hr" | "horizontalrule" => page.raw("<hr>"),
        "html" => page.raw(of(&["html"])),
        "markdown" | "cardmarkdown" => {
            page.raw(&render::to_html("markdown", of(&["markdown", "cardMarkdown"])));
        }
        "code" | "codeblock" => code(page, card),
        "callout" => {
            page.raw("<blockquote><p>");
            for part in [of(&["calloutEmoji", "emoji"]), " "] {
                page.text(part);
            }
            page.raw(of(&["calloutText", "text"]));
            page.raw("</p></blockquote>");
        }
        "bookmark" => bookmark(page, card),
        "embed" => embed(page, card),
        "gallery" => gallery(page, card),
        "toggle" => {
            page.raw("<details><summary>");
            page.raw(of(&["heading"]));
            page.raw("</summary>");
            page.raw(of(&["content"]));
            page.raw("</details>");
        }
        "button" => {
            page.raw("<p>");
            page.link(of(&["buttonUrl"]), of(&["buttonText"]));
            page.raw("</p>");
        }
        "video" | "audio" | "file" => {
            page.raw("<figure>");
            let title = of(&["fileTitle", "title", "fileName"]);
            page.link(of(&["src", "fileSrc"]), title);
            page.caption(of(&["caption", "fileCaption"]));
            page.raw("</figure>");
        }
        "header" => {
            page.raw("<h2>");
            page.raw(of(&["header", "heading"]));
            page.raw("</h2>");
            page.paragraph(of(&["subheader", "subheading"]));
            action(page, card);
        }
        "product" => {
            figure(page, of(&["productImageSrc"]), "", "");
            page.raw("<h4>");
            page.raw(of(&["productTitle"]));
            page.raw("</h4>");
            page.raw(of(&["productDescription"]));
            page.link(of(&["productUrl"]), of(&["productButton"]));
        }
        "calltoaction" => {
            figure(page, of(&["imageUrl"]), "", "");
            page.raw(of(&["textValue"]));
            action(page, card);
        }
        // Marks where what others pay for begins; nothing to read.
        "paywall" => {}
        _ => page.leave_out(name),
    }
    page.raw("\n");
}

fn action(page: &mut Page, card: &Json) {
    let address = field(card, &["buttonUrl"]);
    if !address.is_empty() {
        page.raw("<p>");
        page.link(address, field(card, &["buttonText"]));
        page.raw("</p>");
    }
}

fn figure(page: &mut Page, address: &str, alt: &str, title: &str) {
    if !address.is_empty() {
        page.open("img", &[("src", address), ("alt", alt), ("title", title)]);
    }
}

fn image(page: &mut Page, card: &Json) {
    let of = |names: &[&str]| field(card, names);
    let leads_to = of(&["href"]);
    page.raw("<figure>");
    if !leads_to.is_empty() {
        page.open("a", &[("href", leads_to)]);
    }
    figure(page, of(&["src", "url"]), of(&["alt", "altText"]), of(&["title"]));
    if !leads_to.is_empty() {
        page.close("a");
    }
    page.caption(of(&["caption"]));
    page.raw("</figure>");
}

fn code(page: &mut Page, card: &Json) {
    let language = field(card, &["language"]);
    let class = if language.is_empty() { String::new() } else { format!("language-{language}") };
    page.raw("<pre>");
    page.open("code", &[("class", &class)]);
    page.text(field(card, &["code"]));
    page.raw("</code></pre>");
    page.paragraph(field(card, &["caption"]));
}

fn bookmark(page: &mut Page, card: &Json) {
    let about = &card["metadata"];
    page.raw("<figure>");
    page.link(field(card, &["url"]), field(about, &["title"]));
    let description = field(about, &["description"]);
    if !description.is_empty() {
        page.raw("<blockquote><p>");
        page.text(description);
        page.raw("</p></blockquote>");
    }
    page.caption(field(card, &["caption"]));
    page.raw("</figure>");
}

/// The link alone: frames of other sites are not shown here.
fn embed(page: &mut Page, card: &Json) {
    page.raw("<figure>");
    page.link(field(card, &["url"]), field(&card["metadata"], &["title"]));
    page.caption(field(card, &["caption"]));
    page.raw("</figure>");
}

fn gallery(page: &mut Page, card: &Json) {
    page.raw("<figure>");
    for picture in card["images"].as_array().into_iter().flatten() {
        figure(
            page,
            field(picture, &["src"]),
            field(picture, &["alt"]),
            field(picture, &["title"]),
        );
    }
    page.caption(field(card, &["caption"]));
    page.raw("</figure>");
}
