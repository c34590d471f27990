//! Signing in by an OpenID provider: a small one that listens on a socket and signs what the test tells it to.

use super::totp::App;
use super::{Hands, login, me, text};
use atoll_node::{Config, Role};
use atoll_storage::Clock;
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Answer, Client, TestNode};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SETTINGS: &str = "/api/v1/auth/oidc/provider";
const START: &str = "/api/v1/auth/oidc/start";

/// What the provider answers with next.
#[derive(Clone, Default)]
struct Next {
    claims: Json,
    /// Of the code, as the start of the sign-in sent it.
    challenge: String,
    /// Signed by a key that the provider does not publish.
    forged: bool,
    /// What it says beside the ID token.
    about: Json,
    /// Where its keys are, if not at its own address.
    keys_at: Option<String>,
}

type Turn = fn(&mut Next);

struct Provider {
    address: SocketAddr,
    key: Ed25519KeyPair,
    other: Ed25519KeyPair,
    next: Mutex<Next>,
}

impl Provider {
    async fn open() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            key: Ed25519KeyPair::generate().unwrap(),
            other: Ed25519KeyPair::generate().unwrap(),
            next: Mutex::default(),
        });
        let serving = provider.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(serving.clone(), stream));
            }
        });
        provider
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    fn answer(&self, path: &str, body: &str) -> (u16, Json) {
        let issuer = self.issuer();
        match path {
            "/.well-known/openid-configuration" => (
                200,
                json!({
                    "issuer": issuer,
                    "authorization_endpoint": format!("{issuer}/authorize"),
                    "token_endpoint": format!("{issuer}/token"),
                    "userinfo_endpoint": format!("{issuer}/me"),
                    "jwks_uri": self.next.lock().unwrap().keys_at.clone().unwrap_or(format!("{issuer}/keys")),
                    "token_endpoint_auth_methods_supported": ["client_secret_post"],
                }),
            ),
            "/keys" => {
                let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
                let key = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1", "x": x });
                (200, json!({ "keys": [{ "kty": "unheard of" }, key] }))
            }
            "/token" => self.token(body),
            "/me" => (200, self.next.lock().unwrap().about.clone()),
            _ => (404, json!({})),
        }
    }

    fn token(&self, form: &str) -> (u16, Json) {
        let next = self.next.lock().unwrap().clone();
        let part = |name: &str| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map_or("", |(_, value)| value)
        };
        let hash = digest::digest(&digest::SHA256, part("code_verifier").as_bytes());
        let is_proved = URL_SAFE_NO_PAD.encode(hash) == next.challenge;
        let knows_us = (part("client_id"), part("client_secret")) == ("atoll", "hush");
        if part("code") != "good"
            || part("grant_type") != "authorization_code"
            || !is_proved
            || !knows_us
        {
            return (400, json!({ "error": "invalid_grant" }));
        }
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": "k1" });
        let signed =
            [header, next.claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let key = if next.forged { &self.other } else { &self.key };
        let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).as_ref());
        let id_token = format!("{signed}.{signature}");
        (200, json!({ "id_token": id_token, "access_token": "opaque", "token_type": "Bearer" }))
    }
}

async fn converse(provider: Arc<Provider>, mut stream: TcpStream) {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        let Ok(read @ 1..) = stream.read(&mut chunk).await else { return };
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().ok())?
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, json) = provider.answer(path, body);
        let json = json.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{json}",
            json.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
}

/// A node whose default tenant trusts a provider.
async fn trusting() -> (TestNode, Arc<Provider>, Client) {
    trusting_at(Clock::system()).await
}

async fn trusting_at(clock: Clock) -> (TestNode, Arc<Provider>, Client) {
    let named = |config: &mut Config| config.oidc.internal_hosts = vec!["127.0.0.1".to_owned()];
    let (test, provider) = (TestNode::start_with_at(named, clock).await, Provider::open().await);
    let admin = test.admin().await;
    let form =
        json!({ "issuer": provider.issuer(), "client_id": "atoll", "client_secret": "hush" });
    let kept = admin.put(SETTINGS, &form).await.expect(200).data();
    assert!(kept.get("client_secret").is_none(), "{kept}");
    (test, provider, admin)
}

fn claims(provider: &Provider, nonce: &str) -> Json {
    json!({
        "iss": provider.issuer(), "aud": "atoll", "sub": "Ada-1", "exp": 4_000_000_000_u64, "nonce": nonce,
        "email": "Ada@Example.org", "email_verified": true, "name": "Ada Lovelace", "preferred_username": "ada",
    })
}

/// A sign-in that has begun: the state, and the cookie that the browser keeps.
struct Begun {
    state: String,
    cookie: String,
}

/// Begins, and tells the provider what it will say; `turn` changes that.
async fn begin(test: &TestNode, provider: &Provider, turn: impl FnOnce(&mut Next)) -> Begun {
    begin_at(START, test, provider, turn).await
}

async fn begin_at(
    path: &str,
    test: &TestNode,
    provider: &Provider,
    turn: impl FnOnce(&mut Next),
) -> Begun {
    let started = test.stranger().get(path).await.expect(302);
    let location = started.header("location").unwrap();
    assert!(location.starts_with(&format!("{}/authorize?", provider.issuer())), "{location}");
    let part = |name: &str| {
        let query = location.split('?').nth(1).unwrap_or_default();
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(known, _)| *known == name).unwrap().1.to_owned()
    };
    assert_eq!((part("response_type").as_str(), part("client_id").as_str()), ("code", "atoll"));
    assert_eq!(part("code_challenge_method"), "S256");
    let claims = claims(provider, &part("nonce"));
    let mut next = Next { claims, challenge: part("code_challenge"), ..Next::default() };
    turn(&mut next);
    *provider.next.lock().unwrap() = next;
    let cookie = started.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    Begun { state: part("state"), cookie: cookie.split(';').next().unwrap().to_owned() }
}

/// What a browser keeps of an answer under this name.
fn kept(answer: &Answer, name: &str) -> String {
    let cookies = answer.headers("set-cookie");
    let cookie = cookies.into_iter().find(|cookie| cookie.starts_with(&format!("{name}=")));
    cookie.and_then(|cookie| cookie.split(';').next()).unwrap_or_default().to_owned()
}

async fn finish(test: &TestNode, ticket: &str, form: &Json) -> Answer {
    let headers = [("cookie", ticket), ("content-type", "application/json")];
    let path = "/api/v1/auth/oidc/finish";
    test.stranger().send("POST", path, &headers, form.to_string().as_bytes()).await
}

async fn come_back(test: &TestNode, begun: &Begun, code: &str) -> Answer {
    let path = format!("/api/v1/auth/oidc/callback?code={code}&state={}", begun.state);
    test.stranger().send("GET", &path, &[("cookie", &begun.cookie)], b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_new_gets_an_account_and_comes_back_to_it() {
    let (test, provider, _) = trusting().await;
    let begun = begin(&test, &provider, |_| {}).await;
    let entered = come_back(&test, &begun, "good").await.expect(200);
    assert_eq!(entered.header("cache-control"), Some("no-store"));
    let ada = test.stranger().with_token(text(&entered.data(), "access_token"));
    let first = me(&ada).await;
    assert_eq!(
        (text(&first, "email"), text(&first, "username"), text(&first, "role")),
        ("ada@example.org", "ada", "viewer")
    );
    assert!(first["email_verified_at"].is_string() && first.get("oidc_subject").is_none());
    login(&test.stranger(), "ada", PASSWORD).await.refused(401, "wrong_credentials");

    // By the subject, whatever the address is now.
    let moved = |next: &mut Next| next.claims["email"] = json!("ada@elsewhere.org");
    let begun = begin(&test, &provider, moved).await;
    let again = come_back(&test, &begun, "good").await.expect(200).data();
    assert_eq!(again["user_id"], first["id"]);
    // The same subject in other letters is somebody else.
    let other = |next: &mut Next| {
        next.claims["sub"] = json!("ADA-1");
        next.claims["email"] = json!("eve@example.org");
    };
    let begun = begin(&test, &provider, other).await;
    let other = come_back(&test, &begun, "good").await.expect(200).data();
    assert_ne!(other["user_id"], first["id"]);
    assert_eq!(text(&other["user"], "username"), "ada-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_stands_beside_the_token_counts_if_it_is_of_the_same_subject() {
    let (test, provider, _) = trusting().await;
    let bare = |about: Json| {
        move |next: &mut Next| {
            for name in ["email", "email_verified", "name", "preferred_username"] {
                next.claims.as_object_mut().unwrap().remove(name);
            }
            next.about = about;
        }
    };
    let of = |sub: &str| json!({ "sub": sub, "email": "ada@example.org", "email_verified": true, "name": "Ada" });
    let begun = begin(&test, &provider, bare(of("Eve-1"))).await;
    come_back(&test, &begun, "good").await.refused(401, "provider_failed");
    let begun = begin(&test, &provider, bare(json!({ "sub": "Ada-1" }))).await;
    come_back(&test, &begun, "good").await.refused(403, "denied");
    let begun = begin(&test, &provider, bare(of("Ada-1"))).await;
    let entered = come_back(&test, &begun, "good").await.expect(200).data();
    assert_eq!(text(&entered["user"], "display_name"), "Ada");
    let ada = test.stranger().with_token(text(&entered, "access_token"));
    assert!(me(&ada).await["email_verified_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_linked_by_an_address_that_both_have_verified() {
    let (test, provider, _) = trusting().await;
    let id = test.make_user(test.tenant, "ada", Role::Editor).await;
    let begun = begin(&test, &provider, |_| {}).await;
    come_back(&test, &begun, "good").await.refused(409, "email_taken");
    let verify = move |tx: &mut atoll_storage::Tx<'_>| {
        let changes = atoll_storage::Changes::new()
            .set(&atoll_node::identity::user::EMAIL_VERIFIED_AT, 1_u64);
        tx.edit(&atoll_node::identity::user::USER, id, changes).map(drop)
    };
    test.node.store.write(verify).await.unwrap();
    let doubtful = |next: &mut Next| next.claims["email_verified"] = json!(false);
    let begun = begin(&test, &provider, doubtful).await;
    come_back(&test, &begun, "good").await.refused(409, "email_taken");
    let begun = begin(&test, &provider, |_| {}).await;
    let entered = come_back(&test, &begun, "good").await.expect(200).data();
    assert_eq!(text(&entered, "user_id"), id.to_string());
    assert_eq!(text(&entered["user"], "role"), "editor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_good_signs_nobody_in() {
    let (test, provider, _) = trusting().await;
    let turns: [Turn; 7] = [
        |next| next.forged = true,
        |next| next.claims["nonce"] = json!("another"),
        |next| next.claims["aud"] = json!("another"),
        |next| next.claims["iss"] = json!("https://another.example.org"),
        |next| next.claims["exp"] = json!(1_000),
        |next| next.claims["azp"] = json!("another"),
        |next| next.challenge = "another".to_owned(),
    ];
    for turn in turns {
        let begun = begin(&test, &provider, turn).await;
        come_back(&test, &begun, "good").await.refused(401, "provider_failed");
    }
    let begun = begin(&test, &provider, |_| {}).await;
    come_back(&test, &begun, "bad").await.refused(401, "provider_failed");

    // The answer to somebody else's question.
    let mine = begin(&test, &provider, |_| {}).await;
    let theirs = begin(&test, &provider, |_| {}).await;
    for mixed in [
        Begun { cookie: mine.cookie.clone(), state: theirs.state.clone() },
        Begun { cookie: String::new(), state: theirs.state.clone() },
        Begun { cookie: theirs.cookie.clone(), state: "x".to_owned() },
    ] {
        come_back(&test, &mixed, "good").await.refused(401, "state_invalid");
    }
    let callback = "/api/v1/auth/oidc/callback";
    let denied = format!("{callback}?error=access_denied&state=x");
    test.stranger().get(&denied).await.refused(401, "provider_refused");
    test.stranger().get(callback).await.refused(400, "required");
    assert_eq!(come_back(&test, &theirs, "good").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_a_tenants_own_and_lets_no_superadmin_in() {
    let (test, provider, root) = trusting().await;
    let admin = test.user("head", Role::Admin).await;
    let form = |issuer: &str| json!({ "issuer": issuer, "client_id": "atoll" });
    for bad in ["http://127.0.0.2:1", "https://10.0.0.1", "http://id.example.org", "ftp://x", ""] {
        admin.put(SETTINGS, &form(bad)).await.refused(422, "invalid");
    }
    let superadmin = |next: &mut Next| next.claims["email"] = json!("admin@example.org");
    let begun = begin(&test, &provider, superadmin).await;
    come_back(&test, &begun, "good").await.refused(403, "denied");

    let north = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "head@example.org", "username": "head", "password": PASSWORD },
    });
    root.post("/api/v1/tenants", &north).await.expect(201).data();
    let there = test.stranger().in_tenant("north");
    there.get(START).await.refused(404, "not_found");
    test.stranger().get(&format!("{START}?tenant=north")).await.refused(404, "not_found");
    there.login("head", PASSWORD).await.get(SETTINGS).await.refused(404, "not_found");

    let path = format!("/api/v1/tenants/{}", test.tenant);
    root.put(&path, &json!({ "registration": "closed" })).await.expect(200).data();
    let begun = begin(&test, &provider, |_| {}).await;
    come_back(&test, &begun, "good").await.refused(403, "denied");
    assert_eq!(admin.delete(SETTINGS).await.status, 204);
    test.stranger().get(START).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_asked_for_whoever_vouches() {
    let hands = Hands::new();
    let (test, provider, admin) = trusting_at(hands.clock()).await;
    let begun = begin(&test, &provider, |_| {}).await;
    let entered = come_back(&test, &begun, "good").await.expect(200).data();
    let ada = test.stranger().with_token(text(&entered, "access_token"));
    let (app, codes) = App::of(&ada, hands.clone()).await;

    let begun = begin(&test, &provider, |_| {}).await;
    let asked = come_back(&test, &begun, "good").await;
    asked.refused(401, "totp_required");
    assert!(asked.json()["data"].is_null(), "{}", asked.text());
    let ticket = kept(&asked, "atoll_oidc_ticket");
    // A ticket is no token, and nothing without its code.
    let (_, bare) = ticket.split_once('=').unwrap();
    test.stranger().with_token(bare).get("/api/v1/auth/me").await.refused(401, "token_invalid");
    finish(&test, &ticket, &json!({})).await.refused(401, "totp_required");
    finish(&test, &ticket, &json!({ "code": app.wrong() })).await.refused(401, "totp_invalid");
    finish(&test, "", &json!({ "code": app.next() })).await.refused(401, "ticket_invalid");
    let entered = finish(&test, &ticket, &json!({ "code": app.next() })).await.expect(200);
    me(&test.stranger().with_token(text(&entered.data(), "access_token"))).await;
    assert_eq!(kept(&entered, "atoll_oidc_ticket"), "atoll_oidc_ticket=");
    finish(&test, &ticket, &json!({ "code": codes[0] })).await.refused(401, "ticket_used");

    let begun = begin(&test, &provider, |_| {}).await;
    let ticket = kept(&come_back(&test, &begun, "good").await, "atoll_oidc_ticket");
    hands.turn(301);
    let late = finish(&test, &ticket, &json!({ "code": app.code() })).await;
    late.refused(401, "ticket_invalid");

    let begun = begin(&test, &provider, |_| {}).await;
    let ticket = kept(&come_back(&test, &begun, "good").await, "atoll_oidc_ticket");
    let path = format!("/api/v1/users/{}/status", text(&entered.data(), "user_id"));
    admin.put(&path, &json!({ "status": "disabled" })).await.expect(200).data();
    finish(&test, &ticket, &json!({ "code": app.next() })).await.refused(401, "account_disabled");
    let begun = begin(&test, &provider, |_| {}).await;
    come_back(&test, &begun, "good").await.refused(401, "account_disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_comes_back_to_the_page_that_sent_it() {
    let (test, provider, admin) = trusting().await;
    for bad in ["https://evil.example", "//evil.example", "welcome"] {
        let path = format!("{START}?return_to={bad}");
        test.stranger().get(&path).await.refused(422, "invalid");
    }
    let path = format!("{START}?return_to=/welcome%3Fa%3D1");
    let begun = begin_at(&path, &test, &provider, |_| {}).await;
    let back = come_back(&test, &begun, "good").await.expect(302);
    let place = back.header("location").unwrap().to_owned();
    assert!(place.starts_with("http://") && place.ends_with("/welcome?a=1"), "{place}");
    assert_eq!(kept(&back, "atoll_oidc"), "atoll_oidc=", "the seed is used up");
    let ticket = kept(&back, "atoll_oidc_ticket");
    let entered = finish(&test, &ticket, &json!({})).await.expect(200).data();
    assert_eq!(text(&entered["user"], "username"), "ada");
    finish(&test, &ticket, &json!({})).await.refused(401, "ticket_used");

    let begun = begin_at(&path, &test, &provider, |next| next.forged = true).await;
    let back = come_back(&test, &begun, "good").await.expect(302);
    assert!(back.header("location").unwrap().ends_with("/welcome?a=1#error=provider_failed"));

    let log = admin.get("/api/v1/audit?action=oidc_provider.updated").await.expect(200).json();
    assert_eq!(log["page"]["total"], 1);
    assert!(!log.to_string().contains("hush"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sites_own_page_leads_to_the_provider_and_takes_the_browser_back() {
    let hands = Hands::new();
    let (test, provider, admin) = trusting_at(hands.clock()).await;
    let post = json!({ "title": "Inside", "body": "x", "visibility": "members" });
    let post = admin.post("/api/v1/posts", &post).await.expect(201).data();
    let publish = format!("/api/v1/posts/{}/publish", text(&post, "id"));
    admin.post(&publish, &json!({})).await.expect(200);
    let stranger = test.stranger();
    let form = stranger.get("/sign-in?return_to=%2Fposts%2Finside").await.expect(200).text();
    let link = form.split(&format!("href=\"{START}")).nth(1).expect("a link to the provider");
    let start = format!("{START}{}", link.split('"').next().unwrap());
    assert!(form.contains(&format!("Sign in by {}", provider.address)), "{form}");
    let back = async |turn: Turn, code: &str| {
        let begun = begin_at(&start, &test, &provider, turn).await;
        let back = come_back(&test, &begun, code).await.expect(302);
        let place = back.header("location").unwrap().to_owned();
        (place[place.find("/sign-in").expect("the page")..].to_owned(), back)
    };
    let (place, answer) = back(|_| {}, "good").await;
    assert_eq!(place, "/sign-in/provider?return_to=%2Fposts%2Finside");
    let ticket = kept(&answer, "atoll_ticket");
    let headers = [("cookie", ticket.as_str())];
    let entered = stranger.send("GET", &place, &headers, b"").await.expect(303);
    assert_eq!(entered.header("location"), Some("/posts/inside"));
    let session = kept(&entered, "atoll_session");
    let page = stranger.send("GET", "/posts/inside", &[("cookie", &session)], b"").await;
    assert!(page.expect(200).text().contains("Sign out"));
    let twice = stranger.send("GET", &place, &headers, b"").await.expect(422).text();
    assert!(twice.contains("did not work"), "{twice}");
    stranger.get(&place).await.expect(422);
    let (place, _) = back(|next| next.forged = true, "good").await;
    assert_eq!(place, "/sign-in/provider?return_to=%2Fposts%2Finside&error=provider_failed");
    let told = stranger.get(&place).await.expect(422).text();
    assert!(told.contains("Try once more"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_can_have_no_address_asked_that_the_operator_did_not_name() {
    let (test, provider, _) = trusting().await;
    let elsewhere = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let inside = format!("http://{}/keys", elsewhere.local_addr().unwrap());
    provider.next.lock().unwrap().keys_at = Some(inside);
    test.stranger().get(START).await.refused(401, "provider_failed");
    // And it is left alone for a while.
    provider.next.lock().unwrap().keys_at = None;
    test.stranger().get(START).await.refused(401, "provider_failed");
    let asked = elsewhere.accept();
    tokio::select! {
        biased;
        _ = asked => panic!("the internal address was asked"),
        () = std::future::ready(()) => {}
    }
}
