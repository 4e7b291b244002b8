//! TLS of the servers: between tiers, where each proves that it is one, and at the follower's public port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;
use tao_rpc::{LinkOptions, SecureConnect};
use tao_tls::{ClientCheck, ClientOptions, ClientTls, KeyPairFiles, ServerOptions, ServerTls, TlsError};

/// The name that tiers' certificates have, whichever machine they are on.
const TIER: &str = "tao-tier";

/// TLS between tiers, as file, environment or flags give it.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TierTlsOptions {
    /// TLS between tiers: the certificate of this one, for both ends of its connections; a PEM file [default: plain text]
    #[arg(id = "tls_cert", long = "tls-cert", env = "TAO_TLS_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(id = "tls_key", long = "tls-key", env = "TAO_TLS_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The authority of other tiers' certificates
    #[arg(id = "tls_ca", long = "tls-ca", env = "TAO_TLS_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name that other tiers' certificates must have [default: tao-tier]
    #[arg(id = "tls_peer", long = "tls-peer", env = "TAO_TLS_PEER", value_name = "NAME")]
    peer: Option<String>,
}

/// TLS at the public port, as file, environment or flags give it.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublicTlsOptions {
    /// TLS for clients: the server's certificate, a PEM file [default: plain text]
    #[arg(id = "public_tls_cert", long = "public-tls-cert", env = "TAO_PUBLIC_TLS_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(id = "public_tls_key", long = "public-tls-key", env = "TAO_PUBLIC_TLS_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The authority of clients' certificates [default: clients are not asked who they are]
    #[arg(
        id = "public_tls_client_ca",
        long = "public-tls-client-ca",
        env = "TAO_PUBLIC_TLS_CLIENT_CA",
        value_name = "FILE"
    )]
    client_ca: Option<PathBuf>,
    /// With that authority, whether clients may come without a certificate: required or optional [default: required]
    #[arg(
        id = "public_tls_clients",
        long = "public-tls-clients",
        env = "TAO_PUBLIC_TLS_CLIENTS",
        value_name = "WHICH"
    )]
    clients: Option<String>,
    /// With that authority, the names of which a client's certificate must have one [default: any will do]
    #[arg(
        id = "public_tls_client_names",
        long = "public-tls-client-name",
        env = "TAO_PUBLIC_TLS_CLIENT_NAMES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    client_names: Option<Vec<String>>,
}

/// What a tier proves to others, and wants proved.
#[derive(Debug, Clone)]
pub struct TierTls {
    /// For its port.
    pub server: ServerTls,
    client: ClientTls,
}

impl TierTls {
    /// Has a tier's links speak it. On a tokio runtime.
    pub fn secure(self, link: &mut LinkOptions) {
        link.connect = Arc::new(SecureConnect::new(link.connect.clone(), self.client));
    }
}

impl TierTlsOptions {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            cert: self.cert.or(lower.cert),
            key: self.key.or(lower.key),
            ca: self.ca.or(lower.ca),
            peer: self.peer.or(lower.peer),
        }
    }

    /// Reads the files; the error names all that is wrong, one each.
    pub fn check(self) -> Result<Option<TierTls>, Vec<String>> {
        let (cert, key, ca) = match (self.cert, self.key, self.ca) {
            (Some(cert), Some(key), Some(ca)) => (cert, key, ca),
            (None, None, None) if self.peer.is_none() => return Ok(None),
            _ => return Err(vec!["tls: cert, key and ca go together: give all three".to_owned()]),
        };
        let identity = KeyPairFiles { cert, key };
        let peer = self.peer.unwrap_or_else(|| TIER.to_owned());
        let clients = ClientCheck { ca: ca.clone(), names: vec![peer.clone()], is_required: true };
        let server = ServerTls::load(ServerOptions { identity: identity.clone(), clients: Some(clients) });
        let server = server.map_err(|problems| told("tls", &problems))?;
        let client = ClientTls::load(ClientOptions { ca, identity: Some(identity), name: Some(peer) });
        Ok(Some(TierTls { server, client: client.map_err(|problems| told("tls", &problems))? }))
    }
}

impl PublicTlsOptions {
    /// These, and where they are silent, `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            cert: self.cert.or(lower.cert),
            key: self.key.or(lower.key),
            client_ca: self.client_ca.or(lower.client_ca),
            clients: self.clients.or(lower.clients),
            client_names: self.client_names.or(lower.client_names),
        }
    }

    /// Reads the files; the error names all that is wrong, one each.
    pub fn check(self) -> Result<Option<ServerTls>, Vec<String>> {
        let mut problems = Vec::new();
        let is_required = match self.clients.as_deref() {
            None | Some("required") => true,
            Some("optional") => false,
            Some(other) => {
                problems.push(format!("public_tls.clients: {other:?} is neither required nor optional"));
                true
            }
        };
        if self.client_ca.is_none() && (self.clients.is_some() || self.client_names.is_some()) {
            problems.push("public_tls: clients and client_names want client_ca, too".to_owned());
        }
        let is_silent = self.client_ca.is_none() && self.clients.is_none() && self.client_names.is_none();
        let identity = match (self.cert, self.key) {
            (Some(cert), Some(key)) => KeyPairFiles { cert, key },
            (None, None) if is_silent => return Ok(None),
            _ => {
                problems.push("public_tls: cert and key go together: give both".to_owned());
                return Err(problems);
            }
        };
        let names = self.client_names.unwrap_or_default();
        let clients = self.client_ca.map(|ca| ClientCheck { ca, names, is_required });
        match ServerTls::load(ServerOptions { identity, clients }) {
            Ok(tls) if problems.is_empty() => Ok(Some(tls)),
            Ok(_) => Err(problems),
            Err(more) => Err(problems.into_iter().chain(told("public_tls", &more)).collect()),
        }
    }
}

fn told(section: &str, problems: &[TlsError]) -> Vec<String> {
    problems.iter().map(|problem| format!("{section}: {problem}")).collect()
}

/// Says so when whoever reaches a port may use it.
pub fn warn_if_open(listen: SocketAddr, tls: Option<&ServerTls>) {
    if !listen.ip().is_loopback() && !tls.is_some_and(ServerTls::is_mutual) {
        tracing::warn!(address = %listen, "nobody has to prove anything here: keep this port within a network that you trust");
    }
}

#[cfg(test)]
mod tests {
    use tao_harness::{Authority, TempDir};

    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_said_at_once() {
        assert!(TierTlsOptions::default().check().unwrap().is_none());
        assert!(PublicTlsOptions::default().check().unwrap().is_none());
        let some = TierTlsOptions { key: Some("x".into()), ..Default::default() };
        assert_eq!(some.clone().check().unwrap_err().len(), 1);
        let all = some.over(TierTlsOptions {
            cert: Some("absent".into()),
            key: Some("y".into()),
            ca: Some("gone".into()),
            peer: None,
        });
        let problems = all.check().unwrap_err();
        assert!(problems.len() == 3 && problems[1].starts_with("tls: x can't be read"), "{problems:?}");
        let wrong = PublicTlsOptions {
            cert: Some("absent".into()),
            key: Some("gone".into()),
            clients: Some("perhaps".to_owned()),
            ..Default::default()
        };
        assert_eq!(wrong.check().unwrap_err().len(), 4);
    }

    #[test]
    fn clients_of_an_authority_must_prove_it_unless_told_otherwise() {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::new("test").unwrap());
        let (cert, key) = authority.issue(&["localhost"]).unwrap().write(folder.path(), "public").unwrap();
        let ca = authority.write(folder.path(), "ca").unwrap();
        let given = PublicTlsOptions { cert: Some(cert), key: Some(key), ..Default::default() };
        let is_mutual = |options: PublicTlsOptions| options.check().unwrap().unwrap().is_mutual();
        assert!(!is_mutual(given.clone()));
        let with_ca = PublicTlsOptions { client_ca: Some(ca), ..given };
        assert!(is_mutual(with_ca.clone()));
        assert!(!is_mutual(PublicTlsOptions { clients: Some("optional".to_owned()), ..with_ca }));
    }
}
