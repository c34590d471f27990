//! What a bad path does to packets: when each one comes out, if it does. Holds no packet, and asks no clock.

use std::time::{Duration, Instant};

/// One way of a path is like this; the other alike.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub delay: Duration,
    /// At most so much more, by chance. No packet overtakes another.
    pub jitter: Duration,
    pub bytes_per_s: u64,
    /// Of a thousand packets.
    pub lost: u64,
    /// What waits where the path narrows; more is dropped.
    pub queue: Duration,
}

/// Paths that nodes meet over.
pub const PATHS: [Shape; 4] = [
    shape("satellite", 300_000, 0, 2_500_000, 10, 600),
    shape("wifi", 2_500, 5_000, 6_250_000, 20, 60),
    shape("3g", 75_000, 0, 250_000, 5, 2_000),
    shape("lan", 100, 0, 125_000_000, 0, 20),
];

const fn shape(
    name: &'static str,
    delay_us: u64,
    jitter_us: u64,
    bytes_per_s: u64,
    lost: u64,
    queue_ms: u64,
) -> Shape {
    let (delay, jitter) = (Duration::from_micros(delay_us), Duration::from_micros(jitter_us));
    Shape { name, delay, jitter, bytes_per_s, lost, queue: Duration::from_millis(queue_ms) }
}

/// One way of a path, and what is on it.
pub struct Lane {
    shape: Shape,
    free_at: Instant,
    last: Instant,
    chance: u64,
}

impl Lane {
    /// `seed` decides which packets are lost.
    pub fn new(shape: Shape, now: Instant, seed: u64) -> Self {
        let chance = seed.wrapping_mul(2).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self { shape, free_at: now, last: now, chance }
    }

    /// When a packet of so many bytes that goes in now comes out; none if it is lost.
    pub fn pass(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let (lot, late) = (self.draw(), self.draw());
        let begin = self.free_at.max(now);
        if lot % 1_000 < self.shape.lost || begin - now > self.shape.queue {
            return None;
        }
        self.free_at =
            begin + Duration::from_nanos(bytes as u64 * 1_000_000_000 / self.shape.bytes_per_s);
        let late = late % (self.shape.jitter.as_micros() as u64 + 1);
        self.last = self.last.max(self.free_at + self.shape.delay + Duration::from_micros(late));
        Some(self.last)
    }

    /// Xorshift: the next of a row of numbers that is told by the seed.
    fn draw(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1_000;

    fn path(lost: u64, jitter_us: u64) -> Shape {
        shape("test", 10_000, jitter_us, 1_000_000, lost, 5)
    }

    #[test]
    fn a_packet_comes_out_after_its_own_length_and_the_delay() {
        let now = Instant::now();
        let mut lane = Lane::new(path(0, 0), now, 1);
        assert_eq!(lane.pass(now, PACKET), Some(now + Duration::from_millis(11)));
        assert_eq!(lane.pass(now, PACKET), Some(now + Duration::from_millis(12)));
    }

    #[test]
    fn what_finds_the_queue_full_is_dropped_until_it_has_drained() {
        let now = Instant::now();
        let mut lane = Lane::new(path(0, 0), now, 1);
        let came = (0..100).filter_map(|_| lane.pass(now, PACKET)).count();
        assert_eq!(came, 6, "5 ms of waiting packets, and the one that is under way");
        assert!(lane.pass(now + Duration::from_millis(2), PACKET).is_some());
    }

    #[test]
    fn as_many_are_lost_as_were_asked_for_and_none_overtakes() {
        let mut now = Instant::now();
        let mut lane = Lane::new(path(20, 4_000), now, 1);
        let mut came = Vec::new();
        for _ in 0..100_000 {
            now += Duration::from_millis(1);
            came.extend(lane.pass(now, PACKET));
        }
        assert!(came.is_sorted());
        assert!((97_700..98_300).contains(&came.len()), "{}", came.len());
    }
}
