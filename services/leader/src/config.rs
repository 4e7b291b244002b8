//! What a leader can be told: in a file, in the environment, by flags; the later wins.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tao_rpc::LinkOptions;
use tao_runtime::ByteSize;
use tao_topology::Topology;

/// Options of a leader, each of them optional.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where followers connect to [default: 127.0.0.1:50052]
    #[arg(long, env = "TAO_LEADER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The storage shards of a cluster with one database, as HOST:PORT,… [default: 127.0.0.1:50053]
    #[arg(long = "shard", env = "TAO_SHARD", value_name = "ADDRESS", value_delimiter = ',')]
    pub shards: Option<Vec<String>>,
    /// The topology of a cluster with several databases: a TOML file (docs/configuration.md)
    #[arg(long, env = "TAO_TOPOLOGY", value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Memory for the cache, such as 256MiB [default: 256MiB]
    #[arg(long, env = "TAO_LEADER_CACHE_SIZE", value_name = "SIZE")]
    pub cache_size: Option<ByteSize>,
    /// Memory for recent changes of each database, from which followers' streams are fed [default: 64MiB]
    #[arg(long, env = "TAO_LEADER_STREAM_SIZE", value_name = "SIZE")]
    pub stream_size: Option<ByteSize>,
    /// Calls that one logical shard may have under way at its storage shard [default: 1024]
    #[arg(long, env = "TAO_LEADER_SHARD_CONCURRENCY", value_name = "N")]
    pub shard_concurrency: Option<usize>,
    /// Milliseconds after which the storage shards' names are resolved again, 100 or more [default: 2000]
    #[arg(long, env = "TAO_RESOLVE_EVERY_MS", value_name = "MS")]
    pub resolve_every_ms: Option<u64>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where followers connect to.
    pub listen: SocketAddr,
    /// The storage shards.
    pub topology: Arc<Topology>,
    /// Whether its services are described to those who ask.
    pub reflection: bool,
    /// How they are reached.
    pub link: LinkOptions,
    /// Bytes of the cache.
    pub cache_bytes: u64,
    /// Bytes of recent changes, for each log.
    pub stream_bytes: usize,
    /// Calls under way a logical shard.
    pub shard_concurrency: usize,
}

impl Options {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            shards: self.shards.or(lower.shards),
            topology: self.topology.or(lower.topology),
            cache_size: self.cache_size.or(lower.cache_size),
            stream_size: self.stream_size.or(lower.stream_size),
            shard_concurrency: self.shard_concurrency.or(lower.shard_concurrency),
            resolve_every_ms: self.resolve_every_ms.or(lower.resolve_every_ms),
        }
    }

    /// Checks every option; the error names all that are wrong, one each.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let topology = match (&self.topology, self.shards) {
            (Some(_), Some(_)) => {
                Err(vec!["shard: the topology names the storage shards: give one of the two".to_owned()])
            }
            (Some(file), None) => Topology::load(file).map_err(|error| error.problems),
            (None, Some(servers)) => Ok(Topology::single(Vec::new(), servers)),
            (None, None) => Ok(Topology::single(Vec::new(), vec!["127.0.0.1:50053".to_owned()])),
        };
        let topology = topology.map_err(|p| problems.extend(p)).ok();
        let cache_bytes = self.cache_size.map_or(256 << 20, |size| size.0);
        if (1..1 << 20).contains(&cache_bytes) {
            problems.push("cache_size: at least 1MiB, or 0 for none".to_owned());
        }
        let stream_bytes = self.stream_size.map_or(64 << 20, |size| size.0) as usize;
        let shard_concurrency = self.shard_concurrency.unwrap_or(1024);
        if !(1..=1_000_000).contains(&shard_concurrency) {
            problems.push(format!("shard_concurrency: {shard_concurrency} is not within 1 to 1000000"));
        }
        let resolve_every_ms = self.resolve_every_ms.unwrap_or(2_000);
        if !(100..=3_600_000).contains(&resolve_every_ms) {
            problems.push(format!("resolve_every_ms: {resolve_every_ms} is not within 100 to 3600000"));
        }
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50052)));
        match topology {
            Some(topology) if problems.is_empty() => Ok(Config {
                listen,
                topology: Arc::new(topology),
                reflection: true,
                link: LinkOptions { resolve_every: Duration::from_millis(resolve_every_ms), ..LinkOptions::default() },
                cache_bytes,
                stream_bytes,
                shard_concurrency,
            }),
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_reported() {
        let wrong = Options {
            shards: Some(vec!["a:1".to_owned()]),
            topology: Some("absent.toml".into()),
            shard_concurrency: Some(0),
            resolve_every_ms: Some(0),
            ..Default::default()
        };
        let problems = wrong.clone().check().unwrap_err();
        assert!(problems[0].contains("give one of the two") && problems.len() == 3, "{problems:?}");
        let problems = Options { shards: None, ..wrong }.check().unwrap_err();
        assert!(problems[0].contains("absent.toml can't be read") && problems.len() == 3, "{problems:?}");
        let two = Options { shards: Some(vec!["a:1".to_owned(), "b:1".to_owned()]), ..Default::default() };
        assert_eq!(two.check().unwrap().topology.logs()[0].servers.len(), 2);
    }
}
