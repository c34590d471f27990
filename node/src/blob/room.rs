//! Room for blobs: the quota, what is dropped to keep it, and what goes since no record names it any more. Never drops
//! what is pinned, nor what no other node was just heard to have and keep.

use super::policy::{self, Policy};
use crate::error::{Error, Result};
use crate::runtime::Node;
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::reference;
use atoll_storage::tx::Tx;
use atoll_sync::blob::MAX_IDS;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What no record names is kept for so long.
const LOOSE_MS: u64 = 24 * 3_600_000;
/// Blobs that are looked at in one transaction.
const PAGE: usize = 500;

/// What the quota leaves for blobs that are not on their way.
pub(super) fn left(node: &Node) -> u64 {
    let quota = node.config.blobs.quota_bytes;
    if quota == 0 {
        return u64::MAX;
    }
    let coming = node.exchange.transfers().iter().map(|transfer| transfer.size_bytes).sum::<u64>();
    let here = node.blobs.total_bytes().unwrap_or(quota);
    quota.saturating_sub(here.saturating_add(coming))
}

/// Drops what it must for a blob of this size; how large it may be. One that is on its way has its room.
pub(super) async fn make(node: &Node, id: &BlobId, size_bytes: u64) -> u64 {
    let quota = node.config.blobs.quota_bytes;
    let is_coming = node.exchange.transfers().iter().any(|transfer| transfer.id == *id);
    if quota == 0 || is_coming {
        return u64::MAX;
    }
    let _making = node.making_room.lock().await;
    let room = left(node);
    if room >= size_bytes || size_bytes > quota {
        return room;
    }
    match drop_lazy(node, size_bytes - room).await {
        Ok(0) => tracing::debug!(size_bytes, "no blob can be dropped to make room for another"),
        Ok(dropped_bytes) => tracing::info!(dropped_bytes, "blobs were dropped to keep the quota"),
        Err(error) => tracing::warn!(%error, "room for a blob could not be made"),
    }
    left(node)
}

/// Least recently used first. How many bytes went.
async fn drop_lazy(node: &Node, wanted_bytes: u64) -> Result<u64> {
    let blobs = node.blobs.clone();
    let all = tokio::task::spawn_blocking(move || by_use(&blobs));
    let mut left = all.await.map_err(crate::runtime::internal)??;
    let mut dropped = 0;
    while dropped < wanted_bytes && !left.is_empty() {
        let mut page = Vec::new();
        let mut bytes = 0;
        while let Some(old) = left.pop() {
            if policy::of_blob(node, &old.id, Some(old.size_bytes))? == Policy::Lazy {
                bytes += old.size_bytes;
                page.push(old);
            }
            if page.len() == MAX_IDS || dropped + bytes >= wanted_bytes {
                break;
            }
        }
        let ids: Vec<BlobId> = page.iter().map(|old| old.id).collect();
        let kept = node.exchange.release(&ids).await;
        let gone = page.iter().zip(kept).filter(|(_, is_kept)| *is_kept).map(|(old, _)| old);
        let gone: Vec<&Old> = gone.filter(|old| old.is_dropped(&node.blobs)).collect();
        dropped += gone.iter().map(|old| old.size_bytes).sum::<u64>();
        let gone: Vec<BlobId> = gone.into_iter().map(|old| old.id).collect();
        node.exchange.stayed(&ids);
        node.store.write(move |tx: &mut Tx| reference::note_missing(tx, &gone, true)).await?;
    }
    Ok(dropped)
}

struct Old {
    used_at: SystemTime,
    id: BlobId,
    size_bytes: u64,
}

impl Old {
    /// Not if it was used since it was looked at.
    fn is_dropped(&self, blobs: &Blobs) -> bool {
        blobs.remove_unused(&self.id, self.used_at + Duration::from_nanos(1)).unwrap_or_else(
            |error| {
                tracing::warn!(blob = %self.id, %error, "a blob could not be dropped");
                false
            },
        )
    }
}

/// The least recently used last.
fn by_use(blobs: &Blobs) -> Result<Vec<Old>> {
    let mut all = Vec::new();
    for blob in blobs.iter() {
        let (id, size_bytes) = blob.map_err(super::failed)?;
        if let Some(used_at) = blobs.used_at(&id).map_err(super::failed)? {
            all.push(Old { used_at, id, size_bytes });
        }
    }
    all.sort_unstable_by_key(|old| std::cmp::Reverse(old.used_at));
    Ok(all)
}

/// Drops what no record has named for a day. Blocks; how many went.
pub fn sweep(node: &Arc<Node>) -> Result<usize> {
    let now_ms = node.clock.now_ms();
    let mut went = 0;
    let mut page = Vec::with_capacity(PAGE);
    for blob in node.blobs.iter() {
        page.push(blob.map_err(super::failed)?.0);
        if page.len() == PAGE {
            went += sweep_page(node, &page, now_ms)?;
            page.clear();
        }
    }
    page.extend(node.blobs.partials().map_err(super::failed)?);
    let before_ms = now_ms.saturating_sub(2 * LOOSE_MS);
    node.store.write_blocking(move |tx: &mut Tx| reference::forget_left(tx, before_ms))?;
    Ok(went + sweep_page(node, &page, now_ms)?)
}

fn sweep_page(node: &Node, page: &[BlobId], now_ms: u64) -> Result<usize> {
    let loose = node.store.read(|reader| {
        let mut loose = Vec::new();
        for id in page {
            if !reference::is_named(reader, id)? {
                loose.push((*id, reference::loose_since(reader, id)?));
            }
        }
        Ok(loose)
    })?;
    let fresh: Vec<BlobId> =
        loose.iter().filter(|(_, since)| since.is_none()).map(|(id, _)| *id).collect();
    let is_old = |since: &Option<u64>| since.is_some_and(|since| since + LOOSE_MS <= now_ms);
    // What came or was used meanwhile may be about to be named.
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms.saturating_sub(LOOSE_MS));
    let mut gone = Vec::new();
    for (id, _) in loose.iter().filter(|(_, since)| is_old(since)) {
        if node.exchange.transfers().iter().any(|transfer| transfer.id == *id) {
            continue;
        }
        node.blobs.drop_partial(id).map_err(super::failed)?;
        if node.blobs.remove_unused(id, since).map_err(super::failed)? {
            gone.push(*id);
        }
    }
    let went = gone.len();
    if !fresh.is_empty() || !gone.is_empty() {
        node.store.write_blocking(move |tx: &mut Tx| {
            reference::note_loose(tx, &fresh)?;
            reference::forget_loose(tx, &gone)?;
            Ok::<_, Error>(())
        })?;
    }
    Ok(went)
}
