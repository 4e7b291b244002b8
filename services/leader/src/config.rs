//! What a leader can be told: in a file, in the environment, by flags; the later wins.

use std::net::SocketAddr;

use clap::Args;
use serde::Deserialize;
use tao_runtime::ByteSize;

/// Options of a leader, each of them optional.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where followers connect to [default: 127.0.0.1:50052]
    #[arg(long, env = "TAO_LEADER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The storage shard, as HOST:PORT [default: 127.0.0.1:50053]
    #[arg(long = "shard", env = "TAO_SHARD", value_name = "ADDRESS", value_delimiter = ',')]
    pub shards: Option<Vec<String>>,
    /// Memory for the cache, such as 256MiB [default: 256MiB]
    #[arg(long, env = "TAO_LEADER_CACHE_SIZE", value_name = "SIZE")]
    pub cache_size: Option<ByteSize>,
    /// Calls that one logical shard may have under way at its storage shard [default: 1024]
    #[arg(long, env = "TAO_LEADER_SHARD_CONCURRENCY", value_name = "N")]
    pub shard_concurrency: Option<usize>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where followers connect to.
    pub listen: SocketAddr,
    /// The storage shard.
    pub shard: String,
    /// Bytes of the cache.
    pub cache_bytes: u64,
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
            cache_size: self.cache_size.or(lower.cache_size),
            shard_concurrency: self.shard_concurrency.or(lower.shard_concurrency),
        }
    }

    /// Checks every option; the error names all that are wrong, one each.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let mut shards = self.shards.unwrap_or_else(|| vec!["127.0.0.1:50053".to_owned()]);
        if shards.len() != 1 {
            problems.push(format!(
                "shard: {} storage shards are given; a leader takes exactly one, several are not supported yet",
                shards.len()
            ));
        }
        let cache_bytes = self.cache_size.map_or(256 << 20, |size| size.0);
        if cache_bytes < 1 << 20 {
            problems.push("cache_size: at least 1MiB".to_owned());
        }
        let shard_concurrency = self.shard_concurrency.unwrap_or(1024);
        if !(1..=1_000_000).contains(&shard_concurrency) {
            problems.push(format!("shard_concurrency: {shard_concurrency} is not within 1 to 1000000"));
        }
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50052)));
        match shards.pop() {
            Some(shard) if problems.is_empty() => Ok(Config { listen, shard, cache_bytes, shard_concurrency }),
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_storage_shards_are_refused_with_a_sentence() {
        let two = Options {
            shards: Some(vec!["a:1".to_owned(), "b:1".to_owned()]),
            shard_concurrency: Some(0),
            ..Default::default()
        };
        let problems = two.check().unwrap_err();
        assert!(problems[0].contains("not supported yet") && problems.len() == 2, "{problems:?}");
    }
}
