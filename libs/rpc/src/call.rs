//! A call between tiers: what travels beside the question, and the answer.

use std::time::Duration;

use tao_model::{Error, Position, Result, ShardId};
use tao_proto::internal::{Call, Reply};
use tao_trace::TraceContext;
use tokio::time::Instant;

/// What is asked for.
pub use tao_proto::internal::call::Op;
/// What is answered; never the `Error` variant.
pub use tao_proto::internal::reply::Result as ReplyBody;

/// What travels with a call.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Which span the call belongs to.
    pub trace: TraceContext,
    /// Who asked at the public door; empty where tiers behind it need not know.
    pub identity: String,
    /// Of a write; empty when there is none.
    pub idempotency_key: String,
    /// The answer must be at or above this.
    pub floor: Position,
    /// Read from the log's owner, past all caches.
    pub strong: bool,
    /// When above 0: caches that have not heard from the log for longer must ask on.
    pub max_staleness_ms: u64,
    /// The logical shard that the call is about.
    pub shard: ShardId,
}

impl CallContext {
    /// With a deadline and nothing else.
    pub fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            trace: TraceContext::NONE,
            identity: String::new(),
            idempotency_key: String::new(),
            floor: Position::ZERO,
            strong: false,
            max_staleness_ms: 0,
            shard: ShardId(0),
        }
    }

    /// With so much time from now.
    pub fn within(time: Duration) -> Self {
        Self::new(Instant::now() + time)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct TierReply {
    /// The freshness of the answer, by its sender; of a write, the position of its last change.
    pub as_of: Position,
    /// The answer itself.
    pub body: ReplyBody,
}

/// Whether a call may change something, so that losing its answer leaves a doubt.
pub const fn is_write(op: &Op) -> bool {
    match op {
        Op::Write(_) | Op::AllocateIds(_) => true,
        Op::ObjectRead(_) | Op::ListRead(_) | Op::ListScan(_) | Op::EdgesRead(_) | Op::LogRead(_) => false,
    }
}

/// How many kinds of calls there are.
pub(crate) const OPS: usize = 7;

/// Their names in metrics, by number.
pub(crate) const OP_NAMES: [&str; OPS] =
    ["object_read", "list_read", "list_scan", "edges_read", "write", "allocate_ids", "log_read"];

/// A kind's number.
pub(crate) const fn op_number(op: &Op) -> usize {
    match op {
        Op::ObjectRead(_) => 0,
        Op::ListRead(_) => 1,
        Op::ListScan(_) => 2,
        Op::EdgesRead(_) => 3,
        Op::Write(_) => 4,
        Op::AllocateIds(_) => 5,
        Op::LogRead(_) => 6,
    }
}

/// What spans of calls are called.
pub(crate) const fn span_name(op: &Op) -> &'static str {
    match op {
        Op::ObjectRead(_) => "TierService/object_read",
        Op::ListRead(_) => "TierService/list_read",
        Op::ListScan(_) => "TierService/list_scan",
        Op::EdgesRead(_) => "TierService/edges_read",
        Op::Write(_) => "TierService/write",
        Op::AllocateIds(_) => "TierService/allocate_ids",
        Op::LogRead(_) => "TierService/log_read",
    }
}

/// As it travels; `seq` and `timeout_us` are set when it is sent.
pub(crate) fn to_wire(context: &CallContext, op: Op) -> Call {
    Call {
        seq: 0,
        timeout_us: 0,
        traceparent: context.trace.to_wire(),
        identity: context.identity.clone(),
        idempotency_key: context.idempotency_key.clone(),
        floor: (context.floor != Position::ZERO).then(|| context.floor.into()),
        strong: context.strong,
        max_staleness_ms: context.max_staleness_ms,
        shard: context.shard.0,
        op: Some(op),
    }
}

/// What a peer asks, by its deadline here; an error when it is no call.
#[doc(hidden)]
pub fn from_wire(call: Call, deadline: Instant) -> Result<(CallContext, Op)> {
    let Some(op) = call.op else {
        return Err(Error::invalid("op", "must be set, to a call that this version knows"));
    };
    if call.timeout_us == 0 {
        return Err(Error::invalid("timeout_us", "must be above 0"));
    }
    let context = CallContext {
        deadline,
        trace: TraceContext::from_wire(&call.traceparent),
        identity: call.identity,
        idempotency_key: call.idempotency_key,
        floor: call.floor.map(Into::into).unwrap_or_default(),
        strong: call.strong,
        max_staleness_ms: call.max_staleness_ms,
        shard: ShardId(call.shard),
    };
    Ok((context, op))
}

/// The answer to a call as it travels.
pub(crate) fn reply(seq: u64, result: Result<TierReply>) -> Reply {
    match result {
        Ok(reply) => {
            let as_of = (reply.as_of != Position::ZERO).then(|| reply.as_of.into());
            Reply { seq, as_of, result: Some(reply.body) }
        }
        Err(error) => Reply { seq, as_of: None, result: Some(ReplyBody::Error(tao_proto::error::to_peer(&error))) },
    }
}

/// What a peer answered.
#[doc(hidden)]
pub fn from_reply(reply: Reply) -> Result<TierReply> {
    match reply.result {
        Some(ReplyBody::Error(error)) => Err(tao_proto::error::from_peer(error)),
        Some(body) => Ok(TierReply { as_of: reply.as_of.map(Into::into).unwrap_or_default(), body }),
        None => Err(Error::Internal { what: "a peer sent an answer that this version can't read".to_owned() }),
    }
}
