//! Hands commits on from the lane's memory, gapless for as long as it lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tao_model::{Change, ChangeKind, Error, ListDelta, Position, Result};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

/// About how many bytes of commits may wait for one subscriber before it is cut off.
const BACKLOG: usize = 64 * 1024 * 1024;

/// The changes of one commit, consecutive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The position before the first of them.
    pub previous: Position,
    /// At least one.
    pub changes: Vec<Change>,
}

impl Commit {
    /// About how many bytes it takes in memory.
    fn bytes(&self) -> usize {
        let content = |change: &Change| match &change.kind {
            ChangeKind::Object(_, object) => object.as_ref().map_or(0, bytes::Bytes::len),
            ChangeKind::List { delta: ListDelta::Put(_, edge), .. } => edge.len(),
            ChangeKind::List { delta: ListDelta::Remove(_), .. } => 0,
        };
        self.changes.iter().map(|change| content(change) + size_of::<Change>()).sum()
    }
}

/// Every commit after `start`.
#[derive(Debug)]
pub struct Subscription {
    /// Where it begins.
    pub start: Position,
    commits: mpsc::UnboundedReceiver<(Arc<Commit>, usize)>,
    /// Bytes that wait for it.
    waiting: Arc<AtomicUsize>,
}

impl Subscription {
    /// The next commit. `None`: there may be a gap, since the subscriber lagged, a commit is in doubt, or the store closed; whoever
    /// listens must subscribe again and reset. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Arc<Commit>> {
        let (commit, bytes) = self.commits.recv().await?;
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        Some(commit)
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
    subscribers: Vec<Subscriber>,
}

struct Subscriber {
    commits: mpsc::UnboundedSender<(Arc<Commit>, usize)>,
    waiting: Arc<AtomicUsize>,
}

impl Subscriber {
    /// Whether it goes on: it does not when it is gone, or lags too far behind.
    fn send(&self, commit: &Arc<Commit>, bytes: usize) -> bool {
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > BACKLOG {
            tracing::warn!("a subscriber of the change stream lags too far behind and is cut off");
            return false;
        }
        self.commits.send((commit.clone(), bytes)).is_ok()
    }
}

impl Feed {
    pub fn new(head: Position) -> Self {
        let state = State { head, subscribers: Vec::new() };
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
        let mut state = self.state.lock();
        let state =
            state.as_mut().ok_or_else(|| Error::unavailable("the log's end is not known: a commit is in doubt"))?;
        state.subscribers.retain(|subscriber| !subscriber.commits.is_closed());
        let (sender, commits) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        state.subscribers.push(Subscriber { commits: sender, waiting: waiting.clone() });
        Ok(Subscription { start: state.head, commits, waiting })
    }

    /// Hands on a commit; before its writers are answered.
    pub fn publish(&self, commit: Commit) {
        let mut state = self.state.lock();
        if let (Some(state), Some(last)) = (state.as_mut(), commit.changes.last()) {
            state.head = last.position;
            let (bytes, commit) = (commit.bytes(), Arc::new(commit));
            state.subscribers.retain(|subscriber| subscriber.send(&commit, bytes));
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
            *state = Some(State { head, subscribers: Vec::new() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tao_model::{ObjectId, ShardId};

    #[tokio::test]
    async fn a_slow_subscriber_is_cut_off_and_others_are_not() {
        let start = Position::new(1, 0);
        let feed = Feed::new(start);
        let (mut slow, mut quick) = (feed.subscribe().unwrap(), feed.subscribe().unwrap());
        let object = Bytes::from(vec![0; 1024 * 1024]);
        for lsn in 0..70 {
            let position = start.plus(lsn + 1);
            let kind = ChangeKind::Object(ObjectId::new(1).unwrap(), Some(object.clone()));
            let changes = vec![Change { position, shard: ShardId(0), kind }];
            feed.publish(Commit { previous: start.plus(lsn), changes });
            assert_eq!(quick.next().await.unwrap().previous, start.plus(lsn));
        }
        let mut heard = 0;
        while let Some(commit) = slow.next().await {
            assert_eq!(commit.previous, start.plus(heard), "no gap before the end");
            heard += 1;
        }
        assert!((60..64).contains(&heard), "{heard}");
        let mut later = feed.subscribe().unwrap();
        assert_eq!(later.start, start.plus(70));
        feed.lose();
        assert!(later.next().await.is_none() && quick.next().await.is_none());
    }
}
