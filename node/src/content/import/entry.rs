//! One post as its source tells it, and how it gets into the store: by a key made of where it came from, so that a
//! repeat changes what changed and doubles nothing. Takes nothing back: what the source lost stays here. What cannot
//! come over as it stood there is told.

use super::super::post::{
    AUTHOR_ID, AUTHOR_IDS, BODY, CATEGORY_ID, DRAFT, Draft, IMPORTED_FROM, IMPORTED_HASH, POST,
    PUBLISH_AT, PUBLISHED, PUBLISHED_AT, SCHEDULED, SLUG, STATUS, TAG_IDS, TITLE, change, emit,
    is_trashed,
};
use super::super::slug::checked;
use super::super::{category, redirect, tag};
use super::report::{Done, Fate};
use crate::access::{Actor, Permission};
use crate::community::comment::{self, Adopted, COMMENT};
use crate::error::{Error, Result};
use crate::exchange::restore::Restored;
use crate::identity::author::{self, Author};
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Record, Value};
use std::collections::HashMap;

/// Comments of one post that are taken.
pub(super) const MAX_COMMENTS: usize = 5_000;
/// Old addresses of one post that are taken.
const MAX_ALIASES: usize = 50;

/// What a source holds, one by one.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Post(Box<Entry>),
    /// A category that posts lie under, with its place in the tree.
    Category(Place),
    /// A record as an archive of Atoll holds it.
    Record(Box<Restored>),
    /// What could not be read, and why.
    Bad {
        source: String,
        message: String,
    },
    /// What is left alone on purpose, and why.
    Skipped {
        source: String,
        message: String,
    },
}

impl Item {
    pub fn bad(source: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::Bad { source: source.into(), message: message.to_string() }
    }

    pub fn skipped(source: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::Skipped { source: source.into(), message: message.to_string() }
    }

    /// About what it takes in memory.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Post(entry) => {
                entry.body.len() + entry.comments.iter().map(|c| c.text.len() + 200).sum::<usize>()
            }
            Self::Record(restored) => restored.size_bytes,
            Self::Category(_) | Self::Bad { .. } | Self::Skipped { .. } => 200,
        }
    }
}

/// A category or a tag by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    pub name: String,
    pub slug: Option<String>,
    pub description: String,
    /// The slug of the category above.
    pub parent: Option<String>,
}

impl Place {
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn as_category(&self) -> category::Named<'_> {
        category::Named {
            name: &self.name,
            slug: self.slug.as_deref(),
            description: &self.description,
            parent: self.parent.as_deref(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Comment {
    /// Within its source.
    pub id: String,
    /// The comment that it answers.
    pub parent: Option<String>,
    pub author: Author,
    pub text: String,
    pub approved: bool,
    pub made_ms: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    /// What the report calls it.
    pub source: String,
    /// Where it came from, the same in every import: its key is made of that.
    pub origin: String,
    pub hash: Vec<u8>,
    pub title: String,
    pub body: String,
    /// Other fields that the source sets.
    pub changes: Changes,
    /// Written in the source, or none.
    pub slug: Option<String>,
    /// A slug that is taken makes it another one instead of an error.
    pub may_rename: bool,
    pub category: Option<Place>,
    pub tags: Vec<Place>,
    pub author: Option<Author>,
    /// Its other authors.
    pub others: Vec<Author>,
    pub is_draft: bool,
    pub published_ms: Option<i64>,
    /// When it was made and changed last, if the source says so.
    pub made_ms: Option<i64>,
    pub changed_ms: Option<i64>,
    /// Its own address there, from the first slash on: what relative addresses in it begin at.
    pub base: String,
    /// Addresses that it had there.
    pub aliases: Vec<String>,
    pub comments: Vec<Comment>,
    /// What is other than it stood in the source, a sentence each.
    pub notes: Vec<String>,
}

pub(crate) fn put(tx: &mut Tx<'_>, actor: &Actor, entry: &Entry) -> Result<Done> {
    let mut notes = entry.notes.clone();
    let there = found(tx, actor, entry)?;
    let key = there.as_ref().map_or_else(|| key_of(actor, entry), |post| post.key);
    let (fate, post) = match there {
        Some(post) if post.bytes(&IMPORTED_HASH) == Some(&entry.hash) => {
            return Ok(Done::plain(Fate::Unchanged, key));
        }
        Some(post) if is_trashed(&post) => {
            let message = "the post made of it is in the trash: restore it first";
            return Err(Error::conflict("trashed", message));
        }
        Some(post) => (Fate::Updated, update(tx, actor, &post, entry, &mut notes)?),
        None => (Fate::Created, create(tx, actor, key, entry, &mut notes)?),
    };
    if let Some(slug) = &entry.slug
        && checked(&SLUG, slug).ok().as_deref() != Some(post.text(&SLUG))
    {
        notes.push(format!("its slug {slug} cannot be had: it is {}", post.text(&SLUG)));
    }
    let comments = adopt(tx, actor, key, entry)?;
    let redirects = lead_here(tx, actor, key, entry, &mut notes)?;
    Ok(Done { comments, redirects, notes, ..Done::plain(fate, key) })
}

fn key_of(actor: &Actor, entry: &Entry) -> Id {
    Id::natural(&[b"import", &actor.tenant.0, entry.origin.as_bytes()])
}

fn origin_of(entry: &Entry) -> Value {
    Value::Bytes(hash_of(&[b"import origin", entry.origin.as_bytes()]))
}

/// The post that was made of it: here, or elsewhere and restored here.
fn found(tx: &Tx<'_>, actor: &Actor, entry: &Entry) -> Result<Option<Record>> {
    if let Some(post) = tx.get_full(&POST, key_of(actor, entry))? {
        return Ok(Some(post));
    }
    let restored = Query::of(&POST, actor.tenant).filter(IMPORTED_FROM.name, origin_of(entry));
    let restored = restored.sort(IMPORTED_FROM.name, false).limit(1).without_total().with_bodies();
    Ok(tx.list(&restored)?.records.into_iter().next())
}

fn create(
    tx: &mut Tx<'_>,
    actor: &Actor,
    key: Id,
    entry: &Entry,
    notes: &mut Vec<String>,
) -> Result<Record> {
    let slug = wished_slug(tx, actor, key, entry)?;
    let mut draft = Draft::new(written(entry).set(&SLUG, slug))?;
    let (author, others) = authors_of(tx, actor, entry, notes)?;
    draft.author = author;
    draft.changes =
        others.into_iter().fold(draft.changes, |changes, id| changes.add(&AUTHOR_IDS, id));
    let now_ms = tx.now_ms() as i64;
    draft.times_ms = entry.made_ms.filter(|ms| (0..now_ms).contains(ms)).map(|made_ms| {
        let changed_ms = entry.changed_ms.unwrap_or(made_ms).max(made_ms);
        (made_ms as u64, changed_ms as u64)
    });
    let (category, tags) = places(tx, actor, entry, notes)?;
    draft.changes = tags.into_iter().fold(draft.changes, |changes, tag| changes.add(&TAG_IDS, tag));
    if let Some(category) = category {
        draft.changes.put(&CATEGORY_ID, category);
    }
    if !entry.is_draft {
        draft.changes = bring_out(draft.changes, entry.published_ms.unwrap_or(now_ms), now_ms);
    }
    let post = draft.create(tx, actor, Some(key))?;
    tell(tx, actor, &post)?;
    Ok(post)
}

/// None, so that one is made of the title, if it is taken and another will do.
fn wished_slug(tx: &Tx<'_>, actor: &Actor, key: Id, entry: &Entry) -> Result<Option<String>> {
    let Some(slug) = &entry.slug else { return Ok(None) };
    if !entry.may_rename {
        return Ok(Some(slug.clone()));
    }
    let Ok(slug) = checked(&SLUG, slug) else { return Ok(None) };
    let holder = tx.claimed(actor.tenant, SLUG.claim.unwrap_or_default(), &slug)?;
    Ok(Some(slug).filter(|_| holder.is_none_or(|holder| holder == key)))
}

/// Only what the source says is changed. A draft that the source does not call one any more comes out; nothing is
/// taken back by an import.
fn update(
    tx: &mut Tx<'_>,
    actor: &Actor,
    post: &Record,
    entry: &Entry,
    notes: &mut Vec<String>,
) -> Result<Record> {
    let mut changes = written(entry);
    if let Some(slug) = wished_slug(tx, actor, post.key, entry)? {
        changes.put(&SLUG, slug);
    }
    crate::kinds::validate(&POST, &changes, false)?;
    let (author, others) = authors_of(tx, actor, entry, notes)?;
    if let Some(author) = author {
        changes.put(&AUTHOR_ID, author);
    }
    changes = others.into_iter().fold(changes, |changes, id| changes.add(&AUTHOR_IDS, id));
    let (category, tags) = places(tx, actor, entry, notes)?;
    if let Some(category) = category {
        changes.put(&CATEGORY_ID, category);
    }
    let gone = post.set(&TAG_IDS).filter(|tag| tag.as_id().is_none_or(|id| !tags.contains(&id)));
    changes = gone.fold(changes, |changes, tag| changes.drop(&TAG_IDS, tag.clone()));
    let new = tags.iter().filter(|tag| !post.has(&TAG_IDS, &Value::Id(**tag)));
    changes = new.fold(changes, |changes, tag| changes.add(&TAG_IDS, *tag));
    let comes_out = post.text(&STATUS) == DRAFT && !entry.is_draft;
    if comes_out {
        let now_ms = tx.now_ms() as i64;
        let at_ms = entry.published_ms.or(post.int(&PUBLISHED_AT)).unwrap_or(now_ms);
        changes = bring_out(changes, at_ms, now_ms);
    }
    let post = change(tx, actor, post, changes, "imported")?;
    if comes_out {
        tell(tx, actor, &post)?;
    }
    Ok(post)
}

/// Published at its date, or scheduled if that lies ahead.
fn bring_out(changes: Changes, at_ms: i64, now_ms: i64) -> Changes {
    if at_ms > now_ms {
        changes.set(&STATUS, SCHEDULED).set(&PUBLISH_AT, at_ms)
    } else {
        changes.set(&STATUS, PUBLISHED).set(&PUBLISHED_AT, at_ms)
    }
}

fn tell(tx: &mut Tx<'_>, actor: &Actor, post: &Record) -> Result<()> {
    match post.text(&STATUS) {
        PUBLISHED => emit(tx, actor, "postal.post.published", post),
        SCHEDULED => emit(tx, actor, "postal.post.scheduled", post),
        _ => Ok(()),
    }
}

fn written(entry: &Entry) -> Changes {
    let changes =
        entry.changes.clone().set(&TITLE, entry.title.as_str()).body(&BODY, entry.body.as_str());
    let changes = changes.set(&IMPORTED_FROM, origin_of(entry));
    changes.set(&IMPORTED_HASH, Value::Bytes(entry.hash.clone()))
}

/// Who wrote it, and the others who did. None leaves the post to whoever imports it: only who administers posts writes
/// in another's name.
fn authors_of(
    tx: &mut Tx<'_>,
    actor: &Actor,
    entry: &Entry,
    notes: &mut Vec<String>,
) -> Result<(Option<Id>, Vec<Id>)> {
    let mut found: Vec<Id> = Vec::new();
    let mut has_first = false;
    for (place, author) in entry.author.iter().chain(&entry.others).enumerate() {
        let id = if actor.can(Permission::PostsAdminister) {
            author::ensure(tx, actor, author)?
        } else {
            None
        };
        match id {
            Some(id) if !found.contains(&id) => {
                has_first |= place == 0;
                found.push(id);
            }
            Some(_) => {}
            None => {
                let name = [&author.email, &author.username, &author.name];
                let name = name.into_iter().find(|name| !name.is_empty());
                let name = name.map_or("somebody", String::as_str);
                notes.push(format!("its author {name} has no account here"));
            }
        }
    }
    let first = if has_first { Some(found.remove(0)) } else { None };
    found.truncate(AUTHOR_IDS.max);
    Ok((first, found))
}

/// The category and tags that the source names, made where there are none.
fn places(
    tx: &mut Tx<'_>,
    actor: &Actor,
    entry: &Entry,
    notes: &mut Vec<String>,
) -> Result<(Option<Id>, Vec<Id>)> {
    let category = match &entry.category {
        Some(place) => make(tx, actor, place)?,
        None => None,
    };
    let mut tags = Vec::new();
    if let Some(more @ 1..) = entry.tags.len().checked_sub(TAG_IDS.max) {
        notes.push(format!("{more} tags more than a post can have were left out"));
    }
    for place in entry.tags.iter().take(TAG_IDS.max) {
        if let Some(id) = tag::ensure(tx, actor, &place.name, place.slug.as_deref())?
            && !tags.contains(&id)
        {
            tags.push(id);
        }
    }
    Ok((category, tags))
}

pub(super) fn make(tx: &mut Tx<'_>, actor: &Actor, place: &Place) -> Result<Option<Id>> {
    category::ensure(tx, actor, &place.as_category())
}

/// The comments of the source that are not here yet; how many.
fn adopt(tx: &mut Tx<'_>, actor: &Actor, post: Id, entry: &Entry) -> Result<u64> {
    if !actor.can(Permission::CommentsModerate) {
        return Ok(0);
    }
    let key_of = |id: &str| Id::natural(&[b"imported_comment", &post.0, id.as_bytes()]);
    // As they were called once.
    let old_key_of = |id: &str| {
        let origin = entry.origin.as_bytes();
        Id::natural(&[b"imported_comment", &actor.tenant.0, origin, id.as_bytes()])
    };
    let mut known: HashMap<&str, Id> = HashMap::with_capacity(entry.comments.len());
    for comment in &entry.comments {
        let old = old_key_of(&comment.id);
        let key = if tx.get(&COMMENT, old)?.is_some() { old } else { key_of(&comment.id) };
        known.insert(&comment.id, key);
    }
    let mut new = 0;
    for comment in &entry.comments {
        let author = if comment.author.email.is_empty() {
            None
        } else {
            author::find(tx, actor.tenant, &comment.author)?
        };
        let parent = comment.parent.as_deref().and_then(|id| known.get(id).copied());
        let key = known.get(comment.id.as_str()).copied().unwrap_or_else(|| key_of(&comment.id));
        let adopted = Adopted {
            post,
            parent: parent.filter(|parent| *parent != key),
            author,
            text: signed(comment, author.is_some()),
            approved: comment.approved,
            made_ms: comment.made_ms.and_then(|ms| u64::try_from(ms).ok()),
        };
        new += u64::from(comment::adopt(tx, actor, key, adopted)?);
    }
    Ok(new)
}

/// A guest has no account: his name stands under what he wrote.
fn signed(comment: &Comment, has_account: bool) -> String {
    let (text, name) = (comment.text.trim(), comment.author.name.trim());
    if has_account || name.is_empty() { text.to_owned() } else { format!("{text}\n\n— {name}") }
}

fn lead_here(
    tx: &mut Tx<'_>,
    actor: &Actor,
    post: Id,
    entry: &Entry,
    notes: &mut Vec<String>,
) -> Result<u64> {
    if !actor.can(Permission::PostsAdminister) {
        return Ok(0);
    }
    let mut paths: Vec<String> =
        entry.aliases.iter().filter_map(|alias| redirect::path_of(alias)).collect();
    if let Some(more @ 1..) = paths.len().checked_sub(MAX_ALIASES) {
        notes.push(format!("{more} old addresses more than are kept were left out"));
        paths.truncate(MAX_ALIASES);
    }
    paths
        .iter()
        .try_fold(0, |new, path| Ok(new + u64::from(redirect::lead(tx, actor, path, post)?)))
}

/// At most as many characters as the field takes: what a file says too long is cut, not refused.
pub(super) fn fitting(field: &Field, text: &str) -> String {
    text.trim().chars().take(field.max).collect()
}

/// Whether a picture's address is one that a post may have.
pub(super) fn is_address(address: &str) -> bool {
    let on_site = address.starts_with('/') && !address.starts_with("//");
    let on_web = ["https://", "http://"]
        .iter()
        .any(|scheme| address.len() > scheme.len() && address.starts_with(scheme));
    (on_site || on_web) && !address.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// At most so many bytes of a text.
pub(super) fn beginning(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

pub(super) fn hash_of(parts: &[&[u8]]) -> Vec<u8> {
    Id::natural(parts).0.to_vec()
}
