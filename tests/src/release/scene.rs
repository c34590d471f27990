//! What happens on the node whose folder is kept: people of three tenants write, also on a second node, apart from each
//! other; a node is removed, a log is trimmed, and ops come that this release cannot read.

use super::{Answered, Told, ask, root, streams};
use crate::harness::{Client, PASSWORD, TestNode};
use atoll_node::content::post::{self, POST};
use atoll_node::runtime::Workers;
use atoll_node::{Actor, Role, peer};
use atoll_storage::op::{BodyEdit, BodyWrite, CellWrite, Write};
use atoll_storage::{
    Clock, Dot, Hlc, Id, NodeId, Op, Origin, Payload, Read, Replica, StreamId, Value, Vector,
};
use serde_json::{Value as Json, json};
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const WORDS: [&str; 12] = [
    "tide", "reef", "lagoon", "palm", "gull", "sand", "shell", "harbour", "mast", "rope", "salt",
    "wind",
];

/// Plays it all. The folder, closed, and what was told of it at the end.
pub async fn play() -> (TempDir, Told) {
    let a = TestNode::start_with(|config| config.name = "reef".into()).await;
    let b = TestNode::start_empty(|config| config.name = "shore".into()).await;
    let workers = [a.node.start().await.unwrap(), b.node.start().await.unwrap()];
    let admin = a.admin().await;
    let tenants = found(&a, &admin).await;
    for (place, tenant) in tenants.iter().enumerate() {
        write(&a, &admin.in_tenant(tenant), tenant, place).await;
    }
    join(&a, &b).await;
    until_equal(&a, &b).await;
    part(&a, &b, &admin, &tenants[0]).await;
    remove_a_node(&a, &admin).await;
    forget_and_erase(&a, &admin, &tenants[1]).await;
    until_equal(&a, &b).await;
    stop(workers).await;
    b.close().await;
    // With nobody at work in it any more, what is told stays true.
    let (tenant, root_admin) = (a.tenant, a.admin);
    let a = TestNode::reopen(a.close().await, tenant, root_admin).await;
    let admin = Client { address: a.address, ..admin };
    from_elsewhere(&a, &admin, &tenants[0]).await;
    a.node.feed_search().unwrap();
    let answers = answers(&a, &admin, &tenants).await;
    let told = Told {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        made_ms: Clock::system().now_ms(),
        tenant: a.tenant,
        admin: a.admin,
        root: root(&a),
        streams: streams(&a),
        answers,
    };
    (a.close().await, told)
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("{name} in {json}"))
}

/// Words without end from a number, so that a run is like another.
fn words(seed: usize, count: usize) -> String {
    let word = |n: usize| WORDS[(seed * 31 + n * n + n * 7) % WORDS.len()];
    let lines = (0..count.div_ceil(8))
        .map(|line| (line * 8..count.min(line * 8 + 8)).map(word).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

/// A gif of one pixel, each in another colour.
fn picture(colour: u8) -> Vec<u8> {
    let mut bytes = b"GIF89a\x01\x00\x01\x00\x80\x00\x00".to_vec();
    bytes.extend([colour, 100, 255 - colour, 0, 0, 0]);
    bytes.extend(b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b");
    bytes
}

/// Three tenants with people who have pictures, a role of their own and an API key.
async fn found(a: &TestNode, admin: &Client) -> Vec<String> {
    let mut tenants = vec![a.tenant.to_string()];
    for slug in ["north", "south"] {
        let head = json!({
            "email": format!("head-{slug}@example.org"), "username": format!("head-{slug}"), "password": PASSWORD,
        });
        let tenant = json!({ "name": slug, "slug": slug, "admin": head });
        let made = admin.post("/api/v1/tenants", &tenant).await.expect(201).data();
        tenants.push(text(&made, "id").to_owned());
    }
    for (n, tenant) in tenants.iter().enumerate() {
        for (m, (name, role)) in
            [("ada", Role::Editor), ("ben", Role::Editor), ("cora", Role::Viewer)]
                .into_iter()
                .enumerate()
        {
            let name = format!("{name}{n}");
            a.make_user(Id::parse(tenant).unwrap(), &name, role).await;
            let user = a.stranger().in_tenant(tenant).login(&name, PASSWORD).await;
            let gif = [("content-type", "image/gif")];
            let picture = picture((n * 3 + m) as u8 * 20);
            user.send("PUT", "/api/v1/users/profile/avatar", &gif, &picture).await.expect(200);
        }
    }
    admin.post("/api/v1/api-keys", &json!({ "name": "a script" })).await.expect(201);
    tenants
}

/// Categories, tags, and posts in every state, with versions, comments and likes.
async fn write(a: &TestNode, admin: &Client, tenant: &str, place: usize) {
    let parent =
        admin.post("/api/v1/categories", &json!({ "name": "Coast" })).await.expect(201).data();
    let child = json!({ "name": "Islands", "parent_id": parent["id"] });
    let child = admin.post("/api/v1/categories", &child).await.expect(201).data();
    for category in [&parent, &child] {
        let approve = format!("/api/v1/categories/{}/approve", text(category, "id"));
        admin.post(&approve, &json!({})).await.expect(200);
    }
    let tag = admin.post("/api/v1/tags", &json!({ "name": "Weather" })).await.expect(201).data();
    let readers = [("ada", true), ("cora", false)];
    for n in 0..10_usize {
        let draft = json!({
            "title": format!("Letter {n} of {}", words(n + place, 3)), "body": words(n, 120),
            "category_id": child["id"], "tag_ids": if n % 2 == 0 { json!([tag["id"]]) } else { json!([]) },
        });
        let made = admin.post("/api/v1/posts", &draft).await.expect(201).data();
        let path = format!("/api/v1/posts/{}", text(&made, "id"));
        for edit in 0..n % 3 {
            let body = format!("{}\n{} once more", words(n, 100), words(edit + 40, 20));
            admin.put(&path, &json!({ "body": body })).await.expect(200);
        }
        match n {
            7 => {
                let later = json!({ "publish_at": "2100-01-01T00:00:00Z" });
                admin.post(&format!("{path}/publish"), &later).await.expect(200);
            }
            8 => drop(admin.delete(&path).await.expect(204)),
            9 => drop(admin.delete(&format!("{path}?purge=true")).await.expect(204)),
            6 => {
                let draft = json!({ "body": "Not said yet." });
                admin.put(&format!("{path}/autosave"), &draft).await.expect(200);
            }
            _ => {
                admin.post(&format!("{path}/publish"), &json!({})).await.expect(200);
                for (name, likes) in readers {
                    let name = format!("{name}{place}");
                    let user = a.stranger().in_tenant(tenant).login(&name, PASSWORD).await;
                    if likes {
                        user.post(&format!("{path}/like"), &json!({})).await.expect(200);
                    }
                    let said = json!({ "post_id": made["id"], "text": words(n + 60, 12) });
                    let said = user.post("/api/v1/comments", &said).await.expect(201).data();
                    let reply = json!({ "post_id": made["id"], "parent_id": said["id"], "text": "So it is." });
                    admin
                        .post(
                            &format!("/api/v1/comments/{}/approve", text(&said, "id")),
                            &json!({}),
                        )
                        .await;
                    admin.post("/api/v1/comments", &reply).await.expect(201);
                }
            }
        }
    }
}

/// Both nodes write what the other one does not see, and meet again.
async fn part(a: &TestNode, b: &TestNode, admin: &Client, tenant: &str) {
    let here = admin.in_tenant(tenant);
    let there = Client { address: b.address, ..here.clone() };
    let listed =
        here.get("/api/v1/posts?sort=created_at&limit=5&status=published").await.expect(200).data();
    let ids: Vec<String> =
        listed.as_array().unwrap().iter().map(|post| text(post, "id").to_owned()).collect();
    let path = |n: usize| format!("/api/v1/posts/{}", ids[n]);
    for node in [a, b] {
        node.node.sync().unwrap().pause();
    }
    for (client, word) in [(&here, "reef"), (&there, "shore")] {
        let body = if word == "reef" {
            format!("{word}\n{}", words(0, 100))
        } else {
            format!("{}\n{word}", words(0, 100))
        };
        client
            .put(&path(0), &json!({ "title": format!("Seen from the {word}") }))
            .await
            .expect(200);
        client.put(&path(1), &json!({ "body": body })).await.expect(200);
        let taken = json!({ "title": "Arrival", "slug": "arrival", "body": word });
        client.post("/api/v1/posts", &taken).await.expect(201);
        client.post(&format!("{}/like", path(2)), &json!({})).await.expect(200);
        let form = json!({ "email": "same@example.org", "username": format!("same-{word}"), "password": PASSWORD });
        client.post("/api/v1/auth/register", &form).await.expect(201);
    }
    // A removal that the other node's edit overrules, and one that stands.
    here.delete(&path(3)).await.expect(204);
    there.put(&path(3), &json!({ "body": "It goes on." })).await.expect(200);
    here.delete(&format!("{}?purge=true", path(4))).await.expect(204);
    there.put(&path(4), &json!({ "title": "It does not go on." })).await.expect(200);
    for node in [a, b] {
        node.node.sync().unwrap().resume();
    }
    until_equal(a, b).await;
}

/// A third node that joined once, and was lost.
async fn remove_a_node(a: &TestNode, admin: &Client) {
    let lost = TestNode::start_empty(|config| config.name = "lost".into()).await;
    let worker = lost.node.start().await.unwrap();
    join(a, &lost).await;
    until_equal(a, &lost).await;
    let path = format!("/api/v1/sync/peers/{}?everywhere=true&reason=stolen", lost.node.id());
    admin.delete_with(&path, &json!({ "password": PASSWORD })).await.expect(204);
    worker.shutdown().await;
}

/// An account is erased, and a part of the log goes.
async fn forget_and_erase(a: &TestNode, admin: &Client, tenant: &str) {
    let admin = admin.in_tenant(tenant);
    let users = admin.get("/api/v1/users?limit=100").await.expect(200).data();
    let ben = users
        .as_array()
        .unwrap()
        .iter()
        .find(|user| text(user, "username").starts_with("ben"))
        .unwrap();
    admin.delete(&format!("/api/v1/users/{}", text(ben, "id"))).await.expect(204);
    while a.node.store.erase_step(1_000).unwrap() {}
    let stream = StreamId::new(Id::parse(tenant).unwrap(), "content");
    let mut replica = a.node.store.clone();
    let head = replica.head(&stream).unwrap().unwrap();
    let half: Vector =
        Vector(head.vector.0.iter().map(|(origin, seq)| (*origin, seq / 2)).collect());
    assert!(a.node.store.trim(stream, half).unwrap() > 0);
}

/// Ops that this release must keep and pass on though it cannot read them: a kind and a field that it does not know, and
/// a change that is none.
async fn from_elsewhere(a: &TestNode, admin: &Client, tenant: &str) {
    let origin = Origin { node: NodeId([0xee; 16]), epoch: 1 };
    let tenant_id = Id::parse(tenant).unwrap();
    let listed = admin
        .in_tenant(tenant)
        .get("/api/v1/posts?limit=1&status=published")
        .await
        .expect(200)
        .data();
    let key = Id::parse(text(&listed[0], "id")).unwrap();
    let post = a.node.store.read(|reader| reader.get_full(&POST, key)).unwrap().unwrap();
    let cell =
        |field, value: &str| CellWrite { field, element: None, value: Some(Value::from(value)) };
    let op = |scope: &str, seq, kind, schema, key, write| Op {
        stream: StreamId::new(tenant_id, scope),
        dot: Dot { origin, seq },
        hlc: Hlc(Clock::system().now_ms() << 16),
        kind,
        schema,
        key,
        payload: Payload::Write(write),
    };
    let alien = Write {
        creates: true,
        cells: vec![cell(1, "of a kind that comes later"), cell(2, "all of it")],
        bodies: vec![BodyWrite { field: 3, edit: BodyEdit::Born("a text of later".to_owned()) }],
        ..Write::default()
    };
    let newer = Write {
        seen: post.state.seen(),
        cells: vec![cell(4_000, "of a field that comes later")],
        ..Write::default()
    };
    let creation = post.state.body(post::BODY.code).unwrap().creation;
    let garbage =
        BodyEdit::Change { creation, bytes: (0..40_u8).map(|n| n.wrapping_mul(37)).collect() };
    let broken = Write {
        seen: post.state.seen(),
        bodies: vec![BodyWrite { field: post::BODY.code, edit: garbage }],
        ..Write::default()
    };
    let ops = vec![
        op("later", 1, 9_999, 1, Id::natural(&[b"alien"]), alien),
        op("content", 1, POST.code, POST.schema + 1, key, newer),
        op("content", 2, POST.code, POST.schema, key, broken),
    ];
    let applied = a.node.store.clone().apply(ops).unwrap();
    assert_eq!(applied.quarantined, 1);
}

/// What the node says of all that, to the administrator.
async fn answers(a: &TestNode, admin: &Client, tenants: &[String]) -> Vec<Answered> {
    let mut answers = Vec::new();
    for tenant in tenants {
        for path in [
            "/api/v1/posts?sort=created_at&limit=100&expand=counts",
            "/api/v1/comments?sort=created_at&limit=100",
            "/api/v1/categories?limit=100",
            "/api/v1/tags?limit=100",
            "/api/v1/users?sort=username&limit=100",
            "/api/v1/roles",
            "/api/v1/search?q=harbour",
        ] {
            answers.push(answered(a, admin, tenant, path, true).await);
        }
        let posts = answers[answers.len() - 7].data.as_array().unwrap().clone();
        for post in &posts {
            for part in ["", "/versions", "/comments?limit=100"] {
                let path = format!("/api/v1/posts/{}{part}", text(post, "id"));
                answers.push(answered(a, admin, tenant, &path, true).await);
            }
        }
        // Its own: entries on writes to deleted records, and what it could not read.
        answers.push(answered(a, admin, tenant, "/api/v1/sync/conflicts?limit=100", false).await);
    }
    for (path, is_shared) in [
        ("/api/v1/tenants", true),
        ("/api/v1/sync/removed", true),
        ("/api/v1/sync/quarantine", false),
    ] {
        answers.push(answered(a, admin, &tenants[0], path, is_shared).await);
    }
    answers
}

async fn answered(
    a: &TestNode,
    admin: &Client,
    tenant: &str,
    path: &str,
    is_shared: bool,
) -> Answered {
    let data = ask(a, admin, tenant, path).await;
    let is_empty = data.as_array().is_some_and(Vec::is_empty);
    assert!(
        !is_empty || path.contains("conflicts") || path.contains("comments"),
        "{path} says nothing"
    );
    Answered { tenant: tenant.to_owned(), path: path.to_owned(), data, is_shared }
}

pub async fn join(to: &TestNode, with: &TestNode) {
    let system = Actor::system(Id::NIL);
    let issued = peer::ticket(&to.node, &system, Duration::from_secs(600), vec![]).await.unwrap();
    peer::join(&with.node, &system, &issued.line).await.unwrap();
}

/// Wakes with each commit until both hold the same.
pub async fn until_equal(a: &TestNode, b: &TestNode) {
    let wait = async {
        let mut commits = [a, b].map(|node| node.node.store.subscribe());
        while root(a) != root(b) {
            let [one, other] = &mut commits;
            tokio::select! {
                changed = one.changed() => changed.unwrap(),
                changed = other.changed() => changed.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the nodes become equal");
}

pub async fn stop(all: impl IntoIterator<Item = Workers>) {
    for worker in all {
        worker.shutdown().await;
    }
}
