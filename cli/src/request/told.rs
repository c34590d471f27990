//! What commands are told of backups, of nodes nearby and of what is missing where, as JSON.

use super::{Progress, as_json};
use crate::failure::{Failure, Outcome};
use atoll_api::moment::Moment;
use atoll_node::backup::{self, kept, work};
use atoll_node::{Actor, Node, peer};
use atoll_sync::runner::Obstacle;
use serde_json::{Value as Json, json};
use std::path::Path;

pub(super) fn back_up(node: &Node, to: Option<&Path>, progress: &Progress) -> Outcome<Json> {
    let tell = |done, of| -> backup::Result<()> {
        progress.tell(done, of);
        Ok(())
    };
    match to {
        Some(to) => as_json(backup::create(node, to, &tell)?),
        None => as_json(work::make(node, &|done, of, _| tell(done, of))?),
    }
}

pub(super) fn backup_json(kept: &kept::Kept) -> Json {
    let proof = kept.proof.as_ref();
    json!({
        "name": kept.name,
        "folder": kept.path.display().to_string(),
        "created_at": Moment::of(kept.created_ms).to_string(),
        "files": kept.files,
        "size_bytes": kept.size_bytes,
        "digest": kept.digest,
        "proven_at": proof.map(|proof| Moment::of(proof.proven_ms).to_string()),
        "records": proof.map(|proof| proof.records),
    })
}

pub(super) fn standing_json(node: &Node) -> Json {
    let standing = kept::standing(node).unwrap_or_default();
    let proven_ms = standing.last_proven.as_ref().map(|proof| proof.created_ms);
    json!({
        "state": standing.word(),
        "proven_at": proven_ms.map(|ms| Moment::of(ms).to_string()),
        "warning": standing.warning(node.clock.now_ms()),
    })
}

pub(super) fn neighbour_json(neighbour: &peer::Neighbour) -> Json {
    let addresses: Vec<String> = neighbour.heard.addrs.iter().map(ToString::to_string).collect();
    json!({
        "node": neighbour.heard.node.to_string(),
        "name": neighbour.heard.name,
        "addresses": addresses.join(", "),
        "known": neighbour.is_known,
    })
}

pub(super) async fn revoke(node: &Node, named: &str, reason: Option<&str>) -> Outcome<Json> {
    let whole = Actor::system(atoll_storage::Id::NIL);
    let revoked = match peer::revoke(node, &whole, named, reason).await {
        Err(atoll_node::Error::NotFound(_)) => {
            return Err(Failure::not_found(format!(
                "this node knows none that is called {named:?}: give its id or public key, as `atoll peer list` shows it on a node that knows it"
            )));
        }
        revoked => revoked?,
    };
    Ok(json!({
        "removed": revoked.node.to_string(),
        "name": revoked.name,
        "words": revoked.words(),
    }))
}

pub(super) async fn grant(node: &Node, named: &str, asked: &peer::Asked) -> Outcome<Json> {
    let whole = Actor::system(atoll_storage::Id::NIL);
    match peer::grant(node, &whole, named, asked, false).await {
        Err(atoll_node::Error::NotFound(_)) => Err(Failure::not_found(format!(
            "this node knows no peer {named:?}: `atoll peer list` shows them"
        ))),
        granted => Ok(granted_json(&granted?)),
    }
}

pub(super) fn granted_json(granted: &peer::Granted) -> Json {
    let rights = &granted.rights;
    json!({
        "node": granted.holder.to_string(),
        "name": granted.holder_name,
        "by_node": granted.issuer.to_string(),
        "by": granted.issuer_name,
        "tenants": rights.tenants,
        "scopes": rights.scopes,
        "read": rights.read,
        "write": rights.write,
        "relay": rights.relay,
        "until": rights.until_ms.map(|ms| Moment::of(ms).to_string()),
        "counts": granted.counts,
        "issued_at": granted.issued_ms.map(|ms| Moment::of(ms).to_string()),
        "words": granted.words,
    })
}

pub(super) fn plan_json(plan: &peer::Plan) -> Json {
    json!({
        "node": plan.peer.node.to_string(),
        "name": plan.peer.name,
        "state": plan.peer.state.name(),
        "missing_here_ops": plan.missing_here,
        "missing_there_ops": plan.missing_there,
        "since": plan.since_ms.map(|ms| Moment::of(ms).to_string()),
        "obstacle": plan.obstacle.map(Obstacle::name),
        "words": plan.words,
    })
}
