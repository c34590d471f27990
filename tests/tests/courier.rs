//! Nodes that no network joins, and bundles carried between them over HTTP.

use atoll_tests::harness::{Client, TestNode};
use serde_json::{Value as Json, json};

const BUNDLES: &str = "/api/v1/sync/bundles";

/// Nodes of one network that have no link: each lists the other by its key.
async fn acquainted() -> (TestNode, TestNode, Client, Client) {
    let (core, school) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    for (node, other, name) in [(&core, &school, "school"), (&school, &core, "core")] {
        let key = other.node.key().public().to_string();
        let system = atoll_node::Actor::system(atoll_storage::Id::NIL);
        atoll_node::peer::add(&node.node, &system, &key, name, None).await.unwrap();
    }
    let admin = core.admin().await;
    let there = Client { address: school.address, ..admin.clone() };
    (core, school, admin, there)
}

/// The job once it has ended.
async fn ended(node: &TestNode, client: &Client, job: &Json) -> Json {
    let path = format!("{BUNDLES}/{}", job["id"].as_str().unwrap());
    let mut commits = node.node.store.subscribe();
    let wait = async {
        loop {
            let job = client.get(&path).await.expect(200).data();
            if !["waiting", "running"].contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            commits.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.expect("the job ends")
}

async fn bundle(node: &TestNode, client: &Client, order: &Json) -> (Json, Vec<u8>) {
    let job = client.post(BUNDLES, order).await.expect(202).data();
    let job = ended(node, client, &job).await;
    assert_eq!(job["state"], "done", "{job}");
    let path = format!("{BUNDLES}/{}/volumes/1", job["id"].as_str().unwrap());
    let volume = client.get(&path).await.expect(200);
    assert_eq!(volume.header("content-type"), Some("application/vnd.atoll.bundle"));
    (job["result"].clone(), volume.body.clone())
}

async fn take(node: &TestNode, client: &Client, volume: &[u8]) -> Json {
    let sent = client.send("POST", &format!("{BUNDLES}/import"), &[], volume).await.expect(202);
    ended(node, client, &sent.data()).await
}

/// As an operator does who has no account there yet.
fn carry_in(to: &TestNode, volume: &[u8]) -> atoll_node::courier::Outcome {
    let file = to.folder().join("carried.atoll");
    std::fs::write(&file, volume).unwrap();
    let system = atoll_node::Actor::system(atoll_storage::Id::NIL);
    atoll_node::courier::import(&to.node, &system, &[file], |_, _| {}).unwrap()
}

fn root(node: &TestNode) -> atoll_storage::Digest {
    use atoll_storage::Read as _;
    node.node.store.read(|reader| reader.root()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_make_nodes_equal_that_never_meet() {
    let (core, school, admin, there) = acquainted().await;
    let workers = [core.node.start().await.unwrap(), school.node.start().await.unwrap()];
    let post = json!({ "title": "Carried", "body": "by a courier" });
    admin.post("/api/v1/posts", &post).await.expect(201);
    admin.post("/api/v1/posts/carried/publish", &json!({})).await.expect(200);
    let (made, volume) = bundle(&core, &admin, &json!({})).await;
    assert!(
        made["ops"].as_u64().unwrap() > 5 && made["files"] == json!(["bundle.atoll"]),
        "{made}"
    );
    let seen = tokio::task::block_in_place(|| carry_in(&school, &volume));
    assert!(seen.bundles[0].is_whole, "{seen:?}");
    assert_eq!(root(&core), root(&school));
    // The school's people sign in with their accounts of the core, and write.
    let found = there.get("/api/v1/posts/carried").await.expect(200).data();
    assert_eq!(found["body"], "by a courier");
    let comment = json!({ "post_id": found["id"], "text": "It came." });
    there.post("/api/v1/comments", &comment).await.expect(201);
    // The way home: only what the core lacks, and only it can read that.
    let order = json!({ "to": ["core"], "lock": true });
    let (made, home) = bundle(&school, &there, &order).await;
    assert!(made["ops"].as_u64().unwrap() < 5, "{made}");
    let job = take(&core, &admin, &home).await;
    let report = &job["result"]["bundles"][0];
    assert_eq!((&report["is_whole"], &report["waiting"]), (&json!(true), &json!(0)), "{job}");
    assert_eq!(root(&core), root(&school));
    let again = take(&core, &admin, &home).await;
    assert_eq!(again["result"]["bundles"][0]["applied"], 0);
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_says_why() {
    let (core, school, admin, there) = acquainted().await;
    let stranger = TestNode::start().await;
    let workers = [
        core.node.start().await.unwrap(),
        school.node.start().await.unwrap(),
        stranger.node.start().await.unwrap(),
    ];
    let (_, volume) = bundle(&core, &admin, &json!({})).await;
    carry_in(&school, &volume);
    // Not a bundle; one of somebody unknown; one that is cut off.
    let failed = take(&core, &admin, b"no bundle at all").await;
    assert!(failed["error"].as_str().unwrap().contains("no bundle"), "{failed}");
    let other = stranger.admin().await;
    let (_, foreign) = bundle(&stranger, &other, &json!({})).await;
    let failed = take(&core, &admin, &foreign).await;
    assert!(failed["error"].as_str().unwrap().contains("does not know"), "{failed}");
    let cut = take(&core, &admin, &volume[..volume.len() / 2]).await;
    let report = &cut["result"]["bundles"][0];
    assert_eq!(report["is_whole"], false);
    assert_eq!(report["damaged"][0]["why"], "the file is cut off or damaged", "{cut}");
    // Orders that make no sense.
    admin.post(BUNDLES, &json!({ "volume_mib": 0 })).await.refused(422, "invalid");
    let job = admin.post(BUNDLES, &json!({ "to": ["nobody"] })).await.expect(202).data();
    let failed = ended(&core, &admin, &job).await;
    assert!(failed["error"].as_str().unwrap().contains("nobody"), "{failed}");
    let order = json!({ "to": ["school"], "lock": true });
    let job = admin.post(BUNDLES, &order).await.expect(202).data();
    let failed = ended(&core, &admin, &job).await;
    assert!(failed["error"].as_str().unwrap().contains("bundle want"), "{failed}");
    // What the school wants makes it possible.
    let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
    take(&core, &admin, &want).await;
    let (made, _) = bundle(&core, &admin, &order).await;
    assert_eq!(made["records"], 0);
    for worker in workers {
        worker.shutdown().await;
    }
}
