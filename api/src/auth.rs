//! Signing up, in and out, proving an e-mail address, forgotten passwords, and the keys that others check our tokens
//! with. Answers that hold tokens are never kept for repeats.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::Access::{Public, User};
use crate::route::{Answer, Route, get, post};
use crate::show;
use atoll_node::Role;
use atoll_node::identity::user::{self, NewUser, USER};
use atoll_node::identity::{self, SignedIn, email, password, reset, signing_key};
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
            .doc("Signs in with e-mail address or username. Five wrong passwords or codes make a pause that doubles."),
        post("/api/v1/auth/refresh", Public, refresh)
            .takes_fields(REFRESH)
            .gives_fields(TOKENS)
            .strict()
            .doc("New tokens for a refresh token, which is then used up. Using one twice ends its session."),
        post("/api/v1/auth/logout", User, logout).doc("Ends this session on every node."),
        get("/api/v1/auth/me", User, me)
            .gives(&USER)
            .doc("The account that is signed in; with `impersonated_by` if an administrator acts in its name."),
        post("/api/v1/auth/verify-email", Public, verify_email)
            .takes_fields(TOKEN)
            .strict()
            .doc("Proves an e-mail address by the token of a letter, which is good once."),
        post("/api/v1/auth/resend-verification", User, resend_verification)
            .strict()
            .doc("Another letter for the address that waits to be proved. The letter before it is void."),
        post("/api/v1/auth/change-email", User, change_email)
            .takes_fields(CHANGE_EMAIL)
            .gives(&USER)
            .strict()
            .doc("Sends a letter to a new address, which takes the old one's place once it is proved."),
        post("/api/v1/auth/forgot-password", Public, forgot_password)
            .takes_fields(FORGOT)
            .strict()
            .doc("Sends a letter with a link to a new password, if there is such an account. The answer does not tell."),
        post("/api/v1/auth/reset-password", Public, reset_password)
            .takes_fields(RESET)
            .strict()
            .doc("A new password for the token of a letter, which is good once. Ends all sessions."),
        get("/.well-known/jwks.json", Public, jwks)
            .gives_fields(JWKS)
            .plain()
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
    Field::text(3, "code")
        .max(64)
        .doc("Of the app, or a recovery code; needed if the answer is `totp_required`."),
];
const TOKEN: &[Field] =
    &[Field::text(1, "token").required().max(200).doc("From the link of the letter.")];
const CHANGE_EMAIL: &[Field] = &[
    Field::text(1, "email").required().max(254),
    Field::text(2, "password").required().max(password::MAX_BYTES),
];
const FORGOT: &[Field] = &[Field::text(1, "email").required().max(254)];
const RESET: &[Field] = &[
    Field::text(1, "token").required().max(200).doc("From the link of the letter."),
    Field::text(2, "new_password")
        .required()
        .max(password::MAX_BYTES)
        .doc("At least ten characters."),
];
const REFRESH: &[Field] = &[Field::text(1, "refresh_token").required()];
pub(crate) const TOKENS: &[Field] = &[
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
    #[serde(default)]
    code: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeEmail {
    email: String,
    password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forgot {
    email: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    token: String,
    new_password: String,
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
    let signed_in = identity::login(
        &call.node,
        &call.actor,
        &form.login,
        form.password,
        form.code,
        call.user_agent(),
    )
    .await?;
    tokens(&call, &signed_in)
}

async fn refresh(call: Call) -> Answer {
    let form: Refresh = call.json()?;
    let signed_in = identity::refresh(&call.node, &form.refresh_token).await?;
    tokens(&call, &signed_in)
}

/// The answer to whoever has signed in.
pub(crate) fn tokens(call: &Call, signed_in: &SignedIn) -> Answer {
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

async fn verify_email(call: Call) -> Answer {
    let form: Token = call.json()?;
    email::verify(&call.node, call.tenant(), &form.token).await?;
    Reply::none()
}

async fn resend_verification(call: Call) -> Answer {
    email::resend(&call.node, &call.actor).await?;
    Reply::none()
}

async fn change_email(call: Call) -> Answer {
    let form: ChangeEmail = call.json()?;
    let user = email::change(&call.node, &call.actor, &form.email, form.password).await?;
    Reply::record(&call, &user)
}

async fn forgot_password(call: Call) -> Answer {
    let form: Forgot = call.json()?;
    reset::ask(&call.node, call.tenant(), &form.email).await?;
    Reply::none()
}

async fn reset_password(call: Call) -> Answer {
    let form: Reset = call.json()?;
    reset::reset(&call.node, call.tenant(), &form.token, form.new_password).await?;
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
