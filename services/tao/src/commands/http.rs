//! One HTTP/1 request to an admin port.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use futures::future::try_join;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::Failure;

/// An answer's body, at the most.
const MAX_BODY: usize = 16 << 20;

/// Sends nothing to `http://HOST:PORT` and a path, and gives the answer's body. Any answer but 200 is a failure that tells it.
pub async fn ask(method: Method, server: &str, path: &str, within: Duration) -> Result<Vec<u8>, Failure> {
    ask_as(None, method, server, path, within).await
}

/// The same, of somebody whom `authorization` tells of.
pub async fn ask_as(
    authorization: Option<&HeaderValue>,
    method: Method,
    server: &str,
    path: &str,
    within: Duration,
) -> Result<Vec<u8>, Failure> {
    let uri: Uri = server.parse().map_err(|_| bad_address(server))?;
    let authority = uri.authority().filter(|a| uri.scheme_str() == Some("http") && a.port().is_some());
    let authority = authority.ok_or_else(|| bad_address(server))?.to_string();
    let unreachable = |why: &dyn std::fmt::Display| Failure::unreachable(format!("can't reach {server}: {why}"));
    let request = Request::builder().method(method).uri(path).header(HOST, &authority);
    let mut request = request.body(String::new()).map_err(Failure::other)?;
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    let exchange = async {
        let stream = TcpStream::connect(&authority).await.map_err(|why| unreachable(&why))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|why| unreachable(&why))?;
        let asked = async move {
            let response = sender.send_request(request).await?;
            let (head, mut body) = response.into_parts();
            let mut bytes = Vec::new();
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                bytes.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| &data[..]));
                if bytes.len() > MAX_BODY {
                    break;
                }
            }
            Ok((head.status, bytes))
        };
        // The connection ends when its sender is gone.
        let ((status, bytes), ()) = try_join(asked, connection).await.map_err(|why| unreachable(&why))?;
        if status.is_success() {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        let text = if text.is_empty() { status.to_string() } else { text };
        Err(if status.is_server_error() {
            Failure::unreachable(format!("{server}: {text}"))
        } else {
            Failure::bad_input(format!("{server}: {text}"))
        })
    };
    timeout(within, exchange).await.unwrap_or_else(|_| Err(unreachable(&format!("no answer within {within:?}"))))
}

fn bad_address(server: &str) -> Failure {
    Failure::bad_input(format!("{server:?} is no address like http://127.0.0.1:9464"))
}
