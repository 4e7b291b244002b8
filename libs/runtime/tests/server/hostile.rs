//! Callers that mean no good, and what becomes of them. What they do to honest ones is tried on real processes (tests/e2e).

use std::time::Duration;

use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tao_runtime::{AnswerBytes, ServeOptions, Workers};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::service::Routes;
use tonic::{Code, Status};

use crate::service::*;

/// Generous, since other tests run at the same time.
const WITHIN: Duration = Duration::from_secs(30);

/// A connection of HTTP/2 without gRPC on it, whose streams may get so many bytes unasked.
async fn connect(server: &Server, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (send, connection) = builder.initial_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

fn request() -> Request<()> {
    let request = Request::post("http://test/test.Service/Method").header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).unwrap()
}

fn code(headers: &HeaderMap) -> Code {
    Code::from_bytes(headers["grpc-status"].as_bytes())
}

/// Reads what it is sent to its end.
fn reading() -> Service {
    Service::new(async |request| {
        let mut body = std::pin::pin!(request.into_body());
        loop {
            match std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status,
                None => return Status::ok(""),
            }
        }
    })
}

#[tokio::test]
async fn a_message_that_does_not_come_to_its_end_is_not_waited_for() {
    let options = ServeOptions {
        message_timeout: Duration::from_millis(100),
        max_message_size: 1 << 20,
        max_unfinished_messages: 300_000,
        ..ServeOptions::default()
    };
    let server = Server::start(Routes::new(reading()), Workers::inline(), options).await;
    let send = connect(&server, 65_535).await;
    let try_with = async |bytes: &[u8], ends| {
        let mut send = send.clone().ready().await.unwrap();
        let (answer, mut body) = send.send_request(request(), false).unwrap();
        body.send_data(Bytes::copy_from_slice(bytes), ends).unwrap();
        let answer = tokio::time::timeout(WITHIN, answer).await.unwrap().unwrap();
        (code(answer.headers()), answer.headers()["grpc-message"].to_str().unwrap_or_default().to_owned())
    };
    for begun in [&[][..], &[0, 0], &[0, 0, 0, 0, 9, 1, 2], &[0, 0, 0, 0, 1, 1]] {
        let (code, message) = try_with(begun, false).await;
        assert_eq!(code, Code::DeadlineExceeded, "{begun:?}: {message}");
    }
    let (code, message) = try_with(&[0, 0, 32, 0, 0], false).await;
    assert_eq!(code, Code::ResourceExhausted, "{message}");
    assert!(message.contains("2097152"), "{message}");

    // Two large ones at once are one too many, for as long as the first is under way.
    let mut first = send.clone().ready().await.unwrap();
    let (first_answer, mut body) = first.send_request(request(), false).unwrap();
    body.send_data(Bytes::from_static(&[0, 0, 3, 0, 0]), false).unwrap();
    let (code, message) = try_with(&[0, 0, 3, 0, 0], false).await;
    assert!(code == Code::ResourceExhausted && message.contains("300000"), "{code:?} {message}");
    drop((first_answer, body));
}

#[tokio::test]
async fn large_answers_that_nobody_takes_are_few_and_end_their_connection() {
    let service = Service::new(async |_| Status::ok(""));
    let large = move |status: &Status, response: &mut http::Response<tonic::body::Body>| {
        assert_eq!(status.code(), Code::Ok);
        response.extensions_mut().insert(AnswerBytes(200_000));
        *response.body_mut() = tonic::body::Body::new(Large(Some(Bytes::from(vec![7; 200_000]))));
    };
    let options = ServeOptions {
        max_untaken_answers: 300_000,
        answer_timeout: Duration::from_millis(300),
        ..ServeOptions::default()
    };
    let server = Server::start(Routes::new(service.changed(large)), Workers::inline(), options).await;
    let mut greedy = connect(&server, 0).await;
    let (first, _) = greedy.send_request(request(), true).unwrap();
    let first = tokio::time::timeout(WITHIN, first).await.unwrap().unwrap();
    // Who takes what is sent is refused while that one waits.
    let mut honest = connect(&server, 1 << 20).await;
    let (refused, _) = honest.send_request(request(), true).unwrap();
    assert_eq!(code(refused.await.unwrap().headers()), Code::ResourceExhausted);
    let mut body = first.into_body();
    assert!(tokio::time::timeout(WITHIN, body.data()).await.unwrap().unwrap().is_err(), "ended");
    let (answer, _) = honest.send_request(request(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut taken = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        taken += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(taken, 200_000);
}

/// A body of one piece.
struct Large(Option<Bytes>);

impl http_body::Body for Large {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let waiting = Service::new(|_| std::future::pending());
    let options = ServeOptions { max_connections_per_address: 2, ..ServeOptions::default() };
    let server = Server::start(Routes::new(waiting), Workers::inline(), options).await;
    let _first = connect(&server, 65_535).await;
    let second = TcpStream::connect(server.address).await.unwrap();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    let closed = tokio::time::timeout(WITHIN, third.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    drop(second);
    let let_in = async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
            if stream.read(&mut [0; 8]).await.is_ok_and(|n| n > 0) {
                return;
            }
        }
    };
    tokio::time::timeout(WITHIN, let_in).await.unwrap();
}
