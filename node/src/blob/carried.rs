//! Files that come without a link, in bundles: which of them this node asks for, and which it takes. The settings for files
//! that come over links hold for these too.

use super::policy::{self, Policy};
use super::{keeper, room};
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::Replica as _;
use atoll_storage::blob::BlobId;
use atoll_storage::blob::tree::GROUP_BYTES;
use atoll_storage::reference;
use atoll_storage::tx::Tx;
use atoll_sync::bundle::{FULL, Lack, MAX_LACKS};
use std::collections::BTreeSet;
use tokio::runtime::Handle;

/// What somebody asked for is asked for elsewhere for so long.
const ASKED_MS: u64 = 30 * 24 * 3_600_000;
/// It is noted no more often than that.
const ASKED_EVERY_MS: u64 = 3_600_000;

/// Notes that somebody asked in vain for a file: others are asked for it by bundles.
pub(super) async fn note_asked(node: &Node, id: BlobId) -> Result<()> {
    let asked_ms = node.store.read(|reader| reference::asked_at(reader, &id))?;
    let now_ms = node.clock.now_ms();
    if asked_ms.is_some_and(|asked_ms| now_ms.abs_diff(asked_ms) < ASKED_EVERY_MS) {
        return Ok(());
    }
    Ok(node.store.write(move |tx: &mut Tx| reference::note_asked(tx, &id)).await?)
}

/// What this node is without and would have: the rest of what a part is here of, what somebody asked for, and what it
/// fetches by itself.
pub(crate) fn lacks(node: &Node) -> Result<Vec<Lack>> {
    let mut lacks = Vec::new();
    let mut begun = BTreeSet::new();
    for blob in node.blobs.partials().map_err(super::failed)?.into_iter().take(MAX_LACKS) {
        let missing = node.blobs.partial_missing(&blob).map_err(super::failed)?;
        let Some((size, missing)) = missing.filter(|_| node.blobs.path(&blob).is_none()) else {
            continue;
        };
        let is_named = node.store.read(|reader| reference::is_named(reader, &blob))?;
        if is_named && policy::of_blob(node, &blob, Some(size))? != Policy::Never {
            begun.insert(blob);
            lacks.push(Lack::rest(blob, u64::MAX, missing));
        }
    }
    let since_ms = node.clock.now_ms().saturating_sub(ASKED_MS);
    for sought in node.store.read(|reader| reference::sought(reader, since_ms, MAX_LACKS))? {
        let blob = sought.blob;
        if lacks.len() == MAX_LACKS {
            break;
        }
        if begun.contains(&blob) || node.blobs.path(&blob).is_some() {
            continue;
        }
        let scopes = node.store.read(|reader| reference::scopes_of(reader, &blob))?;
        let fetched_bytes = policy::fetched_bytes(&node.config.blobs, &scopes);
        let is_kept = policy::of_blob(node, &blob, None)? != Policy::Never;
        let max_bytes = if sought.is_asked && is_kept { Some(u64::MAX) } else { fetched_bytes };
        lacks.extend(max_bytes.map(|max_bytes| Lack::whole(blob, max_bytes)));
    }
    Ok(lacks)
}

/// Whether a file of this size is taken, beside others of which so many bytes are coming. For a thread that may wait.
pub(crate) fn admit(
    node: &Node,
    id: &BlobId,
    size_bytes: u64,
    coming_bytes: u64,
) -> Result<(), String> {
    let failed = |error: crate::Error| error.to_string();
    let is_named = node.store.read(|reader| reference::is_named(reader, id));
    let is_named = is_named.map_err(|error| error.to_string())?;
    if is_named && policy::of_blob(node, id, Some(size_bytes)).map_err(failed)? == Policy::Never {
        return Err("this node keeps no such files (blobs.policy)".to_owned());
    }
    if !is_named && !node.store.carries().is_everything() {
        return Err(
            "no record that is here names it: if its record is in another volume, take this one in again afterwards"
                .to_owned(),
        );
    }
    let needed_bytes = size_bytes.saturating_add(coming_bytes);
    let room_bytes = match Handle::try_current() {
        Ok(handle) => handle.block_on(room::make(node, id, needed_bytes)),
        Err(_) => room::left(node),
    };
    if needed_bytes > room_bytes {
        return Err("there is no room for it (blobs.quota_bytes)".to_owned());
    }
    let kept_bytes = node.config.blobs.keep_free_bytes;
    // What is here of it takes no more.
    let missing = node.blobs.partial_missing(id).map_err(|error| error.to_string())?;
    let missing_bytes = missing.map_or(size_bytes, |(_, runs)| {
        let groups: u64 = runs.iter().map(|run| run.count).sum();
        size_bytes.min(groups.saturating_mul(GROUP_BYTES as u64))
    });
    let taken_bytes = missing_bytes.saturating_add(coming_bytes);
    let has_room = |free_bytes: u64| free_bytes >= kept_bytes.saturating_add(taken_bytes);
    if !node.exchange.look_for_room() || !node.blobs.free_bytes().map_or(true, has_room) {
        return Err(FULL.to_owned());
    }
    Ok(())
}

/// Notes that files came.
pub(crate) fn note_here(node: &Node, came: &[BlobId]) -> Result<()> {
    if came.is_empty() {
        return Ok(());
    }
    let (came, blobs) = (came.to_vec(), node.blobs.clone());
    Ok(node.store.write_blocking(move |tx: &mut Tx| keeper::note_here(tx, &blobs, came))?)
}
