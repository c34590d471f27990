//! Nodes on one network that find each other: two real nodes, and multicast on the loopback interface.

use atoll_node::{Actor, Config, peer};
use atoll_storage::Id;
use atoll_tests::TestNode;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn looks_around(config: &mut Config) {
    config.sync.discover = true;
}

/// What `at` has heard of `of`, if anything.
fn heard(at: &TestNode, of: &TestNode) -> Option<peer::Neighbour> {
    let all = peer::nearby(&at.node, &Actor::system(Id::NIL)).unwrap();
    all.into_iter().find(|neighbour| neighbour.heard.node == of.node.id())
}

async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes to pass")
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_of_each_other_and_still_need_a_ticket() {
    let a = TestNode::start_with(looks_around).await;
    let b = TestNode::start_empty(looks_around).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    let found = until(|| heard(&a, &b)).await;
    assert!(!found.is_known);
    assert_eq!(found.heard.addrs, [b.node.sync().unwrap().local_addr()]);
    until(|| heard(&b, &a)).await;
    let system = Actor::system(Id::NIL);
    assert!(peer::list(&a.node, &system).unwrap().is_empty(), "hearing is not knowing");

    let ticket = peer::ticket(&a.node, &system, Duration::from_secs(60), vec![]).await.unwrap();
    peer::join(&b.node, &system, &ticket.line).await.unwrap();
    assert!(heard(&a, &b).unwrap().is_known);
    let listed = a.admin().await.get("/api/v1/sync/nearby").await.expect(200).data();
    let row = |row: &&serde_json::Value| row["node"] == b.node.id().to_string();
    let row = listed.as_array().unwrap().iter().find(row).unwrap();
    assert_eq!((&row["known"], &row["name"]), (&true.into(), &"atoll".into()));
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_not_told_to_looks_for_nobody() {
    let test = TestNode::start().await;
    let worker = test.node.start().await.unwrap();
    let refused = test.admin().await.get("/api/v1/sync/nearby").await;
    refused.refused(409, "discovery_off");
    worker.shutdown().await;
}
