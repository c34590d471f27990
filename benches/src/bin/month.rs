//! Two nodes that were a month apart, and both were written to: how long they take to become equal, and what goes over
//! the wire for it, against the ops of both encoded and compressed by zstd in one go. Prints one JSON object.
//! `cargo run --release -p atoll-benches --bin month [CHANGES]`. Bytes on the wire are those of the loopback device, with
//! all headers: run it in a network namespace of its own (`unshare -n sh -c 'ip link set lo up && ...'`).

use atoll_benches::nodes::{Pair, Running, in_groups, make_comments, make_likes, make_posts};
use atoll_benches::text;
use atoll_node::Actor;
use atoll_node::community::comment::{self, COMMENT};
use atoll_node::community::like::LIKE;
use atoll_node::content::post::{self, POST};
use atoll_storage::{Changes, Clock, Id, Lane, Op, Read, Replica, StreamId, Vector, codec};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The one of the binary `atoll`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANGES: usize = 100_000;
const POST_BYTES: usize = 2_048;
const DAY_MS: u64 = 24 * 3_600 * 1_000;
const DAYS: u64 = 30;

/// What both had before.
struct Shared {
    posts: Vec<Id>,
    comments: Vec<Id>,
    likes: Vec<Id>,
}

/// Of a hundred changes: 10 posts, 5 titles, 5 texts of posts with a sentence more, 40 comments, 4 edits of comments, 30
/// likes, 3 comments and 3 likes taken back. Both sides change the same old posts.
async fn change(on: &Running, author: Actor, old: &Shared, side: usize, changes: usize) -> usize {
    let first = (side + 1) * 10_000_000;
    let part = |percent: usize| changes * percent / 100;
    let node = &on.node;
    let posts = make_posts(node, author, first..first + part(10), POST_BYTES).await;
    let all: Arc<[Id]> = old.posts.as_slice().into();
    let (of_titles, of_texts) = (all.clone(), all);
    in_groups(node, 0..part(5), move |tx, n| {
        let title = Changes::new().set(&post::TITLE, format!("Renamed {n} by {side}"));
        Ok(tx.edit(&POST, of_titles[n % of_titles.len()], title)?.key)
    })
    .await;
    in_groups(node, 0..part(5), move |tx, n| {
        let key = of_texts[n % of_texts.len()];
        let post = tx.get_full(&POST, key)?;
        let text = post.as_ref().map_or("", |post| post.body(&post::BODY));
        let more = format!("{text}\n{}", text::words((first + n) as u64, 60));
        Ok(tx.edit(&POST, key, Changes::new().body(&post::BODY, more))?.key)
    })
    .await;
    let targets = [posts.as_slice(), &old.posts].concat();
    make_comments(node, author, &targets, first..first + part(40)).await;
    let comments: Arc<[Id]> = old.comments.as_slice().into();
    let (edited, removed, likes) = (comments.clone(), comments, Arc::<[Id]>::from(&*old.likes));
    in_groups(node, 0..part(4), move |tx, n| {
        let changes = Changes::new().set(&comment::TEXT, text::words((first + n) as u64, 100));
        Ok(tx.edit(&COMMENT, edited[n % edited.len()], changes)?.key)
    })
    .await;
    make_likes(node, author, &targets, first..first + part(30)).await;
    // Each side its own half, and none that was edited.
    let half = move |n: usize, len: usize| len - 1 - (2 * n + side) % len;
    in_groups(node, 0..part(3), move |tx, n| {
        Ok(tx.remove(&COMMENT, removed[half(n, removed.len())])?)
    })
    .await;
    in_groups(node, 0..part(3), move |tx, n| Ok(tx.remove(&LIKE, likes[half(n, likes.len())])?))
        .await;
    [10, 5, 5, 40, 4, 30, 3, 3].map(part).iter().sum()
}

fn vectors(on: &Running) -> BTreeMap<StreamId, Vector> {
    let heads = on.node.store.clone().heads(None).expect("the heads");
    heads.into_iter().map(|head| (head.stream, head.vector)).collect()
}

/// All ops that `known` lacks.
fn ops_since(on: &Running, known: &BTreeMap<StreamId, Vector>) -> Vec<Op> {
    let mut store = on.node.store.clone();
    let mut all = Vec::new();
    for lane in [Lane::Urgent, Lane::Rest] {
        let mut from = 0;
        loop {
            let batch = store.ops(lane, from, known, 1_000, 1 << 20).expect("ops of the log");
            all.extend(batch.ops);
            if batch.next_pos <= from {
                break;
            }
            from = batch.next_pos;
        }
    }
    all
}

/// Bytes that left the loopback device of this network namespace, with all headers, and packets.
fn on_the_wire() -> [u64; 2] {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let figures: Vec<u64> =
        line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    [8, 9].map(|column| figures.get(column).copied().unwrap_or(0))
}

fn stream_bytes(on: &Running) -> u64 {
    on.node.sync().expect("it talks to others").status()[0].sent_bytes
}

async fn until_unlinked(pair: &Pair) {
    for on in [&pair.a, &pair.b] {
        while on.node.sync().expect("it talks to others").status()[0].is_linked() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn measure(changes: usize) -> Json {
    let days = Arc::new(AtomicU64::new(0));
    let (system, moved) = (Clock::system(), days.clone());
    let clock = Clock::from_fn(move || system.now_ms() + moved.load(Ordering::Relaxed) * DAY_MS);
    let pair = Pair::start_at(&clock).await;
    let posts = make_posts(&pair.a.node, pair.author, 0..5_000, POST_BYTES).await;
    let comments = make_comments(&pair.a.node, pair.author, &posts, 0..20_000).await;
    let likes = make_likes(&pair.a.node, pair.author, &posts, 0..20_000).await;
    let old = Shared { posts, comments, likes };
    pair.until_equal().await;
    let known = vectors(&pair.a);
    pair.a.pause(true);
    pair.b.pause(true);
    until_unlinked(&pair).await;
    let mut made = 0;
    for (side, on) in [&pair.a, &pair.b].into_iter().enumerate() {
        days.store(DAYS / 2 + side as u64 * 7, Ordering::Relaxed);
        made += change(on, pair.author, &old, side, changes / 2).await;
    }
    days.store(DAYS, Ordering::Relaxed);
    let both = [ops_since(&pair.a, &known), ops_since(&pair.b, &known)];
    let ops = both.each_ref().map(Vec::len);
    let encoded = codec::encode(&both.concat());
    let compressed = zstd::bulk::compress(&encoded, 3).expect("it is compressed").len();
    let before = on_the_wire();
    let begun = Instant::now();
    pair.b.pause(false);
    pair.a.pause(false);
    pair.until_equal().await;
    let took_s = begun.elapsed().as_secs_f64();
    let after = on_the_wire();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let streams = [stream_bytes(&pair.a), stream_bytes(&pair.b)];
    let verified = [&pair.a, &pair.b].map(|on| on.root().to_string());
    assert_eq!(verified[0], verified[1]);
    pair.stop().await;
    let wire = after[0] - before[0];
    let ratio = |bytes: u64| (bytes as f64 / compressed as f64 * 1_000.0).round() / 1_000.0;
    json!({
        "changes": made, "ops": ops, "encoded_bytes": encoded.len(), "compressed_bytes": compressed,
        "took_s": took_s,
        "stream_bytes": streams, "stream_ratio": ratio(streams[0] + streams[1]),
        "wire_bytes": wire, "wire_packets": after[1] - before[1], "wire_ratio": ratio(wire),
    })
}

#[tokio::main]
async fn main() {
    let changes = std::env::args().nth(1).map_or(CHANGES, |n| n.parse().expect("a number"));
    println!("{:#}", measure(changes).await);
}
