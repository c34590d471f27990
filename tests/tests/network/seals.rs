//! What a node sealed is proven at the other end of a line, and a relay that changes words is found out; so is a disk that
//! changes blocks of the log.

use super::{join, until_equal};
use atoll_node::{Actor, seal};
use atoll_storage::{Error, Id, Read};
use atoll_tests::harness::TestNode;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_sealed_is_proven_two_hops_away() {
    let a = TestNode::start().await;
    let (b, c) = (TestNode::start_empty(|_| {}).await, TestNode::start_empty(|_| {}).await);
    let mut workers = Vec::new();
    for node in [&a, &b, &c] {
        workers.push(node.node.start().await.unwrap());
    }
    join(&a, &b).await;
    join(&b, &c).await;
    until_equal(&[&a, &b]).await;
    until_equal(&[&b, &c]).await;
    let editor = a.admin().await;
    for n in 0..5 {
        let post = json!({ "title": format!("Hall {n}"), "body": "It opens at nine." });
        editor.post("/api/v1/posts", &post).await.expect(201);
    }
    // All that was written until now.
    let now_ms = a.node.clock.now_ms() + 1;
    assert!(seal::seal_older(&a.node, now_ms).unwrap() > 0);
    until_equal(&[&a, &b]).await;
    until_equal(&[&b, &c]).await;
    // Streams that came by a snapshot lack the ops: of those nothing is said.
    seal::prove(&c.node).unwrap();
    let standing = seal::standing(&c.node, &Actor::system(Id::NIL)).unwrap();
    assert!(standing.proven_ops >= 5, "{standing:?}");
    assert_eq!(standing.broken, 0, "{standing:?}");
    let told = c.admin().await.get("/api/v1/sync/seals").await.expect(200).data();
    assert_eq!(told["proven_ops"], standing.proven_ops);
    assert_eq!(told["latest"], json!([]));
    // The same on a node whose relay put other words into an op.
    let forged: Result<(), Error> = b.node.store.write_blocking(|tx| {
        tx.conn().execute_batch("UPDATE op SET hlc = hlc + 1 WHERE kind = 22")?;
        Ok(())
    });
    forged.unwrap();
    seal::prove(&b.node).unwrap();
    let told = b.admin().await.get("/api/v1/sync/seals").await.expect(200).data();
    assert_eq!(told["broken"], 1, "{told}");
    assert!(told["latest"][0]["words"].as_str().unwrap().contains("somebody changed them"));
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_of_the_log_is_counted_and_does_not_end_the_sealing() {
    let test = TestNode::start().await;
    let metrics = async || test.stranger().get("/metrics").await.text();
    while test.node.store.pack_log(None, 0).unwrap() {}
    assert_eq!(test.node.store.scrub_log(10).unwrap(), 1);
    assert!(metrics().await.contains("atoll_damaged_blocks 0"));
    let rotten: Result<(), Error> = test.node.store.write_blocking(|tx| {
        tx.conn().execute_batch("UPDATE block SET ops = substr(ops, 2)")?;
        Ok(())
    });
    rotten.unwrap();
    test.node.store.scrub_log(10).unwrap();
    assert!(metrics().await.contains("atoll_damaged_blocks 1"));
    // What cannot be read is not sealed, and that is no failure.
    let now_ms = test.node.clock.now_ms() + 1;
    seal::seal_older(&test.node, now_ms).unwrap();
}
