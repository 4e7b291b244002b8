//! One stream of numbered calls, on the serving side. All of it runs inside the poll of the answer's body: calls that can be
//! answered at once are never spawned, and what has been answered by the time the connection takes more travels in one message.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{AbortHandle, Abortable, Aborted};
use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use prost::Message as _;
use tao_model::{Error, Result};
use tao_proto::internal::{Call, ExchangeRequest, ExchangeResponse, Reply};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};

use crate::call::{self, TierReply};
use crate::drain::Drain;
use crate::server::{MAX_MESSAGE, ServerLimits, ServerMetrics, TierHandler};

/// Answers that travel in one message at most.
const MAX_REPLIES: usize = 1_024;
/// Bytes of answers in one message, unless a single one is larger.
const FULL_MESSAGE: usize = 3_500 * 1024;
/// Bytes of one answer; a larger one would break the stream.
const MAX_REPLY: usize = MAX_MESSAGE - 1024;

type Answer = Result<Result<TierReply>, Box<dyn Any + Send>>;

/// See the module.
pub struct Exchange<H> {
    handler: H,
    limits: Arc<ServerLimits>,
    metrics: Arc<ServerMetrics>,
    /// Gone when the caller has ended its half.
    requests: Option<Streaming<ExchangeRequest>>,
    /// Calls that were read and not begun, while too many are under way.
    backlog: VecDeque<(Call, Instant)>,
    running: FuturesUnordered<Abortable<Running>>,
    /// By `seq`, of those running.
    handles: HashMap<u64, AbortHandle, foldhash::fast::RandomState>,
    /// Answers to be sent, with their encoded sizes.
    done: VecDeque<(Reply, usize)>,
    done_bytes: usize,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    age: Option<Pin<Box<Sleep>>>,
    drained: Drained,
}

/// Nothing in it is ever pinned in place.
impl<H> Unpin for Exchange<H> {}

/// How far the polite end is.
#[derive(PartialEq, Eq)]
enum Drained {
    No,
    /// The caller is to be told.
    Begun,
    Told,
}

impl<H: TierHandler> Exchange<H> {
    pub(crate) fn new(
        handler: H,
        limits: Arc<ServerLimits>,
        metrics: Arc<ServerMetrics>,
        drain: &Drain,
        requests: Streaming<ExchangeRequest>,
    ) -> Self {
        Self {
            handler,
            age: limits.max_stream_age.map(|age| Box::pin(sleep(vary(age)))),
            limits,
            metrics,
            requests: Some(requests),
            backlog: VecDeque::new(),
            running: FuturesUnordered::new(),
            handles: HashMap::default(),
            done: VecDeque::new(),
            done_bytes: 0,
            drain: Box::pin(drain.begun()),
            drained: Drained::No,
        }
    }

    /// Takes a message: gives up what is cancelled, queues what is new.
    fn read(&mut self, request: ExchangeRequest) {
        self.metrics.messages.increment(1);
        let now = Instant::now();
        self.backlog.extend(request.calls.into_iter().map(|call| (call, now)));
        for seq in request.cancels {
            self.metrics.cancelled.increment(1);
            match self.handles.remove(&seq) {
                // The set of running calls drops the future when it sees the abort, in this same poll.
                Some(handle) => handle.abort(),
                None => self.backlog.retain(|(call, _)| call.seq != seq),
            }
        }
    }

    /// Begins calls while there is room.
    fn begin(&mut self, cx: &mut Context<'_>) {
        if self.backlog.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.handles.len() < self.limits.max_in_flight && !self.is_full() {
            let Some((call, began)) = self.backlog.pop_front() else { return };
            self.begin_one(call, began, now, cx);
        }
    }

    fn begin_one(&mut self, call: Call, began: Instant, now: Instant, cx: &mut Context<'_>) {
        let seq = call.seq;
        if self.handles.contains_key(&seq) {
            self.answer(seq, Err(Error::invalid("seq", "is of a call that is under way")));
            return;
        }
        let deadline = began + Duration::from_micros(call.timeout_us.min(u64::from(u32::MAX)));
        let (context, op) = match call::from_wire(call, deadline) {
            Ok(call) => call,
            Err(error) => return self.answer(seq, Err(error)),
        };
        if deadline <= now {
            return self.answer(seq, Err(Error::DeadlineExceeded { not_applied: true }));
        }
        let (is_write, (op_number, _)) = (call::is_write(&op), call::op_name(&op));
        let handler = self.handler.clone();
        let future = async move { handler.call(context, op).await };
        let mut future: Pin<Box<dyn Future<Output = Answer> + Send>> =
            Box::pin(AssertUnwindSafe(future).catch_unwind());
        match future.as_mut().poll(cx) {
            Poll::Ready(answer) => self.finish(Finished { seq, op_number, began, answer: settle(answer) }),
            Poll::Pending => {
                let (handle, registration) = AbortHandle::new_pair();
                self.handles.insert(seq, handle);
                let deadline = Box::pin(sleep_until(deadline));
                let running = Running { seq, op_number, is_write, began, future, deadline };
                self.running.push(Abortable::new(running, registration));
            }
        }
    }

    /// Gathers the answers of calls that have ended.
    fn gather(&mut self, cx: &mut Context<'_>) {
        while !self.is_full() {
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(finished))) => {
                    self.handles.remove(&finished.seq);
                    self.finish(finished);
                }
                Poll::Ready(Some(Err(Aborted))) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn finish(&mut self, finished: Finished) {
        if let Some(durations) = self.metrics.durations.get(finished.op_number) {
            durations.record(finished.began.elapsed());
        }
        self.answer(finished.seq, finished.answer);
    }

    fn answer(&mut self, seq: u64, result: Result<TierReply>) {
        if let Err(error) = &result {
            metrics::counter!("tier_server_errors_total", "reason" => error.reason()).increment(1);
        }
        let mut reply = call::reply(seq, result);
        let mut len = reply.encoded_len();
        if len > MAX_REPLY {
            reply = call::reply(seq, Err(Error::AnswerTooLarge));
            len = reply.encoded_len();
        }
        self.done_bytes += len;
        self.done.push_back((reply, len));
    }

    fn is_full(&self) -> bool {
        self.done.len() >= MAX_REPLIES || self.done_bytes >= FULL_MESSAGE
    }

    /// The next message, of what is done.
    fn message(&mut self) -> ExchangeResponse {
        let mut replies = Vec::with_capacity(self.done.len().min(MAX_REPLIES));
        let mut bytes = 0;
        while let Some((reply, len)) = self.done.pop_front() {
            // Eight more for the tag and length of the field.
            if !replies.is_empty() && (bytes + len + 8 > FULL_MESSAGE || replies.len() == MAX_REPLIES) {
                self.done.push_front((reply, len));
                break;
            }
            bytes += len + 8;
            self.done_bytes -= len;
            replies.push(reply);
        }
        let draining = self.drained == Drained::Begun;
        if draining {
            self.drained = Drained::Told;
        }
        ExchangeResponse { replies, draining }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        if self.drained == Drained::No {
            let old = self.age.as_mut().is_some_and(|age| age.as_mut().poll(cx).is_ready());
            if old || self.drain.as_mut().poll(cx).is_ready() {
                self.drained = Drained::Begun;
            }
        }
    }
}

impl<H: TierHandler> Stream for Exchange<H> {
    type Item = Result<ExchangeResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.poll_drain(cx);
        loop {
            this.begin(cx);
            // After `begin`, so that what has just begun is waited for, by its deadline too.
            this.gather(cx);
            if this.is_full() {
                break;
            }
            let limit = this.limits.max_in_flight;
            if !this.backlog.is_empty() && this.handles.len() < limit {
                continue;
            }
            // As many more are read as may run: behind them may be the cancels of those that do.
            if this.backlog.len() >= limit {
                break;
            }
            let Some(requests) = &mut this.requests else { break };
            match requests.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(request))) => this.read(request),
                Poll::Ready(Some(Err(status))) => {
                    // The caller is gone, or speaks another language. Either way nobody can be answered.
                    this.requests = None;
                    this.running = FuturesUnordered::new();
                    this.handles.clear();
                    this.done.clear();
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => this.requests = None,
                Poll::Pending => break,
            }
        }
        if !this.done.is_empty() || this.drained == Drained::Begun {
            return Poll::Ready(Some(Ok(this.message())));
        }
        if this.requests.is_none() && this.handles.is_empty() && this.backlog.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// A call that was not answered at once.
struct Running {
    seq: u64,
    op_number: usize,
    is_write: bool,
    began: Instant,
    future: Pin<Box<dyn Future<Output = Answer> + Send>>,
    deadline: Pin<Box<Sleep>>,
}

/// A call that has ended.
struct Finished {
    seq: u64,
    op_number: usize,
    began: Instant,
    answer: Result<TierReply>,
}

impl Future for Running {
    type Output = Finished;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let this = self.get_mut();
        let answer = match this.future.as_mut().poll(cx) {
            Poll::Ready(answer) => settle(answer),
            Poll::Pending if this.deadline.as_mut().poll(cx).is_ready() => {
                Err(Error::DeadlineExceeded { not_applied: !this.is_write })
            }
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Finished { seq: this.seq, op_number: this.op_number, began: this.began, answer })
    }
}

/// A handler's panic is that call's error: the others on the stream go on.
fn settle(answer: Answer) -> Result<TierReply> {
    answer.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text.unwrap_or("no message"), "a handler panicked");
        Err(Error::Internal { what: "the handler panicked".to_owned() })
    })
}

/// Up to a tenth less or more, so that streams begun together don't all end together.
fn vary(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 2_001;
    time.mul_f64(0.9 + random as f64 / 10_000.0)
}
