//! Real nodes over QUIC on loopback: how soon a commit is readable on the peer, what a greeting with nothing new costs,
//! how fast a peer's ops come in, and how long a new node takes to have everything, with the memory of both.
//! Prints one JSON object. `cargo run --release -p atoll-benches --bin network [live|greeting|catch-up|bootstrap|documents]`:
//! without a name all five. `documents` is a bootstrap of 10,000 posts and nothing else. The nodes of bootstraps are processes
//! of their own.

use atoll_benches::histogram::Histogram;
use atoll_benches::nodes::{Apart, PATIENCE, POST_BYTES, Pair, Running};
use atoll_benches::nodes::{draft, make_comments, make_posts, memory_kb};
use atoll_node::content::post::POST;
use atoll_storage::Read;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The one of the binary `atoll`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LIVE_WRITES: usize = 1_000;
/// Between two of them.
const LIVE_PAUSE: Duration = Duration::from_millis(15);

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
        let made =
            pair.a.node.store.write(move |tx| draft(n, POST_BYTES).create(tx, &author, None)).await;
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
        let posts =
            make_posts(&pair.a.node, pair.author, there..there + records / 10, POST_BYTES).await;
        let comments = there..records - records / 10;
        make_comments(&pair.a.node, pair.author, &posts, comments).await;
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
    let posts = make_posts(&pair.a.node, pair.author, 0..500, POST_BYTES).await;
    make_comments(&pair.a.node, pair.author, &posts, 0..500).await;
    pair.until_equal().await;
    let mut shown = serde_json::Map::new();
    for (what, count) in [("posts", 20_000), ("comments", 80_000)] {
        pair.a.pause(true);
        let news = 1_000..1_000 + count;
        let _keys = match what {
            "posts" => make_posts(&pair.a.node, pair.author, news, POST_BYTES).await,
            _ => make_comments(&pair.a.node, pair.author, &posts, news).await,
        };
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

/// A full node tells a ticket and its root. A new one tells how long it took until its root was the same: from joining,
/// and from when the link stood.
async fn be_a_node(data: &Path, ticket: &str, root: &str) {
    let running = Running::start(data).await;
    if ticket.is_empty() {
        // At rest, as one is that others come to: not at work on the index of what it was just filled with.
        while running.node.store.unindexed_depth().expect("a read") > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let root = running.root().to_string();
        println!("{}", json!({ "ticket": running.ticket().await, "root": root }));
    } else {
        let mut commits = running.node.store.subscribe();
        let begun = Instant::now();
        running.join(ticket).await;
        let links = running.node.sync().expect("it talks to others");
        while !links.status().iter().any(|peer| peer.is_linked()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let linked = Instant::now();
        let coming = async {
            while running.root().to_string() != root {
                commits.changed().await.expect("the store is open");
            }
        };
        let is_equal = tokio::time::timeout(PATIENCE, coming).await.is_ok();
        let [took_s, linked_s] = [begun, linked].map(|since| since.elapsed().as_secs_f64());
        println!("{}", json!({ "is_equal": is_equal, "took_s": took_s, "linked_s": linked_s }));
    }
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().lines().count());
    ended.await.expect("the input ends");
    println!("{}", json!({ "root": running.root().to_string(), "peak_kb": memory_kb("VmHWM") }));
    running.workers.shutdown().await;
}

/// In a process of its own, whose end gives the folder free.
async fn be_filled(data: &Path, posts: usize, comments: usize) {
    let full = Running::start(data).await;
    let author = full.set_up().await;
    let posts = make_posts(&full.node, author, 0..posts, POST_BYTES).await;
    make_comments(&full.node, author, &posts, 0..comments).await;
    full.workers.shutdown().await;
}

/// A new node, and one with so many posts and comments.
fn bootstrap(posts: usize, comments: usize) -> Json {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let [full, new] = folders.each_ref().map(|folder| folder.path().to_str().expect("a path"));
    let this = std::env::current_exe().expect("this program");
    let counts = [posts, comments].map(|count| count.to_string());
    let filled = Command::new(this).args(["fill", full]).args(&counts).status();
    assert!(filled.expect("it starts").success(), "the full node was not made");
    let mut full = Apart::start(&["node", full, "", ""]);
    let told = full.hear();
    let told = |name: &str| told[name].as_str().expect("a word").to_owned();
    let mut new = Apart::start(&["node", new, &told("ticket"), &told("root")]);
    let took = new.hear();
    assert_eq!(took["is_equal"], true, "the new node is not equal in time");
    let (of_new, of_full) = (new.end(), full.end());
    assert_eq!(of_new["root"], of_full["root"]);
    let linked_s = took["linked_s"].as_f64().expect("a time");
    json!({
        "posts": posts, "comments": comments, "took_s": took["took_s"], "linked_s": linked_s,
        "records_per_s": ((posts + comments) as f64 / linked_s).round(),
        "peak_kb": { "new": of_new["peak_kb"], "full": of_full["peak_kb"] },
    })
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["node", data, ticket, root] => return be_a_node(Path::new(data), ticket, root).await,
        ["fill", data, posts, comments] => {
            let [posts, comments] = [posts, comments].map(|n| n.parse().expect("a number"));
            return be_filled(Path::new(data), posts, comments).await;
        }
        _ => {}
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
        report.insert("bootstrap".into(), bootstrap(40_000, 60_000));
    }
    if is_wanted("documents") {
        report.insert("documents".into(), bootstrap(10_000, 0));
    }
    println!("{:#}", Json::Object(report));
}
