//! Acting in a user's name, to see what he sees: a short session without a refresh token, whose token names the
//! administrator too. Never above the administrator's rank, never from one impersonation into another.

use super::{USER, USERNAME, administered, erase, is_active};
use crate::access::Actor;
use crate::audit;
use crate::error::{Error, Result};
use crate::identity::session::{self, SESSION};
use crate::identity::{announce, token};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Id, Record};
use serde_json::{Map, json};

pub const LIFETIME_S: u64 = 15 * 60;

/// What an impersonation gives. There is no refresh token.
#[derive(Clone, Debug)]
pub struct Impersonation {
    pub user: Record,
    pub session: Id,
    pub access_token: String,
}

/// # Errors
/// `Denied` for oneself, for a user above the actor, and within an impersonation; `Conflict` (`account_disabled`,
/// `account_deleted`).
pub async fn impersonate(node: &Node, actor: &Actor, id: Id) -> Result<Impersonation> {
    let admin = actor.require_user()?;
    actor.require_session()?;
    actor.require_in_person()?;
    let user = administered(node, actor, id)?;
    if admin == id {
        return Err(Error::Denied("you are this user already".to_owned()));
    }
    let key = node.identity.signer.draft();
    let actor = *actor;
    let (user, session) = node
        .store
        .write(move |tx| {
            key.publish(tx)?;
            let user = tx.get(&USER, user.key)?.ok_or(Error::NotFound("user"))?;
            if erase::is_erased(&user) {
                return Err(erase::is_gone());
            }
            if !is_active(&user) {
                let message = "this account is disabled: enable it first";
                return Err(Error::conflict("account_disabled", message));
            }
            let session = tx.new_id();
            let agent = "an administrator in the name of this user";
            let changes = Changes::new()
                .set(&session::USER_ID, user.key)
                .set(&session::EXPIRES_AT, tx.now_ms() + LIFETIME_S * 1_000)
                .set(&session::USER_AGENT, agent);
            tx.create(&SESSION, user.tenant, session, changes)?;
            let payload = json!({ "user_id": user.key, "username": user.text(&USERNAME), "session_id": session });
            announce(tx, "cortex.user.impersonated", user.tenant, actor.user, payload)?;
            let mut told = Map::new();
            told.insert("session_id".to_owned(), json!(session));
            let target = Some((USER.name, user.key));
            audit::note_in(tx, user.tenant, &actor, "user.impersonated", target, told)?;
            Ok((user, session))
        })
        .await?;
    let access_token =
        token::mint_for(node, user.tenant, user.key, session, LIFETIME_S, Some(admin))?;
    Ok(Impersonation { user, session, access_token })
}
