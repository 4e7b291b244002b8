//! Hands commits on from the lane's memory, gapless for as long as it lasts.

use std::sync::Arc;

use parking_lot::Mutex;
use tao_model::{Change, Error, Position, Result};
use tokio::sync::broadcast;
use tokio::time::{Duration, Instant};

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

/// How long an owner that can't ask its database may still vouch for its log. Less than a successor waits (see `open`).
const VOUCHED: Duration = Duration::from_millis(1_500);

/// The lane's end of all subscriptions.
pub(crate) struct Feed {
    state: Mutex<Option<State>>,
    /// When the database last said that this process owns it.
    confirmed: Mutex<Instant>,
}

struct State {
    head: Position,
    commits: broadcast::Sender<Arc<Commit>>,
}

impl Feed {
    pub fn new(head: Position) -> Self {
        let state = State { head, commits: broadcast::Sender::new(BACKLOG) };
        Self { state: Mutex::new(Some(state)), confirmed: Mutex::new(Instant::now()) }
    }

    /// The database has just said that this process owns it.
    pub fn confirm(&self) {
        *self.confirmed.lock() = Instant::now();
    }

    pub fn is_confirmed(&self) -> bool {
        self.confirmed.lock().elapsed() < VOUCHED
    }

    pub fn subscribe(&self) -> Result<Subscription> {
        if !self.is_confirmed() {
            return Err(Error::unavailable(
                "the database can't be asked whether the log is still this storage shard's",
            ));
        }
        let state = self.state.lock();
        let state =
            state.as_ref().ok_or_else(|| Error::unavailable("the log's end is not known: a commit is in doubt"))?;
        Ok(Subscription { start: state.head, commits: state.commits.subscribe() })
    }

    /// Hands on a commit; before its writers are answered.
    pub fn publish(&self, commit: Commit) {
        let mut state = self.state.lock();
        if let (Some(state), Some(last)) = (state.as_mut(), commit.changes.last()) {
            state.head = last.position;
            let _ = state.commits.send(Arc::new(commit));
        }
    }

    /// Cuts everybody off: what was committed is not known.
    pub fn lose(&self) {
        *self.state.lock() = None;
    }

    pub fn is_lost(&self) -> bool {
        self.state.lock().is_none()
    }

    /// The log's end is known (again).
    pub fn resume(&self, head: Position) {
        let mut state = self.state.lock();
        if state.as_ref().is_none_or(|s| s.head != head) {
            *state = Some(State { head, commits: broadcast::Sender::new(BACKLOG) });
        }
    }
}
