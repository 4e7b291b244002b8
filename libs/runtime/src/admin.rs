//! The admin port: HTTP/1 for probes and Prometheus, apart from the port that clients use.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::MetricsHandle;
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// How often histograms are taken in when nobody asks for metrics.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long requests may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(1);

/// Serves `/livez` (200 while the process can answer), `/readyz` (503 and every reason, one a line, until all is ready) and
/// `/metrics`. Give it a shutdown that begins after the server's drain, so that probes see the drain.
pub async fn serve_admin(
    listener: TcpListener,
    readiness: Readiness,
    metrics: MetricsHandle,
    shutdown: Shutdown,
) -> io::Result<()> {
    let gathered = metrics.clone();
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async move || ready(&readiness)))
        .route("/metrics", get(async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())));
    let upkeep = async {
        let mut every = tokio::time::interval(UPKEEP);
        loop {
            every.tick().await;
            gathered.upkeep();
        }
    };
    let deadline = async {
        shutdown.wait().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(shutdown.wait()) => served,
        () = deadline => Ok(()),
        () = upkeep => Ok(()),
    }
}

fn ready(readiness: &Readiness) -> impl IntoResponse + use<> {
    match readiness.report() {
        (true, _) => (StatusCode::OK, "ready\n".to_owned()),
        (false, reasons) => {
            let text = reasons.into_iter().map(|(gate, why)| format!("{gate}: {why}\n")).collect();
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}
