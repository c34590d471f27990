//! Many streams, and names of streams that are none.

use super::grants::write_in;
use super::{NOTE, Outcome, Pair, TENANT, node};
use atoll_storage::{Id, Lane, Replica, StreamId};
use atoll_sync::message::{MAX_OPS, Message};
use atoll_sync::session::{Effect, Event, Phase};

fn closes(pair: &Pair) -> Vec<&Effect> {
    pair.notes.iter().filter(|note| matches!(note, Effect::Close(_))).collect()
}

/// What came by another way is only told to the peer; that may be of more streams than one acknowledgement holds.
#[test]
fn a_redundant_link_tells_of_many_streams_in_parts() -> Outcome {
    let (a, b, mut c) = (node(1)?, node(2)?, node(3)?);
    let mut pair = Pair::open(a, b);
    write_in(&mut c, TENANT, &NOTE, 0, "both have it")?;
    let first = c.ops(Lane::Rest, 0, &[].into(), 10, 1 << 20)?;
    pair.dbs[0].apply(first.ops.clone())?;
    pair.dbs[1].apply(first.ops)?;
    // The one sends what the other had already: the other sees that the link is redundant.
    pair.step(0, Event::Committed);
    pair.carry();
    let streams = MAX_OPS as u32 + 500;
    for n in 1..=streams {
        write_in(&mut c, Id::natural(&[&n.to_le_bytes()]), &NOTE, n, "x")?;
    }
    let mut from = first.next_pos;
    loop {
        let batch = c.ops(Lane::Rest, from, &[].into(), 1_000, 1 << 20)?;
        if batch.ops.is_empty() {
            break;
        }
        from = batch.next_pos;
        pair.dbs[1].apply(batch.ops)?;
    }
    pair.now_ms += 100;
    let sent = pair.sent.len();
    pair.step(1, Event::Committed);
    let told: usize = pair.sent[sent..]
        .iter()
        .filter_map(|(_, bytes)| match Message::decode(bytes) {
            Ok(Message::Ack { batch: 0, vectors }) => Some(vectors.len()),
            _ => None,
        })
        .sum();
    assert_eq!(told, streams as usize);
    pair.carry();
    assert!(closes(&pair).is_empty(), "{:?}", closes(&pair));
    // Nobody else brings it: it is sent after a while.
    for _ in 0..3 {
        pair.wait(1_000);
    }
    assert!(pair.are_equal());
    Ok(())
}

#[test]
fn whoever_asks_for_streams_that_are_none_is_not_answered_and_costs_nothing() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    write_in(&mut a, TENANT, &NOTE, 0, "x")?;
    let mut pair = Pair::open(a, b);
    let (known, sent) = (pair.ends[0].acknowledged(), pair.sent.len());
    for n in 0..300_u32 {
        let stream = StreamId::new(Id::natural(&[&n.to_le_bytes()]), "content");
        let request = u64::from(n);
        let (after, upto) = (None, None);
        let index = Message::IndexRequest { request, stream: stream.clone() };
        let chunk = Message::ChunkRequest { request, stream: stream.clone(), after, upto };
        let piece = Message::PieceRequest { request, stream, after, upto, number: 0 };
        for message in [index, chunk, piece] {
            pair.step(0, Event::Frame(message.encode()));
        }
    }
    assert_eq!(pair.ends[0].acknowledged(), known);
    assert_eq!(pair.sent.len(), sent);
    assert_eq!(pair.ends[0].status().phase, Phase::Live);
    Ok(())
}
