//! The e-mail address of an account: proved by a letter, and changed by one to the new address. Until that is proved,
//! the present one stays; the address that was replaced hears of it.

use super::announce;
use super::names::{check_email, normal_email};
use super::proof::{Token, void};
use super::user::{self, EMAIL, EMAIL_VERIFIED_AT, NEW_EMAIL, USER, VERIFY_TOKEN};
use crate::access::Actor;
use crate::audit;
use crate::error::{Error, Result};
use crate::kinds;
use crate::mail::{Letter, Order};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Record, Value};
use serde_json::json;

pub(super) const LIFETIME_MS: u64 = 24 * 3_600 * 1_000;

pub fn is_verified(user: &Record) -> bool {
    user.int(&EMAIL_VERIFIED_AT).is_some()
}

/// A token for a letter that goes out now; the one before it is void.
pub(super) async fn issue(node: &Node, user: &Record, address: &str) -> Result<String> {
    let token = Token::new(user.key, node.random());
    let sealed = token.seal(address, node.clock.now_ms() + LIFETIME_MS);
    let key = user.key;
    let changes = Changes::new().set(&VERIFY_TOKEN, sealed);
    node.store.write(move |tx| tx.edit(&USER, key, changes)).await?;
    Ok(token.to_text())
}

/// # Errors
/// `Invalid` (`token_invalid`) for a token that is not good; `Conflict` (`taken`) if the new address went to somebody
/// else meanwhile.
pub async fn verify(node: &Node, tenant: Id, token: &str) -> Result<Record> {
    let token = Token::parse(token)?;
    node.store
        .write(move |tx| {
            let user = tx.get(&USER, token.user)?.filter(|user| user.tenant == tenant);
            let user = user.filter(user::is_active).ok_or_else(void)?;
            let now = tx.now_ms();
            let opens = |address: &str| token.opens(&user, &VERIFY_TOKEN, address, now);
            match user.opt_text(&NEW_EMAIL) {
                Some(new) if opens(new) => replace(tx, &user, new),
                _ if opens(user.wanted(&EMAIL)) => confirm(tx, &user),
                _ => Err(void()),
            }
        })
        .await
}

fn confirm(tx: &mut Tx, user: &Record) -> Result<Record> {
    let now = tx.now_ms();
    let changes = Changes::new().set(&EMAIL_VERIFIED_AT, now).set(&VERIFY_TOKEN, Value::Null);
    let after = tx.edit(&USER, user.key, changes)?;
    let payload = json!({ "user_id": user.key });
    announce(tx, "cortex.user.email_verified", user.tenant, Some(user.key), payload)?;
    Order::to(Letter::Welcome, user.tenant, user.key).enqueue(tx)?;
    Ok(after)
}

fn replace(tx: &mut Tx, user: &Record, new: &str) -> Result<Record> {
    let now = tx.now_ms();
    let changes = Changes::new()
        .set(&EMAIL, new)
        .set(&EMAIL_VERIFIED_AT, now)
        .set(&NEW_EMAIL, Value::Null)
        .set(&VERIFY_TOKEN, Value::Null);
    kinds::check(tx, &USER, user.tenant, Some(user.key), &changes)?;
    let after = tx.edit(&USER, user.key, changes)?;
    let payload = json!({ "user_id": user.key });
    announce(tx, "cortex.user.email_changed", user.tenant, Some(user.key), payload)?;
    let owner = Actor { user: Some(user.key), ..Actor::stranger(user.tenant) };
    audit::note(tx, &owner, "user.email_changed", Some(user), Some(&after))?;
    let notice = Order::to(Letter::EmailChanged, user.tenant, user.key);
    Order { address: Some(user.wanted(&EMAIL).to_owned()), ..notice }.enqueue(tx)?;
    Ok(after)
}

/// Another letter for the address that waits to be proved.
///
/// # Errors
/// `Conflict` (`already_verified`); `TooMany` after five letters.
pub async fn resend(node: &Node, actor: &Actor) -> Result<()> {
    actor.require_session()?;
    let me = user::me(node, actor)?;
    let letter = match me.opt_text(&NEW_EMAIL) {
        Some(_) => Letter::NewEmail,
        None if is_verified(&me) => {
            let message = "the e-mail address of this account is verified";
            return Err(Error::conflict("already_verified", message));
        }
        None => Letter::Verification,
    };
    node.identity.letters.begin(me.tenant, &me.key.to_string(), node.clock.now_ms())?;
    let order = Order::to(letter, me.tenant, me.key);
    node.store.write(move |tx| order.enqueue(tx)).await
}

/// Sends a letter to the new address. Whether it is taken, only its owner gets to know, by the link in it.
///
/// # Errors
/// `Invalid` for a wrong password or what is no new address; `TooMany`.
pub async fn change(node: &Node, actor: &Actor, email: &str, password: String) -> Result<Record> {
    actor.require_session()?;
    actor.require_in_person()?;
    let me = user::me(node, actor)?;
    let email = normal_email(email);
    check_email(&email).map_err(|e| Error::Invalid(vec![e]))?;
    if email == me.wanted(&EMAIL) {
        return Err(Error::field("email", "unchanged", "is your address already"));
    }
    let attempt = user::reprove(node, &me, "password", password).await?;
    node.identity.attempts.succeed(&attempt);
    let now_ms = node.clock.now_ms();
    node.identity.letters.begin(me.tenant, &me.key.to_string(), now_ms)?;
    node.identity.letters.begin(me.tenant, &email, now_ms)?;
    let actor = Actor { tenant: me.tenant, ..*actor };
    node.store
        .write(move |tx| {
            let changes = Changes::new().set(&NEW_EMAIL, email).set(&VERIFY_TOKEN, Value::Null);
            let after = tx.edit(&USER, me.key, changes)?;
            let payload = json!({ "user_id": me.key });
            announce(tx, "cortex.user.email_change_asked", me.tenant, Some(me.key), payload)?;
            audit::note(tx, &actor, "user.email_change_asked", Some(&me), Some(&after))?;
            Order::to(Letter::NewEmail, me.tenant, me.key).enqueue(tx)?;
            Ok(after)
        })
        .await
}
