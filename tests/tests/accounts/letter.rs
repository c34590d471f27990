//! Letters that prove an address, change it, or stand for a forgotten password.

use super::{Posted, login, me, text};
use atoll_node::mail::QUEUE;
use atoll_storage::job;
use atoll_tests::TestNode;
use atoll_tests::harness::{ADMIN_EMAIL, PASSWORD};
use serde_json::json;

const FORGOT: &str = "/api/v1/auth/forgot-password";
const RESET: &str = "/api/v1/auth/reset-password";
const CHANGE: &str = "/api/v1/auth/change-email";
const RESEND: &str = "/api/v1/auth/resend-verification";
const NEW: &str = "a password that is new";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_account_proves_its_address_once() {
    let mut posted = Posted::start().await;
    let token = posted.register("ada").await;
    let ada = posted.test.stranger().login("ada", PASSWORD).await;
    assert!(me(&ada).await["email_verified_at"].is_null());
    for bad in ["", "x", &token[1..], &"A".repeat(64)] {
        posted.verify(bad).await.refused(422, "invalid");
    }
    assert_eq!(posted.verify(&token).await.status, 204);
    assert!(me(&ada).await["email_verified_at"].is_string());
    posted.verify(&token).await.refused(422, "invalid");
    let welcome = posted.office.next_to("ada@example.org").await;
    assert_eq!(welcome.header("subject"), Some("Welcome to Default"));
    assert_eq!(welcome.header("auto-submitted"), Some("auto-generated"));
    ada.post(RESEND, &json!({})).await.refused(409, "already_verified");
    let public = posted.test.stranger().get("/api/v1/users/ada").await.expect(200).data();
    assert!(public.get("email_verified_at").is_none() && public.get("verify_token").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_letter_voids_the_one_before_and_the_sixth_has_to_wait() {
    let mut posted = Posted::start().await;
    let first = posted.register("ada").await;
    let ada = posted.test.stranger().login("ada", PASSWORD).await;
    posted.test.stranger().post(RESEND, &json!({})).await.refused(401, "unauthenticated");
    let mut last = first.clone();
    for _ in 0..5 {
        assert_eq!(ada.post(RESEND, &json!({})).await.status, 204);
        last = posted.office.next_to("ada@example.org").await.token();
    }
    ada.post(RESEND, &json!({})).await.refused(429, "too_many_requests");
    posted.verify(&first).await.refused(422, "invalid");
    posted.hands.turn(24 * 3_600);
    posted.verify(&last).await.refused(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_in_its_tenant_only() {
    let mut posted = Posted::start().await;
    let north = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "head@example.org", "username": "head", "password": PASSWORD },
    });
    posted.test.admin().await.post("/api/v1/tenants", &north).await.expect(201).data();
    let token = posted.register("ada").await;
    let form = json!({ "token": token });
    let elsewhere = posted.test.stranger().in_tenant("north");
    elsewhere.post("/api/v1/auth/verify-email", &form).await.refused(422, "invalid");
    assert_eq!(elsewhere.post(FORGOT, &json!({ "email": "ada@example.org" })).await.status, 204);
    let head = json!({ "email": "head@example.org" });
    assert_eq!(elsewhere.post(FORGOT, &head).await.status, 204);
    let letter = posted.office.next().await;
    assert_eq!(letter.to, ["head@example.org"], "nobody in this tenant has the other address");
    assert!(letter.text().contains("&tenant=north"), "{}", letter.text());
    assert_eq!(posted.verify(&token).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_replaced_once_and_ends_all_sessions() {
    let mut posted = Posted::start().await;
    posted.register("ada").await;
    let stranger = posted.test.stranger();
    let ada = stranger.login("ada", PASSWORD).await;
    let [known, unknown] = ["ada@example.org", "nobody@example.org"].map(|e| json!({ "email": e }));
    let answers = [stranger.post(FORGOT, &unknown).await, stranger.post(FORGOT, &known).await];
    for answer in &answers {
        assert_eq!((answer.status, answer.body.as_slice()), (204, &b""[..]));
    }
    stranger.post(FORGOT, &json!({ "email": "no address" })).await.refused(422, "invalid");
    let letter = posted.office.next().await;
    assert_eq!(letter.to, ["ada@example.org"], "the other has no account");
    assert!(letter.text().contains("https://atoll.example.org/reset-password?token="));
    let token = letter.token();
    let to = |token: &str, password: &str| json!({ "token": token, "new_password": password });
    stranger.post(RESET, &to(&token, "short")).await.refused(422, "invalid");
    stranger.post(RESET, &to(&"A".repeat(64), NEW)).await.refused(422, "invalid");
    assert_eq!(stranger.post(RESET, &to(&token, NEW)).await.status, 204);
    stranger.post(RESET, &to(&token, "and another one")).await.refused(422, "invalid");
    ada.get("/api/v1/auth/me").await.refused(401, "session_ended");
    login(&stranger, "ada", PASSWORD).await.refused(401, "wrong_credentials");
    posted.hands.turn(1);
    let again = stranger.login("ada", NEW).await;
    assert!(me(&again).await["email_verified_at"].is_string(), "the letter was read");
    let notice = posted.office.next_to("ada@example.org").await;
    assert_eq!(notice.header("subject"), Some("Your password for Default was changed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_new_password_is_void_once_the_password_was_changed() {
    let mut posted = Posted::start().await;
    posted.register("ada").await;
    let ada = posted.test.stranger().login("ada", PASSWORD).await;
    assert_eq!(ada.post(FORGOT, &json!({ "email": "ada@example.org" })).await.status, 204);
    let token = posted.office.next_to("ada@example.org").await.token();
    let change = json!({ "old_password": PASSWORD, "new_password": NEW });
    assert_eq!(ada.post("/api/v1/users/change-password", &change).await.status, 204);
    let form = json!({ "token": token, "new_password": "and another one" });
    ada.post(RESET, &form).await.refused(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sixth_letter_to_one_address_has_to_wait_and_an_old_token_is_void() {
    let mut posted = Posted::start().await;
    posted.register("ada").await;
    let stranger = posted.test.stranger();
    for email in ["ada@example.org", "nobody@example.org"] {
        for _ in 0..5 {
            assert_eq!(stranger.post(FORGOT, &json!({ "email": email })).await.status, 204);
        }
        stranger.post(FORGOT, &json!({ "email": email })).await.refused(429, "too_many_requests");
    }
    let mut token = String::new();
    for _ in 0..5 {
        token = posted.office.next_to("ada@example.org").await.token();
    }
    posted.hands.turn(3_600);
    let form = json!({ "token": token, "new_password": NEW });
    stranger.post(RESET, &form).await.refused(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_address_counts_once_it_is_proved() {
    let mut posted = Posted::start().await;
    posted.register("bob").await;
    let token = posted.register("ada").await;
    assert_eq!(posted.verify(&token).await.status, 204);
    let welcome = posted.office.next_to("ada@example.org").await;
    assert_eq!(welcome.header("subject"), Some("Welcome to Default"));
    let ada = posted.test.stranger().login("ada", PASSWORD).await;
    let to = |email: &str, password: &str| json!({ "email": email, "password": password });
    ada.post(CHANGE, &to("ada@new.org", "not it at all")).await.refused(422, "invalid");
    ada.post(CHANGE, &to("ada@example.org", PASSWORD)).await.refused(422, "invalid");
    ada.post(CHANGE, &to("no address", PASSWORD)).await.refused(422, "invalid");
    let asked = ada.post(CHANGE, &to("Ada@New.org", PASSWORD)).await.expect(200).data();
    assert_eq!(
        (text(&asked, "email"), text(&asked, "new_email")),
        ("ada@example.org", "ada@new.org")
    );
    let letter = posted.office.next_to("ada@new.org").await;
    assert_eq!(posted.verify(&letter.token()).await.status, 204);
    let changed = me(&ada).await;
    assert_eq!(text(&changed, "email"), "ada@new.org");
    assert!(changed["new_email"].is_null() && changed["email_verified_at"].is_string());
    let notice = posted.office.next_to("ada@example.org").await;
    assert_eq!(notice.header("subject"), Some("Your e-mail address at Default was changed"));
    posted.test.stranger().login("ada@new.org", PASSWORD).await;
    login(&posted.test.stranger(), "ada@example.org", PASSWORD)
        .await
        .refused(401, "wrong_credentials");

    // That an address is taken, only its owner gets to know.
    ada.post(CHANGE, &to("bob@example.org", PASSWORD)).await.expect(200).data();
    let letter = posted.office.next_to("bob@example.org").await;
    posted.verify(&letter.token()).await.refused(409, "taken");
    assert_eq!(text(&me(&ada).await, "email"), "ada@new.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_jobs_nor_events_hold_a_token() {
    let mut posted = Posted::start().await;
    let mut tokens = vec![posted.register("ada").await];
    let form = json!({ "email": "ada@example.org" });
    assert_eq!(posted.test.stranger().post(FORGOT, &form).await.status, 204);
    tokens.push(posted.office.next_to("ada@example.org").await.token());
    let (jobs, events) = posted
        .test
        .node
        .store
        .read(|reader| {
            let jobs = job::of_queue(reader, QUEUE, 100)?;
            Ok((jobs, atoll_storage::outbox::events_after(reader, None, 0, 100)?))
        })
        .unwrap();
    let all = format!("{jobs:?} {}", json!(events));
    assert!(all.contains("mail.send") && all.contains("cortex.user.registered"));
    for token in tokens {
        assert!(!all.contains(&token), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_one_node_is_answered_on_another() {
    let mut posted = Posted::start().await;
    let token = posted.register("ada").await;
    let second = TestNode::start_beside_at(&posted.test, posted.hands.clock()).await;
    let form = json!({ "token": token });
    let proved = second.stranger().post("/api/v1/auth/verify-email", &form).await;
    assert_eq!(proved.status, 204);
    posted.test.take_from(&second);
    posted.verify(&token).await.refused(422, "invalid");
    let ada = posted.test.stranger().login("ada", PASSWORD).await;
    assert!(me(&ada).await["email_verified_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mail_server_all_goes_on_and_nothing_is_sent() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let form = json!({ "email": ADMIN_EMAIL });
    assert_eq!(test.stranger().post(FORGOT, &form).await.status, 204);
    let jobs = || test.node.store.read(|reader| job::of_queue(reader, QUEUE, 10)).unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut commits = test.node.store.subscribe();
    while !jobs().iter().any(|job| job.state == job::DONE) {
        assert!(tokio::time::Instant::now() < deadline, "the job is done in time");
        let _ = tokio::time::timeout_at(deadline, commits.changed()).await;
    }
    let admin = test.node.store.read(|reader| {
        use atoll_storage::Read;
        reader.get(&atoll_node::identity::user::USER, test.admin)
    });
    let admin = admin.unwrap().unwrap();
    assert!(admin.bytes(&atoll_node::identity::user::RESET_TOKEN).is_none(), "no token was made");
    workers.shutdown().await;
}
