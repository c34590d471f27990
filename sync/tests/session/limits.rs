//! Two nodes that let each other do whatever chance says, over a wire that loses frames: everything that may come has come,
//! nothing else has, and then there is silence.

use super::grants::{OTHER, lags, write_in};
use super::{MEMBER, NOTE, Outcome, Pair, TENANT, node};
use atoll_storage::{Db, Error, NodeId, Replica, Rights, StreamId, Vector};
use atoll_sync::message::Message;
use atoll_sync::session::{Effect, Event, Flow, Now, Options, Phase, Session};
use std::collections::BTreeMap;

/// Enough for what is lost here, and the same on every machine.
struct Chance(u64, u32);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn rights(&mut self) -> Rights {
        if self.is(25) {
            return Rights::everything();
        }
        Rights {
            tenants: self.is(50).then(|| [TENANT].into()),
            scopes: self.is(50).then(|| ["content".to_owned()].into()),
            read: self.is(75),
            write: self.is(60),
            relay: self.is(50),
            until_ms: None,
        }
    }

    fn write(&mut self, db: &mut Db, count: u64) -> Outcome {
        for _ in 0..count {
            let tenant = if self.is(50) { TENANT } else { OTHER };
            let kind = if self.is(70) { &NOTE } else { &MEMBER };
            // No two writes meet in one record: what one builds on would have to come as well.
            self.1 += 1;
            write_in(db, tenant, kind, self.1, "x")?;
        }
        Ok(())
    }
}

type Held = BTreeMap<StreamId, Vector>;

fn held(db: &mut Db) -> Result<Held, Error> {
    Ok(db.heads(None)?.into_iter().map(|head| (head.stream, head.vector)).collect())
}

/// Carries what is on its way, and loses some of it.
fn carry(pair: &mut Pair, chance: &mut Chance, lost_percent: u64) {
    while let Some((to, bytes)) = pair.wire.pop_front() {
        if !chance.is(lost_percent) {
            pair.step(to, Event::Frame(bytes));
        }
    }
}

fn tick(pair: &mut Pair, chance: &mut Chance, lost_percent: u64) {
    pair.now_ms += 3_000;
    pair.step(0, Event::Tick);
    pair.step(1, Event::Tick);
    carry(pair, chance, lost_percent);
}

fn check(pair: &mut Pair, before: &[Held; 2], lets: &[Rights; 2], seed: u64) -> Outcome {
    let after = [held(&mut pair.dbs[0])?, held(&mut pair.dbs[1])?];
    let nodes = [NodeId([1; 16]), NodeId([2; 16])];
    let nothing = Vector::default();
    for (from, to) in [(0, 1), (1, 0)] {
        for (stream, vector) in &after[from] {
            let flow = Flow::between(&lets[from], &lets[to], stream);
            let there = after[to].get(stream).unwrap_or(&nothing);
            let was = before[to].get(stream).unwrap_or(&nothing);
            for (origin, seq) in vector.0.iter().filter(|(origin, _)| origin.node != nodes[to]) {
                let told = format!("seed {seed}: {stream} {origin} from {from} to {to}, {flow:?}");
                if flow.takes(origin.node, nodes[from]) {
                    assert!(there.get(*origin) >= *seq, "it has not come: {told}");
                } else {
                    assert_eq!(there.get(*origin), was.get(*origin), "it must not come: {told}");
                }
            }
        }
    }
    assert_eq!(lags(pair)?, [(0, 0); 2], "seed {seed}");
    assert_eq!(pair.ends.each_ref().map(|end| end.status().phase), [Phase::Live; 2], "{seed}");
    let has_alarm =
        pair.notes.iter().any(|note| matches!(note, Effect::Alarm { .. } | Effect::Close(_)));
    assert!(!has_alarm, "seed {seed}: {:?}", pair.notes);
    Ok(())
}

fn run(seed: u64) -> Outcome {
    let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, 0);
    let (mut a, mut b, mut c) = (node(1)?, node(2)?, node(3)?);
    // Each of the two has met a third, at different times.
    let count = chance.below(9);
    chance.write(&mut c, count)?;
    let ac = Pair::open(a, c);
    [a, c] = ac.dbs;
    let count = chance.below(9);
    chance.write(&mut c, count)?;
    if chance.is(70) {
        [b, _] = Pair::open(b, c).dbs;
    }
    for db in [&mut a, &mut b] {
        let count = chance.below(30);
        chance.write(db, count)?;
    }
    let before = [held(&mut a)?, held(&mut b)?];
    let lets = [chance.rights(), chance.rights()];
    let snapshot_from_ops = if chance.is(50) { 5 } else { 1_000 };
    let end = |lets: &Rights| {
        let options = Options {
            lets: lets.clone(),
            snapshot_from_ops,
            answer_timeout_ms: 1_500,
            root_every_ms: 6_000,
            ..Options::default()
        };
        Session::new(options, Now::default())
    };
    let ends = [end(&lets[0]), end(&lets[1])];
    let mut pair = Pair { ends, ..Pair::new(a, b, &Options::default()) };
    pair.step(0, Event::Open);
    pair.step(1, Event::Open);
    let lost_percent = [0, 10, 30][chance.below(3) as usize];
    for _ in 0..20 {
        carry(&mut pair, &mut chance, lost_percent);
        let writer = chance.below(2) as usize;
        let count = chance.below(3);
        chance.write(&mut pair.dbs[writer], count)?;
        pair.step(writer, Event::Committed);
        tick(&mut pair, &mut chance, lost_percent);
    }
    for _ in 0..60 {
        tick(&mut pair, &mut chance, 0);
    }
    check(&mut pair, &before, &lets, seed)?;
    let quiet_from = pair.sent.len();
    for _ in 0..20 {
        tick(&mut pair, &mut chance, 0);
    }
    let later = pair.sent[quiet_from..].iter().map(|(_, bytes)| Message::decode(bytes));
    for message in later {
        assert!(matches!(message, Ok(Message::Root { .. })), "seed {seed} {lets:?}: {message:?}");
    }
    Ok(())
}

#[test]
fn whatever_two_let_each_other_do_all_of_it_comes_and_nothing_else() -> Outcome {
    (0..400).try_for_each(run)
}
