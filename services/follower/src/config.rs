//! What a follower can be told: in a file, in the environment, by flags; the later wins.

use std::net::SocketAddr;

use clap::Args;
use serde::Deserialize;
use tao_runtime::ByteSize;

/// How the URL of a Redis, and of a Redis Cluster, begins.
const REDIS: [&str; 2] = ["redis://", "redis-cluster://"];

/// Options of a follower, each of them optional.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where clients connect to [default: 127.0.0.1:50051]
    #[arg(long, env = "TAO_FOLLOWER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The leader, as HOST:PORT [default: 127.0.0.1:50052]
    #[arg(long = "leader", env = "TAO_LEADER", value_name = "ADDRESS", value_delimiter = ',')]
    pub leaders: Option<Vec<String>>,
    /// Memory for the cache, such as 256MiB [default: 256MiB]
    #[arg(long, env = "TAO_FOLLOWER_CACHE_SIZE", value_name = "SIZE")]
    pub cache_size: Option<ByteSize>,
    /// A Redis that followers share as a second level: redis://HOST:PORT, or redis-cluster://HOST:PORT,HOST:PORT for a Redis Cluster
    /// [default: none]
    #[arg(long, env = "TAO_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// The leader.
    pub leader: String,
    /// Bytes of the cache in memory.
    pub cache_bytes: u64,
    /// The second level.
    pub redis: Option<String>,
}

impl Options {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            leaders: self.leaders.or(lower.leaders),
            cache_size: self.cache_size.or(lower.cache_size),
            redis: self.redis.or(lower.redis),
        }
    }

    /// Checks every option; the error names all that are wrong, one each.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let mut leaders = self.leaders.unwrap_or_else(|| vec!["127.0.0.1:50052".to_owned()]);
        if leaders.len() != 1 {
            problems.push(format!(
                "leader: {} leaders are given; a follower takes exactly one, several are not supported yet",
                leaders.len()
            ));
        }
        let cache_bytes = self.cache_size.map_or(256 << 20, |size| size.0);
        if cache_bytes < 1 << 20 {
            problems.push("cache_size: at least 1MiB".to_owned());
        }
        if self.redis.as_ref().is_some_and(|url| !REDIS.iter().any(|scheme| url.starts_with(scheme))) {
            problems.push("redis: an URL begins with redis:// or redis-cluster://".to_owned());
        }
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50051)));
        match leaders.pop() {
            Some(leader) if problems.is_empty() => Ok(Config { listen, leader, cache_bytes, redis: self.redis }),
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_leaders_are_refused_with_a_sentence() {
        let two = Options {
            leaders: Some(vec!["a:1".to_owned(), "b:1".to_owned()]),
            redis: Some("x".to_owned()),
            ..Default::default()
        };
        let problems = two.check().unwrap_err();
        assert!(problems[0].contains("not supported yet") && problems.len() == 2, "{problems:?}");
    }
}
