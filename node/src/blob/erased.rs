//! Files of records that were erased: they go at once if no other record names them, and do not come again.

use crate::error::Result;
use crate::runtime::{Node, internal};
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::reference;
use atoll_storage::tx::Tx;
use std::sync::Arc;

/// What was on its way when its record was erased is here by then.
const COMING_MS: u64 = 24 * 3_600_000;
/// Files that are dropped in one transaction.
const PAGE: usize = 100;

/// Drops the files of records that were erased lately. Blocks.
///
/// # Errors
/// If one cannot be dropped; those before it are gone.
pub fn drop_all(node: &Node) -> Result<usize> {
    let since_ms = node.clock.now_ms().saturating_sub(COMING_MS);
    let (mut after, mut went) = (None, 0);
    loop {
        let page = node.store.read(|reader| reference::erased(reader, since_ms, after, PAGE))?;
        let Some(last) = page.last() else { return Ok(went) };
        after = Some(*last);
        let is_here = |id: &BlobId| {
            node.blobs.path(id).is_some()
                || node.blobs.partial_size(id).is_ok_and(|it| it.is_some())
        };
        let here: Vec<BlobId> = page.into_iter().filter(is_here).collect();
        if !here.is_empty() {
            let blobs = node.blobs.clone();
            // Whoever names one writes before this, and it stays, or after it, and looks whether it is here.
            went +=
                node.store.write_blocking(move |tx: &mut Tx| drop_unnamed(tx, &blobs, &here))?;
        }
    }
}

fn drop_unnamed(tx: &mut Tx, blobs: &Blobs, here: &[BlobId]) -> Result<usize> {
    let mut went = 0;
    for id in here {
        if reference::is_erased(tx, id)? {
            blobs.drop_partial(id).map_err(super::failed)?;
            went += usize::from(blobs.remove(id).map_err(super::failed)?);
        }
    }
    Ok(went)
}

/// As [`drop_all`], right after something was erased. What cannot be dropped is tried again later.
pub(crate) async fn drop_now(node: &Arc<Node>) {
    let dropping = node.clone();
    let done = tokio::task::spawn_blocking(move || drop_all(&dropping)).await;
    if let Err(error) = done.map_err(internal).and_then(|done| done) {
        tracing::warn!(%error, "files of erased records could not be dropped");
    }
}

/// To be called before a file that is to be named by a record is put here.
pub(crate) async fn forget(node: &Node, id: BlobId) -> Result<()> {
    if node.store.read(|reader| reference::is_erased(reader, &id))? {
        node.store.write(move |tx: &mut Tx| reference::forget_erased(tx, &id)).await?;
    }
    Ok(())
}

/// As [`forget`], from a thread that may wait.
pub(crate) fn forget_blocking(node: &Node, id: BlobId) -> Result<()> {
    if node.store.read(|reader| reference::is_erased(reader, &id))? {
        node.store.write_blocking(move |tx: &mut Tx| reference::forget_erased(tx, &id))?;
    }
    Ok(())
}
