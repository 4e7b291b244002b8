//! One subscriber's way through the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tao_model::{Error, Position, Result};
use tao_proto::internal::{self, subscribe_response::Event};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::piece::{MAX_PIECE, Piece};
use crate::ring::{Registration, Ring, Stamp};

/// A stream that has nothing to say for so long says that it lives. More than twice as long as between heartbeats.
const SILENCE: Duration = Duration::from_millis(500);

/// What the ring does not reach back to.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Consecutive changes from right after a position, about a mebibyte at the most; empty at the log's end.
    /// [`Error::ChangesExpired`] when they are not kept any more.
    async fn after(&self, position: Position) -> Result<Vec<Piece>>;
    /// The oldest position of the present epoch that is kept and at most so old.
    async fn back(&self, back: Duration) -> Result<Position>;
}

/// Where a stream is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// At the log's present end.
    Now,
    /// So long ago, or as far back as changes are kept.
    Back(Duration),
    /// After a position that the subscriber has seen; as `Now` when what follows it is not kept, or is of another epoch.
    After(Position),
}

impl From<&internal::SubscribeRequest> for Origin {
    fn from(request: &internal::SubscribeRequest) -> Self {
        use internal::subscribe_request::From;
        match request.from {
            None => Self::Now,
            Some(From::Resume(position)) => Self::After(position.into()),
            Some(From::BackMs(ms)) => Self::Back(Duration::from_millis(ms)),
        }
    }
}

/// A stream of the ring's log: its start, then changes without a gap, and heartbeats. It ends with an error when it can't go on.
pub async fn subscribe(
    ring: &Ring,
    history: Arc<dyn History>,
    origin: Origin,
) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
    let changed = ring.changes();
    let (start, generation) = ring.read(|state| (state.start.clone(), state.generation));
    let mut start = start.ok_or_else(no_stream)?;
    let (position, ready) = begin(ring, &*history, origin).await?;
    start.position = Some(position.into());
    let cursor = Cursor {
        registration: ring.register(position),
        ring: ring.clone(),
        history,
        changed,
        generation,
        position,
        ready,
        sent: Stamp::default(),
    };
    let start = internal::SubscribeResponse { event: Some(Event::Start(start)) };
    let events = futures::stream::unfold(Some(cursor), |cursor| async {
        let mut cursor = cursor?;
        match cursor.next().await {
            Ok(event) => Some((Ok(internal::SubscribeResponse { event: Some(event) }), Some(cursor))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(futures::stream::once(async { Ok(start) }).chain(events).boxed())
}

fn no_stream() -> Error {
    Error::unavailable("this server does not know the log's end yet")
}

/// Where the stream begins, and what is known to come first.
async fn begin(ring: &Ring, history: &dyn History, origin: Origin) -> Result<(Position, VecDeque<Piece>)> {
    let now = || ring.end().map(|end| (end, VecDeque::new())).ok_or_else(no_stream);
    let wanted = match origin {
        Origin::Now => return now(),
        Origin::After(position) => position,
        Origin::Back(back) => match history.back(back).await {
            Ok(position) => position,
            Err(error) => {
                tracing::warn!(%error, "can't look back: the stream begins at the present");
                return now();
            }
        },
    };
    let end = ring.end().ok_or_else(no_stream)?;
    if wanted.epoch != end.epoch {
        return now();
    }
    if !ring.read(|state| state.is_behind(wanted)) {
        return Ok((wanted, VecDeque::new()));
    }
    match history.after(wanted).await {
        Ok(pieces) => Ok((wanted, pieces.into())),
        Err(Error::ChangesExpired { .. }) => now(),
        Err(error) => Err(error),
    }
}

struct Cursor {
    ring: Ring,
    history: Arc<dyn History>,
    changed: watch::Receiver<u64>,
    registration: Registration,
    generation: u64,
    /// What has been sent so far.
    position: Position,
    /// Read from history, to be sent next.
    ready: VecDeque<Piece>,
    /// The heartbeat that was sent last.
    sent: Stamp,
}

/// What the ring has for a cursor.
enum Found {
    Changes(internal::Changes),
    Stamp(Stamp),
    Behind,
    Nothing,
}

impl Cursor {
    async fn next(&mut self) -> Result<Event> {
        loop {
            self.changed.mark_unchanged();
            if let Some(piece) = self.ready.pop_front() {
                if piece.last <= self.position {
                    continue;
                }
                if piece.previous > self.position {
                    return Err(Error::Internal { what: "the log's history has a gap".to_owned() });
                }
                return Ok(self.send(piece.after(self.position).to_vec()));
            }
            match self.look()? {
                Found::Changes(changes) => return Ok(self.send(changes.changes)),
                Found::Stamp(stamp) => {
                    self.sent = stamp;
                    return Ok(self.heartbeat(stamp.time_ms));
                }
                Found::Behind => {
                    metrics::counter!("tao_stream_history_reads_total").increment(1);
                    self.ready = self.history.after(self.position).await?.into();
                    if self.ready.is_empty() && self.ring.read(|state| state.is_behind(self.position)) {
                        return Err(Error::ChangesExpired { after: self.position });
                    }
                }
                Found::Nothing => {
                    // Its sender lives as long as the ring, of which this cursor has a part.
                    if timeout(SILENCE, self.changed.changed()).await.is_err() {
                        return Ok(self.heartbeat(0));
                    }
                }
            }
        }
    }

    fn heartbeat(&self, time_ms: u64) -> Event {
        Event::Heartbeat(internal::Heartbeat { position: Some(self.position.into()), time_ms })
    }

    fn look(&self) -> Result<Found> {
        self.ring.read(|state| {
            if state.generation != self.generation {
                return Err(Error::unavailable("the log's stream begins anew"));
            }
            if state.is_behind(self.position) {
                return Ok(Found::Behind);
            }
            let mut bytes = 0;
            let mut changes = Vec::new();
            let mut reached = self.position;
            while let Some(piece) = state.piece_after(reached)
                && (changes.is_empty() || bytes + piece.bytes <= MAX_PIECE)
            {
                changes.extend_from_slice(piece.after(reached));
                bytes += piece.bytes;
                reached = piece.last;
            }
            Ok(if !changes.is_empty() {
                Found::Changes(internal::Changes { previous: Some(self.position.into()), changes })
            } else if state.stamp.time_ms > self.sent.time_ms && state.stamp.head <= self.position {
                Found::Stamp(state.stamp)
            } else {
                Found::Nothing
            })
        })
    }

    fn send(&mut self, changes: Vec<internal::Change>) -> Event {
        let previous = Some(self.position.into());
        self.position = self.position.plus(changes.len() as u64);
        self.registration.reached(self.position);
        Event::Changes(internal::Changes { previous, changes })
    }
}
