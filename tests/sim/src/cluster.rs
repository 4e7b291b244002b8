//! The hosts: storage shards over databases that outlive them, leaders, followers; all the real tiers, on simulated machines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tao_model::{Clock, Schema};
use tao_rpc::LinkOptions;
use tao_runtime::{Readiness, Shutdown, ShutdownTrigger, Workers};
use tao_shard::RunError;
use tao_store::{MemoryDatabase, OpenError};
use tao_topology::Topology;
use turmoil::Sim;

use crate::clock::HostClock;
use crate::database::DatabaseLink;
use crate::network::{Lines, SimConnect, SimListener};
use crate::plan::{FOLLOWER_PORT, LEADER_PORT, LOGS, Plan, SHARD_PORT};

/// What all hosts share that is not the network: it survives their crashes.
#[derive(Clone)]
pub struct Cluster {
    /// Sizes and times.
    pub plan: Arc<Plan>,
    /// The types.
    pub schema: Arc<Schema>,
    /// All connections.
    pub lines: Lines,
    /// The databases, by log.
    pub databases: [MemoryDatabase; LOGS],
    /// Each storage shard's way to its database.
    pub database_links: BTreeMap<String, DatabaseLink>,
    /// The clocks of hosts that have one of their own.
    pub clocks: BTreeMap<String, HostClock>,
    /// How often each follower was started.
    pub lives: Arc<[AtomicU16]>,
    topology: Arc<Topology>,
    stops: Arc<Mutex<BTreeMap<String, ShutdownTrigger>>>,
}

fn listen(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

/// What ends a host's life politely, and the workers and readiness of a life.
fn begin(stops: &Mutex<BTreeMap<String, ShutdownTrigger>>, host: &str) -> (Workers, Readiness, Shutdown) {
    let (trigger, shutdown) = Shutdown::new();
    stops.lock().insert(host.to_owned(), trigger);
    (Workers::inline(), Readiness::new(), shutdown)
}

impl Cluster {
    /// With empty databases.
    pub fn new(plan: Plan) -> Result<Self> {
        let databases = std::array::from_fn(|_| MemoryDatabase::archiving());
        let topology = Arc::new(Topology::parse(&plan.topology())?);
        let clocks = plan.shards.iter().flatten().map(|name| (name.clone(), HostClock::default())).collect();
        let link = |(n, name): (usize, &String)| (name.clone(), DatabaseLink::new(&plan, n as u64));
        Ok(Self {
            database_links: plan.shards.iter().flatten().enumerate().map(link).collect(),
            schema: Arc::new(Schema::social()),
            lines: Lines::default(),
            databases,
            clocks,
            lives: plan.followers.iter().map(|_| AtomicU16::new(0)).collect(),
            topology,
            stops: Arc::default(),
            plan: Arc::new(plan),
        })
    }

    /// Puts all hosts into a simulation.
    pub fn start(&self, sim: &mut Sim<'_>) {
        for (log, names) in self.plan.shards.iter().enumerate() {
            names.iter().for_each(|name| self.shard(sim, log, name));
        }
        self.plan.leaders.iter().for_each(|name| self.leader(sim, name));
        self.plan.followers.iter().enumerate().for_each(|(n, name)| self.follower(sim, n, name));
    }

    /// Asks a host to stop politely.
    pub fn stop(&self, host: &str) {
        if let Some(trigger) = self.stops.lock().remove(host) {
            trigger.trigger();
        }
    }

    /// Impatient links: a peer that is silent for a second is given up, so that a run needs no minutes.
    fn link(&self, host: &str) -> LinkOptions {
        LinkOptions {
            connect: Arc::new(SimConnect { from: host.to_owned(), lines: self.lines.clone() }),
            connect_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_millis(500),
            keepalive_timeout: Duration::from_millis(500),
            ..LinkOptions::default()
        }
    }

    fn shard(&self, sim: &mut Sim<'_>, log: usize, name: &str) {
        let clock = self.clocks.get(name).cloned().unwrap_or_default();
        let config = tao_shard::Config {
            listen: listen(SHARD_PORT),
            store: "memory:".to_owned(),
            memory: Some(self.databases[log].behind(Arc::new(self.database_links[name].clone()))),
            store_connections: 8,
            layout: self.plan.info(log).layout,
            topology: self.topology.clone(),
            log: self.plan.info(log).log,
            reflection: true,
            link: self.link(name),
            stream_bytes: self.plan.stream,
            log_retention: self.plan.log_retention,
            new_epoch: false,
        };
        let (host, stops, schema) = (name.to_owned(), self.stops.clone(), self.schema.clone());
        sim.host(name, move || {
            let (config, schema, clock) = (config.clone(), schema.clone(), Arc::new(clock.clone()) as Arc<dyn Clock>);
            let (workers, readiness, shutdown) = begin(&stops, &host);
            async move {
                loop {
                    let listener = SimListener::bind(SHARD_PORT).await?;
                    let (config, schema, clock) = (config.clone(), schema.clone(), clock.clone());
                    let (readiness, shutdown) = (readiness.clone(), shutdown.clone());
                    match tao_shard::run(config, schema, clock, listener, &workers, readiness, shutdown).await {
                        // A program that ends so is started again.
                        Err(RunError::Open(OpenError::Fault(error))) => {
                            tracing::info!(%error, "a storage shard can't begin");
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                        ended => return Ok(ended?),
                    }
                }
            }
        });
    }

    fn leader(&self, sim: &mut Sim<'_>, name: &str) {
        let config = tao_leader::Config {
            listen: listen(LEADER_PORT),
            topology: self.topology.clone(),
            reflection: true,
            link: self.link(name),
            cache_bytes: self.plan.leader_cache,
            stream_bytes: self.plan.stream,
            shard_concurrency: 64,
        };
        let (host, stops) = (name.to_owned(), self.stops.clone());
        sim.host(name, move || {
            let config = config.clone();
            let (workers, readiness, shutdown) = begin(&stops, &host);
            async move {
                let listener = SimListener::bind(LEADER_PORT).await?;
                let clock = Arc::new(HostClock::default());
                Ok(tao_leader::run(config, clock, listener, &workers, readiness, shutdown).await?)
            }
        });
    }

    fn follower(&self, sim: &mut Sim<'_>, number: usize, name: &str) {
        let config = tao_follower::Config {
            listen: listen(FOLLOWER_PORT),
            topology: self.topology.clone(),
            reflection: true,
            link: self.link(name),
            cache_bytes: self.plan.follower_cache,
            redis: None,
            warm_start: Duration::ZERO,
            max_watches: 16,
            max_connections: 1_000,
            max_connections_per_address: 1_000,
            max_concurrent_streams: 1_000,
            message_timeout: Duration::from_secs(30),
            limits: tao_follower::config::Limits::default(),
            max_connection_age: None,
            max_connection_idle: None,
            audit_per_second: 0,
            access: tao_access::Access::open(),
            logs_writes: false,
            admin: tao_runtime::AdminRoutes::default(),
        };
        let (host, stops, schema, lives) =
            (name.to_owned(), self.stops.clone(), self.schema.clone(), self.lives.clone());
        sim.host(name, move || {
            let (config, schema) = (config.clone(), schema.clone());
            let (workers, readiness, shutdown) = begin(&stops, &host);
            lives[number].fetch_add(1, Ordering::Relaxed);
            async move {
                let listener = SimListener::bind(FOLLOWER_PORT).await?;
                let clock = Arc::new(HostClock::default());
                Ok(tao_follower::run(config, schema, clock, listener, &workers, readiness, shutdown).await?)
            }
        });
    }
}
