//! Writes a graph in parallel batches, each again until it is done, and remembers what is done.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tao_client::v1::batch_item::Call;
use tao_client::v1::batch_result::Result as BatchResult;
use tao_client::v1::value::Kind;
use tao_client::v1::write_batch_item::Write as BatchWrite;
use tao_client::v1::{
    AllocateIdsRequest, AssocAddRequest, AssocCountRequest, BatchItem, BatchRequest, ItemError, ObjectAddRequest,
    Value, WriteBatchItem, WriteBatchRequest,
};
use tao_client::{ClientError, Session};
use tokio::time::{Instant, sleep, sleep_until};

use super::edge_list::EdgeList;
use super::progress::Progress;
use super::report::{Ended, Report};
use super::state::State;
use super::stop::Stop;
use crate::commands::Failure;

/// Ids of one AllocateIds, which are all on one shard: few enough to spread the objects, many enough to be quick.
const IDS: Range<usize> = 16..1_000;
/// Shards that the ids of a large file should be spread over several times.
const SPREAD: usize = 8_192;
/// Between two attempts, unless the store asks for more.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Between two notes of the session's token in the state.
const TOKEN_EVERY: Duration = Duration::from_secs(2);

/// How to write.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// The edges' type.
    pub atype: String,
    /// The objects' type.
    pub object_type: String,
    /// Batches under way at once.
    pub concurrency: usize,
    /// Items of one batch.
    pub batch: usize,
    /// Items a second at the most.
    pub rate: Option<f64>,
    /// With a store that fails.
    pub patience: Patience,
}

/// How calls that fail are made again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Before a call is made again; doubles each time, up to a limit.
    pub backoff: Duration,
    /// After this the load gives up.
    pub ends: Duration,
}

/// Writes one graph. What it does is recorded in the state only when it is done; doing it again does no harm.
pub struct Writer<'a> {
    pub options: WriterOptions,
    pub session: Session,
    pub list: &'a EdgeList,
    pub stop: Stop,
}

/// Why a batch is not done.
enum Undone {
    Stopped,
    Failed(Failure),
}

impl From<Failure> for Undone {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A phase's part that is recorded.
type Phase<'s> = (&'s Mutex<Progress>, &'s mut State, Instant);

impl Writer<'_> {
    /// Whether the store has the edges' type, before any object is made for them: an error if it hasn't, `false` when asked to stop.
    pub async fn knows_type(&self) -> Result<bool, Failure> {
        let progress = Mutex::new(Progress::new("", 0, 0));
        // Any object will do, even one that does not exist.
        let request = AssocCountRequest { id1: 1, r#type: self.options.atype.clone(), options: None };
        match self.patiently(&progress, async || self.session.assoc_count(request.clone()).await).await {
            Ok(_) => Ok(true),
            Err(Undone::Stopped) => Ok(false),
            Err(Undone::Failed(failure)) => Err(failure),
        }
    }

    /// Writes what the state says is missing. After a failure, too, the state has all that was done.
    pub async fn write(&self, state: &mut State) -> Result<Report, Failure> {
        let written = self.phases(state).await;
        let synced = state.saw(self.session.token()).and_then(|()| state.sync());
        let report = written?;
        synced?;
        Ok(report)
    }

    async fn phases(&self, state: &mut State) -> Result<Report, Failure> {
        let begun = Instant::now();
        let none = (0, Duration::ZERO);
        if self.ids(state).await? == Ended::Interrupted {
            return Ok(Report { ended: Ended::Interrupted, objects: none, edges: none });
        }
        // From here on the ids are used.
        state.sync()?;
        let (ended, (objects, _)) = self.objects(state).await?;
        let objects = (objects, begun.elapsed());
        if ended == Ended::Interrupted {
            return Ok(Report { ended, objects, edges: none });
        }
        let (ended, edges) = self.edges(state).await?;
        Ok(Report { ended, objects, edges })
    }

    async fn ids(&self, state: &mut State) -> Result<Ended, Failure> {
        let total = self.list.ids.len();
        let size = (total / SPREAD).clamp(IDS.start, IDS.end);
        let missing: Vec<_> = state.allocated.missing(total, size).collect();
        let progress = Mutex::new(Progress::new("ids", total, state.allocated.covered()));
        let allocate = async |span: Range<usize>| -> Result<Vec<i64>, Undone> {
            let request = AllocateIdsRequest { count: span.len() as i64, ..Default::default() };
            let ids = self.patiently(&progress, async || self.session.allocate_ids(request.clone()).await).await?.ids;
            if ids.len() != span.len() || ids.contains(&0) {
                return Err(Failure::other(format!("asked for {} ids, got {}", span.len(), ids.len())).into());
            }
            Ok(ids)
        };
        self.run((&progress, state, Instant::now()), missing, allocate, |state, span, ids| {
            state.allocated(span.start, ids)
        })
        .await
    }

    async fn objects(&self, state: &mut State) -> Result<(Ended, (usize, Duration)), Failure> {
        let total = self.list.ids.len();
        let missing: Vec<_> = state.objects.missing(total, self.options.batch).collect();
        let progress = Mutex::new(Progress::new("objects", total, state.objects.covered()));
        let ids = state.ids.clone();
        let add = async |span: Range<usize>| {
            let calls = span.clone().map(|place| {
                let value = Value { kind: Some(Kind::StringValue(self.list.ids[place].to_string())) };
                Call::ObjectAdd(ObjectAddRequest {
                    r#type: self.options.object_type.clone(),
                    data: BTreeMap::from([("external_id".to_owned(), value)]),
                    id: ids[place],
                    ..Default::default()
                })
            });
            let what = |item: usize| format!("the object of {}", self.list.ids[span.start + item]);
            // An object that exists was made by an attempt whose answer was lost: nobody else was given its id.
            self.batch(&progress, calls.collect(), what, |error| error.reason == "ALREADY_EXISTS").await
        };
        let ended =
            self.run((&progress, state, Instant::now()), missing, add, |state, span, ()| state.made(span)).await?;
        Ok((ended, finish(progress)))
    }

    async fn edges(&self, state: &mut State) -> Result<(Ended, (usize, Duration)), Failure> {
        let total = self.list.edges.len();
        let missing: Vec<_> = state.edges.missing(total, self.options.batch).collect();
        let progress = Mutex::new(Progress::new("edges", total, state.edges.covered()));
        let singly = AtomicBool::new(false);
        let ids = state.ids.clone();
        let add = async |span: Range<usize>| {
            let calls = self.list.edges[span.clone()].iter().map(|(a, b, time)| {
                Call::AssocAdd(AssocAddRequest {
                    id1: ids[*a as usize],
                    r#type: self.options.atype.clone(),
                    id2: ids[*b as usize],
                    time: Some(i64::from(*time)),
                    ..Default::default()
                })
            });
            let what = |item: usize| {
                let (a, b, time) = self.list.edges[span.start + item];
                format!("the edge {} {} {time}", self.list.ids[a as usize], self.list.ids[b as usize])
            };
            let calls: Vec<Call> = calls.collect();
            if self.at_once(&calls, &singly).await {
                return Ok(());
            }
            self.batch(&progress, calls, what, |_| false).await
        };
        let ended =
            self.run((&progress, state, Instant::now()), missing, add, |state, span, ()| state.wrote(span)).await?;
        Ok((ended, finish(progress)))
    }

    /// Does spans side by side, as many as there may be and as fast as they may come, and records each when it is done.
    /// Once it is asked to stop, or a span has failed, those under way are finished and no others begun.
    async fn run<T>(
        &self,
        (progress, state, mut token_at): Phase<'_>,
        spans: Vec<Range<usize>>,
        work: impl AsyncFn(Range<usize>) -> Result<T, Undone>,
        mut done: impl FnMut(&mut State, Range<usize>, T) -> Result<(), Failure>,
    ) -> Result<Ended, Failure> {
        let mut waiting = spans.into_iter();
        let mut running = FuturesUnordered::new();
        let mut not_before = Instant::now();
        let (mut failed, mut stopped) = (None, false);
        loop {
            let goes_on = failed.is_none() && !stopped && !self.stop.is_asked();
            let may_begin = goes_on && running.len() < self.options.concurrency && waiting.len() > 0;
            if may_begin
                && Instant::now() >= not_before
                && let Some(span) = waiting.next()
            {
                if let Some(rate) = self.options.rate {
                    // A store that was slow for a while is not made up for in a burst.
                    not_before = not_before.max(Instant::now()) + Duration::from_secs_f64(span.len() as f64 / rate);
                }
                let work = &work;
                running.push(async move {
                    let result = work(span.clone()).await;
                    (span, result)
                });
                continue;
            }
            if running.is_empty() && !may_begin {
                break;
            }
            let finished = tokio::select! {
                Some(finished) = running.next() => finished,
                () = sleep_until(not_before), if may_begin => continue,
                () = self.stop.asked(), if may_begin => continue,
            };
            match finished {
                (span, Ok(value)) => {
                    lock(progress).add(span.len());
                    done(state, span, value)?;
                    if token_at.elapsed() >= TOKEN_EVERY || state.token.is_empty() {
                        token_at = Instant::now();
                        state.saw(self.session.token())?;
                    }
                }
                (_, Err(Undone::Stopped)) => stopped = true,
                (_, Err(Undone::Failed(failure))) => {
                    failed.get_or_insert(failure);
                }
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None if stopped || waiting.len() > 0 => Ok(Ended::Interrupted),
            None => Ok(Ended::Complete),
        }
    }

    /// Writes edges as one atomic batch, which is one message a tier and one write: several times as quick as edge by edge. Says
    /// whether they are all written, both directions; if not, they are to be written singly, which is patient, and names the one that
    /// can't be.
    async fn at_once(&self, calls: &[Call], singly: &AtomicBool) -> bool {
        if singly.load(Ordering::Relaxed) {
            return false;
        }
        let edges = calls.iter().filter_map(|call| match call {
            Call::AssocAdd(add) => Some(WriteBatchItem { write: Some(BatchWrite::AssocAdd(add.clone())) }),
            _ => None,
        });
        match self.session.write_batch(WriteBatchRequest { writes: edges.collect(), ..Default::default() }).await {
            Ok(answer) => {
                // Of several databases, all but one are written by way of the first: singly each is written where it lies.
                singly.fetch_or(answer.pending, Ordering::Relaxed);
                !answer.pending && answer.results.len() == calls.len()
            }
            Err(_) => false,
        }
    }

    /// Sends calls as one batch, and those that may be tried again once more, until each is done. An error that is as good as an
    /// answer is `fine`; `what` names a call.
    async fn batch(
        &self,
        progress: &Mutex<Progress>,
        calls: Vec<Call>,
        what: impl Fn(usize) -> String,
        fine: impl Fn(&ItemError) -> bool,
    ) -> Result<(), Undone> {
        let mut open: Vec<(usize, Call)> = calls.into_iter().enumerate().collect();
        let mut trouble = Trouble::default();
        while !open.is_empty() {
            let items = || open.iter().map(|(_, call)| BatchItem { call: Some(call.clone()) }).collect();
            let send = async || self.session.batch(BatchRequest { items: items(), options: None }).await;
            let results = self.patiently(progress, send).await?.results;
            if results.len() != open.len() {
                return Err(Failure::other("the store answered a batch with too few results").into());
            }
            let before = open.len();
            let mut again = None;
            let mut still_open = Vec::new();
            for ((item, call), result) in open.into_iter().zip(results) {
                match result.result {
                    Some(BatchResult::Error(error)) if fine(&error) => {}
                    Some(BatchResult::Error(error)) if error.retryable => {
                        again = Some(error);
                        still_open.push((item, call));
                    }
                    Some(BatchResult::Error(error)) => return Err(Failure::of_item(&error).within(what(item)).into()),
                    Some(_) => {}
                    None => return Err(Failure::other("the store answered a call with nothing").into()),
                }
            }
            open = still_open;
            if let Some(error) = again {
                if open.len() < before {
                    // It gets on.
                    trouble = Trouble::default();
                }
                self.wait(progress, &mut trouble, None, Failure::of_item(&error)).await?;
            }
        }
        Ok(())
    }

    /// Makes a call again while that may help.
    async fn patiently<T>(
        &self,
        progress: &Mutex<Progress>,
        call: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, Undone> {
        let mut trouble = Trouble::default();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_retryable() => {
                    let after = error.retry_after();
                    self.wait(progress, &mut trouble, after, error.into()).await?;
                }
                Err(error) if error.reason() == "TOKEN_OTHER_CLUSTER" => {
                    let hint =
                        "the state file is of a load into another store: remove it, or name another with --state";
                    return Err(Failure::other(hint).into());
                }
                Err(error) => return Err(Undone::Failed(error.into())),
            }
        }
    }

    /// Waits before a call is made again, unless the load is asked to stop or has been patient enough.
    async fn wait(
        &self,
        progress: &Mutex<Progress>,
        trouble: &mut Trouble,
        after: Option<Duration>,
        failure: Failure,
    ) -> Result<(), Undone> {
        let since = *trouble.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.options.patience.ends {
            return Err(Undone::Failed(failure.within(format!("gave up after {:.0?}", since.elapsed()))));
        }
        // What goes by within a moment is nobody's concern.
        if trouble.times >= 3 {
            lock(progress).complain(&failure);
        }
        let grown = self.options.patience.backoff.saturating_mul(1 << trouble.times.min(10)).min(MAX_BACKOFF);
        let pause = after.unwrap_or_default().max(grown.mul_f64(rand::random_range(0.5..=1.0)));
        trouble.times += 1;
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = self.stop.asked() => Err(Undone::Stopped),
        }
    }
}

/// Failures of one call, one after the other.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    times: u32,
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn finish(progress: Mutex<Progress>) -> (usize, Duration) {
    progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).finish()
}
