//! Two nodes that become equal over a path like a satellite's, a Wi-Fi's, a 3G's and a LAN's, with CUBIC and with BBR.
//! Prints one JSON object: for each the seconds, the bytes of the stream, and what part of the path's rate they took.
//! `cargo run --release -p atoll-benches --bin paths [NAME]...` goes over a relay between two sockets of this process.
//! `benches/paths.py` gives each node a network namespace and packets to be carried in between, as `--between` says.

use atoll_benches::shape::{PATHS, Shape};
use atoll_benches::{relay, text};
use atoll_storage::blob::Blobs;
use atoll_storage::{Changes, Clock, Error, Field, Id, Kind, OpenOptions, Replica, Rights, Store};
use atoll_sync::blob::Exchange;
use atoll_sync::key::NodeKey;
use atoll_sync::quic::{Congestion, Limits};
use atoll_sync::runner::{Options, Runner};
use clap::Parser;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The one of the binary `atoll`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
static NOTE: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(100, "note", "notes", "content") };
static KINDS: &[&Kind] = &[&NOTE];
const TENANT: Id = Id([7; 16]);
const PATIENCE: Duration = Duration::from_secs(200);
/// Nobody answers there: the one that joins dials.
const NOWHERE: &str = "127.0.0.1:9";

#[derive(Parser)]
#[command(about = "How soon two nodes are equal over bad paths, with CUBIC and with BBR")]
struct Args {
    /// Which of satellite, wifi, 3g and lan; all of them if none is named
    paths: Vec<String>,
    /// Two network namespaces, each with an address: NAME=ADDRESS NAME=ADDRESS. What is between them is the path
    #[arg(long, num_args = 2, value_names = ["NAME=ADDRESS", "NAME=ADDRESS"])]
    between: Option<Vec<String>>,
    /// Of cubic and bbr this one alone
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// How many notes go over each path, in the place of what suits it
    #[arg(long)]
    notes: Option<usize>,
}

/// Notes of 2 KiB that go over a path.
fn notes(path: &str) -> usize {
    match path {
        "satellite" => 8_000,
        "3g" => 2_000,
        _ => 20_000,
    }
}

/// Where a node is: sockets that are made on this runtime are in its namespace.
struct Place {
    runtime: Runtime,
    ip: IpAddr,
}

impl Place {
    fn here() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        Self { runtime, ip: Ipv4Addr::LOCALHOST.into() }
    }

    /// Threads stay in the namespace of the one that made them.
    fn in_namespace(told: &str) -> Self {
        let (name, ip) = told.split_once('=').expect("NAME=ADDRESS");
        let namespace = File::open(format!("/run/netns/{name}")).expect("a network namespace");
        let made = std::thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).expect("to enter it takes root");
            Runtime::new().expect("a runtime")
        });
        Self { runtime: made.join().expect("a runtime"), ip: ip.parse().expect("an IP address") }
    }

    /// Sockets that the task makes are of this place; those that another future makes, of the thread that waits for it.
    fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(self.runtime.spawn(task)).expect("the task ends")
    }
}

struct Side {
    store: Store,
    runner: Runner,
}

impl Side {
    fn start(place: &Place, congestion: Congestion, folder: &TempDir) -> Self {
        let key = NodeKey::generate().expect("a key");
        let (dir, clock) = (folder.path().to_owned(), Clock::system());
        let open = OpenOptions { dir, kinds: KINDS, node: key.node_id(), clock: clock.clone() };
        let store = Store::open(open).expect("the store opens");
        let blobs = Blobs::open(&folder.path().join("blobs")).expect("a folder of blobs");
        let options = Options {
            store: store.clone(),
            key,
            clock,
            listen: (place.ip, 0).into(),
            name: "bench".into(),
            address: Some(NOWHERE.to_owned()),
            limits: Limits { congestion, ..Limits::default() },
            discover: false,
            blobs: Exchange::over(blobs, 0),
            revoked: BTreeSet::new(),
        };
        let runner = place.run(async { Runner::start(options) });
        Self { store, runner: runner.expect("the node starts") }
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

    async fn stop(self) {
        self.runner.stop().await;
        self.store.close();
    }
}

fn measure(
    places: &[Place; 2],
    is_apart: bool,
    shape: Shape,
    congestion: Congestion,
    notes: usize,
) -> Json {
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let full = Side::start(&places[0], congestion, &folders[0]);
    let new = Side::start(&places[1], congestion, &folders[1]);
    let mut address = full.runner.local_addr();
    if !is_apart {
        let relay = places[0].run(async move { relay::start(address, shape).await });
        address = relay.expect("the relay starts");
    }
    join(places, &full, &new, address.to_string());
    // A stream that is there already comes by ops.
    full.fill(1);
    assert!(level(places, &full, &new), "not level in time");
    full.runner.pause();
    full.fill(notes);
    let before = full.runner.status()[0].sent_bytes;
    let begun = Instant::now();
    full.runner.resume();
    new.runner.sync_now();
    let is_level = level(places, &full, &new);
    let took_s = begun.elapsed().as_secs_f64();
    // Bytes are told every half second.
    places[0].runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1_200)).await });
    let sent = full.runner.status()[0].sent_bytes.saturating_sub(before);
    places[0].runtime.block_on(full.stop());
    places[1].runtime.block_on(new.stop());
    let used = sent as f64 / took_s / shape.bytes_per_s as f64;
    json!({
        "notes": notes, "is_level": is_level, "took_s": took_s, "stream_bytes": sent,
        "part_of_rate": used,
    })
}

fn join(places: &[Place; 2], full: &Side, new: &Side, address: String) {
    let hour = Duration::from_secs(3_600);
    let ticket = full.runner.ticket(vec![address], hour, Rights::everything());
    let ticket = places[0].runtime.block_on(ticket).expect("a ticket");
    places[1].runtime.block_on(new.runner.join(&ticket)).expect("it joins");
}

fn level(places: &[Place; 2], full: &Side, new: &Side) -> bool {
    let (mut full, mut new, mut commits) =
        (full.store.clone(), new.store.clone(), new.store.subscribe());
    places[1].runtime.block_on(async move {
        let wait = async {
            while full.root().expect("a root") != new.root().expect("a root") {
                commits.changed().await.expect("the store is open");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.is_ok()
    })
}

fn main() {
    let args = Args::parse();
    let is_apart = args.between.is_some();
    let places = match &args.between {
        Some(names) => [&names[0], &names[1]].map(|name| Place::in_namespace(name)),
        None => [Place::here(), Place::here()],
    };
    let mut report = serde_json::Map::new();
    for shape in PATHS {
        if !args.paths.is_empty() && !args.paths.iter().any(|name| name == shape.name) {
            continue;
        }
        let mut of_path = serde_json::Map::new();
        let notes = args.notes.unwrap_or_else(|| notes(shape.name));
        for (name, congestion) in [("cubic", Congestion::Cubic), ("bbr", Congestion::Bbr)] {
            if args.only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            of_path.insert(name.into(), measure(&places, is_apart, shape, congestion, notes));
        }
        report.insert(shape.name.into(), Json::Object(of_path));
    }
    println!("{:#}", Json::Object(report));
}
