use super::{all, at, draft, make, text};
use atoll_node::Role;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

async fn publish(client: &Client, post: &Json) {
    let _ = client.post(&at("posts", post, "/publish"), &json!({})).await.expect(200);
}

async fn titles(client: &Client, query: &str) -> Vec<String> {
    let list = client.get(&format!("/api/v1/posts?{query}")).await.expect(200).json();
    assert_eq!(list["page"]["total"], list["data"].as_array().map_or(0, Vec::len));
    let mut titles = all(&list["data"], "title");
    titles.sort();
    titles
}

#[tokio::test]
async fn each_author_of_a_post_may_change_it() {
    let test = TestNode::start().await;
    let eve = test.user("eve", Role::Editor).await;
    let ed_id = test.make_user(test.tenant, "edd", Role::Editor).await;
    let vic_id = test.make_user(test.tenant, "vic", Role::Viewer).await;
    let sign_in =
        async |name: &str| test.stranger().login(name, atoll_tests::harness::PASSWORD).await;
    let (ed, vic) = (sign_in("edd").await, sign_in("vic").await);
    let authors = json!([ed_id.to_string(), vic_id.to_string()]);
    let post = make(&eve, json!({ "title": "Ours", "author_ids": authors })).await;
    let path = at("posts", &post, "");
    assert_eq!(
        text(&ed.put(&path, &json!({ "title": "Ours, by ed" })).await.expect(200).data(), "title"),
        "Ours, by ed"
    );
    let _ = vic.get(&path).await.expect(200);
    let _ = vic.put(&path, &json!({ "excerpt": "By vic." })).await.expect(200);
    let _ = vic.get(&format!("{path}/versions")).await.expect(200);
    for (client, name) in [(&eve, "eve"), (&ed, "edd"), (&vic, "vic")] {
        assert_eq!(titles(client, "author=me").await, ["Ours, by ed"], "{name}");
        assert_eq!(titles(&eve, &format!("author={name}")).await, ["Ours, by ed"]);
    }
    let expanded = eve.get(&format!("{path}?expand=author,author_ids")).await.expect(200).data();
    let mut names = all(&expanded["authors"], "username");
    names.sort();
    assert_eq!(
        (text(&expanded["author"], "username"), names),
        ("eve", vec!["edd".into(), "vic".into()])
    );
    let left = json!({ "author_ids": [ed_id.to_string()] });
    let _ = eve.put(&path, &left).await.expect(200);
    vic.get(&path).await.refused(404, "not_found");
    let unknown = json!({ "author_ids": ["0190b8e0-0000-7000-8000-000000000000"] });
    let answer = eve.put(&path, &unknown).await.expect(422);
    assert_eq!(text(&answer.json()["errors"][0], "field"), "author_ids");
}

#[tokio::test]
async fn a_post_for_roles_is_shown_to_them_alone_also_in_lists() {
    let test = TestNode::start().await;
    let eve = test.user("eve", Role::Editor).await;
    let (vic, mod_) =
        (test.user("vic", Role::Viewer).await, test.user("moe", Role::Moderator).await);
    let nobody = json!({ "title": "Nobody", "visibility": "role" });
    let answer = eve.post("/api/v1/posts", &nobody).await.expect(422);
    assert_eq!(text(&answer.json()["errors"][0], "field"), "visible_to_roles");
    let wrong = json!({ "title": "Wrong", "visible_to_roles": ["king"] });
    let answer = eve.post("/api/v1/posts", &wrong).await.expect(422);
    assert_eq!(text(&answer.json()["errors"][0], "code"), "unknown_choice");
    let mut posts = Vec::new();
    for (title, visibility, roles) in [
        ("All", "public", json!([])),
        ("Members", "members", json!([])),
        ("Moderators", "role", json!(["moderator"])),
        ("Viewers", "role", json!(["viewer"])),
        ("Private", "private", json!([])),
    ] {
        let new = json!({ "title": title, "visibility": visibility, "visible_to_roles": roles });
        let post = make(&eve, new).await;
        publish(&eve, &post).await;
        posts.push(post);
    }
    let stranger = test.stranger();
    for (client, seen) in [
        (&stranger, vec!["All"]),
        (&vic, vec!["All", "Members", "Viewers"]),
        (&mod_, vec!["All", "Members", "Moderators"]),
        (&eve, vec!["All", "Members", "Moderators", "Private", "Viewers"]),
    ] {
        assert_eq!(titles(client, "").await, seen);
        for post in &posts {
            let is_seen = seen.contains(&text(post, "title"));
            let status = client.get(&at("posts", post, "")).await.status;
            assert_eq!(status, if is_seen { 200 } else { 404 }, "{post}");
        }
    }
    let path = at("posts", &posts[3], "");
    let answer = eve.put(&path, &json!({ "visible_to_roles": [] })).await.expect(422);
    assert_eq!(text(&answer.json()["errors"][0], "code"), "required");
    let _ = eve.put(&path, &json!({ "visible_to_roles": ["moderator"] })).await.expect(200);
    vic.get(&path).await.refused(404, "not_found");
}

#[tokio::test]
async fn readers_see_the_pinned_first_with_excerpts_that_follow_the_body() {
    let test = TestNode::start().await;
    let eve = test.user("eve", Role::Editor).await;
    let pinned =
        make(&eve, json!({ "title": "Pinned", "pinned": true, "body": "# H\n\nFirst words." }))
            .await;
    publish(&eve, &pinned).await;
    let late =
        make(&eve, json!({ "title": "Late", "body": "word ".repeat(300), "excerpt": "Written." }))
            .await;
    publish(&eve, &late).await;
    let stranger = test.stranger();
    let list = async |query: &str| {
        stranger.get(&format!("/api/v1/posts{query}")).await.expect(200).json()["data"].take()
    };
    let first = list("").await;
    assert_eq!(all(&first, "title"), ["Pinned", "Late"]);
    assert_eq!(all(&first, "excerpt"), ["First words.", "Written."]);
    assert_eq!(
        (&first[0]["reading_minutes"], &first[1]["reading_minutes"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(all(&list("?sort=-published_at").await, "title"), ["Late", "Pinned"]);
    let body = json!({ "body": "Other words. ".repeat(200) });
    let _ = eve.put(&at("posts", &pinned, ""), &body).await.expect(200);
    let after = list("?pinned=true&fields=excerpt,reading_minutes").await;
    assert!(text(&after[0], "excerpt").starts_with("Other words."), "{after}");
    assert_eq!((&after[0]["reading_minutes"], after[0].get("title")), (&json!(2), None));
    let one = stranger.get(&at("posts", &pinned, "")).await.expect(200).data();
    assert_eq!((&one["reading_minutes"], &one["excerpt"]), (&json!(2), &Json::Null));
}

#[tokio::test]
async fn counts_stand_beside_posts_when_they_are_asked_for() {
    let test = TestNode::start().await;
    let (eve, vic) = (test.user("eve", Role::Editor).await, test.user("vic", Role::Viewer).await);
    let (one, two) = (draft(&eve, "One").await, draft(&eve, "Two").await);
    publish(&eve, &one).await;
    publish(&eve, &two).await;
    for client in [&eve, &vic] {
        let comment = json!({ "post_id": one["id"], "text": "Well said." });
        let _ = client.post("/api/v1/comments", &comment).await.expect(201);
    }
    let hit = atoll_node::insight::Hit {
        post: atoll_storage::Id::parse(text(&one, "id")).unwrap(),
        visitor: [1; 32],
    };
    let stranger = atoll_node::Actor::stranger(test.tenant);
    atoll_node::insight::track(&test.node, &stranger, vec![hit.clone(), hit]).await.unwrap();
    let list = vic.get("/api/v1/posts?sort=title&expand=counts&fields=title").await.expect(200);
    let list = list.json()["data"].take();
    let counts =
        |post: &Json| ["view_count", "like_count", "comment_count"].map(|name| post[name].as_u64());
    assert_eq!(counts(&list[0]), [Some(2), Some(0), Some(1)], "the second comment waits");
    assert_eq!(counts(&list[1]), [Some(0); 3]);
    let whole = vic.get(&at("posts", &one, "?expand=counts")).await.expect(200).data();
    assert_eq!(counts(&whole), [Some(2), Some(0), Some(1)]);
    assert_eq!(counts(&vic.get(&at("posts", &one, "")).await.expect(200).data()), [None; 3]);
    vic.get("/api/v1/posts?expand=colours").await.refused(400, "unknown_field");
}

#[tokio::test]
async fn a_rendered_post_comes_with_what_search_engines_are_told() {
    let test = TestNode::start_with(|config| {
        config.public_url = "https://example.org".to_owned();
        config.posts.path = "/read/{slug}".to_owned();
    })
    .await;
    let eve = test.user("eve", Role::Editor).await;
    let new = json!({ "title": "Bees", "body": "They hum.", "cover": "/media/7", "meta_title": "All bees" });
    let post = make(&eve, new).await;
    let seo = async || {
        eve.get(&at("posts", &post, "?render=true")).await.expect(200).data()["seo"].take()
    };
    assert_eq!(text(&seo().await, "robots"), "noindex, nofollow");
    publish(&eve, &post).await;
    let told = seo().await;
    assert_eq!((text(&told, "title"), text(&told, "description")), ("All bees", "They hum."));
    assert_eq!(text(&told, "canonical"), "https://example.org/read/bees");
    assert_eq!(text(&told, "robots"), "index, follow");
    assert_eq!(told["open_graph"]["og:image"], "https://example.org/media/7");
    assert_eq!(told["json_ld"]["@type"], "BlogPosting");
    assert_eq!(told["json_ld"]["author"][0]["name"], "eve");
    let more = json!({ "canonical_url": "https://other.org/bees", "noindex": true });
    let _ = eve.put(&at("posts", &post, ""), &more).await.expect(200);
    let told = seo().await;
    assert_eq!(text(&told, "canonical"), "https://other.org/bees");
    assert_eq!(text(&told, "robots"), "noindex, nofollow");
}

#[tokio::test]
async fn a_route_takes_as_large_a_body_as_it_says() {
    let test = TestNode::start().await;
    let eve = test.user("eve", Role::Editor).await;
    let rows: Vec<Json> = (0..4)
        .map(|i| json!({ "title": format!("Long {i}"), "body": "x ".repeat(400_000) }))
        .collect();
    let answer = eve.post("/api/v1/posts/batch", &json!(rows)).await.expect(200).json();
    assert_eq!(answer["done"], 4);
    let large = json!({ "name": "x".repeat(3 << 20) });
    eve.post("/api/v1/tags", &large).await.refused(413, "body_too_large");
}
