//! The dialect of tiers, on the serving side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tao_model::{Error, Result};
use tao_proto::internal::{Call, ExchangeRequest, ExchangeResponse, Reply};
use tao_trace::Kind;
use tao_trace::slow::{self, Told};
use tokio::time::Instant;

use crate::call::{self, OP_NAMES, TierReply};
use crate::exchange::{Backlog, Dialect, Ended, Waiting};
use crate::server::{MAX_MESSAGE, ServerMetrics, TierHandler};

/// Answers that travel in one message at most.
const MAX_REPLIES: usize = 1_024;
/// Bytes of answers in one message, unless a single one is larger.
const FULL_MESSAGE: usize = 3_500 * 1024;
/// Bytes of one answer; a larger one would break the stream.
const MAX_REPLY: usize = MAX_MESSAGE - 1024;

/// Calls of the tier in front, for a handler.
pub struct TierCalls<H> {
    handler: H,
    metrics: Arc<ServerMetrics>,
    /// Answers to be sent, with their encoded sizes.
    done: VecDeque<(Reply, usize)>,
    done_bytes: usize,
}

impl<H: TierHandler> TierCalls<H> {
    pub(crate) fn new(handler: H, metrics: Arc<ServerMetrics>) -> Self {
        Self { handler, metrics, done: VecDeque::new(), done_bytes: 0 }
    }

    fn answer(&mut self, seq: u64, result: Result<TierReply>) {
        if let Err(error) = &result {
            let labels = [("tier", self.metrics.tier), ("reason", error.reason())];
            metrics::counter!("tier_server_errors_total", &labels).increment(1);
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
}

impl<H: TierHandler> Dialect for TierCalls<H> {
    type Request = ExchangeRequest;
    type Response = ExchangeResponse;
    type Call = Call;
    type Answer = Result<TierReply>;

    fn open(&mut self, request: ExchangeRequest, arrived: Instant, calls: &mut Backlog<Call>) -> Vec<u64> {
        self.metrics.messages.increment(1);
        self.metrics.cancelled.increment(request.cancels.len() as u64);
        calls.extend(request.calls.into_iter().map(|call| (call, arrived)));
        request.cancels
    }

    fn seq(call: &Call) -> u64 {
        call.seq
    }

    fn begin(&mut self, call: Call, arrived: Instant, now: Instant) -> Option<Waiting<Self::Answer>> {
        let seq = call.seq;
        let deadline = arrived + Duration::from_micros(call.timeout_us.min(u64::from(u32::MAX)));
        let (mut context, op) = match call::from_wire(call, deadline) {
            Ok(call) => call,
            Err(error) => {
                self.answer(seq, Err(error));
                return None;
            }
        };
        if deadline <= now {
            self.answer(seq, Err(Error::DeadlineExceeded { not_applied: true }));
            return None;
        }
        let (is_write, kind) = (call::is_write(&op), call::op_number(&op));
        let span = context.trace.span(call::span_name(&op), Kind::Server);
        context.trace = span.context();
        let (trace, handler) = (context.trace, self.handler.clone());
        if !span.is_recorded() {
            let future = Box::pin(async move { handler.call(context, op).await });
            return Some(Waiting { seq, kind, is_write, deadline, trace, future });
        }
        span.set("tao.tier", self.metrics.tier);
        span.set("tao.shard", i64::from(context.shard.0));
        let future = Box::pin(async move {
            let answer = span.around(handler.call(context, op)).await;
            if let Err(error) = &answer {
                span.fail(error.reason());
            }
            answer
        });
        Some(Waiting { seq, kind, is_write, deadline, trace, future })
    }

    fn refuse(&mut self, seq: u64, error: &Error) {
        self.answer(seq, Err(error.clone()));
    }

    fn finish(&mut self, ended: Ended<Self::Answer>) {
        if let Some(durations) = self.metrics.durations.get(ended.kind) {
            let took = ended.arrived.elapsed();
            durations.record(took);
            slow::note(took, ended.trace, || {
                let error = ended.answer.as_ref().map_or_else(Some, |answer| answer.as_ref().err());
                let code = error.map_or("OK", Error::reason).to_owned();
                Told { call: format!("{} {}", self.metrics.tier, OP_NAMES[ended.kind]), code }
            });
        }
        self.answer(ended.seq, ended.answer.and_then(|answer| answer));
    }

    fn is_full(&self) -> bool {
        self.done.len() >= MAX_REPLIES || self.done_bytes >= FULL_MESSAGE
    }

    fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    fn message(&mut self, draining: bool) -> ExchangeResponse {
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
        ExchangeResponse { replies, draining }
    }
}
