//! What must be done from time to time so that nothing grows without end, and the figures for the metrics.

use super::workers::Stop;
use crate::audit::{self, failure};
use crate::content::{import, preview, trash};
use crate::exchange::{self, export};
use crate::identity::{api_key, session, tenant, user};
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::tx::Tx;
use std::sync::Arc;
use std::time::Duration;

const ROUND: Duration = Duration::from_secs(60);
/// Whose jobs have folders of the exchange.
const QUEUES: &[&str] = &[import::QUEUE, export::QUEUE];

pub(super) async fn run(node: Arc<Node>, mut stop: Stop) {
    while !stop.during(ROUND).await {
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
        if let Err(error) = tenant::sweep(&node).await {
            tracing::warn!(%error, "tenants that were deleted long ago could not be dropped");
        }
    }
    if let Err(error) = failure::flush(&node, 0).await {
        tracing::warn!(%error, "failed sign-ins could not be noted");
    }
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
                "atoll_jobs_waiting",
                "Jobs that wait or run.",
                count(atoll_storage::job::depth(reader)?),
            ),
        ])
    });
    let mut figures: Vec<_> = from_store.map(Vec::from).unwrap_or_default();
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
