//! A node that is removed from the whole network by one command.

use super::{join, root, until};
use atoll_node::courier::{self, Order};
use atoll_node::{Actor, kinds, peer};
use atoll_storage::{Id, Kind, Read};
use atoll_tests::harness::{Client, PASSWORD, TestNode};
use serde_json::{Value as Json, json};
use std::time::Duration;

fn system() -> Actor {
    Actor::system(Id::NIL)
}

async fn level(nodes: &[&TestNode]) {
    until(|| nodes.iter().all(|node| root(node) == root(nodes[0]))).await;
}

fn lists(node: &TestNode, other: &TestNode) -> bool {
    let listed = peer::list(&node.node, &system()).unwrap();
    listed.iter().any(|peer| peer.node == other.node.id())
}

fn is_linked(node: &TestNode, other: &TestNode) -> bool {
    let all = node.node.sync().unwrap().status();
    all.iter().any(|peer| peer.node == other.node.id() && peer.is_linked())
}

/// Why `node` has no link to `other`, in one word.
fn obstacle(node: &TestNode, other: &TestNode) -> Option<&'static str> {
    let all = node.node.sync().unwrap().status();
    let of_other = all.into_iter().find(|peer| peer.node == other.node.id())?;
    of_other.obstacle.map(|obstacle| obstacle.name())
}

async fn refuses(node: &TestNode, other: &TestNode) {
    let hour = Duration::from_secs(3_600);
    let ticket = peer::ticket(&node.node, &system(), hour, vec![]).await.unwrap().line;
    let refused = peer::join(&other.node, &system(), &ticket).await.unwrap_err();
    assert!(refused.to_string().contains("has been revoked"), "{refused}");
}

fn records(node: &TestNode) -> u64 {
    let kind: &'static Kind = kinds::named("revocation").unwrap();
    let query = atoll_storage::Query::of(kind, Id::NIL);
    node.node.store.read(|reader| reader.list(&query)).unwrap().records.len() as u64
}

async fn remove(admin: &Client, node: &TestNode) {
    let path = format!("/api/v1/sync/peers/{}?everywhere=true&reason=stolen", node.node.id());
    admin.delete_with(&path, &json!({ "password": PASSWORD })).await.expect(204);
}

/// The row of `node`.
async fn removed(admin: &Client, node: &TestNode) -> Json {
    let rows = admin.get("/api/v1/sync/removed").await.expect(200).data();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["node"], node.node.id().to_string());
    rows[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_removed_everywhere_is_cut_off_and_refused_by_all_and_stays_so() {
    let (a, c) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let b = TestNode::start_empty(|_| {}).await;
    let keep = [a.node.start().await.unwrap(), c.node.start().await.unwrap()];
    let of_b = b.node.start().await.unwrap();
    join(&a, &b).await;
    join(&a, &c).await;
    join(&b, &c).await;
    level(&[&a, &b, &c]).await;
    until(|| is_linked(&b, &c) && is_linked(&a, &c)).await;

    let admin = a.admin().await;
    remove(&admin, &c).await;
    assert!(!lists(&a, &c) && !is_linked(&a, &c));
    until(|| !lists(&b, &c) && !is_linked(&b, &c)).await;
    peer::sync_now(&c.node, &system()).unwrap();
    until(|| [&a, &b].iter().all(|other| obstacle(&c, other) == Some("revoked"))).await;

    let post = json!({ "title": "Among ourselves", "body": "x" });
    admin.post("/api/v1/posts", &post).await.expect(201);
    level(&[&a, &b]).await;
    assert_ne!(root(&a), root(&c));
    refuses(&a, &c).await;
    refuses(&b, &c).await;
    let key = c.node.key().public().to_string();
    let again = peer::add(&b.node, &system(), &key, "c", None).await.unwrap_err();
    assert!(again.to_string().contains("removed everywhere"), "{again}");
    let twice = peer::revoke(&a.node, &system(), &key, None).await.unwrap_err();
    assert!(twice.to_string().contains("already"), "{twice}");
    let own = peer::revoke(&a.node, &system(), &a.node.id().to_string(), None).await.unwrap_err();
    assert!(own.to_string().contains("itself"), "{own}");

    let there = b.admin().await;
    let row = removed(&there, &c).await;
    assert_eq!(row["reason"], "stolen");
    let words = row["words"].as_str().unwrap();
    assert!(words.contains("was removed everywhere by admin on atoll at 2"), "{words}");
    let plan = there.get("/api/v1/sync/plan").await.expect(200).data();
    let plan = plan.as_array().unwrap().iter().find(|row| row["state"] == "removed").unwrap();
    assert_eq!((&plan["obstacle"], &plan["words"][0]), (&json!("revoked"), &json!(words)));
    assert_eq!(there.get("/api/v1/sync/status").await.expect(200).data()["removed"], 1);

    of_b.shutdown().await;
    let (tenant, admin) = (a.tenant, a.admin);
    let b = TestNode::reopen(b.close().await, tenant, admin).await;
    let of_b = b.node.start().await.unwrap();
    assert!(!lists(&b, &c));
    refuses(&b, &c).await;
    of_b.shutdown().await;
    for worker in keep {
        worker.shutdown().await;
    }
}

/// What is over once and for all takes more than a session left open, or a key in a script.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_everywhere_takes_the_password_of_whoever_asks_and_one_from_a_node_does_not() {
    let (a, c) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let key = c.node.key().public().to_string();
    peer::add(&a.node, &system(), &key, "c", None).await.unwrap();
    let admin = a.admin().await;
    let path = format!("/api/v1/sync/peers/{}?everywhere=true", c.node.id());
    let bare = admin.delete(&path).await.expect(422);
    assert_eq!(bare.json()["errors"][0]["field"], "password", "{}", bare.text());
    for (body, code) in [
        (json!({ "password": "not this one" }), "wrong"),
        (json!({}), "required"),
        (json!({ "password": PASSWORD, "reason": "stolen" }), "unknown_field"),
    ] {
        let told = admin.delete_with(&path, &body).await.expect(422);
        assert_eq!(told.json()["errors"][0]["code"], code, "{}", told.text());
    }
    let robot = json!({ "name": "robot", "scopes": ["sync.administer"] });
    let robot = admin.post("/api/v1/api-keys", &robot).await.expect(201).data();
    let robot = a.stranger().with_token(robot["key"].as_str().unwrap());
    robot.delete_with(&path, &json!({ "password": PASSWORD })).await.refused(403, "denied");
    assert!(lists(&a, &c));
    assert_eq!(records(&a), 0);

    robot.delete(&format!("/api/v1/sync/peers/{}", c.node.id())).await.expect(204);
    assert!(!lists(&a, &c));
    assert_eq!(records(&a), 0);
    remove(&admin, &c).await;
    assert_eq!(records(&a), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_hears_of_a_removal_and_nobody_can_take_it_back() {
    let (a, b) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let c = TestNode::start_empty(|_| {}).await;
    let nodes = [&a, &b, &c];
    let mut workers = Vec::new();
    for node in nodes {
        workers.push(node.node.start().await.unwrap());
    }
    join(&a, &b).await;
    join(&b, &c).await;
    level(&nodes).await;
    until(|| is_linked(&b, &c)).await;
    // B is away; A never met C, and knows its id alone.
    b.node.sync().unwrap().pause();
    until(|| !is_linked(&b, &a) && !is_linked(&b, &c)).await;
    remove(&a.admin().await, &c).await;
    assert!(lists(&b, &c));
    b.node.sync().unwrap().resume();
    until(|| !lists(&b, &c)).await;
    peer::sync_now(&c.node, &system()).unwrap();
    until(|| obstacle(&c, &b) == Some("revoked")).await;
    refuses(&b, &c).await;
    level(&[&a, &b]).await;

    // Whoever holds C has heard of it too, and what C says comes in by way of a node that has not.
    c.take_from(&a);
    assert_eq!(records(&c), 1);
    let kind = kinds::named("revocation").unwrap();
    let undone = c.node.store.write(move |tx| {
        let query = atoll_storage::Query::of(kind, Id::NIL);
        for record in tx.list(&query)?.records {
            tx.remove(kind, record.key)?;
        }
        Ok::<_, atoll_storage::Error>(())
    });
    undone.await.unwrap();
    let thief = c.admin().await;
    assert_eq!(records(&c), 0);
    b.take_from(&c);
    until(|| records(&b) == 1).await;
    level(&[&a, &b]).await;
    assert_eq!(records(&a), 1);
    refuses(&a, &c).await;
    refuses(&b, &c).await;
    let as_thief = b.stranger().with_token(&thief.token.unwrap());
    as_thief.get("/api/v1/users").await.refused(401, "token_invalid");
    for worker in workers {
        worker.shutdown().await;
    }
}

/// What it signs is good nowhere, on itself neither: to let anybody in would be to throw him out at his first step.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_that_hears_of_it_says_so_to_whoever_signs_in() {
    let a = TestNode::start().await;
    let c = TestNode::start_beside(&a).await;
    let login = json!({ "login": "admin", "password": PASSWORD });
    let told = c.stranger().post("/api/v1/auth/login", &login).await.expect(200).data();
    let client = c.stranger().with_token(told["access_token"].as_str().unwrap());
    let on_a = a.stranger().with_token(told["access_token"].as_str().unwrap());
    client.get("/api/v1/auth/me").await.expect(200);
    let key = c.node.key().public().to_string();
    peer::revoke(&a.node, &system(), &key, None).await.unwrap();
    c.take_from(&a);
    assert_eq!(records(&c), 1);
    client.get("/api/v1/auth/me").await.refused(401, "node_removed");
    let fresh = json!({ "refresh_token": told["refresh_token"] });
    c.stranger().post("/api/v1/auth/refresh", &fresh).await.refused(401, "node_removed");
    let refused = c.stranger().post("/api/v1/auth/login", &login).await.expect(401).json();
    assert_eq!(refused["code"], "node_removed", "{refused}");
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        detail.contains("was removed from the network") && detail.contains("ticket"),
        "{detail}"
    );
    // Who does not know the password hears nothing of it, and elsewhere the token is just not one.
    let wrong = json!({ "login": "admin", "password": "not this one" });
    c.stranger().post("/api/v1/auth/login", &wrong).await.refused(401, "wrong_credentials");
    on_a.get("/api/v1/auth/me").await.refused(401, "token_invalid");
    a.admin().await.get("/api/v1/auth/me").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_a_node_removed_everywhere_is_refused_where_that_was_heard() {
    let (a, c) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let b = TestNode::start_beside(&a).await;
    let key = c.node.key().public().to_string();
    peer::add(&b.node, &system(), &key, "c", None).await.unwrap();
    c.take_from(&a);
    let file = c.folder().join("carried.atoll");
    let bundle = |to: &TestNode| {
        tokio::task::block_in_place(|| {
            courier::import(&to.node, &system(), std::slice::from_ref(&file), |_, _| {})
        })
    };
    tokio::task::block_in_place(|| {
        courier::export(&c.node, &system(), &Order::default(), &file, |_, _| {}).unwrap();
    });
    assert!(bundle(&b).unwrap().bundles[0].is_known);
    peer::revoke(&a.node, &system(), &key, None).await.unwrap();
    // B does not run: the record alone says it.
    b.take_from(&a);
    let refused = bundle(&b).unwrap_err();
    assert!(refused.to_string().contains("does not know"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_wrote_after_it_was_removed_is_taken_back_everywhere_and_shown() {
    let a = TestNode::start().await;
    let (b, c) = (TestNode::start_beside(&a).await, TestNode::start_beside(&a).await);
    let admin = a.admin().await;
    let post = json!({ "title": "In time", "body": "As it was" });
    let made = admin.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}", made["id"].as_str().unwrap());
    b.take_from(&a);
    c.take_from(&a);
    let key = c.node.key().public().to_string();
    peer::revoke(&a.node, &system(), &key, None).await.unwrap();

    let thief = c.admin().await;
    thief.put(&path, &json!({ "title": "Hacked", "body": "Gone" })).await.expect(200);
    thief.put(&path, &json!({ "body": "Gone with the wind" })).await.expect(200);
    let late = json!({ "title": "Too late", "body": "Somebody's honest work" });
    let late = thief.post("/api/v1/posts", &late).await.expect(201).data();
    let late_path = format!("/api/v1/posts/{}", late["id"].as_str().unwrap());
    // B has not heard, and shows it.
    b.take_from(&c);
    let there = b.admin().await;
    assert_eq!(there.get(&path).await.expect(200).data()["title"], "Hacked");
    a.take_from(&b);
    b.take_from(&a);
    for client in [&admin, &there] {
        let shown = client.get(&path).await.expect(200).data();
        assert_eq!((&shown["title"], &shown["body"]), (&made["title"], &made["body"]));
        client.get(&late_path).await.refused(404, "not_found");
    }
    level(&[&a, &b]).await;

    let worker = b.node.start().await.unwrap();
    for client in [&admin, &there] {
        let mut found = None;
        until(|| {
            let rows = peer::quarantined(&b.node, &system(), 1_000).unwrap();
            rows.len() as u64 == peer::status(&a.node, &system()).unwrap().late
        })
        .await;
        let rows = client.get("/api/v1/sync/quarantine?limit=100").await.expect(200).data();
        for row in rows.as_array().unwrap() {
            let reason = row["reason"].as_str().unwrap();
            assert!(reason.ends_with(" after it was removed"), "{reason}");
            if row["key"] == late["id"] && row["did"] == "created" {
                found = Some(row["values"].clone());
            }
        }
        // A change says what it added.
        let rows = rows.as_array().unwrap();
        let of_text = |row: &&Json| row["key"] == made["id"] && row["values"]["body"].is_object();
        let mut passages: Vec<&Json> =
            rows.iter().filter(of_text).map(|row| &row["values"]["body"]).collect();
        passages.sort_by_key(|told| told["added"].to_string());
        let expected = [json!([" with the wind"]), json!(["Gone"])];
        assert_eq!(
            passages.iter().map(|told| &told["added"]).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>()
        );
        assert_eq!([&passages[0]["removed"], &passages[1]["removed"]], [0, 9]);
        let values = found.unwrap();
        assert_eq!(values["title"], "Too late", "{values}");
        assert!(values.to_string().contains("Somebody's honest work"), "{values}");
    }
    worker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_may_not_do_everything_takes_nothing_back() {
    let (a, leaf) = (TestNode::start().await, TestNode::start_empty(|_| {}).await);
    let workers = [a.node.start().await.unwrap(), leaf.node.start().await.unwrap()];
    join(&a, &leaf).await;
    let admin = a.admin().await;
    let rights = json!({ "may": ["read", "write"] });
    let path = format!("/api/v1/sync/peers/{}/grant", leaf.node.id());
    admin.put(&path, &rights).await.expect(200);
    until(|| {
        let granted = peer::granted(&leaf.node, &system()).unwrap();
        granted.iter().any(|one| one.holder == leaf.node.id() && !one.rights.relay)
    })
    .await;
    let c = TestNode::start_beside(&a).await;
    c.take_from(&a);
    // What the leaf says nobody hears, and so it must not count on the leaf alone.
    let key = c.node.key().public().to_string();
    peer::revoke(&leaf.node, &system(), &key, None).await.unwrap();
    let post = json!({ "title": "Honest work", "body": "x" });
    let post = c.admin().await.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
    a.take_from(&c);
    admin.get(&path).await.expect(200);
    let (kind, id) = (kinds::named("post").unwrap(), post["id"].as_str().unwrap());
    let id = Id::parse(id).unwrap();
    until(|| leaf.node.store.read(|reader| reader.get(kind, id)).unwrap().is_some()).await;
    assert_eq!(peer::status(&leaf.node, &system()).unwrap().late, 0);
    admin.get(&path).await.expect(200);
    for worker in workers {
        worker.shutdown().await;
    }
}
