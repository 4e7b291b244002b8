//! The second level by itself: objects from Redis through a follower that has no cache in memory, and GETs of the same values.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use redis::aio::MultiplexedConnection;
use tokio::task::LocalSet;

use super::closed_loop::{Pace, median, rate};
use super::tao::{Cluster, Tao, Way};
use crate::graph::Graph;
use crate::hash::{below, bits};
use crate::op::{Op, Outcome};
use crate::target::{Caller, Hits, Progress, Role, Setup, Target};

/// Values that are read: enough that they are no few hot ones, few enough to be in Redis soon.
const OBJECTS: u32 = 5_000;
const FILLED_WITHIN: Duration = Duration::from_secs(60);
const IDS: u64 = 0x1d5;
/// A share that a few evictions and late streams may take.
const MISSES: f64 = 0.01;

/// How long it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Of the client.
    pub threads: usize,
    /// Connections, of all threads together, to the follower and to Redis.
    pub connections: usize,
    /// Requests, of all threads together.
    pub in_flight: usize,
    /// Interleaved; medians count.
    pub rounds: usize,
    /// Of one side in one round.
    pub seconds: f64,
}

/// Reads a second.
#[derive(Debug, Clone, PartialEq)]
pub struct SecondLevel {
    /// ObjectGet through the client library, round by round.
    pub ours: Vec<f64>,
    /// GET, round by round.
    pub redis: Vec<f64>,
    /// The share of ours that Redis answered.
    pub hit_rate: f64,
}

impl SecondLevel {
    /// Ours over Redis's, medians.
    pub fn ratio(&self) -> f64 {
        median(self.ours.iter().copied()) / median(self.redis.iter().copied())
    }
}

/// Starts a cluster whose follower keeps nothing in memory, fills Redis, and compares.
pub async fn compare(graph: &Arc<Graph>, options: Options) -> Result<SecondLevel> {
    let Options { threads, connections, .. } = options;
    let setup = Setup { threads, connections, cache_size: Some(0), redis: true };
    let cluster = Arc::new(Cluster::on_postgres(&setup)?);
    let tao = Tao::new("tao-l2", Way::Pipelined, &setup, cluster.clone());
    tao.load(graph, &|_| {}).await?;
    let objects = graph.nodes().min(OBJECTS);
    let redis = fill(&tao, objects, connections / threads).await?;

    let pace = Pace {
        threads,
        in_flight: options.in_flight,
        warm_up: Duration::from_secs_f64(options.seconds / 4.0),
        measured: Duration::from_secs_f64(options.seconds),
    };
    let read = move |slot: usize, n: u64| Op::ObjectGet { id: below(bits(slot as u64, IDS, n) << 32, objects) };
    let before = tao.hits().await?.context("no figures")?;
    let mut found = SecondLevel { ours: Vec::new(), redis: Vec::new(), hit_rate: 0.0 };
    for _ in 0..options.rounds {
        found.ours.push(rate(&tao, pace, read)?);
        found.redis.push(rate(&redis, pace, read)?);
    }
    let after = tao.hits().await?.context("no figures")?;
    let (hits, misses) = (after.l2_hits - before.l2_hits, after.l2_misses - before.l2_misses);
    found.hit_rate = hits as f64 / (hits + misses + after.l1_hits - before.l1_hits) as f64;
    ensure!(found.hit_rate > 1.0 - MISSES, "only {:.3} of the reads were answered by Redis", found.hit_rate);
    Ok(found)
}

/// Reads every object until Redis has them all; answers with the way to read them there.
async fn fill(tao: &Tao, objects: u32, connections_a_thread: usize) -> Result<RedisGets> {
    let server = tao.cluster().redis().context("no Redis")?;
    let (url, pid) = (server.url(), server.pid()?);
    let mut connection = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
    let end = Instant::now() + FILLED_WITHIN;
    loop {
        let read_all = async {
            let caller = tao.caller(0).await?;
            for id in 0..objects {
                caller.run(&Op::ObjectGet { id }).await?;
            }
            anyhow::Ok(())
        };
        LocalSet::new().run_until(read_all).await?;
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
        if keys.len() >= objects as usize {
            return Ok(RedisGets { url, pid, keys: keys.into(), connections_a_thread: connections_a_thread.max(1) });
        }
        ensure!(Instant::now() < end, "Redis has {} of {objects} objects after {FILLED_WITHIN:?}", keys.len());
    }
}

/// GETs of the values that a follower has put into its Redis.
#[derive(Debug)]
struct RedisGets {
    url: String,
    pid: u32,
    keys: Arc<[Vec<u8>]>,
    connections_a_thread: usize,
}

impl Target for RedisGets {
    type Caller = RedisCaller;

    fn name(&self) -> &'static str {
        "redis"
    }

    async fn load(&self, _: &Arc<Graph>, _: Progress<'_>) -> Result<()> {
        // The follower did it.
        Ok(())
    }

    async fn caller(&self, _: usize) -> Result<RedisCaller> {
        let client = redis::Client::open(self.url.as_str())?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connections = Vec::new();
        for _ in 0..self.connections_a_thread {
            connections.push(client.get_multiplexed_async_connection_with_config(&config).await?);
        }
        Ok(RedisCaller { connections, keys: self.keys.clone() })
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        vec![(Role::Redis, self.pid)]
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        Ok(None)
    }
}

/// A thread's connections, on which commands travel together while the line is busy.
struct RedisCaller {
    connections: Vec<MultiplexedConnection>,
    keys: Arc<[Vec<u8>]>,
}

impl Caller for RedisCaller {
    async fn run(&self, op: &Op) -> Result<Outcome> {
        let Op::ObjectGet { id } = *op else { anyhow::bail!("only ObjectGet, not {op:?}") };
        let mut connection = self.connections[id as usize % self.connections.len()].clone();
        let key = &self.keys[id as usize % self.keys.len()];
        let value: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(&mut connection).await?;
        let value = value.context("Redis has lost a value")?;
        Ok(Outcome { found: true, items: 1, bytes: value.len() as u32 })
    }
}
