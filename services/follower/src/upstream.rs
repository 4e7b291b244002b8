//! The leaders, as this follower's caches see them.

use tao_cache::{Fresh, Mode, Upstream};
use tao_model::{Error, ObjectId, Position, Result};
use tao_rpc::{CallContext, Op, ReplyBody, TierGroup, TierReply};
use tao_trace::TraceContext;
use tokio::time::Instant;

/// Asks the leaders for what the caches miss: for each shard the one that rendezvous hashing chooses among those alive.
#[derive(Clone)]
pub struct Leaders {
    group: TierGroup,
}

impl Leaders {
    /// Behind these connections.
    pub const fn new(group: TierGroup) -> Self {
        Self { group }
    }

    /// The servers themselves.
    pub const fn group(&self) -> &TierGroup {
        &self.group
    }

    /// Any call about the context's shard.
    pub async fn call(&self, context: &CallContext, op: Op) -> Result<TierReply> {
        self.group.call(u64::from(context.shard.0), context, op).await
    }
}

/// A reply of another kind than its call's.
pub fn unexpected() -> Error {
    Error::Internal { what: "the leader answered with a reply of another kind".to_owned() }
}

impl Upstream for Leaders {
    type Context = CallContext;

    fn deadline(context: &CallContext) -> Instant {
        context.deadline
    }

    fn trace(context: &CallContext) -> TraceContext {
        context.trace
    }

    fn traced(context: &CallContext, trace: TraceContext) -> CallContext {
        CallContext { trace, ..context.clone() }
    }

    async fn read(
        &self,
        _: ObjectId,
        op: Op,
        floor: Position,
        mode: Mode,
        context: &CallContext,
    ) -> Result<Fresh<ReplyBody>> {
        let context = CallContext {
            floor,
            strong: mode == Mode::Strong,
            max_staleness_ms: if let Mode::MaxStaleness(ms) = mode { ms } else { 0 },
            ..context.clone()
        };
        let reply = self.call(&context, op).await?;
        Ok(Fresh { as_of: reply.as_of, value: reply.body })
    }
}
