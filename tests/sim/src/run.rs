//! One run: the cluster under faults, then in peace, then judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use parking_lot::Mutex;
use tao_model::{ObjectId, Position, ShardId, StableHash, TypeId};
use tao_proto::v1;
use tao_rig::check::{
    AssocRow, CommitRow, CountRow, History, Kind, Level, ObjectRow, Outcome, Replay, SessionHistory, Shape, Step,
    Tables, Violation, judge,
};
use turmoil::Sim;

use crate::calls::Followers;
use crate::clock::now_us;
use crate::cluster::Cluster;
use crate::faults::{Faults, network};
use crate::plan::{Plan, SHARDS};
use crate::pool::Pool;
use crate::session::{Session, Way};

/// In peace, everything must work again by then.
const HEALED_WITHIN: Duration = Duration::from_secs(40);
/// In peace, every cache is up to date by then.
const SETTLED_WITHIN: Duration = Duration::from_secs(4);

/// What came of a run.
pub struct Report {
    /// Stands for all that happened.
    pub hash: u64,
    /// Simulated time.
    pub time: Duration,
    /// Faults.
    pub faults: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that failed for want of a tier.
    pub failed: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were acknowledged after an attempt whose fate nobody knew.
    pub repeated: u64,
    /// Writes whose fate nobody was told.
    pub in_doubt: u64,
    /// Changes in the logs.
    pub changes: u64,
    /// What is wrong.
    pub violations: Vec<Violation>,
}

type Histories = Arc<Mutex<BTreeMap<u32, SessionHistory>>>;

/// Runs a plan.
pub fn run(plan: Plan) -> Result<Report> {
    let cluster = Cluster::new(plan)?;
    let plan = cluster.plan.clone();
    let pool = Pool::new(&plan);
    let histories = Histories::default();
    let mut sim = network(&plan).build();
    cluster.start(&mut sim);
    for (n, client) in plan.clients.iter().enumerate() {
        let (cluster, pool, histories, host) = (cluster.clone(), pool.clone(), histories.clone(), client.clone());
        sim.client(client.as_str(), async move {
            let followers = Followers::connect(&cluster, &host);
            let mine = (0..cluster.plan.sessions).filter(|id| *id as usize % cluster.plan.clients.len() == n);
            let sessions = mine.map(|id| {
                let mut session = Session::new(id, cluster.clone(), followers.clone(), pool.clone());
                let histories = histories.clone();
                tokio::spawn(async move {
                    session.run().await;
                    histories.lock().insert(id, session.history);
                })
            });
            for session in sessions.collect::<Vec<_>>() {
                session.await?;
            }
            Ok(())
        });
    }
    let mut faults = Faults::new(cluster.clone());
    let result = drive(&mut sim, &cluster, &mut faults, &pool, &histories);
    let time = sim.elapsed();
    drop(sim);
    result.map_err(|error| anyhow!("after {time:?}: {error}"))?;
    let sessions = std::mem::take(&mut *histories.lock()).into_values().collect();
    let mut report = verdict(&cluster, &History { sessions })?;
    (report.time, report.faults) = (time, faults.count);
    Ok(report)
}

fn drive(
    sim: &mut Sim<'_>,
    cluster: &Cluster,
    faults: &mut Faults,
    pool: &Pool,
    histories: &Histories,
) -> turmoil::Result {
    while sim.elapsed() < cluster.plan.time {
        sim.step()?;
        faults.step(sim);
    }
    faults.end_all(sim);
    // The sessions end by themselves.
    sim.run()?;
    for (follower, name) in cluster.plan.followers.iter().enumerate() {
        let auditor = format!("auditor-of-{name}");
        let (cluster, pool, histories) = (cluster.clone(), pool.clone(), histories.clone());
        let id = cluster.plan.sessions + follower as u32;
        sim.client(auditor.clone(), async move {
            let followers = Followers::connect(&cluster, &auditor);
            let mut session = Session::new(id, cluster, followers, pool.clone());
            audit(&mut session, follower, &pool.all()).await;
            histories.lock().insert(id, session.history);
            Ok(())
        });
    }
    sim.run()
}

/// When all is well again: every key through a follower.
async fn audit(session: &mut Session, follower: usize, ids: &[ObjectId]) {
    let strong = Way { level: Level::Strong, consistency: v1::Consistency::Strong, with_token: false };
    let settled = Way { level: Level::Settled, consistency: v1::Consistency::Unspecified, with_token: false };
    let until = now_us() + HEALED_WITHIN.as_micros() as u64;
    for id in ids {
        while !session.reads_object(follower, *id, strong).await {
            if now_us() > until {
                return session.odd(Kind::OddError, format!("follower {follower} does not heal"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    tokio::time::sleep(SETTLED_WITHIN).await;
    for id in ids {
        session.read_object(follower, *id, settled).await;
        for edge in session.edges().iter().copied() {
            session.read_page(follower, *id, edge, settled).await;
            session.read_count(follower, *id, edge, settled).await;
        }
    }
}

fn verdict(cluster: &Cluster, history: &History) -> Result<Report> {
    let layout = cluster.plan.info(0).layout;
    let log_of = (0..SHARDS).map(|shard| Plan::log_of(ShardId(shard)) as u8).collect();
    let mut replay = Replay::new(Shape { layout, schema: cluster.schema.as_ref().clone(), log_of });
    let mut tables = Vec::new();
    let mut hash = StableHash::default();
    for (log, database) in cluster.databases.iter().enumerate() {
        let dump = database.dump();
        for changes in database.commits()? {
            let (Some(first), Some(last)) = (changes.first(), changes.last()) else { continue };
            let (epoch, first, last) = (first.position.epoch, first.position.lsn, last.position.lsn);
            hash.update(format!("{changes:?}").as_bytes());
            replay.commit(log, &CommitRow { epoch, first, last, changes });
        }
        let objects = dump.objects.into_iter().map(|(id, (otype, version, created_ms, updated_ms, data))| ObjectRow {
            id,
            otype,
            version,
            created_ms,
            updated_ms,
            data: data.to_vec(),
        });
        let assocs = dump.assocs.into_iter().map(|(edge, (time, data))| AssocRow { edge, time, data: data.to_vec() });
        let counts = dump.counts.into_iter().map(|((id1, atype), (count, last))| count_row(id1, atype, count, last));
        tables.push(Tables {
            objects: objects.collect(),
            assocs: assocs.collect(),
            counts: counts.collect(),
            head: dump.head.lsn,
            intents: dump.intents,
        });
    }
    let (truth, mut violations) = replay.finish();
    for (log, tables) in tables.iter().enumerate() {
        violations.extend(truth.compare(log, tables));
    }
    violations.extend(truth.missing_inverses());
    let judged = judge(&truth, history);
    violations.extend(judged.violations);
    violations.sort_by_key(|violation| violation.time);
    let (mut failed, mut repeated) = (0, 0);
    for session in &history.sessions {
        for step in &session.steps {
            hash.update(format!("{step:?}").as_bytes());
            match step {
                Step::Failed(_) => failed += 1,
                Step::Write(write) if write.attempts > 1 && matches!(write.outcome, Outcome::Done(_)) => repeated += 1,
                Step::Write(_) | Step::Read(_) | Step::Odd(_) => {}
            }
        }
    }
    Ok(Report {
        hash: hash.get(),
        time: Duration::ZERO,
        faults: 0,
        reads: judged.reads,
        failed,
        acknowledged: judged.acknowledged,
        repeated,
        in_doubt: judged.in_doubt,
        changes: truth.changes(),
        violations,
    })
}

fn count_row(id1: ObjectId, atype: TypeId, count: u64, last: Position) -> CountRow {
    CountRow { id1, atype, count, lsn: last.lsn }
}
