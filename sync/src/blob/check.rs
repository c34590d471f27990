//! Looking at a file of this node because a peer says that what it was sent of it is false. A complaint is a peer's word:
//! it never makes this node read one sound file again and again, nor read for most of the time.

use super::{Shared, lock};
use atoll_storage::NodeId;
use atoll_storage::blob::{BlobId, Verified};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A file that was found to be sound is not read again before.
const AGAIN_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Of so many sound files it is remembered when they were read.
const MAX_SOUND: usize = 1_024;
const MAX_WAITING: usize = 64;
/// What one peer complains of does not fill the places of all.
const MAX_WAITING_OF_ONE: usize = 4;
/// After each file nothing is read for so many times as long as that took.
const REST: u32 = 3;

/// Which files wait to be looked at, and which need not be.
#[derive(Default)]
pub(super) struct Checks {
    waiting: VecDeque<(NodeId, BlobId)>,
    sound: HashMap<BlobId, Instant>,
    /// No file is read before.
    rests_until: Option<Instant>,
}

impl Checks {
    /// True if the file is to be looked at, once its turn comes.
    fn admit(&mut self, node: NodeId, id: BlobId, now: Instant) -> bool {
        let was_read = self.sound.get(&id).is_some_and(|read| now < *read + AGAIN_AFTER);
        let waits = self.waiting.iter().any(|(_, other)| *other == id);
        let of_one = self.waiting.iter().filter(|(other, _)| *other == node).count();
        let is_admitted =
            !was_read && !waits && of_one < MAX_WAITING_OF_ONE && self.waiting.len() < MAX_WAITING;
        if is_admitted {
            self.waiting.push_back((node, id));
        }
        is_admitted
    }

    /// The next one, which has its place until [`Checks::end`].
    fn begin(&self) -> Option<BlobId> {
        self.waiting.front().map(|(_, id)| *id)
    }

    fn end(&mut self, begun: Instant, now: Instant, is_sound: bool) {
        let Some((_, id)) = self.waiting.pop_front() else { return };
        self.rests_until = Some(now + (now - begun) * REST);
        self.sound.remove(&id);
        if !is_sound {
            return;
        }
        if self.sound.len() >= MAX_SOUND {
            let oldest = self.sound.iter().min_by_key(|(_, read)| **read).map(|(id, _)| *id);
            oldest.map(|id| self.sound.remove(&id));
        }
        self.sound.insert(id, now);
    }
}

/// A peer was sent false bytes, it says.
pub(super) fn hear(shared: &Arc<Shared>, node: NodeId, id: BlobId) {
    if !lock(&shared.checks).admit(node, id, Instant::now()) {
        tracing::debug!(%node, blob = %id, "a peer complains of a blob that was looked at or waits for it");
        return;
    }
    tracing::warn!(%node, blob = %id, "a peer says that what it was sent are not the bytes of the blob");
    let mut tasks = lock(&shared.tasks);
    while tasks.try_join_next().is_some() {}
    tasks.spawn(run(shared.clone()));
}

/// Looks at the one that waits for longest. One is looked at at a time, whatever becomes of the link.
async fn run(shared: Arc<Shared>) {
    let Ok(_turn) = shared.checking.acquire().await else { return };
    let rests_until = lock(&shared.checks).rests_until;
    if let Some(rests_until) = rests_until {
        sleep_until(rests_until).await;
    }
    let Some(id) = lock(&shared.checks).begin() else { return };
    let (blobs, begun) = (shared.blobs.clone(), Instant::now());
    let checked = tokio::task::spawn_blocking(move || {
        let verified = blobs.verify(&id)?;
        let was_dropped = match verified {
            Verified::Damaged => blobs.remove(&id)?,
            // The tree beside it may be.
            Verified::Intact => blobs.drop_tree(&id).map(|()| false)?,
            Verified::Missing => false,
        };
        Ok::<_, atoll_storage::blob::Error>((verified, was_dropped))
    });
    let checked = checked.await;
    let is_sound = matches!(&checked, Ok(Ok((Verified::Intact, _))));
    lock(&shared.checks).end(begun, Instant::now(), is_sound);
    shared.checked.fetch_add(1, Ordering::Relaxed);
    match checked {
        Ok(Ok((_, true))) => {
            tracing::error!(blob = %id, "a blob is damaged on this node's disk and was dropped: look at the disk");
            lock(&shared.lost).push(id);
        }
        Ok(Ok((_, false))) => {}
        Ok(Err(error)) => tracing::warn!(blob = %id, %error, "a blob could not be checked"),
        Err(error) => tracing::warn!(blob = %id, %error, "a blob could not be checked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn blob(number: u64) -> BlobId {
        BlobId::of(&number.to_le_bytes())
    }

    fn look(checks: &mut Checks, begun: Instant, took: Duration, is_sound: bool) -> Instant {
        assert!(checks.begin().is_some());
        checks.end(begun, begun + took, is_sound);
        begun + took
    }

    #[test]
    fn a_sound_file_is_read_once_a_day_and_a_damaged_one_that_came_back_at_once() {
        let (mut checks, peer, begun) = (Checks::default(), NodeId([1; 16]), Instant::now());
        assert!(checks.admit(peer, blob(1), begun));
        assert!(!checks.admit(NodeId([2; 16]), blob(1), begun), "it waits already");
        let read = look(&mut checks, begun, SECOND, true);
        assert!(!checks.admit(peer, blob(1), read + SECOND));
        assert!(checks.admit(peer, blob(1), read + AGAIN_AFTER));
        let read = look(&mut checks, read + AGAIN_AFTER, SECOND, false);
        assert!(checks.admit(peer, blob(1), read));
    }

    #[test]
    fn one_peer_leaves_places_to_others_and_all_of_them_are_bounded() {
        let (mut checks, now) = (Checks::default(), Instant::now());
        let mut admitted = 0;
        for number in 0..1_000 {
            let peer = NodeId([(number % 100) as u8; 16]);
            admitted += usize::from(checks.admit(peer, blob(number), now));
        }
        assert_eq!(admitted, MAX_WAITING);
        let mut checks = Checks::default();
        let of_one = (0..10).filter(|number| checks.admit(NodeId([1; 16]), blob(*number), now));
        assert_eq!(of_one.count(), MAX_WAITING_OF_ONE);
        assert!(checks.admit(NodeId([2; 16]), blob(11), now));
    }

    #[test]
    fn whoever_complains_without_end_has_a_quarter_of_the_time_and_a_bounded_memory() {
        let (mut checks, begun) = (Checks::default(), Instant::now());
        let (mut now, mut read) = (begun, Duration::ZERO);
        for number in 0..10_000 {
            assert!(checks.admit(NodeId([1; 16]), blob(number), now));
            now = checks.rests_until.unwrap_or(now);
            now = look(&mut checks, now, SECOND, true);
            read += SECOND;
        }
        assert!(read * 4 <= (now - begun) + 4 * SECOND, "{read:?} of {:?}", now - begun);
        assert!(checks.sound.len() <= MAX_SOUND);
    }
}
