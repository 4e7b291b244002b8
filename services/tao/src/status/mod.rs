//! `tao status`: who is there, what lives where, how far each is, and how well its cache does.

mod metrics;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use hyper::Method;
use serde_json::{Value as Json, json};
use tao_model::Position;
use tao_store::direct::cut;
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::http::ask;
use crate::commands::{Failure, Format, show, show_more};
use crate::databases::{DatabaseArgs, Databases};
use metrics::Metrics;

/// Arguments of `tao status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 when a server is not ready or can't be reached. With --store, logs and their storage shards are shown, too, and how many changes each \
cache is behind each log.

Examples:
  tao status --admin http://follower-0:9464,http://leader-0:9464,http://shard-0:9464
  tao status --store postgres://tao@db/tao --watch"
)]
pub struct StatusArgs {
    /// The servers' admin ports, with commas between them
    #[arg(long, value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:9464")]
    admin: Vec<String>,
    /// The cluster's databases, all of them, with commas between them
    #[arg(long, env = "TAO_STORE", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    store: Vec<String>,
    /// Show it again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// With --watch: seconds between two times
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// How long to wait for a server's answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
    /// How to print it; with --watch, one JSON object a line
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
}

/// One server.
struct Member {
    admin: String,
    /// What it waits for, or why it can't be asked.
    problem: Option<String>,
    connections: Option<u64>,
    caches: Vec<Cache>,
}

/// The cache of one tier.
struct Cache {
    tier: String,
    /// Of the reads that it was asked, those that it answered itself.
    hit_rate: Option<f64>,
    entries: u64,
    bytes: u64,
    /// Up to where it has applied each log.
    applied: BTreeMap<u32, u64>,
}

/// One log.
struct Log {
    number: u32,
    shards: String,
    head: Position,
    intents: usize,
    servers: Vec<String>,
}

/// Prints who is there; with `--watch`, until somebody asks it to stop.
pub fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    crate::databases::block_on(async {
        let databases =
            if args.store.is_empty() { None } else { Some(DatabaseArgs::of(args.store.clone()).open().await?) };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
        loop {
            let members = join_all(args.admin.iter().map(|admin| member(admin, args.timeout))).await;
            let logs = match &databases {
                Some(databases) => logs(databases).await?,
                None => Vec::new(),
            };
            let printed = match args.output {
                Format::Json => format!("{}\n", report(&members, &logs)),
                // A live view begins at the top of an empty screen.
                Format::Text if args.watch => format!("\x1b[2J\x1b[H{}", text(&members, &logs)),
                Format::Text => text(&members, &logs),
            };
            if !args.watch {
                show(&printed)?;
                let are_ready = members.iter().all(|member| member.problem.is_none());
                return Ok(if are_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            let wait = tokio::time::sleep(Duration::from_secs(args.every));
            if !show_more(&printed)? {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::select! {
                _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                () = wait => {}
            }
        }
    })
}

async fn member(admin: &str, timeout: u64) -> Member {
    let within = Duration::from_secs(timeout);
    let ready = ask(Method::GET, admin, "/readyz", within).await;
    let metrics = ask(Method::GET, admin, "/metrics", within).await;
    let metrics = Metrics::parse(&String::from_utf8_lossy(&metrics.unwrap_or_default()));
    let caches = metrics.values("tier").into_iter().filter_map(|tier| cache(&metrics, tier)).collect();
    let problem = ready.err().map(|failure| failure.to_string());
    let connections = metrics.sum("server_connections", &[]).map(|n| n as u64);
    Member { admin: admin.to_owned(), problem, connections, caches }
}

fn cache(metrics: &Metrics, tier: String) -> Option<Cache> {
    let of = |name: &str| metrics.sum(name, &[("tier", &tier)]);
    let at = |name: &str, level: &str| metrics.sum(name, &[("tier", &tier), ("level", level)]).unwrap_or(0.0);
    let applied: BTreeMap<u32, u64> = metrics
        .by("log", "tao_cache_applied_lsn", &[("tier", &tier)])
        .into_iter()
        .filter_map(|(log, lsn)| Some((log.parse().ok()?, lsn as u64)))
        .collect();
    if applied.is_empty() {
        return None;
    }
    let [(hits, misses), (second_hits, second_misses)] =
        ["memory", "redis"].map(|level| (at("tao_cache_hits_total", level), at("tao_cache_misses_total", level)));
    // Redis is asked for what memory has not, and for everything where there is no memory.
    let asked = (hits + misses).max(second_hits + second_misses);
    let hit_rate = (asked > 0.0).then(|| (hits + second_hits) / asked);
    let (entries, bytes) = (of("tao_cache_entries").unwrap_or(0.0) as u64, of("tao_cache_bytes").unwrap_or(0.0) as u64);
    Some(Cache { tier, hit_rate, entries, bytes, applied })
}

async fn logs(databases: &Databases) -> Result<Vec<Log>, Failure> {
    let mut logs = Vec::with_capacity(databases.all.len());
    // Nobody is held up: these need not be of one moment.
    for database in &databases.all {
        let mut snapshots = cut(std::slice::from_ref(database), 1).await?;
        let snapshot = &mut snapshots[0][0];
        logs.push(Log {
            number: database.info().log.0,
            shards: database.shards().to_string(),
            head: snapshot.position(),
            intents: snapshot.intents().await?.len(),
            servers: database.servers().await?,
        });
    }
    Ok(logs)
}

/// Changes that a cache is behind a log, whose head is known if its database is.
fn behind(log: u32, applied: u64, logs: &[Log]) -> Option<u64> {
    let log = logs.iter().find(|known| known.number == log)?;
    Some(log.head.lsn.saturating_sub(applied))
}

fn report(members: &[Member], logs: &[Log]) -> Json {
    let cache = |cache: &Cache| {
        json!({
            "tier": cache.tier,
            "hit_rate": cache.hit_rate,
            "entries": cache.entries,
            "bytes": cache.bytes,
            "logs": cache.applied.iter().map(|(log, applied)| {
                json!({ "log": log, "applied": applied, "behind": behind(*log, *applied, logs) })
            }).collect::<Vec<_>>(),
        })
    };
    let member = |member: &Member| {
        json!({
            "admin": member.admin,
            "ready": member.problem.is_none(),
            "problem": member.problem,
            "connections": member.connections,
            "caches": member.caches.iter().map(cache).collect::<Vec<_>>(),
        })
    };
    let log = |log: &Log| {
        json!({
            "log": log.number,
            "shards": log.shards,
            "head": log.head.to_string(),
            "intents": log.intents,
            "servers": log.servers,
        })
    };
    json!({
        "members": members.iter().map(member).collect::<Vec<_>>(),
        "logs": logs.iter().map(log).collect::<Vec<_>>(),
    })
}

fn text(members: &[Member], logs: &[Log]) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    for member in members {
        let state = member.problem.as_deref().unwrap_or("ready");
        let connections = member.connections.map(|n| format!(", {n} connections")).unwrap_or_default();
        let _ = writeln!(out, "{}  {state}{connections}", member.admin);
        for cache in &member.caches {
            let rate =
                cache.hit_rate.map_or_else(|| "no reads yet".to_owned(), |rate| format!("{:.1} % hits", rate * 100.0));
            let Cache { tier, entries, bytes, applied, .. } = cache;
            let mib = bytes >> 20;
            let _ = write!(out, "  {tier:<8}  {rate}, {entries} entries in {mib} MiB");
            for (log, applied) in applied {
                let behind = behind(*log, *applied, logs).map(|n| format!(" ({n} behind)")).unwrap_or_default();
                let _ = write!(out, ", log {log} at {applied}{behind}");
            }
            out.push('\n');
        }
    }
    for log in logs {
        let Log { number, shards, head, intents, servers } = log;
        let _ = writeln!(out, "log {number}  shards {shards}, at {head}, {intents} intents waiting");
        servers.iter().for_each(|server| out.push_str(&format!("  shard     {server}\n")));
    }
    out
}
