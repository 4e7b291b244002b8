//! Targets side by side, on the same graph.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

use crate::graph::Graph;
use crate::progress::Bar;
use crate::run::{Arrivals, Plan, Requests, Round, Side};
use crate::target::{Kind, Setup};
use crate::targets::echo::{EchoStreams, EchoUnary};
use crate::targets::log::Log;
use crate::targets::tao::{Cluster, Tao, Way};
use crate::targets::{cache_aside::CacheAside, postgres::Direct};
use crate::workload::Workload;

/// How many connections PostgreSQL is tried with when it is used directly; the best is kept.
const CONNECTIONS: [usize; 4] = [8, 16, 32, 64];
const TRIAL: Duration = Duration::from_millis(700);

/// Running targets that hold the graph.
pub struct Fleet {
    control: Runtime,
    graph: Arc<Graph>,
    sides: Vec<(Kind, Box<dyn Side>)>,
    /// Connections of `postgres`, found or given.
    direct_connections: Option<usize>,
    /// Each round writes things that no other has written.
    rounds: u32,
}

/// The rounds of one target under one workload.
pub struct Measured {
    /// Which it is.
    pub kind: Kind,
    /// As it calls itself.
    pub name: String,
    /// In order. The rounds of all targets took turns.
    pub rounds: Vec<Round>,
}

/// How often, and how much is made ahead.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// For each target.
    pub rounds: u32,
    /// Requests of all slots together, for each round.
    pub ahead: usize,
}

/// What a fleet is started with.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// Its targets, in the order of reports.
    pub kinds: &'a [Kind],
    /// For all.
    pub setup: Setup,
    /// Connections of `postgres`; none: the best for this workload is found.
    pub direct_connections: Option<usize>,
    /// What connections are tried with.
    pub workload: Workload,
}

impl Fleet {
    /// Starts and loads all.
    pub fn start(start: &Start<'_>, graph: &Arc<Graph>, bar: &Bar) -> Result<Self> {
        let control = Builder::new_current_thread().enable_all().build()?;
        let mut fleet =
            Self { control, graph: Arc::clone(graph), sides: Vec::new(), direct_connections: None, rounds: 0 };
        let mut cluster: Option<Arc<Cluster>> = None;
        let total = graph.edges() + u64::from(graph.nodes());
        for kind in start.kinds {
            bar.say(&format!("{}: starting and loading", kind.name()));
            let setup = &start.setup;
            let mut tao = |way| -> Result<Box<dyn Side>> {
                let cluster = match &mut cluster {
                    Some(running) => running,
                    none => none.insert(Arc::new(Cluster::on_postgres(setup)?)),
                };
                Ok(Box::new(Tao::new(kind.name(), way, setup, Arc::clone(cluster))))
            };
            let side: Box<dyn Side> = match kind {
                Kind::Postgres => {
                    let direct = Direct::start(setup, Log::None)?;
                    Side::load(&direct, &fleet.control, graph, &bar.of(total))?;
                    let connections = match start.direct_connections {
                        Some(given) => given,
                        None => fleet.best_connections(&direct, start)?,
                    };
                    direct.set(connections.div_ceil(setup.threads), Log::None);
                    fleet.direct_connections = Some(connections);
                    fleet.sides.push((*kind, Box::new(direct)));
                    continue;
                }
                Kind::CacheAside => Box::new(CacheAside::start(setup)?),
                Kind::TaoUnary => tao(Way::Unary)?,
                Kind::TaoPipelined => tao(Way::Pipelined)?,
                Kind::TaoSqlite => {
                    let sqlite = Arc::new(Cluster::on_sqlite(&Setup { redis: false, ..setup.clone() })?);
                    Box::new(Tao::new(kind.name(), Way::Pipelined, setup, sqlite))
                }
                Kind::EchoUnary => Box::new(EchoUnary::new(setup)),
                Kind::EchoPipelined => Box::new(EchoStreams::new(setup)),
            };
            side.load(&fleet.control, graph, &bar.of(total))?;
            fleet.sides.push((*kind, side));
        }
        Ok(fleet)
    }

    /// A few short rounds with each number.
    fn best_connections(&mut self, direct: &Direct, start: &Start<'_>) -> Result<usize> {
        let (threads, in_flight) = (start.setup.threads, 64.max(start.setup.threads));
        let plan = Plan { arrivals: Arrivals::Closed, threads, in_flight, warm_up: TRIAL, measured: TRIAL };
        let mut best = (0.0, CONNECTIONS[0]);
        for connections in CONNECTIONS {
            direct.set(connections.div_ceil(threads), Log::None);
            self.rounds += 1;
            let requests = Requests::new(&self.graph, start.workload, self.rounds, in_flight, 1 << 16)?;
            let rate = Side::round(direct, &self.control, &plan, &requests)?.rate();
            if rate > best.0 {
                best = (rate, connections);
            }
        }
        Ok(best.1)
    }

    /// Connections of `postgres`, if it is there.
    pub fn direct_connections(&self) -> Option<usize> {
        self.direct_connections
    }

    /// Rounds in turn: A B C, A B C, … In each turn all targets get the same requests, which no other turn has.
    pub fn measure(
        &mut self,
        workload: Workload,
        kinds: &[Kind],
        plan: &Plan,
        turns: &Turns,
        bar: &Bar,
    ) -> Result<Vec<Measured>> {
        let Turns { rounds, ahead } = *turns;
        plan.check()?;
        let chosen = self.sides.iter().filter(|(kind, _)| kinds.contains(kind));
        let mut all: Vec<Measured> = chosen
            .map(|(kind, side)| Measured { kind: *kind, name: side.name().to_owned(), rounds: Vec::new() })
            .collect();
        for round in 0..rounds {
            self.rounds += 1;
            let requests = Requests::new(&self.graph, workload, self.rounds, plan.in_flight, ahead)?;
            for measured in &mut all {
                bar.say(&format!("{}: {}, round {} of {rounds}", workload.name(), measured.name, round + 1));
                let (_, side) = self.sides.iter().find(|(kind, _)| *kind == measured.kind).context("a side left")?;
                measured.rounds.push(side.round(&self.control, plan, &requests)?);
            }
        }
        Ok(all)
    }

    /// One round of one target with given requests.
    pub fn round(&self, kind: Kind, plan: &Plan, requests: &Arc<Requests>) -> Result<Round> {
        let (_, side) = self.sides.iter().find(|(each, _)| *each == kind).context("not in the fleet")?;
        side.round(&self.control, plan, requests)
    }
}

/// The ratio of two targets' rates in each turn; the median of these.
pub fn ratio(all: &[Measured], of: Kind, to: Kind) -> Option<f64> {
    let rates = |kind| {
        all.iter().find(|measured| measured.kind == kind).map(|measured| measured.rounds.iter().map(Round::rate))
    };
    median(rates(of)?.zip(rates(to)?).map(|(of, to)| of / to))
}

/// The middle one (of an even number, the upper of two).
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
