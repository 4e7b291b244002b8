//! Hits and misses in memory, counted by each thread for itself: a counter that all cores raise costs them more than a hit does.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;
use tao_model::Key;

thread_local! {
    /// Which of the striped counters is this thread's; and some random bits.
    static LOCAL: Cell<(u32, u32)> = const { Cell::new((u32::MAX, 0)) };
}

/// This thread's number, and random bits that are good enough to take steps by chance.
fn local() -> (u32, u32) {
    static THREADS: AtomicU32 = AtomicU32::new(0);
    let (mut thread, mut random) = LOCAL.get();
    if thread == u32::MAX {
        thread = THREADS.fetch_add(1, Ordering::Relaxed);
        random = thread.wrapping_mul(0x9e37_79b9) | 1;
    }
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    LOCAL.set((thread, random));
    (thread, random)
}

/// Random bits.
pub(crate) fn random() -> u32 {
    local().1
}

/// See the module.
pub(crate) struct Reads(Box<[CachePadded<[AtomicU64; 4]>]>);

impl Reads {
    pub fn new() -> Self {
        let threads = 2 * thread::available_parallelism().map_or(1, NonZero::get);
        Self((0..threads.next_power_of_two()).map(|_| CachePadded::default()).collect())
    }

    fn count(&self, which: usize) {
        let own = local().0 as usize & (self.0.len() - 1);
        self.0[own][which].fetch_add(1, Ordering::Relaxed);
    }

    pub fn hit(&self, key: &Key) {
        self.count(usize::from(matches!(key, Key::List(..))));
    }

    pub fn missed(&self, key: &Key) {
        self.count(2 + usize::from(matches!(key, Key::List(..))));
    }

    /// Hits of objects and of lists, and misses of both.
    pub fn sums(&self) -> [u64; 4] {
        let mut sums = [0; 4];
        for own in &self.0 {
            sums.iter_mut().zip(own.iter()).for_each(|(sum, count)| *sum += count.load(Ordering::Relaxed));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tao_model::{ObjectId, TypeId};

    #[test]
    fn no_thread_loses_a_count() {
        let id = ObjectId::new(1).unwrap();
        let (object, list) = (Key::Object(id), Key::List(id, TypeId(1)));
        let reads = Reads::new();
        let begin = |_| {
            for _ in 0..1_000 {
                reads.hit(&object);
                reads.hit(&list);
                reads.hit(&list);
                reads.missed(&object);
            }
            reads.missed(&list);
        };
        thread::scope(|scope| (0..40).for_each(|n| drop(scope.spawn(move || begin(n)))));
        assert_eq!(reads.sums(), [40_000, 80_000, 40_000, 40]);
    }

    #[test]
    fn random_bits_are_about_even() {
        let mut set = [0; 32];
        for _ in 0..10_000 {
            let bits = random();
            set.iter_mut().enumerate().for_each(|(n, set)| *set += bits >> n & 1);
        }
        assert!(set.iter().all(|set| (4_500..5_500).contains(set)), "{set:?}");
    }
}
