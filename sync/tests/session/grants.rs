//! Two nodes of which one may not do everything on the other.

use super::{MEMBER, NOTE, Outcome, Pair, TENANT, content, hello, node, write};
use atoll_storage::{
    Changes, Db, Error, Field, Id, Kind, NodeId, Op, Origin, Payload, Replica, Rights, StreamId,
};
use atoll_sync::message::{Message, Packed, unpack_ops};
use atoll_sync::session::{Effect, Event, Now, Options, Phase, Reason, Session};
use std::collections::{BTreeMap, BTreeSet};

pub const OTHER: Id = Id([8; 16]);

fn reads() -> Rights {
    Rights { write: false, relay: false, ..Rights::everything() }
}

/// The first lets the second do this; the second lets the first do everything.
fn limited(a: Db, b: Db, lets: Rights) -> Pair {
    let options = [lets, Rights::everything()].map(|lets| Options {
        lets,
        snapshot_from_ops: 50,
        ..Options::default()
    });
    let ends = options.map(|options| Session::new(options, Now::default()));
    let mut pair = Pair { ends, ..Pair::new(a, b, &Options::default()) };
    pair.step(0, Event::Open);
    pair.step(1, Event::Open);
    pair.carry();
    pair
}

pub fn write_in(db: &mut Db, tenant: Id, kind: &'static Kind, n: u32, text: &str) -> Outcome {
    let key = Id::natural(&[&tenant.0, kind.name.as_bytes(), &n.to_le_bytes()]);
    let changes = Changes::new().set(&kind.fields[0], text);
    db.transact(|tx| tx.create(kind, tenant, key, changes)).map(|_: atoll_storage::Record| ())
}

fn ops_here(db: &mut Db, stream: &StreamId) -> Result<u64, Error> {
    let head = db.head(stream)?;
    Ok(head.map_or(0, |head| head.vector.0.values().sum()))
}

fn committed(pair: &mut Pair) {
    pair.step(0, Event::Committed);
    pair.step(1, Event::Committed);
    pair.carry();
}

pub fn lags(pair: &mut Pair) -> Result<[(u64, u64); 2], Error> {
    let [a, b] = &mut pair.dbs;
    Ok([pair.ends[0].lag(a.heads(None)?), pair.ends[1].lag(b.heads(None)?)])
}

/// All that an end said, in the messages that it sent.
fn said(pair: &Pair, end: usize) -> Vec<Message> {
    let sent = pair.sent.iter().filter(|(from, _)| *from == end);
    sent.filter_map(|(_, bytes)| Message::decode(bytes).ok()).collect()
}

#[test]
fn who_may_only_read_has_everything_and_is_level_and_keeps_its_own_to_itself() -> Outcome {
    for trimmed in [false, true] {
        let (mut a, mut b) = (node(1)?, node(2)?);
        for n in 0..9 {
            write(&mut a, &NOTE, n, "from a")?;
        }
        write(&mut b, &NOTE, 100, "mine alone")?;
        if trimmed {
            let all = a.head(&content())?.map(|head| head.vector).unwrap_or_default();
            a.trim(&content(), &all)?;
        }
        let mut pair = limited(a, b, reads());
        assert_eq!(ops_here(&mut pair.dbs[1], &content())?, 10, "nine and its own");
        assert_eq!(ops_here(&mut pair.dbs[0], &content())?, 9);
        write(&mut pair.dbs[1], &NOTE, 101, "mine too")?;
        write(&mut pair.dbs[0], &NOTE, 20, "live")?;
        committed(&mut pair);
        assert_eq!(ops_here(&mut pair.dbs[1], &content())?, 12);
        assert_eq!(lags(&mut pair)?, [(0, 0); 2], "neither lacks anything that it may have");

        // Not a word more than the roots is said from then on, and no alarm raised, however long it lasts.
        let before = pair.sent.len();
        for _ in 0..20 {
            pair.wait(31_000);
        }
        assert_eq!(pair.ends.each_ref().map(|end| end.status().phase), [Phase::Live; 2]);
        assert!(pair.notes.iter().all(|note| !matches!(note, Effect::Alarm { .. })));
        let later = pair.sent[before..].iter().map(|(_, bytes)| Message::decode(bytes));
        let is_root = |message| matches!(message, Ok(Message::Root { .. }));
        assert!(later.clone().count() > 0 && later.into_iter().all(is_root));
        assert_eq!(pair.ends[0].status().refused, 0, "it was told, and sends nothing in vain");
    }
    Ok(())
}

#[test]
fn of_streams_outside_of_a_grant_not_even_the_name_is_told() -> Outcome {
    let (mut a, b) = (node(1)?, node(2)?);
    write(&mut a, &NOTE, 1, "for it")?;
    write_in(&mut a, OTHER, &NOTE, 1, "not for it")?;
    write(&mut a, &MEMBER, 1, "nor this")?;
    let only = BTreeSet::from(["content".to_owned()]);
    let rights = Rights { tenants: Some([TENANT].into()), ..Rights::everything() };
    let mut pair = limited(a, b, Rights { scopes: Some(only), ..rights });
    assert_eq!(pair.dbs[1].heads(None)?.len(), 1);
    // What it wrote there itself is not taken, and what it asks for not answered.
    write_in(&mut pair.dbs[1], OTHER, &NOTE, 2, "smuggled")?;
    write(&mut pair.dbs[0], &MEMBER, 2, "later")?;
    committed(&mut pair);
    let hidden = StreamId::new(OTHER, "content");
    let asks = [
        Message::IndexRequest { request: 1, stream: hidden.clone() },
        Message::ChunkRequest { request: 2, stream: hidden.clone(), after: None, upto: None },
        Message::Compare {
            round: 77,
            page: atoll_sync::message::Page { number: 0, of: 1, items: vec![] },
        },
        Message::Ops { batch: 9, ops: Packed::of(&ops_of(&mut pair.dbs[1], &hidden)?) },
    ];
    for ask in asks {
        pair.step(0, Event::Frame(ask.encode()));
    }
    pair.carry();
    pair.wait(31_000);
    let told = said(&pair, 0);
    for message in &told {
        let names = |stream: &StreamId| stream.tenant == OTHER || stream.scope != "content";
        let tells = match message {
            Message::Compare { page, .. } => page.items.iter().any(|(tenant, _)| *tenant == OTHER),
            Message::Differ { page, .. } => page.items.contains(&OTHER),
            Message::Heads { page, .. } => page.items.iter().any(|head| names(&head.stream)),
            Message::Ops { ops, .. } => {
                unpack_ops(ops).unwrap_or_default().iter().any(|op| names(&op.stream))
            }
            Message::Ack { vectors, .. } => {
                vectors.iter().any(|(stream, vector)| names(stream) && !vector.0.is_empty())
            }
            Message::Index { .. } | Message::Chunk { .. } => true,
            _ => false,
        };
        assert!(!tells, "{message:?}");
    }
    assert_eq!(ops_here(&mut pair.dbs[0], &hidden)?, 1, "nothing of it was taken");
    assert_eq!(pair.ends[0].status().refused, 1);
    assert_eq!(pair.ends[1].known(&hidden), None);
    Ok(())
}

fn ops_of(db: &mut Db, stream: &StreamId) -> Result<Vec<Op>, Error> {
    let batch = db.ops(atoll_storage::Lane::Rest, 0, &BTreeMap::default(), 1_000, 1 << 20)?;
    Ok(batch.ops.into_iter().filter(|op| op.stream == *stream).collect())
}

#[test]
fn without_relaying_only_what_a_node_wrote_itself_is_taken_from_it() -> Outcome {
    let (a, mut b, mut c) = (node(1)?, node(2)?, node(3)?);
    write(&mut c, &NOTE, 1, "of a third")?;
    let mut bc = Pair::open(b, c);
    write(&mut bc.dbs[0], &NOTE, 2, "of b, on top of it")?;
    [b, _] = bc.dbs;
    let mut pair = limited(a, b, Rights { relay: false, ..Rights::everything() });
    let taken = pair.dbs[0].head(&content())?.map(|head| head.vector).unwrap_or_default();
    let origins: Vec<NodeId> = taken.0.keys().map(|origin| origin.node).collect();
    assert_eq!(origins, [NodeId([2; 16])]);
    assert_eq!(lags(&mut pair)?, [(0, 0); 2]);
    let known = pair.ends[1].known(&content()).cloned().unwrap_or_default();
    assert_eq!(known, taken, "it does not take the other for having what it did not take");
    // What comes all the same is refused, and neither counted as here nor acknowledged.
    let all = ops_of(&mut pair.dbs[1], &content())?;
    let before = pair.sent.len();
    pair.step(0, Event::Frame(Message::Ops { batch: 99, ops: Packed::of(&all) }.encode()));
    assert_eq!(pair.ends[0].status().refused, 1);
    let ack = pair.sent[before..].iter().find_map(|(_, bytes)| match Message::decode(bytes) {
        Ok(Message::Ack { batch: 99, vectors }) => Some(vectors),
        _ => None,
    });
    assert_eq!(ack, Some(vec![(content(), taken)]));
    write(&mut pair.dbs[1], &NOTE, 3, "live")?;
    write(&mut pair.dbs[0], &NOTE, 4, "live too")?;
    committed(&mut pair);
    assert_eq!(lags(&mut pair)?, [(0, 0); 2]);
    assert_eq!(ops_here(&mut pair.dbs[0], &content())?, 3);
    assert_eq!(ops_here(&mut pair.dbs[1], &content())?, 4);
    Ok(())
}

#[test]
fn who_may_only_write_learns_nothing_but_how_far_its_own_has_come() -> Outcome {
    let (mut a, mut b) = (node(1)?, node(2)?);
    write(&mut a, &NOTE, 1, "from a")?;
    write(&mut b, &NOTE, 2, "from b")?;
    let lets = Rights { read: false, relay: false, ..Rights::everything() };
    let mut pair = limited(a, b, lets);
    write(&mut pair.dbs[1], &NOTE, 3, "from b")?;
    write(&mut pair.dbs[0], &NOTE, 4, "from a")?;
    committed(&mut pair);
    for _ in 0..5 {
        pair.wait(31_000);
    }
    assert_eq!(ops_here(&mut pair.dbs[0], &content())?, 4);
    assert_eq!(ops_here(&mut pair.dbs[1], &content())?, 2);
    assert_eq!(lags(&mut pair)?, [(0, 0); 2]);
    let of_a = Origin { node: NodeId([1; 16]), epoch: 1 };
    for message in said(&pair, 0) {
        let vectors: Vec<_> = match message {
            Message::Heads { page, .. } => page.items.into_iter().map(|head| head.vector).collect(),
            Message::Ack { vectors, .. } => vectors.into_iter().map(|(_, vector)| vector).collect(),
            Message::Ops { .. } | Message::Index { .. } => panic!("it may not read"),
            _ => vec![],
        };
        assert!(vectors.iter().all(|vector| vector.get(of_a) == 0));
    }
    assert!(pair.notes.iter().all(|note| !matches!(note, Effect::Alarm { .. })));
    Ok(())
}

const WHO: Field = Field::text(1, "who");
static DECREE: Kind = Kind { fields: &[WHO], ..Kind::new(302, "decree", "decrees", "network") };
static KINDS: &[&Kind] = &[&NOTE, &MEMBER, &DECREE];

#[test]
fn what_the_network_obeys_reaches_whoever_may_anything_and_is_taken_from_the_trusted_alone()
-> Outcome {
    let network = StreamId::new(Id::NIL, "network");
    let place = |n: u8| {
        let clock = atoll_storage::Clock::from_fn(|| 1_700_000_000_000);
        Db::open_in_memory(KINDS, NodeId([n; 16]), clock)
    };
    let one_tenant = Rights { tenants: Some([TENANT].into()), ..Rights::everything() };
    let deaf = Rights { read: false, ..Rights::everything() };
    for (lets, taken) in [(Rights::everything(), 2), (one_tenant, 1), (reads(), 1), (deaf, 1)] {
        let (mut a, mut b) = (place(1)?, place(2)?);
        write_in(&mut a, Id::NIL, &DECREE, 1, "c is removed")?;
        write_in(&mut b, Id::NIL, &DECREE, 2, "a is removed")?;
        let mut pair = limited(a, b, lets);
        // Also if it does not care what it may.
        let mut forced = vec![];
        for op in
            pair.dbs[1].ops(atoll_storage::Lane::Urgent, 0, &BTreeMap::default(), 9, 9_999)?.ops
        {
            forced.push(op);
        }
        pair.step(0, Event::Frame(Message::Ops { batch: 8, ops: Packed::of(&forced) }.encode()));
        pair.carry();
        assert_eq!(ops_here(&mut pair.dbs[1], &network)?, 2, "it hears of it");
        assert_eq!(ops_here(&mut pair.dbs[0], &network)?, taken);
        assert_eq!(lags(&mut pair)?, [(0, 0); 2]);
    }
    Ok(())
}

#[test]
fn a_link_ends_at_the_time_until_which_the_peer_may() -> Outcome {
    let (a, b) = (node(1)?, node(2)?);
    let lets = Rights { until_ms: Some(5_000), ..Rights::everything() };
    let mut pair = limited(a, b, lets);
    pair.wait(4_999);
    assert_eq!(pair.ends[0].status().phase, Phase::Live);
    pair.now_ms += 1;
    write(&mut pair.dbs[0], &NOTE, 1, "too late for it")?;
    pair.step(0, Event::Committed);
    pair.carry();
    assert!(pair.notes.contains(&Effect::Close(Reason::GrantExpired)));
    assert_eq!(ops_here(&mut pair.dbs[1], &content())?, 0);
    Ok(())
}

/// A peer that does not know of grants would not know what it may, and is told to be upgraded. It hears nothing.
/// A version of the protocol.
const KNOWS_NO_GRANTS: u16 = 2;

#[test]
fn an_older_peer_that_may_not_do_everything_gets_nothing() -> Outcome {
    for (lets, is_met) in [(Rights::everything(), true), (reads(), false)] {
        let mut db = node(1)?;
        write(&mut db, &NOTE, 1, "x")?;
        let options = Options { lets, ..Options::default() };
        let mut session = Session::new(options, Now::default());
        session.handle(Now::default(), &mut db, Event::Open);
        let origin = Origin { node: NodeId([9; 16]), epoch: 1 };
        let frame = Event::Frame(hello(origin, KNOWS_NO_GRANTS, 1));
        let effects = session.handle(Now::default(), &mut db, frame);
        let refused = Effect::Close(Reason::NoGrants { theirs: KNOWS_NO_GRANTS });
        assert_eq!(!effects.contains(&refused), is_met);
        let sends = effects.iter().any(|effect| matches!(effect, Effect::Send(_)));
        assert_eq!(sends, is_met);
    }
    Ok(())
}

/// Both limit each other, and the limits of both hold.
#[test]
fn two_that_limit_each_other_share_what_both_let() -> Outcome {
    let (mut a, mut b) = (node(1)?, node(2)?);
    for db in [&mut a, &mut b] {
        for (n, tenant) in [TENANT, OTHER].into_iter().enumerate() {
            let n = n as u32 + 10 * u32::from(db.origin().node.0[0]);
            write_in(db, tenant, &NOTE, n, "x")?;
        }
    }
    let first = Rights { tenants: Some([TENANT].into()), ..Rights::everything() };
    let second = Rights { tenants: Some([OTHER, TENANT].into()), write: false, ..first.clone() };
    let ends = [first, second].map(|lets| Options { lets, ..Options::default() });
    let ends = ends.map(|options| Session::new(options, Now::default()));
    let mut pair = Pair { ends, ..Pair::new(a, b, &Options::default()) };
    pair.step(0, Event::Open);
    pair.step(1, Event::Open);
    pair.carry();
    pair.wait(31_000);
    // The second takes nothing that the first made; the first takes all of the one tenant.
    assert_eq!(ops_here(&mut pair.dbs[0], &content())?, 2);
    assert_eq!(ops_here(&mut pair.dbs[1], &content())?, 1);
    for db in &mut pair.dbs {
        assert_eq!(ops_here(db, &StreamId::new(OTHER, "content"))?, 1);
    }
    assert_eq!(lags(&mut pair)?, [(0, 0); 2]);
    assert!(
        ops_of(&mut pair.dbs[0], &content())?
            .iter()
            .all(|op| matches!(op.payload, Payload::Write(_)))
    );
    Ok(())
}
