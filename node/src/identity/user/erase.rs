//! The end of an account: its record is made anew, so that what its owner wrote keeps an author, but nothing in it says
//! who that was, and what was said before is erased from the logs of all nodes. Never undone. What was written apart from
//! it, on a node that had not heard, is kept nowhere when it comes.

use super::{
    DELETED_AT, DISPLAY_NAME, EMAIL, KEPT_SESSION, MUST_CHANGE_PASSWORD, ROLE, SIGNED_OUT_BEFORE,
    STATUS, USER, USERNAME, administered, keep_an_admin, require_version,
};
use crate::access::{Actor, Role};
use crate::audit;
use crate::blob::erased;
use crate::error::{Error, Result};
use crate::identity::api_key::API_KEY;
use crate::identity::session::SESSION;
use crate::identity::{announce, tenant};
use crate::runtime::Node;
use atoll_storage::erasure::marks;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Kind, Merge, Record, Value};
use serde_json::{Map, json};
use std::sync::Arc;

/// What others see in the place of a name.
pub const NOBODY: &str = "deleted user";

/// The marks of what was erased of the scope of accounts.
pub static ERASURE: Kind = marks(18, "erasure", "erasures", "identity");

const AT_ONCE: usize = 200;
/// More sessions, or keys, than a user can have.
const MOST_OF_A_KIND: usize = 1_000;

pub(super) fn is_erased(user: &Record) -> bool {
    user.int(&DELETED_AT).is_some()
}

pub(super) fn is_gone() -> Error {
    Error::conflict("account_deleted", "this account was deleted: make a new one")
}

/// Deleted, and yet something of its owner is there: it was written apart from the deletion.
pub(super) fn is_due(user: &Record) -> bool {
    if !is_erased(user) {
        return false;
    }
    let left = left_over(user);
    !left.registers.is_empty() || !left.dropped.is_empty()
}

/// The fields that stay: what an erased account says, the same on every node.
fn remains(user: &Record) -> [(&'static atoll_storage::Field, Value); 6] {
    // Of the random end of the id, so that it is nobody else's.
    let random = user.key.0[8..].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let name = format!("deleted-{random:016x}");
    [
        (&EMAIL, format!("{name}@deleted.invalid").into()),
        (&USERNAME, name.into()),
        (&DISPLAY_NAME, NOBODY.into()),
        (&ROLE, Role::Viewer.name().into()),
        (&STATUS, "deleted".into()),
        (&MUST_CHANGE_PASSWORD, Value::Bool(false)),
    ]
}

/// The changes that take away what is left of a person: every field that is not among [`remains`], those of later
/// releases too.
fn left_over(user: &Record) -> Changes {
    let remains = remains(user);
    let mut changes = Changes::new();
    for field in user.kind.fields {
        let stays = [&DELETED_AT, &SIGNED_OUT_BEFORE, &KEPT_SESSION];
        if stays.iter().any(|stays| stays.code == field.code) {
            continue;
        }
        match field.merge {
            Merge::Register => {
                let known = remains.iter().find(|(known, _)| known.code == field.code);
                let wanted = known.map_or(Value::Null, |(_, value)| value.clone());
                if *user.value(field) != wanted {
                    changes.put(field, wanted);
                }
            }
            Merge::Set => {
                for element in user.set(field) {
                    changes = changes.drop(field, element.clone());
                }
            }
            Merge::Body | Merge::Counter | Merge::Sketch => {}
        }
    }
    changes
}

/// Deletes somebody's account; what he wrote stays, by a deleted user.
///
/// # Errors
/// `Denied` for a user above the actor; `Conflict` (`last_admin`, `account_deleted`); `Stale`.
pub async fn erase(
    node: &Arc<Node>,
    actor: &Actor,
    id: Id,
    expected: Option<[u8; 16]>,
) -> Result<()> {
    administered(node, actor, id)?;
    let actor = *actor;
    node.store
        .write::<_, Error>(move |tx| {
            require_version(tx, id, expected)?;
            erase_in(tx, &actor, id)
        })
        .await?;
    erased::drop_now(node).await;
    Ok(())
}

/// Deletes one's own account. The password proves that it is no session left open.
pub async fn erase_me(node: &Arc<Node>, actor: &Actor, password: String) -> Result<()> {
    let me = super::confirm_in_person(node, actor, password).await?;
    let actor = *actor;
    node.store.write(move |tx| erase_in(tx, &actor, me.key)).await?;
    erased::drop_now(node).await;
    Ok(())
}

fn erase_in(tx: &mut Tx, actor: &Actor, id: Id) -> Result<()> {
    let user = tx.get(&USER, id)?.ok_or(Error::NotFound("user"))?;
    if is_erased(&user) {
        return Err(is_gone());
    }
    keep_an_admin(tx, id, Role::Viewer)?;
    let now_ms = tx.now_ms();
    let mut changes = Changes::new().set(&DELETED_AT, now_ms).set(&SIGNED_OUT_BEFORE, now_ms);
    for (field, value) in remains(&user) {
        changes.put(field, value);
    }
    tx.erase(&ERASURE, &USER, user.tenant, id)?;
    tx.create_at(&USER, user.tenant, id, changes, (user.created_ms(), now_ms))?;
    // Their names and devices tell of a person too.
    for kind in [&SESSION, &API_KEY] {
        let own = Query::of(kind, user.tenant).filter("user_id", id).limit(MOST_OF_A_KIND);
        for record in tx.list(&own.without_total())?.records {
            tx.erase(&ERASURE, kind, user.tenant, record.key)?;
        }
    }
    announce(tx, "cortex.user.deleted", user.tenant, actor.user, json!({ "user_id": id }))?;
    // Not what it was before: that is what shall be gone.
    audit::note_in(tx, user.tenant, actor, "user.deleted", Some(("user", id)), Map::new())
}

/// Takes away what came back to deleted accounts from nodes that had not heard. Every node writes the same. A worker
/// calls it now and then.
pub async fn sweep(node: &Node) -> Result<usize> {
    let mut done = 0;
    for tenant in tenant::ids(node)? {
        let query = Query::of(&USER, tenant).filter("unclean", true).limit(AT_ONCE).without_total();
        let due = node.store.read(|reader| reader.list(&query))?.records;
        if due.is_empty() {
            continue;
        }
        done += due.len();
        node.store
            .write::<_, Error>(move |tx| {
                for user in &due {
                    let Some(user) = tx.get(&USER, user.key)?.filter(is_due) else { continue };
                    tx.edit(&USER, user.key, left_over(&user))?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_of_an_account_are_fields_of_the_kind() {
        let kept = [&EMAIL, &USERNAME, &DISPLAY_NAME, &ROLE, &STATUS, &MUST_CHANGE_PASSWORD];
        for field in kept {
            assert!(USER.field_by_code(field.code).is_some(), "{}", field.name);
        }
        let roles = super::super::ROLE_IDS;
        assert!(USER.field_by_code(roles.code).is_some_and(|set| set.merge == Merge::Set));
    }
}
