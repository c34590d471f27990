//! Nodes that carry a part of the network.

use super::{MEMBER, NOTE, Outcome, Pair, content, hello, node, write};
use atoll_storage::{Carries, Db, Error, NodeId, Origin, Replica};
use atoll_sync::message::Message;
use atoll_sync::session::{Effect, Event, Now, Options, Phase, Session};

fn carries(rules: &[&str]) -> Result<Carries, Error> {
    Carries::parse(rules.iter().copied(), |_| None)
}

/// Two that carry only a part, and what each knows of the other from before.
fn partial_pair(a: Db, b: Db, do_know: bool) -> Pair {
    let known = |db: &Db| (Some(db.origin().node), do_know.then(|| Carries::clone(&db.carries())));
    let options = |(peer, peer_carries)| Options { peer, peer_carries, ..Options::default() };
    let ends = [options(known(&b)), options(known(&a))].map(|o| Session::new(o, Now::default()));
    let mut pair = Pair { ends, ..Pair::new(a, b, &Options::default()) };
    pair.step(0, Event::Open);
    pair.step(1, Event::Open);
    pair.carry();
    pair
}

#[test]
fn only_what_both_carry_crosses_the_link_and_more_comes_when_it_is_taken() -> Outcome {
    for trimmed in [false, true] {
        let (mut a, mut b) = (node(1)?, node(2)?);
        b.carry(carries(&["*", "-*/content"])?)?;
        for n in 0..9 {
            write(&mut a, &NOTE, n, "x")?;
        }
        write(&mut a, &MEMBER, 1, "ada")?;
        if trimmed {
            let all = a.head(&content())?.map(|head| head.vector).unwrap_or_default();
            a.trim(&content(), &all)?;
        }
        let mut pair = partial_pair(a, b, false);
        assert_eq!(pair.dbs[1].heads(None)?.len(), 1, "identity alone");
        assert_eq!(pair.ends.each_ref().map(|end| end.status().phase), [Phase::Live; 2]);
        assert!(write(&mut pair.dbs[1], &NOTE, 50, "y").is_err());
        write(&mut pair.dbs[0], &NOTE, 10, "y")?;
        pair.step(0, Event::Committed);
        pair.carry();
        assert!(pair.dbs[1].head(&content())?.is_none());

        pair.dbs[1].carry(Carries::everything())?;
        pair.step(1, Event::Committed);
        pair.carry();
        pair.wait(3_000);
        assert!(pair.are_equal());
        write(&mut pair.dbs[1], &NOTE, 51, "mine")?;
        pair.step(1, Event::Committed);
        pair.carry();
        assert!(pair.are_equal());

        pair.dbs[1].carry(carries(&["*", "-*/content"])?)?;
        while pair.dbs[1].shed(3)? {}
        pair.step(1, Event::Committed);
        pair.carry();
        pair.dbs[1].carry(Carries::everything())?;
        pair.step(1, Event::Committed);
        pair.carry();
        pair.wait(3_000);
        assert!(pair.are_equal(), "dropped and taken again");
        assert_eq!(pair.dbs[1].verify()?.problems, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn partial_nodes_that_know_each_other_greet_as_shortly_as_whole_ones() -> Outcome {
    let rules: [&[&str]; 3] = [&["*"], &["*", "-*/content"], &["*/content", "*/learning/"]];
    for (mine, theirs) in [(1, 1), (0, 1), (1, 2), (2, 0)] {
        let (mut a, mut b) = (node(1)?, node(2)?);
        a.carry(carries(rules[mine])?)?;
        b.carry(carries(rules[theirs])?)?;
        let _ = write(&mut a, &NOTE, 1, "x");
        write(&mut a, &MEMBER, 1, "ada")?;
        let _ = write(&mut b, &NOTE, 2, "y");
        let [a, b] = partial_pair(a, b, false).dbs;
        let do_know = mine != theirs;
        let pair = partial_pair(a, b, do_know);
        for end in 0..2 {
            assert_eq!(pair.ends[end].status().phase, Phase::Live, "{mine} {theirs}");
            assert!(pair.bytes_from(end) <= 200, "{}", pair.bytes_from(end));
        }
        assert_eq!(pair.sent.len(), 2, "{mine} {theirs}");
    }
    Ok(())
}

/// A peer of the first version does not say what it carries and is not told.
#[test]
fn an_older_peer_counts_as_whole() -> Outcome {
    let mut db = node(1)?;
    db.carry(carries(&["*", "-*/content"])?)?;
    let mut session = Session::new(Options::default(), Now::default());
    session.handle(Now::default(), &mut db, Event::Open);
    let origin = Origin { node: NodeId([9; 16]), epoch: 1 };
    let effects = session.handle(Now::default(), &mut db, Event::Frame(hello(origin, 1, 1)));
    let said: Vec<Message> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(bytes) => Message::decode(bytes).ok(),
            _ => None,
        })
        .collect();
    assert!(matches!(said[..], [Message::Compare { .. }]), "{said:?}");
    assert_eq!(session.peer_carries(), Some(&Carries::everything()));
    Ok(())
}
