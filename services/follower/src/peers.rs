//! Connections that know whose they are: made once for each, since a call may take a microsecond.

use std::any::Any;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tao_access::Peer;
use tao_runtime::{Listener, Turnstile};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};
use tonic::Extensions;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::admission::{Admission, Gate};

/// Accepts what `L` does, and has every request know its [`Peer`].
pub struct Peers<L> {
    pub listener: L,
    pub admission: Arc<Admission>,
}

/// A connection and the other end of it.
pub struct Known<I> {
    io: I,
    origin: Origin,
    gate: Arc<Gate>,
    /// While it is not read.
    held: Option<Pin<Box<Sleep>>>,
}

/// Where a request came from: in its extensions.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The other end of the connection.
    pub peer: Arc<Peer>,
    /// Where its calls come in; none where they came another way than by a connection.
    pub gate: Option<Arc<Gate>>,
}

impl Origin {
    /// Of a request; from nobody where it came another way than by a connection.
    pub fn of(extensions: &Extensions) -> Self {
        let nobody = || Self { peer: Arc::new(Peer::new(None, None)), gate: None };
        extensions.get::<Self>().cloned().unwrap_or_else(nobody)
    }
}

/// The other end of the connection that a request came on; nobody where it came another way.
pub fn peer(extensions: &Extensions) -> Arc<Peer> {
    Origin::of(extensions).peer
}

/// What a request says of who asks.
pub fn authorization(metadata: &MetadataMap) -> Option<&[u8]> {
    metadata.get("authorization").map(MetadataValue::as_bytes)
}

impl<L: Listener> Listener for Peers<L> {
    type Conn = (L::Conn, Arc<Admission>);
    type Io = Known<L::Io>;

    async fn accept(&mut self) -> io::Result<Self::Conn> {
        Ok((self.listener.accept().await?, self.admission.clone()))
    }

    async fn attach((conn, admission): Self::Conn) -> io::Result<Known<L::Io>> {
        let io = L::attach(conn).await?;
        let info = io.connect_info();
        let tcp = any(&info).downcast_ref::<TcpConnectInfo>();
        let address = tcp.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip());
        let peer = Arc::new(Peer::new(L::identity(&io), address));
        let gate = Arc::new(Gate::new(admission));
        Ok(Known { io, origin: Origin { peer, gate: Some(gate.clone()) }, gate, held: None })
    }

    fn turnstile(io: &Self::Io) -> Option<Arc<dyn Turnstile>> {
        io.gate.is_adaptive().then(|| io.gate.clone() as Arc<dyn Turnstile>)
    }

    fn peer((conn, _): &Self::Conn) -> Option<IpAddr> {
        L::peer(conn)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn any<T: Any>(value: &T) -> &dyn Any {
    value
}

impl<I> Connected for Known<I> {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin.clone()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Known<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while let Some(until) = self.gate.held() {
            let held = self.held.get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(held.as_mut().poll(cx));
            self.held = None;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Known<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
