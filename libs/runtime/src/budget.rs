//! Bytes that a server may hold of one kind, all connections together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::Gauge;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Held>);

#[derive(Debug)]
struct Held {
    max: u64,
    bytes: AtomicU64,
    gauge: Gauge,
}

/// A part of a budget, until dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    of: Budget,
    bytes: u64,
}

impl Budget {
    /// The gauge shows what is held.
    pub(crate) fn new(max: u64, gauge: Gauge) -> Self {
        Self(Arc::new(Held { max, bytes: AtomicU64::new(0), gauge }))
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max
    }

    /// Takes a part; none when there is not as much left.
    pub(crate) fn take(&self, bytes: u64) -> Option<Charge> {
        let add = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.0.max);
        self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        self.0.gauge.increment(bytes as f64);
        Some(Charge { of: self.clone(), bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.of.0.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.of.0.gauge.decrement(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_may_be() {
        let budget = Budget::new(100, Gauge::noop());
        let (one, two) = (budget.take(60).unwrap(), budget.take(40).unwrap());
        assert!(budget.take(1).is_none() && budget.take(u64::MAX).is_none());
        drop(one);
        assert!(budget.take(61).is_none() && budget.take(60).is_some());
        drop(two);
        assert!(budget.take(100).is_some());
    }
}
