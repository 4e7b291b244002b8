//! What becomes of a follower that is asked for several times what it can do: how much is still answered in time, how late, at what cost of
//! memory, and how soon all is well again.

mod arrivals;
mod cgroup;
mod fair;
mod generator;
mod memory;
mod record;
mod report;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::graph::Graph;
use crate::progress::Bar;
use crate::run::{Arrivals, Plan, Requests, Side};
use crate::target::{Role, Setup, Target as _};
use crate::targets::tao::{Cluster, Tao, Way};
use crate::workload::Workload;
use cgroup::Cgroup;
use generator::{Generator, Load};
use memory::Watch;
use record::{Record, Second};

/// A call that takes longer was made in vain.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// Requests that are made ahead.
const AHEAD: usize = 1 << 18;
const SLOTS: usize = 64;
/// Callers that find out with which rate to begin.
const CLOSED: usize = 64;
/// Each rate that is tried for the peak, by the one before.
const STEP: f64 = 1.3;
/// The peak is passed when less than this share of what is offered is answered in time.
const PASSED: f64 = 0.8;
/// All is well when so much of what is offered is answered in time, for so many seconds in a row.
const WELL: (f64, usize) = (0.99, 3);

/// Which processes have to make do with little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Held {
    /// Follower, leader and storage shard together
    All,
    /// The follower
    Follower,
}

/// How it is measured.
#[derive(Debug, Clone)]
pub struct Options {
    pub setup: Setup,
    pub way: Way,
    pub workload: Workload,
    pub edges: u64,
    pub seed: u64,
    /// Cores that the tiers get.
    pub cores: f64,
    pub held: Held,
    /// Times the peak that is offered.
    pub factor: f64,
    pub overload: Duration,
    /// Of each rate that is tried.
    pub trial: Duration,
    /// Whether one greedy caller is put among ten polite ones instead.
    pub fair: bool,
}

/// A cluster that is held to some cores, and what is asked of it.
pub struct Bench {
    options: Options,
    tao: Tao,
    requests: Arc<Requests>,
    bar: Bar,
    /// What callers who wait for their answers come to.
    closed: f64,
    /// Dropped after the cluster.
    _cgroup: Cgroup,
}

/// Runs it; tables on the way, and all of it as JSON.
pub fn run(options: Options) -> Result<Value> {
    ensure!(options.factor > 0.0 && options.factor.is_finite(), "--factor {}: more than 0", options.factor);
    let bench = Bench::start(options)?;
    let peak = bench.peak()?;
    let found = if bench.options.fair { fair::run(&bench, peak)? } else { bench.overload(peak)? };
    let Options { cores, factor, workload, way, held, .. } = &bench.options;
    let mut document = json!({
        "cores": cores, "held": format!("{held:?}"), "way": format!("{way:?}"), "workload": workload.name(),
        "factor": factor, "peak_per_second": peak.round(), "deadline_ms": DEADLINE.as_millis() as u64,
    });
    if let (Some(all), Value::Object(more)) = (document.as_object_mut(), found) {
        all.extend(more);
    }
    Ok(document)
}

impl Bench {
    fn start(options: Options) -> Result<Self> {
        let bar = Bar::new();
        let cgroup = Cgroup::new(options.cores)?;
        let control = Builder::new_current_thread().enable_all().build()?;
        let graph = Graph::new(options.workload.shape(), options.edges, options.seed)?;
        bar.say("starting and loading");
        let cluster = Arc::new(Cluster::fronted(&options.setup, &["--adaptive", "true"])?);
        let tao = Tao::new("tao", options.way, &options.setup, cluster);
        Side::load(&tao, &control, &graph, &|_| {})?;
        let requests = Requests::new(&graph, options.workload, 0, SLOTS, AHEAD)?;
        bar.say("filling caches");
        let plan = |warm_up, measured| Plan {
            arrivals: Arrivals::Closed,
            threads: options.setup.threads,
            in_flight: CLOSED,
            warm_up,
            measured,
        };
        let unheld = Side::round(&tao, &control, &plan(options.trial, options.trial), &requests)?.rate();
        for (role, pid) in tao.processes() {
            let is_held = match options.held {
                Held::All => [Role::Follower, Role::Leader, Role::Shard].contains(&role),
                Held::Follower => role == Role::Follower,
            };
            if is_held {
                cgroup.take(pid)?;
            }
        }
        let closed = Side::round(&tao, &control, &plan(options.trial / 2, options.trial / 2), &requests)?.rate();
        println!("{CLOSED} callers that wait for their answers: {closed:.0} a second ({unheld:.0} with all cores)");
        Ok(Self { options, tao, requests, bar, closed, _cgroup: cgroup })
    }

    /// A load on all connections, from nowhere in particular.
    fn load(&self, rate: f64, lasts: Duration) -> Result<Record> {
        let from = (0..self.options.setup.connections).map(|_| None).collect();
        Generator::new(&self.tao, &self.requests, &self.options)
            .run(&[Load { rate, from }], lasts)?
            .pop()
            .context("one record")
    }

    /// The most that is answered in time, a second, at rising rates.
    fn peak(&self) -> Result<f64> {
        let mut peak = 0.0_f64;
        let mut rate = self.closed / STEP;
        loop {
            self.bar.say(&format!("{rate:.0} a second"));
            let record = self.load(rate, self.options.trial)?;
            // The first seconds are those of getting there.
            let good = record.good_from(record.seconds.len() / 3);
            println!("{}", report::line(&format!("{rate:.0} offered"), &record));
            let is_passed = good < PASSED * rate;
            peak = peak.max(good);
            if is_passed {
                break;
            }
            rate *= STEP;
        }
        println!("peak: {peak:.0} answered in time a second\n");
        Ok(peak)
    }

    fn overload(&self, peak: f64) -> Result<Value> {
        let Options { factor, overload, trial, .. } = self.options;
        let memory = Watch::start(self.tao.processes());
        self.bar.say(&format!("{factor} times as much"));
        let over = self.load(peak * factor, overload)?;
        println!("{}", report::line(&format!("{factor} × the peak"), &over));
        self.bar.say("half as much");
        let after = self.load(peak * 0.5, trial.max(Duration::from_secs(10)) * 2)?;
        let memory = memory.end();
        println!("{}", report::line("0.5 × the peak", &after));
        let recovered = recovered(&after.seconds);
        let worst = over.worst(10);
        println!(
            "goodput {:.0} % of the peak, {:.0} % in its worst 10 s; well again {}\n{}",
            100.0 * over.good_from(0) / peak,
            100.0 * worst / peak,
            recovered.map_or_else(|| "never".to_owned(), |after| format!("after {after} s")),
            report::memory(&memory),
        );
        Ok(json!({
            "overload": report::json(&over), "after": report::json(&after), "recovered_after_s": recovered,
            "goodput_of_peak": report::rounded(over.good_from(0) / peak), "worst_10s_of_peak": report::rounded(worst / peak),
            "memory": memory.iter().map(|(role, m)| (role.name().to_owned(), m.json())).collect::<serde_json::Map<_, _>>(),
        }))
    }
}

/// Seconds until all is well, and stays so for a while.
fn recovered(seconds: &[Second]) -> Option<usize> {
    let (share, in_a_row) = WELL;
    let is_well = |second: &Second| second.good as f64 >= share * second.offered as f64;
    seconds.windows(in_a_row).position(|row| row.iter().all(is_well))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_well_when_it_stays_well() {
        let second = |good| Second { offered: 100, good, ..Second::default() };
        assert_eq!(recovered(&[10, 100, 50, 99, 100, 100, 20].map(second)), Some(3));
        assert_eq!(recovered(&[100, 100, 98].map(second)), None);
    }
}
