//! The runtimes that connections are spread over: one current-thread runtime a core.
//!
//! On tokio's multi-thread runtime a connection's task runs after every single handler, so each answer becomes a system call of
//! its own; on a current-thread runtime all handlers that can run do, then the connection writes once.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Runtimes for connections. Dropping it ends their threads, and with them whatever still runs there.
#[derive(Debug)]
pub struct Workers {
    /// Empty: everything runs where it is called.
    pool: Vec<Worker>,
    /// Whose turn it is among equals.
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// Dropped with the worker, which ends its thread.
    _stop: oneshot::Sender<()>,
}

/// A place on a worker; its connection counts as long as it is held.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) handle: Handle,
    connections: Option<Arc<AtomicUsize>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(connections) = &self.connections {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Workers {
    /// So many threads (default: one a core), named `{name}-{number}`.
    pub fn new(name: &str, threads: Option<NonZeroUsize>) -> io::Result<Self> {
        let threads = threads.map_or_else(thread::available_parallelism, Ok)?;
        let pool = (0..threads.get()).map(|n| Worker::start(format!("{name}-{n}"))).collect::<io::Result<_>>()?;
        Ok(Self { pool, turn: AtomicUsize::new(0) })
    }

    /// Everything on the runtime that calls: for simulations, and where one thread is enough.
    pub const fn inline() -> Self {
        Self { pool: Vec::new(), turn: AtomicUsize::new(0) }
    }

    /// How many runtimes there are.
    pub fn threads(&self) -> usize {
        self.pool.len().max(1)
    }

    /// Connections on each runtime now; empty when inline.
    pub fn connections(&self) -> Vec<usize> {
        self.pool.iter().map(|w| w.connections.load(Ordering::Relaxed)).collect()
    }

    /// The runtimes, for work that should run beside connections (a client whose callers live there). Empty when inline.
    pub fn handles(&self) -> Vec<Handle> {
        self.pool.iter().map(|w| w.handle.clone()).collect()
    }

    /// The least loaded runtime, by turns among equals.
    pub(crate) fn take_seat(&self) -> Seat {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (ahead, behind) = self.pool.split_at(turn.checked_rem(self.pool.len()).unwrap_or(0));
        match behind.iter().chain(ahead).min_by_key(|w| w.connections.load(Ordering::Relaxed)) {
            None => Seat { handle: Handle::current(), connections: None },
            Some(worker) => {
                worker.connections.fetch_add(1, Ordering::Relaxed);
                Seat { handle: worker.handle.clone(), connections: Some(worker.connections.clone()) }
            }
        }
    }
}

impl Worker {
    fn start(name: String) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name(name).spawn(move || {
            // An error is the sender's end: that is the signal.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, connections: Arc::default(), _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_go_to_the_least_loaded_and_by_turns_among_equals() {
        let workers = Workers::new("test", NonZeroUsize::new(3)).unwrap();
        let first: Vec<_> = (0..3).map(|_| workers.take_seat()).collect();
        assert_eq!(workers.connections(), [1, 1, 1]);
        let mut rest: Vec<_> = (0..3).map(|_| workers.take_seat()).collect();
        assert_eq!(workers.connections(), [2, 2, 2]);
        rest.remove(1);
        drop(first);
        let before = workers.connections();
        let least = before.iter().position(|n| *n == 0).unwrap();
        let _seat = workers.take_seat();
        assert_eq!(workers.connections()[least], 1);
    }
}
