use super::{all, at, draft, text};
use atoll_node::Role;
use atoll_node::content::version::POST_VERSION;
use atoll_storage::{Query, Read};
use atoll_tests::TestNode;
use serde_json::json;

#[tokio::test]
async fn a_post_that_was_never_changed_has_one_version_and_no_record_of_it() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let post = draft(&editor, "Once").await;
    let page = editor.get(&at("posts", &post, "/versions")).await.expect(200).json();
    assert_eq!((&page["page"]["total"], &page["data"][0]["number"]), (&json!(1), &json!(1)));
    let first = editor.get(&at("posts", &post, "/versions/1")).await.expect(200).data();
    assert_eq!((text(&first, "body"), text(&first["post"], "slug")), ("Some text.", "once"));
    editor.get(&at("posts", &post, "/versions/2")).await.refused(404, "not_found");
    editor.get(&at("posts", &post, "/versions/0")).await.refused(404, "not_found");
    editor.get(&at("posts", &post, "/versions/x")).await.refused(404, "not_found");
    let kept = test.node.store.read(|r| r.count(&Query::of(&POST_VERSION, test.tenant))).unwrap();
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn every_change_is_a_version_that_can_be_read_compared_and_brought_back() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let post = draft(&editor, "One").await;
    let path = at("posts", &post, "");
    let _ = editor
        .put(&path, &json!({ "title": "Two", "body": "Some other text.\n" }))
        .await
        .expect(200);
    let _ = editor
        .put(&path, &json!({ "body": "Some other text.\nAnd more.\n", "excerpt": "Short" }))
        .await
        .expect(200);
    let _ = editor.put(&path, &json!({ "title": "Two" })).await.expect(200);

    let page = editor.get(&format!("{path}/versions?limit=2")).await.expect(200).json();
    assert_eq!((&page["page"]["total"], &page["data"][0]["number"]), (&json!(3), &json!(3)));
    let rest = format!("{path}/versions?limit=2&cursor={}", text(&page["page"], "next"));
    let rest = editor.get(&rest).await.expect(200).json();
    assert_eq!(
        (all(&rest["data"], "title"), &rest["data"][0]["number"]),
        (vec!["One".to_owned()], &json!(1))
    );
    assert_eq!(text(&rest["data"][0], "created_at"), text(&post, "created_at"));

    let bodies = ["Some text.", "Some other text.\n", "Some other text.\nAnd more.\n"];
    for (number, body) in (1..).zip(bodies) {
        let version = editor.get(&format!("{path}/versions/{number}")).await.expect(200).data();
        assert_eq!((version["number"].as_u64(), text(&version, "body")), (Some(number), body));
    }
    let diff = editor.get(&format!("{path}/versions/3?diff=2")).await.expect(200).data();
    assert_eq!(
        text(&diff, "body"),
        "--- version 2\n+++ version 3\n@@ -1 +1,2 @@\n Some other text.\n+And more.\n"
    );
    assert_eq!(diff["fields"], json!({ "excerpt": { "from": null, "to": "Short" } }));

    let back = editor.post(&format!("{path}/revert/1"), &json!({})).await.expect(200).data();
    assert_eq!((text(&back, "title"), text(&back, "body")), ("One", "Some text."));
    assert!(back["excerpt"].is_null());
    let page = editor.get(&format!("{path}/versions")).await.expect(200).json();
    assert_eq!(
        (&page["page"]["total"], text(&page["data"][0], "note")),
        (&json!(4), "back to version 1")
    );
    editor.post(&format!("{path}/revert/9"), &json!({})).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_version_tells_who_saw_the_post_and_a_revert_leaves_that_alone() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let post = draft(&editor, "One").await;
    let path = at("posts", &post, "");
    let narrow = json!({ "visibility": "members", "featured": true, "body": "Other." });
    let _ = editor.put(&path, &narrow).await.expect(200);
    let diff = editor.get(&format!("{path}/versions/2?diff=1")).await.expect(200).data();
    assert_eq!(diff["fields"]["visibility"], json!({ "from": "public", "to": "members" }));
    assert_eq!(diff["fields"]["featured"], json!({ "from": false, "to": true }));
    let back = editor.post(&format!("{path}/revert/1"), &json!({})).await.expect(200).data();
    assert_eq!((text(&back, "body"), text(&back, "visibility")), ("Some text.", "members"));
}

#[tokio::test]
async fn the_history_of_a_post_is_for_its_author_and_editors() {
    let test = TestNode::start().await;
    let (eve, ed) = (test.user("eve", Role::Editor).await, test.user("edna", Role::Editor).await);
    let viewer = test.user("vic", Role::Viewer).await;
    let post = draft(&eve, "Mine").await;
    let _ = eve.post(&at("posts", &post, "/publish"), &json!({})).await.expect(200);
    let path = at("posts", &post, "/versions");
    let _ = ed.get(&path).await.expect(200);
    viewer.get(&path).await.refused(403, "denied");
    test.stranger().get(&path).await.refused(401, "unauthenticated");
    ed.post(&at("posts", &post, "/revert/1"), &json!({})).await.refused(403, "denied");
}

#[tokio::test]
async fn a_change_from_an_older_version_adds_to_what_others_did_and_undoes_nothing() {
    let test = TestNode::start().await;
    let (admin, eve) = (test.admin().await, test.user("eve", Role::Editor).await);
    let tag = async |name: &str| {
        admin.post("/api/v1/tags", &json!({ "name": name })).await.expect(201).data()["id"].take()
    };
    let (a, b) = (tag("a").await, tag("b").await);
    let new = json!({ "title": "One", "body": "The quick fox.\nThe end.\n", "tag_ids": [a] });
    let post = eve.post("/api/v1/posts", &new).await.expect(201);
    let (tag_read, post) = (post.header("etag").unwrap().to_owned(), post.data());
    let path = at("posts", &post, "");
    let theirs =
        json!({ "title": "Two", "body": "The quick brown fox.\nThe end.\n", "tag_ids": [a, b] });
    let _ = admin.put(&path, &theirs).await.expect(200);
    let mut mine =
        json!({ "title": "One", "body": "The quick fox.\nThe happy end.\n", "tag_ids": [a] });
    for base in [json!(1), json!("1"), json!(tag_read)] {
        mine["base"] = base;
        let merged = eve.put(&path, &mine).await.expect(200).data();
        assert_eq!(text(&merged, "body"), "The quick brown fox.\nThe happy end.\n");
        assert_eq!(
            (text(&merged, "title"), &merged["tag_ids"].as_array().map(Vec::len)),
            ("Two", &Some(2))
        );
    }
    let page = eve.get(&format!("{path}/versions")).await.expect(200).json();
    assert_eq!(page["page"]["total"], 3, "the same change again is no change");
    assert_eq!(
        (&page["data"][0]["merged"], &page["data"][1]["merged"]),
        (&json!(true), &json!(false))
    );
    let now = eve.get(&path).await.expect(200);
    let present = json!({ "body": "New.", "base": now.header("etag").unwrap() });
    assert_eq!(text(&eve.put(&path, &present).await.expect(200).data(), "body"), "New.");
    for (base, status, code) in [
        (json!(99), 409, "unknown_base"),
        (json!("\"00000000000000000000000000000000.0\""), 409, "unknown_base"),
        (json!("soon"), 422, "invalid"),
        (json!(true), 422, "invalid"),
    ] {
        eve.put(&path, &json!({ "body": "x", "base": base })).await.refused(status, code);
    }
}

#[tokio::test]
async fn a_change_has_a_note_and_two_versions_are_compared_by_word() {
    let test = TestNode::start().await;
    let eve = test.user("eve", Role::Editor).await;
    let post = draft(&eve, "Noted").await;
    let path = at("posts", &post, "");
    let change = json!({ "body": "Some better text.", "note": "Better" });
    let _ = eve.put(&path, &change).await.expect(200);
    let page = eve.get(&format!("{path}/versions")).await.expect(200).json();
    assert_eq!(text(&page["data"][0], "note"), "Better");
    assert!(page["data"][0]["author_id"].is_string());
    let diff = eve.get(&format!("{path}/versions/2?diff=1&by=word")).await.expect(200).data();
    let told: Vec<_> = diff["words"].as_array().into_iter().flatten().collect();
    let joined = |op: &str| -> String {
        told.iter().filter(|piece| piece["op"] == op).map(|piece| text(piece, "text")).collect()
    };
    assert_eq!((joined("insert").trim(), joined("delete")), ("better", String::new()));
    assert!(diff.get("body").is_none());
    eve.get(&format!("{path}/versions/2?diff=1&by=page")).await.refused(400, "unknown_choice");
    let wrong = json!({ "note": 7, "base": [], "title": 1 });
    let answer = eve.put(&path, &wrong).await.expect(422);
    let mut fields = all(&answer.json()["errors"], "field");
    fields.sort();
    assert_eq!(fields, ["base", "note", "title"]);
    let _ = eve.put(&path, &json!({ "note": "x".repeat(201) })).await.expect(422);
}

#[tokio::test]
async fn a_change_of_the_body_alone_raises_the_time_of_the_last_change() {
    use atoll_storage::Clock;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let clock = now.clone();
    let test = TestNode::start_at(Clock::from_fn(move || clock.load(SeqCst))).await;
    let eve = test.user("eve", Role::Editor).await;
    let post = draft(&eve, "Dated").await;
    now.fetch_add(60_000, SeqCst);
    let _ = eve.put(&at("posts", &post, ""), &json!({ "body": "Other." })).await.expect(200);
    let after = eve.get(&at("posts", &post, "")).await.expect(200).data();
    assert_eq!(text(&after, "updated_at"), "2027-01-15T08:01:00.000Z");
    assert_eq!(text(&after, "created_at"), text(&post, "created_at"));
    let list = eve.get("/api/v1/posts?sort=-updated_at&fields=updated_at").await.expect(200);
    assert_eq!(text(&list.json()["data"][0], "updated_at"), "2027-01-15T08:01:00.000Z");
}
