//! Ops that stand together: column by column under one zstd frame with a checksum. Positions in a block may have gaps,
//! where rows stand that are in none.

use crate::clock::Hlc;
use crate::codec;
use crate::error::{Error, Result};
use crate::id::Id;
use bincode::{Decode, Encode};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

/// No block unfolds to more.
const MAX_BYTES: usize = 16 << 20;
const LEVEL: i32 = 3;
/// A block is full with so many ops, or so many bytes before they are compressed.
pub(crate) const FULL_OPS: usize = 4_096;
pub(crate) const FULL_BYTES: usize = 512 << 10;

pub(crate) struct Packed {
    pub pos: i64,
    pub stream: i64,
    pub origin: i64,
    pub seq: u64,
    pub hlc: Hlc,
    pub kind: u16,
    pub schema: u16,
    pub key: Id,
    pub payload: Vec<u8>,
}

/// Entries by position.
pub(crate) struct Block {
    /// Its name in the table: the position of the last entry that it had when it was made.
    pub last: i64,
    pub entries: Vec<Packed>,
}

/// Numbers as differences from the one before.
#[derive(Encode, Decode, Default)]
struct Columns {
    pos: Vec<i64>,
    stream: Vec<i64>,
    origin: Vec<i64>,
    seq: Vec<i64>,
    hlc: Vec<i64>,
    kind: Vec<u16>,
    schema: Vec<u16>,
    lengths: Vec<u32>,
    keys: Vec<u8>,
    payloads: Vec<u8>,
}

fn differences(numbers: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut before = 0_i64;
    let difference = |n: i64| n.wrapping_sub(std::mem::replace(&mut before, n));
    numbers.map(difference).collect()
}

fn sums(numbers: Vec<i64>) -> impl Iterator<Item = i64> {
    numbers.into_iter().scan(0_i64, |sum, n| {
        *sum = sum.wrapping_add(n);
        Some(*sum)
    })
}

/// The bytes, and how long they are before they are compressed.
pub(crate) fn encode(entries: &[Packed]) -> Result<(Vec<u8>, usize)> {
    let columns = Columns {
        pos: differences(entries.iter().map(|e| e.pos)),
        stream: differences(entries.iter().map(|e| e.stream)),
        origin: differences(entries.iter().map(|e| e.origin)),
        seq: differences(entries.iter().map(|e| e.seq as i64)),
        hlc: differences(entries.iter().map(|e| e.hlc.0 as i64)),
        kind: entries.iter().map(|e| e.kind).collect(),
        schema: entries.iter().map(|e| e.schema).collect(),
        lengths: entries.iter().map(|e| e.payload.len() as u32).collect(),
        keys: entries.iter().flat_map(|e| e.key.0).collect(),
        payloads: entries.iter().flat_map(|e| e.payload.iter().copied()).collect(),
    };
    let plain = codec::encode(&columns);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    Ok((compressor.compress(&plain)?, plain.len()))
}

/// # Errors
/// `Damaged` if the bytes are not those that `encode` made.
pub fn decode(bytes: &[u8], size: usize) -> Result<Vec<Packed>> {
    let damaged = |what: &str| Error::Damaged(format!("a block of the log: {what}"));
    if size > MAX_BYTES {
        return Err(damaged("it says that it is longer than any is"));
    }
    let plain = zstd::bulk::decompress(bytes, size).map_err(|error| damaged(&error.to_string()))?;
    let columns: Columns = codec::decode(&plain).map_err(|error| damaged(&error.to_string()))?;
    let n = columns.pos.len();
    let counts = [
        columns.stream.len(),
        columns.origin.len(),
        columns.seq.len(),
        columns.hlc.len(),
        columns.kind.len(),
        columns.schema.len(),
        columns.lengths.len(),
        columns.keys.len() / 16,
    ];
    let length: usize = columns.lengths.iter().map(|length| *length as usize).sum();
    if counts.iter().any(|count| *count != n) || length != columns.payloads.len() {
        return Err(damaged("its columns differ in length"));
    }
    let mut numbers = sums(columns.pos)
        .zip(sums(columns.stream))
        .zip(sums(columns.origin).zip(sums(columns.seq)))
        .zip(sums(columns.hlc));
    let mut payloads = &columns.payloads[..];
    let mut entries = Vec::with_capacity(n);
    for (at, key) in columns.keys.chunks_exact(16).enumerate() {
        let Some((((pos, stream), (origin, seq)), hlc)) = numbers.next() else { break };
        let (payload, rest) = payloads.split_at(columns.lengths[at] as usize);
        payloads = rest;
        let mut id = [0; 16];
        id.copy_from_slice(key);
        entries.push(Packed {
            pos,
            stream,
            origin,
            seq: seq as u64,
            hlc: Hlc(hlc as u64),
            kind: columns.kind[at],
            schema: columns.schema[at],
            key: Id(id),
            payload: payload.to_vec(),
        });
    }
    Ok(entries)
}

/// The name of the block that a position is in or before, and its entries as far as they can be read.
pub(crate) fn next(conn: &Connection, at: i64) -> Result<Option<(i64, Result<Block>)>> {
    let sql = "SELECT last, size, ops FROM block WHERE last >= ?1 ORDER BY last LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([at])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let last = row.get(0)?;
    let bytes = row.get_ref(2)?.as_blob().unwrap_or_default();
    let entries = decode(bytes, row.get::<_, i64>(1)?.max(0) as usize);
    Ok(Some((last, entries.map(|entries| Block { last, entries }))))
}

/// The block of that name, as far as it can be read.
pub(crate) fn get(conn: &Connection, last: i64) -> Result<Option<Result<Block>>> {
    Ok(next(conn, last)?.filter(|(name, _)| *name == last).map(|(_, block)| block))
}

/// The names of the blocks with positions from `start` up to but not including `end`.
pub(crate) fn between(conn: &Connection, start: i64, end: i64) -> Result<Vec<i64>> {
    let sql = "SELECT last FROM block WHERE last >= ?1 AND first < ?2 ORDER BY last";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([start, end], |r| r.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The last block, if it holds at most so many bytes before it is compressed, and is not damaged.
pub(crate) fn last_if_small(conn: &Connection, most_bytes: usize) -> Result<Option<Block>> {
    let sql = "SELECT last, size FROM block ORDER BY last DESC LIMIT 1";
    let row = conn
        .prepare_cached(sql)?
        .query_row([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))
        .optional()?;
    match row.filter(|(_, size)| *size <= most_bytes as i64) {
        Some((last, _)) => Ok(get(conn, last)?.and_then(Result::ok)),
        None => Ok(None),
    }
}

/// Puts a block in the place of the one of its name, or removes that if it has become empty.
pub(crate) fn put(conn: &Connection, block: &Block) -> Result<()> {
    conn.prepare_cached("DELETE FROM block_run WHERE block = ?1")?.execute([block.last])?;
    let Some(first) = block.entries.first() else {
        conn.prepare_cached("DELETE FROM block WHERE last = ?1")?.execute([block.last])?;
        return Ok(());
    };
    let (bytes, size) = encode(&block.entries)?;
    conn.prepare_cached("INSERT OR REPLACE INTO block VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![block.last, first.pos, size as i64, bytes])?;
    let mut runs: BTreeMap<(i64, i64), (u64, u64)> = BTreeMap::new();
    for entry in &block.entries {
        let run = runs.entry((entry.stream, entry.origin)).or_insert((entry.seq, entry.seq));
        *run = (run.0.min(entry.seq), run.1.max(entry.seq));
    }
    let mut statement = conn.prepare_cached("INSERT INTO block_run VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for ((stream, origin), (low, high)) in runs {
        statement.execute(params![stream, origin, low as i64, high as i64, block.last])?;
    }
    Ok(())
}

/// The names of the blocks that hold ops of a stream, of any origin or of one with numbers up to one.
pub(crate) fn with(conn: &Connection, stream: i64, upto: Option<(i64, u64)>) -> Result<Vec<i64>> {
    let sql = "SELECT DISTINCT block FROM block_run WHERE stream = ?1 \
               AND (?2 IS NULL OR (origin = ?2 AND low <= ?3)) ORDER BY block";
    let mut statement = conn.prepare_cached(sql)?;
    let args = params![stream, upto.map(|(origin, _)| origin), upto.map(|(_, seq)| seq as i64)];
    let rows = statement.query_map(args, |r| r.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Packed> {
        let entry = |n: u64| Packed {
            pos: 7 + 3 * n as i64,
            stream: (n % 3) as i64,
            origin: 5,
            seq: u64::MAX - n,
            hlc: Hlc(if n.is_multiple_of(2) { n } else { u64::MAX - n }),
            kind: n as u16,
            schema: 1,
            key: Id::natural(&[&n.to_le_bytes()]),
            payload: vec![n as u8; n as usize],
        };
        (0..200).map(entry).collect()
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let made = entries();
        let (bytes, size) = encode(&made).unwrap();
        let back = decode(&bytes, size).unwrap();
        assert_eq!(back.len(), made.len());
        for (a, b) in made.iter().zip(&back) {
            assert_eq!((a.pos, a.stream, a.origin, a.seq), (b.pos, b.stream, b.origin, b.seq));
            assert_eq!((a.hlc, a.kind, a.schema, a.key), (b.hlc, b.kind, b.schema, b.key));
            assert_eq!(a.payload, b.payload);
        }
    }

    #[test]
    fn a_flipped_or_cut_block_is_damaged_and_nothing_else() {
        let (bytes, size) = encode(&entries()).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            // Some bits of a frame's head mean nothing: then the entries must be the right ones.
            match decode(&flipped, size) {
                Err(Error::Damaged(_)) => {}
                Ok(back) => assert_eq!(encode(&back).unwrap().0, bytes),
                Err(other) => panic!("{other}"),
            }
            assert!(decode(&bytes[..at], size).is_err());
        }
        assert!(decode(&bytes, usize::MAX).is_err());
    }
}
