//! Starts whole deployments of the real program, on free ports and in temporary folders.

use std::path::PathBuf;
use std::time::Duration;

use tao_harness::{Postgres, Process, Redis, TempDir};
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tonic::transport::{Channel, Endpoint};

/// A client of the public API.
pub type Graph = GraphServiceClient<Channel>;

/// The program under test.
pub const TAO: &str = env!("CARGO_BIN_EXE_tao");
/// Until a tier is ready: generous, since other suites run at the same time.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A running deployment; dropped, everything in it ends and nothing is left.
pub struct Cluster {
    followers: Vec<String>,
    /// Ended in this order: the front first.
    processes: Vec<Process>,
    redis: Option<Redis>,
    _postgres: Option<Postgres>,
    _data: TempDir,
}

/// Runs one tier and waits until it listens; answers with its address.
pub fn tier(args: &[&str]) -> (Process, String) {
    tao_harness::tier(TAO, args).unwrap_or_else(|e| panic!("{e:#}"))
}

impl Cluster {
    /// `tao dev`: all tiers in one process, on SQLite, without Redis.
    pub async fn dev() -> Self {
        let data = TempDir::new().expect("a folder");
        let folder = data.path().to_string_lossy().into_owned();
        let (process, address) = tier(&["dev", "--data", &folder, "--no-sample"]);
        let cluster =
            Self { followers: vec![address], processes: vec![process], redis: None, _postgres: None, _data: data };
        cluster.ready().await;
        cluster
    }

    /// Four processes on a PostgreSQL and a Redis of their own: a shard, a leader, two followers.
    pub async fn processes() -> Self {
        let postgres = Postgres::start().expect("PostgreSQL starts");
        let redis = Redis::start().expect("Redis starts");
        let url = postgres.create_database("tao").expect("a database");
        let (shard, shard_address) = tier(&["shard", "--store", &url]);
        let (leader, leader_address) = tier(&["leader", "--shard", &shard_address]);
        let mut processes = Vec::new();
        let mut followers = Vec::new();
        for _ in 0..2 {
            let (follower, address) = tier(&["follower", "--leader", &leader_address, "--redis", &redis.url()]);
            processes.push(follower);
            followers.push(address);
        }
        processes.extend([leader, shard]);
        let data = TempDir::new().expect("a folder");
        let cluster = Self { followers, processes, redis: Some(redis), _postgres: Some(postgres), _data: data };
        cluster.ready().await;
        cluster
    }

    async fn ready(&self) {
        for address in &self.followers {
            ready(address).await;
        }
    }

    /// The address of a follower; the same one again where there are fewer.
    pub fn address(&self, follower: usize) -> &str {
        &self.followers[follower % self.followers.len()]
    }

    /// A connection of its own to a follower.
    pub async fn connect(&self, follower: usize) -> Graph {
        connect(self.address(follower)).await
    }

    /// The Redis, where there is one.
    pub fn redis_mut(&mut self) -> Option<&mut Redis> {
        self.redis.as_mut()
    }

    /// Prints the ends of all logs, and says where they came from.
    pub fn keep_logs(&self) -> PathBuf {
        for process in &self.processes {
            eprintln!("---\n{}", process.log_tail());
        }
        PathBuf::from("the output above")
    }
}

/// A connection that is made when it is first used.
pub async fn connect(address: &str) -> Graph {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.tcp_nodelay(true).connect().await.expect("the follower accepts connections");
    GraphServiceClient::new(channel).max_encoding_message_size(16 << 20)
}

/// Waits until a server says of itself that it serves, over the health protocol.
pub async fn ready(address: &str) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("the server accepts connections");
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let serving = async {
        let mut states = health.watch(tonic_health::pb::HealthCheckRequest::default()).await?.into_inner();
        while let Some(state) = states.message().await? {
            if state.status == 1 {
                return Ok(());
            }
        }
        Err(tonic::Status::unavailable("the health stream ended"))
    };
    tokio::time::timeout(START_WITHIN, serving).await.expect("ready in time").expect("healthy");
}
