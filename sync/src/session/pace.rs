//! How soon answers come, and what follows for how much may be on its way. A narrow link must not be filled for
//! minutes: what is urgent would wait behind it, and what is only slow would be taken for lost.

use super::Options;

/// In timeouts.
const LONGEST_PATIENCE: u64 = 10;
const FIRST_BATCH_BYTES: usize = 32 << 10;
const SMALLEST_BATCH_BYTES: usize = 4 << 10;
/// What may be on its way is what comes through in so many times the way there and back: once for the way itself, once more
/// for what is lost on it and comes late with all that stands behind, and once to find out whether more comes through.
const WAYS: u64 = 3;
/// Where nothing waits on the way, the next batch may be so many times as large.
const GROWTH: usize = 4;

#[derive(Default)]
pub(super) struct Answers {
    /// The soonest: what the way there and back takes.
    least_ms: Option<u64>,
    /// The slowest of late.
    slowest_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    /// More may be on its way at once.
    Quick,
    Usual,
    /// It must be less.
    Slow,
}

impl Answers {
    pub fn judge(&mut self, took_ms: u64, options: &Options) -> Speed {
        self.slowest_ms = took_ms.max(self.slowest_ms - self.slowest_ms / 8);
        let least_ms = self.least_ms.map_or(took_ms, |least_ms| least_ms.min(took_ms));
        self.least_ms = Some(least_ms);
        if took_ms > options.slow_ms + least_ms {
            Speed::Slow
        } else if took_ms < options.slow_ms.min(options.quick_ms + least_ms) {
            Speed::Quick
        } else {
            Speed::Usual
        }
    }

    /// Within which what is on its way should have arrived, short ways and long ones alike.
    fn span_ms(&self, options: &Options) -> u64 {
        let least_ms = self.least_ms.unwrap_or(0);
        WAYS.saturating_mul(least_ms).max(2 * options.quick_ms).min(2 * options.slow_ms)
    }

    /// After how long an answer is overdue. One that took for ever, over a machine's sleep, must not make it for ever.
    pub fn patience_ms(&self, options: &Options) -> u64 {
        let timeout_ms = options.answer_timeout_ms;
        (3 * self.slowest_ms).clamp(timeout_ms, LONGEST_PATIENCE * timeout_ms)
    }
}

/// What a batch may hold, as far as a link has shown.
#[derive(Default)]
pub(super) struct Batches {
    answers: Answers,
    /// 0: nothing was shown yet.
    size_bytes: usize,
    /// What came through at best of late.
    bytes_per_s: u64,
}

/// A batch as it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub bytes: usize,
    /// What it might have held.
    pub size_bytes: usize,
    /// With those that were on their way before it.
    pub on_way_bytes: usize,
    /// It was the last that the window let go.
    pub fills_window: bool,
}

impl Batches {
    pub fn size_bytes(&self) -> usize {
        if self.size_bytes == 0 { FIRST_BATCH_BYTES } else { self.size_bytes }
    }

    pub fn patience_ms(&self, options: &Options) -> u64 {
        self.answers.patience_ms(options)
    }

    /// What was on its way came through while this batch was: that tells how much may be, and not how late an answer is,
    /// which may come from packets that were lost.
    pub fn learn(&mut self, load: Load, took_ms: u64, options: &Options) {
        let Load { bytes, on_way_bytes, fills_window, .. } = load;
        let speed = self.answers.judge(took_ms, options);
        let came = 1_000 * on_way_bytes as u64 / took_ms.max(1);
        // Without a full window, there was less to send than might have come through.
        let forgotten = if fills_window { self.bytes_per_s / 8 } else { 0 };
        self.bytes_per_s = came.max(self.bytes_per_s - forgotten);
        let span_ms = self.answers.span_ms(options);
        let share = self.bytes_per_s.saturating_mul(span_ms) / 1_000 / options.window.max(1) as u64;
        let now = self.size_bytes();
        // A batch that was far from full does not tell that more may be in one.
        let is_full = 2 * bytes >= load.size_bytes;
        let mut next = if is_full {
            // The log counts what it holds packed.
            (share.saturating_mul(load.size_bytes as u64) / bytes.max(1) as u64) as usize
        } else if took_ms > span_ms {
            now.min(share as usize)
        } else {
            now
        };
        if is_full && speed == Speed::Quick {
            next = next.max(now).max(GROWTH * load.size_bytes);
        } else if !fills_window {
            next = next.max(now);
        }
        self.size_bytes = next.max(SMALLEST_BATCH_BYTES).min(options.batch_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn a_long_way_is_not_a_narrow_one() {
        let options = Options::default();
        let mut satellite = Answers::default();
        assert_eq!(satellite.judge(650, &options), Speed::Quick);
        assert_eq!(satellite.judge(800, &options), Speed::Quick);
        assert_eq!(satellite.judge(950, &options), Speed::Usual);
        assert_eq!(satellite.judge(1_700, &options), Speed::Slow);
        let mut narrow = Answers::default();
        assert_eq!(narrow.judge(5_000, &options), Speed::Usual);
        assert_eq!(narrow.judge(1_200, &options), Speed::Usual);
        assert_eq!(narrow.judge(5_000, &options), Speed::Slow);
    }

    #[test]
    fn patience_follows_what_answers_take() {
        let options = Options::default();
        let mut answers = Answers::default();
        assert_eq!(answers.patience_ms(&options), 10_000);
        answers.judge(20_000, &options);
        assert_eq!(answers.patience_ms(&options), 60_000);
        answers.judge(u64::MAX / 8, &options);
        assert_eq!(answers.patience_ms(&options), 100_000);
        for _ in 0..400 {
            answers.judge(10, &options);
        }
        assert_eq!(answers.patience_ms(&options), 10_000);
    }

    /// A way on which one batch follows another, as many as the window lets. One in so many is lost in part, and comes
    /// later by one more way there and back, with all that stands behind.
    struct Way {
        round_ms: u64,
        bytes_per_ms: u64,
        lost_every: u64,
    }

    impl Way {
        /// After so many batches: the longest that one of the last hundred took, and how much of the way these used, in percent.
        fn carry(&self, batches: &mut Batches, count: u64) -> (u64, u64) {
            let options = Options::default();
            let mut on_way: VecDeque<(u64, u64, Load)> = VecDeque::new();
            let (mut now_ms, mut free_ms, mut last_ms) = (0, 0, 0);
            let (mut longest_ms, mut bytes, mut since_ms) = (0, 0, 0);
            for n in 0..count {
                if on_way.len() == options.window
                    && let Some((sent_ms, at_ms, load)) = on_way.pop_front()
                {
                    if n + 100 >= count {
                        longest_ms = longest_ms.max(at_ms - sent_ms);
                        bytes += load.bytes as u64;
                    } else {
                        since_ms = at_ms;
                    }
                    now_ms = at_ms;
                    batches.learn(load, at_ms - sent_ms, &options);
                }
                let size_bytes = batches.size_bytes();
                free_ms = now_ms.max(free_ms) + size_bytes as u64 / self.bytes_per_ms;
                let is_lost = self.lost_every > 0 && n % self.lost_every == 0;
                last_ms = last_ms.max(free_ms + self.round_ms * if is_lost { 2 } else { 1 });
                let before: usize = on_way.iter().map(|(_, _, one)| one.bytes).sum();
                let load = Load {
                    bytes: size_bytes,
                    size_bytes,
                    on_way_bytes: before + size_bytes,
                    fills_window: on_way.len() + 1 == options.window,
                };
                on_way.push_back((now_ms, last_ms, load));
            }
            (longest_ms, 100 * bytes / ((now_ms - since_ms) * self.bytes_per_ms).max(1))
        }
    }

    #[test]
    fn a_long_way_is_used_though_packets_are_lost_on_it() {
        let satellite = |lost_every| Way { round_ms: 600, bytes_per_ms: 2_500, lost_every };
        for (lost_every, least) in [(0, 95), (7, 80), (2, 80), (1, 80)] {
            let (_, used) = satellite(lost_every).carry(&mut Batches::default(), 300);
            assert!(used >= least, "one in {lost_every} is lost: {used} % of the way are used");
        }
    }

    #[test]
    fn what_is_urgent_does_not_wait_long_where_the_way_is_narrow() {
        for (bytes_per_ms, most_ms) in [(20, 2_300), (100, 1_800), (250, 1_200), (1_000, 1_200)] {
            for lost_every in [0, 10, 3] {
                let narrow = Way { round_ms: 100, bytes_per_ms, lost_every };
                let (longest_ms, used) = narrow.carry(&mut Batches::default(), 300);
                let way = format!("{bytes_per_ms} bytes/ms, one in {lost_every} lost");
                assert!(longest_ms < most_ms, "{way}: {longest_ms} ms");
                assert!(used >= 90, "{way}: {used} % are used");
            }
        }
    }

    #[test]
    fn batches_shrink_when_the_way_narrows() {
        let mut batches = Batches::default();
        let way = |bytes_per_ms| Way { round_ms: 100, bytes_per_ms, lost_every: 0 };
        way(20_000).carry(&mut batches, 100);
        assert_eq!(batches.size_bytes(), Options::default().batch_bytes);
        let (longest_ms, _) = way(250).carry(&mut batches, 200);
        assert!(longest_ms < 1_200, "{longest_ms} ms");
    }

    #[test]
    fn a_batch_that_is_far_from_full_makes_the_next_no_larger() {
        let (mut batches, options) = (Batches::default(), Options::default());
        let small = Load {
            bytes: 300,
            size_bytes: FIRST_BATCH_BYTES,
            on_way_bytes: 300,
            fills_window: false,
        };
        for took_ms in [1, 1, 400, 1_000] {
            batches.learn(small, took_ms, &options);
            assert_eq!(batches.size_bytes(), FIRST_BATCH_BYTES);
        }
    }

    #[test]
    fn batches_that_are_as_many_ops_as_may_be_shrink_too() {
        let (mut batches, options) = (Batches::default(), Options::default());
        let likes = Load {
            bytes: 10_000,
            size_bytes: FIRST_BATCH_BYTES,
            on_way_bytes: 40_000,
            fills_window: true,
        };
        (0..8).for_each(|_| batches.learn(likes, 8_000, &options));
        assert!(batches.size_bytes() < 10_000, "{} bytes", batches.size_bytes());
    }
}
