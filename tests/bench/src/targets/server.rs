//! The databases, settings and all: the same for every side.

use anyhow::{Result, ensure};
use tao_harness::Postgres;

/// Durable as the harness has it (`fsync`, `synchronous_commit` and `full_page_writes` on), with memory for the graphs that are
/// measured, and checkpoints far enough apart that a run meets few.
const SETTINGS: &[(&str, &str)] = &[
    ("shared_buffers", "512MB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    ("wal_buffers", "16MB"),
    ("random_page_cost", "1.1"),
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
];

/// Starts a PostgreSQL, and makes sure that it keeps what it is told to keep.
pub fn postgres() -> Result<Postgres> {
    let postgres = Postgres::start_with(SETTINGS)?;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value = postgres.execute("postgres", &format!("SHOW {setting}"))?;
        ensure!(value == "on", "{setting} is {value}: nothing durable would be measured");
    }
    Ok(postgres)
}
