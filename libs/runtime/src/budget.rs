//! Bytes that a server may hold of one kind, all connections together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::Gauge;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// When to try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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

    /// Takes a part; when there is not as much left, the caller is to come back. `what` there is of it.
    pub(crate) fn take(&self, bytes: u64, what: &str) -> Result<Charge, Status> {
        let add = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.0.max);
        if self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            let message = format!("{what}, of {} bytes together: try again", self.0.max);
            let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
            return Err(Status::with_error_details(Code::ResourceExhausted, message, details));
        }
        self.0.gauge.increment(bytes as f64);
        Ok(Charge { of: self.clone(), bytes })
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
        let take = |bytes| budget.take(bytes, "things wait");
        let (one, two) = (take(60).unwrap(), take(40).unwrap());
        let refused = take(1).unwrap_err();
        assert_eq!(refused.message(), "things wait, of 100 bytes together: try again");
        assert_eq!(refused.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
        assert!(take(u64::MAX).is_err());
        drop(one);
        assert!(take(61).is_err() && take(60).is_ok());
        drop(two);
        assert!(take(100).is_ok());
    }
}
