//! Bounded pools for work that costs processor time: hashing passwords, decoding images. Never waits for a place
//! in a queue: what does not fit is refused, and the caller is told to come back.

use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// For work that somebody waits for.
pub(super) const THREADS: usize = 2;
/// How far the hashing of passwords stands back: a sign-in may take long, and shall not slow down what others read.
const HASHING_STANDS_BACK: i32 = 5;
const QUEUE: usize = 64;

type Work = Box<dyn FnOnce() + Send>;

/// Its threads end when it is dropped and its queue is done.
pub(super) struct Pool(SyncSender<Work>);

impl Pool {
    pub(super) fn new() -> Result<Self> {
        Self::of("atoll-pool", THREADS, Place::AmongAll)
    }

    /// For passwords. Its queue is as long as people wait for a sign-in.
    pub(super) fn for_hashing() -> Result<Self> {
        Self::of("atoll-hash", THREADS, Place::Back(HASHING_STANDS_BACK))
    }

    /// One thread that stands back behind all that requests wait for, with the threads that its work begins.
    pub(super) fn in_background(name: &str) -> Result<Self> {
        Self::of(name, 1, Place::Last)
    }

    fn of(name: &str, threads: usize, place: Place) -> Result<Self> {
        let (sender, receiver) = sync_channel::<Work>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let receiver = receiver.clone();
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    place.take();
                    work(&receiver);
                })
                .map_err(|error| Error::Internal(format!("cannot start a thread: {error}")))?;
        }
        Ok(Self(sender))
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move || {
            let _ = sender.send(work());
        });
        self.0.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) => Error::Store(atoll_storage::Error::Busy),
            TrySendError::Disconnected(_) => Error::Store(atoll_storage::Error::Closed),
        })?;
        receiver.await.map_err(|_| Error::Internal("a task on the pool panicked".to_owned()))
    }
}

/// Where a thread stands when others want the processor too. On Linux that is a thread's own, and inherited by the
/// threads that it begins. Where the system refuses, the work is done all the same.
#[derive(Clone, Copy)]
enum Place {
    AmongAll,
    Back(i32),
    /// Runs when no other thread wants to, and gives way at once.
    Last,
}

impl Place {
    fn take(self) {
        match self {
            Self::AmongAll => {}
            Self::Back(nice) => drop(rustix::process::nice(nice)),
            Self::Last => stand_last(),
        }
    }
}

#[cfg(target_os = "linux")]
fn stand_last() {
    use thread_priority::unix::set_thread_priority_and_policy;
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, thread_native_id,
    };
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
    if let Err(error) = set {
        tracing::debug!(?error, "a thread that should stand last stands among all");
    }
}

#[cfg(not(target_os = "linux"))]
fn stand_last() {}

fn work(queue: &Mutex<Receiver<Work>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        // Whoever waits for it sees its channel closed.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_fails_alone() {
        let pool = Pool::new().unwrap();
        for _ in 0..2 * THREADS {
            let failed = pool.run(|| assert!(std::hint::black_box(false), "on purpose")).await;
            assert_eq!(failed.unwrap_err().code(), "internal");
        }
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_does_not_wait() {
        let pool = Arc::new(Pool::new().unwrap());
        let gate = Arc::new(std::sync::Barrier::new(THREADS + 1));
        let mut waiting = Vec::new();
        let mut refused = 0;
        for _ in 0..THREADS + QUEUE + 8 {
            let (pool, gate) = (pool.clone(), gate.clone());
            let first = waiting.len() < THREADS;
            let mut task = Box::pin(async move {
                pool.run(move || {
                    if first {
                        gate.wait();
                    }
                })
                .await
            });
            match futures_poll(&mut task).await {
                Some(Err(error)) => {
                    assert_eq!(error.code(), "busy");
                    refused += 1;
                }
                _ => waiting.push(task),
            }
        }
        assert!(refused >= 8 - THREADS, "{refused} were refused");
        gate.wait();
        for task in waiting {
            task.await.unwrap();
        }
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
