//! What is found by a name, a secret or a place in an inbox: names that are taken, old addresses, links to drafts, first
//! answers, conflicts, sessions of browsers. In another tenant none of them leads to anything.

use super::{MARK, id, make_tenant, theirs};
use atoll_tests::harness::{PASSWORD, TestNode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_in_another_tenant_is_free_here() {
    let test = TestNode::start().await;
    let (_, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let named = |noun: &str| format!("{MARK}-{noun}");
    let role = json!({ "name": named("role"), "permissions": ["posts.write"] });
    let head = json!({
        "email": format!("{}@example.org", named("head")), "username": named("head"), "password": PASSWORD,
        "role": "viewer",
    });
    for (path, body) in [
        ("posts", json!({ "title": "Ours", "slug": named("post"), "body": "x" })),
        ("categories", json!({ "name": "Ours", "slug": named("category") })),
        ("tags", json!({ "name": "Ours", "slug": named("tag") })),
        ("roles", role),
        ("users", head),
    ] {
        let path = format!("/api/v1/{path}");
        let made = boss.post(&path, &body).await.expect(201).data();
        assert!(!theirs.ids.values().flatten().any(|known| *known == id(&made)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_address_or_a_link_to_a_draft_leads_nowhere_in_another_tenant() {
    let test = TestNode::start().await;
    let (_, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let old = format!("/{MARK}-old");
    theirs.head.get(&old).await.expect(301);
    let path = format!("/api/v1/posts/{}/preview-links", theirs.id_of("post"));
    let link = theirs.head.post(&path, &json!({})).await.expect(201).data();
    let token = link["url"].as_str().and_then(|url| url.rsplit('/').next()).unwrap().to_owned();
    for path in [old, format!("/preview/{token}"), format!("/api/v1/preview/{token}")] {
        if path.contains("preview") {
            theirs.head.get(&path).await.expect(200);
        }
        for client in [&boss, &test.stranger().in_tenant("north")] {
            let answer = client.get(&path).await.expect(404);
            assert_eq!(theirs.leak(&answer.text(), &path), None, "{path}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_answer_is_kept_for_its_own_tenant_only() {
    let test = TestNode::start().await;
    make_tenant(&test, "north", "boss").await;
    theirs(&test).await;
    let root = test.admin().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "the same key")];
    let body = json!({ "name": "The same" }).to_string();
    let mut made = Vec::new();
    for tenant in [format!("{MARK}-campus"), "north".to_owned()] {
        let client = root.in_tenant(&tenant);
        for _ in 0..2 {
            let answer = client.send("POST", "/api/v1/tags", &headers, body.as_bytes()).await;
            made.push(id(&answer.expect(201).data()));
        }
    }
    assert!(made[0] == made[1] && made[2] == made[3] && made[0] != made[2], "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conflicts_of_another_tenant_are_in_nobodys_inbox_here() {
    let test = TestNode::start().await;
    let (_, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let apart = TestNode::start_beside(&test).await;
    let there = apart.stranger().in_tenant(&format!("{MARK}-campus"));
    let there = there.login(&format!("{MARK}-head"), PASSWORD).await;
    let path = format!("/api/v1/posts/{}", theirs.id_of("post"));
    theirs.head.put(&path, &json!({ "title": format!("{MARK} here") })).await.expect(200);
    there.put(&path, &json!({ "title": format!("{MARK} there") })).await.expect(200);
    test.take_from(&apart);
    let inbox = "/api/v1/sync/conflicts";
    let own = theirs.head.get(inbox).await.expect(200).json();
    assert_eq!(own["page"]["total"], 1, "{own}");
    let conflict = format!("{inbox}/{}", own["data"][0]["id"].as_str().unwrap());
    theirs.head.get(&conflict).await.expect(200);
    let ours = boss.get(inbox).await.expect(200);
    assert_eq!(
        (&ours.json()["page"]["total"], ours.json()["data"].as_array().map(Vec::len)),
        (&json!(0), Some(0))
    );
    assert_eq!(theirs.leak(&ours.text(), ""), None, "{}", ours.text());
    boss.get(&conflict).await.refused(404, "not_found");
    let side = json!({ "choice": 0 });
    let refused = boss.post(&format!("{conflict}/resolve"), &side).await;
    assert!(refused.status == 404 || refused.status == 422, "{}", refused.text());
    assert_eq!(theirs.head.get(inbox).await.json()["page"]["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_of_another_tenant_opens_no_page_here() {
    let test = TestNode::start().await;
    let (_, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let post = json!({ "title": "For members", "body": "x", "visibility": "members" });
    for client in [&boss, &theirs.head] {
        let made = client.post("/api/v1/posts", &post).await.expect(201).data();
        let publish = format!("/api/v1/posts/{}/publish", id(&made));
        client.post(&publish, &json!({})).await.expect(200);
    }
    let (own, name) = (format!("{MARK}-campus"), format!("{MARK}-head"));
    let cookie = test.stranger().in_tenant(&own).sign_in_on_site(&name, PASSWORD).await;
    let headers = [("cookie", cookie.as_str())];
    let path = "/posts/for-members";
    test.stranger().in_tenant(&own).send("GET", path, &headers, b"").await.expect(200);
    let here =
        test.stranger().in_tenant("north").send("GET", path, &headers, b"").await.expect(404);
    assert_eq!(theirs.leak(&here.text(), ""), None, "{}", here.text());
}
