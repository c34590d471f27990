//! Bundles as people use them: made for a node that no network reaches, looked at, checked, taken in. What comes from a
//! bundle counts only if its maker is a peer of this node; whoever carried it is not asked.

mod job;
mod shelf;

pub(crate) use job::work;
pub use job::{QUEUE, file, import_upload, start_export};

use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::peer::revocation::is_revoked;
use crate::runtime::Node;
use atoll_storage::courier::{self, Correspondent};
use atoll_storage::tx::Tx;
use atoll_storage::{NodeId, Replica, StreamId, Vector, peer};
use atoll_sync::bundle::{self, BundleKey, Exported, Head, Recipient, Report, Tells, Volume};
use serde::{Deserialize, Serialize};
use shelf::Shelf;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Volumes that are read in one go.
const MAX_VOLUMES: usize = 1_000;

/// What to make a bundle of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// Peers by id, key or name. Without any it is for whoever comes, and holds everything.
    pub to: Vec<String>,
    /// Only they can read it.
    pub lock: bool,
    /// Nothing but what this node has, for others to make a bundle from.
    pub want_only: bool,
    /// A volume is at most this long; none: 2 GiB.
    pub volume_mib: Option<u64>,
}

/// A bundle that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Names of the volumes' files, in their order.
    pub files: Vec<String>,
    pub parts: u32,
    pub bytes: u64,
    pub ops: u64,
    /// Records that went as snapshots.
    pub records: u64,
    /// For whom it is: ids of nodes.
    pub to: Vec<String>,
}

/// A bundle, or as much of one as the files given are.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub bundle: String,
    pub volumes: Vec<u32>,
    pub made_by: String,
    pub maker: String,
    /// Whether the maker is a peer of this node.
    pub is_known: bool,
    /// For this node among others: one that is not for it is refused.
    pub is_locked: bool,
    pub made_ms: u64,
    #[serde(flatten)]
    pub report: Report,
    pub is_whole: bool,
}

/// A file that is no volume, with the reason.
#[derive(Clone, Debug, Serialize)]
pub struct Unread {
    pub file: String,
    pub why: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    pub bundles: Vec<Seen>,
    pub unread: Vec<Unread>,
}

/// Makes a bundle beside `to`, which names its first volume. For a thread that may wait.
///
/// # Errors
/// A field of `to` if a peer is not known, or cannot be locked for since no bundle of it was here yet.
pub fn export(
    node: &Node,
    actor: &Actor,
    order: &Order,
    to: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<Made> {
    actor.require(Permission::SyncAdminister)?;
    let receivers = receivers(node, &order.to)?;
    let known = known_to_all(&receivers);
    let recipients = if order.lock { recipients(&receivers)? } else { vec![] };
    let order = bundle::Order {
        known,
        carries: &|_| true,
        recipients,
        tells: if order.want_only { Tells::Wants { refused: &[] } } else { Tells::Has },
        volume_bytes: order
            .volume_mib
            .map_or(bundle::MAX_VOLUME_BYTES, |mib| mib.saturating_mul(1 << 20)),
        batch_ops: bundle::BATCH_OPS,
        snapshot_from_ops: bundle::SNAPSHOT_FROM_OPS,
        name: &node.config.name,
        now_ms: node.clock.now_ms(),
    };
    let mut shelf = Shelf::new(to)?;
    let mut store = node.store.clone();
    let done =
        bundle::export(&mut store, node.key(), &order, &mut shelf, progress).map_err(refused)?;
    let files = shelf.keep();
    let Exported { parts, bytes, ops, records, .. } = done;
    let to = receivers.iter().map(|(node, _)| node.to_string()).collect();
    Ok(Made { files, parts, bytes, ops, records, to })
}

type Receiver = (NodeId, Option<Correspondent>);

fn receivers(node: &Node, named: &[String]) -> Result<Vec<Receiver>> {
    named
        .iter()
        .map(|named| {
            let id = crate::peer::named(node, named).map_err(|error| match error {
                Error::NotFound(_) => {
                    let message = format!("no peer is called {named:?}: add it first");
                    Error::field("to", "unknown_peer", message)
                }
                other => other,
            })?;
            Ok((id, node.store.read(|reader| courier::find(reader, id))?))
        })
        .collect()
}

/// What all of them have.
fn known_to_all(receivers: &[Receiver]) -> BTreeMap<StreamId, Vector> {
    let has = |(_, heard): &Receiver| heard.as_ref().map(|heard| heard.has.clone());
    let all = receivers.iter().map(|receiver| has(receiver).unwrap_or_default());
    let least = |mut known: BTreeMap<StreamId, Vector>, other: BTreeMap<StreamId, Vector>| {
        known.retain(|stream, vector| match other.get(stream) {
            Some(other) => {
                *vector = vector.least(other);
                true
            }
            None => false,
        });
        known
    };
    all.reduce(least).unwrap_or_default()
}

fn recipients(receivers: &[Receiver]) -> Result<Vec<Recipient>> {
    if receivers.is_empty() {
        return Err(Error::field(
            "to",
            "required",
            "a locked bundle needs somebody to be locked for",
        ));
    }
    let recipient = |(node, heard): &Receiver| match heard {
        Some(heard) => Ok(Recipient { node: *node, key: heard.bundle_key }),
        None => Err(Error::field(
            "to",
            "no_bundle_key",
            format!(
                "nothing can be locked for {node} yet: take in a bundle of it first, such as `atoll bundle want` makes"
            ),
        )),
    };
    receivers.iter().map(recipient).collect()
}

/// What the files hold, all parts checked and nothing taken in. For a thread that may wait.
pub fn verify(
    node: &Node,
    actor: &Actor,
    files: &[PathBuf],
    progress: impl FnMut(u64, u64),
) -> Result<Outcome> {
    actor.require(Permission::SyncAdminister)?;
    each_bundle(node, files, progress, |_, _, volumes, progress| {
        bundle::import(None, volumes, progress).map_err(refused)
    })
}

/// Takes in what the files hold. What is damaged or missing is told and the rest counts; to give the same files again does
/// no harm. For a thread that may wait.
///
/// # Errors
/// `Store(Full)` if the disk is full: what was taken in until then stays. `Conflict` (`unknown_maker`, `not_for_this_node`)
/// if none of the bundles may be taken in.
pub fn import(
    node: &Node,
    actor: &Actor,
    files: &[PathBuf],
    progress: impl FnMut(u64, u64),
) -> Result<Outcome> {
    actor.require(Permission::SyncAdminister)?;
    each_bundle(node, files, progress, |node, head, volumes, progress| {
        if !is_peer(node, head)? {
            return Err(refused(bundle::Error::Stranger {
                name: head.name.clone(),
                key: head.creator,
            }));
        }
        let mut store = node.store.clone();
        let replica: &mut dyn Replica = &mut store;
        let report = bundle::import(Some(replica), volumes, progress).map_err(refused)?;
        note(node, head, &report)?;
        Ok(report)
    })
}

type Volumes = Vec<Volume<BufReader<File>>>;

fn each_bundle(
    node: &Node,
    files: &[PathBuf],
    mut progress: impl FnMut(u64, u64),
    mut take: impl FnMut(&Node, &Head, Volumes, &mut dyn FnMut(u64, u64)) -> Result<Report>,
) -> Result<Outcome> {
    let mine = BundleKey::of(node.key()).map_err(refused)?;
    let mut outcome = Outcome::default();
    let mut bundles: BTreeMap<(u64, [u8; 16]), (Head, Volumes)> = BTreeMap::new();
    let files = shelf::all(files, MAX_VOLUMES)?;
    let mut of = 0;
    for path in &files {
        let opened = File::open(path)
            .map_err(bundle::Error::Io)
            .and_then(|file| Volume::open(BufReader::with_capacity(1 << 16, file)));
        match opened {
            Ok(volume) => {
                of += volume.progress().1;
                let head = volume.head().clone();
                let slot = bundles.entry((head.made_ms, head.bundle));
                slot.or_insert_with(|| (head, vec![])).1.push(volume);
            }
            Err(error) => {
                let file = path.display().to_string();
                outcome.unread.push(Unread { file, why: error.to_string() });
            }
        }
    }
    if bundles.is_empty() {
        return Err(nothing(&outcome.unread));
    }
    // The oldest first: a later one builds on it.
    let mut before = 0;
    for (head, mut volumes) in bundles.into_values() {
        let is_locked = volumes.iter().any(Volume::is_locked);
        volumes.iter_mut().try_for_each(|volume| volume.unlock(&mine)).map_err(refused)?;
        let numbers = volumes.iter().map(|volume| volume.head().volume).collect();
        let size: u64 = volumes.iter().map(|volume| volume.progress().1).sum();
        let report = take(node, &head, volumes, &mut |done, _| progress(before + done, of))?;
        before += size;
        outcome.bundles.push(Seen {
            bundle: head.bundle.iter().map(|byte| format!("{byte:02x}")).collect(),
            volumes: numbers,
            made_by: head.name.clone(),
            maker: head.creator.to_string(),
            is_known: is_peer(node, &head)?,
            is_locked,
            made_ms: head.made_ms,
            is_whole: report.is_whole(),
            report,
        });
    }
    Ok(outcome)
}

fn nothing(unread: &[Unread]) -> Error {
    let told = match unread {
        [] => "there is no volume among them".to_owned(),
        // Where the file lies is known to whoever named it, and nobody else's business.
        [one] => one.why.clone(),
        [one, ..] => format!("{}: {}", one.file, one.why),
    };
    Error::field("files", "no_bundle", told)
}

/// This node itself, or a peer that is listed.
fn is_peer(node: &Node, head: &Head) -> Result<bool> {
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
        bundle_key: head.reply_key,
        made_ms: head.made_ms,
        heard_ms: node.clock.now_ms(),
    };
    Ok(node.store.write_blocking(move |tx: &mut Tx| courier::note(tx, &correspondent))?)
}

fn refused(error: bundle::Error) -> Error {
    if error.is_full() {
        return Error::Store(atoll_storage::Error::Full);
    }
    let code = match &error {
        bundle::Error::Store(_) | bundle::Error::Random | bundle::Error::Io(_) => {
            return match error {
                bundle::Error::Store(error) => Error::Store(error),
                bundle::Error::Io(error) => Error::Store(atoll_storage::Error::Io(error)),
                other => Error::Internal(other.to_string()),
            };
        }
        bundle::Error::Stranger { .. } => "unknown_maker",
        bundle::Error::NotForMe { .. } => "not_for_this_node",
        bundle::Error::Newer(_) => "newer_format",
        bundle::Error::NoBundle => "no_bundle",
        bundle::Error::TooManyRecipients | bundle::Error::Recipient(_) => "recipients",
    };
    Error::conflict(code, error.to_string())
}
