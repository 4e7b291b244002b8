//! A request's messages as they come in. One that has begun must come to its end in time, and those that have not yet take a share of
//! a budget, from what they say their length is: so neither slow senders nor many large messages at once can fill the memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use metrics::{Counter, counter, gauge};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::codegen::Bytes;

use crate::budget::{Budget, Charge};

/// Bytes of what gRPC puts before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Shorter messages are not charged.
const SMALL: u64 = 64 * 1024;

/// Limits of what comes in. Shared by a server's connections.
#[derive(Debug)]
pub(crate) struct InboundLimits {
    max_message: u64,
    within: Duration,
    unfinished: Budget,
    slow: Counter,
    over: Counter,
    large: Counter,
}

impl InboundLimits {
    pub(crate) fn new(max_message: u64, within: Duration, max_unfinished: u64) -> Self {
        let refused = |reason| {
            let counter = counter!("server_messages_refused_total", "reason" => reason);
            // Shown before there are any.
            counter.increment(0);
            counter
        };
        let unfinished = Budget::new(max_unfinished, gauge!("server_unfinished_messages_bytes"));
        let (slow, over, large) = (refused("slow"), refused("unfinished"), refused("too_large"));
        Self { max_message, within, unfinished, slow, over, large }
    }
}

/// See the module.
pub struct Inbound {
    inner: Incoming,
    limits: Arc<InboundLimits>,
    /// Whether it is one message, which must come with its end.
    is_single: bool,
    progress: Progress,
    /// For the message that is read, if it is large.
    charge: Option<Charge>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// How far the message is that is read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    prefix: [u8; PREFIX],
    filled: usize,
    left: u64,
}

/// What some bytes have brought.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Whether the message that was read before has ended.
    has_ended: bool,
    /// The length of the message that is read now, if it has begun with these bytes.
    begun: Option<u64>,
    /// Whether any of them is compressed.
    is_compressed: bool,
}

impl Progress {
    /// Goes on by some bytes; fails with the length of a message that is longer than `max`.
    fn read(&mut self, mut bytes: &[u8], max: u64) -> Result<Step, u64> {
        let mut step = Step { has_ended: false, begun: None, is_compressed: false };
        loop {
            let skipped = self.left.min(bytes.len() as u64);
            self.left -= skipped;
            bytes = &bytes[skipped as usize..];
            if self.is_between() {
                step = Step { has_ended: true, begun: None, ..step };
            }
            if bytes.is_empty() {
                return Ok(step);
            }
            let taken = (PREFIX - self.filled).min(bytes.len());
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == PREFIX {
                self.filled = 0;
                let [compression, length @ ..] = self.prefix;
                step.is_compressed |= compression != 0;
                self.left = u64::from(u32::from_be_bytes(length));
                if self.left > max {
                    return Err(self.left);
                }
                step.begun = Some(self.left);
            }
        }
    }

    const fn is_between(&self) -> bool {
        self.left == 0 && self.filled == 0
    }
}

impl Inbound {
    pub(crate) fn new(inner: Incoming, limits: Arc<InboundLimits>, is_single: bool) -> Self {
        Self { inner, limits, is_single, progress: Progress::default(), charge: None, timer: None }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let limits = &self.limits;
        let step = self.progress.read(bytes, limits.max_message).map_err(|length| {
            limits.large.increment(1);
            Status::resource_exhausted(format!(
                "the request's message has {length} bytes: at most {} are taken, send less at once",
                limits.max_message
            ))
        })?;
        if step.is_compressed {
            return Err(Status::unimplemented("the request's message is compressed: none are taken that are"));
        }
        if step.has_ended {
            self.charge = None;
            self.timer = None;
        }
        if let Some(length) = step.begun.filter(|length| *length > SMALL) {
            let charge = limits.unfinished.take(length, "large messages are coming in at once");
            self.charge = Some(charge.inspect_err(|_| limits.over.increment(1))?);
        }
        Ok(())
    }

    /// Whether the time for what is not there yet is over.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.progress.is_between() && !self.is_single {
            return Poll::Pending;
        }
        let within = self.limits.within;
        ready!(self.timer.get_or_insert_with(|| Box::pin(sleep(within))).as_mut().poll(cx));
        self.limits.slow.increment(1);
        Poll::Ready(Status::deadline_exceeded(format!(
            "the request's message did not come to its end within {} s",
            within.as_secs_f64()
        )))
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => return this.poll_late(cx).map(|late| Some(Err(late))),
        };
        Poll::Ready(match polled {
            Some(Ok(frame)) => match frame.data_ref().map_or(Ok(()), |data| this.read(data)) {
                Ok(()) => Some(Ok(frame)),
                Err(status) => Some(Err(status)),
            },
            Some(Err(error)) => Some(Err(Status::from_error(Box::new(error)))),
            None if this.progress.is_between() => None,
            None => Some(Err(Status::invalid_argument("the request's message is cut off"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&length.to_be_bytes());
        message.resize(PREFIX + length as usize, 3);
        message
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let all = [message(0), message(3), message(300), message(70_000)].concat();
        for cut in [1, 2, 4, 5, 6, 999, 100_000] {
            let mut progress = Progress::default();
            let steps: Vec<_> = all.chunks(cut).map(|bytes| progress.read(bytes, 70_000).unwrap()).collect();
            assert!(progress.is_between() && steps.last().unwrap().has_ended, "{cut}");
            let begun: Vec<_> = steps.iter().filter_map(|step| step.begun).collect();
            assert_eq!(begun.last(), (cut < 100_000).then_some(&70_000), "{cut}: {begun:?}");
        }
        assert_eq!(Progress::default().read(&message(70_000), 69_999), Err(70_000));
    }
}
