//! TLS of the commands: whom they trust, and who they are.

use std::path::PathBuf;

use clap::Args;
use tao_client::{ClientTls, KeyPairFiles, TlsOptions};

use super::failure::Failure;

/// How followers are spoken to.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// Speak TLS, and trust the followers of this authority: a PEM file [default: plain text]
    #[arg(long, env = "TAO_CLIENT_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// With TLS, a certificate that says who calls
    #[arg(long, env = "TAO_CLIENT_TLS_CERT", value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, env = "TAO_CLIENT_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// With TLS, the name that the followers' certificates must have [default: the address's]
    #[arg(long, env = "TAO_CLIENT_TLS_NAME", value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
}

impl TlsArgs {
    /// Reads the files.
    pub fn client(&self) -> Result<Option<ClientTls>, Failure> {
        let Some(ca) = self.tls_ca.clone() else { return Ok(None) };
        let identity = self.tls_cert.clone().zip(self.tls_key.clone()).map(|(cert, key)| KeyPairFiles { cert, key });
        let options = TlsOptions { ca, identity, name: self.tls_name.clone() };
        ClientTls::load(options).map(Some).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Failure::bad_input(problems.join("; "))
        })
    }
}
