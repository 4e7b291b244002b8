//! Where connections come from. Injected, so that a simulated network can take the place of TCP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

/// Accepts connections on one runtime; each is then driven on another.
pub trait Listener: Send + 'static {
    /// A connection that belongs to no runtime yet.
    type Conn: Send + 'static;
    /// A connection that belongs to the runtime that drives it.
    type Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static;

    /// The next connection. Must be safe to drop while it waits.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Conn>> + Send;

    /// Registers a connection with the runtime that this is called on.
    fn attach(conn: Self::Conn) -> io::Result<Self::Io>;

    /// Where it listens; with the real port when 0 was asked for.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Accepts TCP connections, each with TCP_NODELAY: without it an answer can wait 40 ms for an acknowledgement.
#[derive(Debug)]
pub struct TcpAcceptor {
    listener: TcpListener,
}

impl TcpAcceptor {
    /// Listens at an address; port 0 takes any free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| io::Error::new(e.kind(), format!("can't listen on {address}: {e}")))?;
        Ok(Self { listener })
    }
}

impl From<TcpListener> for TcpAcceptor {
    fn from(listener: TcpListener) -> Self {
        Self { listener }
    }
}

impl Listener for TcpAcceptor {
    type Conn = std::net::TcpStream;
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Conn> {
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        stream.into_std()
    }

    fn attach(conn: Self::Conn) -> io::Result<Self::Io> {
        TcpStream::from_std(conn)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
