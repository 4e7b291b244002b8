//! Many calls over one stream, through the client library: the same client as ours has, and a server that does nothing.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};

use super::Server;
use super::answers::id;
use crate::graph::Graph;
use crate::target::{Hits, Progress, Role, Setup, Target};
use crate::targets::tao::{Loaded, TaoCaller, pipelined};

/// The target.
#[derive(Debug)]
pub struct EchoStreams {
    server: Server,
    loaded: OnceLock<Arc<Loaded>>,
    connections_a_thread: usize,
}

impl EchoStreams {
    /// Starts with [`Target::load`].
    pub fn new(setup: &Setup) -> Self {
        let connections_a_thread = (setup.connections / setup.threads).max(1);
        Self { server: Server::default(), loaded: OnceLock::new(), connections_a_thread }
    }
}

impl Target for EchoStreams {
    type Caller = TaoCaller;

    fn name(&self) -> &'static str {
        "echo-pipelined"
    }

    async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        self.server.load(graph)?;
        let loaded = Loaded { graph: graph.clone(), ids: (0..graph.nodes()).map(id).collect() };
        self.loaded.set(Arc::new(loaded)).ok().context("loaded twice")?;
        progress(u64::from(graph.nodes()) + graph.edges());
        Ok(())
    }

    async fn caller(&self, _: usize) -> Result<TaoCaller> {
        let door = pipelined(self.server.address()?, self.connections_a_thread)?;
        Ok(TaoCaller::new(door, self.loaded.get().context("not loaded")?.clone()))
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        self.server.pid().map(|pid| (Role::Service, pid)).into_iter().collect()
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        Ok(None)
    }
}
