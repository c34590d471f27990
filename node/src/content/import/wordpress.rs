//! An export of WordPress (WXR, which is RSS with names of its own): posts and pages with their authors, categories,
//! tags, comments and old addresses. Read as a stream, one item in memory at a time, twice: first where pictures are.
//! Survives characters that XML does not allow, names that do not match and an end that is missing; attachments and
//! revisions are passed over and told.

mod item;
mod markup;

use super::Stream;
use super::entry::{Item, Place};
use super::intake::Intake;
use crate::error::{Error, Result};
use crate::exchange::Bounded;
use crate::identity::author::Author;
use item::{Post, Remark};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::Path;
use std::rc::Rc;

/// The longest item, its comments and metadata included.
const MAX_ITEM_BYTES: usize = 32 << 20;
/// Authors that are known by name; posts of others stay with whoever imports them.
const MAX_AUTHORS: usize = 10_000;
/// Broken places that are passed over before the reading ends.
const MAX_BROKEN: usize = 1_000;

pub(super) fn read(intake: &mut Intake<'_>, file: &Path) -> Result<()> {
    let mut pictures = Pictures::default();
    super::each_stream(file, ".xml", &mut |stream| {
        pictures.find(stream);
        Ok(())
    })?;
    let ended =
        super::each_stream(file, ".xml", &mut |stream| read_stream(intake, stream, &pictures))?;
    ended.map_or(Ok(()), |message| intake.add(Item::bad("the archive", message)))
}

/// Passes over what is not well formed where that is possible.
fn reader_of<R: Read>(bounded: R) -> Reader<BufReader<R>> {
    let mut reader = Reader::from_reader(BufReader::new(bounded));
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    reader
}

fn read_stream(intake: &mut Intake<'_>, stream: Stream<'_>, pictures: &Pictures) -> Result<()> {
    let Stream { name, reader: inner, count, size_bytes } = stream;
    let left = Rc::new(Cell::new(MAX_ITEM_BYTES));
    let mut reader =
        reader_of(Bounded { inner, left: left.clone(), message: "an item is longer than 32 MiB" });
    let (mut buffer, mut source, mut broken) = (Vec::new(), Source::default(), 0);
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(start)) => {
                source.start(&start);
                if source.post.is_some() && !source.is_wordpress {
                    return Err(no_export(name));
                }
            }
            Ok(Event::Text(text)) => source.push(&text),
            Ok(Event::CData(text)) => source.push(&text),
            Ok(Event::GeneralRef(name)) => source.refer(&name),
            Ok(Event::End(end)) => {
                let ended = source.end(end.name().as_ref(), pictures);
                if source.post.is_none() {
                    left.set(MAX_ITEM_BYTES);
                }
                if let Some(item) = ended {
                    intake.at(count.get(), size_bytes);
                    intake.add(item)?;
                }
            }
            Ok(Event::Eof) => break,
            Ok(_) => {}
            Err(error) => {
                broken += 1;
                let goes_on =
                    matches!(error, quick_xml::Error::IllFormed(_)) && broken < MAX_BROKEN;
                if !source.is_wordpress && !goes_on {
                    return Err(no_export(name));
                }
                let place = reader.buffer_position();
                let message = format!("{name} cannot be read: {error}");
                intake.add(Item::bad(source.describe(place), message))?;
                (source.post, source.comment) = (None, None);
                if !goes_on {
                    return Ok(());
                }
            }
        }
    }
    match source.post {
        Some(_) => intake.add(Item::bad(source.describe(size_bytes), "the file ends within it")),
        None if !source.is_wordpress => Err(no_export(name)),
        None => Ok(()),
    }
}

fn no_export(name: &str) -> Error {
    Error::Malformed(format!(
        "{name} cannot be read: it is no export of WordPress (WXR), as Tools, Export gives it"
    ))
}

/// Where pictures are, by their numbers: posts name the one at their head so, and it may stand after them.
#[derive(Default)]
pub(super) struct Pictures(HashMap<String, String>);

/// Pictures that are known.
const MAX_PICTURES: usize = 100_000;

impl Pictures {
    /// Ends where the reading does; the second one tells of it.
    fn find(&mut self, stream: Stream<'_>) {
        let left = Rc::new(Cell::new(MAX_ITEM_BYTES));
        let mut reader =
            reader_of(Bounded { inner: stream.reader, left: left.clone(), message: "too long" });
        let (mut buffer, mut text) = (Vec::new(), Vec::new());
        let (mut id, mut address) = (String::new(), String::new());
        while let Ok(event) = reader.read_event_into(&mut buffer) {
            match event {
                Event::Start(_) => text.clear(),
                Event::Text(more) => text.extend_from_slice(&more),
                Event::CData(more) => text.extend_from_slice(&more),
                Event::End(end) => {
                    let told = || String::from_utf8_lossy(text.trim_ascii()).into_owned();
                    match end.name().as_ref() {
                        b"wp:post_id" => id = told(),
                        b"wp:attachment_url" => address = told(),
                        b"item" => {
                            let (id, address) =
                                (std::mem::take(&mut id), std::mem::take(&mut address));
                            if !address.is_empty() && self.0.len() < MAX_PICTURES {
                                self.0.insert(id, address);
                            }
                            left.set(MAX_ITEM_BYTES);
                        }
                        _ => {}
                    }
                    text.clear();
                }
                Event::Eof => return,
                _ => {}
            }
            buffer.clear();
        }
    }

    pub fn get(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }
}

/// What was read so far of what is open.
#[derive(Default)]
struct Source {
    /// The address of the blog: with an item's number it says where the item came from.
    base: String,
    /// It names what only WordPress has.
    is_wordpress: bool,
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
        self.is_wordpress |= start.name().as_ref().starts_with(b"wp:")
            || start.name().as_ref() == b"rss" && !attribute(start, b"xmlns:wp").is_empty();
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
    fn end(&mut self, name: &[u8], pictures: &Pictures) -> Option<Item> {
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
                    return Some(post.into_item(&self.base, &self.authors, pictures));
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
            b"wp:category" => {
                let category = self.category.take()?;
                let is_one = category.slug.as_deref() != Some(item::NO_CATEGORY);
                return is_one.then_some(Item::Category(category));
            }
            name => {
                if let Some(author) = &mut self.author {
                    match name {
                        b"wp:author_login" => text.clone_into(&mut author.username),
                        b"wp:author_email" => text.clone_into(&mut author.email),
                        b"wp:author_display_name" => author.name = markup::plain(text),
                        _ => {}
                    }
                }
                if let Some(category) = &mut self.category {
                    match name {
                        b"wp:cat_name" => category.name = markup::plain(text),
                        b"wp:category_nicename" => category.slug = item::slug(text),
                        b"wp:category_parent" => category.parent = item::slug(text),
                        b"wp:category_description" => {
                            category.description = markup::plain(text);
                        }
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
