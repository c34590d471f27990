//! What feeds and sitemaps are made of: the latest posts that everybody may see, whoever asks. Never gives out a post
//! that is not public.

use super::category::{self, CATEGORY};
use super::post::{AUTHOR_ID, AUTHOR_IDS, CATEGORY_ID, POST, TAG_IDS, author_names};
use super::tag::{self, TAG};
use crate::access::Actor;
use crate::error::Result;
use crate::identity::user;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::{Field, Id, Kind, Record, Value};
use std::collections::HashMap;

/// Posts of a feed.
pub const ENTRIES: usize = 20;

/// Whose posts a feed tells of. Names are ids, slugs or usernames.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    All,
    Tag(&'a str),
    /// With all that lies under it.
    Category(&'a str),
    Author(&'a str),
}

pub struct Feed {
    /// What it is of, unless it is of everything.
    pub heading: Option<String>,
    /// The latest first, with their bodies.
    pub posts: Vec<Record>,
    /// Names of users, tags and categories by their ids.
    pub names: HashMap<Id, String>,
}

/// # Errors
/// `NotFound` for a tag, category or author that the public does not know.
pub fn latest(node: &Node, tenant: Id, of: Of<'_>) -> Result<Feed> {
    let stranger = Actor::stranger(tenant);
    let query = Query::of(&POST, tenant).filter("live", true);
    let (query, heading) = match of {
        Of::All => (query, None),
        Of::Tag(name) => {
            let tag = tag::get(node, &stranger, name)?.0;
            (query.contains(&TAG_IDS, tag.key), Some(tag.text(&tag::NAME).to_owned()))
        }
        Of::Category(name) => {
            let category = category::get(node, &stranger, name)?;
            let keys = super::read(node, |reader| {
                category::with_descendants(reader, tenant, category.key)
            })?;
            let keys = keys.into_iter().map(Value::Id).collect();
            let heading = category.text(&category::NAME).to_owned();
            (query.any_of(CATEGORY_ID.name, keys), Some(heading))
        }
        Of::Author(name) => {
            let author = user::by_name(node, &stranger, name)?;
            let name = author.opt_text(&user::DISPLAY_NAME).unwrap_or(author.text(&user::USERNAME));
            let heading = Some(name.to_owned());
            (query.names(AUTHOR_ID.name, &AUTHOR_IDS, author.key), heading)
        }
    };
    let query = query.sort("published_at", true).limit(ENTRIES).without_total().with_bodies();
    let posts = node.store.read(|reader| reader.list(&query))?.records;
    let names = names(node, tenant, &posts)?;
    Ok(Feed { heading, posts, names })
}

fn names(node: &Node, tenant: Id, posts: &[Record]) -> Result<HashMap<Id, String>> {
    let mut names = author_names(node, posts)?;
    let tags = posts.iter().flat_map(|post| post.set(&TAG_IDS)).filter_map(Value::as_id);
    let categories = posts.iter().filter_map(|post| post.id(&CATEGORY_ID));
    named(node, tenant, (&TAG, &tag::NAME), tags.collect(), &mut names)?;
    named(node, tenant, (&CATEGORY, &category::NAME), categories.collect(), &mut names)?;
    Ok(names)
}

/// Adds the names of these records, by one query.
fn named(
    node: &Node,
    tenant: Id,
    (kind, name): (&'static Kind, &Field),
    mut keys: Vec<Id>,
    names: &mut HashMap<Id, String>,
) -> Result<()> {
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return Ok(());
    }
    let query = Query::of(kind, tenant)
        .any_of("key", keys.into_iter().map(Value::Id).collect())
        .limit(1_000)
        .without_total();
    let records = node.store.read(|reader| reader.list(&query))?.records;
    names.extend(records.iter().map(|record| (record.key, record.text(name).to_owned())));
    Ok(())
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
