//! Nodes that carry a part of the network: which, how it changes while they run, and that nothing is dropped that nobody
//! else has.

use super::world::World;
use atoll_storage::{Carries, Error, Id, Replica, StreamHead, StreamId};
use std::collections::BTreeMap;

type Outcome = Result<(), String>;

/// Records or ops that are removed at once.
const PIECE: usize = 3;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn any_part(world: &mut World) -> Result<Carries, String> {
    let (one, two) = (Id([1; 16]), Id([2; 16]));
    let parts: [Vec<String>; 8] = [
        vec!["*".into()],
        vec!["*".into(), "-*/content".into()],
        vec!["*".into(), format!("-{one}")],
        vec![format!("{one}"), format!("{two}/content")],
        vec![format!("{two}"), "*/insight".into()],
        vec!["*".into(), "-*/community".into(), format!("-{two}/insight")],
        vec!["*/content".into(), format!("{one}/comm/")],
        vec![],
    ];
    let at = world.rng.below(parts.len());
    Carries::parse(parts[at].iter().map(String::as_str), |_| None).map_err(text)
}

/// What a new node carries.
pub fn begin(world: &mut World, node: usize) -> Outcome {
    let part = any_part(world)?;
    world.say(|| format!("{node} carries {part}"));
    world.nodes[node].db.carry(part).map_err(text)
}

/// Called every beat.
pub fn strike(world: &mut World, node: usize) -> Outcome {
    let is_fixed = world.plan.revokes_once && world.removal.is_some();
    if node > 0 && !is_fixed && world.rng.percent(6) {
        change(world, node)?;
    }
    for node in 0..world.nodes.len() {
        if world.rng.percent(40) {
            shed(world, node)?;
        }
    }
    Ok(())
}

/// All that is carried no more is gone.
pub fn finish(world: &mut World) -> Outcome {
    for node in 0..world.nodes.len() {
        while shed(world, node)? {}
    }
    Ok(())
}

fn shed(world: &mut World, node: usize) -> Result<bool, String> {
    match world.nodes[node].db.shed(PIECE) {
        Ok(more) => Ok(more),
        Err(Error::Full) if world.nodes[node].is_full() => Ok(false),
        Err(error) => Err(text(error)),
    }
}

/// Somebody takes more, or drops what another node has as well. A node that may be set back must not be the reason why
/// another one drops something.
fn change(world: &mut World, node: usize) -> Outcome {
    let part = any_part(world)?;
    let heads = world.nodes[node].db.heads(None).map_err(text)?;
    let dropped: Vec<StreamHead> =
        heads.into_iter().filter(|head| !part.carries(&head.stream)).collect();
    let may_drop = !world.plan.restores && !world.plan.copies && !world.plan.twins;
    // Nobody counts on one that is removed.
    let stay = world.nodes.len().min(world.plan.nodes - usize::from(world.plan.revokes));
    let is_elsewhere = |world: &mut World, head: &StreamHead| {
        (0..stay).filter(|other| *other != node).any(|other| {
            let theirs = world.nodes[other].db.head(&head.stream).ok().flatten();
            theirs.is_some_and(|theirs| theirs.vector.includes(&head.vector))
        })
    };
    if !dropped.iter().all(|head| may_drop && is_elsewhere(world, head)) {
        return Ok(());
    }
    world.say(|| format!("{node} carries {part} from now on"));
    match world.nodes[node].db.carry(part.clone()) {
        Ok(()) => {
            world.outcome.dropped += dropped.len() as u64;
            let dropped = dropped.into_iter().map(|head| ((node, head.stream), head.vector));
            world.dropped.extend(dropped);
            let removal = world.removal.as_mut();
            removal.into_iter().for_each(|removal| removal.note_part(node, &part));
        }
        Err(Error::Full) if world.nodes[node].is_full() => {}
        Err(error) => return Err(text(error)),
    }
    world.committed(node)
}

/// Those that meet: at the ends of a link, or all of them in the bucket.
pub fn meetings(world: &World) -> Vec<(usize, usize)> {
    if world.bucket.is_some() {
        let nodes = world.nodes.len();
        return (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect();
    }
    world.links.iter().map(|link| (link.nodes[0], link.nodes[1])).collect()
}

/// Whether the nodes at both ends of each link have the same of what both carry.
pub fn are_equal(world: &mut World) -> Result<bool, String> {
    Ok(difference(world)?.is_none())
}

/// Where they have not.
pub fn difference(world: &mut World) -> Result<Option<String>, String> {
    for (a, b) in meetings(world) {
        let (left, right) = (leaves(world, a, b)?, leaves(world, b, a)?);
        if left != right {
            return Ok(Some(format!("{a} and {b} differ in what both carry")));
        }
    }
    for node in &mut world.nodes {
        let carries = node.db.carries();
        let is_outside = |head: &&StreamHead| !carries.carries(&head.stream);
        if let Some(head) = node.db.heads(None).map_err(text)?.iter().find(is_outside) {
            return Ok(Some(format!("{} has something of {}", node.number, head.stream)));
        }
    }
    Ok(None)
}

fn leaves(
    world: &mut World,
    of: usize,
    with: usize,
) -> Result<BTreeMap<StreamId, atoll_storage::Digest>, String> {
    let theirs = world.nodes[with].db.carries();
    let heads = world.nodes[of].db.heads(None).map_err(text)?;
    let shared = heads.into_iter().filter(|head| theirs.carries(&head.stream));
    Ok(shared.map(|head| (head.stream.clone(), head.leaf())).collect())
}
