//! Files that members of a bucket lack go by it too.

use super::{Asleep, Awake, Fault, NewBucket, ObjectStore, each_visits, in_folder, in_store, last};
use super::{bundles, until_equal, village};
use atoll_node::blob::policy::Policy;
use atoll_node::config::Policies;
use atoll_node::identity::user;
use atoll_node::{Config, Role, bucket};
use atoll_storage::blob::BlobId;
use atoll_storage::{Changes, Id};
use atoll_tests::harness::Client;
use serde_json::json;

const MIB: usize = 1 << 20;

/// Puts a file in the place of a user's picture, though no picture is so large.
async fn set_picture(node: &Awake, user: Id, seed: u8, len: usize) -> BlobId {
    let node = &node.test.node;
    let bytes: Vec<u8> = (0..len).map(|n| (n / 7 + n * n) as u8 ^ seed).collect();
    let blob = node.blobs.put(&bytes).unwrap();
    let changes = Changes::new().set(&user::AVATAR, blob.to_string());
    let named = node.store.write(move |tx| tx.edit(&user::USER, user, changes).map(drop));
    let named: atoll_storage::Result<()> = named.await;
    named.unwrap();
    blob
}

/// The file, and where it is asked for.
async fn named(node: &Awake, user: &Client, seed: u8, len: usize) -> (BlobId, String) {
    let me = user.get("/api/v1/auth/me").await.expect(200).data();
    let key = Id::parse(me["id"].as_str().unwrap()).unwrap();
    (set_picture(node, key, seed, len).await, format!("/api/v1/users/{key}/avatar"))
}

fn parcels(objects: &[String]) -> Vec<&String> {
    objects.iter().filter(|name| name.contains("/files-")).collect()
}

fn has(node: &Awake, blob: &BlobId) -> bool {
    node.test.node.blobs.path(blob).is_some()
}

fn pinned(config: &mut Config) {
    config.blobs.policy = Policies(vec![("identity".to_owned(), Policy::Pin)]);
}

/// Comes alone, and goes.
async fn visits(node: Asleep, turn: impl FnOnce(&mut Config)) -> (Asleep, bucket::Found) {
    let node = node.wake_with(turn).await;
    let standing = node.standing();
    assert_eq!(standing.obstacle, None, "{standing:?}");
    let found = last(&standing).clone();
    (node.sleep().await, found)
}

/// Two nodes, of which the first has a small file and a large one, and was there with them.
async fn two_with_files(
    new: &NewBucket,
    large_bytes: usize,
) -> (Asleep, Asleep, [BlobId; 2], String) {
    let (mut nodes, _) = until_equal(village(2, new).await).await;
    let first = nodes.remove(0).wake().await;
    let (small, _) = named(&first, &first.test.admin().await, 1, 5_000).await;
    let author = first.test.user("ada", Role::Viewer).await;
    let (large, path) = named(&first, &author, 2, large_bytes).await;
    assert_eq!(last(&first.visit().await).parcels_left, 1);
    let first = first.sleep().await;
    (first, nodes.remove(0), [small, large], path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_there_once_both_were_in_the_folder_and_a_large_file_once_somebody_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, [small, large], path) =
        two_with_files(&in_folder(folder.path()), 3 * MIB).await;
    let second = second.wake().await;
    let standing = second.standing();
    assert!(has(&second, &small) && !has(&second, &large));
    // It would take the other one too, if that were as small.
    assert_eq!((last(&standing).files_taken, last(&standing).files_asked), (1, 1));
    let (first, found) = visits(first, |_| {}).await;
    assert_eq!((found.members[0].lacks_files, found.parcels), (1, 0));
    let there = second.test.admin().await;
    there.get(&path).await.refused(503, "blob_unreachable");
    assert_eq!(last(&second.visit().await).files_asked, 1);
    let second = second.sleep().await;
    let (first, found) = visits(first, |_| {}).await;
    assert_eq!((found.members[0].lacks_files, found.parcels), (1, found.parcels_left));
    let second = second.wake().await;
    let there = second.test.admin().await;
    assert_eq!(there.get(&path).await.expect(200).body.len(), 3 * MIB);
    let second = second.sleep().await;
    let (_, found) = visits(first, |_| {}).await;
    assert_eq!((found.parcels, found.objects), (0, 2));
    visits(second, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_asks_for_is_left_for_it_piece_by_piece_and_cleared_away() {
    let store = ObjectStore::open().await;
    let (first, second, [small, large], path) = two_with_files(&in_store(&store), 20 * MIB).await;
    let second = second.wake().await;
    let there = second.test.admin().await;
    there.get(&path).await.refused(503, "blob_unreachable");
    second.visit().await;
    let mut second = second.sleep().await;
    let little = |config: &mut Config| config.sync.bucket_visit_bytes = 8 << 20;
    let (mut first, found) = visits(first, little).await;
    let objects = store.objects();
    let left = parcels(&objects);
    assert!(left.len() >= 2 && found.parcels_left == left.len() as u64, "{left:?}");
    for name in store.objects() {
        let bytes = std::fs::read(store.bucket().join(&name)).unwrap();
        assert!(bytes.len() < 5 * MIB, "{name}");
        assert!(!bytes.windows(32).any(|window| window == large.0), "locked: {name}");
    }
    let mut rounds = 0;
    loop {
        let (node, found) = visits(second, little).await;
        second = node;
        assert_eq!(found.files_left_out, []);
        let (node, _) = visits(first, little).await;
        first = node;
        rounds += 1;
        if found.files_asked == 0 {
            break;
        }
        assert!(rounds < 10, "{found:?}");
    }
    assert!(rounds > 2, "20 MiB do not go in two visits of 8 MiB");
    let (first, second) = (first.wake().await, second.wake().await);
    assert!(has(&second, &small));
    let path_of = |node: &Awake| node.test.node.blobs.path(&large).unwrap();
    assert_eq!(std::fs::read(path_of(&first)).unwrap(), std::fs::read(path_of(&second)).unwrap());
    let nodes = vec![first.sleep().await, second.sleep().await];
    each_visits(each_visits(nodes).await.0).await;
    let objects = store.objects();
    assert_eq!(objects.len(), 2, "only what each has stands there: {objects:?}");
    // Every parcel was brought once, beside the look at its beginning.
    let asked = store.asked();
    for (method, path) in &asked {
        let times = asked.iter().filter(|other| *other == &(method.clone(), path.clone())).count();
        if method == "PUT" && path.contains("/files-") {
            assert_eq!(times, 1, "{path}");
        }
        if method == "GET" && path.contains("/files-") {
            assert!(times <= 2, "{path} {times}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_two_ask_for_is_left_once_and_by_one_of_those_who_have_it() {
    let store = ObjectStore::open().await;
    let (mut nodes, _) = until_equal(village(4, &in_store(&store)).await).await;
    let first = nodes.remove(0).wake().await;
    let (blob, _) = named(&first, &first.test.admin().await, 1, 3 * MIB / 2).await;
    first.visit().await;
    let bytes = std::fs::read(first.test.node.blobs.path(&blob).unwrap()).unwrap();
    let first = first.sleep().await;
    assert_eq!(parcels(&store.objects()), Vec::<&String>::new(), "nobody asked for it yet");
    // The second has it from elsewhere.
    let second = nodes.remove(0).wake().await;
    second.test.node.blobs.put(&bytes).unwrap();
    second.visit().await;
    let second = second.sleep().await;
    let mut asking = Vec::new();
    for node in nodes {
        asking.push(visits(node, pinned).await.0);
    }
    let (first, found) = visits(first, |_| {}).await;
    assert_eq!(found.members.iter().filter(|seen| seen.lacks_files == 1).count(), 2, "{found:?}");
    let (second, _) = visits(second, |_| {}).await;
    assert_eq!(parcels(&store.objects()).len(), 1);
    for node in asking {
        let node = node.wake_with(pinned).await;
        assert!(has(&node, &blob));
        node.sleep().await;
    }
    visits(second, |_| {}).await;
    visits(first, |_| {}).await;
    assert_eq!(parcels(&store.objects()), Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_goes_on_and_what_is_damaged_is_left_anew() {
    let store = ObjectStore::open().await;
    let new = in_store(&store);
    let (first, second, [_, large], path) = two_with_files(&new, 7 * MIB).await;
    let second = second.wake().await;
    second.test.admin().await.get(&path).await.refused(503, "blob_unreachable");
    second.visit().await;
    let second = second.sleep().await;
    // A writer that is cut off goes on.
    store.fail(|method, path| method == "PUT" && path.contains("/files-"), Fault::Cut);
    let first = first.wake().await;
    assert!(first.standing().obstacle.is_some());
    store.heal();
    let (first, _) = visits(first.sleep().await, |_| {}).await;
    let objects = store.objects();
    let left = parcels(&objects);
    assert_eq!(left.len(), 3, "{left:?}");
    // The last one is damaged, behind what tells what it holds.
    let damaged = store.bucket().join(left[2]);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let at = bytes.len() * 2 / 3;
    bytes[at] ^= 0x10;
    std::fs::write(&damaged, &bytes).unwrap();
    store.fail(|method, path| method == "GET" && path.contains("/files-"), Fault::Cut);
    let second = second.wake().await;
    assert!(second.standing().obstacle.is_some());
    store.heal();
    let standing = second.visit().await;
    let is_told = |(name, _): &(String, String)| left[2].ends_with(name);
    assert!(last(&standing).refused.iter().any(is_told), "{standing:?}");
    assert!(!has(&second, &large) && last(&standing).files_asked == 1, "{standing:?}");
    let (_, missing) = second.test.node.blobs.partial_missing(&large).unwrap().unwrap();
    assert!(missing.iter().map(|run| run.count).sum::<u64>() < 200, "{missing:?}");
    let second = second.sleep().await;
    let (first, _) = visits(first, |_| {}).await;
    assert!(!damaged.exists());
    let (second, found) = visits(second, |_| {}).await;
    assert_eq!((found.files_taken, found.files_asked, found.refused.len()), (1, 0, 0), "{found:?}");
    each_visits(vec![first, second]).await;
    assert_eq!(bundles(&store.objects()).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_no_files_that_it_does_not_keep_or_has_no_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let new = in_folder(folder.path());
    let (first, mut second, [small, large], _) = two_with_files(&new, 3 * MIB).await;
    let never = |config: &mut Config| {
        config.blobs.policy = Policies(vec![("identity".to_owned(), Policy::Never)]);
    };
    let full = |config: &mut Config| config.blobs.keep_free_bytes = 1 << 59;
    for turn in [never, full] as [fn(&mut Config); 2] {
        let node = second.wake_with(turn).await;
        let found = last(&node.standing()).clone();
        assert_eq!((found.files_asked, found.files_taken), (0, 0));
        assert!(!has(&node, &small));
        second = node.sleep().await;
    }
    // A quota that each of them fits in, and not both.
    let quota = |config: &mut Config| {
        config.blobs.quota_bytes = 3 * MIB as u64;
        pinned(config);
    };
    let (second, found) = visits(second, quota).await;
    assert_eq!((found.files_taken, found.files_asked), (1, 1));
    // And a node that leaves files for nobody.
    let none = |config: &mut Config| config.sync.bucket_files_bytes = 0;
    let (first, found) = visits(first, none).await;
    assert_eq!((found.parcels, found.parcels_left, found.members[0].lacks_files), (0, 0, 1));
    let (first, found) = visits(first, |_| {}).await;
    assert!(found.parcels_left > 0);
    let second = second.wake_with(quota).await;
    let standing = second.standing();
    let found = last(&standing);
    assert!(has(&second, &small) && !has(&second, &large) && found.files_taken == 0, "{found:?}");
    assert!(found.files_left_out[0].1.contains("blobs.quota_bytes"), "{found:?}");
    let admin = second.test.admin().await;
    let shown = admin.get("/api/v1/sync/buckets").await.expect(200).data();
    let shown = &shown[0]["found"];
    assert_eq!((&shown["files_taken"], &shown["files_asked"]), (&json!(0), &json!(1)), "{shown}");
    assert_eq!(shown["files_left_out"].as_array().unwrap().len(), 1, "{shown}");
    second.sleep().await;
    visits(first, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_from_the_bucket_with_the_last_record_that_names_it() {
    let store = ObjectStore::open().await;
    let (mut nodes, _) = until_equal(village(2, &in_store(&store)).await).await;
    let first = nodes.remove(0).wake().await;
    let ada = first.test.user("ada", Role::Viewer).await;
    let (old, _) = named(&first, &ada, 1, 5_000).await;
    first.visit().await;
    let before = store.objects();
    assert_eq!(parcels(&before).len(), 1);
    // Nobody took it yet.
    let (new, _) = named(&first, &ada, 2, 5_000).await;
    first.visit().await;
    let after = store.objects();
    assert_eq!(parcels(&after).len(), 1);
    assert_ne!(parcels(&after), parcels(&before));
    first.sleep().await;
    let second = nodes.remove(0).wake().await;
    assert!(has(&second, &new) && !has(&second, &old));
    second.sleep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_locked_anew_when_a_reader_may_not_have_all_any_more() {
    let store = ObjectStore::open().await;
    let (mut nodes, _) = until_equal(village(3, &in_store(&store)).await).await;
    let first = nodes.remove(0).wake().await;
    let (blob, _) = named(&first, &first.test.admin().await, 1, 3 * MIB / 2).await;
    first.visit().await;
    let first = first.sleep().await;
    let mut asking = Vec::new();
    for node in nodes {
        asking.push(visits(node, pinned).await.0);
    }
    let (first, found) = visits(first, |_| {}).await;
    let before = store.objects();
    assert_eq!(parcels(&before).len(), 1);
    let third = found.members.iter().find(|seen| seen.name == "node-2").unwrap().node;
    let first = first.wake().await;
    let path = format!("/api/v1/sync/peers/{third}/grant");
    let rights = json!({ "may": ["read"], "scopes": ["content"] });
    first.test.admin().await.put(&path, &rights).await.expect(200);
    first.visit().await;
    first.sleep().await;
    let after = store.objects();
    assert_eq!(parcels(&after).len(), 1);
    assert_ne!(parcels(&after), parcels(&before));
    for (node, is_let) in asking.into_iter().zip([true, false]) {
        let node = node.wake_with(pinned).await;
        assert_eq!(has(&node, &blob), is_let);
        node.sleep().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_files_only_of_what_it_carries() {
    let store = ObjectStore::open().await;
    let (mut nodes, _) = until_equal(village(3, &in_store(&store)).await).await;
    let first = nodes.remove(0).wake().await;
    let root =
        json!({ "username": "root", "email": "root@lagoon.org", "password": "sand and salt 1" });
    let lagoon = json!({ "slug": "lagoon", "name": "Lagoon", "admin": root });
    let lagoon = first.test.admin().await.post("/api/v1/tenants", &lagoon).await.expect(201).data();
    nodes.insert(0, first.sleep().await);
    let (mut nodes, _) = until_equal(nodes).await;
    let part = nodes.remove(1).wake().await;
    part.carry(&["*", "-lagoon/*"]).await;
    part.visit().await;
    nodes.insert(1, part.sleep().await);
    let first = nodes.remove(0).wake().await;
    let tenant = Id::parse(lagoon["id"].as_str().unwrap()).unwrap();
    let user = first.test.make_user(tenant, "ada", Role::Viewer).await;
    let outside = set_picture(&first, user, 1, 5_000).await;
    let (inside, _) = named(&first, &first.test.admin().await, 2, 5_000).await;
    first.visit().await;
    nodes.insert(0, first.sleep().await);
    let mut has_both = Vec::new();
    for node in nodes {
        let node = node.wake().await;
        let standing = node.standing();
        assert_eq!((last(&standing).files_asked, &last(&standing).refused), (0, &vec![]));
        has_both.push([has(&node, &inside), has(&node, &outside)]);
        node.sleep().await;
    }
    assert_eq!(has_both, [[true, true], [true, false], [true, true]]);
}
