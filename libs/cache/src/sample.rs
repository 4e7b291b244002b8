//! Random cached keys, for an auditor.

use std::hash::{BuildHasher as _, RandomState};

use tao_model::Key;

/// Keys that are drawn in one walk over a cache.
const POOL: usize = 4096;

/// Keys that were drawn, and not yet handed out.
pub(crate) struct Pool {
    keys: Vec<Key>,
    random: u64,
}

impl Pool {
    pub fn new() -> Self {
        Self { keys: Vec::new(), random: RandomState::new().hash_one(0) }
    }

    fn below(&mut self, n: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % n
    }

    /// Draws anew when fewer than `n` are left: each key that `all` has with the same probability.
    pub fn refill(&mut self, n: usize, all: impl Iterator<Item = Key>) {
        if self.keys.len() >= n {
            return;
        }
        self.keys.clear();
        for (seen, key) in all.enumerate() {
            if seen < POOL {
                self.keys.push(key);
                continue;
            }
            let place = self.below(seen + 1);
            if let Some(drawn) = self.keys.get_mut(place) {
                *drawn = key;
            }
        }
    }

    /// One of them, no matter which.
    pub fn draw(&mut self) -> Option<Key> {
        let n = self.keys.len();
        (n > 0).then(|| {
            let place = self.below(n);
            self.keys.swap_remove(place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tao_model::ObjectId;

    #[test]
    fn every_key_is_drawn_as_often() {
        let all = || (1..=3 * POOL as i64).filter_map(ObjectId::new).map(Key::Object);
        let mut pool = Pool::new();
        let mut drawn: HashMap<Key, u32> = HashMap::new();
        for _ in 0..100 {
            pool.refill(POOL, all());
            (0..POOL).filter_map(|_| pool.draw()).for_each(|key| *drawn.entry(key).or_default() += 1);
        }
        assert_eq!(drawn.values().sum::<u32>(), 100 * POOL as u32);
        // Each is expected 33 times; the deviation is below 5, and there are 12,288 of them.
        let often: Vec<_> = all().map(|key| drawn.get(&key).copied().unwrap_or_default()).collect();
        assert!(often.iter().all(|n| (5..70).contains(n)), "{:?}", (often.iter().min(), often.iter().max()));
    }
}
