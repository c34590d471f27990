//! The backups that a node makes of itself: by its schedule or asked for, each restored before it counts.

use atoll_node::backup::{self, kept, work};
use atoll_node::content::post::{POST, TITLE};
use atoll_node::{Node, Role, job};
use atoll_storage::{Clock, Id, Read};
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const HOUR_MS: u64 = 3_600_000;
const PATH: &str = "/api/v1/backups";

/// Wakes with each commit.
async fn until<T>(node: &Node, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let mut commits = node.store.subscribe();
    let wait = async {
        loop {
            commits.mark_unchanged();
            if let Some(found) = found().await {
                return found;
            }
            commits.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes to pass")
}

/// Asks for a backup; its job once that has ended.
async fn back_up(test: &TestNode, admin: &Client) -> Json {
    let asked = admin.post(PATH, &json!({})).await.expect(202);
    let location = asked.header("location").unwrap().to_owned();
    until(&test.node, async || {
        let job = admin.get(&location).await.expect(200).data();
        let has_ended = [job::DONE, job::DEAD].iter().any(|state| job["state"] == *state);
        has_ended.then_some(job)
    })
    .await
}

async fn listed(admin: &Client) -> Vec<Json> {
    admin.get(PATH).await.expect(200).data().as_array().unwrap().clone()
}

async fn health(test: &TestNode) -> Json {
    test.stranger().get("/health").await.expect(200).json()
}

fn restored(test: &TestNode, name: &str, to: &Path) -> atoll_storage::Digest {
    let from = kept::folder(&test.node).join(name);
    backup::restore(&from, to, None, &|_, _| Ok(())).unwrap();
    let config = atoll_node::Config { data: to.to_owned(), ..atoll_node::Config::default() };
    Node::open(config).unwrap().store.read(|reader| reader.root()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_counts_once_it_was_restored_and_holds_what_the_node_held() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    admin.post("/api/v1/posts", &json!({ "title": "Bread", "body": "Rye" })).await.expect(201);
    let picture = test.node.blobs.put(&vec![7; 100_000]).unwrap();
    assert_eq!(health(&test).await["checks"]["backup"], "off");

    let job = back_up(&test, &admin).await;
    assert_eq!(job["state"], "done", "{job}");
    let backups = listed(&admin).await;
    let [one] = backups.as_slice() else { panic!("{backups:?}") };
    assert!(one["proven_at"].is_string() && one["size_bytes"].as_u64() > Some(100_000), "{one}");
    let status = admin.get("/api/v1/sync/status").await.expect(200).data();
    assert_eq!(one["digest"].as_str().unwrap().len(), 64);
    assert_eq!(one["records"], status["records"]);
    let health = health(&test).await;
    assert_eq!((&health["checks"]["backup"], &health["warnings"]), (&"ok".into(), &json!([])));

    let again = tempfile::tempdir().unwrap();
    let to = again.path().join("data");
    let root = restored(&test, one["name"].as_str().unwrap(), &to);
    assert_eq!(root, test.node.store.read(|reader| reader.root()).unwrap());
    let blob = to.join("blobs").join(&picture.to_string()[..2]).join(picture.to_string());
    assert_eq!(std::fs::read(blob).unwrap(), vec![7; 100_000]);
    let left: Vec<_> = std::fs::read_dir(kept::folder(&test.node)).unwrap().collect();
    assert_eq!(left.len(), 1, "the scratch folder is gone: {left:?}");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_for_who_runs_the_node_and_are_made_one_at_a_time() {
    let test = TestNode::start().await;
    let admin = test.user("ada", Role::Admin).await;
    admin.get(PATH).await.refused(403, "denied");
    admin.post(PATH, &json!({})).await.refused(403, "denied");
    let superadmin = test.admin().await;
    superadmin.post(PATH, &json!({})).await.expect(202);
    superadmin.post(PATH, &json!({})).await.refused(409, "backup_under_way");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_makes_them_keeps_so_many_and_an_old_one_is_warned_of() {
    let now_ms = Arc::new(AtomicU64::new(Clock::system().now_ms()));
    let clock = Clock::from_fn({
        let now_ms = now_ms.clone();
        move || now_ms.load(Ordering::Relaxed)
    });
    let turn = |config: &mut atoll_node::Config| {
        (config.backup.every_hours, config.backup.keep) = (1, 1);
    };
    let test = TestNode::start_with_at(turn, clock).await;
    let workers = test.node.start().await.unwrap();
    let proven = async || kept::standing(&test.node).unwrap().last_proven;
    let first = until(&test.node, proven).await;
    assert!(work::round(&test.node).await.is_ok());
    let jobs = || {
        let of_queue = |reader: &atoll_storage::Reader<'_>| {
            atoll_storage::job::of_queue(reader, work::QUEUE, 10)
        };
        test.node.store.read(of_queue).unwrap()
    };
    // A job that is still at work when the clock goes on would be taken by somebody else, and be done twice.
    let done = async || jobs().iter().all(|of| of.state == job::DONE).then_some(());
    assert_eq!(jobs().len(), 1, "none is due");
    until(&test.node, done).await;

    now_ms.fetch_add(3 * HOUR_MS, Ordering::Relaxed);
    kept::look(&test.node).unwrap();
    let late = health(&test).await;
    assert_eq!(late["checks"]["backup"], "late");
    assert!(late["warnings"][0].as_str().unwrap().contains("3 h old"), "{late}");
    let figures = test.stranger().get("/metrics").await.text();
    assert!(figures.contains("atoll_backup_late 1"), "{figures}");

    work::round(&test.node).await.unwrap();
    let second = until(&test.node, async || proven().await.filter(|proof| *proof != first)).await;
    assert!(second.created_ms >= first.created_ms + 3 * HOUR_MS);
    // The one before goes once this one counts.
    until(&test.node, done).await;
    let health = health(&test).await;
    assert_eq!((&health["checks"]["backup"], &health["warnings"]), (&"ok".into(), &json!([])));
    let system = atoll_node::Actor::system(Id::NIL);
    let kept = kept::list(&test.node, &system).unwrap();
    assert_eq!(kept.len(), 1, "one is kept");
    assert_eq!(kept[0].proof.as_ref(), Some(&second));
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_be_made_is_told_and_not_tried_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no-folder");
    std::fs::write(&file, "x").unwrap();
    let test = TestNode::start_with(|config| config.backup.folder = file.join("backups")).await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let job = back_up(&test, &admin).await;
    assert_eq!((&job["state"], &job["attempts"]), (&"dead".into(), &1.into()), "{job}");
    assert!(job["error"].as_str().unwrap().contains("cannot make"), "{job}");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_after_its_proof_is_found_by_a_check_and_never_restored() {
    let test = TestNode::start().await;
    let proof = work::make(&test.node, &|_, _, _| Ok(())).unwrap();
    assert!(proof.records > 0);
    let system = atoll_node::Actor::system(Id::NIL);
    let path = kept::list(&test.node, &system).unwrap()[0].path.clone();
    backup::verify(&path, &|_, _| Ok(())).unwrap();
    let file = path.join("atoll.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(matches!(backup::verify(&path, &|_, _| Ok(())), Err(backup::Error::Unsound(_))));
    let to = test.folder().join("again");
    assert!(matches!(
        backup::restore(&path, &to, None, &|_, _| Ok(())),
        Err(backup::Error::Unsound(_))
    ));
    assert!(!to.exists());
}

/// The titles of a restored node's posts, in order, and its problems.
fn posts_in(data: &Path) -> Vec<String> {
    let config = atoll_node::Config { data: data.to_owned(), ..atoll_node::Config::default() };
    let node = Node::open(config).unwrap();
    assert_eq!(node.store.verify().unwrap().problems, Vec::<String>::new());
    let all = atoll_storage::Query::everywhere(&POST).sort("title", false);
    let posts = node.store.read(|reader| reader.list(&all)).unwrap().records;
    posts.iter().map(|post| post.text(&TITLE).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_restored_as_it_was_at_a_time_after_a_backup() {
    let start_ms = Clock::system().now_ms() - 10 * HOUR_MS;
    let now_ms = Arc::new(AtomicU64::new(start_ms));
    let clock = || {
        let now_ms = now_ms.clone();
        Clock::from_fn(move || now_ms.load(Ordering::Relaxed))
    };
    let test = TestNode::start_at(clock()).await;
    let other = TestNode::start_beside_at(&test, clock()).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    // A sign-in lasts an hour here.
    let later = |hours: u64| now_ms.store(start_ms + hours * HOUR_MS, Ordering::Relaxed);
    let make = async |test: &TestNode, title: &str| {
        let post = json!({ "title": title, "body": "x" });
        test.admin().await.post("/api/v1/posts", &post).await.expect(201).data()
    };
    let first = make(&test, "a first").await;
    backup::create(&test.node, &copy, &|_, _| Ok(())).unwrap();
    later(1);
    make(&test, "b second").await;
    make(&other, "c from elsewhere").await;
    test.take_from(&other);
    later(2);
    make(&other, "d from elsewhere, later").await;
    test.take_from(&other);
    later(3);
    make(&test, "e third").await;
    let path = format!("/api/v1/posts/{}", first["id"].as_str().unwrap());
    test.admin().await.put(&path, &json!({ "title": "a changed" })).await.expect(200);

    let data = test.node.folder().path().to_owned();
    let at = |hours: u64, log: &Path| backup::Later {
        at_ms: start_ms + hours * HOUR_MS + HOUR_MS / 2,
        log: log.to_owned(),
    };
    let restore = |name: &str, later: &backup::Later| {
        let to = folder.path().join(name);
        backup::restore(&copy, &to, Some(later), &|_, _| Ok(())).map(|restored| (to, restored))
    };
    let (to, restored) = restore("soon", &at(0, &data)).unwrap();
    assert_eq!(posts_in(&to), ["a first"]);
    assert!(restored.replayed == Some(0) && restored.left_out > Some(3), "{restored:?}");
    let (to, _) = restore("one", &at(1, &data)).unwrap();
    assert_eq!(posts_in(&to), ["a first", "b second", "c from elsewhere"]);
    // Out of a later backup as out of the node's folder.
    let newer = folder.path().join("newer");
    backup::create(&test.node, &newer, &|_, _| Ok(())).unwrap();
    let (to, _) = restore("two", &at(2, &newer)).unwrap();
    let wanted = ["a first", "b second", "c from elsewhere", "d from elsewhere, later"];
    assert_eq!(posts_in(&to), wanted);
    let (to, restored) = restore("all", &at(3, &data)).unwrap();
    assert_eq!(posts_in(&to)[0], "a changed");
    assert_eq!((posts_in(&to).len(), restored.left_out), (5, Some(0)));

    let refused = |later: &backup::Later| match restore("none", later) {
        Err(backup::Error::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let before = backup::Later { at_ms: start_ms - 1, log: data.clone() };
    assert!(refused(&before).contains("take an older one"));
    assert!(refused(&at(1, other.node.folder().path())).contains("belongs to the node"));
    assert!(refused(&at(1, folder.path())).contains("is no data folder"));
    for head in test.node.store.read(|reader| reader.streams()).unwrap() {
        test.node.store.trim(head.stream, head.vector).unwrap();
    }
    assert!(refused(&at(1, &data)).contains("does not reach back"), "{}", refused(&at(1, &data)));
    assert!(!folder.path().join("none").exists());
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_half_made_looks_like_nothing_and_is_in_nobodys_way() {
    let test = TestNode::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for left in ["copy.unfinished", "again.restoring"] {
        std::fs::create_dir_all(at(left).join("blobs")).unwrap();
        std::fs::write(at(left).join("atoll.db"), "half a database").unwrap();
    }
    let whole = |name: &str| {
        let to = at(name);
        move |_, _| {
            assert!(!to.exists(), "not before it is whole");
            Ok(())
        }
    };
    backup::create(&test.node, &at("copy"), &whole("copy")).unwrap();
    backup::verify(&at("copy"), &|_, _| Ok(())).unwrap();
    backup::restore(&at("copy"), &at("again"), None, &whole("again")).unwrap();
    assert_eq!(names_in(folder.path()), ["again", "copy"]);

    // What another process is making is not what a killed one left.
    let beside = |_, _| {
        let refused = backup::create(&test.node, &at("other"), &|_, _| Ok(())).unwrap_err();
        assert!(refused.to_string().contains("another process is making it"), "{refused}");
        Ok(())
    };
    backup::create(&test.node, &at("other"), &beside).unwrap();
    backup::verify(&at("other"), &|_, _| Ok(())).unwrap();
    // A half backup of an earlier release stands in the place itself.
    std::fs::remove_file(at("other").join("manifest.json")).unwrap();
    let refused = backup::create(&test.node, &at("other"), &|_, _| Ok(())).unwrap_err();
    assert!(refused.to_string().contains("is no whole backup: remove it"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_off_is_no_node() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    backup::create(&test.node, &at("copy"), &|_, _| Ok(())).unwrap();
    admin.post("/api/v1/posts", &json!({ "title": "Bread", "body": "Rye" })).await.expect(201);
    let later = backup::Later {
        at_ms: Clock::system().now_ms() + HOUR_MS,
        log: test.node.folder().path().to_owned(),
    };
    let tried = std::cell::Cell::new(false);
    let open = |_, _| {
        let data = at("again.restoring");
        if data.join("atoll.db").exists() {
            let config = atoll_node::Config { data, ..atoll_node::Config::default() };
            let refused = Node::open(config).err().unwrap();
            assert!(refused.to_string().contains("run `atoll restore` again"), "{refused}");
            tried.set(true);
        }
        Ok(())
    };
    backup::restore(&at("copy"), &at("again"), Some(&later), &open).unwrap();
    assert!(tried.get());
    assert_eq!(posts_in(&at("again")), ["Bread"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_damaged_block_restores_up_to_it_and_says_so() {
    let start_ms = Clock::system().now_ms() - 200 * HOUR_MS;
    let now_ms = Arc::new(AtomicU64::new(start_ms));
    let clock = Clock::from_fn({
        let now_ms = now_ms.clone();
        move || now_ms.load(Ordering::Relaxed)
    });
    let test = TestNode::start_at(clock).await;
    let folder = tempfile::tempdir().unwrap();
    let later = |hours: u64| now_ms.store(start_ms + hours * HOUR_MS, Ordering::Relaxed);
    let make = async |title: &str| {
        let post = json!({ "title": title, "body": "x" });
        test.admin().await.post("/api/v1/posts", &post).await.expect(201);
    };
    let pack = || {
        while test.node.store.pack_log(None, 0).unwrap() {}
    };
    let damage = || {
        let spoil = |tx: &mut atoll_storage::tx::Tx| -> Result<(), atoll_storage::Error> {
            let last = "(SELECT max(last) FROM block)";
            let sql = format!("UPDATE block SET ops = zeroblob(20) WHERE last = {last}");
            assert_eq!(tx.conn().execute(&sql, [])?, 1);
            Ok(())
        };
        test.node.store.write_blocking(spoil).unwrap();
    };
    make("a first").await;
    later(10);
    let admin = test.admin().await;
    pack();
    damage();
    let copy = folder.path().join("copy");
    backup::create(&test.node, &copy, &|_, _| Ok(())).unwrap();
    // A post with a text stays a row.
    let second_ms = now_ms.fetch_add(1_000, Ordering::Relaxed) + 1_000;
    let post = json!({ "title": "b second", "body": "x" });
    admin.post("/api/v1/posts", &post).await.expect(201);
    let restore = |name: &str, at_ms: u64| {
        let log = test.node.folder().path().to_owned();
        let to = folder.path().join(name);
        let later = backup::Later { at_ms, log };
        backup::restore(&copy, &to, Some(&later), &|_, _| Ok(())).map(|restored| (to, restored))
    };
    let hour = |hours: u64| start_ms + hours * HOUR_MS;
    // All that the damaged block held is in the backup.
    let (to, _) = restore("soon", hour(11)).unwrap();
    assert_eq!(titles_in(&to), ["a first", "b second"]);
    later(20);
    make("c third").await;
    later(30);
    pack();
    damage();
    later(50);
    make("d fourth").await;
    // Nothing of what the damaged block held was written by then.
    let (to, restored) = restore("before", second_ms - 1).unwrap();
    assert_eq!(titles_in(&to), ["a first"]);
    assert!(restored.left_out > Some(2), "{restored:?}");
    let error = restore("none", hour(60)).unwrap_err();
    let backup::Error::Unsound(told) = &error else { panic!("{error:?}") };
    assert!(told.contains("is damaged") && told.contains("1 write of identity "), "{told}");
    assert!(told.contains("(without --at)"), "{told}");
    assert!(!folder.path().join("none").exists());
    // Up to where it says.
    let at = told.split("(--at ").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let at = atoll_node::moment::Moment::parse(at).unwrap();
    assert_eq!(at.0 as u64, second_ms, "{told}");
    let (to, _) = restore("up to it", second_ms).unwrap();
    assert_eq!(titles_in(&to), ["a first", "b second"]);
}

/// As [`posts_in`], of a node whose log has a damaged block.
fn titles_in(data: &Path) -> Vec<String> {
    let config = atoll_node::Config { data: data.to_owned(), ..atoll_node::Config::default() };
    let node = Node::open(config).unwrap();
    let all = atoll_storage::Query::everywhere(&POST).sort("title", false);
    let posts = node.store.read(|reader| reader.list(&all)).unwrap().records;
    posts.iter().map(|post| post.text(&TITLE).to_owned()).collect()
}
