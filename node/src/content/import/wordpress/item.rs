//! One post or page of a WordPress export, from its elements to an entry.

use super::super::super::post::{
    COVER, EXCERPT, FORMAT, META_DESCRIPTION, META_TITLE, PINNED, TITLE, VISIBILITY,
};
use super::super::date;
use super::super::entry::{
    Comment, Entry, Item, MAX_COMMENTS, Place, fitting, hash_of, is_address,
};
use super::{Pictures, markup};
use crate::identity::author::Author;
use atoll_storage::tx::Changes;
use std::collections::HashMap;

/// Under which nobody put anything.
pub(super) const NO_CATEGORY: &str = "uncategorized";

#[derive(Debug, Default)]
pub(super) struct Post {
    /// Of the category element that is open.
    pub domain: String,
    pub nicename: String,
    id: String,
    kind: String,
    title: String,
    link: String,
    creator: String,
    content: String,
    excerpt: String,
    name: String,
    status: String,
    password: String,
    date_gmt: String,
    date: String,
    modified_gmt: String,
    is_sticky: bool,
    /// The number of the picture at its head.
    picture: String,
    attachment: String,
    /// Comments that are none of people, or too many.
    left_out: usize,
    meta_title: String,
    meta_description: String,
    categories: Vec<Place>,
    tags: Vec<Place>,
    comments: Vec<Remark>,
}

#[derive(Debug, Default)]
pub(super) struct Remark {
    id: String,
    parent: String,
    name: String,
    email: String,
    date_gmt: String,
    content: String,
    approved: String,
    kind: String,
}

impl Remark {
    pub fn put(&mut self, name: &[u8], text: &str) {
        let field = match name {
            b"wp:comment_id" => &mut self.id,
            b"wp:comment_parent" => &mut self.parent,
            b"wp:comment_author" => &mut self.name,
            b"wp:comment_author_email" => &mut self.email,
            b"wp:comment_date_gmt" => &mut self.date_gmt,
            b"wp:comment_content" => &mut self.content,
            b"wp:comment_approved" => &mut self.approved,
            b"wp:comment_type" => &mut self.kind,
            _ => return,
        };
        text.clone_into(field);
    }

    /// Spam, and what other blogs sent by themselves, is no comment.
    fn is_comment(&self) -> bool {
        matches!(self.approved.as_str(), "0" | "1") && matches!(self.kind.as_str(), "" | "comment")
    }

    fn into_comment(self) -> Comment {
        Comment {
            parent: Some(self.parent).filter(|parent| !matches!(parent.as_str(), "" | "0")),
            author: Author {
                email: self.email,
                username: String::new(),
                name: markup::plain(&self.name),
            },
            text: markup::plain(&self.content),
            approved: self.approved == "1",
            made_ms: date::parse(&self.date_gmt),
            id: self.id,
        }
    }
}

impl Post {
    pub fn put(&mut self, name: &[u8], text: &str) {
        let field = match name {
            b"title" => &mut self.title,
            b"link" => &mut self.link,
            b"dc:creator" => &mut self.creator,
            b"content:encoded" => &mut self.content,
            b"excerpt:encoded" => &mut self.excerpt,
            b"wp:post_id" => &mut self.id,
            b"wp:post_type" => &mut self.kind,
            b"wp:post_name" => &mut self.name,
            b"wp:post_password" => &mut self.password,
            b"wp:post_date" => &mut self.date,
            b"wp:post_date_gmt" => &mut self.date_gmt,
            b"wp:post_modified_gmt" => &mut self.modified_gmt,
            b"wp:status" => &mut self.status,
            b"wp:is_sticky" => {
                self.is_sticky = text == "1";
                return;
            }
            b"wp:attachment_url" => &mut self.attachment,
            b"category" => return self.lies_under(text),
            _ => return,
        };
        text.clone_into(field);
    }

    fn lies_under(&mut self, name: &str) {
        let nicename = std::mem::take(&mut self.nicename);
        let place = Place { slug: slug(&nicename), ..Place::named(markup::plain(name)) };
        match self.domain.as_str() {
            "category" if nicename != NO_CATEGORY => self.categories.push(place),
            "post_tag" => self.tags.push(place),
            _ => {}
        }
    }

    /// What the two common plugins keep of what search engines show.
    pub fn meta(&mut self, key: &str, text: &str) {
        match key {
            "_yoast_wpseo_title" | "rank_math_title" => text.clone_into(&mut self.meta_title),
            "_yoast_wpseo_metadesc" | "rank_math_description" => {
                text.clone_into(&mut self.meta_description);
            }
            "_thumbnail_id" => text.clone_into(&mut self.picture),
            _ => {}
        }
    }

    pub fn remark(&mut self, remark: Remark) {
        if self.comments.len() < MAX_COMMENTS && remark.is_comment() {
            self.comments.push(remark);
        } else {
            self.left_out += 1;
        }
    }

    pub fn source(&self) -> String {
        let name = if self.name.is_empty() { &self.title } else { &self.name };
        let kind = if self.kind.is_empty() { "post" } else { &self.kind };
        format!("{kind} {} ({name})", self.id)
    }

    /// Why it is no post, if it is none.
    fn skipped(&self) -> Option<String> {
        if self.kind == "attachment" {
            return Some(format!(
                "files are not brought over: posts name it at {}",
                self.attachment
            ));
        }
        if !matches!(self.kind.as_str(), "post" | "page") {
            return Some("is neither a post nor a page".to_owned());
        }
        match self.status.as_str() {
            "trash" => Some("is in the trash".to_owned()),
            "auto-draft" | "inherit" => Some("was never saved as a post".to_owned()),
            _ => None,
        }
    }

    pub fn into_item(
        mut self,
        base: &str,
        authors: &HashMap<String, Author>,
        pictures: &Pictures,
    ) -> Item {
        if let Some(why) = self.skipped() {
            return Item::skipped(self.source(), why);
        }
        let source = self.source();
        if self.id.is_empty() {
            return Item::bad(source, "has no number: it could not be told from others");
        }
        let picture = pictures.get(&self.picture).filter(|address| is_address(address));
        let hash = hash_of(&[format!("{self:?}{picture:?}").as_bytes()]);
        let mut changes = self.changes();
        if let Some(address) = picture {
            changes.put(&COVER, fitting(&COVER, address));
        }
        let notes = self.notes();
        let mut categories = std::mem::take(&mut self.categories).into_iter();
        let category = categories.next();
        let tags = std::mem::take(&mut self.tags).into_iter().chain(categories).collect();
        let comments = std::mem::take(&mut self.comments);
        let made_ms = date::parse(&self.date_gmt).or_else(|| date::parse(&self.date));
        Item::Post(Box::new(Entry {
            origin: format!("wordpress:{base}#{}", self.id),
            hash,
            title: self.shown_title(),
            body: markup::body(&self.content),
            changes,
            slug: slug(&self.name),
            may_rename: true,
            category,
            tags,
            author: authors.get(&self.creator).filter(|author| !author.email.is_empty()).cloned(),
            is_draft: !matches!(self.status.as_str(), "publish" | "private" | "future"),
            published_ms: made_ms,
            made_ms,
            changed_ms: date::parse(&self.modified_gmt),
            aliases: vec![self.link],
            comments: comments.into_iter().map(Remark::into_comment).collect(),
            source,
            notes,
            ..Entry::default()
        }))
    }

    /// What is other than it stood there.
    fn notes(&self) -> Vec<String> {
        let mut notes = markup::notes(&self.content);
        if self.left_out > 0 {
            let advice =
                "spam, what other blogs sent by themselves, what is in the trash or too much";
            notes.push(format!("{} comments were left out: {advice}", self.left_out));
        }
        if !self.password.is_empty() {
            notes.push("had a password: it is private here".to_owned());
        }
        notes
    }

    fn shown_title(&self) -> String {
        let title = markup::plain(&self.title);
        let title = if title.is_empty() { self.name.replace('-', " ") } else { title };
        if title.trim().is_empty() {
            format!("Untitled {}", self.id)
        } else {
            fitting(&TITLE, &title)
        }
    }

    fn changes(&self) -> Changes {
        let mut changes = Changes::new().set(&FORMAT, "html");
        let excerpt = markup::plain(&self.excerpt);
        let texts = [
            (&EXCERPT, excerpt.as_str()),
            (&META_TITLE, self.meta_title.as_str()),
            (&META_DESCRIPTION, self.meta_description.as_str()),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            changes.put(field, fitting(field, text));
        }
        if self.is_sticky {
            changes.put(&PINNED, true);
        }
        if self.status == "private" || !self.password.is_empty() {
            changes.put(&VISIBILITY, "private");
        }
        changes
    }
}

/// Names in other scripts than Latin stand under percent signs.
pub(super) fn slug(name: &str) -> Option<String> {
    let name = markup::unescaped(name);
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
