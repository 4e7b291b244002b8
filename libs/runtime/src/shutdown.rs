//! When to stop: by a trigger in code, or by SIGINT and SIGTERM.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Exit code after a second signal, as a shell reports SIGINT.
const EXIT_BY_SIGNAL: i32 = 130;

/// Tells everybody who holds a clone that the process, or a part of it, is to stop. It happens once and stays.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
}

/// Triggers a [`Shutdown`]; dropping it does so too, so that what a test started ends with the test.
#[derive(Debug)]
pub struct ShutdownTrigger {
    guard: DropGuard,
}

impl ShutdownTrigger {
    /// Begins the shutdown.
    pub fn trigger(self) {
        drop(self.guard);
    }
}

impl Shutdown {
    /// A shutdown and its trigger.
    #[allow(clippy::new_ret_no_self)] // the pair is what there is to make
    pub fn new() -> (ShutdownTrigger, Self) {
        let token = CancellationToken::new();
        (ShutdownTrigger { guard: token.clone().drop_guard() }, Self { token })
    }

    /// Begins with the first SIGINT or SIGTERM. A second one ends the process at once, for people who don't want to wait for the
    /// drain. Must be called on a tokio runtime, once a process.
    pub fn on_signal() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let token = CancellationToken::new();
        let shutdown = Self { token: token.clone() };
        tokio::spawn(async move {
            let mut first = true;
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                };
                if !first {
                    tracing::warn!(signal = name, "second signal, exiting at once");
                    std::process::exit(EXIT_BY_SIGNAL);
                }
                first = false;
                tracing::info!(signal = name, "shutting down; a second signal exits at once");
                token.cancel();
            }
        });
        Ok(shutdown)
    }

    /// A shutdown that begins when this one does, or when its own trigger is pulled.
    pub fn child(&self) -> (ShutdownTrigger, Self) {
        let token = self.token.child_token();
        (ShutdownTrigger { guard: token.clone().drop_guard() }, Self { token })
    }

    /// Ends when the shutdown begins.
    pub fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        self.token.clone().cancelled_owned()
    }

    /// Whether it has begun.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// The same event, for code that doesn't know this crate.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way_round() {
        let (trigger, parent) = Shutdown::new();
        let (own, early) = parent.child();
        let (_kept, late) = parent.child();
        own.trigger();
        early.wait().await;
        assert!(!parent.is_triggered() && !late.is_triggered());
        trigger.trigger();
        late.wait().await;
        assert!(parent.is_triggered());
    }
}
