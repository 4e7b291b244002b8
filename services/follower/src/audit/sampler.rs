//! Keys that clients have read, to look at some of them again.

use std::cell::Cell;
use std::collections::HashMap;

use parking_lot::Mutex;
use rand::seq::index;
use tao_model::Key;

/// Keys that are kept.
const CAPACITY: usize = 8_192;
/// One read in so many is looked at, by each thread, while the sampler is full.
const EVERY: u32 = 32;

/// A random part of the keys that were read: all of them, until there are too many. Reads wait for nothing here.
#[derive(Debug, Default)]
pub struct Sampler {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Vec<Key>,
    /// By key: its place.
    places: HashMap<Key, usize>,
}

thread_local! {
    static READS: Cell<u32> = const { Cell::new(0) };
    /// Whether the sampler that this thread offered to last was full.
    static FULL: Cell<bool> = const { Cell::new(false) };
}

impl Sampler {
    /// A key was read.
    pub fn offer(&self, key: Key) {
        let reads = READS.get().wrapping_add(1);
        READS.set(reads);
        if FULL.get() && !reads.is_multiple_of(EVERY) {
            return;
        }
        // Whoever finds it locked has sampled enough.
        if let Some(mut kept) = self.kept.try_lock() {
            FULL.set(kept.offer(key));
        }
    }

    /// So many of the keys, chosen at random; all when there are fewer.
    pub fn sample(&self, n: usize) -> Vec<Key> {
        let kept = self.kept.lock();
        let chosen = index::sample(&mut rand::rng(), kept.keys.len(), n.min(kept.keys.len()));
        chosen.into_iter().map(|place| kept.keys[place]).collect()
    }
}

impl Kept {
    /// Says whether it is full.
    fn offer(&mut self, key: Key) -> bool {
        if self.places.contains_key(&key) {
            return self.keys.len() >= CAPACITY;
        }
        if self.keys.len() < CAPACITY {
            self.places.insert(key, self.keys.len());
            self.keys.push(key);
        } else {
            let place = rand::random_range(0..CAPACITY);
            self.places.remove(&self.keys[place]);
            self.places.insert(key, place);
            self.keys[place] = key;
        }
        self.keys.len() >= CAPACITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tao_model::ObjectId;

    fn key(n: usize) -> Key {
        Key::Object(ObjectId::new(n as i64 + 1).unwrap())
    }

    #[test]
    fn few_keys_are_all_kept_and_many_are_sampled_within_bounds() {
        let sampler = Sampler::default();
        (0..100).for_each(|n| sampler.offer(key(n % 10)));
        let all: HashSet<_> = sampler.sample(1_000).into_iter().collect();
        assert_eq!(all, (0..10).map(key).collect());
        assert_eq!(sampler.sample(3).len(), 3);
        (0..CAPACITY * 40).for_each(|n| sampler.offer(key(n)));
        let sample = sampler.sample(usize::MAX);
        assert_eq!(sample.iter().collect::<HashSet<_>>().len(), CAPACITY, "each once");
        assert!(sample.iter().any(|k| k.owner().get() as usize > CAPACITY * 30), "later ones come in, too");
    }
}
