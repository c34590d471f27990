//! Who the peers are and how it stands with each, in memory: asked on every contact, shown to people.
//! One link a pair counts; of two, both sides keep the same one.

use super::drive::Input;
use super::obstacle::{Ended, Obstacle};
use crate::key::PublicKey;
use crate::quic::{Admission, ProcessId, Pulse};
use atoll_storage::peer::Peer;
use atoll_storage::{Carries, Clock, NodeId, Rights, StreamId, Vector};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerState {
    /// Links are cut on purpose.
    Paused,
    /// Waits for its next attempt, or to be dialled.
    Waiting,
    Dialling,
    /// Linked, and one of the two lacks something.
    CatchingUp,
    /// Linked and equal.
    Level,
    /// Refused by the whole network.
    Removed,
}

impl PeerState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Dialling => "dialling",
            Self::CatchingUp => "catching_up",
            Self::Level => "level",
            Self::Removed => "removed",
        }
    }
}

/// How it stands with one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    pub node: NodeId,
    pub public_key: PublicKey,
    pub name: String,
    pub address: Option<String>,
    pub state: PeerState,
    /// Ops that it has and this node lacks, as far as is known.
    pub behind: u64,
    /// Ops that this node has and it has not acknowledged.
    pub ahead: u64,
    /// Unix milliseconds of the last word from it.
    pub contact_ms: Option<u64>,
    pub added_ms: u64,
    pub round_trip: Option<Duration>,
    /// On the link that there is, or on the last one: all that went through its stream.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// By how much its clock is ahead of this one's; negative if it is behind.
    pub clock_skew_ms: Option<i64>,
    /// Why there is no link, in plain words; empty if there is one.
    pub reason: String,
    /// The same in one word; none before the first attempt.
    pub obstacle: Option<Obstacle>,
    /// Unix milliseconds at which the two were last seen to be equal since this node was started.
    pub level_ms: Option<u64>,
    /// What it acknowledged of each stream; none if nothing was heard since this node was started.
    pub acknowledged: Option<Arc<BTreeMap<StreamId, Vector>>>,
    /// Its vectors are equal to this node's and its state is not: a bug that was found and is being repaired.
    pub diverged: bool,
    /// Where a second process with its key was heard: its data folder was copied.
    pub copy_at: Option<SocketAddr>,
    /// What it carries, as it said when it last did.
    pub carries: Option<Carries>,
    /// What it may do here.
    pub may: Rights,
    /// What it lets this node do, as it said when it last did; none as long as it has not.
    pub lets: Option<Rights>,
    /// Ops that came since this node was started, and that it may not write here.
    pub refused: u64,
}

impl PeerStatus {
    pub fn is_linked(&self) -> bool {
        matches!(self.state, PeerState::CatchingUp | PeerState::Level)
    }

    pub fn is_level(&self) -> bool {
        self.state == PeerState::Level
    }

    /// Of a peer whom nobody talks to now.
    pub fn unlinked(peer: Peer) -> Self {
        Self {
            node: peer.node,
            public_key: PublicKey(peer.public_key),
            name: peer.name,
            address: peer.address,
            state: PeerState::Waiting,
            behind: 0,
            ahead: 0,
            contact_ms: peer.contact_ms,
            added_ms: peer.added_ms,
            round_trip: None,
            sent_bytes: 0,
            received_bytes: 0,
            clock_skew_ms: None,
            reason: "not contacted since this node was started".to_owned(),
            obstacle: None,
            level_ms: None,
            acknowledged: None,
            diverged: false,
            copy_at: None,
            carries: peer.carries,
            may: Rights::everything(),
            lets: None,
            refused: 0,
        }
    }
}

/// The other end of a link.
#[derive(Clone)]
pub(super) struct End {
    pub(super) process: ProcessId,
    pub(super) remote: SocketAddr,
    pub(super) pulse: Pulse,
}

/// Why a link must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    Removed,
    /// From the whole network, for good.
    Revoked,
    Replaced,
    /// It may do something else from now on: the next link knows.
    Granted,
    /// It may do nothing any more.
    Withdrawn,
}

/// The link that counts.
struct Current {
    number: u64,
    dialler: NodeId,
    /// None only in tests of the roster alone.
    end: Option<End>,
    cut: watch::Sender<Option<Cut>>,
    /// Where its session is asked, once it runs.
    asks: Option<mpsc::WeakSender<Input>>,
}

struct Entry {
    status: PeerStatus,
    current: Option<Current>,
    wake: Arc<Notify>,
    ended: Arc<Notify>,
}

/// A link's place in the roster; `cut` says when it must end, and why.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) key: PublicKey,
    pub(super) number: u64,
    pub(super) cut: watch::Receiver<Option<Cut>>,
}

/// What a dialler must know of a peer.
pub(super) struct Target {
    pub(super) key: PublicKey,
    pub(super) address: Option<String>,
    pub(super) is_linked: bool,
    /// Another attempt is worth it now.
    pub(super) wake: Arc<Notify>,
    /// Its link has ended, whoever dialled it.
    pub(super) ended: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<PublicKey, Entry>,
    revoked: BTreeSet<NodeId>,
    standing: Standing,
    last_number: u64,
}

/// Who may do what here, of those of whom it was said, and what others let this node do.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) may: BTreeMap<NodeId, Rights>,
    pub(super) held: BTreeMap<NodeId, Rights>,
}

impl Standing {
    fn of(&self, node: NodeId) -> Rights {
        self.may.get(&node).cloned().unwrap_or_default()
    }
}

pub(super) struct Roster {
    inner: RwLock<Inner>,
    clock: Clock,
    /// Held while it is looked who may do what, so that what was read first is not put in the place of what came after.
    looking: Mutex<()>,
    /// Rises with each peer that comes or goes, or may do something else.
    pub(super) changes: watch::Sender<u64>,
}

impl Roster {
    pub(super) fn new(
        peers: Vec<Peer>,
        revoked: BTreeSet<NodeId>,
        standing: Standing,
        clock: Clock,
    ) -> Self {
        let inner = RwLock::new(Inner { revoked, standing, ..Inner::default() });
        let roster =
            Self { inner, clock, looking: Mutex::default(), changes: watch::Sender::new(0) };
        peers.into_iter().for_each(|peer| roster.add(peer));
        roster
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, peer: Peer) {
        let mut status = PeerStatus::unlinked(peer);
        let mut inner = self.write();
        if inner.revoked.contains(&status.node) {
            return;
        }
        status.may = inner.standing.of(status.node);
        status.lets = inner.standing.held.get(&status.node).cloned();
        match inner.entries.get_mut(&status.public_key) {
            Some(entry) => {
                if entry.status.address != status.address {
                    entry.wake.notify_one();
                }
                (entry.status.name, entry.status.address) = (status.name, status.address);
            }
            None => {
                let (wake, ended) = (Arc::default(), Arc::default());
                let entry = Entry { current: None, wake, ended, status };
                inner.entries.insert(entry.status.public_key, entry);
            }
        }
        drop(inner);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// What the key may do here. One that is revoked is refused even if it is listed.
    pub(super) fn admission(&self, key: &PublicKey) -> Admission {
        let inner = self.read();
        if inner.revoked.contains(&key.node_id()) {
            return Admission::Revoked;
        }
        match inner.entries.get(key).map(|entry| self.shut(&entry.status.may)) {
            None => Admission::Stranger,
            Some(None) => Admission::Peer,
            Some(Some(Obstacle::GrantExpired)) => Admission::Expired,
            Some(Some(_)) => Admission::Withdrawn,
        }
    }

    /// Why whoever may do this has no link.
    fn shut(&self, may: &Rights) -> Option<Obstacle> {
        match () {
            () if may.is_nothing() => Some(Obstacle::GrantWithdrawn),
            () if may.is_over(self.clock.now_ms()) => Some(Obstacle::GrantExpired),
            () => None,
        }
    }

    /// Why a peer is not to be dialled, since it may do nothing here.
    pub(super) fn shut_out(&self, key: &PublicKey) -> Option<Obstacle> {
        let inner = self.read();
        self.shut(&inner.entries.get(key)?.status.may)
    }

    /// Looks anew who may do what.
    pub(super) fn look<E>(&self, read: impl FnOnce() -> Result<Standing, E>) -> Result<(), E> {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        self.stand(read()?);
        Ok(())
    }

    /// Who may do what from now on. Links to those for whom that is something else end, and the next ones know.
    fn stand(&self, standing: Standing) {
        let mut inner = self.write();
        if inner.standing == standing {
            return;
        }
        inner.standing = standing.clone();
        for entry in inner.entries.values_mut() {
            let node = entry.status.node;
            entry.status.lets = standing.held.get(&node).cloned().or(entry.status.lets.take());
            let may = standing.of(node);
            if may == entry.status.may {
                continue;
            }
            tracing::info!(%node, name = entry.status.name, "a peer may do something else from now on");
            let why = if may.is_nothing() { Cut::Withdrawn } else { Cut::Granted };
            entry.status.may = may;
            if let Some(current) = &entry.current {
                current.cut.send_replace(Some(why));
                entry.status.state = PeerState::CatchingUp;
            }
            entry.wake.notify_one();
        }
        drop(inner);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Refuses these from now on, and cuts the links that there are to them.
    pub(super) fn revoke(&self, nodes: BTreeSet<NodeId>) {
        let new: Vec<NodeId> = {
            let mut inner = self.write();
            let new = nodes.difference(&inner.revoked).copied().collect();
            inner.revoked.extend(nodes);
            new
        };
        new.into_iter().for_each(|node| self.take_off(node, Cut::Revoked));
    }

    pub(super) fn remove(&self, node: NodeId) {
        self.take_off(node, Cut::Removed);
    }

    fn take_off(&self, node: NodeId, why: Cut) {
        let mut inner = self.write();
        let key = inner.entries.keys().find(|key| key.node_id() == node).copied();
        let removed = key.and_then(|key| inner.entries.remove(&key));
        drop(inner);
        if let Some(entry) = removed {
            entry.wake.notify_one();
            if let Some(current) = entry.current {
                current.cut.send_replace(Some(why));
            }
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn keys(&self) -> Vec<PublicKey> {
        self.read().entries.keys().copied().collect()
    }

    pub(super) fn status(&self) -> Vec<PeerStatus> {
        let mut all: Vec<_> =
            self.read().entries.values().map(|entry| entry.status.clone()).collect();
        all.sort_by_key(|status| (status.added_ms, status.node));
        all
    }

    pub(super) fn status_of(&self, key: &PublicKey) -> Option<PeerStatus> {
        self.read().entries.get(key).map(|entry| entry.status.clone())
    }

    /// What the peer may do here; nothing if it is none any more.
    pub(super) fn may(&self, key: &PublicKey) -> Rights {
        let inner = self.read();
        inner.entries.get(key).map_or_else(Rights::nothing, |entry| entry.status.may.clone())
    }

    pub(super) fn target(&self, key: &PublicKey) -> Option<Target> {
        self.read().entries.get(key).map(|entry| Target {
            key: *key,
            address: entry.status.address.clone(),
            is_linked: entry.current.is_some(),
            wake: entry.wake.clone(),
            ended: entry.ended.clone(),
        })
    }

    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.read().entries.keys().any(|key| key.node_id() == node)
    }

    pub(super) fn wake(&self, node: NodeId) {
        let inner = self.read();
        let meant = inner.entries.iter().filter(|(key, _)| key.node_id() == node);
        meant.for_each(|(_, entry)| entry.wake.notify_one());
    }

    pub(super) fn wake_all(&self) {
        self.read().entries.values().for_each(|entry| entry.wake.notify_one());
    }

    /// Notes how dialling goes; a link that there is stands over it.
    pub(super) fn note(&self, key: &PublicKey, state: PeerState, why: Option<(Obstacle, &str)>) {
        if let Some(entry) = self.write().entries.get_mut(key)
            && entry.current.is_none()
        {
            entry.status.state = state;
            if let Some((obstacle, reason)) = why {
                entry.status.obstacle = Some(obstacle);
                reason.clone_into(&mut entry.status.reason);
            }
        }
    }

    /// Of two links, the one that the node with the lower id dialled counts; of two by one dialler, the newer.
    ///
    /// # Errors
    /// Why this link must not be used.
    pub(super) fn claim(
        &self,
        key: PublicKey,
        dialler: NodeId,
        end: Option<End>,
    ) -> Result<Place, &'static str> {
        let mut inner = self.write();
        inner.last_number += 1;
        let number = inner.last_number;
        let entry = inner.entries.get_mut(&key).ok_or("the peer was removed")?;
        if let Some(current) = &entry.current {
            if current.dialler < dialler {
                return Err("there is a link already");
            }
            current.cut.send_replace(Some(Cut::Replaced));
        }
        let (cut, heard) = watch::channel(None);
        entry.current = Some(Current { number, dialler, end, cut, asks: None });
        entry.status.state = PeerState::CatchingUp;
        entry.status.reason.clear();
        entry.status.obstacle = None;
        (entry.status.sent_bytes, entry.status.received_bytes) = (0, 0);
        Ok(Place { key, number, cut: heard })
    }

    /// The end of the link that there is, if another process than this one holds it.
    pub(super) fn other_process(&self, key: &PublicKey, process: ProcessId) -> Option<End> {
        let inner = self.read();
        let end = inner.entries.get(key)?.current.as_ref()?.end.clone()?;
        (end.process != process).then_some(end)
    }

    /// False if it was noted already.
    pub(super) fn note_copy(&self, key: &PublicKey, at: SocketAddr) -> bool {
        let mut inner = self.write();
        let entry = inner.entries.get_mut(key);
        entry.is_some_and(|entry| entry.status.copy_at.replace(at) != Some(at))
    }

    /// The session of this link can be asked from now on.
    pub(super) fn note_asks(&self, place: &Place, asks: mpsc::WeakSender<Input>) {
        let mut inner = self.write();
        let entry = inner.entries.get_mut(&place.key);
        let current = entry.and_then(|entry| entry.current.as_mut());
        if let Some(current) = current.filter(|current| current.number == place.number) {
            current.asks = Some(asks);
        }
    }

    /// Where the sessions of all links are asked.
    pub(super) fn asks(&self) -> Vec<mpsc::Sender<Input>> {
        let inner = self.read();
        let currents = inner.entries.values().filter_map(|entry| entry.current.as_ref());
        currents.filter_map(|current| current.asks.as_ref()?.upgrade()).collect()
    }

    /// Notes what a link shows; nothing if it does not count any more.
    pub(super) fn update(&self, place: &Place, change: impl FnOnce(&mut PeerStatus)) {
        let mut inner = self.write();
        if let Some(entry) = inner.entries.get_mut(&place.key)
            && entry.current.as_ref().is_some_and(|current| current.number == place.number)
        {
            change(&mut entry.status);
        }
    }

    pub(super) fn release(&self, place: &Place, ended: &Ended) {
        let mut inner = self.write();
        let Some(entry) = inner.entries.get_mut(&place.key) else { return };
        if entry.current.as_ref().is_some_and(|current| current.number == place.number) {
            entry.current = None;
            entry.status.state = PeerState::Waiting;
            entry.status.round_trip = None;
            ended.reason.clone_into(&mut entry.status.reason);
            entry.status.obstacle = Some(ended.obstacle);
            entry.ended.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
