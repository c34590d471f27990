//! The log grows shorter with age, and nothing that is shown goes with it.

use atoll_storage::{
    Changes, Clock, Db, Error, Field, Id, Kind, Lane, NodeId, OpenOptions, Read, Record, Replica,
    Store, StreamId, Vector,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
static NOTE: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(500, "note", "notes", "content") };
static KINDS: &[&Kind] = &[&NOTE];
const TENANT: Id = Id([7; 16]);
const BEGIN_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 86_400_000;

fn key(n: u64) -> Id {
    Id::natural(&[&n.to_le_bytes()])
}

fn write(store: &Store, numbers: std::ops::Range<u64>) {
    let made: Result<(), Error> = store.write_blocking(move |tx| {
        for n in numbers {
            let changes =
                Changes::new().set(&TITLE, format!("note {n}")).body(&BODY, format!("text {n}"));
            // Written long ago, as far as the record says: that is not its age in the log.
            tx.create_at(&NOTE, TENANT, key(n), changes, (BEGIN_MS - 900 * DAY_MS, BEGIN_MS))?;
        }
        Ok(())
    });
    made.unwrap();
}

/// What the log still has.
fn ops(store: &Store) -> usize {
    let mut store = store.clone();
    let floors = store.heads(None).unwrap().into_iter().map(|head| (head.stream, head.floor));
    let floors: BTreeMap<StreamId, Vector> = floors.collect();
    store.ops(Lane::Rest, 1, &floors, 10_000, 64 << 20).unwrap().ops.len()
}

#[test]
fn what_is_older_than_is_wanted_leaves_the_log_and_stays_in_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicU64::new(BEGIN_MS));
    let clock = {
        let now_ms = now_ms.clone();
        Clock::from_fn(move || now_ms.load(Ordering::Relaxed))
    };
    let dir = folder.path().to_owned();
    let store =
        Store::open(OpenOptions { dir, kinds: KINDS, node: NodeId([1; 16]), clock }).unwrap();
    let pass = |days: u64| now_ms.fetch_add(days * DAY_MS, Ordering::Relaxed) + days * DAY_MS;
    write(&store, 0..40);
    store.mark_log(pass(1)).unwrap();
    write(&store, 40..60);
    store.mark_log(pass(10)).unwrap();
    let all = ops(&store);
    // Nothing is that old.
    assert_eq!(store.trim_older(BEGIN_MS, 1_000, None).unwrap(), 0);
    assert_eq!(ops(&store), all);
    // The first forty, in steps.
    let mut dropped = 0;
    loop {
        let step = store.trim_older(BEGIN_MS + 2 * DAY_MS, 7, None).unwrap();
        assert!(step <= 7);
        dropped += step as usize;
        if step == 0 {
            break;
        }
    }
    assert_eq!(ops(&store), all - dropped);
    assert_eq!(ops(&store) * 3, all, "twenty of sixty notes");
    let text = |n| -> String {
        let record: Record = store.read(|r| r.get_full(&NOTE, key(n))).unwrap().unwrap();
        record.body(&BODY).to_owned()
    };
    assert_eq!((text(3), text(50)), ("text 3".to_owned(), "text 50".to_owned()));
    assert_eq!(store.verify().unwrap().problems, Vec::<String>::new());
    // A node that has nothing is made from the state.
    let mut from = store.clone();
    let mut to = Db::open_in_memory(KINDS, NodeId([2; 16]), Clock::from_fn(|| BEGIN_MS)).unwrap();
    for head in from.heads(None).unwrap() {
        let chunk = from.snapshot_chunk(&head.stream, None, None).unwrap();
        assert_eq!(chunk.upto, None);
        to.merge_chunk(&chunk).unwrap();
        to.finish_snapshot(&head.stream, &chunk.vector).unwrap();
    }
    assert_eq!(from.root().unwrap(), to.root().unwrap());
    store.close();
}

#[test]
fn what_all_have_acknowledged_leaves_the_log_earlier_and_nothing_behind_what_one_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let clock = Clock::from_fn(|| BEGIN_MS);
    let store =
        Store::open(OpenOptions { dir, kinds: KINDS, node: NodeId([1; 16]), clock }).unwrap();
    write(&store, 0..20);
    store.mark_log(BEGIN_MS).unwrap();
    let heads = store.clone().heads(None).unwrap();
    let origin = store.origin();
    let upto = |seq| -> BTreeMap<StreamId, Vector> {
        let mut vector = Vector::default();
        vector.raise(origin, seq);
        heads.iter().map(|head| (head.stream.clone(), vector.clone())).collect()
    };
    let all = ops(&store);
    assert_eq!(store.trim_older(BEGIN_MS, 1_000, Some(&BTreeMap::new())).unwrap(), 0);
    assert_eq!(store.trim_older(BEGIN_MS, 1_000, Some(&upto(7))).unwrap(), 7);
    assert_eq!(store.trim_older(BEGIN_MS, 1_000, Some(&upto(7))).unwrap(), 0);
    assert_eq!(ops(&store), all - 7);
    assert_eq!(store.trim_older(BEGIN_MS, 1_000, Some(&upto(9))).unwrap(), 2);
    assert_eq!(store.verify().unwrap().problems, Vec::<String>::new());
    store.close();
}
