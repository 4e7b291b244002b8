//! How many calls may be under way to those behind, by how long they take: it falls when they take longer than they are wont to, or
//! time out, and grows for as long as they don't.

use std::time::Duration;

/// How a [`Concurrency`] adapts.
#[derive(Debug, Clone, Copy)]
pub struct ConcurrencyOptions {
    /// Calls under way that are never too many.
    pub min: f64,
    /// At the beginning, and at the most.
    pub max: f64,
    /// How many times as long as usual calls may take before it falls.
    pub tolerance: f64,
    /// Those behind have stopped when nothing comes back for so long.
    pub stall: Duration,
}

impl Default for ConcurrencyOptions {
    fn default() -> Self {
        Self { min: 32.0, max: 4_096.0, tolerance: 2.0, stall: Duration::from_millis(500) }
    }
}

/// What has ended since the last step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ended {
    /// Calls that were answered.
    pub answered: u64,
    /// How long they took, together.
    pub took: Duration,
    /// Calls that timed out, or were refused by those behind.
    pub dropped: u64,
}

/// The limit of calls under way. As Netflix's Gradient2 has it, in steps of time instead of calls: the ratio of the usual latency to the
/// present one is what the limit is multiplied by, and the root of it is the queue that it may grow by.
#[derive(Debug)]
pub struct Concurrency {
    options: ConcurrencyOptions,
    limit: f64,
    /// Usual latency, seconds; none until there is one.
    usual: Option<f64>,
    quiet: Duration,
}

/// Over which the usual latency is smoothed, seconds.
const USUAL: f64 = 10.0;
/// Answers that are enough for a latency.
const ENOUGH: u64 = 4;
/// How much of a step's result is taken over at once.
const TAKEN_OVER: f64 = 0.2;

impl Concurrency {
    /// At its most.
    pub const fn new(options: ConcurrencyOptions) -> Self {
        Self { options, limit: options.max, usual: None, quiet: Duration::ZERO }
    }

    /// A step of so long, at whose end so many calls are under way. The limit from now on.
    pub fn step(&mut self, elapsed: Duration, ended: Ended, under_way: usize) -> usize {
        let under_way = under_way as f64;
        let is_quiet = ended.answered == 0 && ended.dropped == 0 && under_way > 0.0;
        self.quiet = if is_quiet { self.quiet + elapsed } else { Duration::ZERO };
        let is_stalled = self.quiet >= self.options.stall;
        if is_stalled || (ended.dropped > 0 && ended.dropped * 10 >= ended.answered) {
            // From what is under way: a limit that nobody has come near would take long to fall.
            self.limit = self.limit.min(under_way.max(self.options.min)) * 0.8;
        } else if ended.answered >= ENOUGH {
            let latency = ended.took.as_secs_f64() / ended.answered as f64;
            let weight = 1.0 - (-elapsed.as_secs_f64() / USUAL).exp();
            let usual = self.usual.map_or(latency, |usual| usual + weight * (latency - usual));
            // After a time of slowness, quick calls are to be usual again soon.
            let usual = if usual > 2.0 * latency { usual * 0.9 } else { usual };
            self.usual = Some(usual);
            let gradient = (self.options.tolerance * usual / latency.max(1e-6)).clamp(0.5, 1.0);
            let wanted = self.limit * gradient + self.limit.sqrt();
            let is_used = under_way + ended.answered as f64 >= self.limit / 2.0;
            if wanted < self.limit || is_used {
                self.limit += TAKEN_OVER.max(1.0 / self.limit.sqrt()).min(1.0) * (wanted - self.limit);
            }
        }
        self.limit = self.limit.clamp(self.options.min, self.options.max);
        self.limit as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP: Duration = Duration::from_millis(100);

    fn answered(n: u64, ms: u64) -> Ended {
        Ended { answered: n, took: Duration::from_millis(ms * n), dropped: 0 }
    }

    #[test]
    fn it_falls_when_calls_take_longer_and_comes_back() {
        let mut limit = Concurrency::new(ConcurrencyOptions::default());
        assert_eq!((0..50).map(|_| limit.step(STEP, answered(100, 5), 10)).last(), Some(4_096));
        let slow = (0..40).map(|_| limit.step(STEP, answered(100, 100), 500)).last();
        assert!(slow < Some(300), "{slow:?}");
        let quick = (0..600).map(|_| limit.step(STEP, answered(1_000, 5), 500)).last();
        assert!(quick > Some(1_000), "{quick:?}");
    }

    #[test]
    fn it_falls_when_nothing_comes_back_and_grows_when_it_does() {
        let mut limit = Concurrency::new(ConcurrencyOptions::default());
        limit.step(STEP, answered(100, 5), 10);
        let stalled: Vec<_> = (0..20).map(|_| limit.step(STEP, Ended::default(), 200)).collect();
        assert_eq!((stalled[3], stalled[19]), (4_096, 32));
        let again: Vec<_> = (0..50).map(|_| limit.step(STEP, answered(500, 5), 32)).collect();
        assert!(again.is_sorted() && again[49] > 100, "{again:?}");
    }

    #[test]
    fn an_idle_line_keeps_its_limit() {
        let mut limit = Concurrency::new(ConcurrencyOptions::default());
        assert_eq!((0..100).map(|_| limit.step(STEP, Ended::default(), 0)).last(), Some(4_096));
    }

    #[test]
    fn timeouts_bring_it_down() {
        let mut limit = Concurrency::new(ConcurrencyOptions::default());
        let dropped = Ended { answered: 10, took: Duration::from_secs(1), dropped: 50 };
        assert_eq!((0..30).map(|_| limit.step(STEP, dropped, 400)).last(), Some(32));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(steps in proptest::collection::vec((0..5_000_u64, 0..10_000_u64, 0..500_u64, 0..5_000_usize), 1..200)) {
            let mut limit = Concurrency::new(ConcurrencyOptions::default());
            for (answered, ms, dropped, under_way) in steps {
                let ended = Ended { answered, took: Duration::from_millis(ms) * answered as u32, dropped };
                let now = limit.step(STEP, ended, under_way);
                prop_assert!((32..=4_096).contains(&now));
            }
        }
    }
}
