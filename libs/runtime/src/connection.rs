//! One HTTP/2 connection, driven on its worker until it ends, is drained, or is dropped.
//!
//! tonic's own server loop can neither drop connections at a deadline nor drain one by age before its grace begins, so the loop
//! is here; it is hyper's, over tonic's routes.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::{Pin, pin};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tower::Service as _;

use crate::layer::{Instrumented, Measured};
use crate::listener::Listener;
use crate::serve::ServeOptions;

/// In every request's extensions: begins when its connection is to end, by age or with the server. Streams without an end of their
/// own end then, politely, so that their callers go on elsewhere.
#[derive(Debug, Clone)]
pub struct Ending(CancellationToken);

impl Ending {
    /// Of a connection that never ends.
    pub fn never() -> Self {
        Self(CancellationToken::new())
    }

    /// Cancelled when it begins.
    pub fn token(&self) -> CancellationToken {
        self.0.clone()
    }

    /// Waits for it.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.clone().cancelled_owned()
    }
}

/// Drives a connection. Must be polled on the runtime that the connection is to belong to.
pub(crate) async fn drive<L: Listener>(
    conn: L::Conn,
    service: Instrumented<Routes>,
    options: ServeOptions,
    drain: CancellationToken,
    kill: CancellationToken,
) {
    let io = match L::attach(conn) {
        Ok(io) => io,
        Err(error) => {
            tracing::warn!(%error, "can't register a connection");
            return;
        }
    };
    let ending = CancellationToken::new();
    let service = PerConnection { service, info: io.connect_info(), ending: Ending(ending.clone()) };
    let connection = builder(&options).serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let mut age = pin!(wait(options.max_connection_age.map(vary)));
    let mut grace = pin!(wait(None));
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            () = kill.cancelled() => return,
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
                }
                return;
            }
            () = drain.cancelled(), if !draining => {
                draining = true;
                ending.cancel();
                connection.as_mut().graceful_shutdown();
            }
            () = &mut age, if !draining => {
                draining = true;
                ending.cancel();
                connection.as_mut().graceful_shutdown();
                grace.set(wait(options.max_connection_age_grace));
            }
            () = &mut grace => return,
        }
    }
}

fn builder(options: &ServeOptions) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(options.max_header_list_size)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.stream_window.saturating_mul(4))
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout);
    builder
}

/// Ends after a while, or never.
async fn wait(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Up to a tenth less or more, so that connections made together don't all end together.
fn vary(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 2_001;
    time.mul_f64(0.9 + random as f64 / 10_000.0)
}

/// The routes, with what is known of the peer put into every request.
struct PerConnection<I> {
    service: Instrumented<Routes>,
    info: I,
    ending: Ending,
}

impl<I: Clone + Send + Sync + 'static> hyper::service::Service<Request<Incoming>> for PerConnection<I> {
    type Response = Response<Measured>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.info.clone());
        request.extensions_mut().insert(self.ending.clone());
        let mut service = self.service.clone();
        Box::pin(async move { service.call(request.map(Body::new)).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_vary_by_a_tenth() {
        for _ in 0..1_000 {
            let age = vary(Duration::from_secs(100));
            assert!((90..=111).contains(&age.as_secs()), "{age:?}");
        }
    }
}
