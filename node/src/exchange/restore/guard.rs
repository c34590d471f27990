//! What an archive may not do: give a right that its importer lacks, lead to another tenant, go beyond a quota, take a
//! name, or say what nobody could write by hand.

use super::super::line::Part;
use super::Restored;
use crate::access::{Actor, Permission, Role};
use crate::community::comment;
use crate::community::like;
use crate::content::post::{self, BODY, POST};
use crate::content::slug;
use crate::error::{Error, Result};
use crate::identity::tenant::quota::{self, Quota};
use crate::identity::{api_key, avatar, role, user};
use crate::kinds;
use atoll_storage::blob::BlobId;
use atoll_storage::read::Read as _;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Record, Value};

/// What is another tenant's is as good as missing; what is missing may yet come, or is gone there too.
pub(super) fn refuse_foreign(
    tx: &Tx<'_>,
    actor: &Actor,
    part: &Part,
    changes: &Changes,
) -> Result<()> {
    for (field, value) in changes.registers.iter().chain(&changes.added) {
        let Some(id) = value.as_id() else { continue };
        let is_liked = field.code == like::TARGET_ID.code && part.kind.code == like::LIKE.code;
        let kinds = match field.refers {
            _ if is_liked => vec![&POST, &comment::COMMENT],
            Some(name) => kinds::named(name).into_iter().collect(),
            None => vec![],
        };
        for kind in kinds {
            if tx.get(kind, id)?.is_some_and(|record| record.tenant != actor.tenant) {
                let message = format!("there is no such {}", kind.name);
                return Err(Error::field(field.name, "unknown_reference", message));
            }
        }
    }
    Ok(())
}

/// What whoever writes by hand is held to, where the declaration alone does not say it.
pub(super) fn check(part: &Part, changes: &Changes) -> Result<()> {
    for (field, value) in &changes.registers {
        if field.name == post::SLUG.name
            && field.claim.is_some()
            && let Some(slug) = value.as_text()
        {
            slug::checked(field, slug)?;
        }
    }
    if part.kind.code == POST.code { post::check_addresses(changes) } else { Ok(()) }
}

/// Room in the tenant for what is new or longer.
pub(super) fn room(
    tx: &mut Tx<'_>,
    actor: &Actor,
    part: &Part,
    before: Option<&Record>,
    changes: &Changes,
) -> Result<()> {
    let quota = match part.kind.code {
        code if code == user::USER.code => Quota::Users,
        code if code == POST.code => Quota::Posts,
        _ => return Ok(()),
    };
    if before.is_none() {
        quota::require(tx, actor.tenant, quota)?;
    }
    let was = before.map_or(0, |record| record.body(&BODY).len());
    match changes.get_body(&BODY) {
        Some(text) if quota == Quota::Posts => {
            quota::store_bytes(tx, actor.tenant, was as u64, text.len() as u64)
        }
        _ => Ok(()),
    }
}

pub(super) fn refuse_taken(tx: &Tx<'_>, actor: &Actor, key: Id, changes: &Changes) -> Result<()> {
    for (field, value) in &changes.registers {
        let (Some(space), Some(name)) = (field.claim, value.as_text()) else { continue };
        if tx.claimed(actor.tenant, space, name)?.is_some_and(|holder| holder != key) {
            let message = format!("the {} {name} is taken here", field.name);
            return Err(Error::conflict("taken", message));
        }
    }
    Ok(())
}

/// Nobody comes back with a role above that of whoever imports him, nor with one that gives what the importer lacks;
/// and nobody is changed by an importer who might not administer him.
pub(super) fn humbled(
    tx: &Tx<'_>,
    actor: &Actor,
    key: Id,
    mut changes: Changes,
) -> Result<Changes> {
    actor.require(Permission::UsersAdminister)?;
    if let Some(there) = tx.get(&user::USER, key)?.filter(|there| there.tenant == actor.tenant) {
        user::require_below(tx, actor, &there)?;
    }
    let mut given = Vec::with_capacity(changes.added.len());
    for (field, value) in changes.added {
        if field.code == user::ROLE_IDS.code {
            let role = value.as_id().map_or(Ok(None), |id| tx.get(&role::ROLE, id))?;
            let role = role.filter(|role| role.tenant == actor.tenant);
            if role.is_none_or(|role| actor.require_all(role::given_by(&role)).is_err()) {
                continue;
            }
        }
        given.push((field, value));
    }
    changes.added = given;
    let picture = changes.get(&user::AVATAR).and_then(Value::as_text);
    if picture.is_some_and(|name| BlobId::parse(name).is_none() && avatar::check_url(name).is_err())
    {
        changes.put(&user::AVATAR, Value::Null);
    }
    let role = changes.get(&user::ROLE).and_then(Value::as_text).and_then(Role::parse);
    if role.is_none_or(|role| actor.role.is_none_or(|own| role > own)) {
        changes.put(&user::ROLE, Role::Viewer.name());
    }
    Ok(changes)
}

/// A key comes back to an owner whom its importer may administer, or who is the importer himself: it acts as its owner.
pub(super) fn lent(
    tx: &Tx<'_>,
    actor: &Actor,
    restored: &Restored,
    changes: Changes,
) -> Result<Changes> {
    actor.require(Permission::UsersAdminister)?;
    if changes.get(&api_key::HASH).is_none_or(Value::is_null) {
        return Err(Error::Malformed(
            "comes without its hash, and so is good for nothing".to_owned(),
        ));
    }
    let owner = changes.get(&api_key::USER_ID).and_then(Value::as_id).unwrap_or_default();
    let owner = tx.get(&user::USER, owner)?.filter(|owner| owner.tenant == actor.tenant);
    if owner.is_none() && restored.dry_run {
        // Whom an earlier batch made was undone with it.
        return Ok(changes);
    }
    let owner = owner.ok_or_else(|| {
        Error::field(api_key::USER_ID.name, "unknown_reference", "there is no such user")
    })?;
    if actor.user != Some(owner.key) {
        user::require_below(tx, actor, &owner)?;
    }
    Ok(changes)
}

/// A role comes back with what whoever imports it could give.
pub(super) fn curbed(actor: &Actor, mut changes: Changes) -> Result<Changes> {
    actor.require(Permission::UsersAdminister)?;
    changes.added.retain(|(field, value)| {
        let permission = value.as_text().and_then(Permission::parse);
        field.code != role::PERMISSIONS.code || permission.is_some_and(|given| actor.can(given))
    });
    Ok(changes)
}
