//! What the callers of a link and its connection share: calls that wait to be sent, and calls that wait for their answer.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tao_model::{Error, Result};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::asking::Asking;
use crate::authorize::Bearer;
use crate::client::LinkOptions;
use crate::link::Unopened;

/// When to try again after shed load or a lost connection.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The shared part of a link.
#[derive(Debug)]
pub(crate) struct Line<A: Asking> {
    peer: String,
    options: Arc<LinkOptions>,
    /// The thread of its connection, while that stays on one.
    thread: OnceLock<ThreadId>,
    state: Mutex<State<A>>,
    /// What `State::open` says, for those who only want to know.
    open: AtomicBool,
    /// Why no calls can be sent; `None` while they can. Changed together with `State::open`.
    closed: watch::Sender<Option<Closed>>,
    /// There is another token than the one that was refused.
    wanted: Notify,
}

/// Why no calls can be sent.
#[derive(Debug)]
struct Closed {
    why: String,
    /// Whether the last attempt to connect came to nothing.
    has_failed: bool,
    /// Whether that was since the peer does not know who asks.
    refused: Option<Refused>,
}

/// The token, if any, that a peer has refused.
#[derive(Debug, PartialEq, Eq)]
struct Refused(Option<Bearer>);

impl Closed {
    fn now(why: &str) -> Self {
        Self { why: why.to_owned(), has_failed: false, refused: None }
    }
}

#[derive(Debug)]
struct State<A: Asking> {
    /// The number of the stream that was opened last.
    stream: u64,
    /// Whether it takes new calls.
    open: bool,
    /// The number of the last attempt that came to nothing.
    abandoned: u64,
    next_seq: u64,
    /// Not sent yet, with their encoded sizes.
    queue: VecDeque<Queued<A::Call>>,
    queued_bytes: usize,
    /// To be given up: the stream and `seq` of each.
    cancels: Vec<(u64, u64)>,
    /// By `seq`.
    waiting: HashMap<u64, Waiting<A::Reply>, foldhash::fast::RandomState>,
    /// Of the streams of requests: two at most, while one is drained.
    wakers: Vec<(u64, Waker)>,
}

#[derive(Debug)]
struct Queued<C> {
    call: C,
    seq: u64,
    deadline: Instant,
    len: usize,
}

/// A call that waits for its answer.
#[derive(Debug)]
struct Waiting<R> {
    answer: oneshot::Sender<Result<R>>,
    is_write: bool,
    /// The stream that it was sent by; 0 while it wasn't.
    sent_by: u64,
}

/// A call under way; dropping it gives the call up.
#[derive(Debug)]
pub(crate) struct Ticket<'a, A: Asking> {
    line: &'a Line<A>,
    seq: u64,
    answer: oneshot::Receiver<Result<A::Reply>>,
    ended: bool,
}

impl<A: Asking> Ticket<'_, A> {
    /// The peer's answer, or why there will be none.
    pub(crate) async fn answer(&mut self) -> Result<A::Reply> {
        let answer = (&mut self.answer).await;
        self.ended = true;
        answer.unwrap_or_else(|_| Err(self.line.unreachable("the client was closed", false)))
    }

    /// Gives the call up; whether it had been sent.
    pub(crate) fn give_up(mut self) -> bool {
        self.ended = true;
        self.line.give_up(self.seq)
    }
}

impl<A: Asking> Drop for Ticket<'_, A> {
    fn drop(&mut self) {
        if !self.ended {
            self.line.give_up(self.seq);
        }
    }
}

impl<A: Asking> Line<A> {
    pub(crate) fn new(peer: String, options: Arc<LinkOptions>) -> Self {
        let closed = watch::Sender::new(Some(Closed::now("not connected yet")));
        let (thread, state) = (OnceLock::new(), Mutex::new(State::new()));
        Self { peer, options, thread, state, open: AtomicBool::new(false), closed, wanted: Notify::new() }
    }

    /// Its connection lives on this thread from now on.
    pub(crate) fn settle(&self, thread: ThreadId) {
        // The first stays: a connection is made once for good, and connects anew in the same place.
        let _ = self.thread.set(thread);
    }

    /// Whether its connection lives on a thread.
    pub(crate) fn lives_on(&self, thread: ThreadId) -> bool {
        self.thread.get() == Some(&thread)
    }

    pub(crate) fn peer(&self) -> &str {
        &self.peer
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// With the state's lock held.
    fn set_open(&self, state: &mut State<A>, open: bool) {
        state.open = open;
        self.open.store(open, Ordering::Relaxed);
    }

    fn unreachable(&self, why: &str, not_applied: bool) -> Error {
        Error::Unavailable {
            what: format!("{} can't be reached: {why}", self.peer),
            not_applied,
            retry_after: RETRY_AFTER,
        }
    }

    fn overloaded(&self, what: &str) -> Error {
        Error::Overloaded {
            what: format!("too many {what} are on their way to {}", self.peer),
            retry_after: RETRY_AFTER,
        }
    }

    /// Waits until calls can be sent, up to a point in time; where that is wished, only until an attempt to connect has failed. A peer
    /// that does not know who asks is not waited for.
    pub(crate) async fn wait_open(&self, until: Instant, fails_fast: bool) -> Result<()> {
        let mut closed = self.closed.subscribe();
        let shown = Refused(self.options.bearer());
        let is_refused = |closed: &Closed| closed.refused.as_ref() == Some(&shown);
        let settled = |closed: &Option<Closed>| {
            closed.as_ref().is_none_or(|closed| is_refused(closed) || (fails_fast && closed.has_failed))
        };
        if closed.borrow().as_ref().is_some_and(|closed| closed.refused.is_some() && !is_refused(closed)) {
            self.wanted.notify_one();
        }
        // Whether it settled or not, the present state says all.
        let _ = tokio::time::timeout_at(until, closed.wait_for(settled)).await;
        let closed = closed.borrow();
        match closed.as_ref() {
            None => Ok(()),
            Some(closed) if closed.refused.is_some() => Err(Error::Unauthenticated { what: closed.why.clone() }),
            Some(closed) => Err(self.unreachable(&closed.why, true)),
        }
    }

    /// Waits until it is worth trying again at once.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Puts a call into the queue. `None`, and the call stays with the caller, while there is no stream that takes it.
    pub(crate) fn submit(
        &self,
        call: &mut Option<A::Call>,
        is_write: bool,
        deadline: Instant,
    ) -> Result<Option<Ticket<'_, A>>> {
        let Some(len) = call.as_ref().map(A::size) else { return Ok(None) };
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.open {
            return Ok(None);
        }
        if state.waiting.len().max(state.queue.len()) >= self.options.max_in_flight {
            return Err(self.overloaded("calls"));
        }
        if state.queued_bytes + len > self.options.max_queued_bytes {
            return Err(self.overloaded("bytes"));
        }
        let Some(call) = call.take() else { return Ok(None) };
        state.next_seq += 1;
        let seq = state.next_seq;
        state.queued_bytes += len;
        state.queue.push_back(Queued { call, seq, deadline, len });
        state.waiting.insert(seq, Waiting { answer: sender, is_write, sent_by: 0 });
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
        Ok(Some(Ticket { line: self, seq, answer, ended: false }))
    }

    fn give_up(&self, seq: u64) -> bool {
        let mut state = self.state.lock();
        let Some(waiting) = state.waiting.remove(&seq) else {
            // Its answer, or the end of its stream, came just now.
            return true;
        };
        if waiting.sent_by == 0 {
            // Whoever empties the queue passes over it.
            return false;
        }
        state.cancels.push((waiting.sent_by, seq));
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
        true
    }

    /// A stream takes calls from now on.
    pub(crate) fn opened(&self, stream: u64) {
        let mut state = self.state.lock();
        state.stream = stream;
        self.set_open(&mut state, true);
        let wakers = std::mem::take(&mut state.wakers);
        self.closed.send_replace(None);
        drop(state);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// A stream could not be opened: its requests end.
    pub(crate) fn abandoned(&self, stream: u64) {
        let mut state = self.state.lock();
        state.abandoned = state.abandoned.max(stream);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Nor is there another.
    pub(crate) fn failed(&self, why: Unopened) {
        let (why, refused) = match why {
            Unopened::Unreachable(why) => (why, None),
            Unopened::Unauthenticated { why, bearer } => (why, Some(Refused(bearer))),
        };
        let state = self.state.lock();
        self.closed.send_replace(Some(Closed { why, has_failed: true, refused }));
        drop(state);
    }

    /// Nobody connects any more: the client is gone, or the runtime that it lived on. Requests must end too, or they would hold
    /// their connections.
    pub(crate) fn close(&self) {
        let why = "the client was closed";
        let mut state = self.state.lock();
        (state.stream, state.abandoned) = (u64::MAX, u64::MAX);
        self.set_open(&mut state, false);
        state.queue.clear();
        state.queued_bytes = 0;
        let lost: Vec<_> = state.waiting.drain().collect();
        let wakers = std::mem::take(&mut state.wakers);
        self.closed.send_replace(Some(Closed::now(why)));
        drop(state);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
        self.fail(lost, why);
    }

    fn fail(&self, mut lost: Vec<(u64, Waiting<A::Reply>)>, why: &str) {
        // In the order in which they were called, so that a simulation can be repeated.
        lost.sort_unstable_by_key(|(seq, _)| *seq);
        for (_, waiting) in lost {
            let not_applied = waiting.sent_by == 0 || !waiting.is_write;
            // Whoever gave up meanwhile needs no answer.
            let _ = waiting.answer.send(Err(self.unreachable(why, not_applied)));
        }
    }

    /// A stream's server asked for no more calls. What has been queued still goes there: it promised to answer it.
    pub(crate) fn draining(&self, stream: u64) {
        let mut state = self.state.lock();
        if state.stream != stream || !state.open {
            return;
        }
        self.set_open(&mut state, false);
        let wakers = std::mem::take(&mut state.wakers);
        self.closed.send_replace(Some(Closed::now("its server is shutting down")));
        drop(state);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// A stream has ended: what was sent by it has no answer to come.
    pub(crate) fn ended(&self, stream: u64, why: &str) {
        let mut state = self.state.lock();
        let is_last = state.stream == stream;
        if is_last {
            // What is still queued was queued for this stream.
            state.queue.clear();
            state.queued_bytes = 0;
            if state.open {
                self.set_open(&mut state, false);
                self.closed.send_replace(Some(Closed::now(why)));
            }
        }
        state.cancels.retain(|(by, _)| *by != stream);
        let gone = |w: &Waiting<A::Reply>| w.sent_by == stream || (is_last && w.sent_by == 0);
        let lost = state.waiting.extract_if(|_, w| gone(w)).collect();
        drop(state);
        self.fail(lost, why);
    }

    /// Hands answers to those who wait for them. Others are of calls that were given up.
    pub(crate) fn deliver(&self, replies: Vec<(u64, A::Reply)>) {
        let mut ready = Vec::with_capacity(replies.len());
        let mut state = self.state.lock();
        for (seq, reply) in replies {
            if let Some(waiting) = state.waiting.remove(&seq) {
                ready.push((waiting.answer, reply));
            }
        }
        drop(state);
        for (answer, reply) in ready {
            let _ = answer.send(Ok(reply));
        }
    }
}

impl<A: Asking> State<A> {
    fn new() -> Self {
        Self {
            stream: 0,
            open: false,
            abandoned: 0,
            next_seq: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            cancels: Vec::new(),
            waiting: HashMap::default(),
            wakers: Vec::new(),
        }
    }

    /// All that a message holds of what is queued, and how many calls that are.
    fn next_message(&mut self, stream: u64, options: &LinkOptions) -> Option<(A::Request, usize)> {
        let mut message = A::Request::default();
        let mut cancels = Vec::new();
        if !self.cancels.is_empty() {
            self.cancels.retain(|&(by, seq)| {
                if by == stream {
                    cancels.push(seq);
                }
                by != stream
            });
        }
        let mut calls = 0;
        if !self.queue.is_empty() {
            let now = Instant::now();
            let mut bytes = 0;
            while let Some(next) = self.queue.front() {
                if calls > 0 && (calls >= options.max_message_calls || bytes + next.len > options.max_message_bytes) {
                    break;
                }
                let Some(Queued { call, seq, deadline, len }) = self.queue.pop_front() else { break };
                self.queued_bytes -= len;
                // Not there: given up. Out of time: its caller is about to see that by itself.
                if deadline <= now {
                    continue;
                }
                let Some(waiting) = self.waiting.get_mut(&seq) else { continue };
                waiting.sent_by = stream;
                let timeout_us = (deadline - now).as_micros().clamp(1, u128::from(u64::MAX)) as u64;
                bytes += len + 8;
                calls += 1;
                A::put(&mut message, call, seq, timeout_us);
            }
        }
        let is_empty = calls == 0 && cancels.is_empty();
        A::give_up(&mut message, cancels);
        (!is_empty).then_some((message, calls))
    }
}

/// The messages of one stream: each all that was queued when the connection came to take it.
pub struct Requests<A: Asking> {
    pub(crate) line: Arc<Line<A>>,
    pub(crate) stream: u64,
    pub(crate) messages: metrics::Counter,
    pub(crate) calls: metrics::Counter,
}

impl<A: Asking> Stream for Requests<A> {
    type Item = A::Request;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<A::Request>> {
        let mut state = self.line.state.lock();
        if state.stream > self.stream || (state.stream < self.stream && self.stream <= state.abandoned) {
            return Poll::Ready(None);
        }
        if state.stream == self.stream {
            if let Some((message, calls)) = state.next_message(self.stream, &self.line.options) {
                self.messages.increment(1);
                self.calls.increment(calls as u64);
                return Poll::Ready(Some(message));
            }
            if !state.open {
                return Poll::Ready(None);
            }
        }
        match state.wakers.iter_mut().find(|(stream, _)| *stream == self.stream) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.wakers.push((self.stream, cx.waker().clone())),
        }
        Poll::Pending
    }
}
