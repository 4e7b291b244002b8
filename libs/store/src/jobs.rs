//! What is asked of the lane, and how each is answered.

use tao_model::{Change, Data, Error, ObjectId, Result, ShardId, Step, Value, Write, WriteOutcome};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::intents::Delivered;
use crate::stage::Staged;

/// What a job without data counts for.
const JOB_BYTES: usize = 64;
/// A job and about how many bytes it takes.
pub(crate) type Queued = (Job, usize);

/// What is asked of the lane.
pub(crate) enum Job {
    Write(Write, Staged, oneshot::Sender<Result<WriteOutcome>>),
    Allocate(Option<ShardId>, usize, oneshot::Sender<Result<Vec<ObjectId>>>),
    /// Intents are done and may be deleted.
    Delivered(Delivered, oneshot::Sender<Result<()>>),
}

/// What became of one.
pub(crate) enum Done {
    Deleted,
    Written(Result<WriteOutcome>),
    Allocated(Result<Vec<ObjectId>>),
}

impl Done {
    pub fn changes(&mut self) -> &mut [Change] {
        match self {
            Self::Written(Ok(outcome)) => &mut outcome.changes,
            Self::Written(Err(_)) | Self::Allocated(_) | Self::Deleted => &mut [],
        }
    }
}

impl Job {
    pub fn answer(self, done: Done) {
        // A caller that went away hears nothing.
        match (self, done) {
            (Self::Write(_, _, to), Done::Written(result)) => drop(to.send(result)),
            (Self::Allocate(_, _, to), Done::Allocated(result)) => drop(to.send(result)),
            (Self::Delivered(_, to), Done::Deleted) => drop(to.send(Ok(()))),
            (Self::Write(..) | Self::Allocate(..) | Self::Delivered(..), _) => {}
        }
    }

    pub fn fail(self, error: Error) {
        match self {
            Self::Write(_, _, to) => drop(to.send(Err(error))),
            Self::Allocate(_, _, to) => drop(to.send(Err(error))),
            Self::Delivered(_, to) => drop(to.send(Err(error))),
        }
    }

    pub fn is_late(&self) -> bool {
        match self {
            Self::Write(_, staged, to) => to.is_closed() || staged.deadline.is_some_and(|d| d <= Instant::now()),
            Self::Allocate(_, _, to) => to.is_closed(),
            Self::Delivered(_, to) => to.is_closed(),
        }
    }

    /// How many writes it is.
    pub fn writes(&self) -> usize {
        match self {
            Self::Write(Write::Batch(batch), ..) => batch.writes.len().max(1),
            Self::Write(Write::Intents { intents, .. }, ..) => intents.len().max(1),
            Self::Write(..) | Self::Allocate(..) | Self::Delivered(..) => 1,
        }
    }

    /// About how many bytes of data it writes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Write(write, ..) => write_bytes(write),
            Self::Allocate(..) | Self::Delivered(..) => JOB_BYTES,
        }
    }
}

/// About how many bytes of data a write takes.
fn write_bytes(write: &Write) -> usize {
    let data = match write {
        Write::ObjectAdd { data, .. } | Write::ObjectUpsert { data, .. } | Write::AssocAdd { data, .. } => data,
        Write::ObjectUpdate { update, .. } => &update.set,
        Write::ObjectDelete { .. } | Write::AssocDelete { .. } | Write::AssocChangeType { .. } => return JOB_BYTES,
        Write::Batch(batch) => {
            return JOB_BYTES * batch.conditions.len() + batch.writes.iter().map(write_bytes).sum::<usize>();
        }
        Write::Intents { intents, .. } => {
            let step = |step: &Step| match step {
                Step::Put { data, .. } => data.len() + JOB_BYTES,
                Step::Remove { .. } | Step::DeleteObject(_) => JOB_BYTES,
            };
            return intents.iter().flat_map(|intent| &intent.steps).map(step).sum();
        }
    };
    data_bytes(data) + JOB_BYTES
}

fn data_bytes(data: &Data) -> usize {
    let value = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Bool(_) | Value::Int64(_) | Value::Double(_) | Value::Timestamp(..) => 8,
    };
    data.iter().map(|(name, v)| name.len() + value(v) + 8).sum()
}
