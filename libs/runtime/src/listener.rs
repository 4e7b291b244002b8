//! Where connections come from. Injected, so that a simulated network can take the place of TCP.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tao_tls::{FollowsFiles, PeerIdentity, ServerTls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

use crate::tcp_io::TcpIo;
use crate::turnstile::Turnstile;

/// Accepts connections on one runtime; each is then driven on another.
pub trait Listener: Send + 'static {
    /// A connection that belongs to no runtime yet.
    type Conn: Send + 'static;
    /// A connection that belongs to the runtime that drives it.
    type Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static;

    /// The next connection. Must be safe to drop while it waits.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Conn>> + Send;

    /// Registers a connection with the runtime that this is called on, and has both sides agree on how they speak, if they must.
    fn attach(conn: Self::Conn) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Who the peer is, if it has proved it: put into every request's extensions as `Arc<PeerIdentity>`.
    fn identity(_io: &Self::Io) -> Option<Arc<PeerIdentity>> {
        None
    }

    /// What decides on a connection's calls before they are decoded; none: all of them are.
    fn turnstile(_io: &Self::Io) -> Option<Arc<dyn Turnstile>> {
        None
    }

    /// Where a connection comes from, if that is known.
    fn peer(_conn: &Self::Conn) -> Option<IpAddr> {
        None
    }

    /// Where it listens; with the real port when 0 was asked for.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Accepts TCP connections, each with TCP_NODELAY: without it an answer can wait 40 ms for an acknowledgement. They are secured where
/// they are driven, so that a slow handshake holds up nobody else.
#[derive(Debug)]
pub struct TcpAcceptor {
    listener: TcpListener,
    tls: Option<(ServerTls, FollowsFiles)>,
}

impl TcpAcceptor {
    /// Listens at an address; port 0 takes any free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("can't listen on {address}: {e}")))?;
        Ok(Self { listener, tls: None })
    }

    /// With TLS, whose files are taken anew for as long as this accepts connections; or without.
    #[must_use]
    pub fn secured(self, tls: Option<ServerTls>) -> Self {
        let tls = tls.map(|tls| {
            let following = tls.follow_files();
            (tls, following)
        });
        Self { tls, ..self }
    }
}

impl From<TcpListener> for TcpAcceptor {
    fn from(listener: TcpListener) -> Self {
        Self { listener, tls: None }
    }
}

impl Listener for TcpAcceptor {
    type Conn = (std::net::TcpStream, Option<ServerTls>);
    type Io = TcpIo;

    async fn accept(&mut self) -> io::Result<Self::Conn> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream.into_std()?, self.tls.as_ref().map(|(tls, _)| tls.clone())))
    }

    async fn attach((stream, tls): Self::Conn) -> io::Result<Self::Io> {
        let stream = TcpStream::from_std(stream)?;
        Ok(match tls {
            None => TcpIo::Plain(stream),
            Some(tls) => TcpIo::Secure(Box::new(tls.accept(stream).await?)),
        })
    }

    fn identity(io: &TcpIo) -> Option<Arc<PeerIdentity>> {
        match io {
            TcpIo::Plain(_) => None,
            TcpIo::Secure(stream) => ServerTls::identity(stream).map(Arc::new),
        }
    }

    fn peer((stream, _): &Self::Conn) -> Option<IpAddr> {
        stream.peer_addr().ok().map(|address| address.ip())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
