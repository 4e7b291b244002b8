//! The command line.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Start, Turns};
use crate::graph::{Graph, Shape};
use crate::progress::Bar;
use crate::report::{self, Curve};
use crate::run::{Arrivals, Plan};
use crate::target::{Kind, Setup};
use crate::targets::tao::Way;
use crate::workload::Workload;
use crate::{hit_rate, load, overload, quick, targets, watched, whole};

/// Measures tao beside what one would build instead, on the same graph, with the same requests, in one run.
#[derive(Debug, Parser)]
#[command(name = "tao-bench")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One workload on some targets, whose rounds take turns
    Run(Run),
    /// What matters most, small, within three minutes; ratios as one JSON object in the last line
    Quick {
        #[command(flatten)]
        client: Client,
        #[command(flatten)]
        seed: Seed,
    },
    /// Everything that docs/performance.md shows
    Full(Full),
    /// A follower's memory beside an ideal static cache of its size, on the trace of the TAO mix
    HitRate(HitRate),
    /// `tao load` beside COPY of the same rows into the same tables
    Load(Load),
    /// CPU an operation on larger and larger graphs
    Growth(Full),
    /// What metrics and traces cost the hits of a follower
    Watched(Watched),
    /// A follower that is offered several times what it can do, with the tiers held to a part of a core (Linux, as root)
    Overload(Overload),
    #[command(flatten)]
    Serve(targets::Serve),
}

#[derive(Debug, Args)]
struct Client {
    /// Threads of the client [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Connections of the client to each target, of all threads together
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Bytes of a follower's memory [default: its own]
    #[arg(long)]
    cache_size: Option<u64>,
    /// Followers without Redis
    #[arg(long)]
    no_redis: bool,
}

impl Client {
    fn setup(&self) -> Result<Setup> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or(cores);
        ensure!(threads > 0, "--threads 0: at least one");
        ensure!(self.connections > 0, "--connections 0: at least one");
        Ok(Setup { threads, connections: self.connections, cache_size: self.cache_size, redis: !self.no_redis })
    }
}

#[derive(Debug, Args)]
struct Seed {
    /// Graph and requests depend on it, and on nothing else
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Times {
    /// Requests under way at once
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Seconds that are measured, of each round
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Rounds of each target
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Requests that are made before each round, so that making them is not measured
    #[arg(long, default_value = "1e6", value_parser = number)]
    ahead: u64,
}

impl Times {
    fn plan(&self, setup: &Setup, arrivals: Arrivals) -> Result<Plan> {
        let span = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds).with_context(|| format!("--{name} {seconds}: a number of seconds"))
        };
        let (warm_up, measured) = (span("warm-up", self.warm_up)?, span("seconds", self.seconds)?);
        ensure!(!measured.is_zero(), "--seconds 0: more than nothing");
        let plan = Plan { arrivals, threads: setup.threads, in_flight: self.in_flight, warm_up, measured };
        plan.check()?;
        Ok(plan)
    }

    fn turns(&self) -> Result<Turns> {
        ensure!(self.rounds > 0, "--rounds 0: at least one");
        Ok(Turns { rounds: self.rounds, ahead: self.ahead as usize })
    }
}

#[derive(Debug, Args)]
struct Run {
    /// What is asked
    #[arg(long, value_enum)]
    workload: Workload,
    /// Who is asked, with commas between
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tao-pipelined")]
    targets: Vec<Kind>,
    /// About how many edges the graph has
    #[arg(long, default_value = "1e5", value_parser = number)]
    edges: u64,
    /// An edge list instead, `src dst [time]` a line
    #[arg(long, value_name = "FILE", conflicts_with = "edges")]
    graph: Option<PathBuf>,
    /// Degrees and payloads [default: the workload's]
    #[arg(long, value_enum)]
    shape: Option<Shape>,
    /// Offered requests a second, whatever is answered [default: the next when the last is answered]
    #[arg(long)]
    rate: Option<f64>,
    /// Several such rates, for --svg
    #[arg(long, value_delimiter = ',', conflicts_with = "rate")]
    rates: Vec<f64>,
    /// Connections of `postgres` [default: the best of 8, 16, 32 and 64]
    #[arg(long)]
    postgres_connections: Option<usize>,
    /// Where to write the JSON document
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where to write the plot of latency against rates
    #[arg(long, value_name = "FILE", requires = "rates")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    seed: Seed,
}

#[derive(Debug, Args)]
struct Full {
    /// About how many edges the graphs have that targets are compared on
    #[arg(long, default_value = "1e6", value_parser = number)]
    edges: u64,
    /// The largest graph of the growth: 1e5, 1e6 or 1e7 edges
    #[arg(long, default_value = "1e7", value_parser = number)]
    largest: u64,
    /// Edges of the graph that `tao load` loads
    #[arg(long, default_value = "1e6", value_parser = number)]
    load_edges: u64,
    /// Parts that would begin later are left out, and named
    #[arg(long, default_value_t = 120.0)]
    minutes: f64,
    /// Where to write the JSON document
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    seed: Seed,
}

#[derive(Debug, Args)]
struct HitRate {
    /// About how many edges the graph has
    #[arg(long, default_value = "1e6", value_parser = number)]
    edges: u64,
    /// The cache's share of the graph's bytes
    #[arg(long, default_value_t = 0.2)]
    share: f64,
    /// Requests that fill the cache, and as many that are counted
    #[arg(long, default_value = "1e6", value_parser = number)]
    requests: u64,
    /// Requests under way at once
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    seed: Seed,
}

#[derive(Debug, Args)]
struct Load {
    /// An edge list: `src dst [time]` a line [default: one of TAO's shape is made]
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Its association type
    #[arg(long, value_name = "TYPE", default_value = "messaged")]
    r#type: String,
    /// Whether `a b` and `b a` are the same edge
    #[arg(long)]
    undirected: bool,
    /// About how many edges are made
    #[arg(long, default_value = "1e6", value_parser = number, conflicts_with = "graph")]
    edges: u64,
    #[command(flatten)]
    seed: Seed,
}

#[derive(Debug, Args)]
struct Watched {
    /// The share of requests that are traced
    #[arg(long, default_value_t = 0.01)]
    sampled: f64,
    /// Rounds of each
    #[arg(long, default_value_t = 9)]
    rounds: u32,
    /// Seconds of each round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    #[command(flatten)]
    client: Client,
    #[command(flatten)]
    seed: Seed,
}

#[derive(Debug, Args)]
struct Overload {
    /// Minutes of overload
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Times the peak that is offered
    #[arg(long, default_value_t = 5.0)]
    factor: f64,
    /// Cores that the tiers get, all together
    #[arg(long, default_value_t = 0.3)]
    cores: f64,
    /// Whom that holds for
    #[arg(long, value_enum, default_value = "all")]
    held: overload::Held,
    /// Through the client library, or by calls of generated stubs, which know nothing of overload
    #[arg(long, value_enum, default_value = "pipelined")]
    way: Way,
    /// One greedy caller among ten polite ones, and what these keep
    #[arg(long)]
    fair: bool,
    /// What is asked
    #[arg(long, value_enum, default_value = "tao")]
    workload: Workload,
    /// About how many edges the graph has
    #[arg(long, default_value = "1e5", value_parser = number)]
    edges: u64,
    /// Connections of the generator
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Threads of the generator [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Seconds of each rate that is tried to find the peak
    #[arg(long, default_value_t = 10.0)]
    trial: f64,
    /// Where to write the JSON document
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    seed: Seed,
}

impl Overload {
    fn run(self) -> Result<()> {
        let span = |name: &str, seconds: f64| {
            Duration::try_from_secs_f64(seconds).with_context(|| format!("--{name}: not a time"))
        };
        let client = Client { threads: self.threads, connections: self.connections, cache_size: None, no_redis: false };
        ensure!(self.cores > 0.0, "--cores {}: more than 0", self.cores);
        let options = overload::Options {
            setup: client.setup()?,
            way: self.way,
            workload: self.workload,
            edges: self.edges,
            seed: self.seed.seed,
            cores: self.cores,
            held: self.held,
            factor: self.factor,
            overload: span("minutes", self.minutes * 60.0)?,
            trial: span("trial", self.trial)?,
            fair: self.fair,
        };
        let mut document = overload::run(options)?;
        document["machine"] = json!(report::machine());
        write_json(self.json, &document)?;
        println!(
            "{}",
            json!({ "peak": document["peak_per_second"], "goodput_of_peak": document["goodput_of_peak"], "kept_at_least": document["kept_at_least"] })
        );
        Ok(())
    }
}

/// `100000` or `1e5`.
fn number(text: &str) -> Result<u64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number such as 1e5"))?;
    let whole = number.fract() == 0.0 && (0.0..=1e12).contains(&number);
    whole.then_some(number as u64).ok_or_else(|| format!("{text}: a whole number from 0 to 1e12"))
}

impl Cli {
    /// Does what it says.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Quick { client, seed } => quick::quick(&client.setup()?, seed.seed, &Bar::new()),
            Command::Full(full) => {
                let (options, json) = (full.options()?, full.json);
                whole::full(&options, &Bar::new(), |document| write_json(json, document))
            }
            Command::Growth(full) => {
                let options = full.options()?;
                let sizes: Vec<u64> = whole::SIZES.into_iter().filter(|size| *size <= options.largest).collect();
                let grown = whole::growth(&sizes, &options, &Bar::new())?;
                write_json(full.json, &json!({ "machine": report::machine(), "growth": grown.json }))?;
                println!("{}", json!({ "growth_cpu": grown.ratio }));
                Ok(())
            }
            Command::HitRate(args) => args.run(),
            Command::Load(args) => args.run(),
            Command::Watched(args) => args.run(),
            Command::Overload(args) => args.run(),
            Command::Serve(serve) => serve.run(),
        }
    }
}

impl Full {
    fn options(&self) -> Result<whole::Options> {
        let setup = self.client.setup()?;
        let plan = self.times.plan(&setup, Arrivals::Closed)?;
        let within =
            Duration::try_from_secs_f64(self.minutes * 60.0).with_context(|| format!("--minutes {}", self.minutes))?;
        Ok(whole::Options {
            edges: self.edges,
            largest: self.largest,
            load_edges: self.load_edges,
            seed: self.seed.seed,
            setup,
            plan,
            turns: self.times.turns()?,
            within,
        })
    }
}

impl HitRate {
    fn run(self) -> Result<()> {
        ensure!(self.share > 0.0, "--share {}: more than nothing", self.share);
        let Setup { threads, connections, .. } = self.client.setup()?;
        let graph = Graph::new(Shape::Tao, self.edges, self.seed.seed)?;
        let requests = self.requests as usize;
        let options =
            hit_rate::Options { share: self.share, requests, threads, in_flight: self.in_flight, connections };
        println!("{}", hit_rate::compare(&graph, &options, &Bar::new())?.json());
        Ok(())
    }
}

impl Watched {
    fn run(self) -> Result<()> {
        let Self { sampled, rounds, seconds, client, seed } = self;
        ensure!((0.0..=1.0).contains(&sampled), "--sampled {sampled}: a share, 0 to 1");
        ensure!(rounds > 0, "--rounds 0: at least one");
        let options = watched::Options { rounds, seconds, sampled, seed: seed.seed };
        watched::compare(&client.setup()?, &options, &Bar::new())
    }
}

impl Load {
    fn run(self) -> Result<()> {
        let load = match self.graph {
            Some(file) => load::Load::file(file, self.r#type, self.undirected),
            None => load::Load::synthetic(self.edges, self.seed.seed)?,
        };
        let compared = load.compare()?;
        println!("{}\n{}", compared.table(), compared.json());
        Ok(())
    }
}

impl Run {
    fn run(self) -> Result<()> {
        let setup = self.client.setup()?;
        let turns = self.times.turns()?;
        let rates = if self.rates.is_empty() { Vec::from_iter(self.rate) } else { self.rates.clone() };
        let mut plans =
            rates.iter().map(|rate| self.times.plan(&setup, Arrivals::Open(*rate))).collect::<Result<Vec<_>>>()?;
        if plans.is_empty() {
            plans.push(self.times.plan(&setup, Arrivals::Closed)?);
        }
        let shape = self.shape.unwrap_or_else(|| self.workload.shape());
        let graph: Arc<Graph> = match &self.graph {
            Some(file) => Graph::read(file, shape, self.seed.seed)?,
            None => Graph::new(shape, self.edges, self.seed.seed)?,
        };
        let bar = Bar::new();
        let start = Start {
            kinds: &self.targets,
            setup,
            direct_connections: self.postgres_connections,
            workload: self.workload,
        };
        let mut fleet = Fleet::start(&start, &graph, &bar)?;
        let mut curves: Vec<Curve> =
            self.targets.iter().map(|kind| Curve { name: kind.name().to_owned(), points: Vec::new() }).collect();
        let mut loads = Vec::new();
        for plan in plans {
            let measured = fleet.measure(self.workload, &self.targets, &plan, &turns, &bar)?;
            let arrivals = match plan.arrivals {
                Arrivals::Open(rate) => {
                    curves
                        .iter_mut()
                        .zip(&measured)
                        .for_each(|(curve, one)| curve.points.push(Curve::point(rate, one)));
                    format!("{rate} offered a second")
                }
                Arrivals::Closed | Arrivals::Once => format!("{} in flight", plan.in_flight),
            };
            println!("{}", report::table(&format!("{}, {arrivals}", self.workload.name()), &measured));
            loads.push(json!({ "arrivals": arrivals, "targets": report::json(&measured) }));
        }
        let document = json!({
            "machine": report::machine(), "workload": self.workload.name(), "graph": whole::describe(&graph),
            "postgres_connections": fleet.direct_connections(), "loads": loads,
        });
        if let Some(svg) = &self.svg {
            fs::write(svg, report::plot(&format!("{}: latency against offered rate", self.workload.name()), &curves))?;
        }
        write_json(self.json, &document)?;
        println!("{}", json!({ "workload": self.workload.name(), "per_second": rates_of(&document) }));
        Ok(())
    }
}

/// Median rates by target, of the first load.
fn rates_of(document: &Value) -> Value {
    let targets = document["loads"][0]["targets"].as_array().into_iter().flatten();
    targets.map(|one| (one["target"].as_str().unwrap_or_default().to_owned(), one["per_second"].clone())).collect()
}

fn write_json(file: Option<PathBuf>, document: &Value) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(document)?;
    fs::write(&file, text).with_context(|| format!("--json: cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(
            Cli::try_parse_from([
                "tao-bench",
                "run",
                "--workload",
                "range-50",
                "--targets",
                "postgres,echo-unary",
                "--edges",
                "1e6"
            ])
            .is_ok()
        );
        assert!(Cli::try_parse_from(["tao-bench", "run", "--workload", "tao", "--svg", "x"]).is_err());
        assert_eq!(number("1e6"), Ok(1_000_000));
        assert!(number("1.5").is_err() && number("x").is_err());
    }
}
