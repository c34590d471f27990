//! The real binary under load, killed again and again: every write that was answered is there afterwards.

use atoll_tests::harness::Client;
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const ROUNDS: usize = 6;
const CLIENTS: usize = 8;
/// Answers of one round before the kill.
const ANSWERS: usize = 120;
const EMAIL: &str = "admin@example.org";
const PASSWORD: &str = "a long enough password";

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn atoll(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
    command.arg("--data").arg(data);
    command.env("ATOLL_ADMIN_EMAIL", EMAIL).env("ATOLL_ADMIN_PASSWORD", PASSWORD);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts the node and waits until it says where it listens.
fn serve(data: &Path, ports: &Path) -> (Served, Client) {
    let _ = std::fs::remove_file(ports);
    let mut command = atoll(data);
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--sync-listen",
        "127.0.0.1:0",
        "--set",
        "limits.rate=0",
    ]);
    let mut child = command.arg("serve").arg("--port-file").arg(ports).spawn().unwrap();
    while !ports.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the node ended at its start");
        std::thread::yield_now();
    }
    let told: Json = serde_json::from_slice(&std::fs::read(ports).unwrap()).unwrap();
    let address = told["http"].as_str().unwrap().parse().unwrap();
    (Served(child), Client { address, token: None, tenant: None })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_write_survives_sigkill_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (data, ports) = (folder.path().join("data"), folder.path().join("ports"));
    let mut answered: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let (served, client) = serve(&data, &ports);
        let client = client.login(EMAIL, PASSWORD).await;
        all_are_there(&client, &answered).await;
        let served = Arc::new(Mutex::new(served));
        let count = Arc::new(AtomicUsize::new(0));
        let write =
            |n| tokio::spawn(write(client.clone(), round, n, count.clone(), served.clone()));
        let writers: Vec<_> = (0..CLIENTS).map(write).collect();
        for writer in writers {
            answered.extend(writer.await.unwrap());
        }
    }
    assert!(answered.len() >= ROUNDS * ANSWERS);
    let (served, client) = serve(&data, &ports);
    all_are_there(&client.login(EMAIL, PASSWORD).await, &answered).await;
    drop(served);
    let verified = atoll(&data).arg("verify").status().unwrap();
    assert_eq!(verified.code(), Some(0), "verify finds nothing");
}

async fn all_are_there(client: &Client, answered: &[String]) {
    for id in answered {
        client.get(&format!("/api/v1/posts/{id}")).await.expect(200);
    }
}

/// Makes posts until the node is gone, and kills it once enough were answered in all.
async fn write(
    client: Client,
    round: usize,
    n: usize,
    count: Arc<AtomicUsize>,
    served: Arc<Mutex<Served>>,
) -> Vec<String> {
    let mut answered = Vec::new();
    for post in 0.. {
        let draft =
            json!({ "title": format!("Post {round} {n} {post}"), "body": "text ".repeat(400) });
        let Some(answer) = client.try_post("/api/v1/posts", &draft).await else { break };
        answered.push(answer.expect(201).data()["id"].as_str().unwrap().to_owned());
        if count.fetch_add(1, Ordering::SeqCst) + 1 == ANSWERS {
            let _ = served.lock().unwrap().0.kill();
        }
    }
    answered
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
