//! What a storage shard can be told: in a file, in the environment, by flags; the later wins.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tao_model::{IdLayout, LogId};
use tao_rpc::LinkOptions;
use tao_runtime::ByteSize;
use tao_store::MemoryDatabase;
use tao_topology::Topology;

/// Options of a storage shard, each of them optional.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where leaders connect to [default: 127.0.0.1:50053]
    #[arg(long, env = "TAO_SHARD_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The database: sqlite:FILE, postgres://USER@HOST/DATABASE, or memory: (lost at the end) [default: sqlite:tao.db]
    #[arg(long, env = "TAO_STORE", value_name = "URL", hide_env_values = true)]
    pub store: Option<String>,
    /// Connections to PostgreSQL, or readers of SQLite; 2 to 200 [default: 8]
    #[arg(long, env = "TAO_STORE_CONNECTIONS", value_name = "N")]
    pub store_connections: Option<u32>,
    /// Logical shards of a cluster with one database, 1 to 1024; fixed when the database is created [default: 1024]
    #[arg(long, env = "TAO_SHARDS", value_name = "N")]
    pub shards: Option<u32>,
    /// The topology of a cluster with several databases: a TOML file (docs/configuration.md)
    #[arg(long, env = "TAO_TOPOLOGY", value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Which log of the topology the database is
    #[arg(long, env = "TAO_LOG_ID", value_name = "N")]
    pub log_id: Option<u32>,
    /// Memory for recent changes, from which leaders' streams are fed [default: 64MiB]
    #[arg(long, env = "TAO_SHARD_STREAM_SIZE", value_name = "SIZE")]
    pub stream_size: Option<ByteSize>,
    /// Seconds that the log is kept, so that streams can resume; 60 or more [default: 3600]
    #[arg(long, env = "TAO_LOG_RETENTION", value_name = "SECONDS")]
    pub log_retention: Option<u64>,
    /// Begin a new epoch: after an older copy of the database was put back by hand. Tokens of before are refused then
    #[arg(long)]
    #[serde(skip)]
    pub new_epoch: bool,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where leaders connect to.
    pub listen: SocketAddr,
    /// The database.
    pub store: String,
    /// What `memory:` is: a simulation's database, which outlives its storage shards.
    pub memory: Option<MemoryDatabase>,
    /// Connections to it.
    pub store_connections: u32,
    /// The cluster's ids.
    pub layout: IdLayout,
    /// Where the other logs are.
    pub topology: Arc<Topology>,
    /// The database's log.
    pub log: LogId,
    /// Whether its services are described to those who ask.
    pub reflection: bool,
    /// How other storage shards are reached.
    pub link: LinkOptions,
    /// Bytes of recent changes.
    pub stream_bytes: usize,
    /// How long the log is kept.
    pub log_retention: Duration,
    /// Whether to begin a new epoch.
    pub new_epoch: bool,
}

impl Options {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            store: self.store.or(lower.store),
            store_connections: self.store_connections.or(lower.store_connections),
            shards: self.shards.or(lower.shards),
            topology: self.topology.or(lower.topology),
            log_id: self.log_id.or(lower.log_id),
            stream_size: self.stream_size.or(lower.stream_size),
            log_retention: self.log_retention.or(lower.log_retention),
            new_epoch: self.new_epoch,
        }
    }

    /// Checks every option; the error names all that are wrong, one each.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let store = self.store.unwrap_or_else(|| "sqlite:tao.db".to_owned());
        if !["sqlite:", "postgres://", "postgresql://", "memory:"].iter().any(|scheme| store.starts_with(scheme)) {
            problems.push("store: an URL begins with sqlite:, postgres:// or memory:".to_owned());
        }
        if store.contains(',') {
            problems.push("store: one database; several are several storage shards, with a topology".to_owned());
        }
        let log = LogId(self.log_id.unwrap_or(0));
        let topology = match &self.topology {
            Some(_) if self.shards.is_some() => {
                Err(vec!["shards: the topology says how many: give one of the two".to_owned()])
            }
            Some(file) => Topology::load(file).map_err(|error| error.problems).and_then(|topology| {
                let known = topology.index_of(log).map(|_| topology);
                known.ok_or_else(|| vec![format!("log_id: the topology has no log {}", log.0)])
            }),
            None if log.0 != 0 => Err(vec!["log_id: only a topology has several logs".to_owned()]),
            None => Ok(Topology::single(Vec::new(), Vec::new())),
        };
        let topology = topology.map_err(|p| problems.extend(p)).ok();
        let log_retention = self.log_retention.unwrap_or(3_600);
        if !(60..=30 * 24 * 3_600).contains(&log_retention) {
            problems.push(format!("log_retention: {log_retention} is not within 60 to 2592000 seconds"));
        }
        let store_connections = self.store_connections.unwrap_or(8);
        if !(2..=200).contains(&store_connections) {
            problems.push(format!("store_connections: {store_connections} is not within 2 to 200"));
        }
        let shards = topology.as_ref().and_then(Topology::shards).or(self.shards).unwrap_or(1024);
        let layout = IdLayout::new(42, 10, 12, shards).map_err(|e| problems.push(format!("shards: {e}")));
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50053)));
        match (layout, topology) {
            (Ok(layout), Some(topology)) if problems.is_empty() => Ok(Config {
                listen,
                store,
                memory: None,
                store_connections,
                layout,
                topology: Arc::new(topology),
                log,
                reflection: true,
                link: LinkOptions::default(),
                stream_bytes: self.stream_size.map_or(64 << 20, |size| size.0) as usize,
                log_retention: Duration::from_secs(log_retention),
                new_epoch: self.new_epoch,
            }),
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported_and_flags_win() {
        let wrong = Options {
            store: Some("mysql://x,y".to_owned()),
            store_connections: Some(1),
            shards: Some(0),
            log_id: Some(1),
            log_retention: Some(1),
            ..Default::default()
        };
        assert_eq!(wrong.check().unwrap_err().len(), 6);
        let file = Options { shards: Some(16), store_connections: Some(4), ..Default::default() };
        let flags = Options { shards: Some(32), ..Default::default() };
        let config = flags.over(file).check().unwrap();
        assert_eq!((config.layout.shards(), config.store_connections, config.listen.port()), (32, 4, 50053));
    }
}
