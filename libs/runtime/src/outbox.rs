//! A connection's writes, gathered until its task has nothing more to do.
//!
//! h2 writes every message above a few hundred bytes by itself, and what was answered between two requests too. A system call costs
//! more than an answer: so what it writes is only noted here, and the task that drives the connection sends it all at its end.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::{Activity, Cause};
use crate::frames::Frames;
use crate::turnstile::{Sieve, Turnstile};

/// Bytes of the answer to a ping.
const PONG: usize = 17;
/// What may be held back. What is more is sent at once: the peer has enough to do by then.
const LIMIT: usize = 32 * 1024;
/// What is read at once while calls may be refused.
const AT_ONCE: usize = 16 * 1024;

/// The connection as HTTP/2 sees it. Flushing it does nothing: see [`Outbox::poll_send`].
pub(crate) struct Gathering<I>(Arc<Mutex<Held<I>>>);

/// Sends what was gathered.
pub(crate) struct Outbox<I>(Arc<Mutex<Held<I>>>);

struct Held<I> {
    io: I,
    gathered: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// Whether the connection itself may still hold something back: TLS does, when the socket has no room.
    is_unflushed: bool,
    /// What the peer sends, and who is told when it is too much.
    frames: Frames,
    activity: Arc<Activity>,
    sieve: Option<Sieve>,
    /// Whether HTTP/2 has written all of what it began.
    is_between: bool,
}

/// Both ends of a connection's writes. They belong to one task.
pub(crate) fn gather<I>(
    io: I,
    activity: Arc<Activity>,
    turnstile: Option<Arc<dyn Turnstile>>,
) -> (Gathering<I>, Outbox<I>) {
    let held = Held {
        io,
        gathered: Vec::new(),
        sent: 0,
        is_unflushed: false,
        frames: Frames::new(),
        activity,
        sieve: turnstile.map(Sieve::new),
        is_between: true,
    };
    let held = Arc::new(Mutex::new(held));
    (Gathering(held.clone()), Outbox(held))
}

impl<I: AsyncWrite + Unpin> Outbox<I> {
    /// Sends; to be called after each poll of the connection, by the same task. Pending: the task is woken when there is room.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(cx)
    }

    /// Whether the peer has begun to speak.
    pub(crate) fn is_begun(&self) -> bool {
        self.0.lock().frames.is_begun()
    }

    /// Has every call decoded from now on: the connection is to end.
    pub(crate) fn end_soon(&self) {
        if let Some(sieve) = &mut self.0.lock().sieve {
            sieve.end_soon();
        }
    }

    /// Says as the last word why the connection is ended, if there is room for it.
    pub(crate) fn end(&self, cause: Cause, cx: &mut Context<'_>) {
        let mut held = self.0.lock();
        let word = held.frames.calm_down(cause.name());
        held.gathered.extend_from_slice(&word);
        let _ = held.poll_send(cx);
    }
}

impl<I: AsyncWrite + Unpin> Held<I> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_between
            && let Some(sieve) = &mut self.sieve
        {
            self.gathered.append(&mut sieve.answers);
            if sieve.answers.capacity() > 2 * LIMIT {
                sieve.answers = Vec::new();
            }
        }
        while self.sent < self.gathered.len() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.is_unflushed = true;
        }
        self.gathered.clear();
        self.sent = 0;
        // After one large message: a connection is not to keep that much for good.
        if self.gathered.capacity() > 2 * LIMIT {
            self.gathered = Vec::new();
        }
        if self.is_unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Notes that HTTP/2 writes something.
    fn begin(&mut self, bytes: &[u8]) {
        if self.is_between
            && let Some(sieve) = &mut self.sieve
        {
            sieve.writes(bytes);
        }
        self.is_between = false;
    }

    /// Makes room for something more, by sending what is held if that would be too much with it.
    fn poll_room(&mut self, cx: &mut Context<'_>, more: usize) -> Poll<io::Result<()>> {
        if self.gathered.len() + more > LIMIT { self.poll_send(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Held<I> {
    /// Reads, and looks at what came.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if let Err(cause) = self.frames.read(&buf.filled()[before..]) {
            self.activity.end(cause);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until there is something that goes on to HTTP/2.
    fn poll_sifted(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(sieve) = &mut self.sieve else { return self.poll_read(cx, buf) };
            let passed = sieve.pass(buf.remaining());
            if !passed.is_empty() {
                buf.put_slice(passed);
                return Poll::Ready(Ok(()));
            }
            // Who does not take refusals is not heard until then.
            if self.gathered.len() + sieve.answers.len() > LIMIT {
                ready!(self.poll_send(cx))?;
                if !self.is_between {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let mut space = [MaybeUninit::uninit(); AT_ONCE];
            let mut come = ReadBuf::uninit(&mut space);
            ready!(self.poll_read(cx, &mut come))?;
            let Some(sieve) = &mut self.sieve else { return Poll::Ready(Ok(())) };
            if come.filled().is_empty() {
                sieve.finish();
                buf.put_slice(sieve.pass(buf.remaining()));
                return Poll::Ready(Ok(()));
            }
            sieve.take(come.filled());
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathering<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let held = &mut *self.0.lock();
        let is_sifted = held.sieve.as_mut().is_some_and(|sieve| sieve.is_on(&held.frames));
        if is_sifted { held.poll_sifted(cx, buf) } else { held.poll_read(cx, buf) }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gathering<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut held = self.0.lock();
        ready!(held.poll_room(cx, buf.len()))?;
        if buf.len() > PONG {
            held.frames.sent();
        }
        held.begin(buf);
        held.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.0.lock();
        let more = bufs.iter().map(|buf| buf.len()).sum();
        ready!(held.poll_room(cx, more))?;
        if more > PONG {
            held.frames.sent();
        }
        held.begin(bufs.first().map_or(&[], |buf| &**buf));
        bufs.iter().for_each(|buf| held.gathered.extend_from_slice(buf));
        Poll::Ready(Ok(more))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 flushes when it has nothing left to write.
        self.0.lock().is_between = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.lock();
        ready!(held.poll_send(cx))?;
        Pin::new(&mut held.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn writes_wait_for_the_send_or_for_being_many() {
        let (near, mut far) = tokio::io::duplex(2 * LIMIT);
        let (mut gathering, outbox) = gather(near, Arc::default(), None);
        let mut cx = Context::from_waker(Waker::noop());
        let mut received = vec![0; 4 * LIMIT];
        let mut write = |bytes: &[u8]| {
            let polled = Pin::new(&mut gathering).poll_write(&mut Context::from_waker(Waker::noop()), bytes);
            matches!(polled, Poll::Ready(Ok(n)) if n == bytes.len())
        };
        assert!(write(b"one ") && write(b"two"));
        let mut far_reads = |received: &mut [u8]| {
            let mut buf = ReadBuf::new(received);
            let _ = Pin::new(&mut far).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
            buf.filled().len()
        };
        assert_eq!(far_reads(&mut received), 0);
        assert!(outbox.poll_send(&mut cx).is_ready());
        assert_eq!(far_reads(&mut received), 7);
        assert_eq!(&received[..7], b"one two");

        // A second one that is too much with the first sends the first; with nobody reading, the peer's room ends.
        let large = vec![1; LIMIT];
        assert!(write(&large) && write(&large) && write(&large));
        assert!(!write(&large));
        assert!(outbox.poll_send(&mut cx).is_pending());
        assert_eq!(far_reads(&mut received), 2 * LIMIT);
        assert!(outbox.poll_send(&mut cx).is_ready());
        assert_eq!(far_reads(&mut received), LIMIT);
        drop((gathering, outbox));
        assert_eq!(far.read(&mut received).await.unwrap(), 0);
    }
}
