//! The second level on a real Redis: shared by followers, never believed beyond what a value says of itself, and never missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use tao_cache::{CacheOptions, CachedReader, Fresh, MemoryCache, Mode, Read, RedisCache, Upstream};
use tao_harness::{Redis, eventually_async};
use tao_model::{Change, ChangeKind, ClusterId, ObjectId, Position, Result, ShardId, SystemClock};
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
    let memory = MemoryCache::new(CacheOptions { capacity_bytes: 1 << 20, clock: Arc::new(SystemClock), tier: "test" });
    memory.start(at(start));
    let asked = Arc::new(AtomicUsize::new(0));
    let leader = Leader { asked: asked.clone(), head: at(head) };
    let reader = CachedReader::new(memory, Some(RedisCache::connect(redis).expect("an URL")), leader);
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
    let key = format!("tao:1:{}:o:{n}", ClusterId([5; 16]));
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
    third.reader.apply_write(&[Change { position: at(25), shard: ShardId(0), kind }]);
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
    behind.reader.memory().evict(&tao_model::Key::Object(id(n)));
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
        let key = format!("tao:1:{}:o:{n}", ClusterId([5; 16]));
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
