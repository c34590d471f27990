//! The site as people read it: pages over HTTP, what they hold, and what must never get into them.

use atoll_node::Role;
use atoll_node::identity::tenant::{COLOURS, LOCALE, LOGO_URL, TENANT};
use atoll_storage::Changes;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};

async fn published(client: &Client, post: Json) -> Json {
    let post = client.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}/publish", id(&post));
    client.post(&path, &json!({})).await.expect(200).data()
}

fn id(record: &Json) -> &str {
    record["id"].as_str().expect("an id")
}

/// What stands between the element's tags, the first time.
fn inside<'a>(page: &'a str, element: &str) -> &'a str {
    let from = page.find(&format!("<{element}")).unwrap_or_else(|| panic!("{element}: {page}"));
    let from = from + page[from..].find('>').expect("the tag ends") + 1;
    &page[from..from + page[from..].find(&format!("</{element}>")).expect("the element ends")]
}

#[tokio::test]
async fn a_post_has_a_page_with_all_that_readers_and_machines_look_for() {
    let test = TestNode::start().await;
    let (admin, stranger) = (test.admin().await, test.stranger());
    let eve = test.user("eve", Role::Editor).await;
    let tag = admin.post("/api/v1/tags", &json!({ "name": "Rust" })).await.expect(201).data();
    let guides =
        admin.post("/api/v1/categories", &json!({ "name": "Guides" })).await.expect(201).data();
    let approve = format!("/api/v1/categories/{}/approve", id(&guides));
    admin.post(&approve, &json!({})).await.expect(200);
    let new = json!({
        "title": "Keeping bees", "body": "A **hive** wants [a dry place](/places).", "cover": "/media/1",
        "tag_ids": [tag["id"]], "category_id": guides["id"],
    });
    let post = published(&eve, new).await;
    let answer = stranger.get("/posts/keeping-bees?utm_source=feed").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = answer.text();
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"), "{page}");
    assert!(inside(&page, "title").starts_with("Keeping bees · "), "{page}");
    assert_eq!(inside(&page, "h1"), "Keeping bees");
    let base = format!("http://{}", test.address);
    for part in [
        "<strong>hive</strong>",
        "<img class=\"cover\" src=\"/media/1\" alt=\"\">",
        &format!("<link rel=\"canonical\" href=\"{base}/posts/keeping-bees\">"),
        "<meta property=\"og:title\" content=\"Keeping bees\">",
        &format!("<meta property=\"og:image\" content=\"{base}/media/1\">"),
        "<meta property=\"article:author\" content=\"eve\">",
        "<meta name=\"robots\" content=\"index, follow\">",
        "type=\"application/rss+xml\"",
        "<a href=\"/tags/rust\">Rust</a>",
        "<a href=\"/categories/guides\">Guides</a>",
        "<a href=\"/authors/eve\">eve</a>",
        &format!("data-post=\"{}\"", id(&post)),
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let told: Json = serde_json::from_str(inside(&page, "script")).expect("JSON-LD");
    assert_eq!(
        (&told["@type"], &told["headline"]),
        (&json!("BlogPosting"), &json!("Keeping bees"))
    );
    let again = [("if-none-match", answer.header("etag").unwrap())];
    assert_eq!(
        stranger.send("GET", "/posts/keeping-bees?utm_source=feed", &again, b"").await.status,
        304
    );

    let by_id = stranger.get(&format!("/posts/{}", id(&post))).await.expect(301);
    assert_eq!(by_id.header("location"), Some("/posts/keeping-bees"));
    let path = format!("/api/v1/posts/{}", id(&post));
    eve.put(&path, &json!({ "slug": "of-bees" })).await.expect(200);
    let old = stranger.get("/posts/keeping-bees").await.expect(301);
    assert_eq!(old.header("location"), Some("/posts/of-bees"));
    for path in ["/", "/tags/rust", "/categories/guides", "/authors/eve"] {
        let page = stranger.get(path).await.expect(200).text();
        assert!(page.contains("<a href=\"/posts/of-bees\">Keeping bees</a>"), "{path}: {page}");
    }
    let style = stranger.get("/page.css").await.expect(200);
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    stranger.get("/view.js").await.expect(200);
}

#[tokio::test]
async fn a_page_shows_what_its_reader_may_see_and_nothing_else() {
    let test = TestNode::start().await;
    let (eve, vic) = (test.user("eve", Role::Editor).await, test.user("vic", Role::Viewer).await);
    let stranger = test.stranger();
    eve.post("/api/v1/posts", &json!({ "title": "A draft" })).await.expect(201);
    published(&eve, json!({ "title": "For members", "visibility": "members" })).await;
    let gone = published(&eve, json!({ "title": "Gone" })).await;
    stranger.get("/posts/gone").await.expect(200);
    eve.delete(&format!("/api/v1/posts/{}", id(&gone))).await.expect(204);
    for path in [
        "/posts/a-draft",
        "/posts/for-members",
        "/posts/gone",
        "/posts/nothing",
        "/tags/x",
        "/authors/vic",
    ] {
        let page = stranger.get(path).await.expect(404);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        assert!(page.text().contains("There is nothing here"), "{path}");
    }
    let seen = vic.get("/posts/for-members").await.expect(200);
    assert_eq!(seen.header("cache-control"), Some("private, no-cache"));
    for (client, is_member) in [(&stranger, false), (&vic, true), (&eve, true)] {
        let page = client.get("/").await.expect(200).text();
        assert!(!page.contains("draft") && !page.contains("Gone"));
        assert_eq!(page.contains("For members"), is_member, "{page}");
    }
    let draft = eve.get("/posts/a-draft").await.expect(200).text();
    assert!(draft.contains("noindex, nofollow") && !draft.contains("view.js"), "{draft}");
    // A path that is no route tells people so in a page, and programs in a problem.
    stranger.get("/nowhere").await.refused(404, "no_such_route");
    let page = stranger.send("GET", "/nowhere", &[("accept", "text/html")], b"").await.expect(404);
    assert!(page.text().contains("There is nothing here"));
    stranger
        .send("GET", "/api/v1/x", &[("accept", "text/html")], b"")
        .await
        .refused(404, "no_such_route");
}

#[tokio::test]
async fn no_text_that_somebody_wrote_becomes_markup() {
    const HOSTILE: &str = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let short = "</title><script>x</script>\"'><img src=x onerror=x>";
    let tag = json!({ "name": short, "slug": "tag", "description": HOSTILE });
    let tag = admin.post("/api/v1/tags", &tag).await.expect(201).data();
    let category = json!({ "name": HOSTILE, "slug": "category", "description": HOSTILE });
    let category = admin.post("/api/v1/categories", &category).await.expect(201).data();
    let approve = format!("/api/v1/categories/{}/approve", id(&category));
    admin.post(&approve, &json!({})).await.expect(200);
    let profile = json!({ "display_name": short, "bio": HOSTILE });
    admin.put("/api/v1/users/profile", &profile).await.expect(200);
    let post = json!({
        "title": HOSTILE, "slug": "post", "body": HOSTILE, "excerpt": HOSTILE, "meta_title": HOSTILE,
        "meta_description": HOSTILE, "tag_ids": [tag["id"]], "category_id": category["id"],
        "cover": "https://a.org/\"onerror=\"alert(1)",
    });
    let post = published(&admin, post).await;
    let said = json!({ "post_id": post["id"], "text": HOSTILE });
    admin.post("/api/v1/comments", &said).await.expect(201);
    let me = admin.get("/api/v1/auth/me").await.expect(200).data();
    let author = format!(
        "/authors/{}",
        me["username"].as_str().or(me["user"]["username"].as_str()).unwrap()
    );
    for path in ["/", "/posts/post", "/tags/tag", "/categories/category", author.as_str()] {
        let page = test.stranger().get(path).await.expect(200).text();
        assert!(page.contains("&lt;script&gt;"), "{path}: {page}");
        for bad in ["<script>", "<img src=x", "onerror=\"", "</title><"] {
            assert!(!page.contains(bad), "{bad} on {path}: {page}");
        }
        let scripts = page.matches("<script").count();
        let ours = page.matches("<script type=\"application/ld+json\">").count()
            + page.matches("<script src=\"/view.js\" defer=\"\">").count();
        assert_eq!(scripts, ours, "{path}: {page}");
    }
}

#[tokio::test]
async fn a_site_has_its_tenants_name_logo_colours_and_language() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    published(&admin, json!({ "title": "Here" })).await;
    let new = json!({
        "name": "North Campus", "slug": "north", "domain": "north.example",
        "admin": { "email": "n@example.org", "username": "norah", "password": "a long enough password" },
    });
    let north = admin.post("/api/v1/tenants", &new).await.expect(201).data();
    let key = north["id"].as_str().or(north["tenant"]["id"].as_str()).unwrap();
    let key = atoll_storage::Id::parse(key).unwrap();
    let look =
        Changes::new().set(&COLOURS, "#7a1f5c").set(&LOGO_URL, "/logo.svg").set(&LOCALE, "de");
    test.node.store.write(move |tx| tx.edit(&TENANT, key, look)).await.unwrap();
    let host = [("host", "north.example")];
    let page = test.stranger().send("GET", "/", &host, b"").await.expect(200).text();
    assert!(page.contains("<html lang=\"de\">") && page.contains("North Campus"), "{page}");
    assert!(page.contains("<img src=\"/logo.svg\" alt=\"\">") && !page.contains("Here"), "{page}");
    let style = test.stranger().send("GET", "/page.css", &host, b"").await.expect(200).text();
    assert!(style.contains("--brand:#7a1f5c"), "{style}");
    test.stranger().send("GET", "/posts/here", &host, b"").await.expect(404);
}

#[tokio::test]
async fn a_list_goes_on_and_what_was_said_stands_under_a_post() {
    let test = TestNode::start().await;
    let (admin, vic) = (test.admin().await, test.user("vic", Role::Viewer).await);
    for i in 0..17 {
        published(&admin, json!({ "title": format!("Post {i}"), "slug": format!("p{i}") })).await;
    }
    let stranger = test.stranger();
    let first = stranger.get("/").await.expect(200).text();
    assert_eq!(first.matches("<h2").count(), 15);
    let older =
        first.split("<link rel=\"next\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let second = stranger.get(older).await.expect(200).text();
    assert_eq!(second.matches("<h2").count(), 2);
    assert!(second.contains("noindex, follow") && !second.contains("rel=\"next\""), "{second}");
    stranger.get("/?cursor=nonsense").await.expect(404);
    test.node.feed_search().unwrap();
    let found = stranger.get("/search?q=post+%3Cb%3E").await.expect(200).text();
    assert!(found.contains("value=\"post &lt;b&gt;\""), "{found}");
    let found = stranger.get("/search?q=7").await.expect(200).text();
    assert!(
        found.contains("One post was found.") && found.contains("href=\"/posts/p7\""),
        "{found}"
    );
    stranger.get("/search").await.expect(200);

    let post = stranger.get("/api/v1/posts/p0").await.expect(200).data();
    let say = async |client: &Client, text: &str, parent: Json| {
        let said = json!({ "post_id": post["id"], "text": text, "parent_id": parent });
        client.post("/api/v1/comments", &said).await.expect(201).data()
    };
    let asked = say(&admin, "How?", Json::Null).await;
    say(&admin, "So.", asked["id"].clone()).await;
    say(&vic, "This waits", Json::Null).await;
    let page = stranger.get("/posts/p0").await.expect(200).text();
    assert!(page.contains("2 comments") && !page.contains("This waits"), "{page}");
    let (asked, answered) = (page.find("How?").unwrap(), page.find("So.").unwrap());
    assert!(page[asked..answered].contains("<ol>"), "the answer stands under it: {page}");
}
