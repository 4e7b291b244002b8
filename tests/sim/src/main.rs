//! The tiers on simulated machines, on a simulated network, in simulated time: storage shards, leaders and followers as they are,
//! over turmoil; sessions that hop between followers; faults; and the rig's judge, who compares what the sessions saw with the log.
//! One seed decides all of it, so a run that fails can be run again.
//!
//! What would make two runs of a seed differ, and what becomes of it:
//!
//! * hash maps, `rand` and the order in which `tokio::select!` looks at its branches all begin with the system's randomness, which
//!   mad-turmoil replaces by the seed's; since some of them count what was made before in the process, one process runs one seed;
//! * clocks: tokio's are simulated by turmoil, and mad-turmoil puts them in the place of the system's; wall clocks are injected;
//! * threads: there is one (`Workers::inline`);
//! * foldhash seeds from addresses: where it orders anything that is seen (the calls that a broken stream fails), the order is made
//!   that of the calls.

mod calls;
mod clock;
mod cluster;
mod database;
mod faults;
mod network;
mod plan;
mod pool;
mod run;
mod session;
mod trace;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rand_seed::SeedableRng as _;

use crate::plan::Plan;
use crate::run::Report;
use crate::trace::Trace;

/// Runs one seed of the simulation.
#[derive(Debug, Parser)]
struct Args {
    /// What everything follows from
    seed: u64,
    /// Simulated seconds of faults
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Print the log as it is written
    #[arg(long)]
    echo: bool,
    /// What is logged, as for RUST_LOG
    #[arg(long, default_value = "info,turmoil=off")]
    log: String,
    /// Lines of the log that are printed when a promise was broken
    #[arg(long, default_value_t = 60)]
    last: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let trace = Trace::install(&args.log, 100_000, args.echo);
    mad_turmoil::rand::set_rng(rand_seed::rngs::StdRng::seed_from_u64(args.seed));
    // A new thread: what this one has drawn of the system's randomness is not the seed's.
    let simulation = std::thread::spawn(move || {
        let _clocks = mad_turmoil::time::SimClocksGuard::init();
        run::run(Plan::new(args.seed, Duration::from_secs(args.seconds)))
    });
    let failure = match simulation.join() {
        Ok(Ok(report)) => {
            print(args.seed, &report);
            if report.violations.is_empty() {
                return ExitCode::SUCCESS;
            }
            format!("{} promises were broken", report.violations.len())
        }
        Ok(Err(error)) => format!("it could not go on: {error:#}"),
        Err(_) => "it panicked".to_owned(),
    };
    for line in trace.last(args.last) {
        println!("  {line}");
    }
    println!("seed {} failed: {failure}", args.seed);
    ExitCode::FAILURE
}

fn print(seed: u64, report: &Report) {
    for violation in report.violations.iter().take(20) {
        println!("{violation:?}");
    }
    println!(
        "seed {seed}: {:?}, {} faults, {} reads, {} failed, {} writes, {} of them repeated, {} in doubt, {} changes, {} violations, hash {:016x}",
        report.time,
        report.faults,
        report.reads,
        report.failed,
        report.acknowledged,
        report.repeated,
        report.in_doubt,
        report.changes,
        report.violations.len(),
        report.hash
    );
}
