//! Accounts as commands ask for them, in the default tenant.

use super::in_default;
use crate::failure::{Failure, Outcome};
use crate::secret;
use atoll_api::moment::Moment;
use atoll_node::identity::user::table;
use atoll_node::identity::{NewUser, user};
use atoll_node::{Node, Role};
use atoll_storage::Record;
use atoll_storage::query::Query;
use serde_json::{Value as Json, json};
use std::path::Path;

/// Records that are read at once.
const PAGE: usize = 100;
/// The largest table of accounts that is read.
const MAX_TABLE_BYTES: u64 = 64 << 20;

pub(super) async fn create(
    node: &Node,
    email: String,
    username: Option<String>,
    role: &str,
    password: Option<String>,
) -> Outcome<Json> {
    let actor = in_default(node)?;
    let role = Role::parse(role).ok_or_else(|| {
        Failure::usage(format!("there is no role {role:?}: use {}", Role::NAMES.join(", ")))
    })?;
    let username = username.unwrap_or_else(|| name_from(&email));
    let (password, made) = secret::or_made(node, password);
    let new = NewUser {
        username,
        email,
        display_name: String::new(),
        password,
        role,
        must_change_password: made.is_some(),
    };
    let user = user::create(node, &actor, new).await?;
    Ok(with_password(user_json(&user), made))
}

/// What stands before the @, made long enough.
fn name_from(email: &str) -> String {
    let local = email.split('@').next().unwrap_or_default();
    let is_short = local.chars().filter(char::is_ascii_alphanumeric).count() < 3;
    user::username_from(&if is_short { format!("user-{local}") } else { local.to_owned() }, "user")
}

fn with_password(mut answer: Json, made: Option<String>) -> Json {
    if let Some(password) = made {
        answer["password"] = password.into();
    }
    answer
}

fn user_json(user: &Record) -> Json {
    json!({
        "id": user.key,
        "email": user.text(&user::EMAIL),
        "username": user.text(&user::USERNAME),
        "role": user.text(&user::ROLE),
        "status": user.text(&user::STATUS),
        "created_at": Moment::of(user.created_ms()).to_string(),
    })
}

pub(super) fn list(node: &Node, limit: usize) -> Outcome<Json> {
    let actor = in_default(node)?;
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let left = limit - rows.len();
        let query = Query::of(&user::USER, actor.tenant).limit(left.min(PAGE)).after(after);
        let page = user::list(node, &actor, &query)?;
        rows.extend(page.records.iter().map(user_json));
        after = page.next;
        if after.is_none() || rows.len() >= limit {
            return Ok(Json::Array(rows));
        }
    }
}

pub(super) async fn reset_password(
    node: &Node,
    name: &str,
    password: Option<String>,
) -> Outcome<Json> {
    let actor = in_default(node)?;
    let found = user::by_name(node, &actor, name).map_err(|error| match error {
        atoll_node::Error::NotFound(_) => Failure::not_found(format!(
            "there is no user {name:?} in the default tenant: `atoll user list` shows them"
        )),
        error => error.into(),
    })?;
    let (password, made) = secret::or_made(node, password);
    user::reset_password(node, &actor, found.key, password).await?;
    Ok(with_password(user_json(&found), made))
}

pub(super) async fn import(node: &Node, file: &Path, dry_run: bool) -> Outcome<Json> {
    let actor = in_default(node)?;
    let failed = |error: std::io::Error| Failure::io("read", file, &error);
    if std::fs::metadata(file).map_err(failed)?.len() > MAX_TABLE_BYTES {
        return Err(Failure::usage("the file is larger than 64 MiB: split it"));
    }
    let rows = table::read(&std::fs::read(file).map_err(failed)?, table::FROM_FILE)?;
    let report = table::import(node, &actor, rows, dry_run).await?;
    serde_json::to_value(report).map_err(Failure::failed)
}

pub(super) fn export(node: &Node, with_hashes: bool) -> Outcome<Json> {
    let actor = in_default(node)?;
    let (mut csv, mut after) = table::export(node, &actor, with_hashes, None)?;
    while after.is_some() {
        let (more, next) = table::export(node, &actor, with_hashes, after)?;
        csv.push_str(&more);
        after = next;
    }
    Ok(json!({ "csv": csv }))
}
