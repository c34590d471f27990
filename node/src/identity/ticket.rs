//! Tickets: the first proof of somebody was good, a provider's word or a password, and his session has not begun yet, for
//! his second factor is to be asked for, or his browser is on its way back to a page. Signed by the node, good for
//! minutes and once; never good as an access token, for what is signed begins with another text.

use super::session::{self, Entry, SignedIn};
use super::{lockout, refused, signing_key, user};
use crate::access::Actor;
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::{Id, Record};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub const LIFETIME_S: u64 = 300;

const CONTEXT: &[u8] = b"atoll 2026 openid ticket";
const SIGNED_BYTES: usize = 16 + 16 + 8;
const SIGNATURE_BYTES: usize = 64;
const TICKET_BYTES: usize = SIGNED_BYTES + 16 + SIGNATURE_BYTES;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Promise {
    user: Id,
    /// The key of the session that shall begin: one that is there has begun.
    session: Id,
    ends_at_ms: u64,
}

impl Promise {
    fn message(&self) -> Vec<u8> {
        [CONTEXT, &self.user.0, &self.session.0, &self.ends_at_ms.to_be_bytes()].concat()
    }

    /// What was promised, by which key, and what proves it.
    fn parse(text: &str) -> Option<(Self, Id, [u8; SIGNATURE_BYTES])> {
        let mut bytes = [0; TICKET_BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (user, rest) = bytes.split_at(16);
        let (session, rest) = rest.split_at(16);
        let (ends_at, rest) = rest.split_at(8);
        let (kid, signature) = rest.split_at(16);
        let promise = Self {
            user: Id::from_slice(user)?,
            session: Id::from_slice(session)?,
            ends_at_ms: u64::from_be_bytes(ends_at.try_into().ok()?),
        };
        let proof = (promise, Id::from_slice(kid)?, signature.try_into().ok()?);
        (read == TICKET_BYTES).then_some(proof)
    }
}

/// `base64url(user, session, end, key, signature)`
pub(super) async fn issue(node: &Node, user: &Record) -> Result<String> {
    let ends_at_ms = node.clock.now_ms() + LIFETIME_S * 1_000;
    let promise = Promise { user: user.key, session: node.new_id(), ends_at_ms };
    let (signer, message) = (&node.identity.signer, promise.message());
    let key = signer.draft();
    node.store.write(move |tx| key.publish(tx)).await?;
    let signed = message.get(CONTEXT.len()..).unwrap_or_default();
    let signature = signer.sign_bytes(&message);
    Ok(URL_SAFE_NO_PAD.encode([signed, &signer.kid.0, &signature].concat()))
}

/// The session that a ticket stands for. A wrong code counts as a wrong password does, and leaves the ticket good.
///
/// # Errors
/// `Unauthenticated`: `ticket_invalid`, `ticket_used`, `totp_required`, `totp_invalid`, `account_disabled`; `TooMany`.
pub async fn redeem(
    node: &Node,
    ticket: &str,
    code: Option<String>,
    user_agent: &str,
) -> Result<SignedIn> {
    let held = open(node, ticket)?;
    let entry = Entry { code, session: Some(held.session), ..Entry::default() };
    let entered = session::enter(node, held.user.key, entry, user_agent).await;
    held.settle(node, None, entered)
}

/// A good ticket: whom it is for, the session that was promised him, and the try that it counts as.
pub(super) struct Held {
    pub user: Record,
    pub session: Id,
    attempt: lockout::Attempt,
}

impl Held {
    /// Notes how the try ended. `actor`: whoever asked, if that is known.
    pub fn settle<T>(&self, node: &Node, actor: Option<&Actor>, entered: Result<T>) -> Result<T> {
        match &entered {
            Ok(_) => node.identity.attempts.succeed(&self.attempt),
            Err(error) if error.code() == "totp_invalid" => {
                let (failures, now_ms) = (&node.identity.failures, node.clock.now_ms());
                let net = actor.and_then(|actor| actor.net);
                failures.count(self.user.tenant, Some(self.user.key), net, now_ms);
            }
            Err(_) => {}
        }
        entered
    }
}

/// # Errors
/// `Unauthenticated` (`ticket_invalid`); `TooMany`.
pub(super) fn open(node: &Node, ticket: &str) -> Result<Held> {
    let invalid = || refused("ticket_invalid", "this sign-in has lapsed, or is none: begin anew");
    let (promise, kid, signature) = Promise::parse(ticket).ok_or_else(invalid)?;
    let (key, user) = node.store.read(|reader| {
        Ok((signing_key::find(reader, kid)?, reader.get(&user::USER, promise.user)?))
    })?;
    let is_good = key.is_some_and(|key| key.has_signed(&promise.message(), &signature));
    if !is_good || promise.ends_at_ms <= node.clock.now_ms() {
        return Err(invalid());
    }
    let user = user.ok_or_else(invalid)?;
    let attempt = user::attempt(node, user.tenant, Some(&user), "")?;
    Ok(Held { user, session: promise.session, attempt })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_back_and_anything_else_is_none() {
        let promise = Promise { user: Id([1; 16]), session: Id([2; 16]), ends_at_ms: 3 };
        let message = promise.message();
        let bytes = [&message[CONTEXT.len()..], &[4; 16], &[5; SIGNATURE_BYTES]].concat();
        let text = URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(Promise::parse(&text), Some((promise, Id([4; 16]), [5; SIGNATURE_BYTES])));
        for bad in ["", "a.b.c", &text[1..], &format!("{text}A"), &"é".repeat(80)] {
            assert_eq!(Promise::parse(bad), None, "{bad}");
        }
    }
}
