//! Administration over a real socket: roles, accounts, tables of accounts, one's own data, the audit log, tenants.

#[path = "admin/audit.rs"]
mod audit;
#[path = "admin/conflict.rs"]
mod conflict;
#[path = "admin/role.rs"]
mod role;
#[path = "admin/table.rs"]
mod table;
#[path = "admin/tenant.rs"]
mod tenant;
#[path = "admin/user.rs"]
mod user;

use atoll_tests::harness::PASSWORD;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("{name} in {json}"))
}

/// The id of whoever is signed in.
async fn id_of(client: &Client) -> String {
    text(&client.get("/api/v1/auth/me").await.expect(200).data(), "id").to_owned()
}

/// The names of the fields that a problem names.
fn fields(problem: &Json) -> Vec<&str> {
    problem["errors"].as_array().into_iter().flatten().map(|e| text(e, "field")).collect()
}

/// A tenant of this slug with its administrator, signed in there.
async fn tenant_of(test: &TestNode, slug: &str, head: &str) -> (String, Client) {
    let admin =
        json!({ "email": format!("{head}@example.org"), "username": head, "password": PASSWORD });
    let tenant = json!({ "name": slug, "slug": slug, "admin": admin });
    let made = test.admin().await.post("/api/v1/tenants", &tenant).await.expect(201).data();
    let client = test.stranger().in_tenant(slug).login(head, PASSWORD).await;
    (text(&made, "id").to_owned(), client)
}
