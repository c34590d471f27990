//! What all peers said that they have leaves the log earlier, and nothing else does.

use super::grants::turned;
use super::{PATIENCE, join, until_equal};
use atoll_storage::{Read, StreamHead};
use atoll_tests::harness::TestNode;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};

const TWO_DAYS_MS: u64 = 2 * 86_400_000;

fn content(node: &TestNode) -> StreamHead {
    let streams = node.node.store.read(|reader| reader.streams()).unwrap();
    let content = |head: &StreamHead| head.stream.scope == "content" && !head.vector.0.is_empty();
    streams.into_iter().find(content).unwrap()
}

async fn write(node: &TestNode, title: &str) {
    let post = json!({ "title": title, "body": "It opens at nine." });
    node.admin().await.post("/api/v1/posts", &post).await.expect(201);
}

/// Notes how far the log is, lets two days go by, and drops what is old; how many ops went.
fn grow_old(node: &TestNode, now: &AtomicU64) -> u64 {
    let before = node.node.shorten_log().unwrap();
    now.fetch_add(TWO_DAYS_MS, Ordering::Relaxed);
    before + node.node.shorten_log().unwrap()
}

/// Until the node knows that its one peer has as much of the content as itself.
async fn until_acknowledged(node: &TestNode) {
    let head = content(node);
    let has_all = || {
        let peers = node.node.sync().unwrap().status();
        let told = peers[0].acknowledged.as_ref().and_then(|told| told.get(&head.stream).cloned());
        told.is_some_and(|told| told.includes(&head.vector))
    };
    let wait = async {
        while !has_all() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the peer says what it has");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_peers_have_leaves_the_log_and_what_one_of_them_lacks_stays() {
    let (now, clock) = turned();
    let short = |config: &mut atoll_node::Config| config.history_acknowledged_days = 1;
    let a = TestNode::start_with_at(short, clock.clone()).await;
    let b = TestNode::start_empty_at(clock).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    write(&a, "Before anybody else was there").await;
    assert_eq!(grow_old(&a, &now), 0, "without a peer nobody has it");

    join(&a, &b).await;
    until_equal(&[&a, &b]).await;
    until_acknowledged(&a).await;
    assert!(grow_old(&a, &now) > 0);
    let shortened = content(&a);
    assert_eq!(shortened.floor, shortened.vector);

    a.cut().await;
    write(&a, "While the other was away").await;
    grow_old(&a, &now);
    let waiting = content(&a);
    assert!(waiting.vector.lead_over(&waiting.floor) > 0, "the other lacks it");
    assert_eq!(waiting.floor, shortened.floor);

    // It comes as ops: the other's log holds them too.
    let before = content(&b).floor;
    a.node.sync().unwrap().resume();
    until_equal(&[&a, &b]).await;
    assert_eq!(content(&b).floor, before);
    until_acknowledged(&a).await;
    grow_old(&a, &now);
    assert_eq!(content(&a).floor, content(&a).vector);
    for worker in workers {
        worker.shutdown().await;
    }
}
