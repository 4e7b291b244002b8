//! How to reach a peer. Injected, so that a simulated network can take the place of TCP and of its names.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::client::LinkOptions;

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}
/// A connection of any kind.
pub type BoxIo = Box<dyn Io>;

/// Knows what names stand for, and makes connections.
pub trait Connect: Send + Sync + 'static {
    /// All addresses that a host's name has now, the preferred ones first. It is not asked about IP addresses.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

    /// Connects to one of them.
    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>>;

    /// The same, of an address that this host's name stood for: the name is what a certificate is checked against.
    fn connect_as(&self, _host: &str, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        self.connect(peer)
    }

    /// Whether it speaks TLS, and so requests are for `https`.
    fn is_secure(&self) -> bool {
        false
    }
}

/// TCP, with TCP_NODELAY; names are the system's resolver's.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnect;

impl TcpConnect {
    /// Connects.
    pub async fn stream(peer: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(peer).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Connect for TcpConnect {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed()
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, io::Result<BoxIo>> {
        async move { Ok(Box::new(Self::stream(peer).await?) as BoxIo) }.boxed()
    }
}

/// What is no address of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not an address like 127.0.0.1:50052 or http://leader:50052: {why}")]
pub struct AddressError {
    given: String,
    why: String,
}

/// Reads an address: `host:port` or `http://host:port`.
pub fn parse_address(text: &str) -> Result<Uri, AddressError> {
    let wrong = |why: &str| AddressError { given: text.to_owned(), why: why.to_owned() };
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = full.parse().map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("it goes without https, since it is not what says whether TLS is spoken"));
    }
    if uri.port_u16().is_none_or(|port| port == 0) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong("it needs a host and a port"));
    }
    if uri.path().len() > 1 || uri.query().is_some() {
        return Err(wrong("it must not have a path"));
    }
    Ok(uri)
}

/// Connects to the first of these that answers, and says which that was.
pub(crate) async fn dial(
    connect: Arc<dyn Connect>,
    name: &Uri,
    addresses: Vec<SocketAddr>,
) -> io::Result<(BoxIo, SocketAddr)> {
    let host = name.host().unwrap_or_default();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address");
    for address in addresses {
        match connect.connect_as(host, address).await {
            Ok(io) => return Ok((io, address)),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// Requests to a name, over connections that are made so.
pub(crate) fn endpoint(name: &Uri, connect: &dyn Connect) -> Endpoint {
    let endpoint = Endpoint::from(name.clone());
    let Some(authority) = name.authority().filter(|_| connect.is_secure()) else { return endpoint };
    match Uri::builder().scheme("https").authority(authority.clone()).path_and_query("/").build() {
        Ok(origin) => endpoint.origin(origin),
        // It was one with another scheme.
        Err(_) => endpoint,
    }
}

/// A connection to the first of a peer's addresses that answers, made now; it lives on the runtime that this is called on.
pub(crate) async fn channel(
    name: &Uri,
    addresses: &[SocketAddr],
    options: &LinkOptions,
) -> Result<(Channel, SocketAddr), String> {
    let (connect, addresses) = (options.connect.clone(), addresses.to_vec());
    let reached = Arc::new(OnceLock::new());
    let tell = reached.clone();
    let dialed = name.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (connect, name, addresses) = (connect.clone(), dialed.clone(), addresses.clone());
        let tell = tell.clone();
        async move {
            let (io, address) = dial(connect, &name, addresses).await?;
            // The connection is made once: a channel that was connected eagerly and broke is not used again here.
            let _ = tell.set(address);
            Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(io))
        }
    });
    let channel = endpoint(name, &*options.connect)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.stream_window.saturating_mul(4))
        .connect_with_connector(connector)
        .await
        .map_err(|e| whole(&e))?;
    let address = reached.get().copied().ok_or("the connection was not made")?;
    Ok((channel, address))
}

/// An error with all of its causes: transport errors say nothing by themselves.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_wrong_ones_explained() {
        assert_eq!(parse_address("127.0.0.1:5").unwrap(), "http://127.0.0.1:5/");
        assert_eq!(parse_address("http://leader:50052").unwrap().host(), Some("leader"));
        assert_eq!(parse_address("[::1]:5").unwrap().port_u16(), Some(5));
        assert_eq!(parse_address("leader-0.leaders.svc.:5").unwrap().host(), Some("leader-0.leaders.svc."));
        for wrong in
            ["", "leader", "leader:0", "https://leader:5", "http://leader:5/path", "a b:5", ":5", "leader:99999"]
        {
            let error = parse_address(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
