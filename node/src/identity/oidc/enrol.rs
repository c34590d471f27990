//! The account of whoever a provider vouches for: found by issuer and subject, else linked by an address that both sides
//! have verified, else made. Never gives a right, and never lets a superadmin in.

use super::provider::Claims;
use crate::access::{Actor, Role};
use crate::audit;
use crate::error::{Error, Result};
use crate::identity::names::{self, check_email, check_username, normal_email};
use crate::identity::tenant::quota::{self, Quota};
use crate::identity::user::{
    self, DISPLAY_NAME, EMAIL, EMAIL_VERIFIED_AT, OIDC_SUBJECT, ROLE, STATUS, USER, USERNAME,
};
use crate::identity::{announce, email, refused};
use crate::kinds;
use crate::mail::{Letter, Order};
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Record};
use serde_json::json;

const NAMES_TRIED: u32 = 20;

/// Names are compared without regard to case, and a subject is not: so its hash stands for it.
pub(super) fn subject_of(issuer: &str, sub: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(issuer.len() as u64).to_le_bytes()).update(issuer.as_bytes());
    hasher.update(sub.as_bytes()).finalize().to_hex().to_string()
}

/// The account of whoever the provider vouches for.
pub(super) fn enrol(
    tx: &mut Tx,
    tenant: Id,
    claims: &Claims,
    subject: &str,
    is_open: bool,
) -> Result<Record> {
    if let Some(user) = linked(tx, tenant, subject)? {
        return admitted(user);
    }
    let address = claims.email.as_deref().map(normal_email).unwrap_or_default();
    if check_email(&address).is_err() {
        let message = "the provider names no e-mail address for you: allow it to, or sign up here";
        return Err(Error::Denied(message.to_owned()));
    }
    if let Some(user) = user::by_login(tx, tenant, &address)? {
        return link(tx, user, claims, subject);
    }
    if !is_open {
        return Err(Error::Denied("this tenant makes accounts by invitation only".to_owned()));
    }
    create(tx, tenant, claims, subject, address)
}

fn linked(tx: &Tx, tenant: Id, subject: &str) -> Result<Option<Record>> {
    let Some(space) = OIDC_SUBJECT.claim else { return Ok(None) };
    let holder = tx.claimed(tenant, space, subject)?;
    Ok(holder.map_or(Ok(None), |key| tx.get(&USER, key))?)
}

fn admitted(user: Record) -> Result<Record> {
    if user::role(&user) == Role::Superadmin {
        return Err(Error::Denied("a superadmin signs in with a password".to_owned()));
    }
    if !user::is_active(&user) {
        return Err(refused("account_disabled", "this account is disabled: ask an administrator"));
    }
    Ok(user)
}

/// Only if both sides have verified the address: else whoever signed up first with a foreign one would get its owner's
/// account.
fn link(tx: &mut Tx, user: Record, claims: &Claims, subject: &str) -> Result<Record> {
    let user = admitted(user)?;
    let is_free = user.opt_text(&OIDC_SUBJECT).is_none();
    if !(claims.email_verified && email::is_verified(&user) && is_free) {
        let message = "there is an account with your e-mail address: sign in with its password, and verify the address";
        return Err(Error::conflict("email_taken", message));
    }
    let user = tx.edit(&USER, user.key, Changes::new().set(&OIDC_SUBJECT, subject))?;
    let owner = Actor { user: Some(user.key), ..Actor::stranger(user.tenant) };
    let target = Some((USER.name, user.key));
    audit::note_in(
        tx,
        user.tenant,
        &owner,
        "user.provider_linked",
        target,
        serde_json::Map::new(),
    )?;
    let payload = json!({ "user_id": user.key });
    announce(tx, "cortex.user.provider_linked", user.tenant, Some(user.key), payload)?;
    Ok(user)
}

fn create(
    tx: &mut Tx,
    tenant: Id,
    claims: &Claims,
    subject: &str,
    address: String,
) -> Result<Record> {
    let (key, now) = (tx.new_id(), tx.now_ms());
    let username = free_username(tx, tenant, claims, &address)?;
    let display: String = claims
        .name
        .as_deref()
        .unwrap_or_default()
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(DISPLAY_NAME.max)
        .collect();
    let mut changes = Changes::new()
        .set(&EMAIL, address)
        .set(&USERNAME, username.as_str())
        .set(&DISPLAY_NAME, display)
        .set(&ROLE, Role::Viewer.name())
        .set(&STATUS, "active")
        .set(&OIDC_SUBJECT, subject);
    if claims.email_verified {
        changes.put(&EMAIL_VERIFIED_AT, now);
    }
    kinds::check(tx, &USER, tenant, None, &changes)?;
    quota::require(tx, tenant, Quota::Users)?;
    let user = tx.create(&USER, tenant, key, changes)?;
    let owner = Actor { user: Some(key), ..Actor::stranger(tenant) };
    audit::note(tx, &owner, "user.registered", None, Some(&user))?;
    let payload = json!({ "user_id": key, "username": username, "role": Role::Viewer.name() });
    announce(tx, "cortex.user.registered", tenant, Some(key), payload)?;
    let letter = if claims.email_verified { Letter::Welcome } else { Letter::Verification };
    Order::to(letter, tenant, key).enqueue(tx)?;
    Ok(user)
}

/// What the provider calls him, else the first part of his address; with a number if that is taken.
fn free_username(tx: &mut Tx, tenant: Id, claims: &Claims, address: &str) -> Result<String> {
    let wanted = claims.preferred_username.as_deref().unwrap_or(address);
    let base = user::username_from(wanted.split('@').next().unwrap_or_default(), "user");
    // Nobody shall look like those who run the place.
    let base = if names::is_reserved(&base) { format!("{base}-user") } else { base };
    for number in 0..NAMES_TRIED {
        let name = match number {
            0 => base.clone(),
            _ => format!("{}-{number}", base.get(..28).unwrap_or(&base)),
        };
        if check_username(&name).is_ok() && user::by_login(tx, tenant, &name)?.is_none() {
            return Ok(name);
        }
    }
    Ok(format!("user-{}", tx.new_id().suffix()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_differs_by_issuer_and_case() {
        assert_ne!(subject_of("https://a", "x"), subject_of("https://b", "x"));
        assert_ne!(subject_of("https://a", "x"), subject_of("https://a", "X"));
        assert_ne!(subject_of("https://a", "bx"), subject_of("https://ab", "x"));
    }
}
