//! Runs jobs: work that was put off, kept in the store, repeated with growing pauses if it fails, and set aside
//! when it keeps failing. A handler must bear to run twice.

use super::workers::Stop;
use crate::error::{Error, Result};
use crate::mail;
use crate::runtime::Node;
use atoll_storage::job::{self, Job};
use atoll_storage::tx::Tx;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub type Running = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
pub type Handler = fn(Arc<Node>, Job) -> Running;

/// Who does the work of each queue. One line a queue.
const HANDLERS: &[(&str, Handler)] = &[
    ("search.rebuild", |node, job| Box::pin(rebuild_search(node, job))),
    (mail::QUEUE, |node, job| Box::pin(mail::send(node, job))),
];

/// A job that a crash left running is taken again after this; a handler may take no longer.
const LEASE: Duration = Duration::from_secs(600);
/// Between two looks at the queue if nothing was written.
const LOOK: Duration = Duration::from_secs(5);
/// Jobs of one node that run at once.
const AT_ONCE: usize = 2;
/// Between two looks while much is written.
const PAUSE: Duration = Duration::from_millis(250);
const LOOKED_AT: usize = 1_000;

pub(super) async fn run(node: Arc<Node>, stop: Stop) {
    let runners: Vec<_> =
        (0..AT_ONCE).map(|_| tokio::spawn(work(node.clone(), stop.clone()))).collect();
    for runner in runners {
        let _ = runner.await;
    }
}

async fn work(node: Arc<Node>, mut stop: Stop) {
    let mut commits = node.store.subscribe();
    loop {
        commits.mark_unchanged();
        match next(&node).await {
            Ok(Some(job)) => {
                perform(&node, job, &mut stop).await;
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "jobs cannot be read; it is tried again"),
        }
        tokio::select! {
            () = stop.stopped() => return,
            _ = tokio::time::timeout(LOOK, commits.changed()) => {}
        }
        if stop.during(PAUSE).await {
            return;
        }
    }
}

/// Taking a job costs a write, so there is none while nothing is due.
async fn next(node: &Node) -> Result<Option<Job>> {
    let now_ms = node.clock.now_ms();
    let is_due = node.store.read(|reader| {
        for state in ["waiting", "running"] {
            if job::list(reader, state, LOOKED_AT)?.iter().any(|job| job.run_at_ms <= now_ms) {
                return Ok(true);
            }
        }
        Ok::<_, atoll_storage::Error>(false)
    })?;
    if !is_due {
        return Ok(None);
    }
    let lease_ms = LEASE.as_millis() as u64;
    Ok(node.store.write(move |tx: &mut Tx| tx.take_job(lease_ms)).await?)
}

async fn perform(node: &Arc<Node>, job: Job, stop: &mut Stop) {
    let id = job.id;
    let outcome = match HANDLERS.iter().find(|(queue, _)| *queue == job.queue) {
        Some((_, handler)) => {
            let running = tokio::time::timeout(LEASE, handler(node.clone(), job.clone()));
            tokio::select! {
                done = running => done.unwrap_or_else(|_| Err(super::internal("it took too long"))),
                // It is taken again at the next start.
                () = stop.stopped() => return,
            }
        }
        None => Err(super::internal(format!("nobody does the work of the queue {}", job.queue))),
    };
    let noted = match outcome {
        Ok(()) => node.store.write(move |tx: &mut Tx| tx.finish_job(id)).await,
        Err(error) => {
            let jitter = f64::from(u16::from_le_bytes(node.random())) / f64::from(u16::MAX);
            tracing::warn!(job = id, queue = %job.queue, %error, "a job failed");
            node.store.write(move |tx: &mut Tx| tx.fail_job(&job, &error.to_string(), jitter)).await
        }
    };
    if let Err(error) = noted {
        tracing::warn!(job = id, %error, "a job's end could not be noted; it runs again");
    }
}

/// Empties the index; the feeder fills it from the list of all records.
async fn rebuild_search(node: Arc<Node>, _: Job) -> Result<()> {
    let work = move || -> Result<()> {
        node.search.clear().map_err(super::internal)?;
        Ok(node.store.mark_all_dirty()?)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}
