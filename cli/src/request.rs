//! What commands ask of a node, as values: done here if the folder is free, sent to the node that holds it if not.
//! Answers are JSON, so that both ways print alike.

pub mod bucket;
mod told;
mod user;

use crate::failure::{Failure, Outcome};
use atoll_api::moment::Moment;
use atoll_node::backup::kept;
use atoll_node::conflict::author::Source;
use atoll_node::content::import;
use atoll_node::exchange::export;
use atoll_node::identity::tenant;
use atoll_node::job::{self, Job};
use atoll_node::{Actor, Node, blob, carries, conflict, courier, kinds, peer, seal};
use atoll_storage::body;
use atoll_storage::job::Wanted;
use atoll_storage::op::{BodyEdit, BodyWrite};
use atoll_storage::{Id, Op, Payload, Shown};
use atoll_sync::blob::TransferStatus;
use atoll_sync::runner::{Obstacle, PeerStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use told::{back_up, backup_json, neighbour_json, plan_json, standing_json};

const EXCERPT_CHARS: usize = 200;

#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    UserCreate { email: String, username: Option<String>, role: String, password: Option<String> },
    UserList { limit: usize },
    UserResetPassword { user: String, password: Option<String> },
    UserImport { file: PathBuf, dry_run: bool },
    UserExport { password_hashes: bool },
    PeerTicket { hours: u64, addresses: Vec<String>, asked: peer::Asked },
    PeerJoin { ticket: String },
    PeerAdd { public_key: String, name: String, address: Option<String>, asked: peer::Asked },
    PeerGrant { peer: String, asked: peer::Asked },
    PeerGrants,
    BucketAdd(bucket::Asked),
    PeerList,
    PeerNearby,
    PeerRemove { peer: String },
    PeerRevoke { peer: String, reason: Option<String> },
    SyncStatus,
    SyncPlan,
    SyncNow { timeout_s: u64 },
    SyncQuarantine { limit: usize },
    SyncConflicts { limit: usize },
    BundleExport { file: PathBuf, order: courier::Order },
    BundleInfo { files: Vec<PathBuf> },
    BundleVerify { files: Vec<PathBuf> },
    BundleImport { files: Vec<PathBuf> },
    CarryList,
    CarryChange { added: Vec<String>, dropped: Vec<String>, force: bool },
    Import(Import),
    Export { file: PathBuf, tenant: Option<String>, password_hashes: bool },
    JobList { state: Option<String>, limit: usize },
    JobCancel { id: i64 },
    JobRetry { id: i64 },
    JobRemove { id: i64 },
    BackupCreate { to: Option<PathBuf> },
    BackupList,
    Rebuild,
    Verify,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Import {
    pub format: import::Format,
    pub file: PathBuf,
    pub dry_run: bool,
    pub tenant: Option<String>,
    pub site: Option<String>,
    /// Gets a line for each item.
    pub report: Option<PathBuf>,
}

impl Request {
    /// Whether it takes a node that talks to others.
    pub fn needs_peers(&self) -> bool {
        matches!(self, Self::PeerTicket { .. } | Self::PeerJoin { .. } | Self::SyncNow { .. })
    }
}

/// Told how far a long request is: done, and of how many.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(u64, u64) + Send + Sync>);

impl Progress {
    pub fn new(tell: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub fn tell(&self, done: u64, of: u64) {
        (self.0)(done, of);
    }
}

/// Does what is asked, on an open node.
pub async fn perform(node: Arc<Node>, request: Request, progress: Progress) -> Outcome<Json> {
    let node = &node;
    let whole = Actor::system(atoll_storage::Id::NIL);
    match request {
        Request::UserCreate { email, username, role, password } => {
            user::create(node, email, username, &role, password).await
        }
        Request::UserList { limit } => user::list(node, limit),
        Request::UserResetPassword { user, password } => {
            user::reset_password(node, &user, password).await
        }
        Request::UserImport { file, dry_run } => user::import(node, &file, dry_run).await,
        Request::UserExport { password_hashes } => user::export(node, password_hashes),
        Request::PeerTicket { hours, addresses, asked } => {
            let lifetime = Duration::from_secs(hours * 3_600);
            let ticket = peer::ticket_for(node, &whole, lifetime, addresses, &asked).await?;
            let expires_at = Moment::of(ticket.expires_ms).to_string();
            Ok(
                json!({ "ticket": ticket.line, "expires_at": expires_at, "addresses": ticket.addresses }),
            )
        }
        Request::PeerGrant { peer, asked } => told::grant(node, &peer, &asked).await,
        Request::PeerGrants => {
            let granted = peer::granted(node, &whole)?;
            Ok(Json::Array(granted.iter().map(told::granted_json).collect()))
        }
        Request::PeerJoin { ticket } => join(node, &ticket).await,
        Request::PeerAdd { public_key, name, address, asked } => {
            let address = address.as_deref();
            let id = peer::add_for(node, &whole, &public_key, &name, address, &asked).await?;
            Ok(json!({ "node": id.to_string(), "name": name }))
        }
        Request::PeerList => {
            let peers = peer::list(node, &whole)?;
            let buckets = bucket::list(node)?;
            let buckets = buckets.iter().map(bucket::json);
            Ok(Json::Array(peers.iter().map(|peer| peer_json(node, peer)).chain(buckets).collect()))
        }
        Request::BucketAdd(asked) => bucket::add(node, asked).await,
        Request::PeerNearby => {
            let neighbours = peer::nearby(node, &whole)?;
            Ok(Json::Array(neighbours.iter().map(neighbour_json).collect()))
        }
        Request::PeerRemove { peer } => remove_peer(node, &peer).await,
        Request::PeerRevoke { peer, reason } => told::revoke(node, &peer, reason.as_deref()).await,
        Request::SyncStatus => status(node),
        Request::SyncPlan => {
            let plans = peer::plan(node, &whole)?;
            Ok(Json::Array(plans.iter().map(plan_json).collect()))
        }
        Request::SyncNow { timeout_s } => sync_now(node, timeout_s).await,
        Request::SyncQuarantine { limit } => quarantine(node, limit),
        Request::SyncConflicts { limit } => conflicts(node, limit),
        Request::BundleExport { file, order } => {
            let node = node.clone();
            let tell = move |done, of| progress.tell(done, of);
            blocking(move || as_json(courier::export(&node, &whole, &order, &file, tell)?)).await
        }
        Request::BundleInfo { files } => {
            let node = node.clone();
            blocking(move || as_json(courier::info(&node, &whole, &files)?)).await
        }
        Request::BundleVerify { files } => {
            let node = node.clone();
            let tell = move |done, of| progress.tell(done, of);
            blocking(move || as_json(courier::verify(&node, &whole, &files, tell)?)).await
        }
        Request::BundleImport { files } => {
            let node = node.clone();
            let tell = move |done, of| progress.tell(done, of);
            blocking(move || as_json(courier::import(&node, &whole, &files, tell)?)).await
        }
        Request::CarryList => as_json(carries::show(node, &whole)?),
        Request::CarryChange { added, dropped, force } => {
            as_json(carries::change(node, &whole, &added, &dropped, force).await?)
        }
        Request::Import(import) => import_content(node.clone(), import, progress).await,
        Request::Export { file, tenant, password_hashes } => {
            let actor = in_tenant(node, tenant.as_deref())?;
            let (node, order) = (node.clone(), export::Order { password_hashes });
            let tell = move |done, of| progress.tell(done, of);
            blocking(move || as_json(export::run(&node, &actor, order, &file, tell)?)).await
        }
        Request::JobList { state, limit } => {
            let wanted = Wanted { state: state.as_deref(), ..Wanted::default() };
            let (jobs, _) = job::list(node, &in_default(node)?, wanted, limit)?;
            Ok(Json::Array(jobs.iter().map(job_json).collect()))
        }
        Request::JobCancel { id } => {
            Ok(job_json(&job::cancel(node, &in_default(node)?, id).await?))
        }
        Request::JobRetry { id } => Ok(job_json(&job::retry(node, &in_default(node)?, id).await?)),
        Request::JobRemove { id } => {
            job::remove(node, &in_default(node)?, id).await?;
            Ok(json!({ "removed": id }))
        }
        Request::BackupCreate { to } => {
            let node = node.clone();
            blocking(move || back_up(&node, to.as_deref(), &progress)).await
        }
        Request::BackupList => {
            let kept = kept::list(node, &whole)?;
            Ok(Json::Array(kept.iter().map(backup_json).collect()))
        }
        Request::Rebuild => {
            let node = node.clone();
            blocking(move || rebuild(&node, progress)).await
        }
        Request::Verify => {
            let node = node.clone();
            blocking(move || verify(&node)).await
        }
    }
}

pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::failed("the work was given up"))?
}

/// The command line acts in the default tenant.
fn in_default(node: &Node) -> Outcome<Actor> {
    let tenant = tenant::default(node).map_err(|error| match error {
        atoll_node::Error::NotFound(_) => Failure::not_found(
            "this node has no tenant yet: run `atoll serve` or `atoll init`, or wait until it has caught up with its network",
        ),
        error => error.into(),
    })?;
    Ok(Actor::system(tenant))
}

/// In the tenant of this id or slug.
fn in_tenant(node: &Node, name: Option<&str>) -> Outcome<Actor> {
    let whole = Actor::system(atoll_storage::Id::NIL);
    match name {
        None => in_default(node),
        Some(name) => Ok(Actor::system(tenant::get(node, &whole, name)?.key)),
    }
}

async fn import_content(node: Arc<Node>, asked: Import, progress: Progress) -> Outcome<Json> {
    let Import { format, file, dry_run, tenant, site, report } = asked;
    let actor = in_tenant(&node, tenant.as_deref())?;
    // Rows of tables are told apart by their file; everything else says itself where it comes from.
    let is_table = matches!(format, import::Format::Csv | import::Format::Jsonl);
    let name = file.file_name().filter(|_| is_table).unwrap_or_default();
    let order = import::Order::new(format, &name.to_string_lossy(), dry_run)?;
    let order = order.of_site(site.as_deref().unwrap_or_default())?;
    let tell = move |_: &import::Report, done, of| progress.tell(done, of);
    blocking(move || as_json(import::run(&node, &actor, &order, &file, report.as_deref(), tell)?))
        .await
}

fn job_json(job: &Job) -> Json {
    json!({
        "id": job.id,
        "queue": job.queue,
        "state": job.state,
        "percent": job::percent(job),
        "note": job.note,
        "error": job.error,
        "created_at": Moment::of(job.created_ms).to_string(),
    })
}

async fn join(node: &Node, ticket: &str) -> Outcome<Json> {
    let actor = Actor::system(atoll_storage::Id::NIL);
    let has_own = !tenant::ids(node)?.is_empty() && peer::list(node, &actor)?.is_empty();
    if has_own {
        return Err(Failure::failed(
            "this node began a network of its own: join with a new data folder, by `atoll serve --join TICKET`",
        ));
    }
    let peer = peer::join(node, &actor, ticket).await?;
    Ok(peer_json(node, &peer))
}

async fn remove_peer(node: &Node, wanted: &str) -> Outcome<Json> {
    let whole = Actor::system(atoll_storage::Id::NIL);
    let names: Vec<(String, String)> =
        peer::list(node, &whole)?.into_iter().map(|p| (p.node.to_string(), p.name)).collect();
    let removed = match peer::remove(node, &whole, wanted).await {
        Ok(removed) => removed.to_string(),
        Err(atoll_node::Error::NotFound(_)) => {
            return bucket::remove(node, wanted).await?.ok_or_else(|| {
                Failure::not_found(format!(
                    "this node knows no peer and no bucket {wanted:?}: `atoll peer list` shows them"
                ))
            });
        }
        Err(error) => return Err(error.into()),
    };
    let name = names
        .into_iter()
        .find(|(id, _)| *id == removed)
        .map_or_else(|| removed.clone(), |(_, name)| name);
    Ok(json!({ "removed": removed, "name": name }))
}

pub fn peer_json(node: &Node, peer: &PeerStatus) -> Json {
    json!({
        "node": peer.node.to_string(),
        "public_key": peer.public_key.to_string(),
        "name": peer.name,
        "address": peer.address,
        "state": peer.state.name(),
        "behind_ops": peer.behind,
        "ahead_ops": peer.ahead,
        "contact_at": peer.contact_ms.map(|ms| Moment::of(ms).to_string()),
        "round_trip_us": peer.round_trip.map(|time| time.as_micros() as u64),
        "clock_skew_ms": peer.clock_skew_ms,
        "clock": peer::of_clock(peer),
        "reason": peer.reason,
        "diverged": peer.diverged,
        "carries": peer.carries.as_ref().map(ToString::to_string),
        "may": peer::words(node, &peer.may),
        "lets": peer.lets.as_ref().map(|lets| peer::words(node, lets)),
        "is_limited": !peer.may.is_whole() || peer.may.until_ms.is_some()
            || peer.lets.as_ref().is_some_and(|lets| !lets.is_whole() || lets.until_ms.is_some()),
        "refused_ops": peer.refused,
    })
}

fn status(node: &Node) -> Outcome<Json> {
    let status = peer::status(node, &Actor::system(atoll_storage::Id::NIL))?;
    Ok(json!({
        "node": status.origin.node.to_string(),
        "epoch": status.origin.epoch,
        "public_key": status.public_key,
        "name": status.name,
        "digest": status.digest.to_string(),
        "streams": status.streams,
        "records": status.records,
        "conflicts": status.conflicts,
        "quarantined": status.quarantined,
        "late": status.late,
        "parked": status.parked,
        "backup": standing_json(node),
        "seals": seals_json(node)?,
        "peers": status.peers.iter().map(|peer| peer_json(node, peer)).collect::<Vec<_>>(),
        "buckets": bucket::list(node)?.iter().map(bucket::json).collect::<Vec<_>>(),
        "blobs": blobs_json(node)?,
        "removed": status.removed.iter().map(peer::Revoked::words).collect::<Vec<_>>(),
        "is_removed": status.removed.iter().any(|one| one.node == status.origin.node),
    }))
}

fn seals_json(node: &Node) -> Outcome<Json> {
    let standing = seal::standing(node, &Actor::system(atoll_storage::Id::NIL))?;
    let words: Vec<&str> = standing.latest.iter().map(|broken| &*broken.words).collect();
    Ok(json!({
        "proven_ops": standing.proven_ops,
        "waiting": standing.waiting,
        "broken": standing.broken,
        "latest": words,
    }))
}

fn blobs_json(node: &Node) -> Outcome<Json> {
    let status = blob::status(node, &Actor::system(atoll_storage::Id::NIL))?;
    let transfer = |transfer: &TransferStatus| {
        json!({
            "id": transfer.id,
            "size_bytes": transfer.size_bytes,
            "here_bytes": transfer.here_bytes,
            "peers": transfer.peers,
        })
    };
    Ok(json!({
        "wanted": status.counts.named,
        "missing": status.counts.missing,
        "resting": status.counts.resting,
        "size_bytes": status.size_bytes,
        "disk_full": status.disk_full,
        "transfers": status.transfers.iter().map(transfer).collect::<Vec<_>>(),
        "full_peers": status.full_peers.iter().map(ToString::to_string).collect::<Vec<_>>(),
    }))
}

async fn sync_now(node: &Node, timeout_s: u64) -> Outcome<Json> {
    let whole = Actor::system(atoll_storage::Id::NIL);
    peer::sync_now(node, &whole)?;
    let Some(runner) = node.sync() else { return status(node) };
    let timeout = Duration::from_secs(timeout_s);
    // Those that have to dial this node are met in the bucket, if there is one, or by couriers.
    let has_buckets = !bucket::list(node)?.is_empty();
    let met_by_couriers = peer::met_by_couriers(node)?;
    let counts = |peer: &PeerStatus| {
        // Who may do nothing here is not waited for.
        let may = !peer.may.is_nothing() && !peer.may.is_over(node.clock.now_ms());
        let is_met_elsewhere = has_buckets || met_by_couriers.contains(&peer.node);
        let is_dialled = peer.obstacle != Some(Obstacle::NoAddress);
        peer.is_linked() || (may && (is_dialled || !is_met_elsewhere))
    };
    let (is_level, is_visited) = tokio::join!(
        runner.level_with(timeout, counts),
        atoll_node::bucket::visit(node, &whole, timeout)
    );
    let mut told = bucket::late(node)?;
    if !is_visited? && told.is_empty() {
        told.push("a visit to a bucket is not over".to_owned());
    }
    if is_level && told.is_empty() {
        return status(node);
    }
    let late = runner.status();
    let late = late.iter().filter(|peer| counts(peer) && !peer.is_level());
    told.extend(late.map(|peer| format!("{} ({}): {}", peer.name, peer.state.name(), peer.reason)));
    let what = if is_level {
        "not all was reached".to_owned()
    } else {
        format!("not level after {timeout_s} s")
    };
    Err(Failure::failed(format!("{what}: {}", told.join("; "))))
}

/// Of what it added to texts, enough to know it by.
fn added(op: &Op) -> Option<String> {
    let Payload::Write(write) = &op.payload else { return None };
    let passages = |body: &BodyWrite| match &body.edit {
        BodyEdit::Born(text) => vec![text.clone()],
        BodyEdit::Change { bytes, .. } => body::told(bytes).unwrap_or_default().added,
    };
    let all = write.bodies.iter().flat_map(passages).collect::<Vec<_>>().join(" … ");
    let mut excerpt: String = all.chars().take(EXCERPT_CHARS).collect();
    if excerpt.len() < all.len() {
        excerpt.push('…');
    }
    (!excerpt.is_empty()).then_some(excerpt)
}

fn quarantine(node: &Node, limit: usize) -> Outcome<Json> {
    let rows = peer::quarantined(node, &Actor::system(Id::NIL), limit)?;
    let row = |row: &atoll_storage::read::Quarantined| {
        let op = &row.op;
        let kind = kinds::ALL.iter().find(|kind| kind.code == op.kind);
        json!({
            "at": Moment::of(row.at_ms).to_string(),
            "reason": row.reason,
            "node": op.dot.origin.node.to_string(),
            "kind": kind.map_or_else(|| format!("unknown ({})", op.kind), |kind| kind.name.into()),
            "key": op.key,
            "did": peer::did(op),
            "written_at": Moment::of(op.hlc.ms()).to_string(),
            "added": added(op),
        })
    };
    Ok(Json::Array(rows.iter().map(row).collect()))
}

fn conflicts(node: &Node, limit: usize) -> Outcome<Json> {
    let inbox = conflict::list(node, &in_default(node)?, limit, None)?;
    let sources = conflict::author::sources(node, &inbox.conflicts)?;
    let row = |(conflict, sources): (&atoll_storage::Conflict, &Vec<Source>)| {
        let kind = kinds::ALL.iter().find(|kind| kind.code == conflict.kind);
        let field = kind.and_then(|kind| kind.field_by_code(conflict.field_code));
        let is_secret = field.is_some_and(|field| field.shown == Shown::Never);
        let values = conflict.values.iter().zip(sources).map(|(value, source)| {
            json!({
                "value": (!is_secret).then_some(&value.value),
                "key": value.key,
                "author": source.author.as_ref().filter(|_| !is_secret),
                "node": value.dot.origin.node.to_string(),
                "node_name": source.node_name,
                "at": Moment::of(value.hlc.ms()).to_string(),
                "won": value.won,
            })
        });
        json!({
            "id": conflict.id,
            "cause": conflict.cause.name(),
            "kind": conflict.kind_name,
            "key": conflict.key,
            "field": Some(&conflict.field).filter(|field| !field.is_empty()),
            "at": Moment::of(conflict.at_ms).to_string(),
            "explanation": conflict.explanation,
            "values": values.collect::<Vec<_>>(),
        })
    };
    Ok(Json::Array(inbox.conflicts.iter().zip(&sources).map(row).collect()))
}

pub fn as_json(answer: impl Serialize) -> Outcome<Json> {
    serde_json::to_value(answer).map_err(Failure::failed)
}

fn rebuild(node: &Node, progress: Progress) -> Outcome<Json> {
    node.store.rebuild(move |done, of| progress.tell(done, of))?;
    node.search.clear().map_err(Failure::failed)?;
    node.store.mark_all_dirty()?;
    let fed = node.feed_search()?;
    Ok(json!({ "rebuilt": true, "searched_records": fed }))
}

fn verify(node: &Node) -> Outcome<Json> {
    let report = node.store.verify()?;
    let mut answer = serde_json::to_value(&report).map_err(Failure::failed)?;
    let (mut blobs, mut damaged) = (0_u64, Vec::new());
    for blob in node.blobs.iter() {
        let (id, _) = blob.map_err(Failure::failed)?;
        blobs += 1;
        if node.blobs.verify(&id).map_err(Failure::failed)?
            == atoll_storage::blob::Verified::Damaged
        {
            damaged.push(format!("blob {id} is damaged"));
        }
    }
    answer["blobs"] = blobs.into();
    if let Some(problems) = answer["problems"].as_array_mut() {
        problems.extend(damaged.into_iter().map(Json::from));
        if let Err(error) = node.search.verify() {
            problems.push(error.to_string().into());
        }
    }
    Ok(answer)
}
