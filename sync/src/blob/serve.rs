//! The answering side: reads one request a stream, and sends what is here. Never waits for a peer longer than it must,
//! and never has more of a blob in memory than a piece.

use super::message::{Answer, MAX_MESSAGE_BYTES, MAX_SLICE_BYTES, Request};
use super::{
    Linked, SLICES_AT_ONCE, SMALL_BYTES, SMALL_SLICES_AT_ONCE, Shared, Within, ask, check, lock,
};
use crate::quic::{Error, SideStream, SideStreams, StopCode};
use atoll_storage::NodeId;
use atoll_storage::blob::BlobId;
use atoll_storage::blob::tree::Run;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What is read from the disk and sent at once.
const PIECE_BYTES: usize = 512 << 10;
/// All that one link can have on its way, and one that is being filled for each slice.
const KEPT_PIECES: usize = SLICES_AT_ONCE * (MAX_SLICE_BYTES / PIECE_BYTES + 1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// Above the link's own stream: these are short, and somebody waits for them.
pub(super) const WORD_PRIORITY: i32 = 1;
/// Of slices one after the other is sent, the oldest first, and all small ones before the others.
const SMALL_PRIORITY: i32 = -1;
const LARGE_PRIORITY: i32 = SMALL_PRIORITY - AGES;
const AGES: i32 = 1 << 20;

/// Slices that are sent over one link at a time.
struct Slots {
    /// Slices so far.
    count: AtomicI32,
    small: Semaphore,
    large: Semaphore,
}

/// What is read and sent, in memory that is used again once the peer has it: fresh pages cost as much as the reading.
struct Piece {
    bytes: Vec<u8>,
    len: usize,
    shared: Arc<Shared>,
}

/// Memory for pieces, kept while slices are sent.
#[derive(Default)]
pub(super) struct Pieces {
    slices: usize,
    kept: Vec<Vec<u8>>,
}

struct Sending<'a>(&'a Shared);

impl<'a> Sending<'a> {
    fn begin(shared: &'a Shared) -> Self {
        lock(&shared.pieces).slices += 1;
        Self(shared)
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut pieces = lock(&self.0.pieces);
        pieces.slices -= 1;
        if pieces.slices == 0 {
            pieces.kept = Vec::new();
        }
    }
}

impl Piece {
    fn new(shared: &Arc<Shared>) -> Self {
        let used = lock(&shared.pieces).kept.pop();
        let bytes = used.unwrap_or_else(|| vec![0; PIECE_BYTES]);
        Self { bytes, len: 0, shared: shared.clone() }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut pieces = lock(&self.shared.pieces);
        if pieces.slices > 0 && pieces.kept.len() < KEPT_PIECES {
            pieces.kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// A link's place among the others.
struct Place<'a> {
    shared: &'a Shared,
    link: &'a Linked,
}

impl<'a> Place<'a> {
    /// A newer link to the same peer keeps its place.
    fn take(shared: &'a Shared, link: &'a Arc<Linked>) -> Self {
        let mut links = lock(&shared.links);
        if links.get(&link.node).is_none_or(|other| other.number <= link.number) {
            links.insert(link.node, link.clone());
        }
        drop(links);
        shared.changes.send_modify(|changes| *changes += 1);
        Self { shared, link }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut links = lock(&self.shared.links);
        if links.get(&self.link.node).is_some_and(|link| link.number == self.link.number) {
            links.remove(&self.link.node);
        }
        drop(links);
        self.shared.changes.send_modify(|changes| *changes += 1);
    }
}

pub(super) async fn run(
    shared: &Arc<Shared>,
    node: NodeId,
    number: u64,
    streams: SideStreams,
    within: Option<Within>,
) {
    let link = Arc::new(Linked {
        node,
        number,
        streams: streams.clone(),
        small: Semaphore::new(SMALL_SLICES_AT_ONCE),
        large: Semaphore::new(SLICES_AT_ONCE),
        disk_full: AtomicBool::new(false),
        is_mute: AtomicBool::new(false),
        has_answered: AtomicBool::new(false),
        within,
    });
    let _place = Place::take(shared, &link);
    let slots = Arc::new(Slots {
        count: AtomicI32::new(0),
        small: Semaphore::new(SMALL_SLICES_AT_ONCE),
        large: Semaphore::new(SLICES_AT_ONCE),
    });
    let mut disk = shared.disk_full.subscribe();
    if *disk.borrow_and_update() {
        disk.mark_changed();
    }
    // They end with this.
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            stream = streams.accept() => {
                let Ok(stream) = stream else { return };
                answers.spawn(answer(shared.clone(), link.clone(), slots.clone(), stream));
            }
            Some(_) = answers.join_next() => {}
            changed = disk.changed() => {
                if changed.is_err() {
                    return;
                }
                let is_full = *disk.borrow_and_update();
                answers.spawn(ask::tell(link.clone(), is_full));
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, link: Arc<Linked>, slots: Arc<Slots>, mut stream: SideStream) {
    let Ok(Ok(bytes)) = timeout(REQUEST_TIMEOUT, stream.recv_frame(MAX_MESSAGE_BYTES)).await else {
        stream.reset(StopCode::UNREADABLE);
        return;
    };
    let answered = match Request::decode(&bytes) {
        Ok(Request::Find { ids }) => {
            let known = link.may_hear_of(ids.clone()).await;
            find(&shared, &mut stream, ids, &known).await
        }
        Ok(Request::Release { ids }) => {
            let known = link.may_hear_of(ids.clone()).await;
            release(&shared, &mut stream, ids, &known).await
        }
        Ok(Request::Slice { id, .. }) if link.may_hear_of(vec![id]).await.is_empty() => {
            say(&mut stream, &Answer::Missing).await
        }
        Ok(Request::Slice { id, runs }) => slice(&shared, &slots, &mut stream, id, runs).await,
        Ok(Request::Tell { disk_full }) => {
            link.disk_full.store(disk_full, Ordering::Relaxed);
            say(&mut stream, &Answer::Noted).await
        }
        Ok(Request::Complain { id }) => {
            if !link.may_hear_of(vec![id]).await.is_empty() {
                check::hear(&shared, link.node, id);
            }
            say(&mut stream, &Answer::Noted).await
        }
        Err(error) => {
            tracing::debug!(node = %link.node, %error, "a peer asked for what cannot be read");
            stream.reset(StopCode::UNREADABLE);
            return;
        }
    };
    if let Err(error) = answered {
        tracing::debug!(node = %link.node, %error, "a peer's request about blobs was not answered");
        stream.reset(StopCode::FAILED);
    }
}

async fn say(stream: &mut SideStream, answer: &Answer) -> Result<(), String> {
    stream.set_priority(WORD_PRIORITY);
    send(stream.send_frame(&answer.encode())).await?;
    stream.finish();
    Ok(())
}

async fn send(sending: impl Future<Output = Result<(), Error>>) -> Result<(), String> {
    match timeout(STALLED, sending).await {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_) => Err("it takes nothing".to_owned()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// `known`: of those that are asked for, those that the peer may hear of.
async fn find(
    shared: &Shared,
    stream: &mut SideStream,
    ids: Vec<BlobId>,
    known: &[BlobId],
) -> Result<(), String> {
    let blobs = shared.blobs.clone();
    let known: BTreeSet<BlobId> = known.iter().copied().collect();
    let size = move |id: &BlobId| {
        let is_known = known.contains(id);
        if is_known { blobs.size_bytes(id).ok().flatten() } else { None }
    };
    let sizes = blocking(move || ids.iter().map(size).collect()).await?;
    say(stream, &Answer::Found(sizes)).await
}

async fn release(
    shared: &Shared,
    stream: &mut SideStream,
    ids: Vec<BlobId>,
    known: &[BlobId],
) -> Result<(), String> {
    let blobs = shared.blobs.clone();
    let known: BTreeSet<BlobId> = known.iter().copied().collect();
    let asked = ids.clone();
    let is_here = move |id: &BlobId| known.contains(id) && blobs.path(id).is_some();
    let here: Vec<bool> = blocking(move || asked.iter().map(is_here).collect()).await?;
    let kept = {
        let leaving = lock(&shared.leaving);
        here.iter().zip(&ids).map(|(is_here, id)| *is_here && !leaving.contains(id)).collect()
    };
    say(stream, &Answer::Kept(kept)).await
}

async fn slice(
    shared: &Arc<Shared>,
    slots: &Slots,
    stream: &mut SideStream,
    id: BlobId,
    runs: Vec<Run>,
) -> Result<(), String> {
    let blobs = shared.blobs.clone();
    let opened = blocking(move || blobs.slice(&id, runs)).await?;
    let Some(mut slice) = opened.map_err(|error| error.to_string())? else {
        return say(stream, &Answer::Missing).await;
    };
    let size_bytes = slice.size_bytes();
    let is_small = size_bytes <= SMALL_BYTES;
    let age = slots.count.fetch_add(1, Ordering::Relaxed).rem_euclid(AGES);
    stream.set_priority(if is_small { SMALL_PRIORITY } else { LARGE_PRIORITY } - age);
    let slot = if is_small { &slots.small } else { &slots.large };
    let _slot = slot.acquire().await.map_err(|error| error.to_string())?;
    let _sending = Sending::begin(shared);
    let mut sent = send(stream.send_frame(&Answer::Slice { size_bytes }.encode())).await;
    while sent.is_ok() {
        let mut piece = Piece::new(shared);
        // A copy from memory takes less than asking another thread for it.
        let read = match slice.fill_from_memory(&mut piece.bytes) {
            Ok(Some(len)) => Ok(len),
            Ok(None) => {
                let read = blocking(move || {
                    let read = slice.fill(&mut piece.bytes);
                    (slice, piece, read)
                });
                let (slice_back, piece_back, read) = read.await?;
                (slice, piece) = (slice_back, piece_back);
                read
            }
            Err(error) => Err(error),
        };
        piece.len = read.map_err(|error| error.to_string())?;
        if piece.len == 0 {
            break;
        }
        shared.served_bytes.fetch_add(piece.len as u64, Ordering::Relaxed);
        sent = send(stream.send(Bytes::from_owner(piece))).await;
    }
    if sent.is_ok() {
        stream.finish();
    }
    // The slot is held until all is there: so much and no more is on its way.
    let _ = timeout(STALLED, stream.delivered()).await;
    sent
}
