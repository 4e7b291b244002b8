//! How far a server is trusted to answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a server that failed is asked last, at first; doubled up to [`LONGEST`] while it goes on failing.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(8);

/// A server that failed is asked after all others for a while, longer each time until it answers again. Others that work are
/// better than one that may, but it is not given up: it may be the only one.
#[derive(Debug)]
pub struct Standing {
    began: Instant,
    /// Milliseconds after `began` until when it is asked last; 0: no suspicion.
    suspect_until: AtomicU64,
    /// In a row, each after it was trusted again.
    failures: AtomicU64,
}

impl Default for Standing {
    /// Nothing is held against it.
    fn default() -> Self {
        Self { began: Instant::now(), suspect_until: AtomicU64::new(0), failures: AtomicU64::new(0) }
    }
}

impl Standing {
    /// It could not be reached, or did not do what it should. Calls that fail together say so once.
    pub fn failed(&self) {
        if self.is_suspect() {
            return;
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let until = self.began.elapsed() + (FIRST * (1 << failures)).min(LONGEST);
        self.suspect_until.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// It answered. Whether it is asked last still takes its time: what has just failed may fail every other call.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Whether others are to be asked before it.
    pub fn is_suspect(&self) -> bool {
        // The clock is read only of those that have failed.
        let until = self.suspect_until.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let is_suspect = (self.began.elapsed().as_millis() as u64) < until;
        if !is_suspect {
            // Another failure may have come meanwhile.
            let _ = self.suspect_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        is_suspect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn suspicion_grows_with_failures_and_passes() {
        let standing = Standing::default();
        assert!(!standing.is_suspect());
        for n in 0..10 {
            let time = (FIRST * 2_u32.pow(n)).min(LONGEST);
            for _ in 0..50 {
                standing.failed();
            }
            tokio::time::advance(time / 2).await;
            assert!(standing.is_suspect(), "{n}");
            tokio::time::advance(time / 2).await;
            assert!(!standing.is_suspect(), "{n}");
        }
        standing.succeeded();
        standing.failed();
        assert!(standing.is_suspect());
        tokio::time::advance(FIRST).await;
        assert!(!standing.is_suspect());
    }
}
