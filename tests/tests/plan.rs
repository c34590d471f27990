//! What an operator is told: what is missing where, and why it does not come. Each reason is provoked on real nodes and
//! sockets.

use atoll_node::{Actor, peer};
use atoll_storage::peer::add;
use atoll_storage::tx::Tx;
use atoll_storage::{Clock, Digest, Id, Origin, Read};
use atoll_sync::key::{NodeKey, PublicKey};
use atoll_sync::message::{Hello, Message};
use atoll_sync::quic::{Admission, Endpoint};
use atoll_tests::harness::{ADMIN_EMAIL, PASSWORD};
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);
const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The plan's row about the peer of this name.
async fn row(admin: &Client, name: &str) -> Json {
    let plan = admin.get("/api/v1/sync/plan").await.expect(200).data();
    let rows = plan.as_array().unwrap();
    rows.iter()
        .find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("{name} in {plan}"))
        .clone()
}

/// Asks until the row says so. The node answers at once, so this is no faster than it.
async fn until(admin: &Client, name: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    let mut last = Json::Null;
    let wait = async {
        loop {
            last = row(admin, name).await;
            if is_so(&last) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, wait).await;
    assert!(came.is_ok(), "{name} is still {last}");
    last
}

fn words(row: &Json) -> String {
    row["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

async fn list(node: &TestNode, key: PublicKey, name: &'static str, address: Option<String>) {
    let listed =
        node.node.store.write(move |tx: &mut Tx| add(tx, &key.0, name, address.as_deref()));
    listed.await.unwrap();
}

/// A node that admits everybody in its own way, with its address.
fn door(admission: Admission) -> (Endpoint, String) {
    let key = NodeKey::generate().unwrap();
    let nobody = |_| -> atoll_sync::quic::JoinFuture {
        Box::pin(async { Err("nobody joins here".to_owned()) })
    };
    let admit = Arc::new(move |_: &PublicKey| admission);
    let endpoint = Endpoint::bind(LOOPBACK, &key, admit, Arc::new(nobody)).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    (endpoint, address)
}

/// Links with whoever dials, and says hello as a release of the far future.
async fn speak_of_the_future(endpoint: Endpoint) {
    while let Some(mut link) = endpoint.accept().await {
        let hello = Hello {
            version: 99,
            oldest_version: 98,
            origin: Origin::default(),
            root: Digest::default(),
            time_ms: 0,
            name: "future".to_owned(),
            seen: false,
        };
        // It hangs up when it has read that, if not before.
        let _ = link.send.send(&Message::Hello(hello).encode()).await;
        while let Ok(Some(_)) = link.recv.recv().await {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_why_a_peer_is_not_reached_is_told_by_its_name() {
    let test = TestNode::start().await;
    let key = || NodeKey::generate().unwrap().public();
    // Keeps its port, and answers nothing: as behind a firewall.
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    // A port that was free a moment ago, and is so again.
    let closed = std::net::UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap().to_string();
    let (other, other_at) = door(Admission::Peer);
    let (strict, strict_at) = door(Admission::Revoked);
    let (strange, strange_at) = door(Admission::Stranger);
    let (future, future_at) = door(Admission::Peer);
    for (name, key, address) in [
        ("silent", key(), Some(silent.local_addr().unwrap().to_string())),
        ("closed", key(), Some(closed)),
        ("nameless", key(), Some("no-such-host.invalid:8081".to_owned())),
        ("distant", key(), None),
        ("impostor", key(), Some(other_at)),
        ("strict", strict.public_key(), Some(strict_at)),
        ("strange", strange.public_key(), Some(strange_at)),
        ("future", future.public_key(), Some(future_at)),
    ] {
        list(&test, key, name, address).await;
    }
    let speaking = tokio::spawn(speak_of_the_future(future));
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    for (name, obstacle, told) in [
        ("closed", "nobody_listens", "start the node there"),
        ("silent", "no_answer", "UDP port"),
        ("nameless", "name_unknown", "check the name"),
        ("distant", "no_address", "it has to dial this node"),
        ("impostor", "wrong_key", "somebody else answers"),
        ("strict", "revoked", "new data folder"),
        ("strange", "ticket_needed", "get a ticket"),
        ("future", "version", "upgrade the older"),
    ] {
        let row = until(&admin, name, |row| row["obstacle"] == obstacle).await;
        assert!(words(&row).contains(told), "{row}");
        assert!(words(&row).contains("is not known"), "nothing was heard of it: {row}");
    }
    test.node.sync().unwrap().pause();
    let row = until(&admin, "closed", |row| row["obstacle"] == "paused").await;
    assert!(words(&row).contains("paused on this node"), "{row}");
    test.user("edith", atoll_node::Role::Admin)
        .await
        .get("/api/v1/sync/plan")
        .await
        .refused(403, "denied");
    speaking.abort();
    drop(other);
    workers.shutdown().await;
}

async fn join(to: &TestNode, with: &TestNode) {
    let system = Actor::system(Id::NIL);
    let issued = peer::ticket(&to.node, &system, Duration::from_secs(600), vec![]).await.unwrap();
    peer::join(&with.node, &system, &issued.line).await.unwrap();
}

/// The file cannot grow any more, or may again.
async fn fill_disk(node: &TestNode, pages: u32) {
    let limit = format!("PRAGMA max_page_count = {pages}");
    let limited = node.node.store.write(move |tx: &mut Tx| {
        tx.conn().execute_batch(&limit).map_err(atoll_storage::Error::from)
    });
    limited.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_where_a_clock_that_is_off_and_a_full_disk_are_told_on_both_sides() {
    let a = TestNode::start_with(|config| config.name = "core".to_owned()).await;
    let ahead = Clock::from_fn(|| Clock::system().now_ms() + 9 * 60_000);
    let b = TestNode::start_empty_at(ahead).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    let of_a = a.admin().await;
    let level =
        until(&of_a, "atoll", |row| row["state"] == "level" && row["since"].is_string()).await;
    assert!(words(&level).contains("hold the same"), "{level}");
    let off = until(&of_a, "atoll", |row| words(row).contains("ahead of this one's")).await;
    assert!(words(&off).contains("9 minutes ahead"), "{off}");
    let stranger = b.stranger();
    let of_b = stranger.login(ADMIN_EMAIL, PASSWORD).await;

    fill_disk(&b, 1).await;
    // What does not become shorter in the log.
    let body: String =
        (0..6_000_u32).map(|n| Id::natural(&[&n.to_le_bytes()]).to_string()).collect();
    let draft = json!({ "title": "Too much", "body": body });
    let post = of_a.post("/api/v1/posts", &draft).await.expect(201).data();
    let there = until(&of_a, "atoll", |row| row["obstacle"] == "disk_full_there").await;
    assert!(words(&there).contains("free some space on that machine"), "{there}");
    let here = until(&of_b, "core", |row| row["obstacle"] == "disk_full_here").await;
    assert!(words(&here).contains("free some space on this machine"), "{here}");
    let lacking = until(&of_a, "atoll", |row| row["missing_there_ops"].as_u64() > Some(0)).await;
    let gaps = lacking["streams"].as_array().unwrap();
    let gap = gaps.iter().find(|gap| gap["scope"] == "content").expect("the post is lacking");
    assert_eq!(gap["missing_here_ops"], 0, "{lacking}");
    assert!(words(&lacking).contains("atoll lacks"), "{lacking}");
    let arrival = format!("/api/v1/posts/{}/arrival", post["id"].as_str().unwrap());
    let rows = of_a.get(&arrival).await.expect(200).data();
    assert_eq!((&rows[0]["arrived"], &rows[1]["arrived"]), (&true.into(), &false.into()), "{rows}");

    fill_disk(&b, 1 << 30).await;
    peer::sync_now(&a.node, &Actor::system(Id::NIL)).unwrap();
    peer::sync_now(&b.node, &Actor::system(Id::NIL)).unwrap();
    until(&of_a, "atoll", |row| row["state"] == "level").await;
    let arrived = async {
        while of_a.get(&arrival).await.expect(200).data()[1]["arrived"] != true {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("the post has arrived");
    for worker in workers {
        worker.shutdown().await;
    }
}
