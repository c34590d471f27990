//! The worker that fetches blobs by itself: those that records name, that are not here, and that the policy wants here.
//! Looks anew with each commit, with each link that comes or goes, and from time to time. A full disk is waited out.

use super::carried::Files;
use super::policy::{self, Policy};
use super::room;
use crate::bucket::Base as _;
use crate::error::Result;
use crate::runtime::{Node, Stop};
use atoll_storage::blob::{BlobId, Blobs};
use atoll_storage::reference::{self, Want};
use atoll_storage::tx::Tx;
use atoll_sync::blob::{FetchError, MAX_IDS, SMALL_BYTES};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// What nobody had is looked for again.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(5);
/// Commits within this time are looked at as one.
const COALESCE: Duration = Duration::from_millis(50);
/// Fetched at once. Small ones have places of their own.
const MAX_SMALL: usize = 8;
const MAX_LARGE: usize = 2;
const PAGE: usize = 500;

pub(crate) async fn run(node: Arc<Node>, mut stop: Stop) {
    let started = node.clone();
    match tokio::task::spawn_blocking(move || look_at_all(&*started)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "which blobs are missing could not be found out"),
        Err(error) => tracing::warn!(%error, "looking for missing blobs was given up"),
    }
    let mut keeper = Keeper {
        node: node.clone(),
        running: JoinSet::new(),
        busy: HashMap::new(),
        cursor: 0,
        passed_over: None,
        has_room: true,
    };
    let (mut commits, mut links) = (node.store.subscribe(), node.exchange.changes());
    let (mut looks, mut rooms) = (interval(LOOK_EVERY), interval(LOOK_FOR_ROOM_EVERY));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rooms.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_stopped() {
        if let Err(error) = keeper.look().await {
            tracing::warn!(%error, "missing blobs could not be looked for");
        }
        tokio::select! {
            () = stop.stopped() => return,
            Some(done) = keeper.running.join_next() => keeper.note(done),
            changed = links.changed() => {
                if changed.is_err() {
                    return;
                }
                keeper.cursor = 0;
            }
            changed = commits.changed() => {
                if changed.is_err() || stop.during(COALESCE).await {
                    return;
                }
                commits.mark_unchanged();
            }
            _ = looks.tick() => (keeper.cursor, keeper.has_room) = (0, true),
            _ = rooms.tick() => {
                let was_full = node.exchange.is_disk_full();
                if node.exchange.look_for_room() && was_full {
                    keeper.cursor = 0;
                }
            }
        }
    }
}

/// Notes what records name and the disk has not: after a restore, or if somebody took a file away. What rests is looked
/// at anew: the settings may be others.
pub fn look_at_all<F: Files>(files: &F) -> Result<()> {
    let (base, blobs) = (files.base(), files.blobs());
    files.look_for_room();
    blobs.total_bytes().map_err(super::failed)?;
    base.write(|tx: &mut Tx| reference::wake_resting(tx))?;
    let mut after = None;
    loop {
        let page = base.read(|reader| reference::held(reader, after, PAGE))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last);
        let missing: Vec<BlobId> = page.into_iter().filter(|id| blobs.path(id).is_none()).collect();
        if !missing.is_empty() {
            base.write(move |tx: &mut Tx| reference::note_missing(tx, &missing, false))?;
        }
    }
}

/// Notes that blobs are here, those of them that still are: one may be dropped at any time, and what then notes it as missing
/// writes before this or after it.
pub(super) fn note_here(
    tx: &mut Tx<'_>,
    blobs: &Blobs,
    mut here: Vec<BlobId>,
) -> atoll_storage::Result<()> {
    here.retain(|id| blobs.path(id).is_some());
    reference::note_here(tx, &here)
}

type Fetched = (BlobId, Result<(), FetchError>);

struct Keeper {
    node: Arc<Node>,
    running: JoinSet<Fetched>,
    /// Blobs that are being fetched, with their sizes.
    busy: HashMap<BlobId, u64>,
    /// Up to where in the list of wants all is under way or in vain.
    cursor: u64,
    /// The first want that found no place.
    passed_over: Option<u64>,
    /// False after something did not fit, until the next look from the beginning.
    has_room: bool,
}

impl Keeper {
    async fn look(&mut self) -> Result<()> {
        let arrived = self.node.exchange.take_arrived();
        if !arrived.is_empty() {
            let blobs = self.node.blobs.clone();
            self.node.store.write(move |tx: &mut Tx| note_here(tx, &blobs, arrived)).await?;
        }
        let lost = self.node.exchange.take_lost();
        if !lost.is_empty() {
            self.node
                .store
                .write(move |tx: &mut Tx| reference::note_missing(tx, &lost, false))
                .await?;
        }
        loop {
            let cursor = self.cursor;
            let page =
                self.node.store.read(|reader| reference::next_wants(reader, cursor, MAX_IDS))?;
            let Some(last) = page.last().map(|want| want.pos) else { return Ok(()) };
            if !self.look_at(page).await? {
                return Ok(());
            }
            self.cursor = last;
        }
    }

    /// False if there is no place for more.
    async fn look_at(&mut self, page: Vec<Want>) -> Result<bool> {
        let node = self.node.clone();
        let idle = page.into_iter().filter(|want| !self.busy.contains_key(&want.blob));
        let (here, missing): (Vec<Want>, Vec<Want>) =
            idle.partition(|want| node.blobs.path(&want.blob).is_some());
        if !here.is_empty() {
            let here = here.iter().map(|want| want.blob).collect();
            let blobs = node.blobs.clone();
            node.store.write(move |tx: &mut Tx| note_here(tx, &blobs, here)).await?;
        }
        if missing.is_empty() || !self.has_room || node.exchange.is_disk_full() {
            return Ok(true);
        }
        let ids: Vec<BlobId> = missing.iter().map(|want| want.blob).collect();
        let (sizes, _) = node.exchange.find(&ids).await;
        let (mut resting, mut wanted) = (Vec::new(), Vec::new());
        for (want, size) in missing.iter().zip(sizes) {
            match (policy::of_blob(&*node, &want.blob, size)?, size) {
                (Policy::Never, _) | (Policy::Lazy, Some(_)) => resting.push((want.blob, size)),
                (_, Some(size)) => wanted.push((want, size)),
                (_, None) => {}
            }
        }
        if !resting.is_empty() {
            node.store.write(move |tx: &mut Tx| reference::note_resting(tx, &resting)).await?;
        }
        let mut has_place = true;
        for (want, size) in wanted {
            let is_small = size <= SMALL_BYTES;
            let fetching = self.busy.values().filter(|size| (**size <= SMALL_BYTES) == is_small);
            if fetching.count() >= if is_small { MAX_SMALL } else { MAX_LARGE } {
                let before = want.pos - 1;
                self.passed_over = Some(self.passed_over.map_or(before, |known| known.min(before)));
                has_place &= !is_small;
                continue;
            }
            self.fetch(want.blob, size);
        }
        Ok(has_place)
    }

    fn fetch(&mut self, id: BlobId, size: u64) {
        self.busy.insert(id, size);
        let node = self.node.clone();
        self.running.spawn(async move {
            let max_bytes = room::make(&node, &id, size).await;
            let fetched = if size > max_bytes {
                Err(FetchError::TooLarge { size_bytes: size })
            } else {
                node.exchange.fetch(id, max_bytes).await
            };
            let noted = match fetched {
                Ok(()) => {
                    let blobs = node.blobs.clone();
                    node.store.write(move |tx: &mut Tx| note_here(tx, &blobs, vec![id])).await
                }
                Err(error) => return (id, Err(error)),
            };
            (id, noted.map_err(|error: atoll_storage::Error| FetchError::Store(error.to_string())))
        });
    }

    fn note(&mut self, done: Result<Fetched, tokio::task::JoinError>) {
        match done {
            Ok((id, fetched)) => {
                self.busy.remove(&id);
                if let Err(error) = fetched {
                    self.has_room &= !matches!(error, FetchError::TooLarge { .. });
                    tracing::debug!(blob = %id, %error, "a blob was not fetched: it is tried again later");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the fetching of a blob ended badly");
                self.busy.clear();
            }
        }
        if let Some(before) = self.passed_over.take() {
            self.cursor = self.cursor.min(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::identity::{self, user};
    use atoll_storage::Changes;

    #[tokio::test]
    async fn a_blob_that_is_dropped_before_it_is_noted_as_here_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(Config { data: folder.path().to_owned(), ..Config::default() });
        let node = node.unwrap();
        let setup = identity::setup(&node, "ada@example.org", "a long enough password");
        let key = setup.await.unwrap().user.key;
        let id = node.blobs.put(b"a picture").unwrap();
        let changes = Changes::new().set(&user::AVATAR, id.to_string());
        let edit = move |tx: &mut Tx| tx.edit(&user::USER, key, changes).map(drop);
        node.store.write(edit).await.unwrap();
        let note = async || {
            let blobs = node.blobs.clone();
            node.store.write(move |tx: &mut Tx| note_here(tx, &blobs, vec![id])).await.unwrap();
            node.store.read(|reader| reference::counts(reader)).unwrap().missing
        };
        assert_eq!(note().await, 0);
        node.blobs.remove(&id).unwrap();
        let missing = move |tx: &mut Tx| reference::note_missing(tx, &[id], true);
        node.store.write(missing).await.unwrap();
        assert_eq!(note().await, 1);
        node.blobs.put(b"a picture").unwrap();
        assert_eq!(note().await, 0);
    }
}
