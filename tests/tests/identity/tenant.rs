//! Tenants and the walls between them, in short; `walls` walks every endpoint.

use super::{ada, login, text};
use atoll_storage::Id;
use atoll_tests::TestNode;
use atoll_tests::harness::PASSWORD;
use serde_json::{Value as Json, json};

fn north() -> Json {
    json!({
        "name": "North", "slug": "north", "domain": "north.example.org",
        "admin": { "email": "head@north.example.org", "username": "head", "password": PASSWORD },
    })
}

#[tokio::test]
async fn a_tenant_is_made_with_its_admin_and_found_by_header_and_host() {
    let test = TestNode::start().await;
    let root = test.admin().await;
    let made = root.post("/api/v1/tenants", &north()).await.expect(201).data();
    let id = text(&made, "id");
    assert_eq!(text(&made["admin"], "role"), "admin");
    root.post("/api/v1/tenants", &north()).await.refused(409, "taken");
    let bad = json!({ "name": "", "slug": "No Slug", "admin": { "email": "", "username": "", "password": "" } });
    root.post("/api/v1/tenants", &bad).await.refused(422, "invalid");

    let stranger = test.stranger();
    let public =
        stranger.get("/api/v1/tenants/by-domain/North.example.org").await.expect(200).data();
    assert_eq!(text(&public, "id"), id);
    let own = stranger.in_tenant("north").get("/api/v1/tenants/current").await.expect(200).data();
    assert_eq!(own, public);
    stranger.get("/api/v1/tenants/by-domain/nowhere.example.org").await.refused(404, "not_found");
    stranger.in_tenant("nowhere").get("/api/v1/users/head").await.refused(404, "not_found");
    stranger
        .in_tenant(&Id([7; 16]).to_string())
        .get("/api/v1/users/head")
        .await
        .refused(404, "not_found");
    for name in ["north", id] {
        stranger.in_tenant(name).get("/api/v1/users/head").await.expect(200).data();
    }
    let by_host = stranger
        .send("GET", "/api/v1/users/head", &[("host", "north.example.org:8080")], b"")
        .await;
    assert_eq!(by_host.status, 200);
    stranger.get("/api/v1/users/head").await.refused(404, "not_found");
}

#[tokio::test]
async fn tenants_are_walled_off_from_each_other_but_not_from_a_superadmin() {
    let test = TestNode::start().await;
    let root = test.admin().await;
    let made = root.post("/api/v1/tenants", &north()).await.expect(201).data();
    let head = test.stranger().in_tenant("north").login("head", PASSWORD).await;
    let me = head.get("/api/v1/auth/me").await.expect(200).data();
    let head_id = text(&me, "id");

    let elsewhere = head.in_tenant("default");
    elsewhere.get("/api/v1/auth/me").await.refused(401, "token_of_another_tenant");
    test.stranger().get(&format!("/api/v1/users/{head_id}")).await.refused(404, "not_found");
    head.get(&format!("/api/v1/users/{}", test.admin)).await.refused(404, "not_found");
    head.put(&format!("/api/v1/users/{}/role", test.admin), &json!({ "role": "viewer" }))
        .await
        .refused(404, "not_found");
    head.get("/api/v1/tenants").await.refused(403, "denied");
    login(&test.stranger(), "head", PASSWORD).await.refused(401, "wrong_credentials");
    assert_eq!(head.get("/api/v1/users").await.json()["page"]["total"], 1);

    let visiting = root.in_tenant("north");
    assert_eq!(visiting.get("/api/v1/users").await.expect(200).json()["page"]["total"], 1);
    assert_eq!(
        text(&visiting.get("/api/v1/auth/me").await.expect(200).data(), "id"),
        test.admin.to_string()
    );
    // One address may be used in two tenants.
    let twin =
        json!({ "email": "head@north.example.org", "username": "head", "password": PASSWORD });
    test.stranger().post("/api/v1/auth/register", &twin).await.expect(201).data();

    let path = format!("/api/v1/tenants/{}", text(&made, "id"));
    let changed = root
        .put(&path, &json!({ "registration": "closed", "domain": null }))
        .await
        .expect(200)
        .data();
    assert!(changed["domain"].is_null());
    test.stranger()
        .in_tenant("north")
        .post("/api/v1/auth/register", &ada())
        .await
        .refused(403, "denied");
    root.put("/api/v1/tenants/north", &json!({ "slug": "default" })).await.refused(409, "taken");
    root.delete("/api/v1/tenants/default").await.refused(409, "default_tenant");
    assert_eq!(root.delete(&path).await.status, 204);
    head.get("/api/v1/auth/me").await.refused(404, "not_found");
}
