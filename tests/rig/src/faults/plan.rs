//! Which faults there are, and their order.

use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom as _;
use tao_harness::Network;

use crate::cluster::{Cluster, Tier};

/// Something that goes wrong. The numbers are those of the cluster's nodes, links and databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start a while later.
    Kill(usize),
    /// SIGSTOP, and SIGCONT a while later.
    Pause(usize),
    /// Nobody reaches a process that goes on: a black hole on every way to it.
    Isolate(usize),
    /// A database ends as if the power had failed, and starts a while later.
    StopDatabase(usize),
    /// All of a database is paused.
    PauseDatabase(usize),
    /// Redis is killed, and comes back empty.
    KillRedis,
    /// Redis is paused.
    PauseRedis,
    /// Redis forgets everything.
    FlushRedis,
    /// Redis is killed, and comes back with what it held a while ago.
    StaleRedis,
    /// The network between two tiers.
    Network(usize, Network),
}

impl Fault {
    /// As the report calls it: the same for all processes of a tier.
    pub fn name(&self, cluster: &Cluster) -> String {
        match *self {
            Self::Kill(node) => format!("kill {}", cluster.nodes[node].tier.name()),
            Self::Pause(node) => format!("pause {}", cluster.nodes[node].tier.name()),
            Self::Isolate(node) => format!("isolate {}", cluster.nodes[node].tier.name()),
            Self::StopDatabase(_) => "stop postgres".to_owned(),
            Self::PauseDatabase(_) => "pause postgres".to_owned(),
            Self::KillRedis => "kill redis".to_owned(),
            Self::PauseRedis => "pause redis".to_owned(),
            Self::FlushRedis => "flush redis".to_owned(),
            Self::StaleRedis => "redis goes back in time".to_owned(),
            Self::Network(link, network) => {
                let link = &cluster.links[link];
                let how = match network {
                    Network::Pass => "pass",
                    Network::Delay(_) | Network::Uneven(_) => "delay",
                    Network::BlackHole => "black hole",
                    Network::HalfOpen => "half open",
                    Network::Reset => "reset",
                };
                format!("{how}, {} to {}", link.from.name(), link.to.name())
            }
        }
    }

    /// What it happens to: two faults at once happen to two different things.
    fn subject(&self) -> (u8, usize) {
        match *self {
            Self::Kill(node) | Self::Pause(node) => (0, node),
            Self::StopDatabase(log) | Self::PauseDatabase(log) => (1, log),
            Self::KillRedis | Self::PauseRedis | Self::FlushRedis | Self::StaleRedis => (2, 0),
            // Isolation is of many ways.
            Self::Isolate(_) | Self::Network(..) => (3, 0),
        }
    }

    /// How long it lasts.
    pub fn duration(&self, rng: &mut impl Rng) -> Duration {
        let ms = match self {
            Self::FlushRedis => 0..1,
            Self::Kill(_) | Self::StopDatabase(_) | Self::KillRedis => 50..1_200,
            Self::StaleRedis => 500..1_500,
            Self::Pause(_) | Self::PauseDatabase(_) | Self::PauseRedis => 300..2_500,
            Self::Isolate(_) => 1_000..6_000,
            // Some longer than a deadline.
            Self::Network(..) if rng.random_ratio(1, 5) => 2_500..5_000,
            Self::Network(..) => 300..1_800,
        };
        Duration::from_millis(rng.random_range(ms))
    }
}

/// The order of a run's faults: every kind once, in random order, then again.
#[derive(Debug, Default)]
pub struct Order {
    /// The faults of each kind, for those kinds that are still to come in this round.
    kinds: Vec<Vec<Fault>>,
}

impl Order {
    /// What goes wrong next: one thing mostly, now and then two at once.
    pub fn next(&mut self, cluster: &Cluster, rng: &mut impl Rng) -> Vec<Fault> {
        let mut faults = vec![self.one(cluster, rng)];
        if rng.random_ratio(1, 6) {
            let second = self.one(cluster, rng);
            if faults[0].subject() != second.subject() {
                faults.push(second);
            }
        }
        faults
    }

    fn one(&mut self, cluster: &Cluster, rng: &mut impl Rng) -> Fault {
        if self.kinds.is_empty() {
            self.kinds = kinds(cluster);
            self.kinds.shuffle(rng);
        }
        let kind = self.kinds.pop().unwrap_or_default();
        kind[rng.random_range(0..kind.len())]
    }
}

/// All kinds of faults that a cluster can have.
fn kinds(cluster: &Cluster) -> Vec<Vec<Fault>> {
    let mut kinds = Vec::new();
    for tier in [Tier::Follower, Tier::Leader, Tier::Shard] {
        let nodes = cluster.of_tier(tier);
        kinds.push(nodes.iter().map(|n| Fault::Kill(*n)).collect());
        kinds.push(nodes.iter().map(|n| Fault::Pause(*n)).collect());
    }
    // Where there is another one to go to.
    for tier in [Tier::Leader, Tier::Shard] {
        let nodes = cluster.of_tier(tier);
        kinds.push(nodes.iter().filter(|_| nodes.len() > 1).map(|n| Fault::Isolate(*n)).collect());
    }
    let databases = 0..cluster.databases.len();
    kinds.push(databases.clone().map(Fault::StopDatabase).collect());
    kinds.push(databases.map(Fault::PauseDatabase).collect());
    if cluster.redis.is_some() {
        kinds.extend([Fault::KillRedis, Fault::PauseRedis, Fault::FlushRedis, Fault::StaleRedis].map(|f| vec![f]));
    }
    let mut pairs: Vec<_> = cluster.links.iter().map(|link| (link.from, link.to)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    for pair in pairs {
        let links: Vec<_> =
            (0..cluster.links.len()).filter(|n| (cluster.links[*n].from, cluster.links[*n].to) == pair).collect();
        let slow = Network::Delay(Duration::from_millis(60));
        for network in [slow, Network::BlackHole, Network::HalfOpen, Network::Reset] {
            kinds.push(links.iter().map(|link| Fault::Network(*link, network)).collect());
        }
    }
    kinds.retain(|kind: &Vec<Fault>| !kind.is_empty());
    kinds
}
