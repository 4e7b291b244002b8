//! Everything about a run that its seed decides before it begins.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tao_model::{ClusterId, ClusterInfo, IdLayout, LogId, ShardId};

/// Logs of the cluster.
pub const LOGS: usize = 2;
/// Logical shards; the first half lives in log 0, the rest in log 1.
pub const SHARDS: u32 = 16;

const LEADERS: usize = 2;
const FOLLOWERS: usize = 3;
const CLIENTS: usize = 3;

/// See the module.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What all of it follows from.
    pub seed: u64,
    /// How long faults and sessions go on.
    pub time: Duration,
    /// Names of storage shards, by log.
    pub shards: [Vec<String>; LOGS],
    /// Names of leaders.
    pub leaders: Vec<String>,
    /// Names of followers.
    pub followers: Vec<String>,
    /// Names of hosts that sessions run on.
    pub clients: Vec<String>,
    /// Objects that sessions add.
    pub objects: usize,
    /// Association types that edges are of.
    pub edge_types: usize,
    /// How long logs are kept: with a short time, who was away for long must begin anew.
    pub log_retention: Duration,
    /// Sessions.
    pub sessions: u32,
    /// Bytes of each follower's cache.
    pub follower_cache: u64,
    /// Bytes of each leader's cache.
    pub leader_cache: u64,
    /// Bytes of recent changes that a leader keeps of each log.
    pub stream: usize,
    /// How long a message takes between two hosts.
    pub latency: (Duration, Duration),
    /// How often a statement to a database breaks its connection.
    pub database_breaks: f64,
    /// On average, between the beginnings of two faults.
    pub calm: Duration,
}

/// Randomness for one purpose, apart from that of all others.
pub fn randomness(seed: u64, purpose: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
}

impl Plan {
    /// Of a seed.
    pub fn new(seed: u64, time: Duration) -> Self {
        let mut random = randomness(seed, 1);
        let names = |what: &str, n: usize| (0..n).map(|n| format!("{what}-{n}")).collect::<Vec<_>>();
        let shards = std::array::from_fn(|log| names(&format!("shard-{log}"), random.random_range(1..=2)));
        let least = random.random_range(2..=4);
        Self {
            seed,
            time,
            shards,
            leaders: names("leader", LEADERS),
            followers: names("follower", FOLLOWERS),
            clients: names("client", CLIENTS),
            objects: pick(&mut random, &[3, 6, 20]),
            edge_types: pick(&mut random, &[2, 3, 5]),
            log_retention: pick(&mut random, &[Duration::from_millis(200), Duration::from_hours(1)]),
            sessions: random.random_range(6..=12),
            follower_cache: pick(&mut random, &[1 << 20, 8 << 20]),
            leader_cache: pick(&mut random, &[1 << 20, 8 << 20]),
            stream: pick(&mut random, &[2 << 10, 16 << 10, 1 << 20]),
            latency: (Duration::from_millis(least), Duration::from_millis(least + pick(&mut random, &[1, 5, 20]))),
            database_breaks: pick(&mut random, &[0.0, 0.001, 0.01]),
            calm: Duration::from_millis(pick(&mut random, &[150, 300, 1_000])),
        }
    }

    /// What a log's database belongs to.
    pub fn info(&self, log: usize) -> ClusterInfo {
        let layout = IdLayout::new(42, 10, 12, SHARDS).unwrap_or(IdLayout::STANDARD);
        let mut cluster = [0; 16];
        cluster[..8].copy_from_slice(&self.seed.to_be_bytes());
        ClusterInfo { cluster: ClusterId(cluster), log: LogId(log as u32), layout }
    }

    /// The topology file.
    pub fn topology(&self) -> String {
        let list = |names: &[String], port: u16| {
            names.iter().map(|name| format!("\"{name}:{port}\"")).collect::<Vec<_>>().join(", ")
        };
        let mut text = format!(
            "version = 1\ncluster = \"{}\"\nleaders = [{}]\n",
            self.info(0).cluster,
            list(&self.leaders, LEADER_PORT)
        );
        for (log, servers) in self.shards.iter().enumerate() {
            let (first, last) = (SHARDS as usize * log / LOGS, SHARDS as usize * (log + 1) / LOGS - 1);
            let servers = list(servers, SHARD_PORT);
            text.push_str(&format!("[[logs]]\nid = {log}\nshards = [\"{first}-{last}\"]\nservers = [{servers}]\n"));
        }
        text
    }

    /// The log that a logical shard lives in.
    pub fn log_of(shard: ShardId) -> usize {
        shard.0 as usize * LOGS / SHARDS as usize
    }
}

/// Where storage shards listen.
pub const SHARD_PORT: u16 = 50053;
/// Where leaders listen.
pub const LEADER_PORT: u16 = 50052;
/// Where followers listen.
pub const FOLLOWER_PORT: u16 = 50051;

fn pick<T: Copy>(random: &mut StdRng, among: &[T]) -> T {
    among[random.random_range(0..among.len())]
}
