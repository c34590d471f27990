//! A database as it stood at a time: an older copy of it, and after it the log of a newer one up to then.

use crate::codec;
use crate::db::{Applied, Db};
use crate::error::{Error, Result};
use crate::heads::read_heads;
use crate::id::{Dot, NodeId, Origin, StreamId};
use crate::log::damage::{self, Run};
use crate::log::{self, Entry, Met};
use crate::op::Op;
use crate::vector::Vector;
use rusqlite::{Connection, OpenFlags};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

/// Ops of one transaction.
const BATCH: usize = 500;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What was written after the copy and up to the time.
    pub ops: u64,
    /// What the log holds beyond it.
    pub left_out: u64,
}

/// Part of a log, by position: everything before `upto`, and from `unsure` on only what says that it was written by then.
struct Cut {
    unsure: i64,
    upto: i64,
    /// What this node wrote last before the first damaged block of which something is lost.
    before_damage_ms: Option<u64>,
}

/// Ops of an origin in a stream that stand in a damaged block and nowhere else, and how many.
type Lost = (StreamId, Origin, u64);

const LOST_TOLD: usize = 5;

fn told(lost: &[Lost]) -> String {
    let one = |(stream, origin, ops): &Lost| {
        let (scope, tenant, node) = (&stream.scope, stream.tenant, origin.node);
        let noun = if *ops == 1 { "write" } else { "writes" };
        format!("{ops} {noun} of {scope} (tenant {tenant}, node {node})")
    };
    let mut all: Vec<String> = lost.iter().take(LOST_TOLD).map(one).collect();
    if lost.len() > LOST_TOLD {
        all.push("and others".to_owned());
    }
    all.join(", ")
}

impl Db {
    /// Applies what the log of another database of the same node holds beyond this one, as far as it was there at
    /// `at_ms`, Unix milliseconds. What this node wrote tells when that was: what others wrote came in between.
    ///
    /// A damaged block is no obstacle if this database holds all that was in it, or if nothing in it was written by then.
    ///
    /// # Errors
    /// `Behind` if the log no longer reaches back to where this database ends, and nothing is applied then; `Gap` where a damaged
    /// block is needed.
    pub fn replay(
        &mut self,
        from: &Path,
        at_ms: u64,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Replayed> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let log = Connection::open_with_flags(from, flags)?;
        log.execute_batch("BEGIN")?;
        let mine: BTreeMap<StreamId, Vector> =
            read_heads(&self.conn, None)?.into_iter().map(|(_, h)| (h.stream, h.vector)).collect();
        reaches_back(&log, &mine)?;
        let names = Names::of(&log)?;
        let lost = |block| names.lost(&log, block, &mine);
        let cut = cut_at(&log, self.origin().node, at_ms, &lost)?;
        let last = log::last(&log)?;
        let mut replayed = Replayed::default();
        // Of an origin that was left out once nothing more comes: its numbers are dense.
        let mut closed: BTreeSet<(StreamId, Origin)> = BTreeSet::new();
        let mut batch = Vec::with_capacity(BATCH);
        log::scan_with(&log, 0, |met| {
            let entry = match met {
                Met::Op(entry) => entry,
                Met::Damaged(block, damage) => {
                    let lost = lost(block)?;
                    if !lost.is_empty() && damage::first(&log, block)? < cut.upto {
                        let Error::Damaged(why) = damage else { return Err(damage) };
                        let what = format!("{why}; in it were {}", told(&lost));
                        return Err(Error::Gap { what, upto_ms: cut.before_damage_ms });
                    }
                    for (stream, origin, ops) in lost {
                        closed.insert((stream, origin));
                        replayed.left_out += ops;
                    }
                    return Ok(ControlFlow::Continue(()));
                }
            };
            let Some((stream, dot)) = names.of_entry(entry)? else {
                return Ok(ControlFlow::Continue(()));
            };
            if mine.get(&stream).is_some_and(|vector| vector.covers(dot)) {
                return Ok(ControlFlow::Continue(()));
            }
            let is_late =
                entry.pos >= cut.upto || (entry.pos >= cut.unsure && entry.hlc.ms() > at_ms);
            if is_late || closed.contains(&(stream.clone(), dot.origin)) {
                closed.insert((stream, dot.origin));
                replayed.left_out += 1;
                return Ok(ControlFlow::Continue(()));
            }
            let payload = codec::unpack(entry.payload()?)?;
            let (hlc, kind, schema, key) = (entry.hlc, entry.kind, entry.schema, entry.key);
            batch.push(Op { stream, dot, hlc, kind, schema, key, payload });
            if batch.len() == BATCH {
                self.follow(std::mem::take(&mut batch), &mut replayed)?;
                progress(entry.pos as u64, last as u64);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.follow(batch, &mut replayed)?;
        progress(last as u64, last as u64);
        Ok(replayed)
    }

    /// Not as from a peer: that ops of this node itself come is no sign of another life of it. What builds on something
    /// that was left out is left out too.
    fn follow(&mut self, ops: Vec<Op>, replayed: &mut Replayed) -> Result<()> {
        self.begin()?;
        let result = self.savepoint(|db| {
            let mut applied = Applied::default();
            for op in &ops {
                if db.is_ready(&op.stream, op) {
                    db.accept(op, &mut applied, true)?;
                    replayed.ops += 1;
                } else {
                    replayed.left_out += 1;
                }
            }
            db.settle()
        });
        self.commit()?;
        result
    }
}

/// What is not here must be in the log from its first number on.
fn reaches_back(log: &Connection, mine: &BTreeMap<StreamId, Vector>) -> Result<()> {
    let nothing = Vector::default();
    for (_, head) in read_heads(log, None)? {
        let here = mine.get(&head.stream).unwrap_or(&nothing);
        if let Some((origin, floor)) =
            head.floor.0.iter().find(|(o, floor)| here.get(**o) < **floor)
        {
            return Err(Error::Behind {
                stream: head.stream.to_string(),
                missing: *floor - here.get(*origin),
            });
        }
    }
    Ok(())
}

/// Streams and origins of a log by their short numbers.
struct Names {
    streams: HashMap<i64, StreamId>,
    origins: HashMap<i64, Origin>,
}

impl Names {
    fn of(log: &Connection) -> Result<Self> {
        let streams = read_heads(log, None)?.into_iter().map(|(id, head)| (id, head.stream));
        Ok(Self { streams: streams.collect(), origins: log::origins(log)? })
    }

    /// What of a damaged block is not in `here`. Nothing of a stream that is being removed.
    fn lost(
        &self,
        log: &Connection,
        block: i64,
        here: &BTreeMap<StreamId, Vector>,
    ) -> Result<Vec<Lost>> {
        let lost = |run: Run| {
            let stream = self.streams.get(&run.stream)?.clone();
            let origin = *self.origins.get(&run.origin)?;
            let held = here.get(&stream).map_or(0, |vector| vector.get(origin));
            let ops = run.high.saturating_sub(held.max(run.low.saturating_sub(1)));
            (ops > 0).then_some((stream, origin, ops))
        };
        Ok(damage::runs(log, block)?.into_iter().filter_map(lost).collect())
    }

    /// None of a stream that is being removed.
    fn of_entry(&self, entry: &Entry<'_>) -> Result<Option<(StreamId, Dot)>> {
        let origin = *self
            .origins
            .get(&entry.origin)
            .ok_or_else(|| Error::Damaged("an origin of the log is no origin".into()))?;
        let stream = self.streams.get(&entry.stream).cloned();
        Ok(stream.map(|stream| (stream, Dot { origin, seq: entry.seq })))
    }
}

fn cut_at(
    log: &Connection,
    node: NodeId,
    at_ms: u64,
    lost: &impl Fn(i64) -> Result<Vec<Lost>>,
) -> Result<Cut> {
    let own: HashSet<i64> = log::origins(log)?
        .into_iter()
        .filter(|(_, origin)| origin.node == node)
        .map(|(number, _)| number)
        .collect();
    let mut cut = Cut { unsure: 1, upto: i64::MAX, before_damage_ms: None };
    let (mut last_ms, mut is_damaged) = (None, false);
    log::scan_with(log, 0, |met| {
        let entry = match met {
            Met::Op(entry) => entry,
            Met::Damaged(block, _) => {
                if is_damaged || lost(block)?.is_empty() {
                    return Ok(ControlFlow::Continue(()));
                }
                (is_damaged, cut.before_damage_ms) = (true, last_ms);
                // What it wrote from there on is later.
                if last_ms >= Some(at_ms) {
                    cut.upto = damage::first(log, block)?;
                    return Ok(ControlFlow::Break(()));
                }
                return Ok(ControlFlow::Continue(()));
            }
        };
        if own.contains(&entry.origin) {
            if entry.hlc.ms() > at_ms {
                cut.upto = entry.pos;
                return Ok(ControlFlow::Break(()));
            }
            (last_ms, cut.unsure) = (Some(entry.hlc.ms()), entry.pos + 1);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(cut)
}
