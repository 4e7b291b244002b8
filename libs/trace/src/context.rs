//! Trace context, and its W3C form.

use std::fmt;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, trace};
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, and gRPC metadata, that carries trace context.
pub const TRACEPARENT: &str = "traceparent";

/// Which span something belongs to, and whether its trace is sampled. Copied, compared and passed on without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceContext {
    /// Of what is not traced.
    pub const NONE: Self = Self { trace: 0, span: 0, flags: 0 };
    /// Has spans made that are logged and not exported.
    pub(crate) const UNSAMPLED: Self = Self { trace: 1, span: 1, flags: 0 };

    /// Reads a `traceparent` of version 00. Anybody may send one: what is none is ignored, since a trace is never worth a failed call.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("00-")?;
        let (trace, rest) = rest.split_at_checked(32)?;
        let (span, rest) = rest.strip_prefix('-')?.split_at_checked(16)?;
        let flags = rest.strip_prefix('-').filter(|flags| flags.len() == 2)?;
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !(is_hex(trace) && is_hex(span) && is_hex(flags)) {
            return None;
        }
        let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Of the `tracing` span that is entered on this thread, where the program exports its spans.
    pub fn of_current_span() -> Self {
        if LevelFilter::current() == LevelFilter::OFF { Self::NONE } else { Self::of(&tracing::Span::current()) }
    }

    /// Of a span, which begins by that. Nothing, if nobody exports it.
    pub(crate) fn of(span: &tracing::Span) -> Self {
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return Self::NONE;
        }
        let (trace, flags) = (u128::from_be_bytes(span.trace_id().to_bytes()), span.trace_flags().to_u8());
        Self { trace, span: u64::from_be_bytes(span.span_id().to_bytes()), flags }
    }

    /// As OpenTelemetry has it, as the parent of a span.
    pub(crate) fn as_parent(self) -> Context {
        let (trace, span) = (TraceId::from(self.trace), SpanId::from(self.span));
        let flags = TraceFlags::new(self.flags);
        let parent: trace::SpanContext = SpanContext::new(trace, span, flags, true, TraceState::NONE);
        Context::new().with_remote_span_context(parent)
    }

    /// Whether there is none.
    pub const fn is_none(self) -> bool {
        self.trace == 0
    }

    /// Whether its spans are exported.
    pub const fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }

    /// As it travels to another process: a `traceparent` where it is sampled, and nothing where it is not. Only public doors begin traces,
    /// so that nobody decides anew.
    pub fn to_wire(self) -> String {
        if self.is_sampled() { self.to_string() } else { String::new() }
    }

    /// What came from another process.
    pub fn from_wire(text: &str) -> Self {
        if text.is_empty() { Self::NONE } else { Self::parse(text).unwrap_or_default() }
    }

    /// The trace's number, as logs and collectors show it.
    pub fn trace_id(self) -> impl fmt::Display {
        TraceId::from(self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_none_is_ignored() {
        let context = TraceContext::parse(TEXT).unwrap();
        assert!(context.is_sampled() && context.to_string() == TEXT && context.to_wire() == TEXT);
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
            let context = TraceContext::parse(&format!("{}{flags}", TEXT.trim_end_matches("01"))).unwrap();
            assert_eq!(context.is_sampled(), is_sampled);
        }
        let zero = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let upper = TEXT.to_uppercase();
        let (longer, signed) = (format!("{TEXT}-x"), TEXT.replace("-0af", "-+af"));
        for wrong in ["", "nonsense", "00-1-1-01", &zero, &upper, &longer, &signed, &TEXT[..54], "00-ö"] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_sampled_does_not_travel() {
        assert_eq!(TraceContext::UNSAMPLED.to_wire(), "");
        assert_eq!(TraceContext::from_wire(""), TraceContext::NONE);
        assert!(TraceContext::default().is_none() && !TraceContext::NONE.is_sampled());
    }
}
