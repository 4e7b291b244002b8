//! A gRPC server over [`Workers`]: accept, hand out, drain.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity::Cause;
use crate::connection::{self, ended_for};
use crate::door::Door;
use crate::layer::Instrumented;
use crate::listener::Listener;
use crate::peers::Peers;
use crate::shutdown::Shutdown;
use crate::workers::Workers;

/// How long to wait before the next `accept` when one failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long dropped connections get to be gone.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// Limits and times of a server's connections.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// More connections than this at once are closed as soon as they are accepted.
    pub max_connections: usize,
    /// Of those, from one address.
    pub max_connections_per_address: usize,
    /// Requests and streams at once on one connection.
    pub max_concurrent_streams: u32,
    /// Bytes of a request's message; of a stream's messages, each.
    pub max_message_size: u64,
    /// From when a message begins to its end; a call of one message begins with its headers.
    pub message_timeout: Duration,
    /// Bytes of large messages that have not come to their end, all connections together.
    pub max_unfinished_messages: u64,
    /// Bytes of large answers that were not taken yet, all connections together.
    pub max_untaken_answers: u64,
    /// A connection that leaves a large answer for so long is ended.
    pub answer_timeout: Duration,
    /// Bytes of a request's headers, as HTTP/2 counts them (32 more for each).
    pub max_header_list_size: u32,
    /// Bytes that may be on their way to one stream; a connection gets four times as many.
    pub stream_window: u32,
    /// How often an idle connection's peer is asked whether it lives; `None`: never.
    pub keepalive_interval: Option<Duration>,
    /// How long the peer has to answer.
    pub keepalive_timeout: Duration,
    /// After this (a tenth less, to a tenth more) a connection takes no new requests, so that its client connects again and load
    /// spreads; `None`: never. Streams that are to last (tier to tier) end with the grace: leave it unset for those.
    pub max_connection_age: Option<Duration>,
    /// A connection without a request for so long, up to a quarter more, is ended in the same way; `None`: never. A stream is a request
    /// for as long as it is open, so those that are to last keep their connections.
    pub max_connection_idle: Option<Duration>,
    /// How long requests may go on after either; `None`: as long as they like.
    pub max_connection_age_grace: Option<Duration>,
    /// Paths (`/SERVICE/METHOD`) of calls that go on and on: they have no span and are never slow, but what comes by them may.
    pub streams: &'static [&'static str],
    /// How long requests may go on after the shutdown began.
    pub drain_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: usize::MAX,
            max_concurrent_streams: 1_000,
            max_message_size: u64::MAX,
            message_timeout: Duration::from_secs(30),
            max_unfinished_messages: u64::MAX,
            max_untaken_answers: u64::MAX,
            answer_timeout: Duration::from_secs(60),
            max_header_list_size: 32 * 1024,
            stream_window: 1024 * 1024,
            keepalive_interval: Some(Duration::from_secs(20)),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: None,
            max_connection_idle: None,
            max_connection_age_grace: None,
            streams: &[],
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Serves until the shutdown begins; then stops accepting, lets what is under way finish, and drops what is left at the drain
/// deadline. Returns when all connections are gone; fails when the listener itself breaks. Dropping the future drops the connections.
/// The metrics recorder, if there is to be one, must have been installed before.
pub async fn serve<L: Listener>(
    mut listener: L,
    workers: &Workers,
    services: impl Into<Door>,
    options: ServeOptions,
    shutdown: Shutdown,
) -> io::Result<()> {
    let service = Instrumented::new(services.into(), &options);
    let connections = TaskTracker::new();
    let kill = CancellationToken::new();
    let _dropped_with_the_server = kill.clone().drop_guard();
    let gauge = metrics::gauge!("server_connections");
    let refused = metrics::counter!("server_connections_refused_total");
    let peers = Peers::default();
    // Shown before there are any.
    refused.increment(0);
    Cause::ALL.into_iter().for_each(|cause| ended_for(cause).increment(0));
    let mut begun = pin!(shutdown.wait());
    let broken = loop {
        let accepted = tokio::select! {
            biased;
            () = &mut begun => break None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if connections.len() >= options.max_connections => {
                refused.increment(1);
                tracing::warn!(limit = options.max_connections, "too many connections, refused one");
            }
            Ok(conn) => {
                let Some(peer) = peers.admit(L::peer(&conn), options.max_connections_per_address) else {
                    refused.increment(1);
                    let (limit, peer) = (options.max_connections_per_address, L::peer(&conn));
                    tracing::warn!(limit, ?peer, "too many connections from one address, refused one");
                    continue;
                };
                let seat = workers.take_seat();
                let handle = seat.handle.clone();
                let drive = connection::drive::<L>(
                    conn,
                    peer,
                    service.clone(),
                    options.clone(),
                    shutdown.token(),
                    kill.clone(),
                );
                let gauge = gauge.clone();
                handle.spawn(connections.track_future(async move {
                    gauge.increment(1);
                    drive.await;
                    gauge.decrement(1);
                    drop(seat);
                }));
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection broke before it was accepted");
            }
            Err(error) if is_of_the_listener(&error) => break Some(error),
            Err(error) => {
                tracing::warn!(%error, "can't accept connections");
                tokio::select! {
                    () = &mut begun => break None,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    };
    drop(listener);
    if let Some(error) = broken {
        return Err(error);
    }
    connections.close();
    if tokio::time::timeout(options.drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "drain deadline passed, dropping connections");
        kill.cancel();
        if tokio::time::timeout(DROP_TIMEOUT, connections.wait()).await.is_err() {
            tracing::error!(connections = connections.len(), "a worker does not let go of its connections");
        }
    }
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn is_of_the_listener(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe)
}
