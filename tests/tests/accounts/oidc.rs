//! Signing in by an OpenID provider: a small one that listens on a socket and signs what the test tells it to.

use super::{login, me, text};
use atoll_node::Role;
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
                    "jwks_uri": format!("{issuer}/keys"),
                    "token_endpoint_auth_methods_supported": ["client_secret_post"],
                }),
            ),
            "/keys" => {
                let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
                let key = json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1", "x": x });
                (200, json!({ "keys": [{ "kty": "unheard of" }, key] }))
            }
            "/token" => self.token(body),
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
        (200, json!({ "id_token": format!("{signed}.{signature}"), "token_type": "Bearer" }))
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
    let (test, provider) = (TestNode::start().await, Provider::open().await);
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
    let started = test.stranger().get(START).await.expect(302);
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
    let mut next = Next { claims, challenge: part("code_challenge"), forged: false };
    turn(&mut next);
    *provider.next.lock().unwrap() = next;
    let cookie = started.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    Begun { state: part("state"), cookie: cookie.split(';').next().unwrap().to_owned() }
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
    for bad in ["http://127.0.0.1:1", "ftp://x", ""] {
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
