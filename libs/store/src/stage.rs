//! How far a write is, for its trace and for what is measured: it waits for the lane, and then belongs to a batch until it is answered.

use std::time::Duration;

use tao_trace::{Kind, Span};
use tokio::time::Instant;

use crate::jobs::{Job, Queued};
use crate::store::WriteContext;

/// What came with a write, and the span of the stage that it is in.
pub(crate) struct Staged {
    pub idempotency_key: Option<String>,
    pub deadline: Option<Instant>,
    context: tao_trace::TraceContext,
    queued: Instant,
    span: Span,
    is_taken: bool,
}

impl From<WriteContext> for Staged {
    fn from(WriteContext { idempotency_key, deadline, trace }: WriteContext) -> Self {
        let span = trace.span("lane queue", Kind::Internal);
        Self { idempotency_key, deadline, context: trace, queued: Instant::now(), span, is_taken: false }
    }
}

impl Staged {
    /// The lane has taken it; how long it has waited, the first time.
    pub fn take(&mut self) -> Option<Duration> {
        if std::mem::replace(&mut self.is_taken, true) {
            return None;
        }
        self.span = self.context.span("lane commit", Kind::Internal);
        Some(self.queued.elapsed())
    }
}

/// Spans of one statement, for each write of a batch that is traced. They end when they are dropped.
pub(crate) fn statement(jobs: &[Queued], name: &str, system: &'static str) -> Vec<Span> {
    let of = |(job, _): &Queued| match job {
        Job::Write(_, staged, _) if staged.span.is_recorded() => {
            let span = staged.span.context().span(name, Kind::Client);
            span.set("db.system.name", system);
            span.set("db.operation.batch.size", jobs.len() as i64);
            Some(span)
        }
        Job::Write(..) | Job::Allocate(..) | Job::Delivered(..) => None,
    };
    jobs.iter().filter_map(of).collect()
}
