//! How soon answers come, and what follows for how much may be on its way. A narrow link must not be filled for
//! minutes: what is urgent would wait behind it, and what is only slow would be taken for lost.

use super::Options;

/// In timeouts.
const LONGEST_PATIENCE: u64 = 10;

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

    /// After how long an answer is overdue. One that took for ever, over a machine's sleep, must not make it for ever.
    pub fn patience_ms(&self, options: &Options) -> u64 {
        let timeout_ms = options.answer_timeout_ms;
        (3 * self.slowest_ms).clamp(timeout_ms, LONGEST_PATIENCE * timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
