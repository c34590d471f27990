//! Sessions: a sign-in and all the refresh tokens that come of it. Keeps only hashes of the tokens; a refresh
//! token that is used twice ends its session, also when the two uses were on nodes that had not met.

mod refresh;
pub mod site;

use super::{announce, refused, second_factor, token, user};
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, NodeId, Record, Value};
use refresh::Secrets;
use serde_json::json;

pub use super::token::authenticate;
pub use refresh::refresh;

pub const USER_ID: Field = Field::refers(1, "user_id", "user").required().column().read_only();
/// Of the secret that all refresh tokens of the session share: it tells an old one from a made-up one.
pub const FAMILY_HASH: Field = Field::bytes(2, "family_hash").max(32).secret();
/// Of the secret that only the latest refresh token has, and how many came before it.
pub const TOKEN_HASH: Field = Field::bytes(3, "token_hash").max(36).secret();
pub const EXPIRES_AT: Field = Field::time(4, "expires_at").required().column().read_only();
pub const REVOKED_AT: Field = Field::time(5, "revoked_at").read_only();
pub const USER_AGENT: Field = Field::text(6, "user_agent").max(300).read_only();
/// The step of the code that it began with.
pub const TOTP_STEP: Field = Field::int(20, "totp_step").secret();

pub static SESSION: Kind = Kind {
    fields: &[USER_ID, FAMILY_HASH, TOKEN_HASH, EXPIRES_AT, REVOKED_AT, USER_AGENT, TOTP_STEP],
    indexes: &[&["user_id"], &["expires_at"]],
    silent: true,
    doc: "A sign-in on one device.",
    ..Kind::new(11, "session", "sessions", "identity")
};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// How long a refresh token waits to be used.
pub const REFRESH_LIFETIME_MS: u64 = 7 * DAY_MS;
/// However often it is refreshed.
const LONGEST_SESSION_MS: u64 = 90 * DAY_MS;
pub(super) const SESSIONS_OF_A_USER: usize = 50;
/// Of one user, with those that have ended.
const MOST_LISTED: usize = 1_000;
const SWEPT_AT_ONCE: usize = 1_000;
const PAGES_SWEPT: usize = 50;

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
    let proven = user.opt_text(&user::PASSWORD_HASH).map(str::to_owned);
    let entry = Entry { code, proven, ..Entry::default() };
    let signed_in = enter(node, user.key, entry, user_agent).await.inspect_err(|error| {
        if error.code() == "totp_invalid" {
            node.identity.failures.count(tenant, who, actor.net, node.clock.now_ms());
        }
    })?;
    node.identity.attempts.succeed(&attempt);
    Ok(signed_in)
}

/// How somebody comes in, beside who he is.
#[derive(Default)]
pub(super) struct Entry {
    /// Of the second factor, if the account has one.
    pub code: Option<String>,
    /// The hash that his password fitted; none where a provider vouched for him.
    pub proven: Option<String>,
    /// The session that he was promised: it begins once.
    pub session: Option<Id>,
    /// Of a browser on the site's own pages: it gets no refresh token.
    pub is_on_site: bool,
}

/// Begins a session of somebody whose first proof was good.
///
/// # Errors
/// `Unauthenticated`: `totp_required`, `totp_invalid`; `wrong_credentials` if the password was changed meanwhile,
/// `account_disabled` if the account was; `ticket_used` for a promised session that has begun.
pub(super) async fn enter(
    node: &Node,
    user: Id,
    entry: Entry,
    user_agent: &str,
) -> Result<SignedIn> {
    let (session, user, secrets) = opened(node, user, entry, user_agent).await?;
    signed_in(node, user, session, &secrets, REFRESH_LIFETIME_MS)
}

/// As [`enter`], before anything is made of it that somebody may hold: the session, its user, its secrets.
async fn opened(
    node: &Node,
    user: Id,
    entry: Entry,
    user_agent: &str,
) -> Result<(Id, Record, Secrets)> {
    let secrets = Secrets { family: node.random(), latest: node.random(), turn: 0 };
    let key = node.identity.signer.draft();
    let agent: String =
        user_agent.chars().filter(|c| !c.is_control()).take(USER_AGENT.max).collect();
    let (session, user) = node
        .store
        .write(move |tx| {
            key.publish(tx)?;
            let user = admitted(tx, user, &entry)?;
            let step = second_factor::spend(tx, &user, entry.code.as_deref())?;
            let session = begin(tx, &user, &secrets, agent, step, &entry)?;
            Ok::<_, Error>((session, user))
        })
        .await?;
    Ok((session.key, user, secrets))
}

/// The account as it is now: hashing a password takes so long that it may have changed since it was read.
fn admitted(tx: &mut Tx, user: Id, entry: &Entry) -> Result<Record> {
    let user = tx.get(&user::USER, user)?.ok_or(Error::NotFound("user"))?;
    if !user::is_active(&user) {
        return Err(refused("account_disabled", "this account is disabled: ask an administrator"));
    }
    let present = user.text(&user::PASSWORD_HASH);
    if entry.proven.as_ref().is_some_and(|proven| proven != present) {
        return Err(refused("wrong_credentials", "wrong name or password"));
    }
    if let Some(session) = entry.session
        && tx.get(&SESSION, session)?.is_some()
    {
        return Err(refused("ticket_used", "you have signed in by this already: begin anew"));
    }
    Ok(user)
}

fn begin(
    tx: &mut Tx,
    user: &Record,
    secrets: &Secrets,
    agent: String,
    step: Option<u64>,
    entry: &Entry,
) -> Result<Record> {
    let expires_at = tx.now_ms() + REFRESH_LIFETIME_MS;
    let changes = Changes::new()
        .set(&USER_ID, user.key)
        .set(&FAMILY_HASH, secrets.family_kept())
        .set(&TOKEN_HASH, if entry.is_on_site { Value::Null } else { secrets.kept() })
        .set(&EXPIRES_AT, expires_at)
        .set(&USER_AGENT, agent)
        .set(&TOTP_STEP, step);
    make_room(tx, user)?;
    let key = entry.session.unwrap_or_else(|| tx.new_id());
    let session = tx.create(&SESSION, user.tenant, key, changes)?;
    let payload = json!({ "user_id": user.key, "session_id": key });
    announce(tx, "cortex.user.login", user.tenant, Some(user.key), payload)?;
    Ok(session)
}

/// Sessions are bounded: one more than fits ends the oldest. A record that is not there counts as a session begun
/// elsewhere, so one that is ended here goes only once no access token of it can be good.
fn make_room(tx: &mut Tx, user: &Record) -> Result<()> {
    let now = tx.now_ms();
    let query = Query::of(&SESSION, user.tenant).filter("user_id", user.key).sort("key", false);
    let all = tx.list(&query.limit(MOST_LISTED).without_total())?.records;
    let (over, live): (Vec<Record>, Vec<Record>) = all.into_iter().partition(is_revoked);
    for session in over.iter().filter(|s| s.updated_ms() + 2 * token::LIFETIME_S * 1_000 < now) {
        tx.remove(&SESSION, session.key)?;
    }
    let excess = (live.len() + 1).saturating_sub(SESSIONS_OF_A_USER);
    live.iter().take(excess).try_for_each(|session| revoke(tx, session))
}

/// Ends the actor's session, here at once and elsewhere when the news gets there.
pub async fn logout(node: &Node, actor: &Actor) -> Result<()> {
    let id = actor.require_session()?;
    let user = user::me(node, actor)?;
    node.store
        .write(move |tx| {
            match tx.get(&SESSION, id)? {
                Some(session) => revoke(tx, &session)?,
                None => revoke_unseen(tx, id, &user)?,
            }
            let payload = json!({ "user_id": user.key, "session_id": id });
            announce(tx, "cortex.user.logout", user.tenant, Some(user.key), payload)
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

/// What others are to remove does not stand in the way of what this node is to.
fn expired(
    reader: &impl Read,
    tenant: Id,
    own: NodeId,
    now_ms: u64,
) -> atoll_storage::Result<Vec<Id>> {
    let is_due = |session: &&Record| {
        let abandoned = session.int(&EXPIRES_AT).is_some_and(|at| at as u64 + 30 * DAY_MS < now_ms);
        abandoned || session.state.creations.keys().any(|dot| dot.origin.node == own)
    };
    let (mut due, mut after) = (Vec::new(), None);
    for _ in 0..PAGES_SWEPT {
        let query = Query::of(&SESSION, tenant)
            .filter_le("expires_at", now_ms.saturating_sub(DAY_MS))
            .sort("expires_at", false)
            .limit(SWEPT_AT_ONCE)
            .after(after)
            .without_total();
        let page = reader.list(&query)?;
        due.extend(page.records.iter().filter(is_due).map(|session| session.key));
        after = page.next;
        if after.is_none() || due.len() >= SWEPT_AT_ONCE {
            break;
        }
    }
    Ok(due)
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

/// Ends one of the actor's own sessions. Not for somebody who acts in his name.
///
/// # Errors
/// `NotFound` for one that is somebody else's, unknown here or over.
pub async fn end(node: &Node, actor: &Actor, id: Id) -> Result<()> {
    actor.require_session()?;
    actor.require_in_person()?;
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

/// Ended by somebody, or because its refresh token was used on two nodes.
pub(super) fn is_revoked(session: &Record) -> bool {
    session.int(&REVOKED_AT).is_some() || refresh::has_forked(session)
}

pub(super) fn belongs(session: &Record, user: &Record) -> bool {
    session.tenant == user.tenant && session.id(&USER_ID) == Some(user.key)
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
        refresh_token: secrets.to_text(session, &node.identity.signer),
        refresh_expires_in_s: refresh_ms / 1_000,
        session,
        user,
    })
}
