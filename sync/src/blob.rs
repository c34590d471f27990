//! Blobs between nodes: asked for by name, proved group by group, taken up where they were left, from all peers that
//! have them at once. Each request is a stream of its own beside the link's, so ops never wait for a blob. Knows how a
//! blob comes; never which ones are wanted or may go: that is for whoever holds the [`Exchange`] to say.

mod ask;
mod check;
mod fetch;
mod message;
mod serve;

use crate::quic::SideStreams;
use atoll_storage::NodeId;
use atoll_storage::blob::{self, BlobId, Blobs};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use message::{Answer, MAX_IDS, MessageError, Request};

/// Blobs up to this size do not wait behind larger ones.
pub const SMALL_BYTES: u64 = 1 << 20;
/// Slices on their way over one link at a time. Together they stay below half of a link's window. With more, what comes
/// beside them waits longer; with fewer, there is a gap after each.
const SLICES_AT_ONCE: usize = 3;
const SMALL_SLICES_AT_ONCE: usize = 2;
/// Blobs that are fetched at a time.
const MAX_TRANSFERS: usize = 64;
/// Of so many blobs it is remembered who sent false bytes.
const MAX_LIES: usize = 1_024;
/// So many that came are told to whoever asks.
const MAX_ARRIVED: usize = 10_000;

/// Whether a peer may hear of a blob. Reads the store: to be asked by a thread that may wait.
pub type Within = Arc<dyn Fn(&BlobId) -> bool + Send + Sync>;

/// How much room the disk has.
pub type FreeBytes = Arc<dyn Fn() -> std::io::Result<u64> + Send + Sync>;

pub struct Options {
    pub blobs: Blobs,
    pub free_bytes: FreeBytes,
    /// What is left free of the disk.
    pub keep_free_bytes: u64,
}

/// Why a blob did not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("none of the {asked} peers that were asked has it")]
    Nowhere { asked: usize },
    #[error("the peers that have it are gone; what came is kept")]
    Gone,
    #[error("it is larger than there is room for: {size_bytes} bytes")]
    TooLarge { size_bytes: u64 },
    #[error("the disk is full: free some space")]
    DiskFull,
    #[error("too many blobs are fetched at once: try again later")]
    Busy,
    #[error("it cannot be kept: {0}")]
    Store(String),
}

impl From<blob::Error> for FetchError {
    fn from(error: blob::Error) -> Self {
        match error {
            blob::Error::Full => Self::DiskFull,
            other => Self::Store(other.to_string()),
        }
    }
}

/// A blob on its way here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferStatus {
    pub id: BlobId,
    /// 0 until it is proved.
    pub size_bytes: u64,
    pub here_bytes: u64,
    /// Peers that it comes from.
    pub peers: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub fetched_bytes: u64,
    pub served_bytes: u64,
    /// Parts that came and were not those of the blob.
    pub false_parts: u64,
    /// Blobs that were looked at here because a peer complained.
    pub checked: u64,
}

/// A handle; clones share the exchange.
#[derive(Clone)]
pub struct Exchange(Arc<Shared>);

struct Shared {
    blobs: Blobs,
    free_bytes: FreeBytes,
    keep_free_bytes: u64,
    links: Mutex<BTreeMap<NodeId, Arc<Linked>>>,
    /// Rises with each link that comes or goes.
    changes: watch::Sender<u64>,
    transfers: Mutex<HashMap<BlobId, Arc<Transfer>>>,
    tasks: Mutex<JoinSet<()>>,
    disk_full: watch::Sender<bool>,
    liars: Mutex<BTreeMap<BlobId, BTreeSet<NodeId>>>,
    /// What this node is about to drop, and so promises to nobody.
    leaving: Mutex<BTreeSet<BlobId>>,
    /// Came since it was last asked for.
    arrived: Mutex<Vec<BlobId>>,
    /// Found to be damaged here, and dropped.
    lost: Mutex<Vec<BlobId>>,
    checks: Mutex<check::Checks>,
    checking: Semaphore,
    /// To be used again by slices that come.
    buffers: Mutex<Vec<Vec<u8>>>,
    spare_buffers: Arc<Semaphore>,
    pieces: Mutex<serve::Pieces>,
    fetched_bytes: AtomicU64,
    served_bytes: AtomicU64,
    false_parts: AtomicU64,
    checked: AtomicU64,
}

/// A peer to whom there is a link.
struct Linked {
    node: NodeId,
    number: u64,
    streams: SideStreams,
    /// Of requests made here.
    small: Semaphore,
    large: Semaphore,
    disk_full: AtomicBool,
    /// It allows no streams beside the link's own: it is of a release that knows no blobs.
    is_mute: AtomicBool,
    has_answered: AtomicBool,
    /// What it may hear of; none: of all.
    within: Option<Within>,
}

impl Linked {
    /// Of these, those that the peer may hear of.
    async fn may_hear_of(&self, ids: Vec<BlobId>) -> Vec<BlobId> {
        let Some(within) = self.within.clone() else { return ids };
        let look = move || ids.into_iter().filter(|id| within(id)).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    fn slots(&self, size_bytes: u64) -> &Semaphore {
        if size_bytes <= SMALL_BYTES { &self.small } else { &self.large }
    }
}

type Outcome = Option<Result<(), FetchError>>;

struct Transfer {
    id: BlobId,
    max_bytes: u64,
    size_bytes: AtomicU64,
    here_bytes: AtomicU64,
    peers: AtomicU64,
    outcome: watch::Sender<Outcome>,
}

impl Exchange {
    /// Measures the disk on which the blobs are.
    pub fn over(blobs: Blobs, keep_free_bytes: u64) -> Self {
        let measured = blobs.clone();
        let free_bytes: FreeBytes = Arc::new(move || measured.free_bytes());
        Self::new(Options { blobs, free_bytes, keep_free_bytes })
    }

    pub fn new(options: Options) -> Self {
        let Options { blobs, free_bytes, keep_free_bytes } = options;
        Self(Arc::new(Shared {
            blobs,
            free_bytes,
            keep_free_bytes,
            links: Mutex::default(),
            changes: watch::Sender::new(0),
            transfers: Mutex::default(),
            tasks: Mutex::default(),
            disk_full: watch::Sender::new(false),
            liars: Mutex::default(),
            leaving: Mutex::default(),
            arrived: Mutex::default(),
            lost: Mutex::default(),
            checks: Mutex::default(),
            checking: Semaphore::new(1),
            buffers: Mutex::default(),
            spare_buffers: Arc::new(Semaphore::new(ask::SPARE_BUFFERS)),
            pieces: Mutex::default(),
            fetched_bytes: AtomicU64::new(0),
            served_bytes: AtomicU64::new(0),
            false_parts: AtomicU64::new(0),
            checked: AtomicU64::new(0),
        }))
    }

    /// Answers a peer, and asks it, for as long as this is not dropped or the link ends. Of two links to one peer the one with the
    /// higher number is asked. The peer hears of nothing but what is `within` what it may; of everything if that is none.
    pub async fn run_link(
        &self,
        node: NodeId,
        number: u64,
        streams: SideStreams,
        within: Option<Within>,
    ) {
        serve::run(&self.0, node, number, streams, within).await;
    }

    /// Brings a blob here, however many ask for it at once. Whoever waits may go away: the blob comes all the same.
    /// One that is larger than `max_bytes` does not.
    pub async fn fetch(&self, id: BlobId, max_bytes: u64) -> Result<(), FetchError> {
        let mut outcome = self.begin(id, max_bytes)?;
        match outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => Err(FetchError::Gone),
        }
    }

    fn begin(&self, id: BlobId, max_bytes: u64) -> Result<watch::Receiver<Outcome>, FetchError> {
        let shared = &self.0;
        let mut transfers = lock(&shared.transfers);
        if let Some(running) = transfers.get(&id) {
            return Ok(running.outcome.subscribe());
        }
        if transfers.len() >= MAX_TRANSFERS {
            return Err(FetchError::Busy);
        }
        let transfer = Arc::new(Transfer {
            id,
            max_bytes,
            size_bytes: AtomicU64::new(0),
            here_bytes: AtomicU64::new(0),
            peers: AtomicU64::new(0),
            outcome: watch::Sender::new(None),
        });
        let outcome = transfer.outcome.subscribe();
        transfers.insert(id, transfer.clone());
        drop(transfers);
        let mut tasks = lock(&shared.tasks);
        while tasks.try_join_next().is_some() {}
        let shared = shared.clone();
        tasks.spawn(async move {
            let running = Running { shared: &shared, transfer: &transfer };
            let outcome = fetch::run(&shared, &transfer).await;
            match &outcome {
                Ok(()) => shared.note_arrived(transfer.id),
                Err(error) => tracing::debug!(blob = %transfer.id, %error, "a blob did not come"),
            }
            drop(running);
            transfer.outcome.send_replace(Some(outcome));
        });
        Ok(outcome)
    }

    /// Of each blob its size, as one of the linked peers says, if one has it; and how many peers were asked.
    pub async fn find(&self, ids: &[BlobId]) -> (Vec<Option<u64>>, usize) {
        let mut found = vec![None; ids.len()];
        let answers = ask::find(&self.0, ids).await;
        let asked = answers.len();
        for (_, sizes) in answers {
            for (slot, size) in found.iter_mut().zip(sizes) {
                *slot = slot.or(size);
            }
        }
        (found, asked)
    }

    /// Of each blob, whether a linked peer has it and keeps it. Until [`Exchange::stayed`] is called, this node promises
    /// none of them to others: of two that would drop the same blob because the other has it, neither does.
    pub async fn release(&self, ids: &[BlobId]) -> Vec<bool> {
        lock(&self.0.leaving).extend(ids);
        let mut kept = vec![false; ids.len()];
        for (_, answers) in ask::release(&self.0, ids).await {
            kept.iter_mut().zip(answers).for_each(|(slot, is_kept)| *slot |= is_kept);
        }
        kept
    }

    pub fn stayed(&self, ids: &[BlobId]) {
        let mut leaving = lock(&self.0.leaving);
        leaving.retain(|id| !ids.contains(id));
    }

    /// Looks how much room there is, and takes note of it. True if blobs can come.
    pub fn look_for_room(&self) -> bool {
        self.0.has_room(0)
    }

    pub fn is_disk_full(&self) -> bool {
        *self.0.disk_full.borrow()
    }

    /// A number that rises with each link that comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Linked peers, and whether the disk of each is full.
    pub fn peers(&self) -> Vec<(NodeId, bool)> {
        let links = lock(&self.0.links);
        links.values().map(|link| (link.node, link.disk_full.load(Ordering::Relaxed))).collect()
    }

    pub fn transfers(&self) -> Vec<TransferStatus> {
        let mut all: Vec<_> = lock(&self.0.transfers).values().map(|one| one.status()).collect();
        all.sort_by_key(|transfer| transfer.id);
        all
    }

    pub fn figures(&self) -> Figures {
        let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Figures {
            fetched_bytes: read(&self.0.fetched_bytes),
            served_bytes: read(&self.0.served_bytes),
            false_parts: read(&self.0.false_parts),
            checked: read(&self.0.checked),
        }
    }

    /// Blobs that came since this was last asked, those among them for which nobody waited any more.
    pub fn take_arrived(&self) -> Vec<BlobId> {
        std::mem::take(&mut *lock(&self.0.arrived))
    }

    /// Blobs that were found to be damaged since this was last asked. They are not here any more.
    pub fn take_lost(&self) -> Vec<BlobId> {
        std::mem::take(&mut *lock(&self.0.lost))
    }

    /// Ends all transfers; what came is kept.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
    }
}

impl Shared {
    fn linked(&self) -> Vec<Arc<Linked>> {
        let is_asked = |link: &&Arc<Linked>| !link.is_mute.load(Ordering::Relaxed);
        lock(&self.links).values().filter(is_asked).cloned().collect()
    }

    /// Notes whether the disk has room for so many bytes and what is to be left free.
    fn has_room(&self, bytes: u64) -> bool {
        let has_room = match (self.free_bytes)() {
            Ok(free) => free >= self.keep_free_bytes.saturating_add(bytes),
            Err(error) => {
                tracing::debug!(%error, "the room on the disk cannot be told");
                true
            }
        };
        self.note_disk(!has_room);
        has_room
    }

    fn note_disk(&self, is_full: bool) {
        let changed =
            self.disk_full.send_if_modified(|known| std::mem::replace(known, is_full) != is_full);
        match (changed, is_full) {
            (true, true) => {
                tracing::warn!("the disk is full: no blobs are fetched until there is room again");
            }
            (true, false) => tracing::info!("the disk has room again: blobs are fetched"),
            (false, _) => {}
        }
    }

    fn note_lie(&self, id: BlobId, link: &Arc<Linked>) {
        let node = link.node;
        self.false_parts.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%node, blob = %id, "a peer sent bytes that are not those of a blob: it is not asked for it again");
        let mut liars = lock(&self.liars);
        if liars.len() >= MAX_LIES && !liars.contains_key(&id) {
            liars.pop_first();
        }
        liars.entry(id).or_default().insert(node);
        drop(liars);
        lock(&self.tasks).spawn(ask::complain(link.clone(), id));
    }

    fn note_arrived(&self, id: BlobId) {
        let mut arrived = lock(&self.arrived);
        if arrived.len() < MAX_ARRIVED {
            arrived.push(id);
        }
    }

    fn has_lied(&self, id: &BlobId, node: NodeId) -> bool {
        lock(&self.liars).get(id).is_some_and(|liars| liars.contains(&node))
    }
}

impl Transfer {
    fn status(&self) -> TransferStatus {
        TransferStatus {
            id: self.id,
            size_bytes: self.size_bytes.load(Ordering::Relaxed),
            here_bytes: self.here_bytes.load(Ordering::Relaxed),
            peers: self.peers.load(Ordering::Relaxed) as usize,
        }
    }
}

/// Takes a transfer off the list, however it ends.
struct Running<'a> {
    shared: &'a Shared,
    transfer: &'a Transfer,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut transfers = lock(&self.shared.transfers);
        transfers.remove(&self.transfer.id);
        if transfers.is_empty() {
            *lock(&self.shared.buffers) = Vec::new();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
