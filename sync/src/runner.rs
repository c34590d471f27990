//! Keeps a node and its peers equal: dials, answers, lets new nodes join, cuts removed ones off, and runs one session
//! a link. Knows when to talk and to whom; never what is said (sessions do) or how (`quic` does).

mod dial;
mod drive;
mod error;
mod link;
mod obstacle;
mod roster;

use crate::blob::Exchange;
use crate::grant;
use crate::key::{NodeKey, PublicKey};
use crate::nearby::{Ears, Heard, Nearby};
use crate::quic::{self, Endpoint, JoinAnswer, JoinRequest, Knock, Limits};
use crate::ticket::{Secret, Ticket};
use atoll_storage::read::Read;
use atoll_storage::tx::Tx;
use atoll_storage::{Clock, NodeId, Rights, Store, StreamId, Vector, peer};
use drive::Input;
use roster::{Roster, Standing};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use error::Error;
pub use obstacle::Obstacle;
pub use roster::{PeerState, PeerStatus};

/// What joining may take, over all addresses of a ticket.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
/// What asking one session may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at whether all peers are level.
const LOOK: Duration = Duration::from_millis(50);

pub struct Options {
    pub store: Store,
    pub key: NodeKey,
    pub clock: Clock,
    pub listen: SocketAddr,
    /// What this node calls itself in front of others.
    pub name: String,
    /// Where others reach it, as `host:port`, if that is not the address it listens on.
    pub address: Option<String>,
    pub limits: Limits,
    /// Whether it announces itself to its network, and listens who else is there.
    pub discover: bool,
    /// Blobs go over the same links.
    pub blobs: Exchange,
    /// As [`Runner::revoke`], from the first contact on.
    pub revoked: BTreeSet<NodeId>,
}

/// A handle; clones share the runner.
#[derive(Clone)]
pub struct Runner(Arc<Shared>);

struct Shared {
    store: Store,
    clock: Clock,
    name: String,
    addrs: Vec<String>,
    listen: SocketAddr,
    me: NodeId,
    key: NodeKey,
    endpoint: Endpoint,
    roster: Arc<Roster>,
    nearby: Option<Nearby>,
    blobs: Exchange,
    paused: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Runner {
    /// Binds the address and begins to dial the peers that the store lists. Call inside a tokio runtime.
    pub fn start(options: Options) -> Result<Self, Error> {
        let Options { store, key, clock, listen, name, address, limits, discover, blobs, revoked } =
            options;
        let (peers, standing) =
            store.read(|reader| Ok((peer::list(reader)?, standing_in(reader, key.node_id())?)))?;
        let roster = Arc::new(Roster::new(peers, revoked, standing, clock.clone()));
        let endpoint = bind(listen, &key, &roster, &store, &name, address.as_deref(), limits)?;
        let listen = endpoint.local_addr()?;
        let nearby = discover.then(|| look_around(key.node_id(), &name, listen, &roster)).flatten();
        let runner = Self(Arc::new(Shared {
            addrs: reachable_at(listen, address.as_deref()),
            store,
            clock,
            name,
            listen,
            me: key.node_id(),
            key,
            endpoint,
            roster,
            nearby,
            blobs,
            paused: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
            tasks: Mutex::new(JoinSet::new()),
        }));
        runner.0.spawn(link::answer(runner.0.clone()));
        runner.0.spawn(dial::keep_all(runner.0.clone()));
        Ok(runner)
    }

    /// With the port that the system chose, if it was asked to.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.listen
    }

    /// Where others are told to dial this node.
    pub fn addresses(&self) -> &[String] {
        &self.0.addrs
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        self.0.roster.status()
    }

    /// Nodes on the same network; none if this one does not look for them.
    pub fn nearby(&self) -> Option<Vec<Heard>> {
        self.0.nearby.as_ref().map(Nearby::list)
    }

    /// Rises with each peer that comes or goes, or may do something else.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.roster.changes.subscribe()
    }

    /// Makes a ticket that lets one node join, once, to do what it says. Without addresses it names those of
    /// [`Runner::addresses`].
    pub async fn ticket(
        &self,
        addrs: Vec<String>,
        lifetime: Duration,
        rights: Rights,
    ) -> Result<Ticket, Error> {
        let shared = &self.0;
        let addrs = if addrs.is_empty() { shared.addrs.clone() } else { addrs };
        let expires_ms = shared.clock.now_ms().saturating_add(lifetime.as_millis() as u64);
        let (secret, name) = (Secret::generate()?, shared.name.clone());
        let ticket =
            Ticket { addrs, public_key: shared.endpoint.public_key(), secret, expires_ms, name };
        // Refused before anything is kept.
        ticket.to_line()?;
        let hash = secret.hash();
        let invite = move |tx: &mut Tx| peer::invite(tx, &hash, expires_ms, &rights);
        shared.store.write(invite).await?;
        Ok(ticket)
    }

    /// Shows a ticket to its issuer; from then on the two are peers.
    pub async fn join(&self, ticket: &Ticket) -> Result<PeerStatus, Error> {
        let shared = &self.0;
        if ticket.public_key == shared.endpoint.public_key() {
            return Err(Error::OwnTicket);
        }
        if self.status().len() >= peer::MAX_PEERS {
            return Err(Error::TooManyPeers);
        }
        let me = JoinRequest { name: shared.name.clone(), addrs: shared.addrs.clone() };
        // The issuer decides whether it has expired: the clock that is wrong may be this one.
        let answer = match shared.endpoint.join(ticket, &me, JOIN_TIMEOUT).await {
            Err(quic::Error::JoinRefused(_)) if ticket.is_expired(shared.clock.now_ms()) => {
                return Err(Error::Expired);
            }
            answer => answer?,
        };
        // The issuer's own word may be an address that only it can use; the ticket's led there.
        let address = ticket.addrs.first().cloned();
        shared.list(ticket.public_key, answer.name, address, None).await?;
        self.sync_now();
        self.0.roster.status_of(&ticket.public_key).ok_or(Error::NotListed)
    }

    /// Lists a peer without a ticket, by a key that somebody compared. It has to list this node too. Without rights it may do
    /// what it might before.
    pub async fn admit(
        &self,
        key: PublicKey,
        name: String,
        address: Option<String>,
        rights: Option<Rights>,
    ) -> Result<(), Error> {
        if key == self.0.endpoint.public_key() {
            return Err(Error::OwnTicket);
        }
        if self.status().len() >= peer::MAX_PEERS {
            return Err(Error::TooManyPeers);
        }
        self.0.list(key, name, address, rights).await
    }

    /// Looks anew who may do what here, after statements were kept.
    pub fn look_at_grants(&self) -> Result<(), Error> {
        Ok(self.0.look_at_grants()?)
    }

    /// Takes a peer off the list and cuts its link at once. False if it was not on the list.
    pub async fn remove(&self, node: NodeId) -> Result<bool, Error> {
        let removed = self.0.store.write(move |tx: &mut Tx| peer::remove(tx, node)).await?;
        self.0.roster.remove(node);
        Ok(removed)
    }

    /// Refuses these nodes while this one runs, whether they are listed or not, and cuts their links at once. The list in
    /// the store stays as it is.
    pub fn revoke(&self, nodes: BTreeSet<NodeId>) {
        self.0.roster.revoke(nodes);
    }

    /// What each linked peer has of these streams, as it said itself, in their order. A peer that is busy for long is
    /// left out.
    pub async fn known(&self, streams: &[StreamId]) -> Vec<Vec<Vector>> {
        let mut all = Vec::new();
        for asks in self.0.roster.asks() {
            let (answer, heard) = oneshot::channel();
            let asked = async {
                asks.send(Input::Known(streams.to_vec(), answer)).await.ok()?;
                heard.await.ok()
            };
            if let Ok(Some(known)) = tokio::time::timeout(ASK_TIMEOUT, asked).await {
                all.push(known);
            }
        }
        all
    }

    /// Cuts all links and makes none until [`Runner::resume`]: the cable is out.
    pub fn pause(&self) {
        self.0.paused.send_replace(true);
    }

    pub fn resume(&self) {
        self.0.paused.send_replace(false);
        self.sync_now();
    }

    pub fn is_paused(&self) -> bool {
        *self.0.paused.borrow()
    }

    /// Dials at once those that wait for their next attempt.
    pub fn sync_now(&self) {
        self.0.roster.wake_all();
    }

    /// Waits until this node and every peer are level; false if that took longer.
    pub async fn level(&self, timeout: Duration) -> bool {
        self.level_with(timeout, |_| true).await
    }

    /// As `level`, with those peers alone that count.
    pub async fn level_with(
        &self,
        timeout: Duration,
        counts: impl Fn(&PeerStatus) -> bool,
    ) -> bool {
        let is_late = |peer: &PeerStatus| counts(peer) && !peer.is_level();
        let wait = async {
            while self.status().iter().any(is_late) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(timeout, wait).await.is_ok()
    }

    /// Ends all links and tasks.
    pub async fn stop(&self) {
        self.0.stopped.send_replace(true);
        if let Some(nearby) = &self.0.nearby {
            nearby.stop();
        }
        self.0.blobs.stop().await;
        self.0.endpoint.close().await;
        let mut tasks =
            std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    async fn list(
        &self,
        key: PublicKey,
        name: String,
        address: Option<String>,
        rights: Option<Rights>,
    ) -> Result<(), Error> {
        let own = self.key.clone();
        let listed = self.store.write(move |tx: &mut Tx| {
            let node = peer::add(tx, &key.0, &name, address.as_deref())?;
            if let Some(rights) = rights {
                grant::issue(tx, &own, key, rights)?;
            }
            peer::find(tx, node)
        });
        let listed = listed.await?;
        // Before it is listed: it must do no more than it may, not for a moment.
        self.look_at_grants()?;
        if let Some(peer) = listed {
            self.roster.add(peer);
        }
        // What a new peer says of others may count from now on.
        Ok(self.look_at_grants()?)
    }

    fn look_at_grants(&self) -> atoll_storage::Result<()> {
        self.roster.look(|| self.store.read(|reader| standing_in(reader, self.me)))
    }
}

fn standing_in(reader: &impl Read, me: NodeId) -> atoll_storage::Result<Standing> {
    Ok(Standing { may: grant::standing(reader, me)?, held: grant::held(reader, me)? })
}

/// A node that cannot look around works all the same.
fn look_around(me: NodeId, name: &str, listen: SocketAddr, roster: &Arc<Roster>) -> Option<Nearby> {
    let (asked, told) = (roster.clone(), roster.clone());
    let ears = Ears {
        is_known: Box::new(move |node| asked.knows(node)),
        appeared: Box::new(move |node| told.wake(node)),
    };
    let nearby = Nearby::start(me, name, listen, ears);
    nearby.inspect_err(|error| tracing::warn!(error, "nearby nodes are not found")).ok()
}

fn bind(
    listen: SocketAddr,
    key: &NodeKey,
    roster: &Arc<Roster>,
    store: &Store,
    name: &str,
    address: Option<&str>,
    limits: Limits,
) -> Result<Endpoint, Error> {
    let admit = {
        let roster = roster.clone();
        move |key: &PublicKey| roster.admission(key)
    };
    // Port 0 is only known once it is bound; a ticket names the address, so the answer need not.
    let addrs = if listen.port() == 0 { Vec::new() } else { reachable_at(listen, address) };
    let (roster, store, name) = (roster.clone(), store.clone(), name.to_owned());
    let key_of_join = key.clone();
    let join = move |knock: Knock| -> crate::quic::JoinFuture {
        let answer = JoinAnswer { name: name.clone(), addrs: addrs.clone(), info: Vec::new() };
        let (roster, store, key) = (roster.clone(), store.clone(), key_of_join.clone());
        Box::pin(async move { let_in(&roster, &store, &key, knock).await.map(|()| answer) })
    };
    Ok(Endpoint::bind_with(listen, key, Arc::new(admit), Arc::new(join), limits)?)
}

/// Takes the invitation, lists the new node and says what it may do, in one transaction. One that is listed already had its
/// answer lost, or shows another ticket to do something else from now on.
async fn let_in(roster: &Roster, store: &Store, own: &NodeKey, knock: Knock) -> Result<(), String> {
    const REFUSED: &str = "it was used, has expired or was never made here; ask for a new ticket";
    const NO_ROOM: &str = "the node has as many peers as it can have: remove one there, then try the same ticket again";
    let address = knock.request.addrs.iter().find(|addr| is_useful(addr, knock.remote)).cloned();
    let (key, name, hash) = (knock.key, knock.request.name, knock.secret.hash());
    let (me, own) = (own.node_id(), own.clone());
    let listed = store.write(move |tx: &mut Tx| {
        let known = peer::find(tx, key.node_id())?.filter(|peer| peer.removed_ms.is_none());
        // Before the ticket is taken.
        if known.is_none() && peer::list(tx)?.len() >= peer::MAX_PEERS {
            return Ok(Err(NO_ROOM));
        }
        match (peer::redeem(tx, &hash)?, known) {
            (Some(rights), known) => {
                if known.is_none() {
                    peer::add(tx, &key.0, &name, address.as_deref())?;
                }
                grant::issue(tx, &own, key, rights)?;
            }
            (None, Some(known)) => return Ok(Ok(known)),
            (None, None) => return Ok(Err(REFUSED)),
        }
        Ok(peer::find(tx, key.node_id())?.ok_or(REFUSED))
    });
    let let_in = listed.await.and_then(|listed| {
        // Before it is listed: it must do no more than it may, not for a moment.
        roster.look(|| store.read(|reader| standing_in(reader, me)))?;
        Ok(listed)
    });
    match let_in {
        Ok(Ok(peer)) => {
            tracing::info!(node = %peer.node, name = %peer.name, "a node has joined");
            roster.add(peer);
            Ok(())
        }
        Ok(Err(refused)) => Err(refused.to_owned()),
        Err(error) => {
            let error: atoll_storage::Error = error;
            tracing::warn!(%error, "a node could not join");
            Err("the node cannot write now; try again later".to_owned())
        }
    }
}

/// Whoever comes from elsewhere is not reached at a loopback address.
fn is_useful(addr: &str, remote: SocketAddr) -> bool {
    let parsed: Option<SocketAddr> = addr.parse().ok();
    let is_local = parsed.map_or(addr.starts_with("localhost:"), |addr| addr.ip().is_loopback());
    parsed.is_none_or(|addr| !addr.ip().is_unspecified())
        && (!is_local || remote.ip().is_loopback())
}

fn reachable_at(listen: SocketAddr, address: Option<&str>) -> Vec<String> {
    match address {
        Some(address) => vec![address.to_owned()],
        None if listen.ip().is_unspecified() => Vec::new(),
        None => vec![listen.to_string()],
    }
}
