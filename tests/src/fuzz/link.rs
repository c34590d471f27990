//! What happens on a link, one after the other. Frames get the seal of good ones, so that what is damaged is read all the
//! same; but for those that are left as they are.

use super::events::items;
use super::victim;
use atoll_storage::{Carries, Db, Digest, Rights};
use atoll_sync::session::{Effect, Event, Now, Options, Session};

/// What one input may make a node send; good ones make it send a hundredth.
const MAX_SENT_BYTES: usize = 16 << 20;

pub const SEALED: u8 = 0;
pub const AS_IT_IS: u8 = 1;
pub const TICK: u8 = 2;
pub const WRITE: u8 = 3;

fn with_seal(body: &[u8]) -> Vec<u8> {
    [body, &Digest::of(body).to_bytes()[..8]].concat()
}

/// A node that is linked to whoever says all this.
pub fn session(data: &[u8]) {
    hear(victim::store(), victim::options(), data);
}

/// The same, where one of the two has or may have a part only: the first byte tells which.
pub fn limited(data: &[u8]) {
    let Some((how, said)) = data.split_first() else { return };
    let (db, options) = limits(*how);
    hear(db, options, said);
}

pub fn limits(how: u8) -> (Db, Options) {
    let is = |bit: u8| how & (1 << bit) != 0;
    let mut db = victim::store();
    let part = Carries::parse(["*/*", "-*/insight"], |_| None).expect("good rules");
    if is(0) {
        db.carry(part.clone()).expect("good rules");
        while is(1) && db.shed(100).expect("what is carried no more goes") {}
    }
    let scopes = ["content".to_owned(), "ident/".to_owned()];
    let lets = Rights {
        tenants: is(2).then(|| [victim::TENANT].into()),
        scopes: is(3).then(|| scopes.into()),
        read: !is(4),
        write: !is(5),
        relay: !is(6),
        until_ms: None,
    };
    let peer = is(7).then(|| victim::node(2));
    let peer_carries = is(7).then_some(part);
    (db, Options { peer, peer_carries, lets, ..victim::options() })
}

fn hear(mut db: Db, options: Options, said: &[u8]) {
    let (mut now, mut sent, mut written) = (Now::default(), 0, 0);
    let mut session = Session::new(options, now);
    let mut step = |db: &mut Db, now: Now, event: Event| {
        for effect in session.handle(now, db, event) {
            match effect {
                Effect::Send(bytes) => sent += bytes.len(),
                Effect::Close(_) => return false,
                Effect::Alarm { .. } | Effect::Note(_) => {}
            }
        }
        assert!(sent <= MAX_SENT_BYTES + 64 * said.len(), "{sent} bytes for {}", said.len());
        session.status();
        true
    };
    let mut goes_on = step(&mut db, now, Event::Open);
    for (kind, bytes) in items(said) {
        let event = match kind % 4 {
            SEALED => Event::Frame(with_seal(bytes)),
            AS_IT_IS => Event::Frame(bytes.to_vec()),
            TICK => {
                now.elapsed_ms += 1_000 + bytes.len() as u64;
                Event::Tick
            }
            _ => {
                written += 1;
                victim::write(&mut db, written);
                Event::Committed
            }
        };
        goes_on = goes_on && step(&mut db, now, event);
        if !goes_on {
            break;
        }
    }
    victim::assert_sound(&db);
}
