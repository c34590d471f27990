//! Files that come without a link, in bundles: which of them this node asks for, and which it takes. The settings for files
//! that come over links hold for these too.

use super::policy::{self, Policy};
use super::{keeper, room};
use crate::bucket::Base;
use crate::config;
use crate::error::Result;
use crate::runtime::Node;
use atoll_storage::blob::tree::GROUP_BYTES;
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::tx::Tx;
use atoll_storage::{Replica as _, Store, reference};
use atoll_sync::bundle::{FULL, Lack, MAX_LACKS};
use std::collections::BTreeSet;
use tokio::runtime::Handle;

/// What somebody asked for is asked for elsewhere for so long.
const ASKED_MS: u64 = 30 * 24 * 3_600_000;
/// It is noted no more often than that.
const ASKED_EVERY_MS: u64 = 3_600_000;

/// The files of a node, as far as bundles and buckets need to know: of the running one, or of one of the simulator.
pub trait Files {
    type Base: Base;

    fn base(&self) -> Self::Base;
    fn blobs(&self) -> &Blobs;
    fn settings(&self) -> &config::Blobs;
    fn now_ms(&self) -> u64;
    /// Looks how much room there is on the disk. True if files can come.
    fn look_for_room(&self) -> bool;
    /// Drops what it must and may for a file of this size; how large it may be. For a thread that may wait.
    fn make_room(&self, id: &BlobId, size_bytes: u64) -> u64;
}

impl Files for Node {
    type Base = Store;

    fn base(&self) -> Store {
        self.store.clone()
    }

    fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    fn settings(&self) -> &config::Blobs {
        &self.config.blobs
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn look_for_room(&self) -> bool {
        self.exchange.look_for_room()
    }

    fn make_room(&self, id: &BlobId, size_bytes: u64) -> u64 {
        match Handle::try_current() {
            Ok(handle) => handle.block_on(room::make(self, id, size_bytes)),
            Err(_) => room::left(self),
        }
    }
}

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
pub(crate) fn lacks<F: Files>(files: &F) -> Result<Vec<Lack>> {
    let (base, blobs) = (files.base(), files.blobs());
    // A larger one is never taken, and would hold the place of others wherever it is left.
    let most_bytes = Some(files.settings().quota_bytes).filter(|quota| *quota > 0);
    let most_bytes = most_bytes.unwrap_or(u64::MAX);
    let mut lacks = Vec::new();
    let mut begun = BTreeSet::new();
    for blob in blobs.partials().map_err(super::failed)?.into_iter().take(MAX_LACKS) {
        let missing = blobs.partial_missing(&blob).map_err(super::failed)?;
        let Some((size, missing)) = missing.filter(|_| blobs.path(&blob).is_none()) else {
            continue;
        };
        let is_named = base.read(|reader| reference::is_named(reader, &blob))?;
        if is_named && policy::of_blob(files, &blob, Some(size))? != Policy::Never {
            begun.insert(blob);
            lacks.push(Lack::rest(blob, most_bytes, missing));
        }
    }
    let since_ms = files.now_ms().saturating_sub(ASKED_MS);
    for sought in base.read(|reader| reference::sought(reader, since_ms, MAX_LACKS))? {
        let blob = sought.blob;
        if lacks.len() == MAX_LACKS {
            break;
        }
        if begun.contains(&blob) || blobs.path(&blob).is_some() {
            continue;
        }
        let scopes = base.read(|reader| reference::scopes_of(reader, &blob))?;
        let fetched_bytes = policy::fetched_bytes(files.settings(), &scopes);
        let is_kept = policy::of_blob(files, &blob, None)? != Policy::Never;
        let max_bytes = if sought.is_asked && is_kept { Some(u64::MAX) } else { fetched_bytes };
        lacks.extend(max_bytes.map(|max_bytes| Lack::whole(blob, max_bytes.min(most_bytes))));
    }
    Ok(lacks)
}

/// Whether a file of this size is taken, beside others of which so many bytes are coming. For a thread that may wait.
pub(crate) fn admit<F: Files>(
    files: &F,
    id: &BlobId,
    size_bytes: u64,
    coming_bytes: u64,
) -> Result<(), String> {
    let failed = |error: crate::Error| error.to_string();
    let (base, blobs) = (files.base(), files.blobs());
    let is_named = base.read(|reader| reference::is_named(reader, id));
    let is_named = is_named.map_err(|error| error.to_string())?;
    if is_named && policy::of_blob(files, id, Some(size_bytes)).map_err(failed)? == Policy::Never {
        return Err("this node keeps no such files (blobs.policy)".to_owned());
    }
    if base.read(|reader| reference::is_erased(reader, id)).map_err(|e| e.to_string())? {
        return Err("it belonged to something that was erased".to_owned());
    }
    if !is_named && !base.carries().is_everything() {
        return Err(
            "no record that is here names it: if its record is in another volume, take this one in again afterwards"
                .to_owned(),
        );
    }
    let needed_bytes = size_bytes.saturating_add(coming_bytes);
    if needed_bytes > files.make_room(id, needed_bytes) {
        return Err("there is no room for it (blobs.quota_bytes)".to_owned());
    }
    let kept_bytes = files.settings().keep_free_bytes;
    // What is here of it takes no more.
    let missing = blobs.partial_missing(id).map_err(|error| error.to_string())?;
    let missing_bytes = missing.map_or(size_bytes, |(_, runs)| {
        let groups: u64 = runs.iter().map(|run| run.count).sum();
        size_bytes.min(groups.saturating_mul(GROUP_BYTES as u64))
    });
    let taken_bytes = missing_bytes.saturating_add(coming_bytes);
    let has_room = |free_bytes: u64| free_bytes >= kept_bytes.saturating_add(taken_bytes);
    if !files.look_for_room() || !blobs.free_bytes().map_or(true, has_room) {
        return Err(FULL.to_owned());
    }
    Ok(())
}

/// Notes that files came.
pub(crate) fn note_here<F: Files>(files: &F, came: &[BlobId]) -> Result<()> {
    if came.is_empty() {
        return Ok(());
    }
    let (came, blobs) = (came.to_vec(), files.blobs().clone());
    Ok(files.base().write(move |tx: &mut Tx| keeper::note_here(tx, &blobs, came))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::identity::{self, user};
    use atoll_storage::Changes;

    #[tokio::test]
    async fn what_is_larger_than_all_that_may_be_kept_is_not_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = config::Blobs { quota_bytes: 1_000, ..config::Blobs::default() };
        let config = Config { data: folder.path().to_owned(), blobs, ..Config::default() };
        let node = Node::open(config).unwrap();
        let setup = identity::setup(&node, "ada@example.org", "a long enough password");
        let key = setup.await.unwrap().user.key;
        let id = BlobId::of(b"a picture that another node has");
        let changes = Changes::new().set(&user::AVATAR, id.to_string());
        let edit = move |tx: &mut Tx| tx.edit(&user::USER, key, changes).map(drop);
        node.store.write(edit).await.unwrap();
        assert_eq!(lacks(&*node).unwrap(), [Lack::whole(id, 1_000)]);
    }
}
