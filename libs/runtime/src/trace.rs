//! Trace context, in one place: into and out of the W3C `traceparent` form.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::Code;
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, and gRPC metadata, that carries trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The target of the spans that calls get. At level debug, so that they cost nothing unless they are exported or asked for.
pub const TARGET: &str = "tao::rpc";

/// What a call that is not sampled tells the processes that it calls, so that they don't decide anew.
const UNSAMPLED: &str = "00-00000000000000000000000000000001-0000000000000001-00";

/// Whether spans are exported at all.
static EXPORTING: AtomicBool = AtomicBool::new(false);
/// Whether logs may want spans that are not exported.
static LOGGED: AtomicBool = AtomicBool::new(false);
/// A trace that begins here is sampled when a random number is below this share of `u64::MAX`.
static SAMPLED_BELOW: AtomicU64 = AtomicU64::new(u64::MAX);

thread_local! {
    /// Whether the handler that is polled now belongs to a call that is not sampled.
    static IN_UNSAMPLED: Cell<bool> = const { Cell::new(false) };
}

/// Exports from now on: this share of the traces that begin here, 0 to 1.
pub(crate) fn enable(ratio: f64) {
    SAMPLED_BELOW.store((ratio * u64::MAX as f64) as u64, Ordering::Relaxed);
    EXPORTING.store(true, Ordering::Relaxed);
}

/// Logs show spans at level debug.
pub(crate) fn enable_logged() {
    LOGGED.store(true, Ordering::Relaxed);
}

/// The trace that a call belongs to. Sampling is decided before there is a span, since most calls then have none.
pub(crate) enum CallTrace {
    /// Nobody looks.
    Untraced,
    /// Traces are exported, but not this one.
    Unsampled,
    /// It is exported, or may be logged.
    Span(Span),
}

impl CallTrace {
    /// Of a call to this path. One relaxed load when nobody looks.
    pub(crate) fn begin(path: &str, headers: &HeaderMap) -> Self {
        if LevelFilter::current() < LevelFilter::DEBUG {
            return Self::Untraced;
        }
        if !EXPORTING.load(Ordering::Relaxed) {
            return Self::Span(span(path));
        }
        let parent = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok());
        match parent.and_then(is_sampled).unwrap_or_else(decide) {
            true => {
                let span = span(path);
                set_parent(&span, parent.unwrap_or_default());
                Self::Span(span)
            }
            false if LOGGED.load(Ordering::Relaxed) => {
                let span = span(path);
                set_parent(&span, parent.filter(|p| is_sampled(p).is_some()).unwrap_or(UNSAMPLED));
                Self::Span(span)
            }
            false => Self::Unsampled,
        }
    }

    /// Runs a part of the call.
    pub(crate) fn within<T>(&self, part: impl FnOnce() -> T) -> T {
        match self {
            Self::Untraced => part(),
            Self::Unsampled => {
                let before = IN_UNSAMPLED.replace(true);
                let done = part();
                IN_UNSAMPLED.set(before);
                done
            }
            Self::Span(span) => span.in_scope(part),
        }
    }

    /// Notes how it ended.
    pub(crate) fn end(&self, code: Code) {
        if let Self::Span(span) = self {
            span.record("rpc.grpc.status_code", code as i32);
        }
    }
}

/// A span named after the call.
fn span(path: &str) -> Span {
    tracing::debug_span!(
        target: TARGET,
        "rpc",
        otel.name = path.trim_start_matches('/'),
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.grpc.status_code = tracing::field::Empty,
    )
}

/// Whether a `traceparent` says so; nothing if it is none.
fn is_sampled(traceparent: &str) -> Option<bool> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version, trace, span, flags].map(str::len);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (lengths == [2, 32, 16, 2]).then_some(flags & 1 == 1)
}

fn decide() -> bool {
    is_drawn(SAMPLED_BELOW.load(Ordering::Relaxed))
}

fn is_drawn(below: u64) -> bool {
    below == u64::MAX || RandomState::new().hash_one(()) < below
}

/// The current span as a `traceparent`, for a call to another process; empty when traces are not exported or there is no span.
pub fn current_traceparent() -> String {
    if !EXPORTING.load(Ordering::Relaxed) {
        return String::new();
    }
    if IN_UNSAMPLED.get() {
        return UNSAMPLED.to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_s_flag_is_read_and_what_is_none_is_ignored() {
        let with = |flags: &str| format!("{}{flags}", UNSAMPLED.trim_end_matches("00"));
        assert_eq!(["00", "01", "02", "03"].map(|f| is_sampled(&with(f))), [false, true, false, true].map(Some));
        for wrong in ["", "nonsense", "00-1-1-01", &with("zz"), &with("1")] {
            assert_eq!(is_sampled(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_ratio_is_kept() {
        let drawn = |below| (0..10_000).filter(|_| is_drawn(below)).count();
        assert_eq!((drawn(0), drawn(u64::MAX)), (0, 10_000));
        let quarter = drawn(u64::MAX / 4);
        assert!((2_000..3_000).contains(&quarter), "{quarter}");
    }
}
