//! Files that records name, and that come by the bucket: who has which, what each node wants of them by its settings, and what must
//! be true of that in the end. Draws from numbers of its own, so that all else of a seed stays what it is.

use super::act::{self, acknowledged};
use super::node::Node;
use super::plan::Plan;
use super::world::World;
use crate::kinds::{BADGE, MARK, MEMBER, PICTURE, PORTRAIT};
use crate::rng::Rng;
use atoll_node::blob::policy::Policy;
use atoll_node::config::{self, Policies};
use atoll_storage::blob::{BlobId, Blobs, Verified};
use atoll_storage::{Changes, reference};
use atoll_sync::bundle::Share;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

/// What somebody asked for is asked for in buckets for so long.
const ASKED_MS: u64 = 30 * 24 * 3_600_000;
/// About what one parcel takes at most.
const A_PARCEL: u64 = 3 << 20;
/// Beyond these, only records change.
const MAX_FILES: usize = 25;
const MAX_LARGE: usize = 2;

type Outcome = Result<(), String>;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub struct Files {
    dice: Rng,
    dir: TempDir,
    /// Every one that was ever made, with its size.
    made: BTreeMap<BlobId, u64>,
    has_large: bool,
    large: usize,
}

/// A node's files, and what it does with them. A second process on a copy of its disk has the same.
pub struct Shelf {
    pub blobs: Blobs,
    pub settings: config::Blobs,
    dir: PathBuf,
}

impl Shelf {
    /// As if the process had ended.
    pub fn reopen(&mut self) -> Outcome {
        self.blobs = Blobs::open(&self.dir).map_err(text)?;
        Ok(())
    }

    /// What the quota leaves.
    pub fn room_bytes(&self) -> u64 {
        match self.settings.quota_bytes {
            0 => u64::MAX,
            quota => quota.saturating_sub(self.blobs.total_bytes().unwrap_or(quota)),
        }
    }
}

impl Files {
    pub fn new(dir: TempDir, seed: u64, plan: &Plan) -> Result<Self, String> {
        let dice = Rng::new(seed.rotate_left(19));
        Ok(Self { dice, dir, made: BTreeMap::new(), has_large: plan.large_files, large: 0 })
    }

    /// Of a new node.
    pub fn shelf(&mut self, number: usize) -> Result<Shelf, String> {
        let dir = self.dir.path().join(number.to_string());
        let dice = &mut self.dice;
        let mut policies = vec![];
        for scope in ["identity", "content"] {
            if dice.percent(20) {
                policies.push((scope.to_owned(), dice.pick(&Policy::ALL)));
            }
        }
        let settings = config::Blobs {
            policy: Policies(policies),
            eager_bytes: dice.pick(&[1 << 20, 1 << 20, 30_000, 1 << 30]),
            quota_bytes: if dice.percent(20) { dice.between(20_000, 3_000_000) } else { 0 },
            keep_free_bytes: 0,
            wait_s: 0,
        };
        Ok(Shelf { blobs: Blobs::open(&dir).map_err(text)?, settings, dir })
    }

    /// Few bytes or many, or those of another file.
    fn content(&mut self) -> Vec<u8> {
        let dice = &mut self.dice;
        if dice.percent(10) {
            return b"the same picture".repeat(1 + dice.below(3));
        }
        let size = match dice.below(100) {
            0..3 => 0,
            3..55 => dice.between(1, 20_000),
            55..85 => dice.between(20_001, 300_000),
            _ if self.has_large && self.large < MAX_LARGE => {
                self.large += 1;
                dice.between(3 << 20, 7 << 20)
            }
            _ => dice.between(1, 64),
        };
        let numbers = (0..size.div_ceil(8)).map(|_| dice.number().to_le_bytes());
        let mut bytes: Vec<u8> = numbers.flatten().collect();
        bytes.truncate(size as usize);
        bytes
    }
}

/// Called every beat.
pub fn strike(world: &mut World) -> Outcome {
    let Some(mut files) = world.files.take() else { return Ok(()) };
    std::mem::swap(&mut world.rng, &mut files.dice);
    let node = world.rng.below(world.nodes.len());
    let mut written = false;
    let done = match world.rng.below(100) {
        0..14 => {
            written = true;
            std::mem::swap(&mut world.rng, &mut files.dice);
            let id = chosen(world, &mut files, node);
            std::mem::swap(&mut world.rng, &mut files.dice);
            id.and_then(|id| acknowledged(world, node, |world, node| name(world, node, id)))
        }
        14..18 => ask(world, &files, node),
        18..20 => lose(world, &files, node),
        _ => Ok(()),
    };
    std::mem::swap(&mut world.rng, &mut files.dice);
    world.files = Some(files);
    done?;
    if written { world.committed(node) } else { Ok(()) }
}

/// A file that is new on this node, or one that is known and may be elsewhere.
fn chosen(world: &World, files: &mut Files, node: usize) -> Result<BlobId, String> {
    let known: Vec<BlobId> = files.made.keys().copied().collect();
    if known.len() >= MAX_FILES || (!known.is_empty() && files.dice.percent(10)) {
        return Ok(files.dice.pick(&known));
    }
    let shelf = world.nodes[node].shelf.as_ref().ok_or("a node without files")?;
    let bytes = files.content();
    let id = shelf.blobs.put(&bytes).map_err(text)?;
    files.made.insert(id, bytes.len() as u64);
    world.say(|| format!("{node} has a file {id:?} of {} bytes", bytes.len()));
    Ok(id)
}

/// A record that is new, or that had another file.
fn name(world: &mut World, node: usize, id: BlobId) -> act::Outcome {
    let is_old = world.nodes[node].is_old();
    let (kind, field) =
        if is_old || world.rng.percent(40) { (&MEMBER, PORTRAIT) } else { (&BADGE, PICTURE) };
    let changes = Changes::new().set(&field, id.to_string());
    match act::alive(world, node, kind) {
        Ok((_, key)) if world.rng.percent(40) => act::edit(world, node, kind, key, changes),
        _ if kind.code == BADGE.code => act::create(world, node, kind, changes.set(&MARK, "seen")),
        _ => act::create(world, node, kind, changes),
    }
}

/// Somebody asks a node for a file, which it has not.
fn ask(world: &mut World, files: &Files, node: usize) -> Outcome {
    let known: Vec<BlobId> = files.made.keys().copied().collect();
    let node = &mut world.nodes[node];
    let is_here = |id: &BlobId| node.shelf.as_ref().is_some_and(|s| s.blobs.path(id).is_some());
    let away: Vec<BlobId> = known.into_iter().filter(|id| !is_here(id)).collect();
    if away.is_empty() || node.is_full() {
        return Ok(());
    }
    let id = world.rng.pick(&away);
    node.db.transact(|tx| reference::note_asked(tx, &id)).map_err(text)
}

/// A file goes from a node's disk, which sees so when it starts the next time.
fn lose(world: &mut World, files: &Files, node: usize) -> Outcome {
    let known: Vec<BlobId> = files.made.keys().copied().collect();
    // The one of two that run on copies of a disk would not know.
    if known.is_empty() || world.nodes[node].is_full() || world.plan.twins {
        return Ok(());
    }
    let id = world.rng.pick(&known);
    let Some(shelf) = &world.nodes[node].shelf else { return Ok(()) };
    if shelf.blobs.remove(&id).map_err(text)? {
        world.outcome.lost_files += 1;
        world.say(|| format!("{node} has lost the file {id:?}"));
    }
    world.nodes[node].look_at_files()
}

/// Whether a node's settings, or somebody who asked, want a file of this size.
fn is_wanted(node: &Node, id: &BlobId, size_bytes: u64) -> Result<bool, String> {
    let Some(shelf) = &node.shelf else { return Ok(false) };
    let reader = node.db.reader();
    let scopes = reference::scopes_of(&reader, id).map_err(text)?;
    let policies: Vec<Option<Policy>> =
        scopes.iter().map(|scope| shelf.settings.policy.of(scope)).collect();
    let by_itself = policies.iter().any(|policy| match policy {
        Some(Policy::Pin | Policy::Eager) => true,
        Some(Policy::Lazy | Policy::Never) => false,
        None => size_bytes <= shelf.settings.eager_bytes,
    });
    let asked_ms = reference::asked_at(&reader, id).map_err(text)?;
    let is_asked = asked_ms.is_some_and(|ms| ms >= node.wall_ms().saturating_sub(ASKED_MS));
    let is_kept = policies.iter().any(|policy| *policy != Some(Policy::Never));
    let is_begun = shelf.blobs.partial_size(id).map_err(text)?.is_some();
    Ok(by_itself || (is_kept && (is_asked || is_begun)))
}

/// Who wants a file and can have it has it whole; what is somewhere is what its name says. Where the bucket's place for files is
/// taken by what somebody asks for and has no room for, others wait.
pub fn check(world: &World, parcels_bytes: u64) -> Outcome {
    let Some(files) = &world.files else { return Ok(()) };
    for node in &world.nodes {
        is_sound(node)?;
    }
    for (id, size_bytes) in &files.made {
        let mut naming = vec![];
        for node in &world.nodes {
            if reference::is_named(&node.db.reader(), id).map_err(text)? {
                naming.push(node);
            }
        }
        let has = |node: &Node| node.shelf.as_ref().is_some_and(|s| s.blobs.path(id).is_some());
        if !naming.iter().any(|node| has(node)) {
            continue;
        }
        for node in naming.iter().filter(|node| !has(node)) {
            let has_place = parcels_bytes + A_PARCEL <= world.plan.files_bytes;
            let has_room = node.shelf.as_ref().is_some_and(|s| *size_bytes <= s.room_bytes());
            if has_place && has_room && is_wanted(node, id, *size_bytes)? {
                return Err(format!(
                    "{} has no file {id} of {size_bytes} bytes, which others have",
                    node.number
                ));
            }
        }
    }
    Ok(())
}

/// Every file is what its name says.
fn is_sound(node: &Node) -> Outcome {
    let Some(shelf) = &node.shelf else { return Ok(()) };
    for blob in shelf.blobs.iter() {
        let (id, _) = blob.map_err(text)?;
        if shelf.blobs.verify(&id).map_err(text)? != Verified::Intact {
            return Err(format!("{} has a file {id} that is not what its name says", node.number));
        }
    }
    Ok(())
}

/// What a node left for others, records there name still.
pub fn are_named(node: &Node, shares: &[Share]) -> Outcome {
    for share in shares {
        if !reference::is_named(&node.db.reader(), &share.blob).map_err(text)? {
            return Err(format!("a file {} that no record names stays in a bucket", share.blob));
        }
    }
    Ok(())
}
