//! Runs real processes under load and faults, and compares what the sessions saw with the log.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use tao_rig::cluster::Plan;
use tao_rig::load::Options;
use tao_rig::report::Report;
use tao_rig::run::Run;
use tao_rig::{hops, mutations, restarts};

/// Real processes, real databases, a faulty network, and a judge. The last line of each command is one JSON object; the exit code is 1
/// when a promise was broken.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A mixed load, while everything that can break breaks
    Faults {
        /// How long, in seconds
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Sessions write through one follower and read at once through two others, with their token and without
    Hops {
        /// Reads with a token, and as many without
        #[arg(long, default_value_t = 100_000)]
        count: u64,
        #[command(flatten)]
        common: Common,
    },
    /// A follower is killed and started every few seconds under load: what Redis is worth to it each time
    Restarts {
        /// How often
        #[arg(long, default_value_t = 8)]
        count: usize,
        /// Seconds from one to the next
        #[arg(long, default_value_t = 5)]
        every: u64,
        /// The share of calls that write
        #[arg(long, default_value_t = 0.02)]
        writes: f64,
        #[command(flatten)]
        common: Common,
    },
    /// Each coherence rule is turned off, one at a time, in servers that were built with the feature `mutations`: it must be noticed
    Mutations {
        /// These rules only, as TAO_MUTATION names them
        rules: Vec<String>,
        /// Everything random comes from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Seconds of the first run, and of the next when nothing was noticed
        #[arg(long, value_delimiter = ',', default_value = "15,45")]
        seconds: Vec<u64>,
        /// How many storage-shard processes each log has
        #[arg(long, default_value = "2,1")]
        logs: String,
    },
}

/// What all commands can be told.
#[derive(Debug, Args)]
struct Common {
    /// Everything random comes from it [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// Sessions at a time
    #[arg(long, default_value_t = 48)]
    sessions: u32,
    /// How many storage-shard processes each log has
    #[arg(long, value_delimiter = ',', default_value = "2,1")]
    logs: Vec<usize>,
    /// Leader processes
    #[arg(long, default_value_t = 2)]
    leaders: usize,
    /// Follower processes
    #[arg(long, default_value_t = 3)]
    followers: usize,
}

impl Common {
    fn plan(&self) -> Result<Plan> {
        ensure!(!self.logs.is_empty() && !self.logs.contains(&0), "every log has a storage shard");
        ensure!(self.leaders > 0 && self.followers > 0, "a leader and a follower at the least");
        Ok(Plan { logs: self.logs.clone(), leaders: self.leaders, followers: self.followers, ..Plan::default() })
    }

    fn options(&self) -> Options {
        let seed = self.seed.unwrap_or_else(rand::random);
        eprintln!("seed {seed}");
        Options { seed, sessions: self.sessions, ..Options::default() }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    match &arguments.command {
        Command::Faults { seconds, common } => {
            let (plan, options) = (common.plan()?, common.options());
            let run = Run { time: Duration::from_secs(*seconds), plan, options };
            let report = Report::new(options.seed, &run.run()?);
            print!("{}", report.table());
            println!("{}", report.json());
            Ok(report.is_clean())
        }
        Command::Mutations { rules, seed, seconds, logs } => {
            let found = mutations::run(rules, *seed, seconds, &["--logs".to_owned(), logs.clone()])?;
            print!("{}", mutations::table(&found));
            println!("{}", mutations::json(*seed, &found));
            Ok(found.iter().all(mutations::Found::is_caught))
        }
        Command::Hops { count, common } => {
            let found = hops::run(&common.plan()?, common.options(), *count)?;
            println!("{}", found.json());
            Ok(found.stale_with_token == 0)
        }
        Command::Restarts { count, every, writes, common } => {
            ensure!((0.0..=1.0).contains(writes), "a share is from 0 to 1");
            // Enough for all that there is: what is evicted says nothing of restarts.
            let plan = Plan { redis: Some(256), ..common.plan()? };
            let options = Options { writes: *writes, ..common.options() };
            let found = restarts::run(&plan, options, *count, Duration::from_secs(*every))?;
            print!("{}", found.table());
            println!("{}", found.json());
            Ok(found.violations == 0)
        }
    }
}
