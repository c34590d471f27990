//! The asking side: one request to one peer. Whatever comes is checked before it is given on; what stalls is given up.

use super::message::{Answer, MAX_GROUPS, MAX_IDS, MAX_MESSAGE_BYTES, Request};
use super::serve::WORD_PRIORITY;
use super::{FetchError, Linked, SLICES_AT_ONCE, Shared, lock};
use crate::quic::{Error, SideStream, StopCode};
use atoll_storage::blob::tree::{Checker, GROUP_BYTES, PAIR_BYTES, Pair, Run, Step};
use atoll_storage::blob::{BlobId, DIRECT_ALIGNMENT, Partial};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// After one peer has answered with something of use, the others get so much longer.
const GRACE: Duration = Duration::from_millis(500);
/// Without a byte for so long, others are asked.
const STALLED: Duration = Duration::from_secs(10);
/// So much is taken in before it is written.
const BUFFER_BYTES: usize = 1 << 20;
/// Besides the one that each slice has. They carry a slice on while what it took in before waits for the disk.
pub(super) const SPARE_BUFFERS: usize = 4;
const KEPT_BUFFERS: usize = SLICES_AT_ONCE + SPARE_BUFFERS;
/// Of what has come, taken at once: some dozens of packets.
const CHUNKS_AT_ONCE: usize = 64;

/// Why a slice did not come whole.
#[derive(Debug)]
pub(super) enum AskError {
    /// The peer sent what is not the blob.
    False,
    /// It does not have it, or has another one by that name.
    Missing,
    /// It is slow, or gone.
    Cut(String),
    Here(FetchError),
}

impl From<Error> for AskError {
    fn from(error: Error) -> Self {
        Self::Cut(error.to_string())
    }
}

async fn request(link: &Linked, request: &Request) -> Result<(SideStream, Answer), AskError> {
    let asking = async {
        let Ok(opened) = timeout(OPEN_TIMEOUT, link.streams.open()).await else {
            let has_answered = link.has_answered.load(Ordering::Relaxed);
            link.is_mute.store(!has_answered, Ordering::Relaxed);
            return Err(AskError::Cut("it takes no requests for blobs".to_owned()));
        };
        let mut stream = opened?;
        stream.set_priority(WORD_PRIORITY);
        stream.send_frame(&request.encode()).await?;
        stream.finish();
        let bytes = stream.recv_frame(MAX_MESSAGE_BYTES).await?;
        let answer = Answer::decode(&bytes).map_err(|error| AskError::Cut(error.to_string()))?;
        link.has_answered.store(true, Ordering::Relaxed);
        Ok((stream, answer))
    };
    timeout(ANSWER_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(AskError::Cut("no answer came".to_owned())))
}

pub(super) async fn tell(link: Arc<Linked>, disk_full: bool) {
    if let Err(error) = request(&link, &Request::Tell { disk_full }).await {
        tracing::debug!(node = %link.node, ?error, "a peer was not told about the disk");
    }
}

/// Tells a peer that it sent false bytes: its disk may be damaged.
pub(super) async fn complain(link: Arc<Linked>, id: BlobId) {
    if let Err(error) = request(&link, &Request::Complain { id }).await {
        tracing::debug!(node = %link.node, ?error, "a peer was not told about false bytes");
    }
}

/// What each linked peer that answers has of these, with its size.
pub(super) async fn find(shared: &Shared, ids: &[BlobId]) -> Vec<(Arc<Linked>, Vec<Option<u64>>)> {
    find_among(shared.linked(), ids, GRACE).await
}

async fn find_among(
    links: Vec<Arc<Linked>>,
    ids: &[BlobId],
    grace: Duration,
) -> Vec<(Arc<Linked>, Vec<Option<u64>>)> {
    let wanted = |ids| Request::Find { ids };
    let read = |answer| match answer {
        Answer::Found(sizes) => Some(sizes),
        _ => None,
    };
    ask_all(links, ids, grace, wanted, read, Option::is_some).await
}

pub(super) async fn release(shared: &Shared, ids: &[BlobId]) -> Vec<(Arc<Linked>, Vec<bool>)> {
    let wanted = |ids| Request::Release { ids };
    let read = |answer| match answer {
        Answer::Kept(kept) => Some(kept),
        _ => None,
    };
    ask_all(shared.linked(), ids, GRACE, wanted, read, |is_kept| *is_kept).await
}

/// Each is asked for those that it may hear of, and no answer about the others is as one that knows nothing of them.
async fn ask_all<T: Send + Default + 'static>(
    links: Vec<Arc<Linked>>,
    ids: &[BlobId],
    grace: Duration,
    wanted: fn(Vec<BlobId>) -> Request,
    read: fn(Answer) -> Option<Vec<T>>,
    is_of_use: fn(&T) -> bool,
) -> Vec<(Arc<Linked>, Vec<T>)> {
    debug_assert!(ids.len() <= MAX_IDS);
    let mut asking = JoinSet::new();
    for link in links {
        let ids = ids.to_vec();
        asking.spawn(async move {
            let asked = link.may_hear_of(ids.clone()).await;
            if asked.is_empty() {
                return (link, Ok(None));
            }
            let answer = request(&link, &wanted(asked.clone())).await;
            let answer = answer.map(|(_, answer)| spread(&ids, &asked, read(answer)?));
            (link, answer)
        });
    }
    let mut answers = Vec::new();
    let mut until = Instant::now() + ANSWER_TIMEOUT;
    while let Ok(Some(done)) = timeout_at(until, asking.join_next()).await {
        match done {
            Ok((link, Ok(Some(list)))) if list.len() == ids.len() => {
                if list.iter().any(is_of_use) {
                    until = until.min(Instant::now() + grace);
                }
                answers.push((link, list));
            }
            Ok((link, answer)) => {
                let error = answer.err();
                tracing::debug!(node = %link.node, ?error, "a peer did not say which blobs it has");
            }
            Err(error) => tracing::debug!(%error, "a peer was not asked about blobs"),
        }
    }
    answers
}

/// An answer about some, as one about all.
fn spread<T: Default>(ids: &[BlobId], asked: &[BlobId], answer: Vec<T>) -> Option<Vec<T>> {
    if answer.len() != asked.len() {
        return None;
    }
    let mut answers = asked.iter().zip(answer).peekable();
    let of = |id: &BlobId| {
        answers.next_if(|(asked, _)| *asked == id).map(|(_, one)| one).unwrap_or_default()
    };
    Some(ids.iter().map(of).collect())
}

/// Who has a blob, and how large it is by his word.
pub(super) async fn holders(shared: &Shared, id: BlobId) -> Vec<(Arc<Linked>, u64)> {
    honest(shared, id, find(shared, &[id]).await)
}

fn honest(
    shared: &Shared,
    id: BlobId,
    answers: Vec<(Arc<Linked>, Vec<Option<u64>>)>,
) -> Vec<(Arc<Linked>, u64)> {
    let has = |(link, sizes): (Arc<Linked>, Vec<Option<u64>>)| {
        let is_honest = !shared.has_lied(&id, link.node);
        sizes.first().copied().flatten().filter(|_| is_honest).map(|size| (link, size))
    };
    answers.into_iter().filter_map(has).collect()
}

/// Asks around for one blob. Whoever was slower than another one that had it is not forgotten: if those that were quick
/// are of no use, he is waited for.
#[derive(Default)]
pub(super) struct Inquiry {
    /// Links by number: who answered, or was waited for in vain.
    heard: BTreeSet<u64>,
    has_begun: bool,
    pub answers: usize,
}

impl Inquiry {
    /// Who has it, of those that were not heard yet; none once all were.
    pub(super) async fn next(
        &mut self,
        shared: &Shared,
        id: BlobId,
    ) -> Option<Vec<(Arc<Linked>, u64)>> {
        let is_unheard = |link: &Arc<Linked>| !self.heard.contains(&link.number);
        let links: Vec<_> = shared.linked().into_iter().filter(is_unheard).collect();
        let is_patient = std::mem::replace(&mut self.has_begun, true);
        if links.is_empty() {
            return None;
        }
        let asked: Vec<u64> = links.iter().map(|link| link.number).collect();
        let grace = if is_patient { ANSWER_TIMEOUT } else { GRACE };
        let answers = find_among(links, &[id], grace).await;
        self.answers += answers.len();
        self.heard.extend(answers.iter().map(|(link, _)| link.number));
        let was_cut_short = answers.iter().any(|(_, sizes)| sizes.iter().any(Option::is_some));
        if is_patient || !was_cut_short {
            self.heard.extend(asked);
        }
        Some(honest(shared, id, answers))
    }
}

/// Groups as they came, in memory from where they can go to the disk, with the pairs that prove them.
#[derive(Default)]
struct Catch {
    memory: Vec<u8>,
    /// Where the first group begins.
    start: usize,
    /// Where the next one begins.
    end: usize,
    groups: Vec<(u64, Range<usize>)>,
    pairs: Vec<(u64, Pair)>,
    /// Of one of the spare ones.
    #[allow(dead_code, reason = "held for its drop")]
    spare: Option<OwnedSemaphorePermit>,
}

impl Catch {
    /// In memory that was used before, if there is some: fresh pages cost as much as what is done with them. Otherwise in
    /// as much as is needed for so many bytes, at most as much as is written at once.
    fn new(shared: &Shared, for_bytes: usize) -> Self {
        let used = lock(&shared.buffers).pop();
        let len = for_bytes.clamp(GROUP_BYTES, BUFFER_BYTES) + DIRECT_ALIGNMENT;
        let memory = used.unwrap_or_else(|| vec![0; len]);
        let start =
            memory.as_ptr().addr().next_multiple_of(DIRECT_ALIGNMENT) - memory.as_ptr().addr();
        Self { memory, start, end: start, ..Self::default() }
    }

    fn give_back(self, shared: &Shared) {
        let mut buffers = lock(&shared.buffers);
        if self.memory.len() > BUFFER_BYTES && buffers.len() < KEPT_BUFFERS {
            buffers.push(self.memory);
        }
    }

    fn has_room(&self, len: usize) -> bool {
        self.end + len <= self.memory.len()
    }

    fn begin_anew(&mut self) {
        self.end = self.start;
        self.groups.clear();
        self.pairs.clear();
    }

    fn write_to(&self, partial: &Partial) -> atoll_storage::blob::Result<()> {
        let groups: Vec<(u64, &[u8])> =
            self.groups.iter().map(|(index, at)| (*index, &self.memory[at.clone()])).collect();
        partial.write(&groups, &self.pairs)
    }
}

/// What has come of a stream and was not looked at yet, as it came.
struct Coming<'a> {
    stream: &'a mut SideStream,
    chunks: [Bytes; CHUNKS_AT_ONCE],
    /// The first that is not used up; all from `came` on are.
    at: usize,
    came: usize,
    /// Bytes of the first that are used.
    used: usize,
}

impl<'a> Coming<'a> {
    fn of(stream: &'a mut SideStream) -> Self {
        Self { stream, chunks: [const { Bytes::new() }; CHUNKS_AT_ONCE], at: 0, came: 0, used: 0 }
    }

    /// Fills all of `place`.
    async fn fill(&mut self, mut place: &mut [u8]) -> Result<(), AskError> {
        while !place.is_empty() {
            if self.at == self.came {
                self.take_in().await?;
            }
            let chunk = &self.chunks[self.at][self.used..];
            let len = chunk.len().min(place.len());
            let (filled, rest) = place.split_at_mut(len);
            filled.copy_from_slice(&chunk[..len]);
            place = rest;
            self.used += len;
            if self.used == self.chunks[self.at].len() {
                (self.at, self.used) = (self.at + 1, 0);
            }
        }
        Ok(())
    }

    async fn take_in(&mut self) -> Result<(), AskError> {
        // All at once: they are counted where the socket's reader counts too, and each count takes that from it.
        self.chunks[..self.came].fill(Bytes::new());
        (self.at, self.came) = (0, 0);
        let coming = timeout(STALLED, self.stream.recv_chunks(&mut self.chunks)).await;
        let came = coming.map_err(|_| AskError::Cut("nothing came in time".to_owned()))??;
        self.came = came.ok_or_else(|| AskError::Cut("it ended too early".to_owned()))?;
        Ok(())
    }
}

type Written = atoll_storage::blob::Result<Catch>;

/// Brings to the disk what is caught of one blob, in one thread, in the order in which it is handed over.
#[derive(Clone)]
pub(super) struct Writer(Arc<Desk>);

struct Desk {
    partial: Partial,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Catch, oneshot::Sender<Written>)>,
    is_at_work: bool,
}

impl Writer {
    pub(super) fn new(partial: Partial) -> Self {
        Self(Arc::new(Desk { partial, queue: Mutex::default() }))
    }

    fn write(&self, catch: Catch) -> oneshot::Receiver<Written> {
        let (sender, written) = oneshot::channel();
        let mut queue = lock(&self.0.queue);
        queue.waiting.push_back((catch, sender));
        if !std::mem::replace(&mut queue.is_at_work, true) {
            let writer = self.clone();
            tokio::task::spawn_blocking(move || writer.work());
        }
        written
    }

    fn work(&self) {
        while let Some((catch, sender)) = self.next() {
            let written = catch.write_to(&self.0.partial).map(|()| catch);
            // Whoever waited for it may be gone.
            let _ = sender.send(written);
        }
    }

    fn next(&self) -> Option<(Catch, oneshot::Sender<Written>)> {
        let mut queue = lock(&self.0.queue);
        let next = queue.waiting.pop_front();
        queue.is_at_work = next.is_some();
        next
    }
}

/// Where proved groups go: to the disk, or into memory while the blob's size is not proved.
pub(super) struct Landing {
    writer: Option<Writer>,
    held: Vec<Catch>,
    /// What is on its way to the disk while more comes.
    writing: VecDeque<oneshot::Receiver<Written>>,
}

impl Landing {
    pub(super) fn on(writer: Writer) -> Self {
        Self { writer: Some(writer), held: Vec::new(), writing: VecDeque::new() }
    }

    pub(super) fn in_memory() -> Self {
        Self { writer: None, held: Vec::new(), writing: VecDeque::new() }
    }

    fn put_down(&mut self, catch: Catch) {
        if catch.groups.is_empty() {
            return;
        }
        match &self.writer {
            Some(writer) => self.writing.push_back(writer.write(catch)),
            None => self.held.push(catch),
        }
    }

    /// Room for what comes next: what was written, or what is spare, or else the next that will have been written.
    async fn room(&mut self, shared: &Shared) -> Result<Catch, FetchError> {
        let Some(first) = self.writing.front_mut() else {
            return Ok(Catch::new(shared, BUFFER_BYTES));
        };
        let written = match first.try_recv() {
            Err(TryRecvError::Empty) => {
                if let Ok(permit) = shared.spare_buffers.clone().try_acquire_owned() {
                    return Ok(Catch { spare: Some(permit), ..Catch::new(shared, BUFFER_BYTES) });
                }
                first.await.map_err(|_| lost())?
            }
            Err(TryRecvError::Closed) => return Err(lost()),
            Ok(written) => written,
        };
        self.writing.pop_front();
        let mut catch = written?;
        catch.begin_anew();
        Ok(catch)
    }

    /// Takes the last that was caught. Then all has landed.
    async fn finish(&mut self, shared: &Shared, catch: Catch) -> Result<(), FetchError> {
        self.put_down(catch);
        while let Some(written) = self.writing.pop_front() {
            written.await.map_err(|_| lost())??.give_back(shared);
        }
        Ok(())
    }

    /// Writes what was held in memory.
    pub(super) async fn move_to(
        self,
        shared: &Shared,
        partial: &Partial,
    ) -> Result<(), FetchError> {
        let mut landing = Self::on(Writer::new(partial.clone()));
        self.held.into_iter().for_each(|catch| landing.put_down(catch));
        landing.finish(shared, Catch::default()).await
    }
}

fn lost() -> FetchError {
    FetchError::Store("it was not written".to_owned())
}

/// Takes parts of a blob from a peer. What was proved has landed, whatever comes after it.
pub(super) async fn slice(
    shared: &Shared,
    link: &Linked,
    id: BlobId,
    size_bytes: u64,
    runs: Vec<Run>,
    landing: &mut Landing,
) -> Result<(), AskError> {
    let slot = link.slots(size_bytes).acquire().await;
    let _slot = slot.map_err(|error| AskError::Cut(error.to_string()))?;
    let wanted = Request::Slice { id, runs: runs.clone() };
    let mut stream = match request(link, &wanted).await? {
        (stream, Answer::Slice { size_bytes: told }) if told == size_bytes => stream,
        (_, Answer::Missing) => return Err(AskError::Missing),
        (mut stream, Answer::Slice { .. }) => {
            stream.stop(StopCode::FALSE);
            return Err(AskError::False);
        }
        _ => return Err(AskError::Cut("it answered something else".to_owned())),
    };
    let groups = runs.iter().fold(0_u64, |sum, run| sum.saturating_add(run.count));
    let mut catch = Catch::new(shared, groups.min(MAX_GROUPS) as usize * GROUP_BYTES);
    let checker = Checker::new(&id, size_bytes, runs);
    let taken = receive(shared, &mut stream, checker, landing, &mut catch).await;
    if matches!(taken, Err(AskError::False)) {
        stream.stop(StopCode::FALSE);
    }
    let landed = landing.finish(shared, catch).await;
    taken?;
    landed.map_err(AskError::Here)
}

async fn receive(
    shared: &Shared,
    stream: &mut SideStream,
    mut checker: Checker,
    landing: &mut Landing,
    catch: &mut Catch,
) -> Result<(), AskError> {
    let mut coming = Coming::of(stream);
    while let Some(step) = checker.next_step() {
        match step {
            Step::Pair(place) => {
                let mut pair = [0; PAIR_BYTES];
                coming.fill(&mut pair).await?;
                checker.take(&pair).map_err(|_| AskError::False)?;
                catch.pairs.push((place, pair));
            }
            Step::Group { index, len } => {
                if !catch.has_room(len) {
                    landing.put_down(std::mem::take(catch));
                    *catch = landing.room(shared).await.map_err(AskError::Here)?;
                }
                let at = catch.end..catch.end + len;
                let group = &mut catch.memory[at.clone()];
                coming.fill(group).await?;
                checker.take(group).map_err(|_| AskError::False)?;
                shared.fetched_bytes.fetch_add(len as u64, Ordering::Relaxed);
                catch.end = at.end;
                catch.groups.push((index, at));
            }
        }
    }
    Ok(())
}
