//! How to reach a peer. Injected, so that a simulated network can take the place of TCP.

use std::io;
use std::sync::Arc;

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

/// Makes connections.
pub trait Connect: Send + Sync + 'static {
    /// Connects to the address's host and port.
    fn connect(&self, address: Uri) -> BoxFuture<'static, io::Result<BoxIo>>;
}

/// TCP, with TCP_NODELAY.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnect;

impl TcpConnect {
    /// Connects, trying every address that the host's name has.
    pub async fn stream(address: &Uri) -> io::Result<TcpStream> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let host = address.host().ok_or_else(|| invalid("the address has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = address.port_u16().ok_or_else(|| invalid("the address has no port"))?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Connect for TcpConnect {
    fn connect(&self, address: Uri) -> BoxFuture<'static, io::Result<BoxIo>> {
        Box::pin(async move { Ok(Box::new(Self::stream(&address).await?) as BoxIo) })
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
        return Err(wrong("only http is spoken between tiers"));
    }
    if uri.port_u16().is_none_or(|port| port == 0) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong("it needs a host and a port"));
    }
    if uri.path().len() > 1 || uri.query().is_some() {
        return Err(wrong("it must not have a path"));
    }
    Ok(uri)
}

/// A connection to the peer, made now; it lives on the runtime that this is called on.
pub(crate) async fn channel(address: &Uri, options: &LinkOptions) -> Result<Channel, String> {
    let connect: Arc<dyn Connect> = options.connect.clone();
    let connector = tower::service_fn(move |uri: Uri| {
        let connecting = connect.connect(uri);
        async move { connecting.await.map(hyper_util::rt::TokioIo::new) }
    });
    Endpoint::from(address.clone())
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.stream_window.saturating_mul(4))
        .connect_with_connector(connector)
        .await
        .map_err(|e| whole(&e))
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
        for wrong in
            ["", "leader", "leader:0", "https://leader:5", "http://leader:5/path", "a b:5", ":5", "leader:99999"]
        {
            let error = parse_address(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
