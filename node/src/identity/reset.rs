//! Forgotten passwords: a letter with a link that is good once, for an hour. Whoever asks learns nothing of whether
//! there is such an account, neither from the answer nor from how long it takes.

use super::names::{check_email, normal_email};
use super::proof::{Token, void};
use super::user::{
    self, EMAIL, EMAIL_VERIFIED_AT, MUST_CHANGE_PASSWORD, PASSWORD_HASH, RESET_TOKEN, USER,
};
use super::{announce, email};
use crate::access::Actor;
use crate::audit;
use crate::error::{Error, Result};
use crate::mail::{Letter, Order};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Id, Record, Value};
use serde_json::json;

pub(super) const LIFETIME_MS: u64 = 3_600 * 1_000;

/// Orders the letter, whoever the address belongs to: who that is, the queue looks up.
///
/// # Errors
/// `Invalid` for what is no address; `TooMany` after five letters to one.
pub async fn ask(node: &Node, tenant: Id, email: &str) -> Result<()> {
    let address = normal_email(email);
    check_email(&address).map_err(|e| Error::Invalid(vec![e]))?;
    node.identity.letters.begin(tenant, &address, node.clock.now_ms())?;
    let order =
        Order { tenant_id: tenant, letter: Letter::Reset, user_id: None, address: Some(address) };
    node.store.write(move |tx| order.enqueue(tx)).await
}

/// A token for a letter that goes out now; the one before it is void.
pub(super) async fn issue(node: &Node, user: &Record, address: &str) -> Result<String> {
    let token = Token::new(user.key, node.random());
    let sealed = token.seal(address, node.clock.now_ms() + LIFETIME_MS);
    let key = user.key;
    let changes = Changes::new().set(&RESET_TOKEN, sealed);
    node.store.write(move |tx| tx.edit(&USER, key, changes)).await?;
    Ok(token.to_text())
}

/// A new password for the token of a letter. Ends all sessions, and tells the owner.
///
/// # Errors
/// `Invalid`: `token_invalid`, or what is wrong with the password.
pub async fn reset(node: &Node, tenant: Id, token: &str, password: String) -> Result<()> {
    let token = Token::parse(token)?;
    let user = node.store.read(|reader| reader.get(&USER, token.user))?;
    let user = good(user, tenant, &token, node.clock.now_ms())?;
    user::check_new(&user, &password)?;
    let hash = user::hash(node, password).await?;
    node.store
        .write(move |tx| {
            let now = tx.now_ms();
            // Once more: of two who come with one token, one gets in.
            let user = good(tx.get(&USER, token.user)?, tenant, &token, now)?;
            let changes = Changes::new()
                .set(&PASSWORD_HASH, hash)
                .set(&MUST_CHANGE_PASSWORD, false)
                .set(&RESET_TOKEN, Value::Null);
            let mut changes = user::signed_out(changes, now, None);
            if !email::is_verified(&user) {
                changes.put(&EMAIL_VERIFIED_AT, now);
            }
            let after = tx.edit(&USER, user.key, changes)?;
            let owner = Actor { user: Some(user.key), ..Actor::stranger(tenant) };
            audit::note(tx, &owner, "user.password_reset", Some(&user), Some(&after))?;
            let payload = json!({ "user_id": user.key });
            announce(tx, "cortex.user.password_reset", tenant, Some(user.key), payload)?;
            Order::to(Letter::PasswordChanged, tenant, user.key).enqueue(tx)
        })
        .await
}

fn good(user: Option<Record>, tenant: Id, token: &Token, now_ms: u64) -> Result<Record> {
    let is_good = |user: &Record| {
        user.tenant == tenant
            && user::is_active(user)
            && token.opens(user, &RESET_TOKEN, user.wanted(&EMAIL), now_ms)
    };
    user.filter(is_good).ok_or_else(void)
}
