use super::text;
use atoll_node::Role;
use atoll_node::identity::session::{REVOKED_AT, SESSION};
use atoll_storage::{Clock, Id, Read};
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

const INBOX: &str = "/api/v1/sync/conflicts";
const SETTLED: &str = "/api/v1/sync/settlements";

async fn one(client: &Client, list: &str) -> Json {
    let all = client.get(list).await.expect(200).json();
    assert_eq!(all["data"].as_array().map(Vec::len), Some(1), "{all}");
    all["data"][0].clone()
}

async fn settle(client: &Client, how: Json) {
    let conflict = one(client, INBOX).await;
    let path = format!("{INBOX}/{}/resolve", text(&conflict, "id"));
    assert_eq!(client.post(&path, &how).await.status, 204);
}

/// A post whose title two nodes wrote apart; its address.
async fn disputed(test: &TestNode) -> String {
    let admin = test.admin().await;
    let made = admin.post("/api/v1/posts", &json!({ "title": "Shared", "body": "x" })).await;
    let path = format!("/api/v1/posts/{}", text(&made.expect(201).data(), "id"));
    let apart = TestNode::start_beside(test).await;
    apart.admin().await.put(&path, &json!({ "title": "There" })).await.expect(200);
    admin.put(&path, &json!({ "title": "Here" })).await.expect(200);
    test.take_from(&apart);
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_is_seen_and_undone_unless_somebody_wrote_there_since() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let path = disputed(&test).await;
    let title = async || text(&admin.get(&path).await.expect(200).data(), "title").to_owned();
    let showed = title().await;
    settle(&admin, json!({ "write": "Both" })).await;
    assert_eq!(title().await, "Both");
    let settled = one(&admin, SETTLED).await;
    let told = ["cause", "field", "before", "after"].map(|name| text(&settled, name).to_owned());
    assert_eq!(told, ["concurrent", "title", &showed, "Both"]);
    assert_eq!((&settled["can_undo"], &settled["by"]), (&json!(true), &json!(test.admin)));
    let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));

    let reader = test.user("ada", Role::Viewer).await;
    reader.get(SETTLED).await.refused(403, "denied");
    reader.post(&undo, &json!({})).await.refused(403, "denied");
    admin.put(&path, &json!({ "title": "Later" })).await.expect(200);
    admin.post(&undo, &json!({})).await.refused(409, "changed_since");
    assert_eq!(title().await, "Later");
    admin.put(&path, &json!({ "title": "Both" })).await.expect(200);
    let undone = admin.post(&undo, &json!({})).await.expect(200).data();
    assert_eq!((undone["can_undo"].as_bool(), undone["undone_at"].is_null()), (Some(false), false));
    assert_eq!(title().await, showed);
    admin.post(&undo, &json!({})).await.refused(409, "already_undone");
    let nowhere = format!("{SETTLED}/{}/undo", test.admin);
    admin.post(&nowhere, &json!({})).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_that_was_left_comes_back_when_that_is_undone() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    disputed(&test).await;
    settle(&admin, json!({ "dismiss": true })).await;
    let inbox = admin.get(INBOX).await.expect(200).json();
    assert_eq!(inbox["data"], json!([]));
    let settled = one(&admin, SETTLED).await;
    assert!(settled["before"].is_null() && settled["can_undo"] == true, "{settled}");
    let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));
    admin.post(&undo, &json!({})).await.expect(200);
    one(&admin, INBOX).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_given_to_another_goes_back() {
    let test = TestNode::start().await;
    let apart = TestNode::start_beside(&test).await;
    let post = json!({ "title": "Bread", "slug": "bread", "body": "x" });
    let mut ids = Vec::new();
    for node in [&test, &apart] {
        let made = node.admin().await.post("/api/v1/posts", &post).await.expect(201).data();
        ids.push(text(&made, "id").to_owned());
    }
    test.take_from(&apart);
    let admin = test.admin().await;
    let holder =
        async || text(&admin.get("/api/v1/posts/bread").await.expect(200).data(), "id").to_owned();
    let first = holder().await;
    let conflict = one(&admin, INBOX).await;
    let values = conflict["values"].as_array().unwrap();
    let place = values.iter().position(|value| value["won"] == false).unwrap();
    settle(&admin, json!({ "take": place })).await;
    let second = holder().await;
    assert!(first != second && ids.contains(&second));
    let settled = admin.get(SETTLED).await.expect(200).json()["data"][0].clone();
    assert_eq!((text(&settled, "before"), text(&settled, "after")), (&*first, &*second));
    let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));
    admin.post(&undo, &json!({})).await.expect(200);
    assert_eq!(holder().await, first);
}

/// The value that won, and the other one.
fn two(conflict: &Json) -> (Json, Json) {
    let values = conflict["values"].as_array().unwrap();
    let (won, lost): (Vec<_>, Vec<_>) = values.iter().partition(|value| value["won"] == true);
    assert_eq!((won.len(), lost.len()), (1, 1), "{conflict}");
    (won[0].clone(), lost[0].clone())
}

/// Who wrote which value; of nobody's "".
fn written(conflict: &Json) -> Vec<(Json, String)> {
    let (won, lost) = two(conflict);
    let author = |value: &Json| value["author"]["username"].as_str().unwrap_or_default().to_owned();
    [won, lost].iter().map(|value| (value["value"].clone(), author(value))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_value_names_who_wrote_it_where_that_is_known_and_the_node() {
    let test = TestNode::start().await;
    let (ada, admin) = (test.user("ada", Role::Admin).await, test.admin().await);
    let made = admin.post("/api/v1/posts", &json!({ "title": "Shared", "body": "x" })).await;
    let post = format!("/api/v1/posts/{}", text(&made.expect(201).data(), "id"));
    let made = admin.post("/api/v1/categories", &json!({ "name": "Shared" })).await.expect(201);
    let category = format!("/api/v1/categories/{}", text(&made.data(), "id"));
    let apart = TestNode::start_beside(&test).await;
    let there = apart.admin().await;
    for (client, word) in [(&ada, "Ada's"), (&there, "There")] {
        // What others write between is nobody's but theirs.
        client.post("/api/v1/posts", &json!({ "title": "Other", "body": "x" })).await.expect(201);
        client.put(&post, &json!({ "title": word })).await.expect(200);
        client.put(&category, &json!({ "name": word })).await.expect(200);
    }
    ada.post(&format!("{post}/publish"), &json!({})).await.expect(200);
    there.post(&format!("{post}/archive"), &json!({})).await.expect(200);
    let same = json!({ "title": "Same", "slug": "same", "body": "x" });
    for client in [&ada, &there] {
        client.post("/api/v1/posts", &same).await.expect(201);
    }
    test.take_from(&apart);

    let inbox = admin.get(INBOX).await.expect(200).data();
    let of = |kind: &str, field: &str| {
        let mut rows = inbox.as_array().unwrap().iter();
        let row = rows.find(|row| row["kind"] == kind && row["field"] == field && row["at"] != "");
        row.unwrap_or_else(|| panic!("{kind} {field} in {inbox}")).clone()
    };
    let mut expected = vec![(json!("Ada's"), "ada".to_owned()), (json!("There"), "admin".into())];
    let sorted = |mut all: Vec<(Json, String)>| {
        all.sort_by_key(|(value, _)| value.to_string());
        all
    };
    assert_eq!(sorted(written(&of("post", "title"))), expected);
    expected = vec![(json!("archived"), "admin".into()), (json!("published"), "ada".into())];
    assert_eq!(sorted(written(&of("post", "status"))), expected);
    let taken = of("post", "slug");
    let mut names: Vec<String> = written(&taken).into_iter().map(|(_, name)| name).collect();
    names.sort();
    assert!(names == ["ada", "admin"], "{taken}");
    expected = vec![(json!("Ada's"), "ada".to_owned()), (json!("There"), "admin".into())];
    let named = of("category", "name");
    assert_eq!(sorted(written(&named)), expected);
    let (won, lost) = two(&named);

    let own = test.node.id().to_string();
    for value in [won, lost] {
        // The other one is no peer here, and has no name.
        let name = (value["node"] == own).then(|| test.node.config.name.clone());
        assert_eq!(value["node_name"], json!(name));
    }
}

/// What is changed by hand, of whatever kind, says by whom.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_all_that_people_change_name_them() {
    let test = TestNode::start().await;
    let (ada, admin) = (test.user("ada", Role::Admin).await, test.admin().await);
    let make = async |path: &str, draft: Json| {
        let made = admin.post(path, &draft).await.expect(201).data();
        text(&made, "id").to_owned()
    };
    let mut posts = Vec::new();
    for title in ["One", "Two", "Three"] {
        posts.push(make("/api/v1/posts", json!({ "title": title, "body": "x" })).await);
    }
    let tag = make("/api/v1/tags", json!({ "name": "Boats" })).await;
    let mut headings = Vec::new();
    for name in ["A", "B", "C", "D"] {
        headings.push(make("/api/v1/categories", json!({ "name": name })).await);
    }
    let filed = json!({ "category_id": headings[2] });
    admin.put(&format!("/api/v1/posts/{}", posts[2]), &filed).await.expect(200);
    let redirect = |place: usize| json!({ "path": "/old", "post_id": posts[place] });
    make("/api/v1/redirects", redirect(2)).await;
    admin.post(&format!("/api/v1/posts/{}/publish", posts[0]), &json!({})).await.expect(200);
    let reader = test.user("bob", Role::Viewer).await;
    let said = json!({ "post_id": posts[0], "text": "First" });
    let made = reader.post("/api/v1/comments", &said).await.expect(201).data();
    let comment = text(&made, "id").to_owned();
    let apart = TestNode::start_beside(&test).await;
    let there = apart.admin().await;
    for (client, place, step) in [(&ada, 0, "approve"), (&there, 1, "reject")] {
        let word = ["Ships", "Yachts"][place];
        client.put(&format!("/api/v1/tags/{tag}"), &json!({ "name": word })).await.expect(200);
        client.post("/api/v1/redirects", &redirect(place)).await.expect(201);
        let ids = [&headings[1 - place], &headings[place]];
        let order = client.post("/api/v1/categories/reorder", &json!({ "ids": ids })).await;
        order.expect(200);
        let path = format!("/api/v1/categories/{}", headings[2]);
        let into = format!("{path}/merge");
        if place == 0 {
            client.post(&into, &json!({ "into": headings[3] })).await.expect(200);
        } else {
            let post = format!("/api/v1/posts/{}", posts[2]);
            client.put(&post, &json!({ "category_id": headings[0] })).await.expect(200);
        }
        let path = format!("/api/v1/comments/{comment}/{step}");
        client.post(&path, &json!({})).await.expect(200);
        let word = ["Sea", "SEA"][place];
        client.post("/api/v1/tags", &json!({ "name": word })).await.expect(201);
    }
    test.take_from(&apart);
    let inbox = admin.get(INBOX).await.expect(200).data();
    let mut told: Vec<String> = Vec::new();
    for row in inbox.as_array().unwrap() {
        let mut names: Vec<String> = written(row).into_iter().map(|(_, name)| name).collect();
        names.sort();
        let place = ["kind", "field"].map(|name| text(row, name)).join(".");
        assert_eq!(names, ["ada", "admin"], "{row}");
        told.push(place);
    }
    told.sort();
    told.dedup();
    let all =
        ["category.position", "comment.status", "post.category_id", "redirect.post_id", "tag.name"];
    assert_eq!(told, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_author_of_a_settlement_and_a_deleted_user_are_named_too() {
    let test = TestNode::start().await;
    let ada = test.user("ada", Role::Admin).await;
    let path = disputed(&test).await;
    let apart = TestNode::start_beside(&test).await;
    settle(&ada, json!({ "write": "Both" })).await;
    apart.admin().await.put(&path, &json!({ "title": "Later" })).await.expect(200);
    test.take_from(&apart);
    let admin = test.admin().await;
    let of = |conflict: &Json, title: &str| {
        let values = conflict["values"].as_array().unwrap();
        values.iter().find(|value| value["value"] == title).unwrap()["author"].clone()
    };
    let conflict = one(&admin, INBOX).await;
    assert_eq!(of(&conflict, "Both")["username"], "ada", "{conflict}");
    let path = format!("/api/v1/users/{}", text(&of(&conflict, "Both"), "id"));
    admin.delete(&path).await.expect(204);
    let conflict = one(&admin, INBOX).await;
    assert_eq!(of(&conflict, "Both")["display_name"], "deleted user", "{conflict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_edit_kept_from_the_trash_is_kept_or_deleted_after_all() {
    let test = TestNode::start().await;
    let (admin, editor) = (test.admin().await, test.user("ada", Role::Editor).await);
    let made = admin.post("/api/v1/posts", &json!({ "title": "Shared", "body": "One." })).await;
    let path = format!("/api/v1/posts/{}", text(&made.expect(201).data(), "id"));
    let apart = TestNode::start_beside(&test).await;
    admin.delete(&path).await.expect(204);
    apart.admin().await.put(&path, &json!({ "body": "One and two." })).await.expect(200);
    test.take_from(&apart);

    let conflict = one(&admin, INBOX).await;
    assert!(conflict["field"].is_null() && conflict["values"] == json!([]), "{conflict}");
    let explanation = text(&conflict, "explanation");
    assert!(explanation.contains("deleted the post") && explanation.contains("edited"));
    let resolve = format!("{INBOX}/{}/resolve", text(&conflict, "id"));
    editor.post(&resolve, &json!({ "delete": true })).await.refused(403, "denied");
    admin.post(&resolve, &json!({ "delete": true, "dismiss": true })).await.expect(400);
    let is_there = async || {
        let trash =
            admin.get("/api/v1/posts?trashed=true").await.expect(200).json()["data"].clone();
        trash == json!([])
    };
    assert!(is_there().await);

    settle(&admin, json!({ "delete": true })).await;
    assert!(!is_there().await);
    let inbox = admin.get(INBOX).await.expect(200).json();
    assert_eq!(inbox["data"], json!([]));
    let settled = one(&admin, SETTLED).await;
    assert_eq!((&settled["field"], &settled["can_undo"]), (&Json::Null, &json!(true)));
    let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));
    admin.post(&undo, &json!({})).await.expect(200);
    assert!(is_there().await);
    assert_eq!(admin.get(&path).await.expect(200).data()["body"], "One and two.");
    one(&admin, INBOX).await;

    settle(&admin, json!({ "dismiss": true })).await;
    assert!(is_there().await);
    let inbox = admin.get(INBOX).await.expect(200).json();
    assert_eq!(inbox["data"], json!([]));
    // An edit is no news; that it happens again is.
    admin.put(&path, &json!({ "title": "Kept" })).await.expect(200);
    assert_eq!(admin.get(INBOX).await.expect(200).json()["data"], json!([]));
    let apart = TestNode::start_beside(&test).await;
    admin.delete(&path).await.expect(204);
    apart.admin().await.put(&path, &json!({ "body": "One, two, three." })).await.expect(200);
    test.take_from(&apart);
    assert!(is_there().await);
    assert_eq!(text(&one(&admin, INBOX).await, "cause"), "edit_overruled_deletion");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_to_a_deleted_record_goes_into_one_that_is_made_anew_and_out_again() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let draft = json!({ "name": "Boats", "slug": "boats" });
    let made = admin.post("/api/v1/tags", &draft).await.expect(201).data();
    let path = format!("/api/v1/tags/{}", text(&made, "id"));
    let apart = TestNode::start_beside(&test).await;
    admin.delete(&path).await.expect(204);
    apart.admin().await.put(&path, &json!({ "name": "Ships" })).await.expect(200);
    test.take_from(&apart);
    assert_eq!(text(&one(&admin, INBOX).await, "cause"), "edit_of_deleted");
    let resolve = format!("{INBOX}/{}/resolve", text(&one(&admin, INBOX).await, "id"));
    admin.post(&resolve, &json!({ "take": 0 })).await.refused(409, "cannot_take");
    admin.post("/api/v1/tags", &draft).await.expect(201);
    let name = async || text(&admin.get(&path).await.expect(200).data(), "name").to_owned();
    for _ in 0..2 {
        settle(&admin, json!({ "take": 0 })).await;
        assert_eq!(name().await, "Ships");
        assert_eq!(admin.get(INBOX).await.expect(200).json()["data"], json!([]));
        let settled = admin.get(SETTLED).await.expect(200).json()["data"][0].clone();
        let told = ["before", "after"].map(|name| text(&settled, name));
        assert_eq!((told, &settled["can_undo"]), (["Boats", "Ships"], &json!(true)));
        let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));
        admin.post(&undo, &json!({})).await.expect(200);
        assert_eq!(name().await, "Boats");
        assert_eq!(text(&one(&admin, INBOX).await, "cause"), "edit_of_deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_deleted_is_deleted_after_all() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    disputed(&test).await;
    let path = format!("{INBOX}/{}/resolve", text(&one(&admin, INBOX).await, "id"));
    admin.post(&path, &json!({ "delete": true })).await.refused(409, "cannot_take");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_on_two_nodes_at_different_times_is_no_conflict_to_look_at() {
    let test = TestNode::start().await;
    let (old, admin) = (test.admin().await, test.admin().await);
    let sessions = old.get("/api/v1/auth/sessions").await.expect(200).data();
    let is_own = |session: &&Json| session["current"] == true;
    let session = text(sessions.as_array().unwrap().iter().find(is_own).unwrap(), "id").to_owned();
    let later = Clock::from_fn(|| Clock::system().now_ms() + 5_000);
    let apart = TestNode::start_beside_at(&test, later).await;
    let there = Client { address: apart.address, token: admin.token.clone(), tenant: None };
    for client in [&admin, &there] {
        let path = format!("/api/v1/auth/sessions/{session}");
        client.delete(&path).await.expect(204);
    }
    test.take_from(&apart);
    let id = Id::parse(&session).unwrap();
    let record = test.node.store.read(|reader| reader.get(&SESSION, id)).unwrap().unwrap();
    assert_eq!(record.state.cells_of(REVOKED_AT.code).len(), 2, "both ended it");
    let inbox = admin.get(INBOX).await.expect(200).json();
    assert_eq!((&inbox["data"], &inbox["page"]["total"]), (&json!([]), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_is_undone_brings_both_values_back_on_every_node() {
    let test = TestNode::start().await;
    let path = disputed(&test).await;
    let ada = test.user("ada", Role::Admin).await;
    let before = written(&one(&ada, INBOX).await);
    assert!(before.iter().all(|(_, author)| author == "admin"), "{before:?}");
    for how in [json!({ "write": "Both" }), json!({ "take": 0 }), json!({ "take": 1 })] {
        settle(&ada, how).await;
        let inbox = ada.get(INBOX).await.expect(200).json();
        assert_eq!(inbox["data"], json!([]));
        let settled = ada.get(SETTLED).await.expect(200).json()["data"][0].clone();
        let undo = format!("{SETTLED}/{}/undo", text(&settled, "id"));
        ada.post(&undo, &json!({})).await.expect(200);
        assert_eq!(written(&one(&ada, INBOX).await), before);
        assert_eq!(json!(text(&ada.get(&path).await.expect(200).data(), "title")), before[0].0);
    }
    let other = TestNode::start_beside(&test).await;
    assert_eq!(written(&one(&other.admin().await, INBOX).await), before);
    // Who has seen both settles it by a write.
    ada.put(&path, &json!({ "title": "Later" })).await.expect(200);
    let inbox = ada.get(INBOX).await.expect(200).json();
    assert_eq!(inbox["data"], json!([]));
}
