//! Who all this is done to: a store with one of everything, and its end of a link.

use crate::kinds::{
    BADGE, BODY, LABEL, LIKE, LOGIN, MEMBER, NOTE, PARENT, PLACE, REVOCATION, SLUG, STATS, TAGS,
    TITLE, VIEWS, VISITORS, WEIGHT,
};
use atoll_storage::revoked::{REVOKED_CUTS, REVOKED_NODE};
use atoll_storage::{Changes, Clock, Db, Error, Id, Kind, NodeId, Value, erasure, seal};
use atoll_sync::session::Options;
use std::collections::BTreeMap;

pub const TENANT: Id = Id([1; 16]);
pub const BEGIN_MS: u64 = 1_700_000_000_000;
/// After all that is written.
const LATER_MS: u64 = BEGIN_MS + 86_400_000;

pub static SEAL: Kind = seal::seals(290, "seal", "seals", "content");
static MARK: Kind = erasure::marks(291, "mark", "marks", "content");
static KINDS: &[&Kind] =
    &[&NOTE, &LIKE, &STATS, &PLACE, &MEMBER, &BADGE, &REVOCATION, &SEAL, &MARK];

pub fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

pub fn empty(number: u8) -> Db {
    let clock = Clock::from_fn(|| BEGIN_MS);
    Db::open_in_memory(KINDS, node(number), clock).expect("a store in memory opens")
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

/// Erases a record and seals all that this node wrote.
pub fn erase_and_seal(db: &mut Db) {
    let erased: Result<(), Error> = db.transact(|tx| tx.erase(&MARK, &NOTE, TENANT, key(&NOTE, 3)));
    erased.expect("a good write");
    seal(db);
}

/// What stands for signatures: a key is the node's first byte over and over, and so is what is signed with it.
fn is_signed(key: &[u8; 32], node: NodeId, _: &[u8], signature: &[u8]) -> bool {
    *key == [node.0[0]; 32] && signature == [node.0[0]; 64]
}

fn seal(db: &mut Db) {
    let me = db.origin().node;
    let due = seal::due(&db.reader(), me, LATER_MS, 100).expect("what is due");
    let sealed: Result<(), Error> = db
        .transact(|tx| due.iter().try_for_each(|one| tx.seal(one, [me.0[0]; 32], &[me.0[0]; 64])));
    sealed.expect("segments are sealed");
}

/// Says of a node that it is removed, and how far what it wrote is from before.
pub fn remove(db: &mut Db, node: NodeId) {
    let said: Result<(), Error> = db.transact(|tx| {
        let cut = tx.cut_of(node, &BTreeMap::new())?.expect("it wrote something");
        let changes = Changes::new().set(&REVOKED_NODE, node.to_string()).add(&REVOKED_CUTS, cut);
        let key = Id::natural(&[b"revocation", &node.0]);
        tx.create(&REVOCATION, Id::NIL, key, changes).map(drop)
    });
    said.expect("a good write");
}

/// What a removed node writes.
pub fn edit_late(db: &mut Db) {
    let written: Result<(), Error> = db.transact(|tx| {
        tx.edit(&NOTE, key(&NOTE, 0), Changes::new().set(&TITLE, "late").body(&BODY, "late sand"))?;
        tx.remove(&NOTE, key(&NOTE, 1))?;
        let late = Changes::new().set(&TITLE, "late").add(&TAGS, "late").body(&BODY, "late");
        tx.create(&NOTE, TENANT, key(&NOTE, 50), late).map(drop)
    });
    written.expect("good writes");
}

/// What a node does from time to time about what came.
pub fn look_after(db: &mut Db) {
    let me = db.origin().node;
    let look = seal::examine(&db.reader(), 100, is_signed).expect("seals are looked at");
    let noted: Result<(), Error> = db.transact(|tx| {
        tx.note_examined(&look)?;
        tx.drop_old_seals(me, 100).map(drop)
    });
    noted.expect("what became of seals is kept");
    seal::standing(&db.reader()).expect("how it stands with seals");
    seal(db);
    while db.erase_step(100).expect("what was erased goes") {}
    while db.find_late(100).expect("what came late is found") {}
    while db.take_back_before(LATER_MS, 100).expect("what came late is taken back") {}
}

/// Small batches, so that a conversation has many messages; a snapshot as soon as there is a reason.
pub fn options() -> Options {
    Options { snapshot_from_ops: 5, batch_ops: 2, ..Options::default() }
}

/// The views are what the states say, and so are the digests.
pub fn assert_sound(db: &Db) {
    let problems = db.verify().expect("a store can be verified").problems;
    assert!(problems.is_empty(), "{problems:#?}");
}
