//! Whole nodes that meet over QUIC on loopback.

#[path = "network/grants.rs"]
mod grants;
#[path = "network/revocation.rs"]
mod revocation;
#[path = "network/seals.rs"]
mod seals;
#[path = "network/trimming.rs"]
mod trimming;

use atoll_node::runtime::Workers;
use atoll_node::{Actor, Role, identity, peer};
use atoll_storage::{Clock, Id, Read};
use atoll_tests::harness::{ADMIN_EMAIL, PASSWORD, TestNode};
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

/// Asks until the answer is 200. The node answers at once, so this is no faster than it and waits for nothing else.
async fn until_ready(node: &TestNode) {
    let wait = async { while node.stranger().get("/readyz").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, wait).await.expect("the node becomes ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_once_somebody_can_sign_in_and_not_before() {
    let node = TestNode::start_empty(|_| {}).await;
    let early = node.stranger().get("/readyz").await.expect(503);
    assert!(early.text().contains("no tenant yet"), "{}", early.text());
    assert_eq!(node.stranger().get("/health").await.expect(503).json()["status"], "starting");
    node.stranger().get("/livez").await.expect(200);
    let (client, set_up) = (node.stranger(), async {
        identity::setup(&node.node, ADMIN_EMAIL, PASSWORD).await.unwrap();
    });
    let signs_in = async {
        until_ready(&node).await;
        client.login(ADMIN_EMAIL, PASSWORD).await
    };
    tokio::join!(set_up, signs_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_is_ready_when_it_knows_the_network() {
    let (a, b) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    b.stranger().get("/readyz").await.expect(503);
    join(&a, &b).await;
    until_ready(&b).await;
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_knows_the_users_and_a_token_is_good_on_both() {
    let (a, b, workers) = pair().await;
    let admin = a.admin().await;
    let on_b = atoll_tests::harness::Client { address: b.address, ..admin };
    until_equal(&[&a, &b]).await;
    let me = on_b.get("/api/v1/auth/me").await.expect(200).data();
    assert_eq!(me["email"], ADMIN_EMAIL);
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
        node.cut().await;
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

/// The node is killed, and its folder is lost; what is left is a backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_node_gets_back_what_it_wrote_after_the_backup_and_undoes_nothing() {
    let (a, b, mut workers) = pair().await;
    let editor = a.admin().await;
    let write = async |title: &str| {
        let draft = json!({ "title": title, "body": "as it was" });
        editor.post("/api/v1/posts", &draft).await.expect(201).data()
    };
    let (kept, doomed) = (write("Kept").await, write("Doomed").await);
    let backups = tempfile::tempdir().unwrap();
    let backup = backups.path().join("backup");
    atoll_node::backup::create(&a.node, &backup, &|_, _| Ok(())).unwrap();
    let path = |post: &serde_json::Value| format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
    let later = write("Later").await;
    editor.delete(&format!("{}?purge=true", path(&doomed))).await.expect(204);
    let change = json!({ "title": "Kept and changed" });
    editor.put(&path(&kept), &change).await.expect(200);
    until_equal(&[&a, &b]).await;
    let (root_before, epoch, id) = (root(&b), a.node.store.origin().epoch, a.node.id());
    // Its workers end without a word to the store, which stays as it is: nobody opens that folder again.
    let gone = workers.remove(0);
    gone.shutdown().await;
    let (tenant, admin) = (a.tenant, a.admin);
    drop(a);

    let folder = tempfile::tempdir().unwrap();
    let restored =
        atoll_node::backup::restore(&backup, folder.path(), None, &|_, _| Ok(())).unwrap();
    assert!(restored.epoch != epoch);
    let a = TestNode::reopen(folder, tenant, admin).await;
    assert_eq!(a.node.id(), id);
    assert_ne!(root(&a), root_before, "the backup is older");
    a.stranger().get(&path(&later)).await.expect(404);
    workers.push(a.node.start().await.unwrap());
    let editor = a.admin().await;
    // Written before it has heard of anything: under its new epoch, so that it is nobody else's number.
    let new = json!({ "title": "New life", "body": "x" });
    let new = editor.post("/api/v1/posts", &new).await.expect(201).data();
    until_equal(&[&a, &b]).await;
    let there = b.admin().await;
    until_equal(&[&a, &b]).await;
    for client in [&editor, &there] {
        client.get(&path(&later)).await.expect(200);
        client.get(&path(&new)).await.expect(200);
        client.get(&path(&doomed)).await.expect(404);
        let post = client.get(&path(&kept)).await.expect(200).data();
        assert_eq!(post["title"], "Kept and changed");
    }
    for node in [&a, &b] {
        assert_eq!(node.node.store.verify().unwrap().problems, Vec::<String>::new());
    }
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_folder_that_runs_beside_its_original_is_turned_away_by_name() {
    let (a, b, mut workers) = pair().await;
    let backups = tempfile::tempdir().unwrap();
    let backup = backups.path().join("backup");
    atoll_node::backup::create(&a.node, &backup, &|_, _| Ok(())).unwrap();
    // Copied by hand and not restored: the epoch stays.
    let folder = tempfile::tempdir().unwrap();
    for name in ["atoll.db", "node.key", "token.key"] {
        std::fs::copy(backup.join(name), folder.path().join(name)).unwrap();
    }
    let copy = TestNode::reopen(folder, a.tenant, a.admin).await;
    assert_eq!(copy.node.store.origin(), a.node.store.origin());
    workers.push(copy.node.start().await.unwrap());
    let reason = || copy.node.sync().unwrap().status()[0].reason.clone();
    until(|| reason().contains("copy of")).await;
    let original = a.node.sync().unwrap().local_addr().to_string();
    assert!(reason().contains(&format!("copy of atoll, which runs at {original}")), "{}", reason());
    let of_a = b.node.sync().unwrap().status()[0].clone();
    let at = copy.node.sync().unwrap().local_addr();
    assert_eq!(of_a.copy_at, Some(at), "{of_a:?}");
    let plan = peer::plan(&copy.node, &Actor::system(Id::NIL)).unwrap();
    assert_eq!(plan[0].obstacle.map(|obstacle| obstacle.name()), Some("copy"));
    // The original goes on undisturbed.
    let post = json!({ "title": "Of the original", "body": "x" });
    a.admin().await.post("/api/v1/posts", &post).await.expect(201);
    until_equal(&[&a, &b]).await;
    for worker in workers {
        worker.shutdown().await;
    }
}

/// It listens at every address of its own and names none: nobody can dial it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_nat_dials_out_and_gets_and_gives_everything() {
    let a = TestNode::start().await;
    let nowhere = |config: &mut atoll_node::Config| config.sync_listen = ([0, 0, 0, 0], 0).into();
    let b = TestNode::start_empty(nowhere).await;
    let mut workers = vec![a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    join(&a, &b).await;
    until_equal(&[&a, &b]).await;
    let of_b = || a.node.sync().unwrap().status()[0].clone();
    assert_eq!(of_b().address, None);
    for (writer, reader, title) in [(&a, &b, "From the hub"), (&b, &a, "From behind")] {
        let post = json!({ "title": title, "body": "x" });
        let post = writer.admin().await.post("/api/v1/posts", &post).await.expect(201).data();
        let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
        until_equal(&[&a, &b]).await;
        reader.admin().await.get(&path).await.expect(200);
    }
    workers.pop().unwrap().shutdown().await;
    until(|| of_b().obstacle.map(|obstacle| obstacle.name()) == Some("no_address")).await;
    assert!(of_b().reason.contains("it has to dial this node"), "{}", of_b().reason);
    workers.pop().unwrap().shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_titles_written_apart_are_shown_with_what_differs_between_them() {
    let (a, b, workers) = pair().await;
    let (here, there) = (a.admin().await, b.admin().await);
    let post = json!({ "title": "The hall", "body": "x" });
    let post = here.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
    until_equal(&[&a, &b]).await;
    for node in [&a, &b] {
        node.cut().await;
    }
    here.put(&path, &json!({ "title": "The old hall" })).await.expect(200);
    there.put(&path, &json!({ "title": "The new hall" })).await.expect(200);
    for node in [&a, &b] {
        node.node.sync().unwrap().resume();
    }
    until_equal(&[&a, &b]).await;
    let inbox = here.get("/api/v1/sync/conflicts").await.expect(200).data();
    let of_title = |row: &&serde_json::Value| row["field"] == "title";
    let id = inbox.as_array().unwrap().iter().find(of_title).unwrap()["id"].clone();
    let path = format!("/api/v1/sync/conflicts/{}", id.as_str().unwrap());
    let conflict = here.get(&path).await.expect(200).data();
    let values = conflict["values"].as_array().unwrap();
    let (won, lost): (Vec<_>, Vec<_>) = values.iter().partition(|value| value["won"] == true);
    assert_eq!((won.len(), lost.len()), (1, 1), "{conflict}");
    assert!(won[0]["diff"].is_null());
    let name = |node: &TestNode| node.node.config.name.clone();
    for value in values {
        let node = if value["node"] == a.node.id().to_string() { &a } else { &b };
        assert_eq!(value["node_name"], name(node));
        assert_eq!(value["author"]["id"], json!(a.admin), "{value}");
    }
    let word = |value: &serde_json::Value| value["value"].as_str().unwrap()[4..7].to_owned();
    let expected = json!([
        { "op": "equal", "text": "The " },
        { "op": "delete", "text": word(won[0]) },
        { "op": "insert", "text": word(lost[0]) },
        { "op": "equal", "text": " hall" },
    ]);
    assert_eq!(lost[0]["diff"], expected);
    for worker in workers {
        worker.shutdown().await;
    }
}
