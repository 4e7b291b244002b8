//! What it costs to be watched, and to be asked who one is: hits in memory of one follower without metrics, with them, with a share of its
//! requests traced, in TLS, and with a token that comes with every request, as ratios of rounds that take turns.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;

use crate::fleet::median;
use crate::graph::{Graph, Shape};
use crate::progress::Bar;
use crate::run::{Arrivals, Plan, Requests, Side};
use crate::target::Setup;
use crate::targets::collector::Collector;
use crate::targets::tao::{Cluster, Guarded, Tao, Way};
use crate::workload::Workload;

const EDGES: u64 = 20_000;
const AHEAD: usize = 1 << 19;

/// How it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Rounds of each.
    pub rounds: u32,
    /// Seconds of each round.
    pub seconds: f64,
    /// The share of requests that are traced.
    pub sampled: f64,
    pub seed: u64,
}

/// Prints a line a way, and the ratios to no metrics at all as the last.
pub fn compare(setup: &Setup, options: &Options, bar: &Bar) -> Result<()> {
    let control = Builder::new_current_thread().enable_all().build()?;
    let collector = Collector::start()?;
    let (url, share) = (collector.url(), options.sampled.to_string());
    let ways: [(&str, Vec<&str>); 5] = [
        ("off", vec!["--metrics", "false", "--slow-request-ms", "0"]),
        ("metrics", vec![]),
        ("sampled", vec!["--otlp-endpoint", &url, "--trace-ratio", &share]),
        ("tls", vec![]),
        ("jwt", vec![]),
    ];
    let graph = Graph::new(Shape::Tao, EDGES, options.seed)?;
    let setup = Setup { redis: false, ..setup.clone() };
    let mut clusters = Vec::new();
    for (name, more) in &ways {
        bar.say(&format!("{name}: starting and loading"));
        let cluster = Arc::new(match *name {
            "tls" => Cluster::guarded(&setup, more, Guarded::tls()?)?,
            "jwt" => Cluster::guarded(&setup, more, Guarded::jwt()?)?,
            _ => Cluster::watched(&setup, more)?,
        });
        Side::load(&Tao::new(name, Way::Pipelined, &setup, cluster.clone()), &control, &graph, &|_| {})?;
        clusters.push((*name, cluster));
    }
    let measured = Duration::try_from_secs_f64(options.seconds).context("seconds")?;
    let plan = Plan {
        arrivals: Arrivals::Closed,
        threads: setup.threads,
        in_flight: 64.max(setup.threads),
        warm_up: Duration::from_millis(500),
        measured,
    };
    plan.check()?;
    let mut ratios = Map::new();
    // What follows has metrics, too.
    let with_metrics = clusters.iter().position(|(name, _)| *name == "metrics").context("a side with metrics")?;
    for (way, door) in [(Way::Unary, "unary"), (Way::Pipelined, "pipelined")] {
        let sides = clusters.iter().map(|(name, cluster)| Tao::new(name, way, &setup, cluster.clone()));
        let sides: Vec<_> = sides.collect();
        let mut rates = vec![Vec::new(); sides.len()];
        // The first turn only fills caches.
        for turn in 0..=options.rounds {
            bar.say(&format!("{door}, turn {turn} of {}", options.rounds));
            let requests = Requests::new(&graph, Workload::ObjectGet, turn, plan.in_flight, AHEAD)?;
            // Each in every place of a turn: machines grow slower and faster meanwhile.
            for n in 0..sides.len() {
                let n = (n + turn as usize) % sides.len();
                let rate = Side::round(&sides[n], &control, &plan, &requests)?.rate();
                if turn > 0 {
                    rates[n].push(rate);
                }
            }
        }
        for (n, (name, _)) in clusters.iter().enumerate() {
            let rate = median(rates[n].iter().copied()).unwrap_or(f64::NAN);
            let ratio = median(rates[n].iter().zip(&rates[0]).map(|(of, to)| of / to)).unwrap_or(f64::NAN);
            let to_metrics = median(rates[n].iter().zip(&rates[with_metrics]).map(|(of, to)| of / to));
            let to_metrics = to_metrics.unwrap_or(f64::NAN);
            println!(
                "{door}, {name}: {rate:.0} a second, {ratio:.3} of what it is without metrics, {to_metrics:.3} of it with them"
            );
            if n > 0 {
                ratios.insert(format!("{door}_{name}"), json!((ratio * 1e3).round() / 1e3));
            }
            if n > with_metrics {
                ratios.insert(format!("{door}_{name}_to_metrics"), json!((to_metrics * 1e3).round() / 1e3));
            }
        }
    }
    let spans = collector.received();
    ensure!(options.sampled == 0.0 || spans > 0, "no span has come to the collector");
    println!("{spans} spans received");
    println!("{}", Value::Object(ratios));
    Ok(())
}
