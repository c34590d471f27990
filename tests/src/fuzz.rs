//! Bytes from elsewhere, and what must not come of them: no panic, no memory without end, no store that does not verify
//! afterwards. Each target is a plain function. The tests call it with damaged copies of good inputs, and libFuzzer with
//! whatever it finds (`tests/fuzz`).

mod mutate;
mod seeds;
mod store;
mod victim;

pub use mutate::mutated;

use atoll_storage::Digest;
use atoll_storage::blob::tree::{Checker, Run, Step};
use atoll_sync::bucket::ObjectName;
use atoll_sync::frame::{Decoder, HEADER_BYTES};
use atoll_sync::session::{Effect, Event, Now};
use atoll_sync::ticket::Ticket;

/// What one input may make a node send; good ones make it send a hundredth.
const MAX_SENT_BYTES: usize = 16 << 20;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Good inputs, from real stores and sessions.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames, seeds: seeds::frames },
    Target { name: "session", run: session, seeds: seeds::session },
    Target { name: "ops", run: store::ops, seeds: seeds::ops },
    Target { name: "chunk", run: store::chunk, seeds: seeds::chunk },
    Target { name: "volume", run: store::volume, seeds: seeds::volume },
    Target { name: "block", run: store::block, seeds: seeds::block },
    Target { name: "slice", run: slice, seeds: seeds::slice },
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

/// What happens on a link, one after the other: a kind (1), a length (2, little endian), and so many bytes. The even kinds
/// are frames that get the seal of good ones, so that what is damaged is read all the same.
const SEALED: u8 = 0;
const AS_IT_IS: u8 = 1;
const TICK: u8 = 2;
const WRITE: u8 = 3;

fn event(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or_default();
    [&[kind][..], &length.to_le_bytes(), &bytes[..usize::from(length)]].concat()
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &Digest::of(body).to_bytes()[..8]].concat()
}

/// A node that is linked to whoever says all this.
fn session(data: &[u8]) {
    let mut db = victim::store();
    let mut session = victim::session();
    let (mut now, mut sent, mut rest) = (Now::default(), 0, data);
    let mut events = vec![Event::Open];
    let mut written = 0;
    loop {
        for event in events.drain(..) {
            for effect in session.handle(now, &mut db, event) {
                match effect {
                    Effect::Send(bytes) => sent += bytes.len(),
                    Effect::Close(_) => return victim::assert_sound(&db),
                    Effect::Alarm { .. } | Effect::Note(_) => {}
                }
            }
        }
        assert!(sent <= MAX_SENT_BYTES + 64 * data.len(), "{sent} bytes for {}", data.len());
        let Some((&[kind, low, high], after)) = rest.split_first_chunk::<3>() else { break };
        let length = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        match kind % 4 {
            SEALED => events.push(Event::Frame(sealed(bytes))),
            AS_IT_IS => events.push(Event::Frame(bytes.to_vec())),
            TICK => {
                now.elapsed_ms += 1_000 + length as u64;
                events.push(Event::Tick);
            }
            _ => {
                written += 1;
                victim::write(&mut db, written);
                events.push(Event::Committed);
            }
        }
    }
    victim::assert_sound(&db);
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
