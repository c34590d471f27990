//! Publishes what was scheduled, at its time. Sleeps until something is due.

use super::workers::Stop;
use crate::content::schedule;
use crate::error::Result;
use crate::runtime::Node;
use std::sync::Arc;
use std::time::Duration;

/// The longest sleep: clocks are set, and a sleeping machine does not count.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two looks while much is written.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(node: Arc<Node>, mut stop: Stop) {
    let mut commits = node.store.subscribe();
    loop {
        commits.mark_unchanged();
        let sleep = match round(&node).await {
            Ok(sleep) => sleep,
            Err(error) => {
                tracing::warn!(%error, "what is scheduled could not be published; it is tried again");
                LONGEST
            }
        };
        tokio::select! {
            () = stop.stopped() => return,
            () = tokio::time::sleep(sleep) => {}
            changed = commits.changed() => if changed.is_err() { return },
        }
        if stop.during(PAUSE).await {
            return;
        }
    }
}

/// Publishes what is due; how long to sleep until the next.
async fn round(node: &Node) -> Result<Duration> {
    let now_ms = node.clock.now_ms();
    if schedule::next_due(node)?.is_some_and(|due_ms| due_ms <= now_ms) {
        let published = schedule::run_due(node, now_ms).await?;
        tracing::info!(posts = published, "scheduled posts were published");
    }
    let wait_ms = schedule::next_due(node)?.map(|due_ms| due_ms.saturating_sub(now_ms));
    Ok(wait_ms.map_or(LONGEST, |ms| Duration::from_millis(ms).min(LONGEST)))
}
