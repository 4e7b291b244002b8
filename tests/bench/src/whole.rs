//! Everything that docs/performance.md shows, in one run of bounded time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use crate::fleet::{Fleet, Measured, Start, Turns, median};
use crate::graph::{Graph, Shape};
use crate::hit_rate;
use crate::load::Load;
use crate::progress::Bar;
use crate::quick::Ratios;
use crate::report::{self, Curve};
use crate::run::{Arrivals, Plan, Round};
use crate::target::{Kind, Setup};
use crate::workload::Workload;

/// Graphs for the growth.
pub const SIZES: [u64; 3] = [100_000, 1_000_000, 10_000_000];
/// Shares of a target's own closed-loop rate at which its latency is plotted.
const OFFERED: [f64; 6] = [0.1, 0.25, 0.5, 0.7, 0.85, 0.95];
/// What a follower's memory has of a growing graph's payload bytes, so that growth changes the graph and not the hit rate.
const GROWING_CACHE: u64 = 4;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the graphs that targets are compared on.
    pub edges: u64,
    /// The largest graph of the growth.
    pub largest: u64,
    /// Of the graph that is loaded from a file.
    pub load_edges: u64,
    /// Of all graphs.
    pub seed: u64,
    /// For all targets.
    pub setup: Setup,
    /// Closed loop, with its times.
    pub plan: Plan,
    /// Rounds, and requests made ahead.
    pub turns: Turns,
    /// Parts that would begin later are left out.
    pub within: Duration,
}

/// Parts that ran, by name, and those that did not.
struct Parts<'a> {
    begun: Instant,
    within: Duration,
    bar: &'a Bar,
    done: Map<String, Value>,
    failed: Vec<String>,
}

impl Parts<'_> {
    fn run(&mut self, name: &str, part: impl FnOnce(&Bar) -> Result<Value>) {
        let result = if self.begun.elapsed() > self.within {
            Err(anyhow::anyhow!("left out: the time given with --minutes was over"))
        } else {
            self.bar.say(name);
            part(self.bar)
        };
        let value = result.unwrap_or_else(|error| {
            self.failed.push(format!("{name}: {error:#}"));
            json!({ "failed": format!("{error:#}") })
        });
        self.done.insert(name.to_owned(), value);
    }
}

/// Runs all parts, prints a table for each, and answers with the document. A part that fails is named in it, and in the error.
pub fn full(options: &Options, bar: &Bar, write: impl FnOnce(&Value) -> Result<()>) -> Result<()> {
    let mut parts = Parts { begun: Instant::now(), within: options.within, bar, done: Map::new(), failed: Vec::new() };
    let mut ratios = Ratios::default();
    let tao = Graph::new(Shape::Tao, options.edges, options.seed)?;
    parts.run("tao_graph", |bar| tao_graph(options, &tao, &mut ratios, bar));
    parts.run("linkbench_graph", |bar| linkbench_graph(options, &mut ratios, bar));
    parts.run("writes", |bar| ratios.writes(&tao, &options.setup, options.turns.rounds, options.plan.measured, bar));
    parts
        .run("second_level", |bar| ratios.second_level(&tao, &options.setup, &options.plan, options.turns.rounds, bar));
    parts.run("hit_rate", |bar| {
        let Setup { threads, connections, .. } = options.setup;
        let hits = hit_rate::Options {
            share: 0.2,
            requests: options.turns.ahead,
            threads,
            in_flight: options.plan.in_flight,
            connections,
        };
        let compared = hit_rate::compare(&tao, &hits, bar)?;
        println!(
            "hit rate, L1 only: {:.4}, ideal static cache {:.4}, ratio {:.3}\n",
            compared.ours,
            compared.ideal,
            compared.ratio()
        );
        ratios.add("hit_rate_vs_ideal", compared.ratio());
        Ok(compared.json())
    });
    parts.run("load", |_| {
        let loaded = Load::synthetic(options.load_edges, options.seed)?.compare()?;
        println!("{}", loaded.table());
        ratios.add("load_vs_copy", loaded.ratio());
        Ok(loaded.json())
    });
    parts.run("growth", |bar| {
        let sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size <= options.largest).collect();
        let grown = growth(&sizes, options, bar)?;
        ratios.add("growth_cpu", grown.ratio);
        Ok(grown.json)
    });
    let document = json!({
        "machine": report::machine(), "edges": options.edges, "seed": options.seed, "in_flight": options.plan.in_flight,
        "parts": parts.done, "ratios": ratios.json(),
    });
    write(&document)?;
    println!("{}", ratios.json());
    if parts.failed.is_empty() { Ok(()) } else { bail!("not measured: {}", parts.failed.join("; ")) }
}

/// All targets under all workloads but LinkBench's.
fn tao_graph(options: &Options, graph: &Arc<Graph>, ratios: &mut Ratios, bar: &Bar) -> Result<Value> {
    use Kind::{CacheAside, EchoPipelined, EchoUnary, Postgres, TaoPipelined, TaoSqlite, TaoUnary};
    let kinds = [EchoUnary, EchoPipelined, TaoUnary, TaoPipelined, TaoSqlite, CacheAside, Postgres];
    let stores = [TaoUnary, TaoPipelined, TaoSqlite, CacheAside, Postgres];
    let start =
        Start { kinds: &kinds, setup: options.setup.clone(), direct_connections: None, workload: Workload::Tao };
    let mut fleet = Fleet::start(&start, graph, bar)?;
    let mut all = Map::new();
    let mut run = |fleet: &mut Fleet, workload: Workload, kinds: &[Kind]| -> Result<Vec<Measured>> {
        let measured = fleet.measure(workload, kinds, &options.plan, &options.turns, bar)?;
        println!("{}", report::table(&workload.name(), &measured));
        all.insert(workload.name(), report::json(&measured));
        Ok(measured)
    };
    let gets = run(&mut fleet, Workload::ObjectGet, &kinds)?;
    ratios.of("unary_get_vs_echo", &gets, TaoUnary, EchoUnary);
    ratios.of("pipelined_get_vs_echo", &gets, TaoPipelined, EchoPipelined);
    ratios.of("unary_range_vs_echo", &run(&mut fleet, Workload::Range50, &kinds)?, TaoUnary, EchoUnary);
    let mix = run(&mut fleet, Workload::Tao, &stores)?;
    ratios.mix(&mix);
    for workload in [Workload::TaobenchA, Workload::TaobenchO] {
        run(&mut fleet, workload, &stores)?;
    }
    let svg = curves(&mut fleet, &mix, options, bar)?;
    Ok(json!({
        "workloads": all, "graph": describe(graph), "postgres_connections": fleet.direct_connections(), "latency_by_rate": svg,
    }))
}

/// Latency of the TAO mix at shares of each target's own closed-loop rate.
fn curves(fleet: &mut Fleet, mix: &[Measured], options: &Options, bar: &Bar) -> Result<Value> {
    let mut curves = Vec::new();
    for one in mix {
        let most = median(one.rounds.iter().map(Round::rate)).unwrap_or(0.0);
        let mut curve = Curve { name: one.name.clone(), points: Vec::new() };
        for share in OFFERED {
            let plan = Plan { arrivals: Arrivals::Open(most * share), ..options.plan };
            let turns = Turns { rounds: 1, ..options.turns };
            let measured = fleet.measure(Workload::Tao, &[one.kind], &plan, &turns, bar)?;
            curve.points.extend(measured.iter().map(|one| Curve::point(most * share, one)));
        }
        curves.push(curve);
    }
    let points =
        curves.iter().map(|curve| json!({ "target": curve.name, "rate_p50_p99_us": curve.points })).collect::<Vec<_>>();
    Ok(json!({ "points": points, "svg": report::plot("TAO mix: latency against offered rate", &curves) }))
}

fn linkbench_graph(options: &Options, ratios: &mut Ratios, bar: &Bar) -> Result<Value> {
    let kinds = [Kind::TaoUnary, Kind::TaoPipelined, Kind::TaoSqlite, Kind::CacheAside, Kind::Postgres];
    let graph = Graph::new(Shape::Linkbench, options.edges, options.seed)?;
    let start =
        Start { kinds: &kinds, setup: options.setup.clone(), direct_connections: None, workload: Workload::Linkbench };
    let mut fleet = Fleet::start(&start, &graph, bar)?;
    let measured = fleet.measure(Workload::Linkbench, &kinds, &options.plan, &options.turns, bar)?;
    println!("{}", report::table("linkbench", &measured));
    ratios.of("linkbench_mix_vs_postgres", &measured, Kind::TaoPipelined, Kind::Postgres);
    Ok(json!({
        "workloads": { "linkbench": report::json(&measured) }, "graph": describe(&graph),
        "postgres_connections": fleet.direct_connections(),
    }))
}

/// What growing costs.
pub struct Grown {
    /// The most CPU an operation at any size, over that at the smallest.
    pub ratio: f64,
    /// All of it.
    pub json: Value,
}

/// The TAO mix on larger and larger graphs, each in a cluster of its own.
pub fn growth(sizes: &[u64], options: &Options, bar: &Bar) -> Result<Grown> {
    let mut rows = Vec::new();
    let mut costs = Vec::new();
    for size in sizes {
        let graph = Graph::new(Shape::Tao, *size, options.seed)?;
        let setup = Setup {
            cache_size: Some(graph.payload_bytes() / GROWING_CACHE).map(|bytes| bytes.max(1 << 20)),
            ..options.setup.clone()
        };
        let start = Start { kinds: &[Kind::TaoPipelined], setup, direct_connections: None, workload: Workload::Tao };
        let mut fleet = Fleet::start(&start, &graph, bar)?;
        let plan = Plan { warm_up: options.plan.warm_up.max(Duration::from_secs(5)), ..options.plan };
        let measured = fleet.measure(Workload::Tao, &[Kind::TaoPipelined], &plan, &options.turns, bar)?;
        println!("{}", report::table(&format!("growth: {size} edges"), &measured));
        let rounds = measured.iter().flat_map(|one| &one.rounds);
        costs.push(median(rounds.map(Round::server_cpu_per_op)).unwrap_or(f64::NAN));
        rows.push(json!({ "graph": describe(&graph), "targets": report::json(&measured) }));
    }
    let ratio = costs.iter().copied().fold(0.0, f64::max) / costs.first().copied().unwrap_or(f64::NAN);
    let mut line = String::from("server CPU, µs an operation:");
    sizes.iter().zip(&costs).for_each(|(size, cost)| line.push_str(&format!("  {size} edges {cost:.2}")));
    println!("{line}  ratio {ratio:.2}\n");
    Ok(Grown { ratio, json: json!({ "sizes": rows, "cpu_ratio": ratio }) })
}

/// A graph, for the report.
pub fn describe(graph: &Graph) -> Value {
    json!({
        "shape": graph.shape().name(), "nodes": graph.nodes(), "edges": graph.edges(), "seed": graph.seed(),
        "payload_bytes": graph.payload_bytes(),
    })
}
