//! GraphService.Watch: the logs' change streams from leaders, filtered, merged, and resumable by token.

mod feed;
mod filter;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::{BoxFuture, try_join_all};
use futures::stream::{BoxStream, SelectAll, select_all};
use futures::{FutureExt as _, StreamExt as _};
use tao_access::Standing;
use tao_model::id::{EPOCH_MS, IdParts};
use tao_model::{Error, LogId, Position, Result, Schema, Token, Violations};
use tao_proto::{Answer, error, internal, metadata, v1};
use tao_rpc::{CallContext, DeadlineLimits, Op};
use tao_runtime::Ending;
use tao_topology::ClusterMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior, Sleep, interval, sleep_until, timeout_at};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Extensions, Response, Status};

use crate::admission::Account;
use crate::answers;
use crate::execute::Executor;
use crate::session;
use feed::{Begin, Feed};
pub(crate) use filter::Filter;

/// A stream that has sent nothing for so long sends where it is.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Until all logs' streams have begun, and for questions to a log's owner.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Watches have no deadline unless their callers set one; of those, what timers can keep.
const NO_DEADLINE: DeadlineLimits =
    DeadlineLimits { default: Duration::from_secs(365 * 86_400), maximum: Duration::from_secs(365 * 86_400) };
/// When to come back while there are as many watches as there may be.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The field `changes` of tao.v1.WatchResponse.
const CHANGES: u32 = 1;

/// What a Watch answers with.
pub type WatchStream = BoxStream<'static, Result<Answer, Status>>;

/// The watches of this follower, of which there are only so many at once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watches {
    places: Arc<Semaphore>,
    limit: usize,
}

impl Watches {
    /// At most so many at once.
    pub fn new(limit: usize) -> Self {
        // Shown before there are any.
        metrics::gauge!("tao_watch_streams").set(0.0);
        metrics::counter!("tao_watch_changes_total").increment(0);
        metrics::counter!("tao_watch_resumes_total").increment(0);
        Self { places: Arc::new(Semaphore::new(limit)), limit }
    }

    /// Takes a place. The last eighth is for those who have less than an eighth.
    fn enter(&self, account: &Arc<Account>) -> Result<Place> {
        let full = |what| Error::Overloaded { what, retry_after: RETRY_AFTER };
        let kept = self.limit / 8;
        if kept > 0 && self.places.available_permits() <= kept && account.watches().load(Relaxed) >= kept {
            return Err(full(format!("this caller has its share of the {} watches of this follower", self.limit)));
        }
        let permit = self.places.clone().try_acquire_owned();
        let permit = permit.map_err(|_| full(format!("this follower has its limit of {} watches", self.limit)))?;
        let gauge = metrics::gauge!("tao_watch_streams");
        gauge.increment(1.0);
        account.watches().fetch_add(1, Relaxed);
        Ok(Place { gauge, account: account.clone(), _permit: permit })
    }
}

/// One watch's place among those that there may be.
struct Place {
    gauge: metrics::Gauge,
    account: Arc<Account>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
        self.account.watches().fetch_sub(1, Relaxed);
    }
}

/// Begins a watch: its stream, whose first answer tells where it begins.
pub async fn watch(
    executor: &Executor,
    watches: &Watches,
    caller: Standing,
    account: &Arc<Account>,
    metadata: &MetadataMap,
    extensions: &Extensions,
    request: &v1::WatchRequest,
) -> Result<Response<WatchStream>, Status> {
    let ending = extensions.get::<Ending>().cloned().unwrap_or_else(Ending::never);
    let watching =
        begin(executor, watches, caller, account, metadata, ending, request).await.map_err(|e| error::to_status(&e))?;
    let header = MetadataValue::try_from(watching.token.encode()).ok();
    let answers = futures::stream::unfold(Some(watching), |watching| async {
        let mut watching = watching?;
        match watching.next().await {
            Ok(answer) => Some((Ok(answer), Some(watching))),
            Err(error) => Some((Err(error::to_status(&error)), None)),
        }
    });
    let mut response = Response::new(answers.boxed());
    if let Some(token) = header {
        response.metadata_mut().insert(metadata::SESSION_TOKEN, token);
    }
    Ok(response)
}

async fn begin(
    executor: &Executor,
    watches: &Watches,
    caller: Standing,
    account: &Arc<Account>,
    metadata: &MetadataMap,
    ending: Ending,
    request: &v1::WatchRequest,
) -> Result<Watching> {
    let map = executor.map()?;
    let context = CallContext::from_metadata(metadata, &NO_DEADLINE, tao_trace::current())?;
    let mut violations = Violations::default();
    let mut token = session::token(map, &request.session_token, metadata, &mut violations)?;
    let filter = Filter::new(request, &executor.door(map), &mut violations);
    violations.check()?;
    filter.may_be_read(caller.last(), &executor.schema)?;
    let place = watches.enter(account)?;
    let within = context.deadline.min(tokio::time::Instant::now() + OPEN_WITHIN);
    let open = async {
        let of_log = |n: usize| {
            let log = map.topology().logs()[n].id;
            let begin = match token.resume_point(log) {
                _ if request.since_ms > 0 => Begin::Back(Duration::from_millis(request.since_ms.unsigned_abs())),
                Some(position) => Begin::After(position),
                None => Begin::Now,
            };
            let mut feed = Feed::new(executor.leaders.group().clone(), map.cluster, log, begin);
            let context = CallContext { deadline: within, ..context.clone() };
            async move {
                if let Begin::After(seen) = begin {
                    check_seen(executor, map, n, seen, context).await?;
                }
                let position = feed.open().await?;
                Ok::<_, Error>((feed, position))
            }
        };
        try_join_all(filter.places(map).into_iter().map(of_log)).await
    };
    let opened = timeout_at(within, open).await;
    let feeds = opened.unwrap_or_else(|_| Err(Error::unavailable("no change stream from a leader")))?;
    for (feed, position) in &feeds {
        token.see_log(feed.log(), *position);
    }
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Watching {
        changes: select_all(feeds.into_iter().map(|(feed, _)| stream(feed))),
        filter,
        caller,
        token,
        schema: executor.schema.clone(),
        beat,
        has_begun: false,
        ending: ending.begun().boxed(),
        deadline: Box::pin(sleep_until(context.deadline)),
        sent: metrics::counter!("tao_watch_changes_total"),
        _place: place,
    })
}

/// Whether a position is one of the log's history. What this follower's cache has heard of is; of the rest only the log's owner
/// knows (COHERENCE rule 11).
async fn check_seen(
    executor: &Executor,
    map: &ClusterMap,
    place: usize,
    seen: Position,
    context: CallContext,
) -> Result<()> {
    let shard = map.topology().some_shard(place);
    match executor.reader(shard).memory().applied() {
        Some(applied) if seen.epoch < applied.epoch => {
            return Err(Error::HistoryUndone { seen, epoch: applied.epoch });
        }
        Some(applied) if seen <= applied => return Ok(()),
        Some(_) | None => {}
    }
    let some_id = map.layout.encode(IdParts { time_ms: EPOCH_MS, shard, sequence: 1 });
    let id = some_id.ok_or_else(|| Error::Internal { what: "a shard without ids".to_owned() })?.get();
    let context = CallContext { shard, floor: seen, strong: true, ..context };
    executor.leaders.call(&context, Op::ObjectRead(internal::ObjectRead { id })).await.map(drop)
}

type Changes = (LogId, Vec<internal::Change>, Position);

/// A log's changes, until the first error.
fn stream(feed: Feed) -> BoxStream<'static, Result<Changes>> {
    let next = |feed: Option<Feed>| async {
        let mut feed = feed?;
        match feed.next().await {
            Ok((changes, position)) => Some((Ok((feed.log(), changes, position)), Some(feed))),
            Err(error) => Some((Err(error), None)),
        }
    };
    futures::stream::unfold(Some(feed), next).boxed()
}

/// A watch that has begun. It is polled only when its caller has taken what came before.
struct Watching {
    changes: SelectAll<BoxStream<'static, Result<Changes>>>,
    filter: Filter,
    /// Judged again when the rules change, or its token ends.
    caller: Standing,
    /// Covers all that was sent.
    token: Token,
    schema: Arc<Schema>,
    beat: Interval,
    /// Whether the first answer, which says where the stream begins, has been sent.
    has_begun: bool,
    ending: BoxFuture<'static, ()>,
    deadline: Pin<Box<Sleep>>,
    sent: metrics::Counter,
    _place: Place,
}

impl Watching {
    async fn next(&mut self) -> Result<Answer> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Ok(self.heartbeat());
        }
        loop {
            tokio::select! {
                biased;
                () = &mut self.ending => {
                    return Err(Error::unavailable("this follower ends the connection: resume at another, or here"));
                }
                () = &mut self.deadline => return Err(Error::DeadlineExceeded { not_applied: true }),
                judged = self.caller.renewed() => self.filter.may_be_read(judged?, &self.schema)?,
                _ = self.beat.tick() => return Ok(self.heartbeat()),
                Some(changes) = self.changes.next() => {
                    if let Some(answer) = self.take(changes?)? {
                        self.beat.reset();
                        return Ok(answer);
                    }
                }
            }
        }
    }

    /// Where the stream is.
    fn heartbeat(&self) -> Answer {
        answers::with_token(Answer::new(), &self.token.encode())
    }

    /// An answer, if any of the changes is wanted.
    fn take(&mut self, (log, changes, position): Changes) -> Result<Option<Answer>> {
        let mut answer = Answer::new();
        let mut wanted = 0;
        for change in changes {
            if let Some(change) = self.filter.take(change, &self.schema)? {
                answer.push_answer(CHANGES, change);
                wanted += 1;
            }
        }
        self.sent.increment(wanted);
        self.token.see_log(log, position);
        Ok((wanted > 0).then(|| answers::with_token(answer, &self.token.encode())))
    }
}
