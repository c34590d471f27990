//! Refresh tokens: each good once, on one node and on nodes that are apart.

use super::{login, text};
use atoll_node::Role;
use atoll_tests::harness::{ADMIN_EMAIL, PASSWORD};
use atoll_tests::{Answer, Client, TestNode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

async fn refresh(client: &Client, token: &str) -> Answer {
    client.post("/api/v1/auth/refresh", &json!({ "refresh_token": token })).await
}

fn meet(one: &TestNode, other: &TestNode) {
    one.take_from(other);
    other.take_from(one);
}

/// Two nodes that know of one session, and its tokens.
async fn two_nodes() -> (TestNode, TestNode, Json) {
    let first = TestNode::start().await;
    first.make_user(first.tenant, "ada", Role::Viewer).await;
    let tokens = login(&first.stranger(), "ada", PASSWORD).await.expect(200).data();
    let second = TestNode::start_beside(&first).await;
    (first, second, tokens)
}

async fn renewed(test: &TestNode, tokens: &Json) -> Json {
    refresh(&test.stranger(), text(tokens, "refresh_token")).await.expect(200).data()
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_session() {
    let test = TestNode::start().await;
    let stranger = test.stranger();
    let first = login(&stranger, ADMIN_EMAIL, PASSWORD).await.expect(200).data();
    let second = refresh(&stranger, text(&first, "refresh_token")).await.expect(200).data();
    assert_ne!(text(&first, "refresh_token"), text(&second, "refresh_token"));
    let third = refresh(&stranger, text(&second, "refresh_token")).await.expect(200).data();
    let client = stranger.with_token(text(&third, "access_token"));
    client.get("/api/v1/auth/me").await.expect(200).data();

    // Two rotations back, so no memory of the last one alone would tell it.
    refresh(&stranger, text(&first, "refresh_token")).await.refused(401, "token_reused");
    refresh(&stranger, text(&third, "refresh_token")).await.refused(401, "session_ended");
    client.get("/api/v1/auth/me").await.refused(401, "session_ended");
    stranger
        .with_token(text(&first, "access_token"))
        .get("/api/v1/auth/me")
        .await
        .refused(401, "session_ended");
}

#[tokio::test]
async fn a_made_up_refresh_token_ends_nothing() {
    let test = TestNode::start().await;
    let stranger = test.stranger();
    let tokens = login(&stranger, ADMIN_EMAIL, PASSWORD).await.expect(200).data();
    let mut bytes = URL_SAFE_NO_PAD.decode(text(&tokens, "refresh_token")).unwrap();
    bytes[20] ^= 1;
    for bad in [URL_SAFE_NO_PAD.encode(&bytes), String::new(), "x".repeat(86), "a.b.c".to_owned()] {
        refresh(&stranger, &bad).await.refused(401, "token_invalid");
    }
    refresh(&stranger, text(&tokens, "refresh_token")).await.expect(200).data();
}

#[tokio::test]
async fn two_uses_of_one_token_on_nodes_apart_end_the_session_when_they_meet() {
    let (first, second, tokens) = two_nodes().await;
    let (one, other) = (renewed(&first, &tokens).await, renewed(&second, &tokens).await);
    let accounts = [(&first, &one), (&second, &other)];
    for (test, tokens) in accounts {
        let client = test.stranger().with_token(text(tokens, "access_token"));
        client.get("/api/v1/auth/me").await.expect(200).data();
    }
    meet(&first, &second);
    for test in [&first, &second] {
        for tokens in [&one, &other] {
            let client = test.stranger().with_token(text(tokens, "access_token"));
            client.get("/api/v1/auth/me").await.refused(401, "session_ended");
            let answer = refresh(&test.stranger(), text(tokens, "refresh_token")).await;
            answer.refused(401, "session_ended");
        }
    }
    let again = first.stranger().login("ada", PASSWORD).await;
    let sessions = again.get("/api/v1/auth/sessions").await.expect(200).json();
    assert_eq!(sessions["page"]["total"], 1, "the one that has forked is not among them");
}

#[tokio::test]
async fn a_token_that_is_newer_than_a_node_has_heard_is_good_there_and_an_older_one_is_not() {
    let (first, second, tokens) = two_nodes().await;
    let later = renewed(&first, &renewed(&first, &tokens).await).await;
    // The second node has heard of none of that.
    let last = renewed(&second, &later).await;
    meet(&first, &second);
    for test in [&first, &second] {
        let client = test.stranger().with_token(text(&last, "access_token"));
        client.get("/api/v1/auth/me").await.expect(200).data();
    }
    let last = renewed(&first, &last).await;
    // What the first node gave in between was used on the second.
    let reused = refresh(&first.stranger(), text(&later, "refresh_token")).await;
    reused.refused(401, "token_reused");
    let client = first.stranger().with_token(text(&last, "access_token"));
    client.get("/api/v1/auth/me").await.refused(401, "session_ended");
    let log = first.admin().await.get("/api/v1/audit?action=session.token_reused").await;
    assert_eq!(log.expect(200).json()["page"]["total"], 1);
}

#[tokio::test]
async fn a_token_that_only_says_it_is_newer_ends_the_session() {
    let (first, _, tokens) = two_nodes().await;
    let mut bytes = URL_SAFE_NO_PAD.decode(text(&tokens, "refresh_token")).unwrap();
    bytes[67] += 1; // the turn, behind the session and two secrets
    let forged = URL_SAFE_NO_PAD.encode(&bytes);
    refresh(&first.stranger(), &forged).await.refused(401, "token_reused");
    refresh(&first.stranger(), text(&tokens, "refresh_token")).await.refused(401, "session_ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_more_than_fits_ends_the_oldest_at_once() {
    let test = TestNode::start().await;
    let oldest = test.user("ada", Role::Viewer).await;
    let second = test.stranger().login("ada", PASSWORD).await;
    for _ in 0..49 {
        test.stranger().login("ada", PASSWORD).await;
    }
    oldest.get("/api/v1/auth/me").await.refused(401, "session_ended");
    let sessions = second.get("/api/v1/auth/sessions").await.expect(200).json();
    assert_eq!(sessions["page"]["total"], 50);
}
