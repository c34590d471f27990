//! Visits the buckets, one after the other, each at its time or when somebody asks.

use super::location::{Access, Location};
use super::place::{self, Place};
use super::trouble::{Obstacle, Trouble};
use super::visitor::Here;
use super::{round, watch};
use crate::error::{Error, Result};
use crate::runtime::{Node, Stop};
use atoll_storage::bucket::{self as kept, Bucket};
use atoll_storage::tx::Tx;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Of a node without buckets: one that is added wakes it.
const LONG: Duration = Duration::from_secs(3_600);
/// By so much pauses differ, in percent, so that nodes do not come together each time.
const JITTER_PERCENT: u64 = 10;

pub(crate) async fn run(node: Arc<Node>, mut stop: Stop) {
    loop {
        let asked = node.buckets.asked();
        let is_asked = !node.buckets.is_answered(asked);
        match node.store.read(|reader| kept::list(reader)) {
            Ok(buckets) => {
                for bucket in buckets {
                    if is_asked || node.buckets.is_due(bucket.id, Instant::now()) {
                        visit(&node, bucket, &stop).await;
                    }
                    if stop.is_stopped() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the list of buckets could not be read"),
        }
        node.buckets.answer(asked);
        let next = node.buckets.next().unwrap_or_else(|| Instant::now() + LONG);
        tokio::select! {
            () = stop.stopped() => return,
            () = node.buckets.woken() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

async fn visit(node: &Arc<Node>, bucket: Bucket, stop: &Stop) {
    let (id, name) = (bucket.id, bucket.name.clone());
    let usual = Duration::from_secs(node.config.sync.bucket_s);
    let (here, stop) = (node.clone(), stop.clone());
    let handle = Handle::current();
    let work = move || -> Result<watch::Found, Trouble> {
        let place = place_of(&here, &bucket, Some(stop.clone()), handle)?;
        round::run(&Here { node: &here, stop: &stop }, &bucket, &*place)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(Trouble::new(Obstacle::Other, error.to_string())));
    match done {
        Ok(found) => {
            let watch::Found { taken, left, removed, files_taken, parcels_left, .. } = found;
            if taken + left + removed + files_taken + parcels_left > 0 {
                tracing::info!(bucket = %name, taken, left, removed, files_taken, parcels_left, "a bucket was visited");
            }
            let pause = jittered(usual, u64::from(node.random::<1>()[0]));
            node.buckets.went_well(id, found, Instant::now() + pause);
            let noted = node.store.write(move |tx: &mut Tx| kept::note_contact(tx, id)).await;
            if let Err(error) = noted {
                tracing::warn!(bucket = %name, %error, "a visit to a bucket could not be noted");
            }
        }
        Err(trouble) if trouble.obstacle == Obstacle::Stopped => {}
        Err(trouble) => {
            let (why, can_pass) = (trouble.message.clone(), trouble.obstacle.can_pass());
            let is_new = node.buckets.failed(id, trouble, Instant::now(), usual);
            match (is_new, can_pass) {
                (true, false) => tracing::warn!(bucket = %name, why, "a bucket cannot be used"),
                (true, true) => {
                    tracing::info!(bucket = %name, why, "a bucket is not reached; it is tried again");
                }
                (false, _) => tracing::debug!(bucket = %name, why, "a bucket is still not reached"),
            }
        }
    }
}

/// `dice` is from 0 to 255.
fn jittered(usual: Duration, dice: u64) -> Duration {
    let ms = usual.as_millis() as u64;
    Duration::from_millis(ms + ms * JITTER_PERCENT * dice / 25_600)
}

/// For a thread that may wait.
pub(super) fn place_of(
    node: &Node,
    bucket: &Bucket,
    stop: Option<Stop>,
    handle: Handle,
) -> Result<Box<dyn Place>, Trouble> {
    let broken = |error: Error| Trouble::new(Obstacle::Other, error.to_string());
    let location = Location::parse(&bucket.url).map_err(broken)?;
    let access: Access = match location {
        Location::Folder(_) => Access::default(),
        Location::S3 { .. } => serde_json::from_slice(&bucket.access).map_err(|_| {
            Trouble::new(Obstacle::Other, "the keys of the bucket cannot be read: add it again")
        })?,
    };
    place::open(&location, access, node.clock.clone(), stop, handle)
}
