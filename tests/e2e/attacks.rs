//! Callers that mean no good, with and without HTTP/2: what each of them gets from a follower, while honest clients are served without
//! an error. docs/security.md says the same.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use h2::client::SendRequest;
use h2::{Ping, RecvStream};
use http::{HeaderMap, Request, Response};
use tao_client::ClientOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::codegen::Bytes;

use crate::cluster::tier;
use crate::security::{Load, judge};

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);
/// How HTTP/2 begins: the client's preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const GOAWAY: u8 = 7;
const OBJECT_GET: &str = "/tao.v1.GraphService/ObjectGet";
const PIPELINE: &str = "/tao.v1.GraphService/Pipeline";

/// A connection of HTTP/2 without gRPC on it.
async fn connect(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

fn request(path: &str) -> Request<()> {
    let request = Request::post(format!("http://tao{path}")).header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).unwrap()
}

/// The name of a gRPC code as its specification writes it.
fn code(headers: &HeaderMap) -> Option<String> {
    let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    Some(name)
}

/// How a call ended.
async fn outcome(response: Response<RecvStream>) -> Result<String> {
    if response.status() != 200 {
        return Ok(format!("HTTP {}", response.status().as_u16()));
    }
    if let Some(code) = code(response.headers()) {
        return Ok(code);
    }
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    code(&body.trailers().await?.context("trailers")?).context("a code")
}

/// Makes a call of these bytes, which are all, or not.
async fn call(address: &str, path: &str, bytes: &[u8], is_all: bool) -> Result<String> {
    let mut send = connect(address).await;
    let (answer, mut body) = send.send_request(request(path), false)?;
    body.send_data(Bytes::copy_from_slice(bytes), is_all)?;
    tokio::time::timeout(WITHIN, async { outcome(answer.await?).await }).await?
}

/// What a server says last on a connection that sends these frames over and over; `one` makes each of the stream with its number.
async fn flood(address: &str, mut one: impl FnMut(u32) -> Vec<u8>) -> Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut read, mut write) = stream.into_split();
    write.write_all(PREFACE).await?;
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut number = 1;
    for _ in 0..1_000 {
        let mut some = Vec::new();
        for _ in 0..100 {
            some.extend(one(number));
            number += 2;
        }
        frames.push(some);
    }
    // Whether it is written to the end or not: the answer says what became of it.
    let writing = tokio::spawn(async move {
        for some in frames {
            if write.write_all(&some).await.is_err() {
                break;
            }
        }
        write
    });
    let mut said = Vec::new();
    let reading = async {
        let mut some = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = read.read(&mut some).await {
            said.extend_from_slice(&some[..n]);
        }
    };
    tokio::time::timeout(WITHIN, reading).await.context("it is not ended")?;
    writing.abort();
    let mut at = 0;
    while let Some(head) = said.get(at..at + 9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == GOAWAY {
            let word = said.get(at + 9..at + 9 + length).context("a whole frame")?;
            ensure!(word[4..8] == [0, 0, 0, 0xb], "not ENHANCE_YOUR_CALM: {word:?}");
            return Ok(format!("GOAWAY ENHANCE_YOUR_CALM, `{}`", String::from_utf8_lossy(&word[8..])));
        }
        at += 9 + length;
    }
    Ok(format!("closed after {} bytes", said.len()))
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut frame = (content.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(content);
    frame
}

/// A call's headers as HPACK has them without any table.
fn headers(path: &str) -> Vec<u8> {
    let all = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "tao"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let mut block = Vec::new();
    for (name, value) in all {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_mean_no_good_get_nothing_and_honest_ones_do_not_notice() {
    let (_shard, shard) = tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    let limits = ["--message-timeout-ms", "1500", "--max-connections-per-address", "300"];
    let (mut follower, address) = tier(&[&["follower", "--leader", &leader], &limits[..]].concat());
    let load = Load::start(&address, ClientOptions { deadline: WITHIN, ..Default::default() });
    load.goes_on().await;

    let mut rows = Vec::new();
    let mut row = |what: &str, came: Result<String>| rows.push(format!("| {what} | {} |", came.unwrap()));
    let large = [&[0, 0, 0x60, 0, 0][..], &vec![1; 100_000]].concat();
    row("a message of 6 MiB", call(&address, OBJECT_GET, &large, false).await);
    row("a message of 6 MiB in a pipeline", call(&address, PIPELINE, &large, false).await);
    row("bytes that are no message", call(&address, OBJECT_GET, &[0, 0, 0, 0, 3, 0xff, 0xff, 0xff], true).await);
    row("bytes that are no message in a pipeline", call(&address, PIPELINE, &[0, 0, 0, 0, 2, 0xff, 0xff], false).await);
    row("a compressed message", call(&address, OBJECT_GET, &[1, 0, 0, 0, 1, 0], true).await);
    row("a message that is cut off", call(&address, OBJECT_GET, &[0, 0, 0, 0, 9, 8], true).await);
    row(
        "a message that does not come to its end in time",
        call(&address, OBJECT_GET, &[0, 0, 0, 0, 9, 8], false).await,
    );
    row("the same in a pipeline", call(&address, PIPELINE, &[0, 0, 0, 0, 9, 8], false).await);
    row("a call that has no message and no end", call(&address, OBJECT_GET, &[], false).await);

    let mut send = connect(&address).await;
    let mut bomb = request(OBJECT_GET);
    for n in 0..64 {
        let name: http::HeaderName = format!("bomb-{n}").parse().unwrap();
        bomb.headers_mut().insert(name, "x".repeat(1_000).parse().unwrap());
    }
    let (answer, _) = send.send_request(bomb, true).unwrap();
    row("64 KiB of headers", async { outcome(answer.await?).await }.await);

    row("pipelines beyond 128 on one connection", waiting_pipelines(&address, 130).await);

    row("a flood of pings", flood(&address, |_| frame(6, 0, 0, &[7; 8])).await);
    row("a flood of settings", flood(&address, |_| frame(4, 0, 0, &[])).await);
    row("a flood of unknown frames", flood(&address, |_| frame(0x77, 0, 0, &[1])).await);
    let get = headers(OBJECT_GET);
    let reset = |stream| [frame(1, 4, stream, &get), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
    row("calls that are reset as soon as they are made", flood(&address, reset).await);
    let endless = |stream| match stream {
        1 => frame(1, 0, 1, &get),
        _ => frame(9, 0, 1, &[0, 1, b'a', 1, b'b']),
    };
    row("headers that go on and on", flood(&address, endless).await);
    row("a connection that says nothing", flood_of_silence(&address).await);
    let many = crowd(&address, 400).await;
    row("more connections than an address may have", many);

    // A ping now and then is anybody's right.
    let stream = TcpStream::connect(&address).await.unwrap();
    let (_send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    for _ in 0..200 {
        tokio::time::timeout(WITHIN, pings.ping(Ping::opaque())).await.unwrap().unwrap();
    }

    load.goes_on().await;
    let done = load.end().await;
    println!("honest load: {done} writes and reads, none failed");
    judge(&rows);
    assert!(follower.terminate().unwrap().success());
}

/// Opens so many pipelines on one connection: those that are too many wait for others to end.
async fn waiting_pipelines(address: &str, many: usize) -> Result<String> {
    let mut send = connect(address).await;
    let mut begun = Vec::new();
    for n in 0..many {
        send = tokio::time::timeout(WITHIN, send.ready()).await??;
        let (answer, body) = send.send_request(request(PIPELINE), false)?;
        let mut answer = Box::pin(answer);
        match tokio::time::timeout(Duration::from_secs(2), &mut answer).await {
            Ok(answer) => begun.push((answer?, body)),
            Err(_) => {
                ensure!(n == 128, "{n} were opened");
                drop(begun);
                tokio::time::timeout(WITHIN, answer).await??;
                return Ok("wait at their client".to_owned());
            }
        }
    }
    anyhow::bail!("{many} were opened")
}

/// Connects and waits.
async fn flood_of_silence(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let mut said = Vec::new();
    tokio::time::timeout(WITHIN, stream.read_to_end(&mut said)).await.context("it is not ended")??;
    ensure!(String::from_utf8_lossy(&said).contains("silent"), "{said:?}");
    Ok("closed after 10 s".to_owned())
}

/// Connects more often than it may; what becomes of what is too much.
async fn crowd(address: &str, connections: usize) -> Result<String> {
    let address: SocketAddr = address.parse()?;
    let mut all = Vec::new();
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        let _ = stream.write_all(PREFACE).await;
        all.push(stream);
    }
    let mut closed = 0;
    for stream in &mut all {
        let mut some = [0; 1];
        let read = tokio::time::timeout(WITHIN, stream.read(&mut some)).await?;
        closed += usize::from(!matches!(read, Ok(1)));
    }
    // Honest ones have some, too.
    ensure!((100..150).contains(&closed), "{closed} of {connections} were closed");
    Ok("closed at once".to_owned())
}
