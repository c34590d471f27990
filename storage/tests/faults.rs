//! What befalls a store from outside: clocks that are years off, a disk that fills up, a damaged row, an old copy of
//! the file put back by hand. Nothing acknowledged goes, and nothing is half done.

use atoll_storage::{
    Changes, Clock, Db, Error, Field, Id, Kind, Lane, NodeId, OpenOptions, Read, Replica, Store,
    StreamId,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::channel;

const TITLE: Field = Field::text(1, "title").column();
const BODY: Field = Field::body(2, "body");
static NOTE: Kind = Kind { fields: &[TITLE, BODY], ..Kind::new(100, "note", "notes", "content") };
static KINDS: &[&Kind] = &[&NOTE];

const TENANT: Id = Id([7; 16]);
const NOW_MS: u64 = 1_700_000_000_000;
const TEN_YEARS_MS: u64 = 315_000_000_000;

fn key(n: u64) -> Id {
    Id::natural(&[b"note", &n.to_le_bytes()])
}

fn content() -> StreamId {
    StreamId::new(TENANT, "content")
}

fn open(path: &Path, n: u8, now_ms: u64) -> Db {
    Db::open(path, KINDS, NodeId([n; 16]), Clock::from_fn(move || now_ms)).unwrap()
}

fn create(db: &mut Db, n: u64, title: &str) {
    let changes = Changes::new().set(&TITLE, title).body(&BODY, "some text");
    db.transact(|tx| tx.create(&NOTE, TENANT, key(n), changes)).unwrap();
}

fn edit(db: &mut Db, n: u64, title: &str) {
    db.transact(|tx| tx.edit(&NOTE, key(n), Changes::new().set(&TITLE, title))).unwrap();
}

fn title(db: &Db, n: u64) -> Option<String> {
    db.reader().get(&NOTE, key(n)).unwrap().map(|note| note.text(&TITLE).to_owned())
}

fn send(from: &mut Db, to: &mut Db) {
    let known = to.heads(None).unwrap().into_iter().map(|h| (h.stream, h.vector)).collect();
    let start = from.start_of(Lane::Rest, &known).unwrap();
    let batch = from.ops(Lane::Rest, start, &known, 10_000, 1 << 24).unwrap();
    to.apply(batch.ops).unwrap();
}

fn latest_ms(db: &Db, n: u64) -> u64 {
    db.reader().get(&NOTE, key(n)).unwrap().unwrap().state.latest_hlc().ms()
}

#[test]
fn a_record_from_a_clock_years_ahead_does_not_drag_this_nodes_clock_also_not_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("atoll.db");
    let mut ahead = open(&folder.path().join("ahead.db"), 1, NOW_MS + TEN_YEARS_MS);
    let mut db = open(&path, 2, NOW_MS);
    create(&mut ahead, 1, "from the future");
    send(&mut ahead, &mut db);
    edit(&mut db, 1, "edited");
    assert_eq!(title(&db, 1).as_deref(), Some("edited"));
    assert!(latest_ms(&db, 1) >= NOW_MS + TEN_YEARS_MS);
    create(&mut db, 2, "now");
    assert!(latest_ms(&db, 2) <= NOW_MS + 60_000, "dragged by a write");
    edit(&mut db, 1, "edited again");
    drop(db);
    let mut db = open(&path, 2, NOW_MS);
    create(&mut db, 3, "now");
    assert!(latest_ms(&db, 3) <= NOW_MS + 60_000, "dragged by its own last op");
    create(&mut ahead, 4, "from the future");
    send(&mut ahead, &mut db);
    drop(db);
    let mut db = open(&path, 2, NOW_MS);
    create(&mut db, 5, "now");
    assert!(latest_ms(&db, 5) <= NOW_MS + 60_000, "dragged by a peer's last op");
    assert!(latest_ms(&db, 5) >= latest_ms(&db, 3), "the clock stepped back");
}

/// As many pages as the file has now, and no more.
fn fill_up(tx: &atoll_storage::Tx<'_>, is_full: bool) {
    let pages = if is_full { 1 } else { 1 << 30 };
    tx.conn().execute_batch(&format!("PRAGMA max_page_count = {pages}")).unwrap();
}

fn long(n: u64) -> Changes {
    // What does not become shorter in the log.
    let text: String = (0..280)
        .map(|word: u64| Id::natural(&[&n.to_le_bytes(), &word.to_le_bytes()]).to_string())
        .collect();
    Changes::new().set(&TITLE, format!("note {n}")).body(&BODY, text)
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_group_keeps_nothing_of_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let clock = Clock::from_fn(|| NOW_MS);
    let options = OpenOptions { dir, kinds: KINDS, node: NodeId([1; 16]), clock };
    let store = Store::open(options).unwrap();
    let writer = |from: u64, to: u64, fills_up: bool| {
        let store = store.clone();
        move || {
            store.write_blocking(move |tx| {
                if fills_up {
                    fill_up(tx, true);
                }
                (from..to).try_for_each(|n| tx.create(&NOTE, TENANT, key(n), long(n)).map(|_| ()))
            })
        }
    };
    writer(0, 3, false)().unwrap();
    let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        // The first holds the writer until the others wait behind it: all are one group.
        let (go, wait) = channel::<()>();
        let (starts, started) = channel();
        let queue = store.clone();
        let first = scope.spawn(move || {
            queue.write_blocking(move |_| {
                starts.send(()).unwrap();
                wait.recv().unwrap();
                Ok(())
            })
        });
        started.recv().unwrap();
        let mut others = vec![];
        for (n, fills_up) in [(10, false), (20, true), (30, false)] {
            others.push(scope.spawn(writer(n, n + 5, fills_up)));
            while store.queue_depth() < others.len() {
                std::thread::yield_now();
            }
        }
        go.send(()).unwrap();
        let first = first.join().unwrap();
        std::iter::once(first).chain(others.into_iter().map(|o| o.join().unwrap())).collect()
    });
    let lifted: Result<(), Error> = store.write_blocking(|tx| {
        fill_up(tx, false);
        Ok(())
    });
    lifted.unwrap();
    assert!(matches!(results[2], Err(Error::Full)), "{results:?}");
    for (n, result) in [(10, &results[1]), (30, &results[3])] {
        let is_there = store.read(|reader| reader.get(&NOTE, key(n))).unwrap().is_some();
        assert_eq!(is_there, result.is_ok(), "{n}: {results:?}");
    }
    writer(40, 45, false)().unwrap();
    assert_eq!(store.verify().unwrap().problems, Vec::<String>::new());
    let mut store = store;
    let mut other = Db::open_in_memory(KINDS, NodeId([2; 16]), Clock::from_fn(|| NOW_MS)).unwrap();
    let ops = store.ops(Lane::Rest, 0, &BTreeMap::new(), 10_000, 1 << 30).unwrap().ops;
    other.apply(ops).unwrap();
    assert_eq!((other.parked(), other.root().unwrap()), (0, store.root().unwrap()));
    store.close();
}

#[test]
fn a_peers_batch_that_fills_the_disk_counts_as_nothing_and_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut from = Db::open_in_memory(KINDS, NodeId([1; 16]), Clock::from_fn(|| NOW_MS)).unwrap();
    let mut to = open(&folder.path().join("atoll.db"), 2, NOW_MS);
    (0..200)
        .for_each(|n| drop(from.transact(|tx| tx.create(&NOTE, TENANT, key(n), long(n))).unwrap()));
    let ops = from.ops(Lane::Rest, 0, &BTreeMap::new(), 1_000, 1 << 30).unwrap().ops;
    to.transact(|tx| {
        fill_up(tx, true);
        Ok::<_, Error>(())
    })
    .unwrap();
    assert!(matches!(to.apply(ops.clone()), Err(Error::Full)));
    to.transact(|tx| {
        fill_up(tx, false);
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(to.verify().unwrap().problems, Vec::<String>::new());
    let applied = to.apply(ops).unwrap();
    assert_eq!((applied.quarantined, applied.parked), (0, 0));
    assert_eq!(to.root().unwrap(), from.root().unwrap());
    assert_eq!(to.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_damaged_row_of_the_log_stops_nothing_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut db = open(&folder.path().join("atoll.db"), 1, NOW_MS);
    (1..=3).for_each(|n| create(&mut db, n, "one"));
    db.transact(|tx| {
        tx.conn().execute_batch("UPDATE op SET payload = x'ffff' WHERE seq = 2").unwrap();
        Ok::<_, Error>(())
    })
    .unwrap();
    let batch = db.ops(Lane::Rest, 0, &BTreeMap::new(), 10, 1 << 20).unwrap();
    let seqs: Vec<u64> = batch.ops.iter().map(|op| op.dot.seq).collect();
    assert_eq!(seqs, [1, 3]);
}

#[test]
fn an_old_copy_of_the_file_put_back_by_hand_names_no_two_writes_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("atoll.db"), folder.path().join("copy.db"));
    let mut peer = open(&folder.path().join("peer.db"), 2, NOW_MS);
    let mut db = open(&path, 1, NOW_MS);
    create(&mut db, 1, "one");
    drop(db);
    std::fs::copy(&path, &copy).unwrap();
    let mut db = open(&path, 1, NOW_MS);
    create(&mut db, 2, "two");
    send(&mut db, &mut peer);
    let before = db.origin();
    drop(db);
    // By ops, and by a snapshot.
    for by_snapshot in [false, true] {
        let again = folder.path().join(format!("again-{by_snapshot}.db"));
        std::fs::copy(&copy, &again).unwrap();
        let mut db = open(&again, 1, NOW_MS);
        assert_eq!(db.origin(), before);
        if by_snapshot {
            let index = peer.snapshot_index(&content()).unwrap();
            let chunk = peer.snapshot_chunk(&content(), None, None).unwrap();
            db.merge_chunk(&chunk).unwrap();
            db.finish_snapshot(&content(), &index.vector).unwrap();
        } else {
            send(&mut peer, &mut db);
        }
        assert_eq!(title(&db, 2).as_deref(), Some("two"));
        assert_eq!((db.origin().node, db.origin().epoch == before.epoch), (before.node, false));
        let raised = db.origin();
        drop(db);
        let mut db = open(&again, 1, NOW_MS);
        assert_eq!(db.origin(), raised, "the new epoch was not kept");
        create(&mut db, 3, "three");
        let vector = db.head(&content()).unwrap().unwrap().vector;
        assert_eq!((vector.get(before), vector.get(raised)), (2, 1));
        // What it has now of its own does not raise it again.
        send(&mut db, &mut peer);
        send(&mut peer, &mut db);
        assert_eq!((db.origin(), db.root().unwrap()), (raised, peer.root().unwrap()));
        peer.transact(|tx| tx.remove(&NOTE, key(3))).unwrap();
    }
}

#[test]
fn many_ops_that_came_too_early_are_taken_up_at_once_when_their_past_comes() {
    let clock = || Clock::from_fn(|| NOW_MS);
    let mut from = Db::open_in_memory(KINDS, NodeId([1; 16]), clock()).unwrap();
    let changes = |n: u64| Changes::new().set(&TITLE, format!("{n}"));
    let made: Result<(), Error> = from.transact(|tx| {
        (0..15_000).try_for_each(|n| tx.create(&NOTE, TENANT, key(n), changes(n)).map(|_| ()))
    });
    made.unwrap();
    let mut ops = from.ops(Lane::Rest, 0, &BTreeMap::new(), 20_000, 1 << 30).unwrap().ops;
    let rest = ops.split_off(1);
    let mut to = Db::open_in_memory(KINDS, NodeId([2; 16]), clock()).unwrap();
    for batch in rest.chunks(1_000) {
        to.apply(batch.to_vec()).unwrap();
    }
    assert_eq!(to.parked(), 14_999);
    assert_eq!(to.apply(ops).unwrap().applied, 15_000);
    assert_eq!((to.parked(), to.root().unwrap()), (0, from.root().unwrap()));
}

#[test]
fn ops_that_came_too_early_take_so_much_memory_and_no_more() {
    let clock = || Clock::from_fn(|| NOW_MS);
    let mut from = Db::open_in_memory(KINDS, NodeId([1; 16]), clock()).unwrap();
    for n in 0..100 {
        let body = Changes::new().body(&BODY, "x".repeat(1 << 20));
        from.transact(|tx| tx.create(&NOTE, TENANT, key(n), body)).unwrap();
    }
    let mut ops = from.ops(Lane::Rest, 0, &BTreeMap::new(), 1_000, 1 << 30).unwrap().ops;
    let mut to = Db::open_in_memory(KINDS, NodeId([2; 16]), clock()).unwrap();
    let rest = ops.split_off(1);
    to.apply(rest.clone()).unwrap();
    assert_eq!(to.parked(), 63);
    // What was not kept does not count as received.
    to.apply(ops).unwrap();
    to.apply(rest).unwrap();
    assert_eq!((to.parked(), to.root().unwrap()), (0, from.root().unwrap()));
}
