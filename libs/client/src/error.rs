//! What a call can fail with, as the server said it.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A call that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// Not an address.
    #[error("{address:?} is no address: use HOST:PORT")]
    Address {
        /// What was given.
        address: String,
    },
    /// The server, or the way there, said no.
    #[error("{message}")]
    Call {
        /// The gRPC code.
        code: Code,
        /// The reason of the closed list in docs/errors.md; empty when the transport failed.
        reason: String,
        /// For people.
        message: String,
        /// Every field that is wrong, with its rule.
        violations: Vec<(String, String)>,
        /// Whether the same call may succeed when it is repeated.
        retryable: bool,
        /// Whether a write surely did not happen.
        not_applied: bool,
        /// When to try again.
        retry_after: Option<Duration>,
    },
}

impl ClientError {
    /// The gRPC code; INVALID_ARGUMENT for an address.
    pub const fn code(&self) -> Code {
        match self {
            Self::Address { .. } => Code::InvalidArgument,
            Self::Call { code, .. } => *code,
        }
    }

    /// Whether the same call may succeed when it is repeated.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Address { .. } => false,
            Self::Call { retryable, .. } => *retryable,
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let said = |key: &str| info.as_ref().and_then(|i| i.metadata.get(key)).map(|v| v == "true");
        // A transport that fails says nothing of a write: it may have arrived. It has many codes for a connection that was ended
        // politely, INTERNAL among them, but always a cause of its own.
        let is_transport = std::error::Error::source(&status).is_some()
            || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown);
        let violations = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
        Self::Call {
            code: status.code(),
            reason: info.as_ref().map(|i| i.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            violations: violations.into_iter().map(|v| (v.field, v.description)).collect(),
            retryable: said("retryable").unwrap_or(is_transport),
            not_applied: said("not_applied").unwrap_or(false),
            retry_after: status.get_details_retry_info().and_then(|r| r.retry_delay),
        }
    }
}
