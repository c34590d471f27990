//! The pages that links in letters lead to, used as a browser without scripts uses them.

use super::{Posted, login, me};
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Answer, Client};
use serde_json::json;

const NEW: &str = "a password that is new";

async fn submit(client: &Client, path: &str, fields: &[(&str, &str)]) -> Answer {
    let encoded = |text: &str| text.replace('+', "%2B").replace('&', "%26").replace(' ', "+");
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    client.send("POST", path, &form, pairs.join("&").as_bytes()).await
}

/// A page that says this and loads nothing.
#[track_caller]
fn says(answer: &Answer, status: u16, words: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'nonce-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
        assert!(!text.contains(outside), "{outside} in {text}");
    }
    assert!(text.contains(words), "{words:?} is not in {text}");
}

fn path_of(letter: &str, page: &str) -> String {
    let at = letter.find(page).unwrap_or_else(|| panic!("no {page} in {letter}"));
    letter[at..].split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_letter_proves_an_address_by_a_button() {
    let mut posted = Posted::start().await;
    let token = posted.register("ada").await;
    let stranger = posted.test.stranger();
    let path = format!("/verify-email?token={token}");
    let shown = stranger.get(&path).await;
    says(&shown, 200, "<form method=\"post\" action=\"/verify-email\">");
    assert!(shown.text().contains(&token) && shown.text().contains("Default"));
    let ada = stranger.login("ada", PASSWORD).await;
    assert!(me(&ada).await["email_verified_at"].is_null(), "looking changes nothing");
    let done = submit(&stranger, "/verify-email", &[("token", &token)]).await;
    says(&done, 200, "your e-mail address is confirmed");
    assert!(me(&ada).await["email_verified_at"].is_string());
    let again = submit(&stranger, "/verify-email", &[("token", &token)]).await;
    says(&again, 422, "not good any more");
    for bad in ["", "?token=", "?token=%22%3E%3Cscript%3E"] {
        says(&stranger.get(&format!("/verify-email{bad}")).await, 400, "not whole");
    }
    stranger
        .post("/verify-email", &json!({ "token": token }))
        .await
        .refused(415, "unsupported_media_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_letter_leads_to_a_new_password() {
    let mut posted = Posted::start().await;
    posted.register("ada").await;
    let stranger = posted.test.stranger();
    let asked = json!({ "email": "ada@example.org" });
    assert_eq!(stranger.post("/api/v1/auth/forgot-password", &asked).await.status, 204);
    let letter = posted.office.next_to("ada@example.org").await;
    let (path, token) = (path_of(&letter.text(), "/reset-password"), letter.token());
    says(&stranger.get(&path).await, 200, "autocomplete=\"new-password\"");
    let form = |new: &'static str, again: &'static str| {
        [
            ("token".to_owned(), token.clone()),
            ("new_password".to_owned(), new.to_owned()),
            ("repeated".to_owned(), again.to_owned()),
        ]
    };
    let send = async |new: &'static str, again: &'static str| {
        let form = form(new, again);
        let form: Vec<(&str, &str)> = form.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        submit(&stranger, "/reset-password", &form).await
    };
    says(&send(NEW, "another one").await, 422, "The two passwords differ.");
    says(&send("short", "short").await, 422, "takes at least 10 characters.");
    says(&send(NEW, NEW).await, 200, "Your new password counts from now on");
    says(&send(NEW, NEW).await, 422, "not good any more");
    login(&stranger, "ada", PASSWORD).await.refused(401, "wrong_credentials");
    posted.hands.turn(1);
    stranger.login("ada", NEW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_of_the_tenant_that_the_link_names() {
    let mut posted = Posted::start().await;
    let root = posted.test.admin().await;
    let north = json!({
        "name": "North & <Sons>", "slug": "north",
        "admin": { "email": "head@example.org", "username": "head", "password": PASSWORD },
    });
    root.post("/api/v1/tenants", &north).await.expect(201).data();
    let there = posted.test.stranger().in_tenant("north");
    let head = there.login("head", PASSWORD).await;
    head.put("/api/v1/tenant", &json!({ "colours": "#aa3300" })).await.expect(200).data();
    let ask = json!({ "email": "head@example.org" });
    assert_eq!(there.post("/api/v1/auth/forgot-password", &ask).await.status, 204);
    let letter = posted.office.next_to("head@example.org").await;
    let stranger = posted.test.stranger();
    let path = path_of(&letter.text(), "/reset-password");
    let page = stranger.get(&path).await;
    says(&page, 200, "North &amp; &lt;Sons&gt;");
    assert!(page.text().contains("action=\"/reset-password?tenant=north\""), "{}", page.text());
    assert!(page.text().contains("--main: #aa3300"));
    let token = letter.token();
    let form = [("token", token.as_str()), ("new_password", NEW), ("repeated", NEW)];
    // The token of another tenant is no token.
    says(&submit(&stranger, "/reset-password", &form).await, 422, "not good any more");
    let done = submit(&stranger, "/reset-password?tenant=north", &form).await;
    says(&done, 200, "Your new password counts");
    stranger.get("/verify-email?token=x&tenant=nowhere").await.refused(404, "not_found");
}
