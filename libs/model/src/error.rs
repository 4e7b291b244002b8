//! The one list of what can go wrong, from the store to the public door.

use std::time::Duration;

use crate::position::Position;

/// A result with tao's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One field of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path, such as `data["name"]` or `ids[3]`.
    pub field: String,
    /// The rule, and what was given.
    pub description: String,
}

/// Gathers violations so that all of a request are reported at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// How many are reported at most; a request can be wrong in thousands of places.
    pub const MAX: usize = 100;

    /// Adds one.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.0.len() < Self::MAX {
            self.0.push(Violation { field: field.into(), description: description.into() });
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An error if there are any.
    pub fn check(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::InvalidArgument { violations: self.0 }) }
    }
}

/// Everything that a call can fail with. Each answers two questions: may it be repeated as it is
/// ([`Error::is_retryable`]), and did the write surely not happen ([`Error::is_not_applied`])?
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request breaks rules.
    #[error("{}", describe(violations))]
    InvalidArgument {
        /// Every one.
        violations: Vec<Violation>,
    },
    /// There is no such object or edge.
    #[error("{what} does not exist")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// There is such an object already.
    #[error("{what} exists already")]
    AlreadyExists {
        /// What stands in the way.
        what: String,
    },
    /// The object has another version than the caller expected.
    #[error("object {id} has version {actual}, not {expected}: read it again, then decide")]
    VersionMismatch {
        /// The object.
        id: i64,
        /// The caller's.
        expected: i64,
        /// The object's.
        actual: i64,
    },
    /// An object is of another type than the call or the schema says.
    #[error("{what}")]
    TypeMismatch {
        /// Which object, and which types.
        what: String,
    },
    /// The update would make the data too large.
    #[error("the update would make the object {what}")]
    DataTooLarge {
        /// How large, and what is allowed.
        what: String,
    },
    /// `add` met a value that is no int64.
    #[error("field {field:?} can't be added to: it holds another kind of value than int64")]
    NotANumber {
        /// The field.
        field: String,
    },
    /// `add` would leave the range of int64.
    #[error("adding to field {field:?} would leave the range of int64")]
    NumberOverflow {
        /// The field.
        field: String,
    },
    /// The answer does not fit.
    #[error("the answer does not fit into {} bytes: ask for less at once", crate::limits::MAX_ANSWER)]
    AnswerTooLarge,
    /// A stream can't begin where it was to resume.
    #[error("changes after {after} are not kept any more: read what is needed anew, then begin at the present")]
    ChangesExpired {
        /// Where it was to begin.
        after: Position,
    },
    /// The server does not own the shard.
    #[error("shard {shard} is not served here")]
    WrongShard {
        /// The shard.
        shard: u32,
    },
    /// The token was made by another cluster.
    #[error("the session token was made by another cluster: start a new session")]
    TokenOtherCluster,
    /// The token has seen a history that was undone.
    #[error(
        "history was undone: the session has seen position {seen}, and the log began anew at epoch {epoch}; start a new session"
    )]
    HistoryUndone {
        /// The token's.
        seen: Position,
        /// The log's.
        epoch: u64,
    },
    /// The token has seen what the log's owner doesn't know.
    #[error(
        "the session token is from the future: it has seen position {seen}, and the log ends at {head}; start a new session"
    )]
    TokenFromFuture {
        /// The token's.
        seen: Position,
        /// The log's.
        head: Position,
    },
    /// The same idempotency key came with a different write.
    #[error("idempotency key {key:?} was used for another write: choose a new key for a new write")]
    IdempotencyKeyReused {
        /// The key.
        key: String,
    },
    /// The caller's deadline passed.
    #[error("deadline exceeded")]
    DeadlineExceeded {
        /// Whether a write surely did not happen.
        not_applied: bool,
    },
    /// The caller went away.
    #[error("cancelled")]
    Cancelled,
    /// A tier or store can't be reached.
    #[error("{what}")]
    Unavailable {
        /// What can't be reached.
        what: String,
        /// Whether a write surely did not happen.
        not_applied: bool,
        /// When to try again.
        retry_after: Duration,
    },
    /// Shed load, before any work was done.
    #[error("overloaded: {what}")]
    Overloaded {
        /// Which limit.
        what: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Nobody is known to ask.
    #[error("{what}")]
    Unauthenticated {
        /// Why whoever asks is taken for nobody; never what was shown.
        what: String,
    },
    /// Who asks may not.
    #[error("{what}")]
    PermissionDenied {
        /// Who, and what is lacking.
        what: String,
    },
    /// One item keeps a batch from being done. Of an INVALID_ARGUMENT the violations name the item instead.
    #[error("{item}: {error}")]
    Item {
        /// Where it is in the request, such as `writes[3]`.
        item: String,
        /// What it would have failed with by itself; it answers all questions.
        error: Box<Error>,
    },
    /// A bug, or a corrupt store.
    #[error("internal error: {what}")]
    Internal {
        /// For the log and the caller; never a driver's text.
        what: String,
    },
}

fn describe(violations: &[Violation]) -> String {
    let mut text = String::new();
    for v in violations.iter().take(3) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&v.field);
        text.push_str(": ");
        text.push_str(&v.description);
    }
    if violations.len() > 3 {
        text.push_str(&format!("; and {} more", violations.len() - 3));
    }
    text
}

impl Error {
    /// One violation.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::InvalidArgument { violations: vec![Violation { field: field.into(), description: description.into() }] }
    }

    /// A tier or store that can't be reached; nothing was done.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), not_applied: true, retry_after: Duration::from_millis(100) }
    }

    /// Says which item of a batch it is about.
    #[must_use]
    pub fn of_item(self, item: &str) -> Self {
        match self {
            Self::InvalidArgument { violations } => {
                let field = |field: String| if field.is_empty() { item.to_owned() } else { format!("{item}.{field}") };
                let violations = violations
                    .into_iter()
                    .map(|v| Violation { field: field(v.field), description: v.description })
                    .collect();
                Self::InvalidArgument { violations }
            }
            error => Self::Item { item: item.to_owned(), error: Box::new(error) },
        }
    }

    /// The reason of google.rpc.ErrorInfo: stable, of a closed list.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "INVALID_ARGUMENT",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::AlreadyExists { .. } => "ALREADY_EXISTS",
            Self::VersionMismatch { .. } => "VERSION_MISMATCH",
            Self::TypeMismatch { .. } => "TYPE_MISMATCH",
            Self::DataTooLarge { .. } => "DATA_TOO_LARGE",
            Self::NotANumber { .. } => "NOT_A_NUMBER",
            Self::NumberOverflow { .. } => "NUMBER_OVERFLOW",
            Self::AnswerTooLarge => "ANSWER_TOO_LARGE",
            Self::ChangesExpired { .. } => "CHANGES_EXPIRED",
            Self::WrongShard { .. } => "WRONG_SHARD",
            Self::TokenOtherCluster => "TOKEN_OTHER_CLUSTER",
            Self::HistoryUndone { .. } => "HISTORY_UNDONE",
            Self::TokenFromFuture { .. } => "TOKEN_FROM_FUTURE",
            Self::IdempotencyKeyReused { .. } => "IDEMPOTENCY_KEY_REUSED",
            Self::DeadlineExceeded { .. } => "DEADLINE_EXCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::Unauthenticated { .. } => "UNAUTHENTICATED",
            Self::PermissionDenied { .. } => "PERMISSION_DENIED",
            Self::Item { error, .. } => error.reason(),
            Self::Internal { .. } => "INTERNAL",
        }
    }

    /// Whether the same call may succeed when it is repeated as it is. A write that may have happened is safe to repeat only
    /// with an idempotency key.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Overloaded { .. }
            | Self::DeadlineExceeded { .. }
            | Self::WrongShard { .. } => true,
            Self::Item { error, .. } => error.is_retryable(),
            Self::InvalidArgument { .. }
            | Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::VersionMismatch { .. }
            | Self::TypeMismatch { .. }
            | Self::DataTooLarge { .. }
            | Self::NotANumber { .. }
            | Self::NumberOverflow { .. }
            | Self::AnswerTooLarge
            | Self::ChangesExpired { .. }
            | Self::TokenOtherCluster
            | Self::HistoryUndone { .. }
            | Self::TokenFromFuture { .. }
            | Self::IdempotencyKeyReused { .. }
            | Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::Cancelled
            | Self::Internal { .. } => false,
        }
    }

    /// Whether a write that failed so surely did not happen.
    pub fn is_not_applied(&self) -> bool {
        match self {
            Self::DeadlineExceeded { not_applied } | Self::Unavailable { not_applied, .. } => *not_applied,
            Self::Cancelled | Self::Internal { .. } | Self::AnswerTooLarge => false,
            Self::Item { error, .. } => error.is_not_applied(),
            Self::InvalidArgument { .. }
            | Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::VersionMismatch { .. }
            | Self::TypeMismatch { .. }
            | Self::DataTooLarge { .. }
            | Self::NotANumber { .. }
            | Self::NumberOverflow { .. }
            | Self::ChangesExpired { .. }
            | Self::WrongShard { .. }
            | Self::TokenOtherCluster
            | Self::HistoryUndone { .. }
            | Self::TokenFromFuture { .. }
            | Self::IdempotencyKeyReused { .. }
            | Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::Overloaded { .. } => true,
        }
    }

    /// When to try again, for the errors that say so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::Overloaded { retry_after, .. } => Some(*retry_after),
            Self::Item { error, .. } => error.retry_after(),
            _ => None,
        }
    }
}
