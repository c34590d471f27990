use super::{ended, import, other_tenant, text};
use atoll_node::Role;
use atoll_storage::Clock;
use atoll_tests::harness::PASSWORD;
use atoll_tests::{Client, TestNode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Exports the tenant; the job, and the archive's bytes.
async fn export(test: &TestNode, client: &Client, query: &str) -> (Json, Vec<u8>) {
    let sent = client.post(&format!("/api/v1/exports{query}"), &json!({})).await.expect(202);
    let path = sent.header("location").unwrap().to_owned();
    let job = ended(&test.node, client, &path).await;
    assert_eq!(text(&job, "state"), "done", "{job}");
    let file = client.get(&format!("{path}/file")).await.expect(200);
    assert_eq!(file.header("content-length").map(str::to_owned), Some(file.body.len().to_string()));
    (job, file.body)
}

/// What a record is about whose id is made of that and of its tenant: in another tenant it has another id.
fn meant(kind: &str, line: &Json) -> Option<String> {
    let fields = &line["fields"];
    match kind {
        "likes" => Some(format!("{} {}", fields["target_id"], fields["user_id"])),
        "redirects" => Some(fields["path"].to_string()),
        "mail_templates" => Some(fields["name"].to_string()),
        "oidc_providers" => Some("the provider".to_owned()),
        "post_versions" if fields["first"] == true => Some(format!("first {}", fields["post_id"])),
        _ => None,
    }
}

/// The lines of each kind, by id, or by what they are about.
fn unpacked(archive: &[u8]) -> BTreeMap<String, BTreeMap<String, Json>> {
    let bytes = zstd::stream::decode_all(archive).unwrap();
    let mut kinds: BTreeMap<String, BTreeMap<String, Json>> = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut lines = String::new();
        if name.starts_with("files/") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let file = json!({ "id": name, "fields": { "size": bytes.len() } });
            kinds.entry("files".to_owned()).or_default().insert(name, file);
            continue;
        }
        entry.read_to_string(&mut lines).unwrap();
        let Some((kind, _)) = name.strip_suffix(".jsonl").and_then(|name| name.split_once('-'))
        else {
            continue;
        };
        for line in lines.lines() {
            let mut line: Json = serde_json::from_str(line).unwrap();
            let id = meant(kind, &line).unwrap_or_else(|| text(&line, "id").to_owned());
            if meant(kind, &line).is_some() {
                line["id"] = Json::Null;
            }
            assert!(kinds.entry(kind.to_owned()).or_default().insert(id, line).is_none());
        }
    }
    kinds
}

const AVATAR: &str = "/api/v1/users/profile/avatar";

/// One pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// A tenant with something of everything, written by somebody else than the admin.
async fn filled() -> (TestNode, Client) {
    let test = TestNode::start().await;
    let admin = test.admin().await;
    let ada = test.user("ada", Role::Editor).await;
    let role = json!({ "name": "Librarian", "permissions": ["tags.administer"] });
    admin.post("/api/v1/roles", &role).await.expect(201);
    let me = ada.get("/api/v1/auth/me").await.expect(200).data();
    let roles = json!({ "roles": ["editor", "Librarian"] });
    let path = format!("/api/v1/users/{}/roles", text(&me, "id"));
    admin.put(&path, &roles).await.expect(200);
    let picture = STANDARD.decode(PNG).unwrap();
    ada.send("PUT", AVATAR, &[("content-type", "image/png")], &picture).await.expect(200).data();
    let provider = json!({ "issuer": "https://id.example.org", "client_id": "atoll", "client_secret": "sesame" });
    admin.put("/api/v1/auth/oidc/provider", &provider).await.expect(200).data();
    let words = json!({ "subject": "Hello", "text": "Welcome.", "html": "<p>Welcome.</p>" });
    admin.put("/api/v1/mail/templates/welcome", &words).await.expect(200).data();
    let category = json!({ "name": "Garden" });
    let garden = ada.post("/api/v1/categories", &category).await.expect(201).data();
    let herbs = json!({ "name": "Herbs", "parent_id": garden["id"] });
    let herbs = ada.post("/api/v1/categories", &herbs).await.expect(201).data();
    let tag = ada.post("/api/v1/tags", &json!({ "name": "Green" })).await.expect(201).data();
    for title in ["Mint", "Thyme", "Sage"] {
        let post = json!({
            "title": title, "body": format!("{title}: the first text.\n"), "excerpt": "short",
            "category_id": herbs["id"], "tag_ids": [tag["id"]], "featured": title == "Sage",
        });
        let post = ada.post("/api/v1/posts", &post).await.expect(201).data();
        let path = format!("/api/v1/posts/{}", text(&post, "id"));
        match title {
            "Mint" => {
                for body in ["Mint: the second text.\n", "Mint: the third text,\nlonger.\n"] {
                    ada.put(&path, &json!({ "body": body })).await.expect(200).data();
                }
                ada.post(&format!("{path}/publish"), &json!({})).await.expect(200).data();
                ada.post(&format!("{path}/like"), &json!({})).await.expect(200).data();
                let view = json!({ "type": "view", "post_id": post["id"] }).to_string();
                for agent in ["Mozilla/5.0 one", "Mozilla/5.0 two", "Mozilla/5.0 two"] {
                    let headers = [("content-type", "application/json"), ("user-agent", agent)];
                    let seen = test.stranger();
                    let seen =
                        seen.send("POST", "/api/v1/analytics/track", &headers, view.as_bytes());
                    assert!(seen.await.status < 300);
                }
                let comment = json!({ "post_id": post["id"], "text": "Good." });
                let comment = ada.post("/api/v1/comments", &comment).await.expect(201).data();
                let reply =
                    json!({ "post_id": post["id"], "parent_id": comment["id"], "text": "Yes." });
                ada.post("/api/v1/comments", &reply).await.expect(201).data();
                let old = json!({ "path": "/old/mint", "post_id": post["id"] });
                admin.post("/api/v1/redirects", &old).await.expect(201).data();
            }
            "Thyme" => {
                let at = json!({ "publish_at": "2100-01-01T00:00:00Z" });
                ada.post(&format!("{path}/publish"), &at).await.expect(200).data();
            }
            _ => assert_eq!(ada.delete(&path).await.status, 204),
        }
    }
    (test, admin)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_imported_into_an_empty_node_gives_equal_content() {
    let (one, admin) = filled().await;
    let workers = one.node.start().await.unwrap();
    let ada = one.stranger().login("ada", PASSWORD).await;
    let key = json!({ "name": "robot", "scopes": ["posts.write"] });
    let key = ada.post("/api/v1/api-keys", &key).await.expect(201).data();
    let (job, archive) = export(&one, &admin, "?include=password_hashes").await;
    let unzipped = zstd::stream::decode_all(&archive[..]).unwrap();
    let unzipped = String::from_utf8_lossy(&unzipped);
    assert!(!unzipped.contains(text(&key, "key")) && !unzipped.contains("sesame"));
    let two = TestNode::start().await;
    let other_workers = two.node.start().await.unwrap();
    let root = two.admin().await;
    let restored = import(&two, &root, "format=atoll", &archive).await;
    assert_eq!(restored["report"]["failed"], 0, "{restored}");
    let (_, again) = export(&two, &root, "?include=password_hashes").await;

    let (mut was, mut is) = (unpacked(&archive), unpacked(&again));
    let records: usize =
        was.iter().filter(|(kind, _)| *kind != "files").map(|(_, all)| all.len()).sum();
    assert_eq!((&job["result"]["records"], &job["result"]["files"]), (&records.into(), &1.into()));
    for kind in [
        "roles",
        "users",
        "categories",
        "tags",
        "posts",
        "post_versions",
        "comments",
        "likes",
        "redirects",
        "mail_templates",
        "post_stats",
        "api_keys",
        "oidc_providers",
        "audit",
        "files",
    ] {
        assert!(was.get(kind).is_some_and(|lines| !lines.is_empty()), "{kind} were exported");
    }
    // Each node has its own tenant, and an admin of the same address.
    was.remove("tenants");
    is.remove("tenants");
    // What was done there stays there; views are counted anew, up to as many.
    assert!(is.remove("audit").is_some_and(|lines| {
        !was.remove("audit").unwrap().keys().any(|id| lines.contains_key(id))
    }));
    for line in was
        .get_mut("post_stats")
        .into_iter()
        .chain(is.get_mut("post_stats"))
        .flat_map(BTreeMap::values_mut)
    {
        (line["created_ms"], line["updated_ms"]) = (Json::Null, Json::Null);
    }
    let admins = [one.admin, two.admin].map(|admin| admin.to_string());
    was.get_mut("users").unwrap().remove(&admins[0]);
    is.get_mut("users").unwrap().remove(&admins[1]);
    for (kind, lines) in &was {
        for (id, line) in lines {
            let there = is[kind].get(id).unwrap_or_else(|| panic!("{kind} {id} is missing"));
            for field in ["created_ms", "updated_ms", "body"] {
                assert_eq!(line[field], there[field], "{field} of {kind} {id}");
            }
            for (name, value) in line["fields"].as_object().unwrap() {
                assert_eq!(value, &there["fields"][name], "{name} of {kind} {id}");
            }
            assert_eq!(line, there, "{kind} {id}");
        }
        assert_eq!(lines.len(), is[kind].len(), "{kind}");
    }
    works_there(&two, &admin).await;
    let robot = two.stranger().with_token(text(&key, "key"));
    robot.post("/api/v1/posts", &json!({ "title": "By a robot" })).await.expect(201);
    let mint = robot.get("/api/v1/posts/slug/mint").await.expect(200).data();
    let stats = format!("/api/v1/analytics/posts/{}", text(&mint, "id"));
    assert_eq!(
        root.get(&stats).await.expect(200).data()["views"],
        admin.get(&stats).await.expect(200).data()["views"]
    );
    let repeat = import(&two, &root, "format=atoll", &archive).await;
    let report = &repeat["report"];
    assert_eq!(
        (&report["created"], &report["updated"], &report["failed"]),
        (&0.into(), &0.into(), &0.into())
    );
    workers.shutdown().await;
    other_workers.shutdown().await;
}

/// What hangs on ids that are made of the tenant works under the other tenant too.
async fn works_there(two: &TestNode, admin: &Client) {
    let ada = two.stranger().login("ada", PASSWORD).await;
    let moved = two.stranger().get("/old/mint").await.expect(301);
    assert_eq!(moved.header("location"), Some("/posts/mint"));
    let mint = ada.get("/api/v1/posts/slug/mint").await.expect(200).data();
    let path = format!("/api/v1/posts/{}", text(&mint, "id"));
    for (liked, likes) in [(false, 0), (true, 1)] {
        let now = ada.post(&format!("{path}/like"), &json!({})).await.expect(200).data();
        assert_eq!((&now["liked"], &now["likes"]), (&liked.into(), &likes.into()), "{now}");
    }
    let versions = async |client: &Client| {
        client.get(&format!("{path}/versions")).await.expect(200).json()["page"]["total"].clone()
    };
    assert_eq!(versions(&ada).await, versions(admin).await);
    let me = ada.get("/api/v1/auth/me").await.expect(200).data();
    let picture = ada.get(&format!("/api/v1/users/{}/avatar", text(&me, "id"))).await.expect(200);
    assert!(picture.body.starts_with(&[0xff, 0xd8]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_tried_without_being_written() {
    let (one, admin) = filled().await;
    let workers = one.node.start().await.unwrap();
    let (_, archive) = export(&one, &admin, "").await;
    let two = TestNode::start().await;
    let other_workers = two.node.start().await.unwrap();
    let root = two.admin().await;
    let tried = import(&two, &root, "format=atoll&dry_run=true", &archive).await;
    assert_eq!(tried["report"]["failed"], 0, "{tried}");
    assert_eq!(root.get("/api/v1/posts").await.json()["page"]["total"], 0);
    let made = import(&two, &root, "format=atoll", &archive).await;
    assert_eq!(super::counts(&tried), super::counts(&made));
    workers.shutdown().await;
    other_workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_leads_to_nothing_of_another_tenant_and_beyond_no_quota() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let (admin, north) = (test.admin().await, other_tenant(&test).await);
    let theirs = json!({ "title": "Of the north", "body": "ours" });
    let theirs = north.post("/api/v1/posts", &theirs).await.expect(201).data();
    let hill =
        north.post("/api/v1/categories", &json!({ "name": "Hill" })).await.expect(201).data();
    let line = |n: u8, fields: Json| {
        let id = format!("0190b8e0-0000-7000-8000-0000000000{n:02x}");
        json!({ "id": id, "created_ms": 1, "updated_ms": 2, "fields": fields })
    };
    let title = |title: &str, more: (&str, Json)| {
        let mut fields = json!({ "title": title, "slug": title, "body": "b", "status": "draft", "visibility": "public" });
        fields[more.0] = more.1;
        fields
    };
    let posts = [
        line(1, title("own", ("featured", true.into()))),
        line(2, title("foreign", ("category_id", hill["id"].clone()))),
        line(3, title("script", ("canonical_url", "javascript:x".into()))),
        line(4, title("odd slug", ("featured", true.into()))),
    ];
    let job = import(&test, &admin, "format=atoll", &packed("posts", &posts)).await;
    assert_eq!(super::counts(&job), [1, 0, 0, 3], "{job}");
    let comment = json!({ "post_id": theirs["id"], "text": "x", "status": "approved" });
    let like = json!({ "target_kind": "post", "target_id": theirs["id"], "user_id": test.admin });
    for (kind, fields) in [("comments", comment), ("likes", like)] {
        let job = import(&test, &admin, "format=atoll", &packed(kind, &[line(9, fields)])).await;
        assert_eq!(super::counts(&job), [0, 0, 0, 1], "{kind}: {job}");
    }
    let tenant = admin.get("/api/v1/tenants/north").await.expect(200).data();
    let path = format!("/api/v1/tenants/{}", text(&tenant, "id"));
    admin.put(&path, &json!({ "quota_posts": 1 })).await.expect(200).data();
    let more = line(5, title("more", ("featured", true.into())));
    let job = import(&test, &north, "format=atoll", &packed("posts", &[more])).await;
    assert_eq!(super::counts(&job), [0, 0, 0, 1], "{job}");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_tells_no_secret_unless_it_is_asked_for_and_none_of_another_tenant() {
    let (test, admin) = filled().await;
    let workers = test.node.start().await.unwrap();
    let north = other_tenant(&test).await;
    let post = json!({ "title": "Of the north", "body": "ours" });
    north.post("/api/v1/posts", &post).await.expect(201);
    let (_, archive) = export(&test, &admin, "").await;
    let all = zstd::stream::decode_all(&archive[..]).unwrap();
    let all = String::from_utf8_lossy(&all);
    assert!(
        !all.contains("argon2") && !all.contains("Of the north") && !all.contains("head@north")
    );
    let (job, archive) = export(&test, &north, "").await;
    let kinds = unpacked(&archive);
    assert_eq!((kinds["posts"].len(), kinds["users"].len()), (1, 1));
    for rest in ["", "/file"] {
        let path = format!("/api/v1/exports/{}{rest}", text(&job, "id"));
        admin.get(&path).await.refused(404, "not_found");
    }
    workers.shutdown().await;
}

/// An archive of one kind.
fn packed(kind: &str, lines: &[Json]) -> Vec<u8> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut archive = tar::Builder::new(Vec::new());
    let files = [("atoll.json".to_owned(), json!({ "format": 1 }).to_string())];
    for (name, text) in files.into_iter().chain([(format!("{kind}-00001.jsonl"), text)]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    zstd::stream::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_gives_nobody_what_its_importer_could_not_give() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let (root, boss) = (test.admin().await, test.user("boss", Role::Admin).await);
    let root_id = test.admin.to_string();
    let before = root.get(&format!("/api/v1/users/{root_id}")).await.expect(200).data();
    let user = |id: &str, name: &str, role: &str| {
        json!({ "id": id, "created_ms": 1, "updated_ms": 4_000_000_000_000_u64, "fields": {
            "email": format!("{name}@example.org"), "username": name, "role": role,
            "status": "active", "password_hash": "x",
        } })
    };
    let new_id = "0190b8e0-0000-7000-8000-000000000001";
    let lines = [user(&root_id, "mallory", "viewer"), user(new_id, "eva", "superadmin")];
    let job = import(&test, &boss, "format=atoll", &packed("users", &lines)).await;
    assert_eq!(super::counts(&job), [1, 0, 0, 1], "{job}");
    let after = root.get(&format!("/api/v1/users/{root_id}")).await.expect(200).data();
    assert_eq!(before, after);
    let eva = root.get("/api/v1/users/eva").await.expect(200).data();
    assert_eq!((text(&eva, "id"), text(&eva, "role")), (new_id, "viewer"));

    let role = json!({ "id": "0190b8e0-0000-7000-8000-000000000002", "created_ms": 1, "fields": {
        "name": "King", "permissions": ["posts.write", "sync.administer", "tenants.administer"],
    } });
    let job = import(&test, &boss, "format=atoll", &packed("roles", &[role])).await;
    assert_eq!(super::counts(&job), [1, 0, 0, 0], "{job}");
    let king = root.get("/api/v1/roles/King").await.expect(200).data();
    assert_eq!(king["permissions"], json!(["posts.write"]));
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_lends_no_key_of_somebody_above_and_trusts_no_provider_inside() {
    let test = TestNode::start().await;
    let workers = test.node.start().await.unwrap();
    let boss = test.user("boss", Role::Admin).await;
    let me = boss.get("/api/v1/auth/me").await.expect(200).data();
    let key = |n: u8, owner: &str, hash: Json| {
        let id = format!("0190b8e0-0000-7000-8000-0000000000{n:02x}");
        let fields =
            json!({ "user_id": owner, "name": "key", "scopes": ["posts.write"], "hash": hash });
        json!({ "id": id, "created_ms": 1, "updated_ms": 2, "fields": fields })
    };
    let hash = json!("00".repeat(32));
    let keys = [
        key(1, text(&me, "id"), hash.clone()),
        key(2, &test.admin.to_string(), hash.clone()),
        key(3, text(&me, "id"), Json::Null),
        key(4, "0190b8e0-0000-7000-8000-000000000099", hash),
    ];
    let job = import(&test, &boss, "format=atoll", &packed("api_keys", &keys)).await;
    assert_eq!(super::counts(&job), [1, 0, 0, 3], "{job}");
    let provider = |issuer: &str| {
        let fields = json!({ "issuer": issuer, "client_id": "atoll" });
        json!({ "id": "0190b8e0-0000-7000-8000-000000000005", "created_ms": 1, "fields": fields })
    };
    for (issuer, counts) in [
        ("http://127.0.0.1:9", [0, 0, 0, 1]),
        ("https://id.example.org", [1, 0, 0, 0]),
        ("https://evil.example.org", [0, 0, 1, 0]),
    ] {
        let archive = packed("oidc_providers", &[provider(issuer)]);
        let job = import(&test, &boss, "format=atoll", &archive).await;
        assert_eq!(super::counts(&job), counts, "{issuer}: {job}");
    }
    let trusted = boss.get("/api/v1/auth/oidc/provider").await.expect(200).data();
    assert_eq!(text(&trusted, "issuer"), "https://id.example.org");
    let stats = json!({ "id": "0190b8e0-0000-7000-8000-000000000006", "fields": { "views": 7 } });
    let job = import(&test, &boss, "format=atoll", &packed("post_stats", &[stats])).await;
    assert_eq!(super::counts(&job), [0, 0, 0, 1], "{job}");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_imported_before_an_export_is_found_again_after_it_in_another_tenant() {
    let (one, two) = (TestNode::start().await, TestNode::start().await);
    let (workers, other_workers) =
        (one.node.start().await.unwrap(), two.node.start().await.unwrap());
    let (admin, root) = (one.admin().await, two.admin().await);
    let blog = include_bytes!("../fixtures/wordpress-blocks.xml");
    let made = import(&one, &admin, "format=wordpress", blog).await;
    let (_, archive) = export(&one, &admin, "").await;
    let restored = import(&two, &root, "format=atoll", &archive).await;
    assert_eq!(restored["report"]["failed"], 0, "{restored}");
    let totals = async |client: &Client| {
        let mut totals = Vec::new();
        for list in ["posts", "comments", "categories", "tags", "users", "redirects"] {
            let page = client.get(&format!("/api/v1/{list}")).await.expect(200).json();
            totals.push(page["page"]["total"].as_u64().unwrap());
        }
        totals
    };
    let before = totals(&root).await;
    let again = import(&two, &root, "format=wordpress", blog).await;
    let posts = made["report"]["created"].as_u64().unwrap();
    assert_eq!(super::counts(&again), [0, 0, posts, 0], "{again}");
    assert_eq!(totals(&root).await, before);
    // What changed in the blog meanwhile changes here, and its comments are not doubled.
    let changed = String::from_utf8_lossy(blog).replace("First line", "The first line");
    let changed = import(&two, &root, "format=wordpress", changed.as_bytes()).await;
    assert_eq!(super::counts(&changed), [0, 1, posts - 1, 0], "{changed}");
    assert_eq!(totals(&root).await, before);
    workers.shutdown().await;
    other_workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_can_be_fetched_for_two_days() {
    let start_ms = Clock::system().now_ms();
    let passed_ms = Arc::new(AtomicU64::new(0));
    let passed = passed_ms.clone();
    let clock = Clock::from_fn(move || start_ms + passed.load(Ordering::SeqCst));
    let test = TestNode::start_at(clock).await;
    let workers = test.node.start().await.unwrap();
    let (job, _) = export(&test, &test.admin().await, "").await;
    let path = format!("/api/v1/exports/{}/file", text(&job, "id"));
    passed_ms.store(47 * 3_600_000, Ordering::SeqCst);
    test.admin().await.get(&path).await.expect(200).header("etag").unwrap();
    passed_ms.store(49 * 3_600_000, Ordering::SeqCst);
    test.admin().await.get(&path).await.refused(404, "not_found");
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_fetched_in_parts_by_who_may() {
    let (test, admin) = filled().await;
    let editor = test.user("eva", Role::Editor).await;
    editor.post("/api/v1/exports", &json!({})).await.refused(403, "denied");
    admin.post("/api/v1/exports?include=keys", &json!({})).await.refused(400, "unknown_choice");
    let sent = admin.post("/api/v1/exports", &json!({})).await.expect(202);
    let path = sent.header("location").unwrap().to_owned();
    let file = format!("{path}/file");
    admin.get(&file).await.refused(409, "not_ready");
    let workers = test.node.start().await.unwrap();
    ended(&test.node, &admin, &path).await;
    editor.get(&file).await.refused(403, "denied");
    let whole = admin.get(&file).await.expect(200);
    let size = whole.body.len();
    let part = admin.send("GET", &file, &[("range", "bytes=10-19")], b"").await.expect(206);
    assert_eq!(part.body, whole.body[10..20]);
    assert_eq!(part.header("content-range"), Some(format!("bytes 10-19/{size}").as_str()));
    let tail = admin.send("GET", &file, &[("range", "bytes=-5")], b"").await.expect(206);
    assert_eq!(tail.body, whole.body[size - 5..]);
    let stale = [("range", "bytes=0-1"), ("if-range", "\"other\"")];
    assert_eq!(admin.send("GET", &file, &stale, b"").await.expect(200).body.len(), size);
    let beyond = format!("bytes={size}-");
    let refused = admin.send("GET", &file, &[("range", &beyond)], b"").await;
    refused.refused(416, "range_not_satisfiable");
    let squeezed = admin.send("GET", &file, &[("accept-encoding", "gzip")], b"").await.expect(200);
    assert_eq!(squeezed.header("content-encoding"), None);
    workers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_stands_in_its_place_once_it_is_whole() {
    let (test, _) = filled().await;
    let actor = atoll_node::Actor::system(test.tenant);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("all.tar.zst");
    // What a killed process left.
    std::fs::write(folder.path().join("all.tar.zst.unfinished"), vec![b'x'; 1 << 20]).unwrap();
    let run = |tell: &dyn Fn()| {
        let order = atoll_node::exchange::export::Order::default();
        atoll_node::exchange::export::run(&test.node, &actor, order, &to, |_, _| tell())
    };
    run(&|| assert!(!to.exists(), "not before it is whole")).unwrap();
    let first = std::fs::read(&to).unwrap();
    assert!(!unpacked(&first).is_empty());
    // Another one takes its place once it is whole.
    run(&|| {
        assert_eq!(std::fs::read(&to).unwrap(), first);
        let refused = run(&|| {}).unwrap_err();
        assert!(refused.to_string().contains("another process is making it"), "{refused}");
    })
    .unwrap();
    assert!(!unpacked(&std::fs::read(&to).unwrap()).is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
