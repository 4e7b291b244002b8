//! The task behind a link: connects, reads answers, connects again.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::Uri;
use metrics::{Counter, counter};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::asking::Asking;
use crate::backoff::Backoff;
use crate::client::LinkOptions;
use crate::connect::{channel, whole};
use crate::line::{Line, Requests};

/// A stream that lived so long was a success: the next attempt to connect does not wait long.
const LIVED: Duration = Duration::from_secs(1);

pub(crate) struct Link<A: Asking> {
    pub(crate) address: Uri,
    pub(crate) options: Arc<LinkOptions>,
    pub(crate) line: Arc<Line<A>>,
    /// The client is gone.
    pub(crate) closed: CancellationToken,
    messages: Counter,
    calls: Counter,
    streams: Counter,
}

/// A stream of answers, and the connection that it needs.
struct Open<A: Asking> {
    number: u64,
    responses: Streaming<A::Response>,
    _channel: Channel,
}

struct Closing<A: Asking>(Arc<Line<A>>);

impl<A: Asking> Drop for Closing<A> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<A: Asking> Link<A> {
    pub(crate) fn new(address: Uri, options: Arc<LinkOptions>, line: Arc<Line<A>>, closed: CancellationToken) -> Self {
        let count = |what: &str| counter!(format!("{}_{what}_total", A::METRICS), "peer" => line.peer().to_owned());
        let (messages, calls, streams) = (count("messages"), count("calls"), count("streams"));
        Self { address, options, line, closed, messages, calls, streams }
    }

    /// Runs until the client is gone.
    pub(crate) async fn run(self) {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            self.line.settle(thread::current().id());
        }
        let mut backoff = Backoff::new();
        let mut number = 0;
        let closed = self.closed.clone();
        // However this ends, also by the end of its runtime.
        let _closing = Closing(self.line.clone());
        let running = async {
            loop {
                number += 1;
                match self.open(number).await {
                    Ok(open) => {
                        let began = Instant::now();
                        let was_drained = self.read_until_replaced(open).await;
                        if was_drained || began.elapsed() >= LIVED {
                            backoff.reset();
                        }
                    }
                    Err(why) => {
                        tracing::debug!(peer = self.line.peer(), why, "can't connect");
                        self.line.failed(number, why);
                    }
                }
                sleep(backoff.next()).await;
            }
        };
        tokio::select! {
            () = closed.cancelled() => {}
            () = running => {}
        }
    }

    async fn open(&self, number: u64) -> Result<Open<A>, String> {
        let requests = Requests {
            line: self.line.clone(),
            stream: number,
            messages: self.messages.clone(),
            calls: self.calls.clone(),
        };
        let connecting = async {
            let channel = channel(&self.address, &self.options).await?;
            // No call is sent before the server has accepted the stream: one that it refuses loses none.
            let responses = A::open(channel.clone(), requests).await.map_err(|s| whole(&s))?;
            Ok::<_, String>(Open { number, responses, _channel: channel })
        };
        let open = timeout(self.options.connect_timeout, connecting).await.map_err(|_| "no answer".to_owned())??;
        self.streams.increment(1);
        tracing::debug!(peer = self.line.peer(), stream = number, "connected");
        self.line.opened(number);
        Ok(open)
    }

    /// Reads answers until the stream breaks or another should take its place (`true`); then what is left is read beside it.
    async fn read_until_replaced(&self, open: Open<A>) -> bool {
        let mut draining = read(&self.line, open).await;
        let is_draining = draining.is_some();
        if is_draining {
            let (line, closed) = (self.line.clone(), self.closed.clone());
            tokio::spawn(async move {
                let reading = async {
                    while let Some(open) = draining.take() {
                        draining = read(&line, open).await;
                    }
                };
                tokio::select! {
                    () = closed.cancelled() => {}
                    () = reading => {}
                }
            });
        }
        is_draining
    }
}

/// Reads answers until the stream ends, or its server asks for no more calls: then the rest is still to be read.
async fn read<A: Asking>(line: &Line<A>, mut open: Open<A>) -> Option<Open<A>> {
    loop {
        let why = match open.responses.message().await {
            Ok(Some(response)) => {
                let (replies, draining) = A::take(response);
                line.deliver(replies);
                if draining {
                    tracing::debug!(peer = line.peer(), stream = open.number, "draining");
                    line.draining(open.number);
                    return Some(open);
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
}

fn describe(status: &Status) -> String {
    format!("the connection broke: {}", whole(status))
}
