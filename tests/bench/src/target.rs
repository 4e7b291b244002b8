//! What a system under measurement has to offer.

use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;

use crate::graph::Graph;
use crate::op::{Op, Outcome};

/// The systems that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    /// SQL straight to PostgreSQL
    Postgres,
    /// PostgreSQL and Redis behind a hand-written service
    CacheAside,
    /// This store on PostgreSQL and Redis, one call a request
    TaoUnary,
    /// This store on PostgreSQL and Redis, through its client library
    TaoPipelined,
    /// This store on SQLite, through its client library
    TaoSqlite,
    /// A service that answers with ready bytes, one call a request
    EchoUnary,
    /// The same over streams of requests
    EchoPipelined,
}

impl Kind {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::CacheAside => "cache-aside",
            Self::TaoUnary => "tao-unary",
            Self::TaoPipelined => "tao-pipelined",
            Self::TaoSqlite => "tao-sqlite",
            Self::EchoUnary => "echo-unary",
            Self::EchoPipelined => "echo-pipelined",
        }
    }
}

/// How a target is started. `targets::start(kind, &setup)` answers with a `Box<dyn Side>`.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Threads of the client, each with one runtime and one [`Caller`].
    pub threads: usize,
    /// Connections of all threads together; at least one a thread.
    pub connections: usize,
    /// Bytes of a follower's memory (`--cache-size`); none: its default.
    pub cache_size: Option<u64>,
    /// Whether a follower has Redis beside its memory.
    pub redis: bool,
}

/// Whose CPU time and memory it is. Several processes may have one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The process that makes the load: this one.
    Client,
    /// Tao's public tier.
    Follower,
    /// Tao's leaders.
    Leader,
    /// Tao's storage shards.
    Shard,
    /// A baseline's server.
    Service,
    /// Its children count too.
    Postgres,
    /// Of whoever uses it.
    Redis,
}

impl Role {
    /// For reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Follower => "follower",
            Self::Leader => "leader",
            Self::Shard => "shard",
            Self::Service => "service",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

/// Reads answered from caches, since the target's start.
#[expect(clippy::struct_field_names, reason = "the same word as in the metrics")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// From a follower's memory.
    pub l1_hits: u64,
    /// Not from there.
    pub l1_misses: u64,
    /// From Redis.
    pub l2_hits: u64,
    /// Asked there in vain.
    pub l2_misses: u64,
}

/// Told how many nodes and edges (together) are loaded by now.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// A running system.
pub trait Target: Send + Sync {
    /// Its clients.
    type Caller: Caller;

    /// For reports; unique among the targets of a run.
    fn name(&self) -> &str;

    /// Fills it with the graph, durably, planner statistics fresh. Runs on the runtime of the main thread, as [`Target::hits`] does.
    async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()>;

    /// The client of thread `n` (0 to `threads` − 1), made on that thread's current-thread runtime (inside of a `LocalSet`), once a
    /// round; used by all requests that the thread has in flight.
    async fn caller(&self, n: usize) -> Result<Self::Caller>;

    /// Its processes but for this one.
    fn processes(&self) -> Vec<(Role, u32)>;

    /// Nothing where there is no cache.
    async fn hits(&self) -> Result<Option<Hits>>;
}

/// A client of a target.
pub trait Caller: 'static {
    /// Runs one request to its end. What isn't there is `found: false`; an error is an error.
    async fn run(&self, op: &Op) -> Result<Outcome>;
}
