//! The runtime arrangement of tao's servers with nothing around the handlers: what every baseline is served on.
//!
//! One current-thread runtime a core; one thread accepts and hands connections out in turn; hyper's HTTP/2 loop drives each, with the
//! windows and limits that tao's servers have, and runs handlers where their request was read, as tao's do. No metrics, no spans, no
//! drain.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::body::Body;
use tower::Service;

const STREAM_WINDOW: u32 = 1024 * 1024;
const MAX_STREAMS: u32 = 1_000;
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Polls a handler once where its request was read, and makes it a task only when it has to wait: then it is polled again, with the
/// task's own waker.
#[derive(Debug, Clone, Copy)]
struct Inline;

impl<F> Executor<F> for Inline
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(future);
        }
    }
}

/// Listens on a free port of 127.0.0.1 and serves until the process ends. `make` is called once on each thread's runtime, so that what a
/// service needs (connections to stores) lives there. `listening` is told the address as soon as every thread is ready.
pub fn serve<S>(
    threads: usize,
    make: &(impl AsyncFn() -> Result<S> + Clone + Send + 'static),
    listening: impl FnOnce(SocketAddr),
) -> Result<()>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (ready, mut are_ready) = unbounded_channel();
        let workers: Vec<_> = (0..threads).map(|n| worker(n, make.clone(), ready.clone())).collect::<Result<_>>()?;
        for _ in &workers {
            are_ready.recv().await.context("a worker ended")??;
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("can't listen")?;
        listening(listener.local_addr()?);
        for turn in 0_usize.. {
            let (stream, _) = listener.accept().await.context("can't accept")?;
            stream.set_nodelay(true)?;
            workers[turn % threads].send(stream.into_std()?).ok().context("a worker ended")?;
        }
        Ok(())
    })
}

/// A thread with a runtime; its connections come through what is returned.
fn worker<S>(
    n: usize,
    make: impl AsyncFn() -> Result<S> + Send + 'static,
    ready: UnboundedSender<Result<()>>,
) -> Result<UnboundedSender<std::net::TcpStream>>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (hand_out, connections) = unbounded_channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
        runtime.block_on(async move {
            match make().await {
                Ok(service) => {
                    // The receiver is gone only when the process ends.
                    ready.send(Ok(())).ok();
                    drive_all(service, connections).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    })?;
    Ok(hand_out)
}

async fn drive_all<S>(service: S, mut connections: UnboundedReceiver<std::net::TcpStream>)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    while let Some(stream) = connections.recv().await {
        let Ok(stream) = TcpStream::from_std(stream) else { continue };
        let connection = http2::Builder::new(Inline)
            .auto_date_header(false)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * 4)
            .keep_alive_interval(KEEPALIVE)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()));
        // A connection that breaks is its client's concern.
        tokio::spawn(async move { drop(connection.await) });
    }
}
