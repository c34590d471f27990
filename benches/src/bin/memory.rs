//! What a node with many records holds in memory, at rest and at work, with ten peers linked to it: all are processes of
//! their own. Prints one JSON object. `cargo run --release -p atoll-benches --bin memory [RECORDS] [WHOLE]`: of the ten
//! peers so many carry everything, the others identity and content alone: a tenth.

use atoll_benches::nodes::{Apart, PATIENCE, Running};
use atoll_benches::nodes::{make_comments, make_likes, make_posts, memory_kb};
use atoll_node::{Actor, Role};
use atoll_storage::{Clock, Id};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The one of the binary `atoll`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: usize = 1_000_000;
const PEERS: usize = 10;
const WHOLE: usize = 2;
const POST_BYTES: usize = 512;
const PART: &str = "*/identity,*/content";
/// Written while the links are cut, and then taken by all peers at once.
const NEWS: usize = 20_000;
const REST: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Of ten records one is a post, three are comments, six are likes.
async fn fill(data: &Path, records: usize) {
    let full = Running::start(data).await;
    let author = full.set_up().await;
    write(&full, author, 0, records).await;
    println!(
        "{}",
        json!({ "tenant": author.tenant.to_string(), "user": author.user.map(|u| u.to_string()) })
    );
    full.workers.shutdown().await;
}

async fn write(to: &Running, author: Actor, from: usize, count: usize) {
    let upto = from + count;
    let posts = make_posts(&to.node, author, from / 10..upto / 10, POST_BYTES).await;
    make_comments(&to.node, author, &posts, from * 3 / 10..upto * 3 / 10).await;
    make_likes(&to.node, author, &posts, from * 6 / 10..upto * 6 / 10).await;
}

fn memory() -> Json {
    let kb = |name| memory_kb(name);
    json!({
        "resident_kb": kb("VmRSS"), "most_kb": kb("VmHWM"),
        "of_these_allocated_kb": kb("RssAnon"), "of_these_mapped_files_kb": kb("RssFile"),
        "threads": kb("Threads"),
    })
}

/// From here on the most counts anew.
fn forget_the_most() {
    std::fs::write("/proc/self/clear_refs", "5").expect("the system forgets it");
}

/// A node that does what it is told, a line at a time.
async fn be_a_node(data: &Path, ticket: &str, part: &str, made: &str) {
    let carries: Vec<String> =
        part.split(',').filter(|r| !r.is_empty()).map(str::to_owned).collect();
    let running = Running::start_with(data, &carries, Clock::system()).await;
    let begun = Instant::now();
    if !ticket.is_empty() {
        running.join(ticket).await;
    }
    println!("{}", json!({ "ready": true }));
    let mut next = 0;
    let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    let links = || running.node.sync().expect("it talks to others");
    while let Some(line) = told.recv().await {
        let answer = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["ticket"] => json!({ "ticket": running.ticket().await }),
            ["level", peers] => {
                let peers: usize = peers.parse().expect("a number");
                let limit = Instant::now() + PATIENCE;
                let is_level = || {
                    let status = links().status();
                    status.len() >= peers && status.iter().all(|peer| peer.is_level())
                };
                while !is_level() && Instant::now() < limit {
                    tokio::time::sleep(LOOK).await;
                }
                json!({ "is_level": is_level(), "after_s": begun.elapsed().as_secs_f64() })
            }
            ["pause"] => {
                running.pause(true);
                while links().status().iter().any(|peer| peer.is_linked()) {
                    tokio::time::sleep(LOOK).await;
                }
                json!({})
            }
            ["resume"] => {
                running.pause(false);
                json!({})
            }
            ["write", from, count] => {
                let made: Json = serde_json::from_str(made).expect("who writes");
                let id = |name: &str| Id::parse(made[name].as_str().unwrap_or_default());
                let (tenant, user) = (id("tenant").expect("a tenant"), id("user").expect("a user"));
                let author = Actor::of(tenant, user, Role::Superadmin);
                let from: usize = from.parse().expect("a number");
                write(&running, author, from + next, count.parse().expect("a number")).await;
                next += 1;
                json!({})
            }
            ["forget"] => {
                forget_the_most();
                json!({})
            }
            ["rest"] => {
                tokio::time::sleep(REST).await;
                json!({})
            }
            ["memory"] => memory(),
            ["root"] => json!({ "root": running.root().to_string() }),
            _ => json!({ "unknown": line }),
        };
        println!("{answer}");
    }
    println!("{}", memory());
    running.workers.shutdown().await;
}

fn measure(records: usize, whole: usize) -> Json {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("full");
    let data = data.to_str().expect("a path");
    let this = std::env::current_exe().expect("this program");
    let filled = Command::new(this).args(["fill", data, &records.to_string()]).output();
    let filled = filled.expect("the full node is made");
    assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    let made = String::from_utf8(filled.stdout).expect("a line");
    let mut full = Apart::start(&["node", data, "", "", made.trim()]);
    full.hear();
    let mut report = serde_json::Map::new();
    let mut note = |name: &str, told: Json| {
        eprintln!("{name}: {told}");
        report.insert(name.to_owned(), told);
    };
    full.ask("rest");
    note("alone_at_rest", full.ask("memory"));
    full.ask("forget");
    let mut peers: Vec<Apart> = (0..PEERS)
        .map(|n| {
            let ticket = full.ask("ticket")["ticket"].as_str().expect("a ticket").to_owned();
            let data = folder.path().join(format!("peer-{n}"));
            let part = if n < whole { "" } else { PART };
            let mut peer =
                Apart::start(&["node", data.to_str().expect("a path"), &ticket, part, ""]);
            peer.hear();
            peer
        })
        .collect();
    let level = full.ask(&format!("level {PEERS}"));
    assert_eq!(level["is_level"], true, "the peers are not level in time");
    note("while_all_peers_bootstrap", full.ask("memory"));
    note("all_peers_level", level);
    full.ask("rest");
    full.ask("forget");
    full.ask("rest");
    note("linked_at_rest", full.ask("memory"));
    full.ask("pause");
    full.ask(&format!("write {records} {NEWS}"));
    full.ask("forget");
    full.ask("resume");
    let level = full.ask(&format!("level {PEERS}"));
    assert_eq!(level["is_level"], true, "the peers are not level in time");
    note("while_all_peers_catch_up", full.ask("memory"));
    let root = full.ask("root");
    for peer in peers.iter_mut().take(whole) {
        assert_eq!(peer.ask("root"), root);
    }
    full.ask("rest");
    full.ask("forget");
    full.ask("rest");
    note("linked_at_rest_after_that", full.ask("memory"));
    for (n, peer) in peers.into_iter().enumerate() {
        let told = peer.end();
        if n == 0 {
            note("the_first_peer", told);
        }
    }
    full.end();
    json!({ "records": records, "peers": PEERS, "whole": whole, "memory": report })
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().expect("a number");
    let report = match words[..] {
        ["node", data, ticket, part, made] => {
            return be_a_node(Path::new(data), ticket, part, made).await;
        }
        ["fill", data, records] => return fill(Path::new(data), number(records)).await,
        [] => measure(RECORDS, WHOLE),
        [records] => measure(number(records), WHOLE),
        [records, whole, ..] => measure(number(records), number(whole)),
    };
    println!("{report:#}");
}
