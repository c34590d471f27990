//! What peers may do here: said by this node in a signed statement, told to the whole network by a record, and narrowed by
//! what other peers say that are trusted with everything. A record alone does nothing: what it holds must be signed by the
//! issuer that it names, and the latest statement that was heard is kept apart from it, so that nobody takes it back.

use crate::access::{Actor, Permission};
use crate::audit;
use crate::carries::tenant_by_name;
use crate::error::{Error, Result};
use crate::identity::tenant;
use crate::kinds;
use crate::moment::Moment;
use crate::runtime::{Node, Stop};
use atoll_storage::granted::{self, MAX_STATEMENTS, Statement};
use atoll_storage::query::Query;
use atoll_storage::read::Read;
use atoll_storage::tx::{Changes, Tx};
use atoll_storage::{Field, Id, Kind, NodeId, Rights, Value, peer};
use atoll_sync::grant::{self, Grant, MAX_GRANT_BYTES};
use atoll_sync::key::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ISSUER: Field = Field::text(1, "issuer").required().max(32).read_only();
const HOLDER: Field = Field::text(2, "holder").required().max(32).read_only();
const STATEMENT: Field = Field::bytes(3, "statement")
    .required()
    .max(MAX_GRANT_BYTES)
    .read_only()
    .doc("What the issuer says, with its signature.");

/// Under a natural key of both nodes.
pub static GRANT: Kind = Kind {
    fields: &[ISSUER, HOLDER, STATEMENT],
    silent: true,
    doc: "What one node lets another do, in the words of the one that does.",
    ..Kind::new(4, "grant", "grants", "network")
};

/// What somebody wants a peer to be let do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// By id or slug; `*` among them: all.
    pub tenants: Option<Vec<String>>,
    /// `*` among them: all.
    pub scopes: Option<Vec<String>>,
    /// Of `read`, `write` and `relay`; `none`, or nothing at all: nothing any more.
    pub may: Option<Vec<String>>,
    /// A time as in RFC 3339, or a date, whose last moment in UTC is meant; `never`: without end.
    pub until: Option<String>,
}

/// One statement about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub holder: NodeId,
    pub holder_name: String,
    pub issuer: NodeId,
    pub issuer_name: String,
    pub rights: Rights,
    /// Whether it counts on this node.
    pub counts: bool,
    /// None: nothing was said yet, and it may do everything.
    pub issued_ms: Option<u64>,
    /// The rights in words, without the names.
    pub words: String,
}

/// `before` with what is asked for in the place of what it says.
///
/// # Errors
/// `Invalid`, with the field.
pub fn rights(node: &Node, asked: &Asked, before: Rights) -> Result<Rights> {
    let mut rights = before;
    if let Some(tenants) = &asked.tenants {
        let by_name = tenant_by_name(node);
        let found = |name: &str| by_name(name).ok_or_else(|| no_tenant(name));
        let some: Result<_> = words_of(tenants).filter(|name| *name != "*").map(found).collect();
        rights.tenants = Some(some?).filter(|_| !are_all(tenants));
    }
    if let Some(scopes) = &asked.scopes {
        let some: BTreeSet<String> = words_of(scopes).map(ToOwned::to_owned).collect();
        rights.scopes = Some(some).filter(|_| !are_all(scopes));
        rights.check().map_err(|error| Error::field("scopes", "malformed", error.to_string()))?;
        rights.scopes.iter().flatten().try_for_each(|scope| known_scope(scope))?;
    }
    if let Some(may) = &asked.may {
        (rights.read, rights.write, rights.relay) = (false, false, false);
        for word in words_of(may) {
            match word {
                "read" => rights.read = true,
                "write" => rights.write = true,
                "relay" => rights.relay = true,
                "none" => {}
                other => {
                    let message =
                        format!("{other:?} is none of read, write and relay, or none alone");
                    return Err(Error::field("may", "unknown_choice", message));
                }
            }
        }
    }
    match asked.until.as_deref().map(str::trim) {
        None => {}
        Some("never") => rights.until_ms = None,
        Some(text) => {
            let until_ms = until(text)?;
            if until_ms <= node.clock.now_ms() {
                let message =
                    format!("{text:?} is over: to let it do nothing from now on, say `may` none");
                return Err(Error::field("until", "in_the_past", message));
            }
            rights.until_ms = Some(until_ms);
        }
    }
    rights.check().map_err(|error| Error::field("scopes", "malformed", error.to_string()))?;
    Ok(rights)
}

fn words_of(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().flat_map(|part| part.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn are_all(list: &[String]) -> bool {
    words_of(list).any(|name| name == "*")
}

/// One that ends with `/` stands for all that begin alike.
fn known_scope(name: &str) -> Result<()> {
    let known: BTreeSet<&str> = kinds::ALL.iter().map(|kind| kind.scope).collect();
    let is_known =
        |scope: &&str| name.strip_suffix('/').map_or(*scope == name, |_| scope.starts_with(name));
    if known.iter().any(is_known) {
        return Ok(());
    }
    let names: Vec<&str> = known.into_iter().collect();
    let message =
        format!("there is no scope {name:?}: there are {}, and * for all", names.join(", "));
    Err(Error::field("scopes", "unknown_scope", message))
}

fn no_tenant(name: &str) -> Error {
    Error::field("tenants", "unknown_tenant", format!("there is no tenant {name:?}"))
}

fn until(text: &str) -> Result<u64> {
    const DAY_MS: i64 = 86_400_000;
    let moment = Moment::parse(text);
    let last = if text.len() == 10 { DAY_MS } else { 0 };
    moment.and_then(|moment| u64::try_from(moment.0 + last).ok()).ok_or_else(|| {
        let message = format!(
            "{text:?} is no time: write a date such as 2030-06-30, a time as in RFC 3339, or never"
        );
        Error::field("until", "malformed", message)
    })
}

/// What the rights are, in words: `may read, in lagoon, until 2030-07-01T00:00:00.000Z`.
pub fn words(node: &Node, rights: &Rights) -> String {
    if rights.is_nothing() {
        return "may do nothing".to_owned();
    }
    let all = [(rights.read, "read"), (rights.write, "write"), (rights.relay, "relay")];
    let may: Vec<&str> = all.iter().filter(|(is_so, _)| *is_so).map(|(_, word)| *word).collect();
    let may = match may.as_slice() {
        ["read"] => "only read".to_owned(),
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        other => other.join(""),
    };
    let mut words = format!("may {may}");
    match &rights.tenants {
        Some(tenants) => {
            let names: Vec<String> = tenants.iter().map(|id| slug(node, *id)).collect();
            words.push_str(&format!(", in {}", listed(&names, "no tenant")));
        }
        None if rights.scopes.is_none() => words.push_str(" everything"),
        None => words.push_str(", in all tenants"),
    }
    if let Some(scopes) = &rights.scopes {
        let names: Vec<String> = scopes.iter().cloned().collect();
        words.push_str(&format!(", of {}", listed(&names, "no scope")));
    }
    if let Some(until_ms) = rights.until_ms {
        words.push_str(&format!(", until {}", Moment::of(until_ms)));
    }
    words
}

fn listed(names: &[String], none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { names.join(" and ") }
}

pub(crate) fn slug(node: &Node, id: Id) -> String {
    let found = tenant::get(node, &Actor::system(Id::NIL), &id.to_string());
    found.map_or_else(|_| id.to_string(), |tenant| tenant.text(&tenant::SLUG).to_owned())
}

/// All statements that this node keeps, and its peers of whom it said nothing.
pub fn granted(node: &Node, actor: &Actor) -> Result<Vec<Granted>> {
    actor.require(Permission::SyncAdminister)?;
    let names: BTreeMap<NodeId, String> =
        super::peers(node).into_iter().map(|peer| (peer.node, peer.name)).collect();
    let name_of = |one: NodeId| names.get(&one).cloned().unwrap_or_else(|| one.to_string());
    let (kept, standing) = node.store.read(|reader| {
        Ok::<_, atoll_storage::Error>((granted::list(reader)?, grant::standing(reader, node.id())?))
    })?;
    let me = node.id();
    let trusted =
        |one: &NodeId| names.contains_key(one) && standing.get(one).is_none_or(Rights::is_whole);
    let mut all = Vec::new();
    for one in &kept {
        let Ok(grant) = grant::open_kept(one) else { continue };
        let words = words(node, &grant.rights);
        let counts = one.holder != me && (one.issuer == me || trusted(&one.issuer));
        let own = |one| if one == me { node.config.name.clone() } else { name_of(one) };
        all.push(Granted {
            holder: one.holder,
            holder_name: own(one.holder),
            issuer: one.issuer,
            issuer_name: own(one.issuer),
            rights: grant.rights,
            counts,
            issued_ms: Some(grant.issued_ms),
            words,
        });
    }
    for (holder, holder_name) in &names {
        if !all.iter().any(|one| (one.holder, one.issuer) == (*holder, me)) {
            let rights = Rights::everything();
            all.push(Granted {
                holder: *holder,
                holder_name: holder_name.clone(),
                issuer: me,
                issuer_name: node.config.name.clone(),
                words: words(node, &rights),
                rights,
                counts: true,
                issued_ms: None,
            });
        }
    }
    all.sort_by(|a, b| (&a.holder_name, a.issuer != me).cmp(&(&b.holder_name, b.issuer != me)));
    Ok(all)
}

/// What one peer may do here, all told: named by id, public key or name.
pub fn of(node: &Node, actor: &Actor, named: &str) -> Result<Granted> {
    actor.require(Permission::SyncAdminister)?;
    let one = super::named(node, named)?;
    let rights = may(node, one)?;
    let own = said_of(node, actor, one)?;
    Ok(Granted { words: words(node, &rights), rights, ..own })
}

/// What a node may do here, whoever said it.
pub(crate) fn may(node: &Node, one: NodeId) -> Result<Rights> {
    let mut standing = node.store.read(|reader| grant::standing(reader, node.id()))?;
    Ok(standing.remove(&one).unwrap_or_default())
}

/// Whether a peer of this node lets it do less than everything, as far as was heard.
pub(super) fn is_limited(reader: &impl Read, me: NodeId) -> atoll_storage::Result<bool> {
    let peers = peer::list(reader)?;
    let is_by_peer = |one: &Statement| peers.iter().any(|peer| peer.node == one.issuer);
    let of_me =
        granted::list(reader)?.into_iter().filter(|one| one.holder == me && is_by_peer(one));
    let mut said = of_me.filter_map(|one| grant::open_kept(&one).ok());
    Ok(said.any(|grant| !grant.rights.is_whole()))
}

/// Says what a node may do from now on, here and with all nodes that trust this one. It is a peer, named by id, public key or
/// name, or one of whom something was said. With `anew`, what is not asked for is not limited; else it stays as it was said.
///
/// # Errors
/// `NotFound`, and as [`rights`].
pub async fn grant(
    node: &Node,
    actor: &Actor,
    named: &str,
    asked: &Asked,
    anew: bool,
) -> Result<Granted> {
    actor.require(Permission::SyncAdminister)?;
    let holder = meant(node, named)?;
    let one = holder.node_id();
    if one == node.id() {
        let message = "this is the node itself: it may do everything here";
        return Err(Error::conflict("own_key", message));
    }
    let kept = node.store.read(|reader| granted::find(reader, node.id(), one))?;
    let said = kept.and_then(|kept| grant::open_kept(&kept).ok()).map(|grant| grant.rights);
    let before = said.filter(|_| !anew).unwrap_or_default();
    let rights = rights(node, asked, before)?;
    say(node, actor, holder, rights).await?;
    said_of(node, actor, one)
}

/// What this node says of one.
fn said_of(node: &Node, actor: &Actor, one: NodeId) -> Result<Granted> {
    let mut all = granted(node, actor)?.into_iter();
    let own = |granted: &Granted| granted.holder == one && granted.issuer == node.id();
    all.find(own).ok_or(Error::NotFound("peer"))
}

async fn say(node: &Node, actor: &Actor, holder: PublicKey, rights: Rights) -> Result<()> {
    let (key, actor, me, after) = (node.key().clone(), *actor, node.id(), words(node, &rights));
    let written = node.store.write(move |tx: &mut Tx| {
        if grant::issue(tx, &key, holder, rights)?.is_some() {
            let one = holder.node_id();
            let mut told = Map::new();
            told.insert("node".to_owned(), json!({ "before": null, "after": one.to_string() }));
            told.insert("grant".to_owned(), json!({ "before": null, "after": after }));
            let target = Some((GRANT.name, id_of(me, one)));
            audit::note_in(tx, actor.tenant, &actor, "peer.granted", target, told)?;
            publish(tx, me)?;
        }
        Ok::<_, Error>(())
    });
    written.await?;
    look(node)
}

fn look(node: &Node) -> Result<()> {
    node.sync().map_or(Ok(()), |runner| runner.look_at_grants().map_err(super::refused))
}

/// The key of a peer, of a node of whom something was said, or the key itself.
fn meant(node: &Node, named: &str) -> Result<PublicKey> {
    let named = named.trim();
    match super::named(node, named) {
        Err(Error::NotFound(_)) => {}
        found => {
            let one = found?;
            let listed = super::peers(node).into_iter().find(|peer| peer.node == one);
            return listed.map(|peer| peer.public_key).ok_or(Error::NotFound("peer"));
        }
    }
    if let Ok(key) = named.parse() {
        return Ok(key);
    }
    let kept = node.store.read(|reader| granted::list(reader))?;
    let of = |one: &Statement| NodeId::parse(named) == Some(one.holder);
    let known = kept.iter().filter(|one| of(one)).find_map(|one| grant::open_kept(one).ok());
    known.map(|grant| grant.holder).ok_or(Error::NotFound("peer"))
}

fn id_of(issuer: NodeId, holder: NodeId) -> Id {
    Id::natural(&[b"grant", &issuer.0, &holder.0])
}

/// Writes what this node says of others into records, where they say something else.
fn publish(tx: &mut Tx, me: NodeId) -> atoll_storage::Result<()> {
    for one in granted::list(tx)?.into_iter().filter(|one| one.issuer == me) {
        let key = id_of(me, one.holder);
        let told = tx.get(&GRANT, key)?;
        if told.as_ref().is_some_and(|told| told.bytes(&STATEMENT) == Some(&one.bytes)) {
            continue;
        }
        let changes = Changes::new()
            .set(&ISSUER, me.to_string())
            .set(&HOLDER, one.holder.to_string())
            .set(&STATEMENT, Value::Bytes(one.bytes));
        if told.is_some() {
            tx.edit(&GRANT, key, changes)?;
        } else {
            tx.create(&GRANT, Id::NIL, key, changes)?;
        }
    }
    Ok(())
}

/// Sound statements of this node and of its peers that records tell and that are not kept.
fn news(reader: &impl Read, me: NodeId) -> atoll_storage::Result<Vec<Statement>> {
    let peers = peer::list(reader)?;
    let kept: BTreeMap<(NodeId, NodeId), u64> = granted::list(reader)?
        .into_iter()
        .map(|one| ((one.issuer, one.holder), one.serial))
        .collect();
    let query = Query::of(&GRANT, Id::NIL).limit(MAX_STATEMENTS).without_total();
    let mut news = Vec::new();
    let mut room = MAX_STATEMENTS.saturating_sub(kept.len());
    for record in reader.list(&query)?.records {
        let Some(bytes) = record.bytes(&STATEMENT) else { continue };
        // Whoever is no peer has no say: it need not be checked what it signed.
        let issuer = NodeId::parse(record.text(&ISSUER));
        let has_say =
            issuer.is_some_and(|one| one == me || peers.iter().any(|peer| peer.node == one));
        if !has_say {
            continue;
        }
        let grant = match Grant::open(bytes) {
            Ok(grant) => grant,
            Err(error) => {
                tracing::debug!(key = %record.key, %error, "a record of a grant does nothing");
                continue;
            }
        };
        let one = grant.statement(bytes.to_vec());
        if record.key != id_of(one.issuer, one.holder) || issuer != Some(one.issuer) {
            continue;
        }
        match kept.get(&(one.issuer, one.holder)) {
            Some(serial) if *serial >= one.serial => {}
            None if room == 0 => {
                tracing::warn!(issuer = %one.issuer, holder = %one.holder, "a grant cannot be kept: there are too many");
            }
            known => {
                room -= usize::from(known.is_none());
                news.push(one);
            }
        }
    }
    Ok(news)
}

fn is_unpublished(reader: &impl Read, me: NodeId) -> atoll_storage::Result<bool> {
    for one in granted::list(reader)?.into_iter().filter(|one| one.issuer == me) {
        let told = reader.get(&GRANT, id_of(me, one.holder))?;
        if told.is_none_or(|told| told.bytes(&STATEMENT) != Some(&one.bytes)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keeps what records tell now, before the one who follows them does: for who takes something in, and goes by what came of it. For a
/// thread that may wait.
pub(crate) fn catch_up(node: &Node) -> atoll_storage::Result<()> {
    let news = node.store.read(|reader| news(reader, node.id()))?;
    if news.is_empty() {
        return Ok(());
    }
    node.store.write_blocking(move |tx: &mut Tx| keep_all(tx, &news))
}

fn keep_all(tx: &mut Tx, news: &[Statement]) -> atoll_storage::Result<()> {
    for one in news {
        granted::keep(tx, one)?;
    }
    Ok(())
}

/// Follows the records, and what tickets said, for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>, mut stop: Stop) {
    let Some(mut peers) = node.sync().map(atoll_sync::runner::Runner::changes) else { return };
    let mut commits = node.store.subscribe();
    let mut seen = None;
    loop {
        commits.mark_unchanged();
        let now = (node.store.access_changes(), *peers.borrow_and_update());
        if seen != Some(now) {
            match follow(&node).await {
                Ok(()) => seen = Some(now),
                Err(error) => tracing::warn!(%error, "who may do what could not be looked up"),
            }
        }
        tokio::select! {
            () = stop.stopped() => return,
            changed = commits.changed() => if changed.is_err() { return },
            changed = peers.changed() => if changed.is_err() { return },
        }
    }
}

async fn follow(node: &Node) -> Result<()> {
    let me = node.id();
    let (news, is_unpublished) = node.store.read(|reader| {
        Ok::<_, atoll_storage::Error>((news(reader, me)?, is_unpublished(reader, me)?))
    })?;
    if !news.is_empty() || is_unpublished {
        let settled = node.store.write(move |tx: &mut Tx| {
            keep_all(tx, &news)?;
            publish(tx, me)
        });
        settled.await?;
    }
    look(node)
}
