use super::{all, at, draft, make, text};
use atoll_node::Role;
use atoll_tests::TestNode;
use serde_json::json;

#[tokio::test]
async fn a_post_is_made_read_changed_and_put_into_the_trash() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let sent =
        json!({ "title": "Crème brûlée", "body": "# Sugar\n\nand *eggs*", "featured": true });
    let answer = editor.post("/api/v1/posts", &sent).await.expect(201);
    let post = answer.data();
    assert_eq!(answer.header("location"), Some(at("posts", &post, "").as_str()));
    assert_eq!(text(&post, "slug"), "creme-brulee");
    assert_eq!((text(&post, "status"), text(&post, "format")), ("draft", "markdown"));
    assert_eq!(text(&post, "body"), "# Sugar\n\nand *eggs*");
    assert!(post.get("trashed_heads").is_none() && post.get("imported_hash").is_none());

    for path in [
        at("posts", &post, ""),
        "/api/v1/posts/creme-brulee".into(),
        "/api/v1/posts/slug/creme-brulee".into(),
    ] {
        assert_eq!(editor.get(&path).await.expect(200).data()["id"], post["id"], "{path}");
        test.stranger().get(&path).await.refused(404, "not_found");
    }
    let rendered = editor.get(&at("posts", &post, "?render=true")).await.expect(200).data();
    assert_eq!(text(&rendered, "body_html"), "<h1>Sugar</h1>\n<p>and <em>eggs</em></p>\n");
    assert_eq!(
        (text(&rendered, "excerpt"), rendered["reading_minutes"].as_u64()),
        ("and eggs", Some(1))
    );

    let path = at("posts", &post, "");
    let changed =
        editor.put(&path, &json!({ "title": "Flan", "body": "and eggs" })).await.expect(200).data();
    assert_eq!((text(&changed, "title"), text(&changed, "slug")), ("Flan", "creme-brulee"));
    assert_eq!((text(&changed, "body"), changed["featured"].as_bool()), ("and eggs", Some(true)));

    let _ = editor.delete(&path).await.expect(204);
    assert_eq!(editor.get("/api/v1/posts").await.expect(200).json()["page"]["total"], 0);
    assert_eq!(
        editor.get("/api/v1/posts?trashed=true").await.expect(200).json()["page"]["total"],
        1
    );
    editor.put(&path, &json!({ "title": "Pie" })).await.refused(409, "trashed");
    let back = editor.post(&at("posts", &post, "/restore"), &json!({})).await.expect(200).data();
    assert!(back["trashed_at"].is_null());
    assert_eq!(editor.get("/api/v1/posts").await.expect(200).json()["page"]["total"], 1);
}

#[tokio::test]
async fn a_slug_from_a_title_gets_a_number_and_a_written_one_is_refused() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    for slug in ["intro", "intro-2", "intro-3"] {
        assert_eq!(text(&draft(&editor, "Intro").await, "slug"), slug);
    }
    for _ in 0..8 {
        draft(&editor, "Intro").await;
    }
    let twelfth = draft(&editor, "Intro").await;
    assert!(
        text(&twelfth, "slug").starts_with("intro-")
            && text(&twelfth, "slug").len() == "intro-".len() + 6
    );
    editor
        .post("/api/v1/posts", &json!({ "title": "X", "slug": "INTRO" }))
        .await
        .refused(409, "slug_taken");
    let other = draft(&editor, "Other").await;
    editor
        .put(&at("posts", &other, ""), &json!({ "slug": "intro" }))
        .await
        .refused(409, "slug_taken");
    assert_eq!(text(&draft(&editor, "???").await, "slug"), "untitled");
}

#[tokio::test]
async fn an_old_slug_leads_to_the_new_one_until_somebody_takes_it() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let post = draft(&editor, "First name").await;
    let _ =
        editor.put(&at("posts", &post, ""), &json!({ "slug": "second-name" })).await.expect(200);
    for path in ["/api/v1/posts/slug/first-name", "/api/v1/posts/first-name"] {
        let moved = editor.get(path).await;
        moved.refused(301, "moved");
        assert!(moved.header("location").is_some_and(|to| to.ends_with("/second-name")));
        test.stranger().get(path).await.refused(404, "not_found");
    }
    let new = draft(&editor, "First name").await;
    let found = editor.get("/api/v1/posts/slug/first-name").await.expect(200).data();
    assert_eq!(found["id"], new["id"]);
    let _ = editor.put(&at("posts", &new, ""), &json!({ "slug": "third" })).await.expect(200);
    let _ = editor.put(&at("posts", &post, ""), &json!({ "slug": "first-name" })).await.expect(200);
    assert_eq!(editor.get("/api/v1/posts/first-name").await.expect(200).data()["id"], post["id"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_post_is_named_field_by_field() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let wrong = json!({
        "title": "x".repeat(301), "format": "word", "featured": "yes", "category_id": 7, "status": "published", "colour": 1,
    });
    let answer = editor.post("/api/v1/posts", &wrong).await.expect(422);
    let mut fields = all(&answer.json()["errors"], "field");
    fields.sort();
    assert_eq!(fields, ["category_id", "colour", "featured", "status"]);
    let wrong = json!({ "title": " ", "format": "word", "excerpt": "x".repeat(1_001) });
    let answer = editor.post("/api/v1/posts", &wrong).await.expect(422);
    let mut fields = all(&answer.json()["errors"], "field");
    fields.sort();
    assert_eq!(fields, ["excerpt", "format", "title"]);
    let unknown = "0190b8e0-0000-7000-8000-000000000000";
    for (wrong, field) in [
        (json!({ "title": "A", "category_id": unknown }), "category_id"),
        (json!({ "title": "A", "tag_ids": [unknown] }), "tag_ids"),
        (json!({ "title": "A", "canonical_url": "javascript:alert(1)" }), "canonical_url"),
        (json!({ "title": "A", "cover": "//evil.example" }), "cover"),
        (json!({ "title": "A", "slug": "a b" }), "slug"),
        (json!({ "title": "A", "body": "x".repeat((1 << 20) + 1) }), "body"),
    ] {
        let answer = editor.post("/api/v1/posts", &wrong).await.expect(422);
        assert_eq!(text(&answer.json()["errors"][0], "field"), field);
    }
    assert_eq!(editor.get("/api/v1/posts").await.expect(200).json()["page"]["total"], 0);
    make(&editor, json!({ "title": "Long", "body": "x\n".repeat(1 << 19) })).await;
}

#[tokio::test]
async fn a_change_that_insists_on_an_old_version_is_refused() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let path = at("posts", &draft(&editor, "One").await, "");
    let etag = editor.get(&path).await.header("etag").map(str::to_owned).unwrap_or_default();
    let _ = editor.put(&path, &json!({ "title": "Two" })).await.expect(200);
    let headers = [("if-match", etag.as_str()), ("content-type", "application/json")];
    editor.send("PUT", &path, &headers, br#"{"title":"Three"}"#).await.refused(412, "stale");
    editor.send("DELETE", &path, &headers, b"").await.refused(412, "stale");
    let etag = editor.get(&path).await.header("etag").map(str::to_owned).unwrap_or_default();
    let headers = [("if-match", etag.as_str()), ("content-type", "application/json")];
    let _ = editor.send("PUT", &path, &headers, br#"{"title":"Three"}"#).await.expect(200);
}

#[tokio::test]
async fn only_the_author_and_administrators_change_a_post_and_only_insiders_see_a_draft() {
    let test = TestNode::start().await;
    let (eve, ed) = (test.user("eve", Role::Editor).await, test.user("edna", Role::Editor).await);
    let viewer = test.user("vic", Role::Viewer).await;
    let post = draft(&eve, "Mine").await;
    let path = at("posts", &post, "");
    let _ = ed.get(&path).await.expect(200);
    ed.put(&path, &json!({ "title": "Yours" })).await.refused(403, "denied");
    ed.delete(&path).await.refused(403, "denied");
    viewer.get(&path).await.refused(404, "not_found");
    viewer.put(&path, &json!({ "title": "Yours" })).await.refused(404, "not_found");
    viewer.post("/api/v1/posts", &json!({ "title": "x" })).await.refused(403, "denied");
    test.stranger()
        .post("/api/v1/posts", &json!({ "title": "x" }))
        .await
        .refused(401, "unauthenticated");
    let _ = test.admin().await.put(&path, &json!({ "title": "Ours" })).await.expect(200);
    assert_eq!(viewer.get("/api/v1/posts").await.expect(200).json()["page"]["total"], 0);
    assert_eq!(ed.get("/api/v1/posts").await.expect(200).json()["page"]["total"], 1);
}

#[tokio::test]
async fn a_post_of_another_tenant_is_not_there() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let post = draft(&admin, "Here").await;
    let new = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "n@example.org", "username": "norah", "password": "a long enough password" },
    });
    let made = admin.post("/api/v1/tenants", &new).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let norah = test.stranger().in_tenant("north").login("norah", "a long enough password").await;
    for path in
        [at("posts", &post, ""), "/api/v1/posts/here".to_owned(), at("posts", &post, "/versions")]
    {
        norah.get(&path).await.refused(404, "not_found");
    }
    norah.put(&at("posts", &post, ""), &json!({ "title": "x" })).await.refused(404, "not_found");
    norah.delete(&at("posts", &post, "")).await.refused(404, "not_found");
    norah.post(&at("posts", &post, "/publish"), &json!({})).await.refused(404, "not_found");
    assert_eq!(text(&draft(&norah, "Here").await, "slug"), "here");
}

#[tokio::test]
async fn lists_are_narrowed_sorted_and_paged() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let category =
        admin.post("/api/v1/categories", &json!({ "name": "Guides" })).await.expect(201).data();
    let below = json!({ "name": "First steps", "parent_id": category["id"] });
    let below = admin.post("/api/v1/sub-categories", &below).await.expect(201).data();
    let tag = admin.post("/api/v1/tags", &json!({ "name": "Rust" })).await.expect(201).data();
    for i in 0..5 {
        let category = if i == 0 { &category } else { &below };
        let tags = if i < 2 { json!([tag["id"]]) } else { json!([]) };
        let post = json!({ "title": format!("Post {i}"), "category_id": category["id"], "tag_ids": tags, "pinned": i == 3 });
        let post = make(&admin, post).await;
        if i < 4 {
            let _ = admin.post(&at("posts", &post, "/publish"), &json!({})).await.expect(200);
        }
    }
    let stranger = test.stranger();
    let total = async |query: &str| {
        stranger.get(&format!("/api/v1/posts?{query}")).await.expect(200).json()["page"]["total"]
            .clone()
    };
    assert_eq!(total("").await, 4);
    assert_eq!(total("category=guides").await, 4);
    assert_eq!(total("sub_category=first-steps").await, 3);
    assert_eq!(total("category=nowhere").await, 0);
    assert_eq!(total("tag=rust").await, 2);
    assert_eq!(total("tag=rust&category=first-steps").await, 1);
    assert_eq!(total("pinned=true").await, 1);
    assert_eq!(total("pinned=false").await, 3);
    assert_eq!(total("status=draft").await, 0);
    assert_eq!(total("author=admin").await, 4);
    assert_eq!(total("author=nobody").await, 0);
    assert_eq!(total("from=2001-01-01").await, 4);
    assert_eq!(total("to=2001-01-01").await, 0);
    assert_eq!(
        admin.get("/api/v1/posts?status=draft").await.expect(200).json()["page"]["total"],
        1
    );
    stranger.get("/api/v1/posts?colour=red").await.refused(400, "unknown_parameter");
    let page = stranger.get("/api/v1/posts?limit=3&sort=-title").await.expect(200).json();
    assert_eq!(all(&page["data"], "title"), ["Post 3", "Post 2", "Post 1"]);
    let rest = format!("/api/v1/posts?limit=3&sort=-title&cursor={}", text(&page["page"], "next"));
    let rest = stranger.get(&rest).await.expect(200).json();
    assert_eq!(all(&rest["data"], "title"), ["Post 0"]);
    assert!(rest["page"]["next"].is_null());
    let expanded = stranger
        .get("/api/v1/posts?limit=1&fields=title&expand=author,category")
        .await
        .expect(200)
        .json();
    assert_eq!(text(&expanded["data"][0]["author"], "username"), "admin");

    let tags = stranger.get("/api/v1/tags").await.expect(200).json();
    assert_eq!(
        (all(&tags["data"], "slug"), &tags["data"][0]["post_count"]),
        (vec!["rust".to_owned()], &json!(2))
    );
}

#[tokio::test]
async fn a_batch_tells_the_fate_of_each_row_and_an_atomic_one_keeps_all_or_none() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let rows = json!([{ "title": "One", "slug": "one" }, { "title": "" }, { "title": "Two", "slug": "one" }, { "title": "One" }, 7]);
    let answer = editor.post("/api/v1/posts/batch", &rows).await.expect(200).json();
    let statuses: Vec<_> =
        answer["data"].as_array().into_iter().flatten().map(|row| row["status"].as_u64()).collect();
    assert_eq!(statuses, [201, 422, 409, 201, 422].map(Some));
    assert_eq!((&answer["done"], &answer["failed"]), (&json!(2), &json!(3)));
    assert_eq!(text(&answer["data"][3], "slug"), "one-2");

    let rows = json!([{ "title": "Three" }, { "title": "Four", "slug": "one" }]);
    editor.post("/api/v1/posts/batch?atomic=true", &rows).await.refused(409, "slug_taken");
    let rows = json!([{ "title": "Three" }, { "title": "" }]);
    let answer = editor.post("/api/v1/posts/batch?atomic=true", &rows).await.expect(422).json();
    assert_eq!(text(&answer["errors"][0], "field"), "1.title");
    assert_eq!(editor.get("/api/v1/posts").await.expect(200).json()["page"]["total"], 2);

    let csv = b"title,body,featured\nFive,\"a, b\",true\nSix,,maybe\n";
    let answer = editor
        .send("POST", "/api/v1/posts/batch", &[("content-type", "text/csv")], csv)
        .await
        .expect(200)
        .json();
    assert_eq!((&answer["done"], &answer["failed"]), (&json!(1), &json!(1)));
    let ids = [&answer["data"][0]["id"], &json!("0190b8e0-0000-7000-8000-000000000000")];
    let ids = json!({ "ids": ids }).to_string();
    let json_type = [("content-type", "application/json")];
    let answer = editor
        .send("DELETE", "/api/v1/posts/batch", &json_type, ids.as_bytes())
        .await
        .expect(200)
        .json();
    assert_eq!((&answer["done"], &answer["failed"]), (&json!(1), &json!(1)));
    let atomic =
        editor.send("DELETE", "/api/v1/posts/batch?atomic=true", &json_type, ids.as_bytes()).await;
    atomic.refused(404, "not_found");
    editor.post("/api/v1/posts/batch", &json!([])).await.refused(400, "malformed");
}

#[tokio::test]
async fn every_change_leaves_its_event() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let post = draft(&admin, "Told").await;
    let _ = admin.put(&at("posts", &post, ""), &json!({ "title": "Told again" })).await.expect(200);
    let _ = admin.put(&at("posts", &post, ""), &json!({ "title": "Told again" })).await.expect(200);
    let _ = admin.post(&at("posts", &post, "/publish"), &json!({})).await.expect(200);
    let _ = admin.delete(&at("posts", &post, "")).await.expect(204);
    let events = test
        .node
        .store
        .read(|r| atoll_storage::outbox::events_after(r, Some(test.tenant), 0, 100))
        .unwrap();
    let posts: Vec<_> =
        events.iter().filter(|event| event.event_type.starts_with("postal.post.")).collect();
    let types: Vec<_> =
        posts.iter().map(|event| event.event_type.rsplit('.').next().unwrap_or_default()).collect();
    assert_eq!(types, ["created", "updated", "published", "trashed"]);
    assert_eq!(
        posts[1].payload,
        json!({ "post_id": post["id"], "title": "Told again", "slug": "told" })
    );
    assert_eq!(posts[0].user_id, Some(test.admin));
}
