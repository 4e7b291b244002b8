//! The entries of a cache, within a budget of bytes: read without a lock, written under the lock of a part.
//!
//! A hit takes a reference under a guard that only its own thread writes, and writes the entry's frequency now and then. Each part of the
//! entries has a share of the budget, and evicts what is worth least: the fewest reads for its bytes (see [`crate::part`]). Nothing
//! here knows the coherence rules: that an entry goes is allowed at any time.

use std::num::NonZero;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::thread;

use papaya::Guard;
use parking_lot::Mutex;
use tao_model::limits::MAX_ANSWER;
use tao_model::{Key, ObjectId, Position, TypeId};

use crate::counts::Holdings;
use crate::entry::Value;
use crate::footprint;
use crate::frequency::Frequency;
use crate::part::Part;
use crate::reads::random;
use crate::table::{Pinned, Table};

/// A replaced value that is larger is freed as soon as nobody reads it, and not when some others have gathered.
const LARGE: usize = 32 * 1024;
/// Frequencies are halved after so many reads for each entry: what is read more often than others stays known for long.
const READS_PER_AGE: u64 = 64;
/// Fewer entries age as if they were so many.
const MIN_AGING: u64 = 1_000;

/// A key in 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Packed {
    owner: ObjectId,
    list: Option<u32>,
}

impl From<&Key> for Packed {
    fn from(key: &Key) -> Self {
        match key {
            Key::Object(id) => Self { owner: *id, list: None },
            Key::List(id1, atype) => Self { owner: *id1, list: Some(atype.0) },
        }
    }
}

impl From<Packed> for Key {
    fn from(Packed { owner, list }: Packed) -> Self {
        match list {
            None => Self::Object(owner),
            Some(atype) => Self::List(owner, TypeId(atype)),
        }
    }
}

/// A value, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub as_of: Position,
    pub value: Value,
    /// The reset after which it came. It wraps, and by then nothing is left of what it could be mistaken for.
    pub generation: u16,
    /// How often it is read, and in its higher byte the age at which that was right.
    frequency: AtomicU16,
    /// Its place among its part's keys. Written under the part's lock.
    place: AtomicU32,
}

// With its key, it fits into the node that is accounted.
const _: () = assert!(size_of::<Packed>() + size_of::<Kept>() <= footprint::NODE);

impl Kept {
    pub fn bytes(&self) -> u64 {
        footprint::entry(self.value.bytes())
    }

    /// How often it is read, at this age.
    pub fn frequency(&self, age: u8) -> Frequency {
        let [frequency, of] = self.frequency.load(Ordering::Relaxed).to_le_bytes();
        Frequency(frequency).aged(age.wrapping_sub(of))
    }

    pub fn set_frequency(&self, frequency: Frequency, age: u8) {
        let new = u16::from_le_bytes([frequency.0, age]);
        if self.frequency.load(Ordering::Relaxed) != new {
            self.frequency.store(new, Ordering::Relaxed);
        }
    }

    pub fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed) as usize
    }

    pub fn set_place(&self, place: usize) {
        self.place.store(place as u32, Ordering::Relaxed);
    }
}

/// What is written, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// An entry comes, if it is worth more than what would have to go.
    Fill,
    /// An entry changes, if it is still there.
    Change,
}

/// See the module.
pub(crate) struct Entries {
    table: Table,
    parts: Box<[Mutex<Part>]>,
    /// Of each part.
    capacity: u64,
    /// Counts halvings.
    age: AtomicU8,
    /// How many reads there had been at the last one.
    aged_at: AtomicU64,
}

/// The largest list must fit into a part, however many cores there are.
fn parts(capacity_bytes: u64) -> usize {
    let fitting = capacity_bytes as usize / (4 * MAX_ANSWER);
    fitting.clamp(1, 4 * thread::available_parallelism().map_or(1, NonZero::get))
}

impl Entries {
    /// Within a budget; with none, nothing is ever kept.
    pub fn new(capacity_bytes: u64) -> Self {
        let parts = parts(capacity_bytes);
        let share = capacity_bytes / parts as u64;
        let parts: Box<[_]> = (0..parts).map(|n| Mutex::new(Part::new(share, n as u64))).collect();
        let fixed = parts.first().map_or(0, |part| part.lock().fixed_bytes());
        Self {
            table: Table::new(),
            parts,
            capacity: share.saturating_sub(fixed),
            age: AtomicU8::new(0),
            aged_at: AtomicU64::new(0),
        }
    }

    /// A key's map, under a guard.
    pub fn pin(&self, key: &Key) -> Pinned<'_> {
        self.table.pin(self.table.hash(Packed::from(key)))
    }

    /// It was read.
    pub fn touch(&self, kept: &Kept) {
        let age = self.age.load(Ordering::Relaxed);
        kept.set_frequency(kept.frequency(age).raised(random()), age);
    }

    fn part(&self, hash: u64) -> &Mutex<Part> {
        &self.parts[(hash >> 40) as usize % self.parts.len()]
    }

    /// Writes an entry; whoever calls it has the key's stripe.
    pub fn put(&self, put: Put, key: &Key, as_of: Position, generation: u16, value: Value) {
        let key = Packed::from(key);
        let hash = self.table.hash(key);
        let age = self.age.load(Ordering::Relaxed);
        let mut part = self.part(hash).lock();
        let pinned = self.table.pin(hash);
        let there = pinned.get(key);
        let frequency = match (there, put) {
            (Some(there), _) => there.frequency(age),
            (None, Put::Fill) => part.recall.add(hash, random()),
            (None, Put::Change) => return,
        };
        let bytes = footprint::entry(value.bytes());
        let had = there.map_or(0, Kept::bytes);
        if bytes > self.capacity {
            if there.is_some() {
                self.drop_entry(&mut part, key, hash);
            }
            return;
        }
        let worth = (put == Put::Fill).then(|| Part::worth(frequency, bytes));
        while part.bytes + bytes - had > self.capacity {
            let Some(victim) = part.draw(&self.table, age, there.map(|_| key)) else { break };
            if worth.is_some_and(|worth| worth < victim.worth) {
                return;
            }
            part.evicted += 1;
            let of_victim = self.table.hash(victim.key);
            part.recall.put(of_victim, victim.frequency);
            self.drop_entry(&mut part, victim.key, of_victim);
        }
        let place = there.map_or_else(
            || {
                part.recall.free(hash);
                part.keys.push(key)
            },
            Kept::place,
        );
        part.bytes = part.bytes + bytes - had;
        let frequency = AtomicU16::new(u16::from_le_bytes([frequency.0, age]));
        let kept = Kept { as_of, value, generation, frequency, place: AtomicU32::new(place as u32) };
        let replaced = pinned.map.insert(key, kept, &pinned.guard);
        if replaced.is_some_and(|kept| kept.value.bytes() > LARGE) {
            pinned.guard.flush();
        }
    }

    fn drop_entry(&self, part: &mut Part, key: Packed, hash: u64) {
        let Pinned { map, guard } = self.table.pin(hash);
        let Some(kept) = map.remove(&key, &guard) else { return };
        part.bytes -= kept.bytes();
        let place = kept.place();
        if let Some(moved) = part.keys.swap_remove(place)
            && let Some(moved) = self.table.pin(self.table.hash(moved)).get(moved)
        {
            moved.set_place(place);
        }
        if kept.value.bytes() > LARGE {
            guard.flush();
        }
    }

    /// Drops an entry.
    pub fn remove(&self, key: &Key) {
        let key = Packed::from(key);
        let hash = self.table.hash(key);
        self.drop_entry(&mut self.part(hash).lock(), key, hash);
    }

    /// Drops all entries.
    pub fn clear(&self) {
        let mut all: Vec<_> = self.parts.iter().map(|part| part.lock()).collect();
        self.table.clear();
        all.iter_mut().for_each(|part| part.clear());
    }

    /// Halves frequencies when it is time to, after so many reads in all. Whoever reads or compares an entry's next does that one's.
    pub fn grow_older(&self, reads: u64) {
        let entries = self.holdings().entries.max(MIN_AGING);
        let aged_at = self.aged_at.load(Ordering::Relaxed);
        if reads.saturating_sub(aged_at) < entries * READS_PER_AGE {
            return;
        }
        if self.aged_at.compare_exchange(aged_at, reads, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.age.fetch_add(1, Ordering::Relaxed);
            self.parts.iter().for_each(|part| part.lock().recall.halve());
        }
    }

    /// What is here.
    pub fn holdings(&self) -> Holdings {
        let mut sum = Holdings::default();
        for part in &self.parts {
            let part = part.lock();
            sum.bytes += part.bytes + part.fixed_bytes();
            sum.entries += part.keys.len() as u64;
            sum.evictions += part.evicted;
        }
        sum
    }

    /// Up to `n` different keys, each as likely as any other.
    pub fn sample(&self, n: usize) -> Vec<Key> {
        // Parts have about as many keys each: they are hashed.
        let share = n.div_ceil(self.parts.len());
        let mut drawn: Vec<_> = self.parts.iter().flat_map(|part| part.lock().sample(share)).collect();
        while drawn.len() > n {
            drawn.swap_remove(random() as usize % drawn.len());
        }
        drawn.into_iter().map(Key::from).collect()
    }
}
