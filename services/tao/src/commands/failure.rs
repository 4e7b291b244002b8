//! How commands fail: a message for people, an exit code for scripts.

use std::fmt;
use std::process::ExitCode;

use tao_client::ClientError;

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

    /// For the shell.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        // gRPC's numbers: INVALID_ARGUMENT; NOT_FOUND; CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE.
        let code = match error.code() as i32 {
            3 => 2,
            5 => 3,
            1 | 4 | 8 | 14 => 4,
            _ => 1,
        };
        let message = match &error {
            ClientError::Call { violations, .. } if !violations.is_empty() => {
                let rules: String = violations.iter().map(|(field, rule)| format!("\n  {field}: {rule}")).collect();
                format!("the request breaks {} of the rules:{rules}", violations.len())
            }
            ClientError::Call { reason, message, .. } if !reason.is_empty() => format!("{message} ({reason})"),
            other => other.to_string(),
        };
        Self { message, code }
    }
}
