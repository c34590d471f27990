//! What administrators do with the accounts of others: finding them, editing them, giving them roles.

use super::{
    BIO, DISPLAY_NAME, EMAIL, ROLE, ROLE_IDS, USER, USERNAME, administered, check_email,
    check_username, edit_in, normal_email, refuse_above, require_version,
};
use crate::access::{Actor, Permission, PermissionSet};
use crate::error::{Error, FieldError, Result};
use crate::identity::role;
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::{Page, Query};
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Id, Record, Value};

/// How many accounts a text finds, by each of the names that it may begin.
pub const FOUND_MAX: usize = 500;

/// The display name as it is searched.
pub(super) fn folded_name(user: &Record) -> Value {
    user.opt_text(&DISPLAY_NAME).map(str::to_lowercase).into()
}

/// As [`super::list`], of those whose username, e-mail address or display name begins so.
pub fn list(node: &Node, actor: &Actor, query: Query, text: Option<&str>) -> Result<Page> {
    actor.require(Permission::UsersAdminister)?;
    let text = text.map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty());
    let page = node.store.read(|reader| {
        let Some(text) = text else { return reader.list(&query) };
        // Past every text that begins so.
        let last = format!("{text}\u{10ffff}");
        let mut keys: Vec<Value> = Vec::new();
        for column in ["username", "email", "name_folded"] {
            let begins = Query::of(&USER, actor.tenant)
                .filter_ge(column, text.as_str())
                .filter_le(column, last.as_str())
                .sort(column, false)
                .limit(FOUND_MAX)
                .without_total();
            keys.extend(reader.list(&begins)?.records.iter().map(|user| Value::Id(user.key)));
        }
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok(Page { records: vec![], next: None, total: 0 });
        }
        reader.list(&query.any_of("key", keys))
    })?;
    Ok(page)
}

/// What an administrator changes of an account. None stays as it is; an empty display name or bio is cleared.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    pub email: Option<String>,
    pub username: Option<String>,
    pub display_name: Option<String>,
    pub bio: Option<String>,
}

impl Patch {
    /// # Errors
    /// `Invalid` that names every field that is wrong.
    fn changes(self) -> Result<Changes> {
        let mut errors: Vec<FieldError> = Vec::new();
        let mut changes = Changes::new();
        if let Some(email) = self.email {
            let email = normal_email(&email);
            errors.extend(check_email(&email).err());
            changes.put(&EMAIL, email);
        }
        if let Some(username) = self.username {
            let username = username.trim().to_lowercase();
            errors.extend(check_username(&username).err());
            changes.put(&USERNAME, username);
        }
        for (field, text) in [(&DISPLAY_NAME, self.display_name), (&BIO, self.bio)] {
            if let Some(text) = text {
                changes.put(field, Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
            }
        }
        let named = |errors: &[FieldError], field: &str| errors.iter().any(|e| e.field == field);
        if let Err(Error::Invalid(more)) = kinds::validate(&USER, &changes, false) {
            let new: Vec<FieldError> =
                more.into_iter().filter(|error| !named(&errors, &error.field)).collect();
            errors.extend(new);
        }
        if errors.is_empty() { Ok(changes) } else { Err(Error::Invalid(errors)) }
    }
}

/// # Errors
/// `Denied` for a user above the actor; `Conflict` (`taken`, `account_deleted`); `Stale`.
pub async fn edit(
    node: &Node,
    actor: &Actor,
    id: Id,
    patch: Patch,
    expected: Option<[u8; 16]>,
) -> Result<Record> {
    administered(node, actor, id)?;
    let changes = patch.changes()?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            require_version(tx, id, expected)?;
            edit_in(tx, &actor, id, changes, "cortex.user.updated", None)
        })
        .await
}

/// Gives a user these roles and no others: built-in ones by name, those of the tenant by id or name. Of built-in
/// ones the highest counts; without any he is a viewer.
///
/// # Errors
/// `Denied` for what the actor himself lacks; `Conflict` (`last_admin`); `Invalid` for a role that there is not.
pub async fn set_roles(node: &Node, actor: &Actor, id: Id, names: Vec<String>) -> Result<Record> {
    let user = administered(node, actor, id)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let (rank, made) = role::named(tx, user.tenant, &names)?;
            refuse_above(&actor, rank)?;
            let given: PermissionSet =
                made.iter().map(role::given_by).fold(PermissionSet::EMPTY, PermissionSet::union);
            actor.require_all(given)?;
            let mut changes = Changes::new().set(&ROLE, rank.name());
            let keeps = |value: &&Value| made.iter().any(|role| value.as_id() == Some(role.key));
            for gone in user.set(&ROLE_IDS).filter(|value| !keeps(value)) {
                changes = changes.drop(&ROLE_IDS, gone.clone());
            }
            for role in &made {
                changes = changes.add(&ROLE_IDS, role.key);
            }
            edit_in(tx, &actor, id, changes, "cortex.user.role_changed", Some(rank))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_each_wrong_field_once_and_leaves_the_rest_alone() {
        let bad = Patch {
            email: Some("nobody".into()),
            username: Some("a b".into()),
            display_name: Some("x".repeat(101)),
            bio: None,
        };
        let Err(Error::Invalid(errors)) = bad.changes() else { panic!("taken") };
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["email", "username", "display_name"]);
        let good = Patch { bio: Some(String::new()), ..Patch::default() };
        let changes = good.changes().unwrap_or_default();
        assert_eq!((changes.get(&BIO), changes.get(&EMAIL)), (Some(&Value::Null), None));
    }
}
