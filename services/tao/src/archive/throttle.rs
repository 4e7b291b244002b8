//! So many rows a second at the most, of all workers together.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// See the module.
#[derive(Debug)]
pub struct Throttle(Option<(f64, Mutex<Instant>)>);

/// Rows that are read or written at once.
const CHUNK: usize = 1_000;

impl Throttle {
    /// Without a rate: as many as can be.
    pub fn new(rate: Option<u32>) -> Self {
        Self(rate.map(|rate| (f64::from(rate), Mutex::new(Instant::now()))))
    }

    /// How many rows to take at once, so that a low rate is an even one.
    pub fn chunk(&self) -> usize {
        self.0.as_ref().map_or(CHUNK, |(rate, _)| ((rate / 10.0) as usize).clamp(1, CHUNK))
    }

    /// Waits until so many rows may follow those before.
    pub async fn wait(&self, rows: usize) {
        if let Some(at) = self.reserve(rows, Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// When so many rows may follow those before; at once when there is no rate.
    fn reserve(&self, rows: usize, now: Instant) -> Option<Instant> {
        let (rate, next) = self.0.as_ref()?;
        let mut next = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // What was not used is not saved up.
        let at = (*next).max(now);
        *next = at + Duration::from_secs_f64(rows as f64 / rate);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_at_the_rate_and_what_was_not_used_is_lost() {
        let throttle = Throttle::new(Some(200));
        let later = |ms| Instant::now() + Duration::from_millis(ms);
        assert_eq!((throttle.chunk(), Throttle::new(None).chunk()), (20, 1_000));
        let begun = later(1_000);
        let took = |now| throttle.reserve(20, now).unwrap().duration_since(begun).as_millis();
        assert_eq!([begun, begun, begun].map(took), [0, 100, 200]);
        let after = begun + Duration::from_secs(1);
        assert_eq!([after, after].map(took), [1_000, 1_100]);
        assert!(Throttle::new(None).reserve(1_000_000, begun).is_none());
    }
}
