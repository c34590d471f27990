//! Ranges of records that stand further than their stream's vector says, since they were merged from a snapshot
//! that is not complete yet, or was read later than its index. An op that such a range holds already is counted
//! and logged but not applied again: its record may have moved on, by writes that never come twice.

use crate::codec;
use crate::error::{Error, Result};
use crate::heads::StreamHead;
use crate::id::Id;
use crate::replica::RecordKey;
use crate::vector::Vector;
use rusqlite::{Connection, OptionalExtension, params};

/// Greater than every key.
const END: [u8; 19] = [0xff; 19];

/// Kind and key as bytes that sort alike.
fn bytes_of((kind, key): RecordKey) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &key.0].concat()
}

fn low_of(after: Option<RecordKey>) -> Vec<u8> {
    after.map(bytes_of).unwrap_or_default()
}

fn high_of(upto: Option<RecordKey>) -> Vec<u8> {
    upto.map_or(END.to_vec(), bytes_of)
}

fn key_of(bytes: &[u8]) -> Option<RecordKey> {
    let kind = u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    Some((kind, Id::from_slice(bytes.get(2..)?)?))
}

/// Above `low`, up to `high`.
struct Range {
    low: Vec<u8>,
    high: Vec<u8>,
    vector: Vector,
}

fn ranges(conn: &Connection, stream: i64, low: &[u8], high: &[u8]) -> Result<Vec<Range>> {
    let sql = "SELECT low, high, vector FROM ahead WHERE stream = ?1 AND low < ?3 AND high > ?2 ORDER BY low";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![stream, low, high])?;
    let mut ranges = Vec::new();
    while let Some(row) = rows.next()? {
        let blob = |i| row.get_ref(i)?.as_blob().map_err(|_| Error::Damaged("ahead".into()));
        let (low, high) = (blob(0)?.to_vec(), blob(1)?.to_vec());
        ranges.push(Range { low, high, vector: codec::decode(blob(2)?)? });
    }
    Ok(ranges)
}

/// What the record's range holds beyond the stream's vector.
pub(crate) fn at(conn: &Connection, stream: i64, key: RecordKey) -> Result<Option<Vector>> {
    let sql =
        "SELECT high, vector FROM ahead WHERE stream = ?1 AND low < ?2 ORDER BY low DESC LIMIT 1";
    let bytes = bytes_of(key);
    let mut statement = conn.prepare_cached(sql)?;
    let row = statement
        .query_row(params![stream, bytes], |r| {
            Ok((r.get::<_, Vec<u8>>(0)?, r.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    row.filter(|(high, _)| bytes <= *high).map(|(_, vector)| codec::decode(&vector)).transpose()
}

/// The range now holds `vector` too.
pub(crate) fn note(
    conn: &Connection,
    stream: i64,
    after: Option<RecordKey>,
    upto: Option<RecordKey>,
    vector: &Vector,
) -> Result<()> {
    let (low, high) = (low_of(after), high_of(upto));
    let mut pieces = Vec::new();
    let mut at = low.clone();
    for old in ranges(conn, stream, &low, &high)? {
        let sql = "DELETE FROM ahead WHERE stream = ?1 AND low = ?2";
        conn.prepare_cached(sql)?.execute(params![stream, old.low])?;
        if at < old.low {
            let (low, high) = (at.clone(), old.low.clone());
            pieces.push(Range { low, high, vector: vector.clone() });
        }
        if old.low < low {
            let (low, high) = (old.low.clone(), low.clone());
            pieces.push(Range { low, high, vector: old.vector.clone() });
        }
        if old.high > high {
            let (low, high) = (high.clone(), old.high.clone());
            pieces.push(Range { low, high, vector: old.vector.clone() });
        }
        let (from, to) = (old.low.max(low.clone()), old.high.min(high.clone()));
        let mut both = old.vector;
        both.merge(vector);
        pieces.push(Range { low: from, high: to.clone(), vector: both });
        at = to;
    }
    if at < high {
        pieces.push(Range { low: at, high, vector: vector.clone() });
    }
    for Range { low, high, vector } in pieces {
        let sql = "INSERT OR REPLACE INTO ahead VALUES (?1, ?2, ?3, ?4)";
        conn.prepare_cached(sql)?.execute(params![stream, low, high, codec::encode(&vector)])?;
    }
    Ok(())
}

/// Forgets the ranges that the stream's vector has caught up with. True if some are left.
pub(crate) fn prune(conn: &Connection, stream: i64, vector: &Vector) -> Result<bool> {
    let mut left = false;
    for range in ranges(conn, stream, &[], &END)? {
        if vector.includes(&range.vector) {
            let sql = "DELETE FROM ahead WHERE stream = ?1 AND low = ?2";
            conn.prepare_cached(sql)?.execute(params![stream, range.low])?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// What every record holds, if ranges cover all keys without a gap: the least of `mine` with each of them.
pub(crate) fn held_by_all(conn: &Connection, stream: i64, mine: &Vector) -> Result<Option<Vector>> {
    let mut end = vec![];
    let mut held: Option<Vector> = None;
    for range in ranges(conn, stream, &[], &END)? {
        if range.low > end {
            return Ok(None);
        }
        end = range.high;
        let mut here = mine.clone();
        here.merge(&range.vector);
        held = Some(held.map_or_else(|| here.clone(), |held| held.least(&here)));
    }
    Ok(held.filter(|_| end == END))
}

/// Whether all records together hold `vector`, each range beyond what the stream's own vector says.
pub(crate) fn hold_all(
    conn: &Connection,
    stream: i64,
    mine: &Vector,
    vector: &Vector,
) -> Result<bool> {
    let mut at: Vec<u8> = Vec::new();
    for range in ranges(conn, stream, &[], &END)? {
        let holds = vector.0.iter().all(|(o, seq)| mine.get(*o).max(range.vector.get(*o)) >= *seq);
        if range.low != at || !holds {
            return Ok(false);
        }
        at = range.high;
    }
    Ok(at == END)
}

/// The ranges that hold more than `vector`, in order: what lies above the first end, up to and with the second.
pub(crate) fn beyond(conn: &Connection, stream: i64, vector: &Vector) -> Result<Beyond> {
    let mut ranges = ranges(conn, stream, &[], &END)?;
    ranges.retain(|range| !vector.includes(&range.vector));
    Ok(Beyond(ranges))
}

pub(crate) struct Beyond(Vec<Range>);

impl Beyond {
    /// Whether one of them has a key in `(after, upto]`.
    pub fn meets(&self, after: Option<RecordKey>, upto: Option<RecordKey>) -> bool {
        let (low, high) = (low_of(after), high_of(upto));
        let first = self.0.partition_point(|range| range.high <= low);
        self.0.get(first).is_some_and(|range| range.low < high)
    }
}

/// What any record of the stream holds: its vector, and what a snapshot that is not whole brought beyond it.
pub(crate) fn held_by_any(conn: &Connection, head: &StreamHead) -> Result<Vector> {
    let mut held = head.vector.clone();
    if head.is_ahead {
        let sql = "SELECT a.vector FROM ahead a JOIN stream s ON s.id = a.stream \
                   WHERE s.tenant = ?1 AND s.scope = ?2";
        let mut statement = conn.prepare_cached(sql)?;
        let args = params![head.stream.tenant.0, head.stream.scope];
        for bytes in statement.query_map(args, |row| row.get::<_, Vec<u8>>(0))? {
            held.merge(&codec::decode(&bytes?)?);
        }
    }
    Ok(held)
}

/// How far from `after` on all records hold the same, at most to `upto`; and what they hold beyond the stream's vector.
pub(crate) fn part(
    conn: &Connection,
    stream: i64,
    after: Option<RecordKey>,
    upto: Option<RecordKey>,
) -> Result<(Option<RecordKey>, Vector)> {
    let (low, high) = (low_of(after), high_of(upto));
    let Some(first) = ranges(conn, stream, &low, &high)?.into_iter().next() else {
        return Ok((upto, Vector::default()));
    };
    let (end, vector) =
        if first.low <= low { (first.high, first.vector) } else { (first.low, Vector::default()) };
    Ok((if end < high { key_of(&end) } else { upto }, vector))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, Origin};

    fn vector(seq: u64) -> Vector {
        Vector([(Origin { node: NodeId([1; 16]), epoch: 1 }, seq)].into())
    }

    fn key(n: u8) -> RecordKey {
        (7, Id([n; 16]))
    }

    #[test]
    fn ranges_that_overlap_hold_both() -> Result<()> {
        let conn = Connection::open_in_memory()?;
        crate::schema::prepare(&conn, &[])?;
        note(&conn, 1, None, Some(key(10)), &vector(5))?;
        note(&conn, 1, Some(key(20)), None, &vector(7))?;
        note(&conn, 1, Some(key(5)), Some(key(30)), &vector(6))?;
        let seq = |n| Ok::<_, Error>(at(&conn, 1, key(n))?.map_or(0, |v| v.0.values().sum()));
        for (n, expected) in [(1, 5), (5, 5), (6, 6), (10, 6), (11, 6), (20, 6), (21, 7), (31, 7)] {
            assert_eq!(seq(n)?, expected, "{n}");
        }
        assert_eq!(part(&conn, 1, None, None)?, (Some(key(5)), vector(5)));
        assert_eq!(part(&conn, 1, Some(key(8)), Some(key(9)))?, (Some(key(9)), vector(6)));
        assert_eq!(part(&conn, 1, Some(key(30)), None)?, (None, vector(7)));
        assert_eq!(part(&conn, 2, None, None)?, (None, Vector::default()));
        let beyond = beyond(&conn, 1, &vector(6))?;
        assert!(beyond.meets(Some(key(20)), None) && beyond.meets(Some(key(29)), Some(key(30))));
        assert!(!beyond.meets(None, Some(key(20))) && beyond.meets(None, Some(key(21))));
        assert_eq!(held_by_all(&conn, 1, &vector(4))?, Some(vector(5)));
        assert_eq!(held_by_all(&conn, 1, &vector(9))?, Some(vector(9)));
        assert_eq!(held_by_all(&conn, 2, &vector(4))?, None);
        assert!(prune(&conn, 1, &vector(6))?);
        assert_eq!(held_by_all(&conn, 1, &vector(6))?, None);
        assert_eq!((seq(1)?, seq(15)?, seq(25)?), (0, 0, 7));
        assert_eq!(part(&conn, 1, None, None)?, (Some(key(20)), Vector::default()));
        assert!(!prune(&conn, 1, &vector(7))?);
        Ok(())
    }
}
