//! Exports as WordPress 6 and Ghost 6 wrote them, cut to a few items, and archives as people have them.

use super::{counts, import, send, text};
use atoll_node::Role;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};
use std::io::Write;

const WORDPRESS: &str = include_str!("../fixtures/wordpress-blocks.xml");
const GHOST: &str = include_str!("../fixtures/ghost-lexical.json");

async fn post(client: &Client, slug: &str) -> Json {
    client.get(&format!("/api/v1/posts/slug/{slug}")).await.expect(200).data()
}

async fn names(client: &Client, path: &str, name: &str) -> Vec<String> {
    let rows = client.get(path).await.expect(200).data();
    rows.as_array().unwrap().iter().map(|row| text(row, name).to_owned()).collect()
}

/// What the report says beside its counts, as one text.
fn notes(job: &Json) -> String {
    let notes = job["report"]["notes"].as_array().unwrap_or_else(|| panic!("notes in {job}"));
    let line = |note: &Json| format!("{}: {}\n", text(note, "source"), text(note, "message"));
    notes.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blog_comes_over_as_wordpress_writes_it() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let grace = test.user("grace", Role::Editor).await;
    let me = grace.get("/api/v1/auth/me").await.expect(200).data();
    let file = WORDPRESS.replace("grace@blog.example.org", text(&me, "email"));
    let job = import(&test, &admin, "format=wordpress", file.as_bytes()).await;
    assert_eq!(counts(&job), [8, 0, 0, 0], "{job}");
    assert_eq!((&job["report"]["skipped"], &job["report"]["comments"]), (&2.into(), &3.into()));

    let mint = post(&admin, "mint-thyme-again").await;
    assert_eq!(text(&mint, "title"), "Mint & thyme again");
    assert_eq!(
        text(&mint, "cover"),
        "https://blog.example.org/wp-content/uploads/2026/11/mint.png"
    );
    assert!(text(&mint, "body").contains("fn main() {\n\n    // blank lines above\n}"), "{mint}");
    assert_eq!((&mint["pinned"], text(&mint, "meta_title")), (&true.into(), "SEO mint"));
    assert!(
        names(&admin, "/api/v1/categories", "name").await.contains(&"Garden & Yard".to_owned())
    );
    let classic = post(&admin, "classic").await;
    assert_eq!(classic["author_id"], me["id"], "who has an account here is its author");
    let body = text(&classic, "body");
    for part in
        ["<p>First line<br>\nsecond line.</p>", "<pre>keep\n\nblank</pre>", "<p>Last ]]> one with"]
    {
        assert!(body.contains(part), "{part} in {body}");
    }
    assert_eq!(text(&post(&admin, "secret").await, "visibility"), "private");
    assert_eq!(text(&post(&admin, "with-password").await, "visibility"), "private");
    assert_eq!(text(&post(&admin, "tomorrow").await, "status"), "scheduled");
    let told = notes(&job);
    for part in [
        "caption, gallery",
        "latest-posts",
        "had a password",
        "1 comments were left out",
        "attachment 4 (mint-picture): files are not brought over",
        "trashed__trashed): is in the trash",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(counts(&import(&test, &admin, "format=wordpress", file.as_bytes()).await)[2], 8);
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blog_comes_over_as_ghost_writes_it_and_is_rendered_here() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let query = "format=ghost&site=https://ghost.example.org/";
    let job = import(&test, &admin, query, GHOST.as_bytes()).await;
    assert_eq!(counts(&job), [8, 0, 0, 0], "{job}");
    let bread = post(&admin, "bread-butter").await;
    let body = text(&bread, "body");
    for part in [
        "<strong>bold</strong><code> code</code><a href=\"/about/\">about</a>",
        "<img src=\"https://ghost.example.org/content/images/2026/11/a.png\" alt=\"alt\">",
        "<code class=\"language-rust\">let a = 1 &lt; 2;</code>",
        "<div>raw <b>html</b></div>",
        "<details><summary>Q</summary><p>A</p></details>",
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }
    assert!(text(&bread, "cover").starts_with("https://ghost.example.org/content/"), "{bread}");
    assert_eq!(bread["author_ids"].as_array().map(Vec::len), Some(1), "{bread}");
    let old = post(&admin, "mobile-doc").await;
    assert_eq!(
        text(&old, "body").trim(),
        "<p><strong>bold</strong></p>\n<hr>\n<p><em>old</em></p>"
    );
    assert_eq!(text(&post(&admin, "by-mail").await, "status"), "draft");
    assert!(notes(&job).contains("sent by e-mail alone"), "{job}");
    assert_eq!(counts(&import(&test, &admin, query, GHOST.as_bytes()).await)[2], 8);
    workers.shutdown().await;
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A zip whose files are stored as they are.
fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut locals, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let mut sum = flate2::Crc::new();
        sum.update(bytes);
        let size = (bytes.len() as u32).to_le_bytes();
        let mut told = vec![0; 6];
        told.extend(sum.sum().to_le_bytes());
        told.extend([size, size].concat());
        told.extend((name.len() as u16).to_le_bytes());
        told.extend([0, 0]);
        directory.extend([b"PK\x01\x02\x14\0\x14\0\0\0", &told[..], &[0; 10]].concat());
        directory.extend((locals.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        locals.extend([b"PK\x03\x04\x14\0\0\0", &told[..], name.as_bytes(), bytes].concat());
    }
    let count = (files.len() as u16).to_le_bytes();
    let sizes =
        [(directory.len() as u32).to_le_bytes(), (locals.len() as u32).to_le_bytes()].concat();
    [&locals[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &count, &sizes, &[0, 0]].concat()
}

const SITE: [(&str, &[u8]); 6] = [
    (
        "site/content/blog/trip/index.md",
        b"---\ntitle: The trip\ndate: 2020-01-02\n---\n![a](a.png) {{< map >}}",
    ),
    ("site/content/blog/trip/a.png", b"\x89PNG"),
    ("site/content/blog/odd.md", b"\xff\xfe"),
    ("site/.git/config", b"[core]"),
    ("site/.git/HEAD", b"ref"),
    ("site/themes/x/layout.html", b"<html>"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_taken_in_every_usual_form_and_what_is_passed_over_is_told() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let job = import(&test, &admin, "format=markdown", &gzip(&tar_of(&SITE))).await;
    assert_eq!(counts(&job), [1, 0, 0, 1], "{job}");
    assert_eq!(job["report"]["skipped"], 3);
    let told = notes(&job);
    for part in [
        "site/.git: ",
        "a.png: is no page",
        "layout.html: is HTML",
        "stay as they are: map",
        "names files that are not here: a.png",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let job = import(&test, &admin, "format=markdown", &zip_of(&SITE)).await;
    assert_eq!(counts(&job), [0, 0, 1, 1], "{job}");
    let query = "format=markdown&site=https://old.example.org";
    let job = import(&test, &admin, query, &zip_of(&SITE)).await;
    assert_eq!(counts(&job), [0, 1, 0, 1], "{job}");
    let trip = post(&admin, "trip").await;
    assert!(
        text(&trip, "body").starts_with("![a](https://old.example.org/blog/trip/a.png)"),
        "{trip}"
    );
    assert!(text(&trip, "created_at").starts_with("2020-01-02"), "{trip}");
    let refused = send_refused(&admin, "format=markdown&site=javascript:x").await;
    assert_eq!(refused, 422);

    let export = [("export/part-1.xml", WORDPRESS.as_bytes()), ("__MACOSX/._part-1.xml", b"x")];
    let job = import(&test, &admin, "format=wordpress", &zip_of(&export)).await;
    assert_eq!(counts(&job), [8, 0, 0, 0], "{job}");
    let job = import(&test, &admin, "format=ghost", &gzip(GHOST.as_bytes())).await;
    assert_eq!(counts(&job), [8, 0, 0, 0], "{job}");
    // Pictures do not come over, though the archive holds them: each post that names one is told.
    let ghost = [
        ("content/data/ghost.json", &include_bytes!("../fixtures/ghost.json")[..]),
        ("content/images/bread.png", b"\x89PNG"),
    ];
    let job = import(&test, &admin, "format=ghost&name=whole", &zip_of(&ghost)).await;
    assert!(notes(&job).contains("files that are not here: /content/images/bread.png"), "{job}");
    let table = "\u{feff}title;status;colour\nOne;Draft;red\nTwo;published;blue\n";
    let job = import(&test, &admin, "format=csv&name=t", &gzip(table.as_bytes())).await;
    assert_eq!(counts(&job), [2, 0, 0, 0], "{job}");
    assert!(notes(&job).contains("column colour"), "{job}");
    assert_eq!(text(&post(&admin, "one").await, "status"), "draft");
    workers.shutdown().await;
}

async fn send_refused(client: &Client, query: &str) -> u16 {
    client.send("POST", &format!("/api/v1/imports?{query}"), &[], b"x").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_export_is_or_unpacks_to_too_much_is_a_dead_letter_or_a_row() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let bomb = gzip(&tar_of(&[("a.md", &vec![b'x'; 80 << 20]), ("b.md", b"# B")]));
    let job = import(&test, &admin, "format=markdown", &bomb).await;
    assert_eq!(counts(&job), [0, 0, 0, 2], "{job}");
    for (query, file) in [
        ("format=wordpress", &b"<html><body>no</body></html>"[..]),
        ("format=wordpress", &zip_of(&[("a.txt", b"x")])),
        ("format=ghost", &zip_of(&[("a.json", b"{}")])),
        ("format=markdown", b"PK\x03\x04 and no more"),
    ] {
        let path = send(&admin, query, file).await;
        let job = super::ended(&test.node, &admin, &path).await;
        assert_eq!(text(&job, "state"), "dead", "{query}: {job}");
    }
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_refused_leaves_nothing_behind() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    admin.post("/api/v1/posts", &json!({ "title": "Here", "slug": "here" })).await.expect(201);
    let table = "id,title,slug,tags,category,author\n1,A,here,left over,Left over,ada@left.example\n\
                 2,B,b,kept,Kept,ada@kept.example\n";
    let job = import(&test, &admin, "format=csv&name=t", table.as_bytes()).await;
    assert_eq!(counts(&job), [1, 0, 0, 1], "{job}");
    assert_eq!(names(&admin, "/api/v1/tags", "name").await, ["kept"]);
    assert_eq!(names(&admin, "/api/v1/categories", "name").await, ["Kept"]);
    let users = names(&admin, "/api/v1/users", "email").await;
    assert!(users.iter().any(|email| email == "ada@kept.example"), "{users:?}");
    assert!(!users.iter().any(|email| email == "ada@left.example"), "{users:?}");
    workers.shutdown().await;
}
