//! What the caches count. Looked up once, when a cache is made: looking up a metric costs more than a hit does. The process's recorder
//! must have been installed before.

use metrics::{Counter, Gauge, counter, gauge};
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

/// What a stream does to a cache.
pub(crate) struct StreamCounts {
    pub fills_refused: Counter,
    pub applied_lsn: Gauge,
    pub resumes: Counter,
    first: Counter,
    again: Counter,
    epoch: Counter,
}

impl StreamCounts {
    pub fn new(tier: &'static str) -> Self {
        let resets = |cause: &'static str| counter!("tao_cache_resets_total", "tier" => tier, "cause" => cause);
        Self {
            fills_refused: counter!("tao_cache_fills_refused_total", "tier" => tier),
            applied_lsn: gauge!("tao_cache_applied_lsn", "tier" => tier),
            resumes: counter!("tao_cache_resumes_total", "tier" => tier),
            first: resets("first"),
            again: resets("again"),
            epoch: resets("epoch"),
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
