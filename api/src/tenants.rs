//! Tenants, for those who run the network; each one's own settings, for its administrators; and the public answer
//! to which tenant an address stands for.

use crate::call::Call;
use crate::reply::Reply;
use crate::route::Access::{Can, Public};
use crate::route::{Answer, Route, delete, get, post, put};
use crate::show;
use atoll_node::identity::tenant::{self, NewTenant, TENANT, statistics};
use atoll_node::identity::user::NewUser;
use atoll_node::{Permission, Role};
use atoll_storage::{Field, Id, Record, Value};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use serde::Deserialize;
use serde_json::json;

pub fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/tenants", Can(Permission::TenantsAdminister), list)
            .lists(&TENANT)
            .doc("All tenants; with deleted=true those that were deleted and can be restored."),
        post("/api/v1/tenants", Can(Permission::TenantsAdminister), create)
            .takes_fields(CREATE)
            .gives(&TENANT)
            .strict()
            .doc(
                "Makes a tenant with its first admin, an object with email, username and password.",
            ),
        get("/api/v1/tenants/by-domain/{domain}", Public, by_domain)
            .gives_fields(PUBLIC)
            .doc("The tenant that a host name belongs to, with its look."),
        get("/api/v1/tenants/current", Public, current)
            .gives_fields(PUBLIC)
            .doc("What the request's own tenant says of itself to everybody: its name and its look."),
        get("/api/v1/tenant", Can(Permission::SettingsAdminister), own)
            .gives(&TENANT)
            .doc("The settings of one's own tenant."),
        put("/api/v1/tenant", Can(Permission::SettingsAdminister), edit_own)
            .takes_fields(tenant::OWN)
            .gives(&TENANT)
            .doc("Changes the settings and the look of one's own tenant; what is left out stays as it is."),
        get("/api/v1/tenants/{id}", Can(Permission::TenantsAdminister), find)
            .gives(&TENANT)
            .doc("By id or slug."),
        put("/api/v1/tenants/{id}", Can(Permission::TenantsAdminister), edit)
            .takes(&TENANT)
            .gives(&TENANT)
            .doc("What is left out stays as it is."),
        delete("/api/v1/tenants/{id}", Can(Permission::TenantsAdminister), remove)
            .doc("Nobody gets into the tenant any more. It can be restored for tenants.keep_days, 30 unless set; then all that was in it is removed. The default tenant stays."),
        post("/api/v1/tenants/{id}/restore", Can(Permission::TenantsAdminister), restore)
            .gives(&TENANT)
            .doc("Takes the deletion of a tenant back. By id or slug."),
        get("/api/v1/tenants/{id}/statistics", Can(Permission::SettingsAdminister), count)
            .gives_fields(STATISTICS)
            .doc("How much there is in a tenant: one's own, or any for those who run the network."),
    ]
}

const CREATE: &[Field] = &[
    tenant::NAME,
    tenant::SLUG,
    tenant::DOMAIN,
    Field::text(4, "admin")
        .required()
        .doc("An object with `email`, `username`, `password`, `display_name`."),
];
const PUBLIC: &[Field] = &[
    tenant::NAME,
    tenant::SLUG,
    tenant::DOMAIN,
    tenant::REGISTRATION,
    tenant::LOCALE,
    tenant::TIME_ZONE,
    tenant::LOGO_URL,
    tenant::COLOURS,
];
const STATISTICS: &[Field] = &[
    Field::refers(1, "tenant_id", "tenant").required(),
    Field::int(2, "users").required(),
    Field::int(3, "posts").required(),
    Field::int(4, "posts_live").required().doc("That the public sees."),
    Field::int(5, "categories").required(),
    Field::int(6, "tags").required(),
    Field::int(7, "comments").required(),
    Field::int(8, "likes").required(),
    Field::int(9, "storage_bytes").doc("Counted for tenants with a quota of bytes."),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    slug: String,
    #[serde(default)]
    domain: Option<String>,
    admin: Admin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    email: String,
    username: String,
    #[serde(default)]
    display_name: Option<String>,
    password: String,
}

async fn list(call: Call) -> Answer {
    let query = call.query(&TENANT, &[])?;
    let deleted = query.filter("deleted") == Some(&Value::Bool(true));
    let page = tenant::list(&call.node, &call.actor, query.to_query(Id::NIL), deleted)?;
    Reply::list(&call, page, &query)
}

async fn create(call: Call) -> Answer {
    let form: Create = call.json()?;
    let new =
        NewTenant { name: form.name, slug: form.slug, domain: form.domain, only_if_first: false };
    let admin = NewUser {
        email: form.admin.email,
        username: form.admin.username,
        display_name: form.admin.display_name.unwrap_or_default(),
        password: form.admin.password,
        role: Role::Admin,
        must_change_password: true,
    };
    let (tenant, admin) = tenant::create(&call.node, &call.actor, new, admin).await?;
    let mut shown = show::value(&call, &tenant)?;
    shown["admin"] = show::value(&call, &admin)?;
    let location = format!("/api/v1/tenants/{}", tenant.key);
    Ok(Reply::data(shown)?.status(StatusCode::CREATED).header(LOCATION, location))
}

async fn by_domain(call: Call) -> Answer {
    public(&tenant::by_domain(&call.node, call.path("domain"))?)
}

async fn current(call: Call) -> Answer {
    public(&tenant::current(&call.node, call.tenant())?)
}

/// What anybody may know of a tenant.
fn public(tenant: &Record) -> Answer {
    Reply::data(json!({
        "id": tenant.key,
        "name": tenant.text(&tenant::NAME),
        "slug": tenant.text(&tenant::SLUG),
        "domain": tenant.opt_text(&tenant::DOMAIN),
        "registration": tenant.opt_text(&tenant::REGISTRATION).unwrap_or("open"),
        "locale": tenant.opt_text(&tenant::LOCALE),
        "time_zone": tenant.opt_text(&tenant::TIME_ZONE),
        "logo_url": tenant.opt_text(&tenant::LOGO_URL),
        "colours": tenant.opt_text(&tenant::COLOURS),
    }))
}

async fn own(call: Call) -> Answer {
    let tenant = tenant::own(&call.node, &call.actor)?;
    Reply::record(&call, &tenant)
}

async fn edit_own(call: Call) -> Answer {
    let tenant = tenant::own(&call.node, &call.actor)?;
    call.if_match(&tenant)?;
    let changes = call.changes_to(&tenant)?;
    let tenant = tenant::edit_own(&call.node, &call.actor, changes).await?;
    Reply::record(&call, &tenant)
}

async fn restore(call: Call) -> Answer {
    let tenant = tenant::restore(&call.node, &call.actor, call.path("id")).await?;
    Reply::record(&call, &tenant)
}

async fn count(call: Call) -> Answer {
    Reply::data(statistics::get(&call.node, &call.actor, call.path("id"))?)
}

async fn find(call: Call) -> Answer {
    let tenant = tenant::get(&call.node, &call.actor, call.path("id"))?;
    Reply::record(&call, &tenant)
}

async fn edit(call: Call) -> Answer {
    let tenant = tenant::get(&call.node, &call.actor, call.path("id"))?;
    call.if_match(&tenant)?;
    let changes = call.changes_to(&tenant)?;
    let tenant = tenant::edit(&call.node, &call.actor, tenant.key, changes).await?;
    Reply::record(&call, &tenant)
}

async fn remove(call: Call) -> Answer {
    let tenant = tenant::get(&call.node, &call.actor, call.path("id"))?;
    call.if_match(&tenant)?;
    tenant::remove(&call.node, &call.actor, tenant.key).await?;
    Reply::none()
}
