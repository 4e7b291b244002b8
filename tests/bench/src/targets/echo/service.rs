//! tao's own public service, with answers that are there already.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tao_client::v1;
use tao_proto::Answer;
use tao_proto::server::graph_service_server::{GraphService, GraphServiceServer};
use tonic::{Request, Response, Status, Streaming};

use super::answers::Answers;
use super::pipeline;

const TOKEN: u32 = 15;
/// AssocRangeResponse's.
pub const CURSOR: u32 = 3;
/// As the follower takes an unset limit.
pub const DEFAULT_LIMIT: usize = 50;

/// The service.
pub struct Echo(Arc<Answers>);

/// Over these answers.
pub fn server(answers: Arc<Answers>) -> GraphServiceServer<Echo> {
    GraphServiceServer::new(Echo(answers))
}

impl Echo {
    fn answer(&self, mut answer: Answer) -> Result<Response<Answer>, Status> {
        answer.push_str(TOKEN, self.0.token());
        Ok(Response::new(answer))
    }
}

/// What the echo has no bytes for.
fn none<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("the echo answers ObjectGet, AssocCount and AssocRange, not {what}")))
}

macro_rules! without {
    ($($name:ident($request:ident);)*) => {
        #[tonic::async_trait]
        impl GraphService for Echo {
            type WatchStream = futures::stream::Empty<Result<Answer, Status>>;
            type PipelineStream = BoxStream<'static, Result<Answer, Status>>;

            async fn pipeline(
                &self,
                request: Request<Streaming<v1::PipelineRequest>>,
            ) -> Result<Response<Self::PipelineStream>, Status> {
                let answers = self.0.clone();
                let answered = request.into_inner().map_ok(move |request| pipeline::answer(&answers, request));
                Ok(Response::new(answered.boxed()))
            }

            async fn object_get(&self, request: Request<v1::ObjectGetRequest>) -> Result<Response<Answer>, Status> {
                let object = self.0.object(request.get_ref().id).ok_or_else(|| Status::not_found("no such object"))?;
                let mut answer = Answer::new();
                answer.push_field(1, object);
                self.answer(answer)
            }

            async fn assoc_count(&self, request: Request<v1::AssocCountRequest>) -> Result<Response<Answer>, Status> {
                let mut answer = Answer::new();
                answer.push_int(1, self.0.count(request.get_ref().id1).into());
                self.answer(answer)
            }

            async fn assoc_range(&self, request: Request<v1::AssocRangeRequest>) -> Result<Response<Answer>, Status> {
                let request = request.get_ref();
                let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit as usize };
                let (edges, has_more) = self.0.newest(request.id1, limit);
                let mut answer = Answer::new();
                answer.push_raw(edges);
                if has_more {
                    answer.push_str(CURSOR, self.0.cursor());
                }
                self.answer(answer)
            }

            async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                none("Watch")
            }

            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<Answer>, Status> {
                none(stringify!($name))
            })*
        }
    };
}

without! {
    object_add(ObjectAddRequest);
    object_multi_get(ObjectMultiGetRequest);
    object_update(ObjectUpdateRequest);
    object_upsert(ObjectUpsertRequest);
    object_delete(ObjectDeleteRequest);
    assoc_add(AssocAddRequest);
    assoc_delete(AssocDeleteRequest);
    assoc_change_type(AssocChangeTypeRequest);
    assoc_get(AssocGetRequest);
    assoc_time_range(AssocTimeRangeRequest);
    batch(BatchRequest);
    write_batch(WriteBatchRequest);
    allocate_ids(AllocateIdsRequest);
}
