//! Who all this is done to: a store with one of everything, and its end of a link.

use crate::simulator::kinds::{
    BODY, LABEL, LIKE, LOGIN, MEMBER, NEW, NOTE, PARENT, PLACE, SLUG, STATS, TAGS, TITLE, VIEWS,
    VISITORS, WEIGHT,
};
use atoll_storage::{Changes, Clock, Db, Error, Id, Kind, NodeId, Value};
use atoll_sync::session::{Now, Options, Session};

pub const TENANT: Id = Id([1; 16]);
const BEGIN_MS: u64 = 1_700_000_000_000;

pub fn empty(number: u8) -> Db {
    let clock = Clock::from_fn(|| BEGIN_MS);
    Db::open_in_memory(NEW, NodeId([number; 16]), clock).expect("a store in memory opens")
}

pub fn key(kind: &Kind, n: u64) -> Id {
    Id::natural(&[kind.name.as_bytes(), &n.to_le_bytes()])
}

/// What the two of a conversation both have.
pub fn write_first(db: &mut Db) {
    let written: Result<(), Error> = db.transact(|tx| {
        for n in 0..4 {
            let changes =
                Changes::new().set(&TITLE, "tide").add(&TAGS, "reef").body(&BODY, "gull and sand");
            tx.create(&NOTE, TENANT, key(&NOTE, n), changes.set(&SLUG, format!("note {n}")))?;
        }
        tx.create(&MEMBER, TENANT, key(&MEMBER, 0), Changes::new().set(&LOGIN, "ada"))?;
        tx.create(&PLACE, TENANT, key(&PLACE, 0), Changes::new().set(&LABEL, "up"))?;
        let below = Changes::new().set(&PARENT, Value::Id(key(&PLACE, 0)));
        tx.create(&PLACE, TENANT, key(&PLACE, 1), below)?;
        tx.create(&LIKE, TENANT, key(&LIKE, 0), Changes::new().set(&WEIGHT, 3_i64))?;
        tx.count(&STATS, TENANT, key(&STATS, 0), &[(&VIEWS, 3)], &[(&VISITORS, b"somebody")])
    });
    written.expect("good writes");
}

/// What each of them wrote alone.
pub fn write_apart(db: &mut Db, who: &str) {
    let written: Result<(), Error> = db.transact(|tx| {
        let edit = Changes::new().set(&TITLE, who).body(&BODY, format!("gull and {who} and sand"));
        tx.edit(&NOTE, key(&NOTE, 0), edit)?;
        tx.edit(&NOTE, key(&NOTE, 1), Changes::new().set(&SLUG, "one name"))?;
        tx.create(
            &NOTE,
            TENANT,
            Id::natural(&[who.as_bytes()]),
            Changes::new().set(&SLUG, "one name"),
        )?;
        if who == "hers" {
            tx.remove(&NOTE, key(&NOTE, 2))?;
            tx.edit(
                &PLACE,
                key(&PLACE, 0),
                Changes::new().set(&PARENT, Value::Id(key(&PLACE, 1))),
            )?;
        } else {
            tx.edit(&NOTE, key(&NOTE, 2), Changes::new().body(&BODY, "gone?"))?;
        }
        tx.count(&STATS, TENANT, key(&STATS, 0), &[(&VIEWS, 2)], &[(&VISITORS, who.as_bytes())])
    });
    written.expect("good writes");
}

pub fn store() -> Db {
    let mut db = empty(1);
    write_first(&mut db);
    write_apart(&mut db, "mine");
    db
}

pub fn write(db: &mut Db, n: u64) {
    let written: Result<(), Error> = db.transact(|tx| {
        tx.create(&NOTE, TENANT, key(&NOTE, 100 + n), Changes::new().body(&BODY, "meanwhile"))
            .map(drop)
    });
    written.expect("a good write");
}

/// Small batches, so that a conversation has many messages; a snapshot as soon as there is a reason.
pub fn options() -> Options {
    Options { snapshot_from_ops: 5, batch_ops: 2, ..Options::default() }
}

pub fn session() -> Session {
    Session::new(options(), Now::default())
}

/// The views are what the states say, and so are the digests.
pub fn assert_sound(db: &Db) {
    let problems = db.verify().expect("a store can be verified").problems;
    assert!(problems.is_empty(), "{problems:#?}");
}
