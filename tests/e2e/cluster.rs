//! Starts whole deployments of the real program, on free ports and in temporary folders.

use std::path::PathBuf;
use std::time::Duration;

use tao_client::{Client, ClientOptions, Session};
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
    store: String,
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
        let store = format!("sqlite:{}", data.join("tao.db").display());
        let (followers, processes) = (vec![address], vec![process]);
        let cluster = Self { followers, processes, redis: None, store, _postgres: None, _data: data };
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
        let cluster =
            Self { followers, processes, redis: Some(redis), store: url, _postgres: Some(postgres), _data: data };
        cluster.ready().await;
        cluster
    }

    /// One that runs somewhere, by the addresses of its followers.
    pub async fn at(addresses: &str) -> Self {
        let followers = addresses.split(',').map(str::to_owned).collect();
        let data = TempDir::new().expect("a folder");
        let cluster =
            Self { followers, processes: Vec::new(), redis: None, store: String::new(), _postgres: None, _data: data };
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

    /// The database, as storage shards have it.
    pub fn store(&self) -> String {
        self.store.clone()
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

/// Two databases of one PostgreSQL, each a log with half of the shards; three storage shards (two of the first), two leaders, two
/// followers. All on fixed ports, so that each can be killed and started again.
pub struct TwoLogs {
    /// Of log 0, log 0 and log 1.
    pub shards: [Process; 3],
    /// The leaders.
    pub leaders: [Process; 2],
    /// The followers.
    pub followers: [Process; 2],
    addresses: [String; 2],
    admins: [String; 3],
    postgres: Postgres,
    _data: TempDir,
}

impl TwoLogs {
    /// Starts them all, and waits until they serve.
    pub async fn start() -> Self {
        let postgres = Postgres::start().expect("PostgreSQL starts");
        let data = TempDir::new().expect("a folder");
        let port = || format!("127.0.0.1:{}", tao_harness::free_port().expect("a port"));
        let ports: [String; 10] = std::array::from_fn(|_| port());
        let [a, b, c, leader_a, leader_b, follower_a, follower_b, admins @ ..] = ports;
        let text = format!(
            "version = 1\ncluster = \"6c7f2f86-5a0e-4c0c-9d3b-0d9a3f1f4b11\"\nleaders = [{leader_a:?}, {leader_b:?}]\n\
             [[logs]]\nid = 0\nshards = [\"0-511\"]\nservers = [{a:?}, {b:?}]\n\
             [[logs]]\nid = 1\nshards = [\"512-1023\"]\nservers = [{c:?}]\n"
        );
        let file = data.join("topology.toml");
        std::fs::write(&file, text).expect("the topology is written");
        let file = file.to_string_lossy().into_owned();
        let run = |tier: &str, listen: &str, admin: &str, more: &[&str]| {
            let args = [&[tier, "--topology", &file, "--listen", listen, "--admin-listen", admin], more].concat();
            Process::spawn(TAO, &args, &[]).expect("tao runs")
        };
        let urls = ["zero", "one"].map(|name| postgres.create_database(name).expect("a database"));
        let shard = |listen: &str, admin: &str, log: usize| {
            run("shard", listen, admin, &["--store", &urls[log], "--log-id", &log.to_string()])
        };
        let any = "127.0.0.1:0";
        let shards = [shard(&a, &admins[0], 0), shard(&b, &admins[1], 0), shard(&c, &admins[2], 1)];
        let leaders = [run("leader", &leader_a, any, &[]), run("leader", &leader_b, any, &[])];
        let followers = [run("follower", &follower_a, any, &[]), run("follower", &follower_b, any, &[])];
        let addresses = [follower_a, follower_b];
        let mut cluster = Self { shards, leaders, followers, addresses, admins, postgres, _data: data };
        for (follower, address) in cluster.followers.iter_mut().zip(&cluster.addresses) {
            follower.wait_line("listening for gRPC", START_WITHIN).expect("a follower listens");
            ready(address).await;
        }
        cluster
    }

    /// A session of the Rust client, which repeats what may be repeated.
    pub fn session(&self) -> Session {
        Client::connect(&self.addresses.join(","), ClientOptions::default()).expect("addresses").session()
    }

    /// Connections to both followers.
    pub async fn connect(&self) -> [Graph; 2] {
        [connect(&self.addresses[0]).await, connect(&self.addresses[1]).await]
    }

    /// What each database has left to do in the other.
    pub fn intents(&self) -> [u64; 2] {
        ["zero", "one"].map(|name| {
            let count = self.postgres.execute(name, "SELECT count(*) FROM intents").expect("a count");
            count.parse().expect("a number")
        })
    }

    /// Its databases, by log.
    pub fn urls(&self) -> [String; 2] {
        ["zero", "one"].map(|name| format!("postgres://postgres@127.0.0.1:{}/{name}", self.postgres.port()))
    }

    /// Runs a statement in the database of a log, past its storage shards.
    pub fn execute(&self, log: usize, sql: &str) -> String {
        self.postgres.execute(["zero", "one"][log], sql).expect("a statement")
    }

    /// A metric of a storage shard, summed over its labels; none while it can't be asked.
    pub fn metric(&self, shard: usize, name: &str) -> Option<f64> {
        let text = tao_harness::http_get(&self.admins[shard], "/metrics").ok()?;
        let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values: Vec<f64> =
            text.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}
