//! Whole nodes that meet over QUIC on loopback.

use atoll_node::runtime::Workers;
use atoll_node::{Actor, Role, peer};
use atoll_storage::{Clock, Id, Read};
use atoll_tests::harness::TestNode;
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

async fn join(to: &TestNode, with: &TestNode) {
    let system = Actor::system(Id::NIL);
    let issued = peer::ticket(&to.node, &system, Duration::from_secs(600), vec![]).await.unwrap();
    peer::join(&with.node, &system, &issued.line).await.unwrap();
}

fn root(node: &TestNode) -> atoll_storage::Digest {
    node.node.store.read(|reader| reader.root()).unwrap()
}

/// Wakes with each commit until all hold the same.
async fn until_equal(nodes: &[&TestNode]) {
    let wait = async {
        let mut commits: Vec<_> = nodes.iter().map(|n| n.node.store.subscribe()).collect();
        while nodes.iter().any(|node| root(node) != root(nodes[0])) {
            let (one, rest) = commits.split_first_mut().unwrap();
            tokio::select! {
                changed = one.changed() => changed.unwrap(),
                changed = rest[0].changed() => changed.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the nodes become equal");
}

async fn pair() -> (TestNode, TestNode, Vec<Workers>) {
    let (a, b) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let workers = vec![a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    until_equal(&[&a, &b]).await;
    (a, b, workers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_knows_the_users_and_a_token_is_good_on_both() {
    let (a, b, workers) = pair().await;
    let admin = a.admin().await;
    let on_b = atoll_tests::harness::Client { address: b.address, ..admin };
    until_equal(&[&a, &b]).await;
    let me = on_b.get("/api/v1/auth/me").await.expect(200).data();
    assert_eq!(me["email"], atoll_tests::harness::ADMIN_EMAIL);
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_apart_is_merged_when_the_link_comes_back() {
    let (a, b, workers) = pair().await;
    let editor = a.admin().await;
    let body = "The hall opens at nine.\nBring your own cup.\n";
    let post = editor
        .post("/api/v1/posts", &json!({ "title": "Hall", "body": body }))
        .await
        .expect(201)
        .data();
    let doomed = editor
        .post("/api/v1/posts", &json!({ "title": "Doomed", "body": "one" }))
        .await
        .expect(201)
        .data();
    until_equal(&[&a, &b]).await;
    let there = b.admin().await;
    until_equal(&[&a, &b]).await;
    for node in [&a, &b] {
        node.node.sync().unwrap().pause();
    }
    let path = |post: &serde_json::Value| format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
    editor
        .put(
            &path(&post),
            &json!({ "body": "The hall opens at nine sharp.\nBring your own cup.\n" }),
        )
        .await
        .expect(200);
    there
        .put(
            &path(&post),
            &json!({ "body": "The hall opens at nine.\nBring your own cup and plate.\n" }),
        )
        .await
        .expect(200);
    editor.delete(&path(&doomed)).await.expect(204);
    there.put(&path(&doomed), &json!({ "body": "one and a half" })).await.expect(200);
    for node in [&a, &b] {
        let form = json!({ "email": "same@example.org", "username": format!("same{}", node.address.port()), "password": "a long enough password" });
        node.stranger().post("/api/v1/auth/register", &form).await.expect(201);
    }
    for node in [&a, &b] {
        node.node.sync().unwrap().resume();
    }
    until_equal(&[&a, &b]).await;
    for client in [&editor, &there] {
        let merged = client.get(&path(&post)).await.expect(200).data();
        assert_eq!(
            merged["body"],
            "The hall opens at nine sharp.\nBring your own cup and plate.\n"
        );
        assert_eq!(client.get(&path(&doomed)).await.expect(200).data()["body"], "one and a half");
    }
    let inbox = |node: &TestNode| {
        let all = node.node.store.read(|reader| reader.conflicts(None, 100, None)).unwrap();
        all.into_iter().map(|c| (c.id, c.cause)).collect::<Vec<_>>()
    };
    assert_eq!(inbox(&a), inbox(&b));
    let causes: Vec<_> = inbox(&a).into_iter().map(|(_, cause)| cause).collect();
    assert!(causes.contains(&atoll_storage::Cause::Claim), "{causes:?}");
    assert!(causes.contains(&atoll_storage::Cause::Revived), "{causes:?}");
    for node in [&a, &b] {
        assert_eq!(node.node.store.verify().unwrap().problems, Vec::<String>::new());
    }
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_node_takes_thousands_of_records_as_a_snapshot() {
    let a = TestNode::start().await;
    let user = a.make_user(a.tenant, "writer", Role::Editor).await;
    let actor = Actor::of(a.tenant, user, Role::Editor);
    for group in 0..30 {
        let made = a.node.store.write(move |tx| {
            for n in 0..100 {
                let changes = atoll_storage::Changes::new()
                    .set(&atoll_node::content::post::TITLE, format!("Post {group} {n}"))
                    .body(&atoll_node::content::post::BODY, "some text".repeat(20));
                atoll_node::content::post::Draft::new(changes)?.create(tx, &actor, None)?;
            }
            Ok::<_, atoll_node::Error>(())
        });
        made.await.unwrap();
    }
    let workers = [a.node.start().await.unwrap()];
    let b = TestNode::start_empty(|_| {}).await;
    let late = b.node.start().await.unwrap();
    join(&a, &b).await;
    until_equal(&[&a, &b]).await;
    let content = b.node.store.read(|reader| reader.streams()).unwrap();
    let content = content.iter().find(|head| head.stream.scope == "content").unwrap();
    assert_eq!(content.records, 3_000);
    assert!(content.floor.0.values().any(|seq| *seq > 0), "it came as a snapshot");
    late.shutdown().await;
    for worker in workers {
        worker.shutdown().await;
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_cut_at_once_and_comes_back_by_a_new_ticket_only() {
    let (a, b) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    let system = Actor::system(Id::NIL);
    let hour = Duration::from_secs(3_600);
    let ticket = peer::ticket(&a.node, &system, hour, vec![]).await.unwrap().line;
    peer::join(&b.node, &system, &ticket).await.unwrap();
    until_equal(&[&a, &b]).await;

    peer::remove(&a.node, &system, &b.node.id().to_string()).await.unwrap();
    assert_eq!(peer::list(&a.node, &system).unwrap().len(), 0);
    let of_a = || b.node.sync().unwrap().status()[0].clone();
    until(|| !of_a().is_linked()).await;
    let editor = a.admin().await;
    let post = json!({ "title": "Among ourselves", "body": "x" });
    editor.post("/api/v1/posts", &post).await.expect(201);
    peer::sync_now(&b.node, &system).unwrap();
    until(|| of_a().reason.contains("does not know this one")).await;
    assert_ne!(root(&a), root(&b));

    let used = peer::join(&b.node, &system, &ticket).await.unwrap_err();
    assert!(used.to_string().contains("was used"), "{used}");
    let expired = peer::ticket(&a.node, &system, Duration::ZERO, vec![]).await.unwrap().line;
    let expired = peer::join(&b.node, &system, &expired).await.unwrap_err();
    assert!(expired.to_string().contains("expired"), "{expired}");
    assert_eq!(peer::list(&a.node, &system).unwrap().len(), 0);

    join(&a, &b).await;
    until_equal(&[&a, &b]).await;
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_years_ahead_may_join_and_be_level() {
    let a = TestNode::start().await;
    let ahead = Clock::from_fn(|| Clock::system().now_ms() + 315_000_000_000);
    let b = TestNode::start_empty_at(ahead).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    until_equal(&[&a, &b]).await;
    until(|| a.node.sync().unwrap().status()[0].clock_skew_ms > Some(300_000_000_000)).await;
    for worker in workers {
        worker.shutdown().await;
    }
}
