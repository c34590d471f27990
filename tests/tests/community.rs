//! Comments, likes, views and search over HTTP, with their refusals.

use atoll_node::Role;
use atoll_tests::harness::{Client, TestNode};
use serde_json::json;
use std::time::Duration;

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
    let threads = stranger.get(&format!("{path}?threaded=true")).await.expect(200).json();
    assert_eq!((&threads["page"]["total"], &threads["data"][0]["id"]), (&json!(1), &json!(first)));
    let answer = &threads["data"][0]["replies"][0];
    assert_eq!((&answer["text"], &answer["replies"]), (&json!("And label them"), &json!([])));
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
    published(&editor, "Keeping bees", "A hive wants a dry place & 1 < 2").await;
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
    assert!(snippet.contains("<mark>hive</mark>") && snippet.contains("&lt; 2"), "{snippet}");
    assert_eq!(stranger.get("/api/v1/search?q=bees").await.expect(200).json()["page"]["total"], 1);
    assert_eq!(editor.get("/api/v1/search?q=bees").await.expect(200).json()["page"]["total"], 2);
    assert_eq!(stranger.get("/api/v1/search?q=%22%28%2A%20AND%20OR%20%5B").await.status, 200);
    stranger.get("/api/v1/search?q=x&type=user").await.expect(422);
    stranger.get("/api/v1/search?q=x&colour=red").await.expect(400);
    workers.shutdown().await;
}

/// What a search tells: how many in all, how many are shown, and the counts of the facet.
async fn told(client: &Client, query: &str) -> (u64, usize, u64) {
    let found = client.get(&format!("/api/v1/search?q={query}")).await.expect(200).json();
    let counts = found["facets"]["author"].as_array().unwrap();
    let counted = counts.iter().map(|row| row["count"].as_u64().unwrap()).sum();
    (found["page"]["total"].as_u64().unwrap(), found["data"].as_array().unwrap().len(), counted)
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_and_facets_of_a_search_count_what_the_caller_sees() {
    let node = TestNode::start().await;
    let (admin, eve) = (node.admin().await, node.user("eve", Role::Editor).await);
    let (vic, mo) = (node.user("vic", Role::Viewer).await, node.user("moe", Role::Moderator).await);
    let stranger = node.stranger();
    let post = published(&eve, "For members", "the hive").await;
    let path = format!("/api/v1/posts/{post}");
    eve.put(&path, &json!({ "visibility": "members" })).await.expect(200);
    let roles = json!({ "title": "For some", "body": "hive", "visibility": "role", "visible_to_roles": ["moderator"] });
    let some = eve.post("/api/v1/posts", &roles).await.expect(201).data();
    let publish = format!("/api/v1/posts/{}/publish", some["id"].as_str().unwrap());
    eve.post(&publish, &json!({})).await.expect(200);
    eve.post("/api/v1/posts", &json!({ "title": "A draft", "body": "hive" })).await.expect(201);
    let said = json!({ "post_id": post, "text": "what a hive" });
    admin.post("/api/v1/comments", &said).await.expect(201);
    vic.post("/api/v1/comments", &said).await.expect(201);

    node.node.feed_search().unwrap();
    assert_eq!(told(&stranger, "hive").await, (0, 0, 0));
    assert_eq!(told(&vic, "hive").await, (3, 3, 3), "the post, a comment, and his own that waits");
    assert_eq!(told(&mo, "hive").await, (4, 4, 4), "both posts and both comments");
    assert_eq!(told(&eve, "hive").await, (5, 5, 5));

    // What is said under a post has its readers, also when they change.
    eve.put(&path, &json!({ "visibility": "public" })).await.expect(200);
    node.node.feed_search().unwrap();
    assert_eq!(told(&stranger, "hive").await, (2, 2, 2));
    eve.delete(&path).await.expect(204);
    node.node.feed_search().unwrap();
    for (client, total) in [(&stranger, 0), (&vic, 0), (&mo, 1), (&eve, 2)] {
        assert_eq!(told(client, "what").await.0, 0, "{:?}", told(client, "hive").await);
        assert_eq!(told(client, "hive").await.0, total);
    }
    admin.delete(&format!("{path}?purge=true")).await.expect(204);
    node.node.feed_search().unwrap();
    assert_eq!(told(&eve, "what").await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_while_its_search_is_fed_finds_everything_after_the_next_start() {
    let node = TestNode::start().await;
    let admin = node.admin().await;
    // More than is fed at a time.
    let text = "honey and wax and smoke. ".repeat(24_000);
    for n in 0..30 {
        published(&admin, &format!("Comb {n}"), &text).await;
    }
    let workers = node.node.start().await.unwrap();
    let begun = async {
        while node.node.search.count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), begun).await.expect("it is fed");
    workers.shutdown().await;
    let (tenant, admin) = (node.tenant, node.admin);
    let node = TestNode::reopen(node.close().await, tenant, admin).await;
    node.node.feed_search().unwrap();
    let found = node.stranger().get("/api/v1/search?q=honey+comb").await.expect(200).json();
    assert_eq!(found["page"]["total"], 30, "{found}");
    node.node.search.verify().unwrap();

    node.node.search.close();
    published(&node.admin().await, "Late", "propolis").await;
    node.node.feed_search().unwrap_err();
    let node = TestNode::reopen(node.close().await, tenant, admin).await;
    node.node.feed_search().unwrap();
    let found = node.stranger().get("/api/v1/search?q=propolis").await.expect(200).json();
    assert_eq!(found["page"]["total"], 1, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_narrowed_by_names_and_its_facets_have_them() {
    let node = TestNode::start().await;
    let admin = node.admin().await;
    let parent = admin.post("/api/v1/categories", &json!({ "name": "Garden" })).await.expect(201);
    let parent = parent.data()["id"].clone();
    let child = json!({ "name": "Bees", "parent_id": parent });
    let child = admin.post("/api/v1/categories", &child).await.expect(201).data()["id"].clone();
    for key in [&parent, &child] {
        let approve = format!("/api/v1/categories/{}/approve", key.as_str().unwrap());
        admin.post(&approve, &json!({})).await.expect(200);
    }
    let tag = admin.post("/api/v1/tags", &json!({ "name": "Wax" })).await.expect(201).data();
    let one = published(&admin, "One", "honey").await;
    published(&admin, "Two", "honey").await;
    let change = json!({ "category_id": child, "tag_ids": [tag["id"]] });
    admin.put(&format!("/api/v1/posts/{one}"), &change).await.expect(200);
    node.node.feed_search().unwrap();
    let stranger = node.stranger();
    for (query, total) in [
        ("category=garden", 1),
        ("category=bees", 1),
        ("tag=wax", 1),
        ("category=nothing", 0),
        ("tag=nothing", 0),
        ("author=nobody", 0),
        ("from=2020-01-01", 2),
        ("to=2020-01-01", 0),
    ] {
        let found = stranger.get(&format!("/api/v1/search?q=honey&{query}")).await.expect(200);
        assert_eq!(found.json()["page"]["total"], total, "{query}");
    }
    let found = stranger.get("/api/v1/search?q=hony").await.expect(200).json();
    assert_eq!(found["page"]["total"], 2, "a slip is forgiven");
    let row = &found["facets"]["category"][0];
    assert_eq!(
        (&row["name"], &row["slug"], &row["count"]),
        (&json!("Bees"), &json!("bees"), &json!(1))
    );
    assert_eq!(found["facets"]["tag"][0]["name"], "Wax");
    stranger.get("/api/v1/search?q=x&from=soon").await.refused(400, "wrong_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_under_a_hidden_post_is_hidden_with_it() {
    let node = TestNode::start().await;
    let (eve, vic) = (node.user("eve", Role::Editor).await, node.user("vic", Role::Viewer).await);
    let post = published(&eve, "One", "x").await;
    let said = json!({ "post_id": post, "text": "between us" });
    let comment = eve.post("/api/v1/comments", &said).await.expect(201).data();
    let at = format!("/api/v1/comments/{}", comment["id"].as_str().unwrap());
    vic.get(&at).await.expect(200);
    eve.post(&format!("/api/v1/posts/{post}/unpublish"), &json!({})).await.expect(200);
    for client in [&vic, &node.stranger()] {
        client.get(&at).await.refused(404, "not_found");
    }
    vic.post(&format!("{at}/like"), &json!({})).await.refused(404, "not_found");
    assert_eq!(vic.get("/api/v1/comments").await.expect(200).json()["data"], json!([]));
    assert_eq!(
        eve.get("/api/v1/comments").await.expect(200).json()["data"][0]["text"],
        "between us"
    );
    eve.get(&at).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_total_of_comments_counts_what_the_caller_sees() {
    let node = TestNode::start().await;
    let (admin, eve) = (node.admin().await, node.user("eve", Role::Editor).await);
    let (vic, mo) =
        (node.user("vic", Role::Viewer).await, node.user("mona", Role::Moderator).await);
    let mut posts = Vec::new();
    for visibility in ["public", "members", "private"] {
        let post = published(&eve, visibility, "x").await;
        let path = format!("/api/v1/posts/{post}");
        eve.put(&path, &json!({ "visibility": visibility })).await.expect(200);
        for n in 0..3 {
            let said = json!({ "post_id": post, "text": format!("{visibility} {n}") });
            eve.post("/api/v1/comments", &said).await.expect(201);
        }
        posts.push(post);
    }
    let waiting = json!({ "post_id": posts[0], "text": "this waits" });
    vic.post("/api/v1/comments", &waiting).await.expect(201);
    let list = async |client: &Client, query: &str| {
        let listed = client.get(&format!("/api/v1/comments{query}")).await.expect(200).json();
        let rows = listed["data"].as_array().map_or(0, Vec::len);
        (listed["page"]["total"].as_u64().unwrap_or_default(), rows)
    };
    assert_eq!(list(&vic, "").await, (6, 6), "public and for members");
    assert_eq!(list(&vic, "?mine=true").await, (1, 1));
    assert_eq!(list(&mo, "").await, (7, 7), "and the one that waits");
    assert_eq!(list(&eve, "").await, (10, 10));
    assert_eq!(list(&admin, "").await, (10, 10));
    let one = format!("?post_id={}", posts[1]);
    assert_eq!((list(&vic, &one).await, list(&vic, "?limit=2").await), ((3, 3), (6, 2)));
    let hidden = format!("?post_id={}", posts[2]);
    assert_eq!((list(&vic, &hidden).await, list(&mo, &hidden).await), ((0, 0), (0, 0)));
    // It follows what is removed, and who sees the post.
    let all = vic.get("/api/v1/comments").await.expect(200).data();
    let first = all[0]["id"].as_str().unwrap();
    eve.delete(&format!("/api/v1/comments/{first}")).await.expect(204);
    assert_eq!(list(&vic, "").await, (5, 5));
    let path = format!("/api/v1/posts/{}", posts[2]);
    eve.put(&path, &json!({ "visibility": "members" })).await.expect(200);
    assert_eq!(list(&vic, "").await, (8, 8));
    eve.delete(&format!("/api/v1/posts/{}", posts[0])).await.expect(204);
    let left = list(&vic, "").await;
    assert!(left == (5, 5) || left == (6, 6), "{left:?}");
    assert_eq!(node.node.store.verify().unwrap().problems, Vec::<String>::new());
}
