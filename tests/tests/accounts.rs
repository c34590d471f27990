//! Accounts beyond a password: letters, sessions, keys, second factors, pictures and OpenID providers, over real
//! sockets, with a mail server and a provider that listen on sockets too.

#[path = "accounts/avatar.rs"]
mod avatar;
#[path = "accounts/key.rs"]
mod key;
#[path = "accounts/letter.rs"]
mod letter;
#[path = "accounts/oidc.rs"]
mod oidc;
#[path = "accounts/page.rs"]
mod page;
#[path = "accounts/session.rs"]
mod session;
#[path = "accounts/site.rs"]
mod site;
#[path = "accounts/template.rs"]
mod template;
#[path = "accounts/totp.rs"]
mod totp;

use atoll_node::config::Secret;
use atoll_node::runtime::Workers;
use atoll_storage::Clock;
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Answer, Client, PostOffice, TestNode};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("{name} in {json}"))
}

async fn login(client: &Client, name: &str, password: &str) -> Answer {
    client.post("/api/v1/auth/login", &json!({ "login": name, "password": password })).await
}

async fn me(client: &Client) -> Json {
    client.get("/api/v1/auth/me").await.expect(200).data()
}

/// A clock that stands still until it is turned.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_750_000_000_000)))
    }

    fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::from_fn(move || hands.now_ms())
    }

    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn turn(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

/// A node that sends mail, and where it goes.
struct Posted {
    test: TestNode,
    office: PostOffice,
    hands: Hands,
    _workers: Workers,
}

impl Posted {
    async fn start() -> Self {
        let (office, hands) = (PostOffice::open().await, Hands::new());
        let server = Secret(office.url());
        let test = TestNode::start_with_at(
            |config| {
                config.mail.server = server;
                "https://atoll.example.org".clone_into(&mut config.public_url);
            },
            hands.clock(),
        )
        .await;
        let workers = test.node.start().await.unwrap();
        Self { test, office, hands, _workers: workers }
    }

    /// Signs up as `<name>@example.org`, and gives the token of the letter.
    async fn register(&mut self, name: &str) -> String {
        let email = format!("{name}@example.org");
        let form = json!({ "email": email, "username": name, "password": PASSWORD });
        self.test.stranger().post("/api/v1/auth/register", &form).await.expect(201).data();
        self.office.next_to(&email).await.token()
    }

    async fn verify(&self, token: &str) -> Answer {
        let form = json!({ "token": token });
        self.test.stranger().post("/api/v1/auth/verify-email", &form).await
    }
}
