//! Clients and sessions.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tao_model::{ClusterId, LogId, Token};
use tao_proto::metadata::SESSION_TOKEN;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_proto::v1::{self, ReadOptions, WriteOptions};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::error::ClientError;

/// How calls are made.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// For a call, its retries included.
    pub deadline: Duration,
    /// Before the first retry; doubles with each, unless the server names a time.
    pub backoff: Duration,
    /// Attempts at the most.
    pub attempts: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), backoff: Duration::from_millis(20), attempts: 8 }
    }
}

/// A connection to a follower. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    graph: GraphServiceClient<Channel>,
    options: ClientOptions,
}

/// Calls that read their own writes, and never see time go backwards. Clones are the same session and may be used by many tasks.
#[derive(Debug, Clone)]
pub struct Session {
    client: Client,
    token: Arc<Mutex<String>>,
}

impl Client {
    /// Of the follower at `address` (HOST:PORT). Connects with the first call, and again whenever the connection breaks.
    pub fn new(address: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(uri).map_err(|_| ClientError::Address { address: address.to_owned() })?;
        let channel = endpoint
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Self { graph: GraphServiceClient::new(channel), options })
    }

    /// A session that has seen nothing.
    pub fn session(&self) -> Session {
        self.resume(String::new())
    }

    /// A session that goes on where another, perhaps of another process, has been: see [`Session::token`].
    pub fn resume(&self, token: String) -> Session {
        Session { client: self.clone(), token: Arc::new(Mutex::new(token)) }
    }
}

/// A request that carries options of a session.
trait HasSession: Clone {
    fn token(&mut self) -> &mut String;
    /// The idempotency key of a write; reads have none.
    fn key(&mut self) -> Option<&mut String>;
}

/// An answer that carries the session's token.
trait HasToken {
    fn take_token(&mut self) -> String;
}

macro_rules! session {
    (read $($request:ty => $response:ty),* $(,)?) => {$(
        impl HasSession for $request {
            fn token(&mut self) -> &mut String {
                &mut self.options.get_or_insert_with(ReadOptions::default).session_token
            }
            fn key(&mut self) -> Option<&mut String> {
                None
            }
        }
        session!(token $response);
    )*};
    (write $($request:ty => $response:ty),* $(,)?) => {$(
        impl HasSession for $request {
            fn token(&mut self) -> &mut String {
                &mut self.options.get_or_insert_with(WriteOptions::default).session_token
            }
            fn key(&mut self) -> Option<&mut String> {
                Some(&mut self.options.get_or_insert_with(WriteOptions::default).idempotency_key)
            }
        }
        session!(token $response);
    )*};
    (token $response:ty) => {
        impl HasToken for $response {
            fn take_token(&mut self) -> String {
                std::mem::take(&mut self.session_token)
            }
        }
    };
}

session!(read
    v1::ObjectGetRequest => v1::ObjectGetResponse,
    v1::ObjectMultiGetRequest => v1::ObjectMultiGetResponse,
    v1::AssocGetRequest => v1::AssocGetResponse,
    v1::AssocCountRequest => v1::AssocCountResponse,
    v1::AssocRangeRequest => v1::AssocRangeResponse,
    v1::AssocTimeRangeRequest => v1::AssocTimeRangeResponse,
    v1::BatchRequest => v1::BatchResponse,
);
session!(write
    v1::ObjectAddRequest => v1::ObjectAddResponse,
    v1::ObjectUpdateRequest => v1::ObjectUpdateResponse,
    v1::ObjectUpsertRequest => v1::ObjectUpsertResponse,
    v1::ObjectDeleteRequest => v1::ObjectDeleteResponse,
    v1::AssocAddRequest => v1::AssocAddResponse,
    v1::AssocDeleteRequest => v1::AssocDeleteResponse,
    v1::AssocChangeTypeRequest => v1::AssocChangeTypeResponse,
    v1::AllocateIdsRequest => v1::AllocateIdsResponse,
);

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty;)*) => {
        impl Session {$(
            $(#[$doc])*
            pub async fn $name(&self, request: $request) -> Result<$response, ClientError> {
                self.call(request, async |graph: &mut GraphServiceClient<Channel>, request| graph.$name(request).await).await
            }
        )*}
    };
}

calls! {
    /// See GraphService.ObjectAdd.
    object_add(v1::ObjectAddRequest) -> v1::ObjectAddResponse;
    /// See GraphService.ObjectGet.
    object_get(v1::ObjectGetRequest) -> v1::ObjectGetResponse;
    /// See GraphService.ObjectMultiGet.
    object_multi_get(v1::ObjectMultiGetRequest) -> v1::ObjectMultiGetResponse;
    /// See GraphService.ObjectUpdate.
    object_update(v1::ObjectUpdateRequest) -> v1::ObjectUpdateResponse;
    /// See GraphService.ObjectUpsert.
    object_upsert(v1::ObjectUpsertRequest) -> v1::ObjectUpsertResponse;
    /// See GraphService.ObjectDelete.
    object_delete(v1::ObjectDeleteRequest) -> v1::ObjectDeleteResponse;
    /// See GraphService.AssocAdd.
    assoc_add(v1::AssocAddRequest) -> v1::AssocAddResponse;
    /// See GraphService.AssocDelete.
    assoc_delete(v1::AssocDeleteRequest) -> v1::AssocDeleteResponse;
    /// See GraphService.AssocChangeType.
    assoc_change_type(v1::AssocChangeTypeRequest) -> v1::AssocChangeTypeResponse;
    /// See GraphService.AssocGet.
    assoc_get(v1::AssocGetRequest) -> v1::AssocGetResponse;
    /// See GraphService.AssocCount.
    assoc_count(v1::AssocCountRequest) -> v1::AssocCountResponse;
    /// See GraphService.AssocRange.
    assoc_range(v1::AssocRangeRequest) -> v1::AssocRangeResponse;
    /// See GraphService.AssocTimeRange.
    assoc_time_range(v1::AssocTimeRangeRequest) -> v1::AssocTimeRangeResponse;
    /// See GraphService.Batch. It is repeated as a whole when the way there fails: give writes in it their own idempotency keys,
    /// or make them such that doing them twice does no harm.
    batch(v1::BatchRequest) -> v1::BatchResponse;
    /// See GraphService.AllocateIds.
    allocate_ids(v1::AllocateIdsRequest) -> v1::AllocateIdsResponse;
}

impl Session {
    /// What the session has seen, for another process to go on with.
    pub fn token(&self) -> String {
        self.token.lock().clone()
    }

    async fn call<Req: HasSession, Res: HasToken>(
        &self,
        mut request: Req,
        send: impl AsyncFn(&mut GraphServiceClient<Channel>, Request<Req>) -> Result<Response<Res>, Status>,
    ) -> Result<Res, ClientError> {
        let options = &self.client.options;
        let deadline = Instant::now() + options.deadline;
        // A key of its own makes any write safe to repeat.
        if let Some(key) = request.key()
            && key.is_empty()
        {
            *key = format!("{:032x}", rand::random::<u128>());
        }
        let (mut attempt, mut backoff) = (1, options.backoff);
        loop {
            if request.token().is_empty() {
                *request.token() = self.token();
            }
            let mut call = Request::new(request.clone());
            call.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let error = match send(&mut self.client.graph.clone(), call).await {
                Ok(response) => {
                    let mut message = response.into_inner();
                    self.learn(&message.take_token());
                    return Ok(message);
                }
                Err(status) => {
                    if let Some(token) = status.metadata().get(SESSION_TOKEN).and_then(|t| t.to_str().ok()) {
                        self.learn(token);
                    }
                    ClientError::from(status)
                }
            };
            let pause = match &error {
                ClientError::Call { retry_after: Some(after), .. } => *after,
                ClientError::Call { .. } | ClientError::Address { .. } => backoff,
            };
            if attempt >= options.attempts || !error.is_retryable() || Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
            attempt += 1;
            backoff *= 2;
        }
    }

    /// Adds what an answer has seen: answers of calls side by side each know a part.
    fn learn(&self, seen: &str) {
        if seen.is_empty() {
            return;
        }
        let mut token = self.token.lock();
        // Which log a shard lives in only matters where a token grows large; all in one is the stricter guess.
        let log_of = |_| LogId(0);
        let merged = cluster_of(seen).and_then(|cluster| {
            let mut merged = Token::decode(seen, cluster).ok()?;
            merged.merge(&Token::decode(&token, cluster).ok()?, log_of);
            Some(merged.encode())
        });
        *token = merged.unwrap_or_else(|| seen.to_owned());
    }
}

/// The cluster that a token was made by.
fn cluster_of(token: &str) -> Option<ClusterId> {
    let raw = URL_SAFE_NO_PAD.decode(token).ok()?;
    Some(ClusterId(*raw.get(1..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tao_model::{Error, Position, ShardId};
    use tao_proto::server::graph_service_server::{GraphService, GraphServiceServer};
    use tao_proto::{Answer, error::to_status};
    use tokio::net::TcpListener;

    fn token(shard: u32, lsn: u64) -> String {
        let mut token = Token::new(ClusterId([3; 16]));
        token.see(ShardId(shard), Position::new(1, lsn), |_| LogId(0));
        token.encode()
    }

    /// Fails the first two calls of each kind, then answers with what it was asked.
    #[derive(Default)]
    struct Flaky {
        calls: AtomicUsize,
        keys: Mutex<Vec<String>>,
        tokens: Mutex<Vec<String>>,
    }

    #[tonic::async_trait]
    impl GraphService for Flaky {
        async fn object_update(&self, request: Request<v1::ObjectUpdateRequest>) -> Result<Response<Answer>, Status> {
            let options = request.into_inner().options.unwrap();
            self.keys.lock().push(options.idempotency_key);
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            if call < 2 {
                let retry_after = Duration::from_millis(1);
                return Err(to_status(&Error::Unavailable { what: "no".to_owned(), not_applied: false, retry_after }));
            }
            let answer = v1::ObjectUpdateResponse { session_token: token(1, 10), ..Default::default() };
            Ok(Response::new(Answer::encode(&answer)))
        }

        async fn object_get(&self, request: Request<v1::ObjectGetRequest>) -> Result<Response<Answer>, Status> {
            let request = request.into_inner();
            self.tokens.lock().push(request.options.unwrap().session_token);
            if request.id == 404 {
                let mut status = to_status(&Error::NotFound { what: "it".to_owned() });
                status.metadata_mut().insert(SESSION_TOKEN, token(2, 7).parse().unwrap());
                return Err(status);
            }
            Ok(Response::new(Answer::encode(&v1::ObjectGetResponse {
                session_token: token(1, 5),
                ..Default::default()
            })))
        }

        async fn object_add(&self, _: Request<v1::ObjectAddRequest>) -> Result<Response<Answer>, Status> {
            Err(to_status(&Error::invalid("type", "required")))
        }
        async fn object_multi_get(&self, _: Request<v1::ObjectMultiGetRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn object_upsert(&self, _: Request<v1::ObjectUpsertRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn object_delete(&self, _: Request<v1::ObjectDeleteRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn assoc_add(&self, _: Request<v1::AssocAddRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn assoc_delete(&self, _: Request<v1::AssocDeleteRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn assoc_change_type(&self, _: Request<v1::AssocChangeTypeRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn assoc_get(&self, _: Request<v1::AssocGetRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn assoc_count(&self, _: Request<v1::AssocCountRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn assoc_range(&self, _: Request<v1::AssocRangeRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn assoc_time_range(&self, _: Request<v1::AssocTimeRangeRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn batch(&self, _: Request<v1::BatchRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
        async fn allocate_ids(&self, _: Request<v1::AllocateIdsRequest>) -> Result<Response<Answer>, Status> {
            Err(Status::unimplemented("not here"))
        }
    }

    async fn served() -> (Arc<Flaky>, Session) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let flaky = Arc::new(Flaky::default());
        let service = GraphServiceServer::from_arc(flaky.clone());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        let client = Client::new(&address, ClientOptions::default()).unwrap();
        (flaky, client.session())
    }

    #[tokio::test]
    async fn a_write_is_repeated_with_its_key_until_it_is_answered() {
        let (flaky, session) = served().await;
        session.object_update(v1::ObjectUpdateRequest { id: 1, ..Default::default() }).await.unwrap();
        let keys = flaky.keys.lock().clone();
        assert!(keys.len() == 3 && keys[0].len() == 32 && keys.iter().all(|k| *k == keys[0]), "{keys:?}");
        assert_eq!(session.token(), token(1, 10));
    }

    #[tokio::test]
    async fn a_session_never_forgets_what_it_has_seen() {
        let (flaky, session) = served().await;
        let get = |id| v1::ObjectGetRequest { id, options: None };
        session.learn(&token(1, 10));
        session.object_get(get(1)).await.unwrap();
        assert_eq!(session.token(), token(1, 10), "an older answer takes nothing away");
        session.clone().object_get(get(404)).await.unwrap_err();
        assert!(session.token().len() > token(1, 10).len(), "errors teach too, and clones are the same session");
        let resumed = session.client.resume(session.token());
        resumed.object_get(get(1)).await.unwrap();
        let tokens = flaky.tokens.lock().clone();
        assert_eq!(tokens, [token(1, 10), token(1, 10), session.token()]);
    }

    #[tokio::test]
    async fn bad_input_is_told_and_not_repeated() {
        let (_, session) = served().await;
        let error = session.object_add(v1::ObjectAddRequest::default()).await.unwrap_err();
        let ClientError::Call { code, reason, violations, .. } = error else { panic!("{error}") };
        assert_eq!((code, reason.as_str()), (tonic::Code::InvalidArgument, "INVALID_ARGUMENT"));
        assert_eq!(violations, [("type".to_owned(), "required".to_owned())]);
        assert!(Client::new("not an address", ClientOptions::default()).is_err());
    }
}
