//! Posts: what they are, who sees them, how they are made and changed. Transitions of their status stand in
//! `workflow`, their history in `version`. Never writes a version for a creation: most posts are never changed.

use super::slug::Wanted;
use super::{category, render, tag, version};
use crate::access::{Actor, Permission};
use crate::error::{Error, FieldError, Result};
use crate::identity::tenant;
use crate::identity::tenant::quota::{self, Quota};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Derived, Field, Id, Kind, Record, SearchText, Type, Value};

pub const TITLE: Field = Field::text(1, "title").required().max(300).column();
pub const SLUG: Field = Field::text(2, "slug")
    .max(200)
    .claim("post.slug")
    .doc("Unique in the tenant; made from the title if it is left out.");
pub const BODY: Field =
    Field::body(3, "body").doc("Merges by character when it is edited in two places.");
pub const EXCERPT: Field = Field::text(4, "excerpt").max(1_000);
pub const FORMAT: Field =
    Field::text(5, "format").choices(&["markdown", "html"]).doc("Of the body; markdown if absent.");
pub const STATUS: Field =
    Field::text(6, "status").choices(&[DRAFT, SCHEDULED, PUBLISHED, ARCHIVED]).column().read_only();
pub const AUTHOR_ID: Field = Field::refers(7, "author_id", "user").column().read_only();
pub const CATEGORY_ID: Field = Field::refers(8, "category_id", "category").column();
pub const TAG_IDS: Field = referring(Field::set(9, "tag_ids", Type::Id).max(50).column(), "tag");
pub const FEATURED: Field = Field::flag(10, "featured").column();
pub const PINNED: Field = Field::flag(11, "pinned").column();
pub const VISIBILITY: Field =
    Field::text(12, "visibility").choices(&[PUBLIC, MEMBERS, "private"]).column().doc(
        "Who sees it once it is published: everybody, who is signed in, or its author and editors.",
    );
pub const COVER: Field = Field::text(13, "cover").max(1_000).doc("The address of a picture.");
pub const META_TITLE: Field = Field::text(14, "meta_title").max(200);
pub const META_DESCRIPTION: Field = Field::text(15, "meta_description").max(500);
pub const CANONICAL_URL: Field = Field::text(16, "canonical_url").max(1_000);
pub const PUBLISH_AT: Field =
    Field::time(17, "publish_at").column().read_only().doc("When it is due, if scheduled.");
pub const PUBLISHED_AT: Field = Field::time(18, "published_at").column().read_only();
pub const TRASHED_AT: Field = Field::time(19, "trashed_at").column().read_only();
/// The heads of the body that whoever put it into the trash saw.
pub const TRASHED_HEADS: Field = Field::bytes(20, "trashed_heads").max(32 * 1_000).secret();
/// Names it had: they lead to it while nobody else takes them.
pub const OLD_SLUGS: Field =
    Field::set(21, "old_slugs", Type::Text).max(1_000).column().read_only().private();
/// A hash of the file that it was last imported from.
pub const IMPORTED_HASH: Field = Field::bytes(22, "imported_hash").max(32).secret();

pub const DRAFT: &str = "draft";
pub const SCHEDULED: &str = "scheduled";
pub const PUBLISHED: &str = "published";
pub const ARCHIVED: &str = "archived";
const PUBLIC: &str = "public";
const MEMBERS: &str = "members";

pub static POST: Kind = Kind {
    fields: &[
        TITLE,
        SLUG,
        BODY,
        EXCERPT,
        FORMAT,
        STATUS,
        AUTHOR_ID,
        CATEGORY_ID,
        TAG_IDS,
        FEATURED,
        PINNED,
        VISIBILITY,
        COVER,
        META_TITLE,
        META_DESCRIPTION,
        CANONICAL_URL,
        PUBLISH_AT,
        PUBLISHED_AT,
        TRASHED_AT,
        TRASHED_HEADS,
        OLD_SLUGS,
        IMPORTED_HASH,
    ],
    derived: &[
        Derived { name: "live", ty: Type::Bool, value: |post| Value::Bool(is_live(post)) },
        Derived { name: "trashed", ty: Type::Bool, value: |post| Value::Bool(is_trashed(post)) },
    ],
    indexes: &[
        &["live", "published_at"],
        &["status", "publish_at"],
        &["category_id", "live", "published_at"],
        &["author_id", "live", "published_at"],
    ],
    counted: &["live", "status"],
    search: Some(searched),
    revives: Some(|post| post.int(&TRASHED_AT).is_some() && !is_trashed(post)),
    doc: "An article: a body with a title, an address and a place in the workflow.",
    ..Kind::new(22, "post", "posts", super::SCOPE)
};

const fn referring(mut field: Field, kind: &'static str) -> Field {
    field.refers = Some(kind);
    field
}

/// In the trash, unless its body was edited by somebody who did not know of that: then the edit wins, the post is
/// back, and the inbox tells of it.
pub fn is_trashed(post: &Record) -> bool {
    let seen = post.bytes(&TRASHED_HEADS).unwrap_or_default();
    post.int(&TRASHED_AT).is_some() && seen == post.heads(&BODY).as_flattened()
}

/// The public sees it.
pub fn is_live(post: &Record) -> bool {
    post.text(&STATUS) == PUBLISHED && post.text(&VISIBILITY) == PUBLIC && !is_trashed(post)
}

fn searched(post: &Record) -> Option<SearchText> {
    if is_trashed(post) {
        return None;
    }
    let mut facets: Vec<(String, String)> = Vec::new();
    facets.extend(post.id(&CATEGORY_ID).map(|id| ("category".to_owned(), id.to_string())));
    facets.extend(post.id(&AUTHOR_ID).map(|id| ("author".to_owned(), id.to_string())));
    let tags = post.set(&TAG_IDS).filter_map(Value::as_id);
    facets.extend(tags.map(|id| ("tag".to_owned(), id.to_string())));
    let written = [&EXCERPT, &META_TITLE, &META_DESCRIPTION]
        .into_iter()
        .filter_map(|field| post.opt_text(field));
    let date_ms = post.int(&PUBLISHED_AT).unwrap_or(post.created_ms() as i64);
    Some(SearchText {
        title: post.text(&TITLE).to_owned(),
        body: post.body(&BODY).to_owned(),
        keywords: written.map(str::to_owned).collect(),
        public: is_live(post),
        status: post.text(&STATUS).to_owned(),
        parent: None,
        facets,
        date_ms,
    })
}

/// Drafts, archived and trashed posts are seen by their author and by editors only.
pub fn may_see(actor: &Actor, post: &Record) -> bool {
    let for_members = || {
        let shown = post.text(&STATUS) == PUBLISHED && post.text(&VISIBILITY) == MEMBERS;
        shown && actor.user.is_some() && !is_trashed(post)
    };
    post.tenant == actor.tenant && (is_live(post) || is_insider(actor, post) || for_members())
}

/// Its author, or an editor.
fn is_insider(actor: &Actor, post: &Record) -> bool {
    (actor.user.is_some() && actor.user == post.id(&AUTHOR_ID)) || actor.can(Permission::PostsWrite)
}

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
    let (post, is_old) = super::read(node, |reader| {
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

/// `query` is over [`POST`] in the actor's tenant. The public sees what is live; an author all of his own.
pub fn list(node: &Node, actor: &Actor, mut query: Query, by: &Narrowed) -> Result<Page> {
    let own = actor.user.is_some() && by.author == actor.user;
    let sees_all = own || actor.can(Permission::PostsWrite);
    if sees_all {
        query = query.filter("trashed", by.trashed);
    } else {
        query = query.filter("live", true);
    }
    if let Some(from_ms) = by.from_ms {
        query = query.filter_ge("published_at", from_ms);
    }
    if let Some(to_ms) = by.to_ms {
        query = query.filter_le("published_at", to_ms);
    }
    if let Some(author) = by.author {
        query = query.filter("author_id", author);
    }
    if let Some(text) = &by.text {
        query = query.any_of("key", matches(node, actor, text, !sees_all)?);
    }
    super::read(node, |reader| match narrow(reader, actor, query, by)? {
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
        let Some(key) = super::key_of(reader, actor.tenant, &category::SLUG, name)? else {
            return Ok(None);
        };
        let keys = category::with_descendants(reader, actor.tenant, key)?;
        query = match keys.as_slice() {
            [one] => query.filter("category_id", *one),
            all => query.any_of("category_id", all.iter().map(|key| Value::Id(*key)).collect()),
        };
    }
    if let Some(name) = &by.tag {
        let Some(key) = super::key_of(reader, actor.tenant, &tag::SLUG, name)? else {
            return Ok(None);
        };
        query = query.contains(&TAG_IDS, key);
    }
    Ok(Some(query))
}

/// What a caller wrote, checked and ready for the one transaction that makes a post of it.
pub struct Draft {
    pub(super) changes: Changes,
    slug: Wanted,
}

impl Draft {
    /// # Errors
    /// `Invalid` that names every field that is wrong.
    pub fn new(mut changes: Changes) -> Result<Self> {
        kinds::validate(&POST, &changes, true)?;
        check_addresses(&changes)?;
        let title = changes.get(&TITLE).and_then(Value::as_text).unwrap_or_default().to_owned();
        let slug = Wanted::of(&changes, &SLUG, &title)?;
        super::take(&mut changes, &SLUG);
        if changes.get_body(&BODY).is_none() {
            changes = changes.body(&BODY, "");
        }
        let defaults: [(&Field, Value); 3] =
            [(&FORMAT, "markdown".into()), (&FEATURED, false.into()), (&PINNED, false.into())];
        for (field, value) in defaults {
            if changes.get(field).is_none_or(Value::is_null) {
                changes.put(field, value);
            }
        }
        if changes.get(&STATUS).is_none() {
            changes.put(&STATUS, DRAFT);
        }
        Ok(Self { changes, slug })
    }

    /// The only way in which posts come into being.
    pub fn create(self, tx: &mut Tx<'_>, actor: &Actor, key: Option<Id>) -> Result<Record> {
        let Self { mut changes, slug } = self;
        kinds::check(tx, &POST, actor.tenant, None, &changes)?;
        quota::require(tx, actor.tenant, Quota::Posts)?;
        if changes.get(&VISIBILITY).is_none_or(Value::is_null) {
            let settings = tenant::settings(tx, actor.tenant)?;
            let wanted = settings.as_ref().and_then(|s| s.opt_text(&tenant::DEFAULT_VISIBILITY));
            changes.put(&VISIBILITY, wanted.unwrap_or(PUBLIC));
        }
        let key = key.unwrap_or_else(|| tx.new_id());
        let slug = slug.settle(tx, &SLUG, actor.tenant, key)?;
        let bytes = changes.get_body(&BODY).map_or(0, str::len) as u64;
        quota::store_bytes(tx, actor.tenant, 0, bytes)?;
        let changes = changes.set(&SLUG, slug).set(&AUTHOR_ID, actor.user);
        let post = tx.create(&POST, actor.tenant, key, changes)?;
        emit(tx, actor, "postal.post.created", &post)?;
        Ok(post)
    }
}

pub(super) fn emit(tx: &mut Tx<'_>, actor: &Actor, event_type: &str, post: &Record) -> Result<()> {
    super::emit(tx, actor, event_type, post, &TITLE, &SLUG)
}

/// A draft of the actor's.
pub async fn create(node: &Node, actor: &Actor, changes: Changes) -> Result<Record> {
    actor.require(Permission::PostsWrite)?;
    let draft = Draft::new(changes)?;
    let actor = *actor;
    node.store.write(move |tx| draft.create(tx, &actor, None)).await
}

/// Addresses lead to the web or stay on this site: nothing else is followed from a page.
fn check_addresses(changes: &Changes) -> Result<()> {
    let mut errors = Vec::new();
    for (field, relative) in [(&COVER, true), (&CANONICAL_URL, false)] {
        let Some(address) =
            changes.get(field).and_then(Value::as_text).filter(|text| !text.is_empty())
        else {
            continue;
        };
        let on_web = ["https://", "http://"]
            .iter()
            .any(|scheme| address.len() > scheme.len() && address.starts_with(scheme));
        let on_site = relative && address.starts_with('/') && !address.starts_with("//");
        if !(on_web || on_site) || address.chars().any(|c| c.is_whitespace() || c.is_control()) {
            let message = "must be an address that begins with https:// or http://";
            errors.push(FieldError::new(field.name, "malformed_address", message));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

/// A post that the actor may change, with its body.
pub(super) fn for_writing(
    reader: &impl Read,
    actor: &Actor,
    key: Id,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    let post = reader
        .get_full(&POST, key)?
        .filter(|post| may_see(actor, post))
        .ok_or(Error::NotFound("post"))?;
    actor.require_owner_or(post.id(&AUTHOR_ID), Permission::PostsAdminister)?;
    super::require_version(&post, expected)?;
    Ok(post)
}

/// For a handler that must know the post to read the changes: who may change it, and what it is now.
pub fn get_for_writing(node: &Node, actor: &Actor, key: Id) -> Result<Record> {
    super::read(node, |reader| for_writing(reader, actor, key, None))
}

/// Changes a post, and keeps a version of it. `expected`: the version that the caller has seen, if it insists.
pub async fn edit(
    node: &Node,
    actor: &Actor,
    key: Id,
    changes: Changes,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    kinds::validate(&POST, &changes, false)?;
    check_addresses(&changes)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let post = for_writing(tx, &actor, key, expected)?;
            change(tx, &actor, &post, changes, "")
        })
        .await
}

/// `post` is what is there, with its body. Says so already: then nothing is written.
pub(super) fn change(
    tx: &mut Tx<'_>,
    actor: &Actor,
    post: &Record,
    mut changes: Changes,
    note: &str,
) -> Result<Record> {
    if is_trashed(post) {
        return Err(Error::conflict("trashed", "the post is in the trash: restore it first"));
    }
    if let Some(wanted) = super::take(&mut changes, &SLUG) {
        changes = move_to(tx, post, changes, &wanted)?;
    }
    if !is_news(post, &changes) {
        return Ok(post.clone());
    }
    kinds::check(tx, &POST, post.tenant, Some(post.key), &changes)?;
    if let Some(text) = changes.get_body(&BODY) {
        let (before, now) = (post.body(&BODY).len() as u64, text.len() as u64);
        quota::store_bytes(tx, post.tenant, before, now)?;
    }
    version::keep_first(tx, post)?;
    let after = tx.edit(&POST, post.key, changes)?;
    version::keep(tx, actor, &after, note)?;
    emit(tx, actor, "postal.post.updated", &after)?;
    Ok(after)
}

/// Another slug; the old one goes on leading here. Null asks for one made from the title.
fn move_to(reader: &impl Read, post: &Record, changes: Changes, wanted: &Value) -> Result<Changes> {
    let old = post.text(&SLUG);
    if wanted.as_text() == Some(old) {
        return Ok(changes);
    }
    let title = changes.get(&TITLE).and_then(Value::as_text).unwrap_or(post.text(&TITLE));
    let slug = Wanted::of(&Changes::new().set(&SLUG, wanted.clone()), &SLUG, title)?;
    let slug = slug.settle(reader, &SLUG, post.tenant, post.key)?;
    if slug == old {
        return Ok(changes);
    }
    let changes = changes.drop(&OLD_SLUGS, slug.as_str()).set(&SLUG, slug);
    Ok(if old.is_empty() { changes } else { changes.add(&OLD_SLUGS, old) })
}

fn is_news(post: &Record, changes: &Changes) -> bool {
    changes.registers.iter().any(|(field, value)| post.value(field) != value)
        || changes.added.iter().any(|(field, element)| !post.has(field, element))
        || changes.dropped.iter().any(|(field, element)| post.has(field, element))
        || changes.bodies.iter().any(|(field, text)| post.body(field) != text)
}

/// What a reader is shown beside the fields.
pub struct Rendered {
    pub html: String,
    /// What was written, or the first words of the body.
    pub excerpt: String,
    pub reading_minutes: usize,
}

/// `post` came with its body.
pub async fn rendered(node: &Node, post: &Record) -> Result<Rendered> {
    let (format, body) = (post.text(&FORMAT), post.body(&BODY));
    let excerpt = match post.opt_text(&EXCERPT) {
        Some(written) => written.to_owned(),
        None => render::excerpt(format, body),
    };
    let html = render::html(node, format, body.to_owned()).await?;
    Ok(Rendered { html, excerpt, reading_minutes: render::reading_minutes(body) })
}

/// The keys of the best matches of a text.
fn matches(node: &Node, actor: &Actor, text: &str, public_only: bool) -> Result<Vec<Value>> {
    use atoll_storage::search::{MAX_LIMIT, SearchQuery};
    let mut keys = Vec::new();
    while keys.len() < SEARCHED_MAX {
        let query = SearchQuery {
            tenant: actor.tenant,
            text: text.to_owned(),
            kinds: vec![POST.code],
            public_only,
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
