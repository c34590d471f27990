//! Records that are longer than a message: they come in pieces.

use super::{MEMBER, NOTE, Outcome, Pair, TENANT, TEXT, content, node, write};
use atoll_storage::{Changes, Db, Id, Lane, Read, Record, Replica};
use atoll_sync::message::{Hello, Message};
use atoll_sync::session::{Effect, Event, Options, Phase};

const KEY: Id = Id([1; 16]);

/// A text that hardly compresses, another one for each `n`.
fn noise(n: u32, bytes: usize) -> String {
    let mut hash = blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof();
    let mut noise = vec![0; bytes];
    hash.fill(&mut noise);
    noise.iter().map(|byte| char::from(b' ' + byte % 95)).collect()
}

/// A node whose log is trimmed, with a record of more than 9 MiB among others: ten nodes made it apart from each other, each
/// with a text of its own.
fn with_a_long_record() -> Result<Db, atoll_storage::Error> {
    let mut a = node(1)?;
    for n in 10..20 {
        let mut other = node(n)?;
        let changes = Changes::new().body(&TEXT, noise(u32::from(n), 1_000_000));
        other.transact(|tx| tx.create(&NOTE, TENANT, KEY, changes).map(|_: Record| ()))?;
        let ops = other.ops(Lane::Rest, 0, &[].into(), 10, 1 << 20)?.ops;
        a.apply(ops)?;
    }
    for n in 0..20 {
        write(&mut a, &NOTE, n, "another")?;
    }
    write(&mut a, &MEMBER, 1, "mara")?;
    let all = a.head(&content())?.map(|head| head.vector).unwrap_or_default();
    a.trim(&content(), &all)?;
    Ok(a)
}

fn begin(a: Db, b: Db, options: &Options) -> Pair {
    let mut pair = Pair::new(a, b, options);
    pair.step(0, Event::Open);
    pair.step(1, Event::Open);
    pair
}

fn is_piece(bytes: &[u8]) -> bool {
    matches!(Message::decode(bytes), Ok(Message::Piece { .. }))
}

fn has_text(pair: &Pair, text: &str) -> Result<bool, atoll_storage::Error> {
    let there = pair.dbs[1].reader().get_full(&NOTE, KEY)?;
    Ok(there.is_some_and(|note| note.body(&TEXT) == text))
}

fn assert_equal(pair: &mut Pair) -> Outcome {
    assert!(pair.are_equal(), "{:?}", pair.notes);
    for db in &mut pair.dbs {
        assert_eq!(db.verify()?.problems, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_record_that_is_longer_than_a_message_comes_in_pieces() -> Outcome {
    let mut pair = begin(with_a_long_record()?, node(2)?, &Options::default());
    pair.carry();
    assert_equal(&mut pair)?;
    let pieces = pair.sent.iter().filter(|(_, bytes)| is_piece(bytes)).count();
    assert!((13..40).contains(&pieces), "{pieces}");
    let longest = pair.sent.iter().map(|(_, bytes)| bytes.len()).max();
    assert!(longest < Some(2 << 20), "{longest:?}");
    assert_eq!(pair.ends.each_ref().map(|end| end.status().phase), [Phase::Live; 2]);
    Ok(())
}

#[test]
fn a_body_that_was_rewritten_over_and_over_comes_in_pieces() -> Outcome {
    let mut a = node(1)?;
    let begun = Changes::new().body(&TEXT, "begun");
    a.transact(|tx| tx.create(&NOTE, TENANT, KEY, begun).map(|_: Record| ()))?;
    for n in 0..8 {
        let changes = Changes::new().body(&TEXT, noise(n, 4_000));
        a.transact(|tx| tx.edit(&NOTE, KEY, changes).map(|_: Record| ()))?;
    }
    let all = a.head(&content())?.map(|head| head.vector).unwrap_or_default();
    a.trim(&content(), &all)?;
    let options = Options { chunk_bytes: 8_000, ..Options::default() };
    let mut pair = begin(a, node(2)?, &options);
    pair.carry();
    assert_equal(&mut pair)?;
    assert!(pair.sent.iter().filter(|(_, bytes)| is_piece(bytes)).count() > 16);
    assert!(has_text(&pair, &noise(7, 4_000))?);
    // Both go on in one history.
    for (end, text) in [(1, "changed there"), (0, "changed here")] {
        let changes = Changes::new().body(&TEXT, text);
        pair.dbs[end].transact(|tx| tx.edit(&NOTE, KEY, changes).map(|_: Record| ()))?;
        pair.step(end, Event::Committed);
        pair.carry();
    }
    assert_equal(&mut pair)
}

#[test]
fn a_record_that_is_changed_while_its_pieces_are_on_their_way_comes_whole() -> Outcome {
    let options = Options { snapshot_from_ops: 1, chunk_bytes: 8_000, ..Options::default() };
    let mut a = node(1)?;
    let begun = Changes::new().body(&TEXT, noise(1, 40_000));
    a.transact(|tx| tx.create(&NOTE, TENANT, KEY, begun).map(|_: Record| ()))?;
    let mut pair = begin(a, node(2)?, &options);
    let (mut came, mut lost) = (0, 0);
    while let Some((to, bytes)) = pair.wire.pop_front() {
        if is_piece(&bytes) {
            came += 1;
            if came == 9 {
                let changes = Changes::new().body(&TEXT, noise(2, 50_000));
                pair.dbs[0].transact(|tx| tx.edit(&NOTE, KEY, changes).map(|_: Record| ()))?;
                // Whoever serves it has forgotten what it cut, and one piece is lost.
                pair.now_ms += 11_000;
                pair.step(0, Event::Tick);
                lost += 1;
                continue;
            }
        }
        pair.step(to, Event::Frame(bytes));
    }
    assert_eq!(lost, 1);
    for _ in 0..6 {
        pair.wait(15_000);
    }
    assert_equal(&mut pair)?;
    assert!(has_text(&pair, &noise(2, 50_000))?);
    Ok(())
}

/// It cannot have the record, and has all else.
#[test]
fn a_peer_of_an_older_release_is_sent_no_piece_and_keeps_its_link() -> Outcome {
    let mut pair = begin(with_a_long_record()?, node(2)?, &Options::default());
    while let Some((to, bytes)) = pair.wire.pop_front() {
        let bytes = match Message::decode(&bytes) {
            Ok(Message::Hello(hello)) => Message::Hello(Hello { version: 3, ..hello }).encode(),
            _ => bytes,
        };
        pair.step(to, Event::Frame(bytes));
    }
    assert!(!pair.sent.iter().any(|(_, bytes)| is_piece(bytes)));
    assert!(!pair.notes.iter().any(|note| matches!(note, Effect::Close(_))), "{:?}", pair.notes);
    let member = Id::natural(&[b"member", &1_u32.to_le_bytes()]);
    assert!(pair.dbs[1].reader().get(&MEMBER, member)?.is_some());
    assert!(pair.dbs[1].reader().get(&NOTE, KEY)?.is_none());
    Ok(())
}
