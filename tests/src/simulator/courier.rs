//! Couriers: bundles made at one node and brought to another, whole, cut off, damaged, or twice. What a receiver is said to
//! have may be what it had long ago.

use super::removal;
use super::world::World;
use atoll_storage::{Carries, StreamId, Vector};
use atoll_sync::bundle::{self, Error, Order, Tells, Volume, Volumes};
use atoll_sync::key::NodeKey;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor};

struct Shelf(Vec<Vec<u8>>);

impl Volumes for Shelf {
    type File = Vec<u8>;
    fn begin(&mut self, _: u32) -> io::Result<Vec<u8>> {
        Ok(vec![])
    }
    fn end(&mut self, _: u32, file: Vec<u8>) -> io::Result<()> {
        self.0.push(file);
        Ok(())
    }
}

/// From one node to another, at once.
pub fn carry(world: &mut World) -> Result<(), String> {
    let from = world.rng.below(world.nodes.len());
    let to =
        (from + world.rng.between(1, world.nodes.len() as u64 - 1) as usize) % world.nodes.len();
    if world.plan.revokes && removal::is_between(world, from, to)? {
        return Ok(());
    }
    let known = if world.rng.percent(30) { BTreeMap::new() } else { stale(world, to)? };
    let carries = world.nodes[to].with_replica(|replica| replica.carries());
    let volumes = made(world, from, known, &carries)?;
    for mut bytes in volumes {
        let is_damaged = world.rng.percent(50) && damage(world, &mut bytes);
        for _ in 0..world.rng.between(1, 2) {
            take(world, to, &bytes, is_damaged)?;
        }
    }
    world.say(|| format!("{from} sends {to} a bundle"));
    world.committed(to)
}

/// The receiver's vectors, or some that it had before.
fn stale(world: &mut World, to: usize) -> Result<BTreeMap<StreamId, Vector>, String> {
    let mut known = world.nodes[to].vectors().map_err(|error| error.to_string())?;
    for vector in known.values_mut() {
        if world.rng.percent(40) {
            vector.0.values_mut().for_each(|seq| *seq = seq.saturating_sub(world.rng.number() % 5));
        }
    }
    Ok(known)
}

fn made(
    world: &mut World,
    from: usize,
    known: BTreeMap<StreamId, Vector>,
    carries: &Carries,
) -> Result<Vec<Vec<u8>>, String> {
    let key = NodeKey::generate().map_err(|error| error.to_string())?;
    let order = Order {
        known,
        carries: &|stream| carries.carries(stream),
        recipients: vec![],
        whole: BTreeSet::new(),
        tells: Tells::Has,
        lacks: &[],
        files: None,
        volume_bytes: bundle::MIN_VOLUME_BYTES,
        batch_ops: world.plan.batch_ops,
        snapshot_from_ops: world.plan.snapshot_from_ops,
        name: "simulated",
        now_ms: world.now(),
    };
    let mut shelf = Shelf(vec![]);
    world.nodes[from]
        .with_replica(|replica| bundle::export(replica, &key, &order, &mut shelf, |_, _| {}))
        .map_err(|error| format!("a bundle could not be made: {error}"))?;
    Ok(shelf.0)
}

fn damage(world: &mut World, bytes: &mut Vec<u8>) -> bool {
    if world.rng.percent(50) {
        bytes.truncate(world.rng.below(bytes.len()));
    } else {
        for _ in 0..world.rng.between(1, 3) {
            let at = world.rng.below(bytes.len());
            bytes[at] ^= 1 << world.rng.below(8);
        }
    }
    true
}

fn take(world: &mut World, to: usize, bytes: &[u8], is_damaged: bool) -> Result<(), String> {
    let volume = match Volume::open(Cursor::new(bytes.to_vec())) {
        Ok(volume) => volume,
        Err(Error::NoBundle | Error::Newer(_)) if is_damaged => return Ok(()),
        Err(error) => return Err(format!("a bundle could not be opened: {error}")),
    };
    let had = world.nodes[to].vectors().map_err(|error| error.to_string())?;
    let node = &mut world.nodes[to];
    node.look_at_clock();
    let report =
        node.with_replica(|replica| bundle::import(Some(replica), None, vec![volume], |_, _| {}));
    if world.removal.is_some() {
        removal::acknowledge(world, to, &had)?;
    }
    match report {
        Ok(report) if !is_damaged && (!report.damaged.is_empty() || report.of_parts.is_none()) => {
            Err(format!("a sound bundle was not read whole: {report:?}"))
        }
        Ok(report) => {
            let counted = if report.damaged.is_empty() {
                &mut world.outcome.bundles
            } else {
                &mut world.outcome.damaged_bundles
            };
            *counted += 1;
            Ok(())
        }
        Err(error) if error.is_full() && world.nodes[to].is_full() => {
            world.outcome.refused_full += 1;
            Ok(())
        }
        Err(error) => Err(format!("a bundle could not be taken in: {error}")),
    }
}
