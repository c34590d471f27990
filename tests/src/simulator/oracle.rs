//! What must hold once everything is healed.

use super::model::{Lost, difference};
use super::node::{Node, clock};
use super::parts;
use super::world::World;
use crate::kinds;
use atoll_storage::{
    Carries, Cause, ConflictValue, Db, Dot, Field, Id, Kind, Merge, NodeId, Op, Query, Read,
    Record, Replica, StreamHead, StreamId, Vector,
};
use atoll_sync::session::{Effect, Event, Now, Options, Phase, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

type Outcome = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub fn roots_are_equal(world: &mut World) -> Result<bool, String> {
    if world.plan.partial {
        return parts::are_equal(world);
    }
    let roots = world.nodes.iter_mut().map(|node| node.db.root()).collect::<Result<Vec<_>, _>>();
    Ok(roots.map_err(text)?.windows(2).all(|pair| pair[0] == pair[1]))
}

/// In which streams the nodes differ, for the message of a failure.
pub fn differences(world: &mut World) -> Result<String, String> {
    let mut by_stream: BTreeMap<StreamId, Vec<StreamHead>> = BTreeMap::new();
    for node in &mut world.nodes {
        for head in node.db.heads(None).map_err(text)? {
            by_stream.entry(head.stream.clone()).or_default().push(head);
        }
    }
    let mut out = String::new();
    let nodes = world.nodes.len();
    for (stream, heads) in by_stream {
        if heads.len() < nodes || heads.windows(2).any(|p| p[0].leaf() != p[1].leaf()) {
            let _ = write!(out, "\n  {stream}:");
            for head in heads {
                let _ = write!(
                    out,
                    "\n    {:?} floor {:?} {} of {}",
                    head.vector.0, head.floor.0, head.digest, head.records
                );
            }
        }
    }
    for link in &world.links {
        let phases = link.ends.as_ref().map(|ends| {
            let status = ends.each_ref().map(Session::status);
            status.map(|s| (s.phase, s.to_send, s.to_receive, s.pulling))
        });
        let _ = write!(out, "\n  link {:?}: {phases:?}", link.nodes);
    }
    Ok(out)
}

pub fn check(world: &mut World) -> Outcome {
    heads_are_equal(world)?;
    projections_are_equal(world)?;
    inboxes_are_equal(world)?;
    let dumps = dumps(world)?;
    views_are_sound(world, &dumps)?;
    world.outcome.records = dumps[0].lines().count() as u64;
    nothing_is_lost(world)?;
    a_greeting_is_short(world)?;
    shuffled_ops_give_the_same(world)?;
    if world.outcome.alarms > 0 && !is_set_back(world) {
        return Err(format!(
            "{} alarms: states differed under equal vectors",
            world.outcome.alarms
        ));
    }
    world.outcome.ops = world.model.ops.len() as u64;
    Ok(())
}

/// Two lives of a node may have given out the same numbers.
pub fn is_set_back(world: &World) -> bool {
    world.plan.restores || world.plan.copies || world.plan.twins
}

fn same(what: &str, a: usize, b: usize, left: &str, right: &str) -> Outcome {
    if left == right {
        return Ok(());
    }
    let only = |x: &str, y: &str| -> Vec<String> {
        x.lines().filter(|l| !y.lines().any(|m| m == *l)).map(str::to_owned).collect()
    };
    Err(format!("{what} differ\n {a}: {:#?}\n {b}: {:#?}", only(left, right), only(right, left)))
}

/// Pairs of nodes that must show the same of what both carry: all if each carries everything, else those that meet.
fn pairs(world: &World) -> Vec<(usize, usize)> {
    if world.plan.partial {
        return parts::meetings(world);
    }
    (1..world.nodes.len()).map(|node| (0, node)).collect()
}

/// Whole nodes show the same, and a partial one what a whole one does of its part.
fn projections_are_equal(world: &World) -> Outcome {
    let shown = shown_kinds(world);
    for (a, b) in pairs(world) {
        let parts = [a, b].map(|node| world.nodes[node].db.carries());
        let is_shared = |stream: &StreamId| parts.iter().all(|part| part.carries(stream));
        let dumped = |node: usize| {
            let node = &world.nodes[node];
            dump_of(&node.db, node.kinds, shown, &is_shared)
        };
        same("records", a, b, &dumped(a)?, &dumped(b)?)?;
    }
    Ok(())
}

fn shown_kinds(world: &World) -> &'static [&'static Kind] {
    let all_new = world.nodes.iter().all(|node| !node.is_old());
    if all_new { kinds::NEW } else { kinds::OLD }
}

fn heads_are_equal(world: &mut World) -> Outcome {
    if world.plan.partial {
        return parts::difference(world)?.map_or(Ok(()), Err);
    }
    let mut all = Vec::new();
    for node in &mut world.nodes {
        let heads = node.db.heads(None).map_err(text)?;
        let shown = |h: &StreamHead| (h.stream.clone(), h.vector.clone(), h.digest, h.records);
        all.push(heads.iter().map(shown).collect::<Vec<_>>());
    }
    if all.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    Err(format!("heads differ: {}", differences(world)?))
}

/// Everything that a reader of a node sees.
pub fn shown_of(world: &World, node: usize) -> Result<String, String> {
    let node = &world.nodes[node];
    dump(&node.db, node.kinds, shown_kinds(world))
}

fn dumps(world: &World) -> Result<Vec<String>, String> {
    let kinds = shown_kinds(world);
    world.nodes.iter().map(|node| dump(&node.db, node.kinds, kinds)).collect()
}

/// Everything that a reader can see, of the kinds and fields of `shown`.
fn dump(
    db: &Db,
    kinds: &'static [&'static Kind],
    shown: &'static [&'static Kind],
) -> Result<String, String> {
    dump_of(db, kinds, shown, &|_| true)
}

/// The same of some streams.
fn dump_of(
    db: &Db,
    kinds: &'static [&'static Kind],
    shown: &'static [&'static Kind],
    is_wanted: &dyn Fn(&StreamId) -> bool,
) -> Result<String, String> {
    let mut out = String::new();
    for (kind, shown) in shown.iter().filter_map(|s| {
        let kind = kinds.iter().find(|k| k.code == s.code)?;
        Some((*kind, *s))
    }) {
        let mut after = None;
        let mut seen = 0;
        loop {
            let query = Query::everywhere(kind).sort("key", false).after(after).limit(100);
            let page = db.reader().list(&query.with_bodies()).map_err(text)?;
            seen += page.records.len() as u64;
            for record in &page.records {
                if !is_wanted(&StreamId::new(record.tenant, kind.scope)) {
                    continue;
                }
                show(db, record, shown.fields, &mut out)?;
            }
            after = page.next;
            if after.is_none() {
                if page.total != seen {
                    return Err(format!("{} of {} {} listed", seen, page.total, kind.plural));
                }
                break;
            }
        }
    }
    Ok(out)
}

fn show(db: &Db, record: &Record, fields: &[Field], out: &mut String) -> Outcome {
    let _ = write!(out, "{} {} {}", record.kind.name, record.tenant, record.key);
    for field in fields {
        let _ = match field.merge {
            Merge::Set => {
                write!(out, " {}={:?}", field.name, record.set(field).collect::<Vec<_>>())
            }
            Merge::Body => write!(out, " {}={:?}", field.name, record.body(field)),
            Merge::Counter => write!(out, " {}={}", field.name, record.total(field)),
            Merge::Sketch => write!(out, " {}={}", field.name, record.estimate(field)),
            Merge::Register => {
                write!(out, " {}={:?}/{:?}", field.name, record.value(field), record.text(field))
            }
        };
        if let (Some(space), Some(name)) = (field.claim, record.opt_text(field)) {
            let holder = db.reader().claimed(record.tenant, space, name).map_err(text)?;
            if holder != Some(record.key) {
                return Err(format!("{record:?} does not answer to its name {name:?}"));
            }
        }
    }
    let _ = writeln!(
        out,
        " parent={:?} made={} changed={}",
        record.tree_parent(),
        record.created_ms(),
        record.updated_ms()
    );
    Ok(())
}

/// The inbox without what each node sees for itself: writes that met a deletion.
fn inbox(db: &Db, skip: &[u16]) -> Result<String, String> {
    inbox_of(db, skip, &|_| true)
}

fn inbox_of(
    db: &Db,
    skip: &[u16],
    is_wanted: &dyn Fn(&StreamId) -> bool,
) -> Result<String, String> {
    let mut out = String::new();
    for row in db.reader().conflicts(None, 1_000, None).map_err(text)? {
        let scope = kinds::NEW.iter().find(|kind| kind.code == row.kind).map_or("", |k| k.scope);
        if !is_wanted(&StreamId::new(row.tenant, scope)) {
            continue;
        }
        if row.cause != Cause::LostWrite && !skip.contains(&row.kind) {
            let _ = writeln!(
                out,
                "{:?} {} {} {} {} {:?}",
                row.cause, row.kind, row.key, row.field_code, row.at_ms, row.values
            );
        }
    }
    Ok(out)
}

fn inboxes_are_equal(world: &mut World) -> Outcome {
    // A node of the old release cannot know of conflicts in what it does not know.
    let skip: &[u16] = if world.nodes.iter().any(Node::is_old) {
        &[kinds::NOTE.code, kinds::BADGE.code]
    } else {
        &[]
    };
    let first = inbox(&world.nodes[0].db, skip)?;
    for (a, b) in pairs(world) {
        let parts = [a, b].map(|node| world.nodes[node].db.carries());
        let is_shared = |stream: &StreamId| parts.iter().all(|part| part.carries(stream));
        let of = |node: usize| inbox_of(&world.nodes[node].db, skip, &is_shared);
        same("inboxes", a, b, &of(a)?, &of(b)?)?;
    }
    world.outcome.conflicts = first.lines().count() as u64;
    let quarantined = world.nodes[0].db.reader().quarantined(1_000).map_err(text)?;
    world.outcome.quarantined = quarantined.len() as u64;
    Ok(())
}

fn verified(db: &Db, name: &str, is_rotten: bool) -> Outcome {
    let mut problems = db.verify().map_err(text)?.problems;
    // What it cannot send it says; everything else is as it should be.
    let is_of_log =
        |problem: &str| problem.starts_with("block ") || problem.contains(" in the log, ");
    problems.retain(|problem| !(is_rotten && is_of_log(problem)));
    if problems.is_empty() { Ok(()) } else { Err(format!("{name}: verify found {problems:#?}")) }
}

fn views_are_sound(world: &mut World, dumps: &[String]) -> Outcome {
    let shown = shown_kinds(world);
    for (node, before) in world.nodes.iter_mut().zip(dumps) {
        let name = format!("node {}", node.number);
        verified(&node.db, &name, node.is_rotten)?;
        let conflicts = inbox(&node.db, &[])?;
        let root = node.db.root().map_err(text)?;
        node.db.rebuild(|_, _| {}).map_err(text)?;
        verified(&node.db, &format!("{name}, rebuilt"), node.is_rotten)?;
        same(
            "rebuilt records",
            node.number,
            node.number,
            before,
            &dump(&node.db, node.kinds, shown)?,
        )?;
        same("rebuilt inboxes", node.number, node.number, &conflicts, &inbox(&node.db, &[])?)?;
        if node.db.root().map_err(text)? != root {
            return Err(format!("{name}: rebuilding changed the root"));
        }
    }
    Ok(())
}

/// The ops that a node has: in its vectors, or in what a snapshot that is not whole yet brought of their records.
fn arrived_at(node: &mut Node, ops: &[Op]) -> Result<BTreeSet<(StreamId, Dot)>, String> {
    let heads = node.db.heads(None).map_err(text)?;
    let heads: BTreeMap<StreamId, StreamHead> =
        heads.into_iter().map(|head| (head.stream.clone(), head)).collect();
    let mut arrived = BTreeSet::new();
    for op in ops {
        let head = heads.get(&op.stream);
        let mut has = head.is_some_and(|head| head.vector.covers(op.dot));
        if !has && node.db.carries().carries(&op.stream) {
            let before = Id(u128::from_be_bytes(op.key.0).wrapping_sub(1).to_be_bytes());
            let (after, upto) = (Some((op.kind, before)), Some((op.kind, op.key)));
            let chunk = node.db.snapshot_chunk(&op.stream, after, upto).map_err(text)?;
            has = chunk.vector.covers(op.dot);
        }
        if has {
            arrived.insert((op.stream.clone(), op.dot));
        }
    }
    Ok(arrived)
}

/// Against the model: each record is what the acknowledged ops make it.
fn nothing_is_lost(world: &mut World) -> Outcome {
    let mut arrived: Vec<BTreeSet<(StreamId, Dot)>> = Vec::new();
    for node in &mut world.nodes {
        arrived.push(arrived_at(node, &world.model.ops)?);
    }
    let has = |node: usize, op: &Op| arrived[node].contains(&(op.stream.clone(), op.dot));
    for op in &world.model.ops {
        let is_somewhere = (0..world.nodes.len()).any(|node| has(node, op));
        if !is_somewhere && !world.model.set_back.contains(&(op.stream.clone(), op.dot)) {
            return Err(format!("an acknowledged op is gone: {op:?}"));
        }
    }
    // Where all carry everything, one stands for all.
    let looked_at = if world.plan.partial { world.nodes.len() } else { 1 };
    let new = (0..world.nodes.len()).filter(|node| !world.nodes[*node].is_old());
    new.take(looked_at).try_for_each(|node| node_lost_nothing(world, node, &|op| has(node, op)))
}

fn node_lost_nothing(world: &World, node: usize, arrived: &dyn Fn(&Op) -> bool) -> Outcome {
    // What a life that was set back had acknowledged may have got through in a part of a snapshot, or not.
    let set_back = &world.model.set_back;
    let lives = world.model.ops.iter().filter(|op| set_back.contains(&(op.stream.clone(), op.dot)));
    let mut doubtful: BTreeSet<(u16, Id)> =
        lives.filter(|op| !arrived(op)).map(|op| (op.kind, op.key)).collect();
    doubtful.extend(&world.model.collided);
    let is_set_back = is_set_back(world);
    let (expected, lost) = world.model.expected(arrived);
    let node = &world.nodes[node];
    let reader = node.db.reader();
    for ((code, key), state) in expected.iter().filter(|(place, _)| !doubtful.contains(place)) {
        let Some(kind) = node.kinds.iter().find(|k| k.code == *code) else { continue };
        let found = reader.get_full(kind, *key).map_err(text)?;
        let found_state = found.as_ref().map(|r| r.state.clone()).unwrap_or_default();
        if let Some(difference) = difference(state, &found_state) {
            return Err(format!("{} {key} should be otherwise: {difference}", kind.name));
        }
        let Some(record) = found else { continue };
        // Between this node and where it was written there may be none that carries it.
        let is_of = |op: &&Op| (op.kind, op.key) == (*code, *key);
        if !world.model.ops.iter().filter(is_of).all(arrived) {
            continue;
        }
        for (_, _, field, creation, word) in
            world.model.words.iter().filter(|w| (w.0, w.1) == (*code, *key))
        {
            let Some(field) = kind.field_by_code(*field) else { continue };
            let shows = record.state.body(field.code).is_some_and(|b| b.creation == *creation);
            let is_there = record.body(field).contains(word.as_str());
            // Words put into one place at one time may have grown together before they were taken out.
            let is_unwritten = world.model.unwritten.iter().any(|gone| gone.contains(word));
            if shows && !is_there && !is_unwritten && !is_set_back {
                return Err(format!("{record:?} has lost the word {word}: {}", record.body(field)));
            }
        }
    }
    for kind in node.kinds {
        let all = Query::everywhere(kind).limit(1_000).without_total();
        for record in reader.list(&all).map_err(text)?.records {
            let place = (kind.code, record.key);
            let is_ours = expected.contains_key(&place) || doubtful.contains(&place);
            if !is_ours && !world.model.poisoned.contains(&record.key) {
                return Err(format!("{record:?} came from nowhere"));
            }
        }
    }
    if is_set_back || world.plan.partial || world.plan.revokes {
        // An inbox that was set back or removed with its node, or dropped with its stream, has forgotten what it held.
        return Ok(());
    }
    let mut rows = Vec::new();
    for node in &world.nodes {
        rows.extend(node.db.reader().conflicts(None, 1_000, None).map_err(text)?);
    }
    let removed = world.removal.as_ref().map(|removal| removal.node);
    for lost in lost.into_iter().filter(|lost| Some(lost.dot.origin.node) != removed) {
        let is_kept = rows.iter().any(|row| {
            row.cause == Cause::LostWrite
                && (row.kind, row.key, row.field_code) == (lost.kind, lost.key, lost.field)
                && row.values.iter().any(|value| tells_of(value, &lost))
        });
        if !is_kept {
            return Err(format!("a write that met a deletion is in no inbox: {lost:?}"));
        }
    }
    Ok(())
}

/// The text of a body's later edit holds what its author's earlier ones did.
fn tells_of(value: &ConflictValue, lost: &Lost) -> bool {
    let is_later = lost.is_body && value.dot.origin == lost.dot.origin && value.hlc > lost.hlc;
    value.hlc == lost.hlc || is_later
}

/// Two nodes with nothing new say so in under 200 bytes each.
fn a_greeting_is_short(world: &mut World) -> Outcome {
    let now = Now { elapsed_ms: world.now(), wall_ms: world.nodes[0].wall_ms() };
    let options = |peer: usize| Options {
        name: "a node with a long name for people".into(),
        peer: Some(world.nodes[peer].db.origin().node),
        peer_carries: Some(Carries::clone(&world.nodes[peer].db.carries())),
        ..Options::default()
    };
    let mut ends = [1, 0].map(|peer| Session::new(options(peer), now));
    let mut sent = [0; 2];
    let mut events: Vec<(usize, Event)> = vec![(0, Event::Open), (1, Event::Open)];
    while let Some((end, event)) = events.pop() {
        let effects =
            world.nodes[end].with_replica(|replica| ends[end].handle(now, replica, event));
        for effect in effects {
            let Effect::Send(bytes) = effect else {
                return Err(format!("equal nodes meet, and: {effect:?}"));
            };
            sent[end] += bytes.len() + atoll_sync::frame::HEADER_BYTES;
            events.insert(0, (1 - end, Event::Frame(bytes)));
        }
    }
    let is_live = ends.iter().all(|end| end.status().phase == Phase::Live);
    if !is_live || sent.iter().any(|bytes| *bytes > 200) {
        return Err(format!("equal nodes say {sent:?} bytes to each other"));
    }
    Ok(())
}

/// The same ops in any order, doubled and in any pieces, make the same state.
fn shuffled_ops_give_the_same(world: &mut World) -> Outcome {
    let has_all = |head: &StreamHead| !head.is_ahead && head.floor.0.values().all(|seq| *seq == 0);
    let is_whole = |heads: &[StreamHead]| heads.iter().all(has_all);
    let mut whole = None;
    for number in 0..world.nodes.len() {
        let is_sound = !world.nodes[number].is_rotten;
        if is_sound && is_whole(&world.nodes[number].db.heads(None).map_err(text)?) {
            whole = Some(number);
        }
    }
    let Some(number) = whole.filter(|_| world.model.collided.is_empty()) else { return Ok(()) };
    let known: BTreeMap<StreamId, Vector> = BTreeMap::new();
    let mut ops = world.nodes[number].ops_since(&known).map_err(text)?;
    let doubles: Vec<Op> = ops.iter().filter(|_| world.rng.percent(20)).cloned().collect();
    ops.extend(doubles);
    world.rng.shuffle(&mut ops);
    let clock = clock(&world.now_ms, &Arc::new(AtomicI64::new(0)));
    let mut fresh = Db::open_in_memory(kinds::NEW, NodeId([99; 16]), clock).map_err(text)?;
    while !ops.is_empty() {
        let rest = ops.split_off(world.rng.between(1, 20).min(ops.len() as u64) as usize);
        fresh.apply(std::mem::replace(&mut ops, rest)).map_err(text)?;
    }
    if fresh.parked() > 0 {
        return Err(format!("{} ops stay parked though all are there", fresh.parked()));
    }
    let node = &mut world.nodes[number];
    if fresh.root().map_err(text)? != node.db.root().map_err(text)? {
        let shown = if node.is_old() { kinds::OLD } else { kinds::NEW };
        let left = dump(&node.db, node.kinds, shown)?;
        same("shuffled records", number, 99, &left, &dump(&fresh, kinds::NEW, shown)?)?;
        return Err("shuffled ops give another root".into());
    }
    verified(&fresh, "the one with shuffled ops", false)?;
    if !node.is_old() {
        let left = dump(&node.db, kinds::NEW, kinds::NEW)?;
        same("shuffled records", number, 99, &left, &dump(&fresh, kinds::NEW, kinds::NEW)?)?;
        same("shuffled inboxes", number, 99, &inbox(&node.db, &[])?, &inbox(&fresh, &[])?)?;
    }
    Ok(())
}
