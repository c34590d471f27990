//! Jobs as people use them: started, looked at, cancelled, taken up again. A job belongs to a tenant and is not shown
//! to another; the node's own work is shown to nobody. Never runs one: that is `runtime::job`.

use crate::access::{Actor, Permission, PermissionSet};
use crate::error::{Error, Result};
use crate::identity::user;
use crate::runtime::Node;
use atoll_storage::job::{self as jobs, Wanted};
use atoll_storage::tx::Tx;
use atoll_storage::{Event, Id};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use atoll_storage::job::{CANCELLED, DEAD, DONE, Job, Progress, RUNNING, STATES, WAITING};

/// A job whose handler got no further for so long is taken from it.
pub const LEASE_MS: u64 = 600_000;
/// Jobs of one tenant that may wait or run.
const UNDER_WAY_MAX: u64 = 50;
/// Of a payload: what the API key that asked for the job could do.
const MAY: &str = "api_key_may";
/// Between two events that tell how far a job is.
const TOLD_EVERY_MS: u64 = 1_000;

/// Puts work off that the actor asked for.
///
/// # Errors
/// `TooMany` while the tenant has as many jobs under way as it may.
pub async fn start(node: &Node, actor: &Actor, queue: &'static str, payload: Json) -> Result<Job> {
    actor.require(Permission::JobsAdminister)?;
    let (actor, mut payload) = (*actor, payload);
    if let (Some(_), Some(payload)) = (actor.api_key, payload.as_object_mut()) {
        let may: Vec<&str> = actor.permissions.iter().map(Permission::name).collect();
        payload.insert(MAY.to_owned(), json!(may));
    }
    node.store
        .write(move |tx| {
            if jobs::depth_of(tx, actor.tenant)? >= UNDER_WAY_MAX {
                return Err(Error::TooMany { retry_after_s: 60 });
            }
            let now_ms = tx.now_ms();
            let id = tx.enqueue_for(Some(actor.tenant), actor.user, queue, &payload, now_ms)?;
            tell(tx, id, "runtime.job.queued")
        })
        .await
}

/// Jobs of the actor's tenant, newest first, and how many there are on all pages.
pub fn list(
    node: &Node,
    actor: &Actor,
    wanted: Wanted<'_>,
    limit: usize,
) -> Result<(Vec<Job>, u64)> {
    actor.require(Permission::JobsAdminister)?;
    Ok(node.store.read(|reader| jobs::list(reader, actor.tenant, wanted, limit))?)
}

pub fn get(node: &Node, actor: &Actor, id: i64) -> Result<Job> {
    actor.require(Permission::JobsAdminister)?;
    let job = node.store.read(|reader| jobs::find(reader, id))?;
    job.filter(|job| job.tenant == Some(actor.tenant)).ok_or(Error::NotFound("job"))
}

/// As [`get`], of one queue only.
pub fn get_of(node: &Node, actor: &Actor, queue: &str, id: i64, noun: &'static str) -> Result<Job> {
    get(node, actor, id)
        .and_then(|job| if job.queue == queue { Ok(job) } else { Err(Error::NotFound(noun)) })
}

/// What it has committed stays; it commits nothing more.
///
/// # Errors
/// `Conflict` (`job_ended`) for one that has ended.
pub async fn cancel(node: &Node, actor: &Actor, id: i64) -> Result<Job> {
    get(node, actor, id)?;
    node.store
        .write(move |tx| {
            if tx.cancel_job(id)? {
                return tell(tx, id, "runtime.job.cancelled");
            }
            Err(Error::conflict("job_ended", "the job has ended already"))
        })
        .await
}

/// Takes a dead or cancelled job up again, where it stopped.
///
/// # Errors
/// `Conflict` (`job_not_stopped`) for one that waits, runs or is done.
pub async fn retry(node: &Node, actor: &Actor, id: i64) -> Result<Job> {
    get(node, actor, id)?;
    node.store
        .write(move |tx| {
            if tx.replay_job(id)? {
                return tell(tx, id, "runtime.job.queued");
            }
            let message = "only a job that is dead or was cancelled can be taken up again";
            Err(Error::conflict("job_not_stopped", message))
        })
        .await
}

/// Forgets a job that has ended.
///
/// # Errors
/// `Conflict` (`job_under_way`) for one that has not.
pub async fn remove(node: &Node, actor: &Actor, id: i64) -> Result<()> {
    get(node, actor, id)?;
    let message = "the job is under way: cancel it first";
    node.store
        .write(move |tx| {
            if tx.drop_job(id)? { Ok(()) } else { Err(Error::conflict("job_under_way", message)) }
        })
        .await
}

/// The job as it is now, with its event if it belongs to a tenant.
fn tell(tx: &mut Tx<'_>, id: i64, event_type: &str) -> Result<Job> {
    let job = jobs::find(tx, id)?.ok_or(Error::NotFound("job"))?;
    if let Some(tenant) = job.tenant {
        let payload = json!({
            "job_id": job.id.to_string(),
            "queue": job.queue,
            "state": job.state,
            "done": job.done,
            "of": job.of,
            "percent": percent(&job),
            "note": job.note,
        });
        tx.emit(&Event { event_type, tenant, user: job.user, payload })?;
    }
    Ok(job)
}

/// None before it is known how much there is to do.
pub fn percent(job: &Job) -> Option<u64> {
    if job.state == DONE {
        return Some(100);
    }
    (job.done.min(job.of) * 100).checked_div(job.of)
}

/// A job under way, as its handler holds it.
pub struct Task {
    pub node: Arc<Node>,
    pub job: Job,
    told_ms: AtomicU64,
}

impl Task {
    pub fn new(node: Arc<Node>, job: Job) -> Self {
        Self { node, job, told_ms: AtomicU64::new(0) }
    }

    /// Whoever asked for the job, with what he may do now; by a key, with no more than the key could do then.
    pub fn actor(&self) -> Result<Actor> {
        let tenant = self.job.tenant.unwrap_or(Id::NIL);
        let actor = match self.job.user {
            Some(user) => user::acting(&self.node, user, tenant)?,
            None => Actor::system(tenant),
        };
        let Some(may) = self.job.payload[MAY].as_array() else { return Ok(actor) };
        let may: PermissionSet =
            may.iter().filter_map(|name| Permission::parse(name.as_str()?)).collect();
        Ok(Actor { permissions: actor.permissions.intersection(may), ..actor })
    }

    /// Notes how far the work is, in the transaction of the work, and keeps the lease.
    ///
    /// # Errors
    /// `Conflict` (`job_stopped`) if the job was cancelled or is another's now: the work must not be kept then.
    pub fn advance(&self, tx: &mut Tx<'_>, to: &Progress) -> Result<()> {
        if !tx.advance_job(&self.job, to, LEASE_MS)? {
            return Err(Error::conflict("job_stopped", "the job was cancelled, or taken over"));
        }
        let now_ms = tx.now_ms();
        if now_ms.saturating_sub(self.told_ms.load(Ordering::Relaxed)) >= TOLD_EVERY_MS {
            self.told_ms.store(now_ms, Ordering::Relaxed);
            tell(tx, self.job.id, "runtime.job.progressed")?;
        }
        Ok(())
    }
}

/// It is done; nothing if it is not the holder's any more. For handlers with a result, and for those who run them.
pub fn finish_in(tx: &mut Tx<'_>, job: &Job, result: &Json) -> Result<()> {
    if tx.finish_job(job, result)? {
        tell(tx, job.id, "runtime.job.completed")?;
    }
    Ok(())
}

/// It failed, and is tried again if that may help.
pub(crate) fn fail_in(tx: &mut Tx<'_>, job: &Job, error: &Error, jitter: f64) -> Result<()> {
    if tx.fail_job(job, &told(error), is_hopeless(error), jitter)? {
        tell(tx, job.id, "runtime.job.failed")?;
    }
    Ok(())
}

/// The causes of failures of the node are for its log.
fn told(error: &Error) -> String {
    match error {
        Error::Store(atoll_storage::Error::Full) => error.to_string(),
        Error::Store(_) | Error::Internal(_) => {
            "something went wrong on this node; its log names the cause".to_owned()
        }
        error => error.to_string(),
    }
}

/// A refusal stays one, however often it is asked.
fn is_hopeless(error: &Error) -> bool {
    !matches!(error, Error::Store(_) | Error::Internal(_) | Error::TooMany { .. } | Error::Stale)
}
