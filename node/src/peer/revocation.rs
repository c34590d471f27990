//! Nodes that were removed from the whole network: lost, stolen or given away. A record says so and travels before all
//! else; every node that hears of it refuses that node's key, for good. The record alone could be deleted by whoever
//! holds the removed node, by way of a node that has not heard: so each node keeps a mark of its own, refuses by it,
//! and writes the record anew if it is gone.
//! The record also says what the node that wrote it had of the removed one: what comes beyond that was written late, and
//! is taken back.

use super::grant;
use crate::access::{Actor, Permission};
use crate::audit;
use crate::error::{Error, Result};
use crate::identity::signing_key;
use crate::identity::user::{USER, USERNAME};
use crate::moment::Moment;
use crate::runtime::{Node, Stop};
use atoll_storage::peer;
use atoll_storage::query::Query;
use atoll_storage::read::{Quarantined, Read};
use atoll_storage::revoked::{self, MAX_REVOKED, Mark, REVOKED_CUTS, REVOKED_NODE as NODE};
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, NodeId, Record, StreamId, Value, Vector, late};
use atoll_sync::key::PublicKey;
use atoll_sync::message::Hello;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NAME: Field = Field::text(2, "name").required().max(200).read_only();
const BY_NODE: Field =
    Field::text(3, "by_node").required().max(200).read_only().doc("The name of the node.");
const BY_USER: Field =
    Field::refers(4, "by_user", "user").read_only().doc("Nobody: by a command on the node.");
const REASON: Field = Field::text(5, "reason").max(200).read_only();

/// Rows of the log that are looked through in one transaction for what was written late.
const FIND_OPS: usize = 5_000;
/// How long the node that removed another one has to take back what comes late, before others do. Unix milliseconds.
const TAKE_BACK_MS: u64 = 60_000;
const TAKE_BACK_OPS: usize = 200;

/// Under a natural key of the node.
pub static REVOCATION: Kind = Kind {
    fields: &[NODE, NAME, BY_NODE, BY_USER, REASON, REVOKED_CUTS],
    schema: 2,
    revokes: true,
    silent: true,
    doc: "That a node was removed from the whole network, for good.",
    ..Kind::new(3, "revocation", "revocations", "network")
};

/// A node that the whole network refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub node: NodeId,
    pub name: String,
    /// The node that it was removed on, and the user who did it if this node knows one.
    pub by: String,
    pub at_ms: u64,
    pub reason: Option<String>,
}

impl Revoked {
    /// A sentence.
    pub fn words(&self) -> String {
        let Self { name, by, at_ms, .. } = self;
        let reason = self.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{name} was removed everywhere by {by} at {}{reason}.", Moment::of(*at_ms))
    }
}

/// What the record says beside the node, and the mark keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct About {
    name: String,
    by_node: String,
    by_user: Option<Id>,
    reason: Option<String>,
}

/// How far it has got on this node that one node is removed.
struct Standing {
    about: About,
    at_ms: u64,
    is_marked: bool,
    is_recorded: bool,
}

fn id_of(node: NodeId) -> Id {
    Id::natural(&[b"revocation", &node.0])
}

/// Whether the network refuses this node.
pub(crate) fn is_revoked(reader: &impl Read, node: NodeId) -> atoll_storage::Result<bool> {
    Ok(revoked::has(reader, node)? || reader.get(&REVOCATION, id_of(node))?.is_some())
}

/// All nodes that the network refuses, the earliest first; at most [`MAX_REVOKED`] by this node's marks, and as many more
/// by records.
pub(super) fn all(reader: &impl Read) -> atoll_storage::Result<Vec<Revoked>> {
    let mut all = Vec::new();
    for (node, Standing { about, at_ms, .. }) in standing(reader)? {
        let user = about.by_user.map_or(Ok(None), |user| reader.get(&USER, user))?;
        let by = match user.as_ref().and_then(|user| user.opt_text(&USERNAME)) {
            Some(user) => format!("{user} on {}", about.by_node),
            None => about.by_node,
        };
        all.push(Revoked { node, name: about.name, by, at_ms, reason: about.reason });
    }
    all.sort_by_key(|one| (one.at_ms, one.node));
    Ok(all)
}

/// Those whom this node refuses from its start on.
pub(crate) fn nodes(node: &Node) -> atoll_storage::Result<BTreeSet<NodeId>> {
    let standing = node.store.read(|reader| standing(reader))?;
    // A node that hears of its own removal can do nothing about it.
    Ok(standing.into_keys().filter(|one| *one != node.id()).collect())
}

fn standing(reader: &impl Read) -> atoll_storage::Result<BTreeMap<NodeId, Standing>> {
    let mut all = BTreeMap::new();
    for mark in revoked::list(reader)? {
        let about = serde_json::from_str(&mark.about).unwrap_or_default();
        let standing = Standing { about, at_ms: mark.at_ms, is_marked: true, is_recorded: false };
        all.insert(mark.node, standing);
    }
    let query = Query::of(&REVOCATION, Id::NIL).limit(MAX_REVOKED).without_total();
    for record in reader.list(&query)?.records {
        let Some(node) = named_by(&record) else { continue };
        let standing = all.entry(node).or_insert_with(|| Standing {
            about: about_of(&record),
            at_ms: record.created_ms(),
            is_marked: false,
            is_recorded: true,
        });
        standing.is_recorded = true;
    }
    Ok(all)
}

/// The node of a record. One that was changed into another's does not count.
fn named_by(record: &Record) -> Option<NodeId> {
    NodeId::parse(record.text(&NODE)).filter(|node| record.key == id_of(*node))
}

fn about_of(record: &Record) -> About {
    About {
        name: record.text(&NAME).to_owned(),
        by_node: record.text(&BY_NODE).to_owned(),
        by_user: record.id(&BY_USER),
        reason: record.opt_text(&REASON).map(ToOwned::to_owned),
    }
}

fn changes_of(node: NodeId, about: &About) -> Changes {
    Changes::new()
        .set(&NODE, node.to_string())
        .set(&NAME, about.name.clone())
        .set(&BY_NODE, about.by_node.clone())
        .set(&BY_USER, about.by_user)
        .set(&REASON, about.reason.clone())
}

fn with_cuts(changes: Changes, cuts: impl IntoIterator<Item = Value>) -> Changes {
    cuts.into_iter().fold(changes, |changes, cut| changes.add(&REVOKED_CUTS, cut))
}

/// Removes a node from the whole network, for good: its key is refused by every node that hears of it. It is named by
/// its id, public key or name, and need not be a peer of this one.
///
/// # Errors
/// `NotFound` if nothing is known under a name; `Conflict` (`own_key`, `removed_everywhere`, `too_many_removed`).
pub async fn revoke(
    node: &Node,
    actor: &Actor,
    named: &str,
    reason: Option<&str>,
) -> Result<Revoked> {
    actor.require(Permission::SyncAdminister)?;
    let (one, name) = meant(node, named)?;
    if one == node.id() {
        let message = "this is the node itself: do it on one that stays in the network";
        return Err(Error::conflict("own_key", message));
    }
    let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
    if reason.is_some_and(|reason| reason.chars().count() > REASON.max) {
        let message = format!("takes at most {} characters", REASON.max);
        return Err(Error::field("reason", "too_long", message));
    }
    let about = About {
        name,
        by_node: Hello::short_name(&node.config.name),
        by_user: actor.user,
        reason: reason.map(ToOwned::to_owned),
    };
    let (actor, me) = (*actor, node.id());
    let elsewhere = known_elsewhere(node, one);
    let written = node.store.write(move |tx: &mut Tx| {
        let standing = standing(tx)?;
        if standing.contains_key(&one) {
            let message = "this node is removed everywhere already";
            return Err(Error::conflict("removed_everywhere", message));
        }
        if standing.len() >= MAX_REVOKED {
            let message = "this network has removed as many nodes as it can keep in mind";
            return Err(Error::conflict("too_many_removed", message));
        }
        let mut told = Map::new();
        told.insert("node".to_owned(), json!({ "before": null, "after": one.to_string() }));
        let target = Some((REVOCATION.name, id_of(one)));
        audit::note_in(tx, actor.tenant, &actor, "peer.removed_everywhere", target, told)?;
        let cut = cut_of(tx, me, one, &elsewhere)?;
        let changes = with_cuts(changes_of(one, &about), cut);
        tx.create(&REVOCATION, Id::NIL, id_of(one), changes)?;
        signing_key::withdraw(tx, one)?;
        Ok(settle(tx, me)?)
    });
    written.await?;
    cut(node)?;
    let all = node.store.read(|reader| all(reader))?;
    all.into_iter().find(|revoked| revoked.node == one).ok_or(Error::NotFound("peer"))
}

/// What this node has to say of what it has of a removed one. Nothing if a peer does not let it do everything: the others
/// would not hear it, and what it took back by it they would.
fn cut_of(
    tx: &mut Tx,
    me: NodeId,
    removed: NodeId,
    elsewhere: &BTreeMap<StreamId, Vector>,
) -> atoll_storage::Result<Option<Value>> {
    if grant::is_limited(tx, me)? { Ok(None) } else { tx.cut_of(removed, elsewhere) }
}

/// What other peers are known to have.
fn known_elsewhere(node: &Node, removed: NodeId) -> BTreeMap<StreamId, Vector> {
    let peers = node.sync().map(|runner| runner.status()).unwrap_or_default();
    let mut all: BTreeMap<StreamId, Vector> = BTreeMap::new();
    for peer in peers.into_iter().filter(|peer| peer.node != removed) {
        for (stream, vector) in peer.acknowledged.iter().flat_map(|known| known.iter()) {
            all.entry(stream.clone()).or_default().merge(vector);
        }
    }
    all
}

/// All nodes that the network refuses, the earliest first.
pub fn removed(node: &Node, actor: &Actor) -> Result<Vec<Revoked>> {
    actor.require(Permission::SyncAdminister)?;
    Ok(node.store.read(|reader| all(reader))?)
}

/// A peer, one that was a peer, or whoever has this id or key.
fn meant(node: &Node, named: &str) -> Result<(NodeId, String)> {
    let named = named.trim();
    let known = match super::named(node, named) {
        Err(Error::NotFound(_)) => None,
        found => Some(found?),
    };
    let gone = node.store.read(|reader| peer::removed(reader))?;
    let id = NodeId::parse(named);
    let id = id.or_else(|| named.parse().ok().map(|key: PublicKey| key.node_id()));
    let of_old = || gone.iter().find(|peer| peer.name == named).map(|peer| peer.node);
    let one = known.or(id).or_else(of_old).ok_or(Error::NotFound("peer"))?;
    let listed = node.store.read(|reader| peer::find(reader, one))?;
    Ok((one, listed.map_or_else(|| one.to_string(), |peer| peer.name)))
}

/// Follows the records for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>, mut stop: Stop) {
    let mut commits = node.store.subscribe();
    let mut seen = None;
    loop {
        commits.mark_unchanged();
        let changes = node.store.access_changes();
        if seen != Some(changes) {
            match follow(&node).await {
                Ok(()) => seen = Some(changes),
                Err(error) => tracing::warn!(%error, "who was removed could not be looked up"),
            }
        }
        tokio::select! {
            () = stop.stopped() => return,
            changed = commits.changed() => if changed.is_err() { return },
        }
    }
}

async fn follow(node: &Node) -> Result<()> {
    cut(node)?;
    let me = node.id();
    if node.store.read(|reader| is_due(reader, me))? {
        node.store.write(move |tx: &mut Tx| settle(tx, me)).await?;
    }
    let store = node.store.clone();
    let found = tokio::task::spawn_blocking(move || {
        while store.find_late(FIND_OPS)? {}
        Ok::<_, atoll_storage::Error>(())
    });
    Ok(found.await.map_err(crate::runtime::internal)??)
}

/// Takes back what removed nodes wrote late and what nobody else has taken back for a while. Not while this node lacks
/// something that a peer has: that may be it. Nor if a peer does not let it do everything: it may be that nobody else would
/// get what it writes then.
pub(crate) fn take_back(node: &Node) -> atoll_storage::Result<()> {
    let peers = node.sync().map(|runner| runner.status()).unwrap_or_default();
    if peers.iter().any(|peer| peer.is_linked() && peer.behind > 0) {
        return Ok(());
    }
    if node.store.read(|reader| grant::is_limited(reader, node.id()))? {
        return Ok(());
    }
    let before_ms = node.clock.now_ms().saturating_sub(TAKE_BACK_MS);
    while node.store.take_back_before(before_ms, TAKE_BACK_OPS)? {}
    Ok(())
}

/// A late op, said of a row of the quarantine.
pub(super) fn explain(reader: &impl Read, rows: &mut [Quarantined]) -> atoll_storage::Result<()> {
    if !rows.iter().any(|row| row.reason == late::REASON) {
        return Ok(());
    }
    let standing = standing(reader)?;
    for row in rows.iter_mut().filter(|row| row.reason == late::REASON) {
        let name = standing.get(&row.op.dot.origin.node).map(|one| one.about.name.as_str());
        row.reason = format!("written by {} after it was removed", name.unwrap_or("a node"));
    }
    Ok(())
}

/// # Errors
/// `Conflict` (`removed_everywhere`) if the network refuses this node.
pub(super) fn require_not_revoked(node: &Node, other: NodeId) -> Result<()> {
    if node.store.read(|reader| is_revoked(reader, other))? {
        let message = "this node was removed everywhere: give it a new data folder, and with that a new key, and let it join";
        return Err(Error::conflict("removed_everywhere", message));
    }
    Ok(())
}

/// Ends the links that there are to removed nodes.
fn cut(node: &Node) -> Result<()> {
    if let Some(runner) = node.sync() {
        runner.revoke(nodes(node)?);
    }
    Ok(())
}

fn is_due(reader: &impl Read, me: NodeId) -> atoll_storage::Result<bool> {
    let listed = peer::list(reader)?;
    let standing = standing(reader)?;
    let is_behind = |(node, one): (&NodeId, &Standing)| {
        *node != me && !(one.is_marked && one.is_recorded)
            || listed.iter().any(|peer| peer.node == *node)
    };
    if standing.iter().any(is_behind) {
        return Ok(true);
    }
    for node in standing.into_keys().filter(|node| *node != me) {
        if revoked::lacks_cut(reader, node)? {
            return Ok(!grant::is_limited(reader, me)?);
        }
    }
    Ok(false)
}

/// Takes removed nodes off the list, marks what the records say, and says anew what only marks say.
fn settle(tx: &mut Tx, me: NodeId) -> atoll_storage::Result<()> {
    for (node, one) in standing(tx)?.into_iter().filter(|(node, _)| *node != me) {
        if peer::remove(tx, node)? {
            tracing::warn!(%node, name = one.about.name, by = one.about.by_node, "a node was removed everywhere");
        }
        if !one.is_marked {
            let about = serde_json::to_string(&one.about).unwrap_or_default();
            revoked::note(tx, &Mark { node, at_ms: one.at_ms, about })?;
        }
        let cut = cut_of(tx, me, node, &BTreeMap::new())?;
        if one.is_recorded {
            if let Some(cut) = cut {
                tx.edit(&REVOCATION, id_of(node), with_cuts(Changes::new(), [cut]))?;
            }
        } else {
            let key = id_of(node);
            let changes = with_cuts(changes_of(node, &one.about), revoked::cuts(tx, node)?);
            let changes = with_cuts(changes, cut);
            if tx.get(&REVOCATION, key)?.is_some() {
                tx.edit(&REVOCATION, key, changes)?;
            } else {
                let times = (one.at_ms, one.at_ms);
                tx.create_at(&REVOCATION, Id::NIL, key, changes, times)?;
            }
        }
    }
    Ok(())
}
