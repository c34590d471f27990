//! The other nodes: who they are, how far they are level with this one, how one joins and how one is cut off.
//! What is written here concerns the whole node, not one tenant.

pub(crate) mod grant;
mod plan;
pub(crate) mod revocation;

pub use grant::{Asked, Granted, grant, granted, of as granted_to, words};
pub use plan::{Arrival, Gap, Plan, arrival, of_clock, plan};
pub use revocation::{Revoked, removed, revoke};

use crate::access::{Actor, Permission};
use crate::error::{Error, Result};
use crate::identity::signing_key;
use crate::runtime::Node;
use atoll_storage::heads::StreamHead;
use atoll_storage::peer::MAX_PEERS;
use atoll_storage::read::{Quarantined, Read};
use atoll_storage::tx::Tx;
use atoll_storage::{
    Carries, Digest, NodeId, Op, Origin, Payload, Rights, StreamId, Vector, courier, late,
};
use atoll_sync::key::PublicKey;
use atoll_sync::message::Hello;
use atoll_sync::nearby::Heard;
use atoll_sync::runner::{self, PeerStatus, Runner};
use atoll_sync::ticket::{MAX_ADDR_BYTES, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The node in front of its peers.
#[derive(Clone, Debug)]
pub struct Status {
    pub origin: Origin,
    pub public_key: String,
    pub name: String,
    /// Over all streams: equal on nodes that are equal.
    pub digest: Digest,
    pub streams: u64,
    pub records: u64,
    pub conflicts: u64,
    pub quarantined: u64,
    /// Written by removed nodes after they were removed.
    pub late: u64,
    pub parked: u64,
    pub peers: Vec<PeerStatus>,
    /// Nodes that the whole network refuses.
    pub removed: Vec<Revoked>,
}

/// A ticket that was made: its line is shown once and never stored.
#[derive(Clone, Debug)]
pub struct Issued {
    pub line: String,
    pub expires_ms: u64,
    pub addresses: Vec<String>,
}

/// Of one page.
const MOST_QUARANTINED: usize = 1_000;

pub fn status(node: &Node, actor: &Actor) -> Result<Status> {
    actor.require(Permission::SyncAdminister)?;
    let status = node.store.read(|reader| {
        let streams = reader.streams()?;
        Ok::<_, atoll_storage::Error>(Status {
            origin: node.store.origin(),
            public_key: node.key().public().to_string(),
            name: node.config.name.clone(),
            digest: reader.root()?,
            records: streams.iter().map(|head| head.records).sum(),
            streams: streams.len() as u64,
            conflicts: reader.conflict_count(None)?,
            quarantined: reader.quarantined_count()?.saturating_sub(late::count(reader)?),
            late: late::count(reader)?,
            parked: node.store.parked(),
            peers: Vec::new(),
            removed: revocation::all(reader)?,
        })
    })?;
    Ok(Status { peers: peers(node), ..status })
}

/// Those this node knows, removed ones left out.
pub fn list(node: &Node, actor: &Actor) -> Result<Vec<PeerStatus>> {
    actor.require(Permission::SyncAdminister)?;
    Ok(peers(node))
}

fn peers(node: &Node) -> Vec<PeerStatus> {
    if let Some(runner) = node.sync() {
        return runner.status();
    }
    let listed = node.store.read(|reader| atoll_storage::peer::list(reader));
    let me = node.id();
    let standing = node.store.read(|reader| atoll_sync::grant::standing(reader, me));
    let held = node.store.read(|reader| atoll_sync::grant::held(reader, me));
    let (standing, held) = (standing.unwrap_or_default(), held.unwrap_or_default());
    let told = |peer: atoll_storage::peer::Peer| PeerStatus {
        may: standing.get(&peer.node).cloned().unwrap_or_default(),
        lets: held.get(&peer.node).cloned(),
        ..PeerStatus::unlinked(peer)
    };
    listed.unwrap_or_default().into_iter().map(told).collect()
}

/// What a peer has, as far as it said.
pub(crate) struct Told {
    pub has: Arc<BTreeMap<StreamId, Vector>>,
    /// When a bundle of it came, by a courier or in a bucket, if that counts.
    pub heard_ms: Option<u64>,
    /// None if only a link could have told.
    pub carries: Option<Carries>,
}

/// By what it acknowledged since this node was started and, unless there is a link, by its last bundle. None if nothing is
/// known.
pub(crate) fn told(node: &Node, peer: &PeerStatus) -> atoll_storage::Result<Option<Told>> {
    let acknowledged = peer.acknowledged.clone();
    let bundle = if peer.is_linked() && acknowledged.is_some() {
        None
    } else {
        node.store.read(|reader| courier::find(reader, peer.node))?
    };
    Ok(match (acknowledged, bundle) {
        (None, None) => None,
        (Some(has), None) => Some(Told { has, heard_ms: None, carries: None }),
        (acknowledged, Some(bundle)) => {
            let mut has = bundle.has;
            for (stream, vector) in acknowledged.iter().flat_map(|has| has.iter()) {
                has.entry(stream.clone()).or_default().merge(vector);
            }
            let (heard_ms, carries) = (Some(bundle.heard_ms), Some(bundle.carries));
            Some(Told { has: Arc::new(has), heard_ms, carries })
        }
    })
}

/// Peers of which a bundle came.
pub fn met_by_couriers(node: &Node) -> Result<BTreeSet<NodeId>> {
    let mut met = BTreeSet::new();
    for peer in peers(node) {
        if node.store.read(|reader| courier::find(reader, peer.node))?.is_some() {
            met.insert(peer.node);
        }
    }
    Ok(met)
}

/// What every listed peer has of what it carries, as far as is [`told`]. None if there is no peer, or nothing is known of one.
pub(crate) fn acknowledged_by_all(
    node: &Node,
) -> atoll_storage::Result<Option<BTreeMap<StreamId, Vector>>> {
    let peers = peers(node);
    if peers.is_empty() {
        return Ok(None);
    }
    let heads = node.store.read(|reader| reader.streams())?;
    let mut all: BTreeMap<StreamId, Vector> =
        heads.into_iter().map(|head| (head.stream, head.vector)).collect();
    let nothing = Vector::default();
    for peer in peers {
        let Some(told) = self::told(node, &peer)? else { return Ok(None) };
        for (stream, vector) in &mut all {
            if peer.carries.as_ref().is_none_or(|carries| carries.carries(stream)) {
                let theirs = told.has.get(stream).unwrap_or(&nothing);
                vector
                    .0
                    .iter_mut()
                    .for_each(|(origin, seq)| *seq = (*seq).min(theirs.get(*origin)));
            }
        }
    }
    Ok(Some(all))
}

/// A node that was heard on this network, and whether it is a peer.
#[derive(Clone, Debug)]
pub struct Neighbour {
    pub heard: Heard,
    pub is_known: bool,
}

/// Who is on the same network. What they say of themselves proves nothing.
///
/// # Errors
/// `Conflict` (`discovery_off`) if this node does not look around.
pub fn nearby(node: &Node, actor: &Actor) -> Result<Vec<Neighbour>> {
    actor.require(Permission::SyncAdminister)?;
    let heard = running(node)?.nearby().ok_or_else(|| {
        let message =
            "this node does not look for others: set sync.discover to true and start it anew";
        Error::conflict("discovery_off", message)
    })?;
    let peers = peers(node);
    let is_known = |heard: &Heard| peers.iter().any(|peer| peer.node == heard.node);
    Ok(heard.into_iter().map(|heard| Neighbour { is_known: is_known(&heard), heard }).collect())
}

/// Streams with their vectors and digests.
pub fn streams(node: &Node, actor: &Actor) -> Result<Vec<StreamHead>> {
    actor.require(Permission::SyncAdminister)?;
    Ok(node.store.read(|reader| reader.streams())?)
}

/// Ops that could not be applied, and those that were written too late, newest first.
pub fn quarantined(node: &Node, actor: &Actor, limit: usize) -> Result<Vec<Quarantined>> {
    actor.require(Permission::SyncAdminister)?;
    Ok(node.store.read(|reader| {
        let mut rows = reader.quarantined(limit.clamp(1, MOST_QUARANTINED))?;
        revocation::explain(reader, &mut rows)?;
        Ok(rows)
    })?)
}

/// What an op did, in one word.
pub fn did(op: &Op) -> &'static str {
    match &op.payload {
        Payload::Write(write) if write.creates => "created",
        Payload::Write(_) => "changed",
        Payload::Delete { .. } => "deleted",
        Payload::Count(_) => "counted",
        Payload::Erased { .. } => "erased",
    }
}

/// Makes a ticket that lets a node do everything. Without addresses it holds the one that the configuration names.
pub async fn ticket(
    node: &Node,
    actor: &Actor,
    lifetime: Duration,
    addresses: Vec<String>,
) -> Result<Issued> {
    ticket_for(node, actor, lifetime, addresses, &Asked::default()).await
}

/// As [`ticket`], for a node that may do what is asked for.
///
/// # Errors
/// As [`grant`].
pub async fn ticket_for(
    node: &Node,
    actor: &Actor,
    lifetime: Duration,
    addresses: Vec<String>,
    asked: &Asked,
) -> Result<Issued> {
    actor.require(Permission::SyncAdminister)?;
    let rights = grant::rights(node, asked, Rights::everything())?;
    let ticket = running(node)?.ticket(addresses, lifetime, rights).await.map_err(refused)?;
    let line = ticket
        .to_line()
        .map_err(|error| Error::field("addresses", "malformed", error.to_string()))?;
    Ok(Issued { line, expires_ms: ticket.expires_ms, addresses: ticket.addrs })
}

/// Joins the network of whoever made the ticket. Both nodes list each other from then on.
pub async fn join(node: &Node, actor: &Actor, line: &str) -> Result<PeerStatus> {
    actor.require(Permission::SyncAdminister)?;
    let ticket = Ticket::from_line(line)
        .map_err(|error| Error::field("ticket", "malformed", error.to_string()))?;
    revocation::require_not_revoked(node, ticket.public_key.node_id())?;
    running(node)?.join(&ticket).await.map_err(refused)
}

/// Lists a node by its public key, without a ticket: one that is met only by couriers, or whose key somebody compared.
/// Both have to list each other. Without an address it is not dialled.
pub async fn add(
    node: &Node,
    actor: &Actor,
    key: &str,
    name: &str,
    address: Option<&str>,
) -> Result<NodeId> {
    add_for(node, actor, key, name, address, &Asked::default()).await
}

/// As [`add`], for a node that may do what is asked for. If nothing is, one that is listed already may do what it might.
///
/// # Errors
/// As [`grant`].
pub async fn add_for(
    node: &Node,
    actor: &Actor,
    key: &str,
    name: &str,
    address: Option<&str>,
    asked: &Asked,
) -> Result<NodeId> {
    actor.require(Permission::SyncAdminister)?;
    let rights = grant::rights(node, asked, Rights::everything())?;
    let key: PublicKey = key.parse().map_err(|_| {
        let message =
            "a public key is 64 hexadecimal digits, as `sync status` shows it on the other node";
        Error::field("public_key", "malformed", message)
    })?;
    if key == node.key().public() {
        return Err(Error::field("public_key", "own_key", "this is the key of this node itself"));
    }
    revocation::require_not_revoked(node, key.node_id())?;
    let is_listed = peers(node).iter().any(|peer| peer.public_key == key);
    let rights = (!is_listed || *asked != Asked::default()).then_some(rights);
    let name = Hello::short_name(name.trim());
    if name.is_empty() {
        return Err(Error::field("name", "required", "give the node a name to know it by"));
    }
    let address = address.map(str::trim).filter(|address| !address.is_empty());
    if address.is_some_and(|address| address.len() > MAX_ADDR_BYTES || !address.contains(':')) {
        return Err(Error::field("address", "malformed", "an address is written as host:port"));
    }
    let address = address.map(ToOwned::to_owned);
    match node.sync() {
        Some(runner) => runner.admit(key, name, address, rights).await.map_err(refused)?,
        None => {
            let own = node.key().clone();
            let listed = node.store.write(move |tx: &mut Tx| {
                if atoll_storage::peer::list(tx)?.len() >= MAX_PEERS {
                    return Ok(false);
                }
                atoll_storage::peer::add(tx, &key.0, &name, address.as_deref())?;
                if let Some(rights) = rights {
                    atoll_sync::grant::issue(tx, &own, key, rights)?;
                }
                Ok::<_, Error>(true)
            });
            if !listed.await? {
                return Err(refused(runner::Error::TooManyPeers));
            }
        }
    }
    Ok(key.node_id())
}

/// Cuts a node off from this one, at once, and withdraws the key that its tokens were signed with. It is named by its id, public key
/// or name.
pub async fn remove(node: &Node, actor: &Actor, named: &str) -> Result<NodeId> {
    actor.require(Permission::SyncAdminister)?;
    let one = self::named(node, named)?;
    match node.sync() {
        Some(runner) => runner.remove(one).await.map_err(refused)?,
        None => node.store.write(move |tx: &mut Tx| atoll_storage::peer::remove(tx, one)).await?,
    };
    node.store.write(move |tx: &mut Tx| signing_key::withdraw(tx, one)).await?;
    Ok(one)
}

/// The one peer with this id, public key or name.
pub(crate) fn named(node: &Node, named: &str) -> Result<NodeId> {
    let named = named.trim();
    let is_meant = |peer: &PeerStatus| {
        peer.node.to_string() == named || peer.public_key.to_string() == named || peer.name == named
    };
    let meant: Vec<NodeId> =
        peers(node).iter().filter(|peer| is_meant(peer)).map(|peer| peer.node).collect();
    match meant.as_slice() {
        [] => Err(Error::NotFound("peer")),
        [one] => Ok(*one),
        _ => Err(Error::conflict("ambiguous", "several peers have this name: give the id of one")),
    }
}

/// Contacts all peers now instead of after the pause that each has earned.
pub fn sync_now(node: &Node, actor: &Actor) -> Result<()> {
    actor.require(Permission::SyncAdminister)?;
    running(node)?.sync_now();
    Ok(())
}

fn running(node: &Node) -> Result<&Runner> {
    node.sync().ok_or_else(|| {
        Error::conflict("not_running", "this node does not talk to others now: start it")
    })
}

fn refused(error: runner::Error) -> Error {
    match error {
        runner::Error::Store(error) => Error::Store(error),
        runner::Error::Ticket(error) => Error::field("ticket", "malformed", error.to_string()),
        error => Error::conflict(error.code(), error.to_string()),
    }
}
