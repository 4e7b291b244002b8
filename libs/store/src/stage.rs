//! How far a write is, for its trace and for what is measured: it waits for the lane, and then belongs to a batch until it is answered.

use std::time::Duration;

use tao_trace::{Kind, Span, TraceContext};
use tokio::time::Instant;

use crate::jobs::{Job, Queued};
use crate::store::WriteContext;

/// What came with a write, and how far it is.
pub(crate) struct Staged {
    pub idempotency_key: Option<String>,
    pub deadline: Option<Instant>,
    /// Until it is taken.
    queued: Option<Instant>,
    /// Of one that is sampled.
    traced: Option<Box<Traced>>,
}

struct Traced {
    parent: TraceContext,
    /// Of the stage that it is in.
    span: Span,
}

impl From<WriteContext> for Staged {
    fn from(WriteContext { idempotency_key, deadline, trace }: WriteContext) -> Self {
        let traced = trace.is_sampled().then(|| {
            let span = trace.span("lane queue", Kind::Internal);
            Box::new(Traced { parent: trace, span })
        });
        Self { idempotency_key, deadline, queued: Some(Instant::now()), traced }
    }
}

impl Staged {
    /// The lane has taken it; how long it has waited, the first time.
    pub fn take(&mut self) -> Option<Duration> {
        let queued = self.queued.take()?;
        if let Some(traced) = &mut self.traced {
            traced.span = traced.parent.span("lane commit", Kind::Internal);
        }
        Some(queued.elapsed())
    }
}

/// Spans of one statement, for each write of a batch that is traced. They end when they are dropped.
pub(crate) fn statement(jobs: &[Queued], name: &str, system: &'static str) -> Vec<Span> {
    let of = |(job, _): &Queued| {
        let Job::Write(_, Staged { traced: Some(traced), .. }, _) = job else { return None };
        let span = traced.span.context().span(name, Kind::Client);
        span.set("db.system.name", system);
        span.set("db.operation.batch.size", jobs.len() as i64);
        Some(span)
    };
    jobs.iter().filter_map(of).collect()
}
