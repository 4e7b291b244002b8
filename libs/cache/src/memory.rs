//! The cache of one log's stream, in memory: rules 1 to 7 of docs/consistency.md.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use crossbeam_utils::atomic::AtomicCell;
use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tao_model::{Change, ChangeKind, Clock, Key, Position};

use crate::entry::Entry;

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

/// A change that does not follow what was applied: the stream must be begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gap: the next change follows {previous}, and {applied} is applied")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    applied: Position,
    /// Counts resets: an entry of an older generation is as good as dropped.
    generation: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    as_of: Position,
    generation: u64,
    entry: Entry,
}

#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Weighter<Key, Arc<Kept>> for Bytes {
    fn weight(&self, _: &Key, kept: &Arc<Kept>) -> u64 {
        kept.entry.bytes() as u64 + OVERHEAD
    }
}

/// What is shared under all stripes' locks.
#[derive(Debug, Clone, Copy, Default)]
struct Floors {
    /// The memory knows every change after it.
    w0: Position,
    /// Whether a stream keeps the entries right.
    connected: bool,
}

impl Floors {
    /// Whether a value that arrives now can be told to lack no change, given what is remembered of its key. Rule 7: none can for
    /// a log without a stream.
    fn admit(self, as_of: Position, remembered: Position) -> bool {
        self.connected && as_of >= self.w0 && as_of >= remembered
    }
}

type Stripe = Mutex<[Position; BUCKETS]>;

/// See the module.
pub struct MemoryCache {
    entries: Cache<Key, Arc<Kept>, Bytes>,
    hasher: FixedState,
    stripes: Vec<Stripe>,
    stream: AtomicCell<Stream>,
    /// Written only under all stripes' locks.
    floors: AtomicCell<Floors>,
    /// The newest heartbeat's stamp, in milliseconds since 1970; 0 when there is none.
    heartbeat_ms: AtomicCell<u64>,
    clock: Arc<dyn Clock>,
    tier: &'static str,
}

impl MemoryCache {
    /// Empty, without a stream: nothing is cached until [`MemoryCache::start`].
    pub fn new(options: CacheOptions) -> Self {
        let items = (options.capacity_bytes / 512).clamp(1024, 1 << 28) as usize;
        Self {
            entries: Cache::with_weighter(items, options.capacity_bytes, Bytes),
            hasher: FixedState::default(),
            stripes: (0..STRIPES).map(|_| Mutex::new([Position::ZERO; BUCKETS])).collect(),
            stream: AtomicCell::new(Stream { applied: Position::ZERO, generation: 0 }),
            floors: AtomicCell::new(Floors::default()),
            heartbeat_ms: AtomicCell::new(0),
            clock: options.clock,
            tier: options.tier,
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
        let stamp = self.heartbeat_ms.load();
        stamp != 0 && self.clock.now_ms().saturating_sub(stamp) <= staleness_ms
    }

    fn place(&self, key: &Key) -> (usize, usize) {
        let hash = self.hasher.hash_one(key) as usize;
        (hash % STRIPES, hash / STRIPES % BUCKETS)
    }

    /// Rules 1 and 2.
    pub fn lookup(&self, key: &Key, newest: usize, floor: Position) -> Lookup {
        // Rule 1: `applied` before the entry. An entry of this generation has had every change up to `applied`.
        let stream = self.stream.load();
        if let Some(kept) = self.entries.get(key)
            && kept.generation == stream.generation
        {
            let freshness = kept.as_of.max(stream.applied);
            if freshness >= floor && kept.entry.covers(newest) {
                return Lookup::Hit(kept.entry.clone(), freshness);
            }
        }
        Lookup::Miss(self.floor(key, floor))
    }

    /// Rule 2: what the next tier is asked for at least.
    pub fn floor(&self, key: &Key, floor: Position) -> Position {
        let (stripe, bucket) = self.place(key);
        let remembered = self.stripes[stripe].lock()[bucket];
        floor.max(remembered).max(self.floors.load().w0)
    }

    /// Rule 4: a value arrives. Says whether it may be believed beyond the request that asked for it; then it was taken.
    pub fn fill(&self, key: Key, as_of: Position, entry: Entry) -> bool {
        let (stripe, bucket) = self.place(&key);
        let memory = self.stripes[stripe].lock();
        let floors = self.floors.load();
        let generation = self.stream.load().generation;
        let there = self.entries.peek(&key).filter(|kept| kept.generation == generation);
        let is_newest = there.as_ref().is_none_or(|kept| as_of >= kept.as_of);
        if !floors.admit(as_of, memory[bucket]) || !is_newest {
            metrics::counter!("tao_cache_fills_refused_total", "tier" => self.tier).increment(1);
            return false;
        }
        // Of two equal states, the one that shows more stays: a count must not push a list out.
        if there.is_none_or(|kept| as_of > kept.as_of || entry.bytes() > kept.entry.bytes()) {
            self.entries.insert(key, Arc::new(Kept { as_of, generation, entry }));
        }
        true
    }

    /// Whether a value of another cache may be believed now (rules 4 and 8), at its own `as_of`.
    pub fn is_believable(&self, key: &Key, as_of: Position) -> bool {
        let (stripe, bucket) = self.place(key);
        let memory = self.stripes[stripe].lock();
        self.floors.load().admit(as_of, memory[bucket])
    }

    /// Rule 5: a change, from the stream or from a write's answer.
    pub fn apply(&self, change: &Change) {
        let key = change.key();
        let (stripe, bucket) = self.place(&key);
        let mut memory = self.stripes[stripe].lock();
        // Always remembered, whatever becomes of the entry.
        memory[bucket] = memory[bucket].max(change.position);
        let generation = self.stream.load().generation;
        let Some(kept) = self.entries.peek(&key) else { return };
        if kept.generation != generation {
            self.entries.remove(&key);
            return;
        }
        if kept.as_of >= change.position {
            return;
        }
        let entry = match (&change.kind, &kept.entry) {
            (ChangeKind::Object(_, object), Entry::Object(_)) => Entry::Object(object.clone()),
            // A base of another epoch may hold what was undone: a write's answer can come before the stream's reset.
            (ChangeKind::List { prev, count, delta, .. }, Entry::List(list))
                if kept.as_of >= *prev && kept.as_of.epoch == change.position.epoch =>
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

    /// Rule 6: changes that the stream carried after `previous`. Those that were applied before are seen again without harm.
    pub fn apply_stream(&self, previous: Position, changes: &[Change]) -> Result<(), Gap> {
        self.follows(previous)?;
        for change in changes {
            self.apply(change);
        }
        if let Some(last) = changes.last() {
            self.advance(last.position);
        }
        Ok(())
    }

    /// Rule 6: the stream has sent everything up to `position`, said at `time_ms` by the storage shard's clock.
    pub fn heartbeat(&self, position: Position, time_ms: u64) -> Result<(), Gap> {
        self.follows(position)?;
        self.heartbeat_ms.store(time_ms);
        Ok(())
    }

    fn follows(&self, previous: Position) -> Result<(), Gap> {
        let applied = self.stream.load().applied;
        if previous == applied { Ok(()) } else { Err(Gap { previous, applied }) }
    }

    fn advance(&self, applied: Position) {
        let stream = self.stream.load();
        self.stream.store(Stream { applied, ..stream });
        metrics::gauge!("tao_cache_applied_lsn", "tier" => self.tier).set(applied.lsn as f64);
    }

    /// Rule 7: a stream begins after `position`. All entries are dropped, the memory is kept.
    pub fn start(&self, position: Position) {
        let _all = self.all();
        let w0 = self.floors.load().w0.max(position);
        self.floors.store(Floors { w0, connected: true });
        let generation = self.stream.load().generation + 1;
        self.stream.store(Stream { applied: position, generation });
        self.heartbeat_ms.store(0);
        self.entries.clear();
        metrics::counter!("tao_cache_resets_total", "tier" => self.tier).increment(1);
    }

    /// Where a stream that is begun again should begin.
    pub fn resume_point(&self) -> Option<Position> {
        self.applied()
    }

    /// A stream goes on where the last one broke: nothing is dropped. `false` when it begins elsewhere, and then nothing is done.
    pub fn resume(&self, position: Position) -> bool {
        let _all = self.all();
        let resumes = self.applied() == Some(position);
        if resumes {
            self.floors.store(Floors { connected: true, ..self.floors.load() });
        }
        resumes
    }

    /// The stream broke: entries stay as they were, and nothing is added until the next begins.
    pub fn disconnected(&self) {
        let _all = self.all();
        self.floors.store(Floors { connected: false, ..self.floors.load() });
        self.heartbeat_ms.store(0);
    }

    fn all(&self) -> Vec<MutexGuard<'_, [Position; BUCKETS]>> {
        self.stripes.iter().map(|stripe| stripe.lock()).collect()
    }

    /// Drops an entry, as an eviction would.
    pub fn evict(&self, key: &Key) {
        self.entries.remove(key);
    }
}
