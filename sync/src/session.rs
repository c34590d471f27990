//! One link between two nodes as a state machine: events in, effects out. It does no I/O, reads no clock and
//! keeps nothing that the link's end would lose: what counts stands in the replica.
//!
//! Every message may be lost, doubled or late without harm. An op is left out for one reason only: the peer's
//! vector covers it.

mod carries;
mod compare;
mod flow;
mod pace;
mod pull;
mod push;
mod relay;
mod serve;

use crate::message::{Hello, MAX_UNPACKED_BYTES, Message, MessageError, OLDEST_VERSION, VERSION};
use atoll_storage::{
    Carries, Digest, NodeId, Origin, Replica, Rights, StreamHead, StreamId, Vector,
};
use std::collections::BTreeMap;
use thiserror::Error;

pub use flow::Flow;

#[derive(Clone, Debug)]
pub struct Options {
    /// This node's name, for the people on the other side.
    pub name: String,
    /// What is not answered for so long is said again.
    pub answer_timeout_ms: u64,
    /// How often the roots are compared on a live link.
    pub root_every_ms: u64,
    /// Without ops for so long, unequal roots are a reason to compare anew.
    pub quiet_ms: u64,
    /// An empty stream is taken as a snapshot if the peer has at least so many ops of it.
    pub snapshot_from_ops: u64,
    /// Batches on their way at most.
    pub window: usize,
    /// Snapshot chunks asked for at most.
    pub chunk_window: usize,
    /// A snapshot chunk that is longer goes in eight pieces or more, to a peer that understands them.
    pub chunk_bytes: usize,
    pub batch_ops: usize,
    pub batch_bytes: usize,
    /// What is answered sooner may be more at once, and what takes longer must be less.
    pub quick_ms: u64,
    pub slow_ms: u64,
    /// Who is at the other end, if that is known, and what it carries, as it said when the two last met.
    pub peer: Option<NodeId>,
    pub peer_carries: Option<Carries>,
    /// What the peer may do here, as long as this link lasts.
    pub lets: Rights,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: String::new(),
            answer_timeout_ms: 10_000,
            root_every_ms: 30_000,
            quiet_ms: 2_000,
            snapshot_from_ops: 2_000,
            window: 4,
            chunk_window: 8,
            chunk_bytes: 4 << 20,
            batch_ops: 1_000,
            batch_bytes: 1 << 20,
            quick_ms: 250,
            slow_ms: 1_000,
            peer: None,
            peer_carries: None,
            lets: Rights::everything(),
        }
    }
}

/// The time as the driver has it. `elapsed_ms` never steps back and drives timeouts; `wall_ms` is shown to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub elapsed_ms: u64,
    pub wall_ms: u64,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The link stands. To be given once, first.
    Open,
    /// A frame came: the bytes of one message.
    Frame(Vec<u8>),
    /// Something was committed here, by whomever.
    Committed,
    /// To be given every second or so; timeouts are looked at then.
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Send(Vec<u8>),
    /// The session is over. The driver closes the link and shows the reason.
    Close(Reason),
    /// Equal vectors with different states: a bug was found. It is being repaired from the peer's state.
    Alarm {
        stream: StreamId,
        mine: Digest,
        theirs: Digest,
    },
    /// Something for the log.
    Note(String),
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Reason {
    #[error(
        "the peer speaks protocol {theirs}, this node {VERSION} (and down to {OLDEST_VERSION}): upgrade the older one"
    )]
    Version { theirs: u16 },
    #[error(
        "the peer says that it is this very node ({0}): one of the two runs on a copy of the other's data folder; give it a new one and let it join"
    )]
    Clone(String),
    #[error(
        "the peer speaks protocol {theirs}, which knows no grants, and may not do everything here: upgrade it"
    )]
    NoGrants { theirs: u16 },
    #[error("the time is over for which the peer may do anything here")]
    GrantExpired,
    #[error("the peer sent what makes no sense: {0}")]
    Malformed(String),
    #[error("this node cannot store what came: {}", atoll_storage::Error::Full)]
    Full,
    #[error("this node cannot store what came: {0}")]
    Store(String),
}

impl From<MessageError> for Reason {
    fn from(error: MessageError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<atoll_storage::Error> for Reason {
    fn from(error: atoll_storage::Error) -> Self {
        match error {
            atoll_storage::Error::Malformed(what) => Self::Malformed(what),
            atoll_storage::Error::Full => Self::Full,
            other => Self::Store(other.to_string()),
        }
    }
}

type Result<T> = std::result::Result<T, Reason>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the peer's hello.
    Greeting,
    /// Finding out what differs.
    Comparing,
    /// Taking a snapshot, or ops are on their way.
    CatchingUp,
    Live,
    Closed,
}

/// A link as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    pub peer: Option<Origin>,
    pub peer_name: String,
    /// The peer's wall clock less this node's.
    pub clock_offset_ms: i64,
    /// Ops that the peer lacks, and that this node lacks, when last counted.
    pub to_send: u64,
    pub to_receive: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Wall time of the last frame that came.
    pub contact_ms: u64,
    /// Wall time at which both sides were last seen to be equal.
    pub equal_ms: u64,
    /// The stream whose snapshot is being taken.
    pub pulling: Option<StreamId>,
    /// Raised on this link, and not yet followed by equal states.
    pub alarms: u64,
    /// Ops that came on this link, and that the peer may not write here.
    pub refused: u64,
}

struct Peer {
    origin: Origin,
    name: String,
    clock_offset_ms: i64,
}

/// What was said in this side's hello. It is repeated word for word, so that both sides judge the same pair of roots.
struct Greeting {
    root: Digest,
    heads: Vec<StreamHead>,
    at_ms: u64,
}

#[derive(Default)]
struct Figures {
    at_ms: u64,
    to_send: u64,
    to_receive: u64,
    sent_bytes: u64,
    received_bytes: u64,
    contact_ms: u64,
    equal_ms: u64,
    alarms: u64,
    refused: u64,
}

pub struct Session {
    options: Options,
    now: Now,
    greeting: Option<Greeting>,
    peer: Option<Peer>,
    /// True once it was found out what the peer has. Nothing is pushed before.
    compared: bool,
    /// What the peer has: what it acknowledged or showed. Of blocked streams: everything, so that nothing is read.
    known: BTreeMap<StreamId, Vector>,
    /// What the peer really has of streams of which not everything goes to it: of those, `known` tells what need not be read.
    lifted: BTreeMap<StreamId, Vector>,
    parts: carries::Parts,
    rounds: compare::Rounds,
    pushing: push::Pushing,
    relays: relay::Relays,
    pulls: pull::Pulls,
    serving: Option<serve::Serving>,
    root_at_ms: u64,
    /// When ops last came or went.
    busy_ms: u64,
    figures: Figures,
    closed: bool,
    effects: Vec<Effect>,
}

/// More streams than this are no honest network's.
const MAX_STREAMS: usize = 200_000;
/// How often the figures for people are counted.
const FIGURES_EVERY_MS: u64 = 2_000;

impl Session {
    pub fn new(options: Options, now: Now) -> Self {
        Self {
            options,
            now,
            greeting: None,
            peer: None,
            compared: false,
            known: BTreeMap::new(),
            lifted: BTreeMap::new(),
            parts: carries::Parts::default(),
            rounds: compare::Rounds::default(),
            pushing: push::Pushing::default(),
            relays: relay::Relays::default(),
            pulls: pull::Pulls::default(),
            serving: None,
            root_at_ms: now.elapsed_ms,
            busy_ms: now.elapsed_ms,
            figures: Figures::default(),
            closed: false,
            effects: vec![],
        }
    }

    /// One step. The effects are to be carried out in their order.
    pub fn handle(&mut self, now: Now, replica: &mut dyn Replica, event: Event) -> Vec<Effect> {
        if self.closed {
            return vec![];
        }
        let elapsed_ms = now.elapsed_ms.max(self.now.elapsed_ms);
        self.now = Now { elapsed_ms, ..now };
        let result = self.must_be_let().and_then(|()| self.follow_parts(replica));
        let result = result.and_then(|()| match event {
            Event::Open => self.open(replica),
            Event::Frame(bytes) => self.receive(replica, &bytes),
            Event::Committed => self.push(replica),
            Event::Tick => self.tick(replica),
        });
        if let Err(reason) = result {
            self.closed = true;
            self.effects.push(Effect::Close(reason));
        }
        std::mem::take(&mut self.effects)
    }

    fn must_be_let(&self) -> Result<()> {
        let is_over = self.options.lets.is_over(self.now.wall_ms);
        if is_over { Err(Reason::GrantExpired) } else { Ok(()) }
    }

    pub fn status(&self) -> Status {
        let peer = self.peer.as_ref();
        let figures = &self.figures;
        Status {
            phase: self.phase(),
            peer: peer.map(|p| p.origin),
            peer_name: peer.map(|p| p.name.clone()).unwrap_or_default(),
            clock_offset_ms: peer.map_or(0, |p| p.clock_offset_ms),
            to_send: figures.to_send,
            to_receive: figures.to_receive,
            sent_bytes: figures.sent_bytes,
            received_bytes: figures.received_bytes,
            contact_ms: figures.contact_ms,
            equal_ms: figures.equal_ms,
            pulling: self.pulls.stream().cloned(),
            alarms: figures.alarms,
            refused: figures.refused,
        }
    }

    /// What the peer has of a stream, as it said itself.
    pub fn known(&self, stream: &StreamId) -> Option<&Vector> {
        if !self.shares(stream) {
            return None;
        }
        let blocked = self.pushing.blocked.get(stream).map(|block| &block.real);
        blocked.or_else(|| self.lifted.get(stream)).or_else(|| self.known.get(stream))
    }

    /// What the peer has of each stream that both carry, as it said itself.
    pub fn acknowledged(&self) -> BTreeMap<StreamId, Vector> {
        let real = |stream: &StreamId| Some((stream.clone(), self.known(stream)?.clone()));
        self.known.keys().filter_map(real).collect()
    }

    fn phase(&self) -> Phase {
        match () {
            () if self.closed => Phase::Closed,
            () if self.peer.is_none() => Phase::Greeting,
            () if !self.compared => Phase::Comparing,
            () if self.is_busy() => Phase::CatchingUp,
            () => Phase::Live,
        }
    }

    fn is_busy(&self) -> bool {
        !self.pushing.flights.is_empty() || self.pulls.stream().is_some()
    }

    fn open(&mut self, replica: &mut dyn Replica) -> Result<()> {
        self.assume_parts(replica);
        let heads = self.shared_heads(replica, None)?;
        let root = self.root_over(replica, &heads);
        self.greeting = Some(Greeting { root, heads, at_ms: self.now.elapsed_ms });
        self.greet(replica, false);
        Ok(())
    }

    fn greet(&mut self, replica: &dyn Replica, seen: bool) {
        let Some(greeting) = &mut self.greeting else { return };
        greeting.at_ms = self.now.elapsed_ms;
        let root = greeting.root;
        self.send(&Message::Hello(Hello {
            version: VERSION,
            oldest_version: OLDEST_VERSION,
            origin: replica.origin(),
            root,
            time_ms: self.now.wall_ms,
            name: Hello::short_name(&self.options.name),
            seen,
        }));
    }

    fn receive(&mut self, replica: &mut dyn Replica, bytes: &[u8]) -> Result<()> {
        self.figures.received_bytes += bytes.len() as u64;
        self.figures.contact_ms = self.now.wall_ms;
        if bytes.len() > MAX_UNPACKED_BYTES {
            return Err(MessageError::TooLong.into());
        }
        let message = Message::decode(bytes)?;
        if self.peer.is_none() && !matches!(message, Message::Hello(_)) {
            // It overtook the hello, which will be said again.
            return Ok(());
        }
        let tells_parts =
            matches!(message, Message::Hello(_) | Message::Carries { .. } | Message::Parts { .. });
        if !self.knows_parts() && !tells_parts {
            // The same.
            return Ok(());
        }
        match message {
            Message::Hello(hello) => self.on_hello(replica, hello),
            Message::Compare { round, page } => self.on_compare(replica, round, page),
            Message::Differ { round, page } => self.on_differ(replica, round, page),
            Message::Heads { asked, round, page } => self.on_heads(replica, asked, round, page),
            Message::Ops { batch, ops } => self.on_ops(replica, batch, &ops),
            Message::Ack { batch, vectors } => self.on_ack(replica, batch, vectors),
            Message::Root { root, time_ms } => self.on_root(replica, root, time_ms),
            Message::IndexRequest { request, stream } => self.serve_index(replica, request, stream),
            Message::Index { request, vector, page } => {
                self.on_index(replica, request, vector, page)
            }
            Message::ChunkRequest { request, stream, after, upto } => {
                self.serve_chunk(replica, request, stream, (after, upto))
            }
            Message::Chunk { request, chunk } => self.on_chunk(replica, request, &chunk),
            Message::PieceRequest { request, stream, after, upto, number } => {
                self.serve_piece(replica, request, stream, (after, upto), number)
            }
            Message::Piece { request, piece } => self.on_piece(replica, request, piece),
            Message::Pulled { head } => self.on_pulled(replica, head),
            Message::Carries { number, carries, seen } => {
                self.on_parts(replica, number, (carries, Rights::everything()), seen)
            }
            Message::Parts { number, carries, rights, seen } => {
                self.on_parts(replica, number, (carries, rights), seen)
            }
        }
    }

    fn on_hello(&mut self, replica: &mut dyn Replica, hello: Hello) -> Result<()> {
        if hello.version < OLDEST_VERSION || hello.oldest_version > VERSION {
            return Err(Reason::Version { theirs: hello.version });
        }
        if hello.origin.node == replica.origin().node {
            return Err(Reason::Clone(Hello::short_name(&hello.name)));
        }
        let Some(greeting) = &self.greeting else { return Ok(()) };
        let clock_offset_ms = hello.time_ms.wrapping_sub(self.now.wall_ms) as i64;
        let name = Hello::short_name(&hello.name);
        let is_first = self.peer.is_none();
        let mine = replica.origin();
        let (origin, equal) = (hello.origin, hello.root == greeting.root && self.has_kept_parts());
        self.peer = Some(Peer { origin, name, clock_offset_ms });
        if !is_first {
            if !hello.seen {
                self.greet(replica, true);
            }
            return Ok(());
        }
        let heads = self.greeting.as_mut().map(|g| std::mem::take(&mut g.heads));
        self.note_version(hello.version)?;
        if equal {
            self.note_equal();
            for head in heads.unwrap_or_default() {
                self.learn(&head.stream, &head.vector)?;
            }
            return self.begin_pushing(replica);
        }
        self.ask_parts(hello.version);
        if !self.knows_parts() {
            return Ok(());
        }
        if mine < origin { self.start_round(replica) } else { self.await_round() }
    }

    fn on_root(&mut self, replica: &mut dyn Replica, root: Digest, time_ms: u64) -> Result<()> {
        if let Some(peer) = &mut self.peer {
            peer.clock_offset_ms = time_ms.wrapping_sub(self.now.wall_ms) as i64;
        }
        let heads = self.shared_heads(replica, None)?;
        if root == self.root_over(replica, &heads) {
            self.note_equal();
            return Ok(());
        }
        // A link that is never quiet compares all the same, now and then.
        if self.rounds.is_waiting() || !self.compared || !(self.is_quiet() || self.is_due()) {
            return Ok(());
        }
        self.start_round(replica)
    }

    fn is_quiet(&self) -> bool {
        self.busy_ms + self.options.quiet_ms <= self.now.elapsed_ms && !self.is_busy()
    }

    fn is_due(&self) -> bool {
        self.rounds.finished_ms + 10 * self.options.root_every_ms <= self.now.elapsed_ms
    }

    /// Roots say nothing of streams that do not go both ways whole: of those, what is missing is a reason for a round by
    /// itself. If a round brought nothing, the next one has time.
    fn mind_what_no_root_tells(&mut self, replica: &mut dyn Replica) -> Result<()> {
        if self.is_unlimited() || self.rounds.is_waiting() || !self.is_quiet() {
            return Ok(());
        }
        let lag = self.lag(replica.heads(None)?);
        let is_as_before = self.rounds.lag == lag;
        self.rounds.lag = lag;
        if lag == (0, 0) || (is_as_before && !self.is_due()) {
            return Ok(());
        }
        self.start_round(replica)
    }

    fn tick(&mut self, replica: &mut dyn Replica) -> Result<()> {
        let Some(greeting) = &self.greeting else { return Ok(()) };
        if self.peer.is_none() {
            if self.is_overdue(greeting.at_ms) {
                self.greet(replica, false);
            }
            return Ok(());
        }
        self.tick_parts();
        if !self.knows_parts() {
            return Ok(());
        }
        self.tick_round(replica)?;
        self.tick_push(replica)?;
        self.tick_pull(replica)?;
        self.tick_serving();
        if self.compared && self.root_at_ms + self.options.root_every_ms <= self.now.elapsed_ms {
            self.root_at_ms = self.now.elapsed_ms;
            let heads = self.shared_heads(replica, None)?;
            let root = self.root_over(replica, &heads);
            self.send(&Message::Root { root, time_ms: self.now.wall_ms });
            self.mind_what_no_root_tells(replica)?;
        }
        self.count(replica)
    }

    fn count(&mut self, replica: &mut dyn Replica) -> Result<()> {
        let every_ms =
            if self.is_busy() { FIGURES_EVERY_MS } else { self.options.root_every_ms.max(1) };
        if self.compared && self.figures.at_ms + every_ms <= self.now.elapsed_ms {
            self.figures.at_ms = self.now.elapsed_ms;
            (self.figures.to_send, self.figures.to_receive) = self.lag(replica.heads(None)?);
        }
        Ok(())
    }

    /// Ops that the peer lacks of what is here, and ops that it has and are not here, as far as it said.
    pub fn lag(&self, heads: Vec<StreamHead>) -> (u64, u64) {
        let mine: BTreeMap<StreamId, Vector> =
            heads.into_iter().map(|head| (head.stream, head.vector)).collect();
        let nothing = Vector::default();
        let theirs = |stream: &StreamId| self.known(stream).unwrap_or(&nothing);
        let (me, peer) = (self.me(), self.peer_node().unwrap_or_default());
        let (mut to_send, mut to_receive) = (0_u64, 0_u64);
        for (stream, vector) in &mine {
            let (out, in_) = (self.outward(stream), self.inward(stream));
            to_send = to_send.saturating_add(out.lead(me, vector, theirs(stream)));
            to_receive = to_receive.saturating_add(in_.lead(peer, theirs(stream), vector));
        }
        for stream in self.known.keys().filter(|s| !mine.contains_key(s)) {
            let lead = self.inward(stream).lead(peer, theirs(stream), &nothing);
            to_receive = to_receive.saturating_add(lead);
        }
        (to_send, to_receive)
    }

    /// Both sides hold the same: what was found to differ is repaired.
    fn note_equal(&mut self) {
        (self.figures.equal_ms, self.figures.alarms) = (self.now.wall_ms, 0);
    }

    fn send(&mut self, message: &Message) {
        let bytes = message.encode();
        self.figures.sent_bytes += bytes.len() as u64;
        self.effects.push(Effect::Send(bytes));
    }

    fn note(&mut self, text: String) {
        self.effects.push(Effect::Note(text));
    }

    fn is_overdue(&self, since_ms: u64) -> bool {
        since_ms + self.options.answer_timeout_ms <= self.now.elapsed_ms
    }

    /// The peer has this much of a stream. Vectors only grow while a link lasts.
    fn learn(&mut self, stream: &StreamId, vector: &Vector) -> Result<()> {
        if !self.shares(stream) {
            return Ok(());
        }
        if let Some(block) = self.pushing.blocked.get_mut(stream) {
            block.real.merge(vector);
            return Ok(());
        }
        if let Some(real) = self.lifted.get_mut(stream) {
            real.merge(vector);
        }
        if let Some(known) = self.known.get_mut(stream) {
            known.merge(vector);
            return Ok(());
        }
        if self.known.len() >= MAX_STREAMS {
            return Err(Reason::Malformed(format!(
                "the peer names more than {MAX_STREAMS} streams"
            )));
        }
        self.known.insert(stream.clone(), vector.clone());
        Ok(())
    }
}
