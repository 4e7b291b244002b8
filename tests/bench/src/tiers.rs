//! Starts the program under measurement: tiers as processes, on free ports.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tao_harness::{Postgres, Process, Redis, TempDir, built_program};

const START_WITHIN: Duration = Duration::from_secs(30);

/// Running tiers; dropped, they end.
pub struct Deployment {
    /// Of the follower.
    pub address: String,
    _tiers: Vec<Process>,
    _redis: Option<Redis>,
}

fn tier(args: &[&str]) -> Result<(Process, String)> {
    let (role, rest) = args.split_first().context("a role")?;
    let args = [&[*role, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"], rest].concat();
    let front = if *role == "dev" { "follower" } else { role };
    let listening = format!("listening for gRPC tier=\"{front}\"");
    let mut process = Process::spawn(built_program("tao")?, &args, &[])?;
    let line = process.wait_line(&listening, START_WITHIN)?;
    let address =
        line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).context("an address")?;
    Ok((process, address.to_owned()))
}

impl Deployment {
    /// All tiers in one process, on SQLite.
    pub fn sqlite(data: &TempDir) -> Result<Self> {
        let folder = data.path().to_string_lossy().into_owned();
        let (process, address) = tier(&["dev", "--data", &folder, "--no-sample"])?;
        Ok(Self { address, _tiers: vec![process], _redis: None })
    }

    /// Three processes on PostgreSQL (database `tao`) and Redis.
    pub fn postgres(postgres: &Postgres) -> Result<Self> {
        let redis = Redis::start()?;
        let url = postgres.create_database("tao")?;
        let (shard, shard_address) = tier(&["shard", "--store", &url])?;
        let (leader, leader_address) = tier(&["leader", "--shard", &shard_address])?;
        let (follower, address) = tier(&["follower", "--leader", &leader_address, "--redis", &redis.url()])?;
        Ok(Self { address, _tiers: vec![follower, leader, shard], _redis: Some(redis) })
    }
}
