//! Starting and stopping what runs beside the requests. Every worker hears of the stop, and is waited for.

use super::{Node, erasing, feeder, job, schedule, upkeep};
use crate::blob::keeper;
use crate::bucket;
use crate::error::Result;
use crate::peer::{grant, revocation};
use atoll_sync::runner::{self, Runner};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a worker may take to come to its end.
const GRACE: Duration = Duration::from_secs(10);

/// Tells workers when to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    pub async fn stopped(&mut self) {
        // A sender that is gone is a stop too.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }

    /// Waits; true if the node stops meanwhile.
    pub async fn during(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.stopped()).await.is_ok()
    }
}

/// What runs. Dropping it stops nothing in order: use [`Workers::shutdown`].
pub struct Workers {
    node: Arc<Node>,
    stop: watch::Sender<bool>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
    runner: Runner,
}

impl Node {
    /// Starts all workers, the answering of other nodes among them.
    ///
    /// # Errors
    /// If the address for other nodes cannot be bound, or the workers run already.
    pub async fn start(self: &Arc<Self>) -> Result<Workers> {
        let config = &self.config;
        let runner = Runner::start(runner::Options {
            store: self.store.clone(),
            key: self.key.clone(),
            clock: self.clock.clone(),
            listen: config.sync_listen,
            name: config.name.clone(),
            address: Some(config.sync_address.clone()).filter(|address| !address.is_empty()),
            limits: atoll_sync::quic::Limits::default(),
            discover: config.sync.discover,
            blobs: self.exchange.clone(),
            revoked: revocation::nodes(self)?,
        })
        .map_err(super::internal)?;
        if self.sync.set(runner.clone()).is_err() {
            runner.stop().await;
            return Err(super::internal("the workers of this node run already"));
        }
        let shedding = self.store.clone();
        // It ends by itself, with its work or with the store.
        tokio::task::spawn_blocking(move || crate::carries::shed(&shedding));
        let (stop, heard) = watch::channel(false);
        let stop_of = || Stop(heard.clone());
        let tasks = vec![
            ("search", tokio::spawn(feeder::run(self.clone(), stop_of()))),
            ("jobs", tokio::spawn(job::run(self.clone(), stop_of()))),
            ("schedule", tokio::spawn(schedule::run(self.clone(), stop_of()))),
            ("upkeep", tokio::spawn(upkeep::run(self.clone(), stop_of()))),
            ("erasing", tokio::spawn(erasing::run(self.clone(), stop_of()))),
            ("blobs", tokio::spawn(keeper::run(self.clone(), stop_of()))),
            ("removals", tokio::spawn(revocation::run(self.clone(), stop_of()))),
            ("grants", tokio::spawn(grant::run(self.clone(), stop_of()))),
            ("buckets", tokio::spawn(bucket::run(self.clone(), stop_of()))),
        ];
        Ok(Workers { node: self.clone(), stop, tasks, runner })
    }
}

impl Workers {
    /// Where other nodes are answered, with the port that the system chose if it was asked to.
    pub fn sync_addr(&self) -> std::net::SocketAddr {
        self.runner.local_addr()
    }

    /// Ends all workers, then closes the store. Requests under way must have ended.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        self.runner.stop().await;
        for (name, task) in self.tasks {
            if tokio::time::timeout(GRACE, task).await.is_err() {
                tracing::warn!(worker = name, "a worker did not end in time");
            }
        }
        let store = self.node.store.clone();
        if tokio::task::spawn_blocking(move || store.close()).await.is_err() {
            tracing::error!("the store did not close in order");
        }
    }
}
