//! Members of a bucket of which some carry a part of the network.

use super::{Asleep, Awake, NewBucket, ObjectStore, all_equal, bundles, each_visits, in_folder};
use super::{in_store, last, read, system, until_equal, village};
use atoll_node::carries;
use atoll_storage::Read as _;
use atoll_tests::harness::is_on_disk;
use serde_json::{Value as Json, json};

const PART: &[&str] = &["*", "-*/community"];
const ALL: &[&str] = &["*"];

impl Awake {
    /// Whoever meets others in buckets alone has to force it: nobody is linked who has what is dropped.
    pub(super) async fn carry(&self, rules: &[&str]) {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        carries::set(&self.test.node, &system(), &rules, true).await.unwrap();
        let store = self.test.node.store.clone();
        tokio::task::spawn_blocking(move || while store.shed(200).unwrap() {}).await.unwrap();
    }

    async fn remark(&self, post: &Json, text: &str) {
        let remark = json!({ "post_id": post["id"], "text": text });
        self.test.admin().await.post("/api/v1/comments", &remark).await.expect(201);
    }

    async fn publish(&self, title: &str) -> Json {
        let admin = self.test.admin().await;
        let draft = json!({ "title": title, "body": "Come and talk." });
        let post = admin.post("/api/v1/posts", &draft).await.expect(201).data();
        let path = format!("/api/v1/posts/{}/publish", post["id"].as_str().unwrap());
        admin.post(&path, &json!({})).await.expect(200);
        post
    }

    fn scope(&self, scope: &str) -> Vec<String> {
        let streams = self.test.node.store.read(|reader| reader.streams()).unwrap();
        let of_scope = streams.iter().filter(|head| head.stream.scope == scope && !head.is_empty());
        of_scope.map(|head| format!("{} {:?}", head.stream, head.leaf())).collect()
    }
}

/// Lets each visit, and visit again; what each has of posts and of comments.
async fn all_meet(nodes: Vec<Asleep>) -> (Vec<Asleep>, Vec<[Vec<String>; 2]>) {
    let (nodes, _) = each_visits(each_visits(nodes).await.0).await;
    let (mut after, mut has) = (vec![], vec![]);
    for node in nodes {
        let node = node.wake().await;
        has.push(["content", "community"].map(|scope| node.scope(scope)));
        after.push(node.sleep().await);
    }
    (after, has)
}

async fn three_of_whom_one_carries_a_part(new: NewBucket, objects: impl Fn() -> Vec<String>) {
    let (mut nodes, _) = until_equal(village(3, &new).await).await;
    let part = nodes.remove(1).wake().await;
    part.carry(PART).await;
    part.visit().await;
    let part = part.sleep().await;

    // A whole one leaves posts and remarks; the other one takes them all, and the part its part.
    let first = nodes.remove(0).wake().await;
    let post = first.publish("Ebb").await;
    first.remark(&post, "an unmistakable remark").await;
    let standing = first.visit().await;
    let told = last(&standing).members.iter().find(|seen| !seen.carries.is_everything());
    assert_eq!(told.unwrap().carries.to_string(), "*/*, -*/community", "{standing:?}");
    nodes.insert(0, first.sleep().await);
    let part = part.wake().await;
    let standing = part.visit().await;
    assert_eq!(last(&standing).refused, []);
    assert_eq!(read(&part, "ebb").await["body"], "Come and talk.");
    assert!(part.scope("community").is_empty());
    assert!(!is_on_disk(part.test.folder(), "an unmistakable remark"));
    // And what the part writes, they take.
    part.post("Flood", "From a part.").await;
    nodes.insert(1, part.sleep().await);
    let (mut nodes, has) = all_meet(nodes).await;
    assert!(has.iter().all(|[content, _]| *content == has[0][0]), "{has:?}");
    assert!(has[1][1].is_empty() && has[0][1] == has[2][1] && !has[0][1].is_empty(), "{has:?}");
    // Nothing waits for what it does not carry.
    assert_eq!(bundles(&objects()), Vec::<&String>::new());

    // More is left, and before it comes for that, it takes it all, drops it again and takes it once more.
    let first = nodes.remove(0).wake().await;
    first.remark(&post, "another remark").await;
    first.visit().await;
    nodes.insert(0, first.sleep().await);
    let part = nodes.remove(1).wake().await;
    for rules in [ALL, PART, ALL] {
        part.carry(rules).await;
        part.visit().await;
    }
    nodes.insert(1, part.sleep().await);
    let (nodes, _) = until_equal(nodes).await;
    let (_, roots) = each_visits(each_visits(nodes).await.0).await;
    assert!(all_equal(&roots));
    assert_eq!(bundles(&objects()), Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_which_one_carries_a_part_meet_in_a_store() {
    let store = ObjectStore::open().await;
    three_of_whom_one_carries_a_part(in_store(&store), || store.objects()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_which_one_carries_a_part_meet_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let objects = || {
        let nodes = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let inside = nodes.filter(|path| path.is_dir()).flat_map(|node| {
            let name = node.file_name().unwrap().to_string_lossy().into_owned();
            let files = std::fs::read_dir(&node).unwrap().map(|entry| entry.unwrap().file_name());
            files.map(|file| format!("{name}/{}", file.to_string_lossy())).collect::<Vec<_>>()
        });
        inside.collect()
    };
    three_of_whom_one_carries_a_part(in_folder(folder.path()), objects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_from_a_bundle_and_dropped_since_is_taken_from_it_again() {
    let store = ObjectStore::open().await;
    let new = NewBucket { is_open: true, ..in_store(&store) };
    let mut nodes = village(2, &new).await;
    let first = nodes.remove(0).wake().await;
    let post = first.publish("Ebb").await;
    first.remark(&post, "for whoever comes").await;
    first.visit().await;
    let expected = first.root();
    // Its maker is never here again.
    first.sleep().await;
    let second = nodes.remove(0).wake().await;
    let before = second.visit().await.taken;
    assert_eq!(second.root(), expected);
    assert!(!second.scope("community").is_empty());
    second.carry(PART).await;
    second.carry(ALL).await;
    assert!(second.scope("community").is_empty());
    let standing = second.visit().await;
    assert!(standing.taken > before && last(&standing).refused.is_empty(), "{standing:?}");
    assert_eq!(second.root(), expected);
    second.sound();
    second.sleep().await;
}
