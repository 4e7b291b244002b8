//! Servers and clients of both kinds: the crate's own, and raw ones that show what travels.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tao_model::{Position, Result};
use tao_proto::internal;
use tao_proto::internal::tier_service_client::TierServiceClient;
use tao_proto::internal::tier_service_server::{TierService, TierServiceServer};
use tao_proto::internal::{Call, ExchangeRequest, ExchangeResponse, Reply};
use tao_rpc::{
    BoxIo, CallContext, Connect, Drain, LinkOptions, Op, ReplyBody, ServerLimits, TcpConnect, TierClient, TierHandler,
    TierReply, tier_server,
};
use tao_runtime::{Listener as _, ServeOptions, Shutdown, ShutdownTrigger, TcpAcceptor, Workers, serve};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

pub type Events = BoxStream<'static, Result<internal::SubscribeResponse>>;
type CallFn = dyn Fn(CallContext, Op) -> BoxFuture<'static, Result<TierReply>> + Send + Sync;
type SubscribeFn = dyn Fn(String) -> Result<Events> + Send + Sync;

/// A handler made of closures.
#[derive(Clone)]
pub struct Handler {
    call: Arc<CallFn>,
    subscribe: Arc<SubscribeFn>,
}

impl Handler {
    pub fn new<F>(call: impl Fn(CallContext, Op) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<TierReply>> + Send + 'static,
    {
        Self {
            call: Arc::new(move |context, op| Box::pin(call(context, op))),
            subscribe: Arc::new(|_| Ok(futures::stream::empty().boxed())),
        }
    }

    /// Answers every read with its own id.
    pub fn echo() -> Self {
        Self::new(|_, op| async move { Ok(echo_of(&op)) })
    }

    pub fn subscribing(subscribe: impl Fn(String) -> Result<Events> + Send + Sync + 'static) -> Self {
        Self { subscribe: Arc::new(subscribe), ..Self::echo() }
    }
}

impl TierHandler for Handler {
    async fn call(&self, context: CallContext, op: Op) -> Result<TierReply> {
        (self.call)(context, op).await
    }

    async fn subscribe(&self, request: internal::SubscribeRequest) -> Result<Events> {
        (self.subscribe)(request.subscriber)
    }
}

/// A subscription under this name.
pub fn listener(name: &str) -> internal::SubscribeRequest {
    internal::SubscribeRequest { subscriber: name.to_owned(), ..Default::default() }
}

/// A read of an object.
pub fn read(id: i64) -> Op {
    Op::ObjectRead(internal::ObjectRead { id })
}

/// A write.
pub fn write() -> Op {
    Op::Write(internal::Write { kind: None })
}

/// The id that a read asks for.
pub fn id_of(op: &Op) -> i64 {
    match op {
        Op::ObjectRead(read) => read.id,
        _ => 0,
    }
}

pub fn ids(ids: Vec<i64>) -> TierReply {
    TierReply { as_of: Position::new(1, 2), body: ReplyBody::Ids(internal::AllocatedIds { ids }) }
}

pub fn echo_of(op: &Op) -> TierReply {
    ids(vec![id_of(op)])
}

pub fn ids_in(reply: TierReply) -> Vec<i64> {
    match reply.body {
        ReplyBody::Ids(ids) => ids.ids,
        other => panic!("{other:?}"),
    }
}

/// A server on loopback; it and its connections end when it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub drain: Drain,
    shutdown: ShutdownTrigger,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start(handler: Handler, limits: ServerLimits) -> Self {
        let (shutdown, begun) = Shutdown::new();
        let drain = Drain::from(begun.token());
        let routes = Routes::new(tier_server(handler, limits, drain.clone()));
        Self::serve(routes, drain, shutdown, begun, Workers::inline()).await
    }

    pub async fn on_workers(handler: Handler, workers: Workers) -> Self {
        let (shutdown, begun) = Shutdown::new();
        let drain = Drain::from(begun.token());
        let routes = Routes::new(tier_server(handler, ServerLimits::default(), drain.clone()));
        Self::serve(routes, drain, shutdown, begun, workers).await
    }

    async fn serve(routes: Routes, drain: Drain, shutdown: ShutdownTrigger, begun: Shutdown, workers: Workers) -> Self {
        let listener = TcpAcceptor::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { serve(listener, &workers, routes, ServeOptions::default(), begun).await });
        Self { address, drain, shutdown, task }
    }

    /// Ends politely; returns when all that was under way is done.
    pub async fn stop(self) {
        let began = std::time::Instant::now();
        self.shutdown.trigger();
        self.task.await.unwrap().unwrap();
        assert!(began.elapsed() < ServeOptions::default().drain_timeout, "somebody held a connection");
    }

    /// Drops every connection.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub fn client(&self) -> TierClient {
        client(self.address)
    }
}

pub fn client(address: SocketAddr) -> TierClient {
    TierClient::new(&address.to_string(), LinkOptions::default()).unwrap()
}

pub fn soon() -> CallContext {
    CallContext::within(Duration::from_secs(30))
}

/// A resolver that says what the test wants; connections are TCP's.
#[derive(Clone, Default)]
pub struct Names {
    known: Arc<Mutex<HashMap<String, Vec<SocketAddr>>>>,
    fails: Arc<AtomicBool>,
    /// How often it was asked.
    asked: Arc<watch::Sender<u64>>,
}

impl Names {
    /// What a host's name stands for from now on, whatever the port.
    pub fn set(&self, host: &str, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.known.lock().unwrap().insert(host.to_owned(), addresses.into_iter().collect());
    }

    /// Whether it is out of order.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// Asks it often.
    pub fn options(&self) -> LinkOptions {
        let resolve_every = Duration::from_millis(20);
        LinkOptions { connect: Arc::new(self.clone()), resolve_every, ..LinkOptions::default() }
    }

    /// Ends when it was asked so many times more, and the first answers were taken.
    pub async fn wait_asked(&self, times: u64) {
        let mut asked = self.asked.subscribe();
        let until = *asked.borrow() + times;
        asked.wait_for(|asked| *asked >= until).await.unwrap();
    }
}

impl Connect for Names {
    fn resolve(&self, host: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let known = self.known.lock().unwrap().get(host).cloned();
        let known = known.filter(|_| !self.fails.load(Ordering::SeqCst));
        self.asked.send_modify(|asked| *asked += 1);
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "nobody has heard of it");
        Box::pin(async move { known.ok_or_else(unknown) })
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        TcpConnect.connect(peer)
    }
}

/// A caller that speaks the protocol by hand.
pub struct RawCaller {
    pub send: Option<mpsc::UnboundedSender<ExchangeRequest>>,
    pub responses: Streaming<ExchangeResponse>,
}

impl RawCaller {
    pub async fn connect(server: &Server) -> Self {
        let mut client = TierServiceClient::connect(format!("http://{}", server.address))
            .await
            .unwrap()
            .max_decoding_message_size(16 << 20);
        let (send, requests) = mpsc::unbounded_channel();
        let responses = client.exchange(UnboundedReceiverStream::new(requests)).await.unwrap().into_inner();
        Self { send: Some(send), responses }
    }

    pub fn send(&self, calls: Vec<Call>, cancels: Vec<u64>) {
        self.send.as_ref().unwrap().send(ExchangeRequest { calls, cancels }).unwrap();
    }

    pub async fn next(&mut self) -> ExchangeResponse {
        self.responses.message().await.unwrap().expect("the stream goes on")
    }

    /// The next message's only answer.
    pub async fn one(&mut self) -> Reply {
        let mut response = self.next().await;
        assert_eq!(response.replies.len(), 1, "{response:?}");
        response.replies.remove(0)
    }

    /// Ends the caller's half.
    pub fn end(&mut self) {
        self.send = None;
    }
}

pub fn raw_call(seq: u64, op: Op) -> Call {
    Call { seq, timeout_us: 30_000_000, op: Some(op), ..Call::default() }
}

pub fn error_in(reply: &Reply) -> tao_model::Error {
    match &reply.result {
        Some(ReplyBody::Error(error)) => tao_proto::error::from_peer(error.clone()),
        other => panic!("{other:?}"),
    }
}

/// One stream as a raw server sees it.
pub struct RawStream {
    pub requests: Streaming<ExchangeRequest>,
    pub send: mpsc::UnboundedSender<Result<ExchangeResponse, Status>>,
}

impl RawStream {
    /// The next calls.
    pub async fn calls(&mut self) -> Vec<Call> {
        loop {
            let message = self.requests.message().await.unwrap().expect("the caller goes on");
            if !message.calls.is_empty() {
                return message.calls;
            }
        }
    }

    pub fn answer(&self, seq: u64, id: i64) {
        self.send.send(Ok(ExchangeResponse { replies: vec![raw_reply(seq, id)], draining: false })).unwrap();
    }
}

pub fn raw_reply(seq: u64, id: i64) -> Reply {
    Reply { seq, as_of: None, result: Some(ReplyBody::Ids(internal::AllocatedIds { ids: vec![id] })) }
}

/// A server that hands its streams to the test.
pub struct RawServer {
    pub address: SocketAddr,
    pub streams: mpsc::UnboundedReceiver<RawStream>,
    task: JoinHandle<std::io::Result<()>>,
    _shutdown: ShutdownTrigger,
}

impl RawServer {
    pub async fn start() -> Self {
        Self::at(([127, 0, 0, 1], 0).into()).await
    }

    /// One that begins its answers with this metadata.
    pub async fn answering(metadata: MetadataMap) -> Self {
        Self::with(([127, 0, 0, 1], 0).into(), metadata).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        Self::with(address, MetadataMap::new()).await
    }

    async fn with(address: SocketAddr, metadata: MetadataMap) -> Self {
        let (opened, streams) = mpsc::unbounded_channel();
        let listener = TcpAcceptor::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, begun) = Shutdown::new();
        let routes =
            Routes::new(TierServiceServer::new(RawService { opened, metadata }).max_decoding_message_size(16 << 20));
        let task =
            tokio::spawn(
                async move { serve(listener, &Workers::inline(), routes, ServeOptions::default(), begun).await },
            );
        Self { address, streams, task, _shutdown: shutdown }
    }

    pub async fn stream(&mut self) -> RawStream {
        self.streams.recv().await.unwrap()
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

struct RawService {
    opened: mpsc::UnboundedSender<RawStream>,
    metadata: MetadataMap,
}

#[tonic::async_trait]
impl TierService for RawService {
    type ExchangeStream = UnboundedReceiverStream<Result<ExchangeResponse, Status>>;
    type SubscribeStream = UnboundedReceiverStream<Result<internal::SubscribeResponse, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (send, responses) = mpsc::unbounded_channel();
        self.opened
            .send(RawStream { requests: request.into_inner(), send })
            .map_err(|_| Status::aborted("test ended"))?;
        let responses = UnboundedReceiverStream::new(responses);
        Ok(Response::from_parts(self.metadata.clone(), responses, tonic::Extensions::new()))
    }

    async fn subscribe(
        &self,
        _: Request<internal::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let (_, events) = mpsc::unbounded_channel();
        let events = UnboundedReceiverStream::new(events);
        Ok(Response::from_parts(self.metadata.clone(), events, tonic::Extensions::new()))
    }
}
