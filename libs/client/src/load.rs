//! How much of what this client wants its follower takes: what would be refused is not sent, since a refusal costs the follower about as
//! much as an answer.

use parking_lot::Mutex;
use tao_admission::{Budget, Throttle};
use tokio::time::Instant;

use crate::error::ClientError;

/// Of one follower.
#[derive(Debug)]
pub(crate) struct Load {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    throttle: Throttle,
    budget: Budget,
}

impl Default for Load {
    fn default() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }
}

impl Load {
    /// Whether a call is worth sending; else the error that it ends with.
    pub fn begin(&self, address: &str) -> Result<Sent<'_>, ClientError> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.throttle.may_send(now - self.began) {
            return Ok(Sent { load: Some(self), since: now });
        }
        Err(ClientError::Throttled { address: address.to_owned(), retry_after: state.throttle.retry_after() })
    }

    /// Whether a call that was refused or held back may be repeated.
    pub fn may_repeat(&self) -> bool {
        self.state.lock().budget.spend()
    }
}

/// A call that was sent. Dropped without an outcome, its caller gave it up.
pub(crate) struct Sent<'a> {
    load: Option<&'a Load>,
    since: Instant,
}

impl Sent<'_> {
    /// Notes what became of it.
    pub fn ended<T>(mut self, outcome: &Result<T, ClientError>) {
        let Some(load) = self.load.take() else { return };
        let mut state = load.state.lock();
        match outcome {
            Err(error) if error.is_overload() => state.throttle.refused(),
            Err(ClientError::Deadline { .. }) => state.throttle.late(),
            // Nothing was heard of the follower itself.
            Err(ClientError::Transport { .. }) => {}
            Ok(_) | Err(_) => {
                state.throttle.taken();
                state.budget.earn();
            }
        }
    }
}

/// After which a call that is given up was given up for being late, milliseconds.
const LATE_MS: u128 = 500;

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(load) = self.load.take().filter(|_| self.since.elapsed().as_millis() >= LATE_MS) {
            load.state.lock().throttle.late();
        }
    }
}
