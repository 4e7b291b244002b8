//! Turmoil's TCP where the tiers expect a network, with connections that can be broken.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::Uri;
use parking_lot::Mutex;
use tao_rpc::{BoxIo, Connect};
use tao_runtime::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use turmoil::net::{TcpListener, TcpStream};

/// All connections that hosts have made.
#[derive(Clone, Default)]
pub struct Lines {
    all: Arc<Mutex<Vec<Line>>>,
}

struct Line {
    from: String,
    to: String,
    cut: CancellationToken,
    alive: Weak<()>,
}

impl Lines {
    fn add(&self, from: &str, to: &str) -> (CancellationToken, Arc<()>) {
        let (cut, alive) = (CancellationToken::new(), Arc::new(()));
        let mut all = self.all.lock();
        all.retain(|line| line.alive.strong_count() > 0);
        let line = Line { from: from.to_owned(), to: to.to_owned(), cut: cut.clone(), alive: Arc::downgrade(&alive) };
        all.push(line);
        (cut, alive)
    }

    /// Breaks the connections between two hosts: both ends see it, and what was on its way is lost. Says how many there were.
    pub fn cut(&self, a: &str, b: &str) -> usize {
        let mut cut = Vec::new();
        self.all.lock().retain(|line| {
            let is_meant = (line.from == a && line.to == b) || (line.from == b && line.to == a);
            if is_meant && line.alive.strong_count() > 0 {
                cut.push(line.cut.clone());
            }
            !is_meant
        });
        cut.iter().for_each(CancellationToken::cancel);
        cut.len()
    }
}

/// How one host connects to others.
pub struct SimConnect {
    /// The host's name.
    pub from: String,
    /// Where its connections are noted.
    pub lines: Lines,
}

impl SimConnect {
    /// Connects to the address's host and port.
    pub fn dial(&self, address: &Uri) -> BoxFuture<'static, io::Result<SimIo>> {
        let host = address.host().unwrap_or_default();
        let peer = SocketAddr::new(turmoil::lookup(host), address.port_u16().unwrap_or_default());
        self.reach(peer)
    }

    fn reach(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<SimIo>> {
        let (from, lines) = (self.from.clone(), self.lines.clone());
        let host = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
        Box::pin(async move {
            let stream = TcpStream::connect(peer).await?;
            let (cut, alive) = lines.add(&from, &host);
            Ok(SimIo { stream, cut: Box::pin(cut.cancelled_owned()), is_cut: false, _alive: alive })
        })
    }
}

impl Connect for SimConnect {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let address = SocketAddr::new(turmoil::lookup(host), port);
        Box::pin(std::future::ready(Ok(vec![address])))
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        let dialing = self.reach(peer);
        Box::pin(async move { Ok(Box::new(dialing.await?) as BoxIo) })
    }
}

/// A connection, at the end that made it.
pub struct SimIo {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
    _alive: Arc<()>,
}

impl SimIo {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || self.cut.as_mut().poll(cx).is_ready();
        if self.is_cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for SimIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts connections at a port of the host that it is made on.
pub struct SimListener(TcpListener);

impl SimListener {
    /// Listens.
    pub async fn bind(port: u16) -> io::Result<Self> {
        Ok(Self(TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await?))
    }
}

impl Listener for SimListener {
    type Conn = TcpStream;
    type Io = Accepted;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        Ok(self.0.accept().await?.0)
    }

    async fn attach(conn: TcpStream) -> io::Result<Accepted> {
        Ok(Accepted(conn))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection, at the end that accepted it.
pub struct Accepted(TcpStream);

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.0.local_addr().ok(), remote_addr: self.0.peer_addr().ok() }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
