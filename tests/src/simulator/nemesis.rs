//! The evils that befall nodes and links, as the seed's plan allows, and their end.

use super::bucket;
use super::courier;
use super::limit;
use super::parts;
use super::removal;
use super::world::World;
use crate::kinds::{BODY, NOTE, STATS, TITLE, VISITORS};
use crate::rng::Rng;
use atoll_storage::op::{BodyEdit, BodyWrite, CellWrite, Count, Seen, Write};
use atoll_storage::{
    Dot, Error, Hlc, Id, NodeId, Op, Origin, Payload, Read, Replica, StreamId, Value, Vector,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

const TEN_YEARS_MS: u64 = 315_000_000_000;
const A_YEAR_MS: u64 = 31_536_000_000;

type Outcome = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Called every beat.
pub fn strike(world: &mut World) -> Outcome {
    let plan = world.plan.clone();
    let node = world.rng.below(world.nodes.len());
    if plan.partitions && !world.links.is_empty() && world.rng.percent(4) {
        let (link, ms) = (world.rng.below(world.links.len()), world.rng.between(300, 6_000));
        world.links[link].down_until_ms = world.now() + ms;
        world.links[link].hang_up();
        world.say(|| format!("{:?} down for {ms}", world.links[link].nodes));
    }
    if plan.one_way && !world.links.is_empty() && world.rng.percent(3) {
        let (link, end) = (world.rng.below(world.links.len()), world.rng.below(2));
        let until_ms = world.now() + world.rng.between(500, 5_000);
        world.links[link].deaf = Some((end, until_ms));
    }
    if plan.cuts {
        cut(world);
    }
    if plan.clocks && world.rng.percent(3) {
        turn_clock(world, node);
    }
    if plan.trims && world.rng.percent(5) {
        trim(world, node)?;
    }
    pack(world, node)?;
    if plan.rots && world.rng.percent(3) {
        rot(world, node)?;
    }
    if plan.revokes {
        removal::strike(world)?;
    }
    if plan.limits {
        limit::strike(world)?;
    }
    if plan.kills && world.rng.percent(3) {
        kill(world, node)?;
    }
    if plan.restores {
        if world.nodes[node].backup.is_none() && world.rng.percent(5) {
            world.nodes[node].backup = world.nodes[node].copy(&format!("b{}", world.now()))?;
        } else if world.rng.percent(2) {
            restore(world, node)?;
        }
    }
    if plan.couriers && world.rng.percent(5) {
        courier::carry(world)?;
    }
    if plan.copies {
        if world.nodes[node].backup.is_none() && world.rng.percent(10) {
            world.nodes[node].backup = world.nodes[node].copy(&format!("b{}", world.now()))?;
        } else if world.rng.percent(2) {
            put_back(world, node)?;
        }
    }
    if plan.twins {
        run_twin(world, node)?;
    }
    if plan.full_disks {
        fill_disks(world, node)?;
    }
    if plan.upgrades && world.nodes[node].is_old() && world.rng.percent(4) {
        upgrade(world, node)?;
    }
    if plan.poison && world.rng.percent(4) {
        poison(world, node)?;
    }
    if plan.absence && world.rng.percent(1) && !world.nodes[node].is_away {
        world.nodes[node].is_away = true;
        hang_up(world, node);
        world.say(|| format!("{node} is away"));
    }
    if !plan.revokes && plan.latecomer && world.nodes.len() == plan.nodes && world.rng.percent(1) {
        world.add_node(false)?;
    }
    if plan.partial {
        parts::strike(world, node)?;
    }
    if plan.buckets {
        bucket::strike(world)?;
    }
    Ok(())
}

/// Ends all that is evil, but leaves the clocks as they are.
pub fn heal(world: &mut World) -> Outcome {
    let is_without = !world.plan.revokes && world.nodes.len() == world.plan.nodes;
    if world.plan.latecomer && is_without {
        world.add_node(false)?;
    }
    if world.plan.trims {
        for node in 0..world.nodes.len() {
            if world.rng.percent(40) {
                trim(world, node)?;
            }
        }
    }
    for node in 0..world.nodes.len() {
        end_twin(world, node)?;
    }
    world.wire.calm = true;
    if world.nodes.iter().any(|node| node.is_away) {
        // Nothing may depend on how long it was.
        world.now_ms.fetch_add(A_YEAR_MS, Ordering::Relaxed);
    }
    for node in &mut world.nodes {
        node.is_away = false;
        if node.is_full() {
            node.fill_disk(0)?;
        }
    }
    for link in &mut world.links {
        (link.down_until_ms, link.deaf) = (0, None);
    }
    if world.plan.partial {
        parts::finish(world)?;
    }
    if world.plan.revokes {
        removal::finish(world)?;
    }
    if world.plan.limits {
        limit::stand(world);
    }
    bucket::heal(world);
    world.say(|| "healed".into());
    Ok(())
}

pub fn hang_up(world: &mut World, node: usize) {
    world.links.iter_mut().filter(|link| link.joins(node)).for_each(super::wire::Link::hang_up);
}

/// Links are cut at random, and gladly while a snapshot is being taken.
fn cut(world: &mut World) {
    for link in 0..world.links.len() {
        let Some(ends) = &world.links[link].ends else { continue };
        let is_pulling = ends.iter().any(|end| end.status().pulling.is_some());
        if world.rng.percent(if is_pulling { 15 } else { 1 }) {
            world.outcome.cut_pulls += u64::from(is_pulling);
            world.links[link].hang_up();
            world.say(|| format!("{:?} cut", world.links[link].nodes));
        }
    }
}

fn turn_clock(world: &mut World, node: usize) {
    let far = world.rng.percent(40);
    let by = world.rng.between(0, if far { TEN_YEARS_MS } else { 5_000 }) as i64;
    let skew_ms = if world.rng.percent(50) { by } else { -by };
    world.nodes[node].skew_ms.store(skew_ms, Ordering::Relaxed);
    world.say(|| format!("{node} clock off by {skew_ms}"));
}

fn trim(world: &mut World, node: usize) -> Outcome {
    for head in world.nodes[node].db.heads(None).map_err(text)? {
        if world.rng.percent(50) {
            let mut upto = Vector::default();
            for (origin, seq) in &head.vector.0 {
                let part = if world.rng.percent(50) { *seq } else { world.rng.between(0, *seq) };
                upto.raise(*origin, part);
            }
            match world.nodes[node].db.trim(&head.stream, &upto) {
                Ok(_) => world.outcome.trims += 1,
                Err(Error::Full) if world.nodes[node].is_full() => {}
                Err(error) => return Err(text(error)),
            }
            world.say(|| format!("{node} trims {} to {upto:?}", head.stream));
        }
    }
    Ok(())
}

/// No evil at all: now and then a node packs its log, all of it or but for the last few ops. Whether it does is not drawn
/// from the world's numbers, so that seeds stay what they are.
fn pack(world: &mut World, node: usize) -> Outcome {
    let mut dice = Rng::new(world.seed ^ world.now().rotate_left(17));
    if !dice.percent(8) {
        return Ok(());
    }
    match world.nodes[node].db.pack_log(None, dice.below(4) as u32) {
        Ok(packed) => world.outcome.packs += u64::from(packed),
        Err(Error::Full) if world.nodes[node].is_full() => {}
        Err(error) => return Err(text(error)),
    }
    Ok(())
}

/// A bit flips in what the disk holds of a packed log.
fn rot(world: &mut World, node: usize) -> Outcome {
    if world.nodes[node].is_full() {
        return Ok(());
    }
    let (which, at, bit) = (world.rng.number(), world.rng.number(), world.rng.below(8));
    let flipped = world.nodes[node].db.transact(|tx| {
        let names = "SELECT last, ops FROM block ORDER BY last";
        let mut statement = tx.conn().prepare(names).map_err(Error::from)?;
        let rows =
            statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
        let mut blocks =
            rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(Error::from)?;
        if blocks.is_empty() {
            return Ok(false);
        }
        let chosen = which as usize % blocks.len();
        let (name, bytes) = &mut blocks[chosen];
        let at = at as usize % bytes.len().max(1);
        bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
        let sql = "UPDATE block SET ops = ?1 WHERE last = ?2";
        tx.conn().execute(sql, (&*bytes, *name)).map_err(Error::from)?;
        Ok::<bool, Error>(true)
    });
    if flipped.map_err(text)? {
        world.nodes[node].is_rotten = true;
        world.outcome.rotten += 1;
        world.say(|| format!("a bit of the log of {node} flips"));
    }
    Ok(())
}

/// A disk without room, for a while: what cannot be kept is not acknowledged, and comes again.
fn fill_disks(world: &mut World, node: usize) -> Outcome {
    let now_ms = world.now();
    for node in world.nodes.iter_mut().filter(|node| node.is_full()) {
        if node.full_until_ms <= now_ms {
            node.fill_disk(0)?;
        }
    }
    if world.rng.percent(4) && !world.nodes[node].is_full() {
        let until_ms = now_ms + world.rng.between(300, 6_000);
        world.nodes[node].fill_disk(until_ms)?;
        world.outcome.full_disks += 1;
        world.say(|| format!("{node} has a full disk until {until_ms}"));
    }
    Ok(())
}

/// The process dies: what was on disk then is what there is.
pub fn kill(world: &mut World, node: usize) -> Outcome {
    // A node and its twin may be killed in the same moment.
    let name = format!("k{}", world.outcome.kills);
    let Some(left) = world.nodes[node].copy(&name)? else { return Ok(()) };
    hang_up(world, node);
    world.nodes[node].reopen(&left, &format!("{name}a"))?;
    world.outcome.kills += 1;
    world.say(|| format!("{node} is killed and starts again"));
    Ok(())
}

/// The old release stops, and the new one goes on with its file.
fn upgrade(world: &mut World, node: usize) -> Outcome {
    let name = format!("u{}", world.now());
    let Some(left) = world.nodes[node].copy(&name)? else { return Ok(()) };
    hang_up(world, node);
    world.nodes[node].kinds = crate::kinds::NEW;
    world.nodes[node].end_twin();
    world.nodes[node].reopen(&left, &format!("{name}a"))?;
    forgive(world, node)?;
    world.outcome.upgrades += 1;
    world.say(|| format!("{node} is upgraded"));
    Ok(())
}

/// An administrator puts an old copy of the file back, as often as it pleases him.
fn restore(world: &mut World, node: usize) -> Outcome {
    let Some(backup) = world.nodes[node].backup.clone() else { return Ok(()) };
    set_back(world, node, &backup, "r")?;
    world.nodes[node].db.raise_epoch().map_err(text)?;
    Ok(())
}

/// Somebody copies an old file over the new one. The node is not told, and counts on from there, until it sees that
/// others have more of it than itself.
fn put_back(world: &mut World, node: usize) -> Outcome {
    let Some(backup) = world.nodes[node].backup.clone() else { return Ok(()) };
    world.outcome.copies += 1;
    set_back(world, node, &backup, "p")
}

/// Two processes of one name count on side by side. A peer has one link to the two of them: it hears who dialled last.
fn run_twin(world: &mut World, node: usize) -> Outcome {
    if world.nodes[node].is_full() {
        return Ok(());
    }
    if !world.nodes[node].has_twin() {
        if world.rng.percent(5) {
            let name = format!("t{}", world.now());
            world.nodes[node].clone_disk(&name)?;
            world.outcome.twins += 1;
            world.say(|| format!("{node} runs twice"));
        }
    } else if world.rng.percent(30) {
        hang_up(world, node);
        world.nodes[node].swap_twin();
        world.say(|| format!("{node} is now its twin"));
    } else if world.rng.percent(5) {
        end_twin(world, node)?;
    }
    Ok(())
}

/// What only the one that goes had acknowledged, goes with it.
fn end_twin(world: &mut World, node: usize) -> Outcome {
    if world.nodes[node].has_twin() {
        world.nodes[node].end_twin();
        forgive(world, node)?;
        world.say(|| format!("{node} runs once"));
    }
    Ok(())
}

/// Both ways of it may befall a node in one beat: each works on a file of its own.
fn set_back(world: &mut World, node: usize, backup: &Path, way: &str) -> Outcome {
    hang_up(world, node);
    let name = format!("{way}{}", world.now());
    world.nodes[node].reopen(backup, &name)?;
    let vectors = forgive(world, node)?;
    world.outcome.restores += 1;
    world.say(|| format!("{node} is set back to {vectors:?}"));
    Ok(())
}

/// What a node acknowledged and has no more may be gone. Its vectors.
pub fn forgive(world: &mut World, node: usize) -> Result<BTreeMap<StreamId, Vector>, String> {
    let vectors = world.nodes[node].vectors().map_err(text)?;
    let id = world.nodes[node].db.origin().node;
    for op in world.model.ops.iter().filter(|op| op.dot.origin.node == id) {
        if !vectors.get(&op.stream).is_some_and(|v| v.covers(op.dot)) {
            world.model.set_back.insert((op.stream.clone(), op.dot));
        }
    }
    Ok(vectors)
}

/// An op as only a broken or evil release would write it. It must do no harm, and travel on.
fn poison(world: &mut World, node: usize) -> Outcome {
    let n = world.rng.number();
    let mut id = [0xee; 16];
    id[8..].copy_from_slice(&n.to_le_bytes());
    let origin = Origin { node: NodeId(id), epoch: 1 };
    let fresh = Id::natural(&[b"poison", &n.to_le_bytes()]);
    world.model.poisoned.insert(fresh);
    let kind = world.nodes[node].kinds[0];
    let notes = world.model.keys_of(&NOTE);
    let target = if notes.is_empty() { None } else { Some(world.rng.pick(&notes)) };
    let record = target.map(|(_, key)| world.nodes[node].db.reader().get(kind, key));
    let record = record.transpose().map_err(text)?.flatten();
    let garbage: Vec<u8> = (0..40).map(|i| (n >> (i % 8 * 8)) as u8 ^ i as u8).collect();
    let content = |tenant: Id| StreamId::new(tenant, "content");
    let cell = |field: u16| CellWrite { field, element: None, value: Some(Value::from("evil")) };
    let writes =
        |creates, seen, cells, bodies| Payload::Write(Write { creates, seen, cells, bodies });
    let none = Seen::default;
    let (stream, kind, key, payload) = match (world.rng.below(8), &record) {
        (0, Some(record)) => {
            let edit = record
                .state
                .body(BODY.code)
                .map(|body| BodyEdit::Change { creation: body.creation, bytes: garbage });
            let bodies =
                edit.into_iter().map(|edit| BodyWrite { field: BODY.code, edit }).collect();
            let seen = record.state.seen();
            (content(record.tenant), NOTE.code, record.key, writes(false, seen, vec![], bodies))
        }
        (1, Some(record)) => {
            let cells = vec![cell(TITLE.code)];
            let other = if record.tenant == Id::NIL { Id([1; 16]) } else { Id::NIL };
            (content(other), NOTE.code, record.key, writes(false, none(), cells, vec![]))
        }
        (2, _) => {
            let stream = StreamId::new(Id([2; 16]), "insight");
            (stream, NOTE.code, fresh, writes(true, none(), vec![cell(TITLE.code)], vec![]))
        }
        (3, _) => {
            let bodies = vec![BodyWrite { field: 9, edit: BodyEdit::Born("alien".into()) }];
            let stream = StreamId::new(Id::NIL, "elsewhere");
            (stream, 999, fresh, writes(true, none(), vec![cell(1), cell(7)], bodies))
        }
        (4, _) => {
            let registers = vec![(0, 3), (60_000, 255), (5, 200)];
            let counts = vec![
                Count::Sketch { field: VISITORS.code, registers },
                Count::Total { field: 77, total: u64::MAX },
            ];
            let key = Id::natural(&[b"stats", &[1; 16], &[9]]);
            world.model.poisoned.insert(key);
            (StreamId::new(Id([1; 16]), "insight"), STATS.code, key, Payload::Count(counts))
        }
        (5, _) => (content(Id::NIL), NOTE.code, fresh, Payload::Erased { hash: [3; 32] }),
        (6, _) => {
            let cells = vec![cell(TITLE.code), cell(TITLE.code), cell(4_000)];
            (content(Id::NIL), NOTE.code, fresh, writes(true, none(), cells, vec![]))
        }
        _ => (content(Id([1; 16])), NOTE.code, fresh, Payload::Delete { seen: none() }),
    };
    let hlc = if world.rng.percent(20) { Hlc(u64::MAX >> 1) } else { Hlc(1 << 16) };
    let dot = Dot { origin, seq: 1 };
    let op = Op { stream, dot, hlc, kind, schema: 9, key, payload };
    world.say(|| format!("{node} gets poison {op:?}"));
    world.nodes[node].look_at_clock();
    match Replica::apply(&mut world.nodes[node].db, vec![op]) {
        Err(error) if !(matches!(error, Error::Full) && world.nodes[node].is_full()) => {
            Err(text(error))
        }
        _ => world.committed(node),
    }
}
