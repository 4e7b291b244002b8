//! Answers followers.

use std::sync::Arc;

use futures::stream::BoxStream;
use tao_cache::{Mode, Read};
use tao_model::{Error, LogId, Result, ShardId, TypeId};
use tao_proto::{convert, internal};
use tao_rpc::{CallContext, Op, ReplyBody, TierHandler, TierReply};
use tao_stream::Origin;
use tao_topology::Topology;
use tokio_util::task::AbortOnDropHandle;

use crate::log::Log;

/// The leader's side of the stream between tiers.
#[derive(Clone)]
pub struct LeaderService {
    topology: Arc<Topology>,
    /// By place in the topology.
    logs: Arc<[Log]>,
}

impl LeaderService {
    /// Over the logs of a topology, in its order.
    pub fn new(topology: Arc<Topology>, logs: Vec<Log>) -> Self {
        Self { topology, logs: logs.into() }
    }

    /// The log that a shard lives in.
    fn log(&self, shard: ShardId) -> &Log {
        &self.logs[self.topology.place_of(shard)]
    }

    async fn write(&self, context: CallContext, write: internal::Write) -> Result<TierReply> {
        let log = self.log(context.shard);
        let reply = through(log, context, Op::Write(write)).await?;
        if let ReplyBody::Written(written) = &reply.body {
            // COHERENCE rule 9: before the caller is answered. Some may be another log's (rule 13).
            for change in convert::changes(written.changes.clone())? {
                self.log(change.shard).reader.apply_write(&[change]);
            }
        }
        Ok(reply)
    }
}

/// Asks the storage shard. In a task of its own: a follower that does not read its answers must not keep a place at the gate.
async fn through(log: &Log, context: CallContext, op: Op) -> Result<TierReply> {
    let shards = log.shards.clone();
    let asking = tokio::spawn(async move { shards.call(&context, op).await });
    AbortOnDropHandle::new(asking)
        .await
        .unwrap_or_else(|_| Err(Error::Internal { what: "a call to the storage shard crashed".to_owned() }))
}

fn read(context: CallContext) -> Read<CallContext> {
    let mode = match context.max_staleness_ms {
        _ if context.strong => Mode::Strong,
        0 => Mode::Cached,
        ms => Mode::MaxStaleness(ms),
    };
    Read { floor: context.floor, mode, context }
}

impl TierHandler for LeaderService {
    async fn call(&self, context: CallContext, op: Op) -> Result<TierReply> {
        let log = self.log(context.shard);
        match op {
            Op::ObjectRead(ask) => {
                let found = log.reader.object(convert::id(ask.id)?, read(context)).await?;
                let state = internal::ObjectState { object: found.value };
                Ok(TierReply { as_of: found.as_of, body: ReplyBody::Object(state) })
            }
            Op::ListRead(ask) => {
                let id1 = convert::id(ask.id1)?;
                let newest = ask.newest as usize;
                let found = log.reader.list(id1, TypeId(ask.atype), newest, read(context)).await?;
                // Not more than was asked for, whatever else is cached.
                let edges = found.value.newest_bytes(newest);
                let state = internal::ListState { count: found.value.count(), edges };
                Ok(TierReply { as_of: found.as_of, body: ReplyBody::List(state) })
            }
            Op::Write(write) => self.write(context, write).await,
            // What lies beyond a cached list is read through.
            Op::ListScan(_) | Op::EdgesRead(_) | Op::AllocateIds(_) | Op::LogRead(_) => through(log, context, op).await,
        }
    }

    async fn subscribe(
        &self,
        request: internal::SubscribeRequest,
    ) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
        let place = self.topology.index_of(LogId(request.log));
        let log = place.map(|place| &self.logs[place]);
        let log = log.ok_or_else(|| Error::invalid("log", format!("there is no log {}", request.log)))?;
        let origin = Origin::from(&request);
        let stream = tao_stream::subscribe(&log.ring, Arc::new(log.shards.clone()), origin).await?;
        tracing::info!(subscriber = request.subscriber, log = request.log, ?origin, "change stream opened");
        Ok(stream)
    }
}
