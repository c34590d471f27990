//! A tenant's own words in letters.

use super::{Posted, text};
use atoll_node::Role;
use atoll_tests::TestNode;
use atoll_tests::harness::PASSWORD;
use serde_json::json;

const PATH: &str = "/api/v1/mail/templates/verification";

#[tokio::test]
async fn a_template_is_replaced_checked_shown_and_given_back() {
    let test = TestNode::start().await;
    let admin = test.user("ada", Role::Admin).await;
    let all = admin.get("/api/v1/mail/templates").await.expect(200).json();
    assert_eq!(all["page"]["total"], 6);
    let default = admin.get(PATH).await.expect(200).data();
    assert_eq!(
        (default["is_default"].as_bool(), text(&default, "name")),
        (Some(true), "verification")
    );
    admin.get("/api/v1/mail/templates/nothing").await.refused(404, "not_found");
    admin.delete(PATH).await.refused(404, "not_found");

    let own = json!({ "subject": "Hi {{name}}", "text": "{{link}}", "html": "<p>{{ name }}</p>" });
    let put = admin.put(PATH, &own).await.expect(200).data();
    assert_eq!((put["is_default"].as_bool(), text(&put, "subject")), (Some(false), "Hi {{name}}"));
    let log = admin.get("/api/v1/audit?action=mail_template.updated").await.expect(200).json();
    assert_eq!(log["page"]["total"], 1, "{log}");
    for (bad, field) in [
        (json!({ "subject": "{{password}}", "text": "x", "html": "x" }), "subject"),
        (json!({ "subject": "x", "text": "{{link", "html": "x" }), "text"),
        (json!({ "subject": "x", "text": "x" }), "html"),
        (json!({ "subject": "x".repeat(201), "text": "x", "html": "x" }), "subject"),
        (json!({ "subject": "x", "text": "x", "html": "x", "name": "reset" }), "name"),
    ] {
        let refused = admin.put(PATH, &bad).await;
        refused.refused(422, "invalid");
        assert_eq!(text(&refused.json()["errors"][0], "field"), field);
    }
    let preview = format!("{PATH}/preview");
    let shown =
        admin.post(&preview, &json!({ "html": "<b>{{link}}</b>" })).await.expect(200).data();
    assert_eq!(text(&shown, "subject"), "Hi Ada Lovelace");
    assert!(text(&shown, "html").contains("token=abc&amp;more=1"), "{shown}");
    admin.post(&preview, &json!({ "text": "{{eve}}" })).await.refused(422, "invalid");
    assert_eq!(admin.delete(PATH).await.status, 204);
    assert_eq!(admin.get(PATH).await.data()["is_default"], true);
}

#[tokio::test]
async fn each_tenant_has_its_own_words() {
    let test = TestNode::start().await;
    let root = test.admin().await;
    let north = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "head@example.org", "username": "head", "password": PASSWORD },
    });
    root.post("/api/v1/tenants", &north).await.expect(201).data();
    let own = json!({ "subject": "ours", "text": "x", "html": "x" });
    root.put(PATH, &own).await.expect(200).data();
    let head = test.stranger().in_tenant("north").login("head", PASSWORD).await;
    assert_eq!(head.get(PATH).await.expect(200).data()["is_default"], true);
    let second = TestNode::start_beside(&test).await;
    assert_eq!(second.admin().await.get(PATH).await.data()["subject"], "ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_becomes_a_header_or_markup() {
    let mut posted = Posted::start().await;
    let admin = posted.test.admin().await;
    let id = posted.test.tenant;
    let name = json!({ "name": "Ours\r\nBcc: eve@example.org <b>" });
    admin.put(&format!("/api/v1/tenants/{id}"), &name).await.expect(200).data();
    let own = json!({ "subject": "{{site}}", "text": "{{link}}", "html": "<p>{{site}}</p>" });
    admin.put(PATH, &own).await.expect(200).data();
    let form = json!({ "email": "ada@example.org", "username": "ada", "password": PASSWORD, "display_name": "Visit evil.example" });
    posted.test.stranger().post("/api/v1/auth/register", &form).await.expect(201).data();
    let letter = posted.office.next().await;
    assert_eq!(letter.to, ["ada@example.org"]);
    assert!(letter.header("bcc").is_none() && letter.header("subject").is_some(), "{}", letter.raw);
    let text = letter.text();
    assert!(text.contains("&lt;b&gt;") && !text.contains("evil.example"), "{text}");
}
