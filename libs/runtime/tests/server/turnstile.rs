//! Calls that are refused before they are decoded, among others of the same connection.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tao_runtime::{Listener, ServeOptions, TcpAcceptor, TcpIo, Turnstile, Workers, response_block};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::service::*;

/// Bytes that each call sends.
const MESSAGE: usize = 700;

/// Refuses all calls but every fifth.
#[derive(Debug)]
struct EveryFifth {
    calls: AtomicUsize,
    refusal: Vec<u8>,
}

impl Turnstile for EveryFifth {
    fn is_pressed(&self) -> bool {
        true
    }

    fn refuse(&self) -> Option<&[u8]> {
        (!self.calls.fetch_add(1, Relaxed).is_multiple_of(5)).then_some(&self.refusal)
    }
}

/// Connections that have a turnstile each.
struct Turned(TcpAcceptor);

impl Listener for Turned {
    type Conn = <TcpAcceptor as Listener>::Conn;
    type Io = TcpIo;

    async fn accept(&mut self) -> io::Result<Self::Conn> {
        self.0.accept().await
    }

    async fn attach(conn: Self::Conn) -> io::Result<TcpIo> {
        TcpAcceptor::attach(conn).await
    }

    fn turnstile(_: &TcpIo) -> Option<Arc<dyn Turnstile>> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "8".parse().unwrap());
        headers.insert("grpc-message", "come back".parse().unwrap());
        Some(Arc::new(EveryFifth { calls: AtomicUsize::new(0), refusal: response_block(&headers) }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// One call, with a header whose value is new if `n` is a multiple of seven; what was said.
async fn call(send: &SendRequest<Bytes>, n: usize) -> (Code, String) {
    let value = if n.is_multiple_of(7) { format!("number {n}") } else { "the usual".to_owned() };
    let request = Request::post("http://test/test.Service/Method").header("te", "trailers").header("user-agent", value);
    let mut send = send.clone().ready().await.unwrap();
    let (answer, mut body) = send.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from(vec![0; MESSAGE]), true).unwrap();
    let answer = answer.await.unwrap();
    let text = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    (Code::from_bytes(text("grpc-status").as_bytes()), text("grpc-message"))
}

#[tokio::test]
async fn refused_calls_leave_the_others_of_their_connection_alone() {
    let service = Service::new(async |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let mut body = std::pin::pin!(body);
        let mut bytes = 0;
        while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await {
            bytes += frame.unwrap().into_data().map_or(0, |data| data.len());
        }
        assert_eq!(bytes, MESSAGE);
        Status::not_found(parts.headers["user-agent"].to_str().unwrap_or_default())
    });
    let listener = Turned(TcpAcceptor::bind(([127, 0, 0, 1], 0).into()).await.unwrap());
    let server = Server::on(listener, Routes::new(service), Workers::inline(), ServeOptions::default());
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // One that is given up, whatever becomes of it.
    let give_up = |n: usize| {
        let send = send.clone();
        async move {
            let given_up = tokio::time::timeout(std::time::Duration::from_micros(n as u64 % 300), call(&send, n)).await;
            drop(given_up);
        }
    };
    // Far more bytes than a connection may have on its way.
    let mut refused = 0;
    for round in 0..250 {
        let calls = (0..40).map(|n| {
            let (send, n) = (send.clone(), round * 40 + n);
            async move { (n, call(&send, n).await) }
        });
        let ((), calls) = futures::future::join(give_up(round * 40 + 1), futures::future::join_all(calls)).await;
        for (n, (code, said)) in calls {
            if code == Code::ResourceExhausted {
                assert_eq!(said, "come back");
                refused += 1;
            } else {
                let agent = if n.is_multiple_of(7) { format!("number%20{n}") } else { "the%20usual".to_owned() };
                assert_eq!((code, said), (Code::NotFound, agent));
            }
        }
    }
    // Those with a new header were decoded, and those before the first answer.
    let at_least = 10_000 * 6 / 7 * 4 / 5 - 1;
    assert!((at_least - 100..=at_least + 100).contains(&refused), "{refused} of about {at_least}");
}
