//! Nodes that no network joins, and bundles carried between them over HTTP.

use atoll_node::Config;
use atoll_node::blob::policy::Policy;
use atoll_node::config::Policies;
use atoll_node::identity::user;
use atoll_node::runtime::Workers;
use atoll_storage::Changes;
use atoll_storage::blob::BlobId;
use atoll_sync::bundle::{Head, Volume, VolumeWriter};
use atoll_tests::harness::{Client, TestNode};
use serde_json::{Value as Json, json};

const BUNDLES: &str = "/api/v1/sync/bundles";

/// Nodes of one network that have no link: each lists the other by its key.
async fn acquainted() -> (TestNode, TestNode, Client, Client) {
    acquainted_with(|_| {}).await
}

async fn acquainted_with(school: impl FnOnce(&mut Config)) -> (TestNode, TestNode, Client, Client) {
    let (core, school) = (TestNode::start().await, TestNode::start_empty(school).await);
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
    let arrival = format!("/api/v1/posts/{}/arrival", found["id"].as_str().unwrap());
    let of_school = admin.get(&arrival).await.expect(200).data()[1].clone();
    assert_eq!((&of_school["name"], &of_school["arrived"]), (&json!("school"), &Json::Null));
    // The way home: only what the core lacks, and only it can read that.
    let order = json!({ "to": ["core"], "lock": true });
    let (made, home) = bundle(&school, &there, &order).await;
    assert!(made["ops"].as_u64().unwrap() < 5, "{made}");
    let job = take(&core, &admin, &home).await;
    let report = &job["result"]["bundles"][0];
    assert_eq!((&report["is_whole"], &report["waiting"]), (&json!(true), &json!(0)), "{job}");
    assert_eq!(root(&core), root(&school));
    // It tells what the school has.
    let of_school = admin.get(&arrival).await.expect(200).data()[1].clone();
    assert_eq!((&of_school["arrived"], of_school["contact_at"].is_string()), (&json!(true), true));
    let plans = admin.get("/api/v1/sync/plan").await.expect(200).data();
    let (here, there) = (&plans[0]["missing_here_ops"], &plans[0]["missing_there_ops"]);
    assert_eq!((here, there), (&json!(0), &json!(0)), "{plans}");
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
    let refused = admin.post(BUNDLES, &json!({ "to": ["nobody"] })).await.expect(422);
    assert!(refused.text().contains("nobody"), "{}", refused.text());
    let order = json!({ "to": ["school"], "lock": true });
    let refused = admin.post(BUNDLES, &order).await.expect(422);
    assert!(refused.text().contains("bundle want"), "{}", refused.text());
    // What the school wants makes it possible.
    let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
    take(&core, &admin, &want).await;
    let (made, _) = bundle(&core, &admin, &order).await;
    assert_eq!(made["records"], 0);
    for worker in workers {
        worker.shutdown().await;
    }
}

/// The parts of a volume, signed by their maker as those of a further volume of somebody else's bundle.
fn slipped_in(maker: &TestNode, parts_of: &[u8], into: &[u8]) -> Vec<u8> {
    let genuine = Volume::open(std::io::Cursor::new(into)).unwrap();
    let (key, head) = (maker.node.key(), genuine.head().clone());
    let head = Head { volume: 2, creator: key.public(), ..head };
    let mut writer = VolumeWriter::begin(vec![], key, &head).unwrap();
    let (mut rest, mut number) = (parts_of, 1_000);
    while rest.len() > 92 {
        let length = u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
        if rest[8] == 1 {
            writer.put(number, &rest[28..28 + length], false).unwrap();
            number += 1;
        }
        rest = &rest[28 + length + 64..];
    }
    assert!(number > 1_001, "there is something to slip in");
    writer.finish().unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_a_stranger_brings_nothing_beside_a_bundle_of_a_peer() {
    let (core, school, admin, _) = acquainted().await;
    let stranger = TestNode::start().await;
    let workers = [
        core.node.start().await.unwrap(),
        school.node.start().await.unwrap(),
        stranger.node.start().await.unwrap(),
    ];
    let (_, genuine) = bundle(&core, &admin, &json!({})).await;
    let (_, foreign) = bundle(&stranger, &stranger.admin().await, &json!({})).await;
    let slipped = slipped_in(&stranger, &foreign, &genuine);
    let stick = tempfile::tempdir().unwrap();
    std::fs::write(stick.path().join("1.atoll"), &genuine).unwrap();
    std::fs::write(stick.path().join("2.atoll"), &slipped).unwrap();
    let system = atoll_node::Actor::system(atoll_storage::Id::NIL);
    let folder = [stick.path().to_owned()];
    let taken = tokio::task::block_in_place(|| {
        atoll_node::courier::import(&school.node, &system, &folder, |_, _| {}).unwrap()
    });
    assert!(taken.bundles.len() == 1 && taken.bundles[0].is_whole, "{taken:?}");
    let slipped = &taken.passed_over[0];
    assert_eq!((slipped.code, slipped.files.len()), ("unknown_maker", 1), "{slipped:?}");
    assert_eq!(root(&core), root(&school));
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_lies_on_a_stick_does_not_stop_what_is_for_a_node() {
    let (core, school, admin, there) = acquainted().await;
    let stranger = TestNode::start().await;
    let workers = [
        core.node.start().await.unwrap(),
        school.node.start().await.unwrap(),
        stranger.node.start().await.unwrap(),
    ];
    let stick = tempfile::tempdir().unwrap();
    let lay = |name: &str, bytes: &[u8]| std::fs::write(stick.path().join(name), bytes).unwrap();
    let system = atoll_node::Actor::system(atoll_storage::Id::NIL);
    let folder = [stick.path().to_owned()];
    let import = |node: &TestNode| {
        tokio::task::block_in_place(|| {
            atoll_node::courier::import(&node.node, &system, &folder, |_, _| {})
        })
    };
    // Of two trips, each older than what is new: bundles that only the other one reads, a stranger's, and what is none.
    let (_, first) = bundle(&core, &admin, &json!({})).await;
    lay("1.atoll", &first);
    import(&school).unwrap();
    let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
    lay("2-want.atoll", &want);
    import(&core).unwrap();
    let (_, trip) = bundle(&core, &admin, &json!({ "to": ["school"], "lock": true })).await;
    lay("3-trip.atoll", &trip);
    let (_, foreign) = bundle(&stranger, &stranger.admin().await, &json!({})).await;
    lay("4-foreign.atoll", &foreign);
    lay("5-none.atoll", b"no bundle at all");
    let post = json!({ "title": "Home", "body": "from the school" });
    there.post("/api/v1/posts", &post).await.expect(201);
    let (_, home) = bundle(&school, &there, &json!({ "to": ["core"], "lock": true })).await;
    lay("6-home.atoll", &home);
    let taken = import(&core).unwrap();
    assert_eq!(root(&core), root(&school));
    assert!(taken.bundles.iter().all(|one| one.is_whole) && taken.bundles.len() == 3, "{taken:?}");
    assert!(taken.unread.len() == 1 && taken.unread[0].file.ends_with("5-none.atoll"));
    let told = |n: usize| (taken.passed_over[n].code, taken.passed_over[n].why.as_str());
    assert_eq!(told(0), ("not_for_this_node", "this node made it itself, locked for school"));
    assert!(told(1).0 == "unknown_maker" && told(1).1.contains("add that node as a peer first"));
    // Where nothing is for it, it says of all why.
    for file in ["1.atoll", "2-want.atoll", "6-home.atoll"] {
        std::fs::remove_file(stick.path().join(file)).unwrap();
    }
    let refused = import(&core).unwrap_err();
    assert_eq!(refused.code(), "nothing_taken");
    for part in
        ["3-trip.atoll: this node made it", "4-foreign.atoll: the bundle was made by", "5-none"]
    {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_looked_at_and_checked_without_being_taken_in() {
    let (core, school, admin, there) = acquainted().await;
    let workers = [core.node.start().await.unwrap(), school.node.start().await.unwrap()];
    let (made, all) = bundle(&core, &admin, &json!({})).await;
    tokio::task::block_in_place(|| carry_in(&school, &all));
    let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
    take(&core, &admin, &want).await;
    let post = json!({ "title": "Next", "body": "for the school" });
    admin.post("/api/v1/posts", &post).await.expect(201);
    let order = json!({ "to": ["school"], "lock": true });
    let (next, locked) = bundle(&core, &admin, &order).await;
    let posts = async || there.get("/api/v1/posts").await.expect(200).json()["data"].clone();
    let before = posts().await;
    let read = async |node, client: &Client, verb: &str, volume: &[u8]| {
        let path = format!("{BUNDLES}/{verb}");
        let sent = client.send("POST", &path, &[], volume).await.expect(202);
        ended(node, client, &sent.data()).await["result"]["bundles"][0].clone()
    };
    // Whoever it is for reads all of it.
    let info = read(&school, &there, "info", &locked).await;
    assert_eq!((&info["brings"]["ops"], &info["is_known"]), (&next["ops"], &json!(true)), "{info}");
    assert_eq!(info["files"][0]["file"], "the file", "where it lies is nobody's business");
    assert!(info["brings"]["list"][0]["words"].as_str().unwrap().contains(" op"), "{info}");
    let seen = read(&school, &there, "verify", &locked).await;
    assert_eq!((&seen["damaged"], &seen["ops"]), (&json!([]), &next["ops"]), "{seen}");
    // Others see that it is sound, and for whom it is.
    let info = read(&core, &admin, "info", &locked).await;
    assert_eq!((&info["brings"], &info["locked_for"]), (&Json::Null, &json!(["school"])), "{info}");
    let seen = read(&core, &admin, "verify", &locked).await;
    assert_eq!((&seen["locked"], &seen["ops"]), (&next["parts"], &json!(0)), "{seen}");
    assert!(seen["damaged"] == json!([]) && seen["missing"] == json!([]), "{seen}");
    let mut flipped = locked.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let seen = read(&core, &admin, "verify", &flipped).await;
    assert!(seen["damaged"][0]["why"].is_string(), "{seen}");
    let info = read(&core, &admin, "info", &all).await;
    assert_eq!(info["brings"]["ops"].as_u64(), made["ops"].as_u64(), "{info}");
    assert_eq!((&info["of_volumes"], &info["missing_volumes"]), (&json!(1), &json!([])), "{info}");
    assert_eq!(posts().await, before, "nothing was taken in");
    let editor = core.user("ada", atoll_node::Role::Editor).await;
    for verb in ["info", "verify"] {
        let sent = editor.send("POST", &format!("{BUNDLES}/{verb}"), &[], &all).await;
        assert_eq!(sent.status, 403);
    }
    stop(workers).await;
}

/// A file that a user's record names as his picture, though no picture is so large.
async fn named(node: &TestNode, user: &Client, seed: u8, len: usize) -> (BlobId, String) {
    let me = user.get("/api/v1/auth/me").await.expect(200).data();
    let key = atoll_storage::Id::parse(me["id"].as_str().unwrap()).unwrap();
    let bytes: Vec<u8> = (0..len).map(|n| (n / 7 + n * n) as u8 ^ seed).collect();
    let blob = node.node.blobs.put(&bytes).unwrap();
    let changes = Changes::new().set(&user::AVATAR, blob.to_string());
    let named = node.node.store.write(move |tx| tx.edit(&user::USER, key, changes).map(drop));
    let named: atoll_storage::Result<()> = named.await;
    named.unwrap();
    (blob, format!("/api/v1/users/{key}/avatar"))
}

async fn stop(workers: impl IntoIterator<Item = Workers>) {
    for worker in workers {
        worker.shutdown().await;
    }
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn pictures_travel_and_the_next_trip_brings_what_a_cut_stick_lost() {
    let (core, school, admin, there) = acquainted().await;
    let workers = [core.node.start().await.unwrap(), school.node.start().await.unwrap()];
    let (small, path) = named(&core, &admin, 1, 5_000).await;
    let author = core.user("ada", atoll_node::Role::Viewer).await;
    let (large, _) = named(&core, &author, 2, 4 * MIB).await;
    let (made, volume) = bundle(&core, &admin, &json!({})).await;
    assert_eq!((&made["blobs"], &made["blobs_left"]["larger"]), (&json!(1), &json!(1)), "{made}");
    let seen = tokio::task::block_in_place(|| carry_in(&school, &volume));
    assert_eq!(seen.bundles[0].report.blobs_new, 1, "{seen:?}");
    assert!(school.node.blobs.path(&small).is_some() && school.node.blobs.path(&large).is_none());
    assert_eq!(there.get(&path).await.expect(200).body.len(), 5_000);

    // All files, on a stick that was pulled out too early.
    let (made, volume) = bundle(&core, &admin, &json!({ "files": "all" })).await;
    assert_eq!(made["blobs"], 2, "{made}");
    let cut = take(&school, &there, &volume[..volume.len() / 2]).await;
    let report = &cut["result"]["bundles"][0];
    assert_eq!(
        (&report["blobs_had"], &report["blobs_unfinished"]),
        (&json!(1), &json!(1)),
        "{cut}"
    );
    let came = report["blob_bytes"].as_u64().unwrap();
    // What the school says that it has tells which part of the file it lacks.
    let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
    take(&core, &admin, &want).await;
    let order = json!({ "to": ["school"], "lock": true });
    let (made, rest) = bundle(&core, &admin, &order).await;
    assert_eq!((&made["blobs"], &made["ops"]), (&json!(1), &json!(0)), "{made}");
    // The last 16 KiB of a file go with each of its parts.
    let left = (5_000 + 4 * MIB - (16 << 10)) as u64 - came;
    assert_eq!(made["blob_bytes"].as_u64(), Some(left), "{made}");
    let job = take(&school, &there, &rest).await;
    assert_eq!(job["result"]["bundles"][0]["blobs_new"], 1, "{job}");
    assert_eq!(
        std::fs::read(school.node.blobs.path(&large).unwrap()).unwrap(),
        std::fs::read(core.node.blobs.path(&large).unwrap()).unwrap()
    );
    let shown = there.get("/api/v1/sync/blobs").await.expect(200).data();
    assert_eq!((&shown["wanted"], &shown["here"]), (&json!(2), &json!(2)), "{shown}");
    // Nothing is asked for any more, and no files is no files.
    let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
    take(&core, &admin, &want).await;
    assert_eq!(bundle(&core, &admin, &order).await.0["blobs"], 0);
    let (made, _) = bundle(&core, &admin, &json!({ "files": "none" })).await;
    assert_eq!((&made["blobs"], &made["blob_bytes"]), (&json!(0), &json!(0)), "{made}");
    admin.post(BUNDLES, &json!({ "files": "some" })).await.refused(422, "invalid");
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_node_does_not_keep_or_has_no_room_for_are_left_out_with_the_reason() {
    let never = |config: &mut Config| {
        config.blobs.policy = Policies(vec![("identity".to_owned(), Policy::Never)]);
    };
    let (core, school, admin, there) = acquainted_with(never).await;
    let workers = [core.node.start().await.unwrap(), school.node.start().await.unwrap()];
    let (blob, _) = named(&core, &admin, 1, 5_000).await;
    let (_, volume) = bundle(&core, &admin, &json!({})).await;
    let seen = tokio::task::block_in_place(|| carry_in(&school, &volume));
    let left = &seen.bundles[0].report.blobs_left_out;
    assert!(left.len() == 1 && left[0].why.contains("blobs.policy"), "{left:?}");
    assert!(school.node.blobs.path(&blob).is_none() && seen.bundles[0].is_whole);
    // It does not ask for it either.
    let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
    take(&core, &admin, &want).await;
    assert_eq!(bundle(&core, &admin, &json!({ "to": ["school"] })).await.0["blobs"], 0);
    stop(workers).await;

    let quota = |config: &mut Config| config.blobs.quota_bytes = MIB as u64;
    let (core, school, admin, _) = acquainted_with(quota).await;
    let workers = [core.node.start().await.unwrap(), school.node.start().await.unwrap()];
    named(&core, &admin, 1, MIB / 2).await;
    let author = core.user("ada", atoll_node::Role::Viewer).await;
    let (second, _) = named(&core, &author, 2, MIB / 2 + 1).await;
    let (_, volume) = bundle(&core, &admin, &json!({})).await;
    let seen = tokio::task::block_in_place(|| carry_in(&school, &volume));
    let report = &seen.bundles[0].report;
    assert_eq!((report.blobs_new, report.blobs_left), (1, 1), "{report:?}");
    assert_eq!(report.blobs_left_out[0].blob, second);
    assert!(report.blobs_left_out[0].why.contains("blobs.quota_bytes"), "{report:?}");
    assert!(school.node.blobs.total_bytes().unwrap() <= MIB as u64);
    stop(workers).await;

    let full = |config: &mut Config| config.blobs.keep_free_bytes = 1 << 59;
    let (core, school, admin, _) = acquainted_with(full).await;
    let workers = [core.node.start().await.unwrap(), school.node.start().await.unwrap()];
    named(&core, &admin, 1, 5_000).await;
    let (_, volume) = bundle(&core, &admin, &json!({})).await;
    let seen = tokio::task::block_in_place(|| carry_in(&school, &volume));
    let report = &seen.bundles[0].report;
    assert_eq!(report.blobs_left_out[0].why, "the disk is full", "{report:?}");
    assert_eq!((report.blobs_new, root(&core)), (0, root(&school)));
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_asked_for_in_vain_comes_with_the_next_trip() {
    let (core, school, admin, there) = acquainted().await;
    let workers = [core.node.start().await.unwrap(), school.node.start().await.unwrap()];
    let (large, path) = named(&core, &admin, 1, 2 * MIB).await;
    let (_, volume) = bundle(&core, &admin, &json!({})).await;
    tokio::task::block_in_place(|| carry_in(&school, &volume));
    let wants = || async {
        let (_, want) = bundle(&school, &there, &json!({ "want_only": true })).await;
        take(&core, &admin, &want).await;
        bundle(&core, &admin, &json!({ "to": ["school"] })).await
    };
    assert_eq!(wants().await.0["blobs"], 0, "nobody asked for it");
    there.get(&path).await.refused(503, "blob_unreachable");
    let (made, volume) = wants().await;
    assert_eq!((&made["blobs"], &made["ops"]), (&json!(1), &json!(0)), "{made}");
    take(&school, &there, &volume).await;
    assert!(school.node.blobs.path(&large).is_some());
    assert_eq!(there.get(&path).await.expect(200).body.len(), 2 * MIB);
    stop(workers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_for_whom_none_can_be_made_is_refused_at_once() {
    let (_core, _school, admin, _) = acquainted().await;
    for (order, code) in [
        (json!({ "to": ["school", "nobody"] }), "unknown_peer"),
        (json!({ "lock": true }), "required"),
        (json!({ "to": vec!["school"; 257] }), "too_many"),
        (json!({ "to": ["school"], "lock": true }), "no_bundle_key"),
    ] {
        let refused = admin.post(BUNDLES, &order).await.expect(422).json();
        let error = &refused["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&json!("to"), &json!(code)), "{refused}");
    }
    let jobs = admin.get(BUNDLES).await.expect(200).data();
    assert_eq!(jobs, json!([]), "no job was made");
}
