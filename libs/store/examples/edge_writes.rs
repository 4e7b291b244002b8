//! Durable edge writes a second: through a store with 256 under way, and directly, with one statement an edge that does the same work.
//!
//! `cargo run --release -p tao-store --example edge_writes [SECONDS]`. Compare ratios, and the CPU time of PostgreSQL and of this
//! process; the machine's other work is in both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::postgres::PgPoolOptions;
use tao_harness::Postgres;
use tao_model::{AssocRef, Data, IdLayout, ObjectId, Schema, ShardId, TypeId, Write};
use tao_store::{OpenOptions, WriteContext, open};

const IN_FLIGHT: usize = 256;
const OBJECTS: usize = 20_000;
const SCHEMA: &str = r#"
version = 1
[[object]]
name = "user"
number = 1

[[association]]
name = "follows"
number = 1
inverse = "followed_by"

[[association]]
name = "followed_by"
number = 2
inverse = "follows"

[[association]]
name = "visited"
number = 3
"#;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(4), |text| text.parse())?;
    let length = Duration::from_secs(seconds);
    let postgres = Postgres::start_with(&[("shared_buffers", "512MB"), ("max_wal_size", "8GB")])?;
    for name in ["visited", "follows"] {
        let url = postgres.create_database(name)?;
        let schema = Schema::parse(SCHEMA).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let atype = schema.assoc_named(name).map_err(anyhow::Error::msg)?;
        let inverse = schema.inverse(AssocRef { id1: one(), atype: atype.number, id2: one() }).map(|edge| edge.atype);
        println!("{name}, {} rows an edge:", if inverse.is_some() { 2 } else { 1 });
        let (atype, pid) = (atype.number, postgres.pid()?);
        let store = open(OpenOptions::new(&url, Arc::new(schema), IdLayout::STANDARD)).await?;
        let mut ids = Vec::new();
        while ids.len() < OBJECTS {
            ids.extend(store.allocate(Some(ShardId(rand::random_range(0..1024))), 20).await?);
        }
        let ids = Arc::new(ids);
        for (what, writers) in [("store, one writer", 1), ("store, 256 writers", IN_FLIGHT)] {
            let shared = (store.clone(), ids.clone());
            let one = move |_: usize| {
                let (store, ids) = shared.clone();
                async move {
                    let edge = AssocRef { id1: pick(&ids), atype, id2: pick(&ids) };
                    let write = Write::AssocAdd { edge, time: Some(rand::random_range(1..1 << 30)), data: Data::new() };
                    store.write(write, WriteContext::default()).await.map(drop).map_err(anyhow::Error::from)
                }
            };
            run(what, writers, length, pid, one).await?;
        }
        store.close().await;
        direct(&url, atype, inverse, &ids, length, pid).await?;
    }
    Ok(())
}

fn one() -> ObjectId {
    ObjectId::new(1).expect("positive")
}

fn pick(ids: &[ObjectId]) -> ObjectId {
    ids[rand::random_range(0..ids.len())]
}

async fn direct(
    url: &str,
    atype: TypeId,
    inverse: Option<TypeId>,
    ids: &Arc<Vec<ObjectId>>,
    length: Duration,
    pid: u32,
) -> Result<()> {
    let last: i64 = {
        let pool = PgPoolOptions::new().max_connections(1).connect(url).await?;
        sqlx::query_scalar("SELECT lsn FROM log_head").fetch_one(&pool).await?
    };
    let lsn = Arc::new(AtomicI64::new(last));
    let rows = if inverse.is_some() { "($1, $2, $3, $4, $5), ($3, $9, $1, $4, $5)" } else { "($1, $2, $3, $4, $5)" };
    // Both lists' counts in key order, or two of them deadlock.
    let sql = format!(
        "WITH v (id1, atype, id2, time, data) AS (VALUES {rows}), \
         a AS (INSERT INTO assocs (id1, atype, id2, time, data) SELECT * FROM v \
             ON CONFLICT (id1, atype, id2) DO UPDATE SET time = EXCLUDED.time, data = EXCLUDED.data RETURNING id1, atype), \
         c AS (INSERT INTO assoc_counts (id1, atype, count, epoch, lsn) SELECT id1, atype, 1, $6, $7 FROM v ORDER BY id1, atype \
             ON CONFLICT (id1, atype) DO UPDATE SET count = assoc_counts.count + 1, lsn = EXCLUDED.lsn) \
         INSERT INTO change_log (epoch, first_lsn, last_lsn, committed_ms, payload) \
         VALUES ($6, $7, $7, $8, $5)"
    );
    let mut sql = sql;
    if inverse.is_none() {
        sql.push_str(" RETURNING $9::int");
    }
    let sql: &'static str = sql.leak();
    for connections in [1, 8, 16, 32, 64] {
        let pool =
            PgPoolOptions::new().max_connections(connections).min_connections(connections).test_before_acquire(false);
        let pool = pool.connect(url).await?;
        let shared = (pool.clone(), ids.clone(), lsn.clone());
        let one = move |_: usize| {
            let (pool, ids, lsn) = shared.clone();
            async move {
                let query = sqlx::query(sql).bind(pick(&ids).get()).bind(atype.0 as i32).bind(pick(&ids).get());
                let query =
                    query.bind(rand::random_range(1..1i64 << 30)).bind([1u8, 2, 3].as_slice()).bind(2_000_000_000i64);
                let query = query.bind(lsn.fetch_add(1, Ordering::Relaxed) + 1).bind(1i64);
                query.bind(inverse.map_or(0, |t| t.0 as i32)).execute(&pool).await?;
                Ok(())
            }
        };
        run(&format!("direct, {connections} connections"), connections as usize, length, pid, one).await?;
        pool.close().await;
    }
    Ok(())
}

async fn run<F, Fut>(what: &str, writers: usize, length: Duration, postgres: u32, one: F) -> Result<()>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let cpu = || (cpu_ms(std::process::id()), children_ms(postgres));
    let (begun, before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..writers)
        .map(|n| {
            let (one, done, stop) = (one.clone(), done.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    one(n).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    let (count, took, after) = (done.load(Ordering::Relaxed) as f64, begun.elapsed(), cpu());
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    println!(
        "  {what:24} {:8.0} edges/s {:7.0} us each   CPU us an edge: here {:5.1}, PostgreSQL {:5.1}",
        count / took.as_secs_f64(),
        took.as_secs_f64() * 1e6 * writers as f64 / count,
        (after.0 - before.0) * 1e3 / count,
        (after.1 - before.1) * 1e3 / count,
    );
    Ok(())
}

/// User and system time of a process, in milliseconds.
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}

/// The same of PostgreSQL's processes, those that have ended included.
fn children_ms(parent: u32) -> f64 {
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let field =
        |stat: &str, n: usize| -> Option<f64> { stat.rsplit(')').next()?.split_whitespace().nth(n)?.parse().ok() };
    let own = stat(&parent.to_string());
    let ended = (field(&own, 13).unwrap_or(0.0) + field(&own, 14).unwrap_or(0.0)) * 10.0;
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let living = all.filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?.parse::<u32>().ok()?;
        ((field(&stat(&pid.to_string()), 1)? - f64::from(parent)).abs() < 0.5).then(|| cpu_ms(pid))
    });
    ended + living.sum::<f64>()
}
