//! What is wrong with a file of keys or grants.

use std::fmt;

use tao_tls::TlsError;

/// Names the file and the place in it; never what is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(pub String);

impl From<TlsError> for Problem {
    fn from(error: TlsError) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
