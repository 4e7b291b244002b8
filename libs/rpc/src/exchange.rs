//! One stream of numbered calls, on the serving side. All of it runs inside the poll of the answer's body: calls that can be
//! answered at once are never spawned, and what has been answered by the time the connection takes more travels in one message.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture, CatchUnwind};
use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use tao_model::{Error, Result};
use tao_trace::TraceContext;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};

use crate::backoff::vary;
use crate::drain::Drain;
use crate::server::ServerLimits;

/// What is spoken on a stream of calls: one value a stream, which gathers the answers that are to be sent.
pub trait Dialect: Send + 'static {
    /// A message that is read.
    type Request: Send;
    /// A message that is sent.
    type Response: Send;
    /// One call.
    type Call: Send;
    /// What the future of a call ends with.
    type Answer: Send + 'static;

    /// Takes a message apart: appends its calls, in their order and with when they arrived, and gives the numbers of those that are
    /// given up.
    fn open(&mut self, request: Self::Request, arrived: Instant, calls: &mut Backlog<Self::Call>) -> Vec<u64>;

    /// The number of a call.
    fn seq(call: &Self::Call) -> u64;

    /// Begins a call, or answers it at once where that takes nobody else.
    fn begin(&mut self, call: Self::Call, arrived: Instant, now: Instant) -> Option<Waiting<Self::Answer>>;

    /// Answers a call with an error, whatever its kind.
    fn refuse(&mut self, seq: u64, error: &Error);

    /// Answers a call that has ended.
    fn finish(&mut self, ended: Ended<Self::Answer>);

    /// Whether the answers that are to be sent fill a message.
    fn is_full(&self) -> bool;

    /// Whether there are none.
    fn is_empty(&self) -> bool;

    /// The next message, of what is to be sent.
    fn message(&mut self, draining: bool) -> Self::Response;
}

/// Calls that were read and not begun, and when they arrived.
pub type Backlog<C> = VecDeque<(C, Instant)>;

/// A call that was not answered at once.
pub struct Waiting<A> {
    /// Its number.
    pub seq: u64,
    /// Its kind, as the dialect counts them.
    pub kind: usize,
    /// Whether it may change something.
    pub is_write: bool,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// The span that it has here.
    pub trace: TraceContext,
    /// Ends with its answer. Polled by the stream's task, and dropped when the caller gives up.
    pub future: BoxFuture<'static, A>,
}

/// A call that has ended.
pub struct Ended<A> {
    /// Its number.
    pub seq: u64,
    /// Its kind.
    pub kind: usize,
    /// When it arrived.
    pub arrived: Instant,
    /// The span that it had.
    pub trace: TraceContext,
    /// Its answer; or that its deadline passed, or that it crashed.
    pub answer: Result<A>,
}

/// See the module.
pub struct Exchange<D: Dialect> {
    dialect: D,
    limits: Arc<ServerLimits>,
    /// Gone when the caller has ended its half.
    requests: Option<Streaming<D::Request>>,
    /// While too many are under way.
    backlog: Backlog<D::Call>,
    running: FuturesUnordered<Abortable<Running<D::Answer>>>,
    /// By `seq`, of those running.
    handles: HashMap<u64, AbortHandle, foldhash::fast::RandomState>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    age: Option<Pin<Box<Sleep>>>,
    drained: Drained,
}

/// Nothing in it is ever pinned in place.
impl<D: Dialect> Unpin for Exchange<D> {}

/// How far the polite end is.
#[derive(PartialEq, Eq)]
enum Drained {
    No,
    /// The caller is to be told.
    Begun,
    Told,
}

impl<D: Dialect> Exchange<D> {
    /// Answers the calls of a stream, until it ends or is drained.
    pub fn new(dialect: D, limits: Arc<ServerLimits>, drain: &Drain, requests: Streaming<D::Request>) -> Self {
        Self {
            dialect,
            age: limits.max_stream_age.map(|age| Box::pin(sleep(vary(age)))),
            limits,
            requests: Some(requests),
            backlog: VecDeque::new(),
            running: FuturesUnordered::new(),
            handles: HashMap::default(),
            drain: Box::pin(drain.begun()),
            drained: Drained::No,
        }
    }

    /// Takes a message: gives up what is cancelled, queues what is new.
    fn read(&mut self, request: D::Request) {
        for seq in self.dialect.open(request, Instant::now(), &mut self.backlog) {
            match self.handles.remove(&seq) {
                // The set of running calls drops the future when it sees the abort, in this same poll.
                Some(handle) => handle.abort(),
                None => self.backlog.retain(|(call, _)| D::seq(call) != seq),
            }
        }
    }

    /// Begins calls while there is room.
    fn begin(&mut self, cx: &mut Context<'_>) {
        if self.backlog.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.handles.len() < self.limits.max_in_flight && !self.dialect.is_full() {
            let Some((call, arrived)) = self.backlog.pop_front() else { return };
            self.begin_one(call, arrived, now, cx);
        }
    }

    fn begin_one(&mut self, call: D::Call, arrived: Instant, now: Instant, cx: &mut Context<'_>) {
        let seq = D::seq(&call);
        if !self.handles.is_empty() && self.handles.contains_key(&seq) {
            return self.dialect.refuse(seq, &Error::invalid("seq", "is of a call that is under way"));
        }
        let dialect = &mut self.dialect;
        let waiting = match catch_unwind(AssertUnwindSafe(|| dialect.begin(call, arrived, now))) {
            Ok(Some(waiting)) => waiting,
            Ok(None) => return,
            Err(panic) => return self.dialect.refuse(seq, &crashed(&*panic)),
        };
        let Waiting { seq, kind, is_write, deadline, trace, future } = waiting;
        let mut future = AssertUnwindSafe(future).catch_unwind();
        match future.poll_unpin(cx) {
            Poll::Ready(answer) => self.dialect.finish(Ended { seq, kind, arrived, trace, answer: settle(answer) }),
            Poll::Pending => {
                let (handle, registration) = AbortHandle::new_pair();
                self.handles.insert(seq, handle);
                let deadline = Box::pin(sleep_until(deadline));
                let running = Running { seq, kind, is_write, arrived, trace, future, deadline };
                self.running.push(Abortable::new(running, registration));
            }
        }
    }

    /// Gathers the answers of calls that have ended.
    fn gather(&mut self, cx: &mut Context<'_>) {
        while !self.dialect.is_full() {
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(ended))) => {
                    self.handles.remove(&ended.seq);
                    self.dialect.finish(ended);
                }
                Poll::Ready(Some(Err(Aborted))) => {}
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) {
        if self.drained == Drained::No {
            let old = self.age.as_mut().is_some_and(|age| age.as_mut().poll(cx).is_ready());
            if old || self.drain.as_mut().poll(cx).is_ready() {
                self.drained = Drained::Begun;
            }
        }
    }

    fn message(&mut self) -> D::Response {
        let draining = self.drained == Drained::Begun;
        if draining {
            self.drained = Drained::Told;
        }
        self.dialect.message(draining)
    }
}

impl<D: Dialect> Stream for Exchange<D> {
    type Item = Result<D::Response, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.poll_drain(cx);
        loop {
            this.begin(cx);
            // After `begin`, so that what has just begun is waited for, by its deadline too.
            this.gather(cx);
            if this.dialect.is_full() {
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
                    while !this.dialect.is_empty() {
                        this.dialect.message(false);
                    }
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => this.requests = None,
                Poll::Pending => break,
            }
        }
        if !this.dialect.is_empty() || this.drained == Drained::Begun {
            return Poll::Ready(Some(Ok(this.message())));
        }
        if this.requests.is_none() && this.handles.is_empty() && this.backlog.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// A call under way.
struct Running<A> {
    seq: u64,
    kind: usize,
    is_write: bool,
    arrived: Instant,
    trace: TraceContext,
    future: CatchUnwind<AssertUnwindSafe<BoxFuture<'static, A>>>,
    deadline: Pin<Box<Sleep>>,
}

impl<A> Future for Running<A> {
    type Output = Ended<A>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<A>> {
        let this = self.get_mut();
        let answer = match this.future.poll_unpin(cx) {
            Poll::Ready(answer) => settle(answer),
            Poll::Pending if this.deadline.as_mut().poll(cx).is_ready() => {
                Err(Error::DeadlineExceeded { not_applied: !this.is_write })
            }
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Ended { seq: this.seq, kind: this.kind, arrived: this.arrived, trace: this.trace, answer })
    }
}

/// A handler's panic is that call's error: the others on the stream go on.
fn settle<A>(answer: Result<A, Box<dyn Any + Send>>) -> Result<A> {
    answer.map_err(|panic| crashed(&*panic))
}

fn crashed(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("no message"), "a handler panicked");
    Error::Internal { what: "the handler panicked".to_owned() }
}
