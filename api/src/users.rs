//! Users: one's own profile, picture, password and data, and the accounts of a tenant for those who administer them.

mod administer;
mod own;
mod table;

use crate::auth::me;
use crate::call::Call;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::{Can, Public, User};
use crate::route::{Answer, Route, delete, get, post, put};
use atoll_node::identity::user::{self, NewUser, USER};
use atoll_node::identity::{avatar, password, second_factor};
use atoll_node::{Error, Permission, Role};
use atoll_storage::Field;
use axum::http::header::CACHE_CONTROL;
use serde::Deserialize;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/users/profile", User, me).gives(&USER).doc("One's own account."),
        put("/api/v1/users/profile", User, edit_profile)
            .takes(&USER)
            .gives(&USER)
            .doc("Changes one's own profile; what is left out stays as it is."),
        post("/api/v1/users/change-password", User, change_password)
            .takes_fields(CHANGE_PASSWORD)
            .strict()
            .doc("Ends every other session of the account."),
        put("/api/v1/users/profile/avatar", User, upload_avatar)
            .gives(&USER)
            .body_limit(avatar::MAX_BYTES)
            .doc("Takes the bytes of a JPEG, PNG, WebP or GIF as one's picture. It becomes a square of 256 pixels."),
        delete("/api/v1/users/profile/avatar", User, remove_avatar).doc("Takes one's picture away."),
        get("/api/v1/users/me", User, me).gives(&USER).doc("One's own account."),
        delete("/api/v1/users/me", User, own::erase)
            .takes_fields(own::ERASE)
            .strict()
            .doc("Deletes one's own account. What one wrote stays, by a deleted user."),
        get("/api/v1/users/me/export", User, own::export)
            .doc("All that is here of oneself as one JSON document: account, posts, comments, likes, sessions."),
        get("/api/v1/users", Can(Permission::UsersAdminister), administer::list)
            .lists(&USER)
            .query(&["q"])
            .doc("The tenant's accounts. q is how the username, the e-mail address or the display name begins."),
        post("/api/v1/users/import", Can(Permission::UsersAdminister), table::import)
            .query(&["dry_run"])
            .gives_fields(table::REPORT)
            .body_limit(table::BODY_BYTES)
            .strict()
            .doc("Makes an account of every row of a CSV table with the columns email, username, display_name, role, \
                  and password or password_hash (argon2id, bcrypt, or PBKDF2 of Django, passlib or werkzeug); or of every row \
                  of a table that was exported, whose accounts may be here. A bad row stops nothing. With dry_run=true \
                  nothing is made."),
        get("/api/v1/users/export", Can(Permission::UsersAdminister), table::export)
            .query(&["include"])
            .doc("The tenant's accounts as CSV, to be read or imported elsewhere. With include=password_hashes the hashes too, \
                  by which people sign in there."),
        post("/api/v1/users", Can(Permission::UsersAdminister), create)
            .takes_fields(CREATE)
            .gives(&USER)
            .strict()
            .doc("Makes an account for somebody, who has to change the password."),
        get("/api/v1/users/{id}", Public, find).gives(&USER).doc("By id or username."),
        get("/api/v1/users/{id}/avatar", Public, show_avatar)
            .doc("The picture that a user uploaded, as a JPEG."),
        delete("/api/v1/users/{id}/totp", Can(Permission::UsersAdminister), drop_totp)
            .doc("Takes away the second factor of somebody who lost it."),
        put("/api/v1/users/{id}", Can(Permission::UsersAdminister), administer::edit)
            .takes_fields(administer::EDIT)
            .gives(&USER)
            .doc("Changes somebody's account; what is left out stays as it is."),
        delete("/api/v1/users/{id}", Can(Permission::UsersAdminister), administer::remove)
            .doc("Deletes somebody's account. What he wrote stays, by a deleted user."),
        put("/api/v1/users/{id}/roles", Can(Permission::UsersAdminister), administer::set_roles)
            .takes_fields(administer::ROLES)
            .gives(&USER)
            .doc("Gives these roles and no others. Nobody gives what he lacks; the last administrator stays one."),
        post("/api/v1/users/{id}/impersonate", Can(Permission::UsersAdminister), administer::impersonate)
            .gives_fields(administer::IMPERSONATION)
            .strict()
            .doc("Acts in a user's name for 15 minutes. Not above one's own rank."),
        put("/api/v1/users/{id}/role", Can(Permission::UsersAdminister), set_role)
            .takes_fields(ROLE)
            .gives(&USER)
            .doc("Nobody gives a role above his own; the last administrator keeps his."),
        put("/api/v1/users/{id}/status", Can(Permission::UsersAdminister), set_status)
            .takes_fields(STATUS)
            .gives(&USER)
            .doc("A disabled account can't sign in, and its sessions end."),
    ]
}

const CHANGE_PASSWORD: &[Field] = &[
    Field::text(1, "old_password").required(),
    Field::text(2, "new_password")
        .required()
        .max(password::MAX_BYTES)
        .doc("At least ten characters."),
];
const CREATE: &[Field] = &[
    user::EMAIL,
    user::USERNAME,
    user::DISPLAY_NAME,
    Field::text(4, "password").required().max(password::MAX_BYTES).doc("At least ten characters."),
    Field::text(5, "role").choices(Role::NAMES).doc("viewer if absent."),
];
const ROLE: &[Field] = &[Field::text(1, "role").required().choices(Role::NAMES)];
const STATUS: &[Field] = &[Field::text(1, "status").required().choices(&["active", "disabled"])];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangePassword {
    old_password: String,
    new_password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    email: String,
    username: String,
    #[serde(default)]
    display_name: Option<String>,
    password: String,
    #[serde(default)]
    role: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRole {
    role: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStatus {
    status: String,
}

async fn edit_profile(call: Call) -> Answer {
    let me = user::me(&call.node, &call.actor)?;
    call.if_match(&me)?;
    let changes = call.changes_to(&me)?;
    let user = user::edit_profile(&call.node, &call.actor, changes).await?;
    Reply::record(&call, &user)
}

async fn upload_avatar(call: Call) -> Answer {
    let user = avatar::upload(&call.node, &call.actor, call.body().to_vec()).await?;
    Reply::record(&call, &user)
}

async fn remove_avatar(call: Call) -> Answer {
    avatar::remove(&call.node, &call.actor).await?;
    Reply::none()
}

async fn show_avatar(call: Call) -> Answer {
    let bytes = avatar::get(&call.node, &call.actor, call.id("id")?).await?;
    Ok(Reply::text(avatar::CONTENT_TYPE, bytes)?.header(CACHE_CONTROL, "public, max-age=300"))
}

async fn drop_totp(call: Call) -> Answer {
    second_factor::drop_for(&call.node, &call.actor, call.id("id")?).await?;
    Reply::none()
}

async fn change_password(call: Call) -> Answer {
    let form: ChangePassword = call.json()?;
    user::change_password(&call.node, &call.actor, form.old_password, form.new_password).await?;
    Reply::none()
}

async fn create(call: Call) -> Answer {
    let form: Create = call.json()?;
    let new = NewUser {
        email: form.email,
        username: form.username,
        display_name: form.display_name.unwrap_or_default(),
        password: form.password,
        role: form.role.as_deref().map_or(Ok(Role::Viewer), role_named)?,
        must_change_password: true,
    };
    let user = user::create(&call.node, &call.actor, new).await?;
    Reply::created(&call, &user, format!("/api/v1/users/{}", user.key))
}

async fn find(call: Call) -> Answer {
    let user = user::by_name(&call.node, &call.actor, call.path("id"))?;
    Reply::record(&call, &user)
}

async fn set_role(call: Call) -> Answer {
    let form: SetRole = call.json()?;
    let role = role_named(&form.role)?;
    let user = user::set_role(&call.node, &call.actor, call.id("id")?, role).await?;
    Reply::record(&call, &user)
}

async fn set_status(call: Call) -> Answer {
    let form: SetStatus = call.json()?;
    let active = match form.status.as_str() {
        "active" => true,
        "disabled" => false,
        _ => return Err(unknown_choice("status", "active, disabled")),
    };
    let user = user::set_active(&call.node, &call.actor, call.id("id")?, active).await?;
    Reply::record(&call, &user)
}

fn role_named(name: &str) -> Result<Role, Problem> {
    Role::parse(name).ok_or_else(|| unknown_choice("role", &Role::NAMES.join(", ")))
}

fn unknown_choice(field: &str, known: &str) -> Problem {
    Error::field(field, "unknown_choice", format!("must be one of {known}")).into()
}
