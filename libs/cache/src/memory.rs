//! The cache of one log's stream, in memory: rules 1 to 7 of docs/consistency.md.

use std::hash::BuildHasher as _;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use crossbeam_utils::atomic::AtomicCell;
use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tao_model::limits::MAX_ANSWER;
use tao_model::mutation::{Rule, is_off};
use tao_model::{Change, ChangeKind, Clock, Key, Position};
use tokio::sync::Notify;

use crate::counts::StreamCounts;
use crate::entry::Entry;
use crate::sample::Pool;

/// Locks that filling and applying take; reads take none.
const STRIPES: usize = 256;
/// Buckets of the memory of changes, for each stripe. Sharing a bucket costs a needless miss at worst.
const BUCKETS: usize = 256;
/// What keeping an entry costs beside its bytes.
const OVERHEAD: u64 = 160;

/// How a cache is made.
#[derive(Clone)]
pub struct CacheOptions {
    /// Bytes that entries may take, with what keeping them costs.
    pub capacity_bytes: u64,
    /// For MAX_STALENESS, beside the stamps of heartbeats.
    pub clock: Arc<dyn Clock>,
    /// The tier, as a label of metrics.
    pub tier: &'static str,
}

/// A piece that does not follow what was applied: the stream must be begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gap: the next piece is after {previous}, and {applied} is applied")]
pub struct Gap {
    /// What the message says.
    pub previous: Position,
    /// What the cache has.
    pub applied: Position,
}

/// What a cache has for a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A value at this freshness.
    Hit(Entry, Position),
    /// Nothing that will do; ask the next tier for at least this floor (rule 2).
    Miss(Position),
}

/// The state of the stream, read on every hit as one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stream {
    applied: Position,
    /// Counts resets: an entry of an older generation is as good as dropped.
    generation: u64,
    /// The newest heartbeat's stamp, in milliseconds since 1970; 0 when there is none.
    heartbeat_ms: u64,
    /// Whether a stream keeps the entries right. Changes only under all stripes' locks.
    connected: bool,
}

impl Stream {
    /// Whether everything up to `position` has been applied, in the one history that its epoch has.
    fn reaches(&self, position: Position) -> bool {
        position.epoch == self.applied.epoch && position <= self.applied
    }
}

#[derive(Debug, Clone)]
struct Kept {
    as_of: Position,
    generation: u64,
    entry: Entry,
}

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<Key, Arc<Kept>> for ByBytes {
    fn weight(&self, _: &Key, kept: &Arc<Kept>) -> u64 {
        kept.entry.bytes() as u64 + OVERHEAD
    }
}

type Stripe = Mutex<Box<[Position]>>;

/// Parts of a cache have locks of their own. The largest list must fit into one, however many cores there are.
fn parts(capacity_bytes: u64) -> usize {
    let fitting = capacity_bytes as usize / (4 * MAX_ANSWER);
    if fitting <= 1 {
        return 1;
    }
    fitting.min(4 * thread::available_parallelism().map_or(1, NonZero::get))
}

/// See the module.
pub struct MemoryCache {
    entries: Cache<Key, Arc<Kept>, ByBytes>,
    hasher: FixedState,
    stripes: Vec<Stripe>,
    buckets: usize,
    stream: AtomicCell<Stream>,
    /// The memory knows every change after it. Written only under all stripes' locks.
    w0: AtomicCell<Position>,
    /// The newest change that was heard of, from the stream or a write's answer.
    newest: AtomicCell<Position>,
    clock: Arc<dyn Clock>,
    tier: &'static str,
    counts: StreamCounts,
    /// For those who wait for the stream.
    moved: Notify,
    pool: Mutex<Pool>,
}

impl MemoryCache {
    /// Empty, without a stream: nothing is cached until [`MemoryCache::start`].
    pub fn new(options: CacheOptions) -> Self {
        Self::with_memory(options, STRIPES, BUCKETS)
    }

    /// With another number of locks, and of buckets of the memory of changes for each.
    pub fn with_memory(options: CacheOptions, stripes: usize, buckets: usize) -> Self {
        let items = (options.capacity_bytes / 512).clamp(64, 1 << 28) as usize;
        let sizes = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(options.capacity_bytes)
            .shards(parts(options.capacity_bytes))
            .build()
            .expect("both sizes are given");
        Self {
            entries: Cache::with_options(sizes, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default()),
            hasher: FixedState::default(),
            stripes: (0..stripes).map(|_| Mutex::new(vec![Position::ZERO; buckets].into())).collect(),
            buckets,
            stream: AtomicCell::new(Stream::default()),
            w0: AtomicCell::new(Position::ZERO),
            newest: AtomicCell::new(Position::ZERO),
            clock: options.clock,
            tier: options.tier,
            counts: StreamCounts::new(options.tier),
            moved: Notify::new(),
            pool: Mutex::new(Pool::new()),
        }
    }

    /// Which tier it serves.
    pub const fn tier(&self) -> &'static str {
        self.tier
    }

    /// Up to where everything is applied; `None` before the first stream.
    pub fn applied(&self) -> Option<Position> {
        let applied = self.stream.load().applied;
        (applied != Position::ZERO).then_some(applied)
    }

    /// Whether the newest heartbeat is young enough.
    pub fn is_within(&self, staleness_ms: u64) -> bool {
        self.heard_within(self.stream.load(), staleness_ms)
    }

    fn heard_within(&self, stream: Stream, staleness_ms: u64) -> bool {
        stream.heartbeat_ms != 0 && self.clock.now_ms().saturating_sub(stream.heartbeat_ms) <= staleness_ms
    }

    fn place(&self, key: &Key) -> (usize, usize) {
        let hash = self.hasher.hash_one(key) as usize;
        let stripes = self.stripes.len();
        (hash % stripes, hash / stripes % self.buckets)
    }

    /// Rules 1 and 2.
    pub fn lookup(&self, key: &Key, newest: usize, floor: Position) -> Lookup {
        self.lookup_within(key, newest, floor, None)
    }

    /// As [`MemoryCache::lookup`]; with a bound, a hit only while the stream was heard within so many milliseconds.
    pub(crate) fn lookup_within(&self, key: &Key, newest: usize, floor: Position, staleness_ms: Option<u64>) -> Lookup {
        // Rule 1: `applied` before the entry. An entry of this generation has had every change up to `applied`.
        let stream = self.stream.load();
        let found = self.entries.get(key);
        let stream = if is_off(Rule::AppliedLoadedFirst) { self.load_late() } else { stream };
        if let Some(kept) = found
            && kept.generation == stream.generation
            && staleness_ms.is_none_or(|ms| self.heard_within(stream, ms))
        {
            let freshness = kept.as_of.max(stream.applied);
            if freshness >= floor && kept.entry.covers(newest) {
                let sent = if is_off(Rule::FreshnessSent) { kept.as_of } else { freshness };
                return Lookup::Hit(kept.entry.clone(), sent);
            }
        }
        Lookup::Miss(self.floor(key, floor))
    }

    /// What a cache would do that loaded `applied` after the entry, when it is interrupted there.
    fn load_late(&self) -> Stream {
        thread::yield_now();
        self.stream.load()
    }

    /// Rule 2: what the next tier is asked for at least.
    pub fn floor(&self, key: &Key, floor: Position) -> Position {
        if is_off(Rule::MissFloor) {
            return floor;
        }
        floor.max(self.known_until(key))
    }

    /// The newest change that may be of this key. What is of it, or later, has no change missing up to `applied`.
    pub(crate) fn known_until(&self, key: &Key) -> Position {
        let (stripe, bucket) = self.place(key);
        let remembered = self.stripes[stripe].lock()[bucket];
        remembered.max(self.w0.load())
    }

    /// Rules 4 and 8: a value arrives, from the next tier or from Redis. Says how fresh it is here; `None` when it may
    /// lack changes that are known: it may then answer the request that asked for it, and nobody else.
    pub fn fill(&self, key: Key, as_of: Position, entry: Entry) -> Option<Position> {
        self.take(key, as_of, entry, is_off(Rule::FillTestedOnArrival))
    }

    /// As [`MemoryCache::fill`], of a value that Redis had.
    pub fn fill_stored(&self, key: Key, stored: Position, entry: Entry) -> Option<Position> {
        self.take(key, stored, entry, is_off(Rule::RedisTested))
    }

    fn take(&self, key: Key, as_of: Position, entry: Entry, is_untested: bool) -> Option<Position> {
        let (stripe, bucket) = self.place(&key);
        let memory = self.stripes[stripe].lock();
        let stream = self.stream.load();
        // Rule 7: nothing is cached for a log without a stream.
        let may_lack = as_of < self.w0.load() || as_of < memory[bucket];
        if !stream.connected || may_lack && !is_untested {
            self.counts.fills_refused.increment(1);
            return None;
        }
        // Every change up to `applied` is remembered by now, and none of them is of this key and after `as_of`.
        let fresh = as_of.max(stream.applied);
        let there = self.entries.peek(&key).filter(|kept| kept.generation == stream.generation);
        if there.as_ref().is_some_and(|kept| kept.as_of > fresh) {
            self.counts.fills_refused.increment(1);
            return None;
        }
        // Of two equal states, the one that shows more stays: a count must not push a list out.
        if there.is_none_or(|kept| fresh > kept.as_of.max(stream.applied) || entry.bytes() > kept.entry.bytes()) {
            self.entries.insert(key, Arc::new(Kept { as_of: fresh, generation: stream.generation, entry }));
        }
        Some(fresh)
    }

    /// Rule 5: a change, from the stream or from a write's answer.
    pub fn apply(&self, change: &Change) {
        // Older ones change nothing.
        let _ = self.newest.fetch_update(|newest| (change.position > newest).then_some(change.position));
        let key = change.key();
        let (stripe, bucket) = self.place(&key);
        let mut memory = self.stripes[stripe].lock();
        // Always remembered, whatever becomes of the entry.
        if !(is_off(Rule::AlwaysRemembered) && self.entries.peek(&key).is_some()) {
            memory[bucket] = memory[bucket].max(change.position);
        }
        let generation = self.stream.load().generation;
        let Some(kept) = self.entries.peek(&key) else { return };
        if kept.generation != generation {
            self.entries.remove(&key);
            return;
        }
        if kept.as_of >= change.position && !is_off(Rule::OldChangesSkipped) {
            return;
        }
        let entry = match (&change.kind, &kept.entry) {
            // A copy: the change is a slice of a message, which would live as long as the slice does.
            (ChangeKind::Object(_, object), Entry::Object(_)) => {
                Entry::Object(object.as_deref().map(Bytes::copy_from_slice))
            }
            // A base of another epoch may hold what was undone: a write's answer can come before the stream's reset.
            (ChangeKind::List { prev, count, delta, .. }, Entry::List(list))
                if (kept.as_of >= *prev || is_off(Rule::DeltaPredecessor))
                    && (kept.as_of.epoch == change.position.epoch || is_off(Rule::DeltaBaseEpoch)) =>
            {
                Entry::List(Arc::new(list.with_delta(*count, delta)))
            }
            (ChangeKind::List { .. } | ChangeKind::Object(..), Entry::Object(_) | Entry::List(_)) => {
                self.entries.remove(&key);
                return;
            }
        };
        self.entries.insert(key, Arc::new(Kept { as_of: change.position, generation, entry }));
    }

    /// A write found at `position` that nothing was to be changed: what is older must not be shown by whoever acknowledges that.
    pub fn outdate(&self, key: &Key, position: Position) {
        let (stripe, bucket) = self.place(key);
        let mut memory = self.stripes[stripe].lock();
        memory[bucket] = memory[bucket].max(position);
        let applied = self.stream.load().applied;
        if self.entries.peek(key).is_some_and(|kept| kept.as_of.max(applied) < position) {
            self.entries.remove(key);
        }
    }

    /// Rule 6: a piece of the log, all changes after `previous` up to its last, in order.
    ///
    /// The piece may begin before `applied` (rule 14), but not after it. That is enough for `applied` to be gapless: an epoch has one
    /// history, of which a piece is a true part whoever sent it and whenever; everything up to `applied` is here, and the piece has all
    /// from `previous` on, so where they meet or overlap everything up to the piece's last change is here. A piece that is missing
    /// before one that is old altogether has been seen before; one that is missing after `applied` leaves the next with a `previous`
    /// that lies beyond it.
    pub fn apply_stream(&self, previous: Position, changes: &[Change]) -> Result<(), Gap> {
        let stream = self.follows(previous)?;
        // Rule 7: a higher epoch begins with a reset. What is not in order is no piece of a log.
        let mut last = previous;
        for Change { position, .. } in changes {
            if position.epoch != previous.epoch || *position <= last {
                return Err(Gap { previous: *position, applied: stream.applied });
            }
            last = *position;
        }
        changes.iter().for_each(|change| self.apply(change));
        let applied = stream.applied.max(last);
        self.move_on(stream, Stream { applied, ..stream })?;
        self.counts.applied_lsn.set(applied.lsn as f64);
        Ok(())
    }

    /// Rule 6: the stream has sent everything up to `position`, which was all that there was at `time_ms` by the storage shard's clock.
    pub fn heartbeat(&self, position: Position, time_ms: u64) -> Result<(), Gap> {
        let stream = if is_off(Rule::HeartbeatClaimsNothing) { self.stream.load() } else { self.follows(position)? };
        let claimed = if is_off(Rule::HeartbeatClaimsNothing) { position } else { stream.applied };
        self.move_on(stream, Stream { heartbeat_ms: time_ms, applied: stream.applied.max(claimed), ..stream })
    }

    /// The state of the stream, if there is one and `previous` is not ahead of it.
    fn follows(&self, previous: Position) -> Result<Stream, Gap> {
        let stream = self.stream.load();
        let follows = stream.connected && (stream.reaches(previous) || is_off(Rule::Gapless));
        follows.then_some(stream).ok_or(Gap { previous, applied: stream.applied })
    }

    /// Not over a reset, or the stream's end, that came in between.
    fn move_on(&self, from: Stream, to: Stream) -> Result<(), Gap> {
        let moved = self.stream.compare_exchange(from, to);
        self.moved.notify_waiters();
        moved.map(drop).map_err(|now| Gap { previous: from.applied, applied: now.applied })
    }

    /// Rule 7: a stream begins after `position`. All entries are dropped, the memory is kept.
    pub fn start(&self, position: Position) {
        let mut all = self.all();
        if !is_off(Rule::ResetRaisesW0) {
            self.w0.store(self.w0.load().max(position));
        }
        if is_off(Rule::ResetKeepsMemory) {
            all.iter_mut().for_each(|stripe| stripe.fill(Position::ZERO));
        }
        let before = self.stream.load();
        let keeps = is_off(Rule::ResetDropsEntries) && before.generation > 0;
        let generation = if keeps { before.generation } else { before.generation + 1 };
        self.stream.store(Stream { applied: position, generation, heartbeat_ms: 0, connected: true });
        if !keeps {
            self.entries.clear();
        }
        self.moved.notify_waiters();
        self.counts.reset(before.generation == 0, before.applied.epoch == position.epoch);
        self.counts.applied_lsn.set(position.lsn as f64);
    }

    /// The newest position of the log that was heard of: `applied`, or that of a write's answer which is ahead of it. A log that
    /// ends before it has lost history.
    pub fn newest(&self) -> Position {
        self.newest.load().max(self.stream.load().applied)
    }

    /// What to ask the next stream to begin at; `None` before the first.
    pub fn resume_point(&self) -> Option<Position> {
        self.applied()
    }

    /// A stream begins after `position`; if this cache has been there, it goes on and drops nothing. It has when `position` is not
    /// ahead of `applied` in its epoch: what the stream then repeats is known (rule 14). If not, it must [`MemoryCache::start`].
    #[must_use]
    pub fn resume(&self, position: Position) -> bool {
        let _all = self.all();
        let stream = self.stream.load();
        let is_other = position.epoch != stream.applied.epoch;
        let pretends = if is_other { is_off(Rule::EpochResets) } else { is_off(Rule::ResumesWhereKnown) };
        let resumes = stream.generation > 0 && (stream.reaches(position) || pretends);
        if resumes {
            let applied = if pretends { stream.applied.max(position) } else { stream.applied };
            self.stream.store(Stream { applied, heartbeat_ms: 0, connected: true, ..stream });
            self.counts.resumes.increment(1);
        }
        resumes
    }

    /// The stream broke: entries stay as they were, and nothing is added until the next begins.
    pub fn disconnected(&self) {
        let _all = self.all();
        // Always some.
        let _ = self.stream.fetch_update(|stream| Some(Stream { heartbeat_ms: 0, connected: false, ..stream }));
    }

    fn all(&self) -> Vec<MutexGuard<'_, Box<[Position]>>> {
        self.stripes.iter().map(|stripe| stripe.lock()).collect()
    }

    /// Waits until everything up to `position` is applied. `false`: it never will be, since history was undone.
    pub(crate) async fn reached(&self, position: Position) -> bool {
        loop {
            let moved = self.moved.notified();
            let applied = self.stream.load().applied;
            if applied >= position {
                return applied.epoch == position.epoch;
            }
            moved.await;
        }
    }

    /// Up to `n` random cached keys, for an auditor: all are as likely, however old. Now and then it walks over the whole cache, an entry at a
    /// time, which holds up nobody else and takes tens of milliseconds for a million entries.
    pub fn sample(&self, n: usize) -> Vec<Key> {
        let mut pool = self.pool.lock();
        pool.refill(n, self.entries.iter().map(|(key, _)| key));
        let is_cached = |key: &Key| self.entries.peek(key).is_some();
        std::iter::from_fn(|| pool.draw()).filter(is_cached).take(n).collect()
    }

    /// What a cache would do that took a write's answer for a piece of the stream.
    pub(crate) fn claim(&self, position: Position) {
        let _ = self.stream.fetch_update(|stream| {
            let applied = stream.applied.max(position);
            (applied.epoch == stream.applied.epoch).then_some(Stream { applied, ..stream })
        });
    }

    /// An entry, and the position that it is of.
    pub(crate) fn kept(&self, key: &Key) -> Option<(Position, Entry)> {
        let kept = self.entries.peek(key)?;
        (kept.generation == self.stream.load().generation).then(|| (kept.as_of, kept.entry.clone()))
    }

    /// Drops an entry, as an eviction would.
    pub fn evict(&self, key: &Key) {
        self.entries.remove(key);
    }
}
