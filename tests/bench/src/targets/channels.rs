//! A thread's connections to a gRPC server.

use std::cell::Cell;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use tao_client::{ClientTls, TlsOptions};
use tokio::net::TcpStream;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

/// Bytes that may be on their way to one call; a connection gets four times as many.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// Connections that take turns.
pub struct Channels {
    connections: Vec<Channel>,
    turn: Cell<usize>,
    bearer: Option<MetadataValue<Ascii>>,
}

/// What a client proves, and wants proved.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// In TLS, with this authority; `None`: in plain text.
    pub tls: Option<TlsOptions>,
    /// A token.
    pub bearer: Option<String>,
}

impl Channels {
    /// Connects so many times to HOST:PORT.
    pub async fn connect(address: &str, connections: usize) -> Result<Self> {
        Self::connect_as(&Credentials::default(), address, connections).await
    }

    /// The same, of somebody with credentials.
    pub async fn connect_as(credentials: &Credentials, address: &str, connections: usize) -> Result<Self> {
        let bearer = credentials.bearer.as_ref().map(|token| format!("Bearer {token}").parse()).transpose()?;
        let tls = credentials.tls.clone().map(ClientTls::load).transpose().map_err(|problems| {
            anyhow::anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut channels = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .origin(format!("{scheme}://{address}").parse()?)
                .tcp_nodelay(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(STREAM_WINDOW * 4);
            channels.push(match &tls {
                None => endpoint.connect().await?,
                Some(tls) => endpoint.connect_with_connector(secure(tls.clone(), address.to_owned())?).await?,
            });
        }
        Ok(Self { connections: channels, turn: Cell::new(0), bearer })
    }

    /// A request, with the token if there is one.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }

    /// The next in turn.
    pub fn next(&self) -> Channel {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        self.connections[turn % self.connections.len()].clone()
    }
}

/// Makes connections in TLS to HOST:PORT.
fn secure(
    tls: ClientTls,
    address: String,
) -> Result<impl tower::Service<Uri, Response = TokioIo<impl Io>, Error = std::io::Error, Future: Send> + Send> {
    let host = address.rsplit_once(':').context("HOST:PORT")?.0.to_owned();
    Ok(tower::service_fn(move |_: Uri| {
        let (tls, host, address) = (tls.clone(), host.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(&host, stream).await?))
        }
    }))
}

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static> Io for T {}
