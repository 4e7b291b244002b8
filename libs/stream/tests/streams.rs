//! Streams over a ring and a history: gapless from wherever they begin, whatever the ring has forgotten.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use proptest::prelude::*;
use tao_model::{Error, Position, Result};
use tao_proto::internal::{self, subscribe_response::Event};
use tao_stream::{History, Origin, Piece, Ring, subscribe};

const EPOCH: u64 = 7;

fn at(lsn: u64) -> Position {
    Position::new(EPOCH, lsn)
}

fn piece(from: u64, to: u64) -> Piece {
    let change = |lsn| internal::Change { position: Some(at(lsn).into()), ..Default::default() };
    let changes = (from + 1..=to).map(change).collect();
    Piece::new(internal::Changes { previous: Some(at(from).into()), changes }).unwrap()
}

/// A log that keeps what is after `kept`.
#[derive(Default)]
struct Kept {
    log: Mutex<Vec<Piece>>,
    kept: Mutex<u64>,
}

#[async_trait]
impl History for Kept {
    async fn after(&self, position: Position) -> Result<Vec<Piece>> {
        if position.lsn < *self.kept.lock() {
            return Err(Error::ChangesExpired { after: position });
        }
        Ok(self.log.lock().iter().filter(|piece| piece.last > position).take(2).cloned().collect())
    }

    async fn back(&self, back: Duration) -> Result<Position> {
        Ok(at((*self.kept.lock()).max(back.as_millis() as u64)))
    }
}

struct World {
    ring: Ring,
    history: Arc<Kept>,
    end: u64,
}

impl World {
    fn new(ring_bytes: usize) -> Self {
        let ring = Ring::new(ring_bytes);
        ring.start(internal::Start { position: Some(at(0).into()), log: 3, ..Default::default() });
        Self { ring, history: Arc::default(), end: 0 }
    }

    fn commit(&mut self, changes: u64) {
        let piece = piece(self.end, self.end + changes);
        self.end += changes;
        self.history.log.lock().push(piece.clone());
        self.ring.push(piece).unwrap();
    }

    async fn subscribe(&self, origin: Origin) -> (Position, BoxStream<'static, Result<internal::SubscribeResponse>>) {
        let mut events = subscribe(&self.ring, self.history.clone(), origin).await.unwrap();
        match events.next().await.unwrap().unwrap().event.unwrap() {
            Event::Start(start) => (start.position.unwrap().into(), events),
            other => panic!("{other:?}"),
        }
    }
}

/// Reads changes until the stream has sent up to `to`; every message must follow the one before it.
async fn read_to(events: &mut BoxStream<'static, Result<internal::SubscribeResponse>>, from: Position, to: u64) {
    let mut reached = from;
    while reached.lsn < to {
        match events.next().await.unwrap().unwrap().event.unwrap() {
            Event::Changes(changes) => {
                assert_eq!(Position::from(changes.previous.unwrap()), reached);
                for change in changes.changes {
                    assert_eq!(Position::from(change.position.unwrap()), reached.plus(1));
                    reached = reached.plus(1);
                }
            }
            Event::Heartbeat(heartbeat) => assert_eq!(Position::from(heartbeat.position.unwrap()), reached),
            Event::Start(_) => panic!("a second start"),
        }
    }
    assert_eq!(reached.lsn, to);
}

async fn next_stamp(events: &mut BoxStream<'static, Result<internal::SubscribeResponse>>) -> (u64, u64) {
    match events.next().await.unwrap().unwrap().event.unwrap() {
        Event::Heartbeat(heartbeat) => (heartbeat.position.unwrap().lsn, heartbeat.time_ms),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_passed_on_once_everything_before_it_was_sent() {
    let mut world = World::new(1 << 20);
    let (start, mut events) = world.subscribe(Origin::Now).await;
    world.commit(3);
    world.ring.heartbeat(at(3), 1_000);
    // Of what is not in the ring, nothing can be said.
    world.ring.heartbeat(at(4), 2_000);
    read_to(&mut events, start, 3).await;
    assert_eq!(next_stamp(&mut events).await, (3, 1_000));
    // Silence says that the stream lives, and nothing of freshness.
    assert_eq!(next_stamp(&mut events).await, (3, 0));
    world.commit(1);
    world.ring.heartbeat(at(4), 3_000);
    read_to(&mut events, at(3), 4).await;
    assert_eq!(next_stamp(&mut events).await, (4, 3_000));
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_where_it_is_told_or_says_that_it_can_not() {
    let mut world = World::new(1_000);
    (0..40).for_each(|_| world.commit(2));
    *world.history.kept.lock() = 20;
    for (origin, start) in [
        (Origin::Now, 80),
        (Origin::After(at(79)), 79),
        (Origin::After(at(20)), 20),
        (Origin::After(at(21)), 21),
        (Origin::After(at(19)), 80),
        (Origin::After(Position::new(EPOCH - 1, 30)), 80),
        (Origin::Back(Duration::from_millis(50)), 50),
        (Origin::Back(Duration::ZERO), 20),
    ] {
        let (began, mut events) = world.subscribe(origin).await;
        assert_eq!(began, at(start), "{origin:?}");
        read_to(&mut events, began, 80).await;
    }
    // A leader may lag behind what a follower has seen elsewhere: nothing is sent twice.
    let (began, mut events) = world.subscribe(Origin::After(at(82))).await;
    assert_eq!(began, at(82));
    world.commit(5);
    read_to(&mut events, began, 85).await;
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_log_begins_anew() {
    let mut world = World::new(1 << 20);
    let (_, mut events) = world.subscribe(Origin::Now).await;
    world.ring.start(internal::Start { position: Some(Position::new(EPOCH + 1, 0).into()), ..Default::default() });
    assert!(events.next().await.unwrap().is_err() && events.next().await.is_none());
    world.ring.stop();
    assert!(subscribe(&world.ring, world.history.clone(), Origin::Now).await.is_err());
    assert!(world.ring.push(piece(0, 1)).is_err());
    world.end = 0;
}

#[tokio::test(start_paused = true)]
async fn a_slow_stream_costs_no_memory_and_is_known() {
    let mut world = World::new(2_000);
    let (start, mut events) = world.subscribe(Origin::Now).await;
    (0..500).for_each(|_| world.commit(1));
    assert_eq!(world.ring.slowest(), Some(start));
    read_to(&mut events, start, 500).await;
    assert_eq!(world.ring.slowest(), Some(at(500)));
    drop(events);
    assert_eq!(world.ring.slowest(), None);
    // What it needs is gone before it could read it.
    let (_, mut events) = world.subscribe(Origin::Now).await;
    (0..500).for_each(|_| world.commit(1));
    *world.history.kept.lock() = 900;
    assert!(matches!(events.next().await, Some(Err(Error::ChangesExpired { .. }))));
}

#[tokio::test]
async fn a_gap_is_refused_and_what_is_known_is_passed_over() {
    let mut world = World::new(1 << 20);
    world.commit(4);
    let gap = world.ring.push(piece(5, 6)).unwrap_err();
    assert_eq!((gap.end, gap.previous), (at(4), at(5)));
    world.ring.push(piece(1, 3)).unwrap();
    world.ring.push(piece(2, 6)).unwrap();
    assert_eq!(world.ring.end(), Some(at(6)));
    let (start, mut events) = world.subscribe(Origin::After(at(3))).await;
    read_to(&mut events, start, 6).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_stream_is_gapless(
        ring_bytes in 0usize..5_000,
        steps in prop::collection::vec((0u8..4, 1u64..6), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(ring_bytes);
            let mut streams = Vec::new();
            for (op, n) in steps {
                match op {
                    0 | 1 => world.commit(n),
                    2 => {
                        let from = at(world.end.saturating_sub(n * 7));
                        streams.push(world.subscribe(Origin::After(from)).await);
                    }
                    _ => if let Some((reached, events)) = streams.first_mut() {
                        let to = (reached.lsn + n).min(world.end);
                        // It may get more at once than is waited for: read all.
                        if to > reached.lsn {
                            read_to(events, *reached, world.end).await;
                            *reached = at(world.end);
                        }
                    },
                }
            }
            for (reached, mut events) in streams {
                read_to(&mut events, reached, world.end).await;
            }
        });
    }
}
