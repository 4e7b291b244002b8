//! Measures tao beside what one would build instead, on the same graph, with the same requests, in one run. Prints tables for people and,
//! as its last line, one JSON object.

mod cli;
mod fleet;
mod graph;
mod hash;
mod hit_rate;
mod load;
mod op;
mod overload;
mod progress;
mod quick;
mod report;
mod run;
mod target;
mod targets;
mod watched;
mod whole;
mod workload;

use clap::Parser as _;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> anyhow::Result<()> {
    cli::Cli::parse().run()
}
