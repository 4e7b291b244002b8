//! A subscriber, for tests.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use tao_model::{Change, Error, Position, Result};
use tao_proto::internal::subscribe_response::Event;
use tao_proto::{convert, internal};
use tao_stream::{Origin, subscribe};

use crate::store::Store;

/// Listens to a store's stream, and panics when that has a gap.
pub struct Listener {
    stream: BoxStream<'static, Result<internal::SubscribeResponse>>,
    /// What the stream has carried so far.
    pub position: Position,
}

impl Listener {
    /// Subscribes.
    pub async fn open(store: &Arc<dyn Store>, origin: Origin) -> Result<Self> {
        let mut stream = subscribe(store.ring(), store.clone(), origin).await?;
        match stream.next().await.transpose()?.and_then(|first| first.event) {
            Some(Event::Start(start)) => {
                let position = start.position.map(Position::from).expect("a start has a position");
                Ok(Self { stream, position })
            }
            other => panic!("a stream that does not begin with its start: {other:?}"),
        }
    }

    async fn event(&mut self) -> Result<Event> {
        let ended = || Error::unavailable("the stream ended");
        self.stream.next().await.ok_or_else(ended)??.event.ok_or_else(ended)
    }

    /// The next changes; an error when the stream ends.
    pub async fn changes(&mut self) -> Result<Vec<Change>> {
        loop {
            if let Event::Changes(message) = self.event().await? {
                assert_eq!(message.previous.map(Position::from), Some(self.position), "a gap");
                let changes = convert::changes(message.changes)?;
                for change in &changes {
                    assert_eq!(change.position, self.position.plus(1), "a gap");
                    self.position = change.position;
                }
                return Ok(changes);
            }
        }
    }

    /// All changes up to a position.
    pub async fn up_to(&mut self, position: Position) -> Result<Vec<Change>> {
        let mut all = Vec::new();
        while self.position < position {
            all.extend(self.changes().await?);
        }
        Ok(all)
    }

    /// The time of the next heartbeat that the store has made for all that is known here, in milliseconds since 1970.
    pub async fn heartbeat(&mut self) -> Result<u64> {
        loop {
            match self.event().await? {
                Event::Heartbeat(heartbeat) if heartbeat.time_ms > 0 => {
                    assert_eq!(heartbeat.position.map(Position::from), Some(self.position));
                    return Ok(heartbeat.time_ms);
                }
                Event::Heartbeat(_) | Event::Start(_) => {}
                Event::Changes(message) => self.position = self.position.plus(message.changes.len() as u64),
            }
        }
    }
}
