//! The cache of one log's stream, in memory: rules 1 to 7 of docs/consistency.md.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::thread;

use crossbeam_utils::CachePadded;
use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};
use tao_model::mutation::{Rule, is_off};
use tao_model::{Change, ChangeKind, Clock, Key, Position};
use tokio::sync::Notify;

use crate::counts::{Holdings, Published, StreamCounts};
use crate::entries::{Entries, Put};
use crate::entry::{Entry, Value};
use crate::reads::{Reads, random};
use crate::stream_cell::{Stream, StreamCell};

/// Locks that filling and applying take; reads take none.
const STRIPES: usize = 256;
/// Buckets of the memory of changes, for each stripe. Sharing a bucket costs a needless miss at worst.
const BUCKETS: usize = 256;
/// Of so many fills, one looks whether it is time to let frequencies age.
const FILLS_PER_LOOK: u32 = 256;

/// How a cache is made.
#[derive(Clone)]
pub struct CacheOptions {
    /// Bytes of memory that entries may take, with all that keeping them costs. With 0, nothing is kept: whatever is asked for comes from
    /// the next level.
    pub capacity_bytes: u64,
    /// For MAX_STALENESS, beside the stamps of heartbeats.
    pub clock: Arc<dyn Clock>,
    /// The tier, as a label of metrics.
    pub tier: &'static str,
    /// The log, as a label of metrics.
    pub log: u32,
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

/// What the locks that filling and applying take guard; reads take none.
struct Stripe {
    /// The highest position at which a key of each bucket is known to have changed.
    memory: Box<[Position]>,
    /// The memory knows every change after it: the same in all stripes.
    w0: Position,
}

/// See the module.
pub struct MemoryCache {
    entries: Entries,
    hasher: FixedState,
    stripes: Vec<CachePadded<Mutex<Stripe>>>,
    buckets: usize,
    stream: StreamCell,
    /// The newest change that a write's answer told of.
    newest: Mutex<Position>,
    clock: Arc<dyn Clock>,
    tier: &'static str,
    counts: StreamCounts,
    reads: Reads,
    published: Published,
    /// For those who wait for the stream.
    moved: Notify,
}

impl MemoryCache {
    /// Empty, without a stream: nothing is cached until [`MemoryCache::start`].
    pub fn new(options: CacheOptions) -> Self {
        Self::with_memory(options, STRIPES, BUCKETS)
    }

    /// With another number of locks, and of buckets of the memory of changes for each.
    pub fn with_memory(options: CacheOptions, stripes: usize, buckets: usize) -> Self {
        let stripe = || Stripe { memory: vec![Position::ZERO; buckets].into(), w0: Position::ZERO };
        Self {
            entries: Entries::new(options.capacity_bytes),
            hasher: FixedState::default(),
            stripes: (0..stripes).map(|_| CachePadded::new(Mutex::new(stripe()))).collect(),
            buckets,
            stream: StreamCell::new(),
            newest: Mutex::new(Position::ZERO),
            clock: options.clock,
            tier: options.tier,
            counts: StreamCounts::new(options.tier, options.log),
            reads: Reads::new(),
            published: Published::new(options.tier),
            moved: Notify::new(),
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
        self.see(key, newest, floor, staleness_ms, |value, as_of| Lookup::Hit(value.to_entry(), as_of))
            .unwrap_or_else(|| Lookup::Miss(self.floor(key, floor)))
    }

    /// A hit, where it lies.
    pub(crate) fn see<T>(
        &self,
        key: &Key,
        newest: usize,
        floor: Position,
        staleness_ms: Option<u64>,
        see: impl FnOnce(&Value, Position) -> T,
    ) -> Option<T> {
        // Rule 1: `applied` before the entry. An entry of this generation has had every change up to `applied`.
        let stream = self.stream.load();
        let pinned = self.entries.pin(key);
        let kept = pinned.get(key.into())?;
        let stream = if is_off(Rule::AppliedLoadedFirst) { self.load_late() } else { stream };
        if kept.generation != stream.generation as u16 || staleness_ms.is_some_and(|ms| !self.heard_within(stream, ms))
        {
            return None;
        }
        let freshness = kept.as_of.max(stream.applied);
        if freshness < floor || !kept.value.covers(newest) {
            return None;
        }
        self.entries.touch(kept);
        Some(see(&kept.value, if is_off(Rule::FreshnessSent) { kept.as_of } else { freshness }))
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
        let stripe = self.stripes[stripe].lock();
        stripe.memory[bucket].max(stripe.w0)
    }

    /// Rules 4 and 8: a value arrives, from the next tier or from Redis. Says how fresh it is here; `None` when it may
    /// lack changes that are known: it may then answer the request that asked for it, and nobody else.
    pub fn fill(&self, key: Key, as_of: Position, entry: &Entry) -> Option<Position> {
        self.take(key, as_of, entry, is_off(Rule::FillTestedOnArrival))
    }

    /// As [`MemoryCache::fill`], of a value that Redis had.
    pub fn fill_stored(&self, key: Key, stored: Position, entry: &Entry) -> Option<Position> {
        self.take(key, stored, entry, is_off(Rule::RedisTested))
    }

    fn take(&self, key: Key, as_of: Position, entry: &Entry, is_untested: bool) -> Option<Position> {
        // Copied before the lock is taken.
        let value = Value::from(entry);
        let fresh = {
            let (stripe, bucket) = self.place(&key);
            let stripe = self.stripes[stripe].lock();
            let stream = self.stream.load();
            // Rule 7: nothing is cached for a log without a stream.
            let may_lack = as_of < stripe.w0 || as_of < stripe.memory[bucket];
            if !stream.connected || may_lack && !is_untested {
                self.counts.fills_refused.increment(1);
                return None;
            }
            // Every change up to `applied` is remembered by now, and none of them is of this key and after `as_of`.
            let fresh = as_of.max(stream.applied);
            let generation = stream.generation as u16;
            let pinned = self.entries.pin(&key);
            let there = pinned.get((&key).into()).filter(|kept| kept.generation == generation);
            if there.is_some_and(|kept| kept.as_of > fresh) {
                self.counts.fills_refused.increment(1);
                return None;
            }
            // Of two equal states, the one that shows more stays: a count must not push a list out.
            let is_newer = |as_of: Position| fresh > as_of.max(stream.applied);
            if there.is_none_or(|kept| is_newer(kept.as_of) || value.bytes() > kept.value.bytes()) {
                self.entries.put(Put::Fill, &key, fresh, generation, value);
            }
            fresh
        };
        if random().is_multiple_of(FILLS_PER_LOOK) {
            self.entries.grow_older(self.reads.sums().iter().sum());
        }
        Some(fresh)
    }

    /// Rule 5: a change, from a write's answer.
    pub fn apply(&self, change: &Change) {
        {
            let mut newest = self.newest.lock();
            *newest = change.position.max(*newest);
        }
        self.apply_one(change);
    }

    /// Rule 5.
    fn apply_one(&self, change: &Change) {
        let key = change.key();
        let (stripe, bucket) = self.place(&key);
        let mut stripe = self.stripes[stripe].lock();
        let pinned = self.entries.pin(&key);
        let there = pinned.get((&key).into());
        // Always remembered, whatever becomes of the entry.
        if !(is_off(Rule::AlwaysRemembered) && there.is_some()) {
            stripe.memory[bucket] = stripe.memory[bucket].max(change.position);
        }
        let Some(kept) = there else { return };
        let generation = self.stream.load().generation as u16;
        if kept.generation != generation {
            return self.entries.remove(&key);
        }
        if kept.as_of >= change.position && !is_off(Rule::OldChangesSkipped) {
            return;
        }
        let value = match (&change.kind, &kept.value) {
            // Copies: the change is a slice of a message, which would live as long as the slice does.
            (ChangeKind::Object(_, None), Value::Absent | Value::Object(_)) => Value::Absent,
            (ChangeKind::Object(_, Some(object)), Value::Absent | Value::Object(_)) => {
                Value::Object(object.as_ref().into())
            }
            // A base of another epoch may hold what was undone: a write's answer can come before the stream's reset.
            (ChangeKind::List { prev, count, delta, .. }, Value::List(list))
                if (kept.as_of >= *prev || is_off(Rule::DeltaPredecessor))
                    && (kept.as_of.epoch == change.position.epoch || is_off(Rule::DeltaBaseEpoch)) =>
            {
                Value::List(list.with_delta(*count, delta))
            }
            (ChangeKind::List { .. } | ChangeKind::Object(..), Value::Absent | Value::Object(_) | Value::List(_)) => {
                return self.entries.remove(&key);
            }
        };
        self.entries.put(Put::Change, &key, change.position, generation, value);
    }

    /// A write found at `position` that nothing was to be changed: what is older must not be shown by whoever acknowledges that.
    pub fn outdate(&self, key: &Key, position: Position) {
        let (stripe, bucket) = self.place(key);
        let mut stripe = self.stripes[stripe].lock();
        stripe.memory[bucket] = stripe.memory[bucket].max(position);
        let applied = self.stream.load().applied;
        if self.entries.pin(key).get(key.into()).is_some_and(|kept| kept.as_of.max(applied) < position) {
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
        changes.iter().for_each(|change| self.apply_one(change));
        let applied = stream.applied.max(last);
        self.move_on(stream, Stream { applied, ..stream })?;
        self.counts.applied_lsn.set(applied.lsn as f64);
        Ok(())
    }

    /// Rule 6: the stream has sent everything up to `position`, which was all that there was at `time_ms` by the storage shard's clock.
    pub fn heartbeat(&self, position: Position, time_ms: u64) -> Result<(), Gap> {
        let stream = if is_off(Rule::HeartbeatClaimsNothing) { self.stream.load() } else { self.follows(position)? };
        let claimed = if is_off(Rule::HeartbeatClaimsNothing) { position } else { stream.applied };
        self.move_on(stream, Stream { heartbeat_ms: time_ms, applied: stream.applied.max(claimed), ..stream })?;
        self.counts.heard(time_ms, self.clock.now_ms());
        self.publish();
        Ok(())
    }

    /// The state of the stream, if there is one and `previous` is not ahead of it.
    fn follows(&self, previous: Position) -> Result<Stream, Gap> {
        let stream = self.stream.load();
        let follows = stream.connected && (stream.reaches(previous) || is_off(Rule::Gapless));
        follows.then_some(stream).ok_or(Gap { previous, applied: stream.applied })
    }

    /// Not over a reset, or the stream's end, that came in between.
    fn move_on(&self, from: Stream, to: Stream) -> Result<(), Gap> {
        let moved = self.stream.update(|now| (now == from).then_some(to));
        self.moved.notify_waiters();
        moved.map(drop).map_err(|now| Gap { previous: from.applied, applied: now.applied })
    }

    /// Rule 7: a stream begins after `position`. All entries are dropped, the memory is kept.
    pub fn start(&self, position: Position) {
        let mut all = self.all();
        if !is_off(Rule::ResetRaisesW0) {
            all.iter_mut().for_each(|stripe| stripe.w0 = stripe.w0.max(position));
        }
        if is_off(Rule::ResetKeepsMemory) {
            all.iter_mut().for_each(|stripe| stripe.memory.fill(Position::ZERO));
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
        self.stream.load().applied.max(*self.newest.lock())
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
        let _ = self.stream.update(|stream| Some(Stream { heartbeat_ms: 0, connected: false, ..stream }));
        self.publish();
    }

    fn all(&self) -> Vec<MutexGuard<'_, Stripe>> {
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

    /// Up to `n` random cached keys, for an auditor: all are as likely, however old.
    pub fn sample(&self, n: usize) -> Vec<Key> {
        self.entries.sample(n)
    }

    /// Hits and misses, which whoever reads through this cache counts here.
    pub(crate) const fn reads(&self) -> &Reads {
        &self.reads
    }

    /// What is in memory.
    pub fn holdings(&self) -> Holdings {
        self.entries.holdings()
    }

    /// Brings the metrics up to date, as every heartbeat does.
    pub fn publish(&self) {
        let reads = self.reads.sums();
        self.entries.grow_older(reads.iter().sum());
        self.published.publish(reads, self.entries.holdings());
    }

    /// What a cache would do that took a write's answer for a piece of the stream.
    pub(crate) fn claim(&self, position: Position) {
        let _ = self.stream.update(|stream| {
            let applied = stream.applied.max(position);
            (applied.epoch == stream.applied.epoch).then_some(Stream { applied, ..stream })
        });
    }

    /// An entry, and the position that it is of.
    pub(crate) fn kept(&self, key: &Key) -> Option<(Position, Entry)> {
        let pinned = self.entries.pin(key);
        let kept = pinned.get(key.into())?;
        (kept.generation == self.stream.load().generation as u16).then(|| (kept.as_of, kept.value.to_entry()))
    }

    /// Drops an entry, as an eviction would.
    pub fn evict(&self, key: &Key) {
        self.entries.remove(key);
    }
}
