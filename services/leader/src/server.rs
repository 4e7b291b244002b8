//! The life of a leader: connect to the storage shards, follow their change streams, serve followers, drain.

use std::io;
use std::sync::Arc;

use futures::future::select_all;
use tao_cache::{CacheOptions, MemoryCache};
use tao_model::Clock;
use tao_rpc::{Drain, LinkOptions, STREAMS, ServerLimits, TierGroup, tier_server};
use tao_runtime::{Listener, Readiness, ServeOptions, Shutdown, Workers, health_service, serve, with_reflection};
use tao_stream::Ring;
use tonic::service::Routes;

use crate::config::Config;
use crate::gate::GateLimits;
use crate::log::Log;
use crate::service::LeaderService;
use crate::upstream::Shards;

/// What is served beside health and reflection.
const SERVICES: &[&str] = &["tao.internal.v1.TierService"];

/// Why a leader could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listener.
    #[error("can't serve: {0}")]
    Serve(#[from] io::Error),
    /// The storage shard's address.
    #[error("shard: {0}")]
    Address(#[from] tao_rpc::AddressError),
    /// Server reflection.
    #[error("can't describe the services: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves followers until the shutdown begins and all that is under way is done.
pub async fn run<L: Listener>(
    config: Config,
    clock: Arc<dyn Clock>,
    listener: L,
    workers: &Workers,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let topology = config.topology.clone();
    let limits = GateLimits { running: config.shard_concurrency, ..GateLimits::default() };
    let mut logs = Vec::with_capacity(topology.logs().len());
    let mut gates = Vec::with_capacity(topology.logs().len());
    // Beside the connections of followers.
    let link = LinkOptions { runtimes: workers.handles(), ..config.link };
    for (n, place) in topology.logs().iter().enumerate() {
        let gate = readiness.gate(format!("leader's change stream of log {}", place.id.0));
        gate.not_ready(format!("waiting for a storage shard of log {} at {}", place.id.0, place.servers.join(", ")));
        let servers = TierGroup::new(&place.servers, &link)?;
        let memory = MemoryCache::new(CacheOptions {
            capacity_bytes: config.cache_bytes / topology.logs().len() as u64,
            clock: clock.clone(),
            tier: "leader",
            log: place.id.0,
        });
        let shards = Shards::new(servers, place.id, topology.some_shard(n), limits);
        logs.push(Log::new(place.id, memory, shards, Ring::new(config.stream_bytes)));
        gates.push(gate);
    }
    let limits = ServerLimits { tier: "leader", ..ServerLimits::default() };
    let service = LeaderService::new(topology, logs.clone());
    let routes = Routes::new(tier_server(service, limits, Drain::from(shutdown.token())))
        .add_service(health_service(readiness, SERVICES));
    let routes =
        if config.reflection { with_reflection(routes, tao_proto::FILE_DESCRIPTOR_SET, SERVICES)? } else { routes };
    tracing::info!(tier = "leader", address = %listener.local_addr()?, "listening for gRPC");
    let options = ServeOptions { streams: STREAMS, ..ServeOptions::default() };
    let following = logs.iter().zip(&gates).map(|(log, gate)| Box::pin(log.keep_following(gate)));
    tokio::select! {
        served = serve(listener, workers, routes, options, shutdown) => Ok(served?),
        (never, ..) = select_all(following) => match never {},
    }
}
