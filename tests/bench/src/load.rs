//! Loading: through tao, and with COPY as the bound.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tao_harness::{Postgres, Process, Redis, TempDir, built_program, tier};

const LOAD_WITHIN: Duration = Duration::from_secs(1800);

/// Running tiers; dropped, they end.
struct Deployment {
    /// Of the follower.
    address: String,
    _tiers: Vec<Process>,
    _redis: Option<Redis>,
}

impl Deployment {
    /// All tiers in one process, on SQLite.
    fn sqlite(data: &TempDir) -> Result<Self> {
        let folder = data.path().to_string_lossy().into_owned();
        let (process, address) = tier(built_program("tao")?, &["dev", "--data", &folder, "--no-sample"])?;
        Ok(Self { address, _tiers: vec![process], _redis: None })
    }

    /// Three processes on PostgreSQL (database `tao`) and Redis.
    fn postgres(postgres: &Postgres) -> Result<Self> {
        let redis = Redis::start()?;
        let url = postgres.create_database("tao")?;
        let program = built_program("tao")?;
        let (shard, shard_address) = tier(&program, &["shard", "--store", &url])?;
        let (leader, leader_address) = tier(&program, &["leader", "--shard", &shard_address])?;
        let (follower, address) = tier(&program, &["follower", "--leader", &leader_address, "--redis", &redis.url()])?;
        Ok(Self { address, _tiers: vec![follower, leader, shard], _redis: Some(redis) })
    }
}

/// An edge list and how to load it.
pub struct Load {
    /// The file.
    pub file: PathBuf,
    /// Its association type.
    pub atype: String,
    /// Whether a pair is one edge whatever its order.
    pub undirected: bool,
}

/// What a load did.
pub struct Loaded {
    /// Edges, each with its inverse and both counts.
    pub edges: u64,
    /// For the edges alone, as the program says.
    pub seconds: f64,
}

impl Loaded {
    /// Edges a second.
    pub fn rate(&self) -> f64 {
        self.edges as f64 / self.seconds
    }
}

impl Load {
    /// Runs `tao load` to its end.
    fn run(&self, deployment: &Deployment) -> Result<Loaded> {
        let folder = TempDir::new()?;
        let (map, state) = (folder.join("map"), folder.join("state"));
        let (file, map_arg, state_arg) = (self.file.to_string_lossy(), map.to_string_lossy(), state.to_string_lossy());
        let mut args = vec!["load", &file, "--type", &self.atype, "--address", &deployment.address];
        args.extend(["--map", &map_arg, "--state", &state_arg, "--output", "json"]);
        if self.undirected {
            args.push("--undirected");
        }
        let mut process = Process::spawn(built_program("tao")?, &args, &[])?;
        let status = process.wait(LOAD_WITHIN)?;
        let log = process.log()?;
        ensure!(status.success(), "{log}");
        let summary = log.lines().rev().find(|line| line.starts_with('{')).context("no summary")?;
        let summary: Value = serde_json::from_str(summary)?;
        Ok(Loaded {
            edges: summary["edges"].as_u64().context("edges")?,
            seconds: summary["seconds"].as_f64().context("seconds")?,
        })
    }
}

/// What a copy did.
pub struct Copied {
    /// Rows of edges (both directions) and counts.
    pub rows: u64,
    /// For all of them.
    pub seconds: f64,
}

impl Copied {
    /// Rows a second.
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// Copies the rows of edges and counts out, and into empty tables of the same shape in the same database.
fn copy(postgres: &Postgres, database: &str) -> Result<Copied> {
    let mut copied = Copied { rows: 0, seconds: 0.0 };
    for table in ["assocs", "assoc_counts"] {
        let file = postgres.folder().join(format!("{table}.copy"));
        let file = file.display();
        let dump =
            format!("COPY {table} TO '{file}' (FORMAT binary); CREATE TABLE {table}_copy (LIKE {table} INCLUDING ALL)");
        postgres.execute(database, &dump)?;
        let idle = Instant::now();
        postgres.execute(database, "SELECT 1")?;
        let idle = idle.elapsed();
        let begun = Instant::now();
        postgres.execute(database, &format!("COPY {table}_copy FROM '{file}' (FORMAT binary)"))?;
        copied.seconds += begun.elapsed().saturating_sub(idle).as_secs_f64();
        copied.rows += postgres.execute(database, &format!("SELECT count(*) FROM {table}_copy"))?.parse::<u64>()?;
    }
    Ok(copied)
}
