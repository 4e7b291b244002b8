//! One call of a pipeline: checked, then run as the call of its name.

use std::sync::{Arc, LazyLock};

use tao_access::Caller;
use tao_model::{Result, ShardId, Token, Violations, Write};
use tao_proto::v1::pipeline_call::Call;
use tao_proto::v1::{BatchItem, Consistency, ReadOptions};
use tao_rpc::CallContext;
use tao_runtime::{CallDurations, MethodSeries};
use tao_topology::ClusterMap;

use super::Piped;
use crate::admission::Kind;
use crate::batch::kind_of;
use crate::execute::{Executed, Executor};
use crate::session::Session;
use crate::validate::{self, Door, ReadCall};
use crate::write_batch::BatchCall;

/// The number of a call's field in PipelineCall, which is also that of its answer in PipelineAnswer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field(pub u32);

/// By number, from that of an answer that is an error on: it has the name of the stream's own.
const NAMES: [&str; 17] = [
    "tao.v1.GraphService/Pipeline",
    "tao.v1.GraphService/ObjectGet",
    "tao.v1.GraphService/AssocGet",
    "tao.v1.GraphService/AssocCount",
    "tao.v1.GraphService/AssocRange",
    "tao.v1.GraphService/AssocTimeRange",
    "tao.v1.GraphService/ObjectMultiGet",
    "tao.v1.GraphService/ObjectAdd",
    "tao.v1.GraphService/ObjectUpdate",
    "tao.v1.GraphService/ObjectUpsert",
    "tao.v1.GraphService/ObjectDelete",
    "tao.v1.GraphService/AssocAdd",
    "tao.v1.GraphService/AssocDelete",
    "tao.v1.GraphService/AssocChangeType",
    "tao.v1.GraphService/Batch",
    "tao.v1.GraphService/WriteBatch",
    "tao.v1.GraphService/AllocateIds",
];

impl Field {
    /// Of an answer that is an error.
    pub const ERROR: Self = Self(3);
    pub const OBJECT_GET: Self = Self(4);
    pub const ASSOC_GET: Self = Self(5);
    pub const ASSOC_COUNT: Self = Self(6);
    pub const ASSOC_RANGE: Self = Self(7);
    pub const ASSOC_TIME_RANGE: Self = Self(8);

    /// Where durations of these calls are counted: with those of the calls that come by themselves.
    pub fn series(self) -> MethodSeries {
        static ALL: LazyLock<Vec<MethodSeries>> = LazyLock::new(|| {
            let series = |name: &&str| {
                let (service, method) = name.split_once('/').unwrap_or_default();
                CallDurations::of_process().method(service, method)
            };
            NAMES.iter().map(series).collect()
        });
        ALL[self.place()]
    }

    /// What its calls compete with.
    pub const fn kind(self) -> Kind {
        match self.0 {
            // A batch may be of either, and is looked at when it is opened.
            4..=9 | 17 => Kind::Read,
            _ => Kind::Write,
        }
    }

    /// What their spans are called.
    pub fn span_name(self) -> &'static str {
        NAMES[self.place()]
    }

    fn place(self) -> usize {
        (self.0 as usize).saturating_sub(Self::ERROR.0 as usize).min(NAMES.len() - 1)
    }

    /// Of a call.
    pub fn of(call: &Call) -> Self {
        Self(match call {
            Call::ObjectGet(_) => return Self::OBJECT_GET,
            Call::AssocGet(_) => return Self::ASSOC_GET,
            Call::AssocCount(_) => return Self::ASSOC_COUNT,
            Call::AssocRange(_) => return Self::ASSOC_RANGE,
            Call::AssocTimeRange(_) => return Self::ASSOC_TIME_RANGE,
            Call::ObjectMultiGet(_) => 9,
            Call::ObjectAdd(_) => 10,
            Call::ObjectUpdate(_) => 11,
            Call::ObjectUpsert(_) => 12,
            Call::ObjectDelete(_) => 13,
            Call::AssocAdd(_) => 14,
            Call::AssocDelete(_) => 15,
            Call::AssocChangeType(_) => 16,
            Call::Batch(_) => 17,
            Call::WriteBatch(_) => 18,
            Call::AllocateIds(_) => 19,
        })
    }
}

/// A valid read without options that take thought, and whether its token is a floor.
pub fn plain_read(call: &Call, door: &Door<'_>) -> Option<(ReadCall, bool)> {
    let mut violations = Violations::default();
    let v = &mut violations;
    let (options, read) = match call {
        Call::ObjectGet(r) => (&r.options, door.object_get(r, v)),
        Call::AssocGet(r) => (&r.options, door.assoc_get(r, v)),
        Call::AssocCount(r) => (&r.options, door.assoc_count(r, v)),
        Call::AssocRange(r) => (&r.options, door.assoc_range(r, v)),
        Call::AssocTimeRange(r) => (&r.options, door.assoc_time_range(r, v)),
        _ => return None,
    };
    let floors = match options {
        None => true,
        Some(ReadOptions { consistency, session_token, max_staleness_ms: 0 }) if session_token.is_empty() => {
            match Consistency::try_from(*consistency) {
                Ok(Consistency::Unspecified) => true,
                Ok(Consistency::MinimizeLatency) => false,
                _ => return None,
            }
        }
        Some(_) => return None,
    };
    violations.check().ok()?;
    Some((read?, floors))
}

/// Reads are many, and small; what is large is kept apart.
enum Task {
    Read(ReadCall),
    Write(Box<Write>),
    Objects(Vec<tao_model::ObjectId>),
    Batch(Vec<BatchItem>),
    WriteBatch(Box<BatchCall>),
    Allocate(usize, Option<ShardId>),
}

/// A call that may run.
pub struct Prepared {
    field: Field,
    session: Session,
    task: Task,
}

impl Prepared {
    /// Checks a call; every violation is reported at once. `None` when it has left some.
    pub fn new(
        caller: &Arc<Caller>,
        door: &Door<'_>,
        map: &ClusterMap,
        given: Option<&Token>,
        call: Call,
        v: &mut Violations,
    ) -> Result<Option<Self>> {
        let field = Field::of(&call);
        macro_rules! reads {
            ($request:expr, $task:expr) => {{
                let session = Session::of_piped_read(caller, map, given, $request.options.as_ref(), v)?;
                (session, $task)
            }};
        }
        macro_rules! writes {
            ($request:expr, $task:expr) => {{
                let session = Session::of_piped_write(caller, map, given, $request.options.as_ref(), v)?;
                (session, $task)
            }};
        }
        let (session, task) = match call {
            Call::ObjectGet(r) => reads!(r, door.object_get(&r, v).map(Task::Read)),
            Call::AssocGet(r) => reads!(r, door.assoc_get(&r, v).map(Task::Read)),
            Call::AssocCount(r) => reads!(r, door.assoc_count(&r, v).map(Task::Read)),
            Call::AssocRange(r) => reads!(r, door.assoc_range(&r, v).map(Task::Read)),
            Call::AssocTimeRange(r) => reads!(r, door.assoc_time_range(&r, v).map(Task::Read)),
            Call::ObjectMultiGet(r) => reads!(r, Some(Task::Objects(door.object_multi_get(&r, v)))),
            Call::ObjectAdd(r) => writes!(r, door.object_add(*r, v).map(|write| Task::Write(write.into()))),
            Call::ObjectUpdate(r) => writes!(r, door.object_update(*r, v).map(|write| Task::Write(write.into()))),
            Call::ObjectUpsert(r) => writes!(r, door.object_upsert(*r, v).map(|write| Task::Write(write.into()))),
            Call::ObjectDelete(r) => writes!(r, door.object_delete(&r, v).map(|write| Task::Write(write.into()))),
            Call::AssocAdd(r) => writes!(r, door.assoc_add(*r, v).map(|write| Task::Write(write.into()))),
            Call::AssocDelete(r) => writes!(r, door.assoc_delete(&r, v).map(|write| Task::Write(write.into()))),
            Call::AssocChangeType(r) => {
                writes!(r, door.assoc_change_type(&r, v).map(|write| Task::Write(write.into())))
            }
            Call::Batch(r) => {
                validate::batch_size(r.items.len(), v);
                reads!(r, Some(Task::Batch(r.items)))
            }
            Call::WriteBatch(r) => {
                let session = Session::of_piped_write(caller, map, given, r.options.as_ref(), v)?;
                let batch = door.write_batch(*r, &session, v);
                (session, batch.map(|batch| Task::WriteBatch(batch.into())))
            }
            Call::AllocateIds(r) => {
                let task = Task::Allocate(validate::id_count(r.count, v), door.placement(r.placement.as_ref(), v));
                writes!(r, Some(task))
            }
        };
        Ok(task.map(|task| Self { field, session, task }))
    }

    /// Whether it may change something.
    pub const fn is_write(&self) -> bool {
        match self.task {
            Task::Read(_) | Task::Objects(_) => false,
            Task::Write(_) | Task::Batch(_) | Task::WriteBatch(_) | Task::Allocate(..) => true,
        }
    }

    /// What it competes with once memory does not have it, and for how many calls it stands; at least 1.
    pub fn load(&self) -> (Kind, usize) {
        let (kind, calls) = match &self.task {
            Task::Read(_) => (Kind::Read, 1),
            Task::Objects(ids) => (Kind::Read, ids.len()),
            Task::Batch(items) => (kind_of(items), items.len()),
            Task::WriteBatch(batch) => (Kind::Write, batch.len()),
            Task::Write(_) | Task::Allocate(..) => (Kind::Write, 1),
        };
        (kind, calls.max(1))
    }

    /// Runs it.
    pub async fn run(self, executor: Arc<Executor>, context: CallContext) -> Piped {
        let Self { field, session, task } = self;
        let is_batch = matches!(task, Task::Batch(_));
        let (executed, session) = match task {
            Task::Read(call) => (executor.run_read(call, &session, &context).await, session),
            Task::Write(write) => (executor.run_write(*write, &session, &context).await, session),
            Task::Objects(ids) => (executor.objects(&ids, &session, &context).await, session),
            Task::Batch(items) => executor.batch(items, session, &context).await,
            Task::WriteBatch(batch) => (executor.write_batch(*batch, &session, &context).await, session),
            Task::Allocate(count, shard) => (executor.allocate(count, shard, &session, &context).await, session),
        };
        let Executed { result, seen } = executed;
        // A batch's items may have brought tokens of their own, which its answer covers.
        let token = if is_batch { session.token_with(seen) } else { session.token_of(seen) };
        (field, result, token)
    }
}
