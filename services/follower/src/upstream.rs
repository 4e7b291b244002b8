//! The leader, as this follower's caches see it.

use bytes::Bytes;
use tao_cache::{CachedList, Fresh, Mode, Upstream};
use tao_model::{Error, ObjectId, Position, Result, TypeId};
use tao_proto::internal;
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

    async fn read(&self, context: &CallContext, floor: Position, mode: Mode, op: Op) -> Result<TierReply> {
        let context = CallContext {
            floor,
            strong: mode == Mode::Strong,
            max_staleness_ms: if let Mode::MaxStaleness(ms) = mode { ms } else { 0 },
            ..context.clone()
        };
        self.client.call(&context, op).await
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

    async fn object(
        &self,
        id: ObjectId,
        floor: Position,
        mode: Mode,
        context: &CallContext,
    ) -> Result<Fresh<Option<Bytes>>> {
        let reply = self.read(context, floor, mode, Op::ObjectRead(internal::ObjectRead { id: id.get() })).await?;
        match reply.body {
            ReplyBody::Object(state) => Ok(Fresh { as_of: reply.as_of, value: state.object }),
            _ => Err(unexpected()),
        }
    }

    async fn list(
        &self,
        id1: ObjectId,
        atype: TypeId,
        newest: usize,
        floor: Position,
        mode: Mode,
        context: &CallContext,
    ) -> Result<Fresh<CachedList>> {
        let op = Op::ListRead(internal::ListRead { id1: id1.get(), atype: atype.0, newest: newest as u32 });
        let reply = self.read(context, floor, mode, op).await?;
        let ReplyBody::List(state) = reply.body else { return Err(unexpected()) };
        let value = CachedList::from_encoded(state.count, state.edges).ok_or_else(unexpected)?;
        Ok(Fresh { as_of: reply.as_of, value })
    }
}
