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
