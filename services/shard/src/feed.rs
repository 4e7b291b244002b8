//! The beginning of the change stream: the store's commits, and heartbeats stamped here (DESIGN section 7).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tao_model::{Change, ChangeKind, Clock, ClusterInfo, ListDelta, Position, Result};
use tao_proto::internal::{self, subscribe_response::Event};
use tao_store::{Commit, Store, Subscription};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Well below the 500 ms that listeners may count on.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// Bytes that changes are joined up to in one message, and that a commit is split at.
const MAX_JOINED: usize = 1024 * 1024;

struct Feed {
    store: Arc<dyn Store>,
    subscription: Subscription,
    heartbeat: Interval,
    clock: Arc<dyn Clock>,
    /// What this stream has sent so far.
    position: Position,
    ready: VecDeque<Event>,
    /// Bytes of the last of `ready`.
    joined: usize,
}

/// A stream that starts at the log's present end. It ends when it can't go on without a gap.
pub fn stream(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
    let subscription = store.subscribe()?;
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let position = subscription.start;
    let ready = VecDeque::from([Event::Start(start(&store.info(), position))]);
    let feed = Feed { store, subscription, heartbeat, clock, position, ready, joined: 0 };
    let events = futures::stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok(internal::SubscribeResponse { event: Some(event) }), feed))
    });
    Ok(events.boxed())
}

/// The first event of a stream that starts at `position`.
fn start(info: &ClusterInfo, position: Position) -> internal::Start {
    let (time_bits, shard_bits, sequence_bits) = info.layout.bits();
    internal::Start {
        position: Some(position.into()),
        cluster: bytes::Bytes::copy_from_slice(&info.cluster.0),
        log: info.log.0,
        time_bits: u32::from(time_bits),
        shard_bits: u32::from(shard_bits),
        sequence_bits: u32::from(sequence_bits),
        shards: info.layout.shards(),
    }
}

impl Feed {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            tokio::select! {
                biased;
                commit = self.subscription.next() => self.take(&*commit?)?,
                _ = self.heartbeat.tick() => {
                    // The time is read before the commits are: what is committed later is not claimed.
                    let time_ms = self.clock.now_ms();
                    while let Some(commit) = self.subscription.next().now_or_never() {
                        self.take(&*commit?)?;
                    }
                    // Whoever may have lost the log to another vouches for nothing.
                    if !self.store.is_owner() {
                        return None;
                    }
                    let heartbeat = internal::Heartbeat { position: Some(self.position.into()), time_ms };
                    self.ready.push_back(Event::Heartbeat(heartbeat));
                }
            }
        }
    }

    /// Adds a commit to what is sent next; `None` when it doesn't follow what was sent before.
    fn take(&mut self, commit: &Commit) -> Option<()> {
        if commit.previous != self.position {
            return None;
        }
        for change in &commit.changes {
            let bytes = change_len(change);
            let encoded = internal::Change::from(change);
            match self.ready.back_mut() {
                Some(Event::Changes(last)) if self.joined + bytes <= MAX_JOINED => {
                    last.changes.push(encoded);
                    self.joined += bytes;
                }
                _ => {
                    let previous = Some(self.position.into());
                    self.ready.push_back(Event::Changes(internal::Changes { previous, changes: vec![encoded] }));
                    self.joined = bytes;
                }
            }
            self.position = change.position;
        }
        Some(())
    }
}

/// About how many bytes a change takes in a message.
fn change_len(change: &Change) -> usize {
    let content = match &change.kind {
        ChangeKind::Object(_, object) => object.as_ref().map_or(0, bytes::Bytes::len),
        ChangeKind::List { delta: ListDelta::Put(_, edge), .. } => edge.len(),
        ChangeKind::List { delta: ListDelta::Remove(_), .. } => 0,
    };
    content + 96
}
