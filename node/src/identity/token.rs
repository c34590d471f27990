//! Access tokens: JWTs signed with Ed25519, good for an hour on every node of the network. A token only says who
//! signed in: whether the session still holds, and what the user may do, is read from the records.

use super::recent::Recent;
use super::signing_key::{self, Signer};
use super::{api_key, refused, role, session, tenant, user};
use crate::access::{Actor, Permission, PermissionSet, Role};
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::Id;
use atoll_storage::read::Read;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use std::sync::{Mutex, PoisonError};

pub const LIFETIME_S: u64 = 3_600;

/// Ours are under 500 bytes.
const MAX_TOKEN_BYTES: usize = 2_048;
const TOKENS_KEPT: usize = 10_000;

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Claims {
    /// The node that signed.
    pub iss: Issuer,
    /// User, tenant and session.
    pub sub: Id,
    pub tid: Id,
    pub sid: Id,
    /// Unix seconds.
    pub iat: u64,
    pub exp: u64,
    /// The administrator who acts in the user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Id>,
}

/// A node's id in the text of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Issuer(pub atoll_storage::NodeId);

impl serde::Serialize for Issuer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Issuer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let node = atoll_storage::NodeId::parse(&text);
        node.map(Self).ok_or_else(|| serde::de::Error::custom("not a node id"))
    }
}

/// A token for a session that was just begun or renewed.
pub(super) fn mint(node: &Node, tenant: Id, user: Id, session: Id) -> Result<String> {
    mint_for(node, tenant, user, session, LIFETIME_S, None)
}

/// As [`mint`], for as long as this; `act` is the administrator who acts in the user's name.
pub(super) fn mint_for(
    node: &Node,
    tenant: Id,
    user: Id,
    session: Id,
    lifetime_s: u64,
    act: Option<Id>,
) -> Result<String> {
    let signer = &node.identity.signer;
    let iat = node.clock.now_ms() / 1_000;
    let claims = Claims {
        iss: Issuer(signer.node),
        sub: user,
        tid: tenant,
        sid: session,
        iat,
        exp: iat + lifetime_s.min(LIFETIME_S),
        act,
    };
    signer.sign(&claims)
}

/// Who a token belongs to, as the records of one commit say.
#[derive(Clone, Copy)]
struct Bearer {
    user: Id,
    home: Id,
    role: Role,
    permissions: PermissionSet,
    session: Id,
    impersonator: Option<Id>,
}

impl Bearer {
    fn act_in(self, tenant: Id) -> Result<Actor> {
        if tenant != self.home && self.role != Role::Superadmin {
            return Err(refused(
                "token_of_another_tenant",
                "this token is not of this tenant: sign in here",
            ));
        }
        Ok(Actor {
            permissions: self.permissions,
            session: Some(self.session),
            impersonator: self.impersonator,
            ..Actor::of(tenant, self.user, self.role)
        })
    }
}

/// A token whose signature was checked. The rest is good for one commit only.
#[derive(Clone, Copy)]
struct Checked {
    kid: Id,
    claims: Claims,
    bearer: Option<(u64, Bearer)>,
}

/// By the BLAKE3 hash of the token.
pub(super) struct Cache(Mutex<Recent<[u8; 32], Checked>>);

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(TOKENS_KEPT)))
    }
}

impl Cache {
    fn get(&self, hash: &[u8; 32]) -> Option<Checked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash)
    }

    fn put(&self, hash: [u8; 32], checked: Checked) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(hash, checked);
    }
}

/// The actor that a bearer token, or an API key, stands for in this tenant.
///
/// # Errors
/// `Unauthenticated` with `token_invalid`, `token_expired`, `session_ended`, `account_disabled`, `node_removed` or
/// `token_of_another_tenant`; as [`api_key::authenticate`] for a key.
pub fn authenticate(node: &Node, tenant: Id, token: &str) -> Result<Actor> {
    if token.starts_with(api_key::MARK) {
        return api_key::authenticate(node, tenant, token);
    }
    let cache = &node.identity.tokens;
    let hash = *blake3::hash(token.as_bytes()).as_bytes();
    let commit = node.identity.commit();
    let checked = match cache.get(&hash) {
        Some(checked) => checked,
        None => check_signature(node, token)?,
    };
    if checked.claims.exp <= node.clock.now_ms() / 1_000 {
        return Err(refused(
            "token_expired",
            "the access token has expired: get a new one with the refresh token",
        ));
    }
    if let Some((at, bearer)) = checked.bearer
        && at == commit
    {
        return bearer.act_in(tenant);
    }
    let signer = &node.identity.signer;
    let bearer =
        node.store.read(|reader| read_bearer(reader, signer, checked.kid, &checked.claims))??;
    cache.put(hash, Checked { bearer: Some((commit, bearer)), ..checked });
    bearer.act_in(tenant)
}

fn check_signature(node: &Node, token: &str) -> Result<Checked> {
    let invalid =
        || refused("token_invalid", "the access token is not one of this network: sign in");
    if token.len() > MAX_TOKEN_BYTES {
        return Err(invalid());
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
    let kid = header.kid.as_deref().and_then(Id::parse).ok_or_else(invalid)?;
    let signer = &node.identity.signer;
    let found = node.store.read(|reader| match signing_key::find(reader, kid)? {
        Some(key) => Ok(Ok(Some(key))),
        None => Ok(signer.check(reader, kid)?.map(|()| None)),
    })?;
    let key = found?.ok_or_else(invalid)?;
    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.validate_exp = false; // by the node's own clock, on each use
    let public = DecodingKey::from_ed_der(&key.public);
    let claims =
        jsonwebtoken::decode::<Claims>(token, &public, &rules).map_err(|_| invalid())?.claims;
    let lives_too_long = claims.exp > claims.iat.saturating_add(LIFETIME_S);
    if claims.iss.0 != key.node || lives_too_long {
        return Err(invalid());
    }
    Ok(Checked { kid, claims, bearer: None })
}

/// A session that is not here yet counts as one that holds: it was begun on a node that this one has not met since,
/// and that node's signature vouches for it. The user has to be here.
fn read_bearer(
    reader: &impl Read,
    signer: &Signer,
    kid: Id,
    claims: &Claims,
) -> atoll_storage::Result<Result<Bearer>> {
    let invalid = |message| Ok(Err(refused("token_invalid", message)));
    if signing_key::find(reader, kid)?.is_none() {
        if let Err(removed) = signer.check(reader, kid)? {
            return Ok(Err(removed));
        }
        return invalid("the key that signed this token was withdrawn: sign in again");
    }
    let Some(user) = reader.get(&user::USER, claims.sub)?.filter(|user| user.tenant == claims.tid)
    else {
        return invalid("the user of this token is not known here");
    };
    let session = reader.get(&session::SESSION, claims.sid)?;
    if session.is_some_and(|s| !session::belongs(&s, &user) || session::is_revoked(&s))
        || user::has_signed_out(&user, claims.sid)
    {
        return Ok(Err(refused("session_ended", "this session has ended: sign in again")));
    }
    if !user::is_active(&user) {
        return Ok(Err(refused(
            "account_disabled",
            "this account is disabled: ask an administrator",
        )));
    }
    if !tenant::is_there(reader, user.tenant)? {
        return Ok(Err(refused("session_ended", "the tenant of this account was deleted")));
    }
    let permissions = role::permissions_of(reader, &user)?;
    if let Some(admin) = claims.act
        && !may_impersonate(reader, admin, claims.sid, user::role(&user), permissions)?
    {
        return Ok(Err(refused("session_ended", "who acted in this name may not any more")));
    }
    Ok(Ok(Bearer {
        user: user.key,
        home: user.tenant,
        role: user::rank(reader, &user)?,
        permissions,
        session: claims.sid,
        impersonator: claims.act,
    }))
}

/// Whether whoever began this session in another's name could still do so: the user may have risen above him since.
fn may_impersonate(
    reader: &impl Read,
    admin: Id,
    session: Id,
    rank: Role,
    permissions: PermissionSet,
) -> atoll_storage::Result<bool> {
    let Some(admin) = reader.get(&user::USER, admin)? else { return Ok(false) };
    let own = role::permissions_of(reader, &admin)?;
    Ok(user::is_active(&admin)
        && !user::has_signed_out(&admin, session)
        && own.contains(Permission::UsersAdminister)
        && user::rank(reader, &admin)? >= rank
        && permissions.without(own).is_empty())
}
