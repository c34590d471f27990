//! Signing in by an OpenID provider that a tenant trusts: the code flow with state, nonce and PKCE. An account is found
//! by issuer and subject, else by an address that both sides have verified, else made. A superadmin never comes in this
//! way: those who choose the provider are below him. The provider's word takes the place of the password and of nothing
//! else: a disabled account stays outside, and a second factor is asked for.

mod enrol;
mod provider;
mod reach;

pub use super::ticket::{LIFETIME_S as TICKET_LIFETIME_S, redeem};
pub(super) use provider::Providers;

use super::session::{self, Entry, SignedIn};
use super::{announce, letter, refused, second_factor, tenant, ticket};
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, Result};
use crate::kinds;
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::Changes;
use atoll_storage::{Field, Id, Kind, Record, Value};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enrol::{enrol, subject_of};
use provider::Client;
use reach::Reach;
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
const MOST_BACK_BYTES: usize = 500;

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

/// What a good answer of the provider leads to.
pub enum Finished {
    SignedIn(Box<SignedIn>),
    /// To be exchanged for a session, with the code of a second factor if the account has one.
    Ticket {
        text: String,
        needs_code: bool,
    },
}

/// The page of a tenant's site that a browser is sent back to once somebody has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back(String);

impl Back {
    /// # Errors
    /// `Invalid` for what is not a path on the site.
    pub fn to(path: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._~/?=&%".contains(c);
        let is_path = path.starts_with('/') && !path.starts_with("//");
        if is_path && path.len() <= MOST_BACK_BYTES && path.chars().all(fits) {
            return Ok(Self(path.to_owned()));
        }
        Err(Error::field("return_to", "malformed", "takes a path on this site, such as /welcome"))
    }

    /// Its first page.
    pub fn home() -> Self {
        Self("/".to_owned())
    }

    pub fn path(&self) -> &str {
        &self.0
    }
}

pub(crate) fn key_of(tenant: Id) -> Id {
    Id::natural(&[b"oidc_provider", &tenant.0])
}

fn find(reader: &impl Read, tenant: Id) -> atoll_storage::Result<Option<Record>> {
    reader.get(&OIDC_PROVIDER, key_of(tenant))
}

/// Who vouches for the users of the tenant: the host, for people to read.
pub fn host_of(node: &Node, tenant: Id) -> Result<Option<String>> {
    let provider = node.store.read(|reader| find(reader, tenant))?;
    let host = |provider: Record| {
        let issuer = provider.text(&ISSUER).split_once("://").map_or("", |(_, rest)| rest);
        issuer.split('/').next().unwrap_or_default().to_owned()
    };
    Ok(provider.map(host).filter(|host| !host.is_empty()))
}

/// # Errors
/// `NotFound` if the tenant has none.
pub fn get(node: &Node, actor: &Actor) -> Result<Record> {
    actor.require(Permission::UsersAdminister)?;
    node.store.read(|reader| find(reader, actor.tenant))?.ok_or(Error::NotFound("provider"))
}

/// # Errors
/// `Invalid` for what is no issuer, or none that this node may ask: see [`reach`].
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
    check_issuer(&Reach::of(node), new.issuer.trim())?;
    let actor = *actor;
    let (tenant, by) = (actor.tenant, actor.user);
    node.store
        .write(move |tx| {
            let key = key_of(tenant);
            let before = tx.get(&OIDC_PROVIDER, key)?;
            let record = match &before {
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
            audit::note(tx, &actor, "oidc_provider.updated", before.as_ref(), Some(&record))?;
            Ok(record)
        })
        .await
}

/// Whether this node would take it for an issuer.
pub(crate) fn may_be_asked(node: &Node, issuer: &str) -> bool {
    check_issuer(&Reach::of(node), issuer).is_ok()
}

fn check_issuer(reach: &Reach, issuer: &str) -> Result<()> {
    let is_plain =
        !issuer.chars().any(|c| c.is_whitespace() || c.is_control() || "?#@".contains(c));
    if is_plain && reach.check(issuer).is_ok() {
        return Ok(());
    }
    let message = "takes a public URL that begins with https://; one inside the operator's network has to be named in \
                   the setting oidc.internal_hosts";
    Err(Error::field(ISSUER.name, "not_an_issuer", message))
}

/// # Errors
/// `NotFound` if the tenant has none.
pub async fn remove(node: &Node, actor: &Actor) -> Result<()> {
    let record = get(node, actor)?;
    let actor = *actor;
    node.store
        .write(move |tx| {
            tx.get(&OIDC_PROVIDER, record.key)?.ok_or(Error::NotFound("provider"))?;
            tx.remove(&OIDC_PROVIDER, record.key)?;
            audit::note(tx, &actor, "oidc_provider.deleted", Some(&record), None)?;
            let payload = json!({ "issuer": record.text(&ISSUER) });
            announce(tx, "cortex.oidc_provider.deleted", actor.tenant, actor.user, payload)
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

/// Lets in whoever comes back with a code. `seed` is what the browser kept: it ties the answer to the one who asked.
/// A session begins at once, unless `by_ticket`, or the account has a second factor: then it begins by [`redeem`].
///
/// # Errors
/// `Unauthenticated`: `state_invalid`, `provider_failed`, `account_disabled`; `Conflict` (`email_taken`) for an account
/// of that address which nobody has verified; `Denied` where people may not sign up, and for a superadmin.
pub async fn finish(
    node: &Node,
    seed: &str,
    state: &str,
    code: &str,
    by_ticket: bool,
    user_agent: &str,
) -> Result<Finished> {
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
    let needs_code = second_factor::is_on(&user);
    if needs_code || by_ticket {
        return Ok(Finished::Ticket { text: ticket::issue(node, &user).await?, needs_code });
    }
    let signed_in = session::enter(node, user.key, Entry::default(), user_agent).await?;
    Ok(Finished::SignedIn(Box::new(signed_in)))
}

/// Where a browser that comes back with this state is at home, without a slash at its end.
pub fn site_of(node: &Node, state: &str) -> Result<String> {
    let tenant = state.split('.').next().and_then(Id::parse).ok_or(Error::NotFound("tenant"))?;
    let tenant = node.store.read(|reader| reader.get(&tenant::TENANT, tenant))?;
    Ok(letter::site(node, &tenant.ok_or(Error::NotFound("tenant"))?))
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
    fn people_are_sent_back_to_a_path_of_the_site_only() {
        for good in ["/", "/welcome", "/a/b?x=1&y=%20"] {
            assert!(Back::to(good).is_ok(), "{good}");
        }
        let long = format!("/{}", "a".repeat(600));
        for bad in [
            "",
            "welcome",
            "//evil.org",
            "/\\evil.org",
            "https://evil.org",
            "/a b",
            "/a;b",
            "/a#b",
            &long,
        ] {
            assert!(Back::to(bad).is_err(), "{bad}");
        }
    }
}
