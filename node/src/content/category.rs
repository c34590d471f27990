//! Categories: a tree that editors propose and administrators approve. A category with a parent is a
//! sub-category; nothing else sets them apart. Never lets a tree close into a circle on this node; circles that two
//! nodes make together are cut alike everywhere by the store.

mod removal;

pub use removal::{merge, remove};

use super::post::{CATEGORY_ID, POST};
use super::slug::{Wanted, slug_of};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, FieldError, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Field, Id, Kind, Record, Value};
use serde_json::json;
use std::collections::{HashMap, HashSet};

pub const NAME: Field = Field::text(1, "name").required().max(200).column();
pub const SLUG: Field = Field::text(2, "slug")
    .max(200)
    .claim("category.slug")
    .doc("Unique in the tenant; made from the name if it is left out.");
pub const DESCRIPTION: Field = Field::text(3, "description").max(2_000);
pub const PARENT_ID: Field = Field::refers(4, "parent_id", "category")
    .column()
    .doc("The category that this one lies under.");
pub const POSITION: Field = Field::int(5, "position").column().doc("Its place among its siblings.");
pub const STATUS: Field =
    Field::text(6, "status").choices(&[PENDING, APPROVED, REJECTED]).column().read_only();
pub const AUTHOR_ID: Field =
    Field::refers(7, "author_id", "user").read_only().doc("Who proposed it.");
pub const REJECTION: Field = Field::text(20, "rejection")
    .max(1_000)
    .read_only()
    .private()
    .doc("Why it was rejected, for who proposed it and for administrators.");

pub const PENDING: &str = "pending";
pub const APPROVED: &str = "approved";
pub const REJECTED: &str = "rejected";

pub static CATEGORY: Kind = Kind {
    fields: &[NAME, SLUG, DESCRIPTION, PARENT_ID, POSITION, STATUS, AUTHOR_ID, REJECTION],
    indexes: &[&["status", "position", "name"], &["parent_id"]],
    counted: &["status"],
    tree: Some(PARENT_ID.code),
    doc: "A heading under which posts stand; with a parent, a sub-category.",
    ..Kind::new(20, "category", "categories", super::SCOPE)
};

/// In the audit log.
const UPDATED: &str = "category.updated";
/// How deep a tree may grow.
const MAX_DEPTH: usize = 20;
/// The most that one tree shows.
const MAX_TREE: usize = 5_000;
/// The most that a filter by a category takes in with it.
const MAX_BELOW: usize = 1_000;
/// Siblings that one request puts in order.
pub const MAX_ORDERED: usize = 500;

/// One that waits for approval, or was rejected, is seen by who proposed it and by those who write categories.
pub fn may_see(actor: &Actor, category: &Record) -> bool {
    let is_own = actor.user.is_some() && actor.user == category.id(&AUTHOR_ID);
    let is_public = category.text(&STATUS) == APPROVED;
    category.tenant == actor.tenant
        && (is_public || is_own || actor.can(Permission::CategoriesWrite))
}

/// By id or slug.
pub fn get(node: &Node, actor: &Actor, name: &str) -> Result<Record> {
    let category = super::read(node, |reader| super::named(reader, actor, &CATEGORY, &SLUG, name))?;
    if may_see(actor, &category) { Ok(category) } else { Err(Error::NotFound("category")) }
}

/// `query` is over [`CATEGORY`] in the actor's tenant; the public sees the approved ones of it.
pub fn list(node: &Node, actor: &Actor, query: Query) -> Result<Page> {
    let query = if actor.can(Permission::CategoriesWrite) {
        query
    } else {
        query.filter("status", APPROVED)
    };
    Ok(node.store.read(|reader| reader.list(&query))?)
}

/// How many posts the public sees right under each of these, in one query; one without any is left out.
pub fn post_counts(node: &Node, tenant: Id, keys: &[Id]) -> Result<HashMap<Id, u64>> {
    let live = Query::of(&POST, tenant).filter("live", true);
    let mut counts = HashMap::with_capacity(keys.len());
    for some in keys.chunks(1_000) {
        let values: Vec<Value> = some.iter().map(|key| Value::Id(*key)).collect();
        let found = node.store.read(|reader| reader.count_by(&live, &CATEGORY_ID, &values))?;
        counts.extend(found.iter().filter_map(|(key, posts)| Some((key.as_id()?, *posts))));
    }
    Ok(counts)
}

/// A category with those below it, each level by position and name.
#[derive(Debug)]
pub struct Branch {
    pub category: Record,
    pub children: Vec<Branch>,
}

/// The whole tree that the actor may see. What lies under a category that he may not see stands at the top.
pub fn tree(node: &Node, actor: &Actor) -> Result<Vec<Branch>> {
    let mut all = super::read(node, |reader| {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let query =
                Query::of(&CATEGORY, actor.tenant).sort("key", false).limit(1_000).after(after);
            let page = reader.list(&query.without_total())?;
            all.extend(page.records.into_iter().filter(|category| may_see(actor, category)));
            after = page.next;
            if after.is_none() || all.len() >= MAX_TREE {
                return Ok(all);
            }
        }
    })?;
    all.truncate(MAX_TREE);
    all.sort_by_cached_key(place);
    let known: HashMap<Id, Option<Id>> = all.iter().map(|c| (c.key, c.tree_parent())).collect();
    let mut below: HashMap<Option<Id>, Vec<Record>> = HashMap::new();
    for category in all {
        let parent = category.tree_parent().filter(|parent| known.contains_key(parent));
        below.entry(parent).or_default().push(category);
    }
    Ok(branches(None, &mut below, 0))
}

/// What siblings are ordered by: those without a position come last, by name.
pub(super) fn place(category: &Record) -> (i64, String, Id) {
    let position = category.int(&POSITION).unwrap_or(i64::MAX);
    (position, category.text(&NAME).to_lowercase(), category.key)
}

fn branches(
    parent: Option<Id>,
    below: &mut HashMap<Option<Id>, Vec<Record>>,
    depth: usize,
) -> Vec<Branch> {
    // Nodes that built apart may exceed the depth together; what is deeper is left out of the tree, not of lists.
    if depth > 2 * MAX_DEPTH {
        return Vec::new();
    }
    let categories = below.remove(&parent).unwrap_or_default();
    let branch = |category: Record| {
        let children = branches(Some(category.key), below, depth + 1);
        Branch { category, children }
    };
    categories.into_iter().map(branch).collect()
}

/// The category and all below it, for filters, level by level. What lies deeper than a tree may grow, or beyond
/// [`MAX_BELOW`], is left out.
pub(crate) fn with_descendants(reader: &impl Read, tenant: Id, key: Id) -> Result<Vec<Id>> {
    let mut all = vec![key];
    let mut seen = HashSet::from([key]);
    let mut level = vec![Value::Id(key)];
    for _ in 0..2 * MAX_DEPTH {
        let below = Query::of(&CATEGORY, tenant).any_of("parent_id", level).limit(MAX_BELOW);
        let below = reader.list(&below.without_total())?.records;
        let fresh: Vec<Id> = below.iter().map(|c| c.key).filter(|key| seen.insert(*key)).collect();
        all.extend(&fresh);
        if fresh.is_empty() || all.len() >= MAX_BELOW {
            break;
        }
        level = fresh.into_iter().map(Value::Id).collect();
    }
    all.truncate(MAX_BELOW);
    Ok(all)
}

/// It waits for approval.
pub async fn create(node: &Node, actor: &Actor, changes: Changes) -> Result<Record> {
    actor.require(Permission::CategoriesWrite)?;
    kinds::validate(&CATEGORY, &changes, true)?;
    let actor = *actor;
    let name = changes.get(&NAME).and_then(Value::as_text).unwrap_or_default().to_owned();
    let slug = Wanted::of(&changes, &SLUG, &name)?;
    node.store
        .write(move |tx| {
            let key = tx.new_id();
            create_in(tx, &actor, key, changes, slug, PENDING)
        })
        .await
}

fn create_in(
    tx: &mut Tx<'_>,
    actor: &Actor,
    key: Id,
    mut changes: Changes,
    slug: Wanted,
    status: &str,
) -> Result<Record> {
    super::take(&mut changes, &SLUG);
    kinds::check(tx, &CATEGORY, actor.tenant, None, &changes)?;
    check_parent(tx, actor.tenant, key, changes.get(&PARENT_ID).and_then(Value::as_id))?;
    let slug = slug.settle(tx, &SLUG, actor.tenant, key)?;
    let changes = changes.set(&SLUG, slug).set(&STATUS, status).set(&AUTHOR_ID, actor.user);
    let category = tx.create(&CATEGORY, actor.tenant, key, changes)?;
    super::emit(tx, actor, "cortex.category.created", &category, &NAME, &SLUG)?;
    audit::note(tx, actor, "category.created", None, Some(&category))?;
    Ok(category)
}

/// A category as a source names it.
#[derive(Clone, Debug, Default)]
pub(super) struct Named<'a> {
    pub name: &'a str,
    /// Else one of the name.
    pub slug: Option<&'a str>,
    pub description: &'a str,
    /// The slug of the one that it lies under.
    pub parent: Option<&'a str>,
}

/// The category of this name, made if there is none, alike on every node. None for a name without letters.
pub(super) fn ensure(tx: &mut Tx<'_>, actor: &Actor, named: &Named<'_>) -> Result<Option<Id>> {
    let name: String = named.name.trim().chars().take(NAME.max).collect();
    let slug = slug_of(named.slug.unwrap_or(&name));
    if slug.is_empty() {
        return Ok(None);
    }
    if let Some(key) = tx.claimed(actor.tenant, SLUG.claim.unwrap_or_default(), &slug)? {
        return Ok(Some(key));
    }
    let natural = Id::natural(&[b"category", &actor.tenant.0, slug.as_bytes()]);
    let is_free = tx.get(&CATEGORY, natural)?.is_none();
    let key = if is_free { natural } else { tx.new_id() };
    let status = if actor.can(Permission::CategoriesApprove) { APPROVED } else { PENDING };
    let description: String = named.description.trim().chars().take(DESCRIPTION.max).collect();
    let mut changes = Changes::new().set(&NAME, name);
    if !description.is_empty() {
        changes.put(&DESCRIPTION, description);
    }
    let parent = named.parent.map(slug_of).filter(|parent| !parent.is_empty());
    if let Some(parent) = parent
        && let Some(key) = tx.claimed(actor.tenant, SLUG.claim.unwrap_or_default(), &parent)?
    {
        changes.put(&PARENT_ID, key);
    }
    Ok(Some(create_in(tx, actor, key, changes, Wanted::Exactly(slug), status)?.key))
}

/// Moves it too, with all that lies under it, if the parent is changed. Edited by who proposed it, a rejected one waits
/// for approval again.
pub async fn edit(
    node: &Node,
    actor: &Actor,
    key: Id,
    mut changes: Changes,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    actor.require(Permission::CategoriesWrite)?;
    kinds::validate(&CATEGORY, &changes, false)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let category = super::in_tenant(tx, &actor, &CATEGORY, key)?;
            super::require_version(&category, expected)?;
            if let Some(slug) = super::take(&mut changes, &SLUG)
                && slug.as_text() != Some(category.text(&SLUG))
            {
                let name =
                    changes.get(&NAME).and_then(Value::as_text).unwrap_or(category.text(&NAME));
                let slug = Wanted::of(&Changes::new().set(&SLUG, slug), &SLUG, name)?;
                let slug = slug.settle(tx, &SLUG, actor.tenant, key)?;
                changes.put(&SLUG, slug);
            }
            kinds::check(tx, &CATEGORY, actor.tenant, Some(key), &changes)?;
            let parent = changes.get(&PARENT_ID).and_then(Value::as_id);
            check_parent(tx, actor.tenant, key, parent)?;
            let is_own = actor.user.is_some() && actor.user == category.id(&AUTHOR_ID);
            if category.text(&STATUS) == REJECTED && is_own {
                changes.put(&STATUS, PENDING);
            }
            let after = tx.edit(&CATEGORY, key, changes)?;
            if after.version() != category.version() {
                super::emit(tx, &actor, "cortex.category.updated", &after, &NAME, &SLUG)?;
                audit::note(tx, &actor, UPDATED, Some(&category), Some(&after))?;
            }
            Ok(after)
        })
        .await
}

/// # Errors
/// `Conflict` (`cycle`) if the way up from `parent` leads back to `key`; `Invalid` (`too_deep`) if the way up and what
/// lies under `key` are too long together.
fn check_parent(reader: &impl Read, tenant: Id, key: Id, parent: Option<Id>) -> Result<()> {
    let (mut at, mut above) = (parent, 0);
    while let Some(id) = at.filter(|_| above <= 2 * MAX_DEPTH) {
        if id == key {
            let message = "a category cannot lie under itself, nor under one that lies under it";
            return Err(Error::conflict("cycle", message));
        }
        above += 1;
        at = reader.get(&CATEGORY, id)?.and_then(|category| category.tree_parent());
    }
    if above > 0 && above + height(reader, tenant, key)? >= MAX_DEPTH {
        let message = format!("categories nest at most {MAX_DEPTH} deep");
        return Err(Error::field("parent_id", "too_deep", message));
    }
    Ok(())
}

/// The levels below a category.
fn height(reader: &impl Read, tenant: Id, key: Id) -> Result<usize> {
    let mut level = vec![Value::Id(key)];
    for height in 0..MAX_DEPTH {
        let below = Query::of(&CATEGORY, tenant).any_of("parent_id", level).limit(1_000);
        let below = reader.list(&below.without_total())?.records;
        if below.is_empty() {
            return Ok(height);
        }
        level = below.iter().map(|category| Value::Id(category.key)).collect();
    }
    Ok(MAX_DEPTH)
}

/// Puts siblings into this order; those that are not named come where their positions say.
///
/// # Errors
/// `Invalid` (`unknown_reference`, `repeated`, `not_siblings`).
pub async fn reorder(node: &Node, actor: &Actor, keys: Vec<Id>) -> Result<Vec<Record>> {
    actor.require(Permission::CategoriesWrite)?;
    if keys.is_empty() || keys.len() > MAX_ORDERED {
        let message = format!("takes 1 to {MAX_ORDERED} categories");
        return Err(Error::field("ids", "out_of_range", message));
    }
    let actor = *actor;
    node.store
        .write(move |tx| {
            let categories = siblings(tx, &actor, &keys)?;
            let mut ordered = Vec::with_capacity(categories.len());
            for (place, category) in (0_i64..).zip(&categories) {
                let changes = Changes::new().set(&POSITION, place);
                ordered.push(edit_noted(tx, &actor, &CATEGORY, category, changes, UPDATED)?);
            }
            let event_type = "cortex.category.reordered";
            let payload = json!({ "category_ids": keys });
            tx.emit(&Event { event_type, tenant: actor.tenant, user: actor.user, payload })?;
            Ok(ordered)
        })
        .await
}

/// An edit by a person beside what he asked for: of a record that he moved, or ordered among others.
fn edit_noted(
    tx: &mut Tx<'_>,
    actor: &Actor,
    kind: &'static Kind,
    before: &Record,
    changes: Changes,
    action: &str,
) -> Result<Record> {
    let after = tx.edit(kind, before.key, changes)?;
    if after.version() != before.version() {
        audit::note(tx, actor, action, Some(before), Some(&after))?;
    }
    Ok(after)
}

fn siblings(reader: &impl Read, actor: &Actor, keys: &[Id]) -> Result<Vec<Record>> {
    let mut errors = Vec::new();
    let mut found: Vec<Record> = Vec::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        let wrong = |code, message| FieldError::new(format!("ids.{place}"), code, message);
        match super::in_tenant(reader, actor, &CATEGORY, *key) {
            Ok(_) if keys[..place].contains(key) => errors.push(wrong("repeated", "stands twice")),
            Ok(category)
                if found.first().is_some_and(|c| c.tree_parent() != category.tree_parent()) =>
            {
                errors.push(wrong("not_siblings", "lies under another category than the first"));
            }
            Ok(category) => found.push(category),
            Err(Error::NotFound(_)) => {
                errors.push(wrong("unknown_reference", "there is no such category"));
            }
            Err(error) => return Err(error),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(Error::Invalid(errors)) }
}

/// From now on the public sees it. Approving what is approved changes nothing.
pub async fn approve(node: &Node, actor: &Actor, key: Id) -> Result<Record> {
    decide(node, actor, key, None).await
}

/// The public does not see it, or not any more; who proposed it is told why.
pub async fn reject(node: &Node, actor: &Actor, key: Id, reason: String) -> Result<Record> {
    let reason = reason.trim().to_owned();
    if reason.is_empty() {
        return Err(Error::field("reason", "required", "is required"));
    }
    if reason.chars().count() > REJECTION.max || reason.contains('\0') {
        let message = format!("takes at most {} characters, and not U+0000", REJECTION.max);
        return Err(Error::field("reason", "too_long", message));
    }
    decide(node, actor, key, Some(reason)).await
}

/// Approves, or rejects for the reason given.
async fn decide(node: &Node, actor: &Actor, key: Id, reason: Option<String>) -> Result<Record> {
    actor.require(Permission::CategoriesApprove)?;
    let (status, event_type, action) = match reason {
        None => (APPROVED, "cortex.category.approved", "category.approved"),
        Some(_) => (REJECTED, "cortex.category.rejected", "category.rejected"),
    };
    let actor = *actor;
    node.store
        .write(move |tx| {
            let category = super::in_tenant(tx, &actor, &CATEGORY, key)?;
            let changes = Changes::new().set(&STATUS, status).set(&REJECTION, reason);
            let after = tx.edit(&CATEGORY, key, changes)?;
            if after.version() != category.version() {
                super::emit(tx, &actor, event_type, &after, &NAME, &SLUG)?;
                audit::note(tx, &actor, action, Some(&category), Some(&after))?;
            }
            Ok(after)
        })
        .await
}
