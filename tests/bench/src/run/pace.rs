//! Open arrivals. The runtime's timers are good to a millisecond; a thread that sleeps is good to a tenth of that.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::hash::unit;

/// Due times, told when they have come.
pub struct Pacer {
    /// Ends when the last is told.
    pub due: UnboundedReceiver<Instant>,
    _thread: JoinHandle<()>,
}

/// Arrivals from one instant to another with exponential gaps. The seed makes them the same for every target.
pub fn pace(rate: f64, from: Instant, to: Instant, seed: u64) -> Pacer {
    let (sender, due) = unbounded_channel();
    Pacer { due, _thread: thread::spawn(move || tell(&sender, rate, from, to, seed)) }
}

fn tell(sender: &UnboundedSender<Instant>, rate: f64, from: Instant, to: Instant, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut gap = || Duration::from_secs_f64(-unit(rng.next_u64()).ln() / rate);
    let mut due = from + gap();
    while due < to {
        let now = Instant::now();
        if due > now {
            thread::sleep(due - now);
        }
        // Whoever hung up needs no more.
        if sender.send(due).is_err() {
            return;
        }
        due += gap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn arrivals_have_their_rate_and_come_in_order() {
        let now = Instant::now();
        let mut pacer = pace(50_000.0, now, now + Duration::from_millis(200), 1);
        let mut times = Vec::new();
        while let Some(due) = pacer.due.recv().await {
            times.push(due);
        }
        assert!((9_000..11_000).contains(&times.len()), "{}", times.len());
        assert!(times.is_sorted());
    }
}
