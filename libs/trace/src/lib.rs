//! What is told of single requests: the trace context that travels with each, its spans, and the log of the slow ones.
//!
//! Whether a trace is sampled is decided once, where it begins. From there on it is a bit of a [`TraceContext`], a value that is copied
//! along with the call: what is not sampled makes no span and allocates nothing, on any tier.

pub mod slow;

mod context;
mod sampling;
mod span;

pub use context::{TRACEPARENT, TraceContext};
pub use sampling::{begin, export, log_spans};
pub use span::{FOUND_IN, Kind, Span, TARGET, current, note};
