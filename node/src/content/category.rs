//! Categories: a tree that editors propose and administrators approve. A category with a parent is a
//! sub-category; nothing else sets them apart. Never lets a tree close into a circle on this node; circles that two
//! nodes make together are cut alike everywhere by the store.

use super::post::{CATEGORY_ID, POST};
use super::slug::{Wanted, slug_of};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, Record, Value};
use std::collections::HashMap;

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
    Field::text(6, "status").choices(&[PENDING, APPROVED]).column().read_only();
pub const AUTHOR_ID: Field =
    Field::refers(7, "author_id", "user").read_only().doc("Who proposed it.");

pub const PENDING: &str = "pending";
pub const APPROVED: &str = "approved";

pub static CATEGORY: Kind = Kind {
    fields: &[NAME, SLUG, DESCRIPTION, PARENT_ID, POSITION, STATUS, AUTHOR_ID],
    indexes: &[&["status", "position", "name"], &["parent_id"]],
    counted: &["status"],
    tree: Some(PARENT_ID.code),
    doc: "A heading under which posts stand; with a parent, a sub-category.",
    ..Kind::new(20, "category", "categories", super::SCOPE)
};

/// How deep a tree may grow.
const MAX_DEPTH: usize = 20;
/// The most that one tree shows.
const MAX_TREE: usize = 5_000;
/// Records that one transaction moves when a category goes.
const MOVED_AT_ONCE: usize = 200;

fn may_see(actor: &Actor, category: &Record) -> bool {
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
    all.sort_by_cached_key(|c| {
        (c.int(&POSITION).unwrap_or(i64::MAX), c.text(&NAME).to_lowercase(), c.key)
    });
    let known: HashMap<Id, Option<Id>> = all.iter().map(|c| (c.key, c.tree_parent())).collect();
    let mut below: HashMap<Option<Id>, Vec<Record>> = HashMap::new();
    for category in all {
        let parent = category.tree_parent().filter(|parent| known.contains_key(parent));
        below.entry(parent).or_default().push(category);
    }
    Ok(branches(None, &mut below, 0))
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

/// The category and all below it, for filters; bounded.
pub(super) fn with_descendants(reader: &impl Read, tenant: Id, key: Id) -> Result<Vec<Id>> {
    let mut all = vec![key];
    let mut at = 0;
    while at < all.len() && all.len() < 500 {
        let children =
            Query::of(&CATEGORY, tenant).filter("parent_id", all[at]).limit(100).without_total();
        for child in reader.list(&children)?.records {
            if !all.contains(&child.key) {
                all.push(child.key);
            }
        }
        at += 1;
    }
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
    check_parent(tx, key, changes.get(&PARENT_ID).and_then(Value::as_id))?;
    let slug = slug.settle(tx, &SLUG, actor.tenant, key)?;
    let changes = changes.set(&SLUG, slug).set(&STATUS, status).set(&AUTHOR_ID, actor.user);
    let category = tx.create(&CATEGORY, actor.tenant, key, changes)?;
    super::emit(tx, actor, "cortex.category.created", &category, &NAME, &SLUG)?;
    Ok(category)
}

/// The category of this name, made if there is none, alike on every node. None for a name without letters.
pub(super) fn ensure(tx: &mut Tx<'_>, actor: &Actor, name: &str) -> Result<Option<Id>> {
    let name: String = name.trim().chars().take(NAME.max).collect();
    let slug = slug_of(&name);
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
    let changes = Changes::new().set(&NAME, name);
    Ok(Some(create_in(tx, actor, key, changes, Wanted::Exactly(slug), status)?.key))
}

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
            check_parent(tx, key, changes.get(&PARENT_ID).and_then(Value::as_id))?;
            let after = tx.edit(&CATEGORY, key, changes)?;
            if after.version() != category.version() {
                super::emit(tx, &actor, "cortex.category.updated", &after, &NAME, &SLUG)?;
            }
            Ok(after)
        })
        .await
}

/// # Errors
/// `Invalid` (`cycle`, `too_deep`) if the way up from `parent` leads back to `key`, or is too long.
fn check_parent(reader: &impl Read, key: Id, parent: Option<Id>) -> Result<()> {
    let mut at = parent;
    for _ in 0..MAX_DEPTH {
        let Some(id) = at else { return Ok(()) };
        if id == key {
            return Err(Error::field("parent_id", "cycle", "a category cannot lie under itself"));
        }
        at = reader.get(&CATEGORY, id)?.and_then(|category| category.tree_parent());
    }
    Err(Error::field("parent_id", "too_deep", format!("categories nest at most {MAX_DEPTH} deep")))
}

/// From now on the public sees it. Approving what is approved changes nothing.
pub async fn approve(node: &Node, actor: &Actor, key: Id) -> Result<Record> {
    actor.require(Permission::CategoriesApprove)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let category = super::in_tenant(tx, &actor, &CATEGORY, key)?;
            if category.text(&STATUS) == APPROVED {
                return Ok(category);
            }
            let after = tx.edit(&CATEGORY, key, Changes::new().set(&STATUS, APPROVED))?;
            super::emit(tx, &actor, "cortex.category.approved", &after, &NAME, &SLUG)?;
            audit::note(tx, &actor, "category.approved", Some(&category), Some(&after))?;
            Ok(after)
        })
        .await
}

/// Deletes a category; with `reassign_to`, its posts and sub-categories move there first, some at a time, so that
/// no transaction is long. Stopped half-way, it can be repeated.
///
/// # Errors
/// `Conflict` (`category_in_use`) while anything uses it and there is no `reassign_to`.
pub async fn remove(
    node: &Node,
    actor: &Actor,
    key: Id,
    reassign_to: Option<Id>,
    expected: Option<[u8; 16]>,
) -> Result<()> {
    actor.require(Permission::CategoriesAdminister)?;
    let actor = *actor;
    super::read(node, |reader| check_removal(reader, &actor, key, reassign_to, expected))?;
    while let Some(target) = reassign_to {
        if !node.store.write(move |tx| move_some(tx, &actor, key, target)).await? {
            break;
        }
    }
    node.store
        .write(move |tx| {
            let category = super::in_tenant(tx, &actor, &CATEGORY, key)?;
            refuse_used(tx, &category)?;
            super::emit(tx, &actor, "cortex.category.deleted", &category, &NAME, &SLUG)?;
            Ok(tx.remove(&CATEGORY, key)?)
        })
        .await
}

fn check_removal(
    reader: &impl Read,
    actor: &Actor,
    key: Id,
    reassign_to: Option<Id>,
    expected: Option<[u8; 16]>,
) -> Result<()> {
    let category = super::in_tenant(reader, actor, &CATEGORY, key)?;
    super::require_version(&category, expected)?;
    let Some(target) = reassign_to else { return refuse_used(reader, &category) };
    let refuse = |code, message| Err(Error::field("reassign_to", code, message));
    if super::in_tenant(reader, actor, &CATEGORY, target).is_err() {
        return refuse("unknown_reference", "there is no such category");
    }
    match check_parent(reader, key, Some(target)) {
        Ok(()) => Ok(()),
        Err(_) => refuse("cycle", "must not be the category itself, nor lie under it"),
    }
}

fn users_of(category: &Record) -> (Query, Query) {
    let posts = Query::of(&POST, category.tenant).filter("category_id", category.key);
    (posts, Query::of(&CATEGORY, category.tenant).filter("parent_id", category.key))
}

fn refuse_used(reader: &impl Read, category: &Record) -> Result<()> {
    let (posts, children) = users_of(category);
    let (posts, children) = (reader.count(&posts)?, reader.count(&children)?);
    if posts + children == 0 {
        return Ok(());
    }
    let message = format!(
        "{posts} posts and {children} sub-categories use this category: move them, or name another one in reassign_to"
    );
    Err(Error::conflict("category_in_use", message))
}

/// Whether there was anything to move.
fn move_some(tx: &mut Tx<'_>, actor: &Actor, key: Id, target: Id) -> Result<bool> {
    let category = super::in_tenant(tx, actor, &CATEGORY, key)?;
    super::in_tenant(tx, actor, &CATEGORY, target)?;
    let (posts, children) = users_of(&category);
    let posts = tx.list(&posts.limit(MOVED_AT_ONCE).without_total())?.records;
    let children = tx.list(&children.limit(MOVED_AT_ONCE).without_total())?.records;
    for post in &posts {
        tx.edit(&POST, post.key, Changes::new().set(&CATEGORY_ID, target))?;
    }
    for child in children.iter().filter(|child| child.key != target) {
        tx.edit(&CATEGORY, child.key, Changes::new().set(&PARENT_ID, target))?;
    }
    Ok(!posts.is_empty() || !children.is_empty())
}
