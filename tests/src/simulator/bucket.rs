//! A bucket where nodes meet that are not linked, or not always: real visits to a folder or to a store, one after the other or
//! several at once, of which some are broken off, while what lies there is cut, damaged, gone, doubled, back again, or listed late.

mod ground;
mod reached;
mod store;
mod turns;
mod visitor;

use super::files;
use super::nemesis;
use super::node::Node;
use super::oracle;
use super::plan::Plan;
use super::removal;
use super::world::World;
use crate::rng::Rng;
use atoll_node::bucket::{Found, Obstacle, Place as _, S3, Sizes, Trouble, make_visit};
use atoll_storage::bucket as kept;
use atoll_storage::{Error, NodeId};
use atoll_sync::bucket::ObjectName;
use atoll_sync::bundle::{BundleKey, Share, Volume};
use atoll_sync::key::NodeKey;
use ground::Ground;
use reached::{Break, Reached};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tempfile::TempDir;
use turns::Turns;
use visitor::Caller;
pub use visitor::{Held, Shared};

const NAME: &str = "bucket";
/// Nodes say again what they have after a day.
const A_DAY_MS: u64 = 25 * 3_600_000;
/// By so many rounds of visits all must be at rest, once all is equal; and where files come yet, which take several visits each.
const ROUNDS: usize = 8;
const ROUNDS_WITH_FILES: usize = 40;
/// Steps of a visit before which it is broken off; many have fewer.
const STEPS: u64 = 30;
const PANICKED: &str = "a visit panicked";

type Outcome = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub struct Bucket {
    ground: Ground,
    is_store: bool,
    /// Whoever can read it may come.
    is_open: bool,
    /// It seldom comes, so that much is left for it.
    rare: usize,
    next: usize,
}

impl Bucket {
    pub fn new(dir: TempDir, seed: u64, plan: &Plan) -> Result<Self, String> {
        let mut dice = Rng::new(seed.rotate_left(41));
        let (is_open, rare) = (dice.percent(25), dice.below(plan.nodes));
        let ground = Ground::new(dir, seed, plan.store_faults)?;
        Ok(Self { ground, is_store: plan.is_store, is_open, rare, next: 0 })
    }

    /// What a parcel holds, if its maker can still read it.
    fn shares(&self, maker: &Node, object: &str) -> Result<Option<Vec<Share>>, String> {
        let mut bytes = Vec::new();
        let is_there = self.ground.folder.get(object, u64::MAX, &mut bytes);
        let key = maker.key.as_ref().ok_or("a node without a key")?;
        let opened = Volume::open(Cursor::new(bytes)).ok().filter(|_| is_there.is_ok());
        let own = opened.filter(|volume| volume.head().creator.node_id() == maker.id());
        let Some(mut own) = own else { return Ok(None) };
        let read = own.unlock(&BundleKey::of(key).map_err(text)?).and_then(|()| own.contents());
        Ok(read.ok().flatten().map(|contents| contents.shares))
    }

    fn parcels_bytes(&self) -> Result<u64, String> {
        let is_parcel = |name: &str| matches!(ObjectName::parse(name), Some(ObjectName::Parcel(_)));
        let objects = self.ground.objects()?;
        let parcels = objects.iter().filter(|object| is_parcel(&object.name));
        Ok(parcels.map(|object| object.size_bytes).sum())
    }

    pub fn steps(&self) -> u64 {
        self.ground.steps()
    }

    pub fn break_at(&self, step: u64) {
        self.ground.break_at(step);
    }
}

/// Of a node that visits buckets: a bundle there is signed, and its node's id is that of the key.
pub fn key_of(seed: u64, number: usize) -> Result<NodeKey, String> {
    let mut dice = Rng::new(seed.rotate_left(7) ^ number as u64);
    let mut secret = [0; 32];
    secret.chunks_mut(8).for_each(|part| part.copy_from_slice(&dice.number().to_le_bytes()));
    NodeKey::of_secret(&secret).map_err(text)
}

/// Called every beat.
pub fn strike(world: &mut World) -> Outcome {
    let (now_ms, plan) = (world.now(), world.plan.clone());
    let Some(bucket) = &world.bucket else { return Ok(()) };
    bucket.ground.at(now_ms, if plan.bucket_lags { 25 } else { 0 });
    if plan.bucket_damage && world.rng.percent(4) {
        let what = bucket.ground.strike(&mut world.rng)?;
        world.outcome.struck_objects += 1;
        world.say(|| format!("the bucket {what}"));
    }
    let rare = bucket.rare;
    if world.rng.percent(plan.visits) {
        let most = if world.rng.percent(70) { 1 } else { world.nodes.len() };
        let mut visitors = BTreeSet::new();
        for _ in 0..most {
            let node = world.rng.below(world.nodes.len());
            let comes = node != rare || world.rng.percent(12);
            if comes && !world.nodes[node].is_away {
                visitors.insert(node);
            }
        }
        visit(world, &visitors, plan.broken_visits)?;
    }
    Ok(())
}

/// From here on the bucket is as it should be.
pub fn heal(world: &mut World) {
    let Some(bucket) = &world.bucket else { return };
    bucket.ground.calm();
    if world.plan.bucket_damage || world.plan.clocks {
        // What a node has said, and what is damaged now, it says again by then.
        world.now_ms.fetch_add(A_DAY_MS, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The next one comes, while all is healed.
pub fn visit_next(world: &mut World) -> Outcome {
    let Some(bucket) = &mut world.bucket else { return Ok(()) };
    let node = bucket.next % world.nodes.len();
    bucket.next = node + 1;
    visit(world, &BTreeSet::from([node]), 0).map(|_| ())
}

/// Nodes that are equal leave nothing for each other, and what they left before goes. Those that can have files have them.
pub fn check(world: &mut World) -> Outcome {
    if world.bucket.is_none() {
        return Ok(());
    }
    let mut found = vec![];
    let is_at_rest = |found: &Found| {
        found.taken + found.left + found.removed + found.files_taken + found.parcels_left == 0
    };
    // In the first round at rest some may still say what they ask for, after those came who have it.
    let mut rounds_at_rest = 0;
    for _ in 0..if world.plan.files { ROUNDS_WITH_FILES } else { ROUNDS } {
        found.clear();
        for node in 0..world.nodes.len() {
            found.extend(visit(world, &BTreeSet::from([node]), 0)?);
        }
        let is_quiet = found.iter().all(is_at_rest);
        rounds_at_rest = if is_quiet { rounds_at_rest + 1 } else { 0 };
        if rounds_at_rest == 2 {
            break;
        }
    }
    if !found.iter().all(is_at_rest) {
        return Err(format!("visits of equal nodes do not come to rest: {found:#?}"));
    }
    if !oracle::roots_are_equal(world)? {
        return Err("equal nodes are not equal after they visited a bucket".into());
    }
    let parcels_bytes = world.bucket.as_ref().map_or(Ok(0), Bucket::parcels_bytes)?;
    files::check(world, parcels_bytes)?;
    let is_open = world.bucket.as_ref().is_some_and(|bucket| bucket.is_open);
    // A life that was set back may have left what builds on something that nobody has any more.
    let is_odd = is_open || world.plan.bucket_damage || oracle::is_set_back(world);
    let is_plain = !is_odd && world.removal.is_none();
    let is_needed = found.iter().any(|found| found.files_asked > 0);
    let is_much = |found: &&Found| is_plain && !is_needed && found.own_objects != 1;
    if let Some(much) = found.iter().find(is_much) {
        return Err(format!("what nobody needs stays in a bucket: {much:#?}"));
    }
    if let Some(waits) = found.iter().find(|found| is_plain && found.waiting > 0) {
        return Err(format!("an equal node waits for something: {waits:#?}"));
    }
    only_what_is_needed_stays(world, &found)
}

/// Of what has to do with files. What is damaged or stands under the name of another is nobody's; a node of the old release does
/// not hear that one was removed, and keeps what that one asked for.
fn only_what_is_needed_stays(world: &World, found: &[Found]) -> Outcome {
    let Some(bucket) = world.bucket.as_ref().filter(|_| world.plan.files) else { return Ok(()) };
    let is_needed = found.iter().any(|found| found.files_asked > 0);
    let mut asking = BTreeSet::new();
    for object in bucket.ground.objects()? {
        let Some(name) = ObjectName::parse(&object.name) else { continue };
        let is_maker = |node: &Node| node.id() == name.node();
        let Some(number) = world.nodes.iter().position(is_maker) else { continue };
        let (maker, found) = (&world.nodes[number], &found[number]);
        match name {
            ObjectName::Lacks(_) if found.files_asked == 0 || !asking.insert(name.node()) => {
                return Err(format!(
                    "{} asks for nothing any more in {}",
                    maker.number, object.name
                ));
            }
            ObjectName::Parcel(_) => {
                let shares = bucket.shares(maker, &object.name)?;
                let Some(shares) = shares else { continue };
                let serves_a_removed_one =
                    world.removal.is_some() && !removal::has_heard(world, number)?;
                if !is_needed && !serves_a_removed_one {
                    return Err(format!("the parcel {} stays that nobody needs", object.name));
                }
                files::are_named(maker, &shares)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// These nodes visit the bucket at once, each from its first step to its last or to where it is broken off. What those found
/// that came to the end.
fn visit(
    world: &mut World,
    visitors: &BTreeSet<usize>,
    broken_percent: u64,
) -> Result<Vec<Found>, String> {
    let mut there = BTreeSet::new();
    for node in visitors {
        world.nodes[*node].look_at_clock();
        if know(world, *node)? {
            there.insert(*node);
        }
    }
    let mut had = vec![];
    for node in &there {
        let vectors = world.nodes[*node].vectors().map_err(text)?;
        had.push((*node, vectors, world.nodes[*node].log_end()));
    }
    let results = meet(world, &there, broken_percent)?;
    let mut all = vec![];
    world.outcome.visits += there.len() as u64;
    world.outcome.visits_at_once += u64::from(there.len() > 1);
    for ((node, had, log_end), ended) in had.into_iter().zip(results) {
        let Ended { result, is_broken, failed } = ended;
        world.outcome.failed_requests += failed;
        world.say(|| format!("{node} visits the bucket: {}", told(&result)));
        if world.removal.is_some() {
            removal::acknowledge(world, node, &had)?;
        }
        match result {
            Ok(found) => {
                world.outcome.taken_bundles += found.taken;
                world.outcome.merged_bundles += found.merged;
                world.outcome.left_states += found.repairs;
                world.outcome.taken_files += found.files_taken;
                world.outcome.left_parcels += found.parcels_left;
                refused_nothing_sound(world, &found)?;
                all.push(found);
            }
            Err(trouble) if is_broken || (failed > 0 && trouble.obstacle.can_pass()) => {
                world.outcome.broken_visits += 1;
            }
            Err(trouble)
                if trouble.obstacle == Obstacle::FullHere && world.nodes[node].is_full() =>
            {
                world.outcome.refused_full += 1;
            }
            Err(trouble) => return Err(format!("{node} cannot visit a bucket: {trouble:?}")),
        }
        if (is_broken || failed > 0) && world.plan.kills && world.rng.percent(50) {
            nemesis::kill(world, node)?;
        }
        if world.nodes[node].log_end() != log_end {
            world.committed(node)?;
        }
    }
    Ok(all)
}

fn told(result: &Result<Found, Trouble>) -> String {
    match result {
        Ok(found) => {
            let Found { taken, left, repairs, removed, merged, waiting, refused, .. } = found;
            let Found { files_asked, files_taken, files_left_out, parcels_left, .. } = found;
            format!(
                "{taken} taken, {left} left ({repairs} states), {removed} removed, {merged} merged, {waiting} wait, {refused:?}; \
                 {files_asked} files asked for, {files_taken} taken, not {files_left_out:?}, {parcels_left} parcels left"
            )
        }
        Err(trouble) => trouble.message.clone(),
    }
}

/// Whether the node has the bucket in its list: one that was set back may not have it any more.
fn know(world: &mut World, node: usize) -> Result<bool, String> {
    let is_open = world.bucket.as_ref().is_some_and(|bucket| bucket.is_open);
    let node = &mut world.nodes[node];
    if kept::find(&node.db.reader(), NAME).map_err(text)?.is_some() {
        return Ok(true);
    }
    let added = node.db.transact(|tx| kept::add(tx, NAME, "file:///simulated", b"{}", is_open));
    match added {
        Ok(()) => Ok(true),
        Err(Error::Full) if node.is_full() => Ok(false),
        Err(error) => Err(text(error)),
    }
}

/// How a visit ended.
struct Ended {
    result: Result<Found, Trouble>,
    is_broken: bool,
    /// Requests that the store failed.
    failed: u64,
}

fn meet(
    world: &mut World,
    there: &BTreeSet<usize>,
    broken_percent: u64,
) -> Result<Vec<Ended>, String> {
    let breaks: Vec<Option<Break>> = there
        .iter()
        .map(|_| {
            world
                .rng
                .percent(broken_percent)
                .then(|| Break { step: world.rng.number() % STEPS, is_done: world.rng.percent(50) })
        })
        .collect();
    let dice: Vec<u64> = there.iter().map(|_| world.rng.number()).collect();
    let turns = Turns::new(there.len(), Rng::new(world.rng.number()));
    let Plan { batch_ops, snapshot_from_ops, files_bytes, visit_bytes, .. } = world.plan;
    let sizes = Sizes { batch_ops, snapshot_from_ops, files_bytes, visit_bytes };
    let removed = world.removal.as_ref().map(|removal| removal.node);
    let mut ids: BTreeSet<NodeId> = world.nodes.iter().map(Node::id).collect();
    ids.extend(removed);
    let Some(bucket) = &world.bucket else { return Ok(vec![]) };
    let nodes = world.nodes.iter_mut().enumerate().filter(|(node, _)| there.contains(node));
    let mut callers = vec![];
    for ((number, node), (breaks, dice)) in nodes.zip(breaks.into_iter().zip(dice)) {
        let key = node.key.clone().ok_or("a node without a key")?;
        let me = key.node_id();
        let others = ids.iter().copied().filter(|id| *id != me).collect();
        let (now_ms, skew_ms) = node.time();
        let (chunk_records, is_full) = (node.chunk_records, node.is_full());
        callers.push(Caller {
            number,
            db: &mut node.db,
            shelf: node.shelf.as_ref(),
            is_full,
            chunk_records,
            key,
            now_ms,
            skew_ms,
            others,
            removed,
            sizes,
            dice,
            breaks,
        });
    }
    let one = |caller| call(bucket, &turns, caller);
    if callers.len() < 2 {
        return callers.into_iter().map(one).collect();
    }
    std::thread::scope(|scope| {
        let threads = callers.into_iter().map(|caller| scope.spawn(|| one(caller)));
        let threads: Vec<_> = threads.collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|ended| ended.unwrap_or_else(|_| Err(PANICKED.into()))).collect()
    })
}

/// One visit, among those that are there at once.
fn call(bucket: &Bucket, turns: &Turns, caller: Caller<'_>) -> Result<Ended, String> {
    let ground = &bucket.ground;
    let reached = Reached {
        ground,
        turns,
        number: caller.number,
        me: caller.key.node_id(),
        breaks: caller.breaks,
        steps: Cell::new(0),
        is_broken: Cell::new(false),
        failed: Cell::new(0),
    };
    let go = || {
        let guest = caller.visitor(ground.path());
        let known = guest.bucket(NAME)?.ok_or(Error::Missing("bucket"))?;
        if !bucket.is_store {
            return make_visit(&guest, &known, &reached);
        }
        let clock = guest.clock().clone();
        let store = S3::new(store::access(), store::BUCKET, store::PREFIX, clock, &reached)?;
        make_visit(&guest, &known, &store)
    };
    let done = catch_unwind(AssertUnwindSafe(go));
    turns.leave();
    match done {
        Ok(result) => {
            Ok(Ended { result, is_broken: reached.is_broken.get(), failed: reached.failed.get() })
        }
        Err(panic) => {
            Err(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| PANICKED.into()))
        }
    }
}

/// Where nothing befell the bucket or a node's disk, a node could use all that the others left.
fn refused_nothing_sound(world: &World, found: &Found) -> Outcome {
    let plan = &world.plan;
    let is_odd = plan.bucket_damage || oracle::is_set_back(world) || plan.revokes;
    match found.refused.first() {
        Some((name, why)) if !is_odd => Err(format!("a sound object {name} is refused: {why}")),
        _ => Ok(()),
    }
}
