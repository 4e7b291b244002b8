//! What a follower can be told: in a file, in the environment, by flags; the later wins.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tao_access::Access;
use tao_rpc::LinkOptions;
use tao_runtime::{AdminRoutes, ByteSize};
use tao_topology::Topology;

pub use crate::admission::{LimitOptions, Limits};

/// Milliseconds: how far back a follower with a Redis begins its streams.
const WARM_START_MS: u64 = 5 * 60 * 1_000;
/// Seconds.
const MAX_CONNECTION_AGE: u64 = 30 * 60;
const MAX_CONNECTION_IDLE: u64 = 15 * 60;
const MONTH: u64 = 30 * 24 * 3_600;
const MAX_CONNECTIONS: usize = 10_000;
/// So few that a follower which is behind has no queue that outlasts its callers' deadlines: what is more waits, and ends, with them.
const MAX_CONCURRENT_STREAMS: u32 = 128;
const MESSAGE_TIMEOUT_MS: u64 = 30_000;
/// Each has a stream from a leader for every database.
const MAX_WATCHES: usize = 256;

/// How the URL of a Redis, and of a Redis Cluster, begins.
const REDIS: [&str; 2] = ["redis://", "redis-cluster://"];

/// Options of a follower, each of them optional.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Where clients connect to [default: 127.0.0.1:50051]
    #[arg(long, env = "TAO_FOLLOWER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The leaders of a cluster with one database, as HOST:PORT,… [default: 127.0.0.1:50052]
    #[arg(long = "leader", env = "TAO_LEADER", value_name = "ADDRESS", value_delimiter = ',')]
    pub leaders: Option<Vec<String>>,
    /// The topology of a cluster with several databases: a TOML file (docs/configuration.md)
    #[arg(long, env = "TAO_TOPOLOGY", value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Memory for the cache, such as 256MiB [default: 256MiB]
    #[arg(long, env = "TAO_FOLLOWER_CACHE_SIZE", value_name = "SIZE")]
    pub cache_size: Option<ByteSize>,
    /// A Redis that followers share as a second level: redis://HOST:PORT, or redis-cluster://HOST:PORT,HOST:PORT for a Redis Cluster
    /// [default: none]
    #[arg(long, env = "TAO_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<String>,
    /// The password of that Redis, where its URL has none. In the environment as `TAO_REDIS_PASSWORD`, never a flag: flags are for all to
    /// see.
    #[arg(skip)]
    pub redis_password: Option<String>,
    /// How far back the change streams of a follower with a Redis begin, in milliseconds: what Redis has had for longer is used
    /// after a restart [default: 300000]
    #[arg(long, env = "TAO_WARM_START_MS", value_name = "MS")]
    pub warm_start_ms: Option<u64>,
    /// Watch streams at once; more are refused [default: 256]
    #[arg(long, env = "TAO_MAX_WATCHES", value_name = "N")]
    pub max_watches: Option<usize>,
    /// Connections of clients at once; more are closed as they come [default: 10000]
    #[arg(long, env = "TAO_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Of those, from one address [default: half of them]
    #[arg(long, env = "TAO_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    pub max_connections_per_address: Option<usize>,
    /// Calls at once on one connection, 1 to 10000; more wait at the client. A pipeline is one, however many come by it [default: 128]
    #[arg(long, env = "TAO_MAX_CONCURRENT_STREAMS", value_name = "N")]
    pub max_concurrent_streams: Option<u32>,
    /// Milliseconds that a request's message may take from its beginning to its end, 100 or more [default: 30000]
    #[arg(long, env = "TAO_MESSAGE_TIMEOUT_MS", value_name = "MS")]
    pub message_timeout_ms: Option<u64>,
    /// Seconds after which a client's connection is ended politely, so that load spreads, give or take a tenth; 0: never
    /// [default: 1800]
    #[arg(long, env = "TAO_MAX_CONNECTION_AGE", value_name = "SECONDS")]
    pub max_connection_age: Option<u64>,
    /// Seconds after which a connection without requests is ended politely; 0: never [default: 900]
    #[arg(long, env = "TAO_MAX_CONNECTION_IDLE", value_name = "SECONDS")]
    pub max_connection_idle: Option<u64>,
    /// Milliseconds after which the leaders' names are resolved again, 100 or more [default: 2000]
    #[arg(long, env = "TAO_RESOLVE_EVERY_MS", value_name = "MS")]
    pub resolve_every_ms: Option<u64>,
    /// Cached keys to compare with the database each second, for as long as the follower runs; 0: none [default: 1]
    #[arg(long, env = "TAO_AUDIT_PER_SECOND", value_name = "N")]
    pub audit_per_second: Option<u32>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// The leaders, and where shards live.
    pub topology: Arc<Topology>,
    /// Whether its services are described to those who ask.
    pub reflection: bool,
    /// How leaders are reached.
    pub link: LinkOptions,
    /// Bytes of the cache in memory.
    pub cache_bytes: u64,
    /// The second level.
    pub redis: Option<String>,
    /// How far back streams begin when there is a second level.
    pub warm_start: Duration,
    /// Watch streams at once.
    pub max_watches: usize,
    /// Connections of clients at once.
    pub max_connections: usize,
    /// Of those, from one address.
    pub max_connections_per_address: usize,
    /// Calls at once on one connection.
    pub max_concurrent_streams: u32,
    /// From a message's beginning to its end.
    pub message_timeout: Duration,
    /// After this a client's connection is ended politely.
    pub max_connection_age: Option<Duration>,
    /// After so long without a request it is, too.
    pub max_connection_idle: Option<Duration>,
    /// Cached keys to audit each second.
    pub audit_per_second: u32,
    /// Who is let in, and as whom.
    pub access: Access,
    /// Whether a line is logged for each write.
    pub logs_writes: bool,
    /// By identity.
    pub limits: Limits,
    /// Where operators ask for an audit.
    pub admin: AdminRoutes,
}

impl Options {
    /// With the secrets that the environment has, and flags don't.
    #[must_use]
    pub fn with_secrets(self) -> Self {
        Self { redis_password: std::env::var("TAO_REDIS_PASSWORD").ok(), ..self }
    }

    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            leaders: self.leaders.or(lower.leaders),
            topology: self.topology.or(lower.topology),
            cache_size: self.cache_size.or(lower.cache_size),
            redis: self.redis.or(lower.redis),
            redis_password: self.redis_password.or(lower.redis_password),
            warm_start_ms: self.warm_start_ms.or(lower.warm_start_ms),
            max_watches: self.max_watches.or(lower.max_watches),
            max_connections: self.max_connections.or(lower.max_connections),
            max_connections_per_address: self.max_connections_per_address.or(lower.max_connections_per_address),
            max_concurrent_streams: self.max_concurrent_streams.or(lower.max_concurrent_streams),
            message_timeout_ms: self.message_timeout_ms.or(lower.message_timeout_ms),
            max_connection_age: self.max_connection_age.or(lower.max_connection_age),
            max_connection_idle: self.max_connection_idle.or(lower.max_connection_idle),
            resolve_every_ms: self.resolve_every_ms.or(lower.resolve_every_ms),
            audit_per_second: self.audit_per_second.or(lower.audit_per_second),
        }
    }

    /// Checks every option; the error names all that are wrong, one each.
    pub fn check(self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let topology = match (&self.topology, self.leaders) {
            (Some(_), Some(_)) => Err(vec!["leader: the topology names the leaders: give one of the two".to_owned()]),
            (Some(file), None) => Topology::load(file).map_err(|error| error.problems),
            (None, Some(leaders)) => Ok(Topology::single(leaders, Vec::new())),
            (None, None) => Ok(Topology::single(vec!["127.0.0.1:50052".to_owned()], Vec::new())),
        };
        let topology = topology.map_err(|p| problems.extend(p)).ok();
        let cache_bytes = self.cache_size.map_or(256 << 20, |size| size.0);
        if (1..1 << 20).contains(&cache_bytes) {
            problems.push("cache_size: at least 1MiB, or 0 for none".to_owned());
        }
        if self.redis.as_ref().is_some_and(|url| !REDIS.iter().any(|scheme| url.starts_with(scheme))) {
            problems.push("redis: an URL begins with redis:// or redis-cluster://".to_owned());
        }
        let redis = match (self.redis, self.redis_password.filter(|password| !password.is_empty())) {
            (Some(url), Some(password)) => {
                let url = with_password(&url, &password);
                if url.is_none() {
                    problems.push("redis_password: the URL has a password, too: give one of the two".to_owned());
                }
                url
            }
            (url, _) => url,
        };
        let max_watches = self.max_watches.unwrap_or(MAX_WATCHES);
        if max_watches > 1_000_000 {
            problems.push(format!("max_watches: {max_watches} is not within 0 to 1000000"));
        }
        let audit_per_second = self.audit_per_second.unwrap_or(1);
        if audit_per_second > 1_000 {
            problems.push(format!("audit_per_second: {audit_per_second} is not within 0 to 1000"));
        }
        let max_connections = self.max_connections.unwrap_or(MAX_CONNECTIONS);
        if !(1..=1_000_000).contains(&max_connections) {
            problems.push(format!("max_connections: {max_connections} is not within 1 to 1000000"));
        }
        let max_connections_per_address = self.max_connections_per_address.unwrap_or(max_connections.div_ceil(2));
        if !(1..=max_connections.max(1)).contains(&max_connections_per_address) {
            problems.push(format!(
                "max_connections_per_address: {max_connections_per_address} is not within 1 to max_connections, {max_connections}"
            ));
        }
        let max_concurrent_streams = self.max_concurrent_streams.unwrap_or(MAX_CONCURRENT_STREAMS);
        if !(1..=10_000).contains(&max_concurrent_streams) {
            problems.push(format!("max_concurrent_streams: {max_concurrent_streams} is not within 1 to 10000"));
        }
        let message_timeout_ms = self.message_timeout_ms.unwrap_or(MESSAGE_TIMEOUT_MS);
        if !(100..=600_000).contains(&message_timeout_ms) {
            problems.push(format!("message_timeout_ms: {message_timeout_ms} is not within 100 to 600000"));
        }
        let max_connection_age = self.max_connection_age.unwrap_or(MAX_CONNECTION_AGE);
        let max_connection_idle = self.max_connection_idle.unwrap_or(MAX_CONNECTION_IDLE);
        for (name, time) in [("max_connection_age", max_connection_age), ("max_connection_idle", max_connection_idle)] {
            if time > MONTH {
                problems.push(format!("{name}: {time} is not within 0 to {MONTH} seconds"));
            }
        }
        let resolve_every_ms = self.resolve_every_ms.unwrap_or(2_000);
        if !(100..=3_600_000).contains(&resolve_every_ms) {
            problems.push(format!("resolve_every_ms: {resolve_every_ms} is not within 100 to 3600000"));
        }
        let seconds = |time| (time > 0).then(|| Duration::from_secs(time));
        let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 50051)));
        match topology {
            Some(topology) if problems.is_empty() => Ok(Config {
                listen,
                topology: Arc::new(topology),
                reflection: true,
                link: LinkOptions { resolve_every: Duration::from_millis(resolve_every_ms), ..LinkOptions::default() },
                cache_bytes,
                redis,
                warm_start: Duration::from_millis(self.warm_start_ms.unwrap_or(WARM_START_MS)),
                max_watches,
                max_connections,
                max_connections_per_address,
                max_concurrent_streams,
                message_timeout: Duration::from_millis(message_timeout_ms),
                max_connection_age: seconds(max_connection_age),
                max_connection_idle: seconds(max_connection_idle),
                audit_per_second,
                access: Access::open(),
                logs_writes: false,
                limits: Limits::default(),
                admin: AdminRoutes::default(),
            }),
            _ => Err(problems),
        }
    }
}

/// The URL of a Redis with a password, which may hold any character; none when it has one already.
fn with_password(url: &str, password: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (user, hosts) = rest.rsplit_once('@').unwrap_or(("", rest));
    if user.contains(':') {
        return None;
    }
    let escaped: String = password
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    Some(format!("{scheme}://{user}:{escaped}@{hosts}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_into_the_url() {
        let with = |url| with_password(url, "p@ss/w:rd");
        assert_eq!(with("redis://a:6379/0").unwrap(), "redis://:p%40ss%2Fw%3Ard@a:6379/0");
        assert_eq!(with("redis-cluster://tao@a:1,b:2").unwrap(), "redis-cluster://tao:p%40ss%2Fw%3Ard@a:1,b:2");
        assert_eq!(with("redis://tao:other@a:6379"), None);
        let both = Options {
            redis: Some("redis://:x@a".to_owned()),
            redis_password: Some("secret".to_owned()),
            ..Default::default()
        };
        let problems = both.check().unwrap_err();
        assert!(problems[0].starts_with("redis_password: ") && !problems[0].contains("secret"), "{problems:?}");
    }

    #[test]
    fn every_problem_is_reported() {
        let wrong = Options {
            leaders: Some(vec!["a:1".to_owned()]),
            topology: Some("absent.toml".into()),
            redis: Some("x".to_owned()),
            max_connection_age: Some(MONTH + 1),
            max_connections: Some(0),
            message_timeout_ms: Some(99),
            max_concurrent_streams: Some(0),
            resolve_every_ms: Some(1),
            ..Default::default()
        };
        let problems = wrong.check().unwrap_err();
        assert!(problems[0].contains("give one of the two") && problems.len() == 8, "{problems:?}");
        let two = Options { leaders: Some(vec!["a:1".to_owned(), "b:1".to_owned()]), ..Default::default() };
        let config = two.check().unwrap();
        assert_eq!(config.topology.leaders().len(), 2);
        assert_eq!(config.max_connection_age, Some(Duration::from_secs(1_800)));
        assert_eq!((config.max_connections, config.max_connections_per_address), (10_000, 5_000));
        let never = Options { max_connection_age: Some(0), ..Default::default() };
        assert_eq!(never.check().unwrap().max_connection_age, None);
    }
}
