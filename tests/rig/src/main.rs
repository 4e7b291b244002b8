//! Runs real processes under load and faults, and compares what the sessions saw with the log.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tao_rig::cluster::Plan;
use tao_rig::load::Options;
use tao_rig::report::Report;
use tao_rig::run::Run;

/// Real processes, real databases, a faulty network, and a judge. The last line of each command is one JSON object; the exit code is 1
/// when a promise was broken.
#[derive(Debug, Parser)]
struct Args {
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
        /// Everything random comes from it [default: a random one]
        #[arg(long)]
        seed: Option<u64>,
        /// Sessions at a time
        #[arg(long, default_value_t = 48)]
        sessions: u32,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    match args.command {
        Command::Faults { seconds, seed, sessions } => {
            let seed = seed.unwrap_or_else(rand::random);
            eprintln!("seed {seed}");
            let options = Options { seed, sessions, ..Options::default() };
            let run = Run { time: Duration::from_secs(seconds), plan: Plan::default(), options };
            let report = Report::new(seed, &run.run()?);
            print!("{}", report.table());
            println!("{}", report.json());
            Ok(report.is_clean())
        }
    }
}
