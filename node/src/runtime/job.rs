//! Runs jobs: work that was put off, kept in the store, repeated with growing pauses if it fails, and set aside
//! when it keeps failing. A handler must bear to run twice. A long one notes its progress as it goes, which keeps its
//! lease, and goes on where it was after a stop.

use super::workers::Stop;
use crate::backup;
use crate::content::import;
use crate::courier;
use crate::error::{Error, Result};
use crate::exchange::export;
use crate::job as jobs;
use crate::mail;
use crate::runtime::Node;
use crate::search;
use atoll_storage::Id;
use atoll_storage::job::{self, Job, Turn};
use atoll_storage::tx::Tx;
use serde_json::Value as Json;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub type Running = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
pub type Handler = fn(Arc<Node>, Job) -> Running;

/// Who does the work of each queue. One line a queue.
const HANDLERS: &[(&str, Handler)] = &[
    (search::REBUILD, |node, job| Box::pin(rebuild_search(node, job))),
    (import::QUEUE, |node, job| Box::pin(import::work(node, job))),
    (export::QUEUE, |node, job| Box::pin(export::work(node, job))),
    (courier::QUEUE, |node, job| Box::pin(courier::work(node, job))),
    (backup::work::QUEUE, |node, job| Box::pin(backup::work::work(node, job))),
    (mail::QUEUE, |node, job| Box::pin(mail::send(node, job))),
];

/// Between two looks at the queue if nothing was written, and at a job that runs.
const LOOK: Duration = Duration::from_secs(5);
/// Jobs of one node that run at once.
const AT_ONCE: usize = 2;
/// Work that can take an hour. One more worker leaves it alone, so that letters do not wait for it; and of each tenant one
/// such job runs at a time, so that no tenant waits for all that another has asked for.
const LONG: &[&str] =
    &[search::REBUILD, import::QUEUE, export::QUEUE, courier::QUEUE, backup::work::QUEUE];
/// Between two looks while much is written.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn run(node: Arc<Node>, stop: Stop) {
    // Whoever ran them is gone: one process at a time holds the folder.
    if let Err(error) = node.store.write(|tx: &mut Tx| tx.reclaim_jobs()).await {
        tracing::warn!(%error, "jobs that were cut off go on when their leases end");
    }
    let last = Arc::new(Last::default());
    let kinds = [&[][..]; AT_ONCE].into_iter().chain([LONG]);
    let start = |but| tokio::spawn(work(node.clone(), stop.clone(), last.clone(), but));
    let runners: Vec<_> = kinds.map(start).collect();
    for runner in runners {
        let _ = runner.await;
    }
}

/// Whose job was taken last, by any of the workers.
#[derive(Default)]
struct Last(Mutex<Option<Id>>);

impl Last {
    fn turn(&self, but: &'static [&'static str]) -> Turn<'static> {
        let after = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { but, one_each: LONG, after }
    }

    fn note(&self, job: &Job) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = job.share;
    }
}

/// `but`: queues that it takes nothing from.
async fn work(node: Arc<Node>, mut stop: Stop, last: Arc<Last>, but: &'static [&'static str]) {
    let mut commits = node.store.subscribe();
    while !stop.is_stopped() {
        commits.mark_unchanged();
        match next(&node, last.turn(but)).await {
            Ok(Some(job)) => {
                last.note(&job);
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
async fn next(node: &Node, turn: Turn<'static>) -> Result<Option<Job>> {
    let now_ms = node.clock.now_ms();
    if !node.store.read(|reader| job::is_due(reader, now_ms, turn))? {
        return Ok(None);
    }
    Ok(node.store.write(move |tx: &mut Tx| tx.take_job_in(jobs::LEASE_MS, turn)).await?)
}

async fn perform(node: &Arc<Node>, job: Job, stop: &mut Stop) {
    let Some(outcome) = outcome_of(node, &job, stop).await else { return };
    let (id, jitter) = (job.id, f64::from(u16::from_le_bytes(node.random())) / f64::from(u16::MAX));
    if let Err(error) = &outcome {
        tracing::warn!(job = id, queue = %job.queue, %error, "a job failed");
    }
    let noted = node.store.write(move |tx| match &outcome {
        Ok(()) => jobs::finish_in(tx, &job, &Json::Null),
        Err(error) => jobs::fail_in(tx, &job, error, jitter),
    });
    if let Err(error) = noted.await {
        tracing::warn!(job = id, %error, "a job's end could not be noted; it runs again");
    }
}

/// None if the job is not this worker's any more.
async fn outcome_of(node: &Arc<Node>, job: &Job, stop: &mut Stop) -> Option<Result<()>> {
    let Some((_, handler)) = HANDLERS.iter().find(|(queue, _)| *queue == job.queue) else {
        let message = format!("nobody does the work of the queue {}", job.queue);
        return Some(Err(super::internal(message)));
    };
    if job.attempts > job::MAX_ATTEMPTS {
        // Whoever fails is set aside after that many; this one never came to its end.
        let message = "it ended the process that ran it again and again, and is not tried any more";
        return Some(Err(Error::conflict("job_poisoned", message)));
    }
    let mut running = tokio::spawn(handler(node.clone(), job.clone()));
    let outcome = loop {
        tokio::select! {
            outcome = &mut running => {
                return Some(outcome.unwrap_or_else(|error| Err(super::internal(error))));
            }
            () = stop.stopped() => {
                give_back(node, job.clone()).await;
                break None;
            }
            () = tokio::time::sleep(LOOK) => match lease_of(node, job) {
                Ok(Some(until_ms)) if until_ms > node.clock.now_ms() => {}
                Ok(Some(_)) => break Some(Err(super::internal("it got no further for too long"))),
                Ok(None) => break None,
                Err(error) => tracing::warn!(job = job.id, %error, "a job cannot be looked at"),
            },
        }
    };
    running.abort();
    outcome
}

/// When the lease ends, if this worker has it.
fn lease_of(node: &Node, job: &Job) -> Result<Option<u64>> {
    let now = node.store.read(|reader| job::find(reader, job.id))?;
    let own = now.filter(|now| now.lease == job.lease && now.state == job::RUNNING);
    Ok(own.map(|now| now.run_at_ms))
}

/// It goes on at the next start.
async fn give_back(node: &Node, job: Job) {
    if let Err(error) = node.store.write(move |tx: &mut Tx| tx.release_job(&job)).await {
        tracing::debug!(%error, "a job could not be given back; the next start takes it anyway");
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
