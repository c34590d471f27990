//! Good inputs, made by the very code that will have to read damaged ones.

use super::bundle::{AGAIN, PART};
use super::events::{item, items};
use super::link::{AS_IT_IS, SEALED, TICK, WRITE, limits};
use super::store::SealSaid;
use super::{peer_key, victim};
use atoll_storage::blob::tree::Run;
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::{
    Db, Error, Id, Lane, NodeId, Op, Origin, Payload, Read, Replica, Rights, StreamId, Vector,
    codec,
};
use atoll_sync::blob::{Answer, Request};
use atoll_sync::bundle::{self, Lack, Order, Packing, Tells, Volumes};
use atoll_sync::frame;
use atoll_sync::grant::Grant;
use atoll_sync::key::{NodeKey, PublicKey, SIGNATURE_BYTES};
use atoll_sync::message::Message;
use atoll_sync::quic::{Hello, JoinAnswer, JoinRequest, Reply};
use atoll_sync::session::{Effect, Event, Now, Options, Session};
use atoll_sync::ticket::{Secret, Ticket};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::OnceLock;

pub fn content() -> StreamId {
    StreamId::new(victim::TENANT, "content")
}

/// The other node: what it shares with the victim, and its own.
fn other() -> Db {
    let mut first = victim::empty(1);
    victim::write_first(&mut first);
    let mut db = victim::empty(2);
    let _ = Replica::apply(&mut db, log(&mut first)).expect("good ops");
    victim::write_apart(&mut db, "hers");
    victim::erase_and_seal(&mut db);
    db
}

/// She removed a third one, and heard more of it after that.
fn remover() -> Db {
    let mut first = victim::empty(1);
    victim::write_first(&mut first);
    let mut third = victim::empty(3);
    let _ = Replica::apply(&mut third, log(&mut first)).expect("good ops");
    victim::write_apart(&mut third, "its");
    let mut db = other();
    let _ = Replica::apply(&mut db, log(&mut third)).expect("good ops");
    victim::remove(&mut db, victim::node(3));
    victim::edit_late(&mut third);
    let _ = Replica::apply(&mut db, log(&mut third)).expect("good ops");
    db
}

/// All that she has.
pub fn hers() -> &'static [Op] {
    static HERS: OnceLock<Vec<Op>> = OnceLock::new();
    HERS.get_or_init(|| log(&mut other()))
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

pub fn hello() -> Vec<Vec<u8>> {
    let addrs = vec!["192.0.2.1:4710".to_owned(), "reef.example.org:4710".to_owned()];
    let request = JoinRequest { name: "reef".to_owned(), addrs: addrs.clone() };
    let answer = JoinAnswer { name: "core".to_owned(), addrs, info: vec![7; 40] };
    let hellos = [Hello::Link, Hello::Join { secret: Secret([3; 16]), request }];
    let replies = [Reply::Welcome, Reply::Joined(answer), Reply::Refused("no".to_owned())];
    let hellos = hellos.iter().map(|hello| hello.encode());
    let replies = replies.iter().map(|reply| reply.encode());
    hellos.chain(replies).map(|bytes| bytes.expect("a short hello")).collect()
}

/// What the other one says to a victim until nothing is left to say.
fn said(mut hers: Db, (mut mine, options): (Db, Options)) -> Vec<u8> {
    let is_even = options.lets.is_whole() && mine.carries().is_everything();
    let ends = [options, victim::options()];
    let mut ends = ends.map(|options| Session::new(options, Now::default()));
    let mut events: VecDeque<(usize, Event)> = [(0, Event::Open), (1, Event::Open)].into();
    let mut said = Vec::new();
    while let Some((end, event)) = events.pop_front() {
        let db = if end == 0 { &mut mine } else { &mut hers };
        for effect in ends[end].handle(Now::default(), db, event) {
            let Effect::Send(bytes) = effect else { continue };
            if end == 1 {
                said.extend(item(SEALED, &bytes[..bytes.len() - 8]));
            }
            events.push_back((1 - end, Event::Frame(bytes)));
        }
    }
    let is_equal = mine.root().expect("a root") == hers.root().expect("a root");
    assert!(is_equal || !is_even, "they are equal");
    said
}

fn trimmed(mut db: Db) -> Db {
    let all = db.head(&content()).expect("a head").expect("a stream").vector;
    db.trim(&content(), &all).expect("a log is trimmed");
    db
}

pub fn session() -> Vec<Vec<u8>> {
    let to = || (victim::store(), victim::options());
    let by_ops = said(other(), to());
    let ticks = [item(TICK, &[0; 9_000]), item(WRITE, b""), item(AS_IT_IS, b"nonsense")].concat();
    vec![
        [&by_ops[..], &ticks].concat(),
        said(trimmed(other()), to()),
        [&ticks[..], &by_ops].concat(),
        said(remover(), to()),
        [&by_ops[..], &absurd()].concat(),
    ]
}

/// Two streams of which the peer says that it has as much as may be said, of so many origins that it adds up to more than
/// fits a number; and time to count it.
fn absurd() -> Vec<u8> {
    let origin = |n: u64| Origin { node: NodeId(Id::natural(&[&n.to_le_bytes()]).0), epoch: 1 };
    let vector = Vector((0..2_400).map(|n| (origin(n), 1 << 53)).collect());
    let acks = ["content", "identity"].map(|scope| {
        let vectors = vec![(StreamId::new(victim::TENANT, scope), vector.clone())];
        let bytes = Message::Ack { batch: 1, vectors }.encode();
        item(SEALED, &bytes[..bytes.len() - 8])
    });
    [&acks.concat()[..], &item(TICK, &vec![0; 40_000])].concat()
}

pub fn limited() -> Vec<Vec<u8>> {
    let ways = [0, 0b1, 0b11, 0b100, 0b1000, 0b11_0000, 0b100_0000, 0b1000_0001];
    let by_ops = ways.map(|how| [&[how][..], &said(other(), limits(how))].concat());
    let by_snapshot = ways.map(|how| [&[how][..], &said(trimmed(other()), limits(how))].concat());
    [by_ops, by_snapshot].concat()
}

pub fn ops() -> Vec<Vec<u8>> {
    let ops = hers();
    let mut seeds: Vec<Vec<u8>> = ops.chunks(3).map(|some| codec::encode(&some.to_vec())).collect();
    seeds.push(codec::encode(&ops.to_vec()));
    seeds.push(codec::encode(&log(&mut remover())));
    seeds
}

pub fn seal() -> Vec<Vec<u8>> {
    let cells = hers().iter().filter_map(|op| match &op.payload {
        Payload::Write(write) if op.kind == victim::SEAL.code => Some(write.cells.clone()),
        _ => None,
    });
    let said: Vec<SealSaid> = cells.map(|cells| (true, cells)).collect();
    assert!(!said.is_empty(), "she sealed nothing");
    let other_key: Vec<SealSaid> = said.iter().map(|(_, cells)| (false, cells.clone())).collect();
    [said, other_key].map(|said| codec::encode(&said)).into()
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

/// A bundle that somebody makes for a node of which nothing is known.
fn exported(
    key: &NodeKey,
    tells: Tells<'_>,
    snapshot_from_ops: u64,
    packing: Option<Packing<'_>>,
) -> Vec<Vec<u8>> {
    let lacks = [Lack::whole(BlobId([1; 32]), 9 << 20), lack_of_a_part()];
    let is_repair = matches!(tells, Tells::Repairs { .. });
    let order = Order {
        known: BTreeMap::new(),
        carries: &|stream| !is_repair || *stream == content(),
        recipients: vec![],
        whole: is_repair.then(content).into_iter().collect(),
        tells,
        lacks: &lacks,
        files: packing,
        volume_bytes: bundle::MIN_VOLUME_BYTES,
        batch_ops: 3,
        snapshot_from_ops,
        name: "fuzzed",
        now_ms: 1,
    };
    let mut shelf = Shelf(vec![]);
    bundle::export(&mut other(), key, &order, &mut shelf, |_, _| {}).expect("a bundle");
    shelf.0
}

fn lack_of_a_part() -> Lack {
    Lack::rest(
        BlobId([2; 32]),
        9 << 20,
        vec![Run { first: 1, count: 2 }, Run { first: 9, count: 5 }],
    )
}

pub fn volume() -> Vec<Vec<u8>> {
    let key = NodeKey::generate().expect("random bytes");
    let bundles = [5, 2_000].map(|from_ops| exported(&key, Tells::Brings, from_ops, None));
    bundles.concat()
}

/// The parts of a volume, without what signs them. A head stands before and after them.
fn parts(volume: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 28;
    let mut rest = volume;
    let mut parts = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(HEADER_BYTES) {
        let length: [u8; 4] = header[16..20].try_into().expect("four bytes");
        let (part, after) = after.split_at(u32::from_le_bytes(length) as usize);
        parts.push(part);
        rest = &after[SIGNATURE_BYTES..];
    }
    let inner = &parts[1..parts.len() - 1];
    inner.iter().flat_map(|part| item(PART, part)).collect()
}

pub fn signed() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(folder.path()).expect("blobs");
    // What is said in a list is at most 64 KiB.
    let id = blobs.put(&blob().0[..40_000]).expect("a blob");
    let named_by = |_, _| Ok(vec![id]);
    let packing = || Packing {
        blobs: &blobs,
        named_by: &named_by,
        asked: vec![],
        up_to_bytes: 1 << 20,
        room_bytes: &|| 1 << 20,
    };
    let key = peer_key();
    let refused = ["0123456789abcdef0123456789abcdef/0000018bcfe56800-00112233".to_owned()];
    let bundles = [
        exported(key, Tells::Brings, 5, None),
        exported(key, Tells::Brings, 2_000, Some(packing())),
        exported(key, Tells::Has, 2_000, None),
        exported(key, Tells::Wants, 2_000, None),
        exported(key, Tells::Says { refused: &refused }, 2_000, None),
        exported(key, Tells::Repairs { nodes: &[victim::node(1)], tries: 1 }, 2_000, None),
        exported(key, Tells::Lacks, 2_000, None),
    ];
    let mut seeds: Vec<Vec<u8>> = bundles.concat().iter().map(|volume| parts(volume)).collect();
    let again: Vec<u8> = items(&seeds[0]).flat_map(|(_, part)| item(AGAIN, part)).collect();
    seeds.push(again);
    seeds
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

pub fn request() -> Vec<Vec<u8>> {
    let id = BlobId([7; 32]);
    let runs = vec![Run { first: 0, count: 3 }, Run { first: 9, count: 1 }];
    let requests = [
        Request::Find { ids: vec![id; 3] },
        Request::Slice { id, runs },
        Request::Release { ids: vec![id] },
        Request::Tell { disk_full: true },
        Request::Complain { id },
    ];
    let answers = [
        Answer::Found(vec![None, Some(70_000)]),
        Answer::Slice { size_bytes: 70_000 },
        Answer::Kept(vec![true, false]),
    ];
    let requests = requests.iter().map(|request| request.encode());
    requests.chain(answers.iter().map(|answer| answer.encode())).collect()
}

pub fn grant() -> Vec<Vec<u8>> {
    let key = peer_key();
    let some = Rights {
        tenants: Some([victim::TENANT, Id([2; 16])].into()),
        scopes: Some(["content".to_owned(), "learning/".to_owned()].into()),
        until_ms: Some(9),
        ..Rights::everything()
    };
    let all = [Rights::everything(), Rights::nothing(), some].map(|rights| {
        let (issuer, holder) = (key.public(), PublicKey([7; 32]));
        let grant = Grant { issuer, holder, rights, serial: 3, issued_ms: 5 };
        let bytes = grant.sign(key).expect("a good grant");
        // Without its format and its issuer, and without what signs it.
        bytes[1 + issuer.0.len()..bytes.len() - SIGNATURE_BYTES].to_vec()
    });
    all.into()
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
