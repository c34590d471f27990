//! An export of WordPress (WXR, which is RSS with names of its own): posts and pages with their authors, categories,
//! tags, comments and old addresses. Read as a stream, one item in memory at a time. Survives characters that XML does
//! not allow, names that do not match and an end that is missing; attachments and revisions are passed over.

mod item;
mod markup;

use super::entry::{Item, Place};
use super::intake::Intake;
use super::unreadable;
use crate::error::Result;
use crate::exchange::Bounded;
use crate::identity::author::Author;
use item::{Post, Remark};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::cell::Cell;
use std::collections::HashMap;
use std::io::BufReader;
use std::path::Path;
use std::rc::Rc;

/// The longest item, its comments and metadata included.
const MAX_ITEM_BYTES: usize = 32 << 20;
/// Authors that are known by name; posts of others stay with whoever imports them.
const MAX_AUTHORS: usize = 10_000;
/// Broken places that are passed over before the reading ends.
const MAX_BROKEN: usize = 1_000;

pub(super) fn read(intake: &mut Intake<'_>, file: &Path) -> Result<()> {
    let (inner, total_bytes) = super::open(file)?;
    let (count, left) = (inner.count(), Rc::new(Cell::new(MAX_ITEM_BYTES)));
    let bounded = Bounded { inner, left: left.clone(), message: "an item is longer than 32 MiB" };
    let mut reader = Reader::from_reader(BufReader::new(bounded));
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let (mut buffer, mut source, mut broken) = (Vec::new(), Source::default(), 0);
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(start)) => source.start(&start),
            Ok(Event::Text(text)) => source.push(&text),
            Ok(Event::CData(text)) => source.push(&text),
            Ok(Event::GeneralRef(name)) => source.refer(&name),
            Ok(Event::End(end)) => {
                let ended = source.end(end.name().as_ref());
                if source.post.is_none() {
                    left.set(MAX_ITEM_BYTES);
                }
                if let Some(item) = ended {
                    intake.at(count.get(), total_bytes);
                    intake.add(item)?;
                }
            }
            Ok(Event::Eof) => break,
            Ok(_) => {}
            Err(error) => {
                broken += 1;
                let goes_on =
                    matches!(error, quick_xml::Error::IllFormed(_)) && broken < MAX_BROKEN;
                let place = reader.buffer_position();
                intake.add(Item::bad(source.describe(place), unreadable(file, error)))?;
                (source.post, source.comment) = (None, None);
                if !goes_on {
                    return Ok(());
                }
            }
        }
    }
    match source.post {
        Some(_) => intake.add(Item::bad(source.describe(total_bytes), "the file ends within it")),
        None => Ok(()),
    }
}

/// What was read so far of what is open.
#[derive(Default)]
struct Source {
    /// The address of the blog: with an item's number it says where the item came from.
    base: String,
    authors: HashMap<String, Author>,
    author: Option<Author>,
    category: Option<Place>,
    post: Option<Post>,
    comment: Option<Remark>,
    meta_key: String,
    /// Of the innermost element.
    text: String,
}

impl Source {
    fn describe(&self, place: u64) -> String {
        match &self.post {
            Some(post) => post.source(),
            None => format!("byte {place}"),
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) {
        self.text.clear();
        match start.name().as_ref() {
            b"item" => self.post = Some(Post::default()),
            b"wp:comment" if self.post.is_some() => self.comment = Some(Remark::default()),
            b"wp:author" if self.post.is_none() => self.author = Some(Author::default()),
            b"wp:category" if self.post.is_none() => self.category = Some(Place::default()),
            b"category" => {
                if let Some(post) = &mut self.post {
                    post.domain = attribute(start, b"domain");
                    post.nicename = attribute(start, b"nicename");
                }
            }
            _ => {}
        }
    }

    /// Characters that XML does not allow are left out; bytes that are not UTF-8 show as such.
    fn push(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.text
            .extend(text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')));
    }

    fn refer(&mut self, name: &[u8]) {
        let name = String::from_utf8_lossy(name);
        match markup::character(&name) {
            Some(c) => self.text.push(c),
            // It stands for a character that XML does not allow.
            None if name.starts_with('#') => {}
            None => {
                self.text.push('&');
                self.text.push_str(&name);
                self.text.push(';');
            }
        }
    }

    /// An item if this was its end.
    fn end(&mut self, name: &[u8]) -> Option<Item> {
        let text = std::mem::take(&mut self.text);
        let text = text.trim();
        if let Some(comment) = &mut self.comment {
            if name != b"wp:comment" {
                comment.put(name, text);
            } else if let (Some(comment), Some(post)) = (self.comment.take(), &mut self.post) {
                post.remark(comment);
            }
            return None;
        }
        if let Some(post) = &mut self.post {
            match name {
                b"item" => {
                    let post = self.post.take()?;
                    return post.into_item(&self.base, &self.authors);
                }
                b"wp:meta_key" => text.clone_into(&mut self.meta_key),
                b"wp:meta_value" => post.meta(&self.meta_key, text),
                name => post.put(name, text),
            }
            return None;
        }
        self.end_of_channel(name, text)
    }

    fn end_of_channel(&mut self, name: &[u8], text: &str) -> Option<Item> {
        match name {
            b"link" if self.base.is_empty() => text.clone_into(&mut self.base),
            b"wp:base_blog_url" => text.clone_into(&mut self.base),
            b"wp:author" => {
                let author = self.author.take()?;
                if self.authors.len() < MAX_AUTHORS {
                    self.authors.insert(author.username.clone(), author);
                }
            }
            b"wp:category" => return self.category.take().map(Item::Category),
            name => {
                if let Some(author) = &mut self.author {
                    match name {
                        b"wp:author_login" => text.clone_into(&mut author.username),
                        b"wp:author_email" => text.clone_into(&mut author.email),
                        b"wp:author_display_name" => text.clone_into(&mut author.name),
                        _ => {}
                    }
                }
                if let Some(category) = &mut self.category {
                    match name {
                        b"wp:cat_name" => text.clone_into(&mut category.name),
                        b"wp:category_nicename" => category.slug = item::slug(text),
                        b"wp:category_parent" => category.parent = item::slug(text),
                        b"wp:category_description" => text.clone_into(&mut category.description),
                        _ => {}
                    }
                }
            }
        }
        None
    }
}

fn attribute(start: &BytesStart<'_>, name: &[u8]) -> String {
    let found = start.attributes().flatten().find(|attribute| attribute.key.as_ref() == name);
    found.map(|found| String::from_utf8_lossy(&found.value).into_owned()).unwrap_or_default()
}
