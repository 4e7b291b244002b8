//! A follower that is killed and started every few seconds under load: how much of what it is asked it finds in Redis each time, and
//! that no promise is broken.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::check::History;
use crate::cluster::{Cluster, Plan, Tier, http_get};
use crate::load::{Context, Options, sweep};
use crate::run::{decide, load, populate, settle};

/// From when the load begins until the first restart.
const WARM_UP: Duration = Duration::from_secs(5);

/// What a follower answered its misses in memory from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lookups {
    /// Hits in memory.
    pub memory: u64,
    /// Hits in Redis, of what memory did not have.
    pub hits: u64,
    /// Misses in Redis.
    pub misses: u64,
}

impl Lookups {
    /// The share of look-ups in Redis that found something they could use.
    pub fn rate(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

/// What was found.
#[derive(Debug)]
pub struct Restarts {
    /// Everything random came from it.
    pub seed: u64,
    /// After each restart, until the next.
    pub after: Vec<Lookups>,
    /// Reads that were judged.
    pub reads: u64,
    /// Broken promises.
    pub violations: u64,
    /// Those that are shown.
    shown: String,
}

impl Restarts {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = self.shown.clone();
        let _ = writeln!(
            text,
            "{:>8}{:>14}{:>14}{:>14}{:>10}",
            "restart", "memory hits", "redis hits", "redis misses", "rate"
        );
        for (n, lookups) in (1..).zip(&self.after) {
            let Lookups { memory, hits, misses } = lookups;
            let rate = lookups.rate();
            let _ = writeln!(text, "{n:>8}{memory:>14}{hits:>14}{misses:>14}{rate:>10.3}");
        }
        text
    }

    /// For programs: one line.
    pub fn json(&self) -> String {
        let rates: Vec<_> = self.after.iter().map(|l| (l.rate() * 1e3).round() / 1e3).collect();
        let lowest = rates.iter().copied().reduce(f64::min);
        json!({
            "seed": self.seed,
            "restarts": self.after.len(),
            "redis_hit_rates": rates,
            "lowest_redis_hit_rate": lowest,
            "reads": self.reads,
            "violations": self.violations,
        })
        .to_string()
    }
}

/// Restarts one follower `count` times.
pub fn run(plan: &Plan, options: Options, count: usize, every: Duration) -> Result<Restarts> {
    let mut cluster = Cluster::start(plan, options.seed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = {
        let _entered = runtime.enter();
        Context::new(&cluster, options)?
    };
    runtime.block_on(populate(&context))?;
    let after = std::thread::scope(|scope| {
        let restarting = scope.spawn(|| {
            let after = restart(&mut cluster, count, every);
            context.stop();
            after
        });
        runtime.block_on(load(&context));
        restarting.join().map_err(|_| anyhow::anyhow!("the thread that restarts panicked"))?
    })?;
    settle(&mut cluster)?;
    runtime.block_on(sweep(&context));
    let history = History { sessions: context.take_histories() };
    let (verdict, _) = decide(&cluster, &context, &history)?;
    let shown = verdict.violations.iter().take(10).map(|v| format!("{:?}: {}\n", v.kind, v.text)).collect();
    let violations = verdict.violations.len() as u64;
    Ok(Restarts { seed: options.seed, after, reads: verdict.reads, violations, shown })
}

fn restart(cluster: &mut Cluster, count: usize, every: Duration) -> Result<Vec<Lookups>> {
    std::thread::sleep(WARM_UP);
    let node = cluster.of_tier(Tier::Follower)[0];
    let mut after = Vec::new();
    for _ in 0..count {
        cluster.kill(node)?;
        cluster.start_again(node)?;
        std::thread::sleep(every);
        after.push(lookups(cluster.nodes[node].admin)?);
    }
    Ok(after)
}

/// Reads a follower's own counters, which began when it did.
fn lookups(admin: SocketAddr) -> Result<Lookups> {
    let (status, text) = http_get(admin, "/metrics")?;
    ensure!(status == 200, "no metrics: {status}");
    let sum = |name: &str, level: &str| {
        let counts = text.lines().filter(|line| line.starts_with(name) && line.contains(&format!("level=\"{level}\"")));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    };
    Ok(Lookups {
        memory: sum("tao_cache_hits_total", "memory"),
        hits: sum("tao_cache_hits_total", "redis"),
        misses: sum("tao_cache_misses_total", "redis"),
    })
}
