//! Sessions: a sign-in and all the refresh tokens that come of it. Keeps only hashes of the tokens; a refresh
//! token that is used twice ends its session.

use super::{announce, refused, second_factor, token, user};
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, NodeId, Record, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

pub use super::token::authenticate;

pub const USER_ID: Field = Field::refers(1, "user_id", "user").required().column().read_only();
/// Of the secret that all refresh tokens of the session share: it tells an old one from a made-up one.
pub const FAMILY_HASH: Field = Field::bytes(2, "family_hash").max(32).secret();
/// Of the secret that only the latest refresh token has.
pub const TOKEN_HASH: Field = Field::bytes(3, "token_hash").max(32).secret();
pub const EXPIRES_AT: Field = Field::time(4, "expires_at").required().column().read_only();
pub const REVOKED_AT: Field = Field::time(5, "revoked_at").read_only();
pub const USER_AGENT: Field = Field::text(6, "user_agent").max(300).read_only();
/// The step of the code that it began with.
pub const TOTP_STEP: Field = Field::int(20, "totp_step").secret();

pub static SESSION: Kind = Kind {
    fields: &[USER_ID, FAMILY_HASH, TOKEN_HASH, EXPIRES_AT, REVOKED_AT, USER_AGENT, TOTP_STEP],
    indexes: &[&["user_id"], &["expires_at"]],
    doc: "A sign-in on one device.",
    ..Kind::new(11, "session", "sessions", "identity")
};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// How long a refresh token waits to be used.
pub const REFRESH_LIFETIME_MS: u64 = 7 * DAY_MS;
/// However often it is refreshed.
const LONGEST_SESSION_MS: u64 = 90 * DAY_MS;
pub(super) const SESSIONS_OF_A_USER: usize = 50;
const SWEPT_AT_ONCE: usize = 1_000;

/// What signing in gives.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub user: Record,
    pub session: Id,
    pub access_token: String,
    pub access_expires_in_s: u64,
    pub refresh_token: String,
    pub refresh_expires_in_s: u64,
}

/// By e-mail address or username, in the tenant of `actor`, who is not signed in yet; with the code of an app, or a
/// recovery code, if the account has a second factor.
///
/// # Errors
/// `Unauthenticated` (`wrong_credentials`, `account_disabled`, `totp_required`, `totp_invalid`); `TooMany` after five
/// wrong tries.
pub async fn login(
    node: &Node,
    actor: &Actor,
    name: &str,
    password: String,
    code: Option<String>,
    user_agent: &str,
) -> Result<SignedIn> {
    let (user, attempt) = user::prove(node, actor, name, password).await?;
    let (tenant, who) = (user.tenant, Some(user.key));
    let signed_in =
        enter(node, user, Factor::Code(code), user_agent).await.inspect_err(|error| {
            if error.code() == "totp_invalid" {
                node.identity.failures.count(tenant, who, actor.net, node.clock.now_ms());
            }
        })?;
    node.identity.attempts.succeed(&attempt);
    Ok(signed_in)
}

/// What stands beside the first proof of who somebody is.
pub(super) enum Factor {
    Code(Option<String>),
    /// The provider that vouches for the user asks for more if it wants more.
    Provider,
}

/// Begins a session of somebody whose first proof was good.
pub(super) async fn enter(
    node: &Node,
    user: Record,
    factor: Factor,
    user_agent: &str,
) -> Result<SignedIn> {
    let secrets = Secrets { family: node.random(), latest: node.random() };
    let key = node.identity.signer.draft();
    let agent: String =
        user_agent.chars().filter(|c| !c.is_control()).take(USER_AGENT.max).collect();
    let (session, user) = node
        .store
        .write(move |tx| {
            key.publish(tx)?;
            let step = match factor {
                Factor::Code(code) => {
                    let user = tx.get(&user::USER, user.key)?.ok_or(Error::NotFound("user"))?;
                    second_factor::spend(tx, &user, code.as_deref())?
                }
                Factor::Provider => None,
            };
            let session = begin(tx, &user, &secrets, agent, step)?;
            Ok::<_, Error>((session, user))
        })
        .await?;
    signed_in(node, user, session.key, &secrets, REFRESH_LIFETIME_MS)
}

fn begin(
    tx: &mut Tx,
    user: &Record,
    secrets: &Secrets,
    agent: String,
    step: Option<u64>,
) -> Result<Record> {
    let expires_at = tx.now_ms() + REFRESH_LIFETIME_MS;
    let changes = Changes::new()
        .set(&USER_ID, user.key)
        .set(&FAMILY_HASH, hash(&secrets.family))
        .set(&TOKEN_HASH, hash(&secrets.latest))
        .set(&EXPIRES_AT, expires_at)
        .set(&USER_AGENT, agent)
        .set(&TOTP_STEP, step);
    end_the_oldest(tx, user)?;
    let key = tx.new_id();
    let session = tx.create(&SESSION, user.tenant, key, changes)?;
    let payload = json!({ "user_id": user.key, "session_id": key });
    announce(tx, "cortex.user.login", user.tenant, Some(user.key), payload)?;
    Ok(session)
}

/// Sessions are bounded: one more than fits ends the oldest.
fn end_the_oldest(tx: &mut Tx, user: &Record) -> Result<()> {
    let query = Query::of(&SESSION, user.tenant).filter("user_id", user.key).sort("key", false);
    let sessions = tx.list(&query.limit(SESSIONS_OF_A_USER))?;
    if sessions.records.len() == SESSIONS_OF_A_USER
        && let Some(oldest) = sessions.records.first()
    {
        tx.remove(&SESSION, oldest.key)?;
    }
    Ok(())
}

/// A new pair of tokens for a refresh token, which is then used up.
///
/// # Errors
/// `Unauthenticated`: `token_invalid`, `token_expired`, `session_ended`, `account_disabled`; `token_reused` for a
/// token that was used before, which also ends the session, since one of the two who had it stole it.
pub async fn refresh(node: &Node, refresh_token: &str) -> Result<SignedIn> {
    let invalid = || refused("token_invalid", "this is no refresh token: sign in");
    let (id, presented) = Secrets::parse(refresh_token).ok_or_else(invalid)?;
    let next = Secrets { family: presented.family, latest: node.random() };
    let key = node.identity.signer.draft();
    // A reuse has to be committed, so it is no error inside the transaction.
    let outcome = node
        .store
        .write(move |tx| {
            key.publish(tx)?;
            rotate(tx, id, &presented, &next)
        })
        .await?;
    let (user, lifetime_ms) = outcome?;
    signed_in(node, user, id, &next, lifetime_ms)
}

type Rotated = Result<(Record, u64)>;

fn rotate(tx: &mut Tx, id: Id, presented: &Secrets, next: &Secrets) -> Result<Rotated> {
    let now = tx.now_ms();
    let Some(session) = tx.get(&SESSION, id)? else {
        return Ok(Err(refused(
            "token_invalid",
            "the session of this token is not known here: sign in",
        )));
    };
    if !is_hash_of(&session, &FAMILY_HASH, &presented.family) {
        return Ok(Err(refused("token_invalid", "this is no refresh token: sign in")));
    }
    let user = session.id(&USER_ID).map_or(Ok(None), |user| tx.get(&user::USER, user))?;
    let Some(user) = user.filter(|user| belongs(&session, user)) else {
        return Ok(Err(refused("session_ended", "the account of this session is gone")));
    };
    let is_home = super::tenant::is_there(tx, user.tenant)?;
    if is_revoked(&session) || user::has_signed_out(&user, id) || !is_home {
        return Ok(Err(refused("session_ended", "this session has ended: sign in again")));
    }
    if !is_hash_of(&session, &TOKEN_HASH, &presented.latest) {
        revoke(tx, &session)?;
        let payload = json!({ "user_id": user.key, "session_id": id });
        announce(tx, "cortex.session.token_reused", user.tenant, Some(user.key), payload)?;
        let message = "this refresh token was used before, so its session was ended: sign in again";
        return Ok(Err(refused("token_reused", message)));
    }
    let last = (id.created_ms() + LONGEST_SESSION_MS).min(now + REFRESH_LIFETIME_MS);
    if session.int(&EXPIRES_AT).is_none_or(|at| at as u64 <= now) || last <= now {
        return Ok(Err(refused("token_expired", "the refresh token has expired: sign in again")));
    }
    if !user::is_active(&user) {
        return Ok(Err(refused(
            "account_disabled",
            "this account is disabled: ask an administrator",
        )));
    }
    let changes = Changes::new().set(&TOKEN_HASH, hash(&next.latest)).set(&EXPIRES_AT, last);
    tx.edit(&SESSION, id, changes)?;
    Ok(Ok((user, last - now)))
}

/// Ends the actor's session, here at once and elsewhere when the news gets there.
pub async fn logout(node: &Node, actor: &Actor) -> Result<()> {
    let id = actor.require_session()?;
    let user = user::me(node, actor)?;
    node.store
        .write(move |tx| match tx.get(&SESSION, id)? {
            Some(session) => revoke(tx, &session),
            None => revoke_unseen(tx, id, &user),
        })
        .await
}

fn revoke(tx: &mut Tx, session: &Record) -> Result<()> {
    if !is_revoked(session) {
        let now = tx.now_ms();
        tx.edit(&SESSION, session.key, Changes::new().set(&REVOKED_AT, now))?;
    }
    Ok(())
}

/// Of a session begun on a node that this one has not met since: both records have one key, and become one.
fn revoke_unseen(tx: &mut Tx, id: Id, user: &Record) -> Result<()> {
    let now = tx.now_ms();
    let changes = Changes::new()
        .set(&USER_ID, user.key)
        .set(&EXPIRES_AT, id.created_ms() + REFRESH_LIFETIME_MS) // as its maker wrote it, so no conflict
        .set(&REVOKED_AT, now);
    tx.create(&SESSION, user.tenant, id, changes)?;
    Ok(())
}

/// Removes sessions that expired over a day ago, when no access token of theirs can be good any more. Each node
/// removes those begun on it, and after a month those of nodes that never came back. A worker calls it now and then.
pub async fn sweep(node: &Node) -> Result<usize> {
    let (own, now) = (node.store.origin().node, node.clock.now_ms());
    let mut removed = 0;
    for tenant in super::tenant::ids(node)? {
        let gone = node.store.read(|reader| expired(reader, tenant, own, now))?;
        if gone.is_empty() {
            continue;
        }
        removed += gone.len();
        let remove = move |tx: &mut Tx| gone.iter().try_for_each(|key| forget(tx, *key));
        node.store.write(remove).await?;
    }
    Ok(removed)
}

fn expired(
    reader: &impl Read,
    tenant: Id,
    own: NodeId,
    now_ms: u64,
) -> atoll_storage::Result<Vec<Id>> {
    let query = Query::of(&SESSION, tenant)
        .filter_le("expires_at", now_ms.saturating_sub(DAY_MS))
        .sort("expires_at", false)
        .limit(SWEPT_AT_ONCE)
        .without_total();
    let is_due = |session: &&Record| {
        let abandoned = session.int(&EXPIRES_AT).is_some_and(|at| at as u64 + 30 * DAY_MS < now_ms);
        abandoned || session.state.creations.keys().any(|dot| dot.origin.node == own)
    };
    Ok(reader.list(&query)?.records.iter().filter(is_due).map(|session| session.key).collect())
}

fn forget(tx: &mut Tx, key: Id) -> atoll_storage::Result<()> {
    match tx.get(&SESSION, key)? {
        Some(_) => tx.remove(&SESSION, key),
        None => Ok(()),
    }
}

/// The actor's sessions that still hold, the latest first. Each was last used when its tokens were last renewed.
pub fn list(node: &Node, actor: &Actor) -> Result<Vec<Record>> {
    actor.require_session()?;
    let (me, now) = (user::me(node, actor)?, node.clock.now_ms());
    let query = Query::of(&SESSION, me.tenant)
        .filter("user_id", me.key)
        .filter_ge("expires_at", now)
        .sort("key", true)
        .limit(2 * SESSIONS_OF_A_USER) // nodes that are apart count by themselves
        .without_total();
    let all = node.store.read(|reader| reader.list(&query))?.records;
    Ok(all.into_iter().filter(|s| !is_revoked(s) && !user::has_signed_out(&me, s.key)).collect())
}

/// The node that the session began on.
pub fn node_of(session: &Record) -> Option<NodeId> {
    session.state.creations.keys().next().map(|dot| dot.origin.node)
}

/// Ends one of the actor's own sessions.
///
/// # Errors
/// `NotFound` for one that is somebody else's, unknown here or over.
pub async fn end(node: &Node, actor: &Actor, id: Id) -> Result<()> {
    actor.require_session()?;
    let me = user::me(node, actor)?;
    node.store
        .write(move |tx| {
            let session = tx.get(&SESSION, id)?.filter(|session| belongs(session, &me));
            let session = session.filter(|s| !is_revoked(s) && !user::has_signed_out(&me, id));
            let session = session.ok_or(Error::NotFound("session"))?;
            revoke(tx, &session)?;
            let payload = json!({ "user_id": me.key, "session_id": id });
            announce(tx, "cortex.session.ended", me.tenant, Some(me.key), payload)
        })
        .await
}

pub(super) fn is_revoked(session: &Record) -> bool {
    session.int(&REVOKED_AT).is_some()
}

pub(super) fn belongs(session: &Record, user: &Record) -> bool {
    session.tenant == user.tenant && session.id(&USER_ID) == Some(user.key)
}

fn is_hash_of(session: &Record, field: &Field, secret: &[u8; 24]) -> bool {
    let known: Option<[u8; 32]> = session.bytes(field).and_then(|bytes| bytes.try_into().ok());
    // Hashes from blake3 compare in constant time.
    known.is_some_and(|known| blake3::hash(secret) == blake3::Hash::from_bytes(known))
}

fn hash(secret: &[u8; 24]) -> Value {
    Value::Bytes(blake3::hash(secret).as_bytes().to_vec())
}

fn signed_in(
    node: &Node,
    user: Record,
    session: Id,
    secrets: &Secrets,
    refresh_ms: u64,
) -> Result<SignedIn> {
    Ok(SignedIn {
        access_token: token::mint(node, user.tenant, user.key, session)?,
        access_expires_in_s: token::LIFETIME_S,
        refresh_token: secrets.to_text(session),
        refresh_expires_in_s: refresh_ms / 1_000,
        session,
        user,
    })
}

/// The two secrets in a refresh token: `base64url(session, family, latest)`.
#[derive(Clone, Copy)]
struct Secrets {
    family: [u8; 24],
    latest: [u8; 24],
}

impl Secrets {
    fn to_text(self, session: Id) -> String {
        URL_SAFE_NO_PAD.encode([&session.0[..], &self.family, &self.latest].concat())
    }

    fn parse(text: &str) -> Option<(Id, Self)> {
        let mut bytes = [0; 64];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (session, secrets) = bytes.split_at(16);
        let (family, latest) = secrets.split_at(24);
        let secrets = Self { family: family.try_into().ok()?, latest: latest.try_into().ok()? };
        (read == bytes.len()).then_some((Id::from_slice(session)?, secrets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_reads_back_and_anything_else_is_none() {
        let secrets = Secrets { family: [1; 24], latest: [2; 24] };
        let text = secrets.to_text(Id([9; 16]));
        let (session, read) = Secrets::parse(&text).unwrap();
        assert_eq!((session, read.family, read.latest), (Id([9; 16]), [1; 24], [2; 24]));
        for bad in ["", "a.b.c", &text[1..], &format!("{text}A"), &"é".repeat(43)] {
            assert!(Secrets::parse(bad).is_none(), "{bad}");
        }
    }
}
