//! What holds for every endpoint, over a real socket: problems, ETags, repeats, limits, bodies, streams.

use atoll_api::limit::Rate;
use atoll_api::route::Access::{Public, User};
use atoll_api::{Answer, Call, Face, Options, Problem, Reply, Route, all_routes, get, post, serve};
use atoll_node::{Config, Node, identity};
use atoll_storage::{Error, Event, Field, Id, Tx};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const EMAIL: &str = "admin@example.org";
const PASSWORD: &str = "correct horse battery";

static CALLS: AtomicU64 = AtomicU64::new(0);
const WORD: &[Field] = &[Field::text(1, "word").required()];

fn test_routes() -> Vec<Route> {
    vec![
        get("/t/panics", Public, panics).doc("Panics."),
        post("/t/hangs", Public, hangs).doc("Never ends."),
        get("/t/hangs", Public, hangs).doc("Never answers."),
        get("/t/large", Public, large).doc("Ten KiB."),
        post("/t/counts", Public, counts).takes_fields(WORD).doc("Counts its calls."),
        post("/t/small", Public, counts).takes_fields(WORD).body_limit(64).doc("Takes little."),
        get("/t/{name}/part", Public, moved).doc("Is called otherwise now."),
        get("/t/strict", Public, large).strict().doc("Guards a secret."),
        post("/t/user", User, counts).takes_fields(WORD).doc("For users."),
    ]
}

async fn panics(_: Call) -> Answer {
    assert!(std::hint::black_box(false), "on purpose");
    Reply::none()
}

async fn hangs(_: Call) -> Answer {
    std::future::pending().await
}

async fn large(_: Call) -> Answer {
    Reply::data("atoll ".repeat(2_000))
}

async fn counts(call: Call) -> Answer {
    #[derive(serde::Deserialize)]
    struct Taken {
        word: String,
    }
    let taken: Taken = call.json()?;
    let count = CALLS.fetch_add(1, Ordering::SeqCst);
    Reply::data(json!({ "word": taken.word, "count": count }))
}

async fn moved(call: Call) -> Answer {
    match call.path("name") {
        "old" => Err(atoll_node::Error::Moved("a new/name".into()).into()),
        _ => Err(Problem::not_found("thing")),
    }
}

struct Server {
    address: SocketAddr,
    node: Arc<Node>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

struct Answered {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answered {
    fn header(&self, name: &str) -> Option<&str> {
        let is_named = |line: &&str| {
            line.split(':').next().is_some_and(|known| known.eq_ignore_ascii_case(name))
        };
        self.head
            .lines()
            .find(is_named)
            .and_then(|line| line.split_once(": "))
            .map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Server {
    async fn start(tune: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data: folder.path().join("data"), ..Config::default() };
        let node = Node::open(config).unwrap();
        identity::setup(&node, EMAIL, PASSWORD).await.unwrap();
        let mut options = Options::of(&node.config);
        tune(&mut options);
        let routes = all_routes().into_iter().chain(test_routes()).collect();
        let face = Face::over(node.clone(), options, routes);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, face, async move {
            let _ = stopped.await;
        }));
        Self { address, node, stop: Some(stop), task, _folder: folder }
    }

    async fn send(&self, request: &[u8]) -> Answered {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Answered { status, head, body: bytes[end + 4..].to_vec() }
    }

    async fn ask(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Answered {
        let mut request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.send(request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answered {
        self.ask(&format!("GET {path}"), &[], "").await
    }

    async fn sign_in(&self) -> String {
        let body = json!({ "login": EMAIL, "password": PASSWORD }).to_string();
        let answer = self.ask("POST /api/v1/auth/login", &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        format!("Bearer {}", answer.json()["data"]["access_token"].as_str().unwrap())
    }
}

fn is_problem(answer: &Answered, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!(
        (answer.status, body["code"].as_str()),
        (status, Some(code)),
        "{}\n{body}",
        answer.head
    );
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    assert!(!body["message"].as_str().unwrap_or_default().is_empty());
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_problems() {
    let server = Server::start(|_| {}).await;
    is_problem(&server.get("/nothing").await, 404, "no_such_route");
    let answer = server.ask("DELETE /t/large", &[], "").await;
    is_problem(&answer, 405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"));
    let answer = server.ask("OPTIONS /t/counts", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (204, Some("POST, OPTIONS")));
    is_problem(&server.get("/t/%ff/part").await, 400, "malformed");
    is_problem(&server.get("/t/large?colour=red").await, 400, "unknown_parameter");
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let server = Server::start(|_| {}).await;
    let (get, head) = (server.get("/t/large").await, server.ask("HEAD /t/large", &[], "").await);
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["content-length", "content-type", "etag"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    assert_eq!(get.header("content-length"), Some(get.body.len().to_string().as_str()));
}

#[tokio::test]
async fn every_answer_carries_its_request_and_is_guarded() {
    let server = Server::start(|_| {}).await;
    let answer = server.ask("GET /t/large", &[("X-Request-Id", "mine-7")], "").await;
    assert_eq!(answer.header("x-request-id"), Some("mine-7"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert!(answer.header("content-security-policy").is_some());
    assert!(answer.header("ratelimit-remaining").is_some());
}

#[tokio::test]
async fn an_unchanged_answer_is_not_sent_again() {
    let server = Server::start(|_| {}).await;
    let token = server.sign_in().await;
    let path = "GET /api/v1/users/profile";
    let first = server.ask(path, &[("Authorization", &token)], "").await;
    assert_eq!(first.status, 200);
    let tag = first.header("etag").unwrap();
    let again = server.ask(path, &[("Authorization", &token), ("If-None-Match", tag)], "").await;
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag)));
    let narrow = server
        .ask("GET /api/v1/users/profile?fields=username", &[("Authorization", &token)], "")
        .await;
    assert_ne!(narrow.header("etag"), Some(tag));
    let data = narrow.json()["data"].clone();
    assert_eq!(data.as_object().map(serde_json::Map::len), Some(2), "{data}");
}

#[tokio::test]
async fn a_list_is_paged_with_links_and_names_what_it_does_not_know() {
    let server = Server::start(|_| {}).await;
    let token = server.sign_in().await;
    let ask = async |path: &str| {
        server.ask(&format!("GET {path}"), &[("Authorization", &token)], "").await
    };
    let page = ask("/api/v1/users?limit=1&sort=-created_at").await;
    assert_eq!(
        (page.status, page.json()["page"]["total"].as_u64()),
        (200, Some(1)),
        "{}",
        page.json()
    );
    assert_eq!(
        page.header("link"),
        Some("</api/v1/users?limit=1&sort=-created_at>; rel=\"first\"")
    );
    assert!(!String::from_utf8_lossy(&page.body).contains("argon2"), "a secret is shown");
    is_problem(&ask("/api/v1/users?password_hash=x").await, 400, "unknown_parameter");
    is_problem(&ask("/api/v1/users?limit=1000").await, 400, "out_of_range");
    is_problem(&server.get("/api/v1/users").await, 401, "unauthenticated");
}

#[tokio::test]
async fn a_bad_token_is_refused_and_many_are_slowed_down() {
    let server =
        Server::start(|options| options.strict = Rate { per_second: 0.01, burst: 2 }).await;
    let ask = async |value: &str| server.ask("GET /t/large", &[("Authorization", value)], "").await;
    let answer = ask("Bearer eyJhbGciOiJub25lIn0.e30.").await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    is_problem(&ask("Basic abc").await, 401, "unknown_scheme");
    let slowed = ask("Bearer x.y.z").await;
    is_problem(&slowed, 429, "too_many_requests");
    assert!(slowed.header("retry-after").is_some());
    assert_eq!(server.get("/t/large").await.status, 200, "without a token nothing is slowed down");
    let good = server.sign_in().await;
    assert_eq!(ask(&good).await.status, 200, "nor with a good one");
}

#[tokio::test]
async fn a_caller_who_asks_too_often_is_told_when_to_come_back() {
    let server = Server::start(|options| options.usual = Rate { per_second: 0.1, burst: 2 }).await;
    let first = server.get("/t/large").await;
    assert_eq!(first.header("ratelimit-limit"), Some("2"));
    assert_eq!(first.header("ratelimit-remaining"), Some("1"));
    assert_eq!(server.get("/t/large").await.status, 200);
    let refused = server.get("/t/large").await;
    is_problem(&refused, 429, "too_many_requests");
    assert_eq!(refused.header("ratelimit-remaining"), Some("0"));
    assert_eq!(server.get("/livez").await.status, 200, "probes have no limit");
}

#[tokio::test]
async fn a_repeat_under_one_key_gets_the_first_answer() {
    let server = Server::start(|_| {}).await;
    let ask = async |key: &str, word: &str| {
        let body = json!({ "word": word }).to_string();
        server.ask("POST /t/counts", &[("Idempotency-Key", key)], &body).await
    };
    let first = ask("k1", "a").await;
    let again = ask("k1", "a").await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.body, again.body);
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        (None, Some("true"))
    );
    is_problem(&ask("k1", "b").await, 422, "idempotency_key_reused");
    assert_ne!(ask("k2", "a").await.body, first.body);
    is_problem(&ask(&"k".repeat(300), "a").await, 400, "malformed");
}

#[tokio::test]
async fn a_key_whose_request_was_cut_off_is_not_run_a_second_time() {
    let server = Server::start(|options| options.timeout = Duration::from_millis(50)).await;
    let ask =
        async |body: &str| server.ask("POST /t/hangs", &[("Idempotency-Key", "k")], body).await;
    is_problem(&ask("{}").await, 503, "timeout");
    is_problem(&ask("{}").await, 409, "idempotency_unknown");
    is_problem(&ask("[]").await, 422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_whose_request_was_refused_is_as_if_unused() {
    let server = Server::start(|_| {}).await;
    let ask =
        async |body: &str| server.ask("POST /t/counts", &[("Idempotency-Key", "k")], body).await;
    is_problem(&ask("{\"word\":7}").await, 422, "invalid");
    assert_eq!(ask("{\"word\":\"a\"}").await.status, 200);
}

#[tokio::test]
async fn a_cursor_is_good_in_its_own_order_only() {
    let server = Server::start(|_| {}).await;
    let token = server.sign_in().await;
    let ask = async |path: &str| {
        server
            .ask(&format!("GET /api/v1/users?limit=1&{path}"), &[("Authorization", &token)], "")
            .await
    };
    let node = &server.node;
    let tenant = identity::tenant::default(node).unwrap();
    let second = identity::NewUser {
        email: "b@example.org".into(),
        username: "second".into(),
        display_name: String::new(),
        password: PASSWORD.into(),
        role: atoll_node::Role::Viewer,
        must_change_password: false,
    };
    let system = atoll_node::Actor::system(tenant);
    identity::user::create(node, &system, second).await.unwrap();
    let page = ask("sort=username").await.json();
    let next = page["page"]["next"].as_str().unwrap();
    assert_eq!(ask(&format!("sort=username&cursor={next}")).await.status, 200);
    let astray = ask(&format!("sort=-created_at&cursor={next}")).await;
    is_problem(&astray, 400, "wrong_cursor");
    let unknown = ask("colour=red").await.json();
    let told = unknown["message"].as_str().unwrap();
    assert!(told.contains("known are") && told.contains("username"), "{told}");
    assert!(!told.contains("password_hash"), "{told}");
}

#[tokio::test]
async fn bad_bodies_are_named_for_what_they_are() {
    let server = Server::start(|_| {}).await;
    is_problem(&server.ask("POST /t/counts", &[], "{\"word\":").await, 400, "malformed");
    let wrong = server.ask("POST /t/counts", &[], "{\"word\":7}").await;
    is_problem(&wrong, 422, "invalid");
    assert_eq!(wrong.json()["errors"][0]["field"], "word");
    let body = json!({ "word": "x".repeat(100) }).to_string();
    is_problem(&server.ask("POST /t/small", &[], &body).await, 413, "body_too_large");
    let head = b"POST /t/counts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let text = [&head[..], b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}"].concat();
    is_problem(&server.send(&text).await, 415, "unsupported_media_type");
    let utf8 = [&head[..], b"Content-Length: 12\r\n\r\n{\"word\":\"\xff\"}"].concat();
    is_problem(&server.send(&utf8).await, 400, "malformed");
    let chunks = [
        &head[..],
        b"Transfer-Encoding: chunked\r\n\r\n4\r\n{\"wo\r\n8\r\nrd\":\"a\"}\r\n0\r\n\r\n",
    ]
    .concat();
    assert_eq!(server.send(&chunks).await.json()["data"]["word"], "a");
    is_problem(&server.ask("POST /t/user", &[], "{").await, 401, "unauthenticated");
}

#[tokio::test]
async fn a_panic_and_a_hang_end_one_request_only() {
    let server = Server::start(|options| options.timeout = Duration::from_millis(50)).await;
    is_problem(&server.get("/t/panics").await, 500, "internal");
    let hung = server.get("/t/hangs").await;
    is_problem(&hung, 503, "timeout");
    assert_eq!(hung.header("retry-after"), Some("5"));
    assert_eq!(server.get("/t/large").await.status, 200);
}

#[tokio::test]
async fn a_moved_name_leads_to_the_new_one() {
    let server = Server::start(|_| {}).await;
    let answer = server.get("/t/old/part").await;
    is_problem(&answer, 301, "moved");
    assert_eq!(answer.header("location"), Some("/t/a%20new%2Fname/part"));
    is_problem(&server.get("/t/other/part").await, 404, "not_found");
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_ask() {
    let server = Server::start(|_| {}).await;
    let plain = server.get("/t/large").await;
    assert_eq!(plain.header("content-encoding"), None);
    for encoding in ["zstd", "br", "gzip"] {
        let packed = server.ask("GET /t/large", &[("Accept-Encoding", encoding)], "").await;
        assert_eq!(packed.header("content-encoding"), Some(encoding));
        assert!(packed.body.len() < plain.body.len() / 4);
        assert_eq!(packed.header("etag").map(|tag| tag.starts_with("W/")), Some(true));
    }
    let small = server.ask("GET /ping", &[("Accept-Encoding", "gzip")], "").await;
    assert_eq!((small.header("content-encoding"), small.body.as_slice()), (None, &b"pong\n"[..]));
}

#[tokio::test]
async fn pages_of_other_origins_may_ask() {
    let server = Server::start(|_| {}).await;
    let asked = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "PATCH")];
    let preflight = server.ask("OPTIONS /t/counts", &asked, "").await;
    assert_eq!(
        (preflight.status, preflight.header("access-control-allow-origin")),
        (200, Some("*"))
    );
    let answer = server.ask("GET /t/large", &asked[..1], "").await;
    assert!(
        answer.header("access-control-expose-headers").is_some_and(|names| names.contains("etag"))
    );
}

#[tokio::test]
async fn an_operator_says_whose_pages_may_ask() {
    let listed = vec!["https://a.example".to_owned()];
    let server = Server::start(|options| options.cors_origins = listed).await;
    let allowed = async |origin: &str| {
        let answer = server.ask("GET /t/large", &[("Origin", origin)], "").await;
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(allowed("https://a.example").await.as_deref(), Some("https://a.example"));
    assert_eq!(allowed("https://b.example").await, None);
}

#[tokio::test]
async fn probes_documents_and_figures_answer() {
    let server = Server::start(|_| {}).await;
    for path in ["/livez", "/readyz", "/health", "/ping"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let document = server.get("/api/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["components"]["schemas"]["UserDraft"].is_object());
    let page = server.get("/api/docs").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let console = server.get("/console").await;
    assert_eq!(console.status, 200);
    assert_eq!(console.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = console.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"));
    assert_eq!(console.header("content-security-policy"), page.header("content-security-policy"));
    let text = String::from_utf8(console.body).unwrap();
    assert!(text.starts_with("<!doctype html>") && text.contains("<title>Atoll console</title>"));
    let figures = String::from_utf8(server.get("/metrics").await.body).unwrap();
    assert!(
        figures.contains(
            "atoll_http_requests_total{method=\"GET\",route=\"/livez\",status=\"200\"} 1"
        ),
        "{figures}"
    );
}

/// Reads until the text holds the word.
async fn read_to(stream: &mut TcpStream, text: &mut String, word: &str) {
    let mut buffer = [0; 4096];
    while !text.contains(word) {
        let len = stream.read(&mut buffer).await.unwrap();
        assert!(len > 0, "the stream ended before {word:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..len]));
    }
}

async fn emit(node: &Node, tenant: Id, event_type: &'static str) {
    let written = node.store.write(move |tx: &mut Tx<'_>| {
        tx.emit(&Event { event_type, tenant, user: None, payload: json!({ "n": 1 }) }).map(|_| ())
    });
    let written: Result<(), Error> = written.await;
    written.unwrap();
}

/// The id that stands right before an event.
fn id_before(text: &str, event: &str) -> String {
    let before = text.split(event).next().unwrap();
    before.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned()
}

/// An open stream of events with what it said at once.
async fn open_events(server: &Server, token: &str, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /api/v1/events?type=test HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    read_to(&mut stream, &mut text, "\n\n").await;
    (stream, text)
}

#[tokio::test]
async fn whoever_may_have_missed_events_is_told_so() {
    let server = Server::start(|_| {}).await;
    let token = server.sign_in().await;
    let tenant = identity::tenant::default(&server.node).unwrap();
    let (_open, text) = open_events(&server, &token, "").await;
    let own = text.split("\nid: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let life = own.split('-').next().unwrap();
    for foreign in ["00000000-1".to_owned(), format!("{life}-999999999"), "nonsense".to_owned()] {
        let (mut stream, mut text) =
            open_events(&server, &token, &format!("Last-Event-ID: {foreign}\r\n")).await;
        read_to(&mut stream, &mut text, "\"reason\":\"unknown_id\"").await;
        emit(&server.node, tenant, "test.thing.done").await;
        read_to(&mut stream, &mut text, "event: test.thing.done").await;
    }
    let refused = server.ask("GET /api/v1/events?after=x", &[("Authorization", &token)], "").await;
    is_problem(&refused, 400, "wrong_type");

    let many = server.node.store.write(move |tx: &mut Tx<'_>| {
        for _ in 0..=atoll_storage::outbox::KEPT {
            let payload = json!({});
            tx.emit(&Event { event_type: "test.many", tenant, user: None, payload })?;
        }
        tx.trim_outbox()
    });
    let trimmed: Result<usize, Error> = many.await;
    assert!(trimmed.unwrap() > 0);
    let (mut stream, mut text) =
        open_events(&server, &token, &format!("Last-Event-ID: {own}\r\n")).await;
    read_to(&mut stream, &mut text, "\"reason\":\"trimmed\"").await;
    read_to(&mut stream, &mut text, "event: test.many").await;
    let (mut stream, mut text) = open_events(&server, &token, "Last-Event-ID: 0\r\n").await;
    read_to(&mut stream, &mut text, "event: test.many").await;
    assert!(!text.contains("event: gap"), "who asks for the oldest missed nothing");
}

#[tokio::test]
async fn events_arrive_as_they_happen_resume_and_end_with_the_server() {
    let mut server = Server::start(|_| {}).await;
    let token = server.sign_in().await;
    let tenant = identity::tenant::default(&server.node).unwrap();
    let open = async |more: &str| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "GET /api/v1/events?type=test HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        read_to(&mut stream, &mut text, "retry: 3000").await;
        (stream, text)
    };
    let (mut stream, mut text) = open("").await;
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    emit(&server.node, tenant, "test.thing.done").await;
    emit(&server.node, tenant, "other.thing.done").await;
    emit(&server.node, tenant, "test.thing.undone").await;
    read_to(&mut stream, &mut text, "event: test.thing.undone").await;
    assert!(text.contains("event: test.thing.done") && !text.contains("other.thing"), "{text}");
    let id = id_before(&text, "event: test.thing.done");
    let (mut resumed, mut again) = open(&format!("Last-Event-ID: {id}\r\n")).await;
    read_to(&mut resumed, &mut again, "event: test.thing.undone").await;
    assert!(!again.contains("event: test.thing.done"), "{again}");
    drop(server.stop.take());
    server.task.await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    resumed.read_to_end(&mut rest).await.unwrap();
}
