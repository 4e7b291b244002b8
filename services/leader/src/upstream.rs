//! The storage shard, as this leader's cache sees it: behind the gate.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tao_cache::{CachedList, Fresh, Mode, Upstream};
use tao_model::{ClusterInfo, Error, ObjectId, Position, Result, TypeId};
use tao_proto::internal;
use tao_rpc::{CallContext, Op, ReplyBody, TierClient, TierReply};
use tokio::time::Instant;

use crate::gate::{Gate, GateLimits};

/// Asks the storage shard for what the cache misses, and hands writes on to it.
#[derive(Clone)]
pub struct Shard {
    client: TierClient,
    place: Arc<OnceLock<(ClusterInfo, Gate)>>,
    limits: GateLimits,
}

impl Shard {
    /// Behind this connection.
    pub fn new(client: TierClient, limits: GateLimits) -> Self {
        Self { client, place: Arc::default(), limits }
    }

    /// Learns from the change stream which cluster this is; `false` when it is another than before.
    pub fn meet(&self, info: ClusterInfo) -> bool {
        let (known, _) = self.place.get_or_init(|| (info, Gate::new(info.layout.shards(), self.limits)));
        *known == info
    }

    /// Any call about `id`'s shard (any shard when there is none yet).
    pub async fn call(&self, context: &CallContext, id: Option<ObjectId>, op: Op) -> Result<TierReply> {
        let Some((info, gate)) = self.place.get() else {
            return Err(Error::unavailable("the leader has not met its storage shard yet"));
        };
        let _pass = match id {
            Some(id) => Some(gate.pass(info.layout.shard(id), context.deadline).await?),
            None => None,
        };
        self.client.call(context, op).await
    }

    async fn read(&self, context: &CallContext, id: ObjectId, floor: Position, op: Op) -> Result<TierReply> {
        // The storage shard always reads its newest state.
        let context = CallContext { floor, ..context.clone() };
        self.call(&context, Some(id), op).await
    }
}

/// A reply of another kind than its call's.
fn unexpected() -> Error {
    Error::Internal { what: "the storage shard answered with a reply of another kind".to_owned() }
}

impl Upstream for Shard {
    type Context = CallContext;

    fn deadline(context: &CallContext) -> Instant {
        context.deadline
    }

    async fn object(
        &self,
        id: ObjectId,
        floor: Position,
        _: Mode,
        context: &CallContext,
    ) -> Result<Fresh<Option<Bytes>>> {
        let reply = self.read(context, id, floor, Op::ObjectRead(internal::ObjectRead { id: id.get() })).await?;
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
        _: Mode,
        context: &CallContext,
    ) -> Result<Fresh<CachedList>> {
        let op = Op::ListRead(internal::ListRead { id1: id1.get(), atype: atype.0, newest: newest as u32 });
        let reply = self.read(context, id1, floor, op).await?;
        let ReplyBody::List(state) = reply.body else { return Err(unexpected()) };
        let value = CachedList::from_encoded(state.count, state.edges).ok_or_else(unexpected)?;
        Ok(Fresh { as_of: reply.as_of, value })
    }
}
