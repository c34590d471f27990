//! Peers that may not do everything: what reaches them and what is taken from them, until when, and who may say so.

use super::{join, root, until};
use atoll_node::courier::{self, Order};
use atoll_node::runtime::Workers;
use atoll_node::{Actor, Role, kinds, peer};
use atoll_storage::blob::BlobId;
use atoll_storage::{
    Changes, Clock, Field, Id, Kind, Lane, Op, Read, Replica, Store, StreamId, Value, Vector, codec,
};
use atoll_sync::bundle::{self, Volume};
use atoll_sync::runner::PeerStatus;
use atoll_tests::harness::{Client, TestNode};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MS: u64 = 3_600_000;

fn system() -> Actor {
    Actor::system(Id::NIL)
}

async fn join_to(to: &TestNode, with: &TestNode, asked: Json) {
    let asked = serde_json::from_value(asked).unwrap();
    let issued = peer::ticket_for(&to.node, &system(), HOUR, vec![], &asked).await.unwrap();
    peer::join(&with.node, &system(), &issued.line).await.unwrap();
}

async fn grant(on: &TestNode, to: &TestNode, asked: Json) -> Json {
    let path = format!("/api/v1/sync/peers/{}/grant", to.node.id());
    on.admin().await.put(&path, &asked).await.expect(200).data()
}

fn status(node: &TestNode, other: &TestNode) -> PeerStatus {
    let all = node.node.sync().unwrap().status();
    all.into_iter().find(|peer| peer.node == other.node.id()).expect("it is a peer")
}

fn is_level(node: &TestNode, other: &TestNode) -> bool {
    status(node, other).is_level()
}

fn obstacle(node: &TestNode, other: &TestNode) -> Option<&'static str> {
    status(node, other).obstacle.map(|obstacle| obstacle.name())
}

fn vector(node: &TestNode, scope: &str) -> Vector {
    let streams = node.node.store.read(|reader| reader.streams()).unwrap();
    let meant = StreamId::new(node.tenant, scope);
    streams
        .into_iter()
        .find(|head| head.stream == meant)
        .map(|head| head.vector)
        .unwrap_or_default()
}

async fn write_post(client: &Client, title: &str) -> Json {
    client.post("/api/v1/posts", &json!({ "title": title, "body": "x" })).await.expect(201).data()
}

fn path_of(post: &Json) -> String {
    format!("/api/v1/posts/{}", post["id"].as_str().unwrap())
}

/// The sentences of the plan of `on` about `about`.
fn words(on: &TestNode, about: &TestNode) -> String {
    let plans = peer::plan(&on.node, &system()).unwrap();
    let plan = plans.into_iter().find(|plan| plan.peer.node == about.node.id()).unwrap();
    plan.words.join(" ")
}

/// A node that lets everything, and one that it lets do what is asked for.
async fn pair(asked: Json) -> (TestNode, TestNode, [Workers; 2]) {
    let (a, mut b) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join_to(&a, &b, asked).await;
    (b.tenant, b.admin) = (a.tenant, a.admin);
    (a, b, workers)
}

async fn stop(workers: impl IntoIterator<Item = Workers>) {
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_is_level_keeps_its_writes_and_is_told_why_until_it_may_more() {
    let (a, b, workers) = pair(json!({ "may": ["read"] })).await;
    let on_a = a.admin().await;
    let post = write_post(&on_a, "From A").await;
    until(|| vector(&b, "content") == vector(&a, "content")).await;
    let on_b = b.admin().await;
    let own = write_post(&on_b, "From B").await;
    on_b.get(&path_of(&post)).await.expect(200);
    until(|| is_level(&a, &b) && is_level(&b, &a)).await;
    on_a.get(&path_of(&own)).await.expect(404);
    assert!(
        words(&b, &a)
            .contains("this node may only read everything: what is written here does not leave"),
        "{}",
        words(&b, &a)
    );
    assert!(words(&a, &b).contains("may only read everything here"), "{}", words(&a, &b));
    let row = on_a.get("/api/v1/sync/peers").await.expect(200).data()[0].clone();
    assert_eq!((&row["may"], &row["refused_ops"]), (&json!("may only read everything"), &json!(0)));
    let plan = on_b.get("/api/v1/sync/plan").await.expect(200).data();
    assert_eq!((&plan[0]["missing_there_ops"], &plan[0]["state"]), (&json!(0), &json!("level")));

    let told = grant(&a, &b, json!({})).await;
    assert_eq!((&told["may"], &told["until"]), (&json!(["read", "write", "relay"]), &Json::Null));
    until(|| root(&a) == root(&b)).await;
    on_a.get(&path_of(&own)).await.expect(200);
    assert!(!words(&b, &a).contains("may only read"));

    grant(&a, &b, json!({ "may": [] })).await;
    until(|| obstacle(&a, &b) == Some("grant_withdrawn")).await;
    peer::sync_now(&b.node, &system()).unwrap();
    until(|| obstacle(&b, &a) == Some("grant_withdrawn")).await;
    assert!(words(&b, &a).contains("atoll peer grant"), "{}", words(&b, &a));
    grant(&a, &b, json!({ "may": ["read", "write"] })).await;
    peer::sync_now(&b.node, &system()).unwrap();
    until(|| is_level(&a, &b) && is_level(&b, &a)).await;
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_one_tenant_gets_nothing_of_another_and_no_picture_of_it() {
    let a = TestNode::start().await;
    let admin = a.admin().await;
    let lagoon = json!({ "name": "Lagoon", "slug": "lagoon", "admin": {
        "email": "lagoon@example.org", "username": "lagooner", "password": "a long enough password" } });
    let made = admin.post("/api/v1/tenants", &lagoon).await.expect(201).data();
    let lagoon = Id::parse(made["id"].as_str().unwrap()).unwrap();
    let b = TestNode::start_empty(|_| {}).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    write_post(&admin, "Elsewhere").await;
    write_post(&admin.in_tenant("lagoon"), "In the lagoon").await;
    let pictures: Vec<_> = [(a.tenant, "elsewhere"), (lagoon, "inside")].into();
    let mut blobs = Vec::new();
    for (tenant, name) in pictures {
        a.make_user(tenant, name, Role::Viewer).await;
        let tenant = tenant.to_string();
        let user = a.stranger().in_tenant(&tenant).login(name, "a long enough password").await;
        let gif = [
            b"GIF89a\x01\x00\x01\x00\x80\x00\x00".as_slice(),
            name.as_bytes().get(..6).unwrap(),
            b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b",
        ]
        .concat();
        let path = "/api/v1/users/profile/avatar";
        user.send("PUT", path, &[("content-type", "image/gif")], &gif).await.expect(200);
        let me = user.get("/api/v1/auth/me").await.expect(200).data();
        blobs.push(BlobId::parse(me["avatar"].as_str().unwrap()).unwrap());
    }
    join_to(&a, &b, json!({ "tenants": ["lagoon"] })).await;
    until(|| is_level(&a, &b) && is_level(&b, &a)).await;
    let streams = b.node.store.read(|reader| reader.streams()).unwrap();
    let inside = |stream: &StreamId| stream.tenant == lagoon || stream.scope == "network";
    assert!(streams.iter().all(|head| inside(&head.stream)), "{streams:?}");
    assert!(streams.iter().any(|head| head.stream == StreamId::new(lagoon, "content")));
    let (found, asked) = b.node.exchange.find(&blobs).await;
    assert_eq!((found[0], found[1].is_some(), asked), (None, true, 1));
    let refused = b.node.exchange.fetch(blobs[0], u64::MAX).await;
    assert!(refused.is_err(), "nor by its name");
    b.node.exchange.fetch(blobs[1], u64::MAX).await.unwrap();

    // Whoever holds the node makes accounts of the tenant, and none that runs the network.
    b.make_user(lagoon, "usurper", Role::Superadmin).await;
    let usurper = a.stranger().in_tenant("lagoon");
    let known = json!({ "login": "usurper", "password": "a long enough password" });
    until_answered(&usurper, "/api/v1/auth/login", &known).await;
    let usurper = usurper.login("usurper", "a long enough password").await;
    usurper.get("/api/v1/users").await.expect(200);
    usurper.get("/api/v1/sync/status").await.refused(403, "denied");
    let elsewhere = usurper.in_tenant(&a.tenant.to_string());
    elsewhere.get("/api/v1/users").await.expect(401);

    // A bundle for it holds no more than that.
    let trip = b.folder().join("trip.atoll");
    let order = Order { to: vec![b.node.id().to_string()], ..Order::default() };
    courier::export(&a.node, &system(), &order, &trip, |_, _| {}).unwrap();
    let c = TestNode::start_empty(|_| {}).await;
    let mut store = c.node.store.clone();
    let volume = Volume::open(File::open(&trip).unwrap()).unwrap();
    let read = bundle::import(Some(&mut store), None, vec![volume], |_, _| {}).unwrap();
    assert!(read.is_whole(), "{read:?}");
    let of_lagoon = read.want.unwrap();
    assert!(of_lagoon.iter().all(|(stream, _)| inside(stream)), "{of_lagoon:?}");
    let streams = store.read(|reader| reader.streams()).unwrap();
    assert!(streams.iter().all(|head| inside(&head.stream)), "{streams:?}");
    assert!(streams.iter().any(|head| head.stream == StreamId::new(lagoon, "content")));
    assert_eq!((read.records, read.blobs), (0, 1), "all went as ops, and one picture with them");
    // All tenants are told to the whole network, by their ids; nothing else names the other one.
    let ops = ops_of(&mut store).into_iter().filter(|op| op.stream.scope != "network");
    let names = |op: &Op| codec::encode(op).windows(16).any(|window| window == a.tenant.0);
    assert_eq!(ops.filter(names).collect::<Vec<_>>(), []);
    stop(workers).await;
}

fn ops_of(store: &mut Store) -> Vec<Op> {
    let all = |lane| store.ops(lane, 0, &BTreeMap::new(), 10_000, usize::MAX).unwrap().ops;
    [Lane::Urgent, Lane::Rest].map(all).concat()
}

async fn until_answered(client: &Client, path: &str, body: &Json) {
    let wait = async { while client.post(path, body).await.status != 200 {} };
    tokio::time::timeout(super::PATIENCE, wait).await.expect("it is known there");
}

/// A clock that a test turns.
pub fn turned() -> (Arc<AtomicU64>, Clock) {
    let now = Arc::new(AtomicU64::new(Clock::system().now_ms()));
    let read = now.clone();
    (now, Clock::from_fn(move || read.load(Ordering::Relaxed)))
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_of_its_time_a_peer_is_cut_and_both_sides_say_so_until_it_is_granted_anew() {
    let (now_ms, clock) = turned();
    let (a, b) = (TestNode::start_at(clock).await, TestNode::start_empty(|_| {}).await);
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    let at = |ms: u64| atoll_node::moment::Moment::of(ms).to_string();
    let end_ms = now_ms.load(Ordering::Relaxed) + HOUR_MS;
    join_to(&a, &b, json!({ "until": at(end_ms) })).await;
    until(|| root(&a) == root(&b) && is_level(&a, &b)).await;
    assert!(words(&b, &a).contains(&format!("until {}", at(end_ms))), "{}", words(&b, &a));
    now_ms.store(end_ms, Ordering::Relaxed);
    until(|| obstacle(&a, &b) == Some("grant_expired")).await;
    until(|| obstacle(&b, &a) == Some("grant_expired")).await;
    let held = root(&b);
    write_post(&a.admin().await, "Too late for it").await;
    for (on, about) in [(&a, &b), (&b, &a)] {
        assert!(words(on, about).contains("say anew until when it may"), "{}", words(on, about));
    }
    assert_eq!(root(&b), held);
    grant(&a, &b, json!({ "until": at(end_ms + HOUR_MS) })).await;
    peer::sync_now(&b.node, &system()).unwrap();
    until(|| root(&a) == root(&b)).await;
    // A new ticket does it as well.
    now_ms.fetch_add(HOUR_MS, Ordering::Relaxed);
    until(|| obstacle(&b, &a) == Some("grant_expired")).await;
    join(&a, &b).await;
    write_post(&a.admin().await, "In time").await;
    until(|| root(&a) == root(&b) && is_level(&b, &a)).await;
    stop(workers).await;
}

fn record_of(node: &TestNode) -> Vec<atoll_storage::Record> {
    let kind: &'static Kind = kinds::named("grant").unwrap();
    let query = atoll_storage::Query::of(kind, Id::NIL);
    node.node.store.read(|reader| reader.list(&query)).unwrap().records
}

/// A and C trust each other; B is a peer of both. What A says of B reaches C, and counts there.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_says_of_a_peer_counts_on_all_that_trust_it_and_forged_words_nowhere() {
    let (a, c) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let mut b = TestNode::start_empty(|_| {}).await;
    let mut workers = Vec::new();
    for node in [&a, &b, &c] {
        workers.push(node.node.start().await.unwrap());
    }
    join(&a, &c).await;
    join(&c, &b).await;
    until(|| root(&a) == root(&c) && root(&b) == root(&c) && is_level(&c, &b)).await;
    // A never met B, and says it of its key.
    let key = b.node.key().public().to_string();
    let asked = serde_json::from_value(json!({ "may": ["read"] })).unwrap();
    peer::grant(&a.node, &system(), &key, &asked, true).await.unwrap();
    until(|| !status(&c, &b).may.write).await;
    until(|| is_level(&c, &b) && is_level(&b, &c)).await;
    (b.tenant, b.admin) = (a.tenant, a.admin);
    let own = write_post(&b.admin().await, "From B").await;
    write_post(&a.admin().await, "From A").await;
    until(|| vector(&b, "content").includes(&vector(&a, "content"))).await;
    a.admin().await.get(&path_of(&own)).await.expect(404);

    // B cannot remove anybody, say anything of anybody, or take back what was said of it.
    peer::revoke(&b.node, &system(), &a.node.id().to_string(), None).await.unwrap();
    let everything = peer::Asked::default();
    peer::grant(&b.node, &system(), &key, &everything, true).await.unwrap_err();
    let kind: &'static Kind = kinds::named("grant").unwrap();
    let record = record_of(&b)[0].clone();
    let field: &Field = kind.field("statement").unwrap();
    let forged = Changes::new().set(field, Value::Bytes(vec![1; 99]));
    let (record_key, change) = (record.key, forged.clone());
    b.node.store.write(move |tx| tx.edit(kind, record_key, change)).await.unwrap();
    write_post(&a.admin().await, "From A again").await;
    until(|| vector(&b, "content").includes(&vector(&a, "content"))).await;
    until(|| is_level(&c, &b)).await;
    for node in [&a, &c] {
        assert!(peer::removed(&node.node, &system()).unwrap().is_empty());
        assert_eq!(record_of(node)[0].bytes(field), record.bytes(field));
    }
    // Nor does a record that a trusted node wrote without the issuer's signature; the issuer says it anew.
    c.node.store.write(move |tx| tx.edit(kind, record_key, forged)).await.unwrap();
    until(|| [&a, &c].iter().all(|node| record_of(node)[0].bytes(field) == record.bytes(field)))
        .await;
    assert!(!status(&c, &b).may.write);

    let mine = peer::granted(&c.node, &system()).unwrap();
    let of_b: Vec<_> = mine.iter().filter(|one| one.holder == b.node.id()).collect();
    let by_a = of_b.iter().find(|one| one.issuer == a.node.id()).unwrap();
    assert_eq!((by_a.words.as_str(), by_a.counts), ("may only read everything", true));
    peer::grant(
        &a.node,
        &system(),
        &key,
        &serde_json::from_value(json!({ "may": ["none"] })).unwrap(),
        true,
    )
    .await
    .unwrap();
    until(|| obstacle(&c, &b) == Some("grant_withdrawn")).await;
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_bundle_of_a_node_only_what_it_may_write_is_taken() {
    let (a, mut b) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    b.take_from(&a);
    (b.tenant, b.admin) = (a.tenant, a.admin);
    let lets = |may: &[&str]| serde_json::from_value(json!({ "may": may })).unwrap();
    let key = b.node.key().public().to_string();
    peer::add_for(&a.node, &system(), &key, "b", None, &lets(&["read"])).await.unwrap();
    let own = write_post(&b.admin().await, "From B").await;
    let trip = b.folder().join("trip.atoll");
    let export = |name: &str| {
        let file = trip.with_file_name(name);
        courier::export(&b.node, &system(), &Order::default(), &file, |_, _| {}).unwrap();
        file
    };
    let taken = courier::import(&a.node, &system(), &[export("1.atoll")], |_, _| {}).unwrap();
    assert_eq!((taken.bundles[0].report.applied, taken.bundles[0].is_whole), (0, true));
    let on_a = a.admin().await;
    on_a.get(&path_of(&own)).await.expect(404);
    peer::grant(&a.node, &system(), "b", &lets(&["read", "write"]), false).await.unwrap();
    courier::import(&a.node, &system(), &[export("2.atoll")], |_, _| {}).unwrap();
    on_a.get(&path_of(&own)).await.expect(200);
    peer::grant(&a.node, &system(), "b", &lets(&["none"]), false).await.unwrap();
    let refused = courier::import(&a.node, &system(), &[export("3.atoll")], |_, _| {}).unwrap_err();
    assert!(refused.to_string().contains("may do nothing here"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grant_is_refused_with_the_field() {
    let a = TestNode::start().await;
    let admin = a.admin().await;
    let key = atoll_sync::key::NodeKey::generate().unwrap().public().to_string();
    peer::add(&a.node, &system(), &key, "leaf", None).await.unwrap();
    let path = "/api/v1/sync/peers/leaf/grant";
    let default = admin.get(path).await.expect(200).data();
    assert_eq!(
        (&default["words"], &default["issued_at"]),
        (&json!("may read, write and relay everything"), &Json::Null)
    );
    for (asked, code) in [
        (json!({ "tenants": ["nowhere"] }), "unknown_tenant"),
        (json!({ "scopes": ["con tent"] }), "malformed"),
        (json!({ "scopes": ["content", "contents"] }), "unknown_scope"),
        (json!({ "may": ["everything"] }), "unknown_choice"),
        (json!({ "until": "soon" }), "malformed"),
        (json!({ "until": "1999-01-01" }), "in_the_past"),
        (json!([]), "must be an object"),
    ] {
        let answer = admin.put(path, &asked).await.expect(422);
        assert!(answer.text().contains(code), "{}", answer.text());
    }
    admin.put("/api/v1/sync/peers/nobody/grant", &json!({})).await.expect(404);
    let asked = json!({ "may": ["read"], "scopes": ["content"], "until": "2126-02-28" });
    let told = admin.put(path, &asked).await.expect(200).data();
    assert_eq!(told["until"], "2126-03-01T00:00:00.000Z");
    assert_eq!(
        told["words"],
        "may only read, in all tenants, of content, until 2126-03-01T00:00:00.000Z"
    );
    let rows = admin.get("/api/v1/sync/grants").await.expect(200).data();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["words"]), (1, &told["words"]));
    let log = admin.get("/api/v1/audit?action=peer.granted").await.expect(200).text();
    assert!(log.contains("may only read"), "{log}");
}

/// Nobody follows the records of nodes that do not run.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_came_in_a_bundle_counts_for_the_next_one_on_a_node_that_does_not_run() {
    let (a, b) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let c = TestNode::start_empty(|_| {}).await;
    let mut number = 0;
    let mut carry = |from: &TestNode| {
        number += 1;
        let file = c.folder().join(format!("{number}.atoll"));
        courier::export(&from.node, &system(), &Order::default(), &file, |_, _| {}).unwrap();
        courier::import(&c.node, &system(), &[file], |_, _| {})
    };
    for (node, other, name) in [(&a, &b, "b"), (&c, &a, "a"), (&c, &b, "b")] {
        let key = other.node.key().public().to_string();
        peer::add(&node.node, &system(), &key, name, None).await.unwrap();
    }
    carry(&b).unwrap();
    let none = serde_json::from_value(json!({ "may": ["none"] })).unwrap();
    peer::grant(&a.node, &system(), "b", &none, true).await.unwrap();
    carry(&a).unwrap();
    let told = peer::granted(&c.node, &system()).unwrap();
    let by_a = told.iter().find(|one| one.issuer == a.node.id() && one.holder == b.node.id());
    assert!(by_a.is_some_and(|one| one.rights.is_nothing() && one.counts), "{told:?}");
    assert_eq!(carry(&b).unwrap_err().code(), "grant_withdrawn");
}
