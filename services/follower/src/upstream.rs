//! The leader, as this follower's caches see it.

use tao_cache::{Fresh, Mode, Upstream};
use tao_model::{Error, ObjectId, Position, Result};
use tao_rpc::{CallContext, Op, ReplyBody, TierClient, TierReply};
use tokio::time::Instant;

/// Asks the leader for what the caches miss.
#[derive(Clone)]
pub struct Leader {
    client: TierClient,
}

impl Leader {
    /// Behind this connection.
    pub const fn new(client: TierClient) -> Self {
        Self { client }
    }

    /// Any call.
    pub async fn call(&self, context: &CallContext, op: Op) -> Result<TierReply> {
        self.client.call(context, op).await
    }
}

/// A reply of another kind than its call's.
pub fn unexpected() -> Error {
    Error::Internal { what: "the leader answered with a reply of another kind".to_owned() }
}

impl Upstream for Leader {
    type Context = CallContext;

    fn deadline(context: &CallContext) -> Instant {
        context.deadline
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
        let reply = self.client.call(&context, op).await?;
        Ok(Fresh { as_of: reply.as_of, value: reply.body })
    }
}
