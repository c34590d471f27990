//! What feeds, sitemaps and pages are made of: for feeds and sitemaps the posts that everybody may see, whoever asks, for
//! pages those that their reader may; and what they are called together. Never gives out the name of a category that is
//! not approved.

use super::category::{self, CATEGORY};
use super::post::{AUTHOR_ID, AUTHOR_IDS, CATEGORY_ID, POST, TAG_IDS, authors, readable};
use super::tag::{self, TAG};
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::identity::user::{self, USER};
use crate::runtime::Node;
use atoll_storage::query::{Cursor, Query};
use atoll_storage::read::Read;
use atoll_storage::{Field, Id, Kind, Record, Value};
use std::collections::HashMap;

/// Posts of a feed.
pub const ENTRIES: usize = 20;
/// Headings that the pages of a site lead to.
const MAX_TOP: usize = 8;

/// Whose posts a feed tells of. Names are ids, slugs or usernames.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    All,
    Tag(&'a str),
    /// With all that lies under it.
    Category(&'a str),
    Author(&'a str),
}

/// What somebody or something is called, and under which name it stands in addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    pub name: String,
    pub slug: String,
}

/// What posts have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    pub label: Label,
    pub description: String,
}

/// Labels of users, tags and categories by their ids.
pub type Labels = HashMap<Id, Label>;

pub struct Feed {
    /// What it is of, unless it is of everything.
    pub heading: Option<Heading>,
    /// The latest first, with their bodies.
    pub posts: Vec<Record>,
    pub labels: Labels,
}

/// One page of posts for readers: the pinned first, then the latest, without their bodies.
pub struct Listing {
    pub heading: Option<Heading>,
    pub posts: Vec<Record>,
    pub next: Option<Cursor>,
    pub labels: Labels,
}

/// # Errors
/// `NotFound` for a tag, category or author that the public does not know; an author of nothing that is public is not
/// known.
pub fn latest(node: &Node, tenant: Id, of: Of<'_>) -> Result<Feed> {
    let (query, heading) = found(node, &Actor::stranger(tenant), of)?;
    let query = query.sort("published_at", true).limit(ENTRIES).without_total().with_bodies();
    let posts = node.store.read(|reader| reader.list(&query))?.records;
    if matches!(of, Of::Author(_)) && posts.is_empty() {
        return Err(Error::NotFound("author"));
    }
    let labels = labels(node, tenant, &posts)?;
    Ok(Feed { heading, posts, labels })
}

/// What this reader sees.
///
/// # Errors
/// As [`latest`].
pub fn listing(
    node: &Node,
    actor: &Actor,
    of: Of<'_>,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Listing> {
    let is_first = after.is_none();
    let (query, heading) = found(node, actor, of)?;
    let query = query.sort("front", true).after(after).limit(limit).without_total();
    let page = node.store.read(|reader| reader.list(&query))?;
    if matches!(of, Of::Author(_)) && is_first && page.records.is_empty() {
        return Err(Error::NotFound("author"));
    }
    let labels = labels(node, actor.tenant, &page.records)?;
    Ok(Listing { heading, posts: page.records, next: page.next, labels })
}

/// The query of the posts, not ordered yet, and what they have in common.
fn found(node: &Node, actor: &Actor, of: Of<'_>) -> Result<(Query, Option<Heading>)> {
    let tenant = actor.tenant;
    let stranger = Actor::stranger(tenant);
    let query = readable(Query::of(&POST, tenant), actor);
    Ok(match of {
        Of::All => (query, None),
        Of::Tag(name) => {
            let tag = tag::get(node, &stranger, name)?.0;
            let heading = heading(&tag, &tag::NAME, &tag::SLUG, &tag::DESCRIPTION);
            (query.contains(&TAG_IDS, tag.key), Some(heading))
        }
        Of::Category(name) => {
            let category = category::get(node, &stranger, name)?;
            let keys = super::read(node, |reader| {
                category::with_descendants(reader, tenant, category.key)
            })?;
            let keys = keys.into_iter().map(Value::Id).collect();
            let heading =
                heading(&category, &category::NAME, &category::SLUG, &category::DESCRIPTION);
            (query.any_of(CATEGORY_ID.name, keys), Some(heading))
        }
        Of::Author(name) => {
            let author = user::by_name(node, &stranger, name)?;
            let description = author.text(&user::BIO).to_owned();
            let heading = Heading { label: of_user(&author), description };
            (query.names(AUTHOR_ID.name, &AUTHOR_IDS, author.key), Some(heading))
        }
    })
}

fn heading(record: &Record, name: &Field, slug: &Field, description: &Field) -> Heading {
    Heading { label: label(record, name, slug), description: record.text(description).to_owned() }
}

fn label(record: &Record, name: &Field, slug: &Field) -> Label {
    Label { name: record.text(name).to_owned(), slug: record.text(slug).to_owned() }
}

fn of_user(user: &Record) -> Label {
    let slug = user.text(&user::USERNAME);
    let name = user.opt_text(&user::DISPLAY_NAME).unwrap_or(slug);
    Label { name: name.to_owned(), slug: slug.to_owned() }
}

/// What the authors, tags and approved categories of these posts are called.
pub fn labels(node: &Node, tenant: Id, posts: &[Record]) -> Result<Labels> {
    let writers = posts.iter().flat_map(authors);
    let tags = posts.iter().flat_map(|post| post.set(&TAG_IDS)).filter_map(Value::as_id);
    let categories = posts.iter().filter_map(|post| post.id(&CATEGORY_ID));
    called(node, tenant, writers.collect(), tags.collect(), categories.collect())
}

/// What these users, tags and approved categories are called.
pub fn called(
    node: &Node,
    tenant: Id,
    writers: Vec<Id>,
    tags: Vec<Id>,
    categories: Vec<Id>,
) -> Result<Labels> {
    let mut labels = users(node, tenant, writers)?;
    for tag in by_keys(node, tenant, &TAG, tags)? {
        labels.insert(tag.key, label(&tag, &tag::NAME, &tag::SLUG));
    }
    for category in by_keys(node, tenant, &CATEGORY, categories)? {
        if category.text(&category::STATUS) == category::APPROVED {
            labels.insert(category.key, label(&category, &category::NAME, &category::SLUG));
        }
    }
    Ok(labels)
}

/// What users are called, as long as they are here.
pub fn users(node: &Node, tenant: Id, keys: Vec<Id>) -> Result<Labels> {
    let users = by_keys(node, tenant, &USER, keys)?;
    Ok(users.iter().map(|user| (user.key, of_user(user))).collect())
}

/// These records, by one query.
fn by_keys(node: &Node, tenant: Id, kind: &'static Kind, mut keys: Vec<Id>) -> Result<Vec<Record>> {
    keys.sort_unstable();
    keys.dedup();
    keys.truncate(1_000);
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let query = Query::of(kind, tenant)
        .any_of("key", keys.into_iter().map(Value::Id).collect())
        .limit(1_000)
        .without_total();
    Ok(node.store.read(|reader| reader.list(&query))?.records)
}

/// The approved categories of the first level, in their order.
pub fn top(node: &Node, tenant: Id) -> Result<Vec<Label>> {
    let query = Query::of(&CATEGORY, tenant)
        .filter("status", category::APPROVED)
        .is_null(category::PARENT_ID.name)
        .limit(1_000)
        .without_total();
    let mut all = node.store.read(|reader| reader.list(&query))?.records;
    all.sort_by_cached_key(category::place);
    all.truncate(MAX_TOP);
    Ok(all.iter().map(|c| label(c, &category::NAME, &category::SLUG)).collect())
}

/// How many posts the public sees, from the kept count.
pub fn live_count(node: &Node, tenant: Id) -> Result<u64> {
    let live = Query::of(&POST, tenant).filter("live", true);
    Ok(node.store.read(|reader| reader.count(&live))?)
}

/// Shows each public post of one part of all, the oldest first, without its body. Parts hold `size` posts and are
/// numbered from 0.
pub fn each_live(
    node: &Node,
    tenant: Id,
    part: u64,
    size: u64,
    mut show: impl FnMut(&Record),
) -> Result<()> {
    let (mut skipped, mut shown, mut after) = (0, 0, None);
    loop {
        let query = Query::of(&POST, tenant).filter("live", true).sort("published_at", false);
        let query = query.limit(1_000).after(after).without_total();
        let page = node.store.read(|reader| reader.list(&query))?;
        for post in &page.records {
            if skipped < part.saturating_mul(size) {
                skipped += 1;
            } else if shown < size {
                shown += 1;
                show(post);
            } else {
                return Ok(());
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}
