//! Two nodes that become equal over a path like a satellite's, a Wi-Fi's, a 3G's and a LAN's, with CUBIC and with BBR.
//! Prints one JSON object: for each the seconds, and the bytes of the stream against those of the LAN.
//! `cargo run --release -p atoll-benches --bin paths [NAME]...`.

use atoll_benches::relay::{self, Shape};
use atoll_benches::text;
use atoll_storage::blob::Blobs;
use atoll_storage::{Changes, Clock, Error, Field, Id, Kind, OpenOptions, Replica, Store};
use atoll_sync::blob::Exchange;
use atoll_sync::key::NodeKey;
use atoll_sync::quic::{Congestion, Limits};
use atoll_sync::runner::{Options, Runner};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
static NOTE: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(100, "note", "notes", "content") };
static KINDS: &[&Kind] = &[&NOTE];
const TENANT: Id = Id([7; 16]);
const PATIENCE: Duration = Duration::from_secs(200);

/// Each with the number of notes of 2 KiB that go over it.
const PATHS: [(Shape, usize); 4] = [
    (shape("satellite", 300, 1_250_000, 10, 600), 8_000),
    (shape("wifi", 10, 6_250_000, 20, 60), 20_000),
    (shape("3g", 75, 190_000, 5, 500), 2_000),
    (shape("lan", 0, 125_000_000, 0, 20), 20_000),
];

const fn shape(name: &'static str, ms: u64, bytes_per_s: u64, lost: u64, queue_ms: u64) -> Shape {
    let (delay, queue) = (Duration::from_millis(ms), Duration::from_millis(queue_ms));
    Shape { name, delay, bytes_per_s, lost, queue }
}

struct Side {
    store: Store,
    runner: Runner,
    _folder: TempDir,
}

impl Side {
    fn start(congestion: Congestion, address: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = NodeKey::generate().expect("a key");
        let (dir, clock) = (folder.path().to_owned(), Clock::system());
        let open = OpenOptions { dir, kinds: KINDS, node: key.node_id(), clock: clock.clone() };
        let store = Store::open(open).expect("the store opens");
        let blobs = Blobs::open(&folder.path().join("blobs")).expect("a folder of blobs");
        let runner = Runner::start(Options {
            store: store.clone(),
            key,
            clock,
            listen: ([127, 0, 0, 1], 0).into(),
            name: "bench".into(),
            address: Some(address.to_owned()),
            limits: Limits { congestion, ..Limits::default() },
            discover: false,
            blobs: Exchange::over(blobs, 0),
            revoked: std::collections::BTreeSet::new(),
        });
        Self { store, runner: runner.expect("the node starts"), _folder: folder }
    }

    fn fill(&self, count: usize) {
        for first in (0..count).step_by(500) {
            let made: Result<(), Error> = self.store.write_blocking(move |tx| {
                for n in first..(first + 500).min(count) {
                    let key = tx.new_id();
                    let changes = Changes::new().set(&TITLE, format!("Note {n}"));
                    let changes = changes.body(&BODY, text::words(n as u64, 2_048));
                    tx.create(&NOTE, TENANT, key, changes)?;
                }
                Ok(())
            });
            made.expect("notes are made");
        }
    }
}

async fn measure(shape: Shape, notes: usize, congestion: Congestion) -> Json {
    // Nobody answers there: the one that joins dials, over the relay.
    let nowhere = "127.0.0.1:9";
    let (full, new) = (Side::start(congestion, nowhere), Side::start(congestion, nowhere));
    let relay = relay::start(full.runner.local_addr(), shape).await.expect("the relay starts");
    let hour = Duration::from_secs(3_600);
    let ticket = full
        .runner
        .ticket(vec![relay.to_string()], hour, atoll_storage::Rights::everything())
        .await
        .expect("a ticket");
    new.runner.join(&ticket).await.expect("it joins");
    // A stream that is there already comes by ops.
    full.fill(1);
    assert!(level(&full, &new).await, "not level in time");
    full.runner.pause();
    full.fill(notes);
    let before = full.runner.status()[0].sent_bytes;
    let begun = Instant::now();
    full.runner.resume();
    new.runner.sync_now();
    let is_level = level(&full, &new).await;
    let took_s = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let sent = full.runner.status()[0].sent_bytes.saturating_sub(before);
    full.runner.stop().await;
    new.runner.stop().await;
    full.store.close();
    new.store.close();
    let used = sent as f64 / took_s / shape.bytes_per_s as f64;
    json!({ "is_level": is_level, "took_s": took_s, "stream_bytes": sent, "part_of_rate": used })
}

async fn level(full: &Side, new: &Side) -> bool {
    let mut commits = new.store.subscribe();
    let wait = async {
        while full.store.clone().root().expect("a root")
            != new.store.clone().root().expect("a root")
        {
            commits.changed().await.expect("the store is open");
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.is_ok()
}

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut report = serde_json::Map::new();
    for (shape, notes) in PATHS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == shape.name) {
            continue;
        }
        let mut of_path = serde_json::Map::new();
        for (name, congestion) in [("cubic", Congestion::Cubic), ("bbr", Congestion::Bbr)] {
            of_path.insert(name.into(), measure(shape, notes, congestion).await);
        }
        report.insert(shape.name.into(), Json::Object(of_path));
    }
    println!("{:#}", Json::Object(report));
}
