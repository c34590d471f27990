//! Taking a stream as a snapshot: the peer's index against this side's, then the ranges that differ, chunk after
//! chunk, each merged as it comes. An interrupted pull begins anew and skips what has become equal.

use super::pace::{Answers, Speed};
use super::{Options, Reason, Result, Session};
use crate::message::{Collector, Message, Packed, Page, unpack_chunk, unpack_long_chunk};
use crate::piece::{Joining, Piece};
use atoll_storage::{
    ChunkHead, Digest, RecordKey, RecordRange, Replica, SnapshotChunk, StreamId, Vector,
};
use std::collections::{BTreeMap, HashMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The ops that are needed are in the peer's log no more, or too many.
    Behind,
    /// Equal vectors, different states.
    Diverged,
}

#[derive(Default)]
pub(super) struct Pulls {
    wanted: BTreeMap<StreamId, Why>,
    now: Option<Pull>,
    last_request: u64,
    answers: Answers,
    /// Chunks asked for at once: more where they come quickly, one where they take long.
    window: usize,
}

struct Pull {
    stream: StreamId,
    why: Why,
    /// The request for the index.
    request: u64,
    index: Collector<ChunkHead>,
    /// The vector that the index stood at; none until the index is here.
    vector: Option<Vector>,
    progress_ms: u64,
    misses: u32,
    todo: VecDeque<RecordRange>,
    asked: BTreeMap<u64, (RecordRange, u64)>,
    /// The one chunk that is coming in pieces; meanwhile no others are asked for.
    long: Option<Long>,
    chunks: usize,
}

struct Long {
    request: u64,
    pieces: Joining,
    /// The first piece that was not asked for.
    next: u16,
}

/// A pull that makes no progress for so many timeouts is given up until the next round.
const MAX_MISSES: u32 = 8;
/// Each timeout is twice as long as the one before, so many times.
const MAX_DOUBLED: u32 = 2;
/// Pieces of a chunk that are asked for at once.
const PIECE_WINDOW: usize = 4;

impl Pulls {
    pub fn want(&mut self, stream: StreamId, why: Why) {
        if !self.wants(&stream) {
            self.wanted.insert(stream, why);
        }
    }

    pub fn wants(&self, stream: &StreamId) -> bool {
        self.stream() == Some(stream) || self.wanted.contains_key(stream)
    }

    pub fn stream(&self) -> Option<&StreamId> {
        self.now.as_ref().map(|pull| &pull.stream)
    }

    pub fn begin_anew(&mut self) {
        self.wanted.clear();
        self.now = None;
    }

    fn learn(&mut self, took_ms: u64, options: &Options) {
        self.window = match self.answers.judge(took_ms, options) {
            Speed::Quick => (self.window + 1).min(options.chunk_window),
            Speed::Usual => self.window,
            Speed::Slow => 1,
        };
    }

    fn next_request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    fn take_next(&mut self) -> Option<(StreamId, Why)> {
        let urgent = self.wanted.keys().find(|s| s.is_urgent());
        let stream = urgent.or_else(|| self.wanted.keys().next())?.clone();
        self.wanted.remove_entry(&stream)
    }
}

impl Session {
    pub(super) fn pull_next(&mut self) {
        if self.pulls.now.is_some() {
            return;
        }
        let Some((stream, why)) = self.pulls.take_next() else { return };
        let request = self.pulls.next_request();
        self.note(match why {
            Why::Behind => format!("taking a snapshot of {stream}"),
            Why::Diverged => format!("repairing {stream} from the peer's state"),
        });
        self.send(&Message::IndexRequest { request, stream: stream.clone() });
        self.pulls.now = Some(Pull {
            stream,
            why,
            request,
            index: Collector::default(),
            vector: None,
            progress_ms: self.now.elapsed_ms,
            misses: 0,
            todo: VecDeque::new(),
            asked: BTreeMap::new(),
            long: None,
            chunks: 0,
        });
    }

    pub(super) fn on_index(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        vector: Vector,
        page: Page<ChunkHead>,
    ) -> Result<()> {
        let now_ms = self.now.elapsed_ms;
        let Some(pull) = self.pulls.now.as_mut() else { return Ok(()) };
        if pull.request != request || pull.vector.is_some() {
            return Ok(());
        }
        let Some(theirs) = pull.index.put(label_of(request, &vector), page) else { return Ok(()) };
        let mine = replica.snapshot_index(&pull.stream)?;
        let (equal, differing) = compare(&mine.chunks, &theirs)?;
        // An op that these ranges hold already may yet come from somebody else.
        replica.hold(&pull.stream, &equal, &vector)?;
        pull.todo = differing.into();
        pull.vector = Some(vector);
        pull.progress_ms = now_ms;
        self.busy_ms = now_ms;
        self.ask_chunks(replica)
    }

    fn ask_chunks(&mut self, replica: &mut dyn Replica) -> Result<()> {
        let (window, now_ms) = (self.pulls.window.max(1), self.now.elapsed_ms);
        let mut requests = Vec::new();
        let Some(mut pull) = self.pulls.now.take() else { return Ok(()) };
        while pull.long.is_none()
            && pull.asked.len() < window
            && let Some(range) = pull.todo.pop_front()
        {
            let request = self.pulls.next_request();
            pull.asked.insert(request, (range, now_ms));
            requests.push(chunk_request(request, &pull.stream, range));
        }
        let is_done = pull.asked.is_empty();
        let vector = pull.vector.clone().filter(|_| is_done);
        let stream = pull.stream.clone();
        let text = format!("{:?}: took {} chunks of {stream}", pull.why, pull.chunks);
        self.pulls.now = Some(pull);
        requests.iter().for_each(|request| self.send(request));
        if let Some(vector) = vector {
            replica.finish_snapshot(&stream, &vector)?;
            self.learn(&stream, &vector)?;
            self.note(text);
            if let Some(head) = replica.head(&stream)?.and_then(|head| self.told(head)) {
                self.send(&Message::Pulled { head });
            }
            self.pulls.now = None;
            self.pull_next();
        }
        Ok(())
    }

    pub(super) fn on_chunk(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        packed: &Packed,
    ) -> Result<()> {
        if !self.has_asked(request) {
            return Ok(());
        }
        let chunk = unpack_chunk(packed)?;
        self.take_chunk(replica, request, chunk)
    }

    fn has_asked(&self, request: u64) -> bool {
        self.pulls.now.as_ref().is_some_and(|pull| pull.asked.contains_key(&request))
    }

    pub(super) fn on_piece(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        piece: Piece,
    ) -> Result<()> {
        let now_ms = self.now.elapsed_ms;
        let Some(pull) = self.pulls.now.as_mut() else { return Ok(()) };
        let Some((range, asked_ms)) = pull.asked.get_mut(&request) else { return Ok(()) };
        let range = *range;
        if pull.long.as_ref().is_some_and(|long| long.request != request) {
            // Another one's turn: memory is for one of them.
            pull.asked.remove(&request);
            pull.todo.push_front(range);
            return Ok(());
        }
        (pull.progress_ms, pull.misses, *asked_ms) = (now_ms, 0, now_ms);
        let new = || Long { request, pieces: Joining::default(), next: 0 };
        let long = pull.long.get_or_insert_with(new);
        if !long.pieces.is_of(&piece) {
            // The record was changed meanwhile.
            long.next = 0;
        }
        let whole = long.pieces.put(piece);
        let wanted: Vec<u16> = long.pieces.missing().take(PIECE_WINDOW).collect();
        let next = long.next;
        long.next = wanted.last().map_or(next, |last| next.max(last + 1));
        let wanted = wanted.into_iter().filter(|number| *number >= next);
        let requests = wanted.map(|number| piece_request(request, &pull.stream, range, number));
        let requests: Vec<Message> = requests.collect();
        self.busy_ms = now_ms;
        requests.iter().for_each(|request| self.send(request));
        let Some(bytes) = whole else { return Ok(()) };
        let chunk = unpack_long_chunk(&bytes)?;
        self.take_chunk(replica, request, chunk)
    }

    fn take_chunk(
        &mut self,
        replica: &mut dyn Replica,
        request: u64,
        chunk: SnapshotChunk,
    ) -> Result<()> {
        let now_ms = self.now.elapsed_ms;
        let Some(pull) = self.pulls.now.as_mut() else { return Ok(()) };
        let Some((range, asked_ms)) = pull.asked.get(&request).copied() else { return Ok(()) };
        if chunk.stream != pull.stream || !is_part((chunk.after, chunk.upto), range) {
            return Err(Reason::Malformed("a snapshot chunk that was not asked for".into()));
        }
        let upto = chunk.upto;
        replica.begin_chunk(chunk)?;
        pull.long.take_if(|long| long.request == request);
        pull.asked.remove(&request);
        pull.chunks += 1;
        (pull.progress_ms, pull.misses) = (now_ms, 0);
        if upto != range.1 {
            pull.todo.push_front((upto, range.1));
        }
        self.busy_ms = now_ms;
        self.pulls.learn(now_ms.saturating_sub(asked_ms), &self.options);
        self.ask_chunks(replica)
    }

    pub(super) fn tick_pull(&mut self, replica: &mut dyn Replica) -> Result<()> {
        let now_ms = self.now.elapsed_ms;
        let usual_ms = self.pulls.answers.patience_ms(&self.options);
        let Some(pull) = self.pulls.now.as_mut() else {
            self.pull_next();
            return Ok(());
        };
        // What is slow must not be asked for again and again: it would come as often.
        let timeout_ms = usual_ms << pull.misses.min(MAX_DOUBLED);
        if pull.progress_ms + timeout_ms > now_ms {
            return Ok(());
        }
        (pull.progress_ms, pull.misses) = (now_ms, pull.misses + 1);
        if pull.misses > MAX_MISSES {
            let text = format!("the snapshot of {} does not come: tried in vain", pull.stream);
            self.pulls.now = None;
            self.note(text);
            return self.start_round(replica);
        }
        let mut again = Vec::new();
        if pull.vector.is_none() {
            let (request, stream) = (pull.request, pull.stream.clone());
            again.push(Message::IndexRequest { request, stream });
        }
        for (request, (range, asked_ms)) in &mut pull.asked {
            if *asked_ms + timeout_ms > now_ms {
                continue;
            }
            *asked_ms = now_ms;
            match pull.long.as_ref().filter(|long| long.request == *request) {
                Some(Long { pieces, next, .. }) => {
                    let lost = pieces.missing().filter(|number| number < next);
                    again.extend(
                        lost.map(|number| piece_request(*request, &pull.stream, *range, number)),
                    );
                }
                None => again.push(chunk_request(*request, &pull.stream, *range)),
            }
        }
        again.iter().for_each(|message| self.send(message));
        Ok(())
    }
}

/// A request that was said twice is answered twice: pages of two vectors make no index together.
fn label_of(request: u64, vector: &Vector) -> u64 {
    request ^ Digest::from_hash(&vector.digest()).0[0]
}

fn chunk_request(request: u64, stream: &StreamId, (after, upto): RecordRange) -> Message {
    Message::ChunkRequest { request, stream: stream.clone(), after, upto }
}

fn piece_request(
    request: u64,
    stream: &StreamId,
    (after, upto): RecordRange,
    number: u16,
) -> Message {
    Message::PieceRequest { request, stream: stream.clone(), after, upto, number }
}

/// True if `part` begins where `whole` does, goes on, and ends no later.
fn is_part(part: RecordRange, whole: RecordRange) -> bool {
    let ends = match (part.1, whole.1) {
        (None, end) => end.is_none(),
        (Some(_), None) => true,
        (Some(part), Some(whole)) => part <= whole,
    };
    let goes_on = part.1.is_none() || part.1 > part.0;
    part.0 == whole.0 && goes_on && ends
}

/// The ranges in which both are the same, neighbours joined, and those of `theirs` in which `mine` is not.
fn compare(
    mine: &[ChunkHead],
    theirs: &[ChunkHead],
) -> Result<(Vec<RecordRange>, Vec<RecordRange>)> {
    let is_sorted = theirs.windows(2).all(|pair| pair[0].last < pair[1].last);
    if !is_sorted {
        return Err(Reason::Malformed("a snapshot index out of order".into()));
    }
    let starts = |chunks: &[ChunkHead]| -> Vec<Option<RecordKey>> {
        std::iter::once(None).chain(chunks.iter().map(|chunk| Some(chunk.last))).collect()
    };
    let mine_by_start: HashMap<Option<RecordKey>, &ChunkHead> =
        starts(mine).into_iter().zip(mine).collect();
    let (mut equal, mut differing): (Vec<RecordRange>, Vec<RecordRange>) = (vec![], vec![]);
    let mut hold = |range: RecordRange| match equal.last_mut().filter(|last| last.1 == range.0) {
        Some(last) => last.1 = range.1,
        None => equal.push(range),
    };
    for (after, chunk) in starts(theirs).into_iter().zip(theirs) {
        if mine_by_start.get(&after).is_none_or(|own| *own != chunk) {
            differing.push((after, Some(chunk.last)));
        } else {
            hold((after, Some(chunk.last)));
        }
    }
    let end = theirs.last().map(|chunk| chunk.last);
    if mine.last().map(|chunk| chunk.last) > end {
        differing.push((end, None));
    } else {
        hold((end, None));
    }
    Ok((equal, differing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_storage::Id;

    fn chunk(last: u8, digest: u64) -> ChunkHead {
        ChunkHead { last: key(last), count: 1, digest: Digest([digest; 4]) }
    }

    fn key(n: u8) -> RecordKey {
        (1, Id([n; 16]))
    }

    #[test]
    fn only_ranges_that_differ_are_asked_for() {
        let theirs = [chunk(10, 1), chunk(20, 2), chunk(30, 3)];
        assert_eq!(compare(&theirs, &theirs), Ok((vec![(None, None)], vec![])));
        let mine = [chunk(10, 1), chunk(20, 9), chunk(30, 3), chunk(40, 4)];
        let equal = vec![(None, Some(key(10))), (Some(key(20)), Some(key(30)))];
        let differing = vec![(Some(key(10)), Some(key(20))), (Some(key(30)), None)];
        assert_eq!(compare(&mine, &theirs), Ok((equal, differing)));
        assert_eq!(compare(&mine, &[]), Ok((vec![], vec![(None, None)])));
        assert_eq!(compare(&[], &theirs).map(|(_, differing)| differing.len()), Ok(3));
        assert!(compare(&mine, &[chunk(20, 1), chunk(10, 1)]).is_err());
    }

    #[test]
    fn a_chunk_must_be_a_part_of_what_was_asked_for() {
        let whole = (Some(key(1)), Some(key(9)));
        assert!(is_part((Some(key(1)), Some(key(9))), whole));
        assert!(is_part((Some(key(1)), Some(key(2))), whole));
        for wrong in [(None, Some(key(9))), (Some(key(1)), None), (Some(key(1)), Some(key(1)))] {
            assert!(!is_part(wrong, whole));
        }
        assert!(!is_part((Some(key(1)), Some(key(10))), whole));
        assert!(is_part((Some(key(1)), None), (Some(key(1)), None)));
    }
}
