//! The task behind a link: connects, reads answers, connects again, to wherever its place is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use metrics::{Counter, counter};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::asking::Asking;
use crate::authorize::Bearer;
use crate::backoff::Backoff;
use crate::client::LinkOptions;
use crate::connect::{channel, whole};
use crate::line::{Line, Requests};
use crate::names::Place;

/// A stream that lived so long was a success: the next attempt to connect does not wait long.
const LIVED: Duration = Duration::from_secs(1);

pub(crate) struct Link<A: Asking> {
    place: Place,
    options: Arc<LinkOptions>,
    line: Arc<Line<A>>,
    /// The client is gone.
    closed: CancellationToken,
    /// Of the last attempt to open a stream.
    number: AtomicU64,
    messages: Counter,
    calls: Counter,
    streams: Counter,
}

/// A stream of answers, and the connection that it needs.
struct Open<A: Asking> {
    number: u64,
    responses: Streaming<A::Response>,
    at: SocketAddr,
    _channel: Channel,
}

/// What became of a stream.
enum Over<A: Asking> {
    /// It ended; or its server asks for no more calls.
    Ended { politely: bool },
    /// The place is elsewhere now, and there is a stream to there.
    Moved(Box<Open<A>>),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unopened {
    /// There was no way to the peer, or it did not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The peer answered that it does not know who asks: calls would hear the same.
    #[error("{why}")]
    Unauthenticated {
        why: String,
        /// What was shown to it.
        bearer: Option<Bearer>,
    },
}

impl From<String> for Unopened {
    fn from(why: String) -> Self {
        Self::Unreachable(why)
    }
}

impl Unopened {
    fn of(status: &Status, bearer: Option<Bearer>) -> Self {
        match status.code() {
            Code::Unauthenticated => Self::Unauthenticated { why: status.message().to_owned(), bearer },
            _ => Self::Unreachable(whole(status)),
        }
    }
}

struct Closing<A: Asking>(Arc<Line<A>>);

impl<A: Asking> Drop for Closing<A> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// An attempt to open a stream. However it comes to nothing, its requests must end, or they would hold their connection.
struct Attempt<'a, A: Asking> {
    line: &'a Line<A>,
    number: u64,
}

impl<A: Asking> Drop for Attempt<'_, A> {
    fn drop(&mut self) {
        self.line.abandoned(self.number);
    }
}

impl<A: Asking> Link<A> {
    pub(crate) fn new(place: Place, options: Arc<LinkOptions>, line: Arc<Line<A>>, closed: CancellationToken) -> Self {
        let count = |what: &str| counter!(format!("{}_{what}_total", A::METRICS), "peer" => line.peer().to_owned());
        let (messages, calls, streams) = (count("messages"), count("calls"), count("streams"));
        Self { place, options, line, closed, number: AtomicU64::new(0), messages, calls, streams }
    }

    /// Runs until the client is gone.
    pub(crate) async fn run(self) {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            self.line.settle(thread::current().id());
        }
        // However this ends, also by the end of its runtime.
        let _closing = Closing(self.line.clone());
        let closed = self.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = self.keep_open() => {}
        }
    }

    async fn keep_open(&self) {
        let mut backoff = Backoff::new();
        let mut moved = None;
        loop {
            let known = self.place.mark();
            let opened = match moved.take() {
                Some(open) => Ok(open),
                None => self.open().await,
            };
            match opened {
                Ok(open) => {
                    let began = Instant::now();
                    match self.read_until_over(open).await {
                        Over::Moved(open) => {
                            moved = Some(*open);
                            backoff.reset();
                            continue;
                        }
                        Over::Ended { politely } if politely || began.elapsed() >= LIVED => backoff.reset(),
                        Over::Ended { .. } => {}
                    }
                }
                Err(why) => {
                    tracing::debug!(peer = self.line.peer(), %why, "can't connect");
                    self.line.failed(why);
                }
            }
            self.place.doubt();
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = Place::changed(known) => backoff.reset(),
                () = self.line.wanted() => backoff.reset(),
            }
        }
    }

    async fn open(&self) -> Result<Open<A>, Unopened> {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let attempt = Attempt { line: &self.line, number };
        let requests = Requests {
            line: self.line.clone(),
            stream: number,
            messages: self.messages.clone(),
            calls: self.calls.clone(),
        };
        let connecting = async {
            let addresses = self.place.addresses().await?;
            let opening = async {
                let (channel, at) = channel(self.place.name(), &addresses, &self.options).await?;
                let bearer = self.options.bearer();
                // No call is sent before the server has accepted the stream: one that it refuses loses none.
                let responses =
                    A::open(channel.clone(), requests, bearer.clone()).await.map_err(|s| Unopened::of(&s, bearer))?;
                Ok::<_, Unopened>(Open { number, responses, at, _channel: channel })
            };
            // An address that the name has lost is not waited for.
            tokio::select! {
                opened = opening => opened,
                () = self.place.left(&addresses) => Err("its name has another address now".to_owned().into()),
            }
        };
        let open = timeout(self.options.connect_timeout, connecting).await;
        let open = open.unwrap_or_else(|_| Err("no answer".to_owned().into()))?;
        std::mem::forget(attempt);
        self.streams.increment(1);
        tracing::debug!(peer = self.line.peer(), at = %open.at, stream = number, "connected");
        self.line.opened(number);
        Ok(open)
    }

    /// Reads answers until the stream breaks or another should take its place; then what is left is read beside it.
    async fn read_until_over(&self, open: Open<A>) -> Over<A> {
        let at = open.at;
        let mut reading = read(self.line.clone(), open);
        let rest = tokio::select! {
            rest = &mut reading => rest,
            // Calls go to the new one first, and only then the old one is let go: it may still be the better.
            open = self.open_elsewhere(at) => {
                tracing::debug!(peer = self.line.peer(), left = %at, at = %open.at, "its name has another address now");
                self.read_beside(async move {
                    if let Some(rest) = reading.await {
                        read_out(rest).await;
                    }
                });
                return Over::Moved(open.into());
            }
        };
        let politely = rest.is_some();
        if let Some(rest) = rest {
            self.read_beside(read_out(rest));
        }
        Over::Ended { politely }
    }

    fn read_beside(&self, reading: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = reading => {}
            }
        });
    }

    /// Ends once the place has another address than `at`, and a stream to there is open.
    async fn open_elsewhere(&self, at: SocketAddr) -> Open<A> {
        let mut backoff = Backoff::new();
        loop {
            self.place.left(&[at]).await;
            match self.open().await {
                Ok(open) => return open,
                Err(why) => {
                    tracing::debug!(peer = self.line.peer(), %why, "can't connect to where its name points now");
                }
            }
            sleep(backoff.next()).await;
        }
    }
}

/// A stream whose server asks for no more calls, and to whom its answers go.
type Rest<A> = (Arc<Line<A>>, Open<A>);

/// Reads answers until the stream ends, or its server asks for no more calls: then the rest is still to be read.
fn read<A: Asking>(line: Arc<Line<A>>, mut open: Open<A>) -> BoxFuture<'static, Option<Rest<A>>> {
    let reading = async move {
        loop {
            let why = match open.responses.message().await {
                Ok(Some(response)) => {
                    let (replies, draining) = A::take(response);
                    line.deliver(replies);
                    if draining {
                        tracing::debug!(peer = line.peer(), stream = open.number, "draining");
                        line.draining(open.number);
                        return Some((line, open));
                    }
                    continue;
                }
                Ok(None) => "the connection was closed".to_owned(),
                Err(status) => describe(&status),
            };
            tracing::debug!(peer = line.peer(), stream = open.number, why, "stream ended");
            line.ended(open.number, &why);
            return None;
        }
    };
    reading.boxed()
}

/// Reads to the end, whatever the server says once more.
async fn read_out<A: Asking>((line, open): Rest<A>) {
    let mut rest = Some((line, open));
    while let Some((line, open)) = rest {
        rest = read(line, open).await;
    }
}

fn describe(status: &Status) -> String {
    format!("the connection broke: {}", whole(status))
}
