//! Starts the program under measurement: tiers as processes, on free ports.

use anyhow::Result;
use tao_harness::{Postgres, Process, Redis, TempDir, built_program};

/// Running tiers; dropped, they end.
pub struct Deployment {
    /// Of the follower.
    pub address: String,
    _tiers: Vec<Process>,
    _redis: Option<Redis>,
}

fn tier(args: &[&str]) -> Result<(Process, String)> {
    tao_harness::tier(built_program("tao")?, args)
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
