//! The second level on a real Redis: shared by followers, never believed beyond what a value says of itself, and never missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use tao_cache::{
    CacheOptions, CachedList, CachedReader, Entry, Fresh, MemoryCache, Mode, Read, RedisCache, SharedCache, Upstream,
};
use tao_harness::{Redis, eventually_async};
use tao_model::{Change, ChangeKind, ClusterId, Edge, Key, ObjectId, Position, Result, ShardId, SystemClock, TypeId};
use tao_proto::edges::encode_list;
use tao_proto::internal::{ObjectState, call::Op, reply::Result as ReplyBody};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

/// A leader that always answers with its head, and counts how often it is asked.
struct Leader {
    asked: Arc<AtomicUsize>,
    head: Position,
}

impl Upstream for Leader {
    type Context = ();

    fn deadline((): &()) -> Instant {
        Instant::now() + SOON
    }

    async fn read(&self, owner: ObjectId, _: Op, _: Position, _: Mode, (): &()) -> Result<Fresh<ReplyBody>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let state = ObjectState { object: Some(value(owner, self.head)) };
        Ok(Fresh { as_of: self.head, value: ReplyBody::Object(state) })
    }
}

/// An object that tells what it is and as of when.
fn value(id: ObjectId, at: Position) -> Bytes {
    format!("{id} at {at}").into()
}

struct Follower {
    reader: CachedReader<Leader>,
    asked: Arc<AtomicUsize>,
}

/// A follower whose stream began at `start`, behind a leader at `head`.
fn follower(redis: &str, start: u64, head: u64) -> Follower {
    let memory =
        MemoryCache::new(CacheOptions { capacity_bytes: 1 << 20, clock: Arc::new(SystemClock), tier: "test", log: 0 });
    memory.start(at(start));
    let asked = Arc::new(AtomicUsize::new(0));
    let leader = Leader { asked: asked.clone(), head: at(head) };
    let reader = CachedReader::new(memory, Some(RedisCache::connect(redis, &[]).expect("an URL")), leader);
    reader.meet(ClusterId([5; 16]));
    Follower { reader, asked }
}

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

fn id(n: i64) -> ObjectId {
    ObjectId::new(n).expect("positive")
}

impl Follower {
    async fn get(&self, n: i64) -> Fresh<Option<Bytes>> {
        let read = Read { floor: Position::ZERO, mode: Mode::Cached, context: () };
        self.reader.object(id(n), read).await.expect("an answer")
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn stored(redis: &Redis, n: i64) -> anyhow::Result<Vec<u8>> {
    let mut connection = redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?;
    let key = format!("tao:1:{}:0000000000000000:o:{n}", ClusterId([5; 16]));
    let raw: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(&mut connection).await?;
    raw.ok_or_else(|| anyhow::anyhow!("not there"))
}

/// Reads new objects until one has gone into Redis: the connection is made in the background.
async fn warm(redis: &Redis, follower: &Follower, from: i64) -> i64 {
    let mut n = from;
    eventually_async(SOON, async || {
        n += 1;
        follower.get(n).await;
        for _ in 0..50 {
            if stored(redis, n).await.is_ok() {
                return Ok(n);
            }
        }
        anyhow::bail!("Redis holds nothing yet")
    })
    .await
    .expect("Redis is used")
}

#[tokio::test]
async fn followers_share_values_and_believe_them_only_as_far_as_their_memory_goes() {
    let redis = Redis::start().unwrap();
    let first = follower(&redis.url(), 10, 20);
    let n = warm(&redis, &first, 0).await;

    let second = follower(&redis.url(), 15, 30);
    warm(&redis, &second, 1_000).await;
    let asked = second.asked();
    let shared = second.get(n).await;
    assert_eq!((second.asked(), shared.value), (asked, Some(value(id(n), at(20)))), "from Redis");
    assert_eq!(second.get(n).await.value, Some(value(id(n), at(20))), "from memory");

    // A follower that knows of a change after it, and one whose stream began after it, ask their leader.
    let third = follower(&redis.url(), 15, 30);
    warm(&redis, &third, 2_000).await;
    let kind = ChangeKind::Object(id(n), None);
    third.reader.memory().apply(&Change { position: at(25), shard: ShardId(0), kind });
    assert_eq!(third.get(n).await.value, Some(value(id(n), at(30))));
    let late = follower(&redis.url(), 35, 40);
    warm(&redis, &late, 3_000).await;
    let asked = late.asked();
    assert_eq!(late.get(n).await.value, Some(value(id(n), at(40))));
    assert_eq!(late.asked(), asked + 1);

    // What is older never replaces what is newer.
    eventually_async(SOON, async || {
        ensure!(stored(&redis, n).await?.ends_with(b"at 1:40"), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let behind = follower(&redis.url(), 10, 20);
    warm(&redis, &behind, 4_000).await;
    behind.reader.memory().evict(&Key::Object(id(n)));
    behind.get(n).await;
    warm(&redis, &behind, 5_000).await;
    assert!(stored(&redis, n).await.unwrap().ends_with(b"at 1:40"));
}

#[tokio::test]
async fn garbage_is_no_value() {
    let redis = Redis::start().unwrap();
    let first = follower(&redis.url(), 10, 20);
    warm(&redis, &first, 0).await;
    let mut connection = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    for (n, garbage) in [(500, b"".as_slice()), (501, b"no value at all, but long enough"), (502, &[1; 17])] {
        let key = format!("tao:1:{}:0000000000000000:o:{n}", ClusterId([5; 16]));
        let _: () = redis::cmd("SET").arg(key).arg(garbage).query_async(&mut connection).await.unwrap();
        assert_eq!(first.get(n).await.value, Some(value(id(n), at(20))));
    }
}

#[tokio::test]
async fn reads_go_on_while_redis_is_absent_dies_and_comes_back() {
    let mut redis = Redis::start().unwrap();
    let url = redis.url();
    redis.kill().unwrap();
    let follower = follower(&url, 10, 20);
    assert_eq!(follower.get(1).await.value, Some(value(id(1), at(20))), "absent at the start");
    redis.restart().unwrap();
    let last = warm(&redis, &follower, 100).await;
    redis.kill().unwrap();
    for n in 200..220 {
        assert_eq!(follower.get(n).await.value, Some(value(id(n), at(20))), "dead");
    }
    redis.restart().unwrap();
    assert!(warm(&redis, &follower, last + 1_000).await > last, "used again");
}

#[tokio::test]
async fn reads_go_on_while_redis_hangs() {
    let redis = Redis::start().unwrap();
    let follower = follower(&redis.url(), 10, 20);
    let last = warm(&redis, &follower, 0).await;
    redis.pause().unwrap();
    for n in 200..205 {
        assert_eq!(follower.get(n).await.value, Some(value(id(n), at(20))), "hanging");
    }
    redis.resume().unwrap();
    assert!(warm(&redis, &follower, last + 1_000).await > last, "used again");
}

/// A value that a follower with a later position has validated says so to those whose streams begin later.
#[tokio::test]
async fn what_was_validated_is_raised() {
    let redis = Redis::start().unwrap();
    let first = follower(&redis.url(), 10, 20);
    let n = warm(&redis, &first, 0).await;
    let second = follower(&redis.url(), 15, 5_000);
    warm(&redis, &second, 1_000).await;
    let kind = ChangeKind::Object(id(999_999), None);
    let other = Change { position: at(5_000), shard: ShardId(0), kind };
    second.reader.memory().apply_stream(at(15), &[other]).unwrap();
    let asked = second.asked();
    let fresh = second.get(n).await;
    assert_eq!((second.asked(), fresh.as_of, fresh.value), (asked, at(5_000), Some(value(id(n), at(20)))));
    eventually_async(SOON, async || {
        ensure!(stored(&redis, n).await?[1..17] == position_bytes(at(5_000)), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    assert!(stored(&redis, n).await.unwrap().ends_with(b"at 1:20"), "the value stays");

    let third = follower(&redis.url(), 4_000, 6_000);
    warm(&redis, &third, 2_000).await;
    let asked = third.asked();
    assert_eq!((third.get(n).await.as_of, third.asked()), (at(5_000), asked));
}

/// A follower's warmth after a restart: hits of Redis, by those and its misses.
#[tokio::test]
async fn a_restarted_follower_tells_how_warm_redis_was() {
    let redis = Redis::start().unwrap();
    let before = follower(&redis.url(), 10, 20);
    let from = warm(&redis, &before, 0).await;
    for n in from + 1..=from + 20 {
        before.get(n).await;
        eventually_async(SOON, async || stored(&redis, n).await).await.unwrap();
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let after = metrics::with_local_recorder(&recorder, || follower(&redis.url(), 15, 30));
    let told = |what: &str, level: &str| -> u64 {
        after.reader.memory().publish();
        let name = format!("tao_cache_{what}_total{{tier=\"test\",level=\"{level}\",kind=\"object\"}} ");
        let text = recorder.handle().render();
        text.lines().find_map(|line| line.strip_prefix(&name)).expect("told").parse().expect("a number")
    };
    assert_eq!((told("hits", "redis"), told("misses", "redis")), (0, 0), "told before the first");
    warm(&redis, &after, 1_000).await;
    let (hits, misses) = (told("hits", "redis"), told("misses", "redis"));
    for n in from + 1..=from + 25 {
        after.get(n).await;
    }
    assert_eq!((told("hits", "redis") - hits, told("misses", "redis") - misses), (20, 5));
    assert!(told("misses", "memory") >= 25);
}

fn position_bytes(at: Position) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&at.epoch.to_be_bytes());
    bytes[8..].copy_from_slice(&at.lsn.to_be_bytes());
    bytes
}

/// Each runtime that reads has a connection of its own.
#[test]
fn runtimes_read_by_themselves() {
    let server = Redis::start().unwrap();
    let runtimes =
        [(), ()].map(|()| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let handles = runtimes.each_ref().map(|runtime| runtime.handle().clone());
    let cache = {
        let _entered = handles[0].enter();
        std::sync::Arc::new(RedisCache::connect(&server.url(), &handles).unwrap())
    };
    cache.meet(ClusterId([5; 16]));
    let key = Key::Object(id(1));
    for runtime in &runtimes {
        let cache = cache.clone();
        let read = async move {
            loop {
                cache.set(key, at(1), &Entry::Object(None));
                if let Some(read) = cache.get(key).await {
                    return read;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let read = runtime.spawn(async { tokio::time::timeout(SOON, read).await });
        assert_eq!(runtime.block_on(read).unwrap().unwrap(), (at(1), Entry::Object(None)));
    }
    let mut asked = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut asked).unwrap();
    assert_eq!(clients.lines().filter(|line| !line.contains(" cmd=client")).count(), 2, "{clients}");
}

/// The scripts, without caches around: one by one, in order.
#[tokio::test]
async fn values_never_go_back_and_only_what_is_still_there_is_raised() {
    let server = Redis::start().unwrap();
    let redis = RedisCache::connect(&server.url(), &[]).unwrap();
    redis.meet(ClusterId([5; 16]));
    let key = Key::Object(id(1));
    let object = |text: &'static str| Entry::Object(Some(Bytes::from_static(text.as_bytes())));
    eventually_async(SOON, async || {
        redis.set(key, at(1), &object("first"));
        redis.get(key).await.ok_or_else(|| anyhow::anyhow!("not yet connected"))
    })
    .await
    .unwrap();
    let mark = std::sync::atomic::AtomicI64::new(100);
    // Writes are done in order: when a later one is there, the earlier ones are done.
    let done = async || {
        let mark = Key::Object(id(mark.fetch_add(1, Ordering::SeqCst)));
        redis.set(mark, at(1), &Entry::Object(None));
        let there = async || redis.get(mark).await.ok_or_else(|| anyhow::anyhow!("not yet"));
        eventually_async(SOON, there).await.unwrap();
        redis.get(key).await.unwrap()
    };
    let steps = [
        (Position::new(1, 9), "newer", true),
        (Position::new(1, 8), "older", false),
        (Position::new(1, 9), "the same again", false),
        (Position::new(1, 10), "ten is more than nine", true),
        (Position::new(1_700_000_000, 3), "a newer epoch", true),
        (Position::new(1, 99), "an older epoch", false),
        (Position::new(1_700_000_000, 5_000_000_000), "beyond 32 bits", true),
        (Position::new(1_700_000_000, 4_999_999_999), "one less", false),
    ];
    let mut there = (at(1), object("first"));
    for (position, text, is_taken) in steps {
        redis.set(key, position, &object(text));
        if is_taken {
            there = (position, object(text));
        }
        assert_eq!(done().await, there, "{text}");
    }
    let (from, to) = (there.0, there.0.plus(1_000));
    redis.raise(key, from.plus(1), to.plus(1));
    assert_eq!(done().await, there, "another value was validated");
    redis.raise(key, from, to);
    assert_eq!(done().await, (to, there.1.clone()));

    let lists = Key::List(id(1), TypeId(7));
    let edges = [Edge { id2: id(9), time: 4, data: Bytes::new() }, Edge { id2: id(8), time: 3, data: Bytes::new() }];
    let list = CachedList::from_encoded(5, encode_list(&edges, usize::MAX).0).unwrap();
    let list = Entry::List(Arc::new(list));
    redis.set(lists, at(3), &list);
    done().await;
    assert_eq!(redis.get(lists).await, Some((at(3), list)));
}
