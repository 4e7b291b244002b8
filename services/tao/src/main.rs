//! tao: a distributed social-graph store. One program: each tier, all of them in one process, and commands for data.

mod load;
mod roles;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all tiers in one process, on SQLite: for trying out and for developing against
    Dev(roles::DevArgs),
    /// Run a storage shard: the tier that owns a database
    Shard(roles::ShardArgs),
    /// Run a leader: the tier between followers and a storage shard
    Leader(roles::LeaderArgs),
    /// Run a follower: the tier that clients talk to
    Follower(roles::FollowerArgs),
    /// Load an edge list into a running store
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Dev(args) => roles::dev(&args),
        Command::Shard(args) => roles::shard(args),
        Command::Leader(args) => roles::leader(args),
        Command::Follower(args) => roles::follower(args),
        Command::Load(args) => match load::load(&args) {
            Ok(load::Ended::Complete) => Ok(()),
            // As shells report a program that SIGINT ended.
            Ok(load::Ended::Interrupted) => return ExitCode::from(130),
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
