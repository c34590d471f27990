//! What must be done from time to time so that nothing grows without end, and the figures for the metrics.

use super::workers::Stop;
use crate::audit::{self, failure};
use crate::backup;
use crate::blob;
use crate::content::{import, preview, trash};
use crate::courier;
use crate::exchange::{self, export};
use crate::identity::{api_key, session, tenant, user};
use crate::peer;
use crate::peer::revocation;
use crate::runtime::Node;
use crate::seal;
use atoll_storage::read::Read;
use atoll_storage::reference;
use atoll_storage::tx::Tx;
use atoll_storage::{StreamId, Vector};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(60);
/// Ops that leave the log in one transaction, and how many of those there are in a round.
const TRIM_OPS: usize = 500;
const TRIM_STEPS: usize = 100;
/// Rows of the log that stay rows, and how long others stay so at the most.
const UNPACKED_OPS: u32 = 1_024;
const UNPACKED_MS: u64 = 24 * 3_600_000;
/// Blocks that are made in a round.
const PACK_STEPS: usize = 200;
/// Blocks that are read in a round, to see whether they still can be.
const SCRUB_BLOCKS: usize = 32;
/// Every so many rounds all blobs are looked at.
const BLOB_ROUNDS: u32 = 15;
/// Whose jobs have folders of the exchange.
const QUEUES: &[&str] = &[import::QUEUE, export::QUEUE, courier::QUEUE];

pub(super) async fn run(node: Arc<Node>, mut stop: Stop) {
    look_at_backups(&node).await;
    let mut round = 0_u32;
    while !stop.during(ROUND).await {
        look_at_backups(&node).await;
        round = round.wrapping_add(1);
        super::hold_room(&node.folder);
        if round % BLOB_ROUNDS == 1 {
            sweep_blobs(&node).await;
        }
        if let Err(error) = node.store.write(|tx: &mut Tx| tx.trim_outbox()).await {
            tracing::warn!(%error, "old events could not be dropped");
        }
        if let Err(error) = session::sweep(&node).await {
            tracing::warn!(%error, "sessions that have ended could not be dropped");
        }
        match trash::purge_due(&node, node.clock.now_ms()).await {
            Ok(0) => {}
            Ok(posts) => tracing::info!(posts, "posts were purged from the trash"),
            Err(error) => tracing::warn!(%error, "the trash could not be purged"),
        }
        if let Err(error) = preview::sweep(&node).await {
            tracing::warn!(%error, "preview links that have expired could not be dropped");
        }
        let trimmed = node.clone();
        match tokio::task::spawn_blocking(move || shorten_log(&trimmed)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(ops)) => tracing::info!(ops, "old ops were dropped from the log"),
            Ok(Err(error)) => tracing::warn!(%error, "the log could not be shortened"),
            Err(error) => tracing::warn!(%error, "the shortening of the log was given up"),
        }
        let scrubbed = node.clone();
        match tokio::task::spawn_blocking(move || scrubbed.store.scrub_log(SCRUB_BLOCKS)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the log could not be read through"),
            Err(error) => tracing::warn!(%error, "the reading through the log was given up"),
        }
        let sealed = node.clone();
        match tokio::task::spawn_blocking(move || seal::round(&sealed)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "segments could not be sealed or proven"),
            Err(error) => tracing::warn!(%error, "the sealing of segments was given up"),
        }
        let swept = node.clone();
        match tokio::task::spawn_blocking(move || exchange::sweep(&swept, QUEUES)).await {
            Ok(Err(error)) => {
                tracing::warn!(%error, "old files of the exchange could not be dropped");
            }
            Ok(Ok(_)) => {}
            Err(error) => tracing::warn!(%error, "the sweep of the exchange was given up"),
        }
        if let Err(error) = api_key::note_used(&node).await {
            tracing::warn!(%error, "when keys were used could not be noted");
        }
        if let Err(error) = api_key::sweep(&node).await {
            tracing::warn!(%error, "keys that have ended could not be dropped");
        }
        if let Err(error) = failure::flush(&node, failure::WINDOW_MS).await {
            tracing::warn!(%error, "failed sign-ins could not be noted");
        }
        if let Err(error) = audit::sweep(&node).await {
            tracing::warn!(%error, "old entries of the audit log could not be dropped");
        }
        if let Err(error) = user::erase::sweep(&node).await {
            tracing::warn!(%error, "what came back to deleted accounts could not be taken away");
        }
        let late = node.clone();
        match tokio::task::spawn_blocking(move || revocation::take_back(&late)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what removed nodes wrote could not be taken back");
            }
            Err(error) => tracing::warn!(%error, "the taking back was given up"),
        }
        if let Err(error) = tenant::sweep(&node).await {
            tracing::warn!(%error, "tenants that were deleted long ago could not be removed");
        }
    }
    if let Err(error) = failure::flush(&node, 0).await {
        tracing::warn!(%error, "failed sign-ins could not be noted");
    }
}

/// Drops what is old and packs the rest, in small steps, so that no write waits long for one; what is left goes in the next
/// round.
pub(super) fn shorten_log(node: &Node) -> atoll_storage::Result<u64> {
    let now_ms = node.clock.now_ms();
    node.store.mark_log(now_ms)?;
    let mut dropped = trim(node, now_ms, node.config.history_days, None)?;
    if node.config.history_acknowledged_days > 0
        && let Some(acknowledged) = peer::acknowledged_by_all(node)?
    {
        dropped += trim(node, now_ms, node.config.history_acknowledged_days, Some(&acknowledged))?;
    }
    for _ in 0..PACK_STEPS {
        if !node.store.pack_log(Some(now_ms.saturating_sub(UNPACKED_MS)), UNPACKED_OPS)? {
            break;
        }
    }
    Ok(dropped)
}

/// What is older than so many days; none if that is 0.
fn trim(
    node: &Node,
    now_ms: u64,
    days: u32,
    acknowledged: Option<&BTreeMap<StreamId, Vector>>,
) -> atoll_storage::Result<u64> {
    let than_ms = now_ms.saturating_sub(u64::from(days) * 24 * 3_600_000);
    let mut dropped = 0;
    for _ in 0..TRIM_STEPS {
        let step = match days {
            0 => 0,
            _ => node.store.trim_older(than_ms, TRIM_OPS, acknowledged)?,
        };
        if step == 0 {
            break;
        }
        dropped += step;
    }
    Ok(dropped)
}

async fn look_at_backups(node: &Arc<Node>) {
    if let Err(error) = backup::work::round(node).await {
        tracing::warn!(%error, "the node's backups could not be looked after");
    }
}

async fn sweep_blobs(node: &Arc<Node>) {
    let swept = node.clone();
    match tokio::task::spawn_blocking(move || blob::sweep(&swept)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(blobs)) => tracing::info!(blobs, "files that no record names were dropped"),
        Ok(Err(error)) => tracing::warn!(%error, "files that no record names could not be dropped"),
        Err(error) => tracing::warn!(%error, "the sweep of the files was given up"),
    }
}

fn blob_figures(node: &Node) -> Vec<(&'static str, &'static str, f64)> {
    let counts = node.store.read(|reader| reference::counts(reader)).unwrap_or_default();
    let figures = node.exchange.figures();
    let size_bytes = node.blobs.total_bytes().unwrap_or_default();
    let disk_full = u64::from(node.exchange.is_disk_full());
    let transfers = node.exchange.transfers().len() as u64;
    [
        ("atoll_blobs_named", "Files that records name.", counts.named),
        (
            "atoll_blobs_missing",
            "Files that records name and that are not on this node.",
            counts.missing,
        ),
        ("atoll_blob_bytes", "What files take on the disk.", size_bytes),
        ("atoll_blob_transfers", "Files on their way here.", transfers),
        (
            "atoll_blob_fetched_bytes",
            "Of files, taken from other nodes since the start.",
            figures.fetched_bytes,
        ),
        (
            "atoll_blob_served_bytes",
            "Of files, sent to other nodes since the start.",
            figures.served_bytes,
        ),
        (
            "atoll_blob_false_parts",
            "Parts of files that were not what they should be.",
            figures.false_parts,
        ),
        ("atoll_disk_full", "1 while the disk is full and no files are fetched.", disk_full),
    ]
    .map(|(name, help, figure)| (name, help, figure as f64))
    .to_vec()
}

pub(super) fn figures(node: &Node) -> Vec<(&'static str, &'static str, f64)> {
    let count = |n: u64| n as f64;
    let from_store = node.store.read(|reader| {
        let streams = reader.streams()?;
        Ok::<_, atoll_storage::Error>([
            (
                "atoll_records",
                "Records of all kinds.",
                count(streams.iter().map(|head| head.records).sum()),
            ),
            ("atoll_streams", "Streams of ops.", streams.len() as f64),
            (
                "atoll_conflicts",
                "Conflicts in the inboxes of all tenants.",
                count(reader.conflict_count(None)?),
            ),
            (
                "atoll_segments_broken",
                "Seals that do not fit the ops that are here.",
                count(atoll_storage::seal::standing(reader)?.broken),
            ),
            (
                "atoll_jobs_waiting",
                "Jobs that wait or run.",
                count(atoll_storage::job::depth(reader)?),
            ),
        ])
    });
    let mut figures: Vec<_> = from_store.map(Vec::from).unwrap_or_default();
    figures.push((
        "atoll_damaged_blocks",
        "Blocks of the log that could not be read.",
        node.store.damaged_blocks() as f64,
    ));
    let dirty = node.store.unindexed_depth().unwrap_or_default();
    figures.push((
        "atoll_search_waiting",
        "Changes that the search index does not hold yet.",
        count(dirty),
    ));
    figures.push((
        "atoll_search_documents",
        "Documents in the search index.",
        count(node.search.count()),
    ));
    figures.push((
        "atoll_write_queue",
        "Writes that wait for the writer.",
        node.store.queue_depth() as f64,
    ));
    figures.push((
        "atoll_sync_parked",
        "Ops of peers that came before what they need.",
        count(node.store.parked()),
    ));
    figures.extend(backup_figures(node));
    figures.extend(blob_figures(node));
    if let Some(runner) = node.sync() {
        let peers = runner.status();
        let linked = peers.iter().filter(|peer| peer.is_linked()).count();
        figures.push(("atoll_peers", "Nodes that this one knows.", peers.len() as f64));
        figures.push(("atoll_peers_linked", "Nodes that this one is linked to.", linked as f64));
        let behind = peers.iter().map(|peer| peer.behind).sum();
        figures.push((
            "atoll_peers_behind_ops",
            "Ops that peers have and this node lacks.",
            count(behind),
        ));
    }
    figures
}

fn backup_figures(node: &Node) -> Vec<(&'static str, &'static str, f64)> {
    let standing = backup::kept::standing(node).unwrap_or_default();
    let late = f64::from(u8::from(standing.is_late));
    let mut figures = vec![(
        "atoll_backup_late",
        "1 if the last proven backup is older than two intervals.",
        late,
    )];
    if let Some(proof) = standing.last_proven {
        let age_ms = node.clock.now_ms().saturating_sub(proof.created_ms);
        figures.push((
            "atoll_backup_age_seconds",
            "Since the last proven backup was made.",
            (age_ms / 1_000) as f64,
        ));
    }
    figures
}
