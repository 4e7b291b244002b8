//! The gRPC service: options and deadline in, validated call through the executor, answer and session token out.

use std::sync::Arc;

use tao_access::{Access, Caller, Standing};
use tao_cache::Mode;
use tao_model::mutation::{Rule, is_off};
use tao_model::{Error, Result, Violations, Write};
use tao_proto::server::graph_service_server::GraphService;
use tao_proto::{Answer, error, metadata, v1};
use tao_rpc::{CallContext, DeadlineLimits, Drain, Exchange, ServerLimits};
use tao_runtime::{AnswerBytes, Ending};
use tao_topology::ClusterMap;
use tao_trace::FOUND_IN;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::admission::{Account, Kind, Pass, Taken};
use crate::answers;
use crate::batch::kind_of;
use crate::execute::Executor;
use crate::hits::At;
use crate::peers::{Origin, authorization, peer};
use crate::pipeline::Pipeline;
use crate::session::{Seen, Session};
use crate::validate::{self, Door, ReadCall};
use crate::watch::{self, WatchStream, Watches};

/// tao.v1.GraphService.
#[derive(Clone)]
pub struct Graph {
    executor: Arc<Executor>,
    access: Access,
    limits: Arc<ServerLimits>,
    watches: Watches,
}

type Answered = Result<Response<Answer>, Status>;

/// Who asks, and what travels beside the message.
struct Asking {
    taken: Taken,
    metadata: MetadataMap,
}

impl Graph {
    /// Over this executor.
    pub fn new(executor: Executor, access: Access, watches: Watches) -> Self {
        Self { executor: Arc::new(executor), access, limits: Arc::default(), watches }
    }

    /// Who is at the other end of a stream.
    fn standing(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Standing, Status> {
        let begun = Standing::begin(&self.access, peer(extensions), authorization(metadata));
        begun.map_err(|error| error::to_status(&error))
    }

    /// What is counted of a caller.
    fn account(&self, caller: &Caller) -> Arc<Account> {
        self.executor.admission.account(caller.name())
    }

    /// Lets a call go on to the leaders: one that is so many.
    fn enter(&self, asking: &Asking, kind: Kind, calls: usize) -> Result<Pass, Status> {
        self.executor.admission.enter(&asking.taken.account, kind, calls).map_err(|error| error::to_status(&error))
    }

    /// Splits a request into who asks and its message.
    fn parts<T>(&self, request: Request<T>) -> Result<(Asking, T), Status> {
        let (metadata, mut extensions, message) = request.into_parts();
        if let Some(taken) = extensions.remove() {
            return Ok((Asking { taken, metadata }, message));
        }
        let caller = self.access.caller(&peer(&extensions), authorization(&metadata));
        let caller = caller.map_err(|error| error::to_status(&error))?;
        let account = self.account(&caller);
        Ok((Asking { taken: Taken { caller, account }, metadata }, message))
    }

    async fn read(
        &self,
        asking: Asking,
        options: Option<v1::ReadOptions>,
        check: impl FnOnce(&Door<'_>, &mut Violations) -> Option<ReadCall>,
    ) -> Answered {
        let (session, call, context) = self.prepare(&asking, |map, v| {
            let session = Session::of_read(&asking.taken.caller, map, options.as_ref(), &asking.metadata, v)?;
            Ok((session, check(&self.executor.door(map), v)))
        })?;
        if let Some((result, at)) = self.hit(&call, &session) {
            tao_trace::note(FOUND_IN, "memory");
            return respond(session, result, (!is_off(Rule::ReadTokens)).then_some((at.shard, at.position)));
        }
        let pass = self.enter(&asking, Kind::Read, 1)?;
        let mut executed = self.executor.run_read(call, &session, &context).await;
        pass.ended(&executed.result);
        if is_off(Rule::ReadTokens) {
            executed.seen.clear();
        }
        respond(session, executed.result, executed.seen)
    }

    /// What memory has, if it will do.
    fn hit(&self, call: &ReadCall, session: &Session) -> Option<(Result<Answer>, At)> {
        if session.mode() != Mode::Cached {
            return None;
        }
        let floor = session.floor_token();
        self.executor.hit(session.map(), call, session.caller(), floor, |found, at| (answers::found(call, found), at))
    }

    async fn write(
        &self,
        asking: Asking,
        options: Option<v1::WriteOptions>,
        check: impl FnOnce(&Door<'_>, &mut Violations) -> Option<Write>,
    ) -> Answered {
        let (session, write, context) = self.prepare(&asking, |map, v| {
            let session = Session::of_write(&asking.taken.caller, map, options.as_ref(), &asking.metadata, v)?;
            Ok((session, check(&self.executor.door(map), v)))
        })?;
        let pass = self.enter(&asking, Kind::Write, 1)?;
        let executed = self.executor.run_write(write, &session, &context).await;
        pass.ended(&executed.result);
        respond(session, executed.result, executed.seen)
    }

    /// Reads deadline, options and call; every violation of all three is reported at once.
    fn prepare<T>(
        &self,
        asking: &Asking,
        check: impl FnOnce(&ClusterMap, &mut Violations) -> Result<(Session, Option<T>)>,
    ) -> Result<(Session, T, CallContext), Status> {
        let prepare = || {
            let context =
                CallContext::from_metadata(&asking.metadata, &DeadlineLimits::default(), tao_trace::current())?;
            let mut violations = Violations::default();
            let (session, call) = check(self.executor.map()?, &mut violations)?;
            Ok((session, validate::taken(call, violations)?, context))
        };
        prepare().map_err(|error: Error| error::to_status(&error))
    }
}

/// Completes an answer, or an error, with the session's token: in the message, and as metadata where there is no message, or where
/// the request had it there. (A header that is another each time costs both sides about a tenth of a hit.)
fn respond(session: Session, result: Result<Answer>, seen: impl IntoIterator<Item = Seen>) -> Answered {
    let by_metadata = session.is_by_metadata() || result.is_err();
    let token = session.token_with(seen);
    let mut answered = match result {
        Ok(answer) => {
            let mut response = Response::new(answers::with_token(answer, &token));
            let bytes = response.get_ref().len();
            if bytes > AnswerBytes::LARGE {
                response.extensions_mut().insert(AnswerBytes(bytes));
            }
            Ok(response)
        }
        Err(error) => Err(error::to_status(&error)),
    };
    if by_metadata && let Ok(mut header) = MetadataValue::try_from(&token) {
        // Each is another: not worth a place in the connection's table of headers, on either side.
        header.set_sensitive(true);
        let metadata = match &mut answered {
            Ok(response) => response.metadata_mut(),
            Err(status) => status.metadata_mut(),
        };
        metadata.insert(metadata::SESSION_TOKEN, header);
    }
    answered
}

#[tonic::async_trait]
impl GraphService for Graph {
    async fn object_add(&self, request: Request<v1::ObjectAddRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.write(asking, message.options.take(), |door, v| door.object_add(message, v)).await
    }

    async fn object_get(&self, request: Request<v1::ObjectGetRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.read(asking, message.options.take(), |door, v| door.object_get(&message, v)).await
    }

    async fn object_multi_get(&self, request: Request<v1::ObjectMultiGetRequest>) -> Answered {
        let (asking, message) = self.parts(request)?;
        let (session, ids, context) = self.prepare(&asking, |map, v| {
            let session = Session::of_read(&asking.taken.caller, map, message.options.as_ref(), &asking.metadata, v)?;
            Ok((session, Some(self.executor.door(map).object_multi_get(&message, v))))
        })?;
        let pass = self.enter(&asking, Kind::Read, ids.len())?;
        let executed = self.executor.objects(&ids, &session, &context).await;
        pass.ended(&executed.result);
        respond(session, executed.result, executed.seen)
    }

    async fn object_update(&self, request: Request<v1::ObjectUpdateRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.write(asking, message.options.take(), |door, v| door.object_update(message, v)).await
    }

    async fn object_upsert(&self, request: Request<v1::ObjectUpsertRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.write(asking, message.options.take(), |door, v| door.object_upsert(message, v)).await
    }

    async fn object_delete(&self, request: Request<v1::ObjectDeleteRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.write(asking, message.options.take(), |door, v| door.object_delete(&message, v)).await
    }

    async fn assoc_add(&self, request: Request<v1::AssocAddRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.write(asking, message.options.take(), |door, v| door.assoc_add(message, v)).await
    }

    async fn assoc_delete(&self, request: Request<v1::AssocDeleteRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.write(asking, message.options.take(), |door, v| door.assoc_delete(&message, v)).await
    }

    async fn assoc_change_type(&self, request: Request<v1::AssocChangeTypeRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.write(asking, message.options.take(), |door, v| door.assoc_change_type(&message, v)).await
    }

    async fn assoc_get(&self, request: Request<v1::AssocGetRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.read(asking, message.options.take(), |door, v| door.assoc_get(&message, v)).await
    }

    async fn assoc_count(&self, request: Request<v1::AssocCountRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.read(asking, message.options.take(), |door, v| door.assoc_count(&message, v)).await
    }

    async fn assoc_range(&self, request: Request<v1::AssocRangeRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.read(asking, message.options.take(), |door, v| door.assoc_range(&message, v)).await
    }

    async fn assoc_time_range(&self, request: Request<v1::AssocTimeRangeRequest>) -> Answered {
        let (asking, mut message) = self.parts(request)?;
        self.read(asking, message.options.take(), |door, v| door.assoc_time_range(&message, v)).await
    }

    async fn batch(&self, request: Request<v1::BatchRequest>) -> Answered {
        let (asking, message) = self.parts(request)?;
        let (session, items, context) = self.prepare(&asking, |map, v| {
            validate::batch_size(message.items.len(), v);
            let session = Session::of_read(&asking.taken.caller, map, message.options.as_ref(), &asking.metadata, v)?;
            Ok((session, Some(message.items)))
        })?;
        let pass = self.enter(&asking, kind_of(&items), items.len())?;
        let (executed, session) = self.executor.batch(items, session, &context).await;
        pass.ended(&executed.result);
        respond(session, executed.result, executed.seen)
    }

    async fn write_batch(&self, request: Request<v1::WriteBatchRequest>) -> Answered {
        let (asking, message) = self.parts(request)?;
        let (session, batch, context) = self.prepare(&asking, |map, v| {
            let session = Session::of_write(&asking.taken.caller, map, message.options.as_ref(), &asking.metadata, v)?;
            let batch = self.executor.door(map).write_batch(message, &session, v);
            Ok((session, batch))
        })?;
        let pass = self.enter(&asking, Kind::Write, batch.len())?;
        let executed = self.executor.write_batch(batch, &session, &context).await;
        pass.ended(&executed.result);
        respond(session, executed.result, executed.seen)
    }

    async fn allocate_ids(&self, request: Request<v1::AllocateIdsRequest>) -> Answered {
        let (asking, message) = self.parts(request)?;
        let (session, (count, shard), context) = self.prepare(&asking, |map, v| {
            let count = validate::id_count(message.count, v);
            let shard = self.executor.door(map).placement(message.placement.as_ref(), v);
            let session = Session::of_write(&asking.taken.caller, map, message.options.as_ref(), &asking.metadata, v)?;
            Ok((session, Some((count, shard))))
        })?;
        let pass = self.enter(&asking, Kind::Write, 1)?;
        let executed = self.executor.allocate(count, shard, &session, &context).await;
        pass.ended(&executed.result);
        respond(session, executed.result, executed.seen)
    }

    type WatchStream = WatchStream;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<WatchStream>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let caller = self.standing(&metadata, &extensions)?;
        let account = self.account(caller.last());
        watch::watch(&self.executor, &self.watches, caller, &account, &metadata, &extensions, &message).await
    }

    type PipelineStream = Exchange<Pipeline>;

    async fn pipeline(
        &self,
        request: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Exchange<Pipeline>>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let caller = self.standing(&metadata, &extensions)?;
        let drain = extensions.get::<Ending>().map_or_else(Drain::new, |ending| Drain::from(ending.token()));
        let account = self.account(caller.last());
        let pipeline = Pipeline::new(self.executor.clone(), caller, account, Origin::of(&extensions).gate);
        Ok(Response::new(Exchange::new(pipeline, self.limits.clone(), &drain, requests)))
    }
}
