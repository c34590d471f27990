//! The second factor of a sign-in: codes of an app, and recovery codes for who lost it. A code is good once, and a
//! wrong one counts as a wrong password does. Recovery codes are shown once and kept as hashes.

use super::session::{SESSION, SESSIONS_OF_A_USER, TOTP_STEP};
use super::user::{self, EMAIL, RECOVERY_CODES, TOTP_PENDING, TOTP_SECRET, USER};
use super::{announce, refused, tenant, totp};
use crate::access::Actor;
use crate::audit;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Id, Record, Value};
use serde_json::{Map, json};

const CODES: usize = 10;
const CODE_BYTES: usize = 10;

/// What an app needs to make codes.
pub struct Setup {
    /// In base 32, to be typed.
    pub secret: String,
    /// For a QR code.
    pub uri: String,
}

/// How it stands with an account's second factor.
pub struct Standing {
    pub is_on: bool,
    pub recovery_codes: usize,
}

/// A secret that codes were confirmed of, and the step of the code that did.
struct Secret<'a> {
    key: &'a [u8],
    confirmed_step: u64,
}

fn secret_of(user: &Record) -> Option<Secret<'_>> {
    let (key, step) = user.bytes(&TOTP_SECRET)?.split_at_checked(totp::SECRET_BYTES)?;
    Some(Secret { key, confirmed_step: u64::from_be_bytes(step.try_into().ok()?) })
}

pub(super) fn is_on(user: &Record) -> bool {
    secret_of(user).is_some()
}

pub fn standing(node: &Node, actor: &Actor) -> Result<Standing> {
    actor.require_session()?;
    let me = user::me(node, actor)?;
    Ok(Standing { is_on: is_on(&me), recovery_codes: me.set(&RECOVERY_CODES).count() })
}

/// Makes a secret, which counts for nothing until a code of it is confirmed.
///
/// # Errors
/// `Conflict` (`totp_on`) if there is a second factor.
pub async fn setup(node: &Node, actor: &Actor) -> Result<Setup> {
    actor.require_session()?;
    actor.require_in_person()?;
    let me = user::me(node, actor)?;
    let tenant = node.store.read(|reader| reader.get(&tenant::TENANT, me.tenant))?;
    let issuer = tenant.map_or_else(String::new, |tenant| tenant.text(&tenant::NAME).to_owned());
    let secret: [u8; totp::SECRET_BYTES] = node.random();
    let account = me.wanted(&EMAIL).to_owned();
    node.store
        .write(move |tx| {
            let me = tx.get(&USER, me.key)?.ok_or(Error::NotFound("user"))?;
            refuse_if_on(&me)?;
            let changes = Changes::new().set(&TOTP_PENDING, Value::Bytes(secret.to_vec()));
            tx.edit(&USER, me.key, changes)?;
            Ok::<_, Error>(())
        })
        .await?;
    Ok(Setup { secret: totp::base32(&secret), uri: totp::uri(&issuer, &account, &secret) })
}

fn refuse_if_on(user: &Record) -> Result<()> {
    if secret_of(user).is_none() {
        return Ok(());
    }
    let message = "this account has a second factor: disable it before you set up another";
    Err(Error::conflict("totp_on", message))
}

/// Turns the second factor on by the first code. Gives the recovery codes, which nobody can read again.
///
/// # Errors
/// `Invalid` (`wrong`) for a code that is not of now; `Conflict`: `totp_on`, `totp_not_set_up`; `TooMany`.
pub async fn confirm(node: &Node, actor: &Actor, code: &str) -> Result<Vec<String>> {
    actor.require_session()?;
    actor.require_in_person()?;
    let me = user::me(node, actor)?;
    let attempt = user::attempt(node, me.tenant, Some(&me), "")?;
    let codes: Vec<String> = (0..CODES).map(|_| new_code(node.random())).collect();
    let hashes: Vec<Value> = codes.iter().map(|code| hash(code)).collect();
    let (code, actor) = (code.trim().to_owned(), *actor);
    node.store
        .write(move |tx| {
            let me = tx.get(&USER, me.key)?.ok_or(Error::NotFound("user"))?;
            refuse_if_on(&me)?;
            let pending = me.bytes(&TOTP_PENDING).ok_or_else(|| {
                Error::conflict("totp_not_set_up", "set the second factor up before you confirm it")
            })?;
            let step = totp::step_of(pending, &code, tx.now_ms() / 1_000).ok_or_else(|| {
                Error::field("code", "wrong", "is not the present code of the new secret")
            })?;
            let secret = [pending, &step.to_be_bytes()].concat();
            let changes = Changes::new()
                .set(&TOTP_SECRET, Value::Bytes(secret))
                .set(&TOTP_PENDING, Value::Null);
            let changes = without_codes(&me, changes);
            let changes = hashes
                .into_iter()
                .fold(changes, |changes, hash| changes.add(&RECOVERY_CODES, hash));
            tx.edit(&USER, me.key, changes)?;
            note(tx, &actor, "user.totp_enabled", &me)?;
            let payload = json!({ "user_id": me.key });
            announce(tx, "cortex.user.totp_enabled", me.tenant, Some(me.key), payload)
        })
        .await?;
    node.identity.attempts.succeed(&attempt);
    Ok(codes)
}

/// # Errors
/// `Invalid` for a wrong password; `Unauthenticated` (`totp_invalid`) for a wrong code; `Conflict` (`totp_off`).
pub async fn disable(node: &Node, actor: &Actor, password: String, code: String) -> Result<()> {
    actor.require_session()?;
    actor.require_in_person()?;
    let me = user::me(node, actor)?;
    if secret_of(&me).is_none() {
        return Err(off());
    }
    let attempt = user::reprove(node, &me, "password", password).await?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            let me = tx.get(&USER, me.key)?.ok_or(Error::NotFound("user"))?;
            spend(tx, &me, Some(code.as_str()))?;
            turn_off(tx, &actor, me.key)
        })
        .await?;
    node.identity.attempts.succeed(&attempt);
    Ok(())
}

/// For somebody who lost both app and recovery codes, by those who administer.
///
/// # Errors
/// `Denied` for a user above the actor; `Conflict` (`totp_off`).
pub async fn drop_for(node: &Node, actor: &Actor, id: Id) -> Result<()> {
    let user = user::administered(node, actor, id)?;
    if secret_of(&user).is_none() {
        return Err(off());
    }
    let actor = *actor;
    node.store.write(move |tx| turn_off(tx, &actor, user.key)).await
}

fn off() -> Error {
    Error::conflict("totp_off", "this account has no second factor")
}

fn turn_off(tx: &mut Tx, actor: &Actor, key: Id) -> Result<()> {
    let user = tx.get(&USER, key)?.ok_or(Error::NotFound("user"))?;
    let changes = Changes::new().set(&TOTP_SECRET, Value::Null).set(&TOTP_PENDING, Value::Null);
    tx.edit(&USER, key, without_codes(&user, changes))?;
    note(tx, actor, "user.totp_disabled", &user)?;
    announce(tx, "cortex.user.totp_disabled", user.tenant, actor.user, json!({ "user_id": key }))
}

/// That it happened: what changed is secret.
fn note(tx: &mut Tx, actor: &Actor, action: &str, user: &Record) -> Result<()> {
    audit::note_in(tx, user.tenant, actor, action, Some((USER.name, user.key)), Map::new())
}

fn without_codes(user: &Record, changes: Changes) -> Changes {
    user.set(&RECOVERY_CODES)
        .fold(changes, |changes, hash| changes.drop(&RECOVERY_CODES, hash.clone()))
}

/// Uses up a code of the user, in the transaction of what it is for. The step is to be kept by the session that begins,
/// so that no node that knows the session takes the code again; none for a recovery code, and without a second factor.
///
/// # Errors
/// `Unauthenticated`: `totp_required` without a code, `totp_invalid` for one that is wrong or was used.
pub(super) fn spend(tx: &mut Tx, user: &Record, code: Option<&str>) -> Result<Option<u64>> {
    let Some(secret) = secret_of(user) else { return Ok(None) };
    let message = "this account has a second factor: send the code of your app, or a recovery code";
    let code = code.map(str::trim).filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| refused("totp_required", message))?;
    let invalid = || refused("totp_invalid", "this code is wrong, or was used: wait for the next");
    if let Some(step) = totp::step_of(secret.key, code, tx.now_ms() / 1_000) {
        let is_new = step > last_step(tx, user)?.max(secret.confirmed_step);
        return if is_new { Ok(Some(step)) } else { Err(invalid()) };
    }
    let hash = hash(code);
    if !user.has(&RECOVERY_CODES, &hash) {
        return Err(invalid());
    }
    tx.edit(&USER, user.key, Changes::new().drop(&RECOVERY_CODES, hash))?;
    let payload = json!({ "user_id": user.key });
    announce(tx, "cortex.user.recovery_code_used", user.tenant, Some(user.key), payload)?;
    Ok(None)
}

/// The latest step that a session of the user began with.
fn last_step(reader: &impl Read, user: &Record) -> Result<u64> {
    let query = Query::of(&SESSION, user.tenant).filter("user_id", user.key);
    let query = query.sort("key", true).limit(SESSIONS_OF_A_USER).without_total();
    let sessions = reader.list(&query)?.records;
    let steps = sessions.iter().filter_map(|session| session.int(&TOTP_STEP));
    Ok(steps.max().unwrap_or(0) as u64)
}

/// Four groups of four characters, 80 bits.
fn new_code(bytes: [u8; CODE_BYTES]) -> String {
    let text = totp::base32(&bytes).to_lowercase();
    let groups: Vec<&str> = (0..4).filter_map(|i| text.get(4 * i..4 * i + 4)).collect();
    groups.join("-")
}

/// Of the characters alone: hyphens, spaces and case are how people write it down.
fn hash(code: &str) -> Value {
    let folded: String =
        code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    Value::Bytes(blake3::hash(folded.as_bytes()).as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_code_may_be_written_as_people_do() {
        let code = new_code([0xab; CODE_BYTES]);
        assert_eq!((code.len(), code.matches('-').count()), (19, 3));
        assert_eq!(hash(&code), hash(&code.to_uppercase().replace('-', " ")));
        assert_ne!(hash(&code), hash(&new_code([0xac; CODE_BYTES])));
    }
}
