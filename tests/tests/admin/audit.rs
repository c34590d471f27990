use super::{id_of, tenant_of, text};
use atoll_node::Role;
use atoll_node::audit::failure;
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

async fn entries(client: &Client, query: &str) -> Vec<Json> {
    let page = client.get(&format!("/api/v1/audit?limit=100&{query}")).await.expect(200).json();
    assert_eq!(
        page["page"]["total"].as_u64(),
        page["data"].as_array().map(|rows| rows.len() as u64)
    );
    page["data"].as_array().cloned().unwrap_or_default()
}

async fn one(client: &Client, action: &str) -> Json {
    let found = entries(client, &format!("action={action}")).await;
    assert_eq!(found.len(), 1, "{action}: {found:?}");
    found.into_iter().next().unwrap_or_default()
}

#[tokio::test]
async fn what_administrators_do_is_noted_with_what_changed() {
    let test = TestNode::start().await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Editor).await);
    let id = id_of(&ada).await;
    let path = format!("/api/v1/users/{id}");
    let put = async |rest: &str, body: Json| {
        admin.put(&format!("{path}{rest}"), &body).await.expect(200).data()
    };
    put("", json!({ "email": "countess@example.org", "display_name": "Ada" })).await;
    put("/role", json!({ "role": "moderator" })).await;
    put("/status", json!({ "status": "disabled" })).await;
    put("/status", json!({ "status": "active" })).await;
    admin.post(&format!("{path}/impersonate"), &json!({})).await.expect(200).data();
    admin
        .post("/api/v1/roles", &json!({ "name": "Lead", "permissions": ["tags.write"] }))
        .await
        .expect(201)
        .data();
    let category =
        admin.post("/api/v1/categories", &json!({ "name": "Bees" })).await.expect(201).data();
    let approve = format!("/api/v1/categories/{}/approve", text(&category, "id"));
    admin.post(&approve, &json!({})).await.expect(200).data();
    let post =
        admin.post("/api/v1/posts", &json!({ "title": "x", "body": "x" })).await.expect(201).data();
    let post = format!("/api/v1/posts/{}", text(&post, "id"));
    admin.post(&format!("{post}/publish"), &json!({})).await.expect(200).data();
    assert_eq!(admin.delete(&post).await.status, 204);
    admin.put("/api/v1/tenant", &json!({ "locale": "de" })).await.expect(200).data();
    assert_eq!(admin.delete(&path).await.status, 204);

    let edited = one(&admin, "user.updated").await;
    assert_eq!(text(&edited, "actor_id"), test.admin.to_string());
    assert_eq!((text(&edited, "target_kind"), text(&edited, "target_id")), ("user", id.as_str()));
    assert_eq!(text(&edited, "net"), "127.0.0.0/24");
    assert_eq!(edited["changes"]["display_name"], json!({ "changed": true }));
    let told = edited["changes"].to_string();
    assert!(!told.contains("countess") && !told.contains("Ada"), "{edited}");
    let role = one(&admin, "user.role_changed").await;
    assert_eq!(role["changes"]["role"], json!({ "before": "editor", "after": "moderator" }));
    assert_eq!(one(&admin, "user.disabled").await["changes"]["status"]["after"], "disabled");
    assert_eq!(
        one(&admin, "role.created").await["changes"]["permissions"]["after"],
        json!(["tags.write"])
    );
    assert_eq!(one(&admin, "category.approved").await["changes"]["status"]["after"], "approved");
    assert_eq!(one(&admin, "post.published").await["changes"]["status"]["before"], "draft");
    assert_eq!(one(&admin, "tenant.updated").await["changes"]["locale"]["after"], "de");
    for action in ["user.enabled", "user.impersonated", "post.trashed", "user.deleted"] {
        one(&admin, action).await;
    }
    let all = admin.get("/api/v1/audit?limit=100").await.expect(200).text();
    assert!(
        !all.contains("argon2") && !all.contains(PASSWORD) && !all.contains("password_hash"),
        "{all}"
    );
}

#[tokio::test]
async fn the_log_is_narrowed_and_read_by_those_who_may() {
    let test = TestNode::start().await;
    let (admin, boss) = (test.admin().await, test.user("boss", Role::Admin).await);
    let ada = test.make_user(test.tenant, "ada", Role::Viewer).await.to_string();
    for bio in ["one", "two"] {
        boss.put(&format!("/api/v1/users/{ada}"), &json!({ "bio": bio })).await.expect(200).data();
    }
    let boss_id = id_of(&boss).await;
    assert_eq!(entries(&admin, &format!("actor={boss_id}")).await.len(), 2);
    assert_eq!(entries(&admin, "actor=boss&action=user.updated").await.len(), 2);
    assert_eq!(entries(&admin, &format!("target={ada}")).await.len(), 3);
    assert!(entries(&admin, "actor=nobody").await.is_empty());
    assert!(entries(&admin, "to=2000-01-01").await.is_empty());
    assert!(entries(&admin, "from=2000-01-01").await.len() >= 3);
    let all = entries(&admin, "").await;
    assert!(
        all.windows(2).all(|pair| text(&pair[0], "created_at") >= text(&pair[1], "created_at"))
    );
    let bios = all.iter().filter(|entry| entry["changes"]["bio"] == json!({ "changed": true }));
    assert_eq!(bios.count(), 2, "{all:?}");
    let page = boss.get("/api/v1/audit?limit=1").await.expect(200).json();
    let next = text(&page["page"], "next");
    let second = boss.get(&format!("/api/v1/audit?limit=1&cursor={next}")).await.expect(200).json();
    assert_eq!((&page["data"][0]["id"], &second["data"][0]["id"]), (&all[0]["id"], &all[1]["id"]));
    for bad in ["target=x", "from=soon", "cursor=!", "limit=0", "colour=red"] {
        assert_eq!(admin.get(&format!("/api/v1/audit?{bad}")).await.status, 400, "{bad}");
    }
    test.user("edi", Role::Editor).await.get("/api/v1/audit").await.refused(403, "denied");
    let (_, north) = tenant_of(&test, "north", "head").await;
    let theirs = entries(&north, "").await;
    assert!(theirs.iter().all(|entry| entry["target_id"] != json!(ada)), "{theirs:?}");
    assert!(entries(&north, &format!("target={ada}")).await.is_empty());
}

#[tokio::test]
async fn failed_sign_ins_are_noted_once_an_account_and_without_what_was_typed() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let ada = test.make_user(test.tenant, "ada", Role::Viewer).await;
    for name in ["ada", "ada@example.org", "ada", "nobody", "my secret password"] {
        let login = json!({ "login": name, "password": "wrong password" });
        test.stranger().post("/api/v1/auth/login", &login).await.refused(401, "wrong_credentials");
    }
    assert_eq!(failure::flush(&test.node, failure::WINDOW_MS).await.unwrap(), 0);
    assert_eq!(failure::flush(&test.node, 0).await.unwrap(), 2);
    assert_eq!(failure::flush(&test.node, 0).await.unwrap(), 0);
    let all = entries(&admin, "action=login.failed").await;
    let count = |target: Json| {
        all.iter().find(|entry| entry["target_id"] == target).map(|e| e["changes"]["count"].clone())
    };
    assert_eq!(count(json!(ada)), Some(json!(3)));
    assert_eq!(count(Json::Null), Some(json!(2)));
    let text = json!(all).to_string();
    assert!(!text.contains("secret") && !text.contains("wrong password"), "{text}");
    assert!(text.contains("127.0.0.0/24"), "{text}");
}

#[tokio::test]
async fn what_was_done_on_two_nodes_is_in_one_log_when_they_meet() {
    let first = TestNode::start().await;
    let ada = first.make_user(first.tenant, "ada", Role::Viewer).await;
    let second = TestNode::start_beside(&first).await;
    for test in [&first, &second] {
        let path = format!("/api/v1/users/{ada}");
        let bio = json!({ "bio": test.address.to_string() });
        test.admin().await.put(&path, &bio).await.expect(200).data();
    }
    second.take_from(&first);
    first.take_from(&second);
    for test in [&first, &second] {
        assert_eq!(entries(&test.admin().await, "action=user.updated").await.len(), 2);
    }
}
