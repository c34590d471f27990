use super::{at, draft, make, text};
use atoll_node::content::autosave::POST_AUTOSAVE;
use atoll_node::content::post::{POST, PUBLISHED_AT, STATUS};
use atoll_node::content::preview::PREVIEW_LINK;
use atoll_node::content::trash;
use atoll_node::content::version::POST_VERSION;
use atoll_node::{Config, Node, Role};
use atoll_storage::{Clock, Id, Kind, Query, Read};
use atoll_tests::TestNode;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

const DAY_MS: u64 = 86_400_000;

fn count(test: &TestNode, kind: &'static Kind) -> u64 {
    test.node.store.read(|r| r.list(&Query::of(kind, test.tenant))).unwrap().total
}

#[tokio::test]
async fn an_administrator_removes_a_post_for_good_with_all_that_is_its_own() {
    let test = TestNode::start().await;
    let (admin, eve) = (test.admin().await, test.user("eve", Role::Editor).await);
    let (post, other) = (draft(&eve, "Gone").await, draft(&eve, "Kept").await);
    for post in [&post, &other] {
        let _ = eve.put(&at("posts", post, ""), &json!({ "body": "Changed." })).await.expect(200);
        let _ = eve.put(&at("posts", post, "/autosave"), &json!({ "body": "x" })).await.expect(200);
        let _ = eve.post(&at("posts", post, "/preview-links"), &json!({})).await.expect(201);
    }
    let path = at("posts", &post, "");
    eve.delete(&format!("{path}?purge=true")).await.refused(403, "denied");
    let stale = [("if-match", "\"00000000000000000000000000000000.0\"")];
    admin.send("DELETE", &format!("{path}?purge=true"), &stale, b"").await.refused(412, "stale");
    let _ = admin.delete(&format!("{path}?purge=true")).await.expect(204);
    admin.get(&path).await.refused(404, "not_found");
    admin.delete(&format!("{path}?purge=true")).await.refused(404, "not_found");
    let left = [&POST, &POST_VERSION, &POST_AUTOSAVE, &PREVIEW_LINK].map(|kind| count(&test, kind));
    assert_eq!(left, [1, 2, 1, 1]);
    let again = make(&eve, json!({ "title": "Gone", "slug": "gone" })).await;
    assert_eq!(text(&again, "slug"), "gone", "its name is free");
}

#[tokio::test]
async fn what_lies_in_the_trash_goes_when_its_time_is_over_and_nothing_else_does() {
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let clock = now.clone();
    let test = TestNode::start_at(Clock::from_fn(move || clock.load(SeqCst))).await;
    let admin = test.admin().await;
    let (old, young) = (draft(&admin, "Old").await, draft(&admin, "Young").await);
    let kept = draft(&admin, "Kept").await;
    let _ = admin.put(&at("posts", &old, ""), &json!({ "body": "Changed." })).await.expect(200);
    let _ = admin.delete(&at("posts", &old, "")).await.expect(204);
    now.fetch_add(DAY_MS, SeqCst);
    let admin = test.admin().await;
    let _ = admin.delete(&at("posts", &young, "")).await.expect(204);
    let purge = async || trash::purge_due(&test.node, now.load(SeqCst)).await.unwrap();
    now.fetch_add(29 * DAY_MS - 1, SeqCst);
    assert_eq!(purge().await, 0);
    now.fetch_add(1, SeqCst);
    assert_eq!(purge().await, 1);
    assert_eq!(purge().await, 0);
    assert_eq!((count(&test, &POST), count(&test, &POST_VERSION)), (2, 0));
    let there = |key: &str| {
        let key = Id::parse(key).unwrap();
        test.node.store.read(|r| r.get(&POST, key)).unwrap().is_some()
    };
    assert!(!there(text(&old, "id")) && there(text(&young, "id")) && there(text(&kept, "id")));
}

#[tokio::test]
async fn a_schedule_that_fell_due_while_the_node_was_down_is_caught_up_with() {
    let folder = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let open = |now_ms: u64| {
        let data = folder.path().to_owned();
        let config = Config { data, listen: any, sync_listen: any, ..Config::default() };
        Node::open_at(config, Clock::from_fn(move || now_ms)).unwrap()
    };
    let start = 1_800_000_000_000;
    let actor = atoll_node::Actor::system(Id([7; 16]));
    let key = {
        use atoll_node::content::post::{self, TITLE};
        use atoll_node::content::workflow::{self, Step};
        let node = open(start);
        let new = atoll_storage::Changes::new().set(&TITLE, "Later");
        let key = post::create(&node, &actor, new).await.unwrap().key;
        let step = Step::Publish(Some((start + 60_000) as i64));
        workflow::take(&node, &actor, key, step, None).await.unwrap();
        node.store.close();
        key
    };
    let node = open(start + DAY_MS);
    let mut commits = node.store.subscribe();
    let workers = node.start().await.unwrap();
    let published = async {
        loop {
            let post = node.store.read(|r| r.get(&POST, key)).unwrap().unwrap();
            if post.text(&STATUS) == "published" {
                return post;
            }
            commits.changed().await.unwrap();
        }
    };
    let post = tokio::time::timeout(Duration::from_secs(30), published).await.unwrap();
    assert_eq!(post.int(&PUBLISHED_AT), Some((start + 60_000) as i64));
    workers.shutdown().await;
}
