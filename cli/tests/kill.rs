//! The real binary under load, killed again and again: every write that was answered is there afterwards, on every
//! node, and `verify` is clean.

use atoll_tests::harness::{Answer, Client};
use atoll_tests::rng::Rng;
use serde_json::{Value as Json, json};
use std::hash::{BuildHasher, Hasher};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ROUNDS: usize = 6;
const CLIENTS: usize = 8;
/// Answers of one round before the kill, between these.
const ANSWERS: (u64, u64) = (30, 200);
/// The kill comes at most so long after the last of them, in the middle of whatever is under way.
const LATER_US: u64 = 3_000;
const PATIENCE: Duration = Duration::from_secs(60);
const EMAIL: &str = "admin@example.org";
const PASSWORD: &str = "a long enough password";

struct Served(Child);

impl Served {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

fn atoll(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.arg("--data").arg(data);
    command.env("ATOLL_ADMIN_EMAIL", EMAIL).env("ATOLL_ADMIN_PASSWORD", PASSWORD);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn json_of(mut command: Command) -> Json {
    let output = command.arg("--json").stdout(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_sound(data: &Path) {
    let verified = atoll(data).arg("verify").status().unwrap();
    assert_eq!(verified.code(), Some(0), "verify finds nothing in {}", data.display());
}

/// Starts the node and waits until it says where it listens.
fn serve(data: &Path, ports: &Path) -> (Served, Client) {
    serve_at(data, ports, "127.0.0.1:0", &[])
}

fn serve_at(data: &Path, ports: &Path, sync: &str, more: &[&str]) -> (Served, Client) {
    let _ = std::fs::remove_file(ports);
    let mut command = atoll(data);
    let set = "limits.rate=0";
    command.args(["--listen", "127.0.0.1:0", "--sync-listen", sync, "--set", set, "serve"]);
    let mut child = command.args(more).arg("--port-file").arg(ports).spawn().unwrap();
    while !ports.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the node ended at its start");
        std::thread::yield_now();
    }
    let told: Json = serde_json::from_slice(&std::fs::read(ports).unwrap()).unwrap();
    let address = told["http"].as_str().unwrap().parse().unwrap();
    (Served(child), Client { address, token: None, tenant: None })
}

/// Another one each time; it is printed, and shown where a test fails.
fn chance() -> Rng {
    let seed = std::hash::RandomState::new().build_hasher().finish();
    println!("kills of seed {seed}");
    Rng::new(seed)
}

/// Kills a node once so many requests of its writers were answered, and a moment later.
struct Assassin {
    victim: Mutex<Served>,
    left: AtomicU64,
    later: Duration,
}

impl Assassin {
    fn of(victim: Served, chance: &mut Rng) -> Arc<Self> {
        Arc::new(Self {
            victim: Mutex::new(victim),
            left: AtomicU64::new(chance.between(ANSWERS.0, ANSWERS.1)),
            later: Duration::from_micros(chance.between(0, LATER_US)),
        })
    }

    fn note_answer(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let begun = Instant::now();
            while begun.elapsed() < self.later {
                std::hint::spin_loop();
            }
            self.victim.lock().unwrap().kill();
        }
    }
}

/// What its one writer was told of a post. What was asked for and not answered may have come about or not.
struct Post {
    id: String,
    body: String,
    doubtful_body: Option<String>,
    /// None: asked for and not answered.
    liked: Option<bool>,
    gone: Option<bool>,
    comments: Vec<(String, String)>,
}

struct Writer {
    client: Client,
    name: String,
    assassin: Arc<Assassin>,
}

impl Writer {
    /// The answer, or none if the node is gone.
    async fn ask(&self, method: &str, path: &str, body: &Json) -> Option<Answer> {
        let answer = self.client.attempt(method, path, body).await?;
        self.assassin.note_answer();
        Some(answer)
    }

    /// Makes posts, and does to them what people do, until the node is gone.
    async fn work(self) -> Vec<Post> {
        let mut posts = Vec::new();
        for number in 0.. {
            let Some(mut post) = self.create(number).await else { break };
            let goes_on = self.live(&mut post, number).await.is_some();
            posts.push(post);
            if !goes_on {
                break;
            }
        }
        posts
    }

    async fn create(&self, number: usize) -> Option<Post> {
        let body = format!("{} {number}\n{}", self.name, "text ".repeat(400));
        let draft = json!({ "title": format!("{} {number}", self.name), "body": body });
        let made = self.ask("POST", "/api/v1/posts", &draft).await?.expect(201).data();
        let id = made["id"].as_str().unwrap().to_owned();
        let (liked, gone) = (Some(false), Some(false));
        Some(Post { id, body, doubtful_body: None, liked, gone, comments: vec![] })
    }

    async fn live(&self, post: &mut Post, number: usize) -> Option<()> {
        let path = format!("/api/v1/posts/{}", post.id);
        self.ask("POST", &format!("{path}/publish"), &json!({})).await?.expect(200);
        for edit in 0..2 {
            let body = format!("{}edit {edit}\n", post.body);
            post.doubtful_body = Some(body.clone());
            self.ask("PUT", &path, &json!({ "body": body })).await?.expect(200);
            (post.body, post.doubtful_body) = (body, None);
        }
        let text = format!("said of {number}");
        let said = json!({ "post_id": post.id, "text": text });
        let said = self.ask("POST", "/api/v1/comments", &said).await?.expect(201).data();
        post.comments.push((said["id"].as_str().unwrap().to_owned(), text));
        post.liked = None;
        self.ask("POST", &format!("{path}/like"), &json!({})).await?.expect(200);
        post.liked = Some(true);
        if number.is_multiple_of(3) {
            let purge = if number.is_multiple_of(2) { "?purge=true" } else { "" };
            post.gone = None;
            self.ask("DELETE", &format!("{path}{purge}"), &json!({})).await?.expect(204);
            post.gone = Some(true);
        }
        Some(())
    }
}

async fn work(client: &Client, name: String, assassin: &Arc<Assassin>) -> Vec<Post> {
    let writer = |n| Writer {
        client: client.clone(),
        name: format!("{name} {n}"),
        assassin: assassin.clone(),
    };
    let writers: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(writer(n).work())).collect();
    let mut posts = Vec::new();
    for writer in writers {
        posts.extend(writer.await.unwrap());
    }
    posts
}

async fn all_is_there(client: &Client, posts: &[Post]) {
    for post in posts {
        let found = client.get(&format!("/api/v1/posts/{}?expand=counts", post.id)).await;
        // In the trash, or gone for good.
        let is_gone = found.status == 404 || !found.json()["data"]["trashed_at"].is_null();
        if let Some(gone) = post.gone {
            assert_eq!(is_gone, gone, "{}: {}", post.id, found.text());
        }
        if is_gone {
            continue;
        }
        let found = found.expect(200).data();
        let body = found["body"].as_str().unwrap();
        let is_doubtful = post.doubtful_body.as_deref() == Some(body);
        assert!(body == post.body || is_doubtful, "{} has an older body", post.id);
        if let Some(liked) = post.liked {
            assert_eq!(found["like_count"], u64::from(liked), "{found}");
        }
        for (id, text) in &post.comments {
            let comment = client.get(&format!("/api/v1/comments/{id}")).await.expect(200).data();
            assert_eq!(comment["text"], text.as_str());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_write_survives_sigkill_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (data, ports) = (folder.path().join("data"), folder.path().join("ports"));
    let mut chance = chance();
    let mut posts: Vec<Post> = Vec::new();
    for round in 0..ROUNDS {
        let (served, client) = serve(&data, &ports);
        let client = client.login(EMAIL, PASSWORD).await;
        all_is_there(&client, &posts).await;
        let assassin = Assassin::of(served, &mut chance);
        posts.extend(work(&client, format!("Post {round}"), &assassin).await);
        is_sound(&data);
    }
    assert!(posts.len() > ROUNDS * CLIENTS / 2);
    let (served, client) = serve(&data, &ports);
    all_is_there(&client.login(EMAIL, PASSWORD).await, &posts).await;
    drop(served);
    is_sound(&data);
}

/// A node of a network whose addresses stay when it is started again.
struct Home {
    folder: TempDir,
    sync: String,
}

impl Home {
    fn new() -> Self {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { folder: tempfile::tempdir().unwrap(), sync: free.to_string() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn serve(&self, more: &[&str]) -> (Served, Client) {
        serve_at(&self.data(), &self.folder.path().join("ports"), &self.sync, more)
    }

    fn ask(&self, args: &[&str]) -> Json {
        let mut command = atoll(&self.data());
        command.args(args);
        json_of(command)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_sync_lose_nothing_answered_though_both_are_killed_again_and_again() {
    let homes = [Home::new(), Home::new()];
    let first = homes[0].serve(&[]);
    let ticket = homes[0].ask(&["peer", "ticket"]);
    let second = homes[1].serve(&["--join", ticket["ticket"].as_str().unwrap()]);
    homes[1].ask(&["sync", "now", "--timeout", "60"]);
    let mut nodes = [first, second];
    let mut chance = chance();
    let mut posts: Vec<Post> = Vec::new();
    for round in 0..ROUNDS {
        let [(first, at_first), (second, at_second)] = nodes;
        // One goes before the other, which meanwhile goes on.
        let assassins = [first, second].map(|node| Assassin::of(node, &mut chance));
        let at_first = at_first.login(EMAIL, PASSWORD).await;
        let at_second = at_second.login(EMAIL, PASSWORD).await;
        let (here, there) = tokio::join!(
            work(&at_first, format!("First {round}"), &assassins[0]),
            work(&at_second, format!("Second {round}"), &assassins[1]),
        );
        posts.extend(here.into_iter().chain(there));
        nodes = homes.each_ref().map(|home| home.serve(&[]));
    }
    let begun = Instant::now();
    loop {
        let digests = homes
            .each_ref()
            .map(|home| home.ask(&["sync", "now", "--timeout", "60"])["digest"].clone());
        if digests[0] == digests[1] {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the nodes do not become equal");
    }
    for (_, client) in &nodes {
        all_is_there(&client.login(EMAIL, PASSWORD).await, &posts).await;
    }
    drop(nodes);
    homes.iter().for_each(|home| is_sound(&home.data()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_goes_on_after_sigkill_and_doubles_nothing() {
    const ROWS: usize = 6_000;
    let folder = tempfile::tempdir().unwrap();
    let (data, ports) = (folder.path().join("data"), folder.path().join("ports"));
    let mut table = String::from("id,title,body\n");
    for row in 1..=ROWS {
        table.push_str(&format!("{row},Post {row},{}\n", "x".repeat(1_000)));
    }
    let mut path = String::new();
    for life in 0.. {
        let (mut served, client) = serve(&data, &ports);
        let client = client.login(EMAIL, PASSWORD).await;
        if life == 0 {
            let sent =
                client.send("POST", "/api/v1/imports?format=csv", &[], table.as_bytes()).await;
            path = sent.header("location").expect("a location").to_owned();
        }
        let before = client.get(&path).await.expect(200).data()["done"].as_u64();
        let job = loop {
            let job = client.get(&path).await.expect(200).data();
            if job["done"].as_u64() > before || job["state"] == "done" {
                break job;
            }
        };
        if life < 5 && job["state"] != "done" {
            served.0.kill().unwrap();
            served.0.wait().unwrap();
            continue;
        }
        let job = loop {
            let job = client.get(&path).await.expect(200).data();
            if job["state"] == "done" {
                break job;
            }
        };
        let report = &job["report"];
        assert_eq!((&report["created"], &report["failed"]), (&ROWS.into(), &0.into()), "{job}");
        let posts = client.get("/api/v1/posts").await.expect(200).json();
        assert_eq!(posts["page"]["total"], ROWS);
        let lines = client.get(&format!("{path}/report")).await.expect(200).text();
        let items = lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let items: Vec<u64> = items.map(|line| line["item"].as_u64().unwrap()).collect();
        assert_eq!(items, (1..=ROWS as u64).collect::<Vec<_>>(), "a line for each row, once");
        drop(served);
        let verified = atoll(&data).arg("verify").status().unwrap();
        assert_eq!(verified.code(), Some(0), "verify finds nothing");
        break;
    }
}
