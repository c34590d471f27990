use super::{at, draft, text};
use atoll_node::Role;
use atoll_storage::Clock;
use atoll_tests::TestNode;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[tokio::test]
async fn whoever_has_the_link_reads_the_draft_until_it_expires_or_is_taken_back() {
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let clock = now.clone();
    let test = TestNode::start_at(Clock::from_fn(move || clock.load(SeqCst))).await;
    let eve = test.user("eve", Role::Editor).await;
    let post = draft(&eve, "Soon").await;
    let links = at("posts", &post, "/preview-links");
    let made = eve.post(&links, &json!({ "hours": 2 })).await.expect(201);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.data();
    let path = format!("/api/v1/preview/{}", text(&made, "token"));
    let page = format!("/preview/{}", text(&made, "token"));
    assert_eq!(text(&made, "url"), format!("http://{}{page}", test.address));
    assert_eq!(text(&made, "expires_at"), "2027-01-15T10:00:00.000Z");

    let stranger = test.stranger();
    stranger.get(&at("posts", &post, "")).await.refused(404, "not_found");
    let shown = stranger.get(&path).await.expect(200);
    assert_eq!(shown.header("x-robots-tag"), Some("noindex, nofollow"));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    let shown = shown.data();
    assert_eq!((text(&shown, "title"), text(&shown, "status")), ("Soon", "draft"));
    assert_eq!(text(&shown, "body_html"), "<p>Some text.</p>\n");
    assert_eq!(text(&shown["seo"], "robots"), "noindex, nofollow");

    let list = eve.get(&links).await.expect(200);
    assert!(!list.text().contains(text(&made, "token")) && !list.text().contains("hash"));
    assert_eq!(
        (&list.json()["page"]["total"], &list.json()["data"][0]["id"]),
        (&json!(1), &made["id"])
    );
    stranger.get("/api/v1/preview/x").await.refused(404, "not_found");
    let shown = stranger.get(&page).await.expect(200);
    assert!(
        shown.text().contains("<p>Some text.</p>") && shown.text().contains("This is a preview")
    );
    assert!(!shown.text().contains("view.js"), "a preview is no view");
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    assert_eq!(shown.header("x-robots-tag"), Some("noindex, nofollow"));
    let _ = stranger.get("/preview/x").await.expect(404);

    let other = eve.post(&links, &json!({})).await.expect(201).data();
    let gone = format!("{links}/{}", text(&other, "id"));
    let _ = eve.delete(&gone).await.expect(204);
    eve.delete(&gone).await.refused(404, "not_found");
    stranger
        .get(&format!("/api/v1/preview/{}", text(&other, "token")))
        .await
        .refused(404, "not_found");

    now.fetch_add(2 * 3_600_000 - 1, SeqCst);
    let _ = stranger.get(&path).await.expect(200);
    now.fetch_add(1, SeqCst);
    stranger.get(&path).await.refused(404, "not_found");
    let _ = stranger.get(&page).await.expect(404);
    assert_eq!(atoll_node::content::preview::sweep(&test.node).await.unwrap(), 1);
    assert_eq!(atoll_node::content::preview::sweep(&test.node).await.unwrap(), 0);
}

#[tokio::test]
async fn links_are_made_by_insiders_within_bounds_and_end_with_the_trash_and_the_tenant() {
    let test = TestNode::start().await;
    let (admin, eve) = (test.admin().await, test.user("eve", Role::Editor).await);
    let vic = test.user("vic", Role::Viewer).await;
    let post = draft(&eve, "Soon").await;
    let links = at("posts", &post, "/preview-links");
    for hours in [0, 721] {
        let answer = eve.post(&links, &json!({ "hours": hours })).await.expect(422);
        assert_eq!(text(&answer.json()["errors"][0], "field"), "hours");
    }
    vic.post(&links, &json!({})).await.refused(404, "not_found");
    test.stranger().post(&links, &json!({})).await.refused(401, "unauthenticated");
    let made = eve.post(&links, &json!({ "hours": 720 })).await.expect(201).data();
    vic.get(&links).await.refused(404, "not_found");
    let new = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "n@example.org", "username": "norah", "password": "a long enough password" },
    });
    let _ = admin.post("/api/v1/tenants", &new).await.expect(201);
    let path = format!("/api/v1/preview/{}", text(&made, "token"));
    test.stranger().in_tenant("north").get(&path).await.refused(404, "not_found");
    let norah = test.stranger().in_tenant("north").login("norah", "a long enough password").await;
    norah.get(&links).await.refused(404, "not_found");
    norah.delete(&format!("{links}/{}", text(&made, "id"))).await.refused(404, "not_found");
    let _ = test.stranger().get(&path).await.expect(200);
    let _ = eve.delete(&at("posts", &post, "")).await.expect(204);
    test.stranger().get(&path).await.refused(404, "not_found");
    eve.post(&links, &json!({})).await.refused(409, "trashed");
}
