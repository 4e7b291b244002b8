//! Reading through: memory, then Redis, then the next tier; with single flight, and the floors of rule 2 at every step.

use std::sync::Arc;

use bytes::Bytes;
use tao_model::limits::MAX_LIMIT;
use tao_model::mutation::{Rule, is_off};
use tao_model::{Change, ChangeKind, ClusterId, Error, Key, ObjectId, Position, Result, TypeId};
use tao_proto::internal::{self, call::Op, reply::Result as ReplyBody};
use tao_trace::{FOUND_IN, Kind, Span, TraceContext};
use tokio::time::{Instant, timeout_at};

use crate::counts::Level;
use crate::entry::{Entry, Fresh, Mode, Value};
use crate::flight::{Flights, Need};
use crate::list::CachedList;
use crate::memory::{Lookup, MemoryCache};
use crate::redis::{RedisCache, SharedCache};

/// Edges that are fetched with a list at the least, so that its next readers find them.
pub const MIN_FETCHED: usize = 64;

/// Bytes of a list that is written to Redis with every write of it: a longer one is written often, too, and costs more than its next
/// reader saves.
const MAX_REFRESHED: usize = 4 * 1024;

/// The next tier.
pub trait Upstream: Send + Sync + 'static {
    /// What a call carries beside its floor.
    type Context: Clone + Send + Sync + 'static;

    /// Until when a caller waits.
    fn deadline(context: &Self::Context) -> Instant;

    /// The span that a caller has.
    fn trace(_: &Self::Context) -> TraceContext {
        TraceContext::NONE
    }

    /// The same caller, within a span of its own.
    fn traced(context: &Self::Context, _: TraceContext) -> Self::Context {
        context.clone()
    }

    /// A read of `owner`'s shard, answered at or above `floor`: the answer, and the freshness that the tier vouches for.
    fn read(
        &self,
        owner: ObjectId,
        op: Op,
        floor: Position,
        mode: Mode,
        context: &Self::Context,
    ) -> impl Future<Output = Result<Fresh<ReplyBody>>> + Send;
}

/// How a key is read.
#[derive(Debug, Clone)]
pub struct Read<C> {
    /// The answer is at or above it.
    pub floor: Position,
    /// Which answers will do.
    pub mode: Mode,
    /// For the next tier.
    pub context: C,
}

/// A tier's caches, and the tier behind them.
pub struct CachedReader<U, R = RedisCache> {
    shared: Arc<Shared<U, R>>,
    flights: Flights,
}

struct Shared<U, R> {
    memory: MemoryCache,
    redis: Option<R>,
    redis_counts: Level,
    upstream: U,
}

impl<U: Upstream> CachedReader<U> {
    /// Over these caches.
    pub fn new(memory: MemoryCache, redis: Option<RedisCache>, upstream: U) -> Self {
        Self::over(memory, redis, upstream)
    }
}

impl<U: Upstream, R: SharedCache> CachedReader<U, R> {
    /// Over these caches, the second of which need not be Redis.
    pub fn over(memory: MemoryCache, redis: Option<R>, upstream: U) -> Self {
        let redis_counts = Level::new(memory.tier(), "redis");
        Self { shared: Arc::new(Shared { memory, redis, redis_counts, upstream }), flights: Flights::default() }
    }

    /// The cache in memory.
    pub fn memory(&self) -> &MemoryCache {
        &self.shared.memory
    }

    pub(crate) fn upstream(&self) -> &U {
        &self.shared.upstream
    }

    /// Tells Redis whose values are to be read and written: none before.
    pub fn meet(&self, cluster: ClusterId) {
        if let Some(redis) = &self.shared.redis {
            redis.meet(cluster);
        }
    }

    /// Rule 9: a write's changeset, before its caller is answered.
    pub fn apply_write(&self, changes: &[Change]) {
        if is_off(Rule::AnswerApplied) {
            return;
        }
        changes.iter().for_each(|change| self.shared.memory.apply(change));
        if let Some(redis) = &self.shared.redis {
            changes.iter().for_each(|change| self.shared.refresh(redis, change));
        }
        if is_off(Rule::AnswerClaimsNothing)
            && let Some(last) = changes.last()
        {
            self.shared.memory.claim(last.position);
        }
    }

    /// A hit in memory, looked at where it lies: nothing is cloned, nothing waits. `None`: not there, not fresh enough, or the mode
    /// goes past caches; then ask [`CachedReader::object`]. Counts hits, not misses.
    pub fn peek_object<T>(
        &self,
        id: ObjectId,
        floor: Position,
        mode: Mode,
        see: impl FnOnce(Option<&[u8]>, Position) -> T,
    ) -> Option<T> {
        let seen = self.peek(&Key::Object(id), 0, floor, mode, |value, as_of| match value {
            Value::Absent => Some(see(None, as_of)),
            Value::Object(object) => Some(see(Some(object), as_of)),
            Value::List(_) => None,
        });
        seen.flatten()
    }

    /// The same of a list with at least `newest` of its edges (0: the count alone), unless it is complete or full.
    pub fn peek_list<T>(
        &self,
        id1: ObjectId,
        atype: TypeId,
        newest: usize,
        floor: Position,
        mode: Mode,
        see: impl FnOnce(&CachedList, Position) -> T,
    ) -> Option<T> {
        let seen = self.peek(&Key::List(id1, atype), newest.min(MAX_LIMIT), floor, mode, |value, as_of| match value {
            Value::List(list) => Some(see(list, as_of)),
            Value::Absent | Value::Object(_) => None,
        });
        seen.flatten()
    }

    fn peek<T>(
        &self,
        key: &Key,
        newest: usize,
        floor: Position,
        mode: Mode,
        see: impl FnOnce(&Value, Position) -> T,
    ) -> Option<T> {
        let staleness_ms = match mode {
            Mode::Cached => None,
            Mode::MaxStaleness(ms) => Some(ms),
            Mode::Strong => return None,
        };
        let memory = &self.shared.memory;
        memory.see(key, newest, floor, staleness_ms, |value, as_of| {
            memory.reads().hit(key);
            see(value, as_of)
        })
    }

    /// An object's encoded state.
    pub async fn object(&self, id: ObjectId, read: Read<U::Context>) -> Result<Fresh<Option<Bytes>>> {
        let Fresh { as_of, value } = self.read(Key::Object(id), 0, read).await?;
        match value {
            Entry::Object(value) => Ok(Fresh { as_of, value }),
            Entry::List(_) => Err(mixed_up()),
        }
    }

    /// A list with at least `newest` of its edges (0: the count alone), unless it is complete or full.
    pub async fn list(
        &self,
        id1: ObjectId,
        atype: TypeId,
        newest: usize,
        read: Read<U::Context>,
    ) -> Result<Fresh<Arc<CachedList>>> {
        let Fresh { as_of, value } = self.read(Key::List(id1, atype), newest.min(MAX_LIMIT), read).await?;
        match value {
            Entry::List(value) => Ok(Fresh { as_of, value }),
            Entry::Object(_) => Err(mixed_up()),
        }
    }

    async fn read(&self, key: Key, newest: usize, read: Read<U::Context>) -> Result<Fresh<Entry>> {
        let memory = &self.shared.memory;
        let span = U::trace(&read.context)
            .span(if let Key::Object(_) = key { "cache object" } else { "cache list" }, Kind::Internal);
        let (goes_past, staleness_ms) = match read.mode {
            Mode::Cached => (false, None),
            Mode::MaxStaleness(ms) => (!memory.is_within(ms), Some(ms)),
            Mode::Strong => (true, None),
        };
        let floor = if goes_past {
            memory.floor(&key, read.floor)
        } else {
            match memory.lookup_within(&key, newest, read.floor, staleness_ms) {
                Lookup::Hit(value, as_of) => {
                    memory.reads().hit(&key);
                    span.set(FOUND_IN, "memory");
                    return Ok(Fresh { as_of, value });
                }
                Lookup::Miss(floor) => floor,
            }
        };
        memory.reads().missed(&key);
        let fetched = if newest == 0 { 0 } else { newest.next_power_of_two().clamp(MIN_FETCHED, MAX_LIMIT) };
        let need = Need { floor, newest: fetched, staleness_ms };
        let deadline = U::deadline(&read.context);
        let start = || {
            let shared = self.shared.clone();
            let ask = Read { floor, mode: read.mode, context: U::traced(&read.context, span.context()) };
            let span = span.clone();
            async move { shared.fetch(key, fetched, goes_past, ask, span).await }
        };
        // A flight that began earlier may have read before what this caller must see, which no floor tells here.
        let answer = async { if goes_past { start().await } else { self.flights.fly(key, need, start).await } };
        let answer = timeout_at(deadline, answer).await.unwrap_or(Err(Error::DeadlineExceeded { not_applied: true }));
        answer.map_err(|error| match error {
            // Of what this cache remembers, not of what the caller has seen: its stream is about to begin the new epoch.
            Error::HistoryUndone { epoch, .. } if read.floor == Position::ZERO || read.floor.epoch >= epoch => {
                Error::unavailable("the log goes on in a new epoch, of which this server is about to hear")
            }
            other => other,
        })
    }
}

/// What the next tier is asked for a key.
pub(crate) fn question(key: Key, newest: usize) -> Op {
    match key {
        Key::Object(id) => Op::ObjectRead(internal::ObjectRead { id: id.get() }),
        Key::List(id1, atype) => {
            Op::ListRead(internal::ListRead { id1: id1.get(), atype: atype.0, newest: newest as u32 })
        }
    }
}

/// What the next tier's answer says of a key.
pub(crate) fn answer(key: Key, reply: ReplyBody) -> Result<Entry> {
    match (key, reply) {
        (Key::Object(_), ReplyBody::Object(state)) => Ok(Entry::Object(state.object)),
        (Key::List(..), ReplyBody::List(state)) => CachedList::from_encoded(state.count, &state.edges)
            .map(|list| Entry::List(Arc::new(list)))
            .ok_or_else(mixed_up),
        _ => Err(mixed_up()),
    }
}

/// A value that is not of its key's kind, or can't be read.
fn mixed_up() -> Error {
    Error::Internal { what: "an answer or a cached value is not of its key's kind".to_owned() }
}

impl<U: Upstream, R: SharedCache> Shared<U, R> {
    /// What was written here is written to Redis, too: what it has is of no use any more, and nobody who holds the key in memory
    /// would ever replace it. One follower does it, the one that has the write's answer.
    fn refresh(&self, redis: &R, change: &Change) {
        let key = change.key();
        match &change.kind {
            ChangeKind::Object(_, object) => redis.set(key, change.position, &Entry::Object(object.clone())),
            ChangeKind::List { .. } => {
                if let Some((as_of, entry)) = self.memory.kept(&key).filter(|(_, e)| e.bytes() <= MAX_REFRESHED) {
                    redis.set(key, as_of, &entry);
                }
            }
        }
    }

    async fn fetch(
        &self,
        key: Key,
        newest: usize,
        goes_past: bool,
        ask: Read<U::Context>,
        span: Span,
    ) -> Result<Fresh<Entry>> {
        let Read { floor, mode, context } = ask;
        if !goes_past && let Some(found) = self.look_into_redis(key, newest, floor, mode, span.context()).await {
            span.set(FOUND_IN, "redis");
            return Ok(found);
        }
        span.set(FOUND_IN, "none");
        let reply = self.upstream.read(key.owner(), question(key, newest), floor, mode, &context).await?;
        let (as_of, value) = (reply.as_of, answer(key, reply.value)?);
        if as_of < floor {
            return Err(Error::unavailable(format!("the tier behind has seen {as_of}, and {floor} is asked for")));
        }
        // Refused or not, the value meets the floor that this request had when it came.
        let fresh = self.memory.fill(key, as_of, &value);
        if let (Some(fresh), Some(redis)) = (fresh, &self.redis) {
            redis.set(key, fresh, &value);
        }
        Ok(Fresh { as_of: fresh.unwrap_or(as_of), value })
    }

    /// Rule 8: a value of Redis is believed only under rule 4, tested after it arrived.
    async fn look_into_redis(
        &self,
        key: Key,
        newest: usize,
        floor: Position,
        mode: Mode,
        trace: TraceContext,
    ) -> Option<Fresh<Entry>> {
        let redis = self.redis.as_ref()?;
        let counts = self.redis_counts.of(&key);
        let span = trace.span("GET", Kind::Client);
        span.set("db.system.name", "redis");
        let got = redis.get(key).await;
        span.set("tao.found", got.is_some());
        drop(span);
        let Some((stored, entry)) = got else {
            counts.misses.increment(1);
            return None;
        };
        // Before the test: all that came before the newest heartbeat is remembered by then.
        if is_off(Rule::RaiseTested) {
            redis.raise(key, stored, stored.max(self.memory.applied().unwrap_or_default()));
        }
        let is_heard = if let Mode::MaxStaleness(ms) = mode { self.memory.is_within(ms) } else { true };
        if is_heard
            && entry.covers(newest)
            && let Some(fresh) = self.memory.fill_stored(key, stored, &entry)
        {
            redis.raise(key, stored, fresh);
            if fresh >= floor {
                counts.hits.increment(1);
                return Some(Fresh { as_of: fresh, value: entry });
            }
        }
        counts.misses.increment(1);
        None
    }
}
