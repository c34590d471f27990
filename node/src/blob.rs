//! Blobs as this node keeps them: brought here from other nodes when they are asked for or by the policy of their
//! scope, within a quota. What a blob is for, its noun knows; who may read it, too.

pub(crate) mod carried;
pub mod erased;
pub mod keeper;
pub mod policy;
mod room;

pub use carried::Files;
pub use room::sweep;

use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::NodeId;
use atoll_storage::blob::{self, BlobId};
use atoll_storage::reference::{self, Counts};
use atoll_storage::tx::Tx;
use atoll_sync::blob::{FetchError, Figures, TransferStatus};
use atoll_sync::runner::PeerStatus;
use policy::Policy;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout_at};

/// When somebody who waited in vain should ask again.
const RETRY_SOON_S: u64 = 5;
const RETRY_LATER_S: u64 = 60;
/// A link takes another's place within that.
const RELINKED_WITHIN: Duration = Duration::from_secs(2);
/// A blob's use is noted no more often than that.
const USED_EVERY: Duration = Duration::from_secs(3_600);

/// The node's blobs, for people.
#[derive(Clone, Debug)]
pub struct Status {
    pub counts: Counts,
    pub size_bytes: u64,
    /// 0 for none.
    pub quota_bytes: u64,
    pub disk_full: bool,
    pub figures: Figures,
    pub transfers: Vec<TransferStatus>,
    /// Linked peers whose disk is full.
    pub full_peers: Vec<NodeId>,
}

pub fn status(node: &Node, actor: &Actor) -> Result<Status> {
    actor.require(Permission::SyncAdminister)?;
    let peers = node.exchange.peers();
    Ok(Status {
        counts: node.store.read(|reader| reference::counts(reader))?,
        size_bytes: node.blobs.total_bytes().map_err(failed)?,
        quota_bytes: node.config.blobs.quota_bytes,
        disk_full: node.exchange.is_disk_full(),
        figures: node.exchange.figures(),
        transfers: node.exchange.transfers(),
        full_peers: peers.into_iter().filter(|(_, is_full)| *is_full).map(|(id, _)| id).collect(),
    })
}

/// The file of any blob, for whoever looks after the node. Fetches it if it is not here.
///
/// # Errors
/// As [`bring`].
pub async fn file(node: &Node, actor: &Actor, id: BlobId) -> Result<PathBuf> {
    actor.require(Permission::SyncAdminister)?;
    bring(node, &id, "blob").await
}

/// Where a blob lies. One that is not here is fetched from a peer that has it, while the caller waits for as long as the
/// settings say; it comes all the same if that was not long enough.
///
/// # Errors
/// `NotFound` if no node that this one knows has it, or the policy keeps it away; `Unavailable` if it may come later: `blob_on_its_way`, `blob_unreachable`, `blob_no_room`.
pub async fn bring(node: &Node, id: &BlobId, noun: &'static str) -> Result<PathBuf> {
    if let Some(path) = node.blobs.path(id) {
        note_used(node, id);
        return Ok(path);
    }
    let id = *id;
    if policy::of_blob(node, &id, None)? == Policy::Never {
        return Err(Error::NotFound("file here: this node does not keep such files"));
    }
    let wait = Duration::from_secs(node.config.blobs.wait_s);
    let Ok(fetched) = tokio::time::timeout(wait, fetch(node, id)).await else {
        return Err(unavailable(
            "blob_on_its_way",
            "the file is on its way from another node: ask again soon",
            RETRY_SOON_S,
        ));
    };
    match fetched {
        Ok(()) => node.blobs.path(&id).ok_or(Error::NotFound(noun)),
        Err(error) => {
            if matches!(error, FetchError::Nowhere { .. } | FetchError::Gone) {
                carried::note_asked(node, id).await?;
            }
            Err(refused(node, error))
        }
    }
}

/// As [`bring`], for blobs that are small: their bytes, at most `max_bytes` of them.
pub async fn read(
    node: &Node,
    id: &BlobId,
    max_bytes: usize,
    noun: &'static str,
) -> Result<Vec<u8>> {
    bring(node, id, noun).await?;
    let (blobs, id) = (node.blobs.clone(), *id);
    let read = node.run_on_pool(move || blobs.read_range(&id, 0, max_bytes)).await?;
    read.map_err(failed)?.ok_or(Error::NotFound(noun))
}

/// As `fetch_now`. A peer whose link is taken the place of while this asks has nobody to answer for it: it is asked again.
async fn fetch(node: &Node, id: BlobId) -> Result<(), FetchError> {
    let until = Instant::now() + RELINKED_WITHIN;
    loop {
        let mut changes = node.exchange.changes();
        let error = match fetch_now(node, id).await {
            Err(error @ (FetchError::Nowhere { .. } | FetchError::Gone)) => error,
            done => return done,
        };
        let asked = if let FetchError::Nowhere { asked } = error { asked } else { 0 };
        if asked >= near(node) || timeout_at(until, changes.changed()).await.is_err() {
            return Err(error);
        }
    }
}

/// Peers that are linked, or were so lately that another link may be about to take the place of the last one.
fn near(node: &Node) -> usize {
    let now_ms = node.clock.now_ms();
    let is_lately = |ms: u64| u128::from(now_ms.abs_diff(ms)) < RELINKED_WITHIN.as_millis();
    let peers = node.sync().map_or_else(Vec::new, |runner| runner.status());
    let is_near = |peer: &&PeerStatus| peer.is_linked() || peer.contact_ms.is_some_and(is_lately);
    peers.iter().filter(is_near).count()
}

/// Makes room for a blob and fetches it.
async fn fetch_now(node: &Node, id: BlobId) -> Result<(), FetchError> {
    let (sizes, asked) = node.exchange.find(&[id]).await;
    let Some(size) = sizes.first().copied().flatten() else {
        return Err(FetchError::Nowhere { asked });
    };
    let max_bytes = room::make(node, &id, size).await;
    node.exchange.fetch(id, max_bytes).await?;
    let blobs = node.blobs.clone();
    let noted = node.store.write(move |tx: &mut Tx| keeper::note_here(tx, &blobs, vec![id]));
    noted.await.map_err(|error: atoll_storage::Error| FetchError::Store(error.to_string()))
}

fn note_used(node: &Node, id: &BlobId) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(node.clock.now_ms());
    let last = node.blobs.used_at(id).ok().flatten();
    if last.is_some_and(|last| now.duration_since(last).is_ok_and(|past| past > USED_EVERY))
        && let Err(error) = node.blobs.note_used(id, now)
    {
        tracing::debug!(blob = %id, %error, "the use of a blob was not noted");
    }
}

fn unavailable(code: &'static str, message: &str, retry_after_s: u64) -> Error {
    Error::Unavailable { code, message: message.to_owned(), retry_after_s }
}

fn refused(node: &Node, error: FetchError) -> Error {
    match error {
        FetchError::Nowhere { asked } => {
            let known = node.sync().map_or(0, |runner| runner.status().len());
            if asked >= known {
                return Error::NotFound("file: none of the nodes that this one knows has it");
            }
            let message = format!(
                "the file is not on this node, and none of the nodes that it is linked to now has it ({asked} of {known} were asked): ask again when the others are there"
            );
            unavailable("blob_unreachable", &message, RETRY_LATER_S)
        }
        FetchError::Gone => unavailable(
            "blob_unreachable",
            "the nodes that have the file cannot be reached now: ask again later",
            RETRY_LATER_S,
        ),
        FetchError::DiskFull => unavailable(
            "blob_no_room",
            "the file is on another node, and this node's disk is full",
            RETRY_LATER_S,
        ),
        FetchError::TooLarge { .. } => unavailable(
            "blob_no_room",
            "the file is on another node, and larger than what this node may keep of files",
            RETRY_LATER_S,
        ),
        FetchError::Busy => Error::Store(atoll_storage::Error::Busy),
        FetchError::Store(why) => Error::Internal(why),
    }
}

fn failed(error: blob::Error) -> Error {
    match error {
        blob::Error::Full => Error::Store(atoll_storage::Error::Full),
        other => Error::Internal(other.to_string()),
    }
}
