//! What sessions did and saw, kept small: a run of ten minutes has millions of steps.

use tao_model::{AssocRef, Key, ObjectId, TypeId};

/// Microseconds since the run began.
pub type Time = u32;

/// A position in a log, its epoch left out: LSNs are consecutive over epochs. 0 lies before every change.
pub type Lsn = u32;

/// A life of a follower process: its number, and which start of it this was, from 1. 0 when it is not certain which life it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// The follower.
    pub follower: u8,
    /// Its life.
    pub life: u16,
}

/// All that was done in a run.
#[derive(Debug, Default)]
pub struct History {
    /// In any order.
    pub sessions: Vec<SessionHistory>,
}

/// What one session did, one step after the other.
#[derive(Debug, Default)]
pub struct SessionHistory {
    /// Its number in the run.
    pub id: u32,
    /// In the order in which they were done.
    pub steps: Vec<Step>,
    /// Lists that steps refer to.
    pub arena: Arena,
}

/// One step.
#[derive(Debug, Clone)]
pub enum Step {
    /// A read that was answered. A call that reads several keys is several of these with the same times.
    Read(Read),
    /// A write, with all of its attempts.
    Write(Box<Write>),
    /// A read that failed.
    Failed(Failed),
    /// An answer that is wrong by itself, whatever the log says.
    Odd(Box<(Time, crate::check::Kind, String)>),
}

/// A read that failed for want of a tier.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// When it began.
    pub start: Time,
    /// When it failed.
    pub end: Time,
}

/// How fresh an answer has to be, beside what the session's token asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Whatever there is.
    Cached,
    /// At most so many milliseconds old.
    Bounded(u32),
    /// The newest.
    Strong,
    /// Whatever there is, when all has been quiet for a while and every stream has drained: then it must be the newest.
    Settled,
}

/// One key that was read.
#[derive(Debug, Clone)]
pub struct Read {
    /// When the call began.
    pub start: Time,
    /// When its answer was there.
    pub end: Time,
    /// Who answered.
    pub process: Process,
    /// What was asked for.
    pub level: Level,
    /// Whether the session's token was a floor: then all that the session has seen and done is one.
    pub floored: bool,
    /// Whether another record of the same call came before.
    pub continued: bool,
    /// The key.
    pub key: Key,
    /// What the token said of the key's shard before the call, when it was a floor.
    pub floor: Lsn,
    /// The freshness that the answer claims for the key; 0 when it can't be told.
    pub claim: Lsn,
    /// What was seen.
    pub seen: Seen,
}

/// The answer to a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// [`object_hash`](crate::check::object_hash) of the object, or [`ABSENT`](crate::check::ABSENT).
    Object(u64),
    /// Edges of a list.
    Count(u32),
    /// A part of a list.
    Page(Page),
    /// Edges to given ends.
    Among(Among),
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Which part was asked for.
    pub filter: Filter,
    /// [`edge_hash`](crate::check::edge_hash) of each edge.
    pub edges: Span,
    /// Whether the answer said that nothing follows.
    pub ended: bool,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Only what comes after this edge in list order.
    pub after: Option<(u32, i64)>,
    /// Edges to skip.
    pub offset: u32,
    /// The oldest time.
    pub low: u32,
    /// The newest time.
    pub high: u32,
    /// Edges at the most.
    pub limit: u32,
}

/// Edges to given ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Among {
    /// The ends.
    pub ids: Span,
    /// The oldest time.
    pub low: u32,
    /// The newest time.
    pub high: u32,
    /// [`edge_hash`](crate::check::edge_hash) of each edge.
    pub edges: Span,
}

/// A part of a session's [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    len: u16,
}

/// Where a session keeps its lists of numbers.
#[derive(Debug, Default)]
pub struct Arena(Vec<u64>);

impl Arena {
    /// Keeps a list.
    pub fn keep(&mut self, values: impl IntoIterator<Item = u64>) -> Span {
        let start = self.0.len();
        self.0.extend(values);
        Span { start: start as u32, len: (self.0.len() - start) as u16 }
    }

    /// A list that was kept.
    pub fn get(&self, span: Span) -> &[u64] {
        &self.0[span.start as usize..][..span.len as usize]
    }
}

/// A write, with all of its attempts.
#[derive(Debug, Clone)]
pub struct Write {
    /// Unique in the run, and part of what was written, as field `w`; deletions and moves write nothing of their own.
    pub w: u64,
    /// When the first attempt began.
    pub start: Time,
    /// When the last attempt ended.
    pub end: Time,
    /// Who gave the last answer.
    pub process: Process,
    /// How often it was tried.
    pub attempts: u16,
    /// Whether it had an idempotency key.
    pub keyed: bool,
    /// What was to be done.
    pub asked: Asked,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a write was to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Add an object, or replace it, or change it.
    Put {
        /// `None`: it was to get a new id, and there was no answer that told which.
        id: Option<ObjectId>,
        /// Whether the field `n` was to grow by one; otherwise it starts from 0.
        adds: bool,
        /// The version that it had to have.
        expected: Option<i64>,
    },
    /// Delete an object.
    Delete(ObjectId),
    /// Put an edge, and its inverse.
    Link(AssocRef),
    /// Remove an edge, and its inverse.
    Unlink(AssocRef),
    /// Move an edge, and its inverse, to another type.
    Retype(AssocRef, TypeId),
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged.
    Done(Done),
    /// It may have been done.
    InDoubt,
    /// For want of a tier; the answer was that nothing was done, and no attempt was left in doubt.
    NotApplied,
    /// By the rules: there is no such object, it has another version.
    Refused,
}

/// What the answer to a write said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Whether anything was there to delete, or nothing was there before it was added.
    pub applied: bool,
    /// Of the object or edge in the answer; 0 when it has none.
    pub hash: u64,
    /// Edges of the list that was named.
    pub count: u32,
    /// Whether the answer said that the inverse is still to come.
    pub pending: bool,
    /// What the answer's token says of the shards of `id` or `id1`, and of `id2`.
    pub covered: [Lsn; 2],
}
