//! A whole run: start, load, faults, heal, settle, judge.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tao_harness::eventually;

use crate::check::{History, Replay, Time, Verdict, judge};
use crate::cluster::{Cluster, DATABASE, Plan};
use crate::dump;
use crate::faults::{Injection, Order, inject};
use crate::load::{Change, Context, Options, Session, sweep};
use crate::progress::Progress;

/// Objects of each type that exist at the beginning.
const USERS: usize = 120;
const POSTS: usize = 40;
/// Ids that are allocated, for objects that come and go.
const EMPTY: usize = 20;
/// Between two faults.
const REST: std::ops::Range<u64> = 200..1_000;
/// Longer than heartbeats are apart, so that every stream has drained.
const SETTLE: Duration = Duration::from_secs(2);
/// Until intents have been delivered and writes in doubt are decided.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Run {
    /// How long the load and the faults last.
    pub time: Duration,
    /// The deployment.
    pub plan: Plan,
    /// The load.
    pub options: Options,
}

/// What came of it.
pub struct Outcome {
    /// What the judge found.
    pub verdict: Verdict,
    /// The faults, in their order.
    pub injections: Vec<Injection>,
    /// All that sessions did.
    pub history: History,
    /// Changes in the logs.
    pub changes: u64,
    /// When the load ended.
    pub ended: Time,
}

impl Run {
    /// Runs all of it. Blocks; starts a runtime of its own for the sessions.
    pub fn run(&self) -> Result<Outcome> {
        let mut cluster = Cluster::start(&self.plan, self.options.seed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let context = {
            let _entered = runtime.enter();
            Context::new(&cluster, self.options)?
        };
        let outcome = self.on(&mut cluster, &context, &runtime);
        if outcome.as_ref().map_or(true, |o| !o.verdict.violations.is_empty()) {
            cluster.print_logs();
        }
        outcome
    }

    fn on(&self, cluster: &mut Cluster, context: &Arc<Context>, runtime: &tokio::runtime::Runtime) -> Result<Outcome> {
        runtime.block_on(populate(context))?;
        let injections = std::thread::scope(|scope| {
            let faults = scope.spawn(|| {
                let made = self.break_things(cluster, context);
                context.stop();
                made
            });
            runtime.block_on(load(context));
            faults.join().map_err(|_| anyhow::anyhow!("the thread that makes faults panicked"))?
        })?;
        let ended = context.now();
        settle(cluster)?;
        runtime.block_on(sweep(context));
        let history = History { sessions: context.take_histories() };
        let (verdict, changes) = decide(cluster, context, &history)?;
        Ok(Outcome { verdict, injections, history, changes, ended })
    }

    /// Makes faults until the time is up.
    fn break_things(&self, cluster: &mut Cluster, context: &Context) -> Result<Vec<Injection>> {
        let mut rng = SmallRng::seed_from_u64(self.options.seed);
        let mut order = Order::default();
        let mut made = Vec::new();
        let mut progress = Progress::new(self.time);
        let end = Instant::now() + self.time;
        loop {
            std::thread::sleep(Duration::from_millis(rng.random_range(REST)));
            let (done, failed) = (&context.counters.done, &context.counters.failed);
            progress.tell(done.load(Ordering::Relaxed), failed.load(Ordering::Relaxed), made.len());
            if Instant::now() >= end {
                return Ok(made);
            }
            let faults = order.next(cluster, &mut rng);
            let lasts = faults.iter().map(|f| f.duration(&mut rng)).max().unwrap_or_default();
            let (names, start) =
                (faults.iter().map(|f| f.name(cluster)).collect::<Vec<_>>().join(" and "), context.now());
            inject(cluster, &faults, lasts).with_context(|| format!("while making the fault: {names}"))?;
            let name = if faults.len() > 1 { "two at once".to_owned() } else { names };
            made.push(Injection { name, start, end: context.now() });
        }
    }
}

/// Adds the objects that sessions work with.
pub async fn populate(context: &Arc<Context>) -> Result<()> {
    let mut session = Session::new(context);
    for (count, otype) in [(USERS, "user"), (POSTS, "post")] {
        let mut ids = session.allocate(EMPTY).await?;
        for _ in 0..count {
            let (_, id) = session.write(Change::Add(otype)).await.context("an object can't be added")?;
            ids.push(id.context("an object was added without an id")?);
        }
        let keys = if otype == "user" { &context.keys.users } else { &context.keys.posts };
        *keys.write() = ids;
    }
    session.finish();
    Ok(())
}

/// Runs the sessions until the run is stopped.
pub async fn load(context: &Arc<Context>) {
    let sessions: Vec<_> = (0..context.options.sessions).map(|_| tokio::spawn(Session::run(context.clone()))).collect();
    for session in sessions {
        // A session that panics has lost its history: the judge would blame the store for it.
        session.await.expect("a session runs to its end");
    }
}

/// Waits until nothing moves any more.
pub fn settle(cluster: &mut Cluster) -> Result<()> {
    cluster.wait_ready()?;
    for database in &cluster.databases {
        let head = || database.execute(DATABASE, "SELECT lsn FROM log_head");
        eventually(QUIET_WITHIN, || {
            let before = head()?;
            std::thread::sleep(SETTLE);
            ensure!(before == head()?, "the log goes on");
            let intents = database.execute(DATABASE, "SELECT count(*) FROM intents")?;
            ensure!(intents == "0", "{intents} intents are left");
            Ok(())
        })?;
    }
    Ok(())
}

/// Reads the logs and tables, and lets the judge decide. Answers with the number of changes, too.
pub fn decide(cluster: &Cluster, context: &Context, history: &History) -> Result<(Verdict, u64)> {
    let mut replay = Replay::new(context.shape.clone());
    for (log, database) in cluster.databases.iter().enumerate() {
        dump::read_log(database, log, &mut replay)?;
    }
    let (truth, mut violations) = replay.finish();
    for (log, database) in cluster.databases.iter().enumerate() {
        violations.extend(truth.compare(log, &dump::read_tables(database)?));
    }
    violations.extend(truth.missing_inverses());
    let mut verdict = judge(&truth, history);
    violations.append(&mut verdict.violations);
    verdict.violations = violations;
    Ok((verdict, truth.changes()))
}
