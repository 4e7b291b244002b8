//! Baseline servers: this very program again, as processes of their own, so that their CPU time is theirs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use tao_harness::{Process, built_program};

use super::{cache_aside, echo};

const LISTENING: &str = "listening at ";

/// Hidden subcommands: what [`start`] runs.
#[derive(Debug, Subcommand)]
pub enum Serve {
    /// Answers with ready bytes
    #[command(hide = true)]
    ServeEcho {
        /// The answers
        #[arg(long)]
        answers: std::path::PathBuf,
        /// Threads [default: one a core]
        #[arg(long)]
        threads: Option<usize>,
    },
    /// PostgreSQL and Redis behind a service
    #[command(hide = true)]
    ServeCacheAside {
        /// Where PostgreSQL is
        #[arg(long)]
        postgres: String,
        /// Where Redis is
        #[arg(long)]
        redis: String,
        /// Connections to PostgreSQL, of all threads together
        #[arg(long)]
        connections: usize,
        /// Threads [default: one a core]
        #[arg(long)]
        threads: Option<usize>,
    },
}

impl Serve {
    /// Serves until the process is killed.
    pub fn run(self) -> Result<()> {
        let listening = |address| println!("{LISTENING}{address}");
        let or_cores = |threads: Option<usize>| {
            threads.map_or_else(|| std::thread::available_parallelism().map(std::num::NonZeroUsize::get), Ok)
        };
        match self {
            Self::ServeEcho { answers, threads } => echo::serve(&answers, or_cores(threads)?, listening),
            Self::ServeCacheAside { postgres, redis, connections, threads } => {
                cache_aside::serve(&postgres, &redis, connections, or_cores(threads)?, listening)
            }
        }
    }
}

/// Runs one; answers with where it listens.
pub(super) fn start(args: &[&str], within: Duration) -> Result<(Process, String)> {
    let mut process = Process::spawn(built_program("tao-bench")?, args, &[])?;
    let line = process.wait_line(LISTENING, within)?;
    let address = line.split(LISTENING).nth(1).context("an address")?.trim().to_owned();
    Ok((process, address))
}
