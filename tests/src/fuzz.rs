//! Bytes from elsewhere, and what must not come of them: no panic, no memory without end, no store that does not verify
//! afterwards. Each target is a plain function. The tests call it with damaged copies of good inputs, and libFuzzer with
//! whatever it finds (`tests/fuzz`).

mod bundle;
mod events;
mod link;
mod mutate;
mod seeds;
mod store;
mod victim;

pub use mutate::mutated;

use atoll_storage::blob::tree::{Checker, Run, Step};
use atoll_sync::blob::{Answer, Request};
use atoll_sync::bucket::ObjectName;
use atoll_sync::frame::{Decoder, HEADER_BYTES};
use atoll_sync::grant::Grant;
use atoll_sync::key::NodeKey;
use atoll_sync::quic::{Hello, Reply};
use atoll_sync::ticket::Ticket;
use std::sync::OnceLock;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Good inputs, from real stores and sessions.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames, seeds: seeds::frames },
    Target { name: "hello", run: hello, seeds: seeds::hello },
    Target { name: "session", run: link::session, seeds: seeds::session },
    Target { name: "limited", run: link::limited, seeds: seeds::limited },
    Target { name: "ops", run: store::ops, seeds: seeds::ops },
    Target { name: "seal", run: store::seal, seeds: seeds::seal },
    Target { name: "chunk", run: store::chunk, seeds: seeds::chunk },
    Target { name: "volume", run: bundle::volume, seeds: seeds::volume },
    Target { name: "signed", run: bundle::signed, seeds: seeds::signed },
    Target { name: "block", run: store::block, seeds: seeds::block },
    Target { name: "slice", run: slice, seeds: seeds::slice },
    Target { name: "request", run: request, seeds: seeds::request },
    Target { name: "grant", run: grant, seeds: seeds::grant },
    Target { name: "ticket", run: ticket, seeds: seeds::ticket },
    Target { name: "object_name", run: object_name, seeds: seeds::object_name },
];

/// The bytes of a stream, whole and in small pieces: the same frames come out, and no longer ones than may.
fn frames(data: &[u8]) {
    const LIMIT: usize = 4_096;
    let cut = |size: usize| {
        let mut decoder = Decoder::new(LIMIT);
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for piece in data.chunks(size) {
            decoder.push(piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
        }
        (frames, decoder.finish())
    };
    let (whole, end) = cut(data.len().max(1));
    assert!(whole.iter().all(|frame| frame.len() <= LIMIT));
    let size: usize = whole.iter().map(|frame| frame.len() + HEADER_BYTES).sum();
    assert!(size <= data.len());
    for pieces in [1, 7] {
        let (again, its_end) = cut(pieces);
        assert_eq!((&again, &its_end), (&whole, &end));
    }
}

/// Parts of a blob with their proof: what is given on is what the blob has there.
fn slice(data: &[u8]) {
    let (bytes, id) = seeds::blob();
    let runs = vec![Run { first: 0, count: 2 }, Run { first: 4, count: 3 }];
    let mut checker = Checker::new(&id, bytes.len() as u64, runs);
    let mut rest = data;
    while let Some(step) = checker.next_step() {
        let Some((part, after)) = rest.split_at_checked(checker.next_len().unwrap_or_default())
        else {
            return;
        };
        rest = after;
        if checker.take(part).is_err() {
            return;
        }
        if let Step::Group { index, len } = step {
            let at = index as usize * atoll_storage::blob::tree::GROUP_BYTES;
            assert_eq!(part, &bytes[at..at + len]);
        }
    }
}

/// The first frame on a link, in either direction.
fn hello(data: &[u8]) {
    if let Ok(hello) = Hello::decode(Some(data.to_vec().into())) {
        let again = hello.encode().expect("what was read can be written");
        assert_eq!(Hello::decode(Some(again.into())).ok(), Some(hello));
    }
    if let Ok(reply) = Reply::decode(Some(data.to_vec().into())) {
        let again = reply.encode().expect("what was read can be written");
        assert_eq!(Reply::decode(Some(again.into())).ok(), Some(reply));
    }
}

/// What is said of blobs beside a link, in either direction.
fn request(data: &[u8]) {
    if let Ok(request) = Request::decode(data) {
        if let Request::Slice { runs, .. } = &request {
            let mut size = 0_u64;
            for run in runs {
                size += run.count;
                assert!(run.first.checked_add(run.count).is_some(), "{run:?}");
            }
            assert!(size > 0);
        }
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    if let Ok(answer) = Answer::decode(data) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
}

/// What a peer signed, after its own key: of whom it may say anything.
fn grant(data: &[u8]) {
    let key = peer_key();
    let body = [&key.public().0, data].concat();
    let signature = key.sign(&[b"atoll grant 1\0", &body[..]].concat());
    if let Ok(grant) = Grant::open(&[&[1], &body[..], &signature].concat()) {
        assert!(grant.rights.check().is_ok());
        let bytes = grant.sign(key).expect("what was read can be written");
        assert_eq!(Grant::open(&bytes), Ok(grant));
    }
    assert!(Grant::open(data).is_err(), "nobody signed it");
}

/// Of a peer that means harm.
fn peer_key() -> &'static NodeKey {
    static KEY: OnceLock<NodeKey> = OnceLock::new();
    KEY.get_or_init(|| NodeKey::generate().expect("random bytes"))
}

fn ticket(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    if let Ok(ticket) = Ticket::from_line(&line) {
        let again = ticket.to_line().expect("what was read can be written");
        assert_eq!(Ticket::from_line(&again), Ok(ticket));
    }
}

fn object_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(name) = ObjectName::parse(&text) {
        assert_eq!(name.to_string(), text);
    }
}
