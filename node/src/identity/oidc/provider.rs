//! What is asked of an OpenID provider over HTTP: its description, its keys, and an ID token for a code. Answers are
//! bounded in size and time, redirects are not followed, only addresses in reach are asked, and what is cached ends within
//! the hour. A token counts by its
//! signature, issuer, audience, nonce and end, and by nothing that came beside it.

use super::super::recent::Recent;
use super::super::refused;
use super::reach::Reach;
use crate::error::{Error, Result};
use crate::percent;
use crate::runtime::Node;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 256 << 10;
const MAX_TOKEN_BYTES: usize = 16 << 10;
const MAX_KEYS: usize = 50;
const PROVIDERS_KEPT: usize = 100;
const KEPT_MS: u64 = 3_600 * 1_000;
/// With an unknown key the keys are asked for anew, but not more often than this.
const ASKED_AGAIN_MS: u64 = 60 * 1_000;
/// A provider that failed is left alone for so long: strangers can have it asked.
const LEFT_ALONE_MS: u64 = 10 * 1_000;
/// What clocks may differ by.
const LEEWAY_S: u64 = 60;

/// This node as a provider knows it.
pub(super) struct Client {
    pub issuer: String,
    pub id: String,
    pub secret: Option<String>,
    pub redirect_uri: String,
}

/// What an ID token says of somebody.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub sub: String,
    exp: u64,
    nonce: Option<String>,
    azp: Option<String>,
    pub email: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    pub email_verified: bool,
    pub name: Option<String>,
    pub preferred_username: Option<String>,
}

/// What a provider says of somebody beside the ID token.
#[derive(Deserialize)]
struct About {
    sub: String,
    email: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    email_verified: bool,
    name: Option<String>,
    preferred_username: Option<String>,
}

/// Some providers write it as text.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value == true || value == "true")
}

/// OpenID Connect Discovery 1.0: what of it is needed.
#[derive(Clone, Deserialize)]
struct Description {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Clone)]
struct Known {
    at_ms: u64,
    description: Arc<Description>,
    keys: Arc<Vec<Jwk>>,
}

/// The HTTP client, made when it is first needed, and what providers said lately, by issuer.
pub(in crate::identity) struct Providers {
    http: OnceLock<reqwest::Client>,
    known: Mutex<Recent<String, Known>>,
    /// When one failed.
    failed: Mutex<Recent<String, u64>>,
}

impl Default for Providers {
    fn default() -> Self {
        Self {
            http: OnceLock::new(),
            known: Mutex::new(Recent::new(PROVIDERS_KEPT)),
            failed: Mutex::new(Recent::new(PROVIDERS_KEPT)),
        }
    }
}

impl Providers {
    fn http(&self, reach: Reach) -> Result<&reqwest::Client> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(reach)
            .user_agent(concat!("atoll/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Internal(format!("an HTTP client cannot be made: {error}")))?;
        Ok(self.http.get_or_init(|| http))
    }

    fn recall(&self, issuer: &str) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&issuer.to_owned())
    }

    fn has_failed(&self, issuer: &str, now_ms: u64) -> bool {
        let at = self.failed.lock().unwrap_or_else(PoisonError::into_inner).get(&issuer.to_owned());
        at.is_some_and(|at| now_ms.abs_diff(at) < LEFT_ALONE_MS)
    }

    fn note_failure(&self, issuer: &str, now_ms: u64) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).put(issuer.to_owned(), now_ms);
    }

    fn remember(&self, issuer: &str, known: Known) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(issuer.to_owned(), known);
    }
}

/// Where a browser signs in at the provider.
pub(super) async fn authorization_url(
    node: &Node,
    client: &Client,
    query: &[(&str, String)],
) -> Result<String> {
    let known = known(node, &client.issuer, KEPT_MS).await?;
    let mut url = Url::parse(&known.description.authorization_endpoint)
        .map_err(|_| failed("its authorization endpoint is no URL"))?;
    url.query_pairs_mut().extend_pairs(query);
    Ok(url.into())
}

/// Who the code stands for.
pub(super) async fn redeem(
    node: &Node,
    client: &Client,
    code: &str,
    verifier: &str,
    nonce: &str,
) -> Result<Claims> {
    #[derive(Deserialize)]
    struct Tokens {
        id_token: String,
        access_token: Option<String>,
    }
    let known = known(node, &client.issuer, KEPT_MS).await?;
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", client.redirect_uri.as_str()),
        ("client_id", client.id.as_str()),
        ("code_verifier", verifier),
    ];
    let reach = Reach::of(node);
    let endpoint = within(&reach, &known.description.token_endpoint)?;
    let mut request = node.identity.providers.http(reach)?.post(endpoint);
    if let Some(secret) = &client.secret {
        let methods = &known.description.token_endpoint_auth_methods_supported;
        if methods.iter().any(|method| method == "client_secret_post") {
            form.push(("client_secret", secret.as_str()));
        } else {
            // RFC 6749, 2.3.1: both are encoded as in a form first.
            request =
                request.basic_auth(percent::encode(&client.id), Some(percent::encode(secret)));
        }
    }
    let tokens: Tokens = ask(request.form(&form)).await?;
    let claims = verify(node, client, &tokens.id_token).await?;
    if claims.nonce.as_deref() != Some(nonce) {
        return Err(failed("its token is to another question"));
    }
    match (&claims.email, &known.description.userinfo_endpoint, tokens.access_token) {
        (None, Some(endpoint), Some(token)) => told_apart(node, claims, endpoint, &token).await,
        _ => Ok(claims),
    }
}

/// Many providers put a name and an address into no ID token: they are asked for with the access token that came
/// beside it, and count only if they are of the same subject.
async fn told_apart(node: &Node, claims: Claims, endpoint: &str, token: &str) -> Result<Claims> {
    let reach = Reach::of(node);
    let place = within(&reach, endpoint)?;
    let request = node.identity.providers.http(reach)?.get(place).bearer_auth(token);
    let about: About = ask(request).await?;
    if about.sub != claims.sub {
        return Err(failed("it tells of somebody else"));
    }
    Ok(Claims {
        email: about.email,
        email_verified: about.email_verified,
        name: claims.name.or(about.name),
        preferred_username: claims.preferred_username.or(about.preferred_username),
        ..claims
    })
}

async fn verify(node: &Node, client: &Client, token: &str) -> Result<Claims> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(failed("its token is too long"));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| failed("its token is none"))?;
    if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        return Err(failed("its token is not signed by a key pair"));
    }
    let kid = header.kid.as_deref();
    let known = known_lately(node, &client.issuer, kid).await?;
    let key = key_of(&known, kid).ok_or_else(|| failed("its token is signed by no key of it"))?;
    let key = DecodingKey::from_jwk(&key).map_err(|_| failed("its key is not understood"))?;
    check(token, &key, header.alg, client, node.clock.now_ms() / 1_000)
}

/// By the node's own clock.
fn check(
    token: &str,
    key: &DecodingKey,
    alg: Algorithm,
    client: &Client,
    now_s: u64,
) -> Result<Claims> {
    let mut rules = Validation::new(alg);
    rules.validate_exp = false;
    rules.set_audience(&[&client.id]);
    rules.set_issuer(&[&client.issuer]);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims = jsonwebtoken::decode::<Claims>(token, key, &rules)
        .map_err(|error| failed(&format!("its token is not good: {error}")))?
        .claims;
    if claims.exp.saturating_add(LEEWAY_S) <= now_s {
        return Err(failed("its token has expired"));
    }
    if claims.azp.as_ref().is_some_and(|party| *party != client.id) || claims.sub.is_empty() {
        return Err(failed("its token is for somebody else"));
    }
    Ok(claims)
}

/// With the key of this name, if the provider has one.
async fn known_lately(node: &Node, issuer: &str, kid: Option<&str>) -> Result<Known> {
    let cached = known(node, issuer, KEPT_MS).await?;
    if key_of(&cached, kid).is_some() {
        return Ok(cached);
    }
    known(node, issuer, ASKED_AGAIN_MS).await
}

/// Without a name there must be one key only.
fn key_of(known: &Known, kid: Option<&str>) -> Option<Jwk> {
    let mut keys = known.keys.iter();
    match kid {
        Some(kid) => keys.find(|key| key.common.key_id.as_deref() == Some(kid)).cloned(),
        None => keys.next().filter(|_| known.keys.len() == 1).cloned(),
    }
}

/// What the provider says of itself, not older than this.
async fn known(node: &Node, issuer: &str, oldest_ms: u64) -> Result<Known> {
    let (providers, now_ms) = (&node.identity.providers, node.clock.now_ms());
    if let Some(known) = providers.recall(issuer).filter(|known| now_ms < known.at_ms + oldest_ms) {
        return Ok(known);
    }
    if providers.has_failed(issuer, now_ms) {
        return Err(failed("it failed a moment ago"));
    }
    let (description, keys) =
        describe(node, issuer).await.inspect_err(|_| providers.note_failure(issuer, now_ms))?;
    let known = Known { at_ms: now_ms, description: Arc::new(description), keys: Arc::new(keys) };
    providers.remember(issuer, known.clone());
    Ok(known)
}

async fn describe(node: &Node, issuer: &str) -> Result<(Description, Vec<Jwk>)> {
    let reach = Reach::of(node);
    let http = node.identity.providers.http(reach.clone())?;
    let base = issuer.trim_end_matches('/');
    let place = within(&reach, &format!("{base}/.well-known/openid-configuration"))?;
    let description: Description = ask(http.get(place)).await?;
    check_description(&description, issuer)?;
    let set: KeySet = ask(http.get(within(&reach, &description.jwks_uri)?)).await?;
    let keys = set.keys.into_iter().take(MAX_KEYS).filter_map(usable).collect();
    Ok((description, keys))
}

fn within(reach: &Reach, url: &str) -> Result<Url> {
    reach.check(url).map_err(failed)
}

/// An issuer with encryption has no endpoint without.
fn check_description(description: &Description, issuer: &str) -> Result<()> {
    let scheme = if issuer.starts_with("http://") { "http" } else { "https://" };
    let urls =
        [&description.authorization_endpoint, &description.token_endpoint, &description.jwks_uri];
    let mut urls = urls.into_iter().chain(&description.userinfo_endpoint);
    if description.issuer != issuer || urls.any(|url| !url.starts_with(scheme)) {
        return Err(failed("its description is another issuer's"));
    }
    Ok(())
}

/// Keys of a sort that is not known here are passed over, and so are those that do not sign.
fn usable(key: serde_json::Value) -> Option<Jwk> {
    let key: Jwk = serde_json::from_value(key).ok()?;
    let is_pair =
        !matches!(key.algorithm, AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_));
    let signs = key.common.public_key_use != Some(PublicKeyUse::Encryption);
    (is_pair && signs).then_some(key)
}

async fn ask<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let response = request.send().await.map_err(|error| no_answer(&error))?;
    let status = response.status();
    let body = read(response).await?;
    if !status.is_success() {
        return Err(failed(&format!("it answered {status}")));
    }
    serde_json::from_slice(&body).map_err(|_| failed("its answer is not understood"))
}

async fn read(mut response: Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(failed("its answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn no_answer(error: &reqwest::Error) -> Error {
    failed(if error.is_timeout() { "it did not answer in time" } else { "it could not be reached" })
}

/// What went wrong is for the log: the caller chose neither the provider nor its answer.
fn failed(why: &str) -> Error {
    tracing::warn!(why, "an OpenID provider failed a sign-in");
    refused(
        "provider_failed",
        "the provider did not vouch for you: try again, or sign in otherwise",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_of_another_issuer_or_without_encryption_is_refused() {
        let of = |issuer: &str, base: &str| Description {
            issuer: issuer.to_owned(),
            authorization_endpoint: format!("{base}/authorize"),
            token_endpoint: format!("{base}/token"),
            jwks_uri: format!("{base}/keys"),
            userinfo_endpoint: Some(format!("{base}/me")),
            token_endpoint_auth_methods_supported: Vec::new(),
        };
        let issuer = "https://id.example.org";
        assert!(check_description(&of(issuer, issuer), issuer).is_ok());
        assert!(check_description(&of("https://eve.org", issuer), issuer).is_err());
        assert!(check_description(&of(issuer, "http://id.example.org"), issuer).is_err());
        assert!(check_description(&of("http://a", "https://a"), "http://a").is_ok());
    }

    #[test]
    fn only_keys_that_sign_count() {
        let key = |json: &str| usable(serde_json::from_str(json).unwrap());
        assert!(key(r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"1","use":"sig"}"#).is_some());
        assert!(key(r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"1","use":"enc"}"#).is_none());
        assert!(key(r#"{"kty":"oct","k":"AQAB","kid":"1"}"#).is_none());
        assert!(key(r#"{"kty":"weird","kid":"1"}"#).is_none());
    }

    #[test]
    fn a_verified_address_may_be_told_as_text() {
        let claims = |value: &str| -> Claims {
            let json = format!(r#"{{"sub":"1","exp":1,"email_verified":{value}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        assert!(claims("true").email_verified && claims("\"true\"").email_verified);
        assert!(!claims("false").email_verified && !claims("1").email_verified);
    }
}
