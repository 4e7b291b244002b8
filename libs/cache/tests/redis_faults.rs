//! Followers that share a real Redis which evicts, is flushed, dies, and comes back with what it held long ago. Every answer must be true
//! all the while, and Redis be used again afterwards. A failure prints its seed; `TAO_SEED` runs it again.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use parking_lot::Mutex;
use tao_cache::{CacheOptions, CachedReader, Fresh, MemoryCache, Mode, Read, RedisCache, Upstream};
use tao_harness::{Redis, eventually_async};
use tao_model::mutation::{Rule, without};
use tao_model::{Change, ChangeKind, ClusterId, Key, ObjectId, Position, Result, ShardId, SystemClock};
use tao_proto::internal::{ObjectState, call::Op, reply::Result as ReplyBody};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(30);
const OBJECTS: i64 = 600;
/// With all objects, several times what Redis is given.
const VALUE: usize = 16 * 1024;
const STEPS: u64 = 3_000;

/// A log: the positions at which each object was changed, from the first.
#[derive(Default)]
struct Log {
    head: u64,
    changes: HashMap<ObjectId, Vec<u64>>,
}

impl Log {
    fn put(&mut self, id: ObjectId) -> Change {
        self.head += 1;
        self.changes.entry(id).or_default().push(self.head);
        change(id, self.head)
    }

    /// Which change an object shows at a position.
    fn at(&self, id: ObjectId, lsn: u64) -> u64 {
        let changes = self.changes.get(&id).map_or(&[][..], Vec::as_slice);
        changes[..changes.partition_point(|at| *at <= lsn)].last().copied().unwrap_or_default()
    }
}

fn change(id: ObjectId, lsn: u64) -> Change {
    Change { position: at(lsn), shard: ShardId(0), kind: ChangeKind::Object(id, value(lsn)) }
}

/// What an object is whose newest change was at this position: large, and not there before the first.
fn value(lsn: u64) -> Option<Bytes> {
    let mut bytes = vec![0; VALUE];
    bytes[..8].copy_from_slice(&lsn.to_be_bytes());
    (lsn > 0).then(|| bytes.into())
}

fn at(lsn: u64) -> Position {
    Position::new(1, lsn)
}

fn id(n: u64) -> ObjectId {
    ObjectId::new(n as i64 % OBJECTS + 1).expect("positive")
}

/// A leader that is as new as the log.
struct Leader {
    log: Arc<Mutex<Log>>,
    asked: Arc<AtomicUsize>,
}

impl Upstream for Leader {
    type Context = ();

    fn deadline((): &()) -> Instant {
        Instant::now() + SOON
    }

    async fn read(&self, owner: ObjectId, _: Op, _: Position, _: Mode, (): &()) -> Result<Fresh<ReplyBody>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let log = self.log.lock();
        let state = ObjectState { object: value(log.at(owner, log.head)) };
        Ok(Fresh { as_of: at(log.head), value: ReplyBody::Object(state) })
    }
}

struct Follower {
    reader: CachedReader<Leader>,
    asked: Arc<AtomicUsize>,
    /// Up to where its stream has come.
    sent: u64,
    /// The newest write of each object that it has acknowledged.
    acknowledged: HashMap<ObjectId, u64>,
}

impl Follower {
    /// Its memory holds few objects, so that Redis is asked; its stream begins where another's would after a restart: earlier.
    fn new(redis: &str, log: &Arc<Mutex<Log>>, start: u64) -> Self {
        let memory = MemoryCache::new(CacheOptions {
            capacity_bytes: 1 << 20,
            clock: Arc::new(SystemClock),
            tier: "test",
            log: 0,
        });
        memory.start(at(start));
        let asked = Arc::<AtomicUsize>::default();
        let leader = Leader { log: log.clone(), asked: asked.clone() };
        let reader = CachedReader::new(memory, Some(RedisCache::connect(redis, &[]).expect("an URL")), leader);
        reader.meet(ClusterId([5; 16]));
        Self { reader, asked, sent: start, acknowledged: HashMap::new() }
    }

    /// Reads, and checks what it is told: P2 and P3.
    async fn get(&self, log: &Mutex<Log>, id: ObjectId) {
        let read = Read { floor: Position::ZERO, mode: Mode::Cached, context: () };
        let found = self.reader.object(id, read).await.expect("an answer");
        let truth = log.lock().at(id, found.as_of.lsn);
        let shown = found.value.map(|value| u64::from_be_bytes(value[..8].try_into().expect("eight bytes")));
        assert_eq!(shown.unwrap_or_default(), truth, "P2: {id} at {}", found.as_of);
        let acknowledged = self.acknowledged.get(&id).copied().unwrap_or_default();
        assert!(found.as_of >= at(acknowledged), "P3: {id} at {}, acknowledged at {acknowledged}", found.as_of);
    }

    fn stream(&mut self, log: &Mutex<Log>, n: u64) {
        let log = log.lock();
        let until = (self.sent + n).min(log.head);
        let mut piece: Vec<_> = log
            .changes
            .iter()
            .flat_map(|(id, all)| all.iter().map(|lsn| (*lsn, *id)))
            .filter(|(lsn, _)| (self.sent + 1..=until).contains(lsn))
            .collect();
        piece.sort_unstable();
        let piece: Vec<_> = piece.into_iter().map(|(lsn, id)| change(id, lsn)).collect();
        self.reader.memory().apply_stream(at(self.sent), &piece).expect("gapless");
        self.sent = until;
    }

    /// Reads until one is answered without the leader.
    async fn uses_redis(&self, log: &Mutex<Log>) {
        eventually_async(SOON, async || {
            for n in 0..40 {
                self.reader.memory().evict(&Key::Object(id(n)));
                let asked = self.asked.load(Ordering::SeqCst);
                self.get(log, id(n)).await;
                if self.asked.load(Ordering::SeqCst) == asked {
                    return Ok(());
                }
            }
            anyhow::bail!("Redis answers nothing")
        })
        .await
        .unwrap();
    }
}

async fn command(redis: &Redis, name: &str) -> String {
    let mut connection = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd(name).query_async(&mut connection).await.unwrap()
}

async fn info(redis: &Redis, what: &str) -> u64 {
    let info = command(redis, "INFO").await;
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{what}:"))).expect("a line of INFO");
    line.trim().parse().expect("a number")
}

/// On one thread, where a rule is turned off.
fn in_a_runtime(off: Option<Rule>) {
    let seed = std::env::var("TAO_SEED").ok().and_then(|n| n.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("TAO_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    without(off, || runtime.block_on(upheaval(seed)));
}

#[test]
fn whatever_becomes_of_redis_answers_are_true() {
    in_a_runtime(None);
}

#[test]
fn trusting_redis_is_caught() {
    let is_caught = |_| std::panic::catch_unwind(|| in_a_runtime(Some(Rule::RedisTested))).is_err();
    assert!((0..20).any(is_caught));
}

async fn upheaval(mut random: u64) {
    let settings = [("maxmemory", "3mb"), ("maxmemory-policy", "allkeys-lru")];
    let mut redis = Redis::start_with(&settings).unwrap();
    let log = Arc::new(Mutex::new(Log::default()));
    (0..OBJECTS as u64).for_each(|n| drop(log.lock().put(id(n))));
    let mut followers: Vec<_> = (0..2).map(|_| Follower::new(&redis.url(), &log, 0)).collect();
    for follower in &followers {
        follower.uses_redis(&log).await;
    }
    for step in 0..STEPS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (choice, object) = (random >> 33, id(random >> 40));
        let follower = &mut followers[(choice % 2) as usize];
        match choice / 2 % 16 {
            // By somebody else: what Redis has of it stays as it was.
            0 => drop(log.lock().put(object)),
            1 => {
                let change = log.lock().put(object);
                follower.acknowledged.insert(object, change.position.lsn);
                follower.reader.apply_write(&[change]);
            }
            2 => follower.stream(&log, choice / 32 % 40),
            3 if choice / 32 % 32 == 0 => {
                let start = follower.sent.saturating_sub(choice / 1024 % 100);
                *follower = Follower::new(&redis.url(), &log, start);
            }
            // Most reads are of a few objects.
            4..=9 => follower.get(&log, id(random >> 40 & 15)).await,
            _ => follower.get(&log, object).await,
        }
        if step == STEPS / 4 {
            assert!(info(&redis, "evicted_keys").await > 0, "more was written than fits");
            command(&redis, "SAVE").await;
        } else if step == STEPS / 2 {
            command(&redis, "FLUSHALL").await;
        } else if step == STEPS * 3 / 4 {
            // With what was saved.
            redis.restart().unwrap();
            eventually_async(SOON, async || {
                ensure!(info(&redis, "loading").await == 0, "still loading");
                Ok(())
            })
            .await
            .unwrap();
            assert_ne!(command(&redis, "RANDOMKEY").await, "", "it holds what it held long ago");
        }
    }
    for follower in &followers {
        follower.uses_redis(&log).await;
    }
}
