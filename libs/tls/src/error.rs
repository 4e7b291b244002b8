//! What is wrong with files. Their contents, which may be secret, are never part of it.

use std::path::Path;

/// Why TLS can't be had with some files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not for us.
    #[error("{file} can't be read: {why}")]
    Unreadable {
        /// Its path.
        file: String,
        /// The system's reason.
        why: String,
    },
    /// A file is not what it should be.
    #[error("{file} has no {what} in PEM")]
    Lacking {
        /// Its path.
        file: String,
        /// What it should hold.
        what: &'static str,
    },
    /// It is, but can't be used.
    #[error("{file} can't be used: {why}")]
    Unusable {
        /// Its path; or two, of a certificate and its key.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// A peer's name that no certificate can have.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Name(String),
}

impl TlsError {
    pub(crate) fn lacking(file: &Path, what: &'static str) -> Self {
        Self::Lacking { file: file.display().to_string(), what }
    }

    pub(crate) fn unusable(file: &Path, why: &rustls::Error) -> Self {
        Self::Unusable { file: file.display().to_string(), why: why.to_string() }
    }
}
