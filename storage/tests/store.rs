//! The store as a whole: groups of requests, what fails alone, what is there after a new start.

use atoll_storage::{
    Changes, Clock, Error, Field, Id, Kind, NodeId, OpenOptions, Query, Read, Replica,
    SnapshotChunk, Store, StreamId,
};

const TITLE: Field = Field::text(1, "title").column();
static DOC: Kind = Kind { fields: &[TITLE], ..Kind::new(100, "doc", "docs", "content") };
static KINDS: &[&Kind] = &[&DOC];
const TENANT: Id = Id([7; 16]);

fn open(dir: &std::path::Path) -> Store {
    open_as(dir, 1)
}

fn open_as(dir: &std::path::Path, node: u8) -> Store {
    let (dir, node) = (dir.to_owned(), NodeId([node; 16]));
    Store::open(OpenOptions { dir, kinds: KINDS, node, clock: Clock::system() }).unwrap()
}

fn make(store: &Store, n: u32, fails: bool) -> Result<(), Error> {
    store.write_blocking(move |tx| {
        let key = tx.new_id();
        tx.create(&DOC, TENANT, key, Changes::new().set(&TITLE, format!("{n}")))?;
        if fails { Err(Error::Missing("reason")) } else { Ok(()) }
    })
}

#[test]
fn of_many_writers_each_failure_is_alone_and_all_else_is_there_after_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..50 {
                    let fails = (n + writer) % 3 == 0;
                    assert_eq!(make(store, writer * 100 + n, fails).is_err(), fails);
                }
            });
        }
    });
    let expected = (0..8).flat_map(|w| (0..50).map(move |n| (n + w) % 3)).filter(|r| *r != 0);
    let expected = expected.count() as u64;
    for store in [store, open(dir.path())] {
        let total = store.read(|reader| reader.count(&Query::of(&DOC, TENANT))).unwrap();
        assert_eq!(total, expected);
        assert_eq!(store.verify().unwrap().problems, Vec::<String>::new());
        store.close();
        assert!(matches!(make(&store, 0, false), Err(Error::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_meet_no_other_and_writes_that_do_are_seen_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for n in 0..20 {
        let write = |tx: &mut atoll_storage::Tx<'_>| {
            let key = tx.new_id();
            tx.create(&DOC, TENANT, key, Changes::new().set(&TITLE, "alone"))
        };
        let record = store.write(write).await.unwrap();
        assert!(store.read(|reader| reader.get(&DOC, record.key)).unwrap().is_some());
        let heads = store.heads(None).unwrap();
        assert_eq!(heads.iter().map(|head| head.records).sum::<u64>(), n + 1);
    }
    store.close();
}

#[test]
fn chunks_that_were_begun_are_there_when_the_next_write_returns_and_their_errors_come_with_it() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (mut from, mut to) = (open_as(dirs[0].path(), 1), open_as(dirs[1].path(), 2));
    (0..200).for_each(|n| make(&from, n, false).unwrap());
    let stream = StreamId { tenant: TENANT, scope: "content".into() };
    let index = from.snapshot_index(&stream).unwrap();
    let all = from.snapshot_chunk(&stream, None, None).unwrap();
    let [one, two] = [60, 130].map(|n| Some((all.records[n].kind, all.records[n].key)));
    for (after, upto) in [(None, one), (one, two), (two, None)] {
        to.begin_chunk(from.snapshot_chunk(&stream, after, upto).unwrap()).unwrap();
    }
    to.finish_snapshot(&stream, &index.vector).unwrap();
    assert_eq!(to.root().unwrap(), from.root().unwrap());
    // Its records are not in the range that it names.
    let bad = SnapshotChunk { after: one, ..all.clone() };
    to.begin_chunk(bad).unwrap();
    to.begin_chunk(all.clone()).unwrap();
    to.begin_chunk(all).unwrap();
    assert!(matches!(to.finish_snapshot(&stream, &index.vector), Err(Error::Malformed(_))));
    // It was told once.
    to.finish_snapshot(&stream, &index.vector).unwrap();
    assert_eq!(to.root().unwrap(), from.root().unwrap());
}
