//! A whole deployment of real processes, with a faulty network between its tiers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tao_harness::{Postgres, Process, Proxy, Redis, eventually, free_port};
use tao_model::Schema;

use crate::check::Shape;

/// Generous, since other suites run at the same time.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// The name of every log's database.
pub const DATABASE: &str = "tao";
/// Small, so that values are evicted all the time.
const REDIS_MEMORY: &str = "4mb";

/// What a deployment consists of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Follower processes.
    pub followers: usize,
    /// Whether the followers share a Redis.
    pub redis: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { followers: 3, redis: true }
    }
}

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// `tao follower`
    Follower,
    /// `tao leader`
    Leader,
    /// `tao shard`
    Shard,
    /// The followers' second level.
    Redis,
    /// A log's database.
    Postgres,
}

impl Tier {
    /// Its name, as in the command line where it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Follower => "follower",
            Self::Leader => "leader",
            Self::Shard => "shard",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

/// A process of the program under test. Its ports stay the same when it is started again.
pub struct Node {
    /// What it is.
    pub tier: Tier,
    /// The process.
    pub process: Process,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its admin port.
    pub admin: SocketAddr,
}

/// The network between a process and one that it connects to.
pub struct Link {
    /// Who connects.
    pub from: Tier,
    /// To whom.
    pub to: Tier,
    /// What lies between them.
    pub proxy: Proxy,
}

/// Which life of which follower is on: see [`Process`](crate::check::Process).
#[derive(Debug, Clone)]
pub struct Lives(Arc<[AtomicU16]>);

impl Lives {
    fn new(followers: usize) -> Self {
        Self((0..followers).map(|_| AtomicU16::new(1)).collect())
    }

    /// The life of a follower now; 0 while it is being killed and started.
    pub fn of(&self, follower: usize) -> u16 {
        self.0[follower].load(Ordering::SeqCst)
    }
}

/// A running deployment; dropped, everything in it ends and nothing is left.
pub struct Cluster {
    /// The front first: dropped in this order.
    pub nodes: Vec<Node>,
    /// The networks.
    pub links: Vec<Link>,
    /// The followers' second level.
    pub redis: Option<Redis>,
    /// By log.
    pub databases: Vec<Postgres>,
    lives: Lives,
    /// By follower: its last life that has ended.
    ended: Vec<u16>,
}

fn local_port() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

/// The program under test.
pub fn program() -> Result<PathBuf> {
    tao_harness::built_program("tao")
}

struct Builder {
    program: PathBuf,
    seed: u64,
    nodes: Vec<Node>,
    links: Vec<Link>,
}

impl Builder {
    /// A faulty network to a server; answers with the address to connect to.
    fn link(&mut self, from: Tier, to: Tier, target: SocketAddr) -> Result<SocketAddr> {
        let proxy = Proxy::start(target, self.seed.wrapping_add(self.links.len() as u64))?;
        let address = proxy.address();
        self.links.push(Link { from, to, proxy });
        Ok(address)
    }

    fn node(&mut self, tier: Tier, args: &[&str]) -> Result<SocketAddr> {
        let (address, admin) = (local_port()?, local_port()?);
        let (listen, admin_listen) = (address.to_string(), admin.to_string());
        let common = [tier.name(), "--listen", &listen, "--admin-listen", &admin_listen];
        let process = Process::spawn(&self.program, [&common, args].concat(), &[])?;
        self.nodes.push(Node { tier, process, address, admin });
        Ok(address)
    }
}

impl Cluster {
    /// Starts everything, and returns when every follower is ready.
    pub fn start(plan: Plan, seed: u64) -> Result<Self> {
        let mut builder = Builder { program: program()?, seed, nodes: Vec::new(), links: Vec::new() };
        let database = Postgres::start()?;
        database.create_database(DATABASE)?;
        let settings = [("maxmemory", REDIS_MEMORY), ("maxmemory-policy", "allkeys-lru")];
        let redis = plan.redis.then(|| Redis::start_with(&settings)).transpose()?;

        let to_database = builder.link(Tier::Shard, Tier::Postgres, (Ipv4Addr::LOCALHOST, database.port()).into())?;
        let store = format!("postgres://postgres@{to_database}/{DATABASE}");
        let shard = builder.node(Tier::Shard, &["--store", &store])?;
        let to_shard = builder.link(Tier::Leader, Tier::Shard, shard)?.to_string();
        let leader = builder.node(Tier::Leader, &["--shard", &to_shard])?;
        for _ in 0..plan.followers {
            let to_leader = builder.link(Tier::Follower, Tier::Leader, leader)?.to_string();
            let mut args = vec!["--leader".to_owned(), to_leader];
            if let Some(redis) = &redis {
                let target = (Ipv4Addr::LOCALHOST, redis.port()).into();
                let to_redis = builder.link(Tier::Follower, Tier::Redis, target)?;
                args.extend(["--redis".to_owned(), format!("redis://{to_redis}/")]);
            }
            builder.node(Tier::Follower, &args.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        let Builder { mut nodes, links, .. } = builder;
        nodes.reverse();
        let lives = Lives::new(plan.followers);
        let ended = vec![0; plan.followers];
        let mut cluster = Self { nodes, links, redis, databases: vec![database], lives, ended };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Where keys live.
    pub fn shape(&self) -> Shape {
        Shape::one_log(Schema::social())
    }

    /// The addresses of the followers.
    pub fn followers(&self) -> Vec<SocketAddr> {
        self.nodes.iter().filter(|n| n.tier == Tier::Follower).map(|n| n.address).collect()
    }

    /// Which lives of the followers are on.
    pub fn lives(&self) -> Lives {
        self.lives.clone()
    }

    /// The numbers of the nodes of a tier.
    pub fn of_tier(&self, tier: Tier) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].tier == tier).collect()
    }

    /// SIGKILL. A follower's life ends with it.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let follower = self.follower_number(node);
        let life = follower.map(|f| self.lives.0[f].swap(0, Ordering::SeqCst));
        if let (Some(follower), Some(life)) = (follower, life) {
            self.ended[follower] = life;
        }
        self.nodes[node].process.kill9()
    }

    /// Starts a node again that was killed; returns when it says that it is ready.
    pub fn start_again(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.start_again()?;
        wait_ready(&mut self.nodes[node])?;
        if let Some(follower) = self.follower_number(node) {
            self.lives.0[follower].store(self.ended[follower] + 1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn follower_number(&self, node: usize) -> Option<usize> {
        self.of_tier(Tier::Follower).iter().position(|n| *n == node)
    }

    /// Returns when every node says that it is ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(wait_ready)
    }

    /// Prints the ends of all logs.
    pub fn print_logs(&self) {
        for node in &self.nodes {
            eprintln!("--- {} {}\n{}", node.tier.name(), node.address, node.process.log_tail());
        }
    }
}

fn wait_ready(node: &mut Node) -> Result<()> {
    let ready = || {
        let (status, body) = http_get(node.admin, "/readyz")?;
        ensure!(status == 200, "{} is not ready: {body}", node.tier.name());
        Ok(())
    };
    eventually(READY_WITHIN, ready).with_context(|| format!("its last words:\n{}", node.process.log_tail()))
}

/// Asks an admin port.
pub fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no HTTP status")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
