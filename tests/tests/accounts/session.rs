//! One's own sessions.

use super::{me, text};
use atoll_node::Role;
use atoll_tests::TestNode;
use atoll_tests::harness::PASSWORD;
use serde_json::json;

const PATH: &str = "/api/v1/auth/sessions";

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one_or_all_others_at_once() {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Viewer).await;
    let others = [
        test.stranger().login("ada", PASSWORD).await,
        test.stranger().login("ada", PASSWORD).await,
    ];
    let agent = [("user-agent", "Lynx/2"), ("content-type", "application/json")];
    let form = json!({ "login": "ada", "password": PASSWORD }).to_string();
    let made = test.stranger().send("POST", "/api/v1/auth/login", &agent, form.as_bytes()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let bob = test.user("bob", Role::Viewer).await;

    let page = ada.get(PATH).await.expect(200).json();
    let rows = page["data"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["user_agent"] == "Lynx/2"), "{page}");
    assert!(rows.len() == 4 && rows.iter().all(|row| row.get("family_hash").is_none()), "{page}");
    let current: Vec<_> = rows.iter().filter(|row| row["current"] == true).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(text(current[0], "node"), test.node.id().to_string());
    assert!(current[0]["created_at"].is_string() && current[0]["last_used_at"].is_string());

    let of_other = others[0].get(PATH).await.expect(200).json();
    let other = of_other["data"].as_array().unwrap().iter().find(|row| row["current"] == true);
    let path = format!("{PATH}/{}", text(other.unwrap(), "id"));
    bob.delete(&path).await.refused(404, "not_found");
    assert_eq!(ada.delete(&path).await.status, 204);
    ada.delete(&path).await.refused(404, "not_found");
    others[0].get("/api/v1/auth/me").await.refused(401, "session_ended");
    me(&others[1]).await;

    assert_eq!(ada.delete(PATH).await.status, 204);
    others[1].get("/api/v1/auth/me").await.refused(401, "session_ended");
    me(&ada).await;
    me(&bob).await;
    assert_eq!(ada.get(PATH).await.json()["page"]["total"], 1);
}

#[tokio::test]
async fn ending_all_others_reaches_a_node_where_this_one_knows_of_none() {
    let first = TestNode::start().await;
    let ada = first.user("ada", Role::Viewer).await;
    let second = TestNode::start_beside(&first).await;
    let elsewhere = second.stranger().login("ada", PASSWORD).await;
    assert_eq!(ada.delete(PATH).await.status, 204);
    me(&elsewhere).await;
    second.take_from(&first);
    first.take_from(&second);
    elsewhere.get("/api/v1/auth/me").await.refused(401, "session_ended");
    me(&ada).await;
}
