//! A cache takes the memory that it is given, and no more: in a process of its own, with the program's allocator.
//!
//! `cargo test --release -p tao-cache --test budget -- --nocapture` prints what entries take.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use tao_cache::{CacheOptions, CachedList, Entry, MemoryCache};
use tao_model::{Change, ChangeKind, Edge, Key, ObjectId, Position, ShardId, SystemClock, TypeId};
use tao_proto::edges::encode_list;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUDGET: u64 = 64 << 20;
const PAGE: u64 = 4096;

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split(' ').nth(1).expect("resident pages").parse::<u64>().expect("a number") * PAGE
}

fn id(n: u64) -> ObjectId {
    ObjectId::new(n as i64 + 1).expect("positive")
}

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

fn cache(capacity_bytes: u64) -> MemoryCache {
    let cache = MemoryCache::new(CacheOptions { capacity_bytes, clock: Arc::new(SystemClock), tier: "test", log: 0 });
    cache.start(at(0));
    cache
}

fn object(len: usize) -> Entry {
    Entry::Object(Some(Bytes::from(vec![7; len])))
}

fn list(count: u64, here: u64, data: usize) -> Entry {
    let data = Bytes::from(vec![0x3a; data]);
    let edge = |n: u64| Edge { id2: id(n | 1 << 50), time: n as u32 + 1_700_000_000, data: data.clone() };
    let edges: Vec<_> = (0..here).rev().map(edge).collect();
    Entry::List(Arc::new(CachedList::from_encoded(count, encode_list(&edges, usize::MAX).0).expect("a list")))
}

/// Counts, absences, objects and lists of all sizes, in the proportions of a social graph.
fn mixed(n: u64) -> (Key, Entry) {
    let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    match random % 10 {
        0 => (Key::Object(id(n)), Entry::Object(None)),
        1..=4 => (Key::Object(id(n)), object(40 + (random / 10 % 600) as usize)),
        5 | 6 => (Key::List(id(n), TypeId(1)), list(random % 1_000, 0, 0)),
        7 | 8 => (Key::List(id(n), TypeId(1)), list(3, 1 + random / 10 % 3, 20)),
        _ => (Key::List(id(n), TypeId(2)), list(500, 1 + random / 10 % 64, (random % 50) as usize)),
    }
}

/// What one entry adds to the cache's own account.
fn takes(entry: &Entry) -> u64 {
    let cache = cache(1 << 20);
    let before = cache.holdings().bytes;
    let key = if matches!(entry, Entry::Object(_)) { Key::Object(id(1)) } else { Key::List(id(1), TypeId(1)) };
    cache.fill(key, at(1), entry).expect("kept");
    cache.holdings().bytes - before
}

fn grown(before: u64) -> f64 {
    resident().saturating_sub(before) as f64 / BUDGET as f64
}

#[test]
fn a_full_cache_takes_its_budget() {
    let edges = |n| takes(&list(1_000, n, 0));
    println!("bytes of a count {}, an absence {}", takes(&list(9, 0, 0)), takes(&Entry::Object(None)));
    println!("of an object of 100 bytes {}, of 300 {}", takes(&object(100)), takes(&object(300)));
    println!("of a list of 1 edge {}, of 10 {}, of 64 {}", edges(1), edges(10), edges(64));
    println!("of each further edge without data {:.1}", (edges(1_000) - edges(100)) as f64 / 900.0);

    // What any cache has, and what the first entries of a process bring: thread-locals, the allocator's first pages.
    let small = cache(1 << 20);
    assert!((0..20_000).all(|n| small.fill(mixed(n).0, at(1), &mixed(n).1).is_some()));
    let cache = cache(BUDGET);
    let before = resident();
    for n in 0..700_000 {
        let (key, entry) = mixed(n);
        cache.fill(key, at(1), &entry);
        // What is asked for again stays, so that what comes is not all refused.
        if n % 4 == 0 {
            let (key, _) = mixed(n / 2);
            cache.lookup(&key, 0, Position::ZERO);
        }
    }
    let full = grown(before);
    println!("filled: {:?} of {BUDGET}, {full:.3} of the budget resident", cache.holdings());
    assert!(cache.holdings().bytes <= BUDGET && cache.holdings().bytes > BUDGET * 9 / 10, "{:?}", cache.holdings());
    assert!((0.7..=1.3).contains(&full), "{full:.3}");

    // What was kept first left holes between what is kept now: see docs/adr/0011.
    // Values that change their sizes leave more, and replaced ones wait to be freed.
    for lsn in 2..150_000 {
        let n = lsn * 7 % 700_000;
        let kind = ChangeKind::Object(id(n), Some(Bytes::from(vec![1; 20 + (lsn * 31 % 900) as usize])));
        cache.apply_stream(at(lsn - 1), &[Change { position: at(lsn), shard: ShardId(0), kind }]).ok();
        cache.fill(mixed(n + 7).0, at(lsn), &mixed(n + 7).1);
    }
    let churned = grown(before);
    println!("churned: {:?}, {churned:.3} of the budget resident", cache.holdings());
    assert!(cache.holdings().bytes <= BUDGET);
    assert!(churned <= 1.3, "{churned:.3}");

    cache.start(at(1));
    assert_eq!(cache.holdings().entries, 0);
}

#[test]
fn without_a_budget_nothing_is_kept() {
    let cache = cache(0);
    assert_eq!(cache.fill(Key::Object(id(1)), at(5), &object(10)), Some(at(5)), "it may be handed on");
    assert_eq!(cache.holdings().entries, 0);
}
