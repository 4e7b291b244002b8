//! PostgreSQL with Redis beside it, behind a hand-written tonic service: what a good engineer builds in a week.

mod cache;
mod caller;
mod service;
mod transaction;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tao_harness::{Postgres, Process, Redis};

pub use caller::CacheAsideCaller;
pub use service::serve;

use super::channels::Channels;
use super::{baseline, copy, server};
use crate::graph::Graph;
use crate::target::{Hits, Progress, Role, Setup, Target};

/// The service's API.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod proto {
    tonic::include_proto!("bench.cacheaside");
}

/// Connections to PostgreSQL of all threads of the service together: what 64 requests in flight do best with on two cores.
const DATABASE_CONNECTIONS: usize = 32;
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The three processes of it.
#[derive(Debug)]
pub struct CacheAside {
    address: String,
    service: Process,
    redis: Redis,
    postgres: Postgres,
    connections_a_thread: usize,
    graph: OnceLock<Arc<Graph>>,
}

impl CacheAside {
    /// Starts them.
    pub fn start(setup: &Setup) -> Result<Self> {
        let postgres = server::postgres()?;
        let redis = Redis::start()?;
        let args = ["serve-cache-aside", "--postgres", &postgres.url(), "--redis", &redis.url(), "--connections"];
        let connections = DATABASE_CONNECTIONS.to_string();
        let (service, address) = baseline::start(&[&args[..], &[&connections]].concat(), STARTS_WITHIN)?;
        let connections_a_thread = (setup.connections / setup.threads).max(1);
        Ok(Self { address, service, redis, postgres, connections_a_thread, graph: OnceLock::new() })
    }
}

impl Target for CacheAside {
    type Caller = CacheAsideCaller;

    fn name(&self) -> &'static str {
        "cache-aside"
    }

    async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        copy::load(&self.postgres.url(), graph, progress).await?;
        self.graph.set(graph.clone()).ok().context("loaded twice")
    }

    async fn caller(&self, _: usize) -> Result<CacheAsideCaller> {
        let channels = Channels::connect(&self.address, self.connections_a_thread).await?;
        Ok(CacheAsideCaller::new(channels, self.graph.get().context("not loaded")?.clone()))
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        let processes = [
            (Role::Service, self.service.pid()),
            (Role::Redis, self.redis.pid()),
            (Role::Postgres, self.postgres.pid()),
        ];
        processes.into_iter().filter_map(|(role, pid)| Some((role, pid.ok()?))).collect()
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        let mut connection = redis::Client::open(self.redis.url())?.get_multiplexed_async_connection().await?;
        let info: String = redis::cmd("INFO").arg("stats").query_async(&mut connection).await?;
        let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0);
        Ok(Some(Hits { l2_hits: of("keyspace_hits:"), l2_misses: of("keyspace_misses:"), ..Default::default() }))
    }
}
