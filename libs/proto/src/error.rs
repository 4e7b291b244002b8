//! The one place where [`Error`] meets gRPC.

use std::collections::HashMap;
use std::time::Duration;

use tao_model::{Error, Position, Violation};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{internal, v1};

/// google.rpc.ErrorInfo.domain of every error.
pub const DOMAIN: &str = "tao";

/// The code that an error has at the public door.
pub fn code(error: &Error) -> Code {
    match error {
        Error::InvalidArgument { .. } => Code::InvalidArgument,
        Error::NotFound { .. } => Code::NotFound,
        Error::AlreadyExists { .. } => Code::AlreadyExists,
        Error::VersionMismatch { .. } => Code::Aborted,
        Error::TypeMismatch { .. }
        | Error::DataTooLarge { .. }
        | Error::NotANumber { .. }
        | Error::NumberOverflow { .. }
        | Error::TokenOtherCluster
        | Error::HistoryUndone { .. }
        | Error::TokenFromFuture { .. }
        | Error::IdempotencyKeyReused { .. } => Code::FailedPrecondition,
        Error::ChangesExpired { .. } => Code::OutOfRange,
        Error::AnswerTooLarge | Error::Overloaded { .. } => Code::ResourceExhausted,
        Error::Unauthenticated { .. } => Code::Unauthenticated,
        Error::PermissionDenied { .. } => Code::PermissionDenied,
        Error::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        Error::Cancelled => Code::Cancelled,
        Error::WrongShard { .. } | Error::Unavailable { .. } => Code::Unavailable,
        Error::Item { error, .. } => code(error),
        Error::Internal { .. } => Code::Internal,
    }
}

/// As a status with google.rpc details.
pub fn to_status(error: &Error) -> Status {
    let mut metadata = HashMap::from([
        ("retryable".to_owned(), error.is_retryable().to_string()),
        ("not_applied".to_owned(), error.is_not_applied().to_string()),
    ]);
    if let Error::Item { item, .. } = error {
        metadata.insert("item".to_owned(), item.clone());
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason(), DOMAIN, metadata);
    if let Error::InvalidArgument { violations } = error {
        for v in violations {
            details.add_bad_request_violation(v.field.clone(), v.description.clone());
        }
    }
    if let Some(after) = error.retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code(error), error.to_string(), details)
}

/// As the error of one item of a batch, or of one call of a pipeline.
pub fn to_item(error: &Error) -> v1::ItemError {
    v1::ItemError {
        code: code(error) as i32,
        reason: error.reason().to_owned(),
        message: error.to_string(),
        violations: violations_to_proto(error),
        retryable: error.is_retryable(),
        not_applied: error.is_not_applied(),
        retry_after_ms: error.retry_after().map_or(0, |after| after.as_millis() as u64),
        item: if let Error::Item { item, .. } = error { item.clone() } else { String::new() },
    }
}

fn violations_to_proto(error: &Error) -> Vec<v1::FieldViolation> {
    match error {
        Error::InvalidArgument { violations } => violations
            .iter()
            .map(|v| v1::FieldViolation { field: v.field.clone(), description: v.description.clone() })
            .collect(),
        _ => Vec::new(),
    }
}

/// For the tier in front.
pub fn to_peer(error: &Error) -> internal::Error {
    if let Error::Item { item, error } = error {
        return internal::Error { item: item.clone(), ..to_peer(error) };
    }
    let mut out = internal::Error {
        reason: error.reason().to_owned(),
        text: String::new(),
        violations: violations_to_proto(error),
        retry_after_ms: error.retry_after().map_or(0, |d| d.as_millis() as u64),
        not_applied: error.is_not_applied(),
        numbers: Vec::new(),
        item: String::new(),
    };
    match error {
        Error::NotFound { what }
        | Error::AlreadyExists { what }
        | Error::TypeMismatch { what }
        | Error::DataTooLarge { what }
        | Error::Unavailable { what, .. }
        | Error::Overloaded { what, .. }
        | Error::Unauthenticated { what }
        | Error::PermissionDenied { what }
        | Error::Internal { what } => out.text.clone_from(what),
        Error::NotANumber { field } | Error::NumberOverflow { field } => out.text.clone_from(field),
        Error::IdempotencyKeyReused { key } => out.text.clone_from(key),
        Error::VersionMismatch { id, expected, actual } => {
            out.numbers = vec![*id as u64, *expected as u64, *actual as u64];
        }
        Error::WrongShard { shard } => out.numbers = vec![u64::from(*shard)],
        Error::ChangesExpired { after } => out.numbers = vec![after.epoch, after.lsn],
        Error::HistoryUndone { seen, epoch } => out.numbers = vec![seen.epoch, seen.lsn, *epoch],
        Error::TokenFromFuture { seen, head } => out.numbers = vec![seen.epoch, seen.lsn, head.epoch, head.lsn],
        Error::InvalidArgument { .. }
        | Error::AnswerTooLarge
        | Error::TokenOtherCluster
        | Error::DeadlineExceeded { .. }
        | Error::Cancelled
        | Error::Item { .. } => {}
    }
    out
}

/// From the tier behind.
pub fn from_peer(mut error: internal::Error) -> Error {
    let item = std::mem::take(&mut error.item);
    if !item.is_empty() {
        return Error::Item { item, error: Box::new(from_peer(error)) };
    }
    let text = error.text;
    let not_applied = error.not_applied;
    let retry_after = Duration::from_millis(error.retry_after_ms);
    match (error.reason.as_str(), error.numbers.as_slice()) {
        ("INVALID_ARGUMENT", _) => Error::InvalidArgument {
            violations: error
                .violations
                .into_iter()
                .map(|v| Violation { field: v.field, description: v.description })
                .collect(),
        },
        ("NOT_FOUND", _) => Error::NotFound { what: text },
        ("ALREADY_EXISTS", _) => Error::AlreadyExists { what: text },
        ("VERSION_MISMATCH", [id, expected, actual]) => {
            Error::VersionMismatch { id: *id as i64, expected: *expected as i64, actual: *actual as i64 }
        }
        ("TYPE_MISMATCH", _) => Error::TypeMismatch { what: text },
        ("DATA_TOO_LARGE", _) => Error::DataTooLarge { what: text },
        ("NOT_A_NUMBER", _) => Error::NotANumber { field: text },
        ("NUMBER_OVERFLOW", _) => Error::NumberOverflow { field: text },
        ("ANSWER_TOO_LARGE", _) => Error::AnswerTooLarge,
        ("CHANGES_EXPIRED", [epoch, lsn]) => Error::ChangesExpired { after: Position::new(*epoch, *lsn) },
        ("WRONG_SHARD", [shard]) => Error::WrongShard { shard: *shard as u32 },
        ("TOKEN_OTHER_CLUSTER", _) => Error::TokenOtherCluster,
        ("HISTORY_UNDONE", [seen_epoch, lsn, epoch]) => {
            Error::HistoryUndone { seen: Position::new(*seen_epoch, *lsn), epoch: *epoch }
        }
        ("TOKEN_FROM_FUTURE", [seen_epoch, lsn, head_epoch, head]) => {
            Error::TokenFromFuture { seen: Position::new(*seen_epoch, *lsn), head: Position::new(*head_epoch, *head) }
        }
        ("IDEMPOTENCY_KEY_REUSED", _) => Error::IdempotencyKeyReused { key: text },
        ("DEADLINE_EXCEEDED", _) => Error::DeadlineExceeded { not_applied },
        ("CANCELLED", _) => Error::Cancelled,
        ("UNAVAILABLE", _) => Error::Unavailable { what: text, not_applied, retry_after },
        ("OVERLOADED", _) => Error::Overloaded { what: text, retry_after },
        ("UNAUTHENTICATED", _) => Error::Unauthenticated { what: text },
        ("PERMISSION_DENIED", _) => Error::PermissionDenied { what: text },
        ("INTERNAL", _) => Error::Internal { what: text },
        (reason, _) => {
            Error::Internal { what: format!("a peer answered with an error that this version doesn't know: {reason}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_way_between_tiers() {
        let position = Position::new(3, 9);
        let what = || "x".to_owned();
        let after = Duration::from_millis(70);
        let all = [
            Error::invalid("a", "b"),
            Error::NotFound { what: what() },
            Error::AlreadyExists { what: what() },
            Error::VersionMismatch { id: 1, expected: 2, actual: 3 },
            Error::TypeMismatch { what: what() },
            Error::DataTooLarge { what: what() },
            Error::NotANumber { field: what() },
            Error::NumberOverflow { field: what() },
            Error::AnswerTooLarge,
            Error::VersionMismatch { id: 1, expected: 2, actual: 3 }.of_item("writes[3]"),
            Error::WrongShard { shard: 4 },
            Error::TokenOtherCluster,
            Error::HistoryUndone { seen: position, epoch: 5 },
            Error::TokenFromFuture { seen: position, head: Position::new(3, 1) },
            Error::IdempotencyKeyReused { key: what() },
            Error::DeadlineExceeded { not_applied: false },
            Error::DeadlineExceeded { not_applied: true },
            Error::Cancelled,
            Error::Unavailable { what: what(), not_applied: false, retry_after: after },
            Error::Overloaded { what: what(), retry_after: after },
            Error::Unauthenticated { what: what() },
            Error::PermissionDenied { what: what() },
            Error::Internal { what: what() },
        ];
        for error in all {
            assert_eq!(from_peer(to_peer(&error)), error);
            let status = to_status(&error);
            assert_eq!(status.get_details_error_info().unwrap().reason, error.reason());
        }
    }
}
