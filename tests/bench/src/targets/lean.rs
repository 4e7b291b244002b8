//! Connections for generated stubs with nothing between stub and HTTP/2. A tonic channel's buffer, layers and tasks cost several times what
//! it costs to be refused: with them, whoever makes an open-loop load is the first to be overloaded.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use h2::client::SendRequest;
use h2::{RecvStream, client};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Response, Uri};
use http_body::{Body as _, Frame};
use tokio::net::TcpSocket;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::channels::STREAM_WINDOW;

/// Connections that take turns.
pub struct Lean {
    connections: Vec<Connection>,
    turn: Cell<usize>,
}

/// One of them.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    authority: Authority,
}

impl Lean {
    /// Connects to HOST:PORT from each of these addresses, or from any.
    pub async fn connect_from(address: &str, from: &[Option<IpAddr>]) -> Result<Self> {
        let peer: SocketAddr = address.parse().with_context(|| format!("{address}: IP:PORT"))?;
        let mut connections = Vec::with_capacity(from.len());
        for from in from {
            let socket = TcpSocket::new_v4()?;
            if let Some(from) = from {
                socket.bind((*from, 0).into())?;
            }
            let stream = socket.connect(peer).await?;
            stream.set_nodelay(true)?;
            let mut builder = client::Builder::new();
            builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(STREAM_WINDOW * 4);
            let (send, connection) = builder.handshake(stream).await?;
            tokio::spawn(connection);
            connections.push(Connection { send, authority: address.parse()? });
        }
        Ok(Self { connections, turn: Cell::new(0) })
    }

    /// The next in turn.
    pub fn next(&self) -> Connection {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        self.connections[turn % self.connections.len()].clone()
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Answer>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Answer>, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.send.poll_ready(cx).map_err(|error| broken(&error))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { mut send, authority } = self.clone();
        async move {
            let (mut parts, body) = request.into_parts();
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(authority));
            parts.uri = Uri::from_parts(uri).map_err(|error| Status::internal(error.to_string()))?;
            // A stub's message comes in one piece.
            let mut body = pin!(body);
            let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await.transpose()?;
            let message = frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
            let sent = send.send_request(Request::from_parts(parts, ()), false);
            let (answer, mut stream) = sent.map_err(|error| broken(&error))?;
            stream.send_data(message, true).map_err(|error| broken(&error))?;
            Ok(answer.await.map_err(|error| broken(&error))?.map(Answer))
        }
        .boxed()
    }
}

fn broken(error: &h2::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// A response's body.
pub struct Answer(RecvStream);

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(data) = ready!(self.0.poll_data(cx)) {
            let data = data.map_err(|error| broken(&error))?;
            self.0.flow_control().release_capacity(data.len()).map_err(|error| broken(&error))?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers: Option<HeaderMap> = ready!(self.0.poll_trailers(cx)).map_err(|error| broken(&error))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
