//! Signing in by an OpenID provider. The browser keeps what ties its way there and back together in a cookie that only
//! these paths see; nothing of it is kept here.

use crate::auth::{TOKENS, tokens};
use crate::call::Call;
use crate::cookie;
use crate::pages;
use crate::problem::Problem;
use crate::reply::{PROBLEM, Reply};
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, delete, get, post, put};
use atoll_node::Permission::UsersAdminister;
use atoll_node::identity::oidc::{
    self, Back, Finished, LIFETIME_S, NewProvider, OIDC_PROVIDER, TICKET_LIFETIME_S,
};
use atoll_node::identity::tenant;
use atoll_storage::Field;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use serde::Deserialize;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/auth/oidc/start", Public, start)
            .query(&["tenant", "return_to"])
            .strict()
            .doc("Sends the browser to the tenant's OpenID provider. With return_to, a path of the site, it comes back \
                  there in the end, and the page calls `finish`."),
        get("/api/v1/auth/oidc/callback", Public, callback)
            .query(CALLBACK)
            .gives_fields(TOKENS)
            .strict()
            .doc("Where the provider sends the browser back to: signs in, and makes an account if there is none. An \
                  account with a second factor gets `totp_required`, and signs in by `finish`."),
        post("/api/v1/auth/oidc/finish", Public, finish)
            .takes_fields(FINISH)
            .gives_fields(TOKENS)
            .strict()
            .doc("Signs in a browser that came back from the provider, within five minutes and once, with the code of a \
                  second factor if the account has one."),
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
const FINISH: &[Field] = &[Field::text(1, "code").max(64).doc("Of the app, or a recovery code.")];
/// What ties the way to the provider and back together, and where to go then.
const SEED: &str = "atoll_oidc";
/// What a session is to be had for.
const TICKET: &str = "atoll_oidc_ticket";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    issuer: String,
    client_id: String,
    #[serde(default)]
    client_secret: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finish {
    #[serde(default)]
    code: Option<String>,
}

async fn start(call: Call) -> Answer {
    let tenant = match call.param("tenant") {
        Some(name) => tenant::resolve(&call.node, Some(name), None)?,
        None => call.tenant(),
    };
    let back = call.param("return_to").map(Back::to).transpose()?;
    let started = oidc::start(&call.node, tenant).await?;
    let kept = match &back {
        Some(back) => format!("{}{MARK}{}", started.seed, back.path()),
        None => started.seed,
    };
    let kept = kept_as(&call, SEED, &kept, LIFETIME_S);
    let reply = Reply::none()?.status(StatusCode::FOUND);
    Ok(reply.header(LOCATION, started.location).header(SET_COOKIE, kept))
}

/// Between seed and path in the cookie; no seed has one in it.
const MARK: char = '~';

/// The seed is good for one answer, whatever that was.
async fn callback(call: Call) -> Answer {
    let (seed, back) = kept_by(&call);
    let (seed, back) = (seed.to_owned(), back.and_then(|path| Back::to(path).ok()));
    let answer = answered(&call, &seed, back.as_ref()).await;
    let Some(back) = back else { return answer };
    let site = oidc::site_of(&call.node, call.param("state").unwrap_or_default())?;
    let place = match &answer {
        Ok(_) => format!("{site}{}", back.path()),
        Err(problem) if is_on_site(&back) => {
            format!("{site}{}&error={}", back.path(), problem.code())
        }
        Err(problem) => format!("{site}{}#error={}", back.path(), problem.code()),
    };
    let reply = Reply::none()?.status(StatusCode::FOUND).header(LOCATION, place);
    let mut reply = reply.header(SET_COOKIE, kept_as(&call, SEED, "", 0));
    let answered = answer.map(|answer| answer.headers).unwrap_or_default();
    reply.headers.extend(answered.into_iter().filter(|(name, _)| name == SET_COOKIE));
    Ok(reply)
}

async fn answered(call: &Call, seed: &str, back: Option<&Back>) -> Answer {
    let wanting = |name: &str| {
        call.param(name).ok_or_else(|| Problem::parameter(name, "required", "is required"))
    };
    if let Some(error) = call.param("error") {
        let message = format!("the provider refused: {error}");
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "provider_refused", message));
    }
    let (code, state) = (wanting("code")?, wanting("state")?);
    let agent = call.user_agent();
    match oidc::finish(&call.node, seed, state, code, back.is_some(), agent).await? {
        Finished::SignedIn(signed_in) => {
            Ok(tokens(call, &signed_in)?.header(SET_COOKIE, kept_as(call, SEED, "", 0)))
        }
        Finished::Ticket { text, needs_code } => {
            let ticket = match back.filter(|back| is_on_site(back)) {
                Some(_) => pages::ticket_of(call, &text),
                None => kept_as(call, TICKET, &text, TICKET_LIFETIME_S),
            };
            let reply = if needs_code { asks_for_code(call) } else { Reply::none()? };
            Ok(reply.header(SET_COOKIE, ticket))
        }
    }
}

/// Whether the site's own page takes the browser back. It reads a query, and no script does.
fn is_on_site(back: &Back) -> bool {
    back.path().starts_with(pages::BACK_FROM_PROVIDER)
}

/// The problem that a sign-in without its code gets, as an answer that brings the ticket.
fn asks_for_code(call: &Call) -> Reply {
    let message = "this account has a second factor: send its code to /api/v1/auth/oidc/finish";
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "totp_required", message);
    let body = problem.to_json(call.request_id.as_str());
    let reply = Reply::whole(StatusCode::UNAUTHORIZED, PROBLEM, body);
    reply.header(WWW_AUTHENTICATE, "Bearer").header(CACHE_CONTROL, "no-store")
}

async fn finish(call: Call) -> Answer {
    let form: Finish = call.json()?;
    let ticket = cookie::get(&call.headers, TICKET).unwrap_or_default();
    let signed_in = oidc::redeem(&call.node, ticket, form.code, call.user_agent()).await?;
    Ok(tokens(&call, &signed_in)?.header(SET_COOKIE, kept_as(&call, TICKET, "", 0)))
}

/// Only these paths see it.
fn kept_as(call: &Call, name: &str, value: &str, lifetime_s: u64) -> String {
    cookie::set(call, name, value, "/api/v1/auth/oidc", lifetime_s)
}

/// The seed, and the path to go back to.
fn kept_by(call: &Call) -> (&str, Option<&str>) {
    let kept = cookie::get(&call.headers, SEED).unwrap_or_default();
    kept.split_once(MARK).map_or((kept, None), |(seed, path)| (seed, Some(path)))
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
