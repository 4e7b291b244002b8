//! Answers followers.

use std::sync::Arc;

use futures::stream::BoxStream;
use tao_cache::{CachedReader, Mode, Read};
use tao_model::{Error, ObjectId, Result, TypeId};
use tao_proto::{convert, internal};
use tao_rpc::{CallContext, Op, ReplyBody, TierHandler, TierReply};

use crate::fanout::Fanout;
use crate::upstream::Shard;

/// The leader's side of the stream between tiers.
#[derive(Clone)]
pub struct LeaderService {
    reader: Arc<CachedReader<Shard>>,
    shard: Shard,
    fanout: Fanout,
}

impl LeaderService {
    /// Over this cache and storage shard.
    pub const fn new(reader: Arc<CachedReader<Shard>>, shard: Shard, fanout: Fanout) -> Self {
        Self { reader, shard, fanout }
    }

    async fn write(&self, context: &CallContext, write: internal::Write) -> Result<TierReply> {
        let owner = write_owner(&write)?;
        let reply = self.shard.call(context, owner, Op::Write(write)).await?;
        if let ReplyBody::Written(written) = &reply.body {
            // COHERENCE rule 9: before the caller is answered.
            self.reader.apply_write(&convert::changes(written.changes.clone())?);
        }
        Ok(reply)
    }
}

/// The id whose shard the write belongs to; none when an id is yet to be made.
fn write_owner(write: &internal::Write) -> Result<Option<ObjectId>> {
    use internal::{r#where, write::Kind};
    let raw =
        match write.kind.as_ref().ok_or_else(|| Error::Internal { what: "a write of an unknown kind".to_owned() })? {
            Kind::ObjectAdd(w) => match w.r#where.as_ref().and_then(|w| w.kind.as_ref()) {
                Some(r#where::Kind::Id(id)) => *id,
                Some(r#where::Kind::Shard(_)) | None => return Ok(None),
            },
            Kind::ObjectUpdate(w) => w.id,
            Kind::ObjectUpsert(w) => w.id,
            Kind::ObjectDelete(w) => w.id,
            Kind::AssocAdd(w) => w.id1,
            Kind::AssocDelete(w) => w.id1,
            Kind::AssocChangeType(w) => w.id1,
        };
    convert::id(raw).map(Some)
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
        match op {
            Op::ObjectRead(ask) => {
                let found = self.reader.object(convert::id(ask.id)?, read(context)).await?;
                let state = internal::ObjectState { object: found.value };
                Ok(TierReply { as_of: found.as_of, body: ReplyBody::Object(state) })
            }
            Op::ListRead(ask) => {
                let id1 = convert::id(ask.id1)?;
                let newest = ask.newest as usize;
                let found = self.reader.list(id1, TypeId(ask.atype), newest, read(context)).await?;
                // Not more than was asked for, whatever else is cached.
                let edges = found.value.newest_bytes(newest);
                let state = internal::ListState { count: found.value.count(), edges };
                Ok(TierReply { as_of: found.as_of, body: ReplyBody::List(state) })
            }
            // What lies beyond a cached list is read through.
            Op::ListScan(scan) => self.shard.call(&context, Some(convert::id(scan.id1)?), Op::ListScan(scan)).await,
            Op::EdgesRead(ask) => self.shard.call(&context, Some(convert::id(ask.id1)?), Op::EdgesRead(ask)).await,
            Op::Write(write) => self.write(&context, write).await,
            Op::AllocateIds(ask) => self.shard.call(&context, None, Op::AllocateIds(ask)).await,
        }
    }

    async fn subscribe(&self, subscriber: String) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
        let stream = self.fanout.subscribe()?;
        tracing::info!(subscriber, "change stream opened");
        Ok(stream)
    }
}
