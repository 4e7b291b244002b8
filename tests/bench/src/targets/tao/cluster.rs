//! The processes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tao_harness::{Postgres, Process, Redis, TempDir, built_program, repository};
use tokio::sync::OnceCell;

use super::admin::Metrics;
use super::guarded::Guarded;
use super::load;
use crate::graph::Graph;
use crate::target::{Hits, Progress, Role, Setup};
use crate::targets::channels::Credentials;
use crate::targets::{schema, server};

const ADMIN_WITHIN: Duration = Duration::from_secs(10);
const DATABASE: &str = "tao";

/// Where the shards keep things.
#[derive(Debug)]
enum Store {
    Postgres(Box<Postgres>),
    Sqlite(#[expect(dead_code, reason = "the folder goes when this is dropped")] TempDir),
}

/// A storage shard, a leader and a follower. Dropped, they end.
#[derive(Debug)]
pub struct Cluster {
    address: String,
    admin: String,
    /// Ended in this order: the front first.
    tiers: [(Role, Process); 3],
    redis: Option<Redis>,
    store: Store,
    credentials: Credentials,
    /// Of its public door, as long as it runs.
    _guarded: Option<Guarded>,
    loaded: OnceCell<Arc<Loaded>>,
}

/// The graph that a cluster holds, and the ids that its nodes have there.
#[derive(Debug)]
pub struct Loaded {
    /// The graph.
    pub graph: Arc<Graph>,
    /// By node.
    pub ids: Vec<i64>,
}

impl Cluster {
    /// On a PostgreSQL of its own.
    pub fn on_postgres(setup: &Setup) -> Result<Self> {
        Self::fronted(setup, &[])
    }

    /// The same, with options for the follower.
    pub fn fronted(setup: &Setup, front: &[&str]) -> Result<Self> {
        let postgres = server::postgres()?;
        let url = postgres.create_database(DATABASE)?;
        Self::start(setup, &url, Store::Postgres(Box::new(postgres)), &[], front, None)
    }

    /// On a file.
    pub fn on_sqlite(setup: &Setup) -> Result<Self> {
        Self::watched(setup, &[])
    }

    /// The same, with options for all of its tiers.
    pub fn watched(setup: &Setup, more: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        let url = format!("sqlite:{}", folder.join("tao.db").display());
        Self::start(setup, &url, Store::Sqlite(folder), more, &[], None)
    }

    /// On a file, with a public door that asks who comes, or speaks TLS.
    pub fn guarded(setup: &Setup, more: &[&str], guarded: Guarded) -> Result<Self> {
        let folder = TempDir::new()?;
        let url = format!("sqlite:{}", folder.join("tao.db").display());
        Self::start(setup, &url, Store::Sqlite(folder), more, &[], Some(guarded))
    }

    fn start(
        setup: &Setup,
        url: &str,
        store: Store,
        more: &[&str],
        front: &[&str],
        guarded: Option<Guarded>,
    ) -> Result<Self> {
        let program = built_program("tao")?;
        let schema = repository().join("tests/bench/schema.toml").display().to_string();
        let tier = |args: &[&str]| tao_harness::tier(&program, &[args, &["--schema", &schema], more].concat());
        let redis = setup.redis.then(Redis::start).transpose()?;
        let (shard, shard_address) = tier(&["shard", "--store", url])?;
        let (leader, leader_address) = tier(&["leader", "--shard", &shard_address])?;
        let mut args = vec!["follower".to_owned(), "--leader".to_owned(), leader_address];
        if let Some(redis) = &redis {
            args.extend(["--redis".to_owned(), redis.url()]);
        }
        if let Some(bytes) = setup.cache_size {
            args.extend(["--cache-size".to_owned(), bytes.to_string()]);
        }
        args.extend(front.iter().map(|flag| (*flag).to_owned()));
        args.extend(guarded.iter().flat_map(|guarded| guarded.flags.clone()));
        let (mut follower, address) = tier(&args.iter().map(String::as_str).collect::<Vec<_>>())?;
        let line = follower.wait_line("listening for probes and metrics", ADMIN_WITHIN)?;
        let admin = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let admin = admin.context("no admin address")?.to_owned();
        let tiers = [(Role::Follower, follower), (Role::Leader, leader), (Role::Shard, shard)];
        let credentials = guarded.as_ref().map(|guarded| guarded.credentials.clone()).unwrap_or_default();
        let loaded = OnceCell::new();
        Ok(Self { address, admin, tiers, redis, store, credentials, _guarded: guarded, loaded })
    }

    /// Of the follower.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What its clients prove, and want proved.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The second level, if there is one.
    pub fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }

    /// The graph, once it is loaded.
    pub fn loaded(&self) -> Option<Arc<Loaded>> {
        self.loaded.get().cloned()
    }

    /// Loads the graph, unless that is done.
    pub(super) async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        let load = async || {
            let ids = load::load(&self.credentials, &self.address, graph, progress).await?;
            if let Store::Postgres(postgres) = &self.store {
                let url = postgres.url();
                let (server, _) = url.rsplit_once('/').context("a URL has a path")?;
                schema::settle(&format!("{server}/{DATABASE}")).await?;
            }
            Ok(Arc::new(Loaded { graph: graph.clone(), ids }))
        };
        self.loaded.get_or_try_init(load).await.map(drop)
    }

    pub(super) fn processes(&self) -> Vec<(Role, u32)> {
        let tiers = self.tiers.iter().map(|(role, process)| (*role, process.pid()));
        let redis = self.redis.iter().map(|redis| (Role::Redis, redis.pid()));
        let postgres = match &self.store {
            Store::Postgres(postgres) => Some((Role::Postgres, postgres.pid())),
            Store::Sqlite(_) => None,
        };
        tiers.chain(redis).chain(postgres).filter_map(|(role, pid)| Some((role, pid.ok()?))).collect()
    }

    pub(super) async fn hits(&self) -> Result<Hits> {
        let metrics = Metrics::scrape(&self.admin).await?;
        let of = |name: &str, level: &str| metrics.sum(name, &["tier=\"follower\"", level]);
        let (memory, redis) = ("level=\"memory\"", "level=\"redis\"");
        Ok(Hits {
            l1_hits: of("tao_cache_hits_total", memory),
            l1_misses: of("tao_cache_misses_total", memory),
            l2_hits: of("tao_cache_hits_total", redis),
            l2_misses: of("tao_cache_misses_total", redis),
        })
    }
}
