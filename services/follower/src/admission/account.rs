//! What is counted of one identity.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crossbeam_utils::CachePadded;
use tao_admission::Bucket;

use super::Kind;
use super::limits::Limits;

/// Threads share a stripe when there are more of them.
const STRIPES: usize = 4;

/// See the module. Counted without a lock, and where all calls count, without a line of memory that two cores write.
#[derive(Debug)]
pub struct Account {
    buckets: [Option<(u32, Bucket)>; 2],
    /// Work that was asked for, ever.
    asked: [CachePadded<AtomicU64>; STRIPES],
    /// Work of calls that were refused for being above the share, ever.
    refused_work: AtomicU64,
    /// Refusals since the governor's last step.
    refused: AtomicU32,
    /// Work that is left of its share, while there are shares.
    left: AtomicI64,
    under_way: [AtomicUsize; 2],
    watches: AtomicUsize,
}

fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static STRIPE: usize = THREADS.fetch_add(1, Relaxed) % STRIPES);
    STRIPE.with(|stripe| *stripe)
}

impl Account {
    /// Of an identity that has not asked for anything.
    pub fn new(limits: &Limits, name: &str) -> Self {
        let bucket = |kind| limits.rate(name, kind).map(|rate| (rate, Bucket::per_second(rate)));
        Self {
            buckets: Kind::ALL.map(bucket),
            asked: Default::default(),
            refused_work: AtomicU64::new(0),
            refused: AtomicU32::new(0),
            left: AtomicI64::new(0),
            under_way: Default::default(),
            watches: AtomicUsize::new(0),
        }
    }

    pub(super) fn bucket(&self, kind: Kind) -> Option<&Bucket> {
        self.buckets[kind as usize].as_ref().map(|(_, bucket)| bucket)
    }

    pub(super) fn rate(&self, kind: Kind) -> u32 {
        self.buckets[kind as usize].as_ref().map_or(0, |(rate, _)| *rate)
    }

    pub(super) fn ask(&self, work: u32) {
        self.asked[stripe()].fetch_add(work.into(), Relaxed);
    }

    /// Takes work from the share, if there is any left. It may be overdrawn by one call.
    pub(super) fn spend(&self, work: u32) -> bool {
        let had = self.left.load(Relaxed) > 0;
        if had {
            self.left.fetch_sub(work.into(), Relaxed);
        }
        had
    }

    /// Counts work that is done whatever the share.
    pub(super) fn charge(&self, work: u32, is_pressed: bool) {
        self.ask(work);
        if is_pressed {
            self.left.fetch_sub(work.into(), Relaxed);
        }
    }

    pub(super) fn refused_work(&self, work: u32) {
        self.refused_work.fetch_add(work.into(), Relaxed);
    }

    /// Counts a refusal; how many there were since the last step.
    pub(super) fn refused(&self) -> u32 {
        self.refused.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// All work that was asked for and that was refused, ever.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.asked.iter().map(|stripe| stripe.load(Relaxed)).sum(), self.refused_work.load(Relaxed))
    }

    /// Sets what it may do until the next step.
    pub(super) fn refill(&self, work: i64) {
        self.left.store(work, Relaxed);
        self.refused.store(0, Relaxed);
    }

    pub(super) fn left(&self) -> i64 {
        self.left.load(Relaxed)
    }

    pub(super) const fn under_way(&self, kind: Kind) -> &AtomicUsize {
        &self.under_way[kind as usize]
    }

    /// Its Watch streams.
    pub const fn watches(&self) -> &AtomicUsize {
        &self.watches
    }
}
