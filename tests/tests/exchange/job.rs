use super::{ended, import, other_tenant, send, table, text, until};
use atoll_node::Role;
use atoll_node::config::Secret;
use atoll_storage::job::MAX_ATTEMPTS;
use atoll_storage::tx::Tx;
use atoll_tests::harness::ADMIN_EMAIL;
use atoll_tests::{Client, PostOffice, TestNode};
use serde_json::{Value as Json, json};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_for_who_administers_them_in_their_tenant() {
    let test = TestNode::start().await;
    let (admin, north) = (test.admin().await, other_tenant(&test).await);
    let path = send(&admin, "format=csv", b"title\nx").await.replace("imports", "jobs");
    let editor = test.user("eva", Role::Editor).await;
    for (method, path) in [
        ("GET", "/api/v1/jobs".to_owned()),
        ("GET", path.clone()),
        ("POST", format!("{path}/cancel")),
        ("POST", format!("{path}/retry")),
        ("DELETE", path.clone()),
    ] {
        let refused = editor.send(method, &path, &[], b"").await;
        refused.refused(403, "denied");
        test.stranger().send(method, &path, &[], b"").await.refused(401, "unauthenticated");
        if path != "/api/v1/jobs" {
            north.send(method, &path, &[], b"").await.refused(404, "not_found");
        }
    }
    let mine =
        admin.get("/api/v1/jobs?state=waiting&queue=content.import").await.expect(200).json();
    assert_eq!((&mine["page"]["total"], text(&mine["data"][0], "state")), (&1.into(), "waiting"));
    assert_eq!(north.get("/api/v1/jobs").await.json()["page"]["total"], 0);
    admin.get("/api/v1/jobs?state=lost").await.refused(400, "unknown_choice");
    admin.get("/api/v1/jobs/0").await.refused(404, "not_found");
    admin.get("/api/v1/jobs/x").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_is_cancelled_taken_up_again_and_forgotten() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let import = send(&admin, "format=csv", b"title\nOne\n").await;
    let path = import.replace("imports", "jobs");
    admin.post(&format!("{path}/retry"), &json!({})).await.refused(409, "job_not_stopped");
    admin.delete(&path).await.refused(409, "job_under_way");
    let job = admin.post(&format!("{path}/cancel"), &json!({})).await.expect(200).data();
    assert_eq!(text(&job, "state"), "cancelled");
    admin.post(&format!("{path}/cancel"), &json!({})).await.refused(409, "job_ended");
    admin.post(&format!("{path}/retry"), &json!({})).await.expect(200).data();
    let workers = test.node.start().await.unwrap();
    let job = ended(&test.node, &admin, &import).await;
    assert_eq!((text(&job, "state"), &job["report"]["created"]), ("done", &1.into()), "{job}");
    let events = admin_events(&test);
    for wanted in ["queued", "cancelled", "progressed", "completed"] {
        let wanted = format!("runtime.job.{wanted}");
        assert!(events.contains(&wanted), "{wanted} in {events:?}");
    }
    assert_eq!(admin.delete(&path).await.status, 204);
    admin.get(&path).await.refused(404, "not_found");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_index_is_made_again_by_a_job() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let sent = admin.post("/api/v1/search/index", &json!({})).await.expect(202);
    let path = sent.header("location").expect("a location").to_owned();
    let job = ended(&test.node, &admin, &path).await;
    assert_eq!((text(&job, "state"), text(&job, "queue")), ("done", "search.rebuild"), "{job}");
    workers.shutdown().await;
}

fn admin_events(test: &TestNode) -> Vec<String> {
    use atoll_storage::outbox::events_after;
    let events = test.node.store.read(|reader| events_after(reader, Some(test.tenant), 0, 1_000));
    events.unwrap().into_iter().map(|event| event.event_type).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_is_cancelled_and_writes_nothing_more() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let import = send(&admin, "format=csv", table(20_000, 500).as_bytes()).await;
    until(&test.node, &admin, &import, |job| job["done"].as_u64() > Some(0)).await;
    let path = import.replace("imports", "jobs");
    admin.post(&format!("{path}/cancel"), &json!({})).await.expect(200).data();
    let job = admin.get(&import).await.expect(200).data();
    let posts = admin.get("/api/v1/posts").await.json()["page"]["total"].as_u64().unwrap();
    assert_eq!(
        (text(&job, "state"), Some(posts)),
        ("cancelled", job["report"]["created"].as_u64())
    );
    assert!(posts < 20_000, "it was cancelled too late to test anything");
    admin.post(&format!("{path}/retry"), &json!({})).await.expect(200).data();
    let job = ended(&test.node, &admin, &import).await;
    assert_eq!(job["report"]["created"], 20_000, "{job}");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_done_is_a_dead_letter_at_once() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let admin = test.admin().await;
    let import = send(&admin, "format=csv", b"name\nno title\n").await;
    let job = ended(&test.node, &admin, &import).await;
    assert_eq!((text(&job, "state"), &job["attempts"]), ("dead", &1.into()), "{job}");
    assert!(text(&job, "error").contains("title") && !text(&job, "error").contains('/'), "{job}");
    let dead = admin.get("/api/v1/jobs?state=dead").await.expect(200).json();
    assert_eq!(dead["page"]["total"], 1);
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_key_may_no_more_than_the_key() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let boss = test.user("boss", Role::Admin).await;
    let scopes = [
        "posts.write",
        "posts.publish",
        "posts.administer",
        "categories.write",
        "tags.write",
        "comments.write",
        "comments.moderate",
        "jobs.administer",
    ];
    let key = json!({ "name": "robot", "scopes": scopes });
    let made = boss.post("/api/v1/api-keys", &key).await.expect(201).data();
    let robot = test.stranger().with_token(text(&made, "key"));
    let ghost = include_bytes!("../fixtures/ghost.json");
    let users =
        async || boss.get("/api/v1/users").await.expect(200).json()["page"]["total"].clone();
    let before = users().await;
    import(&test, &robot, "format=ghost", ghost).await;
    assert_eq!(users().await, before, "the key may make no accounts");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_its_process_again_and_again_is_set_aside() {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let import = send(&admin, "format=csv", b"title\nOne\n").await;
    for _ in 0..MAX_ATTEMPTS {
        // What a process leaves behind that was killed at this work.
        test.node.store.write(|tx: &mut Tx| tx.take_job(0)).await.unwrap().unwrap();
    }
    let workers = test.node.start().await.unwrap();
    let job = ended(&test.node, &admin, &import).await;
    assert_eq!(text(&job, "state"), "dead", "{job}");
    assert!(text(&job, "error").contains("again and again"), "{job}");
    let path = import.replace("imports", "jobs");
    admin.post(&format!("{path}/retry"), &json!({})).await.expect(200).data();
    assert_eq!(text(&ended(&test.node, &admin, &import).await, "state"), "done");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_and_other_tenants_get_through_while_long_jobs_run() {
    let mut office = PostOffice::open().await;
    let server = Secret(office.url());
    let test = TestNode::start_with(|config| config.mail.server = server).await;
    let workers = test.node.start().await.unwrap();
    let (admin, north) = (test.admin().await, other_tenant(&test).await);
    let large = table(20_000, 500);
    let is_ahead = |job: &Json| job["done"].as_u64() > Some(0);
    let first = send(&admin, "format=csv", large.as_bytes()).await;
    until(&test.node, &admin, &first, is_ahead).await;
    let second = send(&admin, "format=csv&name=two", b"title\nOne\n").await;
    let theirs = send(&north, "format=csv", large.as_bytes()).await;
    until(&test.node, &north, &theirs, is_ahead).await;
    let state = async |client: &Client, path: &str| {
        text(&client.get(path).await.expect(200).data(), "state").to_owned()
    };
    assert_eq!(state(&admin, &second).await, "waiting", "a tenant has one long job at a time");
    let forgot = json!({ "email": ADMIN_EMAIL });
    test.stranger().post("/api/v1/auth/forgot-password", &forgot).await.expect(204);
    office.next_to(ADMIN_EMAIL).await;
    for (client, path) in [(&admin, &first), (&north, &theirs)] {
        assert_eq!(state(client, path).await, "running", "it ended too early to test anything");
        let cancel = format!("{}/cancel", path.replace("imports", "jobs"));
        client.post(&cancel, &json!({})).await.expect(200);
    }
    assert_eq!(text(&ended(&test.node, &admin, &second).await, "state"), "done");
    workers.shutdown().await;
}
