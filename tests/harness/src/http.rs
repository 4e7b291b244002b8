//! What an admin port says.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(5);

/// The body of `GET http://ADDRESS/PATH`; an error when the answer is not 200.
pub fn http_get(address: &str, path: &str) -> Result<String> {
    http_ask("GET", address, path, "")
}

/// The same with another method, and more headers, each with its line end.
pub fn http_ask(method: &str, address: &str, path: &str, headers: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: tests\r\nconnection: close\r\n{headers}\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{address}{path} answered {status}: {body}");
    Ok(body.to_owned())
}
