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
        let Some((rate, next)) = &self.0 else { return };
        let until = {
            let mut next = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // What was not used is not saved up.
            let from = (*next).max(Instant::now());
            *next = from + Duration::from_secs_f64(rows as f64 / rate);
            from
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_come_at_the_rate_and_not_sooner() {
        let begun = Instant::now();
        let throttle = Throttle::new(Some(200));
        assert_eq!(throttle.chunk(), 20);
        for _ in 0..10 {
            throttle.wait(20).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 900, "nine times a tenth of a second: the first waits for nothing");
        Throttle::new(None).wait(1_000_000).await;
        assert_eq!(begun.elapsed().as_millis(), 900);
    }
}
