//! Searching what the actor may see: hits of the index, looked up in the store, with the words marked. The index
//! says what matches; the store and the rules of each kind say who sees it.

use crate::access::{Actor, Permission};
use crate::community::comment::{self, COMMENT};
use crate::content::post::{self, POST};
use crate::error::{Error, Result};
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
    /// (name, value): alternatives where a name stands twice.
    pub facets: Vec<(String, String)>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Match {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: Id,
    pub title: String,
    /// HTML: the words found are in `<mark>`, everything else is escaped.
    pub snippet: String,
    pub url: String,
    pub score: f32,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Found {
    pub matches: Vec<Match>,
    pub total: u64,
    pub facets: Vec<(String, Vec<(String, u64)>)>,
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
        public_only: !actor.can(Permission::PostsWrite),
        facets: wanted.facets.clone(),
        count_facets: vec!["category".into(), "tag".into(), "author".into()],
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
    Ok(Found { matches, total: hits.total, facets: hits.facets })
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
    let marked = |text: &str| node.search.snippet(query, text);
    let found = |kind, record: &Record, title: &str, text: &str, url| Match {
        kind,
        id: record.key,
        title: title.to_owned(),
        snippet: marked(text),
        url,
        score: hit.score,
    };
    if hit.kind == POST.code {
        let post = reader.get_full(&POST, hit.id)?.filter(|post| post::may_see(actor, post));
        return Ok(post.map(|post| {
            let url = format!("/api/v1/posts/{}", post.key);
            found(POST.name, &post, post.text(&post::TITLE), post.body(&post::BODY), url)
        }));
    }
    if hit.kind != COMMENT.code {
        return Ok(None);
    }
    let Some(comment) = reader.get(&COMMENT, hit.id)?.filter(|c| comment::may_see(actor, c)) else {
        return Ok(None);
    };
    let on = comment.id(&comment::POST_ID).map(|key| reader.get(&POST, key)).transpose()?.flatten();
    Ok(on.filter(|post| post::may_see(actor, post)).map(|post| {
        let url = format!("/api/v1/posts/{}/comments", post.key);
        found(COMMENT.name, &comment, post.text(&post::TITLE), comment.text(&comment::TEXT), url)
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
