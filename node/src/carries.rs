//! What of the network this node carries: shown, taken, dropped. Never drops what no other node is known to have,
//! unless it is told to.

use crate::access::{Actor, Permission};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::identity::tenant;
use crate::runtime::Node;
use atoll_storage::read::Read;
use atoll_storage::{Carries, Id, Rule, Store, StreamId, Vector};
use atoll_sync::runner::PeerStatus;
use std::sync::Arc;
use std::time::Duration;

/// What a node carries, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    /// In order: the last one that fits decides.
    pub rules: Vec<String>,
    pub everything: bool,
    /// Streams that are being removed, as tenant and scope.
    pub leaving: Vec<String>,
}

/// Records or ops that are removed by one write, so that others come between.
const PIECE: usize = 200;
/// Within which a new link has told what the peer has, or nothing is dropped.
const LEVEL_WITHIN: Duration = Duration::from_secs(5);

pub fn show(node: &Node, actor: &Actor) -> Result<Shown> {
    actor.require(Permission::SyncAdminister)?;
    let (carries, leaving) =
        node.store.read(|reader| Ok((reader.carries()?, reader.leaving()?)))?;
    let carries = carries.unwrap_or_default();
    Ok(Shown {
        rules: carries.rules().iter().map(Rule::to_string).collect(),
        everything: carries.is_everything(),
        leaving: leaving.iter().map(ToString::to_string).collect(),
    })
}

/// Carries what these rules say, and nothing else. Tenants are named by id or slug.
///
/// # Errors
/// `Conflict` (`not_elsewhere`) if something would be dropped that no linked node has whole, unless `force`.
pub async fn set(node: &Arc<Node>, actor: &Actor, rules: &[String], force: bool) -> Result<Shown> {
    actor.require(Permission::SyncAdminister)?;
    let carries = Carries::parse(rules.iter().map(String::as_str), tenant_by_name(node))
        .map_err(|error| Error::field("rules", "malformed", error.to_string()))?;
    put(node, actor, carries, force).await
}

/// Takes more, and drops some. Rules as in [`set`], without the `-`.
///
/// # Errors
/// As [`set`].
pub async fn change(
    node: &Arc<Node>,
    actor: &Actor,
    added: &[String],
    dropped: &[String],
    force: bool,
) -> Result<Shown> {
    actor.require(Permission::SyncAdminister)?;
    let mut carries = node.store.read(|reader| reader.carries())?.unwrap_or_default();
    let all = added.iter().map(|text| (text, false)).chain(dropped.iter().map(|text| (text, true)));
    for (text, leaves) in all {
        let text = text.trim_start_matches('-');
        let pushed = Rule::parse(text, tenant_by_name(node))
            .and_then(|rule| carries.push(Rule { leaves, ..rule }));
        pushed.map_err(|error| Error::field("rules", "malformed", error.to_string()))?;
    }
    put(node, actor, carries, force).await
}

/// What the settings say, on a node that was never told otherwise.
pub(crate) fn begin(store: &Store, config: &Config) -> Result<()> {
    let rules = &config.sync.carries;
    if rules.is_empty() || store.read(|reader| reader.carries())?.is_some() {
        return Ok(());
    }
    Ok(store.carry(Carries::parse(rules.iter().map(String::as_str), |_| None)?)?)
}

/// Removes what is carried no more, to the end or until the store is closed.
pub(crate) fn shed(store: &Store) {
    loop {
        match store.shed(PIECE) {
            Ok(true) => {}
            Ok(false) | Err(atoll_storage::Error::Closed) => return,
            Err(error) => {
                return tracing::warn!(%error, "what is carried no more could not be removed; it is tried again at the next start");
            }
        }
    }
}

/// Finds a tenant by id or slug.
pub(crate) fn tenant_by_name(node: &Node) -> impl Fn(&str) -> Option<Id> {
    |name| Some(tenant::get(node, &Actor::system(Id::NIL), name).ok()?.key)
}

async fn put(node: &Arc<Node>, actor: &Actor, carries: Carries, force: bool) -> Result<Shown> {
    let dropped = dropped_by(node, &carries)?;
    if !force {
        must_be_elsewhere(node, &dropped).await?;
    }
    let store = node.store.clone();
    let is_served = node.sync().is_some();
    let work = move || {
        store.carry(carries)?;
        if !is_served {
            shed(&store);
        }
        Ok::<_, atoll_storage::Error>(store)
    };
    let store = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Internal(error.to_string()))??;
    if is_served {
        tokio::task::spawn_blocking(move || shed(&store));
        // So that others hear of it, and leave what is new here.
        node.buckets.ask();
    }
    show(node, actor)
}

/// Streams that are here, even in a part, and would be carried no more; with all that is here of them.
fn dropped_by(node: &Node, carries: &Carries) -> Result<Vec<(StreamId, Vector)>> {
    let dropped = node.store.read(|reader| {
        let heads = reader.streams()?.into_iter().filter(|head| !carries.carries(&head.stream));
        heads
            .map(|head| Ok((head.stream.clone(), reader.held(&head)?)))
            .collect::<Result<Vec<_>, _>>()
    })?;
    Ok(dropped.into_iter().filter(|(_, held)| !held.0.is_empty()).collect())
}

/// Those of the streams of which no linked node has all that is here.
async fn here_alone(node: &Node, dropped: &[(StreamId, Vector)]) -> Vec<String> {
    let streams: Vec<_> = dropped.iter().map(|(stream, _)| stream.clone()).collect();
    let known = match node.sync() {
        Some(runner) => runner.known(&streams).await,
        None => vec![],
    };
    let is_safe = |at: usize| known.iter().any(|peer| peer[at].includes(&dropped[at].1));
    (0..dropped.len()).filter(|at| !is_safe(*at)).map(|at| dropped[at].0.to_string()).collect()
}

async fn must_be_elsewhere(node: &Node, dropped: &[(StreamId, Vector)]) -> Result<()> {
    if dropped.is_empty() {
        return Ok(());
    }
    let mut alone = here_alone(node, dropped).await;
    if !alone.is_empty()
        && let Some(runner) = node.sync()
    {
        // A link that is new has not told yet what the peer has.
        runner.level_with(LEVEL_WITHIN, PeerStatus::is_linked).await;
        alone = here_alone(node, dropped).await;
    }
    if alone.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(
        "not_elsewhere",
        format!(
            "no node that this one is linked to has all of {}: link to one that carries it and wait until it is level, or force it and lose what only this node has",
            alone.join(", ")
        ),
    ))
}
