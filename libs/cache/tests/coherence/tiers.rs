//! Leaders and followers, with the real caches and the real reading of streams, one of each for every log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::channel::mpsc;
use parking_lot::Mutex;
use tao_cache::stream::{Observer, follow};
use tao_cache::{Audit, CacheOptions, CachedReader, Entry, Fresh, MemoryCache, Mode, Read};
use tao_model::{Error, Key, Position, Result, SystemClock};
use tao_proto::internal::{self, subscribe_response::Event};

use crate::truth::{LOGS, Log};
use crate::wire::{Line, Node, ToRedis, Wire};

pub type Reader = Arc<CachedReader<Line, ToRedis>>;

/// Where a cache's stream comes from, and how far it has sent.
pub struct Stream {
    events: mpsc::UnboundedSender<Result<internal::SubscribeResponse>>,
    follow: Pin<Box<dyn Future<Output = Error>>>,
    pub cursor: Position,
    /// Of a follower's, the leader and how often it had been reset by then.
    pub source: (usize, u64),
}

/// A tier's caches of one log.
pub struct Cache {
    pub reader: Reader,
    pub stream: Option<Stream>,
    /// Of a leader, between what positions it can send to followers.
    pub kept: (Position, Position),
    /// How often it was reset.
    resets: Resets,
}

#[derive(Clone, Default)]
struct Resets(Arc<AtomicU64>);

impl Observer for Resets {
    fn started(&self, _: &internal::Start, resumed: bool) {
        self.0.fetch_add(u64::from(!resumed), Ordering::Relaxed);
    }
    fn applied(&self, _: internal::SubscribeResponse) -> tao_model::Result<()> {
        Ok(())
    }
}

/// Small memories, so that keys share buckets.
fn memory() -> MemoryCache {
    let options = CacheOptions { capacity_bytes: 1 << 16, clock: Arc::new(SystemClock), tier: "test", log: 0 };
    MemoryCache::with_memory(options, 2, 2)
}

pub fn caches(node: Node, wire: &Arc<Mutex<Wire>>) -> Vec<Cache> {
    let cache = |log| {
        let line = Line { wire: wire.clone(), from: node, log };
        let redis = match node {
            Node::Leader(_) => None,
            Node::Follower(from) => Some(ToRedis { wire: wire.clone(), from }),
        };
        let reader = Arc::new(CachedReader::over(memory(), redis, line));
        Cache { reader, stream: None, kept: (Position::ZERO, Position::ZERO), resets: Resets::default() }
    };
    (0..LOGS).map(cache).collect()
}

impl Cache {
    pub fn memory(&self) -> &MemoryCache {
        self.reader.memory()
    }

    /// A stream that begins after a position.
    pub fn subscribe(&mut self, at: Position, source: (usize, u64)) {
        self.end();
        let (events, receiver) = mpsc::unbounded();
        let (reader, resets, before) = (self.reader.clone(), self.resets.clone(), self.resets());
        let follow = async move { follow(reader.memory(), receiver, &resets, |_| Ok(())).await };
        self.stream = Some(Stream { events, follow: Box::pin(follow), cursor: at, source });
        let start = internal::Start {
            position: Some(at.into()),
            cluster: vec![7; 16].into(),
            log: 0,
            time_bits: 42,
            shard_bits: 10,
            sequence_bits: 12,
            shards: 1024,
        };
        self.hear(Event::Start(start));
        if self.resets() > before {
            self.kept = (at, at);
        }
    }

    /// How often it was reset.
    pub fn resets(&self) -> u64 {
        self.resets.0.load(Ordering::Relaxed)
    }

    /// The stream carries an event; says whether it went on.
    fn hear(&mut self, event: Event) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        // Never full; its reader goes only with it.
        let _ = stream.events.unbounded_send(Ok(internal::SubscribeResponse { event: Some(event) }));
        if (&mut stream.follow).now_or_never().is_some() {
            self.stream = None;
        }
        self.stream.is_some()
    }

    /// The stream carries the next `n` changes up to a position, or a heartbeat when there are none. `lost`: they don't arrive.
    pub fn carry(&mut self, log: &Log, until: Position, n: usize, lost: bool) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let previous = stream.cursor;
        let changes = log.between(previous, until);
        // At the end of a commit: one position for all of its changes is one piece.
        let mut n = n.min(changes.len());
        while n > 0 && changes.get(n).is_some_and(|next| next.position == changes[n - 1].position) {
            n += 1;
        }
        let changes = &changes[..n];
        let Some(last) = changes.last().map(|change| change.position) else {
            let position = Some(previous.into());
            return self.hear(Event::Heartbeat(internal::Heartbeat { position, time_ms: 1 }));
        };
        stream.cursor = last;
        if lost {
            return true;
        }
        let changes = changes.iter().map(Into::into).collect();
        let carried = self.hear(Event::Changes(internal::Changes { previous: Some(previous.into()), changes }));
        if carried {
            self.kept.1 = self.kept.1.max(last);
        }
        carried
    }

    /// The stream ends.
    pub fn end(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            stream.events.close_channel();
            assert!((&mut stream.follow).now_or_never().is_some(), "a stream that ended is still followed");
        }
    }

    /// Compares what is cached with what is stored.
    pub fn audit(&self, key: Key) -> Auditing {
        let reader = self.reader.clone();
        Box::pin(async move { reader.audit(key, ()).await })
    }

    /// A read through the caches.
    pub fn read(&self, key: Key, newest: usize, floor: Position, mode: Mode) -> Reading {
        let reader = self.reader.clone();
        let read = Read { floor, mode, context: () };
        Box::pin(async move {
            match key {
                Key::Object(id) => {
                    reader.object(id, read).await.map(|f| Fresh { as_of: f.as_of, value: Entry::Object(f.value) })
                }
                Key::List(id1, atype) => reader
                    .list(id1, atype, newest, read)
                    .await
                    .map(|f| Fresh { as_of: f.as_of, value: Entry::List(f.value) }),
            }
        })
    }
}

/// An audit under way.
pub type Auditing = Pin<Box<dyn Future<Output = Result<Audit>>>>;

pub type Reading = Pin<Box<dyn Future<Output = Result<Fresh<Entry>>>>>;
