//! What is not carried never gets in, and goes whole when it is dropped, whatever interrupts it.

use atoll_storage::{
    Carries, Changes, Clock, Db, Error, Field, Id, Kind, Lane, NodeId, Op, Query, Read, Replica,
    StreamId, Type, Vector,
};
use std::collections::BTreeMap;
use std::path::Path;

const TITLE: Field = Field::text(1, "title").column();
const SLUG: Field = Field::text(2, "slug").claim("note.slug");
const TAGS: Field = Field::set(3, "tags", Type::Text).column();
const BODY: Field = Field::body(4, "body");
const LOGIN: Field = Field::text(1, "login");
static NOTE: Kind = Kind {
    fields: &[TITLE, SLUG, TAGS, BODY],
    counted: &["title"],
    ..Kind::new(300, "note", "notes", "content")
};
static MEMBER: Kind = Kind { fields: &[LOGIN], ..Kind::new(301, "member", "members", "identity") };
static KINDS: &[&Kind] = &[&NOTE, &MEMBER];
const TENANT: Id = Id([7; 16]);

type Outcome = Result<(), Error>;

fn open(path: &Path, n: u8) -> Result<Db, Error> {
    Db::open(path, KINDS, NodeId([n; 16]), Clock::from_fn(|| 1_700_000_000_000))
}

fn content() -> StreamId {
    StreamId::new(TENANT, "content")
}

fn key(n: u32) -> Id {
    Id::natural(&[&n.to_le_bytes()])
}

fn without_content() -> Result<Carries, Error> {
    Carries::parse(["*", "-*/content"], |_| None)
}

fn write(db: &mut Db, n: u32) -> Outcome {
    let changes = Changes::new().set(&TITLE, "t").set(&SLUG, "intro").add(&TAGS, "x");
    let changes = changes.body(&BODY, "a long secret text");
    db.transact(|tx| {
        tx.create(&NOTE, TENANT, key(n), changes)?;
        if n.is_multiple_of(2) {
            tx.edit(&NOTE, key(n), Changes::new().body(&BODY, "a long secret text, edited"))?;
        }
        tx.create(&MEMBER, TENANT, key(n), Changes::new().set(&LOGIN, "ada"))?;
        Ok(())
    })
}

fn ops(db: &mut Db) -> Result<Vec<Op>, Error> {
    let nothing: BTreeMap<StreamId, Vector> = BTreeMap::new();
    let mut all = db.ops(Lane::Urgent, 0, &nothing, 1_000, 1 << 20)?.ops;
    all.extend(db.ops(Lane::Rest, 0, &nothing, 1_000, 1 << 20)?.ops);
    Ok(all)
}

fn rows(db: &mut Db, table: &str) -> Result<i64, Error> {
    let sql = format!("SELECT count(*) FROM {table}");
    db.transact(|tx| Ok(tx.conn().query_row(&sql, [], |row| row.get(0))?))
}

#[test]
fn what_is_not_carried_is_neither_written_nor_taken() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (mut a, mut b) = (open(&dir.path().join("a"), 1)?, open(&dir.path().join("b"), 2)?);
    (0..4).try_for_each(|n| write(&mut a, n))?;
    b.carry(without_content()?)?;
    let refused = write(&mut b, 9).unwrap_err();
    assert!(matches!(&refused, Error::NotCarried { .. }), "{refused}");
    assert_eq!(rows(&mut b, "op")?, 0, "the whole request was refused");
    let applied = b.apply(ops(&mut a)?)?;
    assert_eq!((applied.refused, applied.applied), (6, 4));
    let chunk = a.snapshot_chunk(&content(), None, None)?;
    b.merge_chunk(&chunk)?;
    b.hold(&content(), &[(None, None)], &chunk.vector)?;
    b.finish_snapshot(&content(), &chunk.vector)?;
    for table in ["k_note", "body", "claim", "element", "ahead"] {
        assert_eq!(rows(&mut b, table)?, 0, "{table}");
    }
    assert!(b.heads(None)?.iter().all(|head| head.stream.scope == "identity"));
    b.transact(|tx| {
        let peer = atoll_storage::peer::add(tx, &[5; 32], "campus", None)?;
        atoll_storage::peer::note_carries(tx, peer, &Carries::everything())
    })?;
    assert!(write(&mut b, 9).unwrap_err().to_string().ends_with("write on campus"));
    Ok(())
}

#[test]
fn what_is_dropped_goes_whole_and_a_kill_at_any_step_only_delays_it() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("a");
    let mut db = open(&path, 1)?;
    (0..9).try_for_each(|n| write(&mut db, n))?;
    let before = db.origin();
    db.carry(without_content()?)?;
    assert!(db.head(&content())?.is_none(), "gone at once for who looks");
    assert_ne!(db.origin(), before, "numbers given out there are not given out again");
    let end = db.log_end()?;
    let mut steps = 0;
    loop {
        db = open(&path, 1)?;
        steps += 1;
        assert_eq!(db.verify()?.problems, Vec::<String>::new());
        if !db.shed(2)? {
            break;
        }
    }
    assert!(steps > 9, "{steps}");
    for table in
        ["k_note", "body", "claim", "element", "conflict", "stream WHERE scope = 'content'"]
    {
        assert_eq!(rows(&mut db, table)?, 0, "{table}");
    }
    assert_eq!(rows(&mut db, "total WHERE kind = 300 AND n <> 0")?, 0);
    assert_eq!(rows(&mut db, "k_member")?, 9);
    assert_eq!(db.reader().count(&Query::of(&MEMBER, TENANT))?, 9);
    let left = ops(&mut db)?;
    assert!(left.len() == 9 && left.iter().all(|op| op.kind == MEMBER.code));
    assert_eq!(db.verify()?.problems, Vec::<String>::new());
    // Positions of the log are not given out twice.
    db.transact(|tx| tx.create(&MEMBER, TENANT, key(99), Changes::new()).map(|_| ()))?;
    assert!(db.log_end()? > end);
    Ok(())
}

#[test]
fn what_was_dropped_is_taken_anew_and_a_snapshot_that_it_cut_does_not_count() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (mut a, mut b) = (open(&dir.path().join("a"), 1)?, open(&dir.path().join("b"), 2)?);
    (0..4).try_for_each(|n| write(&mut a, n))?;
    b.apply(ops(&mut a)?)?;
    b.transact(|tx| tx.edit(&NOTE, key(1), Changes::new().set(&TITLE, "of b")).map(|_| ()))?;
    a.apply(ops(&mut b)?)?;
    let chunk = a.snapshot_chunk(&content(), None, None)?;
    b.carry(without_content()?)?;
    while b.shed(100)? {}
    b.carry(Carries::everything())?;
    b.finish_snapshot(&content(), &chunk.vector)?;
    assert!(b.head(&content())?.is_none_or(|head| head.is_empty()), "nothing of it had come");
    b.merge_chunk(&chunk)?;
    b.finish_snapshot(&content(), &chunk.vector)?;
    b.transact(|tx| tx.edit(&NOTE, key(2), Changes::new().set(&TITLE, "again")).map(|_| ()))?;
    a.apply(ops(&mut b)?)?;
    assert_eq!(a.root()?, b.root()?);
    assert_eq!(b.verify()?.problems, Vec::<String>::new());
    Ok(())
}

#[test]
fn what_half_a_snapshot_brought_counts_as_held_until_it_is_dropped() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (mut a, mut b) = (open(&dir.path().join("a"), 1)?, open(&dir.path().join("b"), 2)?);
    (0..4).try_for_each(|n| write(&mut a, n))?;
    let first = a.snapshot_chunk(&content(), None, None)?.records.first().map(|r| (r.kind, r.key));
    let half = a.snapshot_chunk(&content(), None, first)?;
    b.merge_chunk(&half)?;
    let head = b.reader().streams()?.into_iter().find(|head| head.stream == content());
    let head = head.ok_or(Error::Missing("stream"))?;
    assert!(head.vector == Vector::default() && head.is_ahead);
    assert_eq!(b.reader().held(&head)?, half.vector);
    b.carry(without_content()?)?;
    while b.shed(1)? {}
    assert_eq!((rows(&mut b, "ahead")?, rows(&mut b, "k_note")?), (0, 0));
    assert!(b.reader().streams()?.iter().all(|head| head.stream != content()));
    Ok(())
}
