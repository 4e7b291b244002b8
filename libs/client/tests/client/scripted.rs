//! A GraphService that answers as a test tells it to, and remembers what it was asked.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use prost::Message as _;
use tao_client::v1::pipeline_answer::Result as Answered;
use tao_client::v1::pipeline_call::Call;
use tao_client::{Client, ClientOptions, v1};
use tao_model::{ClusterId, LogId, Position, ShardId, Token};
use tao_proto::Answer;
use tao_proto::metadata::SESSION_TOKEN;
use tao_proto::server::graph_service_server::{GraphService, GraphServiceServer};
use tao_runtime::{Ending, Listener as _, ServeOptions, Shutdown, ShutdownTrigger, TcpAcceptor, Workers, serve};
use tokio::sync::oneshot;
use tokio::task::JoinHandle as JoinTask;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

/// What to do with a call.
pub enum Act {
    /// An answer with this session token. All answers have it in the same field, so it serves every call.
    Answer(String),
    /// An error.
    Fail(Status),
    /// No answer, ever.
    Hang,
    /// An answer without a token, but so late.
    Late(Duration),
}

/// A call as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub name: &'static str,
    /// Encoded.
    pub message: Vec<u8>,
    /// Whether the caller's deadline came along.
    pub has_deadline: bool,
}

#[derive(Default)]
struct Script {
    acts: VecDeque<Act>,
    asked: Vec<Asked>,
    watches: VecDeque<Vec<Result<v1::WatchResponse, Status>>>,
}

/// The server's script; the default act is an answer without a token.
#[derive(Clone, Default)]
pub struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    pub fn then(self, act: Act) -> Self {
        self.0.lock().acts.push_back(act);
        self
    }

    /// What the next Watch that comes answers with, one after the other; a stream whose last answer is no error goes on in silence.
    pub fn watched(self, answers: impl IntoIterator<Item = Result<v1::WatchResponse, Status>>) -> Self {
        self.0.lock().watches.push_back(answers.into_iter().collect());
        self
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.0.lock().asked.clone()
    }

    /// How many calls have come.
    pub fn calls(&self) -> usize {
        self.0.lock().asked.len()
    }

    /// The session tokens that came, of reads.
    pub fn read_tokens(&self) -> Vec<String> {
        let message = |asked: &Asked| v1::ObjectGetRequest::decode(asked.message.as_slice()).unwrap();
        self.asked().iter().map(|a| message(a).options.unwrap_or_default().session_token).collect()
    }

    /// The idempotency keys that came, of updates.
    pub fn update_keys(&self) -> Vec<String> {
        let message = |asked: &Asked| v1::ObjectUpdateRequest::decode(asked.message.as_slice()).unwrap();
        self.asked().iter().map(|a| message(a).options.unwrap_or_default().idempotency_key).collect()
    }

    async fn act<T: prost::Message>(
        &self,
        name: &'static str,
        request: Request<T>,
    ) -> Result<Response<Answer>, Status> {
        let has_deadline = request.metadata().contains_key("grpc-timeout");
        let message = request.get_ref().encode_to_vec();
        let act = {
            let mut script = self.0.lock();
            script.asked.push(Asked { name, message, has_deadline });
            script.acts.pop_front()
        };
        match act {
            None => Ok(Response::new(Answer::new())),
            Some(Act::Fail(status)) => Err(status),
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Late(by)) => {
                tokio::time::sleep(by).await;
                Ok(Response::new(Answer::new()))
            }
            Some(Act::Answer(token)) => {
                let answer = v1::ObjectGetResponse { session_token: token, object: None };
                Ok(Response::new(Answer::encode(&answer)))
            }
        }
    }

    /// Serves on a free port of loopback, on a thread of its own.
    pub fn serve(&self) -> Serving {
        self.serve_at("127.0.0.1:0")
    }

    /// The same, at this address.
    pub fn serve_at(&self, address: &str) -> Serving {
        let address = address.parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let service = GraphServiceServer::new(self.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let incoming = TcpIncoming::bind(address).unwrap().with_nodelay(Some(true));
                tell.send(incoming.local_addr().unwrap().to_string()).unwrap();
                tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
                ended.await.ok();
            });
        });
        Serving { address: told.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }

    /// Serves as followers do, which end politely.
    pub async fn serve_politely(&self, address: &str) -> Polite {
        let listener = TcpAcceptor::bind(address.parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, begun) = Shutdown::new();
        let routes = Routes::new(GraphServiceServer::new(self.clone()));
        let serving = async move {
            let workers = Workers::new("follower", NonZeroUsize::new(1)).unwrap();
            serve(listener, &workers, routes, ServeOptions::default(), begun).await.unwrap();
        };
        Polite { address, shutdown, task: tokio::spawn(serving) }
    }

    /// A client of a server of its own, which serves as long as the test runs.
    pub fn client(&self, options: ClientOptions) -> Client {
        let mut serving = self.serve();
        let client = Client::connect(&serving.address, options).unwrap();
        std::mem::forget(serving.end.take());
        client
    }
}

/// A server; dropped, it is gone with all its connections, as if it were killed.
pub struct Serving {
    pub address: String,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let (Some(end), Some(thread)) = (self.end.take(), self.thread.take()) {
            drop(end);
            thread.join().unwrap();
        }
    }
}

/// A server that is told to end.
pub struct Polite {
    pub address: SocketAddr,
    shutdown: ShutdownTrigger,
    task: JoinTask<()>,
}

impl Polite {
    /// As by SIGTERM; returns when all that was under way is done and nobody is connected any more.
    pub async fn stop(self) {
        let began = Instant::now();
        self.shutdown.trigger();
        self.task.await.unwrap();
        assert!(began.elapsed() < ServeOptions::default().drain_timeout, "somebody held a connection");
    }
}

macro_rules! scripted {
    ($($name:ident: $kind:ident($request:ident);)*) => {
        #[tonic::async_trait]
        impl GraphService for Scripted {$(
            async fn $name(&self, request: Request<v1::$request>) -> Result<Response<Answer>, Status> {
                self.act(stringify!($name), request).await
            }
        )*
            type WatchStream = BoxStream<'static, Result<Answer, Status>>;

            async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
                self.act("watch", request).await?;
                let answers = self.0.lock().watches.pop_front().unwrap_or_default();
                let ends = answers.last().is_some_and(Result::is_err);
                let answers = stream::iter(answers).map(|answer| answer.map(|answer| Answer::encode(&answer)));
                let silence = stream::pending().take(usize::from(!ends));
                Ok(Response::new(answers.chain(silence).boxed()))
            }

            type PipelineStream = BoxStream<'static, Result<Answer, Status>>;

            async fn pipeline(
                &self,
                request: Request<Streaming<v1::PipelineRequest>>,
            ) -> Result<Response<Self::PipelineStream>, Status> {
                let server = self.clone();
                let ending = request.extensions().get::<Ending>().cloned().unwrap_or_else(Ending::never);
                let answers = request.into_inner().flat_map_unordered(None, move |message| {
                    let v1::PipelineRequest { calls, session_tokens, .. } = message.unwrap_or_default();
                    let server = server.clone();
                    let answer = move |call: v1::PipelineCall| {
                        let token = (call.session as usize).checked_sub(1).map(|place| session_tokens[place].clone());
                        let server = server.clone();
                        async move { server.piped(call, token).await }
                    };
                    stream::iter(calls).map(answer).buffer_unordered(1_000)
                });
                // As followers do: when the connection is to end, the stream says so, and ends when its caller has ended its half.
                let draining = v1::PipelineResponse { draining: true, ..Default::default() };
                let ending = ending.begun().map(move |()| Some(draining)).into_stream();
                let answers = answers.map(Some).chain(stream::once(async { None }));
                let answers = stream::select(answers, ending).take_while(|answer| std::future::ready(answer.is_some()));
                Ok(Response::new(answers.map(|answer| Ok(Answer::encode(&answer.unwrap()))).boxed()))
            }
        }

        impl Scripted {
            /// The same call in a pipeline: scripted as if it had come by itself.
            async fn piped(&self, call: v1::PipelineCall, token: Option<String>) -> v1::PipelineResponse {
                let v1::PipelineCall { seq, timeout_us, call, .. } = call;
                let mut metadata = MetadataMap::new();
                if timeout_us > 0 {
                    metadata.insert("grpc-timeout", format!("{}m", timeout_us.div_ceil(1_000)).parse().unwrap());
                }
                let (answered, empty) = match call.unwrap() {$(
                    Call::$kind(mut request) => {
                        if let Some(token) = token {
                            request.options.get_or_insert_default().session_token = token;
                        }
                        let request = Request::from_parts(metadata, Default::default(), request);
                        (self.act(stringify!($name), request).await, Answered::$kind(Default::default()))
                    }
                )*};
                let (result, seen) = match answered {
                    // All answers have the token in the same field.
                    Ok(answer) => {
                        let answer = v1::ObjectGetResponse::decode(answer.into_inner().to_bytes()).unwrap();
                        (empty, answer.session_token)
                    }
                    Err(status) => {
                        let seen = status.metadata().get(SESSION_TOKEN).map(|t| t.to_str().unwrap().to_owned());
                        (Answered::Error(item(&status)), seen.unwrap_or_default())
                    }
                };
                let session = u32::from(!seen.is_empty());
                let answers = vec![v1::PipelineAnswer { seq, session, result: Some(result) }];
                v1::PipelineResponse { answers, session_tokens: vec![seen], ..Default::default() }
            }
        }
    };
}

/// A status as the error of one call.
fn item(status: &Status) -> v1::ItemError {
    let info = status.get_details_error_info();
    let said = |key: &str| info.as_ref().and_then(|i| i.metadata.get(key)).is_some_and(|v| v == "true");
    let violations = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
    let violation = |v: tonic_types::FieldViolation| v1::FieldViolation { field: v.field, description: v.description };
    let after = status.get_details_retry_info().and_then(|r| r.retry_delay).unwrap_or_default();
    v1::ItemError {
        code: status.code() as i32,
        retryable: said("retryable"),
        not_applied: said("not_applied"),
        reason: info.map(|i| i.reason).unwrap_or_default(),
        message: status.message().to_owned(),
        violations: violations.into_iter().map(violation).collect(),
        retry_after_ms: after.as_millis() as u64,
        item: String::new(),
    }
}

scripted! {
    object_add: ObjectAdd(ObjectAddRequest);
    write_batch: WriteBatch(WriteBatchRequest);
    object_get: ObjectGet(ObjectGetRequest);
    object_multi_get: ObjectMultiGet(ObjectMultiGetRequest);
    object_update: ObjectUpdate(ObjectUpdateRequest);
    object_upsert: ObjectUpsert(ObjectUpsertRequest);
    object_delete: ObjectDelete(ObjectDeleteRequest);
    assoc_add: AssocAdd(AssocAddRequest);
    assoc_delete: AssocDelete(AssocDeleteRequest);
    assoc_change_type: AssocChangeType(AssocChangeTypeRequest);
    assoc_get: AssocGet(AssocGetRequest);
    assoc_count: AssocCount(AssocCountRequest);
    assoc_range: AssocRange(AssocRangeRequest);
    assoc_time_range: AssocTimeRange(AssocTimeRangeRequest);
    batch: Batch(BatchRequest);
    allocate_ids: AllocateIds(AllocateIdsRequest);
}

/// A token that has seen these positions of these shards.
pub fn token(seen: &[(u32, u64)]) -> String {
    let mut token = Token::new(ClusterId([3; 16]));
    for (shard, lsn) in seen {
        token.see(ShardId(*shard), Position::new(1, *lsn), |_| LogId(0));
    }
    token.encode()
}

/// The floors that a token sets, by shard.
pub fn floors(token: &str) -> Vec<u64> {
    let token = if token.is_empty() { Token::new(ClusterId([3; 16])) } else { Token::parse(token).unwrap() };
    (0..50).map(|shard| token.floor(ShardId(shard), LogId(0)).lsn).collect()
}

pub fn get(id: i64) -> v1::ObjectGetRequest {
    v1::ObjectGetRequest { id, options: None }
}

pub fn update(id: i64) -> v1::ObjectUpdateRequest {
    v1::ObjectUpdateRequest { id, ..Default::default() }
}
