//! How commands fail: a message for people, an exit code for scripts.

use std::fmt;
use std::process::ExitCode;

use tao_client::ClientError;
use tao_client::v1::ItemError;

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 bad input, 3 not found, 4 the store can't be reached or is overloaded (try again), \
130 interrupted.";

impl Failure {
    /// Anything without a code of its own.
    pub fn other(error: impl fmt::Display) -> Self {
        Self { message: error.to_string(), code: 1 }
    }

    /// What the caller gave is wrong.
    pub fn bad_input(problem: impl fmt::Display) -> Self {
        Self { message: problem.to_string(), code: 2 }
    }

    /// Something can't be reached, or can't do it now.
    pub fn unreachable(problem: impl fmt::Display) -> Self {
        Self { message: problem.to_string(), code: 4 }
    }

    /// What one item of a batch or of a multi-get failed with.
    pub fn of_item(error: &ItemError) -> Self {
        let violations: Vec<_> = error.violations.iter().map(|v| (v.field.as_str(), v.description.as_str())).collect();
        Self { message: message(&error.message, &error.reason, &violations), code: exit_code(error.code) }
    }

    /// The same, and where it happened.
    #[must_use]
    pub fn within(self, context: impl fmt::Display) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
    }

    /// Whether it was the caller's mistake.
    pub const fn is_bad_input(&self) -> bool {
        self.code == 2
    }

    /// For the shell.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    #[cfg(test)]
    pub fn number(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let violations: Vec<_> = error.violations().iter().map(|(f, r)| (f.as_str(), r.as_str())).collect();
        let code = match &error {
            // Under whatever code a connection broke.
            ClientError::Transport { .. } => 4,
            ClientError::Address { .. }
            | ClientError::NoTls { .. }
            | ClientError::TooLarge { .. }
            | ClientError::Deadline { .. }
            | ClientError::Throttled { .. }
            | ClientError::Refused { .. } => exit_code(error.code() as i32),
        };
        Self { message: message(&error.to_string(), error.reason(), &violations), code }
    }
}

fn message(text: &str, reason: &str, violations: &[(&str, &str)]) -> String {
    match violations {
        [] if reason.is_empty() => text.to_owned(),
        [] => format!("{text} ({reason})"),
        _ => {
            let rules: String = violations.iter().map(|(field, rule)| format!("\n  {field}: {rule}")).collect();
            format!("the request breaks {} of the rules:{rules}", violations.len())
        }
    }
}

/// By gRPC's numbers.
const fn exit_code(code: i32) -> u8 {
    match code {
        // INVALID_ARGUMENT, OUT_OF_RANGE
        3 | 11 => 2,
        // NOT_FOUND
        5 => 3,
        // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE
        1 | 4 | 8 | 14 => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn refused(code: Code, reason: &str, violations: &[(&str, &str)]) -> Failure {
        let violations = violations.iter().map(|(f, r)| ((*f).to_owned(), (*r).to_owned())).collect();
        let (reason, message) = (reason.to_owned(), "it can't be".to_owned());
        ClientError::Refused {
            code,
            reason,
            message,
            violations,
            retryable: false,
            not_applied: false,
            retry_after: None,
        }
        .into()
    }

    #[test]
    fn every_violation_is_told_and_codes_are_for_scripts() {
        let failure = refused(Code::InvalidArgument, "INVALID_ARGUMENT", &[("a", "is required"), ("b", "is too long")]);
        assert_eq!(failure.to_string(), "the request breaks 2 of the rules:\n  a: is required\n  b: is too long");
        assert_eq!(failure.number(), 2);
        let failure = refused(Code::NotFound, "NOT_FOUND", &[]).within("get");
        assert_eq!((failure.to_string().as_str(), failure.number()), ("get: it can't be (NOT_FOUND)", 3));
        assert_eq!(refused(Code::Unavailable, "", &[]).number(), 4);
        assert_eq!(refused(Code::FailedPrecondition, "X", &[]).number(), 1);
        assert_eq!(Failure::from(ClientError::Address { address: "x".to_owned() }).number(), 2);
        let item =
            ItemError { code: 5, reason: "NOT_FOUND".to_owned(), message: "no".to_owned(), ..Default::default() };
        assert_eq!(
            (Failure::of_item(&item).to_string().as_str(), Failure::of_item(&item).number()),
            ("no (NOT_FOUND)", 3)
        );
    }
}
