//! The connection to a Redis, or to a cluster of them, which comes and goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Histogram, histogram};
use parking_lot::RwLock;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// A Redis that takes longer is of no use to a read.
const PATIENCE: Duration = Duration::from_millis(100);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Between attempts to connect; and how long keys of a cluster are left alone whose server failed.
const RETRY: Duration = Duration::from_millis(250);
/// Of a cluster: after so many failures in a row, all servers are looked for anew.
const MAX_FAILURES: u32 = 64;
/// Keys of a cluster are left alone by these parts of its slots: a server has neighbouring slots.
const PARTS: usize = 64;

/// What is connected to.
pub(super) enum Server {
    One(Client),
    Cluster(Box<ClusterClient>),
}

impl Server {
    /// `redis://HOST:PORT` is one server, `redis-cluster://HOST:PORT,HOST:PORT` a cluster, found through any of these.
    pub fn open(url: &str) -> RedisResult<Self> {
        let Some(rest) = url.strip_prefix("redis-cluster://") else { return Client::open(url).map(Self::One) };
        let (credentials, hosts) =
            rest.rsplit_once('@').map_or(("", rest), |(_, hosts)| rest.split_at(rest.len() - hosts.len()));
        let nodes = hosts.trim_end_matches('/').split(',').map(|host| format!("redis://{credentials}{host}"));
        let client =
            ClusterClient::builder(nodes).connection_timeout(CONNECT_WITHIN).response_timeout(PATIENCE).retries(2);
        client.build().map(|client| Self::Cluster(Box::new(client)))
    }

    async fn connect(&self) -> RedisResult<Connection> {
        match self {
            Self::One(client) => {
                let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN));
                // Commands have a timer here already.
                let config = config.set_response_timeout(None);
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }
}

#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    /// Finds its servers again by itself, one by one.
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        all: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(all, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(all, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

/// See the module.
pub(super) struct Link {
    connection: RwLock<Option<Connection>>,
    broken: Notify,
    begun: Instant,
    durations: Histogram,
    /// Of a cluster, until when keys of a part are left alone, in milliseconds after `begun`.
    quiet: [AtomicU64; PARTS],
    /// Since the last success.
    failures: AtomicU32,
}

impl Link {
    pub fn new() -> Self {
        Self {
            connection: RwLock::new(None),
            broken: Notify::new(),
            begun: Instant::now(),
            durations: histogram!("tao_cache_redis_duration_seconds"),
            quiet: [const { AtomicU64::new(0) }; PARTS],
            failures: AtomicU32::new(0),
        }
    }

    pub fn is_up(&self) -> bool {
        self.connection.read().is_some()
    }

    pub fn is_cluster(&self) -> bool {
        matches!(*self.connection.read(), Some(Connection::Cluster(_)))
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Runs a command on a key while there is a connection. A failure gives the connection up, or of a cluster's the key's server for a
    /// moment: it must not cost a read the same patience again and again.
    pub async fn run<T>(&self, key: &[u8], command: impl AsyncFnOnce(Connection) -> RedisResult<T>) -> Option<T> {
        let connection = self.connection.read().clone()?;
        let quiet = match connection {
            Connection::One(_) => None,
            Connection::Cluster(_) => Some(&self.quiet[slot(key) * PARTS / SLOTS]),
        };
        if quiet.is_some_and(|until| until.load(Ordering::Relaxed) > self.now_ms()) {
            return None;
        }
        let began = Instant::now();
        let ended = timeout(PATIENCE, command(connection)).await;
        self.durations.record(began.elapsed());
        let is_gone = match ended {
            Ok(Ok(value)) => {
                self.failures.store(0, Ordering::Relaxed);
                return Some(value);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a Redis command failed");
                quiet.is_some() || error.is_io_error() || error.is_connection_dropped()
            }
            Err(_) => true,
        };
        metrics::counter!("tao_cache_redis_errors_total").increment(1);
        if !is_gone {
            return None;
        }
        if let Some(until) = quiet {
            until.store(self.now_ms() + RETRY.as_millis() as u64, Ordering::Relaxed);
            if self.failures.fetch_add(1, Ordering::Relaxed) < MAX_FAILURES {
                return None;
            }
        }
        if self.connection.write().take().is_some() {
            tracing::warn!("Redis is gone; reads go on without it");
            self.broken.notify_one();
        }
        None
    }
}

/// Until it is aborted.
pub(super) async fn keep_connected(server: Server, link: Arc<Link>) {
    loop {
        match timeout(2 * CONNECT_WITHIN, server.connect()).await {
            Ok(Ok(connection)) => {
                tracing::info!("connected to Redis");
                link.failures.store(0, Ordering::Relaxed);
                *link.connection.write() = Some(connection);
                link.broken.notified().await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "Redis can't be reached"),
            Err(_) => tracing::debug!("Redis can't be reached in time"),
        }
        sleep(RETRY).await;
    }
}

/// Of a cluster.
const SLOTS: usize = 16_384;

/// A key's slot in a cluster: CRC-16/XMODEM. Our keys have no braces, by which Redis would hash a part alone.
fn slot(key: &[u8]) -> usize {
    let crc = key.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 })
    });
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // The check value of the published function, and CLUSTER KEYSLOT of a server.
        assert_eq!(slot(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot(b"foo"), 12_182);
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_servers() {
        assert!(matches!(Server::open("redis://127.0.0.1:7000"), Ok(Server::One(_))));
        for url in ["redis-cluster://127.0.0.1:7000,127.0.0.1:7001/", "redis-cluster://user:p@ss@a:7000,b:7000"] {
            assert!(matches!(Server::open(url), Ok(Server::Cluster(_))), "{url}");
        }
        for url in ["redis-cluster://", "http://a", ""] {
            assert!(Server::open(url).is_err(), "{url}");
        }
    }
}
