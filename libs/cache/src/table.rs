//! Where entries are found by their keys: maps that are read without a lock.
//!
//! A map doubles when it is full, and where entries come and go its slots are a quarter to half in use: so one map would have 18 bytes of
//! slots an entry at one time and 36 at another. Several maps that get unequal parts of the keys double one after the other: together
//! they have about 26 at any time, and never two copies of all slots.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use papaya::{HashMap, LocalGuard};

use crate::entries::{Kept, Packed};

pub(crate) type Map = HashMap<Packed, Kept, FixedState>;

const MAPS: usize = 16;
/// Ranges of hashes, of which each map has some: the last nearly twice as many as the first.
const RANGES: usize = 1024;

/// See the module.
pub(crate) struct Table {
    maps: Vec<Map>,
    of_range: Box<[u8]>,
    hasher: FixedState,
}

/// A map under a guard: what is read from it stays where it is for so long.
pub(crate) struct Pinned<'t> {
    pub map: &'t Map,
    pub guard: LocalGuard<'t>,
}

impl Pinned<'_> {
    pub fn get(&self, key: Packed) -> Option<&Kept> {
        self.map.get(&key, &self.guard)
    }
}

impl Table {
    pub fn new() -> Self {
        let hasher = FixedState::with_seed(0x7a0);
        let weights: Vec<f64> = (0..MAPS).map(|n| 2f64.powf(n as f64 / MAPS as f64)).collect();
        let all: f64 = weights.iter().sum();
        let mut of_range = Vec::with_capacity(RANGES);
        let mut up_to = 0.0;
        for (n, weight) in weights.iter().enumerate() {
            up_to += weight / all * RANGES as f64;
            of_range.resize(up_to.round() as usize, n as u8);
        }
        let maps = (0..MAPS).map(|_| HashMap::with_hasher(hasher.clone())).collect();
        Self { maps, of_range: of_range.into(), hasher }
    }

    pub fn hash(&self, key: Packed) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The map that has a key of this hash.
    pub fn pin(&self, hash: u64) -> Pinned<'_> {
        // Bits that neither the map nor a part's rows go by.
        let map = &self.maps[usize::from(self.of_range[(hash >> 20) as usize % RANGES])];
        Pinned { map, guard: map.guard() }
    }

    pub fn clear(&self) {
        for map in &self.maps {
            map.pin().clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_have_unequal_parts() {
        let table = Table::new();
        assert_eq!(table.of_range.len(), RANGES);
        let share =
            |n: u8| table.of_range.partition_point(|map| *map <= n) - table.of_range.partition_point(|map| *map < n);
        assert!((0..MAPS as u8 - 1).all(|n| share(n) < share(n + 1)), "{:?}", table.of_range);
        assert!((43..47).contains(&share(0)) && (84..88).contains(&share(MAPS as u8 - 1)));
    }
}
