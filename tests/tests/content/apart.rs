use atoll_node::content::post::{self, BODY, CATEGORY_ID, POST, PUBLISHED_AT, STATUS, TITLE};
use atoll_node::content::version;
use atoll_node::content::workflow::{self, Step};
use atoll_node::content::{category, schedule, trash};
use atoll_node::identity::user::{self, NewUser};
use atoll_node::{Actor, Config, Node, Role};
use atoll_storage::{Cause, Changes, Id, Lane, Read, Record, Replica};
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;

const TENANT: Id = Id([7; 16]);

/// Two nodes that meet only when they are told to.
struct Pair {
    a: Arc<Node>,
    b: Arc<Node>,
    _folders: [TempDir; 2],
}

impl Pair {
    fn open() -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let open = |folder: &TempDir| {
            let data = folder.path().to_owned();
            Node::open(Config { data, listen: any, sync_listen: any, ..Config::default() }).unwrap()
        };
        Self { a: open(&folders[0]), b: open(&folders[1]), _folders: folders }
    }

    /// Each gives the other what it lacks; then both are equal.
    fn meet(&self) {
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            let (mut from, mut to) = (from.store.clone(), to.store.clone());
            let known = to
                .heads(None)
                .unwrap()
                .into_iter()
                .map(|head| (head.stream, head.vector))
                .collect();
            for lane in [Lane::Urgent, Lane::Rest] {
                let batch = from.ops(lane, 0, &known, 10_000, 100 << 20).unwrap();
                let applied = to.apply(batch.ops).unwrap();
                assert_eq!((applied.parked, applied.quarantined), (0, 0));
            }
        }
        assert_eq!(self.a.store.clone().root().unwrap(), self.b.store.clone().root().unwrap());
    }

    /// A post that both have.
    async fn post(&self) -> Id {
        let draft =
            Changes::new().set(&TITLE, "Shared").body(&BODY, "The quick fox jumps.\nThe end.\n");
        let key = post::create(&self.a, &system(), draft).await.unwrap().key;
        self.meet();
        key
    }
}

fn system() -> Actor {
    Actor::system(TENANT)
}

/// A viewer, made on this node.
async fn person(node: &Node, name: &str) -> Id {
    let new = NewUser {
        email: format!("{name}@example.org"),
        username: name.to_owned(),
        display_name: String::new(),
        password: "a long enough password".to_owned(),
        role: Role::Viewer,
        must_change_password: false,
    };
    user::create(node, &system(), new).await.unwrap().key
}

fn read(node: &Node, key: Id) -> Record {
    node.store.read(|r| r.get_full(&POST, key)).unwrap().unwrap()
}

fn causes(node: &Node) -> Vec<Cause> {
    node.store
        .read(|r| r.conflicts(Some(TENANT), 100, None))
        .unwrap()
        .iter()
        .map(|c| c.cause)
        .collect()
}

#[tokio::test]
async fn a_body_that_was_edited_elsewhere_comes_back_from_the_trash_and_the_inbox_tells() {
    let pair = Pair::open();
    let key = pair.post().await;
    workflow::trash(&pair.a, &system(), key, None).await.unwrap();
    assert!(post::is_trashed(&read(&pair.a, key)));
    let edit = Changes::new().body(&BODY, "The quick brown fox jumps.\nThe end.\n");
    post::edit(&pair.b, &system(), key, edit, None).await.unwrap();
    pair.meet();
    for node in [&pair.a, &pair.b] {
        let post = read(node, key);
        assert!(!post::is_trashed(&post));
        assert_eq!(post.body(&BODY), "The quick brown fox jumps.\nThe end.\n");
        assert_eq!(causes(node), [Cause::Revived]);
    }
    workflow::take(&pair.a, &system(), key, Step::Restore, None).await.unwrap();
    pair.meet();
    assert_eq!(causes(&pair.b), []);
}

#[tokio::test]
async fn what_was_put_into_the_trash_stays_there_when_nobody_edited_it() {
    let pair = Pair::open();
    let key = pair.post().await;
    workflow::trash(&pair.a, &system(), key, None).await.unwrap();
    post::edit(&pair.b, &system(), key, Changes::new().set(&TITLE, "Renamed"), None).await.unwrap();
    pair.meet();
    assert!(post::is_trashed(&read(&pair.a, key)) && post::is_trashed(&read(&pair.b, key)));
}

#[tokio::test]
async fn bodies_edited_apart_merge_and_both_histories_stay_readable() {
    let pair = Pair::open();
    let key = pair.post().await;
    let left = Changes::new().body(&BODY, "The quick brown fox jumps.\nThe end.\n");
    let right = Changes::new().body(&BODY, "The quick fox jumps.\nThe happy end.\n");
    post::edit(&pair.a, &system(), key, left, None).await.unwrap();
    post::edit(&pair.b, &system(), key, right, None).await.unwrap();
    pair.meet();
    let merged = "The quick brown fox jumps.\nThe happy end.\n";
    assert_eq!((read(&pair.a, key).body(&BODY), read(&pair.b, key).body(&BODY)), (merged, merged));
    assert_eq!(causes(&pair.a), []);
    for node in [&pair.a, &pair.b] {
        let history = version::list(node, &system(), key, 10, None).unwrap();
        assert_eq!(
            history.total, 4,
            "both made the same first version, and what they made together"
        );
        assert_eq!((history.versions.len(), history.versions[0].number), (4, 4));
        assert!(history.versions[0].merged && !history.versions[1].merged);
        assert_eq!(history.versions[0].author_id, None);
        assert_eq!(version::get(node, &system(), key, 4).unwrap().body, merged);
        let one = version::list(node, &system(), key, 1, None).unwrap();
        let rest = version::list(node, &system(), key, 10, one.next).unwrap();
        assert_eq!((one.versions[0].number, rest.versions.len()), (4, 3));
        assert_eq!((rest.versions[0].number, rest.total), (3, 4));
        let bodies: Vec<String> =
            (1..=3).map(|n| version::get(node, &system(), key, n).unwrap().body).collect();
        assert_eq!(bodies[0], "The quick fox jumps.\nThe end.\n");
        assert!(bodies[1..].contains(&"The quick brown fox jumps.\nThe end.\n".to_owned()));
        assert!(bodies[1..].contains(&"The quick fox jumps.\nThe happy end.\n".to_owned()));
    }
    let back = version::revert(&pair.b, &system(), key, 1, None).await.unwrap();
    pair.meet();
    assert_eq!(read(&pair.a, back.key).body(&BODY), "The quick fox jumps.\nThe end.\n");
    for node in [&pair.a, &pair.b] {
        let history = version::list(node, &system(), key, 10, None).unwrap();
        assert_eq!(history.total, 5, "the merge was written down before the change");
        let merges: Vec<u64> =
            history.versions.iter().filter(|v| v.merged).map(|v| v.number).collect();
        assert_eq!(merges, [4]);
        assert_eq!(version::get(node, &system(), key, 4).unwrap().body, merged);
    }
}

#[tokio::test]
async fn a_change_from_an_older_version_and_one_made_elsewhere_all_meet() {
    let pair = Pair::open();
    let key = pair.post().await;
    let body = |text: &str| Changes::new().body(&BODY, text);
    let first = body("The quick brown fox jumps.\nThe end.\n");
    post::edit(&pair.a, &system(), key, first, None).await.unwrap();
    let stale = body("The quick fox jumps.\nThe happy end.\n");
    let manner = post::Manner { base: Some(version::Base::Number(1)), ..post::Manner::default() };
    post::edit_in(&pair.a, &system(), key, stale, manner).await.unwrap();
    let there = body("The quick fox jumps high.\nThe end.\n");
    post::edit(&pair.b, &system(), key, there, None).await.unwrap();
    pair.meet();
    let all = "The quick brown fox jumps high.\nThe happy end.\n";
    assert_eq!((read(&pair.a, key).body(&BODY), read(&pair.b, key).body(&BODY)), (all, all));
    let last = body("The end.\n");
    post::edit(&pair.b, &system(), key, last, None).await.unwrap();
    pair.meet();
    assert_eq!(read(&pair.a, key).body(&BODY), "The end.\n");
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.store.verify().unwrap().problems, Vec::<String>::new());
    }
}

#[tokio::test]
async fn authors_and_roles_that_were_added_apart_are_all_there() {
    use atoll_node::content::post::{AUTHOR_IDS, VISIBLE_TO_ROLES};
    let pair = Pair::open();
    let key = pair.post().await;
    let (ann, bob) = (person(&pair.a, "ann").await, person(&pair.b, "bob").await);
    for (node, author, role) in [(&pair.a, ann, "viewer"), (&pair.b, bob, "moderator")] {
        let more = Changes::new().add(&AUTHOR_IDS, author).add(&VISIBLE_TO_ROLES, role);
        post::edit(node, &system(), key, more, None).await.unwrap();
    }
    pair.meet();
    for node in [&pair.a, &pair.b] {
        let there = read(node, key);
        let authors: Vec<Id> = post::authors(&there).collect();
        assert!(authors.len() == 2 && authors.contains(&ann) && authors.contains(&bob));
        assert_eq!(there.set(&VISIBLE_TO_ROLES).count(), 2);
        assert_eq!(causes(node), []);
    }
}

#[tokio::test]
async fn a_schedule_runs_on_time_where_it_was_made_and_elsewhere_only_when_that_node_is_away() {
    let pair = Pair::open();
    let key = pair.post().await;
    let due_ms = pair.a.clock.now_ms() + 3_600_000;
    workflow::take(&pair.a, &system(), key, Step::Publish(Some(due_ms as i64)), None)
        .await
        .unwrap();
    pair.meet();
    assert_eq!(schedule::run_due(&pair.b, due_ms).await.unwrap(), 0);
    assert_eq!(schedule::next_due(&pair.b).unwrap(), Some(due_ms + 60_000));
    assert_eq!(schedule::run_due(&pair.b, due_ms + 60_000).await.unwrap(), 1);
    assert_eq!(schedule::run_due(&pair.a, due_ms + 90_000).await.unwrap(), 1);
    pair.meet();
    for node in [&pair.a, &pair.b] {
        let post = read(node, key);
        assert_eq!(
            (post.text(&STATUS), post.int(&PUBLISHED_AT)),
            ("published", Some(due_ms as i64))
        );
        assert_eq!(causes(node), []);
    }
}

#[tokio::test]
async fn two_posts_with_one_slug_both_stay_readable() {
    let pair = Pair::open();
    let draft = || Changes::new().set(&TITLE, "Intro");
    let one = post::create(&pair.a, &system(), draft()).await.unwrap().key;
    let two = post::create(&pair.b, &system(), draft()).await.unwrap().key;
    pair.meet();
    let slugs: Vec<String> =
        [one, two].iter().map(|key| read(&pair.a, *key).text(&post::SLUG).to_owned()).collect();
    assert!(
        slugs.iter().any(|slug| slug == "intro")
            && slugs.iter().any(|slug| slug.starts_with("intro~")),
        "{slugs:?}"
    );
    for (key, slug) in [one, two].into_iter().zip(&slugs) {
        assert_eq!(post::named(&pair.b, &system(), slug).unwrap().key, key);
    }
    let loser = if slugs[0] == "intro" { two } else { one };
    let same = Changes::new().set(&post::SLUG, read(&pair.a, loser).text(&post::SLUG));
    post::edit(&pair.a, &system(), loser, same, None).await.unwrap();
    let other = Changes::new().set(&post::SLUG, "introduction");
    post::edit(&pair.a, &system(), loser, other, None).await.unwrap();
    pair.meet();
    assert_eq!(causes(&pair.b), []);
}

#[tokio::test]
async fn a_tag_made_on_two_nodes_is_one_and_a_circle_of_categories_is_cut_alike() {
    let pair = Pair::open();
    let tag = || Changes::new().set(&atoll_node::content::tag::NAME, "Rust");
    let one = atoll_node::content::tag::create(&pair.a, &system(), tag()).await.unwrap().key;
    let two = atoll_node::content::tag::create(&pair.b, &system(), tag()).await.unwrap().key;
    assert_eq!(one, two);
    let named = |name: &str| Changes::new().set(&category::NAME, name);
    let x = category::create(&pair.a, &system(), named("X")).await.unwrap().key;
    let y = category::create(&pair.a, &system(), named("Y")).await.unwrap().key;
    pair.meet();
    category::edit(&pair.a, &system(), x, Changes::new().set(&category::PARENT_ID, y), None)
        .await
        .unwrap();
    category::edit(&pair.b, &system(), y, Changes::new().set(&category::PARENT_ID, x), None)
        .await
        .unwrap();
    pair.meet();
    let shape = |node: &Node| {
        let tree = category::tree(node, &system()).unwrap();
        let names = |branch: &category::Branch| branch.category.text(&category::NAME).to_owned();
        tree.iter()
            .map(|top| (names(top), top.children.iter().map(names).collect()))
            .collect::<Vec<(_, Vec<_>)>>()
    };
    assert_eq!(shape(&pair.a), shape(&pair.b));
    assert_eq!((shape(&pair.a).len(), shape(&pair.a)[0].1.len()), (1, 1));
    assert_eq!(causes(&pair.a), [Cause::Cycle]);
    let post = Changes::new().set(&TITLE, "Within").set(&CATEGORY_ID, x);
    post::create(&pair.a, &system(), post).await.unwrap();
}

#[tokio::test]
async fn a_draft_that_was_begun_on_one_node_goes_on_and_ends_on_another() {
    use atoll_node::content::autosave;
    let pair = Pair::open();
    let key = pair.post().await;
    let eve = Actor::of(TENANT, Id([9; 16]), Role::Admin);
    let text = |text: &str| Changes::new().body(&autosave::BODY, text);
    let begun = text("The quick fox jumps over.\nThe end.\n");
    autosave::save(&pair.a, &eve, key, begun).await.unwrap();
    pair.meet();
    let more = text("The quick fox jumps over it.\nThe end.\n");
    autosave::save(&pair.b, &eve, key, more).await.unwrap();
    let other = Changes::new().body(&BODY, "The quick fox jumps.\nThe happy end.\n");
    post::edit(&pair.a, &system(), key, other, None).await.unwrap();
    pair.meet();
    let (draft, is_behind) = autosave::get(&pair.a, &eve, key).unwrap();
    assert_eq!(draft.body(&autosave::BODY), "The quick fox jumps over it.\nThe end.\n");
    assert!(is_behind);
    autosave::apply(&pair.a, &eve, key, None).await.unwrap();
    pair.meet();
    let all = "The quick fox jumps over it.\nThe happy end.\n";
    assert_eq!(read(&pair.b, key).body(&BODY), all);
    assert!(autosave::get(&pair.b, &eve, key).is_err());
    assert_eq!(causes(&pair.a), []);
}

#[tokio::test]
async fn the_trash_is_emptied_where_it_was_filled_and_elsewhere_a_day_later() {
    const DAY_MS: u64 = 86_400_000;
    let pair = Pair::open();
    let key = pair.post().await;
    workflow::trash(&pair.a, &system(), key, None).await.unwrap();
    pair.meet();
    let over_ms = pair.a.clock.now_ms() + 30 * DAY_MS;
    assert_eq!(trash::purge_due(&pair.b, over_ms).await.unwrap(), 0);
    assert_eq!(trash::purge_due(&pair.b, over_ms + DAY_MS).await.unwrap(), 1);
    assert_eq!(trash::purge_due(&pair.a, over_ms).await.unwrap(), 1);
    pair.meet();
    for node in [&pair.a, &pair.b] {
        assert!(node.store.read(|r| r.get(&POST, key)).unwrap().is_none());
        assert_eq!(causes(node), []);
    }
}
