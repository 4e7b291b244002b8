//! A token bucket in one word, for any number of threads: what all of them take together never exceeds rate and burst.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// So many tokens a second, and those of one second at once. As the generic cell rate algorithm (ITU-T I.371) has it: what is kept is the
/// time at which the bucket will be full again.
#[derive(Debug)]
pub struct Bucket {
    /// Nanoseconds from one token to the next.
    interval: u64,
    /// Nanoseconds since whatever the caller counts from.
    full_at: AtomicU64,
}

/// What fills an empty bucket.
const BURST: u64 = 1_000_000_000;

impl Bucket {
    /// So many tokens a second, at least 1.
    pub fn per_second(rate: u32) -> Self {
        Self { interval: BURST / u64::from(rate.max(1)), full_at: AtomicU64::new(0) }
    }

    /// Takes so many tokens at the time `now`; else says how long it is until they would be there. More than a second's tokens are taken
    /// when the bucket is full, and paid for by those who come next.
    pub fn take(&self, tokens: u32, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let cost = self.interval.saturating_mul(u64::from(tokens));
        let room = BURST.saturating_sub(cost.min(BURST));
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let from = full_at.max(now);
            (from - now <= room).then(|| from.saturating_add(cost))
        });
        taken.map(drop).map_err(|full_at| Duration::from_nanos((full_at - now).saturating_sub(room)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_tokens_at_once_then_one_at_a_time() {
        let bucket = Bucket::per_second(10);
        let at = |ms| Duration::from_millis(ms);
        assert!((0..10).all(|_| bucket.take(1, at(5_000)).is_ok()));
        assert_eq!(bucket.take(1, at(5_000)), Err(at(100)));
        assert_eq!(bucket.take(3, at(5_050)), Err(at(250)));
        assert!(bucket.take(1, at(5_100)).is_ok() && bucket.take(1, at(5_100)).is_err());
    }

    #[test]
    fn more_than_a_seconds_tokens_are_paid_for_afterwards() {
        let bucket = Bucket::per_second(10);
        let at = Duration::from_secs;
        assert!(bucket.take(50, at(1)).is_ok());
        assert_eq!(bucket.take(1, at(2)), Err(Duration::from_millis(3_100)));
        assert!(bucket.take(1, at(6)).is_ok());
    }

    #[test]
    fn threads_together_get_no_more_than_the_rate() {
        let bucket = Bucket::per_second(1_000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..2_000).filter(|n| bucket.take(1, Duration::from_millis(*n / 2)).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
        });
        assert!((1_000..=2_000).contains(&taken), "{taken}");
    }
}
