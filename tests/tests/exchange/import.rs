use super::{counts, ended, import, other_tenant, send, table, text, until};
use atoll_node::Role;
use atoll_tests::harness::Answer;
use atoll_tests::{Client, TestNode};
use serde_json::Value as Json;
use tokio::runtime::Runtime;

const WORDPRESS: &str = include_str!("../fixtures/wordpress.xml");
const GHOST: &str = include_str!("../fixtures/ghost.json");

async fn lines(client: &Client, job: &Json) -> Vec<Json> {
    let report =
        client.get(&format!("/api/v1/imports/{}/report", text(job, "id"))).await.expect(200);
    report.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn post(client: &Client, slug: &str) -> Json {
    client.get(&format!("/api/v1/posts/slug/{slug}")).await.expect(200).data()
}

async fn total(client: &Client, path: &str) -> u64 {
    client.get(path).await.expect(200).json()["page"]["total"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blog_of_wordpress_comes_over_with_its_authors_comments_and_addresses() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let file = WORDPRESS.replace("@VT@", "\u{b}");
    let job = import(&test, &admin, "format=wordpress", file.as_bytes()).await;
    assert_eq!(counts(&job), [3, 0, 0, 1], "{job}");
    assert_eq!((&job["report"]["comments"], &job["report"]["redirects"]), (&2.into(), &2.into()));
    assert!(text(&job["report"]["failures"][0], "source").contains("No number"), "{job}");

    let mint = post(&admin, "mint-thyme").await;
    assert_eq!(text(&mint, "title"), "Mint & thyme");
    assert_eq!(text(&mint, "body"), "<p>Grow them in <strong>pots</strong>.</p>");
    assert_eq!((text(&mint, "format"), text(&mint, "status")), ("html", "published"));
    assert_eq!((text(&mint, "excerpt"), &mint["pinned"]), ("Two herbs.", &true.into()));
    assert_eq!(text(&mint, "meta_description"), "Herbs in pots");
    assert!(text(&mint, "published_at").starts_with("2019-05-01T10:00:00"), "{mint}");
    assert!(text(&mint, "created_at").starts_with("2019-05-01T10:00:00"), "{mint}");
    let author =
        admin.get(&format!("/api/v1/users/{}", text(&mint, "author_id"))).await.expect(200);
    assert_eq!(text(&author.data(), "display_name"), "Ada L.");
    assert_eq!(text(&author.data(), "status"), "disabled");
    let herbs = admin.get("/api/v1/categories/herbs").await.expect(200).data();
    let garden = admin.get("/api/v1/categories/garden").await.expect(200).data();
    assert_eq!((&mint["category_id"], &herbs["parent_id"]), (&herbs["id"], &garden["id"]));
    assert_eq!(text(&garden, "description"), "What grows.");

    let path = format!("/api/v1/posts/{}/comments", text(&mint, "id"));
    let thread = admin.get(&path).await.expect(200).data();
    assert_eq!(text(&thread[0], "text"), "How often do you water?\n\n— Guest");
    assert_eq!(text(&thread[1], "text"), "Every morning & evening.");
    assert_eq!(thread[1]["parent_id"], thread[0]["id"]);
    assert_eq!(thread[1]["author_id"], mint["author_id"]);
    assert!(text(&thread[0], "created_at").starts_with("2019-05-02T08:00:00"), "{thread}");

    let plain = post(&admin, "plain-old-text").await;
    assert_eq!(text(&plain, "body"), "<p>First paragraph.</p>\n\n<p>Second one.</p>");
    assert_eq!((text(&plain, "status"), &plain["category_id"]), ("draft", &Json::Null));
    let about = post(&admin, "%D0%BE-%D0%BD%D0%B0%D1%81").await;
    assert_eq!(text(&about, "visibility"), "private");
    assert!(text(&about, "body").contains("vertical tab and"), "{about}");

    assert_eq!(lines(&admin, &job).await.len(), 5, "the attachment too");
    let again = import(&test, &admin, "format=wordpress", file.as_bytes()).await;
    assert_eq!(counts(&again), [0, 0, 3, 1]);
    let changed = file.replace("Mint &amp; thyme", "Mint and thyme");
    let again = import(&test, &admin, "format=wordpress", changed.as_bytes()).await;
    assert_eq!(counts(&again), [0, 1, 2, 1]);
    assert_eq!(text(&post(&admin, "mint-thyme").await, "title"), "Mint and thyme");
    assert_eq!(total(&admin, &path).await, 2);
    let cut = &file.as_bytes()[..file.find("<title>About").unwrap()];
    assert_eq!(counts(&import(&test, &admin, "format=wordpress", cut).await)[3], 1);
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blog_of_ghost_comes_over_and_what_cannot_be_rendered_is_told() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let job = import(&test, &admin, "format=ghost", GHOST.as_bytes()).await;
    assert_eq!(counts(&job), [2, 0, 0, 1], "{job}");
    assert_eq!(text(&job["report"]["failures"][0], "source"), "post not-rendered");
    let bread = post(&admin, "bread-for-forty").await;
    assert_eq!(text(&bread, "body"), "<p>Flour and <a href=\"/water/\">water</a>.</p>");
    assert_eq!(text(&bread, "cover"), "/content/images/bread.png");
    assert_eq!(
        (text(&bread, "meta_title"), text(&bread, "excerpt")),
        ("Bread", "How to bake a lot")
    );
    assert!(text(&bread, "published_at").starts_with("2024-01-31T12:00:00"), "{bread}");
    assert_eq!(bread["tag_ids"].as_array().unwrap().len(), 1);
    assert_eq!(text(&post(&admin, "for-members").await, "visibility"), "members");
    assert_eq!(
        counts(&import(&test, &admin, "format=ghost", GHOST.as_bytes()).await),
        [0, 0, 2, 1]
    );
    let cut = &GHOST[..GHOST.find("\"posts_tags\"").unwrap()];
    let job = import(&test, &admin, "format=ghost", cut.as_bytes()).await;
    assert_eq!((counts(&job)[0], counts(&job)[3]), (0, 2), "{job}");
    for odd in ["{}", "[]", "not json", "{\"data\": {}}"] {
        let path = send(&admin, "format=ghost", odd.as_bytes()).await;
        let job = ended(&test.node, &admin, &path).await;
        assert_eq!(text(&job, "state"), "dead", "{odd}: {job}");
    }
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_markdown_and_lines_of_json_become_posts() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [
        ("content/blog/trip/index.md", "---\ntitle: The trip\ndate: 2020-01-02\n---\nWe went."),
        ("_posts/2021-02-03-rain.md", "# Rain\n\nIt rained."),
        ("content/picture.png", "no post"),
        ("broken.md", "\u{0}"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let plain = tar.into_inner().unwrap();
    let packed = zstd::stream::encode_all(&plain[..], 3).unwrap();
    let job = import(&test, &admin, "format=markdown", &packed).await;
    assert_eq!(counts(&job), [2, 0, 0, 1], "{job}");
    assert_eq!(text(&post(&admin, "trip").await, "title"), "The trip");
    assert_eq!(counts(&import(&test, &admin, "format=markdown", &plain).await), [0, 0, 2, 1]);

    let lines = "{\"id\":1,\"title\":\"One\",\"tags\":[\"a\"]}\n\nnonsense\n{\"title\":\"\"}\n{\"id\":2,\"title\":\"Two\"}";
    let job = import(&test, &admin, "format=jsonl", lines.as_bytes()).await;
    assert_eq!(counts(&job), [2, 0, 0, 2], "{job}");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_among_ten_thousand_is_told_and_stops_nothing() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let table = table(10_000, 2_048).replace("\n8999,Post 8999,", "\n8999,,");
    let job = import(&test, &admin, "format=csv&name=posts", table.as_bytes()).await;
    assert_eq!(counts(&job), [9_999, 0, 0, 1], "{job}");
    assert_eq!(text(&job["report"]["failures"][0], "source"), "row 9000");
    assert_eq!((&job["percent"], &job["done"]), (&100.into(), &job["of"]));
    let lines = lines(&admin, &job).await;
    assert_eq!(lines.len(), 10_000);
    let bad: Vec<_> = lines.iter().filter(|line| line["outcome"] == "failed").collect();
    assert_eq!((bad.len(), &bad[0]["item"]), (1, &8_999.into()));
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_would_be_and_writes_nothing() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let (users, posts) = (total(&admin, "/api/v1/users").await, "/api/v1/posts");
    let job = import(&test, &admin, "format=wordpress&dry_run=true", WORDPRESS.as_bytes()).await;
    assert_eq!((counts(&job), &job["dry_run"]), ([3, 0, 0, 1], &true.into()));
    assert_eq!(total(&admin, posts).await, 0);
    assert_eq!(total(&admin, "/api/v1/users").await, users);
    assert_eq!(total(&admin, "/api/v1/categories").await, 0);
    assert_eq!(total(&admin, "/api/v1/redirects").await, 0);
    assert_eq!(lines(&admin, &job).await.len(), 5);
    workers.shutdown().await;
}

async fn attempt(client: &Client, query: &str, file: &[u8]) -> Answer {
    client.send("POST", &format!("/api/v1/imports?{query}"), &[], file).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_is_refused_before_it_is_kept() {
    let test = TestNode::start_with(|config| config.import.max_bytes = 2_000).await;
    let admin = test.admin().await;
    attempt(&test.stranger(), "format=csv", b"title\nx").await.refused(401, "unauthenticated");
    let editor = test.user("eva", Role::Editor).await;
    attempt(&editor, "format=csv", b"title\nx").await.refused(403, "denied");
    attempt(&admin, "", b"title\nx").await.refused(400, "unknown_choice");
    attempt(&admin, "format=word", b"title\nx").await.refused(400, "unknown_choice");
    attempt(&admin, "format=csv&colour=red", b"title\nx").await.refused(400, "unknown_parameter");
    attempt(&admin, "format=csv", b"").await.refused(400, "malformed");
    attempt(&admin, "format=csv", &[b'x'; 2_001]).await.refused(413, "body_too_large");
    let long = format!("format=csv&name={}", "n".repeat(101));
    attempt(&admin, &long, b"title\nx").await.refused(422, "invalid");
    let left = std::fs::read_dir(test.folder().join("exchange")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing of what was refused stays");
    assert_eq!(attempt(&admin, "format=csv", b"title\nx").await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_shown_to_its_tenant_alone_and_writes_there_alone() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let (admin, north) = (test.admin().await, other_tenant(&test).await);
    let path = send(&north, "format=csv", b"title\nOurs").await;
    assert_eq!(counts(&ended(&test.node, &north, &path).await), [1, 0, 0, 0]);
    assert_eq!(total(&north, "/api/v1/posts").await, 1);
    assert_eq!(total(&admin, "/api/v1/posts").await, 0);
    for path in [path.clone(), format!("{path}/report"), path.replace("imports", "jobs")] {
        admin.get(&path).await.refused(404, "not_found");
    }
    assert_eq!(total(&admin, "/api/v1/imports").await, 0);
    assert_eq!(total(&north, "/api/v1/imports").await, 1);
    workers.shutdown().await;
}

#[test]
fn an_import_that_was_cut_off_goes_on_where_it_was() {
    let rows = 3_000;
    let first = Runtime::new().unwrap();
    let (folder, tenant, root, path) = first.block_on(async {
        let test = TestNode::start().await;
        let _workers = test.node.start().await.unwrap();
        let admin = test.admin().await;
        let path = send(&admin, "format=csv", table(rows, 2_000).as_bytes()).await;
        until(&test.node, &admin, &path, |job| job["done"].as_u64() > Some(0)).await;
        // Nothing more gets to the disk, as after a kill.
        let store = test.node.store.clone();
        tokio::task::spawn_blocking(move || store.close()).await.unwrap();
        let (tenant, root) = (test.tenant, test.admin);
        (test.into_folder(), tenant, root, path)
    });
    first.shutdown_timeout(super::PATIENCE);
    let second = Runtime::new().unwrap();
    second.block_on(async {
        let test = TestNode::reopen(folder, tenant, root).await;
        let admin = test.admin().await;
        let job = admin.get(&path).await.expect(200).data();
        assert_ne!(text(&job, "state"), "done", "it was cut off too late to test anything");
        let workers = test.node.start().await.unwrap();
        let job = ended(&test.node, &admin, &path).await;
        assert_eq!(counts(&job), [rows as u64, 0, 0, 0], "{job}");
        assert_eq!(total(&admin, "/api/v1/posts").await, rows as u64);
        let items: Vec<u64> =
            lines(&admin, &job).await.iter().map(|line| line["item"].as_u64().unwrap()).collect();
        assert_eq!(items, (1..=rows as u64).collect::<Vec<_>>());
        workers.shutdown().await;
    });
}
