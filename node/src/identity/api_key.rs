//! Keys for programs: a secret that acts as its owner, within scopes. Kept as a hash; what a key may do is what its
//! scopes and its owner's present role both hold. Shown once, good on every node that has heard of it, and ended there
//! by the record of its end.

use super::{announce, refused, role, tenant, user};
use crate::access::{Actor, Permission, PermissionSet, Role};
use crate::audit;
use crate::error::{Error, FieldError, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, NodeId, Record, Type, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub const USER_ID: Field = Field::refers(1, "user_id", "user").required().column().read_only();
pub const NAME: Field = Field::text(2, "name").required().max(100).doc("What it is for.");
pub const PREFIX: Field =
    Field::text(3, "prefix").max(20).read_only().doc("How the key begins, to tell it by.");
pub const HASH: Field = Field::bytes(4, "hash").max(32).secret();
pub const SCOPES: Field = Field::set(5, "scopes", Type::Text)
    .doc("Names of permissions, none that its maker lacks. Without any the key only reads.");
pub const EXPIRES_AT: Field = Field::time(6, "expires_at").doc("It lasts until revoked if absent.");
pub const LAST_USED_AT: Field = Field::time(7, "last_used_at")
    .read_only()
    .silent()
    .doc("To the hour, as far as nodes have met.");
pub const REVOKED_AT: Field = Field::time(8, "revoked_at").read_only().silent();

pub static API_KEY: Kind = Kind {
    fields: &[USER_ID, NAME, PREFIX, HASH, SCOPES, EXPIRES_AT, LAST_USED_AT, REVOKED_AT],
    indexes: &[&["user_id"]],
    doc: "A key by which a program acts for its owner.",
    ..Kind::new(12, "api_key", "api_keys", "identity")
};

/// What every key begins with, so that people and scanners know one when they see it.
pub const MARK: &str = "atoll_";
const SECRET_BYTES: usize = 32;
/// The mark, and of the rest what the id makes: nothing of the secret.
const PREFIX_CHARS: usize = MARK.len() + 12;
const KEYS_OF_A_USER: usize = 50;
const HOUR_MS: u64 = 3_600 * 1_000;
/// How long one that has ended stays to be seen by nodes that were away.
const KEPT_MS: u64 = 30 * 24 * HOUR_MS;
const SWEPT_AT_ONCE: usize = 1_000;
const PAGES_SWEPT: usize = 50;
/// Keys whose use is remembered until it is noted.
const MOST_USED: usize = 10_000;

/// When keys were used on this node since it was last noted: a write a request would be too dear.
#[derive(Default)]
pub(super) struct Used(Mutex<HashMap<Id, u64>>);

impl Used {
    fn lock(&self) -> MutexGuard<'_, HashMap<Id, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: Id, now_ms: u64) {
        let mut all = self.lock();
        if all.len() < MOST_USED || all.contains_key(&key) {
            all.insert(key, now_ms);
        }
    }
}

/// A key as it is shown once, and its record.
pub struct Made {
    pub key: String,
    pub record: Record,
}

/// `base64url(id, secret)` behind the mark.
struct Secret {
    id: Id,
    secret: [u8; SECRET_BYTES],
}

impl Secret {
    fn to_text(&self) -> String {
        let body = URL_SAFE_NO_PAD.encode([&self.id.0[..], &self.secret].concat());
        format!("{MARK}{body}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16 + SECRET_BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(MARK)?, &mut bytes).ok()?;
        let (id, secret) = bytes.split_at(16);
        let secret = Self { id: Id::from_slice(id)?, secret: secret.try_into().ok()? };
        (read == bytes.len()).then_some(secret)
    }

    fn hash(&self) -> blake3::Hash {
        blake3::hash(&self.secret)
    }
}

/// `changes` set name, scopes and end.
///
/// # Errors
/// `Invalid` names each scope that is none or that the maker lacks, and an end that is past; `Conflict`
/// (`too_many_keys`); `Denied` for a key that wants to make keys.
pub async fn create(node: &Node, actor: &Actor, changes: Changes) -> Result<Made> {
    actor.require_session()?;
    actor.require_in_person()?;
    let me = user::me(node, actor)?;
    kinds::validate(&API_KEY, &changes, true)?;
    check(actor, &changes, node.clock.now_ms())?;
    let secret = Secret { id: node.new_id(), secret: node.random() };
    let text = secret.to_text();
    let prefix: String = text.chars().take(PREFIX_CHARS).collect();
    let actor = *actor;
    let changes = changes
        .set(&USER_ID, me.key)
        .set(&PREFIX, prefix)
        .set(&HASH, Value::Bytes(secret.hash().as_bytes().to_vec()));
    let record = node
        .store
        .write(move |tx| {
            let now = tx.now_ms();
            if of_user(tx, &me)?.iter().filter(|key| !has_ended(key, now)).count() >= KEYS_OF_A_USER
            {
                let message = format!("an account has at most {KEYS_OF_A_USER} keys: revoke one");
                return Err(Error::conflict("too_many_keys", message));
            }
            let record = tx.create(&API_KEY, me.tenant, secret.id, changes)?;
            let payload = json!({ "api_key_id": record.key, "user_id": me.key });
            announce(tx, "cortex.api_key.created", me.tenant, Some(me.key), payload)?;
            let actor = Actor { tenant: me.tenant, ..actor };
            audit::note(tx, &actor, "api_key.created", None, Some(&record))?;
            Ok(record)
        })
        .await?;
    Ok(Made { key: text, record })
}

fn check(actor: &Actor, changes: &Changes, now_ms: u64) -> Result<()> {
    let mut errors = Vec::new();
    for (i, (_, scope)) in changes.added.iter().enumerate() {
        let permission = scope.as_text().and_then(Permission::parse);
        let refusal = match permission {
            None => ("unknown_choice", "is no permission".to_owned()),
            Some(permission) if !actor.can(permission) => {
                ("not_yours", format!("you lack the permission {permission} yourself"))
            }
            Some(_) => continue,
        };
        errors.push(FieldError::new(format!("scopes.{i}"), refusal.0, refusal.1));
    }
    let ends_at = changes.get(&EXPIRES_AT).and_then(Value::as_int);
    if ends_at.is_some_and(|at| at <= now_ms as i64) {
        errors.push(FieldError::new(EXPIRES_AT.name, "past", "must be in the future"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Invalid(errors)) }
}

/// The actor's own keys that hold, the latest first.
pub fn list(node: &Node, actor: &Actor) -> Result<Vec<Record>> {
    actor.require_session()?;
    let (me, now) = (user::me(node, actor)?, node.clock.now_ms());
    let all = node.store.read(|reader| of_user(reader, &me))?;
    Ok(all.into_iter().filter(|key| !has_ended(key, now)).collect())
}

/// The latest first, those that have ended among them.
fn of_user(reader: &impl Read, user: &Record) -> atoll_storage::Result<Vec<Record>> {
    let query = Query::of(&API_KEY, user.tenant).filter("user_id", user.key).sort("key", true);
    Ok(reader.list(&query.limit(1_000).without_total())?.records)
}

/// # Errors
/// `NotFound` for a key that is somebody else's, unknown here or revoked.
pub async fn revoke(node: &Node, actor: &Actor, id: Id) -> Result<()> {
    actor.require_session()?;
    let me = user::me(node, actor)?;
    let actor = Actor { tenant: me.tenant, ..*actor };
    node.store
        .write(move |tx| {
            let own = |key: &Record| key.tenant == me.tenant && key.id(&USER_ID) == Some(me.key);
            let key = tx.get(&API_KEY, id)?.filter(own).filter(|key| !is_revoked(key));
            let key = key.ok_or(Error::NotFound("API key"))?;
            let now = tx.now_ms();
            let after = tx.edit(&API_KEY, key.key, Changes::new().set(&REVOKED_AT, now))?;
            audit::note(tx, &actor, "api_key.revoked", Some(&key), Some(&after))?;
            let payload = json!({ "api_key_id": id, "user_id": me.key });
            announce(tx, "cortex.api_key.revoked", me.tenant, Some(me.key), payload)
        })
        .await
}

/// The actor that a key stands for, in its owner's tenant and no other.
///
/// # Errors
/// `Unauthenticated`: `key_invalid`, `key_revoked`, `key_expired`, `account_disabled`, `token_of_another_tenant`.
pub(super) fn authenticate(node: &Node, of: Id, text: &str) -> Result<Actor> {
    let invalid = || refused("key_invalid", "this API key is not known here");
    let secret = Secret::parse(text).ok_or_else(invalid)?;
    let found = node.store.read(|reader| {
        let Some(key) = reader.get(&API_KEY, secret.id)? else { return Ok(None) };
        let Some(owner) = key.id(&USER_ID) else { return Ok(None) };
        let Some(owner) = reader.get(&user::USER, owner)? else { return Ok(None) };
        if !tenant::is_there(reader, owner.tenant)? {
            return Ok(None);
        }
        let permissions = role::permissions_of(reader, &owner)?;
        let rank = user::rank(reader, &owner)?;
        Ok(Some((key, owner, rank, permissions)))
    })?;
    let is_good =
        |key: &Record, owner: &Record| is_hash_of(key, &secret) && owner.tenant == key.tenant;
    let found = found.filter(|(key, owner, ..)| is_good(key, owner));
    let (key, owner, rank, permissions) = found.ok_or_else(invalid)?;
    let now_ms = node.clock.now_ms();
    if is_revoked(&key) {
        return Err(refused("key_revoked", "this API key was revoked"));
    }
    if has_ended(&key, now_ms) {
        return Err(refused("key_expired", "this API key has expired: make a new one"));
    }
    if !user::is_active(&owner) {
        return Err(refused("account_disabled", "the account of this API key is disabled"));
    }
    if owner.tenant != of {
        return Err(refused("token_of_another_tenant", "this API key is not of this tenant"));
    }
    node.identity.keys_used.note(key.key, now_ms);
    Ok(actor_of(&key, &owner, rank, permissions))
}

fn actor_of(key: &Record, owner: &Record, rank: Role, permissions: PermissionSet) -> Actor {
    let named = key.set(&SCOPES).filter_map(Value::as_text).filter_map(Permission::parse);
    let owner = Actor { permissions, ..Actor::of(owner.tenant, owner.key, rank) };
    owner.by_key(key.key, named.collect())
}

fn is_hash_of(key: &Record, secret: &Secret) -> bool {
    let known: Option<[u8; 32]> = key.bytes(&HASH).and_then(|bytes| bytes.try_into().ok());
    // Hashes from blake3 compare in constant time.
    known.is_some_and(|known| secret.hash() == blake3::Hash::from_bytes(known))
}

fn is_revoked(key: &Record) -> bool {
    key.int(&REVOKED_AT).is_some()
}

fn has_ended(key: &Record, now_ms: u64) -> bool {
    is_revoked(key) || key.int(&EXPIRES_AT).is_some_and(|at| at <= now_ms as i64)
}

/// When it was last used, as far as this node knows.
pub fn last_used_ms(node: &Node, key: &Record) -> Option<u64> {
    let here = node.identity.keys_used.lock().get(&key.key).copied();
    here.max(key.int(&LAST_USED_AT).map(|at| at as u64))
}

/// Writes down which keys were used: for one that is used all the time, once an hour. A worker calls it now and then.
pub async fn note_used(node: &Node) -> Result<()> {
    let used: Vec<(Id, u64)> = node.identity.keys_used.lock().drain().collect();
    if used.is_empty() {
        return Ok(());
    }
    let note = move |tx: &mut Tx| {
        for (id, at) in used {
            let Some(key) = tx.get(&API_KEY, id)? else { continue };
            let noted = key.int(&LAST_USED_AT).unwrap_or(0) as u64;
            if at >= noted + HOUR_MS && !is_revoked(&key) {
                tx.edit(&API_KEY, id, Changes::new().set(&LAST_USED_AT, at))?;
            }
        }
        Ok::<_, atoll_storage::Error>(())
    };
    Ok(node.store.write(note).await?)
}

/// Removes keys that ended a month ago: each node those that were made on it.
pub async fn sweep(node: &Node) -> Result<()> {
    let (own, now) = (node.store.origin().node, node.clock.now_ms());
    for tenant in tenant::ids(node)? {
        let gone = node.store.read(|reader| long_ended(reader, tenant, own, now))?;
        if !gone.is_empty() {
            let remove = move |tx: &mut Tx| gone.iter().try_for_each(|key| forget(tx, *key));
            node.store.write(remove).await?;
        }
    }
    Ok(())
}

fn long_ended(
    reader: &impl Read,
    tenant: Id,
    own: NodeId,
    now_ms: u64,
) -> atoll_storage::Result<Vec<Id>> {
    let is_due = |key: &&Record| {
        has_ended(key, now_ms.saturating_sub(KEPT_MS))
            && key.int(&REVOKED_AT).is_none_or(|at| at as u64 + KEPT_MS <= now_ms)
            && key.state.creations.keys().any(|dot| dot.origin.node == own)
    };
    let (mut due, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_SWEPT {
        let query = Query::of(&API_KEY, tenant).sort("key", false).limit(SWEPT_AT_ONCE);
        let page = reader.list(&query.after(after).without_total())?;
        due.extend(page.records.iter().filter(is_due).map(|key| key.key));
        after = page.next;
        if after.is_none() || due.len() >= SWEPT_AT_ONCE {
            break;
        }
    }
    Ok(due)
}

fn forget(tx: &mut Tx, key: Id) -> atoll_storage::Result<()> {
    match tx.get(&API_KEY, key)? {
        Some(_) => tx.remove(&API_KEY, key),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_its_prefix_tells_nothing_of_the_secret() {
        let secret = Secret { id: Id([9; 16]), secret: [7; 32] };
        let text = secret.to_text();
        let again = Secret::parse(&text).unwrap();
        assert_eq!((again.id, again.secret), (secret.id, secret.secret));
        let other = Secret { secret: [8; 32], ..again }.to_text();
        assert_eq!(text[..PREFIX_CHARS], other[..PREFIX_CHARS]);
        for bad in ["", "atoll_", &text[1..], &format!("{text}A"), &text.replace(MARK, "other_")] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
    }
}
