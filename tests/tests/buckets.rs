//! Nodes that are never up together, and a bucket where they meet: over HTTP with a real S3 server, and in a folder.

#[path = "buckets/files.rs"]
mod files;
#[path = "buckets/numbers.rs"]
mod numbers;
#[path = "buckets/parts.rs"]
mod parts;

use atoll_node::bucket::{self, Access, Found, NewBucket, Standing};
use atoll_node::runtime::Workers;
use atoll_node::{Actor, Config, Error};
use atoll_storage::{Digest, Id, Read as _};
use atoll_tests::harness::{Client, TestNode, noise};
use atoll_tests::object_store::{BUCKET, Fault, KEY_ID, ObjectStore, SECRET_KEY};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn system() -> Actor {
    Actor::system(Id::NIL)
}

/// A node that is not up.
struct Asleep {
    folder: TempDir,
    tenant: Id,
    admin: Id,
    key: String,
}

/// A node that is up and visits its buckets when it is asked to.
struct Awake {
    test: TestNode,
    workers: Workers,
}

impl Asleep {
    /// Up again, and over with the visit that a node makes when it starts.
    async fn wake(self) -> Awake {
        self.wake_with(|_| {}).await
    }

    async fn wake_with(self, turn: impl FnOnce(&mut Config)) -> Awake {
        let test = self.open(turn).await;
        let node = test.node.clone();
        // Asked for before the workers are there to answer: it is one visit.
        let actor = system();
        let first = bucket::visit(&node, &actor, PATIENCE);
        let (visited, workers) = futures_util::future::join(first, node.start()).await;
        assert!(visited.unwrap(), "a visit ends in time");
        Awake { test, workers: workers.unwrap() }
    }

    async fn open(self, turn: impl FnOnce(&mut Config)) -> TestNode {
        let rarely = |config: &mut Config| {
            config.sync.bucket_s = 604_800;
            turn(config);
        };
        TestNode::reopen_with(self.folder, rarely, self.tenant, self.admin).await
    }
}

impl Awake {
    async fn sleep(self) -> Asleep {
        let (tenant, admin) = (self.test.tenant, self.test.admin);
        let key = self.test.node.key().public().to_string();
        self.workers.shutdown().await;
        Asleep { folder: self.test.close().await, tenant, admin, key }
    }

    async fn visit(&self) -> Standing {
        let node = &self.test.node;
        assert!(bucket::visit(node, &system(), PATIENCE).await.unwrap(), "a visit ends in time");
        self.standing()
    }

    fn standing(&self) -> Standing {
        bucket::list(&self.test.node, &system()).unwrap().remove(0)
    }

    async fn add(&self, new: NewBucket) -> Result<bucket::Added, Error> {
        bucket::add(&self.test.node, &system(), new).await
    }

    async fn lists(&self, other: &str, name: &str) {
        atoll_node::peer::add(&self.test.node, &system(), other, name, None).await.unwrap();
    }

    fn root(&self) -> Digest {
        self.test.node.store.read(|reader| reader.root()).unwrap()
    }

    async fn post(&self, title: &str, body: &str) {
        let admin = self.test.admin().await;
        admin.post("/api/v1/posts", &json!({ "title": title, "body": body })).await.expect(201);
    }

    fn sound(&self) {
        assert_eq!(self.test.node.store.verify().unwrap().problems, Vec::<String>::new());
    }
}

/// The first node has a tenant and an admin; the others are empty. All list each other, and have the bucket.
async fn village(count: usize, new: &NewBucket) -> Vec<Asleep> {
    let mut nodes = Vec::new();
    for n in 0..count {
        let test = match n {
            0 => TestNode::start().await,
            _ => TestNode::start_empty(|_| {}).await,
        };
        let workers = test.node.start().await.unwrap();
        nodes.push(Awake { test, workers }.sleep().await);
    }
    let keys: Vec<String> = nodes.iter().map(|node| node.key.clone()).collect();
    let mut village = Vec::new();
    for (n, node) in nodes.into_iter().enumerate() {
        let node = node.wake().await;
        for (other, key) in keys.iter().enumerate().filter(|(other, _)| *other != n) {
            node.lists(key, &format!("node-{other}")).await;
        }
        node.add(new.clone()).await.unwrap();
        village.push(node.sleep().await);
    }
    village
}

fn in_store(store: &ObjectStore) -> NewBucket {
    NewBucket {
        url: format!("s3://{BUCKET}/nodes"),
        name: "pool".to_owned(),
        access: Access {
            endpoint: store.endpoint(),
            region: "eu-north-1".to_owned(),
            key_id: KEY_ID.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            session_token: String::new(),
        },
        is_open: false,
    }
}

fn in_folder(folder: &Path) -> NewBucket {
    let url = format!("file://{}", folder.display());
    NewBucket { url, name: "pool".to_owned(), ..NewBucket::default() }
}

/// Wakes each alone, lets it visit, and puts it to sleep again; their digests.
async fn each_visits(nodes: Vec<Asleep>) -> (Vec<Asleep>, Vec<Digest>) {
    let (mut after, mut roots) = (Vec::new(), Vec::new());
    for node in nodes {
        let node = node.wake().await;
        let standing = node.standing();
        assert_eq!(standing.obstacle, None, "{standing:?}");
        roots.push(node.root());
        node.sound();
        after.push(node.sleep().await);
    }
    (after, roots)
}

fn all_equal(roots: &[Digest]) -> bool {
    roots.windows(2).all(|pair| pair[0] == pair[1])
}

/// Until all are equal; how many times each came.
async fn until_equal(mut nodes: Vec<Asleep>) -> (Vec<Asleep>, usize) {
    for round in 1..=5 {
        let (after, roots) = each_visits(nodes).await;
        nodes = after;
        if all_equal(&roots) {
            return (nodes, round);
        }
    }
    panic!("the nodes do not become equal");
}

fn bundles(objects: &[String]) -> Vec<&String> {
    objects.iter().filter(|name| !name.contains("/want-") && !name.contains("/lacks-")).collect()
}

async fn read(node: &Awake, slug: &str) -> Json {
    let client: Client = node.test.admin().await;
    client.get(&format!("/api/v1/posts/{slug}")).await.expect(200).data()
}

/// What the last visit found.
fn last(standing: &Standing) -> &Found {
    standing.found.as_ref().unwrap()
}

async fn two_nodes_meet(new: NewBucket) -> Vec<Asleep> {
    let nodes = village(2, &new).await;
    let (mut nodes, _) = until_equal(nodes).await;
    // One writes, sleeps, and the other has it; and the way back.
    for (writer, title) in [(0, "Ebb"), (1, "Flood")] {
        let node = nodes.remove(writer).wake().await;
        node.post(title, "Written while the other slept.").await;
        let standing = node.visit().await;
        assert!(standing.left > 0 && standing.obstacle.is_none(), "{standing:?}");
        nodes.insert(writer, node.sleep().await);
        let reader = 1 - writer;
        let node = nodes.remove(reader).wake().await;
        let standing = node.visit().await;
        assert_eq!(standing.obstacle, None, "{standing:?}");
        let found = read(&node, &title.to_lowercase()).await;
        assert_eq!(found["body"], "Written while the other slept.");
        nodes.insert(reader, node.sleep().await);
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_are_never_up_together_meet_in_a_store() {
    let store = ObjectStore::open().await;
    let nodes = two_nodes_meet(in_store(&store)).await;
    // Locked: not even a title can be read by who keeps the store.
    for name in store.objects() {
        let bytes = std::fs::read(store.bucket().join(&name)).unwrap();
        assert!(!bytes.windows(5).any(|word| word == b"Flood"), "{name}");
        assert!(name.starts_with("nodes/"), "{name}");
    }
    // Everything was brought once, however often it was there to be seen.
    let asked = store.asked();
    for (method, path) in &asked {
        let times = asked.iter().filter(|other| *other == &(method.clone(), path.clone())).count();
        if method == "GET" && path.ends_with("-last.atoll") {
            assert_eq!(times, 1, "{path}");
        }
    }
    // And when all have all, nothing is left but what they have.
    let (_, roots) = each_visits(each_visits(nodes).await.0).await;
    assert!(all_equal(&roots));
    let objects = store.objects();
    assert_eq!((bundles(&objects).len(), objects.len()), (0, 2), "{objects:?}");
    assert!(!store.asked().iter().any(|(_, path)| path.contains(SECRET_KEY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_are_never_up_together_meet_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let new = in_folder(folder.path());
    let mut nodes = two_nodes_meet(new).await;
    // Its disk is taken away: a state that is told, and nothing is written where it was.
    let kept = folder.path().with_extension("elsewhere");
    std::fs::rename(folder.path(), &kept).unwrap();
    std::fs::create_dir(folder.path()).unwrap();
    let node = nodes.remove(0).wake().await;
    let standing = node.visit().await;
    assert_eq!(standing.obstacle, Some(bucket::Obstacle::NoBucket));
    assert!(standing.reason.contains("not mounted"), "{standing:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::remove_dir(folder.path()).unwrap();
    std::fs::rename(&kept, folder.path()).unwrap();
    assert_eq!(node.visit().await.obstacle, None);
    node.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_write_at_once_and_a_fourth_that_comes_late_gets_all() {
    let store = ObjectStore::open().await;
    let new = in_store(&store);
    let (nodes, _) = until_equal(village(3, &new).await).await;
    // All three are up, have no link, and visit at the same time, again and again.
    let mut awake = Vec::new();
    for node in nodes {
        awake.push(node.wake().await);
    }
    for round in 0..4 {
        for (n, node) in awake.iter().enumerate() {
            node.post(&format!("Round {round} of {n}"), "All at once.").await;
        }
        let visits = awake.iter().map(Awake::visit);
        for standing in futures_util::future::join_all(visits).await {
            // This store says that it is ill when it lists what is removed meanwhile.
            let is_passing = standing.obstacle.is_none_or(|one| one == bucket::Obstacle::Busy);
            assert!(is_passing, "{standing:?}");
        }
    }
    let mut nodes = Vec::new();
    for node in awake {
        nodes.push(node.sleep().await);
    }
    let (nodes, _) = until_equal(nodes).await;
    let (mut nodes, roots) = each_visits(each_visits(nodes).await.0).await;
    assert!(all_equal(&roots));
    assert_eq!(bundles(&store.objects()), Vec::<&String>::new());
    // A fourth one comes to what looks empty, and says that it is there.
    let late = TestNode::start_empty(|_| {}).await;
    let workers = late.node.start().await.unwrap();
    let late = Awake { test: late, workers };
    for (n, node) in nodes.iter().enumerate() {
        late.lists(&node.key, &format!("node-{n}")).await;
    }
    late.add(new.clone()).await.unwrap();
    late.visit().await;
    let late = late.sleep().await;
    // Nobody lists it yet: it is passed over, and told.
    let node = nodes.remove(1).wake().await;
    let standing = node.visit().await;
    let is_told = |(name, why): &(String, String)| {
        name.contains("/want-") && why.contains("does not list as a peer")
    };
    assert!(last(&standing).refused.iter().any(is_told), "{standing:?}");
    node.lists(&late.key, "late").await;
    node.visit().await;
    let expected = node.root();
    node.sleep().await;
    let late = late.wake().await;
    let standing = late.visit().await;
    assert_eq!((standing.taken, late.root()), (1, expected), "{standing:?}");
    late.sound();
    late.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_bundles_become_few_while_somebody_is_away() {
    let store = ObjectStore::open().await;
    let (mut nodes, _) = until_equal(village(2, &in_store(&store)).await).await;
    let writer = nodes.remove(0).wake().await;
    for n in 0..20 {
        writer.post(&format!("Small {n}"), "Little by little.").await;
        writer.visit().await;
        let objects = store.objects();
        assert!(bundles(&objects).len() <= 17, "{objects:?}");
    }
    assert!(bundles(&store.objects()).len() < 17);
    let expected = writer.root();
    writer.sleep().await;
    let reader = nodes.remove(0).wake().await;
    let standing = reader.visit().await;
    assert_eq!(standing.obstacle, None, "{standing:?}");
    assert_eq!(reader.root(), expected);
    reader.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_cut_off_leaves_nothing_that_counts() {
    let store = ObjectStore::open().await;
    let (mut nodes, _) = until_equal(village(2, &in_store(&store)).await).await;
    let writer = nodes.remove(0).wake().await;
    for n in 0..14 {
        writer.post(&format!("Long {n}"), &noise(n, 900_000)).await;
    }
    // The second volume does not get through.
    store.fail(|method, path| method == "PUT" && path.contains("-0002"), Fault::Cut);
    let standing = writer.visit().await;
    assert_eq!(standing.obstacle, Some(bucket::Obstacle::Offline), "{standing:?}");
    assert_eq!(standing.state(), "waiting");
    let half = store.objects();
    let is_open = |name: &&String| name.ends_with("-0001.atoll");
    let cut: Vec<String> = half.iter().filter(is_open).cloned().collect();
    assert_eq!(cut.len(), 1, "{half:?}");
    store.heal();
    let writer_root = writer.root();
    let writer = writer.sleep().await;
    // What stands there is no bundle for anybody.
    let reader = nodes.remove(0).wake().await;
    let standing = reader.visit().await;
    assert_eq!(standing.obstacle, None, "{standing:?}");
    assert_ne!(reader.root(), writer_root);
    let reader = reader.sleep().await;
    // The next visit clears it away and leaves the whole.
    let writer = writer.wake().await;
    assert_eq!(writer.visit().await.obstacle, None);
    let whole = store.objects();
    assert!(whole.iter().any(|name| name.contains("-0002")), "{whole:?}");
    assert!(!whole.contains(&cut[0]), "{whole:?}");
    let expected = writer.root();
    writer.sleep().await;
    // The reader is cut off after the first volume, and goes on with the second.
    store.asked();
    store.fail(|method, path| method == "GET" && path.contains("-0002"), Fault::Cut);
    let reader = reader.wake().await;
    assert_eq!(reader.visit().await.obstacle, Some(bucket::Obstacle::Offline));
    store.heal();
    let standing = reader.visit().await;
    assert_eq!((last(&standing).taken, reader.root()), (1, expected), "{standing:?}");
    let firsts = store.asked().into_iter();
    // Once to look at its beginning, once to take it.
    assert_eq!(firsts.filter(|(_, path)| path.ends_with("-0001.atoll")).count(), 2);
    reader.sound();
    reader.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_told_and_left_anew() {
    let store = ObjectStore::open().await;
    let (mut nodes, _) = until_equal(village(2, &in_store(&store)).await).await;
    let writer = nodes.remove(0).wake().await;
    writer.post("Spring tide", &noise(1, 50_000)).await;
    writer.visit().await;
    let expected = writer.root();
    let writer = writer.sleep().await;
    let objects = store.objects();
    let name = bundles(&objects)[0].clone();
    let path = store.bucket().join(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();
    std::fs::write(store.bucket().join("nodes/holiday.jpg"), b"\xff\xd8").unwrap();
    let reader = nodes.remove(0).wake().await;
    let found = reader.visit().await.found.unwrap();
    assert_eq!(found.refused.len(), 1, "{found:?}");
    assert!(found.refused[0].1.contains("not those that were signed"), "{found:?}");
    assert_eq!(found.foreign, ["holiday.jpg"]);
    assert_ne!(reader.root(), expected);
    // It is not brought again while it is as it is.
    store.asked();
    reader.visit().await;
    assert!(!store.asked().iter().any(|(_, path)| path.ends_with(&name)));
    let reader = reader.sleep().await;
    let writer = writer.wake().await;
    writer.visit().await;
    assert!(!path.exists());
    writer.sleep().await;
    let reader = reader.wake().await;
    let standing = reader.visit().await;
    assert_eq!(reader.root(), expected, "{standing:?}");
    assert_eq!(last(&standing).refused, []);
    assert!(store.bucket().join("nodes/holiday.jpg").exists());
    reader.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_bucket_gives_all_to_whoever_comes_first() {
    let store = ObjectStore::open().await;
    let new = NewBucket { is_open: true, ..in_store(&store) };
    let mut nodes = village(2, &new).await;
    let first = nodes.remove(0).wake().await;
    first.post("For all", "Nobody else was there yet.").await;
    first.visit().await;
    let expected = first.root();
    first.sleep().await;
    let second = nodes.remove(0).wake().await;
    second.visit().await;
    assert_eq!(second.root(), expected);
    assert_eq!(read(&second, "for-all").await["body"], "Nobody else was there yet.");
    second.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_store_is_told_in_words() {
    let mut store = ObjectStore::open().await;
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let node = Awake { test, workers };
    let refused = async |turn: fn(&mut NewBucket), code: &str, words: &str| {
        let mut new = in_store(&store);
        turn(&mut new);
        let error = node.add(new).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains(SECRET_KEY), "{error}");
    };
    refused(|new| "s3://elsewhere".clone_into(&mut new.url), "no_bucket", "no bucket elsewhere")
        .await;
    refused(|new| new.access.secret_key.push('!'), "denied", "secret key is not that").await;
    refused(|new| "NOBODY".clone_into(&mut new.access.key_id), "denied", "denie").await;
    refused(|new| new.access.key_id.clear(), "invalid", "AWS_ACCESS_KEY_ID").await;
    let skewed = "<Error><Code>RequestTimeTooSkewed</Code><Message>No.</Message></Error>";
    store.fail(|_, _| true, Fault::Answer(403, skewed));
    refused(|_| {}, "clock", "set this machine's clock").await;
    store.heal();
    assert!(bucket::list(&node.test.node, &system()).unwrap().is_empty());
    // Offline is no fault: it is added, told, and reached later.
    store.close().await;
    let added = node.add(in_store(&store)).await.unwrap();
    assert!(added.not_reached.unwrap().contains("is not reached"));
    let standing = node.visit().await;
    assert_eq!((standing.state(), standing.obstacle), ("waiting", Some(bucket::Obstacle::Offline)));
    assert!(standing.reason.contains("refused") && standing.next_s.is_some(), "{standing:?}");
    let admin = node.test.admin().await;
    let rows = admin.get("/api/v1/sync/buckets").await.expect(200);
    assert_eq!(rows.json()["data"][0]["obstacle"], "offline");
    assert!(!rows.text().contains(SECRET_KEY), "{}", rows.text());
    store.reopen().await;
    let standing = node.visit().await;
    assert_eq!((standing.state(), standing.obstacle), ("reached", None), "{standing:?}");
    // A listing is denied later on.
    store.fail(|method, _| method == "GET", Fault::Answer(403, ""));
    let standing = node.visit().await;
    assert_eq!(standing.obstacle, Some(bucket::Obstacle::Denied));
    assert!(!format!("{standing:?}").contains(SECRET_KEY));
    assert_eq!(bucket::remove(&node.test.node, &system(), "pool").await.unwrap(), "pool");
    assert!(bucket::list(&node.test.node, &system()).unwrap().is_empty());
    node.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_store_that_does_not_answer() {
    let store = ObjectStore::open().await;
    let mut nodes = village(1, &in_store(&store)).await;
    store.fail(|_, _| true, Fault::Hang);
    let node = nodes.remove(0).open(|_| {}).await;
    let workers = node.node.start().await.unwrap();
    store.hung().await;
    workers.shutdown().await;
    // The store still has not answered, and nothing waits for it any more.
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bucket_is_not_added_under_two_names() {
    let store = ObjectStore::open().await;
    let folder = tempfile::tempdir().unwrap();
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let node = Awake { test, workers };
    let named = |name: &str, new: NewBucket| NewBucket { name: name.to_owned(), ..new };
    let at = |url: String, new: NewBucket| NewBucket { url, ..new };
    node.add(in_store(&store)).await.unwrap();
    node.add(named("nas", in_folder(folder.path()))).await.unwrap();
    let path = folder.path().display().to_string();
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    for (new, first) in [
        (in_store(&store), "pool"),
        (at(format!("s3://{BUCKET}/nodes/"), in_store(&store)), "pool"),
        (in_folder(folder.path()), "nas"),
        (at(format!("file://{path}/"), in_folder(folder.path())), "nas"),
        (at(format!("file://localhost{path}"), in_folder(folder.path())), "nas"),
        (at(format!("file://{}", link.display()), in_folder(folder.path())), "nas"),
    ] {
        let url = new.url.clone();
        let error = node.add(named("again", new)).await.unwrap_err();
        assert_eq!(error.code(), "bucket_listed", "{url}: {error}");
        assert!(error.to_string().contains(&format!("as {first}")), "{url}: {error}");
    }
    // Of its own name it takes its place, as with new keys; another prefix is another one.
    node.add(at(format!("s3://{BUCKET}/nodes/"), in_store(&store))).await.unwrap();
    node.add(named("others", at(format!("s3://{BUCKET}/others"), in_store(&store)))).await.unwrap();
    let names: Vec<String> =
        bucket::list(&node.test.node, &system()).unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    node.sleep().await;
}
