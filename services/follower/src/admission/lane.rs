//! Calls of one kind that are under way to the leaders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tao_admission::{ConcurrencyOptions, Ended};
use tao_model::{Error, Result};
use tokio::time::Instant;

use super::account::Account;
use super::{Admission, Kind};

/// What any call weighs at the most: a lane that is empty has room for it.
pub const HEAVIEST: usize = 32;
/// A call that is given up after so long was given up for being late.
const LATE: Duration = Duration::from_millis(500);

/// Reads and writes have one each, so that neither waits for the other.
#[derive(Debug)]
pub struct Lane {
    limit: AtomicUsize,
    under_way: AtomicUsize,
    answered: AtomicU64,
    took_us: AtomicU64,
    dropped: AtomicU64,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            limit: AtomicUsize::new(ConcurrencyOptions::default().max as usize),
            under_way: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            took_us: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

impl Lane {
    /// Whether there is room for a call of somebody of whom so much is under way, one of so many who ask. Then it counts.
    pub fn enter(&self, mine: &AtomicUsize, weight: usize, active: usize) -> bool {
        let limit = self.limit.load(Relaxed);
        let before = self.under_way.fetch_add(weight, Relaxed);
        let my_share = limit / active.max(1);
        if before + weight > limit && mine.load(Relaxed) + weight > my_share {
            self.under_way.fetch_sub(weight, Relaxed);
            return false;
        }
        mine.fetch_add(weight, Relaxed);
        true
    }

    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    pub fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }

    /// What has ended since this was last asked.
    pub fn take_ended(&self) -> Ended {
        Ended {
            answered: self.answered.swap(0, Relaxed),
            took: Duration::from_micros(self.took_us.swap(0, Relaxed)),
            dropped: self.dropped.swap(0, Relaxed),
        }
    }
}

/// A call that is under way until this is dropped.
#[derive(Debug)]
pub struct Pass {
    admission: Arc<Admission>,
    account: Arc<Account>,
    kind: Kind,
    weight: usize,
    since: Instant,
    is_settled: bool,
}

impl Pass {
    pub(super) fn new(admission: Arc<Admission>, account: Arc<Account>, kind: Kind, weight: usize) -> Self {
        Self { admission, account, kind, weight, since: Instant::now(), is_settled: false }
    }

    /// Notes how it ended: that is what the limit adapts to.
    pub fn ended<T>(mut self, result: &Result<T>) {
        self.is_settled = true;
        let lane = &self.admission.lanes[self.kind as usize];
        match result {
            Err(Error::DeadlineExceeded { .. } | Error::Overloaded { .. }) => {
                lane.dropped.fetch_add(1, Relaxed);
            }
            // How long it takes to hear of nobody says nothing of those who are there.
            Err(Error::Unavailable { .. } | Error::Cancelled) => {}
            // What is many calls in one takes as long as it likes.
            Ok(_) | Err(_) if self.weight > 1 => {}
            Ok(_) | Err(_) => {
                lane.answered.fetch_add(1, Relaxed);
                lane.took_us.fetch_add(self.since.elapsed().as_micros() as u64, Relaxed);
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let lane = &self.admission.lanes[self.kind as usize];
        if !self.is_settled && self.since.elapsed() >= LATE {
            lane.dropped.fetch_add(1, Relaxed);
        }
        lane.under_way.fetch_sub(self.weight, Relaxed);
        self.account.under_way(self.kind).fetch_sub(self.weight, Relaxed);
    }
}
