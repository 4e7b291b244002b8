//! What the caches count. Metrics are looked up once, when a cache is made: that costs more than a hit does. The process's recorder must
//! have been installed before.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::Mutex;
use tao_model::Key;

/// Reads that found a value, and reads that did not.
pub(crate) struct Found {
    pub hits: Counter,
    pub misses: Counter,
}

/// One level of a tier's caches.
pub(crate) struct Level {
    objects: Found,
    lists: Found,
}

impl Level {
    pub fn new(tier: &'static str, level: &'static str) -> Self {
        let found = |kind: &'static str| Found {
            hits: counter!("tao_cache_hits_total", "tier" => tier, "level" => level, "kind" => kind),
            misses: counter!("tao_cache_misses_total", "tier" => tier, "level" => level, "kind" => kind),
        };
        Self { objects: found("object"), lists: found("list") }
    }

    pub fn of(&self, key: &Key) -> &Found {
        match key {
            Key::Object(_) => &self.objects,
            Key::List(..) => &self.lists,
        }
    }
}

/// What a cache in memory holds, and has evicted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Bytes of memory, with what keeping the entries costs.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Entries that had to go for others.
    pub evictions: u64,
}

/// The metrics of a cache in memory. Caches of several logs share them, so that each adds what is new.
pub(crate) struct Published {
    level: Level,
    bytes: Gauge,
    entries: Gauge,
    evictions: Counter,
    last: Mutex<([u64; 4], Holdings)>,
}

impl Published {
    pub fn new(tier: &'static str) -> Self {
        Self {
            level: Level::new(tier, "memory"),
            bytes: gauge!("tao_cache_bytes", "tier" => tier),
            entries: gauge!("tao_cache_entries", "tier" => tier),
            evictions: counter!("tao_cache_evictions_total", "tier" => tier),
            last: Mutex::default(),
        }
    }

    pub fn publish(&self, reads: [u64; 4], now: Holdings) {
        let mut last = self.last.lock();
        let (before, had) = *last;
        let Level { objects, lists } = &self.level;
        let counters = [&objects.hits, &lists.hits, &objects.misses, &lists.misses];
        for (counter, (now, before)) in counters.into_iter().zip(reads.iter().zip(before)) {
            counter.increment(now.saturating_sub(before));
        }
        self.bytes.increment(now.bytes as f64 - had.bytes as f64);
        self.entries.increment(now.entries as f64 - had.entries as f64);
        self.evictions.increment(now.evictions.saturating_sub(had.evictions));
        *last = (reads, now);
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let (_, had) = *self.last.get_mut();
        self.bytes.decrement(had.bytes as f64);
        self.entries.decrement(had.entries as f64);
    }
}

/// What a stream does to a cache.
pub(crate) struct StreamCounts {
    pub fills_refused: Counter,
    pub applied_lsn: Gauge,
    /// Seconds since 1970 up to which all is applied.
    fresh: Gauge,
    delay: Histogram,
    pub resumes: Counter,
    first: Counter,
    again: Counter,
    epoch: Counter,
}

impl StreamCounts {
    pub fn new(tier: &'static str, log: u32) -> Self {
        let labels = [("tier", tier.to_owned()), ("log", log.to_string())];
        let resets = |cause: &'static str| counter!("tao_cache_resets_total", "tier" => tier, "cause" => cause);
        Self {
            fills_refused: counter!("tao_cache_fills_refused_total", "tier" => tier),
            applied_lsn: gauge!("tao_cache_applied_lsn", &labels),
            fresh: gauge!("tao_cache_fresh_timestamp_seconds", &labels),
            delay: histogram!("tao_cache_stream_delay_seconds", &labels),
            resumes: counter!("tao_cache_resumes_total", "tier" => tier),
            first: resets("first"),
            again: resets("again"),
            epoch: resets("epoch"),
        }
    }

    /// The stream vouches for everything up to a time of the storage shard's clock.
    pub fn heard(&self, time_ms: u64, now_ms: u64) {
        if time_ms > 0 {
            self.fresh.set(time_ms as f64 / 1_000.0);
            self.delay.record(Duration::from_millis(now_ms.saturating_sub(time_ms)));
        }
    }

    /// A stream began: the first, one after another that broke, or one of another history.
    pub fn reset(&self, is_first: bool, is_same_epoch: bool) {
        let cause = match (is_first, is_same_epoch) {
            (true, _) => &self.first,
            (false, true) => &self.again,
            (false, false) => &self.epoch,
        };
        cause.increment(1);
    }
}
