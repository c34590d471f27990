//! Lists in the order of a column that few records have, kept counts, kept lists, and records that the writer keeps in
//! memory.

use atoll_storage::query::Cursor;
use atoll_storage::{
    Changes, Clock, Db, Derived, Error, Field, Id, Kind, NodeId, OpenOptions, Query, Read, Record,
    Store, Tx, Type, Value,
};
use std::collections::BTreeMap;

const TITLE: Field = Field::text(1, "title").column();
const DUE: Field = Field::time(2, "due").column();

static TASK: Kind = Kind {
    fields: &[TITLE, DUE],
    derived: &[Derived {
        name: "is_due",
        ty: Type::Bool,
        value: |task| Value::Bool(task.int(&DUE).is_some()),
    }],
    indexes: &[&["+due"]],
    counted: &["is_due"],
    kept: true,
    ..Kind::new(100, "task", "tasks", "content")
};
static KINDS: &[&Kind] = &[&TASK];
const TENANT: Id = Id([7; 16]);

fn node() -> Db {
    Db::open_in_memory(KINDS, NodeId([1; 16]), Clock::from_fn(|| 1_700_000_000_000)).unwrap()
}

/// Twelve tasks, every third of them with a time, two of those with the same.
fn filled() -> Db {
    let mut db = node();
    for n in 0..12_u8 {
        let changes = Changes::new().set(&TITLE, format!("task {n}"));
        let due = (n % 3 == 0).then_some(1_000 - i64::from(n / 6));
        db.transact(|tx| tx.create(&TASK, TENANT, Id([n + 1; 16]), changes.set(&DUE, due)))
            .unwrap();
    }
    db
}

fn pages(db: &Db, query: &Query) -> Vec<(Option<i64>, Id)> {
    let (mut seen, mut after): (_, Option<Cursor>) = (Vec::new(), None);
    loop {
        let page = db.reader().list(&query.clone().after(after)).unwrap();
        assert_eq!(page.total, 12);
        seen.extend(page.records.iter().map(|task| (task.int(&DUE), task.key)));
        after = page.next;
        if after.is_none() {
            return seen;
        }
    }
}

#[test]
fn pages_by_a_sparse_column_show_each_record_once_and_in_order() {
    let db = filled();
    for descending in [true, false] {
        for limit in 1..=13 {
            let seen = pages(&db, &Query::of(&TASK, TENANT).sort("due", descending).limit(limit));
            let mut sorted = seen.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), 12, "{limit}");
            if descending {
                sorted.reverse();
            }
            assert_eq!(seen, sorted, "descending: {descending}, {limit} a page");
        }
    }
}

#[test]
fn flags_that_are_not_set_are_counted_by_the_rest() {
    let mut db = filled();
    let count = |db: &Db, flag: bool| {
        db.reader().count(&Query::of(&TASK, TENANT).filter("is_due", flag)).unwrap()
    };
    assert_eq!((count(&db, true), count(&db, false)), (4, 8));
    db.transact(|tx| tx.edit(&TASK, Id([1; 16]), Changes::new().set(&DUE, Value::Null))).unwrap();
    db.transact(|tx| tx.remove(&TASK, Id([2; 16]))).unwrap();
    assert_eq!((count(&db, true), count(&db, false)), (3, 8));
    assert_eq!(db.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_kept_record_is_read_as_the_transaction_has_it() {
    let mut db = filled();
    let key = Id([1; 16]);
    let title = |task: Option<Record>| task.map(|t| t.text(&TITLE).to_owned()).unwrap();
    let rename = |name: &'static str| Changes::new().set(&TITLE, name);
    let read = db
        .transact(|tx| {
            let before = title(tx.get(&TASK, key)?);
            tx.edit(&TASK, key, rename("renamed"))?;
            Ok::<_, Error>((before, title(tx.get(&TASK, key)?)))
        })
        .unwrap();
    assert_eq!(read, ("task 0".to_owned(), "renamed".to_owned()));
    let failed = db.transact(|tx| {
        tx.edit(&TASK, key, rename("never"))?;
        assert_eq!(title(tx.get(&TASK, key)?), "never");
        Err::<(), _>(Error::Missing("reason"))
    });
    assert!(failed.is_err());
    assert_eq!(db.transact(|tx| Ok::<_, Error>(title(tx.get(&TASK, key)?))).unwrap(), "renamed");
    db.transact(|tx| tx.remove(&TASK, key)).unwrap();
    assert!(db.transact(|tx| tx.get(&TASK, key)).unwrap().is_none());
}

const TAGS: Field = Field::set(1, "tags", Type::Text).column();
const PLACE: Field = Field::text(2, "place").column();
static NOTE: Kind = Kind { fields: &[TAGS, PLACE], ..Kind::new(101, "note", "notes", "content") };
static NOTES: &[&Kind] = &[&NOTE];

/// What a list of notes must show, in order.
fn matching(notes: &BTreeMap<Id, (u8, u8)>, tag: u8, place: Option<u8>) -> Vec<Id> {
    let is_match = |note: &(u8, u8)| note.0 == tag && place.is_none_or(|place| place == note.1);
    let mut found: Vec<_> = notes.iter().filter(|(_, note)| is_match(note)).collect();
    found.sort_by_key(|(key, note)| (note.1, **key));
    found.into_iter().map(|(key, _)| *key).collect()
}

#[test]
fn lists_that_are_kept_show_every_change_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (path, node) = (dir.path().to_owned(), NodeId([1; 16]));
    let options = OpenOptions { dir: path, kinds: NOTES, node, clock: Clock::system() };
    let store = Store::open(options).unwrap();
    let mut notes: BTreeMap<Id, (u8, u8)> = BTreeMap::new();
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((random >> 33) % below) as u8
    };
    for _ in 0..300 {
        let (key, tag, place) = (Id([next(40) + 1; 16]), next(3), next(4));
        let changes = Changes::new().set(&PLACE, place.to_string());
        let known = notes.get(&key).copied();
        let (goes, old) = (next(5) == 0, known.map(|(tag, _)| tag));
        let write = move |tx: &mut Tx<'_>| match old {
            Some(_) if goes => tx.remove(&NOTE, key),
            Some(old) => {
                let changes =
                    if old == tag { changes } else { changes.drop(&TAGS, old.to_string()) };
                let changes = changes.add(&TAGS, tag.to_string());
                tx.edit(&NOTE, key, changes).map(|_| ())
            }
            None => tx.create(&NOTE, TENANT, key, changes.add(&TAGS, tag.to_string())).map(|_| ()),
        };
        store.write_blocking::<_, Error>(write).unwrap();
        if known.is_some() && goes {
            notes.remove(&key)
        } else {
            notes.insert(key, (tag, place))
        };
        let (tag, place) = (next(3), Some(next(4)).filter(|place| place % 2 == 0));
        let mut query = Query::of(&NOTE, TENANT).contains(&TAGS, tag.to_string());
        query = query.sort("place", false).limit(usize::from(next(4)) + 1);
        if let Some(place) = place {
            query = query.filter("place", place.to_string());
        }
        let (mut seen, mut after, wanted) = (vec![], None, matching(&notes, tag, place));
        loop {
            let page = store.read(|reader| reader.list(&query.clone().after(after))).unwrap();
            assert_eq!(page.total, wanted.len() as u64);
            seen.extend(page.records.iter().map(|note| note.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, wanted);
    }
    store.close();
}

#[test]
fn a_page_after_a_record_that_moved_or_went_goes_on_where_the_last_one_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (path, node) = (dir.path().to_owned(), NodeId([1; 16]));
    let options = OpenOptions { dir: path, kinds: NOTES, node, clock: Clock::system() };
    let store = Store::open(options).unwrap();
    let note = |place: u8| Changes::new().set(&PLACE, place.to_string()).add(&TAGS, "a");
    let write = move |tx: &mut Tx<'_>| {
        (1..=6).try_for_each(|n| tx.create(&NOTE, TENANT, Id([n; 16]), note(n)).map(|_| ()))
    };
    store.write_blocking::<_, Error>(write).unwrap();
    let query = Query::of(&NOTE, TENANT).contains(&TAGS, "a").sort("place", false).limit(2);
    let first = store.read(|reader| reader.list(&query)).unwrap();
    let rest = |after: Option<Cursor>| -> Vec<u8> {
        let page = store.read(|reader| reader.list(&query.clone().limit(9).after(after))).unwrap();
        page.records.iter().map(|note| note.key.0[0]).collect()
    };
    assert_eq!(rest(first.next.clone()), [3, 4, 5, 6]);
    let moves = |tx: &mut Tx<'_>| tx.edit(&NOTE, Id([2; 16]), Changes::new().set(&PLACE, "9"));
    store.write_blocking::<_, Error>(moves).unwrap();
    assert_eq!(rest(first.next.clone()), [3, 4, 5, 6, 2], "it moved to the end");
    store.write_blocking::<_, Error>(|tx| tx.remove(&NOTE, Id([2; 16]))).unwrap();
    assert_eq!(rest(first.next), [3, 4, 5, 6]);
    store.close();
}
