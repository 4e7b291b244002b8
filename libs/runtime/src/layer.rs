//! Around every call: a duration by service, method and code; a span when somebody looks; and a wall for panics.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::FutureExt as _;
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tao_trace::{Span, TRACEPARENT, TraceContext, slow};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use crate::activity::Busy;
use crate::door::{Answer, Door};
use crate::durations::{CallDurations, MethodSeries};
use crate::inbound::{Inbound, InboundLimits};
use crate::serve::ServeOptions;
use crate::untaken::{AnswerBytes, Untaken, UntakenLimits};

/// Measures the calls of what it wraps, and holds them to their limits.
#[derive(Clone)]
pub(crate) struct Instrumented {
    door: Door,
    /// See [`ServeOptions::streams`].
    streams: &'static [&'static str],
    inbound: Arc<InboundLimits>,
    untaken: Arc<UntakenLimits>,
}

impl Instrumented {
    pub(crate) fn new(door: Door, options: &ServeOptions) -> Self {
        let inbound =
            InboundLimits::new(options.max_message_size, options.message_timeout, options.max_unfinished_messages);
        let untaken = UntakenLimits::new(options.max_untaken_answers, options.answer_timeout);
        let (inbound, untaken) = (Arc::new(inbound), Arc::new(untaken));
        Self { door, streams: options.streams, inbound, untaken }
    }

    /// Whether a call is one that people ask for: not a stream of many, nor a probe.
    fn is_single(&self, path: &str) -> bool {
        !path.starts_with("/grpc.") && !self.streams.contains(&path)
    }

    pub(crate) fn call(&self, request: Request<Incoming>, busy: Busy) -> Call {
        let (service, method) = split(request.uri().path());
        let series = match CallDurations::of_process().find(service, method) {
            Some(series) => Series::Known(series),
            None => Series::New(request.uri().clone()),
        };
        let is_single = self.is_single(request.uri().path());
        let span = if is_single { span(&request) } else { Span::none() };
        let began = Instant::now();
        let request = request.map(|body| Inbound::new(body, self.inbound.clone(), is_single));
        let answer = span.within(|| catch_unwind(AssertUnwindSafe(|| self.door.call(request))));
        let answer = answer.unwrap_or_else(|panic| answered(&panicked(&*panic)));
        let limits = self.untaken.clone();
        let running = Running { began, series: Some(series), span, is_single, untaken: None, limits, busy };
        Call { answer, running: Some(running) }
    }
}

/// An answer without a message.
fn answered(status: &Status) -> Answer {
    std::future::ready(Ok(status.clone().into_http())).boxed()
}

/// A handler at work.
pub(crate) struct Call {
    answer: Answer,
    running: Option<Running>,
}

impl Future for Call {
    type Output = Result<Response<Measured>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answer, running } = &mut *self;
        let Some(span) = running.as_ref().map(|running| &running.span) else { return Poll::Pending };
        let polled = span.within(|| catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))));
        let response = match polled {
            Ok(poll) => match ready!(poll) {
                Ok(response) => response,
            },
            Err(panic) => panicked(&*panic).into_http(),
        };
        match running.take() {
            Some(running) => Poll::Ready(Ok(running.watch(response))),
            None => Poll::Pending,
        }
    }
}

/// The span of a call, if its trace is sampled.
fn span(request: &Request<Incoming>) -> Span {
    let caller = || TraceContext::parse(request.headers().get(TRACEPARENT)?.to_str().ok()?);
    let span = tao_trace::begin(request.uri().path().trim_start_matches('/'), caller);
    span.set("rpc.system.name", "grpc");
    span
}

/// Whether a code says that the server failed, and not that its caller asked for what is not to be had.
const fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Logs a panic and makes the answer to whoever asked.
fn panicked(panic: &(dyn Any + Send)) -> Status {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = message.unwrap_or("no message"), "a handler panicked");
    Status::internal("internal error: the handler panicked")
}

fn code(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()))
}

/// Service and method of a path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

/// Where a call is counted.
enum Series {
    Known(MethodSeries),
    /// It has not answered before, and perhaps does not exist.
    New(Uri),
}

/// A call that is counted once: with its code, or as cancelled when it is dropped before.
struct Running {
    began: Instant,
    /// Until it has been counted.
    series: Option<Series>,
    span: Span,
    is_single: bool,
    /// What its caller has not taken yet, if that is much.
    untaken: Option<Untaken>,
    limits: Arc<UntakenLimits>,
    busy: Busy,
}

impl Running {
    fn watch(mut self, response: Response<Body>) -> Response<Measured> {
        // An answer without messages has its code in the headers; all others have it in the trailers.
        if let Some(code) = code(response.headers()) {
            self.end(code);
        }
        let mut response = response;
        if let Some(AnswerBytes(bytes)) = response.extensions_mut().remove() {
            match self.limits.charge(bytes, self.busy.activity()) {
                Ok(untaken) => self.untaken = Some(untaken),
                Err(status) => {
                    self.end(status.code());
                    response = status.into_http();
                }
            }
        }
        response.map(|inner| Measured { inner, running: self })
    }

    fn end(&mut self, code: Code) {
        let all = CallDurations::of_process();
        let series = match self.series.take() {
            None => return,
            Some(Series::Known(series)) => series,
            // Anybody can call what does not exist: such names must not become series.
            Some(Series::New(_)) if code == Code::Unimplemented => all.other(),
            Some(Series::New(uri)) => {
                let (service, method) = split(uri.path());
                all.method(service, method)
            }
        };
        let took = self.began.elapsed();
        series.record(code, took);
        if self.is_single {
            slow::note(took, self.span.context(), || series.told(code));
        }
        if self.span.is_recorded() {
            self.span.set("rpc.response.status_code", code as i64);
            if is_failure(code) {
                self.span.fail(code.description());
            }
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
        let polled = this.running.span.within(|| catch_unwind(AssertUnwindSafe(|| inner.poll_frame(cx))));
        let frame = match polled {
            Ok(poll) => ready!(poll),
            Err(panic) => Some(Err(panicked(&*panic))),
        };
        match &frame {
            Some(Ok(frame)) => {
                // One message at a time: with the next, the one before was taken.
                if !this.running.is_single {
                    let large = frame.data_ref().filter(|data| data.len() > AnswerBytes::LARGE);
                    let charge = large.map(|data| this.running.limits.charge(data.len(), this.running.busy.activity()));
                    match charge.transpose() {
                        Ok(untaken) => this.running.untaken = untaken,
                        Err(status) => {
                            this.running.end(status.code());
                            return Poll::Ready(Some(Err(status)));
                        }
                    }
                }
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
