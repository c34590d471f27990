use super::text;
use atoll_node::Role;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

const INBOX: &str = "/api/v1/sync/conflicts";
const SETTLED: &str = "/api/v1/sync/settlements";

async fn one(client: &Client, list: &str) -> Json {
    let all = client.get(list).await.expect(200).json();
    assert_eq!(all["data"].as_array().map(Vec::len), Some(1), "{all}");
    all["data"][0].clone()
}

async fn settle(client: &Client, how: Json) {
    let conflict = one(client, INBOX).await;
    let path = format!("{INBOX}/{}/resolve", text(&conflict, "id"));
    assert_eq!(client.post(&path, &how).await.status, 204);
}

/// A post whose title two nodes wrote apart; its address.
async fn disputed(test: &TestNode) -> String {
    let admin = test.admin().await;
    let made = admin.post("/api/v1/posts", &json!({ "title": "Shared", "body": "x" })).await;
    let path = format!("/api/v1/posts/{}", text(&made.expect(201).data(), "id"));
    let apart = TestNode::start_beside(test).await;
    apart.admin().await.put(&path, &json!({ "title": "There" })).await.expect(200);
    admin.put(&path, &json!({ "title": "Here" })).await.expect(200);
    test.take_from(&apart);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_is_seen_and_undone_unless_somebody_wrote_there_since() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let path = disputed(&test).await;
    let title = async || text(&admin.get(&path).await.expect(200).data(), "title").to_owned();
    let showed = title().await;
    settle(&admin, json!({ "write": "Both" })).await;
    assert_eq!(title().await, "Both");
    let settled = one(&admin, SETTLED).await;
    let told = ["cause", "field", "before", "after"].map(|name| text(&settled, name).to_owned());
    assert_eq!(told, ["concurrent", "title", &showed, "Both"]);
    assert_eq!((&settled["can_undo"], &settled["by"]), (&json!(true), &json!(test.admin)));
    let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));

    let reader = test.user("ada", Role::Viewer).await;
    reader.get(SETTLED).await.refused(403, "denied");
    reader.post(&undo, &json!({})).await.refused(403, "denied");
    admin.put(&path, &json!({ "title": "Later" })).await.expect(200);
    admin.post(&undo, &json!({})).await.refused(409, "changed_since");
    assert_eq!(title().await, "Later");
    admin.put(&path, &json!({ "title": "Both" })).await.expect(200);
    let undone = admin.post(&undo, &json!({})).await.expect(200).data();
    assert_eq!((undone["can_undo"].as_bool(), undone["undone_at"].is_null()), (Some(false), false));
    assert_eq!(title().await, showed);
    admin.post(&undo, &json!({})).await.refused(409, "already_undone");
    let nowhere = format!("{SETTLED}/{}/undo", test.admin);
    admin.post(&nowhere, &json!({})).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_was_left_comes_back_when_that_is_undone() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    disputed(&test).await;
    settle(&admin, json!({ "dismiss": true })).await;
    let inbox = admin.get(INBOX).await.expect(200).json();
    assert_eq!(inbox["data"], json!([]));
    let settled = one(&admin, SETTLED).await;
    assert!(settled["before"].is_null() && settled["can_undo"] == true, "{settled}");
    let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));
    admin.post(&undo, &json!({})).await.expect(200);
    one(&admin, INBOX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_given_to_another_goes_back() {
    let test = TestNode::start().await;
    let apart = TestNode::start_beside(&test).await;
    let post = json!({ "title": "Bread", "slug": "bread", "body": "x" });
    let mut ids = Vec::new();
    for node in [&test, &apart] {
        let made = node.admin().await.post("/api/v1/posts", &post).await.expect(201).data();
        ids.push(text(&made, "id").to_owned());
    }
    test.take_from(&apart);
    let admin = test.admin().await;
    let holder =
        async || text(&admin.get("/api/v1/posts/bread").await.expect(200).data(), "id").to_owned();
    let first = holder().await;
    let conflict = one(&admin, INBOX).await;
    let values = conflict["values"].as_array().unwrap();
    let place = values.iter().position(|value| value["won"] == false).unwrap();
    settle(&admin, json!({ "take": place })).await;
    let second = holder().await;
    assert!(first != second && ids.contains(&second));
    let settled = admin.get(SETTLED).await.expect(200).json()["data"][0].clone();
    assert_eq!((text(&settled, "before"), text(&settled, "after")), (&*first, &*second));
    let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));
    admin.post(&undo, &json!({})).await.expect(200);
    assert_eq!(holder().await, first);
}
