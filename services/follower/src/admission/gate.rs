//! A connection, before its calls are decoded: who makes them, and whether it is read.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tao_runtime::Turnstile;
use tokio::time::Instant;

use super::brake::Brake;
use super::{Account, Admission, spread};

/// One a connection. It learns who calls from the calls that were decoded; a connection of several callers tells nothing of the next one.
#[derive(Debug)]
pub struct Gate {
    admission: Arc<Admission>,
    caller: OnceLock<Arc<Account>>,
    is_of_several: AtomicBool,
    /// Calls that were taken in and not decoded yet.
    taken_in: AtomicU32,
    brake: Brake,
}

impl Gate {
    /// Of a new connection.
    pub fn new(admission: Arc<Admission>) -> Self {
        Self {
            admission,
            caller: OnceLock::new(),
            is_of_several: AtomicBool::new(false),
            taken_in: AtomicU32::new(0),
            brake: Brake::default(),
        }
    }

    /// Whether it may refuse calls that are not decoded.
    pub fn is_adaptive(&self) -> bool {
        self.admission.limits.is_adaptive()
    }

    /// A call of this connection has been decoded. Whether it was taken in before.
    pub(super) fn decoded(&self, account: &Arc<Account>) -> bool {
        if !self.is_adaptive() {
            return false;
        }
        if !Arc::ptr_eq(self.caller.get_or_init(|| account.clone()), account) {
            self.is_of_several.store(true, Relaxed);
        }
        // Written by the connection's own task alone.
        let taken_in = self.taken_in.load(Relaxed);
        if taken_in > 0 {
            self.taken_in.store(taken_in - 1, Relaxed);
        }
        taken_in > 0
    }

    /// Does not read it for a moment.
    pub fn hold(&self) {
        self.brake.hold();
    }

    /// Until when it is not read, if so.
    pub fn held(&self) -> Option<Instant> {
        self.brake.held()
    }
}

impl Turnstile for Gate {
    fn is_pressed(&self) -> bool {
        self.admission.is_pressed.load(Relaxed)
    }

    fn refuse(&self) -> Option<&[u8]> {
        if !self.is_pressed() {
            self.taken_in.store(0, Relaxed);
            return None;
        }
        let account = self.caller.get().filter(|_| !self.is_of_several.load(Relaxed))?;
        if account.spend(1) {
            self.taken_in.fetch_add(1, Relaxed);
            return None;
        }
        account.ask(1);
        account.refused_work(1);
        self.admission.undecoded.increment(1);
        Some(self.admission.refusals.block(spread(account.refused())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{LimitOptions, Limits};

    fn limits() -> Limits {
        LimitOptions { adaptive: Some(true), ..LimitOptions::default() }.check().unwrap()
    }

    #[test]
    fn what_is_above_a_callers_share_is_refused_once_it_is_known_whose_connection_it_is() {
        let admission = Arc::new(Admission::new(limits()));
        let gate = Gate::new(admission.clone());
        let account = admission.account("greedy");
        assert!(!gate.is_pressed());
        admission.is_pressed.store(true, Relaxed);
        account.refill(3);
        assert!(gate.is_pressed() && gate.refuse().is_none(), "nobody is known");
        assert!(!gate.decoded(&account));
        let refused = (0..10).filter_map(|_| gate.refuse()).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!((refused.len(), account.left(), account.totals()), (7, 0, (7, 7)));
        assert!(refused.iter().all(|block| block.windows(11).any(|name| name == b"grpc-status")));
        // Those that were taken in are not charged again.
        assert_eq!((0..5).map(|_| gate.decoded(&account)).collect::<Vec<_>>(), [true, true, true, false, false]);
    }

    #[test]
    fn a_connection_of_several_callers_refuses_nothing_undecoded() {
        let admission = Arc::new(Admission::new(limits()));
        let gate = Gate::new(admission.clone());
        admission.is_pressed.store(true, Relaxed);
        gate.decoded(&admission.account("one"));
        assert!(gate.refuse().is_some());
        gate.decoded(&admission.account("other"));
        assert!(gate.refuse().is_none());
    }
}
