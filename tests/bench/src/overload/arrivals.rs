//! When calls are due: at random times (Poisson), whatever is answered.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use crate::hash::unit;

/// Due times from one instant to another.
pub struct Due {
    rng: ChaCha8Rng,
    rate: f64,
    next: Instant,
    end: Instant,
}

impl Due {
    pub fn new(rate: f64, from: Instant, end: Instant, seed: u64) -> Self {
        let mut due = Self { rng: ChaCha8Rng::seed_from_u64(seed), rate, next: from, end };
        due.go_on();
        due
    }

    fn go_on(&mut self) {
        self.next += Duration::from_secs_f64(-unit(self.rng.next_u64()).ln() / self.rate);
    }

    /// The next that is due by `now`, if one is.
    pub fn by(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next;
        if due > now || due >= self.end {
            return None;
        }
        self.go_on();
        Some(due)
    }

    pub fn is_over(&self) -> bool {
        self.next >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_should_be() {
        let from = Instant::now();
        let mut due = Due::new(10_000.0, from, from + Duration::from_secs(1), 7);
        let half = from + Duration::from_millis(500);
        let times: Vec<_> = std::iter::from_fn(|| due.by(half)).collect();
        assert!((4_700..5_300).contains(&times.len()) && times.is_sorted(), "{}", times.len());
        while due.by(from + Duration::from_secs(5)).is_some() {}
        assert!(due.is_over());
    }
}
