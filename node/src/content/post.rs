//! Posts: what they are, who sees them, how they are made and changed. Transitions of their status stand in
//! `workflow`, the trash in `trash`, their history in `version`. Never writes a version for a creation: most posts are
//! never changed.

mod find;
mod shown;

pub use find::{Narrowed, SEARCHED_MAX, get, list, named};
pub use shown::{Glance, Rendered, author_names, glances, rendered};

use super::slug::Wanted;
use super::version::{self, Base};
use crate::access::{Actor, Permission, Role};
use crate::error::{Error, FieldError, Result};
use crate::identity::tenant;
use crate::identity::tenant::quota::{self, Quota};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::Query;
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
    Field::text(12, "visibility").choices(&[PUBLIC, MEMBERS, ROLE, "private"]).column().doc(
        "Who sees it once it is published: everybody, who is signed in, who has one of visible_to_roles, or its \
         authors and editors.",
    );
pub const COVER: Field = Field::text(13, "cover").max(1_000).doc("The address of a picture.");
pub const META_TITLE: Field = Field::text(14, "meta_title").max(200);
pub const META_DESCRIPTION: Field = Field::text(15, "meta_description").max(500);
pub const CANONICAL_URL: Field = Field::text(16, "canonical_url").max(1_000);
pub const PUBLISH_AT: Field =
    Field::time(17, "publish_at").column().read_only().doc("When it is due, if scheduled.");
pub const PUBLISHED_AT: Field = Field::time(18, "published_at").column().read_only().silent();
pub const TRASHED_AT: Field = Field::time(19, "trashed_at").column().read_only();
/// The heads of the body that whoever put it into the trash saw.
pub const TRASHED_HEADS: Field =
    Field::bytes(20, "trashed_heads").max(32 * 1_000).secret().silent();
/// Names it had: they lead to it while nobody else takes them.
pub const OLD_SLUGS: Field =
    Field::set(21, "old_slugs", Type::Text).max(1_000).column().read_only().private();
/// A hash of the file that it was last imported from.
pub const IMPORTED_HASH: Field = Field::bytes(22, "imported_hash").max(32).secret().silent();
/// A hash of where it came from, without its tenant: by it an import finds a post that was restored in another.
pub const IMPORTED_FROM: Field = Field::bytes(33, "imported_from").max(16).column().secret();
/// Beside the first author. Each of them may do what an author may.
pub const AUTHOR_IDS: Field =
    referring(Field::set(30, "author_ids", Type::Id).max(20).column(), "user")
        .doc("Its other authors, beside author_id; each may change it.");
pub const VISIBLE_TO_ROLES: Field =
    Field::set(31, "visible_to_roles", Type::Text).max(Role::NAMES.len()).choices(Role::NAMES).doc(
        "Whom a post of the visibility `role` is shown to; its authors and editors see it anyway.",
    );
pub const NOINDEX: Field =
    Field::flag(32, "noindex").doc("Asks search engines to leave it out; the sitemap does.");

pub const DRAFT: &str = "draft";
pub const SCHEDULED: &str = "scheduled";
pub const PUBLISHED: &str = "published";
pub const ARCHIVED: &str = "archived";
const PUBLIC: &str = "public";
pub const MEMBERS: &str = "members";
const ROLE: &str = "role";
/// The stage of what is in the trash, whatever its status.
pub(super) const TRASHED: &str = "trashed";
/// What a pinned post's place is raised by: more than any time of publication.
const PINNED_FIRST: i64 = 1 << 52;

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
        AUTHOR_IDS,
        VISIBLE_TO_ROLES,
        NOINDEX,
        IMPORTED_FROM,
    ],
    derived: &[
        Derived { name: "live", ty: Type::Bool, value: |post| Value::Bool(is_live(post)) },
        Derived { name: "shown_to_viewers", ty: Type::Bool, value: |p| shown_to(p, Role::Viewer) },
        Derived {
            name: "shown_to_moderators",
            ty: Type::Bool,
            value: |p| shown_to(p, Role::Moderator),
        },
        Derived { name: "front", ty: Type::Int, value: front },
        Derived { name: "trashed", ty: Type::Bool, value: |post| Value::Bool(is_trashed(post)) },
        Derived { name: "stage", ty: Type::Text, value: |post| stage(post).into() },
        Derived { name: "aside", ty: Type::Text, value: aside },
        Derived { name: "due_at", ty: Type::Time, value: due_at },
    ],
    indexes: &[
        &["+published_at"],
        &["+front"],
        &["+aside", "due_at"],
        &["category_id", "live", "front"],
        &["author_id", "live", "published_at"],
        &["+imported_from"],
        &["featured", "published_at"],
    ],
    counted: &["live", "shown_to_viewers", "shown_to_moderators", "trashed", "status", "stage"],
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

/// Whether it is shown to readers of this role; none stands for whoever is not signed in.
pub(crate) fn is_shown_to(post: &Record, role: Option<Role>) -> bool {
    let is_for_them = match (post.text(&VISIBILITY), role) {
        (PUBLIC, _) | (MEMBERS, Some(_)) => true,
        (ROLE, Some(role)) => post.has(&VISIBLE_TO_ROLES, &Value::from(role.name())),
        _ => false,
    };
    is_for_them && post.text(&STATUS) == PUBLISHED && !is_trashed(post)
}

/// The public sees it.
pub fn is_live(post: &Record) -> bool {
    is_shown_to(post, None)
}

fn shown_to(post: &Record, role: Role) -> Value {
    Value::Bool(is_shown_to(post, Some(role)))
}

/// The column that is true of what readers of this role see in lists; editors see all.
fn shown_column(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Viewer) => "shown_to_viewers",
        Some(Role::Moderator) => "shown_to_moderators",
        _ => "live",
    }
}

/// What the actor's lists of posts hold that are for reading.
pub(crate) fn readable(query: Query, actor: &Actor) -> Query {
    if actor.can(Permission::PostsWrite) {
        return query.filter("stage", PUBLISHED);
    }
    query.filter(shown_column(actor.role), true)
}

/// What readers' lists are ordered by, if they ask for no other order: the pinned first, then the latest.
fn front(post: &Record) -> Value {
    let raised = if post.flag(&PINNED) { PINNED_FIRST } else { 0 };
    post.int(&PUBLISHED_AT).map(|at_ms| at_ms.saturating_add(raised)).into()
}

/// Its status, or that it is in the trash.
fn stage(post: &Record) -> &str {
    if is_trashed(post) { TRASHED } else { post.text(&STATUS) }
}

/// Stages that few posts are in, which are found by it; none for drafts and what is published.
pub(super) const ASIDE: [&str; 3] = [SCHEDULED, ARCHIVED, TRASHED];

fn aside(post: &Record) -> Value {
    ASIDE.into_iter().find(|aside| *aside == stage(post)).into()
}

/// When something happens to it by itself: it is published, or counts as long enough in the trash.
fn due_at(post: &Record) -> Value {
    post.int(if is_trashed(post) { &TRASHED_AT } else { &PUBLISH_AT }).into()
}

fn searched(post: &Record) -> Option<SearchText> {
    if is_trashed(post) {
        return None;
    }
    let mut facets: Vec<(String, String)> = Vec::new();
    facets.extend(post.id(&CATEGORY_ID).map(|id| ("category".to_owned(), id.to_string())));
    facets.extend(authors(post).map(|id| ("author".to_owned(), id.to_string())));
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

/// Drafts, archived and trashed posts are seen by their authors and by editors only.
pub fn may_see(actor: &Actor, post: &Record) -> bool {
    let is_insider = || is_author(actor, post) || actor.can(Permission::PostsWrite);
    post.tenant == actor.tenant && (is_shown_to(post, actor.role) || is_insider())
}

/// The first author, then the others; nobody twice.
pub fn authors(post: &Record) -> impl Iterator<Item = Id> {
    let first = post.id(&AUTHOR_ID);
    let others = post.set(&AUTHOR_IDS).filter_map(Value::as_id);
    first.into_iter().chain(others.filter(move |id| Some(*id) != first))
}

pub fn is_author(actor: &Actor, post: &Record) -> bool {
    actor.user.is_some_and(|user| authors(post).any(|author| author == user))
}

/// The permission, or to be one of its authors.
pub fn require_author_or(actor: &Actor, post: &Record, permission: Permission) -> Result<()> {
    if is_author(actor, post) { Ok(()) } else { actor.require(permission) }
}

/// What a caller wrote, checked and ready for the one transaction that makes a post of it.
pub struct Draft {
    pub(super) changes: Changes,
    slug: Wanted,
    /// Another author than the actor.
    pub(super) author: Option<Id>,
    /// When it was made and changed last, if that was before it came here.
    pub(super) times_ms: Option<(u64, u64)>,
}

impl Draft {
    /// # Errors
    /// `Invalid` that names every field that is wrong.
    pub fn new(mut changes: Changes) -> Result<Self> {
        kinds::validate(&POST, &changes, true)?;
        check_addresses(&changes)?;
        check_audience(None, &changes)?;
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
        Ok(Self { changes, slug, author: None, times_ms: None })
    }

    /// The only way in which posts come into being.
    pub fn create(self, tx: &mut Tx<'_>, actor: &Actor, key: Option<Id>) -> Result<Record> {
        let Self { mut changes, slug, author, times_ms } = self;
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
        let changes = changes.set(&SLUG, slug).set(&AUTHOR_ID, author.or(actor.user));
        let post = match times_ms {
            Some(times_ms) => tx.create_at(&POST, actor.tenant, key, changes, times_ms)?,
            None => tx.create(&POST, actor.tenant, key, changes)?,
        };
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
pub(crate) fn check_addresses(changes: &Changes) -> Result<()> {
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

/// A post for roles names at least one.
fn check_audience(post: Option<&Record>, changes: &Changes) -> Result<()> {
    let present = || post.map(|post| post.text(&VISIBILITY));
    let visibility = changes.get(&VISIBILITY).and_then(Value::as_text).or_else(present);
    let touches = |list: &[(Field, Value)], element: &Value| {
        list.iter().any(|(field, e)| field.code == VISIBLE_TO_ROLES.code && e == element)
    };
    let is_named = |name: &str| {
        let role = Value::from(name);
        let kept = post.is_some_and(|post| post.has(&VISIBLE_TO_ROLES, &role));
        touches(&changes.added, &role) || (kept && !touches(&changes.dropped, &role))
    };
    if visibility != Some(ROLE) || Role::NAMES.iter().any(|name| is_named(name)) {
        return Ok(());
    }
    let message = "must name at least one role while the visibility is `role`";
    Err(Error::field(VISIBLE_TO_ROLES.name, "required", message))
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
    require_author_or(actor, &post, Permission::PostsAdminister)?;
    super::require_version(&post, expected)?;
    Ok(post)
}

/// For a handler that must know the post to read the changes: who may change it, and what it is now.
pub fn get_for_writing(node: &Node, actor: &Actor, key: Id) -> Result<Record> {
    super::read(node, |reader| for_writing(reader, actor, key, None))
}

/// What a change comes with beside the fields.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// The version that the caller insists on.
    pub expected: Option<[u8; 16]>,
    /// What the caller began from, if that is perhaps not what is there now: what others did since stays.
    pub base: Option<Base>,
    /// Stands in the list of versions.
    pub note: String,
}

/// Changes a post, and keeps a version of it. `expected`: the version that the caller has seen, if it insists.
pub async fn edit(
    node: &Node,
    actor: &Actor,
    key: Id,
    changes: Changes,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    edit_in(node, actor, key, changes, Manner { expected, ..Manner::default() }).await
}

/// As [`edit`], with a note or from an older version.
///
/// # Errors
/// `Stale` if it is not the version expected; `Conflict` (`unknown_base`, `trashed`, `slug_taken`).
pub async fn edit_in(
    node: &Node,
    actor: &Actor,
    key: Id,
    changes: Changes,
    manner: Manner,
) -> Result<Record> {
    kinds::validate(&POST, &changes, false)?;
    check_addresses(&changes)?;
    version::check_note(&manner.note)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let post = for_writing(tx, &actor, key, manner.expected)?;
            let changes = match &manner.base {
                Some(base) => version::since(tx, &post, base, changes)?,
                None => changes,
            };
            change(tx, &actor, &post, changes, &manner.note)
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
    check_audience(Some(post), &changes)?;
    kinds::check(tx, &POST, post.tenant, Some(post.key), &changes)?;
    if let Some(text) = changes.get_body(&BODY) {
        let (before, now) = (post.body(&BODY).len() as u64, text.len() as u64);
        quota::store_bytes(tx, post.tenant, before, now)?;
    }
    version::keep_before(tx, post)?;
    let after = tx.edit(&POST, post.key, changes)?;
    if after.version() == post.version() {
        // A change from an older version that is there already.
        return Ok(after);
    }
    version::keep(tx, actor, post, &after, note)?;
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
