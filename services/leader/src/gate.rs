//! A cap on the work that one logical shard may have under way at its storage shard: a hot shard queues here, and is told so,
//! instead of crowding out the others.

use metrics::{Counter, Histogram, counter, histogram};
use tao_model::{Error, Result, ShardId};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How much a shard may have under way, and waiting.
#[derive(Debug, Clone, Copy)]
pub struct GateLimits {
    /// Calls at the storage shard.
    pub running: usize,
    /// Calls that wait for one of those; more are refused.
    pub waiting: usize,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self { running: 1024, waiting: 8192 }
    }
}

struct Lane {
    permits: Semaphore,
    waiting: AtomicUsize,
}

/// The gates of all logical shards.
pub struct Gate {
    lanes: Vec<Lane>,
    limits: GateLimits,
    shed: Counter,
    /// Seconds that calls have waited, those that had to.
    queue: Histogram,
}

/// A call's place at the storage shard, until dropped.
pub type Pass<'a> = SemaphorePermit<'a>;

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    /// For so many logical shards.
    pub fn new(shards: u32, limits: GateLimits) -> Self {
        let lane = || Lane { permits: Semaphore::new(limits.running), waiting: AtomicUsize::new(0) };
        let shed = counter!("tao_leader_shed_total");
        // Shown before there is any.
        shed.increment(0);
        let queue = histogram!("tao_leader_queue_seconds");
        Self { lanes: (0..shards).map(|_| lane()).collect(), limits, shed, queue }
    }

    /// Waits for a place.
    pub async fn pass(&self, shard: ShardId, deadline: Instant) -> Result<Pass<'_>> {
        let lane = self.lanes.get(shard.0 as usize).ok_or(Error::WrongShard { shard: shard.0 })?;
        if let Ok(pass) = lane.permits.try_acquire() {
            return Ok(pass);
        }
        if lane.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.waiting {
            lane.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shed.increment(1);
            let what = format!("shard {shard} has {} calls waiting", self.limits.waiting);
            return Err(Error::Overloaded { what, retry_after: Duration::from_millis(50) });
        }
        let waiting = Waiting(&lane.waiting);
        let began = Instant::now();
        let pass = timeout_at(deadline, lane.permits.acquire()).await;
        self.queue.record(began.elapsed());
        drop(waiting);
        match pass {
            Ok(Ok(pass)) => Ok(pass),
            Ok(Err(_)) => Err(Error::unavailable("the leader is stopping")),
            Err(_) => Err(Error::DeadlineExceeded { not_applied: true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_shard_queues_then_sheds_and_others_go_on() {
        let gate = Gate::new(2, GateLimits { running: 1, waiting: 1 });
        let soon = || Instant::now() + Duration::from_secs(1);
        let first = gate.pass(ShardId(0), soon()).await.unwrap();
        let mut second = Box::pin(gate.pass(ShardId(0), soon()));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(matches!(gate.pass(ShardId(0), soon()).await, Err(Error::Overloaded { .. })));
        assert!(gate.pass(ShardId(1), soon()).await.is_ok());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(gate.pass(ShardId(0), soon()).await.unwrap_err(), Error::DeadlineExceeded { not_applied: true });
        drop(second);
        assert!(gate.pass(ShardId(0), soon()).await.is_ok());
        assert_eq!(gate.pass(ShardId(2), soon()).await.unwrap_err(), Error::WrongShard { shard: 2 });
    }
}
