//! Late ops that were applied before this node heard: they are looked for in the log, and shown. And how many there are.

use super::REASON;
use crate::codec;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{Dot, StreamId};
use crate::log::{self, Met};
use crate::op::Op;
use crate::read::Read;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

impl Db {
    /// Looks through the next `max_ops` of the log for late ops that were here before this node heard, and shows them in
    /// quarantine. False once there is nothing left to do.
    ///
    /// # Errors
    /// None that leave anything half done.
    pub fn find_late(&mut self, max_ops: usize) -> Result<bool> {
        let sql = "SELECT min(pos) FROM late_walk";
        let from: Option<i64> = self.conn.query_row(sql, [], |r| r.get(0))?;
        let Some(from) = from else { return Ok(false) };
        let streams: BTreeMap<i64, StreamId> =
            self.heads.all().map(|(number, head)| (number, head.stream.clone())).collect();
        let origins = log::origins(&self.conn)?;
        let (cuts, mine, now_ms) = (self.cuts()?, self.origin.node, self.clock.now_ms());
        let (mut found, mut next, mut seen) = (Vec::new(), None, 0);
        log::scan_with(&self.conn, from, |met| {
            let entry = match met {
                Met::Op(entry) => entry,
                // What a damaged block holds shows once it is sound again and somebody says another cut.
                Met::Damaged(_, damage) => {
                    tracing::warn!(%damage, "what removed nodes wrote late is not looked for there");
                    return Ok(ControlFlow::Continue(()));
                }
            };
            if seen == max_ops {
                next = Some(entry.pos);
                return Ok(ControlFlow::Break(()));
            }
            seen += 1;
            let (Some(stream), Some(origin)) =
                (streams.get(&entry.stream), origins.get(&entry.origin))
            else {
                return Ok(ControlFlow::Continue(()));
            };
            let dot = Dot { origin: *origin, seq: entry.seq };
            if origin.node != mine && cuts.is_late(stream, dot) {
                let payload = codec::unpack(entry.payload()?)?;
                let (hlc, kind, schema, key) = (entry.hlc, entry.kind, entry.schema, entry.key);
                found.push(Op { stream: stream.clone(), dot, hlc, kind, schema, key, payload });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.begin()?;
        let result = self.savepoint(|db| {
            for op in &found {
                db.note_quarantine(op, REASON, now_ms)?;
            }
            match next {
                Some(next) => {
                    let sql = "UPDATE late_walk SET pos = ?1 WHERE pos = ?2";
                    db.conn.prepare_cached(sql)?.execute([next, from])?;
                }
                None => {
                    let sql = "DELETE FROM late_walk WHERE pos = ?1";
                    db.conn.prepare_cached(sql)?.execute([from])?;
                }
            }
            Ok::<_, Error>(())
        });
        self.commit()?;
        result?;
        let left = "SELECT EXISTS (SELECT 1 FROM late_walk)";
        Ok(self.conn.query_row(left, [], |r| r.get(0))?)
    }
}

/// Late ops whose inverse this node keeps, and may have to write.
pub fn waiting(reader: &impl Read) -> Result<u64> {
    let sql = "SELECT count(*) FROM late WHERE at_ms IS NOT NULL";
    let n: i64 = reader.conn().query_row(sql, [], |r| r.get(0))?;
    Ok(n as u64)
}

/// Late ops that are shown in quarantine.
pub fn count(reader: &impl Read) -> Result<u64> {
    let sql = "SELECT count(*) FROM quarantine WHERE reason = ?1";
    let n: i64 = reader.conn().prepare_cached(sql)?.query_row([REASON], |r| r.get(0))?;
    Ok(n as u64)
}
