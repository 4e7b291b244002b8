//! Group commit: one ordered lane a database. While one batch commits, the next gathers; idle, a write waits for nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tao_model::{
    Change, Clock, Data, Error, LogId, ObjectId, Position, Result, ShardId, Step, Value, Write, WriteOutcome,
};
use tao_proto::convert;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval};

use crate::backend::{Backend, Begun, Fault, LogRow, Rows, Wanted};
use crate::batch::{Lasting, Overlay, want};
use crate::feed::{Commit, Feed};
use crate::intents::Delivered;
use crate::store::WriteContext;

/// Writes in one commit.
const MAX_BATCH: usize = 512;
/// About how many bytes of data one commit takes, so that its message stays well below what a stream carries.
const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;
/// What a job without data counts for.
const JOB_BYTES: usize = 64;
/// How often an idle lane makes sure that nobody has taken the database over.
pub(crate) const OWNER_CHECK: Duration = Duration::from_millis(250);
/// How often what has expired is deleted.
const EXPIRE: Duration = Duration::from_secs(10);
/// Steps of a thousand rows each, at the most: more than a busy lane commits between two times, and no long pause for writers.
const EXPIRE_STEPS: u32 = 10;

/// A job and about how many bytes it takes.
pub(crate) type Queued = (Job, usize);

/// What is asked of the lane.
pub(crate) enum Job {
    Write(Write, WriteContext, oneshot::Sender<Result<WriteOutcome>>),
    Allocate(Option<ShardId>, usize, oneshot::Sender<Result<Vec<ObjectId>>>),
    /// Intents are done and may be deleted.
    Delivered(Delivered, oneshot::Sender<Result<()>>),
}

enum Done {
    Deleted,
    Written(Result<WriteOutcome>),
    Allocated(Result<Vec<ObjectId>>),
}

impl Job {
    fn answer(self, done: Done) {
        // A caller that went away hears nothing.
        match (self, done) {
            (Self::Write(_, _, to), Done::Written(result)) => drop(to.send(result)),
            (Self::Allocate(_, _, to), Done::Allocated(result)) => drop(to.send(result)),
            (Self::Delivered(_, to), Done::Deleted) => drop(to.send(Ok(()))),
            (Self::Write(..) | Self::Allocate(..) | Self::Delivered(..), _) => {}
        }
    }

    fn fail(self, error: Error) {
        match self {
            Self::Write(_, _, to) => drop(to.send(Err(error))),
            Self::Allocate(_, _, to) => drop(to.send(Err(error))),
            Self::Delivered(_, to) => drop(to.send(Err(error))),
        }
    }

    fn is_late(&self) -> bool {
        match self {
            Self::Write(_, context, to) => to.is_closed() || context.deadline.is_some_and(|d| d <= Instant::now()),
            Self::Allocate(_, _, to) => to.is_closed(),
            Self::Delivered(_, to) => to.is_closed(),
        }
    }

    /// About how many bytes of data it writes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Write(write, ..) => write_bytes(write),
            Self::Allocate(..) | Self::Delivered(..) => JOB_BYTES,
        }
    }
}

/// About how many bytes of data a write takes.
fn write_bytes(write: &Write) -> usize {
    let data = match write {
        Write::ObjectAdd { data, .. } | Write::ObjectUpsert { data, .. } | Write::AssocAdd { data, .. } => data,
        Write::ObjectUpdate { update, .. } => &update.set,
        Write::ObjectDelete { .. } | Write::AssocDelete { .. } | Write::AssocChangeType { .. } => return JOB_BYTES,
        Write::Batch(batch) => {
            return JOB_BYTES * batch.conditions.len() + batch.writes.iter().map(write_bytes).sum::<usize>();
        }
        Write::Intents { intents, .. } => {
            let step = |step: &Step| match step {
                Step::Put { data, .. } => data.len() + JOB_BYTES,
                Step::Remove { .. } | Step::DeleteObject(_) => JOB_BYTES,
            };
            return intents.iter().flat_map(|intent| &intent.steps).map(step).sum();
        }
    };
    data_bytes(data) + JOB_BYTES
}

fn data_bytes(data: &Data) -> usize {
    let value = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Bool(_) | Value::Int64(_) | Value::Double(_) | Value::Timestamp(..) => 8,
    };
    data.iter().map(|(name, v)| name.len() + value(v) + 8).sum()
}

/// The lane's task.
pub(crate) struct Lane {
    pub backend: Arc<dyn Backend>,
    pub feed: Arc<Feed>,
    pub clock: Arc<dyn Clock>,
    /// How long the log is kept.
    pub log_ttl_ms: u64,
    /// Bytes of the jobs that wait.
    pub queued_bytes: Arc<AtomicUsize>,
    pub lasting: Lasting,
    /// The last intent that was committed here.
    pub intents_made: watch::Sender<Position>,
    /// By other log, the last of its intents that was done here.
    pub intents_done: watch::Sender<HashMap<LogId, Position>>,
}

impl Lane {
    /// Runs until nobody can ask any more.
    pub async fn run(mut self, mut jobs: mpsc::Receiver<Queued>) {
        let mut check = interval(OWNER_CHECK);
        let mut expire = interval(EXPIRE);
        let mut queue = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                biased;
                // Rare, and before the writes, which would leave them no turn when they never cease.
                _ = check.tick() => {
                    self.check_owner().await;
                    // From now: while the database is down, a check takes longer than the time between two.
                    check.reset();
                }
                _ = expire.tick() => {
                    self.expire().await;
                    expire.reset();
                }
                taken = jobs.recv_many(&mut queue, MAX_BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    self.take(&mut queue).await;
                }
            }
        }
    }

    async fn check_owner(&self) {
        match self.backend.is_owner().await {
            Ok(true) if self.feed.is_lost() => self.recover().await,
            Ok(true) => self.feed.confirm(),
            Err(Fault::Unreachable | Fault::Refused | Fault::InDoubt) => {}
            Ok(false) | Err(Fault::Fenced) => {
                tracing::error!("another storage shard has taken the database over");
                self.feed.lose();
            }
        }
    }

    async fn expire(&self) {
        let now = self.clock.now_ms();
        for _ in 0..EXPIRE_STEPS {
            match self.backend.expire(now, now.saturating_sub(self.log_ttl_ms)).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => return tracing::warn!(?fault, "can't delete what has expired"),
            }
        }
    }

    /// Commits a queue, in as many batches as its bytes need.
    async fn take(&mut self, queue: &mut Vec<Queued>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (job, size) in queue.drain(..) {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            if job.is_late() {
                job.fail(Error::DeadlineExceeded { not_applied: true });
                continue;
            }
            if bytes + size > MAX_BATCH_BYTES && !batch.is_empty() {
                self.commit(std::mem::take(&mut batch)).await;
                bytes = 0;
            }
            bytes += size;
            batch.push(job);
        }
        if !batch.is_empty() {
            self.commit(batch).await;
        }
    }

    /// Commits a batch and answers its callers. When the database refuses it, its writes are tried one by one, so that only the
    /// one that can't be applied is lost.
    async fn commit(&mut self, batch: Vec<Job>) {
        metrics::histogram!("tao_store_batch_writes").record(batch.len() as f64);
        match self.attempt(&batch).await {
            Ok(done) => batch.into_iter().zip(done).for_each(|(job, done)| job.answer(done)),
            Err(Fault::Refused) if batch.len() > 1 => {
                tracing::error!(writes = batch.len(), "the database refused a batch; its writes are tried one by one");
                for job in batch {
                    Box::pin(self.commit(vec![job])).await;
                }
            }
            Err(fault) => {
                let error = error(fault);
                batch.into_iter().for_each(|job| job.fail(error.clone()));
                match fault {
                    Fault::InDoubt => self.recover().await,
                    Fault::Fenced => self.feed.lose(),
                    Fault::Unreachable | Fault::Refused => {}
                }
            }
        }
    }

    /// After a commit in doubt: nobody may go on from memory until the log's end is known again.
    async fn recover(&self) {
        self.feed.lose();
        // Holding the log's end: a commit that is still under way is waited for.
        if let Ok(begun) = self.backend.begin().await {
            self.feed.confirm();
            self.feed.resume(begun.head);
        }
    }

    async fn attempt(&mut self, batch: &[Job]) -> Result<Vec<Done>, Fault> {
        let Begun { head, shards_version, mut transaction } = self.backend.begin().await?;
        self.feed.confirm();
        self.feed.resume(head);
        if self.lasting.shards.is_stale(shards_version) {
            self.lasting.shards.update(shards_version, &transaction.shards().await?);
        }
        self.lasting.forget_some_types();
        let mut wanted = Wanted::default();
        for job in batch {
            if let Job::Write(write, context, _) = job {
                want(write, context.idempotency_key.as_ref(), &self.lasting, &mut wanted);
            }
        }
        wanted.dedup();
        let rows = if wanted.is_empty() { Rows::default() } else { transaction.load(&wanted).await? };
        let now_ms = self.clock.now_ms();
        let mut overlay = Overlay::new(&mut self.lasting, rows, head, now_ms);
        let mut done = Vec::with_capacity(batch.len());
        for job in batch {
            done.push(match job {
                Job::Write(write, context, _) => {
                    Done::Written(overlay.write(write, context.idempotency_key.as_ref()).await)
                }
                Job::Allocate(shard, count, _) => Done::Allocated(overlay.allocate(*shard, *count).await),
                Job::Delivered(delivered, _) => {
                    overlay.back.delivered.push(delivered.clone());
                    Done::Deleted
                }
            });
        }
        let Overlay { changes, mut back, .. } = overlay;
        back.log = log_row(&changes, head, now_ms);
        if back.is_empty() {
            return Ok(done);
        }
        transaction.write(&back).await?;
        transaction.commit().await?;
        if let Some(last) = back.intents.last() {
            self.intents_made.send_replace(last.position);
        }
        if !back.done.is_empty() {
            self.intents_done.send_modify(|done| done.extend(&back.done));
        }
        for (shard, until) in back.leases {
            self.lasting.shards.leased(shard, until);
        }
        for (id, row) in back.objects {
            match row {
                Some(row) => self.lasting.types.insert(id, row.otype),
                None => self.lasting.types.remove(&id),
            };
        }
        if !changes.is_empty() {
            self.feed.publish(Commit { previous: head, changes });
        }
        Ok(done)
    }
}

fn log_row(changes: &[Change], head: Position, committed_ms: u64) -> Option<LogRow> {
    let last = changes.last()?.position;
    Some(LogRow { first: head.plus(1), last, committed_ms, payload: convert::encode_log(changes) })
}

/// What a caller is told of a fault.
pub(crate) fn error(fault: Fault) -> Error {
    let unavailable = |what: &str, not_applied| Error::Unavailable {
        what: what.to_owned(),
        not_applied,
        retry_after: Duration::from_millis(200),
    };
    match fault {
        Fault::Unreachable => unavailable("the database can't be reached", true),
        Fault::InDoubt => unavailable("the database went away during a commit: the write may have happened", false),
        Fault::Fenced => unavailable("another storage shard has taken the database over", true),
        Fault::Refused => {
            Error::Internal { what: "the database refused a statement; the server's log has the reason".to_owned() }
        }
    }
}

impl Wanted {
    fn dedup(&mut self) {
        fn unique<T: Ord>(all: &mut Vec<T>) {
            all.sort_unstable();
            all.dedup();
        }
        unique(&mut self.objects);
        unique(&mut self.types);
        unique(&mut self.assocs);
        unique(&mut self.counts);
        unique(&mut self.outcomes);
        unique(&mut self.done);
    }

    pub fn is_empty(&self) -> bool {
        let Self { objects, types, assocs, counts, outcomes, intents, done } = self;
        let rows = objects.is_empty() && types.is_empty() && assocs.is_empty() && counts.is_empty();
        rows && outcomes.is_empty() && !intents && done.is_empty()
    }
}
