//! Which blobs records name: kept with the records, on every node alike, proved and made anew.

use atoll_storage::blob::BlobId;
use atoll_storage::reference::{self, Counts};
use atoll_storage::{Changes, Clock, Db, Field, Id, Kind, NodeId, Replica, Type, Value};
use std::collections::BTreeSet;

const COVER: Field = Field::text(1, "cover").blob();
const FILES: Field = Field::set(2, "files", Type::Bytes).blob();
const TITLE: Field = Field::text(3, "title");

static PAGE: Kind =
    Kind { fields: &[COVER, FILES, TITLE], ..Kind::new(100, "page", "pages", "content") };
static CARD: Kind = Kind { fields: &[COVER], ..Kind::new(101, "card", "cards", "community") };
static KINDS: &[&Kind] = &[&PAGE, &CARD];
const TENANT: Id = Id([7; 16]);

fn node(n: u8) -> Db {
    let clock = Clock::from_fn(move || 1_700_000_000_000 + u64::from(n));
    Db::open_in_memory(KINDS, NodeId([n; 16]), clock).unwrap()
}

fn blob(n: u8) -> BlobId {
    BlobId::of(&[n])
}

fn send(from: &mut Db, to: &mut Db) {
    let known = to.heads(None).unwrap().into_iter().map(|h| (h.stream, h.vector)).collect();
    let start = from.start_of(atoll_storage::Lane::Rest, &known).unwrap();
    let batch = from.ops(atoll_storage::Lane::Rest, start, &known, 10_000, 1 << 24).unwrap();
    to.apply(batch.ops).unwrap();
}

fn wanted(db: &Db) -> Vec<BlobId> {
    let wants = reference::next_wants(&db.reader(), 0, 100).unwrap();
    wants.into_iter().map(|want| want.blob).collect()
}

fn named(db: &Db, n: u8) -> bool {
    reference::is_named(&db.reader(), &blob(n)).unwrap()
}

fn cover(n: u8) -> Changes {
    Changes::new().set(&COVER, blob(n).to_string())
}

#[test]
fn a_blob_is_named_while_a_record_holds_its_name() {
    let mut db = node(1);
    let (page, card) = (Id([1; 16]), Id([2; 16]));
    let made = db.transact(|tx| {
        let files = [blob(2), blob(3)].map(|id| Value::Bytes(id.0.to_vec()));
        let changes = cover(1).set(&TITLE, blob(9).to_string());
        let changes = files.into_iter().fold(changes, |changes, file| changes.add(&FILES, file));
        tx.create(&PAGE, TENANT, page, changes)?;
        tx.create(&CARD, TENANT, card, cover(1))
    });
    made.unwrap();
    assert!([1, 2, 3].iter().all(|n| named(&db, *n)) && !named(&db, 9));
    let all: BTreeSet<BlobId> = [blob(1), blob(2), blob(3)].into();
    assert_eq!(wanted(&db).into_iter().collect::<BTreeSet<_>>(), all);
    let mut scopes = reference::scopes_of(&db.reader(), &blob(1)).unwrap();
    scopes.sort();
    assert_eq!(scopes, ["community", "content"]);

    db.transact(|tx| reference::note_here(tx, &[blob(1), blob(2)])).unwrap();
    db.transact(|tx| reference::note_resting(tx, &[(blob(3), Some(5))])).unwrap();
    let counts = reference::counts(&db.reader()).unwrap();
    assert_eq!(counts, Counts { named: 3, missing: 1, resting: 1 });
    assert_eq!(reference::held(&db.reader(), None, 9).unwrap().len(), 2);

    db.transact(|tx| tx.edit(&PAGE, page, Changes::new().set(&COVER, "https://example.org/a.png")))
        .unwrap();
    assert!(named(&db, 1), "the card holds it");
    db.transact(|tx| tx.remove(&CARD, card)).unwrap();
    assert!(!named(&db, 1));
    db.transact(|tx| tx.remove(&PAGE, page)).unwrap();
    assert_eq!(reference::counts(&db.reader()).unwrap(), Counts::default());
    assert_eq!(db.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn both_of_two_concurrent_names_are_held() {
    let (mut a, mut b) = (node(1), node(2));
    let page = Id([1; 16]);
    a.transact(|tx| tx.create(&PAGE, TENANT, page, cover(1))).unwrap();
    send(&mut a, &mut b);
    a.transact(|tx| tx.edit(&PAGE, page, cover(2))).unwrap();
    b.transact(|tx| tx.edit(&PAGE, page, cover(3))).unwrap();
    send(&mut a, &mut b);
    send(&mut b, &mut a);
    for db in [&a, &b] {
        assert_eq!([1, 2, 3].map(|n| named(db, n)), [false, true, true]);
        assert_eq!(db.verify().unwrap().problems, Vec::<String>::new());
    }
    assert_eq!(wanted(&b).len(), 2);
}

#[test]
fn a_lost_reference_is_found_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("atoll.db");
    let open =
        || Db::open(&path, KINDS, NodeId([1; 16]), Clock::from_fn(|| 1_700_000_000_000)).unwrap();
    let page = Id([1; 16]);
    open().transact(|tx| tx.create(&PAGE, TENANT, page, cover(1))).unwrap();
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.execute("DELETE FROM blob_ref", []).unwrap();
    let mut db = open();
    assert_eq!(db.verify().unwrap().problems.len(), 2);
    db.rebuild(|_, _| {}).unwrap();
    assert!(named(&db, 1) && db.verify().unwrap().problems.is_empty());
    raw.execute("INSERT INTO blob_ref VALUES (zeroblob(32), 100, zeroblob(16), 1, 1)", []).unwrap();
    assert_eq!(db.verify().unwrap().problems.len(), 1);
}
