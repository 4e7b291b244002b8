//! What is on its way between tiers: questions, answers, and what a Redis is asked and told. Everything waits here until a step of the
//! history delivers it, or loses it.

use std::collections::HashMap;
use std::sync::Arc;

use futures::channel::oneshot;
use parking_lot::Mutex;
use tao_cache::{Entry, Fresh, Mode, SharedCache, Upstream};
use tao_model::{ClusterId, Error, Key, ObjectId, Position, Result, TypeId};
use tao_proto::internal::{call::Op, reply::Result as ReplyBody};
use tokio::time::{Duration, Instant};

pub type Answer = Result<Fresh<ReplyBody>>;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    Leader(usize),
    Follower(usize),
}

/// A question to the next tier.
pub struct Ask {
    pub from: Node,
    pub log: usize,
    pub key: Key,
    pub newest: usize,
    pub floor: Position,
    pub mode: Mode,
    pub reply: oneshot::Sender<Answer>,
}

/// What a follower tells Redis.
pub enum Told {
    Set(Key, Position, Entry),
    Raise(Key, Position, Position),
}

/// A value that Redis answered with.
pub struct Found {
    pub to: usize,
    pub value: Option<(Position, Entry)>,
    pub reply: oneshot::Sender<Option<(Position, Entry)>>,
}

#[derive(Default)]
pub struct Wire {
    pub asks: Vec<Ask>,
    /// With whom it is for.
    pub answers: Vec<(Node, oneshot::Sender<Answer>, Answer)>,
    pub found: Vec<Found>,
    pub told: Vec<Told>,
    pub redis: HashMap<Key, (Position, Entry)>,
    /// What Redis once held, and may bring back.
    pub old: Vec<(Key, Position, Entry)>,
}

impl Wire {
    /// What the scripts of a Redis do: a value only over one of a smaller position, a raise only of the value that was validated.
    pub fn do_told(&mut self, told: Told) {
        match told {
            Told::Set(key, as_of, entry) => {
                if self.redis.get(&key).is_none_or(|(there, _)| *there < as_of)
                    && let Some((there, old)) = self.redis.insert(key, (as_of, entry))
                {
                    self.old.push((key, there, old));
                }
            }
            Told::Raise(key, from, to) => {
                if let Some((there, _)) = self.redis.get_mut(&key).filter(|(there, _)| *there == from) {
                    *there = to;
                }
            }
        }
    }
}

/// A way to the next tier.
pub struct Line {
    pub wire: Arc<Mutex<Wire>>,
    pub from: Node,
    pub log: usize,
}

impl Upstream for Line {
    type Context = ();

    fn deadline((): &()) -> Instant {
        Instant::now() + Duration::from_secs(1_000_000)
    }

    async fn read(&self, _: ObjectId, op: Op, floor: Position, mode: Mode, (): &()) -> Answer {
        let (key, newest) = match op {
            Op::ObjectRead(ask) => (Key::Object(ObjectId::new(ask.id).expect("an id")), 0),
            Op::ListRead(ask) => {
                (Key::List(ObjectId::new(ask.id1).expect("an id"), TypeId(ask.atype)), ask.newest as usize)
            }
            _ => unreachable!("caches read objects and lists"),
        };
        let (reply, answer) = oneshot::channel();
        let (from, log) = (self.from, self.log);
        self.wire.lock().asks.push(Ask { from, log, key, newest, floor, mode, reply });
        answer.await.unwrap_or_else(|_| Err(Error::unavailable("lost")))
    }
}

/// A follower's way to Redis.
pub struct ToRedis {
    pub wire: Arc<Mutex<Wire>>,
    pub from: usize,
}

impl SharedCache for ToRedis {
    fn meet(&self, _: ClusterId) {}

    async fn get(&self, key: Key) -> Option<(Position, Entry)> {
        let (reply, answer) = oneshot::channel();
        {
            let mut wire = self.wire.lock();
            let value = wire.redis.get(&key).cloned();
            wire.found.push(Found { to: self.from, value, reply });
        }
        answer.await.ok().flatten()
    }

    fn set(&self, key: Key, as_of: Position, entry: &Entry) {
        self.wire.lock().told.push(Told::Set(key, as_of, entry.clone()));
    }

    fn raise(&self, key: Key, from: Position, to: Position) {
        if from < to {
            self.wire.lock().told.push(Told::Raise(key, from, to));
        }
    }
}
