//! The life of a storage shard: open, serve, drain, close.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use tao_model::{Clock, Schema};
use tao_rpc::{Drain, STREAMS, ServerLimits, tier_server};
use tao_runtime::{Listener, Readiness, ServeOptions, Shutdown, Workers, health_service, serve, with_reflection};
use tao_store::{OpenError, OpenOptions, open_when_reachable};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;

use crate::config::Config;
use crate::entrance::Entrance;
use crate::intents::Dispatcher;
use crate::service::ShardService;

/// What is served beside health and reflection.
const SERVICES: &[&str] = &["tao.internal.v1.TierService"];

/// Why a storage shard could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database.
    #[error("can't open the store: {0}")]
    Open(#[from] OpenError),
    /// A later version has taken away from the database what this one needs.
    #[error("can't keep the store open: {0}")]
    Outdated(OpenError),
    /// Another storage shard's address.
    #[error("topology: {0}")]
    Address(#[from] tao_rpc::AddressError),
    /// The listener.
    #[error("can't serve: {0}")]
    Serve(#[from] io::Error),
    /// Server reflection.
    #[error("can't describe the services: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Opens the store and serves it until the shutdown begins and all that is under way is done. While its database can't be reached,
/// only health and reflection are served, and the readiness says what is waited for.
pub async fn run<L: Listener>(
    config: Config,
    schema: Arc<Schema>,
    clock: Arc<dyn Clock>,
    listener: L,
    workers: &Workers,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let gate = readiness.gate("store");
    gate.not_ready("opening the store");
    let mut options = OpenOptions::new(config.store, schema, config.layout);
    options.memory = config.memory;
    options.clock = clock.clone();
    options.max_connections = config.store_connections;
    options.cluster = config.topology.cluster();
    options.log = config.log;
    if let Some(shards) = config.topology.index_of(config.log).and_then(|n| config.topology.logs()[n].shards.clone()) {
        options.shards = shards;
    }
    options.ring_bytes = config.stream_bytes;
    options.log_retention = config.log_retention;
    options.new_epoch = config.new_epoch;
    options.server = format!("{} {}", host(), listener.local_addr()?);
    let entrance = Entrance::new(gate.clone());
    let limits = ServerLimits { tier: "shard", ..ServerLimits::default() };
    let routes = Routes::new(tier_server(entrance.clone(), limits, Drain::from(shutdown.token())))
        .add_service(health_service(readiness, SERVICES));
    let routes =
        if config.reflection { with_reflection(routes, tao_proto::FILE_DESCRIPTOR_SET, SERVICES)? } else { routes };
    tracing::info!(tier = "shard", address = %listener.local_addr()?, "listening for gRPC");
    let serve_options = ServeOptions { streams: STREAMS, ..ServeOptions::default() };
    let mut serving = pin!(serve(listener, workers, routes, serve_options, shutdown.clone()));

    let waiting = entrance.clone();
    let opening = open_when_reachable(options, move |why| waiting.closed(why));
    let opening = async {
        // Beside the connections of leaders.
        match workers.handles().first() {
            Some(worker) => Ok(AbortOnDropHandle::new(worker.spawn(opening)).await.map_err(io::Error::other)??),
            None => Ok::<_, RunError>(opening.await?),
        }
    };
    let store = tokio::select! {
        biased;
        // Nothing is waited for any more.
        () = shutdown.wait() => return Ok(serving.await?),
        served = &mut serving => return Ok(served?),
        opened = opening => opened?,
    };
    let intents = Dispatcher::new(store.clone(), config.topology, &config.link)?;
    entrance.open(ShardService::new(store.clone(), intents.clone()));
    let dispatching = intents.start(clock);
    let ended = tokio::select! {
        served = &mut serving => served.map_err(RunError::from),
        error = store.outdated() => {
            tracing::error!(%error, "this storage shard may not go on");
            gate.not_ready(error.to_string());
            Err(RunError::Outdated(error))
        }
    };
    drop(dispatching);
    // Whoever calls meanwhile is refused.
    store.close().await;
    ended
}

/// What the machine, or the pod, is called.
fn host() -> String {
    let name = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.map_or_else(|| "localhost".to_owned(), |name| name.trim().to_owned())
}
