//! A store that takes what came: ops, parts of snapshots, seals; and one that reads what its own disk made of its log.

use super::{seeds, victim};
use atoll_storage::op::{CellWrite, Write};
use atoll_storage::seal::{LOW, ORIGIN};
use atoll_storage::{
    Db, Dot, Error, Hlc, Id, Lane, Op, Origin, Payload, Read, Replica, StreamId, Value, codec,
};
use atoll_sync::message::{Packed, unpack_chunk, unpack_ops};
use std::collections::BTreeMap;

/// Some of it may not be stored, and says so; the store is sound all the same, and works.
pub fn assert_works(mut db: Db) {
    victim::assert_sound(&db);
    victim::look_after(&mut db);
    victim::write(&mut db, 7);
    for head in db.heads(None).expect("heads") {
        let _ = db.snapshot_index(&head.stream).expect("an index");
        let _ = db.snapshot_chunk(&head.stream, None, None).expect("a chunk");
    }
    let known = BTreeMap::new();
    let from = db.start_of(Lane::Rest, &known).expect("the log's start");
    assert!(!db.ops(Lane::Rest, from, &known, 1_000, 1 << 20).expect("ops").ops.is_empty());
    db.reader().conflicts(None, 100, None).expect("the inbox");
    victim::assert_sound(&db);
}

pub fn ops(data: &[u8]) {
    let Ok(ops) = unpack_ops(&Packed::Plain(data.to_vec())) else { return };
    let mut db = victim::store();
    let _ = Replica::apply(&mut db, ops);
    assert_works(db);
}

/// What a record of a seal says, and whether it stands under the key that seals of such a segment have.
pub type SealSaid = (bool, Vec<CellWrite>);

/// Seals that somebody made, of anybody's ops.
pub fn seal(data: &[u8]) {
    let Ok(said) = codec::decode::<Vec<SealSaid>>(data) else { return };
    let mut db = victim::store();
    let _ = Replica::apply(&mut db, seeds::hers().to_vec()).expect("good ops");
    let maker = Origin { node: victim::node(5), epoch: 1 };
    let ops = said.into_iter().take(100).enumerate().map(|(n, (has_key, cells))| {
        let key = seal_key(&cells).filter(|_| has_key).unwrap_or(Id([n as u8; 16]));
        Op {
            stream: seeds::content(),
            dot: Dot { origin: maker, seq: n as u64 + 1 },
            hlc: Hlc(victim::BEGIN_MS << 16),
            kind: victim::SEAL.code,
            schema: 1,
            key,
            payload: Payload::Write(Write { creates: true, cells, ..Write::default() }),
        }
    });
    let _ = Replica::apply(&mut db, ops.collect());
    assert_works(db);
}

fn seal_key(cells: &[CellWrite]) -> Option<Id> {
    let value = |code| cells.iter().find(|cell| cell.field == code)?.value.as_ref();
    let origin = value(ORIGIN.code).and_then(Value::as_bytes)?;
    let low = value(LOW.code).and_then(Value::as_int)?;
    let stream = seeds::content();
    let scope = stream.scope.as_bytes();
    Some(Id::natural(&[b"seal", &stream.tenant.0, scope, origin, &low.to_le_bytes()]))
}

pub fn chunk(data: &[u8]) {
    let Ok(chunk) = unpack_chunk(&Packed::Plain(data.to_vec())) else { return };
    let mut db = victim::store();
    if db.merge_chunk(&chunk).is_ok() {
        let _ = db.finish_held(&chunk.stream);
    }
    assert_works(db);
}

/// A block of the log as a failing disk gives it back: what it says of its size (4, little endian), and its bytes. Nothing is
/// made up: what cannot be read is left out, or said to be damaged.
pub fn block(data: &[u8]) {
    let Some((size, bytes)) = data.split_first_chunk::<4>() else { return };
    let mut db = victim::store();
    while db.pack_log(None, 0).expect("a log can be packed") {}
    let damaged: Result<usize, Error> = db.transact(|tx| {
        let sql = "UPDATE block SET size = ?1, ops = ?2";
        Ok(tx.conn().execute(sql, (i64::from(u32::from_le_bytes(*size)), bytes))?)
    });
    assert!(damaged.expect("a row is changed") > 0, "no block was made");
    let known = BTreeMap::new();
    for lane in [Lane::Urgent, Lane::Rest] {
        if let Ok(from) = db.start_of(lane, &known) {
            let _ = db.ops(lane, from, &known, 1_000, 1 << 20);
        }
    }
    let _ = db.verify();
    let _ = db.erase_step(1_000);
    let _ = db.pack_log(None, 0);
    let streams: Vec<StreamId> =
        db.heads(None).expect("heads").into_iter().map(|h| h.stream).collect();
    for stream in streams {
        let vector = db.head(&stream).expect("a head").map(|head| head.vector).unwrap_or_default();
        let _ = db.snapshot_chunk(&stream, None, None);
        let _ = db.trim(&stream, &vector);
    }
    victim::write(&mut db, 7);
}
