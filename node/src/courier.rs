//! Bundles as people use them: made here for a node that no network reaches, in `take` checked and taken in, and
//! in `info` looked at.

mod info;
mod job;
mod shelf;
mod take;

pub use info::{Described, Told, info, info_alone};
pub(crate) use job::work;
pub use job::{QUEUE, Reading, file, read_upload, start_export};
pub use take::{Outcome, PassedOver, Seen, Unread, import, verify};

use crate::access::{Actor, Permission};
use crate::blob::carried;
use crate::error::{Error, Result};
use crate::peer::grant;
use crate::runtime::Node;
use atoll_storage::blob::BlobId;
use atoll_storage::courier::{self, Correspondent};
use atoll_storage::{Carries, NodeId, Rights, StreamId, Vector, codec, peer, reference};
use atoll_sync::bundle::{self, Exported, Lack, Left, Packing, Recipient, Tells};
use serde::{Deserialize, Serialize};
use shelf::Shelf;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What files take in a bundle if nobody says how much.
const FILES_MIB: u64 = 8 << 10;
/// Left free of the disk that a bundle is written to, unless it is the node's own.
const SPARE_BYTES: u64 = 8 << 20;

/// Files that go along unasked, of those that records in the bundle name. What a receiver asks for goes along with any but
/// `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    None,
    /// Up to `blobs.eager_bytes`.
    #[default]
    Small,
    All,
}

/// What to make a bundle of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// Peers by id, key or name: it holds what any of them carries. Without any it is for whoever comes, and holds everything.
    pub to: Vec<String>,
    /// Only they can read it.
    pub lock: bool,
    /// Nothing but what this node has, for others to make a bundle from.
    pub want_only: bool,
    pub files: Files,
    /// What all files in the bundle take at most; none: 8 GiB.
    pub files_mib: Option<u64>,
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
    /// Files that went along, those among them of which only the rest went.
    pub blobs: u64,
    pub blob_bytes: u64,
    pub blobs_left: Left,
    /// For whom it is: ids of nodes.
    pub to: Vec<String>,
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
    let Readers { receivers, recipients, rights } = check(node, order)?;
    let known = known_to_all(&receivers);
    let named_by = |kind, key| node.store.read(|reader| reference::of_record(reader, kind, key));
    let room_bytes = || room_for_files(node, order, to);
    let files = match order.files {
        Files::None => None,
        Files::Small | Files::All => Some(Packing {
            blobs: &node.blobs,
            named_by: &named_by,
            asked: for_all(node, &rights, asked(node, &receivers)?)?,
            up_to_bytes: match order.files {
                Files::All => u64::MAX,
                _ => node.config.blobs.eager_bytes,
            },
            room_bytes: &room_bytes,
        }),
    };
    let lacks = for_all(node, &rights, carried::lacks(node)?)?;
    let order = bundle::Order {
        known,
        carries: &|stream| {
            rights.iter().all(|rights| rights.reads(stream)) && is_for_any(&receivers, stream)
        },
        recipients,
        whole: BTreeSet::new(),
        tells: if order.want_only { Tells::Wants } else { Tells::Has },
        lacks: &lacks,
        files,
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
    let Exported { parts, bytes, ops, records, blobs, blob_bytes, blobs_left, .. } = done;
    let to = receivers.iter().map(|receiver| receiver.node.to_string()).collect();
    Ok(Made { files, parts, bytes, ops, records, blobs, blob_bytes, blobs_left, to })
}

/// For whom a bundle is.
struct Readers {
    receivers: Vec<Receiver>,
    /// Whom it is locked for; none: nobody.
    recipients: Vec<Recipient>,
    /// What each of the receivers may do here.
    rights: Vec<Rights>,
}

/// Whether there is a bundle to be made for those whom the order names.
fn check(node: &Node, order: &Order) -> Result<Readers> {
    if order.to.len() > bundle::MAX_RECIPIENTS {
        let message = format!("at most {} peers", bundle::MAX_RECIPIENTS);
        return Err(Error::field("to", "too_many", message));
    }
    let receivers = receivers(node, &order.to)?;
    let recipients = if order.lock { recipients(&receivers)? } else { vec![] };
    let rights: Result<_> = receivers.iter().map(|one| may_now(node, one.node)).collect();
    Ok(Readers { receivers, recipients, rights: rights? })
}

/// What the receivers asked for in their last bundles, of what records here name.
fn asked(node: &Node, receivers: &[Receiver]) -> Result<Vec<Lack>> {
    let lacks = |receiver: &Receiver| {
        let told = receiver.heard.as_ref().filter(|heard| !heard.lacks.is_empty());
        // Of another release it may be something else: then its files come as those of a new node do.
        told.and_then(|told| codec::decode::<Vec<Lack>>(&told.lacks).ok()).unwrap_or_default()
    };
    let mut named = Vec::new();
    for lack in bundle::all_of(receivers.iter().map(lacks)) {
        if node.store.read(|reader| reference::is_named(reader, &lack.blob))? {
            named.push(lack);
        }
    }
    Ok(named)
}

/// Files that every receiver may hear of, by what records name them.
fn for_all(node: &Node, rights: &[Rights], lacks: Vec<Lack>) -> Result<Vec<Lack>> {
    if rights.iter().all(Rights::is_whole) {
        return Ok(lacks);
    }
    let may_hear = |blob: &BlobId| {
        let streams = node.store.read(|reader| reference::streams_of(reader, blob))?;
        let may = |rights: &Rights| streams.iter().any(|stream| rights.reads(stream));
        Ok::<_, Error>(rights.iter().all(may))
    };
    let mut kept = Vec::new();
    for lack in lacks {
        if may_hear(&lack.blob)? {
            kept.push(lack);
        }
    }
    Ok(kept)
}

/// What files may take: as much as was ordered, and as the disk has that the bundle is written to.
fn room_for_files(node: &Node, order: &Order, to: &Path) -> u64 {
    let ordered = order.files_mib.unwrap_or(FILES_MIB).saturating_mul(1 << 20);
    let is_own = to.starts_with(node.folder().path());
    let spare = if is_own { node.config.blobs.keep_free_bytes } else { SPARE_BYTES };
    let free = fs4::available_space(shelf::folder_of(to)).unwrap_or(u64::MAX);
    ordered.min(free.saturating_sub(spare))
}

struct Receiver {
    node: NodeId,
    heard: Option<Correspondent>,
    /// As its last bundle told, or else a link.
    carries: Carries,
}

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
            let heard = node.store.read(|reader| courier::find(reader, id))?;
            let carries = match &heard {
                Some(heard) => Some(heard.carries.clone()),
                None => node.store.read(|reader| peer::find(reader, id))?.and_then(|p| p.carries),
            };
            Ok(Receiver { node: id, heard, carries: carries.unwrap_or_default() })
        })
        .collect()
}

fn is_for_any(receivers: &[Receiver], stream: &StreamId) -> bool {
    receivers.is_empty() || receivers.iter().any(|receiver| receiver.carries.carries(stream))
}

/// What all of them have, of each stream those who carry it.
fn known_to_all(receivers: &[Receiver]) -> BTreeMap<StreamId, Vector> {
    let mut known: BTreeMap<StreamId, Vector> = BTreeMap::new();
    let has = |receiver: &'_ Receiver| receiver.heard.as_ref().map(|heard| heard.has.clone());
    for (stream, vector) in receivers.iter().filter_map(has).flatten() {
        let carrying = receivers.iter().filter(|receiver| receiver.carries.carries(&stream));
        let least = carrying.fold(vector, |least, receiver| {
            let theirs = receiver.heard.as_ref().and_then(|heard| heard.has.get(&stream));
            theirs.map_or_else(Vector::default, |theirs| least.least(theirs))
        });
        known.insert(stream, least);
    }
    known
}

fn recipients(receivers: &[Receiver]) -> Result<Vec<Recipient>> {
    if receivers.is_empty() {
        return Err(Error::field(
            "to",
            "required",
            "a locked bundle needs somebody to be locked for",
        ));
    }
    let recipient = |Receiver { node, heard, .. }: &Receiver| match heard {
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

/// What a node may do here, if it may do anything now. What came in the bundle before counts, though nobody follows the
/// records of a node that does not run.
fn may_now(node: &Node, one: NodeId) -> Result<Rights> {
    grant::catch_up(node)?;
    let rights = grant::may(node, one)?;
    if one != node.id() && (rights.is_nothing() || rights.is_over(node.clock.now_ms())) {
        let what = if rights.is_nothing() { "grant_withdrawn" } else { "grant_expired" };
        let message =
            "this node may do nothing here any more: `atoll peer grant` says anew what it may";
        return Err(Error::conflict(what, message));
    }
    Ok(rights)
}

fn refused(error: bundle::Error) -> Error {
    if error.is_full() {
        return Error::Store(atoll_storage::Error::Full);
    }
    let code = match &error {
        bundle::Error::Store(_)
        | bundle::Error::Blob(_)
        | bundle::Error::Random
        | bundle::Error::Io(_) => {
            return match error {
                bundle::Error::Store(error) => Error::Store(error),
                bundle::Error::Io(error) => Error::Store(atoll_storage::Error::Io(error)),
                other => Error::Internal(other.to_string()),
            };
        }
        bundle::Error::Stranger { .. } => "unknown_maker",
        bundle::Error::NotForMe { .. } => "not_for_this_node",
        bundle::Error::Newer(_) => "newer_format",
        bundle::Error::NoBundle | bundle::Error::Mixed => "no_bundle",
        bundle::Error::TooManyRecipients | bundle::Error::Recipient(_) => "recipients",
        bundle::Error::TooLong { .. } => "record_too_long",
    };
    Error::conflict(code, error.to_string())
}
