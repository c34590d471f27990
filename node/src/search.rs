//! Searching what the actor may see: hits of the index, looked up in the store, with the words marked. The index
//! says what matches and who reads it; the store and the rules of each kind have the last word on who sees it.

pub(crate) mod audience;

use crate::access::{Actor, Permission};
use crate::community::comment::{self, COMMENT};
use crate::content::post::{self, POST};
use crate::content::{self, category, feed, render, tag};
use crate::error::{Error, Result};
use crate::identity::user;
use crate::job::{self, Job};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::read::{Read, Reader};
use atoll_storage::search::{Hit, SearchQuery};
use atoll_storage::{Id, Record};

pub use atoll_storage::search::{MAX_LIMIT, MAX_OFFSET, MAX_SUGGESTIONS, Sort};

/// Characters of a query, at most.
pub const MAX_TEXT: usize = 500;

#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub text: String,
    /// Names of kinds; none for all.
    pub kinds: Vec<String>,
    pub limit: usize,
    pub offset: usize,
    pub newest_first: bool,
    /// An id or a slug; with all that lies under it.
    pub category: Option<String>,
    /// An id or a slug.
    pub tag: Option<String>,
    /// An id or a username.
    pub author: Option<String>,
    /// Of the time of publication or making; the end is not included.
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Match {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: Id,
    pub title: String,
    /// Of the post that it is, or stands under.
    pub slug: String,
    /// HTML: the words found are in `<mark>`, everything else is escaped.
    pub snippet: String,
    pub url: String,
    pub score: f32,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Found {
    pub matches: Vec<Match>,
    pub total: u64,
    pub facets: Vec<(String, Vec<Counted>)>,
}

/// How many matches carry a value of a facet.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Counted {
    /// The id of a category, a tag or an author.
    pub value: String,
    pub name: String,
    pub slug: String,
    pub count: u64,
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

/// # Errors
/// `Invalid` for an unknown kind, or an offset or text beyond the bounds.
pub fn find(node: &Node, actor: &Actor, wanted: &Wanted) -> Result<Found> {
    if wanted.text.chars().count() > MAX_TEXT {
        return Err(Error::field("q", "too_long", format!("takes at most {MAX_TEXT} characters")));
    }
    if wanted.offset > MAX_OFFSET {
        return Err(Error::field(
            "offset",
            "out_of_range",
            format!("goes up to {MAX_OFFSET}: narrow the search"),
        ));
    }
    let query = SearchQuery {
        tenant: actor.tenant,
        text: wanted.text.clone(),
        kinds: wanted.kinds.iter().map(|name| code_of(name)).collect::<Result<_>>()?,
        facets: audience::of(actor).into_iter().chain(narrowed(node, actor, wanted)?).collect(),
        count_facets: FACETS.map(str::to_owned).to_vec(),
        from_ms: wanted.from_ms,
        to_ms: wanted.to_ms,
        limit: wanted.limit,
        offset: wanted.offset,
        sort: if wanted.newest_first { Sort::Newest } else { Sort::Relevance },
        ..SearchQuery::default()
    };
    let hits = node.search.query(&query).map_err(failed)?;
    let matches = node.store.read(|reader| {
        let mut matches = Vec::with_capacity(hits.hits.len());
        for hit in &hits.hits {
            matches.extend(look_up(node, reader, actor, &query, hit)?);
        }
        Ok(matches)
    })?;
    let facets = counted(node, actor, hits.facets)?;
    Ok(Found { matches, total: hits.total, facets })
}

const FACETS: [&str; 3] = ["category", "tag", "author"];

/// What the matches must carry, by the names that the caller gave. A name of nothing is met by nothing.
fn narrowed(node: &Node, actor: &Actor, wanted: &Wanted) -> Result<Vec<(String, String)>> {
    let mut facets = Vec::new();
    let mut want = |name: &str, ids: Vec<Id>| {
        let ids = if ids.is_empty() { vec![Id::NIL] } else { ids };
        facets.extend(ids.into_iter().take(MAX_VALUES).map(|id| (name.to_owned(), id.to_string())));
    };
    content::read(node, |reader| {
        if let Some(name) = &wanted.category {
            let key = content::key_of(reader, actor.tenant, &category::SLUG, name)?;
            let keys = key.map(|key| category::with_descendants(reader, actor.tenant, key));
            want("category", keys.transpose()?.unwrap_or_default());
        }
        if let Some(name) = &wanted.tag {
            let key = content::key_of(reader, actor.tenant, &tag::SLUG, name)?;
            want("tag", key.into_iter().collect());
        }
        Ok(())
    })?;
    if let Some(name) = &wanted.author {
        let key = Id::parse(name).or_else(|| user::by_name(node, actor, name).ok().map(|u| u.key));
        want("author", key.into_iter().collect());
    }
    Ok(facets)
}

/// The index takes so many alternatives, those of the audience among them.
const MAX_VALUES: usize = 90;

type Values = Vec<(String, Vec<(String, u64)>)>;

/// The values of facets with their names; what has no name for readers, such as a category that waits, is left out.
fn counted(node: &Node, actor: &Actor, facets: Values) -> Result<Vec<(String, Vec<Counted>)>> {
    let ids = |name: &str| -> Vec<Id> {
        let values =
            facets.iter().filter(|(known, _)| known == name).flat_map(|(_, values)| values);
        values.filter_map(|(value, _)| Id::parse(value)).collect()
    };
    let (users, tags, categories) = (ids("author"), ids("tag"), ids("category"));
    let labels = feed::called(node, actor.tenant, users, tags, categories)?;
    let named = |(value, count): (String, u64)| {
        let label = labels.get(&Id::parse(&value)?)?.clone();
        Some(Counted { value, name: label.name, slug: label.slug, count })
    };
    let all = facets.into_iter().map(|(name, values)| {
        let values = values.into_iter().filter_map(named).collect();
        (name, values)
    });
    Ok(all.collect())
}

fn code_of(name: &str) -> Result<u16> {
    let known = kinds::named(name).filter(|kind| kind.search.is_some());
    let unknown = || {
        let names: Vec<_> =
            kinds::ALL.iter().filter(|k| k.search.is_some()).map(|k| k.name).collect();
        Error::field("type", "unknown_choice", format!("must be one of {}", names.join(", ")))
    };
    known.map(|kind| kind.code).ok_or_else(unknown)
}

/// None for what went between the index and now, or is not the actor's to see.
fn look_up(
    node: &Node,
    reader: &Reader<'_>,
    actor: &Actor,
    query: &SearchQuery,
    hit: &Hit,
) -> atoll_storage::Result<Option<Match>> {
    // What is in the trash is found by nobody, not even by who may see it there.
    let is_found = |post: &Record| post::may_see(actor, post) && !post::is_trashed(post);
    let marked = |text: &str| node.search.snippet(query, text);
    let found = |kind, record: &Record, post: &Record, text: &str, url| Match {
        kind,
        id: record.key,
        title: post.text(&post::TITLE).to_owned(),
        slug: post.text(&post::SLUG).to_owned(),
        snippet: marked(text),
        url,
        score: hit.score,
    };
    if hit.kind == POST.code {
        let post = reader.get_full(&POST, hit.id)?.filter(is_found);
        return Ok(post.map(|post| {
            let url = format!("/api/v1/posts/{}", post.key);
            let text = render::plain(post.text(&post::FORMAT), post.body(&post::BODY));
            found(POST.name, &post, &post, &text, url)
        }));
    }
    if hit.kind != COMMENT.code {
        return Ok(None);
    }
    let Some(comment) = reader.get(&COMMENT, hit.id)?.filter(|c| comment::may_see(actor, c)) else {
        return Ok(None);
    };
    let on = comment.id(&comment::POST_ID).map(|key| reader.get(&POST, key)).transpose()?.flatten();
    Ok(on.filter(is_found).map(|post| {
        let url = format!("/api/v1/posts/{}/comments", post.key);
        found(COMMENT.name, &comment, &post, comment.text(&comment::TEXT), url)
    }))
}

/// Titles that begin as the text does, for a list under the search box.
pub fn suggest(node: &Node, actor: &Actor, text: &str, limit: usize) -> Result<Vec<String>> {
    let text: String = text.chars().take(MAX_TEXT).collect();
    node.search.suggest(actor.tenant, &text, limit.clamp(1, MAX_SUGGESTIONS)).map_err(failed)
}

/// The queue whose jobs make the index again.
pub const REBUILD: &str = "search.rebuild";

/// Has the whole index made again, in the background; searches miss what is not in it yet.
pub async fn rebuild(node: &Node, actor: &Actor) -> Result<Job> {
    actor.require(Permission::SearchAdminister)?;
    job::start(node, actor, REBUILD, serde_json::json!({})).await
}
