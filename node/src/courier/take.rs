//! Bundles taken in, and checked: one after the other, each by its own maker, who counts only if he is a peer of this node;
//! whoever carried it is not asked. What cannot be taken is told, and stops nothing else.

use super::{may_now, refused, shelf};
use crate::access::{Actor, Permission};
use crate::blob::carried;
use crate::error::{Error, Result};
use crate::peer::grant;
use crate::peer::revocation::is_revoked;
use crate::runtime::Node;
use atoll_storage::courier::{self, Correspondent};
use atoll_storage::tx::Tx;
use atoll_storage::{NodeId, codec, peer};
use atoll_sync::bundle::{self, BundleKey, Head, Landing, Report, Volume};
use atoll_sync::guard::Guarded;
use atoll_sync::key::PublicKey;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Volumes that are read in one go.
const MAX_VOLUMES: usize = 1_000;
/// Reasons in one sentence; all of them are in an [`Outcome`].
const MAX_REASONS: usize = 10;
const UNREADABLE: &str = "unreadable";

/// A bundle, or as much of one as the files given are.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub bundle: String,
    pub volumes: Vec<u32>,
    pub made_by: String,
    pub maker: String,
    /// Whether the maker is a peer of this node.
    pub is_known: bool,
    /// For this node among others: one that is not for it is passed over.
    pub is_locked: bool,
    pub made_ms: u64,
    #[serde(flatten)]
    pub report: Report,
    pub is_whole: bool,
}

/// A file that is no volume, or that the disk did not give, with the reason.
#[derive(Clone, Debug, Serialize)]
pub struct Unread {
    pub file: String,
    pub why: String,
}

/// A bundle that is none of this node's business: locked for others, or by a maker of whom this node takes nothing.
#[derive(Clone, Debug, Serialize)]
pub struct PassedOver {
    pub bundle: String,
    pub files: Vec<String>,
    pub made_by: String,
    pub maker: String,
    pub made_ms: u64,
    /// As of an error that it would be alone.
    pub code: &'static str,
    pub why: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    pub bundles: Vec<Seen>,
    pub unread: Vec<Unread>,
    pub passed_over: Vec<PassedOver>,
}

/// What the files hold, all parts checked and nothing taken in. Parts that are locked for others are checked and not read. For a thread that may wait.
///
/// # Errors
/// As of [`import`], but the maker does not matter.
pub fn verify(
    node: &Node,
    actor: &Actor,
    files: &[PathBuf],
    progress: impl FnMut(u64, u64),
) -> Result<Outcome> {
    actor.require(Permission::SyncAdminister)?;
    let mine = BundleKey::of(node.key()).map_err(refused)?;
    each_bundle(node, files, progress, |_, _, mut volumes, progress| {
        unlock_if_ours(&mut volumes, &mine).map_err(refused)?;
        bundle::import(None, None, volumes, progress).map_err(unreadable)
    })
}

/// Takes in what the files hold. What is damaged or missing is told and the rest counts; to give the same files again does
/// no harm. For a thread that may wait.
///
/// # Errors
/// `Store(Full)` if the disk is full: what was taken in until then stays. If none of the bundles may be taken in, `Conflict` with the
/// reason (`unknown_maker`, `not_for_this_node`, `grant_withdrawn`, `grant_expired`), or `nothing_taken` if there are several.
pub fn import(
    node: &Node,
    actor: &Actor,
    files: &[PathBuf],
    progress: impl FnMut(u64, u64),
) -> Result<Outcome> {
    actor.require(Permission::SyncAdminister)?;
    each_bundle(node, files, progress, take)
}

fn take(
    node: &Node,
    head: &Head,
    volumes: Volumes,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report> {
    let volumes = unlock(node, head, volumes)?;
    if !is_peer(node, head)? {
        let (name, key) = (head.name.clone(), head.creator);
        return Err(refused(bundle::Error::Stranger { name, key }));
    }
    let maker = head.creator.node_id();
    let rights = may_now(node, maker)?;
    let mut store = node.store.clone();
    let mut guarded = Guarded::new(&mut store, maker, rights);
    let mut admit = |blob: &_, size_bytes, coming| carried::admit(node, blob, size_bytes, coming);
    let mut landing = Landing::new(&node.blobs, &mut admit);
    let report = bundle::import(Some(&mut guarded), Some(&mut landing), volumes, progress);
    carried::note_here(node, landing.came())?;
    if landing.is_full() {
        node.exchange.look_for_room();
    }
    let report = report.map_err(unreadable)?;
    if guarded.refused_ops + guarded.refused_records > 0 {
        let (ops, records) = (guarded.refused_ops, guarded.refused_records);
        tracing::warn!(node = %maker, ops, records, "the maker of a bundle may not write all of it here: that was left");
    }
    note(node, head, &report)?;
    Ok(report)
}

pub(super) type Volumes = Vec<Volume<BufReader<File>>>;
/// What volumes of one bundle have in common, by age. The maker is part of it: the rest of a head is in clear, and whoever
/// likes signs a volume that says the same.
type Which = (u64, PublicKey, [u8; 16]);

/// The volumes of one bundle, and where they lie.
pub(super) struct Group {
    pub head: Head,
    pub volumes: Volumes,
    pub files: Vec<String>,
}

impl Group {
    fn size_bytes(&self) -> u64 {
        self.volumes.iter().map(|volume| volume.progress().1).sum()
    }
}

fn each_bundle(
    node: &Node,
    files: &[PathBuf],
    mut progress: impl FnMut(u64, u64),
    mut take: impl FnMut(&Node, &Head, Volumes, &mut dyn FnMut(u64, u64)) -> Result<Report>,
) -> Result<Outcome> {
    let (bundles, unread) = grouped(files)?;
    let mut outcome = Outcome { unread, ..Outcome::default() };
    let (mut before, of) = (0, bundles.iter().map(Group::size_bytes).sum());
    for mut group in bundles {
        let size_bytes = group.size_bytes();
        let numbers = group.volumes.iter().map(|volume| volume.head().volume).collect();
        let volumes = std::mem::take(&mut group.volumes);
        let taken = take(node, &group.head, volumes, &mut |done, _| progress(before + done, of));
        grant::catch_up(node)?;
        before += size_bytes;
        match taken {
            Ok(report) => outcome.bundles.push(seen(node, group.head, numbers, report)?),
            Err(Error::Conflict { code: UNREADABLE, message }) => {
                let unread = |file| Unread { file, why: message.clone() };
                outcome.unread.extend(group.files.into_iter().map(unread));
            }
            Err(Error::Conflict { code, message }) => {
                outcome.passed_over.push(passed_over(group, code, message));
            }
            Err(error) => return Err(error),
        }
    }
    if outcome.bundles.is_empty() { Err(nothing(outcome)) } else { Ok(outcome) }
}

/// The bundles that the files are of, the oldest first: a later one builds on it. Files that are none are told.
pub(super) fn grouped(files: &[PathBuf]) -> Result<(Vec<Group>, Vec<Unread>)> {
    let mut bundles: BTreeMap<Which, Group> = BTreeMap::new();
    let mut unread = Vec::new();
    for path in &shelf::all(files, MAX_VOLUMES)? {
        let file = path.display().to_string();
        match open(path) {
            Ok(volume) => {
                let head = volume.head().clone();
                let slot = bundles.entry((head.made_ms, head.creator, head.bundle));
                let group = slot.or_insert_with(|| Group { head, volumes: vec![], files: vec![] });
                group.volumes.push(volume);
                group.files.push(file);
            }
            Err(error) => unread.push(Unread { file, why: error.to_string() }),
        }
    }
    Ok((bundles.into_values().collect(), unread))
}

fn open(path: &Path) -> Result<Volume<BufReader<File>>, bundle::Error> {
    let file = File::open(path)?;
    Volume::open(BufReader::with_capacity(1 << 16, file))
}

fn unlock(node: &Node, head: &Head, mut volumes: Volumes) -> Result<Volumes> {
    let mine = BundleKey::of(node.key()).map_err(refused)?;
    match volumes.iter_mut().try_for_each(|volume| volume.unlock(&mine)) {
        Ok(()) => Ok(volumes),
        // It lies on the stick that it is carried on, and whoever made it knows what is in it.
        Err(bundle::Error::NotForMe { .. }) if head.creator == node.key().public() => {
            let readers = names(node, &head.readers().unwrap_or_default())?;
            let message = format!("this node made it itself, locked for {}", readers.join(", "));
            Err(Error::conflict("not_for_this_node", message))
        }
        Err(error) => Err(refused(error)),
    }
}

/// Leaves locked what is for others.
pub(super) fn unlock_if_ours(volumes: &mut Volumes, mine: &BundleKey) -> Result<(), bundle::Error> {
    for volume in volumes {
        match volume.unlock(mine) {
            Ok(()) | Err(bundle::Error::NotForMe { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// As this node calls them; by id those that it does not know.
pub(super) fn names(node: &Node, nodes: &[NodeId]) -> Result<Vec<String>> {
    let name = |one: &NodeId| {
        let peer = node.store.read(|reader| peer::find(reader, *one))?;
        Ok(peer.map_or_else(|| one.to_string(), |peer| peer.name))
    };
    nodes.iter().map(name).collect()
}

pub(super) fn name_of(bundle: [u8; 16]) -> String {
    bundle.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seen(node: &Node, head: Head, volumes: Vec<u32>, report: Report) -> Result<Seen> {
    Ok(Seen {
        bundle: name_of(head.bundle),
        volumes,
        is_known: is_peer(node, &head)?,
        made_by: head.name,
        maker: head.creator.to_string(),
        is_locked: !head.sealed.is_empty(),
        made_ms: head.made_ms,
        is_whole: report.is_whole(),
        report,
    })
}

fn passed_over(group: Group, code: &'static str, why: String) -> PassedOver {
    let Group { head, files, .. } = group;
    let (maker, made_ms) = (head.creator.to_string(), head.made_ms);
    PassedOver {
        bundle: name_of(head.bundle),
        files,
        made_by: head.name,
        maker,
        made_ms,
        code,
        why,
    }
}

/// Why nothing at all was taken.
fn nothing(outcome: Outcome) -> Error {
    let Outcome { unread, mut passed_over, .. } = outcome;
    if passed_over.len() == 1 && unread.is_empty() {
        let PassedOver { code, why, .. } = passed_over.remove(0);
        return Error::conflict(code, why);
    }
    // Where the only file lies is known to whoever named it, and nobody else's business.
    if let ([], [one]) = (&passed_over[..], &unread[..]) {
        return Error::field("files", "no_bundle", one.why.clone());
    }
    let told = passed_over.iter().map(|one| (one.files.join(", "), &one.why));
    let told = told.chain(unread.iter().map(|one| (one.file.clone(), &one.why)));
    let reasons: Vec<String> =
        told.take(MAX_REASONS).map(|(file, why)| format!("{file}: {why}")).collect();
    let left = (passed_over.len() + unread.len()).saturating_sub(MAX_REASONS);
    let more = if left > 0 { format!("; and {left} more") } else { String::new() };
    let reasons = format!("{}{more}", reasons.join("; "));
    match (&passed_over[..], &unread[..]) {
        ([], []) => Error::field("files", "no_bundle", "there is no volume among them"),
        ([], _) => Error::field("files", "no_bundle", reasons),
        _ => Error::conflict("nothing_taken", format!("nothing here is for this node: {reasons}")),
    }
}

/// As [`refused`], but a volume that the disk stops giving is no fault of the node's.
fn unreadable(error: bundle::Error) -> Error {
    match error {
        bundle::Error::Io(error) => {
            let message = format!("reading it failed ({error}): what was read before counts");
            Error::conflict(UNREADABLE, message)
        }
        other => refused(other),
    }
}

/// This node itself, or a peer that is listed.
pub(super) fn is_peer(node: &Node, head: &Head) -> Result<bool> {
    if head.creator == node.key().public() {
        return Ok(true);
    }
    let maker = head.creator.node_id();
    let listed = node.store.read(|reader| peer::find(reader, maker))?;
    let is_listed = listed.is_some_and(|peer| peer.removed_ms.is_none());
    Ok(is_listed && !node.store.read(|reader| is_revoked(reader, maker))?)
}

/// What the maker has, for the bundle that goes back to it.
fn note(node: &Node, head: &Head, report: &Report) -> Result<()> {
    let Some(want) = &report.want else { return Ok(()) };
    if head.creator == node.key().public() {
        return Ok(());
    }
    let correspondent = Correspondent {
        node: head.creator.node_id(),
        has: want.iter().cloned().collect(),
        carries: report.carries.clone().unwrap_or_default(),
        bundle_key: head.reply_key,
        lacks: if report.lacks.is_empty() { vec![] } else { codec::encode(&report.lacks) },
        made_ms: head.made_ms,
        heard_ms: node.clock.now_ms(),
    };
    Ok(node.store.write_blocking(move |tx: &mut Tx| courier::note(tx, &correspondent))?)
}
