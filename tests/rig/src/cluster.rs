//! A whole deployment of real processes, with a faulty network between its tiers.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tao_harness::{Network, Postgres, Process, Proxy, Redis, TempDir, eventually, free_port};
use tao_model::{IdLayout, Schema};

use crate::check::Shape;

/// Generous, since other suites run at the same time.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// The name of every log's database.
pub const DATABASE: &str = "tao";
/// Small, so that values are evicted all the time.
const REDIS_MEMORY: u32 = 4;
/// How late answers between tiers may be when nothing is wrong.
const UNEVEN: Duration = Duration::from_millis(40);
/// Of clusters that have a topology.
const CLUSTER: &str = "6c7f2f86-5a0e-4c0c-9d3b-0d9a3f1f4b11";

/// What a deployment consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// By log: how many storage-shard processes its database has. Logical shards are spread evenly over the logs.
    pub logs: Vec<usize>,
    /// Leader processes.
    pub leaders: usize,
    /// Follower processes.
    pub followers: usize,
    /// Whether the followers share a Redis, and how much memory it has, in megabytes.
    pub redis: Option<u32>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { logs: vec![2, 1], leaders: 2, followers: 3, redis: Some(REDIS_MEMORY) }
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
    /// Where that is.
    pub target: SocketAddr,
    /// What lies between them.
    pub proxy: Proxy,
}

impl Link {
    /// As the network is when nothing is wrong. Between the program's tiers it is uneven, so that answers and change streams, which
    /// have connections of their own, overtake each other.
    pub fn heal(&self) {
        let tiers = [Tier::Follower, Tier::Leader, Tier::Shard];
        let uneven = tiers.contains(&self.from) && tiers.contains(&self.to);
        self.proxy.set(if uneven { Network::Uneven(UNEVEN) } else { Network::Pass });
    }
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
    _files: TempDir,
}

/// The logical shards of a log.
fn shards_of(log: usize, logs: usize, layout: IdLayout) -> Range<u32> {
    let begins = |log: usize| (log as u64 * u64::from(layout.shards()) / logs as u64) as u32;
    begins(log)..begins(log + 1)
}

fn local_port() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}

/// The program under test.
pub fn program() -> Result<PathBuf> {
    tao_harness::built_program("tao")
}

/// Where a process of the program listens: for its peers, and for probes.
#[derive(Clone, Copy)]
struct Place {
    address: SocketAddr,
    admin: SocketAddr,
}

fn places(count: usize) -> Result<Vec<Place>> {
    (0..count).map(|_| Ok(Place { address: local_port()?, admin: local_port()? })).collect()
}

fn addresses(places: &[Place]) -> Vec<SocketAddr> {
    places.iter().map(|place| place.address).collect()
}

fn joined(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

struct Builder {
    program: PathBuf,
    seed: u64,
    layout: IdLayout,
    files: TempDir,
    nodes: Vec<Node>,
    links: Vec<Link>,
}

impl Builder {
    /// A faulty network to a server; answers with the address to connect to.
    fn link(&mut self, from: Tier, to: Tier, target: SocketAddr) -> Result<SocketAddr> {
        let proxy = Proxy::start(target, self.seed.wrapping_add(self.links.len() as u64))?;
        let address = proxy.address();
        let link = Link { from, to, target, proxy };
        link.heal();
        self.links.push(link);
        Ok(address)
    }

    fn links(&mut self, from: Tier, to: Tier, targets: &[Place]) -> Result<Vec<SocketAddr>> {
        targets.iter().map(|target| self.link(from, to, target.address)).collect()
    }

    fn node(&mut self, tier: Tier, place: Place, args: &[String]) -> Result<()> {
        let common = [tier.name(), "--listen", &place.address.to_string(), "--admin-listen", &place.admin.to_string()]
            .map(str::to_owned);
        let process = Process::spawn(&self.program, [&common, args].concat(), &[])?;
        self.nodes.push(Node { tier, process, address: place.address, admin: place.admin });
        Ok(())
    }

    /// Writes a topology as one process sees it: the peers are at these addresses, which lead over faulty networks.
    fn topology(&self, leaders: &[SocketAddr], servers: &[Vec<SocketAddr>]) -> Result<String> {
        let quoted =
            |addresses: &[SocketAddr]| addresses.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
        let mut text = format!("version = 1\ncluster = \"{CLUSTER}\"\nleaders = [{}]\n", quoted(leaders));
        let logs = servers.len();
        for (log, servers) in servers.iter().enumerate() {
            let Range { start, end } = shards_of(log, logs, self.layout);
            let _ = write!(text, "[[logs]]\nid = {log}\nshards = [\"{start}-{}\"]\n", end - 1);
            let _ = writeln!(text, "servers = [{}]", quoted(servers));
        }
        let file = self.files.join(format!("topology-{}.toml", self.nodes.len()));
        std::fs::write(&file, text)?;
        Ok(file.to_string_lossy().into_owned())
    }
}

impl Cluster {
    /// Starts everything, and returns when every process is ready.
    pub fn start(plan: &Plan, seed: u64) -> Result<Self> {
        let (layout, files) = (IdLayout::STANDARD, TempDir::new()?);
        let mut builder = Builder { program: program()?, seed, layout, files, nodes: Vec::new(), links: Vec::new() };
        let databases: Vec<_> = plan.logs.iter().map(|_| Postgres::start()).collect::<Result<_>>()?;
        let redis = plan.redis.map(|megabytes| {
            let memory = format!("{megabytes}mb");
            Redis::start_with(&[("maxmemory", memory.as_str()), ("maxmemory-policy", "allkeys-lru")])
        });
        let redis = redis.transpose()?;
        let servers: Vec<_> = plan.logs.iter().map(|count| places(*count)).collect::<Result<_>>()?;
        let (leaders, followers) = (places(plan.leaders)?, places(plan.followers)?);
        let several = plan.logs.len() > 1;

        for (log, (database, places)) in databases.iter().zip(&servers).enumerate() {
            database.create_database(DATABASE)?;
            for place in places {
                let to_database =
                    builder.link(Tier::Shard, Tier::Postgres, (Ipv4Addr::LOCALHOST, database.port()).into())?;
                let mut args = vec!["--store".to_owned(), format!("postgres://postgres@{to_database}/{DATABASE}")];
                if several {
                    // Storage shards talk to those of other logs, for inverse edges there.
                    let reach = |(other, places): (usize, &Vec<Place>)| {
                        if other == log {
                            Ok(addresses(places))
                        } else {
                            builder.links(Tier::Shard, Tier::Shard, places)
                        }
                    };
                    let peers = servers.iter().enumerate().map(reach).collect::<Result<Vec<_>>>()?;
                    let file = builder.topology(&addresses(&leaders), &peers)?;
                    args.extend(["--topology".to_owned(), file, "--log-id".to_owned(), log.to_string()]);
                }
                builder.node(Tier::Shard, *place, &args)?;
            }
        }
        for place in &leaders {
            let reach = |places: &Vec<Place>| builder.links(Tier::Leader, Tier::Shard, places);
            let peers = servers.iter().map(reach).collect::<Result<Vec<_>>>()?;
            let args = if several {
                ["--topology".to_owned(), builder.topology(&addresses(&leaders), &peers)?]
            } else {
                ["--shard".to_owned(), joined(&peers.concat())]
            };
            builder.node(Tier::Leader, *place, &args)?;
        }
        for place in &followers {
            let peers = builder.links(Tier::Follower, Tier::Leader, &leaders)?;
            let mut args = if several {
                let servers: Vec<_> = servers.iter().map(|places| addresses(places)).collect();
                vec!["--topology".to_owned(), builder.topology(&peers, &servers)?]
            } else {
                vec!["--leader".to_owned(), joined(&peers)]
            };
            if let Some(redis) = &redis {
                let target = (Ipv4Addr::LOCALHOST, redis.port()).into();
                let to_redis = builder.link(Tier::Follower, Tier::Redis, target)?;
                args.extend(["--redis".to_owned(), format!("redis://{to_redis}/")]);
            }
            builder.node(Tier::Follower, *place, &args)?;
        }
        let Builder { mut nodes, links, files, .. } = builder;
        nodes.reverse();
        let (lives, ended) = (Lives::new(plan.followers), vec![0; plan.followers]);
        let mut cluster = Self { nodes, links, redis, databases, lives, ended, _files: files };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Where keys live.
    pub fn shape(&self) -> Shape {
        let (layout, logs) = (IdLayout::STANDARD, self.databases.len());
        let log_of = (0..logs).flat_map(|log| shards_of(log, logs, layout).map(move |_| log as u8)).collect();
        Shape { layout, schema: Schema::social(), log_of }
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

    /// Makes every network that leads to a node like this, or heals it.
    pub fn isolate(&self, node: usize, network: Option<Network>) {
        let address = self.nodes[node].address;
        for link in self.links.iter().filter(|link| link.target == address) {
            match network {
                Some(network) => link.proxy.set(network),
                None => link.heal(),
            }
        }
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
    std::io::Write::write_fmt(&mut stream, format_args!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no HTTP status")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
