//! Group commit: one ordered lane a database. While one batch commits, the next is gathered, looked up and computed; idle, a write
//! waits for nothing.
//!
//! A batch looks, computes, and swaps: it writes if the log still stands where it did when it looked. Nothing is held in between, so a
//! commit is two round trips, and the look of one batch runs beside the swap of another (ADR 0010).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, OptionFuture};
use metrics::{Histogram, histogram};
use tao_model::mutation::{Rule, is_off};
use tao_model::{Clock, Error, LogId, Position};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::backend::{Backend, Base, Begun, Fault, Rows, Session, Transaction, WriteBack};
use crate::batch::Lasting;
use crate::draft::{Before, Draft, MAX_BATCH, Part};
use crate::epoch::NewEpoch;
use crate::feed::Feed;
use crate::jobs::{Job, Queued};
use crate::stage;

/// Batches that hold the log's end while they are computed, after another process was found to write.
const WARY: u32 = 16;

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
    pub metrics: LaneMetrics,
    /// Batches for which others may write in between: they hold the log's end.
    pub wary: u32,
}

/// What is measured of it. Looked up once: the process's recorder must have been installed before.
pub(crate) struct LaneMetrics {
    /// Writes of a batch.
    batch: Histogram,
    /// Seconds until a write is taken into one.
    queue: Histogram,
    /// Seconds that a batch takes to be written.
    commit: Histogram,
}

impl LaneMetrics {
    pub fn new() -> Self {
        Self {
            batch: histogram!("tao_store_batch_writes"),
            queue: histogram!("tao_store_queue_seconds"),
            commit: histogram!("tao_store_commit_duration_seconds"),
        }
    }
}

/// A batch that is being written.
struct Flight {
    draft: Draft,
    before: Before,
    landing: BoxFuture<'static, Result<bool, Fault>>,
}

type Found = Result<(Box<dyn Session>, Base, Rows), Fault>;

/// Jobs that are being looked up for the draft.
struct Looking(BoxFuture<'static, (Part, Found)>);

impl Lane {
    /// Runs until nobody can ask any more, and everything is done.
    pub async fn run(mut self, mut jobs: mpsc::Receiver<Queued>) {
        let mut queue = VecDeque::with_capacity(MAX_BATCH);
        let mut incoming = Vec::with_capacity(MAX_BATCH);
        let (mut flight, mut looking): (Option<Flight>, Option<Looking>) = (None, None);
        let mut draft = Draft::default();
        let mut is_open = true;
        loop {
            if looking.is_none() {
                if flight.is_none() && !draft.is_empty() {
                    flight = self.launch(std::mem::take(&mut draft));
                    continue;
                }
                if let (Some(flight), true) = (&flight, draft.is_empty()) {
                    draft = Draft::following(flight.before.clone());
                }
                if self.wary > 0 && flight.is_none() && !queue.is_empty() {
                    let part = self.take(&Draft::default(), &mut queue);
                    self.commit(part).await;
                    continue;
                }
                if self.wary == 0 {
                    looking = self.look(&mut draft, &mut queue);
                }
            }
            if !is_open && queue.is_empty() && flight.is_none() && looking.is_none() {
                return;
            }
            tokio::select! {
                biased;
                Some(landed) = OptionFuture::from(flight.as_mut().map(|f| &mut f.landing)) => {
                    let Some(Flight { draft: written, before, .. }) = flight.take() else { continue };
                    if landed == Ok(true) {
                        self.finish(written, before.base, &before.back);
                        if draft.is_empty() && looking.is_none() {
                            draft = Draft::default();
                        }
                        continue;
                    }
                    // Whatever was computed on top of it is computed anew.
                    let mut undone = self.give_up(std::mem::take(&mut draft));
                    if let Some(Looking(looking)) = looking.take() {
                        undone.extend(looking.await.0.jobs);
                    }
                    self.put_back(undone, &mut queue);
                    self.lasting.shards.abandon(before.back.leases.keys().copied());
                    match landed {
                        Ok(_) => {
                            tracing::debug!("another process has written in between");
                            self.wary = WARY;
                            self.commit(written.jobs).await;
                        }
                        Err(fault) => self.failed(written.jobs, fault).await,
                    }
                }
                Some((part, found)) = OptionFuture::from(looking.as_mut().map(|l| &mut l.0)) => {
                    looking = None;
                    let undone = self.found(&mut draft, part, found).await;
                    self.put_back(undone, &mut queue);
                }
                count = jobs.recv_many(&mut incoming, MAX_BATCH), if is_open && queue.is_empty() => {
                    is_open = count > 0;
                    queue.extend(incoming.drain(..));
                }
            }
        }
    }

    /// The jobs that may join a draft; those that are late are told so.
    fn take(&self, draft: &Draft, queue: &mut VecDeque<Queued>) -> Vec<Queued> {
        let (mut joining, mut room) = (Vec::new(), draft.room());
        while let Some(mut next) = queue.pop_front() {
            let is_late = next.0.is_late();
            if !is_late && !room.admits(&next) {
                queue.push_front(next);
                break;
            }
            self.queued_bytes.fetch_sub(next.1, Ordering::Relaxed);
            if is_late {
                next.0.fail(Error::DeadlineExceeded { not_applied: true });
            } else {
                if let Job::Write(_, staged, _) = &mut next.0
                    && let Some(waited) = staged.take()
                {
                    self.metrics.queue.record(waited);
                }
                joining.push(next);
            }
        }
        joining
    }

    fn put_back(&self, jobs: Vec<Queued>, queue: &mut VecDeque<Queued>) {
        for job in jobs.into_iter().rev() {
            self.queued_bytes.fetch_add(job.1, Ordering::Relaxed);
            queue.push_front(job);
        }
    }

    /// Begins to look up what the next jobs need.
    fn look(&mut self, draft: &mut Draft, queue: &mut VecDeque<Queued>) -> Option<Looking> {
        let jobs = self.take(draft, queue);
        if jobs.is_empty() {
            return None;
        }
        let part = draft.part(jobs, &mut self.lasting, self.clock.now_ms());
        let (backend, session) = (self.backend.clone(), draft.session.take());
        let spans = stage::statement(&part.jobs, "SELECT", backend.system());
        let look = async move {
            let found = async {
                let mut session = match session {
                    Some(session) => session,
                    None => backend.session().await?,
                };
                let (base, rows) = session.look(&part.wanted).await?;
                Ok((session, base, rows))
            };
            let found = found.await;
            drop(spans);
            (part, found)
        };
        Some(Looking(look.boxed()))
    }

    /// Computes what was looked up; gives back the jobs that have to be done in another way.
    async fn found(&mut self, draft: &mut Draft, part: Part, found: Found) -> Vec<Queued> {
        let (session, base, rows) = match found {
            Ok(found) => found,
            Err(Fault::Refused) => {
                self.wary = 1;
                return self.undone(std::mem::take(draft), part);
            }
            Err(fault) => {
                for (job, _) in self.undone(std::mem::take(draft), part) {
                    job.fail(error(fault));
                }
                return Vec::new();
            }
        };
        let is_ours = match draft.base {
            Some(_) => draft.is_of(base),
            None => base.head == self.left && base.head >= self.feed.seen.mark().last,
        };
        if !is_ours || self.lasting.shards.is_stale(base.shards_version) {
            // What is remembered may not hold any more.
            self.wary = WARY;
            return self.undone(std::mem::take(draft), part);
        }
        draft.base.get_or_insert(base);
        draft.session = Some(session);
        draft.join(part, rows, &mut self.lasting).await;
        Vec::new()
    }

    fn undone(&mut self, draft: Draft, part: Part) -> Vec<Queued> {
        let mut jobs = self.give_up(draft);
        jobs.extend(part.jobs);
        jobs
    }

    /// A batch that is not written, or may not be.
    fn give_up(&mut self, draft: Draft) -> Vec<Queued> {
        self.lasting.shards.abandon(draft.back.leases.keys().copied());
        self.lasting.forget();
        draft.jobs
    }

    /// Begins to write a batch, if there is anything to write.
    fn launch(&mut self, mut draft: Draft) -> Option<Flight> {
        self.metrics.batch.record(draft.jobs.len() as f64);
        draft.close();
        let (base, back) = (draft.base.unwrap_or_default(), std::mem::take(&mut draft.back));
        if back.is_empty() {
            self.finish(draft, base, &back);
            return None;
        }
        if is_off(Rule::AnsweredOnceCommitted) {
            draft.answer();
        }
        let back = Arc::new(back);
        let session = draft.session.take()?;
        let spans = stage::statement(&draft.jobs, "COMMIT", self.backend.system());
        let landing = session.swap(base, back.clone());
        let (began, commit) = (Instant::now(), self.metrics.commit.clone());
        let landing = landing.inspect(move |_| {
            commit.record(began.elapsed());
            drop(spans);
        });
        let landing = landing.boxed();
        Some(Flight { draft, before: Before { base, back }, landing })
    }

    /// A batch is committed, or had nothing to write.
    fn finish(&mut self, mut draft: Draft, base: Base, back: &WriteBack) {
        if let Some(log) = &back.log {
            self.left = log.last;
            self.feed.committed(log, base.head, &draft.changes);
        }
        self.backend.wrote(back);
        // Whoever waits for these finds the commit in the ring.
        if let Some(last) = back.intents.last() {
            self.intents_made.send_replace(last.position);
        }
        if !back.done.is_empty() {
            self.intents_done.send_modify(|done| done.extend(&back.done));
        }
        draft.answer();
    }

    /// A batch is not written. When the database has refused it, its writes are tried one by one, so that only the one that can't be
    /// applied is lost.
    async fn failed(&mut self, jobs: Vec<Queued>, fault: Fault) {
        self.lasting.forget();
        if fault == Fault::Refused && jobs.len() > 1 {
            tracing::error!(writes = jobs.len(), "the database refused a batch; its writes are tried one by one");
            for job in jobs {
                Box::pin(self.commit(vec![job])).await;
            }
            return;
        }
        let error = error(fault);
        jobs.into_iter().for_each(|(job, _)| job.fail(error.clone()));
        if fault == Fault::InDoubt {
            // If it happened, subscribers hear of it from the database.
            self.feed.ask();
        }
    }

    /// Commits a batch in a transaction that holds the log's end.
    async fn commit(&mut self, jobs: Vec<Queued>) {
        self.wary = self.wary.saturating_sub(1);
        if jobs.is_empty() {
            return;
        }
        let mut draft = Draft::default();
        if let Err(fault) = self.held(&mut draft, jobs).await {
            let jobs = self.give_up(draft);
            self.failed(jobs, fault).await;
        }
    }

    /// The same; when it fails, the draft has all the jobs.
    async fn held(&mut self, draft: &mut Draft, jobs: Vec<Queued>) -> Result<(), Fault> {
        self.metrics.batch.record(jobs.len() as f64);
        let spans = stage::statement(&jobs, "COMMIT", self.backend.system());
        let begun = self.begin().await;
        let part = draft.part(jobs, &mut self.lasting, self.clock.now_ms());
        let looked = match begun {
            Ok((base, mut transaction)) => transaction.load(&part.wanted).await.map(|rows| (base, rows, transaction)),
            Err(fault) => Err(fault),
        };
        let (base, rows, mut transaction) = match looked {
            Ok(looked) => looked,
            Err(fault) => {
                draft.jobs = part.jobs;
                return Err(fault);
            }
        };
        draft.base = Some(base);
        draft.join(part, rows, &mut self.lasting).await;
        draft.close();
        if draft.back.is_empty() {
            transaction.end().await;
        } else {
            transaction.write(base, &draft.back).await?;
            if is_off(Rule::AnsweredOnceCommitted) {
                draft.answer();
            }
            transaction.commit().await?;
        }
        drop(spans);
        let mut draft = std::mem::take(draft);
        let back = std::mem::take(&mut draft.back);
        self.finish(draft, base, &back);
        Ok(())
    }

    /// Begins a transaction on a log that has everything which this process has seen of it.
    async fn begin(&mut self) -> Result<(Base, Box<dyn Transaction>), Fault> {
        let mut begun = self.backend.begin().await?;
        let known = self.feed.seen.mark().last;
        if begun.base.head < known {
            begun.transaction.end().await;
            self.backend.begin_epoch(NewEpoch::Beyond(known)).await?;
            begun = self.backend.begin().await?;
        }
        let Begun { base, mut transaction } = begun;
        if base.head != self.left {
            // Others have written, and may have deleted objects and made them anew with another type.
            self.wary = WARY;
            self.lasting.forget();
            self.feed.ask();
            if base.head.epoch != self.left.epoch {
                self.lasting.shards.forget_leases();
            }
            self.left = base.head;
        }
        if self.lasting.shards.is_stale(base.shards_version) {
            self.lasting.shards.update(base.shards_version, &transaction.shards().await?);
        }
        Ok((base, transaction))
    }
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
