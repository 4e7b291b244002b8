//! Answers that wait for their caller to take them. A caller that opens no window for a large one holds the server's memory: so large
//! ones share a budget, and a connection that leaves one for too long is ended.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter, gauge};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tonic::Status;

use crate::activity::{Activity, Cause};
use crate::budget::{Budget, Charge};

/// In the extensions of a response whose message is larger than [`Self::LARGE`]: its bytes. Such an answer is charged before it is
/// encoded.
#[derive(Debug, Clone, Copy)]
pub struct AnswerBytes(pub usize);

impl AnswerBytes {
    /// Smaller answers are not charged.
    pub const LARGE: usize = 64 * 1024;
}

/// Limits of what waits. Shared by a server's connections.
#[derive(Debug)]
pub(crate) struct UntakenLimits {
    within: Duration,
    budget: Budget,
    refused: Counter,
}

/// A large answer that waits.
#[derive(Debug)]
pub(crate) struct Untaken {
    _charge: Charge,
    timer: AbortHandle,
}

impl UntakenLimits {
    pub(crate) fn new(max: u64, within: Duration) -> Self {
        let refused = counter!("server_answers_refused_total");
        refused.increment(0);
        Self { within, budget: Budget::new(max, gauge!("server_untaken_answers_bytes")), refused }
    }

    /// Charges an answer of so many bytes, which ends its connection if it is not taken in time.
    pub(crate) fn charge(&self, bytes: usize, activity: &Arc<Activity>) -> Result<Untaken, Status> {
        let charge = self.budget.take(bytes as u64, "large answers wait for their callers to take them");
        let charge = charge.inspect_err(|_| self.refused.increment(1))?;
        let (within, activity) = (self.within, activity.clone());
        let timer = tokio::spawn(async move {
            sleep(within).await;
            activity.end(Cause::Untaken);
        });
        Ok(Untaken { _charge: charge, timer: timer.abort_handle() })
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.timer.abort();
    }
}
