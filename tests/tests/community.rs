//! Comments, likes, views and search over HTTP, with their refusals.

use atoll_node::Role;
use atoll_tests::harness::{Client, TestNode};
use serde_json::json;

async fn published(editor: &Client, title: &str, body: &str) -> String {
    let made = editor
        .post("/api/v1/posts", &json!({ "title": title, "body": body }))
        .await
        .expect(201)
        .data();
    let id = made["id"].as_str().unwrap().to_owned();
    editor.post(&format!("/api/v1/posts/{id}/publish"), &json!({})).await.expect(200);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_comment_waits_and_the_next_ones_of_an_approved_author_do_not() {
    let node = TestNode::start().await;
    let (editor, viewer, stranger) =
        (node.admin().await, node.user("ana", Role::Viewer).await, node.stranger());
    let post = published(&editor, "Seeds", "How to keep seeds").await;
    let said = json!({ "post_id": post, "text": "Dry them first" });
    let first = viewer.post("/api/v1/comments", &said).await.expect(201).data();
    assert_eq!(first["status"], "pending");
    let path = format!("/api/v1/posts/{post}/comments");
    assert_eq!(stranger.get(&path).await.expect(200).json()["page"]["total"], 0);
    let first = first["id"].as_str().unwrap();
    assert_eq!(stranger.get(&format!("/api/v1/comments/{first}")).await.status, 404);
    editor.post(&format!("/api/v1/comments/{first}/approve"), &json!({})).await.expect(200);
    let reply = json!({ "post_id": post, "parent_id": first, "text": "And label them" });
    assert_eq!(
        viewer.post("/api/v1/comments", &reply).await.expect(201).data()["status"],
        "approved"
    );
    let listed = stranger.get(&path).await.expect(200).json();
    assert_eq!(
        (&listed["page"]["total"], &listed["data"][1]["parent_id"]),
        (&json!(2), &json!(first))
    );
    viewer.delete(&format!("/api/v1/comments/{first}")).await.expect(204);
    let listed = stranger.get(&path).await.expect(200).json();
    assert_eq!(
        (&listed["page"]["total"], &listed["data"][0]["removed"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(listed["data"][0]["text"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_as_a_comment_is_named_by_field() {
    let node = TestNode::start().await;
    let (editor, viewer) = (node.admin().await, node.user("ana", Role::Viewer).await);
    let (one, two) = (published(&editor, "One", "x").await, published(&editor, "Two", "y").await);
    let on_one = editor
        .post("/api/v1/comments", &json!({ "post_id": one, "text": "hm" }))
        .await
        .expect(201)
        .data();
    for (body, status) in [
        (json!({}), 422),
        (json!({ "post_id": one, "text": "" }), 422),
        (json!({ "post_id": "nothing", "text": "x" }), 422),
        (json!({ "post_id": "01890a5d-ac96-774b-bcce-b302099a8057", "text": "x" }), 422),
        (json!({ "post_id": two, "parent_id": on_one["id"], "text": "elsewhere" }), 422),
        (json!({ "post_id": one, "text": "x".repeat(10_001) }), 422),
        (json!({ "post_id": one, "text": "x", "status": "approved" }), 422),
    ] {
        let answer = viewer.post("/api/v1/comments", &body).await;
        assert_eq!(answer.status, status, "{body} {}", answer.text());
        assert!(answer.json()["errors"][0]["field"].is_string(), "{}", answer.text());
    }
    let path = format!("/api/v1/comments/{}", on_one["id"].as_str().unwrap());
    viewer.put(&path, &json!({ "text": "not mine" })).await.refused(403, "denied");
    viewer.delete(&path).await.refused(403, "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_like_counts_once_and_can_be_taken_back() {
    let node = TestNode::start().await;
    let (editor, viewer) = (node.admin().await, node.user("ana", Role::Viewer).await);
    let post = published(&editor, "One", "x").await;
    let path = format!("/api/v1/posts/{post}/like");
    assert_eq!(
        viewer.post(&path, &json!({})).await.expect(200).data(),
        json!({ "liked": true, "likes": 1 })
    );
    assert_eq!(
        editor.post(&path, &json!({})).await.expect(200).data(),
        json!({ "liked": true, "likes": 2 })
    );
    assert_eq!(
        viewer.post(&path, &json!({})).await.expect(200).data(),
        json!({ "liked": false, "likes": 1 })
    );
    assert_eq!(
        viewer
            .post("/api/v1/posts/01890a5d-ac96-774b-bcce-b302099a8057/like", &json!({}))
            .await
            .status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_visitors_are_counted_for_people_only() {
    let node = TestNode::start().await;
    let (editor, stranger) = (node.admin().await, node.stranger());
    let post = published(&editor, "One", "x").await;
    let seen = json!({ "type": "view", "post_id": post }).to_string().into_bytes();
    let browser =
        [("user-agent", "Mozilla/5.0 Firefox/140.0"), ("content-type", "application/json")];
    for _ in 0..3 {
        let told = stranger.send("POST", "/api/v1/analytics/track", &browser, &seen).await;
        assert_eq!(told.expect(202).data()["counted"], 1);
    }
    let robot = [("user-agent", "SomeBot/1.0"), ("content-type", "application/json")];
    let told = stranger.send("POST", "/api/v1/analytics/track", &robot, &seen).await;
    assert_eq!(told.expect(202).data()["ignored"], 1);
    let figures =
        editor.get(&format!("/api/v1/analytics/posts/{post}?days=2")).await.expect(200).data();
    assert_eq!((&figures["views"], &figures["visitors"]), (&json!(3), &json!(1)));
    assert_eq!(figures["days"].as_array().unwrap().len(), 2);
    let viewer = node.user("ana", Role::Viewer).await;
    viewer.get(&format!("/api/v1/analytics/posts/{post}")).await.refused(403, "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_what_the_caller_may_see() {
    let node = TestNode::start().await;
    let workers = node.node.start().await.unwrap();
    let (editor, stranger) = (node.admin().await, node.stranger());
    published(&editor, "Keeping bees", "A hive wants a dry place & <quiet> neighbours").await;
    editor
        .post("/api/v1/posts", &json!({ "title": "Bees in secret", "body": "a draft" }))
        .await
        .expect(201);
    let mut commits = node.node.store.subscribe();
    while node.node.store.unindexed_depth().unwrap() > 0 {
        commits.changed().await.unwrap();
    }
    let found = stranger.get("/api/v1/search?q=hive").await.expect(200).json();
    assert_eq!(
        (&found["page"]["total"], &found["data"][0]["title"]),
        (&json!(1), &json!("Keeping bees"))
    );
    let snippet = found["data"][0]["snippet"].as_str().unwrap();
    assert!(
        snippet.contains("<mark>hive</mark>") && snippet.contains("&lt;quiet&gt;"),
        "{snippet}"
    );
    assert_eq!(stranger.get("/api/v1/search?q=bees").await.expect(200).json()["page"]["total"], 1);
    assert_eq!(editor.get("/api/v1/search?q=bees").await.expect(200).json()["page"]["total"], 2);
    assert_eq!(stranger.get("/api/v1/search?q=%22%28%2A%20AND%20OR%20%5B").await.status, 200);
    stranger.get("/api/v1/search?q=x&type=user").await.expect(422);
    stranger.get("/api/v1/search?q=x&colour=red").await.expect(400);
    workers.shutdown().await;
}
