//! What goes wrong, and when: all of it from the seed.

use std::fmt;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use turmoil::Sim;

use crate::cluster::Cluster;
use crate::plan::{Plan, randomness};

/// Clocks of storage shards are wrong by at most so much.
const MAX_CLOCK_ERROR_MS: i64 = 3_000;

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing passes between two hosts.
    Partition(String, String),
    /// Nothing passes from the first to the second.
    OneWay(String, String),
    /// What passes between two hosts arrives only at the end.
    Hold(String, String),
    /// Each message between two hosts takes so many milliseconds.
    Slow(String, String, u64),
    /// The connections between two hosts break, once.
    Cut(String, String),
    /// A host loses power, and is started again.
    Crash(String),
    /// A host's program is asked to stop, and is started again.
    Stop(String),
    /// A storage shard can't reach its database.
    Database(String),
    /// A storage shard's clock is set wrong by so many milliseconds, and stays so.
    Clock(String, i64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(a, b) => write!(f, "partition {a} | {b}"),
            Self::OneWay(a, b) => write!(f, "nothing from {a} to {b}"),
            Self::Hold(a, b) => write!(f, "hold {a} | {b}"),
            Self::Slow(a, b, ms) => write!(f, "slow {a} | {b}: {ms} ms"),
            Self::Cut(a, b) => write!(f, "cut {a} | {b}"),
            Self::Crash(host) => write!(f, "crash {host}"),
            Self::Stop(host) => write!(f, "stop {host}"),
            Self::Database(host) => write!(f, "no database for {host}"),
            Self::Clock(host, ms) => write!(f, "clock of {host} {ms:+} ms"),
        }
    }
}

impl Fault {
    /// The hosts, or the link, that no other fault may touch meanwhile.
    fn place(&self) -> (&str, &str) {
        match self {
            Self::Partition(a, b) | Self::OneWay(a, b) | Self::Hold(a, b) | Self::Slow(a, b, _) | Self::Cut(a, b) => {
                if a < b {
                    (a, b)
                } else {
                    (b, a)
                }
            }
            Self::Crash(host) | Self::Stop(host) => (host, ""),
            Self::Database(host) => (host, "database"),
            Self::Clock(host, _) => (host, "clock"),
        }
    }
}

/// Begins and ends faults as time goes by.
pub struct Faults {
    cluster: Cluster,
    random: StdRng,
    next: Duration,
    /// With the time when each ends.
    under_way: Vec<(Duration, Fault)>,
    /// How many there were.
    pub count: u64,
}

impl Faults {
    /// None yet; the cluster gets a second to begin in peace.
    pub fn new(cluster: Cluster) -> Self {
        let random = randomness(cluster.plan.seed, 2);
        Self { cluster, random, next: Duration::from_secs(1), under_way: Vec::new(), count: 0 }
    }

    /// How far ahead of the truth a heartbeat's time may be, in milliseconds.
    pub const fn max_clock_error_ms() -> u32 {
        MAX_CLOCK_ERROR_MS as u32
    }

    /// To be called between two steps of the simulation.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let (over, under_way) = std::mem::take(&mut self.under_way).into_iter().partition(|(until, _)| *until <= now);
        self.under_way = under_way;
        for (_, fault) in over {
            self.end(sim, &fault);
        }
        if now >= self.next && now < self.cluster.plan.time {
            self.next = now + self.cluster.plan.calm.mul_f64(self.random.random_range(0.1..2.0));
            let fault = self.choose();
            if self.under_way.iter().all(|(_, other)| other.place() != fault.place()) {
                self.begin(sim, fault);
            }
        }
    }

    /// Ends all that is wrong, wrong clocks excepted.
    pub fn end_all(&mut self, sim: &mut Sim<'_>) {
        for (_, fault) in std::mem::take(&mut self.under_way) {
            self.end(sim, &fault);
        }
    }

    fn any<'a>(&mut self, names: &'a [String]) -> &'a String {
        &names[self.random.random_range(0..names.len())]
    }

    /// Two hosts that talk to each other.
    fn link(&mut self) -> (String, String) {
        let plan = self.cluster.plan.clone();
        let (a, b) = match self.random.random_range(0..10) {
            0..3 => (&plan.clients, &plan.followers),
            3..6 => (&plan.followers, &plan.leaders),
            _ => (&plan.leaders, &plan.shards[self.random.random_range(0..plan.shards.len())]),
        };
        (self.any(a).clone(), self.any(b).clone())
    }

    fn host(&mut self) -> String {
        let plan = self.cluster.plan.clone();
        let tier = match self.random.random_range(0..3) {
            0 => &plan.followers,
            1 => &plan.leaders,
            _ => &plan.shards[self.random.random_range(0..plan.shards.len())],
        };
        self.any(tier).clone()
    }

    fn storage_shard(&mut self) -> String {
        let shards: Vec<_> = self.cluster.plan.shards.iter().flatten().cloned().collect();
        self.any(&shards).clone()
    }

    fn choose(&mut self) -> Fault {
        let (a, b) = self.link();
        match self.random.random_range(0..20) {
            0..2 => Fault::Partition(a, b),
            2 => Fault::OneWay(a, b),
            3 => Fault::OneWay(b, a),
            4..8 => Fault::Hold(a, b),
            8..11 => Fault::Slow(a, b, self.random.random_range(20..400)),
            11..15 => Fault::Cut(a, b),
            15..17 => Fault::Crash(self.host()),
            17 => Fault::Stop(self.host()),
            18 => Fault::Database(self.storage_shard()),
            _ => {
                let error = self.random.random_range(-MAX_CLOCK_ERROR_MS..=MAX_CLOCK_ERROR_MS);
                Fault::Clock(self.storage_shard(), error)
            }
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, fault: Fault) {
        let time = match &fault {
            Fault::Cut(..) | Fault::Clock(..) => Duration::ZERO,
            Fault::Partition(..) | Fault::OneWay(..) | Fault::Hold(..) | Fault::Slow(..) => self.time(50, 4_000),
            Fault::Crash(_) | Fault::Database(_) => self.time(10, 2_000),
            // Long enough for what is under way to end.
            Fault::Stop(_) => self.time(500, 3_000),
        };
        tracing::info!(at = ?sim.elapsed(), %fault, ?time, "fault");
        self.count += 1;
        match &fault {
            Fault::Partition(a, b) => sim.partition(a.as_str(), b.as_str()),
            Fault::OneWay(a, b) => sim.partition_oneway(a.as_str(), b.as_str()),
            Fault::Hold(a, b) => sim.hold(a.as_str(), b.as_str()),
            Fault::Slow(a, b, ms) => sim.set_link_latency(a.as_str(), b.as_str(), Duration::from_millis(*ms)),
            Fault::Cut(a, b) => {
                self.cluster.lines.cut(a, b);
            }
            Fault::Crash(host) => sim.crash(host.as_str()),
            Fault::Stop(host) => self.cluster.stop(host),
            Fault::Database(host) => self.cluster.database_links[host].set_down(true),
            Fault::Clock(host, error_ms) => {
                if let Some(clock) = self.cluster.clocks.get(host) {
                    clock.step(*error_ms);
                }
            }
        }
        if !time.is_zero() {
            self.under_way.push((sim.elapsed() + time, fault));
        }
    }

    fn end(&self, sim: &mut Sim<'_>, fault: &Fault) {
        tracing::info!(at = ?sim.elapsed(), %fault, "fault over");
        match fault {
            Fault::Partition(a, b) => sim.repair(a.as_str(), b.as_str()),
            Fault::OneWay(a, b) => sim.repair_oneway(a.as_str(), b.as_str()),
            Fault::Hold(a, b) => sim.release(a.as_str(), b.as_str()),
            Fault::Slow(a, b, _) => {
                let (least, most) = self.cluster.plan.latency;
                sim.set_link_latency(a.as_str(), b.as_str(), least);
                sim.set_link_max_message_latency(a.as_str(), b.as_str(), most);
            }
            Fault::Crash(host) | Fault::Stop(host) => sim.bounce(host.as_str()),
            Fault::Database(host) => self.cluster.database_links[host].set_down(false),
            Fault::Cut(..) | Fault::Clock(..) => {}
        }
    }

    fn time(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        // Short ones are the more frequent.
        let part = self.random.random::<f64>().powi(2);
        Duration::from_millis(least_ms + ((most_ms - least_ms) as f64 * part) as u64)
    }
}

/// Applies the plan's latencies to a simulation that is to be built.
pub fn network(plan: &Plan) -> turmoil::Builder {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(plan.seed)
        .simulation_duration(Duration::from_secs(3_600))
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(plan.latency.0)
        .max_message_latency(plan.latency.1)
        .tcp_capacity(4_096)
        .enable_random_order();
    builder
}
