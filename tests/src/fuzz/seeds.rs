//! Good inputs, made by the very code that will have to read damaged ones.

use super::{AS_IT_IS, SEALED, TICK, WRITE, event, victim};
use atoll_storage::blob::tree::Run;
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::{Db, Error, Lane, Op, Read, Replica, StreamId, codec};
use atoll_sync::bundle::{self, Order, Tells, Volumes};
use atoll_sync::frame;
use atoll_sync::key::NodeKey;
use atoll_sync::session::{Effect, Event, Now};
use atoll_sync::ticket::{Secret, Ticket};
use std::collections::{BTreeMap, VecDeque};
use std::io;

fn content() -> StreamId {
    StreamId::new(victim::TENANT, "content")
}

/// The other node: what it shares with the victim, and its own.
fn other() -> Db {
    let mut first = victim::empty(1);
    victim::write_first(&mut first);
    let mut db = victim::empty(2);
    let _ = Replica::apply(&mut db, log(&mut first)).expect("good ops");
    victim::write_apart(&mut db, "hers");
    db
}

fn log(db: &mut Db) -> Vec<Op> {
    let known = BTreeMap::new();
    let mut ops = Vec::new();
    for lane in [Lane::Urgent, Lane::Rest] {
        let from = db.start_of(lane, &known).expect("the log's start");
        ops.extend(db.ops(lane, from, &known, 1_000, 1 << 20).expect("ops").ops);
    }
    ops
}

pub fn frames() -> Vec<Vec<u8>> {
    let bodies: [&[u8]; 4] = [b"low", b"", &[9; 300], &[7; 4_096]];
    let framed = bodies.map(|body| frame::encode(body).expect("a short frame").to_vec());
    vec![framed.concat(), framed[2].clone(), framed[1].clone()]
}

/// What the other one says to a victim until both are equal.
fn said(mut hers: Db) -> Vec<u8> {
    let mut mine = victim::store();
    let mut ends = [victim::session(), victim::session()];
    let mut events: VecDeque<(usize, Event)> = [(0, Event::Open), (1, Event::Open)].into();
    let mut said = Vec::new();
    while let Some((end, event_)) = events.pop_front() {
        let db = if end == 0 { &mut mine } else { &mut hers };
        for effect in ends[end].handle(Now::default(), db, event_) {
            let Effect::Send(bytes) = effect else { continue };
            if end == 1 {
                said.extend(event(SEALED, &bytes[..bytes.len() - 8]));
            }
            events.push_back((1 - end, Event::Frame(bytes)));
        }
    }
    assert_eq!(mine.root().expect("a root"), hers.root().expect("a root"), "they are equal");
    said
}

pub fn session() -> Vec<Vec<u8>> {
    let mut trimmed = other();
    let all = trimmed.head(&content()).expect("a head").expect("a stream").vector;
    trimmed.trim(&content(), &all).expect("a log is trimmed");
    let by_ops = said(other());
    let by_snapshot = said(trimmed);
    let ticks =
        [event(TICK, &[0; 9_000]), event(WRITE, b""), event(AS_IT_IS, b"nonsense")].concat();
    vec![[&by_ops[..], &ticks].concat(), by_snapshot, [&ticks[..], &by_ops].concat()]
}

pub fn ops() -> Vec<Vec<u8>> {
    let ops = log(&mut other());
    let mut seeds: Vec<Vec<u8>> = ops.chunks(3).map(|some| codec::encode(&some.to_vec())).collect();
    seeds.push(codec::encode(&ops));
    seeds
}

pub fn chunk() -> Vec<Vec<u8>> {
    let mut db = other();
    let streams: Vec<StreamId> =
        db.heads(None).expect("heads").into_iter().map(|head| head.stream).collect();
    let chunk = |stream| codec::encode(&db.snapshot_chunk(stream, None, None).expect("a chunk"));
    streams.iter().map(chunk).collect()
}

struct Shelf(Vec<Vec<u8>>);

impl Volumes for Shelf {
    type File = Vec<u8>;
    fn begin(&mut self, _: u32) -> io::Result<Vec<u8>> {
        Ok(vec![])
    }
    fn end(&mut self, _: u32, file: Vec<u8>) -> io::Result<()> {
        self.0.push(file);
        Ok(())
    }
}

pub fn volume() -> Vec<Vec<u8>> {
    let key = NodeKey::generate().expect("random bytes");
    let mut shelf = Shelf(vec![]);
    for snapshot_from_ops in [5, 2_000] {
        let order = Order {
            known: BTreeMap::new(),
            carries: &|_| true,
            recipients: vec![],
            tells: Tells::Brings,
            lacks: &[],
            files: None,
            volume_bytes: bundle::MIN_VOLUME_BYTES,
            batch_ops: 3,
            snapshot_from_ops,
            name: "fuzzed",
            now_ms: 1,
        };
        bundle::export(&mut other(), &key, &order, &mut shelf, |_, _| {}).expect("a bundle");
    }
    shelf.0
}

pub fn block() -> Vec<Vec<u8>> {
    let mut db = victim::store();
    while db.pack_log(None, 0).expect("a log can be packed") {}
    let seeds: Result<Vec<Vec<u8>>, Error> = db.transact(|tx| {
        let mut statement = tx.conn().prepare("SELECT size, ops FROM block")?;
        let row = |size: u32, bytes: Vec<u8>| [&size.to_le_bytes()[..], &bytes].concat();
        let rows = statement.query_map([], |r| Ok(row(r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    });
    seeds.expect("blocks")
}

/// Seven groups and a bit, and their name.
pub fn blob() -> (Vec<u8>, BlobId) {
    let bytes: Vec<u8> = (0..120_000_u64).map(|n| (n / 7 + n * n / 501) as u8).collect();
    let id = BlobId::of(&bytes);
    (bytes, id)
}

pub fn slice() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(folder.path()).expect("blobs");
    let id = blobs.put(&blob().0).expect("a blob");
    let runs = vec![Run { first: 0, count: 2 }, Run { first: 4, count: 3 }];
    let mut slice = blobs.slice(&id, runs).expect("a slice").expect("of what is there");
    let mut bytes = Vec::new();
    while let Some(piece) = slice.next_piece(1 << 20).expect("a piece") {
        bytes.extend(piece);
    }
    vec![bytes]
}

pub fn ticket() -> Vec<Vec<u8>> {
    let ticket = Ticket {
        addrs: vec!["192.0.2.1:8081".to_owned(), "reef.example.org:8081".to_owned()],
        public_key: NodeKey::generate().expect("random bytes").public(),
        secret: Secret([3; 16]),
        expires_ms: 1_700_000_000_000,
        name: "reef".to_owned(),
    };
    let line = ticket.to_line().expect("a line");
    vec![line.clone().into_bytes(), line.replace('a', "a\n ").into_bytes()]
}

pub fn object_name() -> Vec<Vec<u8>> {
    let node = "0123456789abcdef0123456789abcdef";
    let names = [
        "want-0000018bcfe56800-0011223344556677.atoll",
        "0000018bcfe56800-0011223344556677-0002-last.atoll",
    ];
    names.iter().map(|name| format!("{node}/{name}").into_bytes()).collect()
}
