//! Readiness: completed by background work, gate by gate.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::shutdown::Shutdown;

/// Why a process is not ready; `None` for what is.
type Gates = BTreeMap<String, Option<String>>;

/// The gates, and whether the process is on its way out.
#[derive(Debug, Default)]
pub(crate) struct State {
    gates: Gates,
    pub(crate) closing: bool,
}

impl State {
    /// Whether every gate is open and the process stays.
    pub(crate) fn is_ready(&self) -> bool {
        !self.closing && self.gates.values().all(Option::is_none)
    }
}

/// Whether a server should be sent requests: when every [`Gate`] is ready and no shutdown has begun. Without gates it is.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

/// One condition of readiness. It begins as not ready.
#[derive(Debug, Clone)]
pub struct Gate {
    name: String,
    state: Arc<watch::Sender<State>>,
}

impl Readiness {
    /// Without gates: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, not ready yet. A second gate of the same name is the same condition.
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let gate = Gate { name: name.into(), state: self.state.clone() };
        self.state.send_modify(|s| {
            s.gates.entry(gate.name.clone()).or_insert_with(|| Some("starting".to_owned()));
        });
        gate
    }

    /// Whether all is ready, and every gate that is not, by name, with its reason.
    pub fn report(&self) -> (bool, Vec<(String, String)>) {
        let state = self.state.borrow();
        let closing = state.closing.then(|| ("shutdown".to_owned(), "shutting down".to_owned()));
        let gates = state.gates.iter().filter_map(|(name, why)| Some((name.clone(), why.clone()?)));
        (state.is_ready(), closing.into_iter().chain(gates).collect())
    }

    /// Ends when all is ready.
    pub async fn wait_ready(&self) {
        // The sender lives as long as `self`, so waiting can't fail.
        let _ = self.state.subscribe().wait_for(State::is_ready).await;
    }

    /// For good: not ready any more, so that balancers turn away before the listener closes.
    pub fn close(&self) {
        self.state.send_modify(|s| s.closing = true);
    }

    /// Closes when the shutdown begins. Must be called on a tokio runtime.
    pub fn close_on(&self, shutdown: &Shutdown) {
        let begun = shutdown.wait();
        let readiness = self.clone();
        tokio::spawn(async move {
            begun.await;
            readiness.close();
        });
    }

    /// Follows the state; ends with the last handle.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
}

impl Gate {
    /// The condition holds.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The condition does not hold, for a reason that an operator can read.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, why: Option<String>) {
        self.state.send_if_modified(|s| {
            let gate = s.gates.entry(self.name.clone()).or_default();
            let changed = *gate != why;
            if changed {
                match &why {
                    None => tracing::info!(gate = self.name, "ready"),
                    Some(reason) => tracing::warn!(gate = self.name, reason, "not ready"),
                }
                *gate = why;
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_gates_must_be_ready_and_a_shutdown_closes_for_good() {
        let readiness = Readiness::new();
        assert!(readiness.report().0);
        let (store, stream) = (readiness.gate("store"), readiness.gate("stream"));
        store.ready();
        stream.not_ready("no leader");
        assert_eq!(readiness.report(), (false, vec![("stream".to_owned(), "no leader".to_owned())]));
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait_ready().await }
        });
        stream.ready();
        waiting.await.unwrap();
        let (trigger, shutdown) = Shutdown::new();
        readiness.close_on(&shutdown);
        let mut watch = readiness.watch();
        trigger.trigger();
        watch.wait_for(|s| s.closing).await.unwrap();
        assert_eq!(readiness.report(), (false, vec![("shutdown".to_owned(), "shutting down".to_owned())]));
    }
}
