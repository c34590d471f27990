//! API keys.

use super::{Hands, me, text};
use atoll_node::Role;
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

const PATH: &str = "/api/v1/api-keys";

async fn make(client: &Client, key: Json) -> Json {
    client.post(PATH, &key).await.expect(201).data()
}

fn with(client: &Client, made: &Json) -> Client {
    client.with_token(text(made, "key"))
}

#[tokio::test]
async fn a_key_may_what_its_scopes_hold_and_nothing_else() {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Editor).await;
    let made = make(&ada, json!({ "name": "robot", "scopes": ["posts.write"] })).await;
    let key = text(&made, "key").to_owned();
    assert!(key.starts_with("atoll_") && key.starts_with(text(&made, "prefix")));
    assert!(made.get("hash").is_none());
    let robot = with(&test.stranger(), &made);

    let post = robot.post("/api/v1/posts", &json!({ "title": "By a robot", "body": "x" })).await;
    let post = post.expect(201).data();
    assert_eq!(text(&post, "author_id"), text(&me(&ada).await, "id"));
    let path = format!("/api/v1/posts/{}", text(&post, "id"));
    robot.put(&path, &json!({ "title": "Changed" })).await.expect(200).data();
    robot.post(&format!("{path}/publish"), &json!({})).await.refused(403, "denied");
    robot.get("/api/v1/users").await.refused(403, "denied");
    robot
        .post("/api/v1/comments", &json!({ "post_id": post["id"], "text": "x" }))
        .await
        .refused(403, "denied");
    robot.post(&format!("{path}/like"), &json!({})).await.refused(403, "denied");

    // What concerns the account itself is for its owner alone.
    assert_eq!(text(&me(&robot).await, "username"), "ada");
    let change = json!({ "old_password": PASSWORD, "new_password": "another password" });
    robot.post("/api/v1/users/change-password", &change).await.refused(403, "denied");
    robot.put("/api/v1/users/profile", &json!({ "bio": "x" })).await.refused(403, "denied");
    robot.post(PATH, &json!({ "name": "more" })).await.refused(403, "denied");
    robot.get(PATH).await.refused(403, "denied");
    robot.get("/api/v1/auth/sessions").await.refused(403, "denied");
    robot.post("/api/v1/auth/totp/setup", &json!({})).await.refused(403, "denied");
    robot.post("/api/v1/auth/logout", &json!({})).await.refused(403, "denied");

    let page = ada.get(PATH).await.expect(200).json();
    assert_eq!(text(&page["data"][0], "prefix"), text(&made, "prefix"));
    assert!(page["data"][0]["last_used_at"].is_string() && page["data"][0].get("key").is_none());
    assert!(!page.to_string().contains(&key[20..]));
}

#[tokio::test]
async fn a_key_falls_with_its_owners_role_and_never_holds_more_than_its_maker() {
    let test = TestNode::start().await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Editor).await);
    for bad in [
        json!({ "name": "x", "scopes": ["users.administer"] }),
        json!({ "name": "x", "scopes": ["posts.eat"] }),
        json!({ "name": "x", "expires_at": "2001-01-01T00:00:00Z" }),
        json!({ "scopes": [] }),
        json!({ "name": "x", "hash": "00" }),
        json!({ "name": "x", "prefix": "atoll_mine" }),
    ] {
        ada.post(PATH, &bad).await.refused(422, "invalid");
    }
    let made = make(&ada, json!({ "name": "robot", "scopes": ["posts.write"] })).await;
    let robot = with(&test.stranger(), &made);
    let id = text(&me(&ada).await, "id").to_owned();
    let role = |role: &str| json!({ "role": role });
    admin.put(&format!("/api/v1/users/{id}/role"), &role("viewer")).await.expect(200).data();
    let draft = json!({ "title": "No more", "body": "x" });
    robot.post("/api/v1/posts", &draft).await.refused(403, "denied");
    admin.put(&format!("/api/v1/users/{id}/role"), &role("admin")).await.expect(200).data();
    robot.post("/api/v1/posts", &draft).await.expect(201).data();
    robot.get("/api/v1/users").await.refused(403, "denied");
    let status = json!({ "status": "disabled" });
    admin.put(&format!("/api/v1/users/{id}/status"), &status).await.expect(200).data();
    robot.get("/api/v1/auth/me").await.refused(401, "account_disabled");
}

#[tokio::test]
async fn a_key_that_is_made_up_revoked_or_expired_is_refused() {
    let hands = Hands::new();
    let test = TestNode::start_at(hands.clock()).await;
    let (ada, bob) = (test.user("ada", Role::Editor).await, test.user("bob", Role::Editor).await);
    let made = make(&ada, json!({ "name": "robot" })).await;
    let robot = with(&test.stranger(), &made);
    me(&robot).await;
    robot.post("/api/v1/posts", &json!({ "title": "x", "body": "x" })).await.refused(403, "denied");
    let key = text(&made, "key");
    for bad in
        ["atoll_", "atoll_x", &key[..key.len() - 1], &format!("{}AAAA", &key[..key.len() - 4])]
    {
        let answer = test.stranger().with_token(bad).get("/api/v1/auth/me").await;
        answer.refused(401, "key_invalid");
    }
    let path = format!("{PATH}/{}", text(&made, "id"));
    bob.delete(&path).await.refused(404, "not_found");
    assert_eq!(ada.delete(&path).await.status, 204);
    ada.delete(&path).await.refused(404, "not_found");
    robot.get("/api/v1/auth/me").await.refused(401, "key_revoked");
    assert_eq!(ada.get(PATH).await.json()["page"]["total"], 0);

    let made = make(&ada, json!({ "name": "short", "expires_at": "2025-06-15T16:00:00Z" })).await;
    let robot = with(&test.stranger(), &made);
    me(&robot).await;
    hands.turn(3_600);
    robot.get("/api/v1/auth/me").await.refused(401, "key_expired");
}

#[tokio::test]
async fn a_key_is_good_in_its_tenant_only_even_a_superadmins() {
    let test = TestNode::start().await;
    let root = test.admin().await;
    let north = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "head@example.org", "username": "head", "password": PASSWORD },
    });
    root.post("/api/v1/tenants", &north).await.expect(201).data();
    let made = make(&root, json!({ "name": "robot", "scopes": ["users.administer"] })).await;
    let robot = with(&test.stranger(), &made);
    robot.get("/api/v1/users").await.expect(200).data();
    robot.in_tenant("north").get("/api/v1/users").await.refused(401, "token_of_another_tenant");
}

#[tokio::test]
async fn a_key_and_its_end_reach_every_node() {
    let first = TestNode::start().await;
    let ada = first.user("ada", Role::Editor).await;
    let second = TestNode::start_beside(&first).await;
    let made = make(&ada, json!({ "name": "robot", "scopes": ["posts.write"] })).await;
    let there = with(&second.stranger(), &made);
    there.get("/api/v1/auth/me").await.refused(401, "key_invalid");
    second.take_from(&first);
    let draft = json!({ "title": "From elsewhere", "body": "x" });
    there.post("/api/v1/posts", &draft).await.expect(201).data();
    assert_eq!(ada.delete(&format!("{PATH}/{}", text(&made, "id"))).await.status, 204);
    me(&there).await;
    second.take_from(&first);
    there.get("/api/v1/auth/me").await.refused(401, "key_revoked");
}
