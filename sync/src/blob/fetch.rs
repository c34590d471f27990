//! One blob on its way here: its size is proved first, then its parts are shared out among the peers that have it.
//! A part that does not come goes to another peer; near the end whoever has nothing to do takes over what is slow.

use super::ask::{self, AskError, Inquiry, Landing, Writer};
use super::message::MAX_GROUPS;
use super::{FetchError, Linked, SLICES_AT_ONCE, Shared, Transfer};
use atoll_storage::blob::tree::{GROUP_BYTES, Run, groups_of};
use atoll_storage::blob::{BlobId, Partial};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Peers that one blob is taken from at a time.
const MAX_HOLDERS: usize = 8;
/// A peer that failed so often in a row is asked no more.
const MAX_FAILURES: usize = 3;
/// How often what came is brought to the disk: so much and no more is lost by a power cut.
const KEEP_EVERY: Duration = Duration::from_millis(250);
/// After so many groups their bytes are brought to the disk in the background: 16 MiB. Otherwise the last that came would
/// all have to be waited for at the end.
const FLUSH_GROUPS: u64 = 1_024;

pub(super) async fn run(shared: &Arc<Shared>, transfer: &Arc<Transfer>) -> Result<(), FetchError> {
    let id = transfer.id;
    if shared.blobs.path(&id).is_some() {
        return Ok(());
    }
    let (mut inquiry, mut gone) = (Inquiry::default(), false);
    while let Some(holders) = inquiry.next(shared, id).await {
        if holders.is_empty() {
            continue;
        }
        match take_from(shared, transfer, holders).await {
            // Somebody who answers more slowly may have it still.
            Err(FetchError::Gone) => gone = true,
            outcome => return outcome,
        }
    }
    Err(if gone { FetchError::Gone } else { FetchError::Nowhere { asked: inquiry.answers } })
}

async fn take_from(
    shared: &Arc<Shared>,
    transfer: &Arc<Transfer>,
    holders: Vec<(Arc<Linked>, u64)>,
) -> Result<(), FetchError> {
    let id = transfer.id;
    let partial = begin(shared, transfer, &holders).await?;
    let left = partial.size_bytes().saturating_sub(partial.progress().0 * GROUP_BYTES as u64);
    if !shared.has_room(left) {
        return Err(FetchError::DiskFull);
    }
    let mut plan = Plan {
        shared,
        transfer,
        groups: groups_of(partial.size_bytes()),
        partial: partial.clone(),
        writer: Writer::new(partial.clone()),
        holders: BTreeMap::new(),
        flights: BTreeMap::new(),
        again: VecDeque::new(),
        cursor: 0,
        last_flight: 0,
        tasks: JoinSet::new(),
        is_keeping: false,
        flushed: 0,
        is_flushing: false,
    };
    // Some may have lied about the end.
    let honest = holders.into_iter().filter(|(link, _)| !shared.has_lied(&id, link.node));
    honest.for_each(|(link, size)| plan.add(link, size));
    let came = plan.run().await;
    drop(plan);
    if came.as_ref().is_err_and(|error| *error == FetchError::DiskFull) {
        shared.note_disk(true);
    }
    let finished = tokio::task::spawn_blocking(move || {
        if came.is_ok() {
            return Ok(partial.finish()?);
        }
        if let Err(error) = partial.keep() {
            tracing::debug!(blob = %id, %error, "how much of a blob is here was not kept");
        }
        came
    });
    finished.await.map_err(|error| FetchError::Store(error.to_string()))?
}

/// The blob as far as it is here, or as the beginning all of it if one slice holds it, or else its last group: that proves
/// how large it is.
async fn begin(
    shared: &Arc<Shared>,
    transfer: &Transfer,
    holders: &[(Arc<Linked>, u64)],
) -> Result<Partial, FetchError> {
    let id = transfer.id;
    let too_large = |size_bytes| {
        (size_bytes > transfer.max_bytes).then_some(FetchError::TooLarge { size_bytes })
    };
    if let Some(size) = open(shared, move |blobs| blobs.partial_size(&id)).await? {
        if let Some(error) = too_large(size) {
            return Err(error);
        }
        return open(shared, move |blobs| blobs.partial(&id, size)).await;
    }
    let mut failure = FetchError::Gone;
    for (link, size) in holders {
        let size = *size;
        // Before it is proved, lest a lie keeps a blob away: another peer may say something else.
        if let Some(error) = too_large(size) {
            failure = error;
            continue;
        }
        let groups = groups_of(size);
        let first = if groups <= MAX_GROUPS { 0 } else { groups - 1 };
        let runs = vec![Run { first, count: groups - first }];
        let mut landing = Landing::in_memory();
        match ask::slice(shared, link, id, size, runs, &mut landing).await {
            Ok(()) => {
                if !shared.has_room(size) {
                    return Err(FetchError::DiskFull);
                }
                let partial = open(shared, move |blobs| blobs.partial(&id, size)).await?;
                landing.move_to(shared, &partial).await?;
                return Ok(partial);
            }
            Err(AskError::False) => shared.note_lie(id, link),
            Err(AskError::Missing) => {}
            Err(AskError::Cut(why)) => {
                tracing::debug!(node = %link.node, blob = %id, why, "a peer did not send the end of a blob");
            }
            Err(AskError::Here(error)) => return Err(error),
        }
    }
    Err(failure)
}

async fn open<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&atoll_storage::blob::Blobs) -> atoll_storage::blob::Result<T> + Send + 'static,
) -> Result<T, FetchError> {
    let blobs = shared.blobs.clone();
    let opened = tokio::task::spawn_blocking(move || work(&blobs));
    Ok(opened.await.map_err(|error| FetchError::Store(error.to_string()))??)
}

struct Holder {
    link: Arc<Linked>,
    flights: usize,
    failures: usize,
}

/// A part that was asked for.
struct Flight {
    /// The link's number.
    holder: u64,
    part: Run,
    /// Another peer was asked for it too.
    is_doubled: bool,
}

enum Done {
    Slice(u64, Result<(), AskError>),
    Kept(Result<(), FetchError>),
    Flushed(Result<(), FetchError>),
}

struct Plan<'a> {
    shared: &'a Arc<Shared>,
    transfer: &'a Transfer,
    groups: u64,
    partial: Partial,
    writer: Writer,
    /// By the number of the link.
    holders: BTreeMap<u64, Holder>,
    flights: BTreeMap<u64, Flight>,
    /// Parts that did not come whole.
    again: VecDeque<Run>,
    /// Up to where parts were given out.
    cursor: u64,
    last_flight: u64,
    tasks: JoinSet<Done>,
    is_keeping: bool,
    /// Groups that were there when the last flush began.
    flushed: u64,
    is_flushing: bool,
}

impl Plan<'_> {
    fn id(&self) -> BlobId {
        self.transfer.id
    }

    fn add(&mut self, link: Arc<Linked>, size_bytes: u64) {
        let is_new = !self.holders.contains_key(&link.number);
        if is_new && size_bytes == self.partial.size_bytes() && self.holders.len() < MAX_HOLDERS {
            self.holders.insert(link.number, Holder { link, flights: 0, failures: 0 });
        }
    }

    /// Until the blob is whole, or nobody is left who could send what is missing.
    async fn run(&mut self) -> Result<(), FetchError> {
        let mut links = self.shared.changes.subscribe();
        let mut keep = tokio::time::interval(KEEP_EVERY);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keep.reset();
        loop {
            self.show();
            let (here, all) = self.partial.progress();
            if here == all {
                return Ok(());
            }
            self.ask();
            self.flush(here);
            if self.flights.is_empty() {
                return Err(FetchError::Gone);
            }
            tokio::select! {
                Some(done) = self.tasks.join_next() => match done {
                    Ok(Done::Slice(number, outcome)) => self.note(number, outcome)?,
                    Ok(Done::Kept(outcome)) => {
                        self.is_keeping = false;
                        outcome?;
                    }
                    Ok(Done::Flushed(outcome)) => {
                        self.is_flushing = false;
                        outcome?;
                    }
                    Err(error) => return Err(FetchError::Store(error.to_string())),
                },
                _ = keep.tick() => self.keep()?,
                changed = links.changed() => {
                    if changed.is_err() {
                        return Err(FetchError::Gone);
                    }
                    let linked = self.shared.linked();
                    self.holders.retain(|number, _| linked.iter().any(|link| link.number == *number));
                    let holders = ask::holders(self.shared, self.id()).await;
                    holders.into_iter().for_each(|(link, size)| self.add(link, size));
                }
            }
        }
    }

    fn show(&self) {
        let size = self.partial.size_bytes();
        let here = (self.partial.progress().0 * GROUP_BYTES as u64).min(size);
        self.transfer.size_bytes.store(size, Ordering::Relaxed);
        self.transfer.here_bytes.store(here, Ordering::Relaxed);
        self.transfer.peers.store(self.holders.len() as u64, Ordering::Relaxed);
    }

    /// Gives each peer as much as it may have at a time.
    fn ask(&mut self) {
        let numbers: Vec<u64> = self.holders.keys().copied().collect();
        // In turns, so that all have work before one has much of it.
        for _ in 0..SLICES_AT_ONCE {
            for number in &numbers {
                let is_free = self.holders.get(number).is_some_and(|h| h.flights < SLICES_AT_ONCE);
                if is_free && let Some(part) = self.next_part(*number) {
                    self.send(*number, part);
                }
            }
        }
    }

    fn next_part(&mut self, holder: u64) -> Option<Run> {
        while let Some(part) = self.again.pop_front() {
            if !self.partial.missing(part).is_empty() {
                return Some(part);
            }
        }
        while self.cursor < self.groups {
            let part = Run { first: self.cursor, count: MAX_GROUPS.min(self.groups - self.cursor) };
            self.cursor = part.end();
            if !self.partial.missing(part).is_empty() {
                return Some(part);
            }
        }
        // What another peer has been at for longest.
        let slow = |flight: &&mut Flight| flight.holder != holder && !flight.is_doubled;
        let flight = self.flights.values_mut().find(slow)?;
        flight.is_doubled = true;
        Some(flight.part)
    }

    fn send(&mut self, number: u64, part: Run) {
        let Some(holder) = self.holders.get_mut(&number) else { return };
        holder.flights += 1;
        self.last_flight += 1;
        let flight = self.last_flight;
        let is_doubled = self.flights.values().any(|other| other.part == part);
        self.flights.insert(flight, Flight { holder: number, part, is_doubled });
        let (shared, link, id) = (self.shared.clone(), holder.link.clone(), self.transfer.id);
        let (partial, writer) = (self.partial.clone(), self.writer.clone());
        self.tasks.spawn(async move {
            let runs = partial.missing(part);
            if runs.is_empty() {
                return Done::Slice(flight, Ok(()));
            }
            let size = partial.size_bytes();
            let mut landing = Landing::on(writer);
            Done::Slice(flight, ask::slice(&shared, &link, id, size, runs, &mut landing).await)
        });
    }

    fn note(&mut self, number: u64, outcome: Result<(), AskError>) -> Result<(), FetchError> {
        let Some(flight) = self.flights.remove(&number) else { return Ok(()) };
        if !self.partial.missing(flight.part).is_empty() {
            self.again.push_back(flight.part);
        }
        let id = self.id();
        let Some(holder) = self.holders.get_mut(&flight.holder) else { return Ok(()) };
        holder.flights -= 1;
        let is_done_with = match outcome {
            Ok(()) => {
                holder.failures = 0;
                false
            }
            Err(AskError::Here(error)) => return Err(error),
            Err(AskError::False) => {
                self.shared.note_lie(id, &holder.link);
                true
            }
            Err(AskError::Missing) => true,
            Err(AskError::Cut(why)) => {
                tracing::debug!(node = %holder.link.node, blob = %id, why, "a part of a blob did not come");
                holder.failures += 1;
                holder.failures >= MAX_FAILURES
            }
        };
        if is_done_with {
            self.holders.remove(&flight.holder);
        }
        Ok(())
    }

    fn flush(&mut self, here: u64) {
        if here >= self.flushed + FLUSH_GROUPS && !self.is_flushing {
            (self.flushed, self.is_flushing) = (here, true);
            let partial = self.partial.clone();
            let work = move || Done::Flushed(partial.flush().map_err(FetchError::from));
            self.tasks.spawn_blocking(work);
        }
    }

    /// Brings to the disk what came since the last time.
    fn keep(&mut self) -> Result<(), FetchError> {
        if !self.shared.has_room(0) {
            return Err(FetchError::DiskFull);
        }
        if !std::mem::replace(&mut self.is_keeping, true) {
            let partial = self.partial.clone();
            self.tasks.spawn_blocking(move || Done::Kept(partial.keep().map_err(FetchError::from)));
        }
        Ok(())
    }
}
