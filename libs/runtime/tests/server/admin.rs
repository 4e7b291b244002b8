//! The admin port.

use std::net::SocketAddr;

use tao_runtime::{AdminAnswer, AdminRoutes, MetricsHandle, Readiness, Shutdown, serve_admin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;

use crate::service::*;

/// The status code and the body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask("GET", address, path).await
}

async fn ask(method: &str, address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn probes_and_metrics() {
    // Twice, as when several servers share a process.
    let metrics = (MetricsHandle::install(), MetricsHandle::install()).1;
    let readiness = Readiness::new();
    let gate = readiness.gate("store");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = Shutdown::new();
    let routes = AdminRoutes::default();
    let admin = tokio::spawn(serve_admin(listener, readiness.clone(), metrics, routes.clone(), shutdown));

    assert_eq!(get(address, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(address, "/readyz").await, (503, "store: starting\n".to_owned()));
    gate.not_ready("can't reach the database");
    readiness.gate("stream");
    let reasons = "store: can't reach the database\nstream: starting\n";
    assert_eq!(get(address, "/readyz").await, (503, reasons.to_owned()));
    gate.ready();
    readiness.gate("stream").ready();
    assert_eq!(get(address, "/readyz").await, (200, "ready\n".to_owned()));
    readiness.close();
    assert_eq!(get(address, "/readyz").await, (503, "shutdown: shutting down\n".to_owned()));
    assert_eq!(get(address, "/nothing").await.0, 404);

    // A service that came after the port.
    routes.post("/count", async |query| match query.get("n").and_then(|n| n.parse::<u32>().ok()) {
        Some(0) => AdminAnswer::Unavailable("nothing to count".to_owned()),
        Some(n) => AdminAnswer::Json(format!("{{\"n\":{n}}}")),
        None => AdminAnswer::BadRequest("n: a number".to_owned()),
    });
    assert_eq!(ask("POST", address, "/count?x&n=7").await, (200, "{\"n\":7}".to_owned()));
    assert_eq!(ask("POST", address, "/count").await, (400, "n: a number".to_owned()));
    assert_eq!(ask("POST", address, "/count?n=0").await.0, 503);
    assert_eq!((get(address, "/count").await.0, ask("POST", address, "/nothing").await.0), (405, 404));

    let server = Server::simple(Service::new(|request| async move {
        if request.uri().path().ends_with("Fail") { Status::not_found("it") } else { Status::ok("") }
    }))
    .await;
    let channel = server.connect().await.unwrap();
    call(&channel).await.unwrap();
    call_with(&channel, "/test.Service/Fail", None).await.unwrap_err();
    call_with(&channel, "/made.Up/Name", None).await.unwrap_err();
    let (status, text) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    for labels in [
        r#"service="test.Service",method="Call",code="Ok""#,
        r#"service="test.Service",method="Fail",code="NotFound""#,
        r#"service="other",method="other",code="Unimplemented""#,
    ] {
        // Other tests of this process count there, too.
        let line = format!("rpc_server_duration_seconds_count{{{labels}}} ");
        let count = text.lines().find_map(|found| found.strip_prefix(&line)).map(str::parse::<u64>);
        assert!(matches!(count, Some(Ok(1..))), "{line} in\n{text}");
    }
    assert!(text.contains("rpc_server_duration_seconds_bucket") && !text.contains("made.Up"), "{text}");

    trigger.trigger();
    admin.await.unwrap().unwrap();
}
