//! A connection that is not read for a while: what its client wants waits there, and costs nothing here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// One a connection.
#[derive(Debug)]
pub struct Brake {
    began: Instant,
    /// Milliseconds after `began`; 0: it is read.
    until: AtomicU64,
}

/// The governor gives new shares by then.
const HOLD: Duration = Duration::from_millis(100);

impl Default for Brake {
    fn default() -> Self {
        Self { began: Instant::now(), until: AtomicU64::new(0) }
    }
}

impl Brake {
    /// Not to be read for a moment from now.
    pub fn hold(&self) {
        self.until.store((self.began.elapsed() + HOLD).as_millis() as u64, Relaxed);
    }

    /// Until when it is not to be read, if so.
    pub fn held(&self) -> Option<Instant> {
        // The clock is read only of those that are held.
        let until = self.until.load(Relaxed);
        if until == 0 {
            return None;
        }
        let until = self.began + Duration::from_millis(until);
        if Instant::now() < until {
            return Some(until);
        }
        self.until.store(0, Relaxed);
        None
    }
}
