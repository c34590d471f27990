//! Signing in by an OpenID provider that a tenant trusts: the code flow with state, nonce and PKCE. An account is found
//! by issuer and subject, else by an address that both sides have verified, else made. A superadmin never comes in this
//! way: those who choose the provider are below him.

mod provider;

pub(super) use provider::Providers;

use super::names::{check_email, check_username, normal_email};
use super::session::{self, Factor, SignedIn};
use super::tenant::quota::{self, Quota};
use super::user::{
    self, DISPLAY_NAME, EMAIL, EMAIL_VERIFIED_AT, OIDC_SUBJECT, ROLE, STATUS, USER, USERNAME,
};
use super::{announce, email, letter, refused, tenant};
use crate::access::{Actor, Permission, Role};
use crate::audit;
use crate::error::{Error, Result};
use crate::kinds;
use crate::mail::{Letter, Order};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, Record, Value};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use provider::{Claims, Client};
use serde_json::json;

pub const ISSUER: Field =
    Field::text(1, "issuer").required().max(500).doc("As the provider writes it.");
pub const CLIENT_ID: Field = Field::text(2, "client_id").required().max(300);
pub const CLIENT_SECRET: Field = Field::text(3, "client_secret").max(500).secret();

pub static OIDC_PROVIDER: Kind = Kind {
    fields: &[ISSUER, CLIENT_ID, CLIENT_SECRET],
    doc: "The OpenID provider that vouches for the users of a tenant.",
    ..Kind::new(14, "oidc_provider", "oidc_providers", "identity")
};

/// Where the provider sends the browser back to, below the tenant's address.
pub const CALLBACK: &str = "/api/v1/auth/oidc/callback";
/// How long a browser may take at the provider.
pub const LIFETIME_S: u64 = 600;
const SEED_BYTES: usize = 32;
const NAMES_TRIED: u32 = 20;

/// What it takes to trust a provider. Without a secret the one that is kept stays, if the issuer does.
#[derive(Clone)]
pub struct NewProvider {
    pub issuer: String,
    pub client_id: String,
    pub client_secret: Option<String>,
}

/// A sign-in that has begun: where the browser goes, and what it keeps for itself until it comes back.
pub struct Started {
    pub location: String,
    pub seed: String,
}

fn key_of(tenant: Id) -> Id {
    Id::natural(&[b"oidc_provider", &tenant.0])
}

fn find(reader: &impl Read, tenant: Id) -> atoll_storage::Result<Option<Record>> {
    reader.get(&OIDC_PROVIDER, key_of(tenant))
}

/// # Errors
/// `NotFound` if the tenant has none.
pub fn get(node: &Node, actor: &Actor) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    node.store.read(|reader| find(reader, actor.tenant))?.ok_or(Error::NotFound("provider"))
}

/// # Errors
/// `Invalid` for what is no issuer; one without encryption is for those who run the network.
pub async fn put(node: &Node, actor: &Actor, new: NewProvider) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    let changes =
        Changes::new().set(&ISSUER, new.issuer.trim()).set(&CLIENT_ID, new.client_id.trim());
    let keeps_secret = new.client_secret.is_none();
    let changes = new
        .client_secret
        .into_iter()
        .fold(changes, |changes, secret| changes.set(&CLIENT_SECRET, secret));
    kinds::validate(&OIDC_PROVIDER, &changes, true)?;
    check_issuer(new.issuer.trim(), actor)?;
    let (tenant, by) = (actor.tenant, actor.user);
    node.store
        .write(move |tx| {
            let key = key_of(tenant);
            let record = match tx.get(&OIDC_PROVIDER, key)? {
                // A secret that was given for one issuer is never sent to another.
                Some(there)
                    if keeps_secret && changes.get(&ISSUER) != Some(there.value(&ISSUER)) =>
                {
                    tx.edit(&OIDC_PROVIDER, key, changes.set(&CLIENT_SECRET, Value::Null))?
                }
                Some(_) => tx.edit(&OIDC_PROVIDER, key, changes)?,
                None => tx.create(&OIDC_PROVIDER, tenant, key, changes)?,
            };
            let payload = json!({ "issuer": record.text(&ISSUER) });
            announce(tx, "cortex.oidc_provider.updated", tenant, by, payload)?;
            Ok(record)
        })
        .await
}

fn check_issuer(issuer: &str, actor: &Actor) -> Result<()> {
    let host = issuer.strip_prefix("https://").or_else(|| {
        let runs_network = actor.can(Permission::TenantsAdminister);
        issuer.strip_prefix("http://").filter(|_| runs_network)
    });
    let is_plain =
        !issuer.chars().any(|c| c.is_whitespace() || c.is_control() || "?#@".contains(c));
    if host.is_some_and(|host| !host.is_empty()) && is_plain {
        return Ok(());
    }
    Err(Error::field(ISSUER.name, "not_an_issuer", "takes a URL that begins with https://"))
}

/// # Errors
/// `NotFound` if the tenant has none.
pub async fn remove(node: &Node, actor: &Actor) -> Result<()> {
    let record = get(node, actor)?;
    let (tenant, by) = (actor.tenant, actor.user);
    node.store
        .write(move |tx| {
            tx.remove(&OIDC_PROVIDER, record.key)?;
            let payload = json!({ "issuer": record.text(&ISSUER) });
            announce(tx, "cortex.oidc_provider.deleted", tenant, by, payload)
        })
        .await
}

/// # Errors
/// `NotFound` if the tenant trusts none; `Unauthenticated` (`provider_failed`) if it does not answer.
pub async fn start(node: &Node, tenant: Id) -> Result<Started> {
    let client = client_of(node, tenant)?;
    let seed = Seed(node.random());
    let query = [
        ("response_type", "code".to_owned()),
        ("scope", "openid email profile".to_owned()),
        ("client_id", client.id.clone()),
        ("redirect_uri", client.redirect_uri.clone()),
        ("state", seed.state(tenant)),
        ("nonce", seed.nonce()),
        ("code_challenge", seed.challenge()),
        ("code_challenge_method", "S256".to_owned()),
    ];
    let location = provider::authorization_url(node, &client, &query).await?;
    Ok(Started { location, seed: URL_SAFE_NO_PAD.encode(seed.0) })
}

/// Signs in whoever comes back with a code. `seed` is what the browser kept: it ties the answer to the one who asked.
///
/// # Errors
/// `Unauthenticated`: `state_invalid`, `provider_failed`, `account_disabled`; `Conflict` (`email_taken`) for an account
/// of that address which nobody has verified; `Denied` where people may not sign up, and for a superadmin.
pub async fn finish(
    node: &Node,
    seed: &str,
    state: &str,
    code: &str,
    user_agent: &str,
) -> Result<SignedIn> {
    let strange = || refused("state_invalid", "this answer is to no question of yours: begin anew");
    let seed = Seed::parse(seed).ok_or_else(strange)?;
    let tenant = state.split('.').next().and_then(Id::parse).ok_or_else(strange)?;
    // Derived anew from what only this browser has.
    if seed.state(tenant) != state {
        return Err(strange());
    }
    let client = client_of(node, tenant)?;
    let claims = provider::redeem(node, &client, code, &seed.verifier(), &seed.nonce()).await?;
    let is_open = tenant::is_open(node, tenant)?;
    let subject = subject_of(&client.issuer, &claims.sub);
    let user = node.store.write(move |tx| enrol(tx, tenant, &claims, &subject, is_open)).await?;
    session::enter(node, user, Factor::Provider, user_agent).await
}

fn client_of(node: &Node, tenant: Id) -> Result<Client> {
    let (provider, tenant) = node
        .store
        .read(|reader| Ok((find(reader, tenant)?, reader.get(&tenant::TENANT, tenant)?)))?;
    let provider = provider.ok_or(Error::NotFound("provider"))?;
    let tenant = tenant.ok_or(Error::NotFound("tenant"))?;
    Ok(Client {
        issuer: provider.text(&ISSUER).to_owned(),
        id: provider.text(&CLIENT_ID).to_owned(),
        secret: provider.opt_text(&CLIENT_SECRET).map(str::to_owned),
        redirect_uri: format!("{}{CALLBACK}", letter::site(node, &tenant)),
    })
}

/// Names are compared without regard to case, and a subject is not: so its hash stands for it.
fn subject_of(issuer: &str, sub: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(issuer.len() as u64).to_le_bytes()).update(issuer.as_bytes());
    hasher.update(sub.as_bytes()).finalize().to_hex().to_string()
}

/// The account of whoever the provider vouches for.
fn enrol(tx: &mut Tx, tenant: Id, claims: &Claims, subject: &str, is_open: bool) -> Result<Record> {
    if let Some(user) = linked(tx, tenant, subject)? {
        return admitted(user);
    }
    let address = claims.email.as_deref().map(normal_email).unwrap_or_default();
    if check_email(&address).is_err() {
        let message = "the provider names no e-mail address for you: allow it to, or sign up here";
        return Err(Error::Denied(message.to_owned()));
    }
    if let Some(user) = user::by_login(tx, tenant, &address)? {
        return link(tx, user, claims, subject);
    }
    if !is_open {
        return Err(Error::Denied("this tenant makes accounts by invitation only".to_owned()));
    }
    create(tx, tenant, claims, subject, address)
}

fn linked(tx: &Tx, tenant: Id, subject: &str) -> Result<Option<Record>> {
    let Some(space) = OIDC_SUBJECT.claim else { return Ok(None) };
    let holder = tx.claimed(tenant, space, subject)?;
    Ok(holder.map_or(Ok(None), |key| tx.get(&USER, key))?)
}

fn admitted(user: Record) -> Result<Record> {
    if user::role(&user) == Role::Superadmin {
        return Err(Error::Denied("a superadmin signs in with a password".to_owned()));
    }
    if !user::is_active(&user) {
        return Err(refused("account_disabled", "this account is disabled: ask an administrator"));
    }
    Ok(user)
}

/// Only if both sides have verified the address: else whoever signed up first with a foreign one would get its owner's
/// account.
fn link(tx: &mut Tx, user: Record, claims: &Claims, subject: &str) -> Result<Record> {
    let user = admitted(user)?;
    let is_free = user.opt_text(&OIDC_SUBJECT).is_none();
    if !(claims.email_verified && email::is_verified(&user) && is_free) {
        let message = "there is an account with your e-mail address: sign in with its password, and verify the address";
        return Err(Error::conflict("email_taken", message));
    }
    let user = tx.edit(&USER, user.key, Changes::new().set(&OIDC_SUBJECT, subject))?;
    let payload = json!({ "user_id": user.key });
    announce(tx, "cortex.user.provider_linked", user.tenant, Some(user.key), payload)?;
    Ok(user)
}

fn create(
    tx: &mut Tx,
    tenant: Id,
    claims: &Claims,
    subject: &str,
    address: String,
) -> Result<Record> {
    let (key, now) = (tx.new_id(), tx.now_ms());
    let username = free_username(tx, tenant, claims, &address)?;
    let display: String = claims
        .name
        .as_deref()
        .unwrap_or_default()
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(DISPLAY_NAME.max)
        .collect();
    let mut changes = Changes::new()
        .set(&EMAIL, address)
        .set(&USERNAME, username.as_str())
        .set(&DISPLAY_NAME, display)
        .set(&ROLE, Role::Viewer.name())
        .set(&STATUS, "active")
        .set(&OIDC_SUBJECT, subject);
    if claims.email_verified {
        changes.put(&EMAIL_VERIFIED_AT, now);
    }
    kinds::check(tx, &USER, tenant, None, &changes)?;
    quota::require(tx, tenant, Quota::Users)?;
    let user = tx.create(&USER, tenant, key, changes)?;
    let owner = Actor { user: Some(key), ..Actor::stranger(tenant) };
    audit::note(tx, &owner, "user.registered", None, Some(&user))?;
    let payload = json!({ "user_id": key, "username": username, "role": Role::Viewer.name() });
    announce(tx, "cortex.user.registered", tenant, Some(key), payload)?;
    let letter = if claims.email_verified { Letter::Welcome } else { Letter::Verification };
    Order::to(letter, tenant, key).enqueue(tx)?;
    Ok(user)
}

/// What the provider calls him, else the first part of his address; with a number if that is taken.
fn free_username(tx: &mut Tx, tenant: Id, claims: &Claims, address: &str) -> Result<String> {
    let wanted = claims.preferred_username.as_deref().unwrap_or(address);
    let base = match user::username_from(wanted.split('@').next().unwrap_or_default()) {
        name if name == "admin" => "user".to_owned(), // nobody shall look like one
        name => name,
    };
    for number in 0..NAMES_TRIED {
        let name = match number {
            0 => base.clone(),
            _ => format!("{}-{number}", base.get(..28).unwrap_or(&base)),
        };
        if check_username(&name).is_ok() && user::by_login(tx, tenant, &name)?.is_none() {
            return Ok(name);
        }
    }
    Ok(format!("user-{}", tx.new_id().suffix()))
}

/// Random bytes that the browser keeps in a cookie; all that a sign-in needs to be tied together is derived from them.
struct Seed([u8; SEED_BYTES]);

impl Seed {
    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; SEED_BYTES];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (read == SEED_BYTES).then_some(Self(bytes))
    }

    /// The tenant in the open, so that it is known when the browser comes back to an address that names none.
    fn state(&self, tenant: Id) -> String {
        let derived = self.derive("atoll 2025 openid sign-in: state", &tenant.0);
        format!("{tenant}.{derived}")
    }

    fn nonce(&self) -> String {
        self.derive("atoll 2025 openid sign-in: nonce", &[])
    }

    fn verifier(&self) -> String {
        self.derive("atoll 2025 openid sign-in: verifier", &[])
    }

    /// RFC 7636, method S256.
    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.verifier().as_bytes()))
    }

    fn derive(&self, context: &str, more: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        URL_SAFE_NO_PAD.encode(hasher.update(&self.0).update(more).finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_of_a_seed_differs_by_use_tenant_and_seed() {
        let (one, other) = (Seed([1; 32]), Seed([2; 32]));
        let (north, south) = (Id([1; 16]), Id([2; 16]));
        let all = [
            one.state(north),
            one.state(south),
            other.state(north),
            one.nonce(),
            one.verifier(),
            one.challenge(),
        ];
        let distinct: std::collections::HashSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!((43..=128).contains(&one.verifier().len()));
        assert!(Seed::parse(&URL_SAFE_NO_PAD.encode([1_u8; 32])).is_some());
        assert!(Seed::parse("").is_none() && Seed::parse("short").is_none());
    }

    #[test]
    fn a_subject_differs_by_issuer_and_case() {
        assert_ne!(subject_of("https://a", "x"), subject_of("https://b", "x"));
        assert_ne!(subject_of("https://a", "x"), subject_of("https://a", "X"));
        assert_ne!(subject_of("https://a", "bx"), subject_of("https://ab", "x"));
    }

    #[test]
    fn an_issuer_without_encryption_is_for_those_who_run_the_network() {
        let admin = Actor { role: Some(Role::Admin), ..Actor::stranger(Id::NIL) };
        assert!(check_issuer("https://id.example.org/realm", &admin).is_ok());
        assert!(check_issuer("http://127.0.0.1:9000", &admin).is_err());
        assert!(check_issuer("http://127.0.0.1:9000", &Actor::system(Id::NIL)).is_ok());
        for bad in ["", "https://", "ftp://x", "https://a@b", "https://a b", "https://a?b"] {
            assert!(check_issuer(bad, &Actor::system(Id::NIL)).is_err(), "{bad}");
        }
    }
}
