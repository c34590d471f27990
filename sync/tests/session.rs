//! Two sessions over two real databases, with the frames carried by hand.

#[path = "session/carries.rs"]
mod carries;
#[path = "session/grants.rs"]
mod grants;
#[path = "session/large.rs"]
mod large;
#[path = "session/limits.rs"]
mod limits;
#[path = "session/snapshot.rs"]
mod snapshot;
#[path = "session/streams.rs"]
mod streams;

use atoll_storage::{
    Changes, Clock, Db, Error, Field, Id, Kind, NodeId, Origin, Read, Replica, StreamId,
};
use atoll_sync::frame::HEADER_BYTES;
use atoll_sync::message::{Hello, Message, unpack_ops};
use atoll_sync::session::{Effect, Event, Now, Options, Phase, Reason, Session};
use std::collections::VecDeque;

const TITLE: Field = Field::text(1, "title").column();
const TEXT: Field = Field::body(2, "text");
const LOGIN: Field = Field::text(1, "login").column();
static NOTE: Kind = Kind { fields: &[TITLE, TEXT], ..Kind::new(300, "note", "notes", "content") };
static MEMBER: Kind = Kind { fields: &[LOGIN], ..Kind::new(301, "member", "members", "identity") };
static KINDS: &[&Kind] = &[&NOTE, &MEMBER];

const TENANT: Id = Id([7; 16]);

type Outcome = Result<(), Error>;

fn node(n: u8) -> Result<Db, Error> {
    Db::open_in_memory(KINDS, NodeId([n; 16]), Clock::from_fn(|| 1_700_000_000_000))
}

fn content() -> StreamId {
    StreamId::new(TENANT, "content")
}

fn write(db: &mut Db, kind: &'static Kind, n: u32, text: &str) -> Outcome {
    let key = Id::natural(&[kind.name.as_bytes(), &n.to_le_bytes()]);
    let changes = Changes::new().set(&kind.fields[0], text);
    db.transact(|tx| tx.create(kind, TENANT, key, changes)).map(|_: atoll_storage::Record| ())
}

/// Two nodes and the link between them.
struct Pair {
    dbs: [Db; 2],
    ends: [Session; 2],
    now_ms: u64,
    wire: VecDeque<(usize, Vec<u8>)>,
    sent: Vec<(usize, Vec<u8>)>,
    notes: Vec<Effect>,
}

impl Pair {
    fn new(a: Db, b: Db, options: &Options) -> Self {
        let end = || Session::new(options.clone(), Now::default());
        Self {
            dbs: [a, b],
            ends: [end(), end()],
            now_ms: 0,
            wire: VecDeque::new(),
            sent: vec![],
            notes: vec![],
        }
    }

    fn open(a: Db, b: Db) -> Self {
        let mut pair = Self::new(a, b, &Options::default());
        pair.step(0, Event::Open);
        pair.step(1, Event::Open);
        pair.carry();
        pair
    }

    fn step(&mut self, end: usize, event: Event) {
        let now = Now { elapsed_ms: self.now_ms, wall_ms: self.now_ms };
        for effect in self.ends[end].handle(now, &mut self.dbs[end], event) {
            match effect {
                Effect::Send(bytes) => {
                    self.sent.push((end, bytes.clone()));
                    self.wire.push_back((1 - end, bytes));
                }
                other => self.notes.push(other),
            }
        }
    }

    fn carry(&mut self) {
        while let Some((to, bytes)) = self.wire.pop_front() {
            self.step(to, Event::Frame(bytes));
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.step(0, Event::Tick);
        self.step(1, Event::Tick);
        self.carry();
    }

    fn are_equal(&mut self) -> bool {
        let [a, b] = &mut self.dbs;
        matches!((a.root(), b.root()), (Ok(a), Ok(b)) if a == b)
    }

    fn bytes_from(&self, end: usize) -> usize {
        let frames = self.sent.iter().filter(|(from, _)| *from == end);
        frames.map(|(_, bytes)| bytes.len() + HEADER_BYTES).sum()
    }
}

#[test]
fn equal_nodes_say_hello_and_nothing_else() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    for n in 0..300 {
        write(&mut a, &NOTE, n, "x")?;
    }
    let first = Pair::open(a, b);
    let [a, b] = first.dbs;
    let mut second = Pair::open(a, b);
    assert!(second.are_equal());
    for end in 0..2 {
        assert_eq!(second.ends[end].status().phase, Phase::Live);
        assert!(second.bytes_from(end) <= 200, "{}", second.bytes_from(end));
    }
    Ok(())
}

#[test]
fn what_was_written_apart_meets_and_what_is_written_then_is_pushed_at_once() -> Outcome {
    let (mut a, mut b) = (node(1)?, node(2)?);
    write(&mut a, &NOTE, 1, "from a")?;
    write(&mut b, &NOTE, 2, "from b")?;
    let mut pair = Pair::open(a, b);
    assert!(pair.are_equal());
    write(&mut pair.dbs[1], &NOTE, 3, "later")?;
    pair.step(1, Event::Committed);
    pair.carry();
    assert!(pair.are_equal());
    assert_eq!(pair.ends[1].status().phase, Phase::Live);
    let known = pair.ends[1].known(&content()).cloned();
    assert_eq!(known, pair.dbs[0].head(&content())?.map(|head| head.vector));
    Ok(())
}

#[test]
fn who_may_do_what_travels_before_all_else() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    for n in 0..20 {
        write(&mut a, &NOTE, n, "x")?;
    }
    write(&mut a, &MEMBER, 1, "ada")?;
    let pair = Pair::open(a, b);
    let first = pair.sent.iter().find_map(|(_, bytes)| match Message::decode(bytes) {
        Ok(Message::Ops { ops, .. }) => unpack_ops(&ops).ok(),
        _ => None,
    });
    let scopes: Vec<String> =
        first.unwrap_or_default().into_iter().map(|op| op.stream.scope).collect();
    assert_eq!(scopes, ["identity"]);
    Ok(())
}

#[test]
fn a_lost_batch_is_sent_again_and_a_lost_hello_too() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    write(&mut a, &NOTE, 1, "x")?;
    let mut pair = Pair::new(a, b, &Options::default());
    pair.step(0, Event::Open);
    pair.wire.clear();
    pair.step(1, Event::Open);
    pair.carry();
    pair.wait(10_000);
    pair.wait(10_000);
    assert!(pair.are_equal());
    write(&mut pair.dbs[0], &NOTE, 2, "y")?;
    pair.step(0, Event::Committed);
    pair.wire.clear();
    assert_eq!(pair.ends[0].status().phase, Phase::CatchingUp);
    pair.wait(10_000);
    assert!(pair.are_equal());
    Ok(())
}

#[test]
fn a_node_that_needs_what_was_trimmed_is_reconciled_and_deletions_stand() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    for n in 0..50 {
        write(&mut a, &NOTE, n, "x")?;
    }
    let mut pair = Pair::open(a, b);
    let [a, _] = &mut pair.dbs;
    let key = |n: u32| Id::natural(&[b"note", &n.to_le_bytes()]);
    a.transact(|tx| tx.remove(&NOTE, key(3)))?;
    for n in 50..60 {
        write(a, &NOTE, n, "y")?;
    }
    write(&mut pair.dbs[1], &NOTE, 99, "mine")?;
    let all = pair.dbs[0].head(&content())?.map(|head| head.vector).unwrap_or_default();
    pair.dbs[0].trim(&content(), &all)?;
    let [a, b] = pair.dbs;
    let mut pair = Pair::open(a, b);
    assert!(pair.are_equal());
    let is_there = |n| pair.dbs[1].reader().get(&NOTE, key(n)).map(|r| r.is_some());
    assert_eq!((is_there(3)?, is_there(55)?, is_there(99)?), (false, true, true));
    assert_eq!(pair.dbs[1].verify()?.problems, Vec::<String>::new());
    assert!(
        pair.notes.iter().any(|n| matches!(n, Effect::Note(text) if text.contains("snapshot")))
    );
    pair.wait(40_000);
    assert_eq!(pair.ends.each_ref().map(|end| end.status().alarms), [0, 0]);
    Ok(())
}

fn hello(origin: Origin, version: u16, oldest_version: u16) -> Vec<u8> {
    let (root, name) = (atoll_storage::Digest::default(), String::new());
    let seen = false;
    Message::Hello(Hello { version, oldest_version, origin, root, time_ms: 0, name, seen }).encode()
}

#[test]
fn a_copy_of_this_node_and_a_foreign_protocol_are_refused() -> Outcome {
    let origin = |n| Origin { node: NodeId([n; 16]), epoch: 9 };
    for (bytes, reason) in [
        (hello(origin(1), 1, 1), Reason::Clone(String::new())),
        (hello(origin(3), 0, 0), Reason::Version { theirs: 0 }),
        (hello(origin(3), 9, 8), Reason::Version { theirs: 9 }),
    ] {
        let mut pair = Pair::new(node(1)?, node(2)?, &Options::default());
        pair.step(0, Event::Open);
        pair.step(0, Event::Frame(bytes));
        assert_eq!(pair.notes, [Effect::Close(reason)]);
        assert_eq!(pair.ends[0].status().phase, Phase::Closed);
        pair.step(0, Event::Tick);
        assert_eq!(pair.notes.len(), 1);
    }
    Ok(())
}

/// A wire that carries so many bytes a second each way, in order, and takes its time.
struct Narrow {
    pair: Pair,
    bytes_per_s: u64,
    latency_ms: u64,
    /// Until when each direction is busy.
    busy_ms: [u64; 2],
    on_way: VecDeque<(u64, usize, Vec<u8>)>,
}

impl Narrow {
    const STEP_MS: u64 = 10;

    /// Until both are equal; how long that took, and how many bytes.
    fn run(mut self) -> (u64, usize) {
        self.pair.step(0, Event::Open);
        self.pair.step(1, Event::Open);
        while self.pair.now_ms < 3_600_000 {
            self.depart();
            self.pair.now_ms += Self::STEP_MS;
            self.arrive();
            if self.pair.now_ms.is_multiple_of(500) {
                self.pair.step(0, Event::Tick);
                self.pair.step(1, Event::Tick);
                if self.on_way.is_empty() && self.pair.wire.is_empty() && self.pair.are_equal() {
                    break;
                }
            }
        }
        assert!(self.pair.are_equal(), "not within an hour");
        (self.pair.now_ms, self.pair.bytes_from(0) + self.pair.bytes_from(1))
    }

    fn depart(&mut self) {
        while let Some((to, bytes)) = self.pair.wire.pop_front() {
            let begin_ms = self.busy_ms[to].max(self.pair.now_ms);
            let took_ms = bytes.len() as u64 * 1_000 / self.bytes_per_s;
            self.busy_ms[to] = begin_ms + took_ms;
            self.on_way.push_back((self.busy_ms[to] + self.latency_ms, to, bytes));
        }
    }

    fn arrive(&mut self) {
        let mut waiting = VecDeque::new();
        for (due_ms, to, bytes) in std::mem::take(&mut self.on_way) {
            if due_ms > self.pair.now_ms {
                waiting.push_back((due_ms, to, bytes));
            } else {
                self.pair.step(to, Event::Frame(bytes));
            }
        }
        self.on_way.extend(waiting);
    }
}

fn with_texts(count: u32) -> Result<Db, Error> {
    let mut db = node(1)?;
    for n in 0..count {
        let text: String = (0..16u32)
            .map(|i| blake3::hash(&[n, i].map(u32::to_le_bytes).concat()).to_hex().to_string())
            .collect();
        write(&mut db, &NOTE, n, &text)?;
    }
    Ok(db)
}

#[test]
fn a_narrow_link_carries_everything_about_once_by_ops_and_by_snapshot() -> Outcome {
    for snapshot_from_ops in [u64::MAX, 100] {
        let options = Options { snapshot_from_ops, ..Options::default() };
        let mut wide = Pair::new(with_texts(1_000)?, node(2)?, &options);
        wide.step(0, Event::Open);
        wide.step(1, Event::Open);
        wide.carry();
        assert!(wide.are_equal());
        let needed = wide.bytes_from(0) + wide.bytes_from(1);
        for (bytes_per_s, latency_ms) in [(8_000, 300), (40_000, 50), (1_000_000, 5)] {
            let narrow = Narrow {
                pair: Pair::new(with_texts(1_000)?, node(2)?, &options),
                bytes_per_s,
                latency_ms,
                busy_ms: [0; 2],
                on_way: VecDeque::new(),
            };
            let (took_ms, bytes) = narrow.run();
            let least_ms = needed as u64 * 1_000 / bytes_per_s;
            println!(
                "{bytes_per_s} bytes a second: {bytes} of {needed} bytes, {took_ms} of {least_ms} ms"
            );
            assert!(bytes < needed * 13 / 10, "{bytes} bytes where {needed} do");
            assert!(took_ms < least_ms * 16 / 10 + 5_000, "{took_ms} ms where {least_ms} do");
        }
    }
    Ok(())
}

#[test]
fn what_is_urgent_does_not_wait_behind_all_else_on_a_narrow_link() -> Outcome {
    let options = Options { snapshot_from_ops: u64::MAX, ..Options::default() };
    let pair = Pair::new(with_texts(3_000)?, node(2)?, &options);
    let (bytes_per_s, latency_ms, on_way) = (8_000, 300, VecDeque::new());
    let mut narrow = Narrow { pair, bytes_per_s, latency_ms, busy_ms: [0; 2], on_way };
    narrow.pair.step(0, Event::Open);
    narrow.pair.step(1, Event::Open);
    let mut written_ms = None;
    let identity = StreamId::new(TENANT, "identity");
    while narrow.pair.dbs[1].head(&identity)?.is_none() {
        narrow.depart();
        narrow.pair.now_ms += Narrow::STEP_MS;
        narrow.arrive();
        if narrow.pair.now_ms.is_multiple_of(500) {
            narrow.pair.step(0, Event::Tick);
            narrow.pair.step(1, Event::Tick);
        }
        if narrow.pair.now_ms >= 60_000 && written_ms.is_none() {
            write(&mut narrow.pair.dbs[0], &MEMBER, 1, "revoked")?;
            narrow.pair.step(0, Event::Committed);
            written_ms = Some(narrow.pair.now_ms);
        }
        assert!(narrow.pair.now_ms < 600_000);
    }
    let took_ms = narrow.pair.now_ms - written_ms.unwrap_or_default();
    assert!(took_ms < 10_000, "it took {took_ms} ms");
    assert!(!narrow.pair.are_equal(), "the rest is still on its way");
    Ok(())
}

#[test]
fn a_damaged_row_of_the_log_is_got_round_by_the_state() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    for n in 0..5 {
        write(&mut a, &NOTE, n, "x")?;
    }
    a.transact(|tx| {
        let damage = tx.conn().execute_batch("UPDATE op SET payload = x'ffff' WHERE seq = 3");
        damage.map_err(Error::from)
    })?;
    let mut pair = Pair::open(a, b);
    for _ in 0..20 {
        pair.wait(31_000);
    }
    assert!(pair.are_equal());
    assert_eq!(pair.ends.each_ref().map(|end| end.status().phase), [Phase::Live; 2]);
    Ok(())
}

/// The message with one bit flipped and a fitting seal, as somebody would send it who means harm.
fn forged(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut body = bytes[..bytes.len() - 8].to_vec();
    body[bit / 8] ^= 1 << (bit % 8);
    let seal = blake3::hash(&body);
    body.extend_from_slice(&seal.as_bytes()[..8]);
    body
}

#[test]
fn forged_frames_end_the_session_at_worst() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    for n in 0..4 {
        write(&mut a, &NOTE, n, "some text")?;
    }
    let all = a.head(&content())?.map(|head| head.vector).unwrap_or_default();
    write(&mut a, &MEMBER, 1, "ada")?;
    a.trim(&content(), &all)?;
    let pair = Pair::open(a, b);
    let frames: Vec<Vec<u8>> = pair.sent.into_iter().map(|(_, bytes)| bytes).collect();
    let mut db = node(3)?;
    for (n, frame) in frames.iter().enumerate() {
        for bit in (0..(frame.len() - 8) * 8).step_by(23) {
            let mut session = Session::new(Options::default(), Now::default());
            session.handle(Now::default(), &mut db, Event::Open);
            for (m, honest) in frames.iter().enumerate() {
                let bytes = if n == m { forged(frame, bit) } else { honest.clone() };
                session.handle(Now::default(), &mut db, Event::Frame(bytes));
            }
        }
    }
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    Ok(())
}
