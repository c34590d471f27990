//! The worker that carries erasing through: the walk through the log, in small steps so that no write waits long, and the
//! files of what was erased. It begins at the start, where one that was cut off goes on, and with each mark that comes.

use super::Node;
use super::workers::Stop;
use crate::blob::erased;
use crate::error::Result;
use atoll_storage::erasure::is_pending;
use atoll_storage::store::ERASE_OPS;
use std::sync::Arc;
use std::time::Duration;

/// Commits within this time are looked at as one.
const COALESCE: Duration = Duration::from_millis(50);
/// What could not be done, and what came meanwhile, is looked for this often.
const ROUND: Duration = Duration::from_secs(60);

pub(super) async fn run(node: Arc<Node>, mut stop: Stop) {
    let mut commits = node.store.subscribe();
    while !stop.is_stopped() {
        let (working, heard) = (node.clone(), stop.clone());
        let done = tokio::task::spawn_blocking(move || carry_through(&working, &heard)).await;
        let has_failed = match done.map_err(super::internal).and_then(|done| done) {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(%error, "what was erased could not be taken out of the log, or off the disk: it is tried again");
                true
            }
        };
        let round = tokio::time::Instant::now() + ROUND;
        while !stop.is_stopped() && tokio::time::Instant::now() < round {
            tokio::select! {
                () = stop.stopped() => return,
                () = tokio::time::sleep_until(round) => {}
                changed = commits.changed(), if !has_failed => {
                    if changed.is_err() || stop.during(COALESCE).await {
                        return;
                    }
                    commits.mark_unchanged();
                    if node.store.read(|reader| is_pending(reader)).unwrap_or_default() {
                        break;
                    }
                }
            }
        }
    }
}

/// Ends early when the node stops: the next start goes on.
fn carry_through(node: &Node, stop: &Stop) -> Result<()> {
    // The files first: the walk may be long. One that cannot be dropped does not hold it up.
    let dropped = erased::drop_all(node);
    while !stop.is_stopped() && node.store.erase_step(ERASE_OPS)? {}
    dropped.map(drop)
}
