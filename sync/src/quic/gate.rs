//! The answering side: from the first packet of somebody unknown to a link, a join, or a closed door.
//! Whatever waits here is counted and has a deadline; a stranger never gets further than one small frame.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::{Connection, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::error::{CloseCode, Error};
use super::hello::{Hello, JoinRequest, Reply};
use super::link::Link;
use super::{Admission, Admit, CLOSING, JoinHandler, Knock, LINK_WINDOW_BYTES, Limits, tls};
use crate::frame::MAX_FRAME_BYTES;
use crate::key::PublicKey;
use crate::ticket::Secret;

const NOT_KNOWN: &str = "this node does not know your key: join with a ticket";
const EXPIRED: &str = "the time is over for which your key may do anything here";
const WITHDRAWN: &str = "your key may do nothing here any more";
const REVOKED: &str = "this key has been revoked";
const BUSY: &str = "too many links: try again later";
const TOO_SLOW: &str = "nothing came in time";
const TRY_LATER: &str = "the node could not answer in time: try the same ticket again later";

pub(super) struct Gate {
    admit: Admit,
    join: JoinHandler,
    handshakes: Arc<Semaphore>,
    strangers: Semaphore,
    slots: Arc<Slots>,
    limits: Limits,
    ready: mpsc::Sender<Link>,
}

impl Gate {
    pub(super) fn new(
        admit: Admit,
        join: JoinHandler,
        limits: Limits,
        ready: mpsc::Sender<Link>,
    ) -> Self {
        Self {
            admit,
            join,
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            strangers: Semaphore::new(limits.strangers),
            slots: Arc::new(Slots::new(&limits)),
            limits,
            ready,
        }
    }

    /// Until the socket is closed. The visits under way end with this.
    pub(super) async fn run(self: Arc<Self>, socket: quinn::Endpoint) {
        let mut visits = JoinSet::new();
        loop {
            tokio::select! {
                incoming = socket.accept() => match incoming {
                    Some(incoming) => self.receive(incoming, &mut visits),
                    None => return,
                },
                Some(ended) = visits.join_next() => if let Err(error) = ended {
                    warn!(%error, "a visit by another node ended badly");
                },
            }
        }
    }

    fn receive(self: &Arc<Self>, incoming: Incoming, visits: &mut JoinSet<()>) {
        let is_crowded = self.handshakes.available_permits() * 2 <= self.limits.handshakes;
        if is_crowded && !incoming.remote_address_validated() {
            // Costs the caller a round trip, and this node nothing. Fails only where the address is proved.
            let _ = incoming.retry();
            return;
        }
        match self.handshakes.clone().try_acquire_owned() {
            Ok(permit) => {
                visits.spawn(self.clone().visit(incoming, permit));
            }
            Err(_) => incoming.refuse(),
        }
    }

    async fn visit(self: Arc<Self>, incoming: Incoming, permit: OwnedSemaphorePermit) {
        let remote = incoming.remote_address();
        if let Err(error) = self.meet(incoming, permit).await {
            debug!(%remote, %error, "a contact came to nothing");
        }
    }

    async fn meet(&self, incoming: Incoming, permit: OwnedSemaphorePermit) -> Result<(), Error> {
        let deadline = Instant::now() + self.limits.hello_timeout;
        let connection = timeout_at(deadline, incoming).await.map_err(|_| Error::Silent)??;
        let peer = tls::proved_key(&connection)?;
        let closed = match (self.admit)(&peer) {
            Admission::Revoked => Err(Closing(CloseCode::REVOKED, REVOKED)),
            Admission::Stranger => {
                let unless_it_joins = Closing(CloseCode::STRANGER, NOT_KNOWN);
                self.meet_stranger(&connection, peer, deadline, unless_it_joins).await
            }
            Admission::Expired => {
                let unless_it_joins = Closing(CloseCode::GRANT_EXPIRED, EXPIRED);
                self.meet_stranger(&connection, peer, deadline, unless_it_joins).await
            }
            Admission::Withdrawn => {
                let unless_it_joins = Closing(CloseCode::GRANT_WITHDRAWN, WITHDRAWN);
                self.meet_stranger(&connection, peer, deadline, unless_it_joins).await
            }
            Admission::Peer => self.meet_peer(&connection, peer, deadline, permit).await,
        };
        if let Err(Closing(code, reason)) = closed {
            debug!(node = %peer.node_id(), remote = %connection.remote_address(), %reason, "turned away");
            connection.close(code.into(), reason.as_bytes());
        }
        Ok(())
    }

    async fn meet_stranger(
        &self,
        connection: &Connection,
        key: PublicKey,
        deadline: Instant,
        unless_it_joins: Closing,
    ) -> Result<(), Closing> {
        let _permit = self.strangers.try_acquire().map_err(|_| Closing(CloseCode::BUSY, BUSY))?;
        match hello(connection, key, None, deadline).await? {
            (_, Hello::Link) => Err(unless_it_joins),
            (link, Hello::Join { secret, request }) => {
                self.answer_join(link, connection, secret, request).await
            }
        }
    }

    async fn meet_peer(
        &self,
        connection: &Connection,
        key: PublicKey,
        deadline: Instant,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), Closing> {
        let slot = Slots::take(&self.slots, key).ok_or(Closing(CloseCode::BUSY, BUSY))?;
        match hello(connection, key, Some(slot), deadline).await? {
            (mut link, Hello::Link) => {
                connection.set_receive_window(LINK_WINDOW_BYTES.into());
                link.recv.allow(MAX_FRAME_BYTES);
                reply(&mut link, &Reply::Welcome, deadline).await?;
                // From here on it counts as a link, and waits for the layer above, not the other way round.
                drop(permit);
                self.ready.send(link).await.map_err(|_| Closing(CloseCode::SHUTDOWN, "stopping"))
            }
            // It joined before, and the answer was lost.
            (link, Hello::Join { secret, request }) => {
                self.answer_join(link, connection, secret, request).await
            }
        }
    }

    async fn answer_join(
        &self,
        mut link: Link,
        connection: &Connection,
        secret: Secret,
        request: JoinRequest,
    ) -> Result<(), Closing> {
        let knock = Knock { key: link.peer, remote: link.remote, secret, request };
        let answer = timeout(self.limits.join_timeout, (self.join)(knock)).await;
        let answer = match answer.unwrap_or_else(|_| Err(TRY_LATER.into())) {
            Ok(answer) => Reply::Joined(answer),
            Err(reason) => Reply::Refused(super::error::tame(reason.as_bytes())),
        };
        reply(&mut link, &answer, Instant::now() + CLOSING).await?;
        // The one who asked closes once it has read the answer.
        let _ = timeout(CLOSING, connection.closed()).await;
        Err(Closing(CloseCode::DONE, ""))
    }
}

/// How a visit ends that becomes no link.
struct Closing(CloseCode, &'static str);

impl From<Error> for Closing {
    fn from(_: Error) -> Self {
        Self(CloseCode::PROTOCOL, "what came is not a hello")
    }
}

/// Waits for the one stream and its first frame.
async fn hello(
    connection: &Connection,
    key: PublicKey,
    slot: Option<Slot>,
    deadline: Instant,
) -> Result<(Link, Hello), Closing> {
    let first = async {
        let (send, recv) = connection.accept_bi().await?;
        let mut link = Link::new(key, connection, send, recv, slot);
        let hello = Hello::decode(link.recv.recv().await?)?;
        Ok::<_, Error>((link, hello))
    };
    Ok(timeout_at(deadline, first).await.map_err(|_| Closing(CloseCode::TIMEOUT, TOO_SLOW))??)
}

async fn reply(link: &mut Link, reply: &Reply, deadline: Instant) -> Result<(), Closing> {
    let bytes = reply.encode().map_err(|error| {
        warn!(%error, "the answer to a node that joins cannot be sent");
        Closing(CloseCode::PROTOCOL, "the node has no fit answer")
    })?;
    timeout_at(deadline, link.send.send(&bytes))
        .await
        .map_err(|_| Closing(CloseCode::TIMEOUT, TOO_SLOW))??;
    Ok(())
}

/// Counts the links that others hold, in all and by peer.
struct Slots {
    taken: Mutex<HashMap<PublicKey, usize>>,
    all: Arc<Semaphore>,
    per_peer: usize,
}

impl Slots {
    fn new(limits: &Limits) -> Self {
        Self {
            taken: Mutex::default(),
            all: Arc::new(Semaphore::new(limits.links)),
            per_peer: limits.links_per_peer,
        }
    }

    fn take(slots: &Arc<Self>, peer: PublicKey) -> Option<Slot> {
        let permit = slots.all.clone().try_acquire_owned().ok()?;
        let mut taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(peer).or_default();
        if *count >= slots.per_peer {
            return None;
        }
        *count += 1;
        Some(Slot(Arc::new(SlotGuard { slots: slots.clone(), peer, _permit: permit })))
    }
}

/// A link's place; free again when both halves of the link are gone.
#[derive(Clone, Debug)]
pub(super) struct Slot(#[allow(dead_code, reason = "held for its drop")] Arc<SlotGuard>);

struct SlotGuard {
    slots: Arc<Slots>,
    peer: PublicKey,
    _permit: OwnedSemaphorePermit,
}

impl std::fmt::Debug for SlotGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotGuard").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}
