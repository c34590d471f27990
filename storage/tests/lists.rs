//! Lists in the order of a column that few records have, kept counts, and records that the writer keeps in memory.

use atoll_storage::query::Cursor;
use atoll_storage::{
    Changes, Clock, Db, Derived, Error, Field, Id, Kind, NodeId, Query, Read, Record, Type, Value,
};

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
