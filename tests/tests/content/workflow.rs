use super::{at, draft, make, text};
use atoll_node::Role;
use atoll_node::content::schedule;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

async fn step(client: &Client, post: &Json, step: &str) -> Json {
    client.post(&at("posts", post, &format!("/{step}")), &json!({})).await.expect(200).data()
}

#[tokio::test]
async fn a_post_goes_its_way_and_takes_only_lawful_steps() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let post = draft(&editor, "On its way").await;
    let path = at("posts", &post, "");
    for unlawful in ["unpublish", "restore"] {
        let answer = editor.post(&format!("{path}/{unlawful}"), &json!({})).await;
        answer.refused(409, "unlawful_transition");
        assert!(answer.text().contains("publish, archive"), "{}", answer.text());
    }
    let published = step(&editor, &post, "publish").await;
    let first = text(&published, "published_at").to_owned();
    assert_eq!(test.stranger().get(&path).await.expect(200).data()["status"], "published");
    editor.post(&format!("{path}/publish"), &json!({})).await.refused(409, "unlawful_transition");
    assert_eq!(step(&editor, &post, "unpublish").await["status"], "draft");
    test.stranger().get(&path).await.refused(404, "not_found");
    assert_eq!(text(&step(&editor, &post, "publish").await, "published_at"), first);
    assert_eq!(step(&editor, &post, "archive").await["status"], "archived");
    test.stranger().get(&path).await.refused(404, "not_found");
    editor.post(&format!("{path}/publish"), &json!({})).await.refused(409, "unlawful_transition");
    assert_eq!(step(&editor, &post, "restore").await["status"], "draft");
    let viewer = test.user("vic", Role::Viewer).await;
    viewer.post(&format!("{path}/publish"), &json!({})).await.refused(403, "denied");
}

#[tokio::test]
async fn who_sees_a_published_post_depends_on_its_visibility() {
    let test = TestNode::start().await;
    let (editor, viewer) =
        (test.user("eve", Role::Editor).await, test.user("vic", Role::Viewer).await);
    for (visibility, stranger, member) in
        [("public", 200, 200), ("members", 404, 200), ("private", 404, 404)]
    {
        let post = make(&editor, json!({ "title": visibility, "visibility": visibility })).await;
        step(&editor, &post, "publish").await;
        let path = at("posts", &post, "");
        assert_eq!(test.stranger().get(&path).await.status, stranger, "{visibility}");
        assert_eq!(viewer.get(&path).await.status, member, "{visibility}");
    }
}

#[tokio::test]
async fn a_scheduled_post_comes_out_at_its_time() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let (post, other) = (draft(&editor, "Later").await, draft(&editor, "Never").await);
    let due_ms = 4_102_444_800_000;
    let at_time = json!({ "publish_at": "2100-01-01T00:00:00Z" });
    for post in [&post, &other] {
        let scheduled =
            editor.post(&at("posts", post, "/publish"), &at_time).await.expect(200).data();
        assert_eq!(
            (text(&scheduled, "status"), text(&scheduled, "publish_at")),
            ("scheduled", "2100-01-01T00:00:00.000Z")
        );
    }
    let _ = editor.delete(&at("posts", &other, "")).await.expect(204);
    assert_eq!(schedule::next_due(&test.node).unwrap(), Some(due_ms));
    assert_eq!(schedule::run_due(&test.node, due_ms - 1).await.unwrap(), 0);
    assert_eq!(schedule::run_due(&test.node, due_ms).await.unwrap(), 1);
    assert_eq!(schedule::run_due(&test.node, due_ms).await.unwrap(), 0);
    assert_eq!(schedule::next_due(&test.node).unwrap(), None);
    let out = test.stranger().get(&at("posts", &post, "")).await.expect(200).data();
    assert_eq!(text(&out, "published_at"), "2100-01-01T00:00:00.000Z");
    assert!(out["publish_at"].is_null());
    let past = draft(&editor, "Past").await;
    let now = editor
        .post(&at("posts", &past, "/publish"), &json!({ "publish_at": "2001-01-01" }))
        .await
        .expect(200);
    assert_eq!(now.data()["status"], "published");
    let far = json!({ "publish_at": "9999-01-01" });
    let _ =
        editor.post(&at("posts", &draft(&editor, "Far").await, "/publish"), &far).await.expect(422);
    let odd = json!({ "publish_at": "soon" });
    let _ =
        editor.post(&at("posts", &draft(&editor, "Odd").await, "/publish"), &odd).await.expect(422);
}
