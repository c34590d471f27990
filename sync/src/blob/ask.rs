//! The asking side: one request to one peer. Whatever comes is checked before it is given on; what stalls is given up.

use super::message::{Answer, MAX_IDS, MAX_MESSAGE_BYTES, Request};
use super::{FetchError, Linked, Shared};
use crate::quic::{Error, SideStream, StopCode};
use atoll_storage::blob::tree::{Checker, PAIR_BYTES, Pair, Run, Step};
use atoll_storage::blob::{BlobId, Partial};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// After one peer has answered with something of use, the others get so much longer.
const GRACE: Duration = Duration::from_millis(500);
/// Without a byte for so long, others are asked.
const STALLED: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 256 << 10;
/// Groups that are written at once.
const WRITE_BYTES: usize = 512 << 10;

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
            link.is_mute.store(true, Ordering::Relaxed);
            return Err(AskError::Cut("it takes no requests for blobs".to_owned()));
        };
        let mut stream = opened?;
        stream.send_frame(&request.encode()).await?;
        stream.finish();
        let bytes = stream.recv_frame(MAX_MESSAGE_BYTES).await?;
        let answer = Answer::decode(&bytes).map_err(|error| AskError::Cut(error.to_string()))?;
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

/// What each linked peer that answers has of these, with its size.
pub(super) async fn find(shared: &Shared, ids: &[BlobId]) -> Vec<(Arc<Linked>, Vec<Option<u64>>)> {
    let wanted = Request::Find { ids: ids.to_vec() };
    let read = |answer| match answer {
        Answer::Found(sizes) => Some(sizes),
        _ => None,
    };
    ask_all(shared, ids, wanted, read, Option::is_some).await
}

pub(super) async fn release(shared: &Shared, ids: &[BlobId]) -> Vec<(Arc<Linked>, Vec<bool>)> {
    let wanted = Request::Release { ids: ids.to_vec() };
    let read = |answer| match answer {
        Answer::Kept(kept) => Some(kept),
        _ => None,
    };
    ask_all(shared, ids, wanted, read, |is_kept| *is_kept).await
}

async fn ask_all<T: Send + 'static>(
    shared: &Shared,
    ids: &[BlobId],
    wanted: Request,
    read: fn(Answer) -> Option<Vec<T>>,
    is_of_use: fn(&T) -> bool,
) -> Vec<(Arc<Linked>, Vec<T>)> {
    debug_assert!(ids.len() <= MAX_IDS);
    let mut asking = JoinSet::new();
    for link in shared.linked() {
        let wanted = wanted.clone();
        asking.spawn(async move {
            let answer = request(&link, &wanted).await.map(|(_, answer)| read(answer));
            (link, answer)
        });
    }
    let mut answers = Vec::new();
    let mut until = Instant::now() + ANSWER_TIMEOUT;
    while let Ok(Some(done)) = timeout_at(until, asking.join_next()).await {
        match done {
            Ok((link, Ok(Some(list)))) if list.len() == ids.len() => {
                if list.iter().any(is_of_use) {
                    until = until.min(Instant::now() + GRACE);
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

/// Who has a blob, and how large it is by his word.
pub(super) async fn holders(shared: &Shared, id: BlobId) -> (Vec<(Arc<Linked>, u64)>, usize) {
    let answers = find(shared, &[id]).await;
    let asked = answers.len();
    let has = |(link, sizes): (Arc<Linked>, Vec<Option<u64>>)| {
        let is_honest = !shared.has_lied(&id, link.node);
        sizes.first().copied().flatten().filter(|_| is_honest).map(|size| (link, size))
    };
    (answers.into_iter().filter_map(has).collect(), asked)
}

/// Where proved groups go: to the disk, or into memory while the blob's size is not proved.
pub(super) struct Landing {
    partial: Option<Partial>,
    write: Write,
    held: Vec<Write>,
}

#[derive(Default)]
struct Write {
    first: u64,
    /// None of them need have a byte: an empty blob is one empty group.
    groups: u64,
    bytes: Vec<u8>,
    pairs: Vec<(u64, Pair)>,
}

impl Landing {
    pub(super) fn on(partial: Partial) -> Self {
        Self { partial: Some(partial), write: Write::default(), held: Vec::new() }
    }

    pub(super) fn in_memory() -> Self {
        Self { partial: None, write: Write::default(), held: Vec::new() }
    }

    async fn take(&mut self, step: Step, bytes: &[u8]) -> Result<(), FetchError> {
        match step {
            Step::Pair(place) => {
                if let Ok(pair) = <Pair>::try_from(bytes) {
                    self.write.pairs.push((place, pair));
                }
            }
            Step::Group { index, .. } => {
                let is_next = self.write.first + self.write.groups == index;
                if !is_next || self.write.bytes.len() >= WRITE_BYTES {
                    // The pairs that came for this group are written with those before it, which is no harm.
                    self.put_down().await?;
                    self.write.first = index;
                }
                self.write.groups += 1;
                if self.write.bytes.capacity() == 0 {
                    self.write.bytes.reserve(WRITE_BYTES);
                }
                self.write.bytes.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// Writes what is held back.
    async fn put_down(&mut self) -> Result<(), FetchError> {
        if self.write.groups == 0 {
            return Ok(());
        }
        let write = std::mem::take(&mut self.write);
        match &self.partial {
            Some(partial) => put(partial.clone(), write).await,
            None => {
                self.held.push(write);
                Ok(())
            }
        }
    }

    /// Writes what was held in memory.
    pub(super) async fn move_to(self, partial: &Partial) -> Result<(), FetchError> {
        for write in self.held {
            put(partial.clone(), write).await?;
        }
        Ok(())
    }
}

async fn put(partial: Partial, write: Write) -> Result<(), FetchError> {
    let written =
        tokio::task::spawn_blocking(move || partial.write(write.first, &write.bytes, &write.pairs));
    Ok(written.await.map_err(|error| FetchError::Store(error.to_string()))??)
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
    let taken = receive(shared, &mut stream, Checker::new(&id, size_bytes, runs), landing).await;
    if matches!(taken, Err(AskError::False)) {
        stream.stop(StopCode::FALSE);
    }
    let landed = landing.put_down().await;
    taken?;
    landed.map_err(AskError::Here)
}

async fn receive(
    shared: &Shared,
    stream: &mut SideStream,
    mut checker: Checker,
    landing: &mut Landing,
) -> Result<(), AskError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut start, mut end) = (0, 0);
    while let Some(step) = checker.next_step() {
        let len = match step {
            Step::Pair(_) => PAIR_BYTES,
            Step::Group { len, .. } => len,
        };
        if end - start < len {
            if buffer.len() - start < len {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            let coming = timeout(STALLED, stream.recv(&mut buffer[end..])).await;
            let coming = coming.map_err(|_| AskError::Cut("nothing came in time".to_owned()))??;
            end += coming.ok_or_else(|| AskError::Cut("it ended too early".to_owned()))?;
            continue;
        }
        let part = &buffer[start..start + len];
        checker.take(part).map_err(|_| AskError::False)?;
        if let Step::Group { .. } = step {
            shared.fetched_bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
        landing.take(step, part).await.map_err(AskError::Here)?;
        start += len;
    }
    Ok(())
}
