//! Measures tao beside what one would build instead, on the same graph, with the same requests, in one run.
#![expect(dead_code, reason = "what runs all this is being built")]

mod graph;
mod hash;
mod load;
mod op;
mod run;
mod target;
mod targets;
mod workload;

use clap::Parser;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    serve: targets::Serve,
}

fn main() -> anyhow::Result<()> {
    Cli::parse().serve.run()
}
