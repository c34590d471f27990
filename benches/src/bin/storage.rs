//! What the store costs without HTTP: durable creates, a peer's ops applied in batches, a bootstrap by snapshot.
//! Prints one JSON object. Run with `cargo run --release -p atoll-benches --bin storage [FOLDER [CLIENTS|apply]]`: with
//! a number of clients only their creates, with `apply` everything but the creates.

use atoll_storage::{
    Changes, Clock, Db, Event, Field, Id, Kind, Lane, NodeId, Op, OpenOptions, Replica, Store, Type,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// The one of the binary `atoll`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TITLE: Field = Field::text(1, "title").column();
const SLUG: Field = Field::text(2, "slug").claim("doc.slug");
const STATUS: Field = Field::text(3, "status").column();
const TAGS: Field = Field::set(4, "tags", Type::Text).column();
const BODY: Field = Field::body(5, "body");
const TARGET: Field = Field::text(1, "target").column();

static DOC: Kind = Kind {
    fields: &[TITLE, SLUG, STATUS, TAGS, BODY],
    indexes: &[&["status", "created_at"]],
    counted: &["status"],
    ..Kind::new(100, "doc", "docs", "content")
};
static LIKE: Kind = Kind {
    fields: &[TARGET],
    counted: &["target"],
    ..Kind::new(101, "like", "likes", "community")
};
static KINDS: &[&Kind] = &[&DOC, &LIKE];
const TENANT: Id = Id([7; 16]);

fn draft(n: u64) -> Changes {
    Changes::new()
        .set(&TITLE, format!("Document {n}"))
        .set(&SLUG, format!("document-{n}"))
        .set(&STATUS, "draft")
        .body(&BODY, atoll_benches::text::words(n, 2_048))
}

fn open(dir: &Path, n: u8) -> Db {
    std::fs::create_dir_all(dir).expect("the folder can be made");
    Db::open(&dir.join(format!("{n}.db")), KINDS, NodeId([n; 16]), Clock::system())
        .expect("the store opens")
}

fn creates(dir: &Path, clients: u64, time: Duration) -> f64 {
    let dir = dir.join(format!("creates{clients}"));
    let options = OpenOptions { dir, kinds: KINDS, node: NodeId([9; 16]), clock: Clock::system() };
    let store = Store::open(options).expect("the store opens");
    let started = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            std::thread::spawn(move || {
                let mut made = 0;
                while started.elapsed() < time {
                    let changes = draft(client * 10_000_000 + made);
                    let create = store.write_blocking(move |tx| {
                        let key = tx.new_id();
                        tx.create(&DOC, TENANT, key, changes)?;
                        let payload = serde_json::json!({ "doc_id": key, "title": "Document" });
                        tx.emit(&Event {
                            event_type: "bench.doc.created",
                            tenant: TENANT,
                            user: None,
                            payload,
                        })
                    });
                    create.expect("the create is kept");
                    made += 1;
                }
                made
            })
        })
        .collect();
    let made: u64 = threads.into_iter().map(|t| t.join().expect("the client ends")).sum();
    let rate = made as f64 / started.elapsed().as_secs_f64();
    store.close();
    rate
}

fn all_ops(db: &mut Db) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut from = 1;
    loop {
        let batch =
            db.ops(Lane::Rest, from, &BTreeMap::new(), 10_000, 64 << 20).expect("the log reads");
        if batch.ops.is_empty() {
            return ops;
        }
        ops.extend(batch.ops);
        from = batch.next_pos;
    }
}

/// Ops a second of one core's time: it is one thread that applies, and its share of a busy machine says nothing.
fn apply(dir: &Path, n: u8, ops: &[Op]) -> f64 {
    let mut db = open(dir, n);
    let batches: Vec<Vec<Op>> = ops.chunks(1_000).map(<[Op]>::to_vec).collect();
    let started = core_time_s();
    for batch in batches {
        db.apply(batch).expect("the batch applies");
    }
    ops.len() as f64 / (core_time_s() - started)
}

fn core_time_s() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn snapshot(dir: &Path, from: &mut Db) -> f64 {
    let mut to = open(dir, 4);
    let started = Instant::now();
    for head in from.heads(None).expect("heads") {
        let index = from.snapshot_index(&head.stream).expect("index");
        let mut after = None;
        loop {
            let chunk = from.snapshot_chunk(&head.stream, after, None).expect("chunk");
            to.merge_chunk(&chunk).expect("merge");
            after = chunk.upto;
            if after.is_none() {
                break;
            }
        }
        to.finish_snapshot(&head.stream, &index.vector).expect("finish");
    }
    assert_eq!(from.root().expect("root"), to.root().expect("root"));
    started.elapsed().as_secs_f64()
}

fn main() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let dir =
        std::env::args().nth(1).map_or_else(|| scratch.path().to_owned(), std::path::PathBuf::from);
    let time = Duration::from_secs(3);
    if let Some(clients) = std::env::args().nth(2).and_then(|text| text.parse().ok()) {
        println!("{}", creates(&dir, clients, 2 * time));
        return;
    }
    let has_creates = std::env::args().nth(2).as_deref() != Some("apply");
    let create_rates: BTreeMap<u64, f64> = [1, 16, 64]
        .into_iter()
        .filter(|_| has_creates)
        .map(|clients| (clients, creates(&dir, clients, time).round()))
        .collect();
    let mut a = open(&dir, 1);
    let records = 50_000;
    for group in 0..records / 500 {
        let made: Result<(), atoll_storage::Error> = a.transact(|tx| {
            for n in group * 500..(group + 1) * 500 {
                let key = tx.new_id();
                tx.create(&DOC, TENANT, key, draft(n))?;
            }
            Ok(())
        });
        made.expect("the documents are made");
    }
    let documents = all_ops(&mut a);
    let mut likes = open(&dir, 2);
    for group in 0..records / 500 {
        let made: Result<(), atoll_storage::Error> = likes.transact(|tx| {
            for n in group * 500..(group + 1) * 500 {
                let key = Id::natural(&[b"like", &n.to_le_bytes()]);
                tx.create(
                    &LIKE,
                    TENANT,
                    key,
                    Changes::new().set(&TARGET, format!("t{}", n % 100)),
                )?;
            }
            Ok(())
        });
        made.expect("the likes are made");
    }
    let small = all_ops(&mut likes);
    let report = serde_json::json!({
        "durable_creates_per_s": create_rates,
        "apply_documents_per_core_s": apply(&dir, 3, &documents).round(),
        "apply_likes_per_core_s": apply(&dir, 5, &small).round(),
        "bootstrap_by_snapshot_s": snapshot(&dir, &mut a),
        "bootstrap_records": records,
    });
    println!("{report:#}");
}
