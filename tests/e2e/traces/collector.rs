//! A receiver of OTLP, and the trees of what it got.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use tao_runtime::{Listener as _, ServeOptions, Shutdown, ShutdownTrigger, TcpAcceptor, Workers, serve};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// The attributes that a tree shows.
const SHOWN: [&str; 3] = ["db.system.name", "tao.cache.found_in", "tao.found"];

/// A span, and the service that it is of.
type Got = Arc<Mutex<Vec<(String, Span)>>>;

/// See the module. Runs until it is dropped.
pub struct Collector {
    address: SocketAddr,
    got: Got,
    _running: ShutdownTrigger,
}

struct Receiver(Got);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = text(attribute(&attributes, "service.name"));
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// On a free port, and a thread of its own.
    pub async fn start() -> Self {
        let listener = TcpAcceptor::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let got = Got::default();
        let routes = Routes::new(TraceServiceServer::new(Receiver(got.clone())));
        let (running, shutdown) = Shutdown::new();
        tokio::spawn(async move {
            let workers = Workers::new("collector", std::num::NonZero::new(1)).unwrap();
            serve(listener, &workers, routes, ServeOptions::default(), shutdown).await.unwrap();
        });
        Self { address, got, _running: running }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All traces, by number.
    pub fn traces(&self) -> Vec<String> {
        let mut traces: Vec<_> = self.got.lock().unwrap().iter().map(|(_, span)| hex(&span.trace_id)).collect();
        traces.sort();
        traces.dedup();
        traces
    }

    /// A trace, in the order in which its spans began; with times, for people.
    pub fn tree(&self, trace: &str, with_times: bool) -> String {
        let got = self.got.lock().unwrap();
        let mut spans: Vec<_> = got.iter().filter(|(_, span)| hex(&span.trace_id) == trace).collect();
        spans.sort_by_key(|(_, span)| span.start_time_unix_nano);
        let mut tree = String::new();
        draw(&spans, &[], 0, with_times, &mut tree);
        tree
    }
}

fn draw(spans: &[&(String, Span)], parent: &[u8], depth: usize, with_times: bool, tree: &mut String) {
    for (service, span) in spans.iter().filter(|(_, span)| span.parent_span_id == parent) {
        let kind = match span.kind {
            2 => " server",
            3 => " client",
            // The root, which stands for what an application does, is no call by itself.
            _ => "",
        };
        let kind = if depth == 0 { "" } else { kind };
        let _ = write!(tree, "{}- {}{kind} [{service}]", "  ".repeat(depth), span.name);
        for name in SHOWN {
            if let Some(value) = attribute(&span.attributes, name) {
                let _ = write!(tree, " {name}={}", text(Some(value)));
            }
        }
        if with_times {
            let _ = write!(tree, " {} µs", (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000);
        }
        tree.push('\n');
        draw(spans, &span.span_id, depth + 1, with_times, tree);
    }
}

fn attribute<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|a| a.key == name).and_then(|a| a.value.as_ref())
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
