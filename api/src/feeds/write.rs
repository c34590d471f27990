//! The three forms of a feed: RSS 2.0, Atom, JSON Feed 1.1. The same posts make the same bytes.

use super::entry::Entry;
use super::xml::Xml;
use crate::moment::Moment;
use serde_json::{Map, Value, json};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Rss,
    Atom,
    Json,
}

impl Form {
    /// Of the last part of a path.
    pub fn of(file: &str) -> Self {
        match file {
            "atom.xml" => Self::Atom,
            "feed.json" => Self::Json,
            _ => Self::Rss,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Rss => "application/rss+xml; charset=utf-8",
            Self::Atom => "application/atom+xml; charset=utf-8",
            Self::Json => "application/feed+json; charset=utf-8",
        }
    }
}

/// What stands above the entries.
pub(super) struct Head {
    pub title: String,
    /// Of the site.
    pub name: String,
    pub home: String,
    /// Of the feed itself.
    pub url: String,
    pub modified_ms: i64,
}

pub(super) fn write(form: Form, head: &Head, entries: &[Entry]) -> String {
    match form {
        Form::Rss => rss(head, entries),
        Form::Atom => atom(head, entries),
        Form::Json => json_feed(head, entries),
    }
}

fn urn(entry: &Entry) -> String {
    format!("urn:uuid:{}", entry.id)
}

fn rss(head: &Head, entries: &[Entry]) -> String {
    let mut xml = Xml::new();
    let spaces = [
        ("version", "2.0"),
        ("xmlns:atom", "http://www.w3.org/2005/Atom"),
        ("xmlns:content", "http://purl.org/rss/1.0/modules/content/"),
        ("xmlns:dc", "http://purl.org/dc/elements/1.1/"),
    ];
    let own = [("href", head.url.as_str()), ("rel", "self"), ("type", "application/rss+xml")];
    xml.open("rss", &spaces)
        .open("channel", &[])
        .text("title", &head.title)
        .text("link", &head.home)
        .text("description", &head.title)
        .empty("atom:link", &own)
        .text("lastBuildDate", &Moment(head.modified_ms).http_date())
        .text("generator", "Atoll");
    for entry in entries {
        xml.open("item", &[])
            .text("title", &entry.title)
            .text("link", &entry.url)
            .text_with("guid", &[("isPermaLink", "false")], &urn(entry))
            .text("pubDate", &Moment(entry.published_ms).http_date())
            .text("description", &entry.excerpt);
        for author in &entry.authors {
            xml.text("dc:creator", author);
        }
        for label in &entry.labels {
            xml.text("category", label);
        }
        if let Some(html) = &entry.html {
            xml.text("content:encoded", html);
        }
        xml.close("item");
    }
    xml.close("channel").close("rss");
    xml.into_string()
}

fn atom(head: &Head, entries: &[Entry]) -> String {
    let mut xml = Xml::new();
    let own = [("rel", "self"), ("type", "application/atom+xml"), ("href", head.url.as_str())];
    xml.open("feed", &[("xmlns", "http://www.w3.org/2005/Atom")])
        .text("id", &head.url)
        .text("title", &head.title)
        .text("updated", &Moment(head.modified_ms).to_string())
        .empty("link", &own)
        .empty("link", &[("rel", "alternate"), ("href", head.home.as_str())])
        .open("author", &[])
        .text("name", &head.name)
        .close("author")
        .text("generator", "Atoll");
    for entry in entries {
        xml.open("entry", &[])
            .text("id", &urn(entry))
            .text("title", &entry.title)
            .text("published", &Moment(entry.published_ms).to_string())
            .text("updated", &Moment(entry.modified_ms).to_string())
            .empty("link", &[("rel", "alternate"), ("href", entry.url.as_str())]);
        for author in &entry.authors {
            xml.open("author", &[]).text("name", author).close("author");
        }
        for label in &entry.labels {
            xml.empty("category", &[("term", label.as_str())]);
        }
        xml.text("summary", &entry.excerpt);
        if let Some(html) = &entry.html {
            xml.text_with("content", &[("type", "html")], html);
        }
        xml.close("entry");
    }
    xml.close("feed");
    xml.into_string()
}

fn json_feed(head: &Head, entries: &[Entry]) -> String {
    let items: Vec<Value> = entries.iter().map(item).collect();
    json!({
        "version": "https://jsonfeed.org/version/1.1",
        "title": head.title,
        "home_page_url": head.home,
        "feed_url": head.url,
        "items": items,
    })
    .to_string()
}

fn item(entry: &Entry) -> Value {
    let names = |name: &String| json!({ "name": name });
    let mut item = Map::new();
    let mut put = |name: &str, value: Value| drop(item.insert(name.to_owned(), value));
    put("id", json!(urn(entry)));
    put("url", json!(entry.url));
    put("title", json!(entry.title));
    put("summary", json!(entry.excerpt));
    put("date_published", json!(Moment(entry.published_ms)));
    put("date_modified", json!(Moment(entry.modified_ms)));
    put("authors", entry.authors.iter().map(names).collect());
    put("tags", json!(entry.labels));
    match &entry.html {
        Some(html) => put("content_html", json!(html)),
        // One of the two must be there.
        None => put("content_text", json!(entry.excerpt)),
    }
    if let Some(image) = &entry.image {
        put("image", json!(image));
    }
    Value::Object(item)
}
