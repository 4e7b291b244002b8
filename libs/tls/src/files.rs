//! PEM files: their contents, and what those hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::TlsError;

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// The certificate, followed by those that lead to its authority, if any.
    pub cert: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Some files, as they were at one time.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents(Vec<(PathBuf, Vec<u8>)>);

impl Contents {
    /// Reads all of them, or says which can't be read.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Vec<TlsError>> {
        let (mut contents, mut problems) = (Vec::new(), Vec::new());
        for path in paths {
            match fs::read(path) {
                Ok(bytes) => contents.push((path.clone(), bytes)),
                Err(error) => {
                    problems.push(TlsError::Unreadable { file: path.display().to_string(), why: error.to_string() });
                }
            }
        }
        if problems.is_empty() { Ok(Self(contents)) } else { Err(problems) }
    }

    /// The bytes of one of them; none of a file that is not among them.
    pub fn of(&self, path: &Path) -> &[u8] {
        self.0.iter().find(|(known, _)| known == path).map_or(&[], |(_, bytes)| bytes)
    }

    /// The certificates of a file, at least one.
    pub(crate) fn certificates(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.of(path)).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) | Err(_) => Err(TlsError::lacking(path, "certificate")),
        }
    }

    /// The private key of a file.
    pub(crate) fn key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(self.of(path)).map_err(|_| TlsError::lacking(path, "private key"))
    }

    /// The authorities of a file.
    pub fn authorities(&self, path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
        let mut store = RootCertStore::empty();
        for certificate in self.certificates(path)? {
            store.add(certificate).map_err(|e| TlsError::unusable(path, &e))?;
        }
        Ok(store.into())
    }
}

impl KeyPairFiles {
    /// What it takes to prove an identity.
    pub(crate) fn load(
        &self,
        contents: &Contents,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Vec<TlsError>> {
        match (contents.certificates(&self.cert), contents.key(&self.key)) {
            (Ok(chain), Ok(key)) => Ok((chain, key)),
            (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
        }
    }

    /// They don't go together, or are of a kind that is not known.
    pub(crate) fn unusable(&self, error: &rustls::Error) -> Vec<TlsError> {
        let file = format!("{} with {}", self.cert.display(), self.key.display());
        vec![TlsError::Unusable { file, why: error.to_string() }]
    }
}
