//! Roles and permissions: the built-in ones, which are the same everywhere, and those that a tenant makes.

use crate::call::Call;
use crate::posts::expected;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::route::Access::Can;
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show;
use atoll_node::identity::role::{self, ROLE};
use atoll_node::{Permission, PermissionSet, Role};
use atoll_storage::{Field, Record};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use serde_json::{Value as Json, json};

pub fn routes() -> Vec<Route> {
    let may = Can(Permission::UsersAdminister);
    vec![
        get("/api/v1/roles", may, list)
            .gives_fields(SHOWN)
            .pages()
            .doc("All roles, the built-in ones first."),
        post("/api/v1/roles", may, create)
            .takes(&ROLE)
            .gives_fields(SHOWN)
            .doc("Makes a role. Nobody gives a permission that he lacks."),
        get("/api/v1/roles/{id}", may, find).gives_fields(SHOWN).doc("By id or name."),
        put("/api/v1/roles/{id}", may, edit)
            .takes(&ROLE)
            .gives_fields(SHOWN)
            .doc("Changes a role at once for all who have it; what is left out stays. Built-in roles stay as they are."),
        delete("/api/v1/roles/{id}", may, remove)
            .query(&["reassign_to"])
            .doc("Deletes a role that nobody has; with reassign_to, those who have it get that one instead."),
        get("/api/v1/permissions", may, permissions)
            .gives_fields(PERMISSION)
            .pages()
            .doc("Every permission and what it allows."),
    ]
}

const SHOWN: &[Field] = &[
    Field::text(1, "id").required().doc("Of a built-in role its name."),
    role::NAME,
    role::DESCRIPTION,
    role::PERMISSIONS,
    Field::flag(5, "built_in").required(),
];
const PERMISSION: &[Field] = &[
    Field::text(1, "name").required(),
    Field::text(2, "allows").required(),
    Field::flag(3, "grantable").required().doc("Whether a role of the tenant can hold it."),
];

fn names(permissions: PermissionSet) -> Vec<&'static str> {
    permissions.iter().map(Permission::name).collect()
}

fn built_in(role: Role) -> Json {
    json!({
        "id": role.name(),
        "name": role.name(),
        "description": role.doc(),
        "permissions": names(role.permission_set()),
        "built_in": true,
    })
}

fn made(call: &Call, role: &Record) -> Result<Json, Problem> {
    let mut shown = show::value(call, role)?;
    shown["permissions"] = json!(names(role::given_by(role)));
    shown["built_in"] = json!(false);
    Ok(shown)
}

async fn list(call: Call) -> Answer {
    let all = role::list(&call.node, &call.actor)?;
    let mut rows: Vec<Json> = Role::ALL.iter().copied().map(built_in).collect();
    for role in &all {
        rows.push(made(&call, role)?);
    }
    Reply::rows(&call, &rows, None, rows.len() as u64)
}

async fn create(call: Call) -> Answer {
    let role = role::create(&call.node, &call.actor, call.changes(&ROLE)?).await?;
    let location = format!("/api/v1/roles/{}", role.key);
    Ok(one(&call, &role)?.status(StatusCode::CREATED).header(LOCATION, location))
}

fn one(call: &Call, role: &Record) -> Answer {
    Ok(Reply::data(made(call, role)?)?.versioned(role))
}

async fn find(call: Call) -> Answer {
    if let Some(role) = Role::parse(call.path("id")) {
        return Reply::data(built_in(role));
    }
    one(&call, &role::get(&call.node, &call.actor, call.path("id"))?)
}

async fn edit(call: Call) -> Answer {
    let role = role::get(&call.node, &call.actor, call.path("id"))?;
    let (version, changes) = (expected(&call, &role)?, call.changes_to(&role)?);
    let role = role::edit(&call.node, &call.actor, role.key, changes, version).await?;
    one(&call, &role)
}

async fn remove(call: Call) -> Answer {
    let role = role::get(&call.node, &call.actor, call.path("id"))?;
    let version = expected(&call, &role)?;
    let target = call.param("reassign_to");
    role::remove(&call.node, &call.actor, role.key, target, version).await?;
    Reply::none()
}

async fn permissions(call: Call) -> Answer {
    let row = |permission: &Permission| {
        let grantable = !Permission::OF_THE_NETWORK.contains(*permission);
        json!({ "name": permission.name(), "allows": permission.doc(), "grantable": grantable })
    };
    let rows: Vec<Json> = Permission::ALL.iter().map(row).collect();
    Reply::rows(&call, &rows, None, rows.len() as u64)
}
