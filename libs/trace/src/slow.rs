//! The log of slow requests: with their trace, as few a second as people can read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::counter;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::context::TraceContext;

/// Lines a second at the most; all are counted.
const LINES: u32 = 10;

/// Nanoseconds from which on a request is slow.
static SLOW: AtomicU64 = AtomicU64::new(u64::MAX);

/// From now on a request is slow that takes so long; `None`: none is.
pub fn log_from(slow: Option<Duration>) {
    // Shown before there is any.
    counter!("tao_slow_requests_total").absolute(0);
    let nanoseconds = slow.map_or(u64::MAX, |slow| u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX));
    SLOW.store(nanoseconds, Ordering::Relaxed);
}

/// Notes a request that has ended. One relaxed load, unless it was slow.
pub fn note(took: Duration, context: TraceContext, what: impl FnOnce() -> Told) {
    let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    if nanoseconds >= SLOW.load(Ordering::Relaxed) {
        tell(took, context, what());
    }
}

/// What a slow request was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Service and method.
    pub call: String,
    /// How it ended.
    pub code: String,
}

fn tell(took: Duration, context: TraceContext, Told { call, code }: Told) {
    static WINDOW: Mutex<Option<Window>> = Mutex::new(None);
    counter!("tao_slow_requests_total").increment(1);
    let Some(unlogged) = WINDOW.lock().get_or_insert_with(Window::new).admit(Instant::now()) else { return };
    let seconds = took.as_secs_f64();
    let trace_id = context.is_sampled().then(|| tracing::field::display(context.trace_id()));
    tracing::warn!(target: "tao::slow", call, code, seconds, trace_id, unlogged, "slow request");
}

/// A second's lines.
struct Window {
    began: Instant,
    lines: u32,
    unlogged: u64,
}

impl Window {
    fn new() -> Self {
        Self { began: Instant::now(), lines: 0, unlogged: 0 }
    }

    /// Whether there is room for a line; then how many had none since the last.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.began) >= Duration::from_secs(1) {
            (self.began, self.lines) = (now, 0);
        }
        if self.lines >= LINES {
            self.unlogged += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_few_lines_a_second_are_only_counted() {
        let mut window = Window::new();
        let began = window.began;
        let admitted = (0..LINES + 5).filter(|_| window.admit(began).is_some()).count();
        assert_eq!(admitted, LINES as usize);
        assert_eq!(window.admit(began + Duration::from_secs(1)), Some(5));
        assert_eq!(window.admit(began + Duration::from_secs(1)), Some(0));
    }
}
