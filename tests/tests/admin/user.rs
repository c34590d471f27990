use super::{id_of, tenant_of, text};
use atoll_node::Role;
use atoll_node::identity::api_key::API_KEY;
use atoll_node::identity::user::{self, erase};
use atoll_node::{blob, courier};
use atoll_storage::blob::BlobId;
use atoll_storage::erasure;
use atoll_storage::outbox::events_after;
use atoll_storage::{Changes, Clock, Id, Lane, Query, Read, Replica};
use atoll_tests::TestNode;
use atoll_tests::harness::PASSWORD;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn names(list: &Json) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|user| text(user, "username")).collect()
}

#[tokio::test]
async fn accounts_are_found_by_how_their_names_begin() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    for name in ["ada", "adam", "bob"] {
        test.make_user(test.tenant, name, Role::Editor).await;
    }
    let bob = id_of(&test.stranger().login("bob", PASSWORD).await).await;
    let named = json!({ "display_name": "Adrian Õunapuu", "bio": "Grows apples." });
    admin.put(&format!("/api/v1/users/{bob}"), &named).await.expect(200).data();
    let find = async |query: &str| {
        admin.get(&format!("/api/v1/users?sort=username&{query}")).await.expect(200).json()
    };
    assert_eq!(names(&find("q=AD").await), ["ada", "adam", "admin", "bob"]);
    assert_eq!(names(&find("q=adam@ex").await), ["adam"]);
    assert_eq!(names(&find("q=adrian%20%C3%B5un").await), ["bob"]);
    assert_eq!(names(&find("q=ad&role=editor").await), ["ada", "adam", "bob"]);
    let none = find("q=zz").await;
    assert_eq!((names(&none).len(), &none["page"]["total"]), (0, &json!(0)));
    let page = find("q=ad&limit=2").await;
    assert_eq!((names(&page).len(), &page["page"]["total"]), (2, &json!(4)));
    let disabled = json!({ "status": "disabled" });
    admin.put(&format!("/api/v1/users/{bob}/status"), &disabled).await.expect(200).data();
    assert_eq!(names(&find("status=disabled").await), ["bob"]);
}

#[tokio::test]
async fn an_administrator_edits_an_account_and_keeps_to_its_rules() {
    let test = TestNode::start().await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Viewer).await);
    test.make_user(test.tenant, "bob", Role::Viewer).await;
    let path = format!("/api/v1/users/{}", id_of(&ada).await);
    let edit =
        json!({ "email": " Countess@Example.org", "username": "Countess", "display_name": "Ada" });
    let edited = admin.put(&path, &edit).await.expect(200).data();
    assert_eq!(
        (text(&edited, "email"), text(&edited, "username"), text(&edited, "display_name")),
        ("countess@example.org", "countess", "Ada")
    );
    let cleared = admin.put(&path, &json!({ "display_name": null })).await.expect(200).data();
    assert!(cleared["display_name"].is_null() && cleared["username"] == "countess");
    admin.put(&path, &json!({ "username": "bob" })).await.refused(409, "taken");
    admin.put(&path, &json!({ "email": "bob@example.org" })).await.refused(409, "taken");
    for bad in [json!({ "email": "nobody" }), json!({ "role": "admin" }), json!({ "bio": 7 })] {
        admin.put(&path, &bad).await.refused(422, "invalid");
    }
    let stale = [("if-match", "\"0-0\""), ("content-type", "application/json")];
    admin.send("PUT", &path, &stale, b"{\"bio\":\"x\"}").await.refused(412, "stale");
    test.stranger().login("countess@example.org", PASSWORD).await;
    let boss = test.user("boss", Role::Admin).await;
    let root = format!("/api/v1/users/{}", test.admin);
    boss.put(&root, &json!({ "username": "mine" })).await.refused(403, "denied");
    ada.put(&path, &json!({ "bio": "x" })).await.refused(403, "denied");
}

/// What the log of a node says, as far as it is text.
fn logged(test: &TestNode) -> String {
    let mut store = test.node.store.clone();
    let mut told = String::new();
    for lane in [Lane::Urgent, Lane::Rest] {
        let ops = store.ops(lane, 0, &BTreeMap::new(), 100_000, 1 << 26).unwrap().ops;
        told.extend(ops.iter().map(|op| format!("{:?}", op.payload)));
    }
    told
}

/// Takes what was erased out of the log of a node. What it then still says of Ada.
fn erase_all(test: &TestNode) -> String {
    while test.node.store.erase_step(7).unwrap() {}
    assert_eq!(test.node.store.verify().unwrap().problems, Vec::<String>::new());
    let (told, inbox) =
        (logged(test), test.node.store.read(|r| r.conflicts(None, 100, None)).unwrap());
    let events = test.node.store.read(|r| events_after(r, None, 0, 1_000)).unwrap();
    let told = format!("{told}{inbox:?}{events:?}").to_lowercase();
    ["ada@", "lovelace", "london"].iter().filter(|word| told.contains(**word)).copied().collect()
}

#[tokio::test]
async fn of_a_deleted_account_only_what_it_wrote_stays() {
    let test = TestNode::start().await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Editor).await);
    let profile = json!({ "display_name": "Ada Lovelace", "bio": "Of London" });
    ada.put("/api/v1/users/profile", &profile).await.expect(200).data();
    let post = ada.post("/api/v1/posts", &json!({ "title": "Notes", "body": "x" })).await;
    let post = format!("/api/v1/posts/{}", text(&post.expect(201).data(), "id"));
    let path = format!("/api/v1/users/{}", id_of(&ada).await);
    assert!(logged(&test).contains("Lovelace"));
    assert_eq!(admin.delete(&path).await.status, 204);
    assert_eq!(erase_all(&test), "");
    ada.get("/api/v1/auth/me").await.refused(401, "session_ended");
    let login = json!({ "login": "ada", "password": PASSWORD });
    test.stranger().post("/api/v1/auth/login", &login).await.refused(401, "wrong_credentials");
    let gone = admin.get(&path).await.expect(200);
    assert_eq!(
        (text(&gone.data(), "display_name"), text(&gone.data(), "status")),
        ("deleted user", "deleted")
    );
    let shown = gone.text().to_lowercase();
    assert!(["ada@", "lovelace", "london"].iter().all(|word| !shown.contains(word)), "{shown}");
    let kept = admin.get(&format!("{post}?expand=author")).await.expect(200).data();
    assert_eq!(text(&kept["author"], "display_name"), "deleted user");
    // The names are free again, and nothing brings the account back.
    test.make_user(test.tenant, "ada", Role::Viewer).await;
    admin.delete(&path).await.refused(409, "account_deleted");
    admin.put(&path, &json!({ "bio": "x" })).await.refused(409, "account_deleted");
    let enable = json!({ "status": "active" });
    admin.put(&format!("{path}/status"), &enable).await.refused(409, "account_deleted");
    admin.post(&format!("{path}/impersonate"), &json!({})).await.refused(409, "account_deleted");
    let me = format!("/api/v1/users/{}", test.admin);
    admin.delete(&me).await.refused(409, "last_admin");
}

/// Bytes of the file under a bundle's first volume that say it.
fn says(bytes: &[u8], words: &str) -> bool {
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

/// A node with what it has, of the account of Ada with her picture, and the picture.
async fn with_ada() -> (TestNode, String, BlobId) {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Editor).await;
    let profile = json!({ "display_name": "Ada Lovelace", "bio": "Of London" });
    ada.put("/api/v1/users/profile", &profile).await.expect(200).data();
    let me = ada.get("/api/v1/auth/me").await.expect(200).data();
    let (key, picture) = (Id::parse(text(&me, "id")).unwrap(), vec![7; 3_000]);
    let blob = test.node.blobs.put(&picture).unwrap();
    let changes = Changes::new().set(&user::AVATAR, blob.to_string());
    let named = test.node.store.write(move |tx| tx.edit(&user::USER, key, changes).map(drop));
    let named: atoll_storage::Result<()> = named.await;
    named.unwrap();
    (test, format!("/api/v1/users/{key}"), blob)
}

fn bundle(test: &TestNode, name: &str) -> std::path::PathBuf {
    let to = test.folder().join(name);
    let actor = atoll_node::Actor::system(Id::NIL);
    let order = courier::Order { files: courier::Files::All, ..courier::Order::default() };
    courier::export(&test.node, &actor, &order, &to, |_, _| {}).unwrap();
    to
}

fn take_in(test: &TestNode, volume: &std::path::Path) -> Json {
    let actor = atoll_node::Actor::system(Id::NIL);
    let taken = courier::import(&test.node, &actor, &[volume.to_owned()], |_, _| {}).unwrap();
    serde_json::to_value(&taken).unwrap()
}

#[tokio::test]
async fn what_leaves_right_after_an_account_was_deleted_says_nothing_of_it() {
    let (test, path, picture) = with_ada().await;
    let old = bundle(&test, "old.atoll");
    assert_eq!(test.admin().await.delete(&path).await.status, 204);
    assert!(test.node.blobs.path(&picture).is_none(), "the picture is gone");
    // A node that serves nobody walks through its log at its next start.
    assert!(test.node.store.read(|reader| erasure::is_pending(reader)).unwrap());
    let (by_link, by_bundle) =
        (TestNode::start_beside(&test).await, TestNode::start_empty(|_| {}).await);
    let key = test.node.key().public().to_string();
    let system = atoll_node::Actor::system(Id::NIL);
    atoll_node::peer::add(&by_bundle.node, &system, &key, "core", None).await.unwrap();
    let new = bundle(&test, "new.atoll");
    let taken = take_in(&by_bundle, &new);
    assert_eq!(taken["bundles"][0]["is_whole"], true, "{taken}");
    let copy = test.folder().join("copy");
    atoll_node::backup::create(&test.node, &copy, &|_, _| Ok(())).unwrap();
    for words in ["ada@", "Lovelace", "London"] {
        assert!(!atoll_tests::harness::is_on_disk(&copy, words), "{words} is in the backup");
        for there in [&by_link, &by_bundle] {
            assert!(!logged(there).contains(words), "{words} came to another node");
            there.node.store.close();
            let folder = there.folder();
            assert!(!atoll_tests::harness::is_on_disk(folder, words), "{words} is on its disk");
        }
    }
    let name = picture.to_string();
    assert!(!copy.join("blobs").join(&name[..2]).join(&name).exists());
    assert!(!says(&std::fs::read(&new).unwrap(), &"\u{7}".repeat(64)));
    // What was packed before brings nothing back.
    assert!(says(&std::fs::read(&old).unwrap(), &"\u{7}".repeat(64)));
    let taken = take_in(&test, &old);
    assert_eq!(taken["bundles"][0]["blobs_left"], 1, "{taken}");
    assert!(test.node.blobs.path(&picture).is_none());
    assert_eq!(erase_all(&test), "");
}

#[tokio::test]
async fn a_picture_that_somebody_else_has_too_stays_and_one_that_is_uploaded_again_does() {
    let (test, path, picture) = with_ada().await;
    let bob = test.user("bob", Role::Viewer).await;
    let key = Id::parse(&id_of(&bob).await).unwrap();
    let changes = Changes::new().set(&user::AVATAR, picture.to_string());
    let named = test.node.store.write(move |tx| tx.edit(&user::USER, key, changes).map(drop));
    let named: atoll_storage::Result<()> = named.await;
    named.unwrap();
    let admin = test.admin().await;
    assert_eq!(admin.delete(&path).await.status, 204);
    assert!(test.node.blobs.path(&picture).is_some());
    assert_eq!(blob::erased::drop_all(&test.node).unwrap(), 0);
    assert_eq!(admin.delete(&format!("/api/v1/users/{key}")).await.status, 204);
    assert!(test.node.blobs.path(&picture).is_none());
    // What was on its way comes, and goes.
    test.node.blobs.put(&vec![7; 3_000]).unwrap();
    assert_eq!(blob::erased::drop_all(&test.node).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_emptied_without_waiting_and_goes_on_after_a_restart() {
    let (test, path, _) = with_ada().await;
    let emptied = async |test: &TestNode| {
        let mut commits = test.node.store.subscribe();
        let wait = async {
            while test.node.store.read(|reader| erasure::is_pending(reader)).unwrap() {
                commits.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("it ends");
    };
    assert_eq!(test.admin().await.delete(&path).await.status, 204);
    assert!(test.node.store.read(|reader| erasure::is_pending(reader)).unwrap());
    let (tenant, admin) = (test.tenant, test.admin);
    let test = TestNode::reopen(test.close().await, tenant, admin).await;
    assert!(test.node.store.read(|reader| erasure::is_pending(reader)).unwrap());
    let workers = test.node.start().await.unwrap();
    emptied(&test).await;
    let ben = format!("/api/v1/users/{}", test.make_user(test.tenant, "ben", Role::Viewer).await);
    assert_eq!(test.admin().await.delete(&ben).await.status, 204);
    emptied(&test).await;
    workers.shutdown().await;
}

#[tokio::test]
async fn what_comes_back_to_a_deleted_account_from_another_node_is_taken_away() {
    let first = TestNode::start().await;
    let ada = first.user("ada", Role::Viewer).await;
    let path = format!("/api/v1/users/{}", id_of(&ada).await);
    let second = TestNode::start_beside(&first).await;
    assert_eq!(first.admin().await.delete(&path).await.status, 204);
    let there = second.stranger().login("ada", PASSWORD).await;
    let profile = json!({ "display_name": "Ada Lovelace", "bio": "Of London" });
    there.put("/api/v1/users/profile", &profile).await.expect(200).data();
    let enable = json!({ "status": "active" });
    second.admin().await.put(&format!("{path}/status"), &enable).await.expect(200).data();
    second.take_from(&first);
    first.take_from(&second);
    there.get("/api/v1/auth/me").await.refused(401, "account_disabled");
    for test in [&first, &second] {
        assert_eq!(erase_all(test), "");
        let shown = test.admin().await.get(&path).await.expect(200).text().to_lowercase();
        assert!(["ada@", "lovelace", "london"].iter().all(|word| !shown.contains(word)), "{shown}");
        assert_eq!(erase::sweep(&test.node).await.unwrap(), 0);
        assert_eq!(test.node.store.verify().unwrap().problems, Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_administrator_sees_what_a_user_sees_for_a_quarter_of_an_hour() {
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let read = now.clone();
    let test = TestNode::start_at(Clock::from_fn(move || read.load(Ordering::SeqCst))).await;
    let (admin, ada) = (test.admin().await, test.user("ada", Role::Editor).await);
    let id = id_of(&ada).await;
    let path = format!("/api/v1/users/{id}/impersonate");
    let posed = admin.post(&path, &json!({})).await.expect(200);
    assert_eq!(posed.header("cache-control"), Some("no-store"));
    let posed = posed.data();
    assert!(posed.get("refresh_token").is_none() && posed["expires_in"] == 900);
    let posed = test.stranger().with_token(text(&posed, "access_token"));
    let me = posed.get("/api/v1/auth/me").await.expect(200).data();
    assert_eq!(
        (text(&me, "id"), text(&me, "impersonated_by")),
        (id.as_str(), &*test.admin.to_string())
    );
    assert!(ada.get("/api/v1/auth/me").await.data().get("impersonated_by").is_none());
    posed.post("/api/v1/posts", &json!({ "title": "x", "body": "x" })).await.expect(201).data();
    // What is only for the person himself.
    posed.delete("/api/v1/auth/sessions").await.refused(403, "denied");
    let change = json!({ "old_password": PASSWORD, "new_password": "another password" });
    posed.post("/api/v1/users/change-password", &change).await.refused(403, "denied");
    posed.get("/api/v1/users/me/export").await.refused(403, "denied");
    posed.post("/api/v1/api-keys", &json!({ "name": "robot" })).await.refused(403, "denied");
    posed.post("/api/v1/auth/totp/setup", &json!({})).await.refused(403, "denied");
    let change = json!({ "email": "mallory@example.org", "password": PASSWORD });
    posed.post("/api/v1/auth/change-email", &change).await.refused(403, "denied");
    let json = [("content-type", "application/json")];
    let password = json!({ "password": PASSWORD }).to_string();
    let erased = posed.send("DELETE", "/api/v1/users/me", &json, password.as_bytes()).await;
    erased.refused(403, "denied");
    now.fetch_add(15 * 60 * 1_000 + 1_000, Ordering::SeqCst);
    posed.get("/api/v1/auth/me").await.refused(401, "token_expired");
    ada.get("/api/v1/auth/me").await.expect(200).data();
}

#[tokio::test]
async fn nobody_acts_in_the_name_of_those_above_him_or_of_himself() {
    let test = TestNode::start().await;
    let (root, boss) = (test.admin().await, test.user("boss", Role::Admin).await);
    let other = id_of(&test.user("other", Role::Admin).await).await;
    let ada = id_of(&test.user("ada", Role::Viewer).await).await;
    let (_, north) = tenant_of(&test, "north", "head").await;
    let path = |id: &str| format!("/api/v1/users/{id}/impersonate");
    boss.post(&path(&test.admin.to_string()), &json!({})).await.refused(403, "denied");
    boss.post(&path(&id_of(&boss).await), &json!({})).await.refused(403, "denied");
    boss.post(&path(&id_of(&north).await), &json!({})).await.refused(404, "not_found");
    let posed = boss.post(&path(&other), &json!({})).await.expect(200).data();
    let posed = test.stranger().with_token(text(&posed, "access_token"));
    posed.post(&path(&ada), &json!({})).await.refused(403, "denied");
    // It ends with the right of whoever began it.
    let role = json!({ "role": "editor" });
    let boss_id = id_of(&boss).await;
    root.put(&format!("/api/v1/users/{boss_id}/role"), &role).await.expect(200).data();
    posed.get("/api/v1/auth/me").await.refused(401, "session_ended");
}

#[tokio::test]
async fn acting_in_a_name_ends_when_its_owner_rises_above_whoever_acts() {
    let test = TestNode::start().await;
    let (root, boss) = (test.admin().await, test.user("boss", Role::Admin).await);
    let ada = id_of(&test.user("ada", Role::Viewer).await).await;
    let posed = boss.post(&format!("/api/v1/users/{ada}/impersonate"), &json!({})).await;
    let posed = test.stranger().with_token(text(&posed.expect(200).data(), "access_token"));
    posed.get("/api/v1/auth/me").await.expect(200).data();
    let role = |name: &str| json!({ "role": name });
    let path = format!("/api/v1/users/{ada}/role");
    root.put(&path, &role("admin")).await.expect(200).data();
    posed.get("/api/v1/auth/me").await.expect(200).data();
    root.put(&path, &role("superadmin")).await.expect(200).data();
    posed.get("/api/v1/tenants").await.refused(401, "session_ended");
}

#[tokio::test]
async fn all_that_is_here_of_somebody_is_one_document() {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Editor).await;
    for number in 0..25 {
        let post = json!({ "title": format!("Note {number}"), "body": format!("Body {number}") });
        ada.post("/api/v1/posts", &post).await.expect(201).data();
    }
    let post = ada
        .post("/api/v1/posts", &json!({ "title": "Seen", "body": "x" }))
        .await
        .expect(201)
        .data();
    let post = text(&post, "id");
    ada.post(&format!("/api/v1/posts/{post}/publish"), &json!({})).await.expect(200).data();
    ada.post(&format!("/api/v1/posts/{post}/like"), &json!({})).await.expect(200).data();
    ada.post("/api/v1/comments", &json!({ "post_id": post, "text": "Mine" }))
        .await
        .expect(201)
        .data();
    ada.post("/api/v1/api-keys", &json!({ "name": "robot" })).await.expect(201).data();
    let admin = test.admin().await;
    admin
        .post("/api/v1/comments", &json!({ "post_id": post, "text": "Not mine" }))
        .await
        .expect(201)
        .data();
    let answer = ada.get("/api/v1/users/me/export").await.expect(200);
    assert!(answer.header("content-disposition").is_some_and(|v| v.contains("my-data.json")));
    let all = answer.json();
    let count = |name: &str| all[name].as_array().map(Vec::len);
    assert_eq!(text(&all["account"], "email"), "ada@example.org");
    assert_eq!(
        (count("posts"), count("comments"), count("likes"), count("sessions")),
        (Some(26), Some(1), Some(1), Some(1))
    );
    assert_eq!((count("api_keys"), all["api_keys"][0]["name"].as_str()), (Some(1), Some("robot")));
    let posts = all["posts"].as_array().unwrap();
    assert!(posts.iter().any(|post| post["title"] == "Note 24" && post["body"] == "Body 24"));
    assert!(!answer.text().contains("argon2") && !answer.text().contains("Not mine"));
    test.stranger().get("/api/v1/users/me/export").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn somebody_deletes_his_own_account_with_his_password_only() {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Viewer).await;
    let json = [("content-type", "application/json")];
    let erase = async |client: &atoll_tests::Client, body: Json| {
        client.send("DELETE", "/api/v1/users/me", &json, body.to_string().as_bytes()).await
    };
    erase(&ada, json!({ "password": "wrong password" })).await.refused(422, "invalid");
    erase(&ada, json!({})).await.refused(422, "invalid");
    let admin = test.admin().await;
    erase(&admin, json!({ "password": PASSWORD })).await.refused(409, "last_admin");
    let id = id_of(&ada).await;
    ada.post("/api/v1/api-keys", &json!({ "name": "Ada's robot" })).await.expect(201).data();
    assert_eq!(erase(&ada, json!({ "password": PASSWORD })).await.status, 204);
    let keys = Query::of(&API_KEY, test.tenant);
    assert_eq!(test.node.store.read(|reader| reader.list(&keys)).unwrap().records.len(), 0);
    ada.get("/api/v1/auth/me").await.refused(401, "session_ended");
    let gone = admin.get(&format!("/api/v1/users/{id}")).await.expect(200).data();
    assert_eq!(text(&gone, "status"), "deleted");
}
