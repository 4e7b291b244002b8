//! A service without protos, whose method is a closure, and a client for it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use tao_runtime::{Door, Listener, ServeOptions, Shutdown, ShutdownTrigger, TcpAcceptor, Workers, serve};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Bytes, StdError};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

type Change = dyn Fn(&Status, &mut Response<Body>) + Send + Sync;
type Method = dyn Fn(Request<Body>) -> BoxFuture<'static, Status> + Send + Sync;

/// Answers every call of `test.Service` with the status that its closure gives, and the name of the thread it ran on.
#[derive(Clone)]
pub struct Service(Arc<Method>, Option<Arc<Change>>);

impl Service {
    pub fn new<F: Future<Output = Status> + Send + 'static>(
        method: impl Fn(Request<Body>) -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |request| Box::pin(method(request))), None)
    }

    /// With answers that are made into others.
    pub fn changed(self, change: impl Fn(&Status, &mut Response<Body>) + Send + Sync + 'static) -> Self {
        Self(self.0, Some(Arc::new(change)))
    }

    pub fn ok() -> Self {
        Self::new(async |_| Status::ok(""))
    }
}

impl NamedService for Service {
    const NAME: &'static str = "test.Service";
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = (self.0)(request.map(Body::new));
        let change = self.1.clone();
        Box::pin(async move {
            let status = answer.await;
            let mut response = status.clone().into_http();
            if let Some(change) = change {
                response.headers_mut().remove("grpc-status");
                change(&status, &mut response);
            }
            let thread = std::thread::current().name().unwrap_or("none").to_owned();
            response.headers_mut().insert("thread", thread.parse().unwrap());
            Ok(response)
        })
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub workers: Arc<Workers>,
    pub shutdown: ShutdownTrigger,
    pub task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start(services: impl Into<Door> + Send + 'static, workers: Workers, options: ServeOptions) -> Self {
        Self::on(TcpAcceptor::bind(([127, 0, 0, 1], 0).into()).await.unwrap(), services, workers, options)
    }

    pub fn on(
        listener: impl Listener,
        services: impl Into<Door> + Send + 'static,
        workers: Workers,
        options: ServeOptions,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (shutdown, begun) = Shutdown::new();
        let workers = Arc::new(workers);
        let serving = workers.clone();
        let task = tokio::spawn(async move { serve(listener, &serving, services, options, begun).await });
        Self { address, workers, shutdown, task }
    }

    pub async fn simple(service: Service) -> Self {
        Self::start(Routes::new(service), Workers::inline(), ServeOptions::default()).await
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect_timeout(Duration::from_secs(10)).connect().await
    }
}

pub fn threads(n: usize) -> Workers {
    Workers::new("worker", NonZeroUsize::new(n)).unwrap()
}

/// Calls a method; the thread that answered, or the error.
pub async fn call_with(channel: &Channel, path: &'static str, traceparent: Option<&str>) -> Result<String, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut request = tonic::Request::new(());
    if let Some(traceparent) = traceparent {
        request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    }
    let codec = ProstCodec::<(), ()>::default();
    let response = grpc.server_streaming(request, PathAndQuery::from_static(path), codec).await?;
    let thread = response.metadata().get("thread").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let mut messages = response.into_inner();
    while messages.message().await?.is_some() {}
    Ok(thread)
}

pub async fn call(channel: &Channel) -> Result<String, Status> {
    call_with(channel, "/test.Service/Call", None).await
}
