//! Answers leaders from the store.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tao_model::limits::MAX_ANSWER;
use tao_model::{EdgeKey, Error, Position, Result, TypeId, Write};
use tao_proto::{convert, edges, internal};
use tao_rpc::{CallContext, Op, ReplyBody, TierHandler, TierReply};
use tao_store::{AsOf, EdgePage, Scan, Store, WriteContext};
use tao_trace::{Kind, Span, TraceContext};

use crate::feed;
use crate::intents::Dispatcher;

/// The storage shard's side of the stream between tiers.
#[derive(Clone)]
pub struct ShardService {
    store: Arc<dyn Store>,
    intents: Dispatcher,
}

impl ShardService {
    /// Over this store, and the logs to which its writes leave something.
    pub fn new(store: Arc<dyn Store>, intents: Dispatcher) -> Self {
        Self { store, intents }
    }

    async fn answer(&self, context: CallContext, op: Op) -> Result<TierReply> {
        let store = &self.store;
        // A write's are made in the lane.
        let _span = self.reading(context.trace, &op);
        Ok(match op {
            Op::ObjectRead(read) => {
                let mut found = store.objects(&[convert::id(read.id)?]).await?;
                let object = found.value.pop().flatten();
                TierReply { as_of: found.position, body: ReplyBody::Object(internal::ObjectState { object }) }
            }
            Op::ListRead(read) => {
                let found = store.list(convert::id(read.id1)?, TypeId(read.atype), read.newest as usize).await?;
                let (edges, _) = edges::encode_list(&found.value.edges, MAX_ANSWER);
                let state = internal::ListState { count: found.value.count, edges };
                TierReply { as_of: found.position, body: ReplyBody::List(state) }
            }
            Op::ListScan(scan) => {
                let after = match scan.after {
                    Some(after) => Some(EdgeKey { time: after.time, id2: convert::id(after.id2)? }),
                    None => None,
                };
                let scan = Scan {
                    id1: convert::id(scan.id1)?,
                    atype: TypeId(scan.atype),
                    after,
                    offset: scan.offset,
                    limit: scan.limit as usize,
                    low: scan.low,
                    high: scan.high,
                };
                edge_list(&store.scan(scan).await?)
            }
            Op::EdgesRead(read) => {
                let id2s = read.id2s.into_iter().map(convert::id).collect::<Result<Vec<_>>>()?;
                let id1 = convert::id(read.id1)?;
                let found = store.edges(id1, TypeId(read.atype), &id2s, read.low, read.high).await?;
                edge_list(&found)
            }
            Op::Write(write) => {
                let key = Some(context.idempotency_key).filter(|k| !k.is_empty());
                let write_context =
                    WriteContext { idempotency_key: key, deadline: Some(context.deadline), trace: context.trace };
                let write = Write::try_from(write)?;
                // Another log's dispatcher waits for nothing but what it has left here.
                let settles = !matches!(write, Write::Intents { .. });
                let mut outcome = store.write(write, write_context).await?;
                if settles {
                    self.intents.settle(&mut outcome, context.deadline).await;
                }
                TierReply { as_of: outcome.position, body: ReplyBody::Written((&outcome).into()) }
            }
            Op::AllocateIds(ask) => {
                let ids = store.allocate(Some(context.shard), ask.count as usize).await?;
                let ids = ids.into_iter().map(tao_model::ObjectId::get).collect();
                TierReply { as_of: Position::ZERO, body: ReplyBody::Ids(internal::AllocatedIds { ids }) }
            }
            Op::LogRead(read) => read_log(&**store, read).await?,
        })
    }
}

impl ShardService {
    /// The span of what reads from the database, with the wait for a connection.
    fn reading(&self, trace: TraceContext, op: &Op) -> Span {
        let name = match op {
            Op::ObjectRead(_) => "SELECT objects",
            Op::ListRead(_) | Op::ListScan(_) | Op::EdgesRead(_) => "SELECT assocs",
            Op::LogRead(_) => "SELECT change_log",
            Op::Write(_) | Op::AllocateIds(_) => return Span::none(),
        };
        let span = trace.span(name, Kind::Client);
        span.set("db.system.name", self.store.system());
        span
    }
}

async fn read_log(store: &dyn Store, read: internal::LogRead) -> Result<TierReply> {
    use internal::log_read::From;
    let (as_of, pieces) = match read.from {
        Some(From::After(position)) => {
            let position = position.into();
            let pieces = store.after(position).await?;
            (pieces.last().map_or(position, |piece| piece.last), pieces)
        }
        Some(From::BackMs(ms)) => (store.back(Duration::from_millis(ms)).await?, Vec::new()),
        None => return Err(Error::invalid("from", "must be set")),
    };
    let pieces = pieces.into_iter().map(Into::into).collect();
    Ok(TierReply { as_of, body: ReplyBody::Log(internal::LogPage { pieces }) })
}

fn edge_list(found: &AsOf<EdgePage>) -> TierReply {
    let (edges, fitting) = edges::encode_list(&found.value.edges, MAX_ANSWER);
    let more = found.value.more || fitting < found.value.edges.len();
    TierReply { as_of: found.position, body: ReplyBody::Edges(internal::EdgeList { edges, more }) }
}

/// Only the log's owner may say that a floor is not of its history (COHERENCE rule 11).
fn check_floor(floor: Position, as_of: Position) -> Result<()> {
    if floor <= as_of {
        let undone = floor != Position::ZERO && floor.epoch < as_of.epoch;
        return if undone { Err(Error::HistoryUndone { seen: floor, epoch: as_of.epoch }) } else { Ok(()) };
    }
    Err(Error::TokenFromFuture { seen: floor, head: as_of })
}

impl TierHandler for ShardService {
    async fn call(&self, context: CallContext, op: Op) -> Result<TierReply> {
        let floor = context.floor;
        let is_read = !matches!(op, Op::Write(_) | Op::AllocateIds(_) | Op::LogRead(_));
        let reply = self.answer(context, op).await?;
        if is_read {
            check_floor(floor, reply.as_of)?;
        }
        Ok(reply)
    }

    async fn subscribe(
        &self,
        request: internal::SubscribeRequest,
    ) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
        let log = self.store.info().log;
        if request.log != log.0 {
            return Err(Error::invalid("log", format!("this storage shard serves log {}, not {}", log.0, request.log)));
        }
        tracing::info!(subscriber = request.subscriber, "change stream opened");
        feed::stream(&self.store, &request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_outside_of_history_are_told_apart() {
        let head = Position::new(7, 10);
        assert_eq!(check_floor(Position::ZERO, head), Ok(()));
        assert_eq!(check_floor(head, head), Ok(()));
        assert!(matches!(check_floor(Position::new(7, 11), head), Err(Error::TokenFromFuture { .. })));
        assert!(matches!(check_floor(Position::new(8, 1), head), Err(Error::TokenFromFuture { .. })));
        assert!(matches!(check_floor(Position::new(6, 1), head), Err(Error::HistoryUndone { epoch: 7, .. })));
    }
}
