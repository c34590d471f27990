//! The second factor.

use super::{Hands, login, me, text};
use atoll_node::Role;
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Answer, Client, TestNode};
use aws_lc_rs::hmac;
use serde_json::{Value as Json, json};

const SETUP: &str = "/api/v1/auth/totp/setup";
const CONFIRM: &str = "/api/v1/auth/totp/confirm";
const DISABLE: &str = "/api/v1/auth/totp/disable";

/// An app that makes codes.
pub(super) struct App {
    secret: Vec<u8>,
    hands: Hands,
}

impl App {
    /// Turns the second factor of somebody on; with his recovery codes.
    pub(super) async fn of(client: &Client, hands: Hands) -> (Self, Vec<String>) {
        let made = client.post(SETUP, &json!({})).await.expect(200).data();
        let app = Self { secret: unbase32(text(&made, "secret")), hands };
        let confirmed = client.post(CONFIRM, &json!({ "code": app.code() })).await.expect(200);
        let codes = serde_json::from_value(confirmed.data()["recovery_codes"].clone()).unwrap();
        (app, codes)
    }

    pub(super) fn code(&self) -> String {
        let step = self.hands.now_ms() / 30_000;
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.secret);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 15);
        let word: [u8; 4] = tag.as_ref()[at..at + 4].try_into().unwrap();
        format!("{:06}", (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000)
    }

    /// A code that was never right of late.
    pub(super) fn wrong(&self) -> String {
        let number: u32 = self.code().parse().unwrap();
        format!("{:06}", (number + 7) % 1_000_000)
    }

    pub(super) fn next(&self) -> String {
        self.hands.turn(30);
        self.code()
    }
}

fn unbase32(text: &str) -> Vec<u8> {
    let (mut bytes, mut buffer, mut bits) = (Vec::new(), 0_u32, 0);
    for char in text.bytes() {
        let value = if char.is_ascii_uppercase() { char - b'A' } else { char - b'2' + 26 };
        buffer = (buffer << 5) | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
        }
    }
    bytes
}

/// A node on which ada has a second factor, with her app, her recovery codes and her session.
async fn with_second_factor() -> (TestNode, App, Vec<String>, Client) {
    let hands = Hands::new();
    let test = TestNode::start_at(hands.clock()).await;
    let ada = test.user("ada", Role::Editor).await;
    ada.post(CONFIRM, &json!({ "code": "123456" })).await.refused(409, "totp_not_set_up");
    let made = ada.post(SETUP, &json!({})).await.expect(200);
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.data();
    assert!(text(&made, "uri").starts_with("otpauth://totp/Default:ada%40example.org?secret="));
    let app = App { secret: unbase32(text(&made, "secret")), hands };
    test.stranger().login("ada", PASSWORD).await; // it does not count yet
    ada.post(CONFIRM, &json!({ "code": app.wrong() })).await.refused(422, "invalid");
    let confirmed = ada.post(CONFIRM, &json!({ "code": app.code() })).await.expect(200).data();
    let codes: Vec<String> = confirmed["recovery_codes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(codes.len(), 10);
    (test, app, codes, ada)
}

async fn enter(client: &Client, code: &str) -> Answer {
    let form = json!({ "login": "ada", "password": PASSWORD, "code": code });
    client.post("/api/v1/auth/login", &form).await
}

#[tokio::test]
async fn a_code_is_asked_for_and_good_once() {
    let (test, app, _, ada) = with_second_factor().await;
    let stranger = test.stranger();
    ada.post(SETUP, &json!({})).await.refused(409, "totp_on");
    login(&stranger, "ada", PASSWORD).await.refused(401, "totp_required");
    login(&stranger, "ada", "not it at all").await.refused(401, "wrong_credentials");
    enter(&stranger, &app.code()).await.refused(401, "totp_invalid"); // it confirmed
    let code = app.next();
    let tokens = enter(&stranger, &code).await.expect(200).data();
    let entered = stranger.with_token(text(&tokens, "access_token"));
    let shown: Json = me(&entered).await;
    for hidden in ["totp_secret", "totp_pending", "recovery_codes"] {
        assert!(shown.get(hidden).is_none(), "{shown}");
    }
    enter(&stranger, &code).await.refused(401, "totp_invalid");
    let standing = entered.get("/api/v1/auth/totp").await.expect(200).data();
    assert_eq!(standing, json!({ "enabled": true, "recovery_codes": 10 }));
    assert_eq!(enter(&stranger, &app.next()).await.status, 200);
}

#[tokio::test]
async fn a_recovery_code_is_good_once_and_however_it_is_written() {
    let (test, _, codes, ada) = with_second_factor().await;
    let stranger = test.stranger();
    assert_eq!(enter(&stranger, &codes[0]).await.status, 200);
    enter(&stranger, &codes[0]).await.refused(401, "totp_invalid");
    let written = codes[1].to_uppercase().replace('-', " ");
    assert_eq!(enter(&stranger, &written).await.status, 200);
    let standing = ada.get("/api/v1/auth/totp").await.expect(200).data();
    assert_eq!(standing["recovery_codes"], 8);
}

#[tokio::test]
async fn wrong_codes_are_slowed_down_as_wrong_passwords_are() {
    let (test, app, _, _) = with_second_factor().await;
    let stranger = test.stranger();
    app.hands.turn(30);
    for _ in 0..5 {
        enter(&stranger, &app.wrong()).await.refused(401, "totp_invalid");
    }
    enter(&stranger, &app.code()).await.refused(429, "too_many_requests");
    app.hands.turn(2);
    assert_eq!(enter(&stranger, &app.code()).await.status, 200);
}

#[tokio::test]
async fn asking_without_a_code_does_not_give_new_tries() {
    let (test, app, _, _) = with_second_factor().await;
    let stranger = test.stranger();
    app.hands.turn(30);
    for _ in 0..2 {
        login(&stranger, "ada", PASSWORD).await.refused(401, "totp_required");
        enter(&stranger, &app.wrong()).await.refused(401, "totp_invalid");
    }
    login(&stranger, "ada", PASSWORD).await.refused(401, "totp_required");
    login(&stranger, "ada", PASSWORD).await.refused(429, "too_many_requests");
}

#[tokio::test]
async fn it_takes_password_and_code_to_turn_it_off() {
    let (test, app, codes, ada) = with_second_factor().await;
    let form = |password: &str, code: &str| json!({ "password": password, "code": code });
    ada.post(DISABLE, &form("not it at all", &app.next())).await.refused(422, "invalid");
    ada.post(DISABLE, &form(PASSWORD, &app.wrong())).await.refused(401, "totp_invalid");
    assert_eq!(ada.post(DISABLE, &form(PASSWORD, &app.code())).await.status, 204);
    ada.post(DISABLE, &form(PASSWORD, &codes[0])).await.refused(409, "totp_off");
    test.stranger().login("ada", PASSWORD).await;
    let standing = ada.get("/api/v1/auth/totp").await.expect(200).data();
    assert_eq!(standing, json!({ "enabled": false, "recovery_codes": 0 }));
}

#[tokio::test]
async fn an_administrator_takes_a_lost_one_away() {
    let (test, _, _, ada) = with_second_factor().await;
    let path = format!("/api/v1/users/{}/totp", text(&me(&ada).await, "id"));
    ada.delete(&path).await.refused(403, "denied");
    let admin = test.admin().await;
    assert_eq!(admin.delete(&path).await.status, 204);
    admin.delete(&path).await.refused(409, "totp_off");
    test.stranger().login("ada", PASSWORD).await;
}

#[tokio::test]
async fn a_second_factor_and_the_codes_used_count_on_every_node() {
    let (first, app, codes, _) = with_second_factor().await;
    let beside = TestNode::start_beside_at(&first, app.hands.clock()).await;
    let code = app.next();
    assert_eq!(enter(&first.stranger(), &code).await.status, 200);
    assert_eq!(enter(&first.stranger(), &codes[0]).await.status, 200);
    beside.take_from(&first);
    login(&beside.stranger(), "ada", PASSWORD).await.refused(401, "totp_required");
    enter(&beside.stranger(), &code).await.refused(401, "totp_invalid");
    enter(&beside.stranger(), &codes[0]).await.refused(401, "totp_invalid");
    assert_eq!(enter(&beside.stranger(), &app.next()).await.status, 200);
}
