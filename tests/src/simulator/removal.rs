//! A node that is removed from the network in the middle of it all, as one that was stolen, and that goes on writing. The word
//! goes as a record, before all else. Whoever has it cuts its link to that node and refuses it from then on; others talk to it
//! until they hear. What it wrote late is taken back.

use super::world::World;
use crate::kinds::{NEW, REVOCATION};
use crate::rng::Rng;
use atoll_storage::revoked::{self, REVOKED_CUTS, REVOKED_NODE};
use atoll_storage::{
    Carries, Changes, Db, Dot, Error, Id, NodeId, Op, Query, Read, Replica, StreamId, Value, Vector,
};
use atoll_sync::session::Phase;
use std::collections::{BTreeMap, BTreeSet};

/// How long a node leaves it to the one that removed the other.
pub const PATIENCE_MS: u64 = 8_000;

type Outcome = Result<(), String>;
type Vectors = BTreeMap<StreamId, Vector>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The last node of the plan is the one.
fn removed(world: &World) -> usize {
    world.plan.nodes - 1
}

pub struct Removal {
    pub node: NodeId,
    /// Who said it first.
    pub by: usize,
    said: Vec<Said>,
}

/// A cut, with what the one that said it had.
#[derive(Clone)]
struct Said {
    by: usize,
    cut: Value,
    had: Vectors,
    /// It speaks of what its node carried,
    carries: Carries,
    /// and of which no earlier cut that it knew spoke.
    without: Vec<Carries>,
    /// What its node has carried at each time since.
    since: Vec<Carries>,
}

impl Said {
    fn speaks_of(&self, stream: &StreamId) -> bool {
        self.carries.carries(stream) && !self.without.iter().any(|one| one.carries(stream))
    }

    fn is_kept(&self, stream: &StreamId) -> bool {
        self.since.iter().all(|since| since.carries(stream))
    }
}

impl Removal {
    /// A node carries something else from now on.
    pub fn note_part(&mut self, node: usize, carries: &Carries) {
        for said in self.said.iter_mut().filter(|said| said.by == node) {
            said.since.push(carries.clone());
        }
    }

    /// Whether one that spoke of the stream has carried it ever since. If none has, all may hear after they had applied what
    /// is late there, and then nobody knows what was there before.
    fn is_taken_back(&self, heard: &[Value], stream: &StreamId) -> bool {
        let mut said = self.said.iter().filter(|said| heard.contains(&said.cut));
        said.any(|said| said.speaks_of(stream) && said.is_kept(stream))
    }

    /// By the cuts that were heard.
    fn is_late(&self, heard: &[Value], stream: &StreamId, dot: Dot) -> bool {
        let said = self.said.iter().filter(|said| heard.contains(&said.cut));
        let mut said = said.filter(|said| said.speaks_of(stream)).peekable();
        dot.origin.node == self.node
            && said.peek().is_some()
            && !said.any(|said| said.had.get(stream).is_some_and(|had| had.covers(dot)))
    }
}

/// Called every beat.
pub fn strike(world: &mut World) -> Outcome {
    if !world.plan.revokes_once && world.rng.percent(1) {
        remove(world)?;
    }
    refuse(world)?;
    if world.plan.partial {
        (0..removed(world)).try_for_each(|node| speak(world, node))?;
    }
    let mut dice = Rng::new(world.seed ^ world.now().rotate_left(29));
    for node in 0..removed(world) {
        if world.removal.is_some() && dice.percent(30) && lacks_nothing(world, node) {
            take_back(world, node)?;
        }
    }
    Ok(())
}

pub fn has_heard(world: &World, node: usize) -> Result<bool, String> {
    let Some(removal) = &world.removal else { return Ok(false) };
    let cuts = revoked::cuts(&world.nodes[node].db.reader(), removal.node).map_err(text)?;
    Ok(!cuts.is_empty())
}

/// One of the others removes the last node, if it has not heard and its disk lets it.
pub fn remove(world: &mut World) -> Outcome {
    let others: Vec<usize> = (0..removed(world)).filter(|n| !world.nodes[*n].is_old()).collect();
    let by = world.rng.pick(&others);
    if has_heard(world, by)? {
        return Ok(());
    }
    let last = removed(world);
    let node = world.nodes[last].db.origin().node;
    world.nodes[by].look_at_clock();
    let before = world.nodes[by].vectors().map_err(text)?;
    let key = key_of(node);
    let saying = saying(world, by, node)?;
    let said = world.nodes[by].db.transact(|tx| {
        let cut = tx.cut_of(node, &BTreeMap::new())?.ok_or(Error::Missing("cut"))?;
        let changes = Changes::new().set(&REVOKED_NODE, node.to_string());
        tx.create(&REVOCATION, Id::NIL, key, changes.add(&REVOKED_CUTS, cut.clone()))?;
        Ok::<_, Error>(cut)
    });
    let cut = match said {
        Err(Error::Full) if world.nodes[by].is_full() => return Ok(()),
        said => said.map_err(text)?,
    };
    world.say(|| format!("{by} removes {last}"));
    world.model.keys.insert((REVOCATION.code, Id::NIL, key));
    let removal = world.removal.get_or_insert(Removal { node, by, said: vec![] });
    removal.said.push(Said { cut, ..saying });
    acknowledge(world, by, &before)?;
    world.committed(by)
}

fn key_of(node: NodeId) -> Id {
    Id::natural(&[b"revocation", &node.0])
}

/// What a cut would say that this node said now.
fn saying(world: &mut World, by: usize, node: NodeId) -> Result<Said, String> {
    let carries = Carries::clone(&world.nodes[by].db.carries());
    let streams = world.model.ops.iter().map(|op| &op.stream);
    let streams = streams.filter(|stream| carries.carries(stream)).cloned().collect();
    let db = &mut world.nodes[by].db;
    let mut had = held(db, streams).map_err(text)?;
    // Taken up anew before it was off the disk: what it had before, it still knows of.
    let leaving = db.reader().leaving().map_err(text)?.into_iter();
    for stream in leaving.filter(|stream| carries.carries(stream)) {
        let before = world.dropped.get(&(by, stream.clone()));
        before.into_iter().for_each(|before| had.entry(stream.clone()).or_default().merge(before));
    }
    let heard = revoked::cuts(&db.reader(), node).map_err(text)?;
    let said = world.removal.iter().flat_map(|removal| &removal.said);
    let said = said.filter(|said| heard.contains(&said.cut));
    let without = said.map(|said| said.carries.clone()).collect();
    Ok(Said { by, cut: Value::Null, had, carries, without, since: vec![] })
}

/// A node that has heard speaks of the streams that it carries and of which nobody has spoken.
fn speak(world: &mut World, by: usize) -> Outcome {
    let Some(node) = world.removal.as_ref().map(|removal| removal.node) else { return Ok(()) };
    let key = key_of(node);
    let db = &world.nodes[by].db;
    let is_there = !world.nodes[by].is_old()
        && has_heard(world, by)?
        && db.reader().get(&REVOCATION, key).map_err(text)?.is_some();
    if !is_there || !revoked::lacks_cut(&db.reader(), node).map_err(text)? {
        return Ok(());
    }
    let before = world.nodes[by].vectors().map_err(text)?;
    let saying = saying(world, by, node)?;
    world.nodes[by].look_at_clock();
    let said = world.nodes[by].db.transact(|tx| {
        let cut = tx.cut_of(node, &BTreeMap::new())?;
        if let Some(cut) = &cut {
            tx.edit(&REVOCATION, key, Changes::new().add(&REVOKED_CUTS, cut.clone()))?;
        }
        Ok::<_, Error>(cut)
    });
    let cut = match said {
        Err(Error::Full) if world.nodes[by].is_full() => return Ok(()),
        said => said.map_err(text)?,
    };
    let Some(cut) = cut else { return Ok(()) };
    world.say(|| format!("{by} speaks of what else it has of the removed one"));
    let said = world.removal.as_mut().map(|removal| &mut removal.said);
    said.into_iter().for_each(|said| said.push(Said { cut: cut.clone(), ..saying.clone() }));
    world.outcome.spoken += 1;
    acknowledge(world, by, &before)?;
    world.committed(by)
}

/// What a node has of these streams: also what snapshots that are not whole yet have brought of one that it does not count
/// as its own yet.
fn held(db: &mut Db, streams: BTreeSet<StreamId>) -> Result<Vectors, Error> {
    let mut held = Vectors::new();
    for stream in streams {
        let here = held.entry(stream.clone()).or_default();
        let mut after = None;
        loop {
            let chunk = db.snapshot_chunk(&stream, after, None)?;
            here.merge(&chunk.vector);
            after = chunk.upto;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(held)
}

/// Whether one of two is the removed node, and the other one has heard.
pub fn is_between(world: &World, a: usize, b: usize) -> Result<bool, String> {
    let removed = removed(world);
    match (a == removed, b == removed) {
        (true, false) => has_heard(world, b),
        (false, true) => has_heard(world, a),
        _ => Ok(false),
    }
}

/// Links between one that has heard and the one that was removed end, and do not come again.
fn refuse(world: &mut World) -> Outcome {
    let removed = removed(world);
    for link in 0..world.links.len() {
        let other = world.links[link].nodes.into_iter().find(|node| *node != removed);
        if let Some(other) = other.filter(|_| world.links[link].joins(removed))
            && !world.links[link].is_refused
            && has_heard(world, other)?
        {
            world.links[link].is_refused = true;
            world.links[link].hang_up();
            world.outcome.refused += 1;
            world.say(|| format!("{other} refuses {removed}"));
        }
    }
    Ok(())
}

/// As far as its links tell.
fn lacks_nothing(world: &World, node: usize) -> bool {
    let mut ends = world.links.iter().filter(|link| link.joins(node)).filter_map(|link| {
        let end = link.nodes.iter().position(|n| *n == node)?;
        link.ends.as_ref().map(|ends| ends[end].status())
    });
    ends.all(|end| end.phase == Phase::Live && end.to_receive == 0)
}

/// What comes late is taken back in the end, also if those that spoke of it count under another name by now.
pub fn take_back_all(world: &mut World) -> Outcome {
    if world.removal.is_none() || !world.now().is_multiple_of(500) {
        return Ok(());
    }
    (0..world.nodes.len()).try_for_each(|node| {
        speak(world, node)?;
        take_back(world, node)
    })
}

/// What nobody else has taken back for a while.
fn take_back(world: &mut World, node: usize) -> Outcome {
    world.nodes[node].look_at_clock();
    let before_ms = world.nodes[node].wall_ms().saturating_sub(PATIENCE_MS);
    let before = world.nodes[node].vectors().map_err(text)?;
    let result = world.nodes[node].db.take_back_before(before_ms, 3).map(|_| ());
    let result = result.and_then(|()| world.nodes[node].db.find_late(10).map(|_| ()));
    match result {
        Err(Error::Full) if world.nodes[node].is_full() => return Ok(()),
        result => result.map_err(text)?,
    }
    if acknowledge(world, node, &before)? { world.committed(node) } else { Ok(()) }
}

/// Tells the model what a node wrote by itself since it had what is in `before`. Whether it did.
pub fn acknowledge(world: &mut World, node: usize, before: &Vectors) -> Result<bool, String> {
    let mine = world.nodes[node].db.origin().node;
    let mut written = world.nodes[node].ops_since(before).map_err(text)?;
    written.retain(|op| op.dot.origin.node == mine && !world.model.ops.contains(op));
    let latest_wall_ms = world.nodes[node].latest_wall_ms;
    let any = !written.is_empty();
    for op in written {
        world.say(|| format!("{node} writes by itself {:?} {:?}", op.dot, op.payload));
        world.model.acknowledge(op, latest_wall_ms)?;
    }
    Ok(any)
}

/// From here on it is gone, with all that none of the others had taken from it.
pub fn finish(world: &mut World) -> Outcome {
    let removed = removed(world);
    // Whoever had said it may have been set back to before that.
    while !(0..removed)
        .map(|node| has_heard(world, node))
        .collect::<Result<Vec<_>, _>>()?
        .contains(&true)
    {
        remove(world)?;
    }
    refuse(world)?;
    world.nodes.truncate(removed);
    let first =
        world.links.iter().position(|link| link.joins(removed)).unwrap_or(world.links.len());
    world.links.truncate(first);
    world.wire.forget_from(first);
    let mut vectors = Vec::new();
    for node in &mut world.nodes {
        vectors.push(node.vectors().map_err(text)?);
    }
    let is_gone = |op: &&Op| {
        let has =
            |vectors: &Vectors| vectors.get(&op.stream).is_some_and(|vector| vector.covers(op.dot));
        !vectors.iter().any(has)
    };
    for op in world.model.ops.iter().filter(is_gone) {
        world.model.set_back.insert((op.stream.clone(), op.dot));
    }
    if world.plan.latecomer {
        world.add_node(false)?;
    }
    Ok(())
}

/// Once all are equal: what is late is in quarantine everywhere, and in no state.
pub fn check(world: &mut World) -> Outcome {
    let Some(removal) = world.removal.take() else { return Ok(()) };
    let forgets = world.plan.restores || world.plan.copies || world.plan.twins;
    let is_strict = !forgets && !world.plan.trims && world.plan.snapshot_from_ops > 1_000;
    for node in world.nodes.iter_mut().filter(|node| !node.is_old() && !node.is_rotten) {
        while node.db.find_late(7).map_err(text)? {}
        let heard = revoked::cuts(&node.db.reader(), removal.node).map_err(text)?;
        let is_late = |stream: &StreamId, dot: Dot| removal.is_late(&heard, stream, dot);
        let ops = node.ops_since(&BTreeMap::new()).map_err(text)?;
        let late = ops.into_iter().filter(|op| is_late(&op.stream, op.dot));
        let late: BTreeSet<(StreamId, Dot)> = late.map(|op| (op.stream, op.dot)).collect();
        let rows = node.db.reader().quarantined(1_000).map_err(text)?;
        let shown: BTreeSet<_> = rows.into_iter().map(|row| (row.op.stream, row.op.dot)).collect();
        if let Some(missing) = late.difference(&shown).next() {
            return Err(format!("{missing:?} is late, and not in quarantine at {}", node.number));
        }
        world.outcome.late = world.outcome.late.max(late.len() as u64);
        for kind in NEW.iter().filter(|_| !forgets) {
            let all = Query::everywhere(kind).limit(1_000).without_total();
            for record in node.db.reader().list(&all).map_err(text)?.records {
                let stream = StreamId::new(record.tenant, kind.scope);
                if !removal.is_taken_back(&heard, &stream) {
                    continue;
                }
                let made = record.state.creations.keys();
                let put = record.state.cells.iter().map(|cell| &cell.dot).filter(|_| is_strict);
                if let Some(dot) = made.chain(put).find(|dot| is_late(&stream, **dot)) {
                    let name = node.number;
                    return Err(format!("{record:?} has something late at {name}: {dot:?}"));
                }
            }
        }
    }
    Ok(())
}

/// What readers see of a node's records, but for counts, which stay.
pub fn seen(world: &World, node: usize) -> Result<String, String> {
    let dump = super::oracle::shown_of(world, node)?;
    // A text that was changed back was changed now.
    let line = |line: &str| line.split(" changed=").next().unwrap_or_default().to_owned();
    // Partial nodes say more of the removal as they hear of more.
    let is_seen =
        |line: &&str| !["stats ", "revocation "].iter().any(|kind| line.starts_with(kind));
    let lines: Vec<String> = dump.lines().filter(is_seen).map(line).collect();
    Ok(lines.join("\n"))
}
