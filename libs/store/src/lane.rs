//! Group commit: one ordered lane a database. While one batch commits, the next gathers; idle, a write waits for nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tao_model::mutation::{Rule, is_off};
use tao_model::{
    Change, Clock, Data, Error, LogId, ObjectId, Placement, Position, Result, ShardId, Step, Value, Write, WriteOutcome,
};
use tao_proto::convert;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::backend::{Backend, Begun, Fault, LogRow, Rows, Transaction, Wanted, WriteBack};
use crate::batch::{Lasting, Overlay, want};
use crate::epoch::NewEpoch;
use crate::feed::Feed;
use crate::intents::Delivered;
use crate::shards::Demand;
use crate::store::WriteContext;

/// Writes in one commit.
const MAX_BATCH: usize = 512;
/// About how many bytes of data one commit takes, so that its message stays well below what a stream carries.
const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;
/// What a job without data counts for.
const JOB_BYTES: usize = 64;
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

impl Done {
    fn changes(&mut self) -> &mut [Change] {
        match self {
            Self::Written(Ok(outcome)) => &mut outcome.changes,
            Self::Written(Err(_)) | Self::Allocated(_) | Self::Deleted => &mut [],
        }
    }
}

/// A batch that is written and not committed.
struct Prepared {
    /// Before its changes.
    head: Position,
    transaction: Box<dyn Transaction>,
    back: WriteBack,
    changes: Vec<Change>,
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
    /// Bytes of the jobs that wait.
    pub queued_bytes: Arc<AtomicUsize>,
    pub lasting: Lasting,
    /// Where this lane left the log, or found it.
    pub left: Position,
    /// The last intent that was committed here.
    pub intents_made: watch::Sender<Position>,
    /// By other log, the last of its intents that was done here.
    pub intents_done: watch::Sender<HashMap<LogId, Position>>,
}

impl Lane {
    /// Runs until nobody can ask any more.
    pub async fn run(mut self, mut jobs: mpsc::Receiver<Queued>) {
        let mut queue = Vec::with_capacity(MAX_BATCH);
        while jobs.recv_many(&mut queue, MAX_BATCH).await > 0 {
            self.take(&mut queue).await;
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
        let fault = match self.prepare(&batch).await {
            Ok((done, prepared)) if is_off(Rule::AnsweredOnceCommitted) => {
                batch.into_iter().zip(done).for_each(|(job, done)| job.answer(done));
                let _ = self.finish(prepared).await;
                return;
            }
            Ok((done, prepared)) => match self.finish(prepared).await {
                Ok(()) => return batch.into_iter().zip(done).for_each(|(job, done)| job.answer(done)),
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        self.lasting.shards.abandon();
        if fault == Fault::Refused && batch.len() > 1 {
            tracing::error!(writes = batch.len(), "the database refused a batch; its writes are tried one by one");
            for job in batch {
                Box::pin(self.commit(vec![job])).await;
            }
            return;
        }
        let error = error(fault);
        batch.into_iter().for_each(|job| job.fail(error.clone()));
        if fault == Fault::InDoubt {
            // If it happened, subscribers hear of it from the database.
            self.feed.ask();
        }
    }

    /// Begins a transaction on a log that has everything which this process has seen of it.
    async fn begin(&mut self) -> Result<Begun, Fault> {
        let mut begun = self.backend.begin().await?;
        let known = self.feed.seen.mark().last;
        if begun.head < known {
            begun.transaction.end().await;
            self.backend.begin_epoch(NewEpoch::Beyond(known)).await?;
            begun = self.backend.begin().await?;
        }
        if begun.head != self.left {
            // Others have written, and may have deleted objects and made them anew with another type.
            self.lasting.types.clear();
            self.feed.ask();
            if begun.head.epoch != self.left.epoch {
                self.lasting.shards.forget_leases();
            }
            self.left = begun.head;
        }
        Ok(begun)
    }

    /// Everything but the commit.
    async fn prepare(&mut self, batch: &[Job]) -> Result<(Vec<Done>, Prepared), Fault> {
        let Begun { head, shards_version, mut transaction } = self.begin().await?;
        if self.lasting.shards.is_stale(shards_version) {
            self.lasting.shards.update(shards_version, &transaction.shards().await?);
        }
        let (mut done, back, changes) = self.compute(batch, head, &mut *transaction).await?;
        if !back.is_empty() {
            transaction.write(&back).await?;
        }
        if is_off(Rule::ChangePositions) {
            let last = head.plus(changes.len() as u64);
            for change in done.iter_mut().flat_map(Done::changes) {
                change.position = last;
            }
        }
        Ok((done, Prepared { head, transaction, back, changes }))
    }

    async fn finish(&mut self, prepared: Prepared) -> Result<(), Fault> {
        let Prepared { head, transaction, back, changes } = prepared;
        if back.is_empty() {
            transaction.end().await;
            return Ok(());
        }
        transaction.commit().await?;
        self.lasting.shards.confirm();
        for (id, row) in back.objects {
            match row {
                Some(row) => self.lasting.types.insert(id, row.otype),
                None => self.lasting.types.remove(&id),
            };
        }
        if let Some(log) = &back.log {
            self.left = log.last;
            self.feed.committed(log, head, &changes);
        }
        // Whoever waits for these finds the commit in the ring.
        if let Some(last) = back.intents.last() {
            self.intents_made.send_replace(last.position);
        }
        if !back.done.is_empty() {
            self.intents_done.send_modify(|done| done.extend(&back.done));
        }
        Ok(())
    }

    /// What the writes do, in queue order, over the rows that they touch.
    async fn compute(
        &mut self,
        batch: &[Job],
        head: Position,
        transaction: &mut dyn Transaction,
    ) -> Result<(Vec<Done>, WriteBack, Vec<Change>), Fault> {
        self.lasting.forget_some_types();
        let now_ms = self.clock.now_ms();
        let (mut wanted, mut demand) = (Wanted::default(), Demand::default());
        for job in batch {
            match job {
                Job::Write(write, context, _) => {
                    want(write, context.idempotency_key.as_ref(), &self.lasting, &mut wanted);
                    for part in write.parts() {
                        let Write::ObjectAdd { placement, .. } = part else { continue };
                        match placement {
                            Placement::Anywhere => demand.add(None, 1),
                            Placement::Shard(shard) => demand.add(Some(*shard), 1),
                            Placement::Allocated(_) => {}
                        }
                    }
                }
                Job::Delivered(..) => {}
                Job::Allocate(shard, count, _) => demand.add(*shard, *count),
            }
        }
        let short = self.lasting.shards.to_renew(demand, now_ms);
        wanted.shards.extend(short.iter().map(|(shard, _)| *shard));
        wanted.dedup();
        let rows = if wanted.is_empty() { Rows::default() } else { transaction.load(&wanted).await? };
        self.lasting.shards.learn(&rows.shards);
        let leases = self.lasting.shards.renew(&short, now_ms);
        let mut overlay = Overlay::new(&mut self.lasting, rows, head, now_ms);
        overlay.back.leases.extend(leases);
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
        Ok((done, back, changes))
    }
}

fn log_row(changes: &[Change], head: Position, committed_ms: u64) -> Option<LogRow> {
    let last = changes.last()?.position;
    Some(LogRow { first: head.plus(1), last, committed_ms, payload: convert::encode_log(changes).into() })
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
        unique(&mut self.shards);
        unique(&mut self.done);
    }

    pub fn is_empty(&self) -> bool {
        let Self { objects, types, assocs, counts, outcomes, shards, intents, done } = self;
        let rows = objects.is_empty() && types.is_empty() && assocs.is_empty() && counts.is_empty();
        rows && outcomes.is_empty() && shards.is_empty() && !intents && done.is_empty()
    }
}
