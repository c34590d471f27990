use super::{fields, id_of, tenant_of, text};
use atoll_node::Role;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

async fn make(client: &Client, name: &str, permissions: &[&str]) -> Json {
    let role = json!({ "name": name, "permissions": permissions });
    client.post("/api/v1/roles", &role).await.expect(201).data()
}

async fn give(client: &Client, user: &str, roles: &[&str]) -> atoll_tests::Answer {
    client.put(&format!("/api/v1/users/{user}/roles"), &json!({ "roles": roles })).await
}

#[tokio::test]
async fn a_role_of_the_tenant_adds_to_what_a_built_in_one_allows() {
    let test = TestNode::start().await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Viewer).await);
    let id = id_of(&ada).await;
    let draft = json!({ "title": "By a viewer", "body": "x" });
    ada.post("/api/v1/posts", &draft).await.refused(403, "denied");
    let role = make(&admin, "Writer", &["posts.write"]).await;
    assert_eq!((&role["built_in"], &role["permissions"]), (&json!(false), &json!(["posts.write"])));
    let given = give(&admin, &id, &["writer"]).await.expect(200).data();
    assert_eq!((text(&given, "role"), &given["role_ids"][0]), ("viewer", &role["id"]));
    let post = ada.post("/api/v1/posts", &draft).await.expect(201).data();
    let publish = format!("/api/v1/posts/{}/publish", text(&post, "id"));
    ada.post(&publish, &json!({})).await.refused(403, "denied");

    // A change of the role counts from the next request.
    let path = format!("/api/v1/roles/{}", text(&role, "id"));
    let more = json!({ "permissions": ["posts.write", "posts.publish"] });
    admin.put(&path, &more).await.expect(200).data();
    ada.post(&publish, &json!({})).await.expect(200).data();
    admin.put(&path, &json!({ "permissions": [] })).await.expect(200).data();
    ada.post("/api/v1/posts", &draft).await.refused(403, "denied");
    give(&admin, &id, &["editor"]).await.expect(200).data();
    ada.post("/api/v1/posts", &draft).await.expect(201).data();
    let shown = admin.get(&format!("/api/v1/users/{id}")).await.expect(200).data();
    assert_eq!((text(&shown, "role"), &shown["role_ids"]), ("editor", &json!([])));
}

#[tokio::test]
async fn roles_and_permissions_are_listed_with_what_they_allow() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    make(&admin, "Writer", &["posts.write", "tags.write"]).await;
    let list = admin.get("/api/v1/roles").await.expect(200).json();
    let names: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|role| text(role, "name")).collect();
    assert_eq!(names, ["viewer", "moderator", "editor", "admin", "superadmin", "Writer"]);
    assert_eq!((&list["data"][0]["built_in"], &list["page"]["total"]), (&json!(true), &json!(6)));
    let one = admin.get("/api/v1/roles/Writer").await.expect(200);
    assert!(one.header("etag").is_some());
    assert_eq!(admin.get("/api/v1/roles/editor").await.expect(200).data()["built_in"], true);
    let all = admin.get("/api/v1/permissions").await.expect(200).json();
    let of = |name: &str| {
        all["data"].as_array().unwrap().iter().find(|p| p["name"] == name).cloned().unwrap()
    };
    assert_eq!(of("audit.read")["grantable"], true);
    assert_eq!(of("sync.administer")["grantable"], false);
    assert!(text(&of("posts.write"), "allows").len() > 3);
    let editor = test.user("edi", Role::Editor).await;
    for path in ["/api/v1/roles", "/api/v1/permissions"] {
        editor.get(path).await.refused(403, "denied");
        test.stranger().get(path).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn what_no_role_may_be_is_refused() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let role = make(&admin, "Writer", &["posts.write"]).await;
    let bad = json!({ "name": "Editor", "permissions": ["posts.eat", "tenants.administer"] });
    let refused = admin.post("/api/v1/roles", &bad).await;
    refused.refused(422, "invalid");
    assert_eq!(fields(&refused.json()), ["name", "permissions.0", "permissions.1"]);
    admin.post("/api/v1/roles", &json!({})).await.refused(422, "invalid");
    admin.post("/api/v1/roles", &json!({ "name": "writer" })).await.refused(409, "taken");
    for method in ["PUT", "DELETE"] {
        let json = [("content-type", "application/json")];
        let answer = admin.send(method, "/api/v1/roles/editor", &json, b"{}").await;
        answer.refused(409, "built_in");
        let answer = admin.send(method, "/api/v1/roles/nobodys", &json, b"{}").await;
        answer.refused(404, "not_found");
    }
    let path = format!("/api/v1/roles/{}", text(&role, "id"));
    let stale = [("if-match", "\"0-0\""), ("content-type", "application/json")];
    admin.send("PUT", &path, &stale, b"{\"description\":\"x\"}").await.refused(412, "stale");
    let ada = id_of(&test.user("ada", Role::Viewer).await).await;
    let refused = give(&admin, &ada, &["writer", "nobodys"]).await;
    refused.refused(422, "invalid");
    assert_eq!(fields(&refused.json()), ["roles.1"]);
    let me = test.admin.to_string();
    give(&admin, &me, &["admin"]).await.refused(409, "last_admin");
}

#[tokio::test]
async fn nobody_gives_what_he_lacks() {
    let test = TestNode::start().await;
    let (root, warden) = (test.admin().await, test.user("warden", Role::Editor).await);
    let ada = id_of(&test.user("ada", Role::Viewer).await).await;
    let boss = id_of(&test.user("boss", Role::Admin).await).await;
    make(&root, "Warden", &["users.administer"]).await;
    make(&root, "Auditor", &["audit.read"]).await;
    give(&root, &id_of(&warden).await, &["editor", "Warden"]).await.expect(200).data();
    warden.get("/api/v1/users").await.expect(200).data();
    let role = |permission: &str| json!({ "name": "New", "permissions": [permission] });
    warden.post("/api/v1/roles", &role("audit.read")).await.refused(403, "denied");
    warden.post("/api/v1/roles", &role("posts.write")).await.expect(201).data();
    give(&warden, &ada, &["Auditor"]).await.refused(403, "denied");
    give(&warden, &ada, &["admin"]).await.refused(403, "denied");
    give(&warden, &boss, &["viewer"]).await.refused(403, "denied");
    give(&warden, &ada, &["editor", "New"]).await.expect(200).data();
    // Whoever has what the warden lacks is out of his reach, whatever his rank.
    give(&root, &ada, &["viewer", "Auditor"]).await.expect(200).data();
    let path = format!("/api/v1/users/{ada}");
    warden.put(&path, &json!({ "display_name": "x" })).await.refused(403, "denied");
    warden.delete(&path).await.refused(403, "denied");
    warden.post(&format!("{path}/impersonate"), &json!({})).await.refused(403, "denied");
}

#[tokio::test]
async fn a_role_in_use_goes_only_with_another_in_its_place() {
    let test = TestNode::start().await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Viewer).await);
    let id = id_of(&ada).await;
    make(&admin, "Old", &["tags.write"]).await;
    let new = make(&admin, "New", &["tags.write"]).await;
    give(&admin, &id, &["Old"]).await.expect(200).data();
    admin.delete("/api/v1/roles/Old").await.refused(409, "role_in_use");
    admin.delete("/api/v1/roles/Old?reassign_to=nobodys").await.refused(422, "invalid");
    admin.delete("/api/v1/roles/Old?reassign_to=Old").await.refused(422, "invalid");
    assert_eq!(admin.delete("/api/v1/roles/Old?reassign_to=New").await.status, 204);
    admin.get("/api/v1/roles/Old").await.refused(404, "not_found");
    let shown = admin.get(&format!("/api/v1/users/{id}")).await.expect(200).data();
    assert_eq!(shown["role_ids"], json!([new["id"]]));
    ada.post("/api/v1/tags", &json!({ "name": "Still" })).await.expect(201).data();
    give(&admin, &id, &[]).await.expect(200).data();
    assert_eq!(admin.delete("/api/v1/roles/New").await.status, 204);
}

#[tokio::test]
async fn a_role_of_another_tenant_is_none() {
    let test = TestNode::start().await;
    let (_, north) = tenant_of(&test, "north", "head").await;
    let theirs = make(&north, "Theirs", &["posts.write"]).await;
    let admin = test.admin().await;
    let ada = id_of(&test.user("ada", Role::Viewer).await).await;
    for name in ["Theirs", text(&theirs, "id")] {
        give(&admin, &ada, &[name]).await.refused(422, "invalid");
        admin.get(&format!("/api/v1/roles/{name}")).await.refused(404, "not_found");
        admin.delete(&format!("/api/v1/roles/{name}")).await.refused(404, "not_found");
    }
    make(&admin, "Theirs", &[]).await;
}

#[tokio::test]
async fn roles_given_on_two_nodes_apart_are_both_there_when_they_meet() {
    let first = TestNode::start().await;
    let ada = first.user("ada", Role::Viewer).await;
    let id = id_of(&ada).await;
    let admin = first.admin().await;
    make(&admin, "Writer", &["posts.write"]).await;
    make(&admin, "Tagger", &["tags.write"]).await;
    let second = TestNode::start_beside(&first).await;
    give(&admin, &id, &["Writer"]).await.expect(200).data();
    give(&second.admin().await, &id, &["Tagger"]).await.expect(200).data();
    second.take_from(&first);
    first.take_from(&second);
    for test in [&first, &second] {
        let ada = test.stranger().with_token(ada.token.as_deref().unwrap());
        let (post, tag) =
            (json!({ "title": "x", "body": "x" }), json!({ "name": test.address.to_string() }));
        ada.post("/api/v1/posts", &post).await.expect(201).data();
        ada.post("/api/v1/tags", &tag).await.expect(201).data();
    }
}
