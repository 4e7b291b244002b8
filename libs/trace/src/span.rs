//! Spans, for what is sampled only.

use std::cell::Cell;

use opentelemetry::Value;
use opentelemetry::trace::Status;
use tracing::instrument::{Instrument as _, Instrumented};
use tracing::{Level, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::context::TraceContext;

/// The target of all spans. They are at level debug, so that they cost nothing unless they are exported or asked for.
pub const TARGET: &str = "tao::trace";

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of none.
    Internal,
    /// It answers.
    Server,
    /// It asks: another tier, a database.
    Client,
}

thread_local! {
    /// What is polled on this thread now.
    static CURRENT: Cell<TraceContext> = const { Cell::new(TraceContext::NONE) };
}

/// The context of the call that is polled on this thread; what [`Span::within`] runs finds it here.
pub fn current() -> TraceContext {
    CURRENT.get()
}

/// A span under way, which ends when it is dropped; or nothing, when its trace is not sampled.
#[derive(Debug)]
#[must_use]
pub struct Span {
    inner: tracing::Span,
    context: TraceContext,
}

/// An attribute of spans: where a value was, in `memory`, in `redis`, or in `none` of a tier's caches. Not said of a read that joined
/// another's.
pub const FOUND_IN: &str = "tao.cache.found_in";

/// Adds what is known of the call that is polled on this thread to its span, if it has one.
pub fn note(key: &'static str, value: impl Into<Value>) {
    if current().is_sampled() {
        tracing::Span::current().set_attribute(key, value);
    }
}

impl TraceContext {
    /// A part of the work that this is the context of. Nothing when it is not sampled.
    pub fn span(self, name: &str, kind: Kind) -> Span {
        if self.is_sampled() { Span::open(name, kind, self) } else { Span::passing(self) }
    }
}

impl Span {
    /// Nothing.
    pub fn none() -> Self {
        Self::passing(TraceContext::NONE)
    }

    /// No span; its parts belong to the caller's.
    pub(crate) fn passing(context: TraceContext) -> Self {
        Self { inner: tracing::Span::none(), context }
    }

    /// One that is exported, or passed over where nobody exports.
    pub(crate) fn open(name: &str, kind: Kind, parent: TraceContext) -> Self {
        let inner = Self::make(name, kind, parent);
        let context = TraceContext::of(&inner);
        if context.is_none() {
            return Self { inner, context: parent };
        }
        inner.record("trace_id", field::display(context.trace_id()));
        Self { inner, context }
    }

    /// One that logs show, and nobody exports.
    pub(crate) fn logged(name: &str, kind: Kind, caller: TraceContext) -> Self {
        Self { inner: Self::make(name, kind, caller), context: caller }
    }

    fn make(name: &str, kind: Kind, parent: TraceContext) -> tracing::Span {
        let kind = match kind {
            Kind::Internal => "internal",
            Kind::Server => "server",
            Kind::Client => "client",
        };
        // Its parent is told, not found: what a batch does for many would belong to whoever is first.
        let span = tracing::span!(
            target: TARGET,
            parent: None,
            Level::DEBUG,
            "call",
            otel.name = name,
            otel.kind = kind,
            trace_id = field::Empty,
        );
        if !parent.is_none()
            && !span.is_disabled()
            && let Err(error) = span.set_parent(parent.as_parent())
        {
            tracing::trace!(%error, "trace context not taken over");
        }
        span
    }

    /// What its parts belong to.
    pub const fn context(&self) -> TraceContext {
        self.context
    }

    /// Whether there is anything to be told of it.
    pub fn is_recorded(&self) -> bool {
        !self.inner.is_disabled()
    }

    /// Adds what is known of it.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        if self.is_recorded() {
            self.inner.set_attribute(key, value);
        }
    }

    /// It did not succeed.
    pub fn fail(&self, why: &str) {
        if self.is_recorded() {
            self.inner.set_status(Status::error(why.to_owned()));
        }
    }

    /// Runs a part of it: logs show the span, and [`current`] is its context.
    pub fn within<T>(&self, part: impl FnOnce() -> T) -> T {
        if self.context.is_none() && self.inner.is_disabled() {
            return part();
        }
        let before = CURRENT.replace(self.context);
        let done = self.inner.in_scope(part);
        CURRENT.set(before);
        done
    }

    /// Shows it in what the future logs. It ends with the future, and not before the last handle.
    pub fn around<F: Future>(&self, future: F) -> Instrumented<F> {
        future.instrument(self.inner.clone())
    }
}

impl Clone for Span {
    /// The same span: it ends when both are dropped.
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), context: self.context }
    }
}
