//! What a failed call says.

use std::error::Error as _;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A tier, or the way to it, failed.
    Unavailable {
        /// Whether a write surely did not happen.
        not_applied: bool,
    },
    /// The rules forbid it: the reason of docs/errors.md.
    Refused(String),
    /// Nothing that a fault explains.
    Odd(String),
}

/// The session's own deadline passed.
pub(crate) const LATE: Failure = Failure::Unavailable { not_applied: false };

pub(crate) fn classify(status: &Status) -> Failure {
    let Some(info) = status.get_details_error_info() else {
        // What tao says has its reason; the way there has a cause of its own, or one of the codes that transports answer with.
        let transport = status.source().is_some()
            || matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded);
        return if transport {
            Failure::Unavailable { not_applied: never_sent(status) }
        } else {
            Failure::Odd(format!("{status:?}"))
        };
    };
    let not_applied = info.metadata.get("not_applied").is_some_and(|v| v == "true");
    match info.reason.as_str() {
        "UNAVAILABLE" | "OVERLOADED" | "DEADLINE_EXCEEDED" | "WRONG_SHARD" | "CANCELLED" => {
            Failure::Unavailable { not_applied }
        }
        "NOT_FOUND" | "ALREADY_EXISTS" | "VERSION_MISMATCH" if not_applied => Failure::Refused(info.reason),
        _ => Failure::Odd(format!("{:?} {}: {}", status.code(), info.reason, status.message())),
    }
}

/// Whether no connection could be made at all.
fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
