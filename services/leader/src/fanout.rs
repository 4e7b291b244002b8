//! Hands the storage shard's stream on to followers. A follower's stream starts at what this leader has applied, carries every
//! change after it, and ends as soon as it can't: when the follower is too slow, or when the leader's own stream breaks.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tao_cache::stream::Observer;
use tao_model::{Error, Result};
use tao_proto::internal::{self, subscribe_response::Event};
use tokio::sync::broadcast;

/// Events that a follower may lag behind before it is cut off.
const BACKLOG: usize = 4096;

/// The followers that listen.
#[derive(Clone, Default)]
pub struct Fanout {
    live: Arc<Mutex<Option<Live>>>,
}

struct Live {
    /// What a stream that began now would start with.
    start: internal::Start,
    events: broadcast::Sender<Arc<internal::SubscribeResponse>>,
}

impl Fanout {
    /// A follower's stream.
    pub fn subscribe(&self) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
        let live = self.live.lock();
        let Some(live) = live.as_ref() else {
            return Err(Error::unavailable("the leader has no change stream from its storage shard yet"));
        };
        let start = internal::SubscribeResponse { event: Some(Event::Start(live.start.clone())) };
        let receiver = live.events.subscribe();
        let events = futures::stream::unfold(receiver, |mut receiver| async move {
            // Lagged or closed: both end the stream.
            let event = receiver.recv().await.ok()?;
            Some((Ok((*event).clone()), receiver))
        });
        Ok(futures::stream::once(async { Ok(start) }).chain(events).boxed())
    }
}

impl Observer for Fanout {
    fn started(&self, start: &internal::Start, _: bool) {
        let events = broadcast::Sender::new(BACKLOG);
        *self.live.lock() = Some(Live { start: start.clone(), events });
    }

    fn applied(&self, event: internal::SubscribeResponse) {
        let mut live = self.live.lock();
        let Some(live) = live.as_mut() else { return };
        if let Some(Event::Changes(changes)) = &event.event {
            live.start.position = changes.changes.last().and_then(|c| c.position).or(live.start.position);
        }
        // Nobody listening is no error.
        let _ = live.events.send(Arc::new(event));
    }

    fn ended(&self) {
        *self.live.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(lsn: u64) -> Option<internal::Position> {
        Some(internal::Position { epoch: 1, lsn })
    }

    fn changes(lsn: u64) -> internal::SubscribeResponse {
        let change = internal::Change { position: position(lsn), ..Default::default() };
        let changes = internal::Changes { previous: position(lsn - 1), changes: vec![change] };
        internal::SubscribeResponse { event: Some(Event::Changes(changes)) }
    }

    #[tokio::test]
    async fn streams_start_where_the_leader_is_and_end_with_its_own() {
        let fanout = Fanout::default();
        assert!(fanout.subscribe().is_err());
        fanout.started(&internal::Start { position: position(4), ..Default::default() }, false);
        fanout.applied(changes(5));
        let mut stream = fanout.subscribe().unwrap();
        fanout.applied(changes(6));
        fanout.ended();
        let Some(Ok(internal::SubscribeResponse { event: Some(Event::Start(start)) })) = stream.next().await else {
            panic!("no start")
        };
        assert_eq!(start.position, position(5));
        assert_eq!(stream.next().await.unwrap().unwrap(), changes(6));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_follower_that_lags_is_cut_off() {
        let fanout = Fanout::default();
        fanout.started(&internal::Start { position: position(0), ..Default::default() }, false);
        let mut stream = fanout.subscribe().unwrap();
        assert!(stream.next().await.is_some());
        (1..=BACKLOG as u64 + 2).for_each(|lsn| fanout.applied(changes(lsn)));
        assert!(stream.next().await.is_none());
    }
}
