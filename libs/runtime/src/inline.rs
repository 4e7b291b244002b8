//! Handlers run where their request was read, and become tasks only when they have to wait.
//!
//! A hit in memory is answered by its first poll: making it a task would allocate, queue and wake for nothing. A handler that waits
//! is polled again as a task, which replaces the waker of its first poll. A handler must not compute for long before it first waits:
//! its whole connection would.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inline;

impl<F> Executor<F> for Inline
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        // Handlers' panics are answered further inside; what else panics must not end the connection, as it would not if this were
        // a task.
        let polled =
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(Waker::noop())).map(drop)));
        match polled {
            Ok(Poll::Ready(())) => {}
            Ok(Poll::Pending) => drop(tokio::spawn(future)),
            Err(_) => tracing::error!("a request's task panicked"),
        }
    }
}
