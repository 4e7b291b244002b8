//! The storage shards of one log, as this leader's cache sees them: behind the gate.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tao_cache::{Fresh, Mode, Upstream};
use tao_model::{ClusterId, ClusterInfo, Error, LogId, ObjectId, Position, Result, ShardId};
use tao_proto::internal;
use tao_rpc::{CallContext, Op, ReplyBody, TierGroup, TierReply};
use tao_stream::{History, Piece};
use tao_trace::TraceContext;
use tokio::time::Instant;

use crate::gate::{Gate, GateLimits};

/// For questions about the log itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the storage shards of a log for what the cache misses, and hands writes on to them.
#[derive(Clone)]
pub struct Shards {
    servers: TierGroup,
    log: LogId,
    /// Of the log's shards.
    some_shard: ShardId,
    place: Arc<OnceLock<(ClusterInfo, Gate)>>,
    limits: GateLimits,
}

impl Shards {
    /// Behind these connections.
    pub fn new(servers: TierGroup, log: LogId, some_shard: ShardId, limits: GateLimits) -> Self {
        Self { servers, log, some_shard, place: Arc::default(), limits }
    }

    /// Learns from the change stream which cluster this is; an error when it is another than before, or another log.
    pub fn meet(&self, info: ClusterInfo) -> Result<()> {
        let (known, _) = self.place.get_or_init(|| (info, Gate::new(info.layout.shards(), self.limits)));
        if *known == info && info.log == self.log {
            return Ok(());
        }
        let what = format!(
            "the storage shard serves log {} of cluster {}, and log {} of cluster {} is expected",
            info.log.0, info.cluster, self.log.0, known.cluster
        );
        Err(Error::Internal { what })
    }

    /// Which cluster was met.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.place.get().map(|(info, _)| info.cluster)
    }

    /// The servers themselves.
    pub const fn servers(&self) -> &TierGroup {
        &self.servers
    }

    /// All callers agree on one server for as long as it lives: its commits are the larger, and its stream sees them first.
    pub fn key(&self) -> u64 {
        u64::from(self.log.0)
    }

    /// Any call about the context's shard.
    pub async fn call(&self, context: &CallContext, op: Op) -> Result<TierReply> {
        let Some((_, gate)) = self.place.get() else {
            return Err(Error::unavailable("the leader has not met the storage shard yet"));
        };
        let _pass = gate.pass(context.shard, context.deadline).await?;
        self.servers.call(self.key(), context, op).await
    }

    async fn read_log(&self, from: internal::log_read::From) -> Result<(Position, Vec<Piece>)> {
        let mut context = CallContext::within(PATIENCE);
        context.shard = self.some_shard;
        let op = Op::LogRead(internal::LogRead { from: Some(from) });
        let reply = self.servers.call(self.key(), &context, op).await?;
        let ReplyBody::Log(page) = reply.body else {
            return Err(Error::Internal { what: "a storage shard answered with a reply of another kind".to_owned() });
        };
        let pieces = page.pieces.into_iter().map(Piece::new).collect::<Result<_>>()?;
        Ok((reply.as_of, pieces))
    }
}

#[async_trait]
impl History for Shards {
    async fn after(&self, position: Position) -> Result<Vec<Piece>> {
        self.read_log(internal::log_read::From::After(position.into())).await.map(|(_, pieces)| pieces)
    }

    async fn back(&self, back: Duration) -> Result<Position> {
        let from = internal::log_read::From::BackMs(back.as_millis() as u64);
        self.read_log(from).await.map(|(position, _)| position)
    }
}

impl Upstream for Shards {
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

    /// The storage shard always reads its newest state, whatever the mode.
    async fn read(
        &self,
        _: ObjectId,
        op: Op,
        floor: Position,
        _: Mode,
        context: &CallContext,
    ) -> Result<Fresh<ReplyBody>> {
        let context = CallContext { floor, ..context.clone() };
        let reply = self.call(&context, op).await?;
        Ok(Fresh { as_of: reply.as_of, value: reply.body })
    }
}
