//! What can be wrong.

use crate::check::Time;

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// LSNs are not consecutive, or epochs go down.
    LogGap,
    /// A change does not follow from the state before it: its predecessor, count or version is wrong.
    BrokenChange,
    /// The tables are not what the log says.
    TablesDiffer,
    /// An edge has no inverse, or another one.
    InverseMissing,
    /// An acknowledged write is not in the log.
    LostWrite,
    /// A write is in the log more than once.
    Duplicate,
    /// A write that surely did not happen, by its answer, is in the log.
    SaidNotApplied,
    /// The log has a change that nobody asked for.
    FromNowhere,
    /// A write's answer is not what the log says.
    WrongAnswer,
    /// A write began after another was acknowledged and comes before it in the log.
    OrderReversed,
    /// The token of an answer does not cover what was done or seen.
    TokenBehind,
    /// A read is older than what its session had seen or done.
    SessionWentBack,
    /// A read is older than its token.
    BehindToken,
    /// A read is older than a write that the same follower had acknowledged.
    FollowerForgot,
    /// A read with STRONG misses what was committed before it began.
    NotStrong,
    /// A read with BOUNDED_STALENESS is older than it may be.
    TooStale,
    /// When all is quiet, a cache still shows an old state.
    StaleForEver,
    /// A read is older than the freshness that its answer claims.
    FalseFreshness,
    /// A read shows a state that comes after it.
    FromFuture,
    /// A read shows a state that never was.
    NeverWas,
    /// A retry with an idempotency key was answered otherwise than the first time.
    RetryDiffers,
    /// An error that no fault explains.
    OddError,
}

/// One broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub kind: Kind,
    /// When, by the run's clock; 0 where the log as a whole is meant.
    pub time: Time,
    /// The session, if it was one's.
    pub session: Option<u32>,
    /// The particulars.
    pub text: String,
}

impl Violation {
    /// One that is not of a session.
    pub fn of_log(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, time: 0, session: None, text: text.into() }
    }
}
