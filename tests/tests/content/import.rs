use atoll_node::content::category;
use atoll_node::content::import::{Report, import_csv, import_markdown};
use atoll_node::content::post::{
    self, BODY, CATEGORY_ID, EXCERPT, POST, PUBLISHED_AT, SLUG, STATUS, TAG_IDS, TITLE,
};
use atoll_node::content::workflow;
use atoll_node::{Actor, Node};
use atoll_storage::{Query, Read, Record};
use atoll_tests::TestNode;
use std::fs;
use std::path::Path;

fn put(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn markdown(node: &Node, actor: Actor, folder: &Path) -> Report {
    import_markdown(node, &actor, folder, |_, _| {}).unwrap()
}

fn counts(report: &Report) -> (u64, u64, u64, u64) {
    (report.created, report.updated, report.unchanged, report.failed)
}

fn posts(node: &Node, actor: Actor) -> Vec<Record> {
    let query = Query::of(&POST, actor.tenant).sort("title", false).limit(1_000).with_bodies();
    node.store.read(|r| r.list(&query)).unwrap().records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_markdown_becomes_posts_and_a_repeat_doubles_nothing() {
    let test = TestNode::start().await;
    let actor = Actor::system(test.tenant);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    put(
        dir,
        "guide/first.md",
        "---\ntitle: First steps\nslug: first\ntags: [Rust, \"C, too\", rust]\ncategory: Guides\ndate: 2020-02-03\n\
         description: How to begin\n---\nHello.\n",
    );
    put(dir, "b.markdown", "# Second\n\ntext\n");
    put(dir, "c.md", "---\ntitle: Third\ndraft: true\n---\n");
    put(dir, "d.txt", "no post");
    put(dir, ".hidden/e.md", "# Hidden");
    put(dir, "broken.md", b"\xff\xfe");
    put(dir, "long.md", "x".repeat((1 << 20) + (65 << 10)));
    put(dir, "slug.md", "---\ntitle: Bad\nslug: a b\n---\n");

    let report = markdown(&test.node, actor, dir);
    assert_eq!(counts(&report), (3, 0, 0, 3), "{report:?}");
    let mut failed: Vec<_> =
        report.failures.iter().map(|f| f.source.rsplit('/').next().unwrap_or_default()).collect();
    failed.sort_unstable();
    assert_eq!(failed, ["broken.md", "long.md", "slug.md"]);

    let all = posts(&test.node, actor);
    let titles: Vec<_> = all.iter().map(|post| post.text(&TITLE)).collect();
    assert_eq!(titles, ["First steps", "Second", "Third"]);
    let first = &all[0];
    assert_eq!(
        (first.text(&SLUG), first.text(&STATUS), first.body(&BODY)),
        ("first", "published", "Hello.\n")
    );
    assert_eq!(
        (first.int(&PUBLISHED_AT), first.text(&EXCERPT)),
        (Some(1_580_688_000_000), "How to begin")
    );
    assert_eq!(first.set(&TAG_IDS).count(), 2);
    let category = first.id(&CATEGORY_ID).unwrap().to_string();
    assert_eq!(
        category::get(&test.node, &actor, &category).unwrap().text(&category::STATUS),
        "approved"
    );
    assert_eq!(all[2].text(&STATUS), "draft");

    assert_eq!(counts(&markdown(&test.node, actor, dir)), (0, 0, 3, 3));
    put(dir, "b.markdown", "# Second, again\n\nother text\n");
    put(dir, "c.md", "---\ntitle: Third\n---\n");
    assert_eq!(counts(&markdown(&test.node, actor, dir)), (0, 2, 1, 3));
    let all = posts(&test.node, actor);
    assert_eq!(
        (all.len(), all[1].text(&TITLE), all[1].body(&BODY)),
        (3, "Second, again", "# Second, again\n\nother text\n")
    );
    assert_eq!((all[1].text(&SLUG), all[2].text(&STATUS)), ("second", "published"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_keeps_what_people_wrote_meanwhile_and_leaves_the_trash_alone() {
    let test = TestNode::start().await;
    let actor = Actor::system(test.tenant);
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.md", "# A\n\nfrom the file\n");
    put(folder.path(), "b.md", "# B\n");
    markdown(&test.node, actor, folder.path());
    let all = posts(&test.node, actor);
    let edit = atoll_storage::Changes::new().body(&BODY, "by hand");
    post::edit(&test.node, &actor, all[0].key, edit, None).await.unwrap();
    workflow::trash(&test.node, &actor, all[1].key, None).await.unwrap();
    put(folder.path(), "b.md", "# B\n\nmore\n");
    assert_eq!(counts(&markdown(&test.node, actor, folder.path())), (0, 0, 1, 1));
    assert_eq!(posts(&test.node, actor)[0].body(&BODY), "by hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_are_imported_in_batches() {
    let test = TestNode::start().await;
    let actor = Actor::system(test.tenant);
    let folder = tempfile::tempdir().unwrap();
    for i in 0..1_000 {
        put(
            folder.path(),
            &format!("{}/{i}.md", i % 7),
            format!("---\ntitle: Same\ntags: t{}\n---\n{i}", i % 5),
        );
    }
    let (mut calls, mut total) = (0, 0);
    let report = import_markdown(&test.node, &actor, folder.path(), |_, of| {
        (calls, total) = (calls + 1, of);
    })
    .unwrap();
    assert_eq!((counts(&report), calls, total), ((1_000, 0, 0, 0), 1_001, 1_000));
    let tags = test
        .node
        .store
        .read(|r| r.count(&Query::of(&atoll_node::content::tag::TAG, test.tenant)))
        .unwrap();
    assert_eq!(tags, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_becomes_posts_and_a_bad_row_stops_nothing() {
    let test = TestNode::start().await;
    let actor = Actor::system(test.tenant);
    let folder = tempfile::tempdir().unwrap();
    let table = "id,Title,body,tags,category,date,draft\n1,One,\"a, \"\"b\"\"\",x; y,Docs,2021-01-01,\n2,,no title,,,,\n\
                 3,Three,,,,,yes\n4,Four\n";
    put(folder.path(), "posts.csv", table);
    let file = folder.path().join("posts.csv");
    let report = import_csv(&test.node, &actor, &file, |_, _| {}).unwrap();
    assert_eq!(counts(&report), (3, 0, 0, 1), "{report:?}");
    assert_eq!(report.failures[0].source, "row 3");
    let all = posts(&test.node, actor);
    assert_eq!(
        (all[1].text(&TITLE), all[1].body(&BODY), all[1].set(&TAG_IDS).count()),
        ("One", "a, \"b\"", 2)
    );
    assert_eq!(all[2].text(&STATUS), "draft");
    assert_eq!(counts(&import_csv(&test.node, &actor, &file, |_, _| {}).unwrap()), (0, 0, 3, 1));
    put(folder.path(), "posts.csv", table.replace("One", "Uno"));
    assert_eq!(counts(&import_csv(&test.node, &actor, &file, |_, _| {}).unwrap()), (0, 1, 2, 1));
    put(folder.path(), "none.csv", "name\nx\n");
    assert!(import_csv(&test.node, &actor, &folder.path().join("none.csv"), |_, _| {}).is_err());
    put(folder.path(), "endless.csv", format!("title\n\"{}", "x".repeat(5 << 20)));
    let report =
        import_csv(&test.node, &actor, &folder.path().join("endless.csv"), |_, _| {}).unwrap();
    assert_eq!(counts(&report), (0, 0, 0, 1));
    assert!(import_csv(&test.node, &Actor::stranger(test.tenant), &file, |_, _| {}).is_err());
}
