//! Measures tao beside what else could be done with the same rows, in one run on one machine. Prints a table for people and, as its
//! last line, one JSON object.

mod graph;
mod latency;
mod tiers;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use serde_json::json;
use tao_harness::{Postgres, TempDir, repository};

/// Loads a graph into SQLite and into PostgreSQL (with Redis) through `tao load`, copies the same rows into the same PostgreSQL tables,
/// and times cold and warm reads of 50 edges.
#[derive(Debug, Parser)]
struct Args {
    /// An edge list: `src dst [time]` a line
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Its association type
    #[arg(long, value_name = "TYPE", default_value = "messaged")]
    r#type: String,
    /// Whether `a b` and `b a` are the same edge
    #[arg(long)]
    undirected: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let file = args.graph.unwrap_or_else(|| repository().join("examples/graphs/reading-circle.txt"));
    let load = graph::Load { file, atype: args.r#type, undirected: args.undirected };

    let data = TempDir::new()?;
    let sqlite = tiers::Deployment::sqlite(&data)?;
    let on_sqlite = load.run(&sqlite)?;
    let sqlite_reads = latency::cold_and_warm(&sqlite.address, &on_sqlite.objects, &load.atype).await?;
    drop(sqlite);

    let postgres = Postgres::start()?;
    let deployment = tiers::Deployment::postgres(&postgres)?;
    let on_postgres = load.run(&deployment)?;
    let postgres_reads = latency::cold_and_warm(&deployment.address, &on_postgres.objects, &load.atype).await?;
    let copied = graph::copy(&postgres, "tao")?;

    println!("{:<34}{:>12}{:>12}{:>12}", "load", "edges", "seconds", "edges/s");
    for (name, loaded) in [("tao load, SQLite", &on_sqlite), ("tao load, PostgreSQL", &on_postgres)] {
        println!("{name:<34}{:>12}{:>12.2}{:>12.0}", loaded.edges, loaded.seconds, loaded.rate());
    }
    println!(
        "{:<34}{:>12}{:>12.2}{:>12.0} rows/s",
        "COPY of the same rows",
        copied.rows,
        copied.seconds,
        copied.rate()
    );
    println!("\n{:<34}{:>12}{:>12}", "AssocRange(50), median, µs", "cold", "warm");
    for (name, reads) in [("SQLite", &sqlite_reads), ("PostgreSQL", &postgres_reads)] {
        println!("{name:<34}{:>12.0}{:>12.0}", reads.cold_us, reads.warm_us);
    }
    let figures = json!({
        "edges": on_postgres.edges,
        "sqlite_edges_per_second": on_sqlite.rate(),
        "postgres_edges_per_second": on_postgres.rate(),
        "copy_rows": copied.rows,
        "copy_rows_per_second": copied.rate(),
        "postgres_rows_vs_copy": on_postgres.seconds.recip() * copied.rows as f64 / copied.rate(),
        "sqlite_range_cold_us": sqlite_reads.cold_us,
        "sqlite_range_warm_us": sqlite_reads.warm_us,
        "postgres_range_cold_us": postgres_reads.cold_us,
        "postgres_range_warm_us": postgres_reads.warm_us,
    });
    println!("{figures}");
    Ok(())
}
