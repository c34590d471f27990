//! Feeds, sitemaps and robots.txt, read by an XML parser as others would.

use atoll_node::Role;
use atoll_node::content::feed;
use atoll_tests::{Client, TestNode};
use quick_xml::Reader;
use quick_xml::escape::{resolve_xml_entity, unescape};
use quick_xml::events::{BytesRef, Event};
use serde_json::{Value as Json, json};

/// One element: the names on the way to it, its attributes, the text right in it.
struct Element {
    path: String,
    attributes: Vec<(String, String)>,
    text: String,
}

/// All elements of a document, in the order of their ends. Panics if it is not well formed.
fn parsed(document: &str) -> Vec<Element> {
    let mut reader = Reader::from_str(document);
    let (mut open, mut done): (Vec<Element>, Vec<Element>) = (vec![], vec![]);
    loop {
        let event = reader.read_event().unwrap_or_else(|error| panic!("{error}: {document}"));
        let begun = match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                let above = open.last().map_or(String::new(), |e: &Element| format!("{}/", e.path));
                let attribute = |found: quick_xml::events::attributes::Attribute| {
                    let value = String::from_utf8(found.value.to_vec()).unwrap();
                    let name = String::from_utf8(found.key.as_ref().to_vec()).unwrap();
                    (name, unescape(&value).unwrap().into_owned())
                };
                let attributes = tag.attributes().map(|found| attribute(found.unwrap())).collect();
                Some(Element { path: format!("{above}{name}"), attributes, text: String::new() })
            }
            _ => None,
        };
        match event {
            Event::Start(_) => open.extend(begun),
            Event::Empty(_) => done.extend(begun),
            Event::End(_) => done.extend(open.pop()),
            Event::Text(text) => add(&mut open, &text.decode().unwrap()),
            Event::GeneralRef(reference) => add(&mut open, &resolved(&reference)),
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(open.is_empty() && !done.is_empty(), "{document}");
    done
}

fn add(open: &mut [Element], text: &str) {
    if let Some(last) = open.last_mut() {
        last.text.push_str(text);
    }
}

fn resolved(reference: &BytesRef<'_>) -> String {
    if let Some(c) = reference.resolve_char_ref().unwrap() {
        return c.to_string();
    }
    resolve_xml_entity(&reference.decode().unwrap()).expect("a known entity").to_owned()
}

fn texts<'a>(elements: &'a [Element], path: &str) -> Vec<&'a str> {
    elements.iter().filter(|e| e.path == path).map(|e| e.text.as_str()).collect()
}

fn attribute<'a>(elements: &'a [Element], path: &str, name: &str) -> Vec<&'a str> {
    let of = elements.iter().filter(|e| e.path == path).flat_map(|e| &e.attributes);
    of.filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

async fn published(client: &Client, post: Json) -> Json {
    let post = client.post("/api/v1/posts", &post).await.expect(201).data();
    let path = format!("/api/v1/posts/{}/publish", post["id"].as_str().unwrap());
    client.post(&path, &json!({})).await.expect(200).data()
}

const HARD: &str = "Tom & Jerry <b>\"quoted\"</b> ]]> \u{8}\u{1b}\u{fffe}é 🐕";
const SHOWN: &str = "Tom & Jerry <b>\"quoted\"</b> ]]> é 🐕";

#[tokio::test]
async fn the_three_forms_tell_the_same_posts_and_hold_any_text() {
    let test = TestNode::start().await;
    let editor = test.user("eve", Role::Editor).await;
    let body = "A *text* with [a link](/there) & <script>alert(1)</script>\u{7}.";
    let new = json!({ "title": HARD, "slug": "hard", "body": body, "cover": "/media/1" });
    let post = published(&editor, new).await;
    let _ = editor.post("/api/v1/posts", &json!({ "title": "A draft" })).await.expect(201);
    published(&editor, json!({ "title": "For members", "visibility": "members" })).await;
    let stranger = test.stranger();
    let base = format!("http://{}", test.address);
    let id = format!("urn:uuid:{}", post["id"].as_str().unwrap());
    let url = format!("{base}/posts/hard");

    let rss = stranger.get("/feed.xml").await.expect(200);
    assert_eq!(rss.header("content-type"), Some("application/rss+xml; charset=utf-8"));
    let rss = parsed(&rss.text());
    assert_eq!(texts(&rss, "rss/channel/item/title"), [SHOWN]);
    assert_eq!(texts(&rss, "rss/channel/item/guid"), [id.as_str()]);
    assert_eq!(texts(&rss, "rss/channel/item/link"), [url.as_str()]);
    assert_eq!(texts(&rss, "rss/channel/item/dc:creator"), ["eve"]);
    let html = texts(&rss, "rss/channel/item/content:encoded")[0].to_owned();
    assert!(html.contains(&format!("href=\"{base}/there\"")), "{html}");
    assert!(html.contains("<em>text</em>") && !html.contains("<script"), "{html}");
    assert_eq!(attribute(&rss, "rss/channel/atom:link", "href"), [format!("{base}/feed.xml")]);

    let atom = parsed(&stranger.get("/atom.xml").await.expect(200).text());
    assert_eq!(texts(&atom, "feed/entry/title"), [SHOWN]);
    assert_eq!(texts(&atom, "feed/entry/id"), [id.as_str()]);
    assert_eq!(texts(&atom, "feed/entry/content"), [html.as_str()]);
    assert_eq!(attribute(&atom, "feed/entry/link", "href"), [url.as_str()]);
    assert_eq!(texts(&atom, "feed/entry/author/name"), ["eve"]);
    assert_eq!(texts(&atom, "feed/updated").len(), 1);

    let answer = stranger.get("/feed.json").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/feed+json; charset=utf-8"));
    let feed = answer.json();
    assert_eq!(feed["version"], "https://jsonfeed.org/version/1.1");
    assert_eq!(
        (feed["items"].as_array().map(Vec::len), &feed["items"][0]["id"]),
        (Some(1), &json!(id))
    );
    assert_eq!(feed["items"][0]["content_html"], html.as_str());
    assert_eq!(feed["items"][0]["image"], format!("{base}/media/1"));
}

#[tokio::test]
async fn a_feed_that_did_not_change_is_not_sent_again() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    published(&admin, json!({ "title": "One", "body": "x" })).await;
    let stranger = test.stranger();
    for path in ["/feed.xml", "/atom.xml", "/feed.json", "/sitemap.xml"] {
        let first = stranger.get(path).await.expect(200);
        let (tag, modified) =
            (first.header("etag").unwrap(), first.header("last-modified").unwrap());
        assert!(modified.ends_with(" GMT"), "{modified}");
        assert_eq!(first.header("cache-control"), Some("public, max-age=300"));
        for headers in [[("if-none-match", tag)], [("if-modified-since", modified)]] {
            let again = stranger.send("GET", path, &headers, b"").await;
            assert_eq!((again.status, again.body.len()), (304, 0), "{path} {headers:?}");
        }
        let other = [("if-none-match", "\"x\""), ("if-modified-since", modified)];
        assert_eq!(stranger.send("GET", path, &other, b"").await.status, 200, "the tag counts");
    }
    published(&admin, json!({ "title": "Two", "body": "y" })).await;
    let feed = stranger.get("/feed.json").await.expect(200).json();
    assert_eq!(feed["items"].as_array().map(Vec::len), Some(2), "a commit ends what was kept");
}

#[tokio::test]
async fn tags_categories_and_authors_have_feeds_of_their_own() {
    let test = TestNode::start().await;
    let (admin, editor) = (test.admin().await, test.user("eve", Role::Editor).await);
    let tag = admin.post("/api/v1/tags", &json!({ "name": "Rust" })).await.expect(201).data();
    let made = admin.post("/api/v1/categories", &json!({ "name": "Guides" })).await.expect(201);
    let guides = made.data();
    let below = json!({ "name": "First steps", "parent_id": guides["id"] });
    let below = admin.post("/api/v1/categories", &below).await.expect(201).data();
    let new = json!({ "title": "Tagged", "tag_ids": [tag["id"]], "category_id": below["id"] });
    published(&admin, new).await;
    let co = json!({ "title": "Together", "author_ids": [test.admin.to_string()] });
    published(&editor, co).await;
    let stranger = test.stranger();
    stranger.get("/categories/guides/feed.xml").await.refused(404, "not_found");
    let approve = format!("/api/v1/categories/{}/approve", guides["id"].as_str().unwrap());
    let _ = admin.post(&approve, &json!({})).await.expect(200);
    let titles = async |path: &str| {
        let feed = stranger.get(&format!("{path}/feed.json")).await.expect(200).json();
        let items = feed["items"].as_array().cloned().unwrap_or_default();
        let atom = parsed(&stranger.get(&format!("{path}/atom.xml")).await.expect(200).text());
        let rss = parsed(&stranger.get(&format!("{path}/feed.xml")).await.expect(200).text());
        assert_eq!(texts(&atom, "feed/entry/title"), texts(&rss, "rss/channel/item/title"));
        let title = |item: &Json| item["title"].as_str().unwrap().to_owned();
        let mut titles: Vec<String> = items.iter().map(title).collect();
        titles.sort();
        titles
    };
    assert_eq!(titles("/tags/rust").await, ["Tagged"]);
    assert_eq!(titles("/categories/guides").await, ["Tagged"]);
    assert_eq!(titles("/authors/eve").await, ["Together"]);
    assert_eq!(titles("/authors/admin").await, ["Tagged", "Together"]);
    // As his page, so his feeds: nobody who has published nothing is told of.
    test.user("vic", Role::Viewer).await;
    for path in
        ["/authors/vic", "/authors/vic/feed.xml", "/authors/vic/atom.xml", "/authors/vic/feed.json"]
    {
        assert_eq!(test.stranger().get(path).await.status, 404, "{path}");
    }
    for path in ["/tags/none/feed.xml", "/authors/none/atom.xml", "/categories/x/feed.json"] {
        stranger.get(path).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_feed_is_of_one_tenant() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    published(&admin, json!({ "title": "Here" })).await;
    let new = json!({
        "name": "North", "slug": "north",
        "admin": { "email": "n@example.org", "username": "norah", "password": "a long enough password" },
    });
    let _ = admin.post("/api/v1/tenants", &new).await.expect(201);
    let north = test.stranger().in_tenant("north");
    let feed = north.get("/feed.json").await.expect(200).json();
    assert_eq!((&feed["items"], &feed["title"]), (&json!([]), &json!("North")));
    let map = parsed(&north.get("/sitemap.xml").await.expect(200).text());
    assert_eq!(texts(&map, "urlset/url/loc").len(), 0);
}

#[tokio::test]
async fn the_sitemap_lists_what_may_be_found_and_robots_are_led_to_it() {
    let test = TestNode::start_with(|config| {
        config.public_url = "https://example.org".to_owned();
        config.posts.path = "/read/{slug}".to_owned();
    })
    .await;
    let admin = test.admin().await;
    published(&admin, json!({ "title": "Found", "slug": "grüße" })).await;
    published(&admin, json!({ "title": "Hidden", "noindex": true })).await;
    let _ = admin.post("/api/v1/posts", &json!({ "title": "A draft" })).await.expect(201);
    let stranger = test.stranger();
    for path in ["/sitemap.xml", "/sitemaps/1.xml"] {
        let map = parsed(&stranger.get(path).await.expect(200).text());
        let found = texts(&map, "urlset/url/loc");
        assert_eq!(found, ["https://example.org/read/gr%C3%BC%C3%9Fe"]);
        assert_eq!(texts(&map, "urlset/url/lastmod").len(), 1);
    }
    for path in ["/sitemaps/0.xml", "/sitemaps/2.xml", "/sitemaps/x"] {
        stranger.get(path).await.refused(404, "not_found");
    }
    let robots = stranger.get("/robots.txt").await.expect(200);
    assert!(robots.text().contains("Sitemap: https://example.org/sitemap.xml\n"));
    let mut titles = Vec::new();
    for part in 0..3 {
        let before = titles.len();
        feed::each_live(&test.node, test.tenant, part, 1, |post| {
            titles.push(post.text(&atoll_node::content::post::TITLE).to_owned());
        })
        .unwrap();
        assert_eq!(titles.len() - before, usize::from(part < 2));
    }
    titles.sort();
    assert_eq!(titles, ["Found", "Hidden"]);
}
