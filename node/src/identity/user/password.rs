//! The password of an account, and the sign-ins that it stands for: proving it, changing it, and ending what began by an
//! old one. Tries are counted before a password is looked at. Never tells whether there is such an account.

use super::{
    EMAIL, KEPT_SESSION, MUST_CHANGE_PASSWORD, PASSWORD_HASH, RESET_TOKEN, SIGNED_OUT_BEFORE,
    USERNAME, administered, by_login, edit, is_active, me, table,
};
use crate::access::Actor;
use crate::error::{Error, Result};
use crate::identity::{lockout, password, refused};
use crate::runtime::Node;
use atoll_storage::tx::Changes;
use atoll_storage::{Id, Record, Value};

/// Ends every session but the one that asks.
pub async fn change_password(node: &Node, actor: &Actor, old: String, new: String) -> Result<()> {
    actor.require_session()?;
    actor.require_in_person()?;
    let me = me(node, actor)?;
    check_new(&me, &new)?;
    prove_again(node, &me, "old_password", old).await?;
    replace_password(node, actor, me, new, actor.session, false).await
}

/// Asks whoever is signed in for his password again, before what cannot be taken back: this is no session left open.
///
/// # Errors
/// `Invalid` on `password`; `Denied` for an API key, and for somebody who acts in another's name.
pub async fn confirm_in_person(node: &Node, actor: &Actor, password: String) -> Result<Record> {
    actor.require_session()?;
    actor.require_in_person()?;
    let me = me(node, actor)?;
    prove_again(node, &me, "password", password).await?;
    Ok(me)
}

/// As [`reprove`], and the try ends well.
async fn prove_again(
    node: &Node,
    me: &Record,
    field: &'static str,
    password: String,
) -> Result<()> {
    let attempt = reprove(node, me, field, password).await?;
    node.identity.attempts.succeed(&attempt);
    Ok(())
}

/// Asks somebody who is signed in for his password again. The try is the caller's to end.
pub(in crate::identity) async fn reprove(
    node: &Node,
    me: &Record,
    field: &'static str,
    password: String,
) -> Result<lockout::Attempt> {
    let attempt = attempt(node, me.tenant, Some(me), "")?;
    let known = me.opt_text(&PASSWORD_HASH).map(str::to_owned);
    if known.is_none() {
        let message = "is not there yet: ask for a letter to choose a password by, as if you had forgotten it";
        return Err(Error::field(field, "no_password", message));
    }
    let right = node.hash(move || password::verify(&password, known.as_deref())).await?;
    if right {
        Ok(attempt)
    } else {
        Err(Error::field(field, "wrong", "is not your present password"))
    }
}

/// Ends every session but the one that asks, those among them that this node does not know.
pub async fn sign_out_elsewhere(node: &Node, actor: &Actor) -> Result<()> {
    let session = actor.require_session()?;
    actor.require_in_person()?;
    let me = me(node, actor)?;
    let changes = signed_out(Changes::new(), node.clock.now_ms(), Some(session));
    edit(node, actor, me, changes, "cortex.user.signed_out_elsewhere", None).await.map(drop)
}

/// Gives somebody a password that he must change; ends all his sessions.
pub async fn reset_password(node: &Node, actor: &Actor, id: Id, new: String) -> Result<()> {
    let user = administered(node, actor, id)?;
    check_new(&user, &new)?;
    replace_password(node, actor, user, new, None, true).await
}

async fn replace_password(
    node: &Node,
    actor: &Actor,
    user: Record,
    new: String,
    kept: Option<Id>,
    must_change: bool,
) -> Result<()> {
    let hash = hash(node, new).await?;
    let changes = Changes::new()
        .set(&PASSWORD_HASH, hash)
        .set(&MUST_CHANGE_PASSWORD, must_change)
        .set(&RESET_TOKEN, Value::Null);
    let changes = signed_out(changes, node.clock.now_ms(), kept);
    edit(node, actor, user, changes, "cortex.user.password_changed", None).await.map(drop)
}

/// The password is checked as long whether there is such a user or not. `actor` is whoever asks, not signed in yet. The
/// try is the caller's to end: a second factor may be wrong yet.
pub(in crate::identity) async fn prove(
    node: &Node,
    actor: &Actor,
    name: &str,
    password: String,
) -> Result<(Record, lockout::Attempt)> {
    let tenant = actor.tenant;
    let user = node.store.read(|reader| by_login(reader, tenant, name))?;
    let attempt = attempt(node, tenant, user.as_ref(), name)?;
    let hash = user.as_ref().and_then(|user| user.opt_text(&PASSWORD_HASH)).map(str::to_owned);
    let (right, password) =
        node.hash(move || (password::verify(&password, hash.as_deref()), password)).await?;
    let who = user.as_ref().map(|user| user.key);
    let Some(user) = user.filter(|_| right) else {
        node.identity.failures.count(tenant, who, actor.net, node.clock.now_ms());
        return Err(refused("wrong_credentials", "wrong name or password"));
    };
    if !is_active(&user) {
        return Err(refused("account_disabled", "this account is disabled: ask an administrator"));
    }
    Ok((table::upgrade(node, user, password).await?, attempt))
}

/// Tries count by account, whichever of its names is used; without an account by the name.
pub(in crate::identity) fn attempt(
    node: &Node,
    tenant: Id,
    user: Option<&Record>,
    name: &str,
) -> Result<lockout::Attempt> {
    let id = user.map(|user| user.key.to_string());
    node.identity.attempts.begin(tenant, id.as_deref().unwrap_or(name), node.clock.now_ms())
}

/// Whether a change of password, or an administrator, ended this session. The session's id tells when it began.
pub(in crate::identity) fn has_signed_out(user: &Record, session: Id) -> bool {
    let before = user.int(&SIGNED_OUT_BEFORE).unwrap_or(0);
    before > 0 && session.created_ms() <= before as u64 && user.id(&KEPT_SESSION) != Some(session)
}

pub(in crate::identity) fn signed_out(changes: Changes, now_ms: u64, kept: Option<Id>) -> Changes {
    changes.set(&SIGNED_OUT_BEFORE, now_ms).set(&KEPT_SESSION, kept)
}

pub(in crate::identity) fn check_new(user: &Record, new: &str) -> Result<()> {
    let names = [user.wanted(&EMAIL), user.wanted(&USERNAME)];
    password::check("new_password", new, &names).map_err(|e| Error::Invalid(vec![e]))
}

pub(in crate::identity) async fn hash(node: &Node, password: String) -> Result<String> {
    let salt: [u8; 16] = node.random();
    node.hash(move || password::hash(&password, salt)).await?
}
