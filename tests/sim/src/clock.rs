//! Simulated time, and wall clocks that are wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tao_model::Clock;

/// What the right wall clock shows when a simulation begins: milliseconds since 1970.
pub const BEGAN_MS: u64 = 1_750_000_000_000;

/// Microseconds of the simulation, as the host that asks has it.
pub fn now_us() -> u64 {
    turmoil::sim_elapsed().map_or(0, |time| time.as_micros() as u64)
}

/// A host's wall clock: simulated time, and an error that faults change.
#[derive(Debug, Clone, Default)]
pub struct HostClock {
    error_ms: Arc<AtomicI64>,
}

impl HostClock {
    /// From now on it is so many milliseconds ahead (or behind).
    pub fn step(&self, error_ms: i64) {
        self.error_ms.store(error_ms, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now_ms(&self) -> u64 {
        (BEGAN_MS + now_us() / 1_000).saturating_add_signed(self.error_ms.load(Ordering::Relaxed))
    }
}
