//! The side that connects.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::TlsError;
use crate::files::{Contents, KeyPairFiles};
use crate::identity::name;
use crate::reload::{FollowsFiles, Reloaded};
use crate::{HANDSHAKE_WITHIN, HTTP2};

/// What a client wants proved, and proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Servers' authorities.
    pub ca: PathBuf,
    /// Its own identity, for servers that ask.
    pub identity: Option<KeyPairFiles>,
    /// The name that a server's certificate must have; `None`: the one that was connected to.
    pub name: Option<String>,
}

/// A secured connection, at the client's end.
pub type ClientStream<I> = tokio_rustls::client::TlsStream<I>;

/// Secures connections to servers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<Reloaded<ClientConfig>>,
    name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files; the error says everything that is wrong with them.
    pub fn load(options: ClientOptions) -> Result<Self, Vec<TlsError>> {
        let mut paths = vec![options.ca.clone()];
        paths.extend(options.identity.iter().flat_map(|files| [files.cert.clone(), files.key.clone()]));
        let wanted = options.name.as_deref().map(|text| name(text).ok_or_else(|| TlsError::Name(text.to_owned())));
        let config = Reloaded::of_certificates(paths, move |contents| config(&options, contents));
        match (wanted.transpose(), config) {
            (Ok(name), Ok(config)) => Ok(Self { config, name }),
            (name, config) => Err(name.err().into_iter().chain(config.err().into_iter().flatten()).collect()),
        }
    }

    /// Takes changed files for new connections, for as long as what this returns is held. On a tokio runtime.
    pub fn follow_files(&self) -> FollowsFiles {
        self.config.follow()
    }

    /// The handshake with the server that `host` stands for, which takes ten seconds at most.
    pub async fn connect<I: AsyncRead + AsyncWrite + Unpin>(&self, host: &str, io: I) -> io::Result<ClientStream<I>> {
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let wanted = self.name.clone().or_else(|| name(host));
        let wanted = wanted.ok_or_else(|| wrong(TlsError::Name(host.to_owned()).to_string()))?;
        let connector = TlsConnector::from(self.config.now());
        let shaken = timeout(HANDSHAKE_WITHIN, connector.connect(wanted, io)).await;
        let stream =
            shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")))?;
        if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            Ok(stream)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the server does not speak HTTP/2 over TLS"))
        }
    }
}

fn config(options: &ClientOptions, contents: &Contents) -> Result<ClientConfig, Vec<TlsError>> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |e: rustls::Error| vec![TlsError::unusable(&options.ca, &e)];
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(unusable)?;
    let roots = contents.authorities(&options.ca).map_err(|e| vec![e]);
    let identity = options.identity.as_ref().map(|files| files.load(contents).map(|identity| (files, identity)));
    let (roots, identity) = match (roots, identity.transpose()) {
        (Ok(roots), Ok(identity)) => (roots, identity),
        (roots, identity) => {
            return Err(roots.err().into_iter().chain(identity.err()).flatten().collect());
        }
    };
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((files, (chain, key))) => builder.with_client_auth_cert(chain, key).map_err(|e| files.unusable(&e))?,
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
