//! Of a graph that doesn't fit, the cache keeps what it is asked for most: against the best that can be done with as many bytes by
//! whoever knows all that will be read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tao_cache::{CacheOptions, CachedList, CachedReader, Entry, Fresh, MemoryCache, Mode, Upstream};
use tao_model::{Edge, Error, Key, ObjectId, Position, Result, SystemClock, TypeId};
use tao_proto::edges::encode_list;
use tao_proto::internal::{call::Op, reply::Result as ReplyBody};

const IDS: usize = 10_000;
const TYPES: u64 = 3;
/// Half of them to warm up.
const READS: usize = 2_400_000;
/// Of ids: LinkBench's reads are skewed so.
const SKEW: f64 = 0.8;
/// Of the graph's bytes, what the cache has.
const SHARE: f64 = 0.2;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn part(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 31) as f64
    }
}

/// Is never asked: what is missed is filled in by hand.
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

fn id(n: usize) -> ObjectId {
    ObjectId::new(n as i64 + 1).expect("positive")
}

/// Objects of some hundred bytes; lists, most of them short and some of them long, of which answers bring 64 edges.
fn graph(random: &mut Random) -> HashMap<Key, Entry> {
    let mut graph = HashMap::new();
    for n in 0..IDS {
        let len = 80 + (-150.0 * (1.0 - random.part()).ln()) as usize;
        graph.insert(Key::Object(id(n)), Entry::Object(Some(Bytes::from(vec![7; len]))));
        for atype in 0..TYPES {
            let all = (1.0 / (1.0 - random.part())).powf(0.9) as u64 - 1;
            let data = Bytes::from(vec![0x3a; random.below(30) as usize]);
            let edge =
                |n: u64| Edge { id2: id(n as usize + (1 << 50)), time: n as u32 + 1_000_000, data: data.clone() };
            let edges: Vec<_> = (0..all.min(64)).rev().map(edge).collect();
            let list = CachedList::from_encoded(all, raw(&edges)).expect("a list");
            graph.insert(Key::List(id(n), TypeId(atype as u32 + 1)), Entry::List(Arc::new(list)));
        }
    }
    graph
}

fn raw(edges: &[Edge]) -> Bytes {
    encode_list(edges, usize::MAX).0
}

/// What is read, as TAO's clients do: objects in 29 % of the reads, else lists.
fn reads(random: &mut Random) -> Vec<Key> {
    let mut sum = 0.0;
    let mut up_to: Vec<f64> = Vec::new();
    for rank in 1..=IDS {
        sum += (rank as f64).powf(-SKEW);
        up_to.push(sum);
    }
    let draw = |_| {
        let at = random.part() * sum;
        let rank = up_to.partition_point(|up_to| *up_to < at).min(IDS - 1);
        // Neighbours in rank are not neighbours in the graph.
        let id = id(rank * 7_919 % IDS);
        if random.part() < 0.289 { Key::Object(id) } else { Key::List(id, TypeId(random.below(TYPES) as u32 + 1)) }
    };
    (0..READS).map(draw).collect()
}

fn cache(capacity_bytes: u64) -> CachedReader<Nobody> {
    let memory = MemoryCache::new(CacheOptions { capacity_bytes, clock: Arc::new(SystemClock), tier: "test", log: 0 });
    memory.start(Position::new(1, 1));
    CachedReader::new(memory, None, Nobody)
}

fn is_hit(reader: &CachedReader<Nobody>, key: Key) -> bool {
    match key {
        Key::Object(id) => reader.peek_object(id, Position::ZERO, Mode::Cached, |_, _| ()).is_some(),
        Key::List(id1, atype) => reader.peek_list(id1, atype, 64, Position::ZERO, Mode::Cached, |_, _| ()).is_some(),
    }
}

/// What each entry takes, by the cache's own account.
fn bytes(graph: &HashMap<Key, Entry>) -> HashMap<Key, u64> {
    let all = cache(1 << 32);
    let mut before = all.memory().holdings().bytes;
    let each = |(key, entry): (&Key, &Entry)| {
        all.memory().fill(*key, Position::new(1, 1), entry);
        let now = all.memory().holdings().bytes;
        (*key, now - std::mem::replace(&mut before, now))
    };
    graph.iter().map(each).collect()
}

#[test]
fn hits_are_nearly_as_many_as_the_bytes_allow() {
    let mut random = Random(5);
    let graph = graph(&mut random);
    let reads = reads(&mut random);
    let bytes = bytes(&graph);
    let capacity = (bytes.values().sum::<u64>() as f64 * SHARE) as u64;
    let (warming, counted) = reads.split_at(READS / 2);

    // The best that stays as it is: the most reads for their bytes.
    let mut asked: HashMap<Key, u64> = HashMap::new();
    counted.iter().for_each(|key| *asked.entry(*key).or_default() += 1);
    let mut by_worth: Vec<_> = asked.into_iter().collect();
    by_worth.sort_by(|(a, n), (b, m)| (m * bytes[a]).cmp(&(n * bytes[b])));
    let mut room = capacity;
    let best: u64 = by_worth
        .iter()
        .filter_map(|(key, n)| {
            room = room.checked_sub(bytes[key])?;
            Some(n)
        })
        .sum();

    let reader = cache(capacity);
    let read = |key: &Key| {
        let hit = is_hit(&reader, *key);
        if !hit {
            reader.memory().fill(*key, Position::new(1, 1), &graph[key]);
        }
        hit
    };
    let warm = warming.iter().filter(|key| read(key)).count();
    assert!(warm > 0);
    let hits = counted.iter().filter(|key| read(key)).count() as u64;
    let holdings = reader.memory().holdings();
    let of_best = hits as f64 / best as f64;
    println!("{hits} hits of {}, {of_best:.3} of the best; {holdings:?} within {capacity} bytes", counted.len());
    assert!(of_best >= 0.97, "{of_best:.3}");
    assert!(holdings.bytes <= capacity && holdings.evictions > 0, "{holdings:?}");
}
