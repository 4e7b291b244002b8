//! Ctrl-C: what is under way is finished, and nothing new begun.

use tokio::sync::watch;

/// Whether somebody has asked to stop.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for SIGINT and SIGTERM; the second one ends the process at once.
    pub fn on_signal() -> Self {
        let (ask, stop) = Self::new();
        tokio::spawn(async move {
            if asked().await {
                eprintln!("\nfinishing what is under way; press Ctrl-C again to end at once");
                ask.send_replace(true);
                if asked().await {
                    std::process::exit(130);
                }
            }
            // Nobody can ask any more; dropping the sender would look as if somebody had.
            std::future::pending::<()>().await;
        });
        stop
    }

    /// A stop that is asked for through the sender.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (ask, stop) = watch::channel(false);
        (ask, Self(stop))
    }

    /// Whether it has been asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is asked for.
    pub async fn asked(&self) {
        // An error is a sender that is gone: nobody is there to go on for.
        self.0.clone().wait_for(|asked| *asked).await.ok();
    }
}

/// Waits for a signal; `false` where signals can't be had.
#[cfg(unix)]
async fn asked() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return false;
    };
    tokio::select! {
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    }
}

/// Waits for Ctrl-C; `false` where it can't be had.
#[cfg(not(unix))]
async fn asked() -> bool {
    tokio::signal::ctrl_c().await.is_ok()
}
