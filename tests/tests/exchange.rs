//! What comes in and goes out: imports, exports and the jobs that do them, over a real socket.

#[path = "exchange/export.rs"]
mod export;
#[path = "exchange/import.rs"]
mod import;
#[path = "exchange/job.rs"]
mod job;
#[path = "exchange/real.rs"]
mod real;
#[path = "exchange/redirect.rs"]
mod redirect;

use atoll_node::Node;
use atoll_tests::{Client, TestNode};
use serde_json::{Value as Json, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("{name} in {json}"))
}

/// Sends a file to be imported; the path of its job.
async fn send(client: &Client, query: &str, file: &[u8]) -> String {
    let sent =
        client.send("POST", &format!("/api/v1/imports?{query}"), &[], file).await.expect(202);
    let location = sent.header("location").expect("a location").to_owned();
    assert_eq!(location, format!("/api/v1/imports/{}", text(&sent.data(), "id")));
    location
}

/// The job under this path, once it fits; looks anew with each commit.
async fn until(node: &Node, client: &Client, path: &str, fits: impl Fn(&Json) -> bool) -> Json {
    let wait = async {
        let mut commits = node.store.subscribe();
        loop {
            commits.mark_unchanged();
            let job = client.get(path).await.expect(200).data();
            if fits(&job) {
                return job;
            }
            commits.changed().await.expect("the store is open");
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{path} comes to nothing"))
}

async fn ended(node: &Node, client: &Client, path: &str) -> Json {
    until(node, client, path, |job| !matches!(text(job, "state"), "waiting" | "running")).await
}

/// Imports a file and gives the job once it is done.
async fn import(test: &TestNode, client: &Client, query: &str, file: &[u8]) -> Json {
    let job = ended(&test.node, client, &send(client, query, file).await).await;
    assert_eq!(text(&job, "state"), "done", "{job}");
    job
}

/// Created, updated, unchanged, failed.
fn counts(job: &Json) -> [u64; 4] {
    ["created", "updated", "unchanged", "failed"]
        .map(|name| job["report"][name].as_u64().unwrap_or_else(|| panic!("{name} in {job}")))
}

/// An admin of another tenant.
async fn other_tenant(test: &TestNode) -> Client {
    let admin = json!({ "email": "head@north.example", "username": "head", "password": atoll_tests::harness::PASSWORD });
    let north = json!({ "name": "North", "slug": "north", "admin": admin });
    test.admin().await.post("/api/v1/tenants", &north).await.expect(201);
    test.stranger().in_tenant("north").login("head", atoll_tests::harness::PASSWORD).await
}

/// So many posts as a table; the text of each is `bytes` long.
fn table(rows: usize, bytes: usize) -> String {
    let mut table = String::from("id,title,body\n");
    for row in 1..=rows {
        table.push_str(&format!("{row},Post {row},{}\n", "x".repeat(bytes)));
    }
    table
}
