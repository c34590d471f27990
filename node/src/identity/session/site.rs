//! Sessions of browsers on the site's own pages. A cookie names the session and holds its secret; there is no refresh token,
//! so such a session ends after as long as one waits. Good for pages alone, and only where the session's record is: a node
//! that has not heard of it takes whoever comes with it for a stranger.

use super::{
    EXPIRES_AT, Entry, FAMILY_HASH, REFRESH_LIFETIME_MS, SESSION, TOKEN_HASH, USER_ID, belongs,
    is_revoked, opened,
};
use crate::access::Actor;
use crate::error::Result;
use crate::identity::{refused, role, second_factor, tenant, ticket, user};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::{Id, Record, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Of the cookie, too.
pub const LIFETIME_S: u64 = REFRESH_LIFETIME_MS / 1_000;
const SECRET_BYTES: usize = 24;
const COOKIE_BYTES: usize = 16 + SECRET_BYTES;

/// What a good password leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The value of the cookie.
    In(String),
    /// A ticket, to be given back with the code of the second factor: see [`confirm`].
    NeedsCode(String),
}

/// # Errors
/// `Unauthenticated` (`wrong_credentials`, `account_disabled`); `TooMany` after five wrong tries.
pub async fn sign_in(
    node: &Node,
    actor: &Actor,
    name: &str,
    password: String,
    user_agent: &str,
) -> Result<Entered> {
    let (user, attempt) = user::prove(node, actor, name, password).await?;
    if second_factor::is_on(&user) {
        return Ok(Entered::NeedsCode(ticket::issue(node, &user).await?));
    }
    let proven = user.opt_text(&user::PASSWORD_HASH).map(str::to_owned);
    let entry = Entry { proven, is_on_site: true, ..Entry::default() };
    let cookie = begun(node, user.key, entry, user_agent).await?;
    node.identity.attempts.succeed(&attempt);
    Ok(Entered::In(cookie))
}

/// The cookie for a ticket, with the code of the app, or a recovery code, if the account has a second factor.
///
/// # Errors
/// As [`ticket::redeem`].
pub async fn confirm(
    node: &Node,
    actor: &Actor,
    ticket: &str,
    code: Option<String>,
    user_agent: &str,
) -> Result<String> {
    let held = ticket::open(node, ticket)?;
    if held.user.tenant != actor.tenant {
        return Err(refused("ticket_invalid", "this sign-in was begun elsewhere: begin anew"));
    }
    let entry = Entry { code, session: Some(held.session), is_on_site: true, proven: None };
    let entered = begun(node, held.user.key, entry, user_agent).await;
    held.settle(node, Some(actor), entered)
}

async fn begun(node: &Node, user: Id, entry: Entry, user_agent: &str) -> Result<String> {
    let (session, _, secrets) = opened(node, user, entry, user_agent).await?;
    Ok(URL_SAFE_NO_PAD.encode([&session.0[..], &secrets.family].concat()))
}

fn parse(cookie: &str) -> Option<(Id, Value)> {
    let mut bytes = [0; COOKIE_BYTES];
    let read = URL_SAFE_NO_PAD.decode_slice(cookie, &mut bytes).ok()?;
    let (session, secret) = bytes.split_at(16);
    let hash = blake3::hash(secret).as_bytes().to_vec();
    (read == COOKIE_BYTES).then_some((Id::from_slice(session)?, Value::Bytes(hash)))
}

/// Who reads, as far as the cookie shows; none if it is not, or no longer, good here.
pub fn reader(node: &Node, tenant: Id, cookie: &str) -> Result<Option<Actor>> {
    let Some((key, hash)) = parse(cookie) else { return Ok(None) };
    let now_ms = node.clock.now_ms();
    Ok(node.store.read(|reader| {
        let session = reader.get(&SESSION, key)?.filter(|session| holds(session, &hash, now_ms));
        let Some(session) = session else { return Ok(None) };
        let user = session.id(&USER_ID).map_or(Ok(None), |user| reader.get(&user::USER, user))?;
        let is_his = |user: &Record| {
            user.tenant == tenant
                && belongs(&session, user)
                && user::is_active(user)
                && !user::has_signed_out(user, key)
        };
        let Some(user) = user.filter(is_his) else { return Ok(None) };
        if !tenant::is_there(reader, tenant)? {
            return Ok(None);
        }
        let permissions = role::permissions_of(reader, &user)?;
        let actor = Actor::of(tenant, user.key, user::rank(reader, &user)?);
        Ok(Some(Actor { permissions, session: Some(key), ..actor }))
    })?)
}

/// A session that has refresh tokens is not for cookies.
fn holds(session: &Record, hash: &Value, now_ms: u64) -> bool {
    let is_over = session.int(&EXPIRES_AT).is_none_or(|at| at.max(0) as u64 <= now_ms);
    let is_for_pages = session.value(&TOKEN_HASH).is_null();
    is_for_pages && !is_over && !is_revoked(session) && session.value(&FAMILY_HASH) == hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_reads_back_and_anything_else_is_none() {
        let text = URL_SAFE_NO_PAD.encode([&[9; 16][..], &[1; SECRET_BYTES]].concat());
        let hash = Value::Bytes(blake3::hash(&[1; SECRET_BYTES]).as_bytes().to_vec());
        assert_eq!(parse(&text), Some((Id([9; 16]), hash)));
        for bad in ["", "a.b.c", &text[1..], &format!("{text}A"), &"é".repeat(40)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
