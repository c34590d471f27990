//! Whole nodes that carry a part of the network, over QUIC on loopback.

use atoll_node::runtime::Workers;
use atoll_node::{Actor, courier, peer};
use atoll_storage::{Id, Read};
use atoll_tests::harness::{Client, TestNode, is_on_disk};
use serde_json::{Value as Json, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

async fn join(to: &TestNode, with: &TestNode) {
    let system = Actor::system(Id::NIL);
    let hour = Duration::from_secs(3_600);
    let issued = peer::ticket(&to.node, &system, hour, vec![]).await.unwrap();
    peer::join(&with.node, &system, &issued.line).await.unwrap();
}

/// Looks again and again until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "not within a minute: {what}");
}

/// Of each stream with this scope: its vector and digest.
fn scope(node: &TestNode, scope: &str) -> Vec<String> {
    let streams = node.node.store.read(|reader| reader.streams()).unwrap();
    let of_scope = streams.iter().filter(|head| head.stream.scope == scope && !head.is_empty());
    of_scope.map(|head| format!("{} {:?}", head.stream, head.leaf())).collect()
}

fn root(node: &TestNode) -> atoll_storage::Digest {
    node.node.store.read(|reader| reader.root()).unwrap()
}

async fn posted(editor: &Client, title: &str) -> Json {
    let draft = json!({ "title": title, "body": "x" });
    editor.post("/api/v1/posts", &draft).await.expect(201).data()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_its_part_takes_more_and_drops_what_others_have() {
    let a = TestNode::start().await;
    let rules = ["*", "-*/community"].map(str::to_owned).to_vec();
    let b = TestNode::start_empty(|config| config.sync.carries = rules).await;
    let workers: [Workers; 2] = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    let editor = a.admin().await;
    let post = posted(&editor, "Tides").await;
    editor
        .post(&format!("/api/v1/posts/{}/publish", post["id"].as_str().unwrap()), &json!({}))
        .await
        .expect(200);
    let said = json!({ "post_id": post["id"], "text": "an unmistakable remark" });
    editor.post("/api/v1/comments", &said).await.expect(201);
    join(&a, &b).await;
    until("the post is on both", || scope(&a, "content") == scope(&b, "content")).await;
    until("and both are level", || b.node.sync().unwrap().status()[0].is_level()).await;
    assert!(scope(&b, "community").is_empty());
    until("each knows it", || a.node.sync().unwrap().status()[0].is_level()).await;
    let plan = editor.get("/api/v1/sync/plan").await.expect(200).data();
    assert_eq!(plan[0]["missing_there_ops"], 0, "what it does not carry it does not lack: {plan}");
    assert!(is_on_disk(a.folder(), "an unmistakable remark"));
    assert!(!is_on_disk(b.folder(), "an unmistakable remark"));

    let on_b = Client { address: b.address, ..editor.clone() };
    let refused = on_b.post("/api/v1/comments", &said).await;
    assert_eq!(refused.status, 421, "{}", refused.text());
    assert_eq!(refused.json()["code"], "not_carried");
    assert!(refused.text().contains("write on atoll"), "{}", refused.text());
    let shown = on_b.get("/api/v1/sync/carries").await.expect(200).data();
    assert_eq!(shown["rules"], json!(["*/*", "-*/community"]));

    let all = json!({ "rules": ["*"] });
    assert_eq!(on_b.put("/api/v1/sync/carries", &all).await.expect(200).data()["everything"], true);
    until("it has the comments too", || root(&a) == root(&b)).await;
    let on_both = on_b.post("/api/v1/comments", &said).await.expect(201).data();
    until("and what it writes there", || root(&a) == root(&b)).await;

    let part = json!({ "rules": ["*", "-*/community"] });
    for node in [&a, &b] {
        node.node.sync().unwrap().pause();
    }
    until("there is no link", || !b.node.sync().unwrap().status()[0].is_linked()).await;
    let alone = on_b.put("/api/v1/sync/carries", &part).await;
    assert_eq!((alone.status, &alone.json()["code"]), (409, &json!("not_elsewhere")));
    for node in [&a, &b] {
        node.node.sync().unwrap().resume();
    }
    until("both are level again", || b.node.sync().unwrap().status()[0].is_level()).await;
    on_b.put("/api/v1/sync/carries", &part).await.expect(200);
    until("it is gone", || b.node.store.read(|reader| reader.leaving()).unwrap().is_empty()).await;
    assert!(scope(&b, "community").is_empty());
    assert_eq!(b.node.store.verify().unwrap().problems, Vec::<String>::new());
    let path = format!("/api/v1/comments/{}", on_both["id"].as_str().unwrap());
    editor.get(&path).await.expect(200);
    on_b.get(&path).await.expect(404);
    posted(&on_b, "Still writing").await;
    until("what it carries goes on", || scope(&a, "content") == scope(&b, "content")).await;
    for rules in [json!(["/x"]), json!(["nobody/content"]), json!(["*/con tent"])] {
        on_b.put("/api/v1/sync/carries", &json!({ "rules": rules })).await.expect(422);
    }
    a.stranger().get("/api/v1/sync/carries").await.expect(401);
    for worker in workers {
        worker.shutdown().await;
    }
}

/// The one between carries less than those at the ends: what it does carry passes it, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_all_three_carry_passes_the_one_between() {
    let a = TestNode::start().await;
    let without = |rule: &str| vec!["*".to_owned(), rule.to_owned()];
    let b = TestNode::start_empty(|config| config.sync.carries = without("-*/community")).await;
    let c = TestNode::start_empty(|config| config.sync.carries = without("-*/insight")).await;
    let nodes = [&a, &b, &c];
    let mut workers = vec![];
    for node in nodes {
        workers.push(node.node.start().await.unwrap());
    }
    let on_a = a.admin().await;
    posted(&on_a, "From one end").await;
    join(&a, &b).await;
    join(&b, &c).await;
    let is_equal = || nodes.iter().all(|node| scope(node, "content") == scope(&a, "content"));
    until("the post is at the other end", || !scope(&c, "content").is_empty() && is_equal()).await;
    let on_c = Client { address: c.address, ..on_a.clone() };
    posted(&on_c, "From the other end").await;
    until("and one comes back", || scope(&a, "content") == scope(&c, "content")).await;
    for worker in workers {
        worker.shutdown().await;
    }
}

/// What a stick brings reaches the disk as far as it is carried, and what goes on one holds no more than its receiver carries.
#[tokio::test(flavor = "multi_thread")]
async fn couriers_bring_a_node_its_part_and_nothing_else_reaches_its_disk() {
    let rules = ["*", "-*/community"].map(str::to_owned).to_vec();
    let whole = TestNode::start().await;
    let part = TestNode::start_empty(|config| config.sync.carries = rules).await;
    let system = Actor::system(Id::NIL);
    for (node, other, name) in [(&whole, &part, "part"), (&part, &whole, "whole")] {
        let key = other.node.key().public().to_string();
        peer::add(&node.node, &system, &key, name, None).await.unwrap();
    }
    let editor = whole.admin().await;
    let post = posted(&editor, "Tides").await;
    let path = format!("/api/v1/posts/{}/publish", post["id"].as_str().unwrap());
    editor.post(&path, &json!({})).await.expect(200);
    let said = json!({ "post_id": post["id"], "text": "an unmistakable remark" });
    editor.post("/api/v1/comments", &said).await.expect(201);

    let stick = tempfile::tempdir().unwrap();
    let carry = |from: &TestNode, to: &TestNode, name: &str, order: &courier::Order| {
        let file = stick.path().join(name);
        tokio::task::block_in_place(|| {
            let made = courier::export(&from.node, &system, order, &file, |_, _| {}).unwrap();
            let seen = courier::import(&to.node, &system, &[file], |_, _| {}).unwrap();
            (made, seen.bundles.into_iter().next().unwrap())
        })
    };
    let to = |name: &str| courier::Order { to: vec![name.to_owned()], ..courier::Order::default() };
    let everything = courier::Order::default();
    let (_, seen) = carry(&whole, &part, "1.atoll", &everything);
    assert!(seen.is_whole && seen.report.not_carried > 0, "{seen:?}");
    assert_eq!(scope(&part, "content"), scope(&whole, "content"));
    assert!(scope(&part, "community").is_empty());
    assert!(is_on_disk(whole.folder(), "an unmistakable remark"));
    assert!(!is_on_disk(part.folder(), "an unmistakable remark"));

    // It tells what it carries, and from then on is brought that.
    let want = courier::Order { want_only: true, ..courier::Order::default() };
    carry(&part, &whole, "2.atoll", &want);
    posted(&editor, "Currents").await;
    editor.post("/api/v1/comments", &said).await.expect(201);
    let (made, seen) = carry(&whole, &part, "3.atoll", &to("part"));
    assert!(seen.is_whole && seen.report.not_carried == 0 && made.ops > 0, "{made:?} {seen:?}");
    assert_eq!(scope(&part, "content"), scope(&whole, "content"));
    // What it makes, it makes of its part: nobody loses the rest by it.
    let (_, seen) = carry(&part, &whole, "4.atoll", &everything);
    assert!(seen.is_whole && seen.report.applied == 0, "{seen:?}");
    assert!(!scope(&whole, "community").is_empty());

    // It takes more, and says so.
    let all = ["*".to_owned()];
    atoll_node::carries::set(&part.node, &system, &all, false).await.unwrap();
    carry(&part, &whole, "5.atoll", &want);
    let (_, seen) = carry(&whole, &part, "6.atoll", &to("part"));
    assert!(seen.is_whole, "{seen:?}");
    assert_eq!(root(&part), root(&whole));
    assert!(is_on_disk(part.folder(), "an unmistakable remark"));
    assert_eq!(part.node.store.verify().unwrap().problems, Vec::<String>::new());
}
