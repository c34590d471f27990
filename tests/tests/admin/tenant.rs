use super::{fields, id_of, tenant_of, text};
use atoll_node::Role;
use atoll_node::identity::tenant;
use atoll_node::kinds;
use atoll_storage::{Clock, Id, Query, Read};
use atoll_tests::TestNode;
use atoll_tests::harness::PASSWORD;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

#[tokio::test]
async fn an_administrator_sets_up_his_own_tenant_and_the_public_sees_its_look() {
    let test = TestNode::start().await;
    let (id, head) = tenant_of(&test, "north", "head").await;
    let root = test.admin().await;
    let domain = json!({ "domain": "north.example.org" });
    root.put("/api/v1/tenants/north", &domain).await.expect(200).data();
    let look = json!({
        "name": "The North", "locale": "pt-BR", "time_zone": "Europe/Berlin", "logo_url": "/logo.svg",
        "colours": "#102030 #ffffff", "default_visibility": "members", "comments": "closed",
    });
    let set = head.put("/api/v1/tenant", &look).await.expect(200).data();
    assert_eq!((text(&set, "id"), text(&set, "locale")), (id.as_str(), "pt-BR"));
    assert_eq!(head.get("/api/v1/tenant").await.expect(200).data()["comments"], "closed");
    let public = test.stranger().get("/api/v1/tenants/by-domain/north.example.org").await;
    let public = public.expect(200).data();
    assert_eq!(
        (text(&public, "name"), text(&public, "logo_url"), text(&public, "colours")),
        ("The North", "/logo.svg", "#102030 #ffffff")
    );
    assert!(public.get("quota_users").is_none() && public.get("comments").is_none(), "{public}");

    // What was set holds.
    let post =
        head.post("/api/v1/posts", &json!({ "title": "x", "body": "x" })).await.expect(201).data();
    assert_eq!(text(&post, "visibility"), "members");
    let comment = json!({ "post_id": post["id"], "text": "x" });
    head.post("/api/v1/comments", &comment).await.refused(409, "comments_closed");
    head.put("/api/v1/tenant", &json!({ "comments": "moderated" })).await.expect(200).data();
    let publish = format!("/api/v1/posts/{}/publish", text(&post, "id"));
    head.post(&publish, &json!({})).await.expect(200).data();
    let north = atoll_storage::Id::parse(&id).unwrap();
    test.make_user(north, "ada", Role::Viewer).await;
    let ada = test.stranger().in_tenant("north").login("ada", PASSWORD).await;
    let waits = ada.post("/api/v1/comments", &comment).await.expect(201).data();
    assert_eq!(text(&waits, "status"), "pending");
    head.put("/api/v1/tenant", &json!({ "comments": "open" })).await.expect(200).data();
    let open = ada.post("/api/v1/comments", &comment).await.expect(201).data();
    assert_eq!(text(&open, "status"), "approved");
}

#[tokio::test]
async fn settings_that_make_no_sense_or_are_not_his_to_change_are_named() {
    let test = TestNode::start().await;
    let (_, head) = tenant_of(&test, "north", "head").await;
    let bad = json!({ "locale": "en_GB", "time_zone": "berlin", "logo_url": "javascript:alert(1)", "colours": "red" });
    let refused = head.put("/api/v1/tenant", &bad).await;
    refused.refused(422, "invalid");
    assert_eq!(fields(&refused.json()), ["locale", "time_zone", "logo_url", "colours"]);
    for foreign in
        [json!({ "slug": "south" }), json!({ "quota_users": 1_000 }), json!({ "domain": "x.y" })]
    {
        let refused = head.put("/api/v1/tenant", &foreign).await;
        refused.refused(422, "invalid");
        assert_eq!(refused.json()["errors"][0]["code"], "read_only");
    }
    head.put("/api/v1/tenant", &json!({ "comments": "maybe" })).await.refused(422, "invalid");
    let negative = json!({ "quota_posts": -1 });
    test.admin().await.put("/api/v1/tenants/north", &negative).await.refused(422, "invalid");
    let editor = test.user("edi", Role::Editor).await;
    editor.get("/api/v1/tenant").await.refused(403, "denied");
    editor.put("/api/v1/tenant", &json!({})).await.refused(403, "denied");
}

#[tokio::test]
async fn a_tenant_holds_no_more_than_its_quotas() {
    let test = TestNode::start().await;
    let (id, head) = tenant_of(&test, "north", "head").await;
    let root = test.admin().await;
    let limits =
        async |limits: Json| root.put("/api/v1/tenants/north", &limits).await.expect(200).data();
    limits(json!({ "quota_users": 3, "quota_posts": 3 })).await;
    let user = |name: &str| json!({ "email": format!("{name}@example.org"), "username": name, "password": PASSWORD });
    head.post("/api/v1/users", &user("ada")).await.expect(201).data();
    let bob = test.stranger().in_tenant("north").post("/api/v1/auth/register", &user("bob")).await;
    let bob = bob.expect(201).data();
    let full = head.post("/api/v1/users", &user("cyd")).await;
    full.refused(409, "quota_reached");
    assert!(full.text().contains("quota_users"), "{}", full.text());
    let csv = [("content-type", "text/csv")];
    let table = b"email,password\ncyd@example.org,a long enough password\n";
    for query in ["", "?dry_run=true"] {
        let path = format!("/api/v1/users/import{query}");
        let report = head.send("POST", &path, &csv, table).await.expect(200).data();
        assert_eq!(report["rows"][0]["errors"][0]["code"], "quota_reached", "{report}");
    }
    // A deleted account makes room.
    assert_eq!(head.delete(&format!("/api/v1/users/{}", text(&bob, "id"))).await.status, 204);
    head.post("/api/v1/users", &user("cyd")).await.expect(201).data();

    let post = |body: &str| json!({ "title": "x", "body": body });
    let first = head.post("/api/v1/posts", &post(&"a".repeat(600))).await.expect(201).data();
    let first = format!("/api/v1/posts/{}", text(&first, "id"));
    limits(json!({ "quota_storage_bytes": 1_000 })).await;
    head.post("/api/v1/posts", &post(&"b".repeat(401))).await.refused(409, "quota_reached");
    head.post("/api/v1/posts", &post(&"b".repeat(300))).await.expect(201).data();
    head.put(&first, &json!({ "body": "a".repeat(701) })).await.refused(409, "quota_reached");
    head.put(&first, &json!({ "body": "a".repeat(100) })).await.expect(200).data();
    head.post("/api/v1/posts", &post("c")).await.expect(201).data();
    let full = head.post("/api/v1/posts", &post("d")).await;
    full.refused(409, "quota_reached");
    assert!(full.text().contains("quota_posts"), "{}", full.text());

    let path = format!("/api/v1/tenants/{id}/statistics");
    let figures = head.get(&path).await.expect(200).data();
    assert_eq!(
        (&figures["users"], &figures["posts"], &figures["storage_bytes"]),
        (&json!(4), &json!(3), &json!(401))
    );
    assert_eq!(figures["users_by_status"], json!({ "active": 3, "disabled": 0, "deleted": 1 }));
    assert_eq!(figures["posts_by_status"]["draft"], 3);
    assert_eq!(figures["quotas"], json!({ "users": 3, "posts": 3, "storage_bytes": 1_000 }));
    limits(json!({ "quota_users": null, "quota_posts": null, "quota_storage_bytes": null })).await;
    head.post("/api/v1/posts", &post(&"e".repeat(2_000))).await.expect(201).data();
    // Of no other tenant than one's own.
    head.get(&format!("/api/v1/tenants/{}/statistics", test.tenant))
        .await
        .refused(404, "not_found");
    root.get("/api/v1/tenants/north/statistics").await.expect(200).data();
    let editor = test.user("edi", Role::Editor).await;
    editor.get("/api/v1/tenants/default/statistics").await.refused(403, "denied");
}

#[tokio::test]
async fn a_deleted_tenant_lets_nobody_in_until_it_is_restored() {
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let read = now.clone();
    let test = TestNode::start_at(Clock::from_fn(move || read.load(Ordering::SeqCst))).await;
    let (id, head) = tenant_of(&test, "north", "head").await;
    let root = test.admin().await;
    let me = id_of(&head).await;
    let domain = json!({ "domain": "north.example.org" });
    root.put("/api/v1/tenants/north", &domain).await.expect(200).data();
    let host = [("host", "north.example.org")];
    let visit = async || test.stranger().send("GET", "/api/v1/users/head", &host, b"").await;
    visit().await.expect(200).data();
    // Outside the default tenant the highest role reaches no further than the tenant.
    let role = json!({ "role": "superadmin" });
    root.in_tenant("north")
        .put(&format!("/api/v1/users/{me}/role"), &role)
        .await
        .expect(200)
        .data();
    let login = json!({ "login": "head", "password": PASSWORD });
    let tokens = head.post("/api/v1/auth/login", &login).await.expect(200).data();
    let abroad = head.in_tenant("default");
    abroad.get("/api/v1/auth/me").await.refused(401, "token_of_another_tenant");
    assert_eq!(root.delete("/api/v1/tenants/north").await.status, 204);
    head.get("/api/v1/auth/me").await.refused(404, "not_found");
    abroad.get("/api/v1/auth/me").await.refused(401, "session_ended");
    visit().await.refused(404, "not_found");
    test.stranger()
        .get("/api/v1/tenants/by-domain/north.example.org")
        .await
        .refused(404, "not_found");
    let refresh = json!({ "refresh_token": tokens["refresh_token"] });
    test.stranger().post("/api/v1/auth/refresh", &refresh).await.refused(401, "session_ended");
    root.get("/api/v1/tenants/north").await.refused(404, "not_found");
    let count = async |query: &str| {
        root.get(&format!("/api/v1/tenants{query}")).await.expect(200).json()["page"]["total"]
            .clone()
    };
    assert_eq!((count("").await, count("?deleted=true").await), (json!(1), json!(1)));
    let admin = json!({ "email": "x@y.z", "username": "xyz", "password": PASSWORD });
    let again = json!({ "name": "Another", "slug": "north", "admin": admin });
    root.post("/api/v1/tenants", &again).await.refused(409, "taken");

    root.post(&format!("/api/v1/tenants/{id}/restore"), &json!({})).await.expect(200).data();
    head.get("/api/v1/auth/me").await.expect(200).data();
    visit().await.expect(200).data();
    assert_eq!(root.delete("/api/v1/tenants/north").await.status, 204);
    assert_eq!(tenant::sweep(&test.node).await.unwrap(), 0);
    now.fetch_add(30 * 24 * 3_600_000 + 1_000, Ordering::SeqCst);
    let root = test.admin().await;
    root.post(&format!("/api/v1/tenants/{id}/restore"), &json!({})).await.refused(409, "purged");
    assert_eq!(tenant::sweep(&test.node).await.unwrap(), 1);
    root.post(&format!("/api/v1/tenants/{id}/restore"), &json!({})).await.refused(404, "not_found");
    root.post("/api/v1/tenants", &again).await.expect(201).data();
    let editor = test.user("edi", Role::Editor).await;
    editor.post("/api/v1/tenants/default/restore", &json!({})).await.refused(403, "denied");
}

#[tokio::test]
async fn an_open_event_stream_ends_with_its_tenant() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let test = TestNode::start().await;
    let (_, head) = tenant_of(&test, "north", "head").await;
    let mut stream = tokio::net::TcpStream::connect(test.address).await.unwrap();
    let token = head.token.clone().unwrap_or_default();
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: x\r\nx-tenant: north\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut seen, mut bytes) = (String::new(), [0; 4_096]);
    while !seen.contains("retry:") {
        let read = stream.read(&mut bytes).await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    // The deletion is itself an event of the tenant, and nobody may hear of it any more.
    let root = test.admin().await;
    assert_eq!(root.delete("/api/v1/tenants/north").await.status, 204);
    while !seen.ends_with("0\r\n\r\n") {
        let read =
            tokio::time::timeout(std::time::Duration::from_secs(20), stream.read(&mut bytes));
        let read = read.await.expect("the stream ends in time").unwrap();
        if read == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    assert!(!seen.contains("cortex.tenant.deleted"), "{seen}");
}

/// Records of every kind that are in the tenant.
fn records_of(test: &TestNode, tenant: Id) -> u64 {
    let count =
        |kind| test.node.store.read(|reader| reader.count(&Query::of(kind, tenant))).unwrap();
    kinds::ALL.iter().copied().map(count).sum()
}

#[test]
fn what_was_in_a_deleted_tenant_goes_for_good_also_after_a_kill_in_between() {
    let now_ms = Clock::system().now_ms();
    let first = Runtime::new().unwrap();
    let (folder, tenant, root, (gone, kept), before) = first.block_on(async {
        // As it stood forty days ago.
        let clock = Clock::from_fn(move || now_ms - 40 * 24 * 3_600_000);
        let test = TestNode::start_at(clock).await;
        let mut ids = Vec::new();
        for name in ["north", "south"] {
            let (id, head) = tenant_of(&test, name, &format!("{name}-head")).await;
            let category = json!({ "name": "Hill" });
            let category = head.post("/api/v1/categories", &category).await.expect(201).data();
            for n in 0..20 {
                let post = json!({ "title": format!("{name} {n}"), "body": "zebra", "category_id": category["id"] });
                let post = head.post("/api/v1/posts", &post).await.expect(201).data();
                let path = format!("/api/v1/posts/{}", text(&post, "id"));
                head.put(&path, &json!({ "body": "zebras" })).await.expect(200);
                head.post(&format!("{path}/publish"), &json!({})).await.expect(200);
                let said = json!({ "post_id": post["id"], "text": "zebra" });
                head.post("/api/v1/comments", &said).await.expect(201);
            }
            ids.push(Id::parse(&id).unwrap());
        }
        test.node.feed_search().unwrap();
        let root = test.admin().await;
        root.delete("/api/v1/tenants/north").await.expect(204);
        assert_eq!(tenant::sweep(&test.node).await.unwrap(), 0, "it is kept for thirty days");
        assert!(records_of(&test, ids[0]) > 100);
        let before = records_of(&test, ids[1]);
        let store = test.node.store.clone();
        tokio::task::spawn_blocking(move || store.close()).await.unwrap();
        let (tenant, root) = (test.tenant, test.admin);
        (test.into_folder(), tenant, root, (ids[0], ids[1]), before)
    });
    first.shutdown_timeout(Duration::from_secs(60));
    let second = Runtime::new().unwrap();
    let folder = second.block_on(async {
        let test = TestNode::reopen(folder, tenant, root).await;
        let all = records_of(&test, gone);
        assert_eq!(tenant::sweep_some(&test.node, 50).await.unwrap(), 0);
        let left = records_of(&test, gone);
        assert!(0 < left && left < all, "{left} of {all}");
        let root = test.admin().await;
        root.post("/api/v1/tenants/north/restore", &json!({})).await.refused(409, "purged");
        let store = test.node.store.clone();
        tokio::task::spawn_blocking(move || store.close()).await.unwrap();
        test.into_folder()
    });
    second.shutdown_timeout(Duration::from_secs(60));
    let third = Runtime::new().unwrap();
    third.block_on(async {
        let test = TestNode::reopen(folder, tenant, root).await;
        assert!(records_of(&test, gone) > 0, "it was cut off in between");
        assert_eq!(tenant::sweep(&test.node).await.unwrap(), 1);
        assert_eq!((records_of(&test, gone), records_of(&test, kept)), (0, before));
        let root = test.admin().await;
        root.get("/api/v1/tenants/north").await.refused(404, "not_found");
        root.post("/api/v1/tenants/north/restore", &json!({})).await.refused(404, "not_found");
        test.node.feed_search().unwrap();
        assert_eq!(test.node.search.count(), 40, "what the other tenant has is found");
        assert_eq!(test.node.store.verify().unwrap().problems, Vec::<String>::new());
        assert_eq!(tenant::sweep(&test.node).await.unwrap(), 0);
    });
}

#[tokio::test]
async fn a_tenant_that_is_kept_for_good_is_not_removed_and_comes_back() {
    let now = Arc::new(AtomicU64::new(1_800_000_000_000));
    let read = now.clone();
    let clock = Clock::from_fn(move || read.load(Ordering::SeqCst));
    let test = TestNode::start_with_at(|config| config.tenants.keep_days = 0, clock).await;
    tenant_of(&test, "north", "head").await;
    test.admin().await.delete("/api/v1/tenants/north").await.expect(204);
    now.fetch_add(4_000 * 24 * 3_600_000, Ordering::SeqCst);
    assert_eq!(tenant::sweep(&test.node).await.unwrap(), 0);
    let root = test.admin().await;
    root.post("/api/v1/tenants/north/restore", &json!({})).await.expect(200);
    test.stranger().in_tenant("north").login("head", PASSWORD).await;
}
