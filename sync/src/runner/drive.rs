//! Runs one session on a thread of its own: its calls read and write the store, and may wait for it. Takes its
//! inputs one after the other, and carries out the effects of each before the next.

use super::obstacle::Ended;
use super::roster::{PeerState, PeerStatus, Place, Roster};
use crate::session::{Effect, Event, Now, Options, Phase, Session};
use atoll_storage::tx::Tx;
use atoll_storage::{Clock, Replica, Rights, Store, StreamId, Vector, peer};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What may wait for a peer that does not read. The session's own windows stay far below.
const MAX_WAITING_BYTES: usize = 128 << 20;
/// How often the lag is counted while something happens.
const COUNT_EVERY: Duration = Duration::from_millis(200);
/// A peer that says nothing of its root for so long is asked by ours.
const ROOT_EVERY_MS: u64 = 5_000;
/// A link loses nothing while it lasts: what does not come for so long is slow, or a bug.
const ANSWER_TIMEOUT_MS: u64 = 30_000;

pub(super) enum Input {
    Frame(Waiting),
    Committed,
    Tick,
    /// What the peer has of these streams, as it said.
    Known(Vec<StreamId>, oneshot::Sender<Vec<Vector>>),
    /// The link is gone, and why.
    Lost(Ended),
}

/// What may wait for the session. A frame that is longer than what is left waits for those before it, and the peer with it.
const MAX_INPUT_BYTES: usize = 8 << 20;

/// Room for frames that wait for the session, by their size.
pub(super) struct Room(Arc<Semaphore>);

/// A frame that came, and the room that it takes until the session is through with it.
pub(super) struct Waiting {
    frame: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_INPUT_BYTES)))
    }

    pub(super) async fn take(&self, frame: Bytes) -> Waiting {
        let bytes = frame.len().min(MAX_INPUT_BYTES) as u32;
        // Nobody closes it.
        let room = self.0.clone().acquire_many_owned(bytes).await.ok();
        Waiting { frame, room }
    }
}

/// Frames on their way out, bounded by their size.
#[derive(Clone)]
pub(super) struct Output {
    frames: mpsc::UnboundedSender<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

pub(super) struct Outputs {
    frames: mpsc::UnboundedReceiver<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (Output, Outputs) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let output = Output { frames: sender, waiting_bytes: waiting_bytes.clone() };
    (output, Outputs { frames: receiver, waiting_bytes })
}

impl Output {
    /// # Errors
    /// Why nothing more can be sent.
    fn push(&self, frame: Vec<u8>) -> Result<(), Ended> {
        let waiting = self.waiting_bytes.fetch_add(frame.len(), Ordering::Relaxed);
        if waiting > MAX_WAITING_BYTES {
            return Err(Ended::session("the peer reads nothing of what it is sent"));
        }
        self.frames.send(frame.into()).map_err(|_| Ended::session("the link was lost"))
    }
}

impl Outputs {
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let frame = self.frames.recv().await?;
        self.waiting_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        Some(frame)
    }
}

pub(super) struct Drive {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) name: String,
    pub(super) place: Place,
    /// What the peer may do here.
    pub(super) lets: Rights,
    pub(super) roster: Arc<Roster>,
    pub(super) output: Output,
    pub(super) traffic: Arc<Traffic>,
    /// Ops of this link that were counted as refused.
    pub(super) refused: u64,
}

/// What the link itself tells of itself.
#[derive(Default)]
pub(super) struct Traffic {
    pub(super) round_trip_us: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_bytes: AtomicU64,
}

impl Drive {
    /// To the link's end; why it ended.
    pub(super) fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Ended {
        let begun = Instant::now();
        let options = Options {
            name: self.name.clone(),
            root_every_ms: ROOT_EVERY_MS,
            answer_timeout_ms: ANSWER_TIMEOUT_MS,
            peer: Some(self.place.key.node_id()),
            peer_carries: self.roster.status_of(&self.place.key).and_then(|status| status.carries),
            lets: self.lets.clone(),
            ..Options::default()
        };
        let mut session = Session::new(options, self.now(begun));
        let mut counted: Option<Instant> = None;
        let mut is_stale = true;
        let mut next = Some(Event::Open);
        let mut room: Option<OwnedSemaphorePermit> = None;
        loop {
            let happened = !matches!(next, Some(Event::Tick));
            if let Some(event) = next.take() {
                let effects = session.handle(self.now(begun), &mut self.store, event);
                if let Err(ended) =
                    effects.into_iter().try_for_each(|effect| self.carry_out(effect))
                {
                    return ended;
                }
                drop(room.take());
            }
            self.show(&session, false);
            is_stale |= happened;
            let is_due = counted.is_none_or(|at| at.elapsed() > COUNT_EVERY);
            if is_due && (is_stale || !self.is_level()) {
                self.show(&session, true);
                (counted, is_stale) = (Some(Instant::now()), false);
            }
            next = match inputs.blocking_recv() {
                Some(Input::Frame(waiting)) => {
                    room = waiting.room;
                    Some(Event::Frame(waiting.frame.into()))
                }
                Some(Input::Committed) => Some(Event::Committed),
                Some(Input::Tick) => Some(Event::Tick),
                Some(Input::Known(streams, answer)) => {
                    let known = |stream| session.known(stream).cloned().unwrap_or_default();
                    // Who asked may have gone meanwhile.
                    let _ = answer.send(streams.iter().map(known).collect());
                    None
                }
                Some(Input::Lost(ended)) => return ended,
                None => return Ended::session("the link was closed"),
            };
        }
    }

    fn now(&self, begun: Instant) -> Now {
        Now { elapsed_ms: begun.elapsed().as_millis() as u64, wall_ms: self.clock.now_ms() }
    }

    /// # Errors
    /// Why the link must end.
    fn carry_out(&self, effect: Effect) -> Result<(), Ended> {
        let node = self.place.key.node_id();
        match effect {
            Effect::Send(frame) => return self.output.push(frame),
            Effect::Close(reason) => return Err(reason.into()),
            Effect::Alarm { stream, mine, theirs } => {
                tracing::error!(
                    %node, %stream, %mine, %theirs,
                    "two nodes have equal vectors and different states: a bug; it is being repaired from the peer's state"
                );
                self.roster.update(&self.place, |status| status.diverged = true);
            }
            Effect::Note(text) => tracing::debug!(%node, "{text}"),
        }
        Ok(())
    }

    fn is_level(&self) -> bool {
        self.roster.status_of(&self.place.key).is_some_and(|status| status.is_level())
    }

    /// Keeps what the peer carries, for the next greeting.
    fn keep_parts(&mut self, session: &Session) {
        let Some(carries) = session.peer_carries() else { return };
        let known = self.roster.status_of(&self.place.key).and_then(|status| status.carries);
        if session.status().peer.is_none() || known.as_ref() == Some(carries) {
            return;
        }
        let (node, carries) = (self.place.key.node_id(), carries.clone());
        self.roster.update(&self.place, |status| status.carries = Some(carries.clone()));
        let kept =
            self.store.write_blocking(move |tx: &mut Tx| peer::note_carries(tx, node, &carries));
        if let Err(error) = kept {
            tracing::debug!(%node, %error, "what a peer carries was not kept");
        }
    }

    /// Brings the roster up to date. Counting reads the vectors of all streams.
    fn show(&mut self, session: &Session, count: bool) {
        let lag = if count { self.lag(session) } else { None };
        if count {
            self.keep_parts(session);
        }
        let shown = session.status();
        // Before the two have compared, nothing is known of the peer, which is not the same as that it has nothing.
        let is_known = matches!(shown.phase, Phase::CatchingUp | Phase::Live);
        let acknowledged = (count && is_known).then(|| Arc::new(session.acknowledged()));
        let lets = session.peer_lets().cloned();
        let refused = shown.refused - std::mem::replace(&mut self.refused, shown.refused);
        let told = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let round_trip = Duration::from_micros(told(&self.traffic.round_trip_us));
        let (sent, received) = (&self.traffic.sent_bytes, &self.traffic.received_bytes);
        self.roster.update(&self.place, |status: &mut PeerStatus| {
            if let Some((behind, ahead)) = lag {
                (status.behind, status.ahead) = (behind, ahead);
            }
            let is_level = shown.phase == Phase::Live && status.behind == 0 && status.ahead == 0;
            // Until it is counted anew, a link that was level and is not busy stays so.
            if count || shown.phase != Phase::Live {
                status.state = if is_level { PeerState::Level } else { PeerState::CatchingUp };
            }
            if shown.equal_ms > 0 {
                status.level_ms = Some(shown.equal_ms);
            }
            status.acknowledged = acknowledged.or(status.acknowledged.take());
            if shown.contact_ms > 0 {
                status.contact_ms = Some(shown.contact_ms);
            }
            if shown.peer.is_some() {
                status.clock_skew_ms = Some(shown.clock_offset_ms);
            }
            (status.sent_bytes, status.received_bytes) = (told(sent), told(received));
            status.round_trip = Some(round_trip).filter(|time| !time.is_zero());
            status.diverged = shown.alarms > 0;
            status.refused += refused;
            status.lets = lets.or(status.lets.take());
        });
    }

    /// Ops that the peer has and this node lacks, and the other way round, as far as either said.
    fn lag(&mut self, session: &Session) -> Option<(u64, u64)> {
        let (ahead, behind) = session.lag(self.store.heads(None).ok()?);
        Some((behind, ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    async fn is_waiting(future: std::pin::Pin<&mut impl Future>) -> bool {
        let mut future = future;
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn frames_wait_once_those_before_them_take_all_the_room() {
        let room = Room::new();
        let frame = |bytes: usize| Bytes::from(vec![0; bytes]);
        let small: Vec<Waiting> = vec![room.take(frame(100)).await, room.take(frame(0)).await];
        // One that is longer than all the room gets it too, but alone.
        let mut longest = pin!(room.take(frame(MAX_INPUT_BYTES + 1)));
        assert!(is_waiting(longest.as_mut()).await);
        drop(small);
        let longest = longest.await;
        assert_eq!(longest.frame.len(), MAX_INPUT_BYTES + 1);
        let mut next = pin!(room.take(frame(1)));
        assert!(is_waiting(next.as_mut()).await);
        drop(longest);
        assert_eq!(next.await.frame.len(), 1);
    }
}
