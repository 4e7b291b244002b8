//! What a call can fail with.

use std::error::Error as StdError;
use std::time::Duration;

use tao_model::Error;
use tao_proto::v1::ItemError;
use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt as _;

/// The reason of a refusal for want of room.
const OVERLOADED: &str = "OVERLOADED";

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error("{address:?} is no address: use HOST:PORT, or several with commas between them")]
    Address {
        /// What was given.
        address: String,
    },
    /// An address of `https`, without the means to speak it.
    #[error("{address:?} wants TLS: say which authority to trust")]
    NoTls {
        /// What was given.
        address: String,
    },
    /// The request is larger than the client's limit, and was not sent.
    #[error("the request has {bytes} bytes, more than the limit of {limit}: send less at once")]
    TooLarge {
        /// What it has, encoded.
        bytes: usize,
        /// See [`ClientOptions::max_message`](crate::ClientOptions::max_message).
        limit: usize,
    },
    /// The way to the server failed: it can't be reached, or the connection broke before the answer came.
    #[error("can't reach {address}: {message}")]
    Transport {
        /// The server's.
        address: String,
        /// What tonic made of it.
        code: Code,
        /// The cause.
        message: String,
        /// Whether a write surely did not happen: no connection was made.
        not_applied: bool,
    },
    /// No answer within the call's deadline.
    #[error("no answer from {address} within {within:?}")]
    Deadline {
        /// The server's.
        address: String,
        /// The deadline, from the call's beginning.
        within: Duration,
        /// Whether a write surely did not happen.
        not_applied: bool,
    },
    /// The call was not sent: the server refuses calls for want of room, and takes about as many as are sent already.
    #[error("held back: {address} is overloaded, and takes no more calls for now")]
    Throttled {
        /// The server's.
        address: String,
        /// When to try again, at the earliest.
        retry_after: Duration,
    },
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// The reason of the closed list in docs/errors.md; empty when it was not tao that answered, or not at its best.
        reason: String,
        /// For people.
        message: String,
        /// Every field that is wrong, with its rule.
        violations: Vec<(String, String)>,
        /// Whether the same call may succeed when it is repeated.
        retryable: bool,
        /// Whether a write surely did not happen.
        not_applied: bool,
        /// When to try again, at the earliest.
        retry_after: Option<Duration>,
    },
}

impl ClientError {
    /// The gRPC code, or the one that a server would have answered with.
    pub const fn code(&self) -> Code {
        match self {
            Self::Address { .. } | Self::NoTls { .. } => Code::InvalidArgument,
            Self::TooLarge { .. } => Code::OutOfRange,
            Self::Transport { code, .. } | Self::Refused { code, .. } => *code,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Throttled { .. } => Code::ResourceExhausted,
        }
    }

    /// The reason that the server gave, of the closed list in docs/errors.md; empty when it gave none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Address { .. }
            | Self::NoTls { .. }
            | Self::TooLarge { .. }
            | Self::Transport { .. }
            | Self::Deadline { .. } => "",
            Self::Throttled { .. } => OVERLOADED,
            Self::Refused { reason, .. } => reason,
        }
    }

    /// Every field of the request that is wrong, with the rule that it breaks.
    pub fn violations(&self) -> &[(String, String)] {
        match self {
            Self::Address { .. }
            | Self::NoTls { .. }
            | Self::TooLarge { .. }
            | Self::Transport { .. }
            | Self::Deadline { .. }
            | Self::Throttled { .. } => &[],
            Self::Refused { violations, .. } => violations,
        }
    }

    /// Whether the same call may succeed when it is repeated (after a deadline: with a longer one). A write that may have
    /// happened is safe to repeat only with its idempotency key.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Address { .. } | Self::NoTls { .. } | Self::TooLarge { .. } => false,
            Self::Transport { .. } | Self::Deadline { .. } | Self::Throttled { .. } => true,
            Self::Refused { retryable, .. } => *retryable,
        }
    }

    /// Whether a write surely did not happen, in any of the attempts that were made.
    pub const fn is_not_applied(&self) -> bool {
        match self {
            Self::Address { .. } | Self::NoTls { .. } | Self::TooLarge { .. } | Self::Throttled { .. } => true,
            Self::Transport { not_applied, .. }
            | Self::Deadline { not_applied, .. }
            | Self::Refused { not_applied, .. } => *not_applied,
        }
    }

    /// When to try again, at the earliest, for errors that say so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Address { .. }
            | Self::NoTls { .. }
            | Self::TooLarge { .. }
            | Self::Transport { .. }
            | Self::Deadline { .. } => None,
            Self::Throttled { retry_after, .. } => Some(*retry_after),
            Self::Refused { retry_after, .. } => *retry_after,
        }
    }

    /// Whether the server had no room for the call, or was not asked since it would have none.
    pub fn is_overload(&self) -> bool {
        self.code() == Code::ResourceExhausted && self.is_retryable()
    }

    /// The same error, when an earlier attempt may have done the write.
    pub(crate) fn perhaps_applied(mut self) -> Self {
        match &mut self {
            // What an earlier attempt may have done is another error's to tell.
            Self::Throttled { address, .. } => {
                return Self::Transport {
                    address: std::mem::take(address),
                    code: Code::ResourceExhausted,
                    message: "overloaded, after an attempt without an answer".to_owned(),
                    not_applied: false,
                };
            }
            Self::Address { .. } | Self::NoTls { .. } | Self::TooLarge { .. } => {}
            Self::Transport { not_applied, .. }
            | Self::Deadline { not_applied, .. }
            | Self::Refused { not_applied, .. } => *not_applied = false,
        }
        self
    }

    /// Reads what the server said of one call of a pipeline.
    pub(crate) fn from_item(item: ItemError) -> Self {
        Self::Refused {
            code: Code::from(item.code),
            reason: item.reason,
            message: item.message,
            violations: item.violations.into_iter().map(|v| (v.field, v.description)).collect(),
            retryable: item.retryable,
            not_applied: item.not_applied,
            retry_after: (item.retry_after_ms > 0).then(|| Duration::from_millis(item.retry_after_ms)),
        }
    }

    /// An answer that is not of its call's kind.
    pub(crate) fn unreadable() -> Self {
        Self::Refused {
            code: Code::Internal,
            reason: String::new(),
            message: "the server sent an answer that this version can't read".to_owned(),
            violations: Vec::new(),
            retryable: false,
            not_applied: false,
            retry_after: None,
        }
    }

    /// There is no follower to call.
    pub(crate) fn nobody() -> Self {
        Self::Transport {
            address: "any follower".to_owned(),
            code: Code::Unavailable,
            message: "none is known".to_owned(),
            not_applied: true,
        }
    }

    /// What became of the way to the server at `address`, and of a call within so much time.
    pub(crate) fn from_link(error: &Error, address: &str, within: Duration) -> Self {
        let not_applied = error.is_not_applied();
        match error {
            Error::DeadlineExceeded { .. } => Self::Deadline { address: address.to_owned(), within, not_applied },
            Error::Unauthenticated { what } => Self::Refused {
                code: Code::Unauthenticated,
                reason: error.reason().to_owned(),
                message: what.clone(),
                violations: Vec::new(),
                retryable: false,
                not_applied,
                retry_after: None,
            },
            Error::Overloaded { retry_after, .. } => {
                Self::Throttled { address: address.to_owned(), retry_after: *retry_after }
            }
            other => Self::Transport {
                address: address.to_owned(),
                code: Code::Unavailable,
                message: other.to_string(),
                not_applied,
            },
        }
    }

    /// Reads what the server at `address` said, or what became of the way there.
    pub(crate) fn from_status(status: &Status, address: &str) -> Self {
        let info = status.get_details_error_info();
        let code = status.code();
        // What tao says has its reason. What the way there says has a cause of its own (under many codes, INTERNAL among them,
        // when a connection was ended politely), or one of the codes that proxies answer with.
        let is_transport = info.is_none()
            && (StdError::source(status).is_some()
                || matches!(code, Code::Unavailable | Code::Cancelled | Code::Unknown));
        if is_transport {
            return Self::Transport {
                address: address.to_owned(),
                code,
                message: causes(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string),
                not_applied: causes(status).any(<dyn StdError>::is::<ConnectError>),
            };
        }
        let said = |key: &str| info.as_ref().and_then(|i| i.metadata.get(key)).is_some_and(|v| v == "true");
        let violations = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
        Self::Refused {
            code,
            retryable: said("retryable") || (info.is_none() && code == Code::DeadlineExceeded),
            not_applied: said("not_applied"),
            reason: info.map(|i| i.reason).unwrap_or_default(),
            message: status.message().to_owned(),
            violations: violations.into_iter().map(|v| (v.field, v.description)).collect(),
            retry_after: status.get_details_retry_info().and_then(|r| r.retry_delay),
        }
    }
}

/// Why a status came to be, the root last.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = StdError::source(status);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
