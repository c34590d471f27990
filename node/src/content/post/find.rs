//! Finding posts: by id, by slug, in lists. Never gives out one that the actor may not see.

use super::{
    ASIDE, AUTHOR_ID, AUTHOR_IDS, OLD_SLUGS, POST, SLUG, STATUS, TAG_IDS, TRASHED, may_see,
    shown_column,
};
use crate::access::{Actor, Permission};
use crate::content::{category, key_of, read, tag};
use crate::error::{Error, Result};
use crate::runtime::Node;
use crate::search::audience;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::{Id, Record, Value};

pub fn get(node: &Node, actor: &Actor, key: Id) -> Result<Record> {
    let post = node.store.read(|reader| reader.get_full(&POST, key))?;
    post.filter(|post| may_see(actor, post)).ok_or(Error::NotFound("post"))
}

/// By id or slug, with its body.
///
/// # Errors
/// `Moved` with the present slug for a name that the post had once, if nobody took it since.
pub fn named(node: &Node, actor: &Actor, name: &str) -> Result<Record> {
    if let Some(key) = Id::parse(name) {
        return get(node, actor, key);
    }
    let (post, is_old) = read(node, |reader| {
        if let Some(key) = reader.claimed(actor.tenant, SLUG.claim.unwrap_or_default(), name)? {
            return Ok((reader.get_full(&POST, key)?, false));
        }
        let query = Query::of(&POST, actor.tenant).contains(&OLD_SLUGS, name.trim().to_lowercase());
        let page = reader.list(&query.sort("key", true).limit(1).without_total())?;
        Ok((page.records.into_iter().next(), true))
    })?;
    let post = post.filter(|post| may_see(actor, post)).ok_or(Error::NotFound("post"))?;
    if is_old { Err(Error::Moved(post.text(&SLUG).to_owned())) } else { Ok(post) }
}

/// What a list is narrowed by, beside the plain filters of the kind. Names are ids or slugs.
#[derive(Clone, Debug, Default)]
pub struct Narrowed {
    /// With all that lies under it.
    pub category: Option<String>,
    pub tag: Option<String>,
    /// The first author or one of the others.
    pub author: Option<Id>,
    /// Of the time of publication, both ends included.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    /// Only the best matches are looked at: [`SEARCHED_MAX`].
    pub text: Option<String>,
    /// What is in the trash instead of what is not.
    pub trashed: bool,
}

/// How many matches of a text a list looks through; the search proper goes deeper.
pub const SEARCHED_MAX: usize = 500;

/// `query` is over [`POST`] in the actor's tenant. Readers see what is shown to their role; an author all of his own,
/// editors all.
pub fn list(node: &Node, actor: &Actor, mut query: Query, by: &Narrowed) -> Result<Page> {
    let own = actor.user.is_some() && by.author == actor.user;
    let sees_all = own || actor.can(Permission::PostsWrite);
    if sees_all {
        let status = query.value_of(STATUS.name).cloned();
        let is_aside = |status: &Value| ASIDE.into_iter().any(|a| status.as_text() == Some(a));
        query = match (by.trashed, status) {
            (true, _) => query.filter("aside", TRASHED),
            (false, Some(status)) => {
                let column = if is_aside(&status) { "aside" } else { "stage" };
                query.without(STATUS.name).filter(column, status)
            }
            (false, None) => query.filter("trashed", false),
        };
    } else {
        query = query.filter(shown_column(actor.role), true);
    }
    if let Some(from_ms) = by.from_ms {
        query = query.filter_ge("published_at", from_ms);
    }
    if let Some(to_ms) = by.to_ms {
        query = query.filter_le("published_at", to_ms);
    }
    if let Some(author) = by.author {
        query = query.names(AUTHOR_ID.name, &AUTHOR_IDS, author);
    }
    if let Some(text) = &by.text {
        query = query.any_of("key", matches(node, actor, text)?);
    }
    read(node, |reader| match narrow(reader, actor, query, by)? {
        Some(query) => Ok(reader.list(&query)?),
        None => Ok(Page { records: vec![], next: None, total: 0 }),
    })
}

/// None if a name leads to nothing, and so the list is empty.
fn narrow(
    reader: &impl Read,
    actor: &Actor,
    mut query: Query,
    by: &Narrowed,
) -> Result<Option<Query>> {
    if let Some(name) = &by.category {
        let Some(key) = key_of(reader, actor.tenant, &category::SLUG, name)? else {
            return Ok(None);
        };
        let keys = category::with_descendants(reader, actor.tenant, key)?;
        query = match keys.as_slice() {
            [one] => query.filter("category_id", *one),
            all => query.any_of("category_id", all.iter().map(|key| Value::Id(*key)).collect()),
        };
    }
    if let Some(name) = &by.tag {
        let Some(key) = key_of(reader, actor.tenant, &tag::SLUG, name)? else {
            return Ok(None);
        };
        query = query.contains(&TAG_IDS, key);
    }
    Ok(Some(query))
}

/// The keys of the best matches of a text; the list leaves out those that the actor does not see.
fn matches(node: &Node, actor: &Actor, text: &str) -> Result<Vec<Value>> {
    use atoll_storage::search::{MAX_LIMIT, SearchQuery};
    let mut keys = Vec::new();
    while keys.len() < SEARCHED_MAX {
        let query = SearchQuery {
            tenant: actor.tenant,
            text: text.to_owned(),
            kinds: vec![POST.code],
            facets: audience::of(actor),
            limit: MAX_LIMIT,
            offset: keys.len(),
            ..SearchQuery::default()
        };
        let found =
            node.search.query(&query).map_err(|error| Error::Internal(error.to_string()))?;
        keys.extend(found.hits.iter().map(|hit| Value::Id(hit.id)));
        if found.hits.len() < MAX_LIMIT {
            break;
        }
    }
    Ok(keys)
}
