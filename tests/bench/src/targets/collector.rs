//! A receiver of OTLP that only counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Runs to the end of the process, on a thread of its own.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<AtomicUsize>,
}

struct Counter(Arc<AtomicUsize>);

#[tonic::async_trait]
impl TraceService for Counter {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.fetch_add(scopes.map(|scope| scope.spans.len()).sum(), Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// On a free port of loopback.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let spans = Arc::<AtomicUsize>::default();
        let service = TraceServiceServer::new(Counter(spans.clone()));
        thread::spawn(move || {
            let serving = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
            runtime.block_on(serving)
        });
        Ok(Self { address, spans })
    }

    /// Where it receives.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Spans so far.
    pub fn received(&self) -> usize {
        self.spans.load(Ordering::Relaxed)
    }
}
