//! Two sessions over two real databases, with the frames carried by hand.

use atoll_storage::{
    Changes, Clock, Db, Error, Field, Id, Kind, NodeId, Origin, Read, Replica, StreamId,
};
use atoll_sync::frame::HEADER_BYTES;
use atoll_sync::message::{Hello, Message, unpack_ops};
use atoll_sync::session::{Effect, Event, Now, Options, Phase, Reason, Session};
use std::collections::VecDeque;

const TITLE: Field = Field::text(1, "title").column();
const LOGIN: Field = Field::text(1, "login").column();
static NOTE: Kind = Kind { fields: &[TITLE], ..Kind::new(300, "note", "notes", "content") };
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
        (hello(origin(1), 1, 1), Reason::Clone),
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
