//! Signing up, in and out, and the keys that others check our tokens with. Answers that hold tokens are never
//! kept for repeats.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::Access::{Public, User};
use crate::route::{Answer, Route, get, post};
use crate::show;
use atoll_node::Role;
use atoll_node::identity::user::{self, NewUser, USER};
use atoll_node::identity::{self, SignedIn, password, signing_key};
use atoll_storage::Field;
use axum::http::header::CACHE_CONTROL;
use serde::Deserialize;
use serde_json::json;

pub fn routes() -> Vec<Route> {
    vec![
        post("/api/v1/auth/register", Public, register)
            .takes_fields(REGISTER)
            .gives(&USER)
            .strict()
            .doc("Makes an account with the role viewer in the request's tenant."),
        post("/api/v1/auth/login", Public, login)
            .takes_fields(LOGIN)
            .gives_fields(TOKENS)
            .strict()
            .doc("Signs in with e-mail address or username. Five wrong passwords make a pause that doubles."),
        post("/api/v1/auth/refresh", Public, refresh)
            .takes_fields(REFRESH)
            .gives_fields(TOKENS)
            .strict()
            .doc("New tokens for a refresh token, which is then used up. Using one twice ends its session."),
        post("/api/v1/auth/logout", User, logout).doc("Ends this session on every node."),
        get("/api/v1/auth/me", User, me)
            .gives(&USER)
            .doc("The account that is signed in; with `impersonated_by` if an administrator acts in its name."),
        get("/.well-known/jwks.json", Public, jwks)
            .gives_fields(JWKS)
            .doc("The public keys of all nodes of the network, as a JSON Web Key Set."),
    ]
}

const REGISTER: &[Field] = &[
    user::EMAIL,
    user::USERNAME,
    user::DISPLAY_NAME,
    Field::text(4, "password").required().max(password::MAX_BYTES).doc("At least ten characters."),
];
const LOGIN: &[Field] = &[
    Field::text(1, "login")
        .required()
        .doc("E-mail address or username; `email` and `username` name it as well."),
    Field::text(2, "password").required().max(password::MAX_BYTES),
];
const REFRESH: &[Field] = &[Field::text(1, "refresh_token").required()];
const TOKENS: &[Field] = &[
    Field::text(1, "access_token")
        .required()
        .doc("Goes into the header Authorization, after `Bearer `."),
    Field::text(2, "token_type").required().choices(&["Bearer"]),
    Field::int(3, "expires_in").required().doc("Seconds that the access token is good for."),
    Field::text(4, "refresh_token").required(),
    Field::int(5, "refresh_expires_in").required(),
    Field::refers(6, "session_id", "session").required(),
    Field::flag(7, "must_change_password").required(),
    Field::refers(8, "user_id", "user").required().doc("The whole account is under `user`."),
];
const JWKS: &[Field] = &[];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    email: String,
    username: String,
    #[serde(default)]
    display_name: Option<String>,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    #[serde(alias = "email", alias = "username")]
    login: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refresh {
    refresh_token: String,
}

async fn register(call: Call) -> Answer {
    let form: Register = call.json()?;
    let new = NewUser {
        email: form.email,
        username: form.username,
        display_name: form.display_name.unwrap_or_default(),
        password: form.password,
        role: Role::Viewer,
        must_change_password: false,
    };
    let user = user::register(&call.node, &call.actor, new).await?;
    Reply::created(&call, &user, format!("/api/v1/users/{}", user.key))
}

async fn login(call: Call) -> Answer {
    let form: Login = call.json()?;
    let signed_in =
        identity::login(&call.node, &call.actor, &form.login, form.password, call.user_agent())
            .await?;
    tokens(&call, &signed_in)
}

async fn refresh(call: Call) -> Answer {
    let form: Refresh = call.json()?;
    let signed_in = identity::refresh(&call.node, &form.refresh_token).await?;
    tokens(&call, &signed_in)
}

fn tokens(call: &Call, signed_in: &SignedIn) -> Answer {
    let reply = Reply::data(json!({
        "access_token": signed_in.access_token,
        "token_type": "Bearer",
        "expires_in": signed_in.access_expires_in_s,
        "refresh_token": signed_in.refresh_token,
        "refresh_expires_in": signed_in.refresh_expires_in_s,
        "session_id": signed_in.session,
        "must_change_password": signed_in.user.flag(&user::MUST_CHANGE_PASSWORD),
        "user_id": signed_in.user.key,
        "user": show::value(call, &signed_in.user)?,
    }))?;
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

async fn logout(call: Call) -> Answer {
    identity::logout(&call.node, &call.actor).await?;
    Reply::none()
}

pub(crate) async fn me(call: Call) -> Answer {
    let me = user::me(&call.node, &call.actor)?;
    let Some(admin) = call.actor.impersonator else { return Reply::record(&call, &me) };
    let mut shown = show::value(&call, &me)?;
    shown["impersonated_by"] = json!(admin);
    Reply::data(shown)
}

async fn jwks(call: Call) -> Answer {
    let reply = Reply::json(signing_key::jwks(&call.node)?)?;
    Ok(reply.header(CACHE_CONTROL, "public, max-age=300"))
}
