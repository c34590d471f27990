//! The wall between tenants: every endpoint there is, asked by users of one tenant for what is in another. What they
//! are told must be the same as if it were nowhere.

#[path = "walls/found.rs"]
mod found;
#[path = "walls/told.rs"]
mod told;

use atoll_api::route::Shape;
use atoll_api::{Access, Route, all_routes};
use atoll_node::{Role, kinds};
use atoll_storage::{Field, Id, Merge, Query, Read, Type};
use atoll_tests::harness::{Answer, Client, PASSWORD, TestNode};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Stands in every text of the other tenant, and nowhere else.
const MARK: &str = "zebrafish";
const NOBODYS_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const NOBODYS_NAME: &str = "nobody-is-called-so";
/// It never ends; it has a test of its own.
const STREAM: &str = "/api/v1/events";

/// What there is in the other tenant.
struct Theirs {
    tenant: Id,
    head: Client,
    /// By the name of their kind.
    ids: BTreeMap<&'static str, Vec<String>>,
    names: Vec<String>,
    cursors: Vec<String>,
}

impl Theirs {
    fn id_of(&self, kind: &str) -> &str {
        let all = self.ids.get(kind).or(self.ids.get("post"));
        all.and_then(|ids| ids.first()).map_or(NOBODYS_ID, String::as_str)
    }

    /// What may stand in a path: an id of each kind, and every name.
    fn candidates(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let ids = self.ids.values().filter_map(|ids| ids.first());
        let ids = ids.map(|id| (id.as_str(), NOBODYS_ID));
        ids.chain(self.names.iter().map(|name| (name.as_str(), NOBODYS_NAME)))
    }

    /// Something of theirs that stands in the text, beside what was sent.
    fn leak(&self, text: &str, sent: &str) -> Option<String> {
        let mut text = text.to_lowercase();
        for word in sent.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.') {
            if word.contains(MARK) || self.ids.values().flatten().any(|id| id == word) {
                text = text.replace(word, "?");
            }
        }
        if text.contains(MARK) {
            return Some(MARK.to_owned());
        }
        self.ids.values().flatten().find(|id| text.contains(id.as_str())).cloned()
    }
}

fn id(json: &Json) -> String {
    json["id"].as_str().unwrap_or_else(|| panic!("no id in {json}")).to_owned()
}

async fn make_tenant(test: &TestNode, slug: &str, head: &str) -> (Id, Client) {
    let root = test.admin().await;
    let admin =
        json!({ "email": format!("{head}@example.org"), "username": head, "password": PASSWORD });
    let tenant = json!({ "name": format!("The {slug}"), "slug": slug, "admin": admin });
    let made = root.post("/api/v1/tenants", &tenant).await.expect(201).data();
    let client = test.stranger().in_tenant(slug).login(head, PASSWORD).await;
    (Id::parse(&id(&made)).unwrap(), client)
}

/// A tenant with something of everything in it.
async fn theirs(test: &TestNode) -> Theirs {
    let named = |noun: &str| format!("{MARK}-{noun}");
    let (tenant, head) = make_tenant(test, &named("campus"), &named("head")).await;
    let made = async |path: &str, body: Json| head.post(path, &body).await.expect(201).data();
    let category = made("/api/v1/categories", json!({ "name": named("category") })).await;
    let category = id(&category);
    head.post(&format!("/api/v1/categories/{category}/approve"), &json!({}))
        .await
        .expect(200)
        .data();
    let tag = made("/api/v1/tags", json!({ "name": named("tag") })).await;
    let mut posts = Vec::new();
    for noun in ["post", "second", "draft"] {
        let post = json!({
            "title": named(noun), "slug": named(noun), "body": format!("All about the {MARK}."),
            "category_id": category, "tag_ids": [id(&tag)],
        });
        posts.push(id(&made("/api/v1/posts", post).await));
    }
    for post in &posts[..2] {
        let path = format!("/api/v1/posts/{post}");
        head.put(&path, &json!({ "body": format!("More about the {MARK}.") }))
            .await
            .expect(200)
            .data();
        head.post(&format!("{path}/publish"), &json!({})).await.expect(200).data();
        head.post(&format!("{path}/like"), &json!({})).await.expect(200).data();
    }
    let comment = json!({ "post_id": posts[0], "text": format!("I like the {MARK}.") });
    made("/api/v1/comments", comment).await;
    made("/api/v1/roles", json!({ "name": named("role"), "permissions": ["posts.write"] })).await;
    made("/api/v1/api-keys", json!({ "name": named("key") })).await;
    made("/api/v1/redirects", json!({ "path": format!("/{MARK}-old"), "post_id": posts[0] })).await;
    made(&format!("/api/v1/posts/{}/preview-links", posts[2]), json!({})).await;
    let kept = async |path: &str, body: Json| head.put(path, &body).await.expect(200).data();
    let words = json!({ "subject": named("subject"), "text": MARK, "html": MARK });
    kept("/api/v1/mail/templates/welcome", words).await;
    kept(&format!("/api/v1/posts/{}/autosave", posts[2]), json!({ "title": named("autosave") }))
        .await;
    let provider = json!({ "issuer": format!("https://{MARK}.example.org"), "client_id": MARK });
    kept("/api/v1/auth/oidc/provider", provider).await;
    let mut cursors = Vec::new();
    for list in ["posts?limit=1", "posts?limit=1&sort=title", "users?limit=1", "audit?limit=1"] {
        let page = head.get(&format!("/api/v1/{list}")).await.expect(200).json();
        cursors.extend(page["page"]["next"].as_str().map(str::to_owned));
    }
    assert!(cursors.len() > 1, "{cursors:?}");
    test.node.feed_search().unwrap();
    let mut ids = BTreeMap::from([("tenant", vec![tenant.to_string()])]);
    for kind in kinds::ALL.iter().copied() {
        let all = test.node.store.read(|r| r.list(&Query::of(kind, tenant).limit(1_000))).unwrap();
        let keys: Vec<String> = all.records.iter().map(|record| record.key.to_string()).collect();
        if !keys.is_empty() {
            ids.insert(kind.name, keys);
        }
    }
    let wanted = [
        "user",
        "session",
        "role",
        "post",
        "comment",
        "like",
        "audit_entry",
        "api_key",
        "redirect",
        "preview_link",
        "post_autosave",
        "mail_template",
        "oidc_provider",
    ];
    for kind in wanted {
        assert!(ids.contains_key(kind), "there is no {kind}: {:?}", ids.keys());
    }
    let names = ["campus", "head", "category", "tag", "post", "draft", "role"].map(named).to_vec();
    Theirs { tenant, head, ids, names, cursors }
}

/// One of those who ask: signed in anew if what was walked before ended his session.
struct Asker {
    client: Client,
    role: Option<Role>,
    tenant: Id,
    times: usize,
}

impl Asker {
    async fn ready(&mut self, test: &TestNode) {
        let Some(role) = self.role else { return };
        if self.client.get("/api/v1/auth/me").await.status == 200 {
            return;
        }
        self.times += 1;
        let name = format!("walker-{}-{}", role.name(), self.times);
        test.make_user(self.tenant, &name, role).await;
        self.client = test.stranger().in_tenant("north").login(&name, PASSWORD).await;
    }
}

fn askers(test: &TestNode, north: Id) -> Vec<Asker> {
    let mut all = vec![Asker {
        client: test.stranger().in_tenant("north"),
        role: None,
        tenant: north,
        times: 0,
    }];
    for role in [Role::Viewer, Role::Editor, Role::Admin] {
        let client = test.stranger().in_tenant("north").with_token("none yet");
        all.push(Asker { client, role: Some(role), tenant: north, times: 0 });
    }
    all
}

fn walked() -> impl Iterator<Item = Route> {
    all_routes().into_iter().filter(|route| route.path != STREAM)
}

fn filled(path: &str, part: &str) -> String {
    let parts = path.split('/').map(|p| if p.starts_with('{') { part } else { p });
    parts.collect::<Vec<_>>().join("/")
}

fn writes(route: &Route) -> bool {
    matches!(route.method.as_str(), "POST" | "PUT" | "PATCH") || route.takes.is_some()
}

async fn ask(client: &Client, route: &Route, path: &str, body: &Json) -> Answer {
    let body = if writes(route) { body.to_string() } else { String::new() };
    let json = [("content-type", "application/json")];
    client.send(route.method.as_str(), path, &json, body.as_bytes()).await
}

/// What an answer says, less the name that was asked for and the request's own id.
fn said(answer: &Answer, asked: &str) -> (u16, String) {
    let mut json = answer.json();
    let text = match json.as_object_mut() {
        Some(object) => {
            object.remove("request_id");
            json.to_string()
        }
        None => answer.text(),
    };
    (answer.status, text.replace(asked, "?"))
}

/// The status, the code and the refused fields: what a caller learns of a body.
fn verdict(answer: &Answer) -> (u16, String, Vec<String>) {
    let json = answer.json();
    let told = |error: &Json| format!("{} {}", error["field"], error["code"]);
    let errors = json["errors"].as_array().into_iter().flatten().map(told).collect();
    (answer.status, answer.code(), errors)
}

/// A body whose references lead to `refer(kind)`, and whose other fields are harmless and new each time.
fn body_of(shape: Option<Shape>, number: usize, refer: &dyn Fn(&str) -> String) -> Json {
    let (fields, all) = match shape {
        Some(Shape::Of(kind)) => (kind.fields, false),
        Some(Shape::Fields(fields)) => (fields, true),
        None => return json!({}),
    };
    let mut body = Map::new();
    for field in fields.iter().filter(|field| all || field.writable) {
        body.insert(field.name.to_owned(), value_of(field, number, refer));
    }
    Json::Object(body)
}

fn value_of(field: &Field, number: usize, refer: &dyn Fn(&str) -> String) -> Json {
    let kind = field.refers.unwrap_or(match field.name {
        "roles" => "role",
        _ => "post",
    });
    if field.merge == Merge::Set {
        return match (field.ty, field.name) {
            (Type::Id, _) | (_, "roles") => json!([refer(kind)]),
            _ => json!([]),
        };
    }
    match (field.ty, field.name) {
        _ if !field.choices.is_empty() => json!(field.choices[0]),
        (Type::Id, _) => json!(refer(kind)),
        (Type::Text, name) if name.ends_with("_id") || name == "id" => json!(refer(kind)),
        (Type::Text, "email") => json!(format!("walk{number}@example.org")),
        (Type::Text, "username") => json!(format!("walk-{number}")),
        (Type::Text, _) => json!(format!("harmless {number}")),
        (Type::Int, _) => json!(1),
        (Type::Bool, _) => json!(false),
        (Type::Time, _) => json!("2030-01-01T00:00:00Z"),
        (Type::Bytes, _) => json!("00"),
    }
}

fn heads(test: &TestNode, tenant: Id) -> Vec<(String, String, u64)> {
    let streams = test.node.store.read(|reader| reader.streams()).unwrap();
    let theirs = streams.into_iter().filter(|head| head.stream.tenant == tenant);
    theirs.map(|head| (head.stream.scope, head.digest.to_string(), head.records)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_another_tenant_is_as_if_it_were_nowhere() {
    let test = TestNode::start().await;
    let (north, _) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let before = heads(&test, theirs.tenant);
    let (mut asked, mut paths) = (0, 0);
    for asker in &mut askers(&test, north) {
        for route in walked() {
            asker.ready(&test).await;
            let client = &asker.client;
            let what = format!("{} {} as {:?}", route.method, route.path, asker.role);
            if !route.path.contains('{') {
                let answer = ask(client, &route, route.path, &json!({})).await;
                assert_eq!(theirs.leak(&answer.text(), ""), None, "{what}: {}", answer.text());
                continue;
            }
            paths += 1;
            let mut nobodys = BTreeMap::new();
            for name in [NOBODYS_ID, NOBODYS_NAME] {
                let answer = ask(client, &route, &filled(route.path, name), &json!({})).await;
                nobodys.insert(name, said(&answer, name));
            }
            for (name, nobody) in theirs.candidates() {
                let path = filled(route.path, name);
                let answer = ask(client, &route, &path, &json!({})).await;
                asked += 1;
                assert_eq!(theirs.leak(&answer.text(), &path), None, "{what}: {}", answer.text());
                assert_eq!(said(&answer, name), nobodys[nobody], "{what}: {name}");
            }
        }
    }
    assert!(asked > 1_000 && paths > 100, "{asked} asked, {paths} paths");
    assert_eq!(heads(&test, theirs.tenant), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_made_to_refer_to_another_tenant() {
    let test = TestNode::start().await;
    let (north, _) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let before = heads(&test, theirs.tenant);
    let mut number = 0;
    for asker in &mut askers(&test, north) {
        for route in walked().filter(|route| route.takes.is_some()) {
            asker.ready(&test).await;
            let what = format!("{} {} as {:?}", route.method, route.path, asker.role);
            let path = filled(route.path, NOBODYS_ID);
            number += 2;
            let nobodys = body_of(route.takes, number, &|_| NOBODYS_ID.to_owned());
            let theirs_all =
                body_of(route.takes, number + 1, &|kind| theirs.id_of(kind).to_owned());
            let unknown = ask(&asker.client, &route, &path, &nobodys).await;
            asker.ready(&test).await;
            let answer = ask(&asker.client, &route, &path, &theirs_all).await;
            let sent = theirs_all.to_string();
            assert_eq!(theirs.leak(&answer.text(), &sent), None, "{what}: {}", answer.text());
            // Guesses at one's own password are slowed down.
            if unknown.status != 429 && answer.status != 429 {
                assert_eq!(verdict(&answer), verdict(&unknown), "{what}: {sent}");
            }
        }
    }
    assert!(number > 100, "{number}");
    assert_eq!(heads(&test, theirs.tenant), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_list_total_search_filter_or_cursor_reaches_into_another_tenant() {
    let test = TestNode::start().await;
    let (north, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    boss.post("/api/v1/posts", &json!({ "title": "Ours", "body": "x" })).await.expect(201).data();
    let figures = |answer: &Answer| {
        let json = answer.json();
        let rows = json["data"].as_array().map(Vec::len);
        (answer.status, answer.code(), rows, json["page"]["total"].as_u64())
    };
    let mut filtered = 0;
    for asker in &mut askers(&test, north) {
        for route in walked().filter(|r| r.method == "GET" && !r.path.contains('{')) {
            asker.ready(&test).await;
            let client = &asker.client;
            let what = format!("GET {} as {:?}", route.path, asker.role);
            let kind = match route.gives {
                Some(Shape::Of(kind)) if route.is_list => Some(kind),
                _ => None,
            };
            if kind.is_some() {
                let all = client.get(&format!("{}?limit=100", route.path)).await;
                if let (200, _, Some(rows), Some(total)) = figures(&all) {
                    assert_eq!(rows as u64, total, "{what}");
                }
            }
            let columns = kind.into_iter().flat_map(|kind| kind.fields).map(|field| field.name);
            // That parameter chooses the tenant, as a header does.
            let own = route.query.iter().copied().filter(|name| *name != "tenant");
            let names: Vec<&str> = columns.chain(own).collect();
            for name in names {
                let nobodys = client.get(&format!("{}?{name}={NOBODYS_ID}", route.path)).await;
                for ids in theirs.ids.values().filter_map(|ids| ids.first()) {
                    let path = format!("{}?{name}={ids}", route.path);
                    let answer = client.get(&path).await;
                    filtered += 1;
                    assert_eq!(theirs.leak(&answer.text(), &path), None, "{what}: {path}");
                    assert_eq!(figures(&answer), figures(&nobodys), "{what}: {path}");
                }
                for text in [MARK, "zebra", "zebrafish-head", "zebrafish-post"] {
                    let path = format!("{}?{name}={text}", route.path);
                    let answer = client.get(&path).await;
                    let ours = client.get(&format!("{}?{name}={NOBODYS_NAME}", route.path)).await;
                    assert_eq!(theirs.leak(&answer.text(), &path), None, "{what}: {path}");
                    assert_eq!(figures(&answer), figures(&ours), "{what}: {path}");
                }
            }
            for cursor in &theirs.cursors {
                let answer = client.get(&format!("{}?cursor={cursor}&limit=5", route.path)).await;
                assert_eq!(theirs.leak(&answer.text(), cursor), None, "{what}: {}", answer.text());
            }
        }
    }
    assert!(filtered > 500, "{filtered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_known_from_another_tenant_opens_nothing() {
    let test = TestNode::start().await;
    let (_, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let mut known = 0;
    for route in walked().filter(|route| route.path.contains('{')) {
        for (name, _) in theirs.candidates() {
            let path = filled(route.path, name);
            if route.method == "GET" {
                let own = theirs.head.get(&path).await;
                let Some(tag) = own.header("etag").filter(|_| own.status == 200) else { continue };
                known += 1;
                let answer = boss.send("GET", &path, &[("if-none-match", tag)], b"").await;
                assert_ne!(answer.status, 304, "{path}");
                assert_eq!(theirs.leak(&answer.text(), &path), None, "{path}: {}", answer.text());
            }
        }
    }
    assert!(known > 5, "{known}");
    let post = theirs.id_of("post");
    let path = format!("/api/v1/posts/{post}");
    let tag = theirs.head.get(&path).await.header("etag").unwrap_or_default().to_owned();
    let headers = [("if-match", tag.as_str()), ("content-type", "application/json")];
    boss.send("PUT", &path, &headers, br#"{"title":"Mine"}"#).await.refused(404, "not_found");
    boss.send("DELETE", &path, &headers, b"").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_in_its_own_tenant_only() {
    let test = TestNode::start().await;
    let (north, _) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let mut refused = 0;
    for asker in askers(&test, north).iter_mut().filter(|asker| asker.role.is_some()) {
        asker.ready(&test).await;
        for name in [format!("{MARK}-campus"), theirs.tenant.to_string()] {
            let there = asker.client.in_tenant(&name);
            for route in walked().filter(|route| !route.is_bare) {
                // Whoever signs in there need not be anybody here.
                if route.is_strict && route.access == Access::Public {
                    continue;
                }
                let path = filled(route.path, theirs.id_of("post"));
                let answer = ask(&there, &route, &path, &json!({})).await;
                answer.refused(401, "token_of_another_tenant");
                assert_eq!(theirs.leak(&answer.text(), &path), None, "{}", answer.text());
                refused += 1;
            }
        }
    }
    assert!(refused > 200, "{refused}");
}

/// What a stream of events brought until this text stood in it.
async fn streamed(stream: &mut TcpStream, seen: &mut String, until: &str) {
    let mut bytes = [0; 4_096];
    while !seen.contains(until) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await;
        let read = read.expect("the event comes in time").unwrap();
        assert!(read > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_another_tenant_are_not_heard() {
    let test = TestNode::start().await;
    let (_, boss) = make_tenant(&test, "north", "boss").await;
    let theirs = theirs(&test).await;
    let token = boss.token.clone().unwrap_or_default();
    for resumed in ["", "last-event-id: 0\r\n"] {
        let mut stream = TcpStream::connect(test.address).await.unwrap();
        let head = format!(
            "GET {STREAM} HTTP/1.1\r\nhost: x\r\nx-tenant: north\r\nauthorization: Bearer {token}\r\n{resumed}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = String::new();
        streamed(&mut stream, &mut seen, "retry:").await;
        let draft = |title: &str| json!({ "title": title, "body": "x" });
        theirs.head.post("/api/v1/posts", &draft("A zebrafish again")).await.expect(201).data();
        let last = format!("Heard here {}", resumed.len());
        boss.post("/api/v1/posts", &draft(&last)).await.expect(201).data();
        streamed(&mut stream, &mut seen, &last).await;
        assert!(seen.contains("postal.post.created"), "{seen}");
        assert_eq!(theirs.leak(&seen, ""), None, "{seen}");
    }
}
