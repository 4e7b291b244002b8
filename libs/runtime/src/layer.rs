//! Around every call: a duration by service, method and code; a span when somebody looks; and a wall for panics.

use std::any::Any;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::FutureExt as _;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Frame, SizeHint};
use metrics::{Histogram, histogram};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Span;

use crate::trace;

const CODES: usize = 17;
/// Methods that get series of their own; those past it are counted together.
const MAX_METHODS: usize = 512;

/// Measures what it wraps.
#[derive(Clone, Default)]
pub(crate) struct RpcLayer {
    methods: Arc<Methods>,
}

/// See [`RpcLayer`].
#[derive(Clone)]
pub(crate) struct Instrumented<S> {
    inner: S,
    methods: Arc<Methods>,
}

impl<S> Layer<S> for RpcLayer {
    type Service = Instrumented<S>;

    fn layer(&self, inner: S) -> Instrumented<S> {
        Instrumented { inner, methods: self.methods.clone() }
    }
}

impl<S> Service<Request<Body>> for Instrumented<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Measured>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = span(&request);
        let watch = Watch { methods: self.methods.clone(), uri: request.uri().clone(), began: Instant::now(), span };
        let running = Running { watch: Some(watch) };
        let future = running.span().in_scope(|| self.inner.call(request));
        Box::pin(async move {
            let future = AssertUnwindSafe(future).catch_unwind();
            let result = if running.span().is_disabled() {
                future.await
            } else {
                tracing::Instrument::instrument(future, running.span().clone()).await
            };
            let response = match result {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(panic) => panicked(&*panic).into_http(),
            };
            Ok(response.map_in(running))
        })
    }
}

/// A span named after the call; nothing when nobody looks.
fn span(request: &Request<Body>) -> Span {
    let span = tracing::debug_span!(
        target: trace::TARGET,
        "rpc",
        otel.name = request.uri().path().trim_start_matches('/'),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.grpc.status_code = tracing::field::Empty,
    );
    if !span.is_disabled()
        && let Some(parent) = request.headers().get(trace::TRACEPARENT).and_then(|v| v.to_str().ok())
    {
        trace::set_parent(&span, parent);
    }
    span
}

/// Logs a panic and makes the answer to whoever asked.
fn panicked(panic: &(dyn Any + Send)) -> Status {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = message.unwrap_or("no message"), "a handler panicked");
    Status::internal("internal error: the handler panicked")
}

trait MapIn {
    fn map_in(self, running: Running) -> Response<Measured>;
}

impl MapIn for Response<Body> {
    fn map_in(self, mut running: Running) -> Response<Measured> {
        // An answer without messages has its code in the headers; all others have it in the trailers.
        if let Some(code) = code(self.headers()) {
            running.end(code);
        }
        self.map(|inner| Measured { inner, running })
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()))
}

/// What is known of a call while it lasts.
struct Watch {
    methods: Arc<Methods>,
    uri: Uri,
    began: Instant,
    span: Span,
}

/// A call that is counted once: with its code, or as cancelled when it is dropped before.
struct Running {
    watch: Option<Watch>,
}

impl Running {
    fn span(&self) -> &Span {
        static NONE: Span = Span::none();
        self.watch.as_ref().map_or(&NONE, |w| &w.span)
    }

    fn end(&mut self, code: Code) {
        if let Some(watch) = self.watch.take() {
            watch.methods.record(watch.uri.path(), code, watch.began.elapsed().as_secs_f64());
            watch.span.record("rpc.grpc.status_code", code as i32);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// An answer's body, watched to its end.
pub(crate) struct Measured {
    inner: Body,
    running: Running,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let inner = Pin::new(&mut this.inner);
        let polled = {
            let _entered = this.running.span().enter();
            std::panic::catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx)))
        };
        let frame = match polled {
            Ok(poll) => ready!(poll),
            Err(panic) => Some(Err(panicked(&*panic))),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.running.end(code(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => this.running.end(status.code()),
            None => this.running.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The series of each method.
#[derive(Default)]
struct Methods {
    known: RwLock<HashMap<String, Arc<Series>>>,
    other: Series,
}

#[derive(Default)]
struct Series {
    by_code: [OnceLock<Histogram>; CODES],
}

impl Methods {
    fn record(&self, path: &str, code: Code, seconds: f64) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        match known {
            Some(series) => series.record(path, code, seconds),
            // Anybody can call what does not exist: such names must not become series.
            None if code == Code::Unimplemented => self.other.record("/other/other", code, seconds),
            None => {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                if known.len() < MAX_METHODS {
                    known.entry(path.to_owned()).or_default().record(path, code, seconds);
                } else {
                    self.other.record("/other/other", code, seconds);
                }
            }
        }
    }
}

impl Series {
    fn record(&self, path: &str, code: Code, seconds: f64) {
        if let Some(series) = self.by_code.get(code as usize) {
            let series = series.get_or_init(|| {
                let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
                histogram!(
                    "rpc_server_duration_seconds",
                    "service" => service.to_owned(),
                    "method" => method.to_owned(),
                    "code" => format!("{code:?}"),
                )
            });
            series.record(seconds);
        }
    }
}
