//! Which logs a cluster has, which logical shards live in each, who serves them, and which leaders there are. From a static file;
//! a cluster of one log needs none.

mod file;

use std::path::Path;
use std::sync::Arc;

use tao_model::{ClusterId, ClusterInfo, IdLayout, LogId, ObjectId, ShardId, ShardSet};

pub use file::TopologyError;

/// The shard map and the members of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    version: u64,
    cluster: Option<ClusterId>,
    leaders: Vec<String>,
    logs: Vec<LogPlace>,
    /// By shard: which of `logs`. Empty when there is one log, which has all shards.
    map: Vec<u32>,
}

/// One database: its log, its logical shards, and the processes that serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlace {
    /// The log.
    pub id: LogId,
    /// The logical shards that live in it; `None`: all.
    pub shards: Option<ShardSet>,
    /// Addresses of storage shards, HOST:PORT; all of this one database.
    pub servers: Vec<String>,
}

impl Topology {
    /// One log, number 0, with all shards.
    pub fn single(leaders: Vec<String>, servers: Vec<String>) -> Self {
        let log = LogPlace { id: LogId(0), shards: None, servers };
        Self { version: 0, cluster: None, leaders, logs: vec![log], map: Vec::new() }
    }

    /// Reads a file (docs/configuration.md has its form); the error names everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, TopologyError> {
        let text = std::fs::read_to_string(path).map_err(|error| TopologyError {
            problems: vec![format!("topology: {} can't be read: {error}", path.display())],
        })?;
        Self::parse(&text)
    }

    /// Of the shard map: grows whenever a shard moves.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The cluster that this is about, where the file says so.
    pub const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Addresses of leaders, HOST:PORT.
    pub fn leaders(&self) -> &[String] {
        &self.leaders
    }

    /// All logs; at least one.
    pub fn logs(&self) -> &[LogPlace] {
        &self.logs
    }

    /// How many logical shards there are, where the file says so.
    pub const fn shards(&self) -> Option<u32> {
        if self.map.is_empty() { None } else { Some(self.map.len() as u32) }
    }

    /// A log's place in [`Topology::logs`].
    pub fn index_of(&self, log: LogId) -> Option<usize> {
        self.logs.iter().position(|place| place.id == log)
    }

    /// The place in [`Topology::logs`] of the log that a shard lives in.
    pub fn place_of(&self, shard: ShardId) -> usize {
        self.map.get(shard.0 as usize).map_or(0, |place| *place as usize)
    }

    /// The log that a shard lives in.
    pub fn log_of(&self, shard: ShardId) -> LogId {
        self.logs[self.place_of(shard)].id
    }

    /// Some shard of a log, for calls about the log itself.
    pub fn some_shard(&self, place: usize) -> ShardId {
        self.logs[place].shards.as_ref().and_then(|shards| shards.iter().next()).unwrap_or(ShardId(0))
    }
}

/// A cluster whose ids are known: where each of its shards lives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClusterMap {
    /// The cluster.
    pub cluster: ClusterId,
    /// How its ids are split.
    pub layout: IdLayout,
    topology: Arc<Topology>,
}

impl ClusterMap {
    /// Of a cluster that was met; an error when it is not the one that the topology is about.
    pub fn new(info: &ClusterInfo, topology: Arc<Topology>) -> Result<Self, String> {
        if let Some(expected) = topology.cluster().filter(|expected| *expected != info.cluster) {
            return Err(format!("the topology is of cluster {expected}, and {} was met", info.cluster));
        }
        if let Some(shards) = topology.shards().filter(|shards| *shards != info.layout.shards()) {
            return Err(format!("the topology has {shards} shards, and the cluster {}", info.layout.shards()));
        }
        Ok(Self { cluster: info.cluster, layout: info.layout, topology })
    }

    /// The shard that an object lives on.
    pub const fn shard(&self, id: ObjectId) -> ShardId {
        self.layout.shard(id)
    }

    /// The log that a shard lives in.
    pub fn log_of(&self, shard: ShardId) -> LogId {
        self.topology.log_of(shard)
    }

    /// Logs and servers.
    pub const fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }
}
