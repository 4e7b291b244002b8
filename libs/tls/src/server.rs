//! The side that accepts connections.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use metrics::counter;
use rustls::crypto::ring;
use rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, Error, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

use crate::error::TlsError;
use crate::files::{Contents, KeyPairFiles};
use crate::identity::{Named, PeerIdentity, name};
use crate::reload::{FollowsFiles, Reloaded};
use crate::{HANDSHAKE_WITHIN, HTTP2};

/// Handshakes under way at once: they cost CPU and memory before anybody has proved anything. Others wait within their time.
const MAX_HANDSHAKES: usize = 512;

/// What a server proves, and wants proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Its own identity.
    pub identity: KeyPairFiles,
    /// `None`: clients are not asked for certificates.
    pub clients: Option<ClientCheck>,
}

/// Which clients' certificates are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCheck {
    /// Their authorities.
    pub ca: PathBuf,
    /// One of these names must be in a client's certificate; empty: any will do.
    pub names: Vec<String>,
    /// Whether clients without a certificate are refused.
    pub is_required: bool,
}

/// A secured connection, at the server's end.
pub type ServerStream<I> = tokio_rustls::server::TlsStream<I>;

/// Secures accepted connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerTls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Reloaded<ServerConfig>>,
    handshakes: Semaphore,
    is_mutual: bool,
}

impl ServerTls {
    /// Reads the files; the error says everything that is wrong with them.
    pub fn load(options: ServerOptions) -> Result<Self, Vec<TlsError>> {
        let mut paths = vec![options.identity.cert.clone(), options.identity.key.clone()];
        paths.extend(options.clients.iter().map(|check| check.ca.clone()));
        let is_mutual = options.clients.as_ref().is_some_and(|check| check.is_required);
        let config = Reloaded::of_certificates(paths, move |contents| config(&options, contents))?;
        Ok(Self { inner: Arc::new(Inner { config, handshakes: Semaphore::new(MAX_HANDSHAKES), is_mutual }) })
    }

    /// Whether every client has to prove who it is.
    pub fn is_mutual(&self) -> bool {
        self.inner.is_mutual
    }

    /// Takes changed files for new connections, for as long as what this returns is held. On a tokio runtime.
    pub fn follow_files(&self) -> FollowsFiles {
        self.inner.config.follow()
    }

    /// The handshake, which takes ten seconds at most.
    pub async fn accept<I: AsyncRead + AsyncWrite + Unpin>(&self, io: I) -> io::Result<ServerStream<I>> {
        let shaking = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
            // Only now: a peer that says nothing keeps nobody else waiting. It is never closed.
            let _permit = self.inner.handshakes.acquire().await;
            hello.into_stream(self.inner.config.now()).await
        };
        let shaken = timeout(HANDSHAKE_WITHIN, shaking).await;
        let shaken =
            shaken.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")));
        let result = shaken.as_ref().map_or_else(reason, |_| "ok");
        counter!("server_tls_handshakes_total", "result" => result).increment(1);
        shaken
    }

    /// Who the other side is, if it has proved it.
    pub fn identity<I>(stream: &ServerStream<I>) -> Option<PeerIdentity> {
        PeerIdentity::of(stream.get_ref().1.peer_certificates()?.first()?)
    }
}

/// A handshake's failure, as a metric's label.
fn reason(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::TimedOut {
        return "timed_out";
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => "unknown_issuer",
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "expired"
        }
        Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => "wrong_name",
        Some(Error::InvalidCertificate(_)) => "bad_certificate",
        Some(Error::InvalidMessage(_)) => "not_tls",
        Some(_) | None => "failed",
    }
}

fn config(options: &ServerOptions, contents: &Contents) -> Result<ServerConfig, Vec<TlsError>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| options.identity.unusable(&e))?;
    let identity = options.identity.load(contents);
    let builder = match &options.clients {
        None => Ok(builder.with_no_client_auth()),
        Some(check) => check.verifier(contents, provider).map(|verifier| builder.with_client_cert_verifier(verifier)),
    };
    let (builder, (chain, key)) = match (builder, identity) {
        (Ok(builder), Ok(identity)) => (builder, identity),
        (builder, identity) => {
            return Err(identity.err().into_iter().chain(builder.err()).flatten().collect());
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| options.identity.unusable(&e))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    // Who resumed a session would not be checked again, and connections live long.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

impl ClientCheck {
    fn verifier(
        &self,
        contents: &Contents,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Vec<TlsError>> {
        let roots = contents.authorities(&self.ca).map_err(|e| vec![e])?;
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = if self.is_required { builder } else { builder.allow_unauthenticated() };
        let unusable = |e: rustls::server::VerifierBuilderError| {
            vec![TlsError::Unusable { file: self.ca.display().to_string(), why: e.to_string() }]
        };
        let verifier = builder.build().map_err(unusable)?;
        let (mut names, mut problems) = (Vec::new(), Vec::new());
        for text in &self.names {
            match name(text) {
                Some(name) => names.push(name),
                None => problems.push(TlsError::Name(text.clone())),
            }
        }
        match (problems.is_empty(), names.is_empty()) {
            (false, _) => Err(problems),
            (true, true) => Ok(verifier),
            (true, false) => Ok(Arc::new(Named { verifier, names })),
        }
    }
}
