//! The data folders that earlier releases left are opened, understood and synced by this one.

use atoll_tests::harness::{ADMIN_EMAIL, Client, PASSWORD, TestNode};
use atoll_tests::release::{
    self, Told, ask, clock_from, difference, join, problems, root, until_equal,
};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// Of every release that left one.
fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| path.to_string_lossy().ends_with(".tar.zst");
    let mut found: Vec<PathBuf> = files.filter(is_one).collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// A day after it was made: nothing of it is old.
async fn open(folder: TempDir, told: &Told) -> TestNode {
    let clock = clock_from(told.made_ms + 86_400_000);
    TestNode::reopen_at(folder, clock, told.tenant, told.admin).await
}

fn assert_sound(node: &TestNode, release: &str) {
    let problems = problems(node);
    assert!(problems.is_empty(), "{release}: {problems:#?}");
}

/// Everything that was told then, or of it what nodes share, is told now.
async fn assert_told(node: &TestNode, admin: &Client, told: &Told, shared_only: bool) {
    for then in told.answers.iter().filter(|then| then.is_shared || !shared_only) {
        let now = ask(node, admin, &then.tenant, &then.path).await;
        let wanted = as_told_since(&then.path, then.data.clone());
        if let Some(difference) = difference(&wanted, &now) {
            panic!("{} of {}: {difference}", then.path, told.release);
        }
    }
}

/// What was told then in the way that is meant now: that an edit overruled a deletion is about the record and no field, of
/// which 0.1.0 told a number, and is said in other words.
fn as_told_since(path: &str, mut data: Json) -> Json {
    let rows = data.as_array_mut().filter(|_| path.starts_with("/api/v1/sync/conflicts?"));
    for row in rows.into_iter().flatten() {
        if row["cause"] == "edit_overruled_deletion" && row["field"] == "0" {
            row["field"] = Json::Null;
            row["explanation"] = json!(
                "somebody deleted the post while somebody else edited it on another node; the edit stands and the post is kept"
            );
        }
    }
    data
}

/// When its workers have fed the search index with all that is here.
async fn until_fed(node: &TestNode) {
    let wait = async {
        while !node.node.store.unindexed(1).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the search index is fed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_an_earlier_release_opens_verifies_and_tells_what_it_told() {
    for file in fixtures() {
        let (folder, told) = release::unpack(&file);
        let node = open(folder, &told).await;
        node.node.feed_search().unwrap();
        assert_eq!(root(&node), told.root, "{}", told.release);
        assert_eq!(release::streams(&node), told.streams, "{}", told.release);
        assert_sound(&node, &told.release);
        let admin = node.stranger().login(ADMIN_EMAIL, PASSWORD).await;
        assert_told(&node, &admin, &told, false).await;
        let before = root(&node);
        node.node.store.rebuild(|_, _| {}).unwrap();
        assert_eq!(root(&node), before, "{}", told.release);
        assert_sound(&node, &told.release);
        assert_told(&node, &admin, &told, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_an_earlier_release_and_a_new_one_become_equal_both_ways() {
    for file in fixtures() {
        let (folder, told) = release::unpack(&file);
        let old = open(folder, &told).await;
        let fresh = TestNode::start_empty_at(clock_from(told.made_ms + 86_400_000)).await;
        let workers = [old.node.start().await.unwrap(), fresh.node.start().await.unwrap()];
        join(&old, &fresh).await;
        until_equal(&old, &fresh).await;
        let admin = old.stranger().login(ADMIN_EMAIL, PASSWORD).await;
        until_equal(&old, &fresh).await;
        until_fed(&fresh).await;
        assert_told(&fresh, &admin, &told, true).await;

        // Apart from each other, each writes to what both have.
        let on_fresh = Client { address: fresh.address, ..admin.clone() };
        let posts = "/api/v1/posts?status=published&sort=created_at";
        let post = admin.get(posts).await.expect(200).data()[0].clone();
        let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
        let body = admin.get(&path).await.expect(200).data()["body"].as_str().unwrap().to_owned();
        for node in [&old, &fresh] {
            node.cut().await;
        }
        let edit = |body: String| json!({ "body": body });
        on_fresh.put(&path, &edit(format!("{body}\nfrom the new one"))).await.expect(200);
        let made = json!({ "title": "After the upgrade", "body": "x" });
        on_fresh.post("/api/v1/posts", &made).await.expect(201);
        admin.put(&path, &edit(format!("from the old one\n{body}"))).await.expect(200);
        [&old, &fresh].iter().for_each(|node| node.node.sync().unwrap().resume());
        until_equal(&old, &fresh).await;
        for client in [&admin, &on_fresh] {
            let shown = client.get(&path).await.expect(200).data();
            let shown = shown["body"].as_str().unwrap();
            assert!(
                shown.starts_with("from the old one\n") && shown.ends_with("\nfrom the new one"),
                "{shown}"
            );
        }
        for node in [&old, &fresh] {
            assert_sound(node, &told.release);
        }
        release::stop(workers).await;
    }
}
