use super::{at, draft, text};
use atoll_node::Role;
use atoll_tests::TestNode;
use serde_json::json;

#[tokio::test]
async fn a_draft_beside_the_post_leaves_no_version_until_it_is_applied() {
    let test = TestNode::start().await;
    let eve = test.user("eve", Role::Editor).await;
    let post = draft(&eve, "Slowly").await;
    let (path, auto) = (at("posts", &post, ""), at("posts", &post, "/autosave"));
    eve.get(&auto).await.refused(404, "not_found");
    eve.delete(&auto).await.refused(404, "not_found");
    eve.post(&format!("{auto}/apply"), &json!({})).await.refused(404, "not_found");
    for n in 1..=5 {
        let body = json!({ "body": format!("Some text, at last {n}."), "title": "Slowly done" });
        let saved = eve.put(&auto, &body).await.expect(200).data();
        assert_eq!(text(&saved, "body"), format!("Some text, at last {n}."));
    }
    let kept = eve.get(&auto).await.expect(200).data();
    assert_eq!((text(&kept, "title"), &kept["behind"]), ("Slowly done", &json!(false)));
    assert!(kept.get("base_heads").is_none() && kept.get("base_fields").is_none());
    assert_eq!(text(&eve.get(&path).await.expect(200).data(), "title"), "Slowly");
    let total = async || {
        eve.get(&format!("{path}/versions")).await.expect(200).json()["page"]["total"].clone()
    };
    assert_eq!(total().await, 1);
    let applied = eve.post(&format!("{auto}/apply"), &json!({})).await.expect(200).data();
    assert_eq!(
        (text(&applied, "title"), text(&applied, "body")),
        ("Slowly done", "Some text, at last 5.")
    );
    assert_eq!(total().await, 2);
    eve.get(&auto).await.refused(404, "not_found");
    let _ = eve.put(&auto, &json!({ "body": "Again." })).await.expect(200);
    let _ = eve.delete(&auto).await.expect(204);
    eve.get(&auto).await.refused(404, "not_found");
    assert_eq!(total().await, 2);
    let long = json!({ "title": "x".repeat(301), "status": "published" });
    let answer = eve.put(&auto, &long).await.expect(422);
    assert_eq!(text(&answer.json()["errors"][0], "field"), "status");
}

#[tokio::test]
async fn an_applied_draft_adds_to_what_others_did_meanwhile() {
    let test = TestNode::start().await;
    let (admin, eve) = (test.admin().await, test.user("eve", Role::Editor).await);
    let post = draft(&eve, "Shared").await;
    let (path, auto) = (at("posts", &post, ""), at("posts", &post, "/autosave"));
    let mine = json!({ "title": "Shared", "body": "Some text. The end." });
    let _ = eve.put(&auto, &mine).await.expect(200);
    let theirs = json!({ "title": "Theirs", "body": "Some good text." });
    let _ = admin.put(&path, &theirs).await.expect(200);
    assert_eq!(eve.get(&auto).await.expect(200).data()["behind"], true);
    let applied = eve.post(&format!("{auto}/apply"), &json!({})).await.expect(200).data();
    assert_eq!(text(&applied, "title"), "Theirs", "the draft did not change it");
    assert_eq!(text(&applied, "body"), "Some good text. The end.");
}

#[tokio::test]
async fn a_draft_is_its_writers_own() {
    let test = TestNode::start().await;
    let (admin, eve) = (test.admin().await, test.user("eve", Role::Editor).await);
    let (ed, vic) = (test.user("edd", Role::Editor).await, test.user("vic", Role::Viewer).await);
    let post = draft(&eve, "Mine").await;
    let auto = at("posts", &post, "/autosave");
    let _ = eve.put(&auto, &json!({ "body": "Secret." })).await.expect(200);
    admin.get(&auto).await.refused(404, "not_found");
    let _ = admin.put(&auto, &json!({ "body": "Another." })).await.expect(200);
    assert_eq!(text(&eve.get(&auto).await.expect(200).data(), "body"), "Secret.");
    ed.get(&auto).await.refused(403, "denied");
    ed.put(&auto, &json!({ "body": "x" })).await.refused(403, "denied");
    vic.get(&auto).await.refused(404, "not_found");
    test.stranger().get(&auto).await.refused(401, "unauthenticated");
    let _ = eve.delete(&at("posts", &post, "")).await.expect(204);
    eve.put(&auto, &json!({ "body": "x" })).await.refused(409, "trashed");
}
