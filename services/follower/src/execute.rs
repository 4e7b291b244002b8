//! Runs validated calls: reads from the caches. Writes are in `writes` and `write_batch`.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tao_cache::{CachedReader, Fresh, Read};
use tao_model::limits::MAX_ANSWER;
use tao_model::{Error, ObjectId, Result, Schema, ShardId};
use tao_proto::{Answer, internal};
use tao_rpc::{CallContext, Op, ReplyBody};
use tao_topology::{ClusterMap, Topology};

use crate::admission::Admission;
use crate::answers;
use crate::log::{Log, Meeting};
use crate::place;
use crate::session::{Seen, Session};
use crate::upstream::{Leaders, unexpected};
use crate::validate::{Door, ListRef, ReadCall};

/// A call that ended: its answer without the session token, and what it has seen (a failed call may have seen something too).
pub struct Executed {
    /// The answer.
    pub result: Result<Answer>,
    /// For the session's token.
    pub seen: Vec<Seen>,
}

impl From<Error> for Executed {
    fn from(error: Error) -> Self {
        Self { result: Err(error), seen: Vec::new() }
    }
}

/// Everything that running a call takes.
#[derive(Clone)]
pub struct Executor {
    /// The caches of each log, by place in the topology.
    pub logs: Arc<[Log]>,
    /// The leaders, for what caches can't serve.
    pub leaders: Leaders,
    /// The types.
    pub schema: Arc<Schema>,
    /// Whether a line is logged for each write.
    pub logs_writes: bool,
    /// Which log has which shards.
    pub topology: Arc<Topology>,
    /// Known once a change stream has begun.
    pub meeting: Meeting,
    /// What is taken in.
    pub admission: Arc<Admission>,
}

impl Executor {
    /// The cluster, once a leader has told it.
    pub fn map(&self) -> Result<&ClusterMap> {
        self.meeting.map()
    }

    /// What requests are checked against.
    pub fn door(&self, map: &ClusterMap) -> Door<'_> {
        Door { schema: &self.schema, layout: map.layout }
    }

    /// The caches that hold a shard's keys.
    pub fn reader(&self, shard: ShardId) -> &CachedReader<Leaders> {
        &self.logs[self.topology.place_of(shard)].reader
    }

    /// How a session reads the keys of a shard.
    pub fn read(&self, session: &Session, shard: ShardId, context: &CallContext) -> Result<Read<CallContext>> {
        let epoch = self.reader(shard).memory().applied().map(|p| p.epoch);
        let floor = session.floor(shard, epoch)?;
        Ok(Read { floor, mode: session.mode(), context: CallContext { shard, ..context.clone() } })
    }

    /// The shard that `id` lives on.
    pub const fn shard(session: &Session, id: ObjectId) -> ShardId {
        session.map().shard(id)
    }

    /// A read.
    pub async fn run_read(&self, call: ReadCall, session: &Session, context: &CallContext) -> Executed {
        if let Err(error) = self.may_read(&call, session.caller()) {
            return error.into();
        }
        match call {
            ReadCall::Object(id) => self.object(id, session, context).await,
            ReadCall::Count(list) => self.count(list, session, context).await,
            ReadCall::Edges { list, id2s, times } => self.edges(list, id2s, times, session, context).await,
            ReadCall::Range(range) => self.range(range, session, context).await,
        }
    }

    /// An object's encoded state.
    pub async fn object_state(
        &self,
        id: ObjectId,
        session: &Session,
        context: &CallContext,
    ) -> Result<Fresh<Option<Bytes>>> {
        let shard = Self::shard(session, id);
        self.reader(shard).object(id, self.read(session, shard, context)?).await
    }

    async fn object(&self, id: ObjectId, session: &Session, context: &CallContext) -> Executed {
        match self.readable_object(id, session, context).await {
            Ok(found) => Executed {
                result: found.value.map(answers::object).ok_or_else(|| answers::no_object(id)),
                seen: vec![(Self::shard(session, id), found.as_of)],
            },
            Err(error) => error.into(),
        }
    }

    /// Many objects, each with its result or error.
    pub async fn objects(&self, ids: &[ObjectId], session: &Session, context: &CallContext) -> Executed {
        let found = join_all(ids.iter().map(|id| self.readable_object(*id, session, context))).await;
        let mut answer = Answer::new();
        let mut seen = Vec::new();
        for (id, found) in ids.iter().zip(found) {
            let result = match found {
                Ok(found) => {
                    seen.push((Self::shard(session, *id), found.as_of));
                    found.value.ok_or_else(|| answers::no_object(*id))
                }
                Err(error) => Err(error),
            };
            answers::push_object_result(&mut answer, result, MAX_ANSWER);
        }
        Executed { result: Ok(answer), seen }
    }

    async fn count(&self, list: ListRef, session: &Session, context: &CallContext) -> Executed {
        match self.list(list, 0, session, context).await {
            Ok(found) => Executed {
                result: Ok(answers::count(found.value.count())),
                seen: vec![(Self::shard(session, list.id1), found.as_of)],
            },
            Err(error) => error.into(),
        }
    }

    /// Ids for objects to come.
    pub async fn allocate(
        &self,
        count: usize,
        shard: Option<ShardId>,
        session: &Session,
        context: &CallContext,
    ) -> Executed {
        if let Err(error) = session.caller().may_write_something() {
            return error.into();
        }
        let op = Op::AllocateIds(internal::AllocateIds { count: count as u32 });
        let shard = shard.unwrap_or_else(|| place::any_shard(session));
        let context = CallContext { shard, ..context.clone() };
        let result = self.leaders.call(&context, op).await.and_then(|reply| match reply.body {
            ReplyBody::Ids(ids) => Ok(answers::ids(ids.ids)),
            _ => Err(unexpected()),
        });
        Executed { result, seen: Vec::new() }
    }
}
