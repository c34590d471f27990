//! A node that is removed from the network, as one that was stolen: the word goes as a record, before all else. Whoever has it
//! cuts its link to that node and refuses it from then on. Others talk to it until they hear.

use super::kinds::{REMOVAL, REMOVED};
use super::world::World;
use atoll_storage::{Changes, Error, Id, Op, Read};

type Outcome = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn key() -> Id {
    Id::natural(&[b"removal"])
}

/// The last node is the one.
fn removed(world: &World) -> usize {
    world.plan.nodes - 1
}

/// Called every beat.
pub fn strike(world: &mut World) -> Outcome {
    if world.rng.percent(1) {
        let by = world.rng.below(removed(world));
        say_it(world, by)?;
    }
    refuse(world)
}

fn has_heard(world: &World, node: usize) -> Result<bool, String> {
    Ok(world.nodes[node].db.reader().get(&REMOVAL, key()).map_err(text)?.is_some())
}

fn say_it(world: &mut World, by: usize) -> Outcome {
    if has_heard(world, by)? || world.nodes[by].is_full() {
        return Ok(());
    }
    let known = world.nodes[by].vectors().map_err(text)?;
    world.nodes[by].look_at_clock();
    let changes = Changes::new().set(&REMOVED, "the last");
    let made: Result<(), Error> =
        world.nodes[by].db.transact(|tx| tx.create(&REMOVAL, Id::NIL, key(), changes).map(drop));
    made.map_err(text)?;
    let latest_wall_ms = world.nodes[by].latest_wall_ms;
    for op in world.nodes[by].ops_since(&known).map_err(text)? {
        world.model.acknowledge(op, latest_wall_ms)?;
    }
    world.say(|| format!("{by} removes the last node"));
    world.committed(by)
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

/// From here on it is gone, with all that none of the others had taken from it.
pub fn finish(world: &mut World) -> Outcome {
    say_it(world, 0)?;
    refuse(world)?;
    let removed = removed(world);
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
        let has = |vectors: &std::collections::BTreeMap<_, atoll_storage::Vector>| {
            vectors.get(&op.stream).is_some_and(|vector| vector.covers(op.dot))
        };
        !vectors.iter().any(has)
    };
    for op in world.model.ops.iter().filter(is_gone) {
        world.model.set_back.insert((op.stream.clone(), op.dot));
    }
    Ok(())
}
