//! A whole node in a temporary folder, served on a loopback port, and a small HTTP client for it. What tests share;
//! nothing here replaces a part of the product.

use atoll_api::limit::Rate;
use atoll_api::{Face, Options};
use atoll_node::identity::{self, NewUser, user};
use atoll_node::{Actor, Config, Node, Role, percent};
use atoll_storage::{Clock, Id, Lane, Replica};
use atoll_sync::runner::PeerStatus;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const ADMIN_EMAIL: &str = "admin@example.org";
pub const PASSWORD: &str = "a long enough password";

/// A node with its default tenant and a superadmin, listening.
pub struct TestNode {
    pub node: Arc<Node>,
    pub address: SocketAddr,
    pub tenant: Id,
    /// The superadmin.
    pub admin: Id,
    serving: tokio::task::AbortHandle,
    folder: TempDir,
}

impl TestNode {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// As `start`, with a changed configuration.
    pub async fn start_with(turn: impl FnOnce(&mut Config)) -> Self {
        Self::start_empty(turn).await.set_up().await
    }

    /// As `start`, with a clock that the test turns.
    pub async fn start_at(clock: Clock) -> Self {
        Self::open(|_| {}, clock).await.set_up().await
    }

    /// As `start`, with both.
    pub async fn start_with_at(turn: impl FnOnce(&mut Config), clock: Clock) -> Self {
        Self::open(turn, clock).await.set_up().await
    }

    async fn set_up(self) -> Self {
        let created = identity::setup(&self.node, ADMIN_EMAIL, PASSWORD).await.unwrap();
        Self { tenant: created.tenant.key, admin: created.user.key, ..self }
    }

    /// A second node of the same network, which knows what `first` knows.
    pub async fn start_beside(first: &Self) -> Self {
        Self::start_beside_at(first, Clock::system()).await
    }

    /// As `start_beside`, with a clock that the test turns.
    pub async fn start_beside_at(first: &Self, clock: Clock) -> Self {
        let second = Self::open(|_| {}, clock).await;
        second.take_from(first);
        Self { tenant: first.tenant, admin: first.admin, ..second }
    }

    /// A node without a tenant or a user, as one that is about to join a network.
    pub async fn start_empty(turn: impl FnOnce(&mut Config)) -> Self {
        Self::open(turn, Clock::system()).await
    }

    /// As `start_empty`, with a clock of its own.
    pub async fn start_empty_at(clock: Clock) -> Self {
        Self::open(|_| {}, clock).await
    }

    async fn open(turn: impl FnOnce(&mut Config), clock: Clock) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), turn, clock).await
    }

    /// A node of which nothing is left but its folder: what a killed process leaves. `tenant` and `admin` are those of
    /// the node that was.
    pub async fn reopen(folder: TempDir, tenant: Id, admin: Id) -> Self {
        Self::reopen_with(folder, |_| {}, tenant, admin).await
    }

    /// As `reopen`, with a changed configuration.
    pub async fn reopen_with(
        folder: TempDir,
        turn: impl FnOnce(&mut Config),
        tenant: Id,
        admin: Id,
    ) -> Self {
        let again = Self::open_in(folder, turn, Clock::system()).await;
        Self { tenant, admin, ..again }
    }

    /// As `reopen`, with a clock that the test turns.
    pub async fn reopen_at(folder: TempDir, clock: Clock, tenant: Id, admin: Id) -> Self {
        let again = Self::open_in(folder, |_| {}, clock).await;
        Self { tenant, admin, ..again }
    }

    /// Gives the folder away; the node in it must have ended before another one opens it.
    pub fn into_folder(self) -> TempDir {
        self.folder
    }

    async fn open_in(folder: TempDir, turn: impl FnOnce(&mut Config), clock: Clock) -> Self {
        let mut config = config_in(&folder);
        turn(&mut config);
        let node = Node::open_at(config, clock).unwrap();
        let (address, serving) = serve(&node).await;
        Self { node, address, tenant: Id::NIL, admin: Id::NIL, serving, folder }
    }

    /// Gives the folder away once nothing of this node holds it any more. Its workers must have ended.
    pub async fn close(self) -> TempDir {
        self.serving.abort();
        drop(self.node);
        let path = self.folder.path();
        let free = async {
            while atoll_node::runtime::Folder::open(path).is_err() {
                tokio::task::yield_now().await;
            }
        };
        let free = tokio::time::timeout(std::time::Duration::from_secs(30), free).await;
        free.expect("nothing holds the node any more");
        self.folder
    }

    /// Pulls the cable out: when this returns, this node has no link and makes none.
    pub async fn cut(&self) {
        let sync = self.node.sync().unwrap();
        sync.pause();
        let wait = async {
            while sync.status().iter().any(PeerStatus::is_linked) {
                tokio::task::yield_now().await;
            }
        };
        let cut = tokio::time::timeout(std::time::Duration::from_secs(60), wait).await;
        cut.expect("its links end");
    }

    /// Applies all ops of another node's log here, as if the two had met.
    pub fn take_from(&self, other: &Self) {
        for lane in [Lane::Urgent, Lane::Rest] {
            let mut from = 0;
            loop {
                let mut log = other.node.store.clone();
                let batch = log.ops(lane, from, &BTreeMap::new(), 1_000, 1 << 20).unwrap();
                if batch.ops.is_empty() {
                    break;
                }
                from = batch.next_pos;
                let applied = self.node.store.clone().apply(batch.ops).unwrap();
                assert_eq!(applied.quarantined, 0);
            }
        }
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Somebody who is not signed in.
    pub fn stranger(&self) -> Client {
        Client { address: self.address, token: None, tenant: None }
    }

    /// The superadmin, signed in.
    pub async fn admin(&self) -> Client {
        self.stranger().login(ADMIN_EMAIL, PASSWORD).await
    }

    /// A new user of the default tenant with this role, signed in; his e-mail address is `<name>@example.org`.
    pub async fn user(&self, name: &str, role: Role) -> Client {
        self.make_user(self.tenant, name, role).await;
        self.stranger().login(name, PASSWORD).await
    }

    pub async fn make_user(&self, tenant: Id, name: &str, role: Role) -> Id {
        let new = NewUser {
            email: format!("{name}@example.org"),
            username: name.to_owned(),
            display_name: String::new(),
            password: PASSWORD.to_owned(),
            role,
            must_change_password: false,
        };
        user::create(&self.node, &Actor::system(tenant), new).await.unwrap().key
    }
}

fn config_in(folder: &TempDir) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config { data: folder.path().to_owned(), listen: any, sync_listen: any, ..Config::default() }
}

async fn serve(node: &Arc<Node>) -> (SocketAddr, tokio::task::AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = Options { usual: Rate::NONE, strict: Rate::NONE, ..Options::default() };
    let face = Face::new(node.clone(), options);
    let serving = tokio::spawn(atoll_api::serve(listener, face, std::future::pending()));
    (address, serving.abort_handle())
}

/// One caller: who he is, and in which tenant. Each request takes a connection of its own.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub token: Option<String>,
    pub tenant: Option<String>,
}

impl Client {
    /// Signs in, and panics if that fails.
    pub async fn login(&self, name: &str, password: &str) -> Self {
        let answer =
            self.post("/api/v1/auth/login", &json!({ "login": name, "password": password })).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.with_token(answer.json()["data"]["access_token"].as_str().unwrap())
    }

    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// In another tenant, by its id or slug.
    #[must_use]
    pub fn in_tenant(&self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.to_owned()), ..self.clone() }
    }

    /// Signs in on the site's own page, as a browser does; what it sends from then on under `cookie`.
    pub async fn sign_in_on_site(&self, name: &str, password: &str) -> String {
        let form = self.get("/sign-in").await.expect(200);
        let (cookies, secret) = form.form();
        let fields = [("form", secret.as_str()), ("login", name), ("password", password)];
        let answer = self.send_form("/sign-in", &cookies, &fields).await.expect(303);
        answer.cookies()
    }

    /// Any form of the site's pages, with what the browser keeps.
    pub async fn send_form(&self, path: &str, cookies: &str, fields: &[(&str, &str)]) -> Answer {
        let fields =
            fields.iter().map(|(name, value)| format!("{name}={}", percent::encode(value)));
        let body = fields.collect::<Vec<_>>().join("&");
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("cookie", cookies)];
        self.send("POST", path, &headers, body.as_bytes()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &Json) -> Answer {
        self.send_json("POST", path, body).await
    }

    pub async fn put(&self, path: &str, body: &Json) -> Answer {
        self.send_json("PUT", path, body).await
    }

    pub async fn patch(&self, path: &str, body: &Json) -> Answer {
        self.send_json("PATCH", path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"").await
    }

    /// For what asks for more than the path says, such as a password.
    pub async fn delete_with(&self, path: &str, body: &Json) -> Answer {
        self.send_json("DELETE", path, body).await
    }

    async fn send_json(&self, method: &str, path: &str, body: &Json) -> Answer {
        self.send(
            method,
            path,
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
        .await
    }

    /// Any request; `headers` come after those of every request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        let mut line = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            line("host", &self.address.to_string());
        }
        if let Some(token) = &self.token {
            line("authorization", &format!("Bearer {token}"));
        }
        if let Some(tenant) = &self.tenant {
            line("x-tenant", tenant);
        }
        headers.iter().for_each(|(name, value)| line(name, value));
        head.push_str("\r\n");
        let bytes = self.exchange(head.as_bytes(), body).await.expect("the node answers");
        Answer::parse(&bytes)
    }

    async fn exchange(&self, head: &[u8], body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(head).await?;
        // The server may answer and close before it has read a body that it refuses.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        Ok(bytes)
    }

    /// Any request with a JSON body; none if the node is gone before its answer is whole.
    pub async fn attempt(&self, method: &str, path: &str, body: &Json) -> Option<Answer> {
        let body = body.to_string();
        let token = self.token.as_deref().unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let bytes = self.exchange(head.as_bytes(), body.as_bytes()).await.ok()?;
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let is_whole = bytes.len() == end + 4 || bytes.ends_with(b"}");
        is_whole
            .then(|| Answer::parse(&bytes))
            .filter(|answer| answer.status == 204 || answer.body.ends_with(b"}"))
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("the answer has a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("the head is text");
        let mut lines = head.split("\r\n");
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let field = |line: &str| {
            line.split_once(':')
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let mut answer = Self {
            status,
            headers: lines.filter_map(field).collect(),
            body: bytes[end + 4..].to_vec(),
        };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunk(&answer.body);
        }
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of one name, in their order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// All cookies that it sets, as a browser sends them.
    pub fn cookies(&self) -> String {
        let set = self.headers("set-cookie").into_iter().filter(|line| !line.contains("Max-Age=0"));
        set.filter_map(|line| line.split(';').next()).collect::<Vec<_>>().join("; ")
    }

    /// Of a page with a form: the cookies that came with it, and the secret in it.
    pub fn form(&self) -> (String, String) {
        let text = self.text();
        let secret =
            text.split("name=\"form\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        (self.cookies(), secret.unwrap_or_else(|| panic!("no form in {text}")).to_owned())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What is under `data`.
    pub fn data(&self) -> Json {
        self.json()["data"].take()
    }

    /// Of a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts the status, and shows the answer if it is another.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // most tests look at the status alone
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Asserts a problem's status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.text());
    }
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Text that hardly packs, from a seed.
pub fn noise(seed: u64, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    for n in 0_u64.. {
        if text.len() >= bytes {
            return text;
        }
        let id = Id::natural(&[&seed.to_le_bytes(), &n.to_le_bytes()]);
        text.extend(id.0.map(|byte| char::from(LETTERS[usize::from(byte & 63)])));
        text.push(' ');
    }
    text
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end])
            .ok()
            .and_then(|t| usize::from_str_radix(t.trim(), 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && bytes.len() >= end + 2 + size) else {
            break;
        };
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    whole
}

/// Whether these words stand in any file of a node's database.
pub fn is_on_disk(folder: &Path, words: &str) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).any(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    })
}
