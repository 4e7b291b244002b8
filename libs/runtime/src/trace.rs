//! Trace context, in one place: into and out of the W3C `traceparent` form.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, and gRPC metadata, that carries trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The target of the spans that calls get. At level debug, so that they cost nothing unless they are exported or asked for.
pub const TARGET: &str = "tao::rpc";

/// Whether spans are exported at all.
static EXPORTING: AtomicBool = AtomicBool::new(false);

pub(crate) fn enable() {
    EXPORTING.store(true, Ordering::Relaxed);
}

/// The current span as a `traceparent`, for a call to another process; empty when traces are not exported or there is no span.
pub fn current_traceparent() -> String {
    if !EXPORTING.load(Ordering::Relaxed) {
        return String::new();
    }
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return String::new();
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// Makes a span the child of one in another process. What is no `traceparent` is ignored: a trace is never worth a failed call.
pub fn set_parent(span: &Span, traceparent: &str) {
    if !EXPORTING.load(Ordering::Relaxed) || traceparent.is_empty() || span.is_disabled() {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid()
        && let Err(error) = span.set_parent(context)
    {
        tracing::debug!(%error, "trace context not taken over");
    }
}
