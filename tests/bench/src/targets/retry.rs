//! Transactions that are begun again.

/// So often at most.
pub(super) const ATTEMPTS: u32 = 10;

/// 40001 and 40P01: nothing is wrong with the transaction but its time.
pub(super) fn is_retryable(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "40001" || code == "40P01")
}
