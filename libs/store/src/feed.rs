//! Hands commits on from the lane's memory, gapless for as long as it lasts.

use std::sync::Arc;

use parking_lot::Mutex;
use tao_model::{Change, Error, Position, Result};
use tokio::sync::broadcast;

/// Commits that a subscriber may lag behind before it is cut off.
const BACKLOG: usize = 8192;

/// The changes of one commit, consecutive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The position before the first of them.
    pub previous: Position,
    /// At least one.
    pub changes: Vec<Change>,
}

/// Every commit after `start`.
#[derive(Debug)]
pub struct Subscription {
    /// Where it begins.
    pub start: Position,
    commits: broadcast::Receiver<Arc<Commit>>,
}

impl Subscription {
    /// The next commit. `None`: there may be a gap, since the subscriber lagged, a commit is in doubt, or the store closed; whoever
    /// listens must subscribe again and reset. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Arc<Commit>> {
        self.commits.recv().await.ok()
    }
}

/// The lane's end of all subscriptions.
pub(crate) struct Feed(Mutex<Option<State>>);

struct State {
    head: Position,
    commits: broadcast::Sender<Arc<Commit>>,
}

impl Feed {
    pub fn new(head: Position) -> Self {
        Self(Mutex::new(Some(State { head, commits: broadcast::Sender::new(BACKLOG) })))
    }

    pub fn subscribe(&self) -> Result<Subscription> {
        let state = self.0.lock();
        let state =
            state.as_ref().ok_or_else(|| Error::unavailable("the log's end is not known: a commit is in doubt"))?;
        Ok(Subscription { start: state.head, commits: state.commits.subscribe() })
    }

    /// Hands on a commit; before its writers are answered.
    pub fn publish(&self, commit: Commit) {
        let mut state = self.0.lock();
        if let (Some(state), Some(last)) = (state.as_mut(), commit.changes.last()) {
            state.head = last.position;
            let _ = state.commits.send(Arc::new(commit));
        }
    }

    /// Cuts everybody off: what was committed is not known.
    pub fn lose(&self) {
        *self.0.lock() = None;
    }

    pub fn is_lost(&self) -> bool {
        self.0.lock().is_none()
    }

    /// The log's end is known (again).
    pub fn resume(&self, head: Position) {
        let mut state = self.0.lock();
        if state.as_ref().is_none_or(|s| s.head != head) {
            *state = Some(State { head, commits: broadcast::Sender::new(BACKLOG) });
        }
    }
}
