//! Real nodes over QUIC on loopback: how soon a commit is readable on the peer, what a greeting with nothing new costs,
//! how fast a peer's ops come in, and how long a new node takes to have everything, with the memory of both.
//! Prints one JSON object. `cargo run --release -p atoll-benches --bin network [live|greeting|catch-up|bootstrap]`:
//! without a name all four. The nodes of the bootstrap are processes of their own.

use atoll_benches::histogram::Histogram;
use atoll_benches::text;
use atoll_node::community::comment::{self, COMMENT};
use atoll_node::content::post::{self, Draft, POST};
use atoll_node::runtime::Workers;
use atoll_node::{Actor, Config, Node, Role, identity, peer};
use atoll_storage::{Changes, Digest, Id, Read};
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIVE_WRITES: usize = 1_000;
/// Between two of them.
const LIVE_PAUSE: Duration = Duration::from_millis(15);
const POST_BYTES: usize = 2_048;
const PATIENCE: Duration = Duration::from_secs(300);
/// In one transaction.
const GROUP: usize = 500;

struct Running {
    node: Arc<Node>,
    workers: Workers,
}

impl Running {
    async fn start(data: &Path) -> Self {
        let any = ([127, 0, 0, 1], 0).into();
        let data = data.to_owned();
        let config = Config { data, listen: any, sync_listen: any, ..Config::default() };
        let node = Node::open(config).expect("the node opens");
        let workers = node.start().await.expect("the node starts");
        Self { node, workers }
    }

    fn root(&self) -> Digest {
        self.node.store.read(|reader| reader.root()).expect("the root")
    }

    async fn ticket(&self) -> String {
        let system = Actor::system(Id::NIL);
        let hour = Duration::from_secs(3_600);
        peer::ticket(&self.node, &system, hour, vec![]).await.expect("a ticket").line
    }

    async fn join(&self, ticket: &str) {
        peer::join(&self.node, &Actor::system(Id::NIL), ticket).await.expect("it joins");
    }

    async fn set_up(&self) -> Actor {
        let made = identity::setup(&self.node, "admin@example.org", "a long enough password").await;
        let made = made.expect("the first admin");
        Actor::of(made.tenant.key, made.user.key, Role::Superadmin)
    }

    fn pause(&self, pauses: bool) {
        let links = self.node.sync().expect("it talks to others");
        if pauses { links.pause() } else { links.resume() }
    }
}

struct Pair {
    a: Running,
    b: Running,
    author: Actor,
    _folders: [TempDir; 2],
}

impl Pair {
    async fn start() -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        let a = Running::start(folders[0].path()).await;
        let author = a.set_up().await;
        let b = Running::start(folders[1].path()).await;
        b.join(&a.ticket().await).await;
        let pair = Self { a, b, author, _folders: folders };
        pair.until_equal().await;
        pair
    }

    /// Looks with each commit of the second.
    async fn until_equal(&self) {
        let wait = async {
            let mut commits = self.b.node.store.subscribe();
            while self.a.root() != self.b.root() {
                commits.changed().await.expect("the store is open");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("they become equal");
    }

    async fn stop(self) {
        self.a.workers.shutdown().await;
        self.b.workers.shutdown().await;
    }
}

fn draft(n: usize) -> Draft {
    let mut body = text::words(n as u64, POST_BYTES);
    body.truncate(POST_BYTES);
    let changes = Changes::new().set(&post::TITLE, format!("Post {n}")).body(&post::BODY, body);
    Draft::new(changes).expect("a good draft")
}

async fn make_posts(node: &Node, author: Actor, from: usize, count: usize) -> Vec<Id> {
    let mut keys = Vec::with_capacity(count);
    for first in (from..from + count).step_by(GROUP) {
        let last = (first + GROUP).min(from + count);
        let made = node.store.write(move |tx| {
            let posts = (first..last).map(|n| Ok(draft(n).create(tx, &author, None)?.key));
            posts.collect::<Result<Vec<Id>, atoll_node::Error>>()
        });
        keys.extend(made.await.expect("posts are made"));
    }
    keys
}

async fn make_comments(node: &Node, author: Actor, posts: &[Id], count: usize) {
    let posts: Arc<[Id]> = posts.into();
    for first in (0..count).step_by(GROUP) {
        let posts = posts.clone();
        let made = node.store.write(move |tx| {
            for n in first..(first + GROUP).min(count) {
                let changes = Changes::new()
                    .set(&comment::POST_ID, posts[n % posts.len()])
                    .set(&comment::TEXT, text::words(n as u64, 120))
                    .set(&comment::AUTHOR_ID, author.user)
                    .set(&comment::STATUS, comment::APPROVED);
                let key = tx.new_id();
                tx.create(&COMMENT, author.tenant, key, changes)?;
            }
            Ok::<_, atoll_node::Error>(())
        });
        made.await.expect("comments are made");
    }
}

/// One write after another; each is looked for on the peer until it is readable there.
async fn live() -> Json {
    let pair = Pair::start().await;
    let (mut from_commit, mut from_call) = (Histogram::default(), Histogram::default());
    let mut commits = pair.b.node.store.subscribe();
    let mut pace = tokio::time::interval(LIVE_PAUSE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0..LIVE_WRITES {
        pace.tick().await;
        let author = pair.author;
        let called = Instant::now();
        let made = pair.a.node.store.write(move |tx| draft(n).create(tx, &author, None)).await;
        let (key, committed) = (made.expect("a post").key, Instant::now());
        loop {
            commits.mark_unchanged();
            if pair.b.node.store.read(|reader| reader.get(&POST, key)).expect("a read").is_some() {
                break;
            }
            commits.changed().await.expect("the store is open");
        }
        from_commit.record(committed.elapsed().as_micros() as u64);
        from_call.record(called.elapsed().as_micros() as u64);
    }
    pair.stop().await;
    let shown = |times: &Histogram| {
        let ms = |percent| times.percentile_us(percent) as f64 / 1_000.0;
        json!({ "p50_ms": ms(50.0), "p99_ms": ms(99.0), "most_ms": ms(100.0) })
    };
    json!({ "writes": LIVE_WRITES, "from_commit": shown(&from_commit), "from_call": shown(&from_call) })
}

/// Bytes of the link's stream each way, from its first to its last, where nothing is new.
async fn greeting() -> Json {
    let pair = Pair::start().await;
    let mut shown = serde_json::Map::new();
    let mut there = 0;
    for records in [100, 100_000] {
        let posts = make_posts(&pair.a.node, pair.author, there, records / 10).await;
        make_comments(&pair.a.node, pair.author, &posts, records - records / 10 - there).await;
        there = records;
        pair.until_equal().await;
        pair.a.pause(true);
        let runners = [&pair.a, &pair.b].map(|n| n.node.sync().expect("it talks to others"));
        while runners.iter().any(|runner| runner.status()[0].is_linked()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        pair.a.pause(false);
        while !runners.iter().all(|runner| runner.status()[0].is_level()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Shown twice a second; roots are said every five.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let told = runners.map(|runner| runner.status()[0].clone());
        assert_eq!(told[0].sent_bytes, told[1].received_bytes);
        let each = told.map(|status| status.sent_bytes);
        shown.insert(records.to_string(), json!(each));
    }
    pair.stop().await;
    json!({ "stream_bytes_each_way_by_records": shown })
}

/// Ops that come in after the cable was out.
async fn catch_up() -> Json {
    let pair = Pair::start().await;
    let posts = make_posts(&pair.a.node, pair.author, 0, 500).await;
    make_comments(&pair.a.node, pair.author, &posts, 500).await;
    pair.until_equal().await;
    let mut shown = serde_json::Map::new();
    for (what, count) in [("posts", 20_000), ("comments", 80_000)] {
        pair.a.pause(true);
        match what {
            "posts" => drop(make_posts(&pair.a.node, pair.author, 1_000, count).await),
            _ => make_comments(&pair.a.node, pair.author, &posts, count).await,
        }
        let status = || pair.a.node.sync().expect("it talks to others").status()[0].clone();
        let begun = Instant::now();
        pair.a.pause(false);
        pair.until_equal().await;
        let took_s = begun.elapsed().as_secs_f64();
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let per_s = (count as f64 / took_s).round();
        shown.insert(
            what.into(),
            json!({ "ops": count, "ops_per_s": per_s, "stream_bytes": status().sent_bytes }),
        );
    }
    pair.stop().await;
    Json::Object(shown)
}

/// A node in a process of its own; it talks by lines of JSON, and ends when its input does.
struct Apart {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Apart {
    fn start(data: &Path, ticket: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.arg("node").arg(data).arg(ticket).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, input, output }
    }

    fn hear(&mut self) -> Json {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    fn end(mut self) -> Json {
        drop(self.input.take());
        let last = self.hear();
        self.child.wait().expect("it ends");
        last
    }
}

/// Kilobytes of memory at the most, as the system counts them.
fn peak_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

async fn be_a_node(data: &Path, ticket: &str) {
    let running = Running::start(data).await;
    if ticket.is_empty() {
        println!("{}", json!({ "ticket": running.ticket().await }));
    } else {
        let begun = Instant::now();
        running.join(ticket).await;
        let is_level = running.node.sync().expect("it talks to others").level(PATIENCE).await;
        println!("{}", json!({ "is_level": is_level, "took_s": begun.elapsed().as_secs_f64() }));
    }
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    ended.await.expect("the input ends");
    println!("{}", json!({ "root": running.root().to_string(), "peak_kb": peak_kb() }));
    running.workers.shutdown().await;
}

/// In a process of its own, whose end gives the folder free.
async fn be_filled(data: &Path) {
    let full = Running::start(data).await;
    let author = full.set_up().await;
    let posts = make_posts(&full.node, author, 0, 40_000).await;
    make_comments(&full.node, author, &posts, 60_000).await;
    full.workers.shutdown().await;
}

/// A new node and one with 100,000 records.
fn bootstrap() -> Json {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let this = std::env::current_exe().expect("this program");
    let filled = Command::new(this).arg("fill").arg(folders[0].path()).status();
    assert!(filled.expect("it starts").success(), "the full node was not made");
    let mut full = Apart::start(folders[0].path(), "");
    let ticket = full.hear()["ticket"].as_str().expect("a ticket").to_owned();
    let mut new = Apart::start(folders[1].path(), &ticket);
    let told = new.hear();
    assert_eq!(told["is_level"], true, "the new node is not level in time");
    let (of_new, of_full) = (new.end(), full.end());
    assert_eq!(of_new["root"], of_full["root"]);
    json!({
        "posts": 40_000, "comments": 60_000, "took_s": told["took_s"],
        "peak_kb": { "new": of_new["peak_kb"], "full": of_full["peak_kb"] },
    })
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [what, data, ticket] = args.as_slice()
        && what == "node"
    {
        return be_a_node(Path::new(data), ticket).await;
    }
    if let [what, data] = args.as_slice()
        && what == "fill"
    {
        return be_filled(Path::new(data)).await;
    }
    let is_wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let mut report = serde_json::Map::new();
    if is_wanted("live") {
        report.insert("live".into(), live().await);
    }
    if is_wanted("greeting") {
        report.insert("greeting".into(), greeting().await);
    }
    if is_wanted("catch-up") {
        report.insert("catch_up".into(), catch_up().await);
    }
    if is_wanted("bootstrap") {
        report.insert("bootstrap".into(), bootstrap());
    }
    println!("{:#}", Json::Object(report));
}
