//! TLS and tokens of the commands: whom they trust, and who they are.

use std::path::PathBuf;

use clap::Args;
use tao_client::{BearerToken, ClientTls, KeyPairFiles, TlsOptions};

use super::failure::Failure;

/// How followers are spoken to.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// Speak TLS, and trust the followers of this authority: a PEM file [default: plain text]
    #[arg(id = "tls_ca", long = "tls-ca", env = "TAO_CLIENT_TLS_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With TLS, a certificate that says who calls
    #[arg(
        id = "tls_cert",
        long = "tls-cert",
        env = "TAO_CLIENT_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        requires = "tls_ca"
    )]
    cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(id = "tls_key", long = "tls-key", env = "TAO_CLIENT_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    key: Option<PathBuf>,
    /// With TLS, the name that the followers' certificates must have [default: the address's]
    #[arg(id = "tls_name", long = "tls-name", env = "TAO_CLIENT_TLS_NAME", value_name = "NAME", requires = "tls_ca")]
    name: Option<String>,
    /// The file of a bearer token that says who calls; it is read again when it changes
    #[arg(id = "token_file", long = "token-file", env = "TAO_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl TlsArgs {
    /// The token.
    pub fn bearer(&self) -> Result<Option<BearerToken>, Failure> {
        let read = self.token_file.as_ref().map(BearerToken::file).transpose();
        read.map_err(|error| Failure::bad_input(error.to_string()))
    }

    /// Reads the files.
    pub fn client(&self) -> Result<Option<ClientTls>, Failure> {
        let Some(ca) = self.ca.clone() else { return Ok(None) };
        let identity = self.cert.clone().zip(self.key.clone()).map(|(cert, key)| KeyPairFiles { cert, key });
        let options = TlsOptions { ca, identity, name: self.name.clone() };
        ClientTls::load(options).map(Some).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            Failure::bad_input(problems.join("; "))
        })
    }
}
