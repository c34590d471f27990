//! Pictures of users.

use super::{me, text};
use atoll_node::Role;
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Answer, Client, TestNode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const PATH: &str = "/api/v1/users/profile/avatar";
/// One pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

async fn upload(client: &Client, bytes: &[u8]) -> Answer {
    client.send("PUT", PATH, &[("content-type", "image/png")], bytes).await
}

#[tokio::test]
async fn a_picture_is_taken_made_small_served_and_taken_away() {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Viewer).await;
    let path = format!("/api/v1/users/{}/avatar", text(&me(&ada).await, "id"));
    let stranger = test.stranger();
    stranger.get(&path).await.refused(404, "not_found");
    ada.delete(PATH).await.refused(404, "not_found");
    let png = STANDARD.decode(PNG).unwrap();
    let user = upload(&ada, &png).await.expect(200).data();
    assert_eq!(text(&user, "avatar").len(), 64);

    let served = stranger.get(&path).await.expect(200);
    assert_eq!(served.header("content-type"), Some("image/jpeg"));
    assert!(served.body.starts_with(&[0xff, 0xd8, 0xff]));
    let tag = served.header("etag").unwrap().to_owned();
    let again = stranger.send("GET", &path, &[("if-none-match", &tag)], b"").await;
    assert_eq!(again.status, 304);

    // The whole profile goes back as it came.
    let profile = json!({ "avatar": text(&user, "avatar"), "bio": "Counts." });
    ada.put("/api/v1/users/profile", &profile).await.expect(200).data();
    assert_eq!(ada.delete(PATH).await.status, 204);
    stranger.get(&path).await.refused(404, "not_found");
}

#[tokio::test]
async fn what_is_no_picture_is_refused() {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Viewer).await;
    let mut huge = STANDARD.decode(PNG).unwrap();
    huge[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    for bad in [&b""[..], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", &huge] {
        upload(&ada, bad).await.refused(422, "invalid");
    }
    assert_eq!(upload(&ada, &vec![0; 6 << 20]).await.status, 413);
    upload(&test.stranger(), b"x").await.refused(401, "unauthenticated");
    for bad in ["javascript:alert(1)", "ab", &"ab".repeat(32)] {
        let profile = json!({ "avatar": bad });
        ada.put("/api/v1/users/profile", &profile).await.refused(422, "invalid");
    }
    let url = json!({ "avatar": "https://example.org/ada.png" });
    ada.put("/api/v1/users/profile", &url).await.expect(200).data();
    let path = format!("/api/v1/users/{}/avatar", text(&me(&ada).await, "id"));
    test.stranger().get(&path).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_picture_is_of_its_tenant() {
    let test = TestNode::start().await;
    let root = test.admin().await;
    let north = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "head@example.org", "username": "head", "password": PASSWORD },
    });
    root.post("/api/v1/tenants", &north).await.expect(201).data();
    let head = test.stranger().in_tenant("north").login("head", PASSWORD).await;
    upload(&head, &STANDARD.decode(PNG).unwrap()).await.expect(200).data();
    let path = format!("/api/v1/users/{}/avatar", text(&me(&head).await, "id"));
    test.stranger().in_tenant("north").get(&path).await.expect(200).text();
    test.stranger().get(&path).await.refused(404, "not_found");
}
