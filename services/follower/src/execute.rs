//! Runs validated calls: reads from the caches, writes at the leader.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tao_cache::{CachedReader, Fresh, Read};
use tao_model::limits::MAX_ANSWER;
use tao_model::{AssocRef, Error, Key, ObjectId, Placement, Result, Schema, ShardId, Write, WriteOutcome};
use tao_proto::{Answer, convert, edges, internal};
use tao_rpc::{CallContext, Op, ReplyBody};
use tao_topology::{ClusterMap, Topology};

use crate::answers;
use crate::log::{Log, Meeting};
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
    /// Which log has which shards.
    pub topology: Arc<Topology>,
    /// Known once a change stream has begun.
    pub meeting: Meeting,
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

    /// A key is about to be read.
    pub fn note(&self, shard: ShardId, key: Key) {
        self.logs[self.topology.place_of(shard)].sampler.offer(key);
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
        self.note(shard, Key::Object(id));
        self.reader(shard).object(id, self.read(session, shard, context)?).await
    }

    async fn object(&self, id: ObjectId, session: &Session, context: &CallContext) -> Executed {
        match self.object_state(id, session, context).await {
            Ok(found) => Executed {
                result: found.value.map(answers::object).ok_or_else(|| not_found(id)),
                seen: vec![(Self::shard(session, id), found.as_of)],
            },
            Err(error) => error.into(),
        }
    }

    /// Many objects, each with its result or error.
    pub async fn objects(&self, ids: &[ObjectId], session: &Session, context: &CallContext) -> Executed {
        let found = join_all(ids.iter().map(|id| self.object_state(*id, session, context))).await;
        let mut answer = Answer::new();
        let mut seen = Vec::new();
        for (id, found) in ids.iter().zip(found) {
            let result = match found {
                Ok(found) => {
                    seen.push((Self::shard(session, *id), found.as_of));
                    found.value.ok_or_else(|| not_found(*id))
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

    /// A write: at the leader, then into this follower's caches, then to the caller (COHERENCE rule 9).
    pub async fn run_write(&self, write: Write, session: &Session, context: &CallContext) -> Executed {
        let write = placed(write, session);
        let idempotency_key = session.idempotency_key.clone();
        let context = CallContext { idempotency_key, shard: route(&write, session), ..context.clone() };
        let outcome = match self.write(&write, &context).await {
            Ok(outcome) => outcome,
            Err(error) => return error.into(),
        };
        let mut seen: Vec<Seen> = outcome.changes.iter().map(|c| (c.shard, c.position)).collect();
        if seen.is_empty() {
            let keys = self.keys(&write);
            seen.extend(keys.first().map(|key| (Self::shard(session, key.owner()), outcome.position)));
            for key in keys {
                self.reader(Self::shard(session, key.owner())).memory().outdate(&key, outcome.position);
            }
        }
        Executed { result: self.write_answer(&write, outcome), seen }
    }

    async fn write(&self, write: &Write, context: &CallContext) -> Result<WriteOutcome> {
        let reply = self.leaders.call(context, Op::Write(write.into())).await?;
        let ReplyBody::Written(written) = reply.body else { return Err(unexpected()) };
        let outcome = convert::outcome(written, reply.as_of)?;
        for change in &outcome.changes {
            self.reader(change.shard).memory().apply(change);
        }
        Ok(outcome)
    }

    /// What a write of something that exists is about; first what it names.
    fn keys(&self, write: &Write) -> Vec<Key> {
        let lists = |edge: &AssocRef| {
            let inverse = self.schema.assoc(edge.atype).and_then(|t| t.inverse).map(|atype| Key::List(edge.id2, atype));
            [Some(Key::List(edge.id1, edge.atype)), inverse].into_iter().flatten().collect()
        };
        match write {
            Write::ObjectAdd { .. } => Vec::new(),
            Write::ObjectUpdate { id, .. } | Write::ObjectUpsert { id, .. } | Write::ObjectDelete { id, .. } => {
                vec![Key::Object(*id)]
            }
            Write::AssocAdd { edge, .. } | Write::AssocDelete { edge } | Write::AssocChangeType { edge, .. } => {
                lists(edge)
            }
        }
    }

    fn write_answer(&self, write: &Write, outcome: WriteOutcome) -> Result<Answer> {
        let result = outcome.result;
        let assoc = |id1, atype, edge: Option<Bytes>| {
            let name = &self.schema.assoc(atype).ok_or_else(unexpected)?.name;
            Ok::<_, Error>(edges::full_assoc(id1, name, &edge.ok_or_else(unexpected)?))
        };
        Ok(match write {
            Write::ObjectAdd { .. } | Write::ObjectUpdate { .. } => {
                answers::object(result.object.ok_or_else(unexpected)?)
            }
            Write::ObjectUpsert { .. } => answers::upserted(result.object.ok_or_else(unexpected)?, result.applied),
            Write::ObjectDelete { .. } => answers::object_deleted(result.applied),
            Write::AssocAdd { edge, .. } => {
                answers::assoc_added(assoc(edge.id1, edge.atype, result.edge)?, result.applied, result.count)
            }
            Write::AssocDelete { .. } => answers::assoc_deleted(result.applied, result.count),
            Write::AssocChangeType { edge, new_atype } => {
                answers::assoc_changed(assoc(edge.id1, *new_atype, result.edge)?, result.count)
            }
        })
    }

    /// Ids for objects to come.
    pub async fn allocate(
        &self,
        count: usize,
        shard: Option<ShardId>,
        session: &Session,
        context: &CallContext,
    ) -> Executed {
        let op = Op::AllocateIds(internal::AllocateIds { count: count as u32 });
        let shard = shard.unwrap_or_else(|| any_shard(session));
        let context = CallContext { shard, ..context.clone() };
        let result = self.leaders.call(&context, op).await.and_then(|reply| match reply.body {
            ReplyBody::Ids(ids) => Ok(answers::ids(ids.ids)),
            _ => Err(unexpected()),
        });
        Executed { result, seen: Vec::new() }
    }
}

/// A shard chosen evenly; of a write that may be repeated, always the same.
fn any_shard(session: &Session) -> ShardId {
    let layout = &session.map().layout;
    match session.idempotency_key.as_str() {
        "" => ShardId(rand::random_range(0..layout.shards())),
        key => layout.shard_of_key(key),
    }
}

/// A write whose new object has its shard.
fn placed(mut write: Write, session: &Session) -> Write {
    if let Write::ObjectAdd { placement: placement @ Placement::Anywhere, .. } = &mut write {
        *placement = Placement::Shard(any_shard(session));
    }
    write
}

/// The shard whose log orders a write.
fn route(write: &Write, session: &Session) -> ShardId {
    let id = match write {
        Write::ObjectAdd { placement: Placement::Shard(shard), .. } => return *shard,
        Write::ObjectAdd { placement: Placement::Anywhere, .. } => return any_shard(session),
        Write::ObjectAdd { placement: Placement::Allocated(id), .. }
        | Write::ObjectUpdate { id, .. }
        | Write::ObjectUpsert { id, .. }
        | Write::ObjectDelete { id, .. } => *id,
        Write::AssocAdd { edge, .. } | Write::AssocDelete { edge } | Write::AssocChangeType { edge, .. } => edge.id1,
    };
    session.map().shard(id)
}

fn not_found(id: ObjectId) -> Error {
    Error::NotFound { what: format!("object {id}") }
}
