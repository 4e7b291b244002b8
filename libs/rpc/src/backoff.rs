//! How long to wait before connecting again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LAST: Duration = Duration::from_secs(1);

/// Doubles up to a second; each wait is between half and all of it, so that many clients of one server spread out.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    random: RandomState,
    waits: u64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST, random: RandomState::new(), waits: 0 }
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LAST);
        self.waits += 1;
        let random = self.random.hash_one(self.waits) % 1_001;
        full / 2 + (full / 2).mul_f64(random as f64 / 1_000.0)
    }
}

/// Up to a tenth less or more, so that what began together does not go on together.
pub(crate) fn vary(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 2_001;
    time.mul_f64(0.9 + random as f64 / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_second_and_vary() {
        let mut backoff = Backoff::new();
        for n in 0..20 {
            let full = (FIRST * 2_u32.pow(n.min(10))).min(LAST);
            let wait = backoff.next();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
