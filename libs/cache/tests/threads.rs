//! Readers, a stream, acknowledged writes and resets at once: a hit is always the state at the freshness that it claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use tao_cache::{CacheOptions, Entry, Lookup, MemoryCache};
use tao_model::mutation::{Rule, without};
use tao_model::{Change, ChangeKind, Key, ObjectId, Position, ShardId, SystemClock};

const OBJECTS: u64 = 7;
const COMMITS: u64 = 60_000;
const RESET_EVERY: u64 = 1_500;
const READERS: u64 = 3;

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

/// The change at a position puts the object that is its turn.
fn object(lsn: u64) -> ObjectId {
    ObjectId::new((lsn % OBJECTS) as i64 + 1).expect("positive")
}

/// An object's state at a position: the newest position at which it was its turn.
fn state(turn: u64, at: u64) -> Entry {
    let put = if at < turn { 0 } else { at - (at - turn) % OBJECTS };
    Entry::Object((put > 0).then(|| Bytes::copy_from_slice(&put.to_be_bytes())))
}

fn change(lsn: u64) -> Change {
    let kind = ChangeKind::Object(object(lsn), Some(Bytes::copy_from_slice(&lsn.to_be_bytes())));
    Change { position: at(lsn), shard: ShardId(0), kind }
}

struct Shared {
    cache: MemoryCache,
    /// What is committed.
    head: AtomicU64,
    is_done: AtomicBool,
    hits: AtomicU64,
}

/// Commits and applies, now and then with a stream that breaks and resumes a little earlier.
fn write(shared: &Shared) {
    let (mut sent, mut head) = (0, 0);
    // Readers may get a turn late, and never would when a hit were impossible.
    let is_read = || shared.hits.load(Ordering::Relaxed) > COMMITS / 100;
    while (head < COMMITS || (head < 100 * COMMITS && !is_read())) && !shared.is_done.load(Ordering::SeqCst) {
        head += 1 + head % 3;
        shared.head.store(head, Ordering::SeqCst);
        if head % 5 == 0 {
            continue;
        }
        let changes: Vec<_> = (sent + 1..=head).map(change).collect();
        shared.cache.apply_stream(at(sent), &changes).expect("gapless");
        sent = head;
        if head % RESET_EVERY < 3 {
            shared.cache.disconnected();
            sent = head - head % 4;
            shared.cache.start(at(sent));
        }
    }
    let changes: Vec<_> = (sent + 1..=head).map(change).collect();
    shared.cache.apply_stream(at(sent), &changes).expect("gapless");
    shared.is_done.store(true, Ordering::SeqCst);
}

/// Reads and fills, some of it late; and hears the answers of its own writes before the stream brings them.
fn read(shared: &Shared, reader: u64) {
    let mut random = reader + 1;
    let mut seen = [0u64; OBJECTS as usize];
    let mut late: Option<(Key, u64, Entry)> = None;
    let mut is_last = false;
    while !is_last {
        is_last = shared.is_done.load(Ordering::SeqCst);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (turn, choice) = ((random >> 33) % OBJECTS, random >> 40);
        let key = Key::Object(object(turn));
        let floor = if choice & 1 == 1 { seen[turn as usize] } else { 0 };
        match shared.cache.lookup(&key, 0, at(floor)) {
            Lookup::Hit(entry, as_of) => {
                assert!(as_of >= at(floor), "P1: {as_of} below {floor}");
                assert_eq!(entry, state(turn, as_of.lsn), "P2: object {turn} at {as_of}");
                if floor > 0 {
                    seen[turn as usize] = as_of.lsn;
                }
                shared.hits.fetch_add(1, Ordering::Relaxed);
            }
            Lookup::Miss(floor) => {
                let head = shared.head.load(Ordering::SeqCst);
                assert!(at(head) >= floor, "a floor from the future: {floor}");
                let fill = (key, head, state(turn, head));
                let arrives = if choice & 2 == 0 { Some(fill) } else { late.replace(fill) };
                if let Some((key, head, entry)) = arrives {
                    shared.cache.fill(key, at(head), &entry);
                }
                seen[turn as usize] = seen[turn as usize].max(head);
            }
        }
        if choice % 16 == 2 {
            // The newest write of this object is acknowledged here: it is seen from now on, without a token.
            let head = shared.head.load(Ordering::SeqCst);
            if let Some(put) = (1..=head).rev().take(OBJECTS as usize).find(|n| n % OBJECTS == turn) {
                shared.cache.apply(&change(put));
                let shown = match shared.cache.lookup(&key, 0, Position::ZERO) {
                    Lookup::Hit(_, shown) | Lookup::Miss(shown) => shown,
                };
                assert!(shown >= at(put), "P3: acknowledged at {put}, and {shown} is shown");
            }
        }
        if choice % 64 == 3 {
            shared.cache.evict(&key);
        }
    }
}

/// Says how many hits were checked; an error when a reader saw what it should not have.
fn everything_at_once(off: Option<Rule>) -> thread::Result<u64> {
    let cache =
        MemoryCache::new(CacheOptions { capacity_bytes: 1 << 20, clock: Arc::new(SystemClock), tier: "test", log: 0 });
    cache.start(at(0));
    let shared = Shared { cache, head: AtomicU64::new(0), is_done: AtomicBool::new(false), hits: AtomicU64::new(0) };
    thread::scope(|scope| {
        let begin = |reader| {
            let shared = &shared;
            scope.spawn(move || {
                let _end = EndsAll(shared);
                without(off, || read(shared, reader));
            })
        };
        let readers: Vec<_> = (0..READERS).map(begin).collect();
        without(off, || write(&shared));
        // All of them, or the scope panics for those that are left.
        let ends: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ends.into_iter().collect::<thread::Result<()>>()
    })?;
    // P5.
    let head = shared.head.load(Ordering::SeqCst);
    for turn in 0..OBJECTS {
        if let Lookup::Hit(entry, _) = shared.cache.lookup(&Key::Object(object(turn)), 0, Position::ZERO) {
            assert_eq!(entry, state(turn, head));
        }
    }
    Ok(shared.hits.load(Ordering::Relaxed))
}

#[test]
fn hits_are_true_while_everything_happens_at_once() {
    let hits = everything_at_once(None).expect("every hit is true");
    assert!(hits > COMMITS / 100, "hardly anything was read from the cache");
}

/// What a history of single steps can't show: see the coherence test.
#[test]
fn loading_applied_after_the_entry_is_caught() {
    let caught = (1..=200).find(|_| everything_at_once(Some(Rule::AppliedLoadedFirst)).is_err());
    println!("{:28} caught in run {} of {COMMITS} positions", Rule::AppliedLoadedFirst.name(), caught.expect("caught"));
}

/// A reader that fails ends the others.
struct EndsAll<'a>(&'a Shared);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.is_done.store(true, Ordering::SeqCst);
    }
}

#[test]
fn states_are_what_the_changes_make() {
    let mut now = [0u64; OBJECTS as usize];
    for lsn in 1..50 {
        now[(lsn % OBJECTS) as usize] = lsn;
        for turn in 0..OBJECTS {
            let put = now[turn as usize];
            let expected = Entry::Object((put > 0).then(|| Bytes::copy_from_slice(&put.to_be_bytes())));
            assert_eq!(state(turn, lsn), expected, "{turn} at {lsn}");
        }
    }
}
