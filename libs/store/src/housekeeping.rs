//! Deletes what has expired and keeps statistics, beside the lane, so that no write waits for it.

use std::sync::Arc;
use std::time::Duration;

use tao_model::{Clock, Position};
use tao_stream::Ring;
use tokio::time::{MissedTickBehavior, interval};

use crate::backend::{Backend, LogCut};

/// How often.
const EXPIRE: Duration = Duration::from_secs(10);
/// How often statistics are looked after.
const STATISTICS: Duration = Duration::from_secs(1);
/// Steps at the most each time: more than a busy lane commits between two times, and no long run of deletions.
const STEPS: u32 = 10;
/// Times as long as usual, the log is kept for a subscriber that lags.
const LAGGING: u32 = 4;

/// See the module.
pub(crate) struct Housekeeping {
    pub backend: Arc<dyn Backend>,
    pub clock: Arc<dyn Clock>,
    /// Its slowest reader keeps the log.
    pub ring: Ring,
    pub log_retention: Duration,
}

impl Housekeeping {
    /// Runs for ever.
    pub async fn run(self) {
        let (mut expiry, mut statistics) = (interval(EXPIRE), interval(STATISTICS));
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        statistics.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = expiry.tick() => self.expire().await,
                _ = statistics.tick() => self.keep().await,
            }
        }
    }

    async fn keep(&self) {
        if let Err(fault) = self.backend.keep_statistics().await {
            tracing::debug!(?fault, "can't keep statistics");
        }
    }

    /// Deletes what has expired by now, in bounded steps.
    pub async fn expire(&self) {
        let now_ms = self.clock.now_ms();
        let ago = |time: Duration| now_ms.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let cut = LogCut {
            before_ms: ago(self.log_retention),
            up_to: self.ring.slowest().unwrap_or(Position::new(u64::MAX, u64::MAX)),
            surely_before_ms: ago(self.log_retention * LAGGING),
            now_ms,
        };
        let (mut outcomes, mut log) = (true, true);
        for _ in 0..STEPS {
            let step = async {
                outcomes = outcomes && self.backend.expire_outcomes(now_ms).await?;
                log = log && self.backend.expire_log(cut).await?;
                Ok::<_, crate::backend::Fault>(outcomes || log)
            };
            match step.await {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => return tracing::warn!(?fault, "can't delete what has expired"),
            }
        }
    }
}
