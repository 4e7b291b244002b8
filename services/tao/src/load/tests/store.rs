//! A store in memory that counts what is done to it, and fails as a test asks it to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tao_client::v1::batch_item::Call;
use tao_client::v1::batch_result::Result as BatchResult;
use tao_client::v1::value::Kind;
use tao_client::v1::{self, BatchResult as Item};
use tao_model::{ClusterId, Error, LogId, Position, ShardId, Token};
use tao_proto::Answer;
use tao_proto::error::{to_item, to_status};
use tao_proto::server::graph_service_server::{GraphService, GraphServiceServer};
use tokio::sync::watch;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

/// What happens to the calls of a store, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nothing is done.
    Refused,
    /// All is done, and the answer lost.
    AnswerLost,
    /// Every other item is done; the others may be tried again.
    Half,
    /// As an item's: this one can't be helped.
    Invalid,
}

#[derive(Default)]
pub struct Graph {
    cluster: u8,
    next_id: i64,
    lsn: u64,
    /// By id: its external id. A second object with an id is refused.
    pub objects: BTreeMap<i64, String>,
    /// By ends and type: its time.
    pub edges: BTreeMap<(i64, String, i64), i64>,
    pub allocated: BTreeSet<i64>,
    /// Calls that came, by kind.
    pub calls: usize,
    pub largest_batch: usize,
    /// Atomic batches that came, while they are known at all, of which every other is refused; otherwise all are, and not counted.
    pub at_once: Option<usize>,
    pub running: usize,
    pub most_running: usize,
    /// Tokens that came.
    pub tokens: Vec<String>,
    faults: Option<Box<dyn FnMut(usize) -> Fault + Send>>,
    /// Tells how many calls have come.
    counter: watch::Sender<usize>,
}

#[derive(Clone)]
pub struct Store(Arc<Mutex<Graph>>);

impl Store {
    /// Of a cluster, with something that decides over its n-th call.
    pub fn new(cluster: u8, faults: impl FnMut(usize) -> Fault + Send + 'static) -> Self {
        let faults: Box<dyn FnMut(usize) -> Fault + Send> = Box::new(faults);
        Self(Arc::new(Mutex::new(Graph { cluster, next_id: 1_000, faults: Some(faults), ..Graph::default() })))
    }

    pub fn graph(&self) -> MutexGuard<'_, Graph> {
        self.0.lock().unwrap()
    }

    /// From now on something else decides.
    pub fn heal(&self) {
        self.graph().faults = None;
    }

    /// How many calls have come, for who waits for one.
    pub fn counter(&self) -> watch::Receiver<usize> {
        self.graph().counter.subscribe()
    }

    /// Serves on a free port until the test's runtime ends.
    pub fn serve(&self) -> String {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
        let address = incoming.local_addr().unwrap().to_string();
        tokio::spawn(
            Server::builder().add_service(GraphServiceServer::new(self.clone())).serve_with_incoming(incoming),
        );
        address
    }

    fn begin(&self, token: &str) -> Result<Fault, Status> {
        let mut graph = self.graph();
        graph.calls += 1;
        graph.running += 1;
        graph.most_running = graph.most_running.max(graph.running);
        graph.tokens.push(token.to_owned());
        let calls = graph.calls;
        graph.counter.send_replace(calls);
        if !token.is_empty() {
            Token::decode(token, ClusterId([graph.cluster; 16])).map_err(|error| to_status(&error))?;
        }
        Ok(graph.faults.as_mut().map_or(Fault::None, |faults| faults(calls)))
    }
}

fn retry() -> Error {
    Error::Unavailable { what: "a leader".to_owned(), not_applied: false, retry_after: Duration::from_millis(1) }
}

impl Graph {
    fn token(&mut self) -> String {
        self.lsn += 1;
        let mut token = Token::new(ClusterId([self.cluster; 16]));
        token.see(ShardId(1), Position::new(1, self.lsn), |_| LogId(0));
        token.encode()
    }

    fn apply(&mut self, call: Call) -> BatchResult {
        match call {
            Call::ObjectAdd(add) if !self.allocated.contains(&add.id) => {
                BatchResult::Error(to_item(&Error::invalid("id", "was never allocated")))
            }
            Call::ObjectAdd(add) if self.objects.contains_key(&add.id) => {
                BatchResult::Error(to_item(&Error::AlreadyExists { what: add.id.to_string() }))
            }
            Call::ObjectAdd(add) if add.r#type != "user" => {
                BatchResult::Error(to_item(&Error::invalid("type", "is no object type")))
            }
            Call::ObjectAdd(add) => {
                let Some(Kind::StringValue(name)) = add.data["external_id"].kind.clone() else { panic!("{add:?}") };
                self.objects.insert(add.id, name);
                BatchResult::ObjectAdd(v1::ObjectAddResponse::default())
            }
            Call::AssocAdd(add) => {
                assert!(self.objects.contains_key(&add.id1) && self.objects.contains_key(&add.id2), "{add:?}");
                self.edges.insert((add.id1, add.r#type, add.id2), add.time.unwrap());
                BatchResult::AssocAdd(v1::AssocAddResponse::default())
            }
            other => panic!("a load has no use for {other:?}"),
        }
    }
}

fn unused() -> Result<Response<Answer>, Status> {
    Err(Status::unimplemented("a load has no use for this"))
}

macro_rules! store {
    ($($name:ident($request:ident);)*) => {
        #[tonic::async_trait]
        impl GraphService for Store {
            type WatchStream = futures::stream::Empty<Result<Answer, Status>>;

            async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                Err(Status::unimplemented("a load has no use for this"))
            }

            type PipelineStream = Self::WatchStream;

            async fn pipeline(
                &self,
                _: Request<Streaming<v1::PipelineRequest>>,
            ) -> Result<Response<Self::PipelineStream>, Status> {
                Err(Status::unimplemented("a load has no use for this"))
            }

            async fn allocate_ids(&self, request: Request<v1::AllocateIdsRequest>) -> Result<Response<Answer>, Status> {
                let request = request.into_inner();
                let fault = self.begin(&request.options.unwrap_or_default().session_token);
                tokio::task::yield_now().await;
                let mut graph = self.graph();
                graph.running -= 1;
                let fault = fault?;
                if fault == Fault::Refused {
                    return Err(to_status(&retry()));
                }
                let from = graph.next_id;
                graph.next_id += request.count;
                let ids: Vec<_> = (from..graph.next_id).collect();
                graph.allocated.extend(&ids);
                match fault {
                    Fault::AnswerLost | Fault::Half => Err(to_status(&retry())),
                    Fault::Invalid => Err(to_status(&Error::invalid("count", "unlucky"))),
                    Fault::None | Fault::Refused => {
                        let answer = v1::AllocateIdsResponse { ids, session_token: graph.token() };
                        Ok(Response::new(Answer::encode(&answer)))
                    }
                }
            }

            async fn batch(&self, request: Request<v1::BatchRequest>) -> Result<Response<Answer>, Status> {
                let request = request.into_inner();
                let fault = self.begin(&request.options.unwrap_or_default().session_token);
                tokio::task::yield_now().await;
                let mut graph = self.graph();
                graph.running -= 1;
                let fault = fault?;
                graph.largest_batch = graph.largest_batch.max(request.items.len());
                if fault == Fault::Refused {
                    return Err(to_status(&retry()));
                }
                let results = request.items.into_iter().enumerate().map(|(n, item)| {
                    let result = match fault {
                        Fault::Half if n % 2 == 1 => BatchResult::Error(to_item(&retry())),
                        Fault::Invalid if n == 0 => BatchResult::Error(to_item(&Error::invalid("time", "too far ahead"))),
                        _ => graph.apply(item.call.unwrap()),
                    };
                    Item { result: Some(result) }
                });
                let results = results.collect();
                if fault == Fault::AnswerLost {
                    return Err(to_status(&retry()));
                }
                Ok(Response::new(Answer::encode(&v1::BatchResponse { results, session_token: graph.token() })))
            }

            async fn write_batch(&self, request: Request<v1::WriteBatchRequest>) -> Result<Response<Answer>, Status> {
                let mut graph = self.graph();
                let Some(done) = graph.at_once else { return unused() };
                graph.at_once = Some(done + 1);
                let request = request.into_inner();
                if done % 2 == 1 {
                    return Err(to_status(&Error::invalid("writes[0].time", "too far ahead")));
                }
                let results: Vec<_> = request.writes.iter().map(|_| v1::WriteBatchResult::default()).collect();
                for write in request.writes {
                    let Some(v1::write_batch_item::Write::AssocAdd(add)) = write.write else { panic!("{write:?}") };
                    graph.apply(Call::AssocAdd(add));
                }
                let session_token = graph.token();
                Ok(Response::new(Answer::encode(&v1::WriteBatchResponse { results, pending: false, session_token })))
            }

            async fn assoc_count(&self, request: Request<v1::AssocCountRequest>) -> Result<Response<Answer>, Status> {
                match request.into_inner().r#type.as_str() {
                    "messaged" => Ok(Response::new(Answer::encode(&v1::AssocCountResponse::default()))),
                    _ => Err(to_status(&Error::invalid("type", "is no association type"))),
                }
            }

            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<Answer>, Status> {
                unused()
            })*
        }
    };
}

store! {
    object_add(ObjectAddRequest);
    object_get(ObjectGetRequest);
    object_multi_get(ObjectMultiGetRequest);
    object_update(ObjectUpdateRequest);
    object_upsert(ObjectUpsertRequest);
    object_delete(ObjectDeleteRequest);
    assoc_add(AssocAddRequest);
    assoc_delete(AssocDeleteRequest);
    assoc_change_type(AssocChangeTypeRequest);
    assoc_get(AssocGetRequest);
    assoc_range(AssocRangeRequest);
    assoc_time_range(AssocTimeRangeRequest);
}
