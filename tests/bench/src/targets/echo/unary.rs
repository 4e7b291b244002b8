//! One call a request, through the generated stubs.

use std::sync::Arc;

use anyhow::{Result, bail};
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tonic::Code;

use super::Server;
use super::answers::id;
use crate::graph::Graph;
use crate::op::{Op, Outcome};
use crate::target::{Caller, Hits, Progress, Role, Setup, Target};
use crate::targets::answer::counted;
use crate::targets::channels::Channels;
use crate::targets::tao::{assoc_count, assoc_range, got, listed, object_get};

/// The target.
#[derive(Debug)]
pub struct EchoUnary {
    server: Server,
    connections_a_thread: usize,
}

impl EchoUnary {
    /// Starts with [`Target::load`].
    pub fn new(setup: &Setup) -> Self {
        Self { server: Server::default(), connections_a_thread: (setup.connections / setup.threads).max(1) }
    }
}

#[cfg(test)]
impl EchoUnary {
    /// HOST:PORT, once it is loaded.
    pub(in crate::targets) fn address(&self) -> Result<&str> {
        self.server.address()
    }
}

impl Target for EchoUnary {
    type Caller = UnaryCaller;

    fn name(&self) -> &'static str {
        "echo-unary"
    }

    async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        self.server.load(graph)?;
        progress(u64::from(graph.nodes()) + graph.edges());
        Ok(())
    }

    async fn caller(&self, _: usize) -> Result<UnaryCaller> {
        Ok(UnaryCaller { channels: Channels::connect(self.server.address()?, self.connections_a_thread).await? })
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        self.server.pid().map(|pid| (Role::Service, pid)).into_iter().collect()
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        Ok(None)
    }
}

/// A thread's connections.
pub struct UnaryCaller {
    channels: Channels,
}

impl Caller for UnaryCaller {
    async fn run(&self, op: &Op) -> Result<Outcome> {
        let mut graph = GraphServiceClient::new(self.channels.next());
        match *op {
            Op::ObjectGet { id: node } => match graph.object_get(object_get(id(node))).await {
                Ok(answer) => Ok(got(answer.into_inner().object.as_ref())),
                Err(status) if status.code() == Code::NotFound => Ok(Outcome::default()),
                Err(status) => Err(status.into()),
            },
            Op::AssocCount { id1 } => Ok(counted(graph.assoc_count(assoc_count(id(id1))).await?.into_inner().count)),
            Op::AssocRange { id1, limit } => {
                Ok(listed(&graph.assoc_range(assoc_range(id(id1), limit)).await?.into_inner().assocs))
            }
            _ => bail!("the echo answers ObjectGet, AssocCount and AssocRange, not {op:?}"),
        }
    }
}
