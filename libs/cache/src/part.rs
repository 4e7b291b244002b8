//! A part of a cache's entries, and which of them are to go.
//!
//! An entry is worth its reads for each byte: hits are what a budget of bytes is for, and a list costs as much as many counts. To find a
//! victim, a few entries are drawn at random and the one that is worth least goes, if it is not worth more than what comes. How often
//! what is not here was asked for is remembered, too, as far as that fits. docs/adr/0011 compares this with what is known.

use std::collections::BTreeSet;

use crate::entries::Packed;
use crate::frequency::{Frequency, Recall};
use crate::table::Table;

/// Entries that are drawn to find a victim.
const DRAWN: usize = 8;
/// Of so many bytes of a budget, one goes to what is known of keys that are not cached.
const RECALL_SHARE: u64 = 64;
/// Keys that are allocated at once.
const CHUNK: usize = 1024;

/// Keys in no order, each at a place that it knows. In chunks: growing moves none of them.
#[derive(Default)]
pub(crate) struct Keys {
    chunks: Vec<Vec<Packed>>,
    len: usize,
}

impl Keys {
    pub const fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, place: usize) -> Packed {
        self.chunks[place / CHUNK][place % CHUNK]
    }

    /// Says at which place it is.
    pub fn push(&mut self, key: Packed) -> usize {
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[self.len / CHUNK].push(key);
        self.len += 1;
        self.len - 1
    }

    /// Says which key, if any, is now at that place.
    pub fn swap_remove(&mut self, place: usize) -> Option<Packed> {
        self.len -= 1;
        let last = self.chunks[self.len / CHUNK].pop()?;
        // One empty chunk is kept.
        self.chunks.truncate(self.len / CHUNK + 2);
        (place < self.len).then(|| {
            self.chunks[place / CHUNK][place % CHUNK] = last;
            last
        })
    }
}

/// An entry that may have to go.
pub(crate) struct Drawn {
    pub key: Packed,
    pub frequency: Frequency,
    pub worth: f32,
}

/// See the module.
pub(crate) struct Part {
    pub keys: Keys,
    /// What the entries take.
    pub bytes: u64,
    pub recall: Recall,
    pub evicted: u64,
    random: u64,
}

impl Part {
    pub fn new(capacity_bytes: u64, seed: u64) -> Self {
        let recall = Recall::new((capacity_bytes / RECALL_SHARE) as usize);
        Self { keys: Keys::default(), bytes: 0, recall, evicted: 0, random: seed }
    }

    /// What a part takes without entries.
    pub const fn fixed_bytes(&self) -> u64 {
        self.recall.bytes() as u64
    }

    /// What an entry is worth: reads for its bytes. One read more is counted: what was not read lately may be still.
    pub fn worth(frequency: Frequency, bytes: u64) -> f32 {
        (frequency.reads() as f32 + 1.0) / bytes as f32
    }

    fn below(&mut self, n: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % n
    }

    /// Of some entries, that which is worth least; not that of `spared`.
    pub fn draw(&mut self, table: &Table, age: u8, spared: Option<Packed>) -> Option<Drawn> {
        let mut least: Option<Drawn> = None;
        if self.keys.len() > usize::from(spared.is_some()) {
            let mut drawn = 0;
            while drawn < DRAWN || least.is_none() {
                drawn += 1;
                let place = self.below(self.keys.len());
                let key = self.keys.get(place);
                let pinned = table.pin(table.hash(key));
                let Some(kept) = pinned.get(key).filter(|_| Some(key) != spared) else { continue };
                let frequency = kept.frequency(age);
                // It ages with those who look at it.
                kept.set_frequency(frequency, age);
                let worth = Self::worth(frequency, kept.bytes());
                if least.as_ref().is_none_or(|least| worth < least.worth) {
                    least = Some(Drawn { key, frequency, worth });
                }
            }
        }
        least
    }

    /// Up to `n` different keys.
    pub fn sample(&mut self, n: usize) -> Vec<Packed> {
        let all = self.keys.len();
        let mut places = BTreeSet::new();
        // Each later place in turn, and what is drawn of those before it unless that was drawn already.
        for last in all.saturating_sub(n)..all {
            let place = self.below(last + 1);
            if !places.insert(place) {
                places.insert(last);
            }
        }
        places.into_iter().map(|place| self.keys.get(place)).collect()
    }

    pub fn clear(&mut self) {
        self.keys = Keys::default();
        self.bytes = 0;
        self.recall.clear();
    }
}
