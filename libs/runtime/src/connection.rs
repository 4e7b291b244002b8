//! One HTTP/2 connection, driven on its worker until it ends, is drained, or is dropped.
//!
//! tonic's own server loop can neither drop connections at a deadline nor drain one by age before its grace begins, so the loop
//! is here; it is hyper's, over tonic's routes.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tao_tls::PeerIdentity;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::activity::{Activity, Busy, Cause};
use crate::inline::Inline;
use crate::layer::{Call, Instrumented, Measured};
use crate::listener::Listener;
use crate::outbox;
use crate::peers::Peer;
use crate::serve::ServeOptions;

/// Calls that were given up before they were looked at, of one connection.
const PENDING_RESETS: usize = 4_096;
/// How long a peer may take until it says something.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

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
    peer: Peer,
    service: Instrumented,
    options: ServeOptions,
    drain: CancellationToken,
    kill: CancellationToken,
) {
    let attached = tokio::select! {
        biased;
        () = kill.cancelled() => return,
        attached = L::attach(conn) => attached,
        // It has not begun to speak, so it has nothing to finish.
        () = drain.cancelled() => return,
    };
    let io = match attached {
        Ok(io) => io,
        Err(error) => {
            tracing::debug!(%error, "a connection did not come about");
            return;
        }
    };
    let ending = CancellationToken::new();
    let activity = Arc::<Activity>::default();
    let (info, identity, ends) = (io.connect_info(), L::identity(&io), Ending(ending.clone()));
    let service = PerConnection { service, info, identity, ending: ends, activity: activity.clone() };
    let turnstile = L::turnstile(&io);
    let (io, outbox) = outbox::gather(io, activity.clone(), turnstile);
    let connection = builder(&options).serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    // Looked at when it has something to say, and not whenever the connection has: that is what the set is for.
    let mut ends = FuturesUnordered::<BoxFuture<'static, End>>::new();
    let grace = options.max_connection_age_grace;
    ends.push(kill.cancelled_owned().map(|()| End::Now).boxed());
    ends.push(activity.clone().ended().map(End::For).boxed());
    ends.push(tokio::time::sleep(BEGINS_WITHIN).map(|()| End::IfSilent).boxed());
    ends.push(drain.cancelled_owned().map(|()| End::WhenDone(None)).boxed());
    if let Some(age) = options.max_connection_age {
        ends.push(tokio::time::sleep(vary(age)).map(move |()| End::WhenDone(grace)).boxed());
    }
    if let Some(idle) = options.max_connection_idle {
        ends.push(activity.clone().idle_for(idle).map(move |()| End::WhenDone(grace)).boxed());
    }
    std::future::poll_fn(|cx| {
        while let Poll::Ready(Some(end)) = ends.poll_next_unpin(cx) {
            match end {
                End::Now => return Poll::Ready(()),
                End::IfSilent if outbox.is_begun() => {}
                End::IfSilent => activity.end(Cause::Silent),
                End::For(cause) => {
                    tracing::warn!(reason = cause.name(), %peer, "ended a connection that does harm");
                    ended_for(cause).increment(1);
                    outbox.end(cause, cx);
                    return Poll::Ready(());
                }
                End::WhenDone(_) if ending.is_cancelled() => {}
                End::WhenDone(grace) => {
                    ending.cancel();
                    outbox.end_soon();
                    connection.as_mut().graceful_shutdown();
                    if let Some(grace) = grace {
                        ends.push(tokio::time::sleep(grace).map(|()| End::Now).boxed());
                    }
                }
            }
        }
        let ended = connection.as_mut().poll(cx);
        if let Poll::Ready(Err(error)) = outbox.poll_send(cx) {
            tracing::debug!(%error, "can't send to a connection");
            return Poll::Ready(());
        }
        ended.map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
            }
        })
    })
    .await;
}

/// Connections that were ended for a cause.
pub(crate) fn ended_for(cause: Cause) -> metrics::Counter {
    metrics::counter!("server_connections_ended_total", "reason" => cause.name())
}

/// How a connection is to end.
enum End {
    /// Dropped.
    Now,
    /// Dropped, and told why.
    For(Cause),
    /// Dropped, if it has not begun to speak.
    IfSilent,
    /// When what is under way is done, or after the grace if there is one.
    WhenDone(Option<Duration>),
}

fn builder(options: &ServeOptions) -> http2::Builder<Inline> {
    let mut builder = http2::Builder::new(Inline);
    builder
        // No caller of gRPC reads it.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_header_list_size(options.max_header_list_size)
        // Calls that are given up in one go while the server is busy; those who do nothing else are found out by their frames.
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.stream_window.saturating_mul(4))
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout);
    builder
}

/// Up to a tenth less or more, so that connections made together don't all end together.
fn vary(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 2_001;
    time.mul_f64(0.9 + random as f64 / 10_000.0)
}

/// The services, with what is known of the peer put into every request.
struct PerConnection<I> {
    service: Instrumented,
    info: I,
    identity: Option<Arc<PeerIdentity>>,
    ending: Ending,
    activity: Arc<Activity>,
}

impl<I: Clone + Send + Sync + 'static> hyper::service::Service<Request<Incoming>> for PerConnection<I> {
    type Response = Response<Measured>;
    type Error = Infallible;
    type Future = Call;

    fn call(&self, mut request: Request<Incoming>) -> Call {
        request.extensions_mut().insert(self.info.clone());
        if let Some(identity) = &self.identity {
            request.extensions_mut().insert(identity.clone());
        }
        request.extensions_mut().insert(self.ending.clone());
        self.service.call(request, Busy::with(&self.activity))
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
