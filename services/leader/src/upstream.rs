//! The storage shard, as this leader's cache sees it: behind the gate.

use std::sync::{Arc, OnceLock};

use tao_cache::{Fresh, Mode, Upstream};
use tao_model::{ClusterInfo, Error, ObjectId, Position, Result};
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
}

impl Upstream for Shard {
    type Context = CallContext;

    fn deadline(context: &CallContext) -> Instant {
        context.deadline
    }

    /// The storage shard always reads its newest state, whatever the mode.
    async fn read(
        &self,
        owner: ObjectId,
        op: Op,
        floor: Position,
        _: Mode,
        context: &CallContext,
    ) -> Result<Fresh<ReplyBody>> {
        let context = CallContext { floor, ..context.clone() };
        let reply = self.call(&context, Some(owner), op).await?;
        Ok(Fresh { as_of: reply.as_of, value: reply.body })
    }
}
