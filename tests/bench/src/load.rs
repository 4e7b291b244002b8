//! Loading: through tao, and with COPY as the bound.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tao_harness::{Postgres, Process, Redis, TempDir, built_program, tier};

use crate::graph::{Graph, Shape};

/// Of the built-in schema, with an inverse of another name, so that each edge is two rows.
const INVERSE_TYPE: &str = "messaged";
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
    /// Where the file is, if it was made for this.
    _folder: Option<TempDir>,
}

/// What a comparison came to.
pub struct Compared {
    on_sqlite: Loaded,
    on_postgres: Loaded,
    copied: Copied,
    /// The planner's idea of how many edges there are, over the truth, right after the load.
    estimated: f64,
}

impl Compared {
    /// Rows a second of the load into PostgreSQL, over those of the copy.
    pub fn ratio(&self) -> f64 {
        self.copied.rows as f64 / self.on_postgres.seconds / self.copied.rate()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = format!("{:<34}{:>12}{:>12}{:>12}\n", "load", "", "seconds", "a second");
        let Self { on_sqlite, on_postgres, copied, .. } = self;
        let mut line = |name, n: u64, seconds: f64, rate: f64, of| {
            out.push_str(&format!("{name:<34}{n:>12}{seconds:>12.2}{rate:>12.0} {of}\n"));
        };
        line("tao load, SQLite", on_sqlite.edges, on_sqlite.seconds, on_sqlite.rate(), "edges");
        line("tao load, PostgreSQL", on_postgres.edges, on_postgres.seconds, on_postgres.rate(), "edges");
        line("the same as rows", copied.rows, on_postgres.seconds, copied.rows as f64 / on_postgres.seconds, "rows");
        line("COPY of the same rows", copied.rows, copied.seconds, copied.rate(), "rows");
        out
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "edges": self.on_postgres.edges,
            "sqlite_edges_per_second": self.on_sqlite.rate(),
            "postgres_edges_per_second": self.on_postgres.rate(),
            "rows": self.copied.rows,
            "copy_rows_per_second": self.copied.rate(),
            "postgres_rows_vs_copy": self.ratio(),
            "planner_estimate_vs_truth": self.estimated,
        })
    }
}

/// What a load did.
struct Loaded {
    /// Edges, each with its inverse and both counts.
    edges: u64,
    /// For the edges alone, as the program says.
    seconds: f64,
}

impl Loaded {
    /// Edges a second.
    fn rate(&self) -> f64 {
        self.edges as f64 / self.seconds
    }
}

impl Load {
    /// The edges of a file.
    pub fn file(file: PathBuf, atype: String, undirected: bool) -> Self {
        Self { file, atype, undirected, _folder: None }
    }

    /// The edges of a graph of TAO's shape, in a file that lives as long as this.
    pub fn synthetic(edges: u64, seed: u64) -> Result<Self> {
        let graph = Graph::new(Shape::Tao, edges, seed)?;
        let folder = TempDir::new()?;
        let file = folder.join("edges.txt");
        let mut out = BufWriter::new(File::create(&file)?);
        for node in 0..graph.nodes() {
            for edge in graph.list(node) {
                writeln!(out, "{} {} {}", node + 1, edge.id2 + 1, edge.time)?;
            }
        }
        out.flush()?;
        Ok(Self { file, atype: INVERSE_TYPE.to_owned(), undirected: false, _folder: Some(folder) })
    }

    /// Loads it into SQLite and into PostgreSQL, and copies the same rows into the same PostgreSQL tables.
    pub fn compare(&self) -> Result<Compared> {
        let data = TempDir::new()?;
        let sqlite = Deployment::sqlite(&data)?;
        let on_sqlite = self.run(&sqlite)?;
        drop(sqlite);
        let postgres = Postgres::start_with(&[("shared_buffers", "512MB")])?;
        let deployment = Deployment::postgres(&postgres)?;
        let on_postgres = self.run(&deployment)?;
        let estimate =
            "SELECT reltuples / greatest(1, (SELECT count(*) FROM assocs)) FROM pg_class WHERE relname = 'assocs'";
        let estimated = postgres.execute("tao", estimate)?.parse().context("the planner's estimate")?;
        Ok(Compared { on_sqlite, on_postgres, copied: copy(&postgres, "tao")?, estimated })
    }

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
struct Copied {
    /// Rows of edges (both directions) and counts.
    rows: u64,
    /// For all of them.
    seconds: f64,
}

impl Copied {
    /// Rows a second.
    fn rate(&self) -> f64 {
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
