//! Traces, from one process's header to a collector. In a process of its own: whether anybody listens to a span is kept for the whole
//! process, and a test without listeners beside this one may be asked first.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tao_runtime::{ServeOptions, TelemetryError, TelemetryOptions, Workers, telemetry};
use tokio::sync::mpsc;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt as _;

#[path = "server/service.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod service;

use service::*;

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_call_s_span_continues_its_caller_s_trace_and_is_exported() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const UNSAMPLED: &str = "0af7651916cd43dd8448eb211c80319d";
    let (send, mut exported) = mpsc::unbounded_channel();
    // On a worker: the flush at the end blocks this thread.
    let routes = Routes::new(TraceServiceServer::new(Collector(send)));
    let collector = Server::start(routes, threads(1), ServeOptions::default()).await;
    let options = TelemetryOptions {
        otlp_endpoint: Some(format!("http://{}", collector.address)),
        ..TelemetryOptions::new("here")
    };
    let (layer, mut guard) = telemetry::traces(&options).unwrap();
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let (seen, mut inside) = mpsc::unbounded_channel();
    let server = Server::start(
        Routes::new(Service::new(move |_| {
            let seen = seen.clone();
            async move {
                let _ = seen.send(tao_trace::current().to_wire());
                Status::ok("")
            }
        })),
        Workers::inline(),
        ServeOptions::default(),
    )
    .await;
    let channel = server.connect().await.unwrap();
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    call_with(&channel, "/test.Service/Call", Some(&parent)).await.unwrap();
    let inner = inside.recv().await.unwrap();
    let parts: Vec<_> = inner.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"), "{inner}");
    // What is no trace context is ignored.
    call_with(&channel, "/test.Service/Call", Some("nonsense")).await.unwrap();
    assert_ne!(inside.recv().await.unwrap().split('-').nth(1), Some(TRACE));
    // A caller's no is respected; nobody behind is told of a trace.
    let unsampled = format!("00-{UNSAMPLED}-b7ad6b7169203331-00");
    call_with(&channel, "/test.Service/Call", Some(&unsampled)).await.unwrap();
    let inner = inside.recv().await.unwrap();
    assert_eq!(inner, "");
    drop(channel);

    tokio::task::spawn_blocking(move || guard.flush()).await.unwrap();
    let spans: Vec<_> = exported
        .recv()
        .await
        .unwrap()
        .resource_spans
        .into_iter()
        .flat_map(|r| r.scope_spans)
        .flat_map(|s| s.spans)
        .collect();
    let span = spans.iter().find(|s| hex(&s.trace_id) == TRACE).unwrap();
    assert_eq!((span.name.as_str(), hex(&span.parent_span_id).as_str()), ("test.Service/Call", "b7ad6b7169203331"));
    assert_eq!(hex(&span.span_id), parts[2]);
    assert!(spans.len() >= 2 && spans.iter().all(|s| hex(&s.trace_id) != UNSAMPLED), "{spans:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn wrong_options_are_explained() {
    let options = TelemetryOptions { filter: Some("a=b=c".to_owned()), ..TelemetryOptions::new("x") };
    let error = telemetry::init(&options).unwrap_err();
    assert!(matches!(&error, TelemetryError::Filter { filter, .. } if filter == "a=b=c"), "{error}");
    let options = TelemetryOptions { otlp_endpoint: Some("no address".to_owned()), ..TelemetryOptions::new("x") };
    let error = telemetry::traces::<tracing_subscriber::Registry>(&options).err().unwrap();
    assert!(error.to_string().contains("no address"), "{error}");
}
