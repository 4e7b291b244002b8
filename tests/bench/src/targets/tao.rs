//! This store: three tiers as three processes, on PostgreSQL or SQLite, with Redis or without.

mod admin;
mod caller;
mod cluster;
mod from;
mod guarded;
mod load;
mod requests;

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tao_client::{BearerToken, Client, ClientOptions, ClientTls};

pub use caller::TaoCaller;
use caller::{Door, Sessions};
pub use cluster::{Cluster, Loaded};
pub use guarded::Guarded;
pub(super) use requests::{NODE, assoc_count, assoc_range, data, got, listed, object_get};

use super::channels::{Channels, Credentials};
use super::lean::Lean;
use crate::graph::Graph;
use crate::target::{Hits, Progress, Role, Setup, Target};

/// How a client talks to the follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// One gRPC call a request, through the generated stubs.
    Unary,
    /// Through the client library: a session for each request in flight.
    Pipelined,
}

/// A way to a cluster. Several may lead to the same one, which is then loaded once.
#[derive(Debug)]
pub struct Tao {
    name: String,
    way: Way,
    connections_a_thread: usize,
    cluster: Arc<Cluster>,
}

impl Tao {
    /// To a running cluster.
    pub fn new(name: &str, way: Way, setup: &Setup, cluster: Arc<Cluster>) -> Self {
        let connections_a_thread = (setup.connections / setup.threads).max(1);
        Self { name: name.to_owned(), way, connections_a_thread, cluster }
    }

    /// A caller over connections each of which comes from an address of this machine, or from any.
    pub async fn caller_from(&self, from: &[Option<IpAddr>]) -> Result<TaoCaller> {
        let address = self.cluster.address();
        let door = match self.way {
            Way::Unary => Door::Lean(Lean::connect_from(address, from).await?),
            Way::Pipelined => Door::Pipelined(from::sessions(address, from)?),
        };
        Ok(TaoCaller::new(door, self.cluster.loaded().context("not loaded")?))
    }

    /// What it leads to.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }
}

impl Target for Tao {
    type Caller = TaoCaller;

    fn name(&self) -> &str {
        &self.name
    }

    async fn load(&self, graph: &Arc<Graph>, progress: Progress<'_>) -> Result<()> {
        self.cluster.load(graph, progress).await
    }

    async fn caller(&self, _: usize) -> Result<TaoCaller> {
        let address = self.cluster.address();
        let door = match self.way {
            Way::Unary => {
                Door::Unary(Channels::connect_as(self.cluster.credentials(), address, self.connections_a_thread).await?)
            }
            Way::Pipelined => pipelined_as(self.cluster.credentials(), address, self.connections_a_thread)?,
        };
        Ok(TaoCaller::new(door, self.cluster.loaded().context("not loaded")?))
    }

    fn processes(&self) -> Vec<(Role, u32)> {
        self.cluster.processes()
    }

    async fn hits(&self) -> Result<Option<Hits>> {
        self.cluster.hits().await.map(Some)
    }
}

/// Through the client library, over so many connections.
pub(super) fn pipelined(address: &str, connections: usize) -> Result<Door> {
    pipelined_as(&Credentials::default(), address, connections)
}

/// The same, of somebody with credentials.
fn pipelined_as(credentials: &Credentials, address: &str, connections: usize) -> Result<Door> {
    let options = client_options(credentials)?;
    let client = |_| Client::connect(address, options.clone());
    Ok(Door::Pipelined(Sessions::new((0..connections).map(client).collect::<Result<_, _>>()?)))
}

/// Without idempotency keys, whose outcomes the store would keep: no baseline has them.
fn client_options(credentials: &Credentials) -> Result<ClientOptions> {
    let tls = credentials.tls.clone().map(ClientTls::load).transpose();
    let tls = tls.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let bearer = credentials.bearer.as_deref().map(BearerToken::text).transpose()?;
    Ok(ClientOptions { generate_keys: false, tls, bearer, ..Default::default() })
}
