//! What lies between a storage shard and its database: time, and connections that break, before a commit has happened or after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use tao_store::Interference;

use crate::plan::{Plan, randomness};

/// The way from one host to its database.
#[derive(Clone)]
pub struct DatabaseLink {
    random: Arc<Mutex<StdRng>>,
    is_down: Arc<AtomicBool>,
    /// How often a statement breaks its connection.
    breaks: f64,
}

impl DatabaseLink {
    /// Of storage shard number `host`.
    pub fn new(plan: &Plan, host: u64) -> Self {
        let random = randomness(plan.seed, 100 + host);
        Self { random: Arc::new(Mutex::new(random)), is_down: Arc::default(), breaks: plan.database_breaks }
    }

    /// Whether from now on nothing gets through.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl Interference for DatabaseLink {
    async fn pass(&self) -> bool {
        let (time, breaks) = {
            let mut random = self.random.lock();
            let time = if random.random_bool(0.6) { 0 } else { random.random_range(1..5) };
            (time, random.random_bool(self.breaks))
        };
        if time > 0 {
            tokio::time::sleep(Duration::from_millis(time)).await;
        }
        !breaks && !self.is_down.load(Ordering::Relaxed)
    }
}
