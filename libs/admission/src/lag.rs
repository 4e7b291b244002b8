//! How long a call waits before an event loop looks at it, told by how late the loop's timers are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What one event loop has been late in all. Written by the loop, read by another thread.
#[derive(Debug, Default)]
pub struct Lag {
    /// Half the sum of squares, in microseconds: a loop that does not look for `t` makes calls wait `t / 2` on average, and `t` of them
    /// come meanwhile.
    waited: AtomicU64,
    /// When the loop was last seen, in microseconds.
    seen: AtomicU64,
}

impl Lag {
    /// A timer has fired at `now`, so much later than it was due.
    pub fn record(&self, now: Duration, late: Duration) {
        let late = late.as_micros() as u64;
        self.waited.fetch_add(late.saturating_mul(late) / 2, Relaxed);
        self.seen.store(now.as_micros() as u64, Relaxed);
    }

    /// What it adds up to until `now`, with what a loop that does not answer is late by now. A timer fires every `period`.
    pub fn waited(&self, now: Duration, period: Duration) -> u64 {
        let due = self.seen.load(Relaxed) + period.as_micros() as u64;
        let late = (now.as_micros() as u64).saturating_sub(due);
        self.waited.load(Relaxed).saturating_add(late.saturating_mul(late) / 2)
    }
}

/// How long a call that comes at a random time within `elapsed` has to wait on average, by the difference of two [`Lag::waited`].
pub fn mean_wait(waited: u64, elapsed: Duration) -> Duration {
    Duration::from_micros(waited / (elapsed.as_micros() as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stalls_makes_its_callers_wait_for_half_of_it() {
        let (lag, ms) = (Lag::default(), Duration::from_millis);
        lag.record(ms(10), ms(0));
        lag.record(ms(90), ms(70));
        lag.record(ms(100), ms(0));
        assert_eq!(mean_wait(lag.waited(ms(100), ms(10)), ms(100)), Duration::from_micros(24_500));
    }

    #[test]
    fn a_loop_that_does_not_come_back_is_late_already() {
        let (lag, ms) = (Lag::default(), Duration::from_millis);
        lag.record(ms(10), ms(0));
        assert_eq!(lag.waited(ms(20), ms(10)), 0);
        assert_eq!(mean_wait(lag.waited(ms(220), ms(10)), ms(200)), ms(100));
    }
}
