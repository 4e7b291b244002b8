//! Where traces begin, and which of them are exported. Decided before there is a span, since most calls then have none.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::context::TraceContext;
use crate::span::{Kind, Span};

/// Whether spans are exported at all.
static EXPORTING: AtomicBool = AtomicBool::new(false);
/// Whether logs want spans that are not exported.
static LOGGED: AtomicBool = AtomicBool::new(false);
/// A trace that begins here is sampled when a random number is below this share of `u64::MAX`.
static SAMPLED_BELOW: AtomicU64 = AtomicU64::new(u64::MAX);

/// Exports from now on: this share of the traces that begin here, 0 to 1.
pub fn export(ratio: f64) {
    SAMPLED_BELOW.store((ratio * u64::MAX as f64) as u64, Ordering::Relaxed);
    EXPORTING.store(true, Ordering::Relaxed);
}

/// Whether calls that are not sampled have spans, too, for logs to show.
pub fn log_spans(are_wanted: bool) {
    LOGGED.store(are_wanted, Ordering::Relaxed);
}

/// The span of a call that came by a public door, from a caller that said this of its trace. A process that exports nothing passes on
/// what the caller said.
pub fn begin(name: &str, caller: impl FnOnce() -> Option<TraceContext>) -> Span {
    let is_logged = LOGGED.load(Ordering::Relaxed);
    if !EXPORTING.load(Ordering::Relaxed) {
        let caller = caller().unwrap_or_default();
        return if is_logged { Span::logged(name, Kind::Server, caller) } else { Span::passing(caller) };
    }
    let caller = caller();
    match (caller.map_or_else(draw, TraceContext::is_sampled), is_logged) {
        (true, _) => Span::open(name, Kind::Server, caller.unwrap_or_default()),
        (false, true) => Span::logged(name, Kind::Server, caller.unwrap_or(TraceContext::UNSAMPLED)),
        (false, false) => Span::none(),
    }
}

fn draw() -> bool {
    is_drawn(SAMPLED_BELOW.load(Ordering::Relaxed))
}

fn is_drawn(below: u64) -> bool {
    below == u64::MAX || random() < below
}

/// Good enough to choose by chance, and cheaper than what it chooses for. A step of xorshift, multiplied, of each thread's own.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed());
    }
    let mut state = STATE.get();
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    STATE.set(state);
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

fn seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_kept() {
        let drawn = |below| (0..10_000).filter(|_| is_drawn(below)).count();
        assert_eq!((drawn(0), drawn(u64::MAX)), (0, 10_000));
        let quarter = drawn(u64::MAX / 4);
        assert!((2_000..3_000).contains(&quarter), "{quarter}");
    }
}
