//! Pictures of users on whole nodes that meet over QUIC on loopback: fetched at once or when somebody asks, dropped
//! when room is needed, told about when they cannot be had.

use atoll_node::blob::policy::Policy;
use atoll_node::config::Policies;
use atoll_node::identity::{self, user};
use atoll_node::runtime::Workers;
use atoll_node::{Actor, Config, Node, Role, blob, peer};
use atoll_storage::blob::BlobId;
use atoll_storage::reference::{self, Counts};
use atoll_storage::{Changes, Clock, Id, Read};
use atoll_tests::harness::{ADMIN_EMAIL, PASSWORD};
use atoll_tests::{Client, TestNode};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR_MS: u64 = 3_600_000;

fn with(policy: Policy, quota_bytes: u64) -> impl FnOnce(&mut Config) {
    move |config| {
        config.blobs.policy = Policies(vec![("identity".to_owned(), policy)]);
        config.blobs.quota_bytes = quota_bytes;
        config.blobs.keep_free_bytes = 0;
    }
}

async fn join(to: &TestNode, with: &TestNode) {
    let system = Actor::system(Id::NIL);
    let issued = peer::ticket(&to.node, &system, Duration::from_secs(600), vec![]).await.unwrap();
    peer::join(&with.node, &system, &issued.line).await.unwrap();
}

/// Looks again and again until it is so.
async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes about");
}

fn root(node: &TestNode) -> atoll_storage::Digest {
    node.node.store.read(|reader| reader.root()).unwrap()
}

fn counts(node: &TestNode) -> Counts {
    node.node.store.read(|reader| reference::counts(reader)).unwrap()
}

fn is_linked(node: &TestNode) -> bool {
    !node.node.exchange.peers().is_empty()
}

/// A picture of one pixel in a colour of its own.
fn gif(colour: u8) -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\x00\x01\x00\x80\x00\x00".to_vec();
    bytes.extend([colour, 100, 255 - colour, 0, 0, 0]);
    bytes.extend(b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b");
    bytes
}

/// A new user with a picture: the path that shows it, and its blob.
async fn pictured(node: &TestNode, name: &str, colour: u8) -> (String, BlobId) {
    let user = node.user(name, Role::Viewer).await;
    (picture(&user, colour).await, blob_of(&user).await)
}

async fn picture(user: &Client, colour: u8) -> String {
    let path = "/api/v1/users/profile/avatar";
    user.send("PUT", path, &[("content-type", "image/gif")], &gif(colour)).await.expect(200);
    let me = user.get("/api/v1/auth/me").await.expect(200).data();
    format!("/api/v1/users/{}/avatar", me["id"].as_str().unwrap())
}

async fn blob_of(user: &Client) -> BlobId {
    let me = user.get("/api/v1/auth/me").await.expect(200).data();
    BlobId::parse(me["avatar"].as_str().unwrap()).unwrap()
}

async fn stop(workers: impl IntoIterator<Item = Workers>) {
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_comes_by_itself_and_is_looked_for_again_when_it_is_lost() {
    let a = TestNode::start().await;
    let b = TestNode::start_empty(|config| config.blobs.keep_free_bytes = 0).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    let (path, id) = pictured(&a, "ada", 1).await;
    until(|| b.node.blobs.path(&id).is_some() && counts(&b).missing == 0).await;
    let of_a = a.stranger().get(&path).await.expect(200).body;
    assert_eq!(b.stranger().get(&path).await.expect(200).body, of_a);
    until(|| counts(&a).missing == 0).await;
    assert_eq!(counts(&a), Counts { named: 1, missing: 0, resting: 0 });

    let admin = Client { address: b.address, ..a.admin().await };
    until(|| root(&a) == root(&b)).await;
    let shown = admin.get("/api/v1/sync/blobs").await.expect(200).data();
    assert_eq!((&shown["wanted"], &shown["here"]), (&json!(1), &json!(1)));
    assert_eq!(shown["fetched_bytes"], of_a.len());
    assert_eq!(shown["transfers"], json!([]));
    let file = admin.get(&format!("/api/v1/sync/blobs/{id}")).await.expect(200);
    assert_eq!(file.body, of_a);
    b.stranger().get(&format!("/api/v1/sync/blobs/{id}")).await.refused(401, "unauthenticated");
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_took_away_is_looked_for_from_the_next_start_on() {
    let folder = tempfile::tempdir().unwrap();
    let any = ([127, 0, 0, 1], 0).into();
    let config = || {
        let data = folder.path().to_owned();
        Config { data, listen: any, sync_listen: any, ..Config::default() }
    };
    let missing =
        |node: &Node| node.store.read(|reader| reference::counts(reader)).unwrap().missing;
    let node = Node::open(config()).unwrap();
    let made = identity::setup(&node, ADMIN_EMAIL, PASSWORD).await.unwrap();
    let id = node.blobs.put(b"a picture").unwrap();
    let changes = Changes::new().set(&user::AVATAR, id.to_string());
    let named = node.store.write(move |tx| tx.edit(&user::USER, made.user.key, changes).map(drop));
    let named: atoll_storage::Result<()> = named.await;
    named.unwrap();
    let workers = node.start().await.unwrap();
    until(|| missing(&node) == 0).await;
    stop([workers]).await;
    drop(node);

    std::fs::remove_dir_all(folder.path().join("blobs")).unwrap();
    let node = Node::open(config()).unwrap();
    assert_eq!(missing(&node), 0);
    let workers = node.start().await.unwrap();
    until(|| missing(&node) == 1).await;
    stop([workers]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_file_comes_when_somebody_asks_and_says_why_it_cannot() {
    let a = TestNode::start().await;
    let b = TestNode::start_empty(with(Policy::Lazy, 0)).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    let (path, id) = pictured(&a, "ada", 1).await;
    let (other_path, other) = pictured(&a, "bea", 2).await;
    until(|| counts(&b) == Counts { named: 2, missing: 2, resting: 2 }).await;
    let of_a = a.stranger().get(&path).await.expect(200).body;
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (stranger, path) = (b.stranger(), path.clone());
            tokio::spawn(async move { stranger.get(&path).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap().expect(200).body, of_a);
    }
    assert_eq!(b.node.exchange.figures().fetched_bytes, of_a.len() as u64);
    assert!(b.node.blobs.path(&other).is_none());

    a.node.sync().unwrap().pause();
    until(|| !is_linked(&b)).await;
    let refused = b.stranger().get(&other_path).await;
    assert!(refused.header("retry-after").is_some());
    refused.refused(503, "blob_unreachable");
    a.node.sync().unwrap().resume();
    peer::sync_now(&b.node, &Actor::system(Id::NIL)).unwrap();
    until(|| is_linked(&b)).await;
    a.node.blobs.remove(&other).unwrap();
    let refused = b.stranger().get(&other_path).await;
    assert!(refused.text().contains("none of the nodes"), "{}", refused.text());
    refused.refused(404, "not_found");
    assert!(b.node.blobs.path(&id).is_some());
    stop(workers).await;
}

/// When two nodes dial each other at once, one of the two links takes the other's place.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_while_one_link_takes_the_place_of_another() {
    let a = TestNode::start().await;
    let b = TestNode::start_empty(with(Policy::Lazy, 0)).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    let user = a.user("ada", Role::Viewer).await;
    for colour in 1..=30 {
        let path = picture(&user, colour).await;
        let id = blob_of(&user).await;
        until(|| root(&a) == root(&b)).await;
        a.node.sync().unwrap().pause();
        until(|| !is_linked(&a) && !is_linked(&b)).await;
        a.node.sync().unwrap().resume();
        for node in [&a, &b] {
            peer::sync_now(&node.node, &Actor::system(Id::NIL)).unwrap();
        }
        until(|| b.node.sync().unwrap().status()[0].is_linked()).await;
        b.stranger().get(&path).await.expect(200);
        assert!(b.node.blobs.path(&id).is_some());
    }
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_never_kept_is_not_here() {
    let a = TestNode::start().await;
    let b = TestNode::start_empty(with(Policy::Never, 0)).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    let (path, id) = pictured(&a, "ada", 1).await;
    until(|| counts(&b).resting == 1).await;
    b.stranger().get(&path).await.refused(404, "not_found");
    assert!(b.node.blobs.path(&id).is_none());
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_goes_when_room_is_needed_and_the_only_copy_never() {
    let a = TestNode::start_with(with(Policy::Lazy, 0)).await;
    let (first_path, first) = pictured(&a, "ada", 1).await;
    let (second_path, second) = pictured(&a, "bea", 2).await;
    let (third_path, third) = pictured(&a, "cai", 3).await;
    let size = a.node.blobs.size_bytes(&first).unwrap().unwrap();
    let b = TestNode::start_empty(with(Policy::Lazy, 2 * size + size / 2)).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    until(|| counts(&b) == Counts { named: 3, missing: 3, resting: 3 }).await;
    let reader = b.stranger();
    for path in [&first_path, &second_path] {
        reader.get(path).await.expect(200);
    }
    // The second has not been used for longer.
    let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    b.node.blobs.note_used(&second, used).unwrap();
    reader.get(&third_path).await.expect(200);
    let is_here = |id: &BlobId| b.node.blobs.path(id).is_some();
    assert_eq!([&first, &second, &third].map(is_here), [true, false, true]);
    assert!(b.node.blobs.total_bytes().unwrap() <= 2 * size + size / 2);
    assert_eq!(counts(&b), Counts { named: 3, missing: 1, resting: 1 });

    // What was made here, and what no other node has, fills the quota.
    a.node.blobs.remove(&first).unwrap();
    a.node.blobs.remove(&third).unwrap();
    reader.get(&second_path).await.refused(503, "blob_no_room");
    assert_eq!([&first, &second, &third].map(is_here), [true, false, true]);
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_file_is_not_dropped() {
    let a = TestNode::start().await;
    let (_, id) = pictured(&a, "ada", 1).await;
    let b = TestNode::start_empty(with(Policy::Pin, 1)).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    let bytes = std::fs::read(a.node.blobs.path(&id).unwrap()).unwrap();
    b.node.blobs.put(&bytes).unwrap();
    join(&a, &b).await;
    let (path, other) = pictured(&a, "bea", 2).await;
    until(|| counts(&b).named == 2 && counts(&b).missing == 1).await;
    b.stranger().get(&path).await.refused(503, "blob_no_room");
    assert!(b.node.blobs.path(&id).is_some() && b.node.blobs.path(&other).is_none());
    stop(workers).await;
}

#[tokio::test]
async fn what_no_record_names_goes_after_a_day() {
    let ahead_ms = Arc::new(AtomicU64::new(0));
    let turned = ahead_ms.clone();
    let clock = Clock::from_fn(move || Clock::system().now_ms() + turned.load(Ordering::Relaxed));
    let a = TestNode::start_at(clock).await;
    let (path, named) = pictured(&a, "ada", 1).await;
    let loose = a.node.blobs.put(b"nobody names this").unwrap();
    let sweep = || blob::sweep(&a.node).unwrap();
    let later = |hours: u64| ahead_ms.fetch_add(hours * HOUR_MS, Ordering::Relaxed);
    let node = &a.node;
    assert_eq!(sweep(), 0);
    later(23);
    assert_eq!(sweep(), 0);
    later(2);
    // It is put again meanwhile, and so as good as new.
    a.node.blobs.put(b"nobody names this").unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(node.clock.now_ms());
    node.blobs.note_used(&loose, now).unwrap();
    assert_eq!(sweep(), 0);
    later(25);
    assert_eq!(sweep(), 1);
    assert!(node.blobs.path(&loose).is_none());
    a.stranger().get(&path).await.expect(200);

    // The picture is taken away, and named by nothing from then on.
    let ada = a.stranger().login("ada", PASSWORD).await;
    assert_eq!(ada.delete("/api/v1/users/profile/avatar").await.status, 204);
    assert_eq!(sweep(), 0);
    later(25);
    assert_eq!(sweep(), 1);
    assert!(node.blobs.path(&named).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_says_so_and_its_peers_see_it() {
    let a = TestNode::start().await;
    let b = TestNode::start_empty(|config| config.blobs.keep_free_bytes = 1 << 60).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    let (path, _) = pictured(&a, "ada", 1).await;
    until(|| counts(&b).named == 1 && root(&a) == root(&b)).await;
    b.stranger().get(&path).await.refused(503, "blob_no_room");
    let admin = a.admin().await;
    until(|| a.node.exchange.peers().first().is_some_and(|(_, is_full)| *is_full)).await;
    let peers = admin.get("/api/v1/sync/peers").await.expect(200).data();
    assert_eq!(peers[0]["disk_full"], true);
    assert_eq!(admin.get("/api/v1/sync/status").await.expect(200).data()["disk_full"], false);
    let there = Client { address: b.address, ..admin };
    until(|| root(&a) == root(&b)).await;
    assert_eq!(there.get("/api/v1/sync/status").await.expect(200).data()["disk_full"], true);
    let metrics = b.stranger().get("/metrics").await.text();
    assert!(metrics.contains("atoll_disk_full 1") && metrics.contains("atoll_blobs_missing 1"));
    stop(workers).await;
}
