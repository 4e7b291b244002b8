//! What a hit costs, by hand: `cargo test --release -p tao-cache --test hits -- --ignored --nocapture`

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use tao_cache::{CacheOptions, CachedList, CachedReader, Entry, Fresh, Lookup, MemoryCache, Mode, Read, Upstream};
use tao_model::{Edge, Error, Key, ObjectId, Position, Result, SystemClock, TypeId};
use tao_proto::edges::encode_list;
use tao_proto::internal::{call::Op, reply::Result as ReplyBody};

const KEYS: u64 = 100_000;
const READS: u64 = 2_000_000;

/// Is never asked.
struct Nobody;

impl Upstream for Nobody {
    type Context = ();

    fn deadline((): &()) -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(1)
    }

    async fn read(&self, _: ObjectId, _: Op, _: Position, _: Mode, (): &()) -> Result<Fresh<ReplyBody>> {
        Err(Error::unavailable("nobody is there"))
    }
}

fn id(n: u64) -> ObjectId {
    ObjectId::new(n as i64 + 1).expect("positive")
}

/// Nanoseconds that one of so many threads takes for a read of a random key.
fn nanoseconds(threads: u64, read: impl Fn(ObjectId) + Sync) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let read = &read;
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..READS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    read(id((random >> 33) % KEYS));
                }
            });
        }
    });
    start.elapsed().as_nanos() as f64 / READS as f64
}

#[test]
#[ignore = "a measurement, not a test"]
fn cost() {
    let memory = MemoryCache::new(CacheOptions {
        capacity_bytes: 1 << 30,
        clock: Arc::new(SystemClock),
        tier: "measured",
        log: 0,
    });
    let at = Position::new(1, 5);
    memory.start(at);
    let edge = |n| Edge { id2: id(u64::from(n)), time: n, data: Bytes::new() };
    let edges: Vec<_> = (0..50).rev().map(edge).collect();
    let list = CachedList::from_encoded(50, encode_list(&edges, usize::MAX).0).expect("a list");
    let list = Entry::List(Arc::new(list));
    for n in 0..KEYS {
        assert!(memory.fill(Key::Object(id(n)), at, &Entry::Object(Some(Bytes::from(vec![7; 100])))).is_some());
        assert!(memory.fill(Key::List(id(n), TypeId(1)), at, &list).is_some());
    }
    let reader = CachedReader::new(memory, None, Nobody);
    for threads in [1, 2] {
        let lookup = |key: Key| {
            let found = reader.memory().lookup(&key, 50, at);
            assert!(matches!(black_box(found), Lookup::Hit(..)));
        };
        let read = |id| {
            let read = Read { floor: at, mode: Mode::Cached, context: () };
            let found = reader.object(id, read).now_or_never();
            assert!(matches!(black_box(found), Some(Ok(_))));
        };
        let peek = |id| {
            let seen = reader.peek_object(id, at, Mode::Cached, |object, _| black_box(object.map_or(0, <[u8]>::len)));
            assert_eq!(seen, Some(100));
        };
        let peek_list = |id| {
            let seen = reader.peek_list(id, TypeId(1), 50, at, Mode::Cached, |list, _| black_box(list.encoded()).len());
            assert!(seen.is_some());
        };
        println!("{threads} threads, {KEYS} keys, nanoseconds a read and thread:");
        println!("  object, memory cache  {:8.0}", nanoseconds(threads, |id| lookup(Key::Object(id))));
        println!("  list, memory cache    {:8.0}", nanoseconds(threads, |id| lookup(Key::List(id, TypeId(1)))));
        println!("  object, whole reader  {:8.0}", nanoseconds(threads, read));
        println!("  object, peek          {:8.0}", nanoseconds(threads, peek));
        println!("  list, peek            {:8.0}", nanoseconds(threads, peek_list));
        println!("  one hot object, peek  {:8.0}", nanoseconds(threads, |_| peek(id(1))));
        println!("  one hot object, read  {:8.0}", nanoseconds(threads, |_| read(id(1))));
    }
}
