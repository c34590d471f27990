//! The only place that reads the wall clock, and the hybrid logical clock that never steps back.

use bincode::{Decode, Encode};
use std::sync::Arc;

/// How far an op from the future may drag this node's clock past its wall.
const MAX_DRAG_MS: u64 = 60_000;

/// Unix time in milliseconds, handed to whoever needs it so that tests can turn it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    pub fn system() -> Self {
        #[allow(clippy::disallowed_methods)] // the one reader of the wall clock
        Self(Arc::new(|| {
            let now = std::time::SystemTime::now();
            now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
        }))
    }

    pub fn from_fn(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Hybrid logical clock: 48 bits of Unix milliseconds, 16 bits of counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Default, Debug)]
pub struct Hlc(pub u64);

impl Hlc {
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The greatest stamp: others refuse what is beyond. What was written over it stands beside it, and says so by
    /// what it has seen.
    pub const MAX: Self = Self((1 << 63) - 1);

    /// The stamp of a local write: past this clock, past the wall, past what the write changes.
    #[must_use]
    pub fn tick(self, now_ms: u64, past: Hlc) -> Self {
        let wall = now_ms.min((1 << 47) - 1) << 16;
        let stamp = self.0.saturating_add(1).max(wall).max(past.0.saturating_add(1));
        Self(stamp.min(Self::MAX.0))
    }

    /// The clock after a write with the stamp that [`Hlc::tick`] gave it. What the write changes may come from a clock
    /// that is years ahead: that drags the write, but not all that is written here from then on.
    #[must_use]
    pub fn after(self, now_ms: u64, stamp: Hlc) -> Self {
        self.tick(now_ms, Self(0)).observe(now_ms, stamp)
    }

    /// The clock after seeing a peer's stamp, dragged at most a minute past the wall.
    #[must_use]
    pub fn observe(self, now_ms: u64, seen: Hlc) -> Self {
        let bound = (now_ms.min((1 << 47) - 1) + MAX_DRAG_MS) << 16;
        Self(self.0.max(seen.0.min(bound)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_steps_back_and_the_future_drags_it_a_minute_at_most() {
        let clock = Hlc::default().tick(1_000, Hlc(0));
        assert!(clock.tick(10, Hlc(0)) > clock);
        assert!(clock.tick(10, Hlc(99 << 40)) > Hlc(99 << 40));
        assert_eq!(clock.observe(1_000, Hlc(u64::MAX)).ms(), 61_000);
    }

    #[test]
    fn a_write_to_a_record_of_the_future_drags_itself_and_not_the_clock() {
        let (clock, future) = (Hlc(1_000 << 16), Hlc(9 << 60 >> 2));
        let stamp = clock.tick(1_000, future);
        assert_eq!(stamp.0, future.0 + 1);
        assert_eq!(clock.after(1_000, stamp).ms(), 61_000);
        let near = Hlc(1_500 << 16);
        let stamp = clock.tick(1_000, near);
        assert_eq!(clock.after(1_000, stamp), stamp);
        assert_eq!(clock.tick(u64::MAX, Hlc::MAX), Hlc::MAX);
        assert_eq!(Hlc::MAX.after(u64::MAX, Hlc::MAX), Hlc::MAX);
    }
}
