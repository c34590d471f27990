//! Signing in by an OpenID provider. The browser keeps what ties its way there and back together in a cookie that only
//! these paths see; nothing of it is kept here.

use crate::auth::{TOKENS, tokens};
use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, delete, get, put};
use atoll_node::Permission::UsersAdminister;
use atoll_node::identity::oidc::{self, LIFETIME_S, NewProvider, OIDC_PROVIDER};
use atoll_node::identity::tenant;
use atoll_storage::Field;
use axum::http::StatusCode;
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use serde::Deserialize;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/auth/oidc/start", Public, start)
            .query(&["tenant"])
            .strict()
            .doc("Sends the browser to the tenant's OpenID provider."),
        get("/api/v1/auth/oidc/callback", Public, callback)
            .query(CALLBACK)
            .gives_fields(TOKENS)
            .strict()
            .doc("Where the provider sends the browser back to: signs in, and makes an account if there is none."),
        get("/api/v1/auth/oidc/provider", Can(UsersAdminister), show)
            .gives(&OIDC_PROVIDER)
            .doc("The tenant's provider, without its secret."),
        put("/api/v1/auth/oidc/provider", Can(UsersAdminister), replace)
            .takes_fields(PROVIDER)
            .gives(&OIDC_PROVIDER)
            .doc("Trusts a provider. Register the tenant's address with the path of `callback` there."),
        delete("/api/v1/auth/oidc/provider", Can(UsersAdminister), remove)
            .doc("Trusts it no more. Accounts stay, and so do their sessions."),
    ]
}

/// What the standard and the large providers send along.
const CALLBACK: &[&str] = &[
    "code",
    "state",
    "error",
    "error_description",
    "error_uri",
    "iss",
    "session_state",
    "scope",
    "authuser",
    "prompt",
    "hd",
];
const PROVIDER: &[Field] = &[
    oidc::ISSUER,
    oidc::CLIENT_ID,
    Field::text(3, "client_secret").max(500).doc("The one that is kept stays if absent."),
];
const SEED: &str = "atoll_oidc";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    issuer: String,
    client_id: String,
    #[serde(default)]
    client_secret: Option<String>,
}

async fn start(call: Call) -> Answer {
    let tenant = match call.param("tenant") {
        Some(name) => tenant::resolve(&call.node, Some(name), None)?,
        None => call.tenant(),
    };
    let started = oidc::start(&call.node, tenant).await?;
    let cookie = cookie(&call, &started.seed, LIFETIME_S);
    let reply = Reply::none()?.status(StatusCode::FOUND);
    Ok(reply.header(LOCATION, started.location).header(SET_COOKIE, cookie))
}

/// The seed is good for one answer, whatever that was.
async fn callback(call: Call) -> Answer {
    let wanting = |name: &str| {
        call.param(name).ok_or_else(|| Problem::parameter(name, "required", "is required"))
    };
    if let Some(error) = call.param("error") {
        let message = format!("the provider refused: {error}");
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "provider_refused", message));
    }
    let (code, state) = (wanting("code")?, wanting("state")?);
    let seed = seed_of(&call).unwrap_or_default();
    let signed_in = oidc::finish(&call.node, seed, state, code, call.user_agent()).await?;
    Ok(tokens(&call, &signed_in)?.header(SET_COOKIE, cookie(&call, "", 0)))
}

fn cookie(call: &Call, seed: &str, lifetime_s: u64) -> String {
    let is_encrypted = call.node.config.public_url.starts_with("https://");
    let secure = if is_encrypted { "; Secure" } else { "" };
    format!(
        "{SEED}={seed}; Path=/api/v1/auth/oidc; Max-Age={lifetime_s}; HttpOnly; SameSite=Lax{secure}"
    )
}

fn seed_of(call: &Call) -> Option<&str> {
    let pairs = call.header(COOKIE.as_str())?.split(';');
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SEED).map(|(_, seed)| seed)
}

async fn show(call: Call) -> Answer {
    Reply::record(&call, &oidc::get(&call.node, &call.actor)?)
}

async fn replace(call: Call) -> Answer {
    let form: Provider = call.json()?;
    let new = NewProvider {
        issuer: form.issuer,
        client_id: form.client_id,
        client_secret: form.client_secret,
    };
    Reply::record(&call, &oidc::put(&call.node, &call.actor, new).await?)
}

async fn remove(call: Call) -> Answer {
    oidc::remove(&call.node, &call.actor).await?;
    Reply::none()
}
