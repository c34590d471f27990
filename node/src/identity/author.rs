//! People who are known only as authors of what was imported. Each is found by his e-mail address, or gets an account
//! that nobody can sign in to before an administrator enables it. Never gives anybody a right or a password.

use super::tenant::quota::{self, Quota};
use super::user::{self, DISPLAY_NAME, EMAIL, ROLE, STATUS, USER, USERNAME};
use super::{announce, names};
use crate::access::{Actor, Permission, Role};
use crate::audit;
use crate::error::Result;
use atoll_storage::Id;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use serde_json::json;

/// An author as a source names him.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Author {
    /// May be empty; then he is looked for by his username, and no account is made.
    pub email: String,
    pub username: String,
    pub name: String,
}

/// His account, if he has one.
pub(crate) fn find(reader: &impl Read, tenant: Id, author: &Author) -> Result<Option<Id>> {
    let email = names::normal_email(&author.email);
    let name = if email.is_empty() { author.username.trim().to_lowercase() } else { email };
    if name.is_empty() {
        return Ok(None);
    }
    Ok(user::by_login(reader, tenant, &name)?.map(|user| user.key))
}

/// His account, made if he has none. None if the actor may make none, or the source names no address.
pub(crate) fn ensure(tx: &mut Tx<'_>, actor: &Actor, author: &Author) -> Result<Option<Id>> {
    let tenant = actor.tenant;
    if let Some(found) = find(tx, tenant, author)? {
        return Ok(Some(found));
    }
    let email = names::normal_email(&author.email);
    if names::check_email(&email).is_err() || !actor.can(Permission::UsersAdminister) {
        return Ok(None);
    }
    let key = Id::natural(&[b"author", &tenant.0, email.as_bytes()]);
    if tx.get(&USER, key)?.is_some() {
        return Ok(Some(key));
    }
    let username = free_username(tx, tenant, author, &email, key)?;
    let display_name: String = author.name.trim().chars().take(DISPLAY_NAME.max).collect();
    let changes = Changes::new()
        .set(&EMAIL, email)
        .set(&USERNAME, username.as_str())
        .set(&DISPLAY_NAME, display_name)
        .set(&ROLE, Role::Viewer.name())
        .set(&STATUS, "disabled");
    quota::require(tx, tenant, Quota::Users)?;
    let user = tx.create(&USER, tenant, key, changes)?;
    audit::note(tx, actor, "user.registered", None, Some(&user))?;
    let payload = json!({ "user_id": key, "username": username, "role": Role::Viewer.name() });
    announce(tx, "cortex.user.registered", tenant, actor.user, payload)?;
    Ok(Some(key))
}

fn free_username(tx: &Tx<'_>, tenant: Id, author: &Author, email: &str, key: Id) -> Result<String> {
    let local = email.split('@').next().unwrap_or_default();
    let wished = if author.username.len() >= 3 { &author.username } else { local };
    let name = user::username_from(wished, "author");
    let is_free = tx.claimed(tenant, USERNAME.claim.unwrap_or_default(), &name)?.is_none();
    if is_free && !names::is_reserved(&name) {
        return Ok(name);
    }
    let short: String = name.chars().take(USERNAME.max - 7).collect();
    Ok(format!("{short}-{}", key.suffix()))
}
