//! The small version of what matters most, within three minutes: ratios, medians of three.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};
use tokio::runtime::Builder;

use crate::fleet::{Fleet, Measured, Start, Turns, ratio};
use crate::graph::{Graph, Shape};
use crate::op::AType;
use crate::progress::Bar;
use crate::report;
use crate::run::{Arrivals, Plan, Side};
use crate::target::{Kind, Setup};
use crate::targets::edge_writes::{self, EdgeWrites};
use crate::targets::log::Log;
use crate::targets::postgres::Direct;
use crate::targets::tao::{Cluster, Tao, Way};
use crate::targets::{l2, lone_writer};
use crate::workload::Workload;

const EDGES: u64 = 50_000;
const AHEAD: usize = 1 << 19;
const LONELY_WRITES: usize = 300;
const UNARY: Duration = Duration::from_millis(1_000);

/// Figures by the names under which they are tracked.
#[derive(Debug, Default)]
pub struct Ratios {
    values: Map<String, Value>,
}

impl Ratios {
    /// One of them.
    pub fn add(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), json!((value * 1e3).round() / 1e3));
    }

    /// The rates of two targets; nothing if one was not measured.
    pub fn of(&mut self, name: &str, all: &[Measured], of: Kind, to: Kind) {
        if let Some(value) = ratio(all, of, to) {
            self.add(name, value);
        }
    }

    /// Those of the TAO mix.
    pub fn mix(&mut self, all: &[Measured]) {
        self.of("tao_mix_vs_postgres", all, Kind::TaoPipelined, Kind::Postgres);
        self.of("tao_mix_vs_cache_aside", all, Kind::TaoPipelined, Kind::CacheAside);
        self.of("tao_mix_unary_vs_postgres", all, Kind::TaoUnary, Kind::Postgres);
        self.of("tao_mix_unary_vs_cache_aside", all, Kind::TaoUnary, Kind::CacheAside);
    }

    /// One object.
    pub fn json(&self) -> Value {
        Value::Object(self.values.clone())
    }

    /// Writes of edges by many without and with an inverse, and by one, on a cluster and a PostgreSQL of their own.
    pub fn writes(
        &mut self,
        graph: &Arc<Graph>,
        setup: &Setup,
        rounds: u32,
        measured: Duration,
        bar: &Bar,
    ) -> Result<Value> {
        let control = Builder::new_current_thread().enable_all().build()?;
        let tao = Tao::new("tao-pipelined", Way::Pipelined, setup, Arc::new(Cluster::on_postgres(setup)?));
        let direct = Direct::start(setup, Log::None)?;
        bar.say("writes: loading");
        Side::load(&tao, &control, graph, &|_| {})?;
        Side::load(&direct, &control, graph, &|_| {})?;
        bar.say("a lonely writer");
        let lone = lone_writer::compare(&tao, &direct, graph, LONELY_WRITES)?;
        println!(
            "lonely writer, median µs: {:.0}, one statement {:.0}, ratio {:.2}\n",
            lone.ours.median,
            lone.statement.median,
            lone.ratio()
        );
        self.add("lone_write_vs_statement", lone.ratio());
        let options =
            edge_writes::Options { threads: setup.threads, rounds: rounds as usize, seconds: measured.as_secs_f64() };
        let mut types = Map::new();
        for (atype, name) in
            [(AType::Link, "edge_writes_vs_autocommit"), (AType::Friend, "edge_writes_with_inverse_vs_autocommit")]
        {
            bar.say(&format!("edge writes: {}", atype.name()));
            let writes = edge_writes::compare(&tao, &direct, graph, atype, options)?;
            println!("{}", line(&writes));
            self.add(name, writes.ratio());
            let direct = |direct: &edge_writes::DirectWrites| json!({ "connections": direct.connections, "tried": direct.tried, "per_second": direct.rates });
            let figures = json!({
                "ours_per_second": writes.ours, "direct": direct(&writes.direct), "direct_with_unordered_log": direct(&writes.unordered),
                "ratio": writes.ratio(), "ratio_to_unordered": writes.ratio_to_unordered(),
            });
            types.insert(atype.name().to_owned(), figures);
        }
        let one = |latency: lone_writer::Latency| json!({ "median_us": latency.median, "p99_us": latency.p99 });
        Ok(
            json!({ "edge_writes": types, "lone_writer": { "ours": one(lone.ours), "statement": one(lone.statement), "ratio": lone.ratio() } }),
        )
    }

    /// Redis behind a follower without memory, and Redis by itself.
    pub fn second_level(
        &mut self,
        graph: &Arc<Graph>,
        setup: &Setup,
        plan: &Plan,
        rounds: u32,
        bar: &Bar,
    ) -> Result<Value> {
        bar.say("the second level by itself");
        let options = l2::Options {
            threads: setup.threads,
            connections: setup.connections,
            in_flight: plan.in_flight,
            rounds: rounds as usize,
            seconds: plan.measured.as_secs_f64(),
        };
        let control = Builder::new_current_thread().enable_all().build()?;
        let found = control.block_on(l2::compare(graph, options))?;
        println!(
            "Redis behind a follower without memory: {:.2} × GETs (hit rate {:.3})\n",
            found.ratio(),
            found.hit_rate
        );
        self.add("l2_vs_redis", found.ratio());
        Ok(
            json!({ "ours_per_second": found.ours, "redis_per_second": found.redis, "hit_rate": found.hit_rate, "ratio": found.ratio() }),
        )
    }
}

fn line(writes: &EdgeWrites) -> String {
    format!(
        "edge writes, {}: {:.2} × direct ({} connections, the same work), {:.2} × direct with an unordered log ({} connections)\n",
        writes.atype.name(),
        writes.ratio(),
        writes.direct.connections,
        writes.ratio_to_unordered(),
        writes.unordered.connections
    )
}

/// Prints tables, and the ratios as the last line.
pub fn quick(setup: &Setup, seed: u64, bar: &Bar) -> Result<()> {
    use Kind::{CacheAside, EchoPipelined, EchoUnary, Postgres, TaoPipelined, TaoUnary};
    let mut ratios = Ratios::default();
    let plan = |warm_up| Plan {
        arrivals: Arrivals::Closed,
        threads: setup.threads,
        in_flight: 64.max(setup.threads),
        warm_up: Duration::from_millis(warm_up),
        measured: UNARY,
    };
    let turns = Turns { rounds: 3, ahead: AHEAD };
    let graph = Graph::new(Shape::Tao, EDGES, seed)?;
    let kinds = [EchoUnary, EchoPipelined, TaoUnary, TaoPipelined, CacheAside, Postgres];
    let start = Start { kinds: &kinds, setup: setup.clone(), direct_connections: None, workload: Workload::Tao };
    let mut fleet = Fleet::start(&start, &graph, bar)?;
    let mut run = |workload: Workload, kinds: &[Kind], warm_up| -> Result<Vec<Measured>> {
        let measured = fleet.measure(workload, kinds, &plan(warm_up), &turns, bar)?;
        println!("{}", report::table(&workload.name(), &measured));
        Ok(measured)
    };
    let gets = run(Workload::ObjectGet, &[EchoUnary, TaoUnary, EchoPipelined, TaoPipelined], 300)?;
    ratios.of("unary_get_vs_echo", &gets, TaoUnary, EchoUnary);
    ratios.of("pipelined_get_vs_echo", &gets, TaoPipelined, EchoPipelined);
    let ranges = run(Workload::Range50, &[EchoUnary, TaoUnary], 300)?;
    ratios.of("unary_range_vs_echo", &ranges, TaoUnary, EchoUnary);
    ratios.mix(&run(Workload::Tao, &[TaoUnary, TaoPipelined, CacheAside, Postgres], 1_500)?);
    let direct_connections = fleet.direct_connections();
    drop(fleet);

    let linkbench = Graph::new(Shape::Linkbench, EDGES, seed)?;
    let kinds = [TaoPipelined, Postgres];
    let start = Start { kinds: &kinds, setup: setup.clone(), direct_connections, workload: Workload::Linkbench };
    let mut fleet = Fleet::start(&start, &linkbench, bar)?;
    // Its writes are many: what is measured is a cache that has been at work for a while.
    let measured = fleet.measure(Workload::Linkbench, &kinds, &plan(4_000), &turns, bar)?;
    println!("{}", report::table("linkbench", &measured));
    ratios.of("linkbench_mix_vs_postgres", &measured, TaoPipelined, Postgres);
    drop(fleet);

    ratios.writes(&graph, setup, turns.rounds, UNARY, bar)?;
    ratios.second_level(&graph, setup, &plan(300), turns.rounds, bar)?;
    println!("{}", ratios.json());
    Ok(())
}
