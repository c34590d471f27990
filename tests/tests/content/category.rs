use super::{all, at, make, text};
use atoll_node::Role;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

async fn category(client: &Client, name: &str, parent: Option<&Json>) -> Json {
    let new = json!({ "name": name, "parent_id": parent.map(|parent| &parent["id"]) });
    client.post("/api/v1/categories", &new).await.expect(201).data()
}

#[tokio::test]
async fn a_category_is_proposed_approved_and_then_public() {
    let test = TestNode::start().await;
    let (admin, editor) = (test.admin().await, test.user("eve", Role::Editor).await);
    let made = category(&editor, "Field notes", None).await;
    assert_eq!((text(&made, "slug"), text(&made, "status")), ("field-notes", "pending"));
    let path = at("categories", &made, "");
    test.stranger().get(&path).await.refused(404, "not_found");
    assert_eq!(
        test.stranger().get("/api/v1/categories").await.expect(200).json()["page"]["total"],
        0
    );
    editor.post(&format!("{path}/approve"), &json!({})).await.refused(403, "denied");
    for _ in 0..2 {
        assert_eq!(
            admin.post(&format!("{path}/approve"), &json!({})).await.expect(200).data()["status"],
            "approved"
        );
    }
    let _ = test.stranger().get("/api/v1/categories/field-notes").await.expect(200);
    assert_eq!(
        test.stranger().get("/api/v1/categories").await.expect(200).json()["page"]["total"],
        1
    );
    let events = test
        .node
        .store
        .read(|r| atoll_storage::outbox::events_after(r, Some(test.tenant), 0, 100))
        .unwrap();
    let approved =
        events.iter().filter(|event| event.event_type == "cortex.category.approved").count();
    assert_eq!(approved, 1);
    editor
        .post("/api/v1/categories", &json!({ "name": "X", "slug": "field-notes" }))
        .await
        .refused(409, "slug_taken");
    let renamed = editor
        .put("/api/v1/categories/field-notes", &json!({ "name": "Notes" }))
        .await
        .expect(200)
        .data();
    assert_eq!((text(&renamed, "name"), text(&renamed, "slug")), ("Notes", "field-notes"));
}

#[tokio::test]
async fn a_tree_is_shown_and_never_closes_into_a_circle() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let top = category(&admin, "Top", None).await;
    let middle = category(&admin, "Middle", Some(&top)).await;
    let leaf = category(&admin, "Leaf", Some(&middle)).await;
    let tree = admin.get("/api/v1/categories?tree=true").await.expect(200).data();
    assert_eq!(all(&tree, "name"), ["Top"]);
    assert_eq!(text(&tree[0]["children"][0]["children"][0], "name"), "Leaf");
    for parent in [&leaf, &top] {
        admin
            .put(&at("categories", &top, ""), &json!({ "parent_id": parent["id"] }))
            .await
            .refused(409, "cycle");
    }
    let _ =
        admin.put(&at("categories", &leaf, ""), &json!({ "parent_id": null })).await.expect(200);
    let _ = admin
        .put(&at("categories", &top, ""), &json!({ "parent_id": leaf["id"] }))
        .await
        .expect(200);
    let _ = admin.post(&at("categories", &middle, "/approve"), &json!({})).await.expect(200);
    let seen = test.stranger().get("/api/v1/categories?tree=true").await.expect(200).data();
    assert_eq!(all(&seen, "name"), ["Middle"]);
}

#[tokio::test]
async fn sub_categories_are_categories_with_a_parent() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let (top, other) = (category(&admin, "Top", None).await, category(&admin, "Other", None).await);
    let answer = admin.post("/api/v1/sub-categories", &json!({ "name": "Lost" })).await.expect(422);
    assert_eq!(text(&answer.json()["errors"][0], "field"), "parent_id");
    let new = json!({ "name": "Below", "parent_id": top["id"] });
    let below = admin.post("/api/v1/sub-categories", &new).await.expect(201).data();
    admin.get(&at("sub-categories", &top, "")).await.refused(404, "not_found");
    let _ = admin.get("/api/v1/sub-categories/below").await.expect(200);
    let names = async |query: &str| {
        all(&admin.get(&format!("/api/v1/sub-categories{query}")).await.expect(200).data(), "name")
    };
    assert_eq!(names("").await, ["Below"]);
    assert_eq!(names("?category=top").await, ["Below"]);
    assert_eq!(names("?category=other").await, [""; 0]);
    let moved = json!({ "parent_id": other["id"] });
    let _ = admin.put(&at("sub-categories", &below, ""), &moved).await.expect(200);
    assert_eq!(names("?category=other").await, ["Below"]);
    let _ = admin.delete(&at("sub-categories", &below, "")).await.expect(204);
}

#[tokio::test]
async fn a_category_in_use_goes_only_when_its_posts_and_children_have_another_place() {
    let test = TestNode::start().await;
    let (admin, editor) = (test.admin().await, test.user("eve", Role::Editor).await);
    let (old, new) = (category(&admin, "Old", None).await, category(&admin, "New", None).await);
    let child = category(&admin, "Child", Some(&old)).await;
    for i in 0..3 {
        make(&editor, json!({ "title": format!("Post {i}"), "category_id": old["id"] })).await;
    }
    let path = at("categories", &old, "");
    editor.delete(&path).await.refused(403, "denied");
    let refused = admin.delete(&path).await;
    refused.refused(409, "category_in_use");
    assert!(refused.text().contains("3 posts and 1 sub-categories"), "{}", refused.text());
    for target in [&old, &child] {
        let _ =
            admin.delete(&format!("{path}?reassign_to={}", text(target, "id"))).await.expect(422);
    }
    let _ = admin.delete(&format!("{path}?reassign_to=nowhere")).await.expect(400);
    let _ = admin.delete(&format!("{path}?reassign_to=new")).await.expect(204);
    admin.get(&path).await.refused(404, "not_found");
    assert_eq!(
        admin.get("/api/v1/posts?category=new").await.expect(200).json()["page"]["total"],
        3
    );
    let child = admin.get(&at("categories", &child, "")).await.expect(200).data();
    assert_eq!(child["parent_id"], new["id"]);
}

#[tokio::test]
async fn a_tag_is_unique_by_its_slug_and_leaves_its_posts_when_it_goes() {
    let test = TestNode::start().await;
    let (admin, editor) = (test.admin().await, test.user("eve", Role::Editor).await);
    let tag = editor.post("/api/v1/tags", &json!({ "name": "Rust" })).await.expect(201).data();
    editor.post("/api/v1/tags", &json!({ "name": "RUST" })).await.refused(409, "slug_taken");
    let _ = editor.post("/api/v1/tags", &json!({ "name": "?" })).await.expect(422);
    let post = make(&editor, json!({ "title": "Tagged", "tag_ids": [tag["id"]] })).await;
    assert_eq!(test.stranger().get("/api/v1/tags/rust").await.expect(200).data()["post_count"], 0);
    let _ = editor.post(&at("posts", &post, "/publish"), &json!({})).await.expect(200);
    assert_eq!(test.stranger().get("/api/v1/tags/rust").await.expect(200).data()["post_count"], 1);
    let renamed = editor
        .put(&at("tags", &tag, ""), &json!({ "name": "Oxide", "slug": "oxide" }))
        .await
        .expect(200)
        .data();
    assert_eq!((text(&renamed, "name"), text(&renamed, "slug")), ("Oxide", "oxide"));
    let again = editor.post("/api/v1/tags", &json!({ "name": "Rust" })).await.expect(201).data();
    assert_ne!(again["id"], tag["id"]);
    editor.delete(&at("tags", &tag, "")).await.refused(403, "denied");
    let _ = admin.delete(&at("tags", &tag, "")).await.expect(204);
    let post = editor.get(&at("posts", &post, "")).await.expect(200).data();
    assert_eq!(post["tag_ids"], json!([]));
    admin.get(&at("tags", &tag, "")).await.refused(404, "not_found");
}

#[tokio::test]
async fn a_rejected_category_tells_its_author_why_and_waits_again_after_an_edit() {
    let test = TestNode::start().await;
    let (admin, eve) = (test.admin().await, test.user("eve", Role::Editor).await);
    let ed = test.user("edd", Role::Editor).await;
    let made = category(&eve, "Gossip", None).await;
    let path = at("categories", &made, "");
    let reject = format!("{path}/reject");
    eve.post(&reject, &json!({ "reason": "x" })).await.refused(403, "denied");
    let empty = admin.post(&reject, &json!({ "reason": " " })).await.expect(422);
    assert_eq!(text(&empty.json()["errors"][0], "field"), "reason");
    let long = json!({ "reason": "x".repeat(1_001) });
    let _ = admin.post(&reject, &long).await.expect(422);
    let rejected = admin.post(&reject, &json!({ "reason": "Not our field." })).await.expect(200);
    assert_eq!(text(&rejected.data(), "status"), "rejected");
    assert_eq!(eve.get(&path).await.expect(200).data()["rejection"], "Not our field.");
    assert!(ed.get(&path).await.expect(200).data().get("rejection").is_none());
    test.stranger().get(&path).await.refused(404, "not_found");
    let again = eve.put(&path, &json!({ "name": "Letters" })).await.expect(200).data();
    assert_eq!(text(&again, "status"), "pending");
    let approved = admin.post(&format!("{path}/approve"), &json!({})).await.expect(200).data();
    assert_eq!((text(&approved, "status"), &approved["rejection"]), ("approved", &Json::Null));
    let _ = test.stranger().get(&path).await.expect(200);
}

#[tokio::test]
async fn siblings_are_put_in_order_and_a_subtree_keeps_within_the_depth() {
    let test = TestNode::start().await;
    let (admin, viewer) = (test.admin().await, test.user("vic", Role::Viewer).await);
    let mut made = Vec::new();
    for name in ["A", "B", "C"] {
        made.push(category(&admin, name, None).await);
    }
    let child = category(&admin, "Child", Some(&made[0])).await;
    let path = "/api/v1/categories/reorder";
    let order =
        |rows: &[&Json]| json!({ "ids": rows.iter().map(|r| &r["id"]).collect::<Vec<_>>() });
    let wanted = order(&[&made[2], &made[0], &made[1]]);
    viewer.post(path, &wanted).await.refused(403, "denied");
    let ordered = admin.post(path, &wanted).await.expect(200).json();
    assert_eq!(all(&ordered["data"], "name"), ["C", "A", "B"]);
    let tree = admin.get("/api/v1/categories?tree=true").await.expect(200).data();
    assert_eq!(all(&tree, "name"), ["C", "A", "B"]);
    for (wrong, code) in [
        (order(&[&made[0], &child]), "not_siblings"),
        (order(&[&made[0], &made[0]]), "repeated"),
        (json!({ "ids": [test.admin.to_string()] }), "unknown_reference"),
        (json!({ "ids": [] }), "out_of_range"),
    ] {
        let answer = admin.post(path, &wrong).await.expect(422);
        assert_eq!(text(&answer.json()["errors"][0], "code"), code);
    }
    let mut deep = made[1].clone();
    for depth in 0..18 {
        deep = category(&admin, &format!("D{depth}"), Some(&deep)).await;
    }
    let moved = json!({ "parent_id": deep["id"] });
    let answer = admin.put(&at("categories", &made[0], ""), &moved).await.expect(422);
    assert_eq!(text(&answer.json()["errors"][0], "code"), "too_deep");
    let _ = admin.put(&at("categories", &child, ""), &moved).await.expect(200);
}

#[tokio::test]
async fn two_categories_become_one_and_each_tells_how_many_posts_it_has() {
    let test = TestNode::start().await;
    let (admin, editor) = (test.admin().await, test.user("eve", Role::Editor).await);
    let (old, new) = (category(&admin, "Old", None).await, category(&admin, "New", None).await);
    let child = category(&admin, "Child", Some(&old)).await;
    for i in 0..3 {
        let post = json!({ "title": format!("Post {i}"), "category_id": old["id"] });
        let post = make(&editor, post).await;
        if i > 0 {
            let _ = editor.post(&at("posts", &post, "/publish"), &json!({})).await.expect(200);
        }
    }
    let count = async |category: &Json| {
        admin.get(&at("categories", category, "")).await.expect(200).data()["post_count"].clone()
    };
    assert_eq!((count(&old).await, count(&new).await), (json!(2), json!(0)));
    let list = admin.get("/api/v1/categories?sort=name").await.expect(200).data();
    let counts: Vec<_> = list.as_array().unwrap().iter().map(|c| c["post_count"].clone()).collect();
    assert_eq!(counts, [json!(0), json!(0), json!(2)]);
    let tree = admin.get("/api/v1/categories?tree=true").await.expect(200).data();
    assert_eq!(tree[1]["post_count"], 2);
    let merge = at("categories", &old, "/merge");
    editor.post(&merge, &json!({ "into": "new" })).await.refused(403, "denied");
    for wrong in ["nowhere", "old", "child"] {
        let answer = admin.post(&merge, &json!({ "into": wrong })).await.expect(422);
        assert_eq!(text(&answer.json()["errors"][0], "field"), "into");
    }
    let merged = admin.post(&merge, &json!({ "into": "new" })).await.expect(200).data();
    assert_eq!((&merged["id"], &merged["post_count"]), (&new["id"], &json!(2)));
    admin.get(&at("categories", &old, "")).await.refused(404, "not_found");
    let child = admin.get(&at("categories", &child, "")).await.expect(200).data();
    assert_eq!(child["parent_id"], new["id"]);
}

#[tokio::test]
async fn two_tags_become_one_and_suggestions_come_by_their_use() {
    let test = TestNode::start().await;
    let (admin, editor) = (test.admin().await, test.user("eve", Role::Editor).await);
    let mut tags = Vec::new();
    for name in ["Rust", "Rüstung", "Ruby"] {
        tags.push(editor.post("/api/v1/tags", &json!({ "name": name })).await.expect(201).data());
    }
    for carried in [vec![0, 2], vec![2], vec![1]] {
        let ids: Vec<&Json> = carried.iter().map(|i: &usize| &tags[*i]["id"]).collect();
        let post = make(&editor, json!({ "title": "Tagged", "tag_ids": ids })).await;
        let _ = editor.post(&at("posts", &post, "/publish"), &json!({})).await.expect(200);
    }
    let suggested = async |q: &str| {
        let found = test.stranger().get(&format!("/api/v1/tags/suggestions?q={q}")).await;
        all(&found.expect(200).json()["data"], "name")
    };
    assert_eq!(suggested("ru").await, ["Ruby", "Rust", "Rüstung"]);
    assert_eq!(suggested("R%C3%BCs").await, ["Rust", "Rüstung"]);
    assert_eq!(suggested("x").await, [""; 0]);
    assert_eq!(suggested("").await, [""; 0]);
    let merge = at("tags", &tags[0], "/merge");
    editor.post(&merge, &json!({ "into": "ruby" })).await.refused(403, "denied");
    let _ = admin.post(&merge, &json!({ "into": "rust" })).await.expect(422);
    let _ = admin.post(&merge, &json!({ "into": "none" })).await.expect(422);
    let merged = admin.post(&merge, &json!({ "into": "ruby" })).await.expect(200).data();
    assert_eq!((text(&merged, "slug"), &merged["post_count"]), ("ruby", &json!(2)));
    admin.get(&at("tags", &tags[0], "")).await.refused(404, "not_found");
    assert_eq!(test.stranger().get("/api/v1/posts?tag=ruby").await.json()["page"]["total"], 2);
}

#[tokio::test]
async fn a_filter_takes_in_all_that_lies_under_a_category_however_many() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let top = category(&admin, "Top", None).await;
    let mut last = Json::Null;
    for number in 0..103 {
        last = category(&admin, &format!("Below {number}"), Some(&top)).await;
    }
    let last = category(&admin, "Deep", Some(&last)).await;
    make(&admin, json!({ "title": "Far down", "category_id": last["id"] })).await;
    let page = admin.get("/api/v1/posts?category=top").await.expect(200).json();
    assert_eq!(all(&page["data"], "title"), ["Far down"]);
}

#[tokio::test]
async fn a_category_that_waits_is_embedded_for_those_alone_who_see_it() {
    let test = TestNode::start().await;
    let (admin, eve) = (test.admin().await, test.user("eve", Role::Editor).await);
    let vic = test.user("vic", Role::Viewer).await;
    let secret = json!({ "name": "Not yet" });
    let category = eve.post("/api/v1/categories", &secret).await.expect(201).data();
    let post = json!({ "title": "One", "body": "x", "category_id": category["id"] });
    let post = eve.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}", post["id"].as_str().unwrap());
    eve.post(&format!("{path}/publish"), &json!({})).await.expect(200);
    let embedded = async |client: &Client| {
        let one = client.get(&format!("{path}?expand=category")).await.expect(200).data();
        let all = client.get("/api/v1/posts?expand=category").await.expect(200).data();
        assert_eq!(one["category"], all[0]["category"]);
        one["category"]["name"].clone()
    };
    for client in [&test.stranger(), &vic] {
        assert_eq!(embedded(client).await, Json::Null);
    }
    assert_eq!(embedded(&eve).await, "Not yet");
    let approve = format!("/api/v1/categories/{}/approve", category["id"].as_str().unwrap());
    admin.post(&approve, &json!({})).await.expect(200);
    assert_eq!(embedded(&test.stranger()).await, "Not yet");
}
