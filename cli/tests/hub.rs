//! The real binary as a hub and five leaves, which dial it and have no address that anybody knows: what one of them writes
//! reaches the others by way of the hub, also of one that was killed. And a leaf that may have one tenant, by commands.

use atoll_tests::harness::Client;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const LEAVES: usize = 5;
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

/// A port that was free a moment ago, to be kept over a restart.
fn fixed() -> String {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

struct Home {
    folder: TempDir,
    /// Where other nodes are answered.
    sync: String,
}

impl Home {
    fn new(sync: &str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), sync: sync.to_owned() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn atoll(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        let inherited = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        for name in inherited.filter(|name| name.starts_with("ATOLL_")) {
            command.env_remove(name);
        }
        command.arg("--data").arg(self.data()).args(["--sync-listen", &self.sync]);
        command.env("ATOLL_ADMIN_EMAIL", EMAIL).env("ATOLL_ADMIN_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.atoll().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    }

    fn ask(&self, args: &[&str]) -> Json {
        let output = self.run(&[args, &["--json"]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {error}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn serve(&self, more: &[&str]) -> (Served, Client) {
        let ports: &Path = &self.folder.path().join("ports");
        let _ = std::fs::remove_file(ports);
        let mut command = self.atoll();
        let set = ["--listen", "127.0.0.1:0", "--set", "limits.rate=0"];
        let mut child = command
            .args(set)
            .arg("serve")
            .args(more)
            .arg("--port-file")
            .arg(ports)
            .spawn()
            .unwrap();
        while !ports.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the node ended at its start");
            std::thread::yield_now();
        }
        let told: Json = serde_json::from_slice(&std::fs::read(ports).unwrap()).unwrap();
        let address = told["http"].as_str().unwrap().parse().unwrap();
        (Served(child), Client { address, token: None, tenant: None })
    }

    fn ticket(&self, more: &[&str]) -> String {
        let ticket = self.ask(&[&["peer", "ticket"], more].concat());
        ticket["ticket"].as_str().unwrap().to_owned()
    }
}

async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "not within a minute: {what}");
}

async fn signed_in(client: &Client) -> Client {
    until("somebody can sign in", || async { client.get("/readyz").await.status == 200 }).await;
    let asked = json!({ "login": EMAIL, "password": PASSWORD });
    let signs_in = || async { client.post("/api/v1/auth/login", &asked).await.status == 200 };
    until("the admin is known", signs_in).await;
    client.login(EMAIL, PASSWORD).await
}

async fn write_post(client: &Client, title: &str) -> String {
    let draft = json!({ "title": title, "body": "x" });
    let post = client.post("/api/v1/posts", &draft).await.expect(201).data();
    format!("/api/v1/posts/{}", post["id"].as_str().unwrap())
}

async fn is_on(clients: &[Client], post: &str) {
    for client in clients {
        until("the post is there", || async { client.get(post).await.status == 200 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leaf_writes_reaches_the_others_by_way_of_the_hub_also_of_one_that_was_killed() {
    let hub = Home::new(&fixed());
    let (mut running, client) = hub.serve(&[]);
    let on_hub = signed_in(&client).await;
    let leaves: Vec<Home> = (0..LEAVES).map(|_| Home::new("0.0.0.0:0")).collect();
    let mut served = Vec::new();
    let mut clients = Vec::new();
    for leaf in &leaves {
        let (process, client) = leaf.serve(&["--join", &hub.ticket(&[])]);
        clients.push(signed_in(&client).await);
        served.push(process);
    }
    let known = hub.ask(&["peer", "list"]);
    let known = known.as_array().unwrap();
    assert_eq!(known.len(), LEAVES);
    assert!(known.iter().all(|leaf| leaf["address"].is_null()), "{known:?}");
    for leaf in &leaves {
        let known = leaf.ask(&["peer", "list"]);
        assert_eq!(known.as_array().unwrap().len(), 1, "the hub alone: {known}");
    }
    let first = write_post(&clients[0], "From the first leaf").await;
    is_on(&clients, &first).await;
    is_on(std::slice::from_ref(&on_hub), &first).await;

    running.kill();
    let apart = write_post(&clients[1], "While there is no hub").await;
    let other = write_post(&clients[4], "There neither").await;
    assert_eq!(clients[2].get(&apart).await.status, 404);
    let (_running, client) = hub.serve(&[]);
    is_on(&clients, &apart).await;
    is_on(&clients, &other).await;
    let on_hub = Client { address: client.address, ..on_hub };
    let last = write_post(&on_hub, "From the hub").await;
    is_on(&clients, &last).await;
    hub.ask(&["sync", "now"]);
    let digest = hub.ask(&["sync", "status"])["digest"].clone();
    for leaf in &leaves {
        assert_eq!(leaf.ask(&["sync", "status"])["digest"], digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_has_the_tenant_that_its_ticket_names_and_is_told_what_it_may() {
    let hub = Home::new(&fixed());
    let (_running, client) = hub.serve(&[]);
    let on_hub = signed_in(&client).await;
    let lagoon = json!({ "name": "Lagoon", "slug": "lagoon", "admin": {
        "email": "lagoon@example.org", "username": "lagooner", "password": PASSWORD } });
    on_hub.post("/api/v1/tenants", &lagoon).await.expect(201);
    write_post(&on_hub, "Elsewhere").await;
    let inside = write_post(&on_hub.in_tenant("lagoon"), "In the lagoon").await;

    let wrong = hub.run(&["peer", "ticket", "--tenants", "nowhere"]);
    assert_ne!(wrong.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no tenant \"nowhere\""), "{wrong:?}");
    let leaf = Home::new("0.0.0.0:0");
    let ticket =
        hub.ticket(&["--tenants", "lagoon", "--may", "read,write", "--until", "2126-12-31"]);
    let (_served, client) = leaf.serve(&["--join", &ticket]);
    let on_leaf = client.in_tenant("lagoon");
    let asked = json!({ "login": "lagooner", "password": PASSWORD });
    let signs_in = || async { on_leaf.post("/api/v1/auth/login", &asked).await.status == 200 };
    until("the lagoon's admin is known", signs_in).await;
    let on_leaf = on_leaf.login("lagooner", PASSWORD).await;
    is_on(std::slice::from_ref(&on_leaf), &inside).await;
    let own = write_post(&on_leaf, "From the leaf").await;
    is_on(&[on_hub.in_tenant("lagoon")], &own).await;
    leaf.ask(&["sync", "now"]);

    let granted = hub.ask(&["peer", "grants"]);
    assert_eq!(
        granted[0]["words"],
        "may read and write, in lagoon, until 2127-01-01T00:00:00.000Z"
    );
    let status = leaf.ask(&["sync", "status"]);
    assert_eq!(status["peers"][0]["lets"], granted[0]["words"]);
    let plan = leaf.run(&["sync", "plan"]);
    let plan = String::from_utf8_lossy(&plan.stdout);
    assert!(plan.contains("There, this node may read and write, in lagoon"), "{plan}");
    let shown = String::from_utf8_lossy(&hub.run(&["peer", "grants"]).stdout).into_owned();
    assert!(shown.contains("WHAT IT MAY") && shown.contains("in lagoon"), "{shown}");

    // What is not named stays as it was; then nothing at all.
    let name = granted[0]["name"].as_str().unwrap();
    let changed = hub.ask(&["peer", "grant", name, "--may", "read"]);
    assert_eq!(changed["words"], "may only read, in lagoon, until 2127-01-01T00:00:00.000Z");
    let says = |home: &Home, what: &str| home.ask(&["sync", "plan"])[0].to_string().contains(what);
    until("the leaf hears of it", || async { says(&leaf, "what is written here does not leave") })
        .await;
    assert_eq!(hub.run(&["peer", "grant", name]).status.code(), Some(2));
    assert_eq!(hub.run(&["peer", "grant", "nobody", "--may", "read"]).status.code(), Some(3));
    hub.ask(&["peer", "grant", name, "--may", "none"]);
    until("the leaf is cut off", || async { says(&leaf, "grant_withdrawn") }).await;
}
