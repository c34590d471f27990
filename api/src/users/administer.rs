//! The accounts of others, for those who administer them.

use crate::call::Call;
use crate::posts::expected;
use crate::reply::Reply;
use crate::route::Answer;
use crate::show;
use atoll_node::identity::user::administer::{self, Patch};
use atoll_node::identity::user::impersonate::LIFETIME_S;
use atoll_node::identity::user::{self, USER, erase, impersonate};
use atoll_storage::{Field, Type};
use axum::http::header::CACHE_CONTROL;
use serde::{Deserialize, Deserializer};
use serde_json::json;

pub(super) const EDIT: &[Field] = &[user::EMAIL, user::USERNAME, user::DISPLAY_NAME, user::BIO];
pub(super) const ROLES: &[Field] =
    &[Field::set(1, "roles", Type::Text).required().doc("Names of roles, or ids of the tenant's.")];
pub(super) const IMPERSONATION: &[Field] = &[
    Field::text(1, "access_token").required(),
    Field::text(2, "token_type").required().choices(&["Bearer"]),
    Field::int(3, "expires_in").required().doc("Seconds. There is no refresh token."),
    Field::refers(4, "session_id", "session").required(),
    Field::refers(5, "user_id", "user").required(),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default, deserialize_with = "given")]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    bio: Option<String>,
}

/// Null is not absent: it clears.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| Some(text.unwrap_or_default()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Roles {
    roles: Vec<String>,
}

pub(super) async fn list(call: Call) -> Answer {
    let query = call.query(&USER, &[])?;
    let found = query.to_query(call.tenant());
    let page = administer::list(&call.node, &call.actor, found, call.param("q"))?;
    Reply::list(&call, page, &query)
}

pub(super) async fn edit(call: Call) -> Answer {
    let present = user::get(&call.node, &call.actor, call.id("id")?)?;
    let version = expected(&call, &present)?;
    let form: Edit = call.json()?;
    let patch = Patch {
        email: form.email,
        username: form.username,
        display_name: form.display_name,
        bio: form.bio,
    };
    let user = administer::edit(&call.node, &call.actor, present.key, patch, version).await?;
    Reply::record(&call, &user)
}

pub(super) async fn remove(call: Call) -> Answer {
    let present = user::get(&call.node, &call.actor, call.id("id")?)?;
    let version = expected(&call, &present)?;
    erase::erase(&call.node, &call.actor, present.key, version).await?;
    Reply::none()
}

pub(super) async fn set_roles(call: Call) -> Answer {
    let form: Roles = call.json()?;
    let user = administer::set_roles(&call.node, &call.actor, call.id("id")?, form.roles).await?;
    Reply::record(&call, &user)
}

pub(super) async fn impersonate(call: Call) -> Answer {
    let posed = impersonate::impersonate(&call.node, &call.actor, call.id("id")?).await?;
    let reply = Reply::data(json!({
        "access_token": posed.access_token,
        "token_type": "Bearer",
        "expires_in": LIFETIME_S,
        "session_id": posed.session,
        "user_id": posed.user.key,
        "user": show::value(&call, &posed.user)?,
    }))?;
    Ok(reply.header(CACHE_CONTROL, "no-store"))
}
