//! What a client counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Threads that count without being in each other's way.
const STRIPES: usize = 16;

/// What the calls of a client's sessions have come to. Calls that are under way count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Calls that were sent to a follower, or were to be; again for each time that one was repeated.
    pub attempts: u64,
    /// Those that repeated a call which had failed.
    pub retries: u64,
    /// How often a session's call went to another follower than the one before: because that failed or is gone, or because a new one
    /// took its share.
    pub moved: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    stripes: [Stripe; STRIPES],
    retries: AtomicU64,
    moved: AtomicU64,
}

/// Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES);
    STRIPE.with(|stripe| *stripe)
}

impl Counts {
    pub fn attempt(&self, is_retry: bool, moved: bool) {
        self.stripes[stripe()].0.fetch_add(1, Ordering::Relaxed);
        if is_retry {
            self.retries.fetch_add(1, Ordering::Relaxed);
        }
        if moved {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn read(&self) -> ClientStats {
        ClientStats {
            attempts: self.stripes.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum(),
            retries: self.retries.load(Ordering::Relaxed),
            moved: self.moved.load(Ordering::Relaxed),
        }
    }
}
