//! The second factor of one's own account. Answers that hold a secret are never kept for repeats.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::Access::User;
use crate::route::{Answer, Route, get, post};
use atoll_node::identity::{password, second_factor};
use atoll_storage::{Field, Type};
use axum::http::header::CACHE_CONTROL;
use serde::Deserialize;
use serde_json::json;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/auth/totp", User, standing)
            .gives_fields(STANDING)
            .doc("Whether the account has a second factor."),
        post("/api/v1/auth/totp/setup", User, setup)
            .gives_fields(SETUP)
            .strict()
            .doc("Makes a secret for an app. It counts once a code of it was confirmed."),
        post("/api/v1/auth/totp/confirm", User, confirm)
            .takes_fields(CONFIRM)
            .gives_fields(CODES)
            .strict()
            .doc("Turns the second factor on, and shows the recovery codes this once."),
        post("/api/v1/auth/totp/disable", User, disable)
            .takes_fields(DISABLE)
            .strict()
            .doc("Turns the second factor off."),
    ]
}

const STANDING: &[Field] = &[
    Field::flag(1, "enabled").required(),
    Field::int(2, "recovery_codes").required().doc("How many are left."),
];
const SETUP: &[Field] = &[
    Field::text(1, "secret").required().doc("In base 32, to be typed."),
    Field::text(2, "uri").required().doc("For a QR code."),
];
const CONFIRM: &[Field] = &[Field::text(1, "code").required().max(64)];
const CODES: &[Field] =
    &[Field::set(1, "recovery_codes", Type::Text).doc("Each is good once in place of a code.")];
const DISABLE: &[Field] = &[
    Field::text(1, "password").required().max(password::MAX_BYTES),
    Field::text(2, "code").required().max(64).doc("Of the app, or a recovery code."),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disable {
    password: String,
    code: String,
}

async fn standing(call: Call) -> Answer {
    let standing = second_factor::standing(&call.node, &call.actor)?;
    Reply::data(json!({ "enabled": standing.is_on, "recovery_codes": standing.recovery_codes }))
}

async fn setup(call: Call) -> Answer {
    let made = second_factor::setup(&call.node, &call.actor).await?;
    let reply = Reply::data(json!({ "secret": made.secret, "uri": made.uri }))?;
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

async fn confirm(call: Call) -> Answer {
    let form: Confirm = call.json()?;
    let codes = second_factor::confirm(&call.node, &call.actor, &form.code).await?;
    let reply = Reply::data(json!({ "recovery_codes": codes }))?;
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}

async fn disable(call: Call) -> Answer {
    let form: Disable = call.json()?;
    second_factor::disable(&call.node, &call.actor, form.password, form.code).await?;
    Reply::none()
}
