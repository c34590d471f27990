//! How a category goes: never with what stands under it. Posts and sub-categories move to another one first, some at a
//! time, so that no transaction is long. Stopped half-way, it can be repeated.

use super::{CATEGORY, NAME, PARENT_ID, SLUG, UPDATED, check_parent, edit_noted};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::content::post::{CATEGORY_ID, POST};
use crate::content::{emit, in_tenant, read, require_version};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Event, Id, Record};
use serde_json::json;

/// Records that one transaction moves.
const MOVED_AT_ONCE: usize = 200;

/// Deletes a category; with `reassign_to`, its posts and sub-categories move there first.
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
    read(node, |reader| check_removal(reader, &actor, key, reassign_to, expected))?;
    while let Some(target) = reassign_to {
        if !node.store.write(move |tx| move_some(tx, &actor, key, target)).await? {
            break;
        }
    }
    node.store
        .write(move |tx| {
            let category = in_tenant(tx, &actor, &CATEGORY, key)?;
            refuse_used(tx, &category)?;
            emit(tx, &actor, "cortex.category.deleted", &category, &NAME, &SLUG)?;
            tx.remove(&CATEGORY, key)?;
            audit::note(tx, &actor, "category.deleted", Some(&category), None)
        })
        .await
}

/// Makes two categories one: all that stands under the first moves into the other, and the first is gone.
pub async fn merge(
    node: &Node,
    actor: &Actor,
    key: Id,
    into: Id,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    let renamed = |error| match error {
        Error::Invalid(mut fields) => {
            fields.iter_mut().for_each(|field| "into".clone_into(&mut field.field));
            Error::Invalid(fields)
        }
        other => other,
    };
    remove(node, actor, key, Some(into), expected).await.map_err(renamed)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let target = in_tenant(tx, &actor, &CATEGORY, into)?;
            let payload = json!({ "category_id": key, "into_id": into });
            let event_type = "cortex.category.merged";
            tx.emit(&Event { event_type, tenant: actor.tenant, user: actor.user, payload })?;
            Ok(target)
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
    let category = in_tenant(reader, actor, &CATEGORY, key)?;
    require_version(&category, expected)?;
    let Some(target) = reassign_to else { return refuse_used(reader, &category) };
    let refuse = |code, message| Err(Error::field("reassign_to", code, message));
    if in_tenant(reader, actor, &CATEGORY, target).is_err() {
        return refuse("unknown_reference", "there is no such category");
    }
    match check_parent(reader, actor.tenant, key, Some(target)) {
        Err(Error::Conflict { .. }) => {
            refuse("cycle", "must not be the category itself, nor lie under it")
        }
        Err(Error::Invalid(_)) => refuse("too_deep", "lies too deep for what would move there"),
        other => other,
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
    let category = in_tenant(tx, actor, &CATEGORY, key)?;
    in_tenant(tx, actor, &CATEGORY, target)?;
    let (posts, children) = users_of(&category);
    let posts = tx.list(&posts.limit(MOVED_AT_ONCE).without_total())?.records;
    let children = tx.list(&children.limit(MOVED_AT_ONCE).without_total())?.records;
    for post in &posts {
        let changes = Changes::new().set(&CATEGORY_ID, target);
        edit_noted(tx, actor, &POST, post, changes, "post.moved")?;
    }
    for child in children.iter().filter(|child| child.key != target) {
        let changes = Changes::new().set(&PARENT_ID, target);
        edit_noted(tx, actor, &CATEGORY, child, changes, UPDATED)?;
    }
    Ok(!posts.is_empty() || !children.is_empty())
}
