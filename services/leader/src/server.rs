//! The life of a leader: connect to the storage shard, follow its change stream, serve followers, drain.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tao_cache::{CacheOptions, CachedReader, MemoryCache, stream};
use tao_model::{Clock, Error};
use tao_rpc::{Drain, LinkOptions, ServerLimits, TierClient, tier_server};
use tao_runtime::{
    Gate as ReadyGate, Listener, Readiness, ServeOptions, Shutdown, Workers, health_service, serve, with_reflection,
};
use tonic::service::Routes;

use crate::config::Config;
use crate::fanout::Fanout;
use crate::gate::GateLimits;
use crate::service::LeaderService;
use crate::upstream::Shard;

/// Between attempts to follow the storage shard's stream.
const RETRY: Duration = Duration::from_millis(100);

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
    let gate = readiness.gate("leader's change stream");
    gate.not_ready(format!("waiting for the storage shard at {}", config.shard));
    let client = TierClient::new(&config.shard, LinkOptions::default())?;
    let limits = GateLimits { running: config.shard_concurrency, ..GateLimits::default() };
    let shard = Shard::new(client.clone(), limits);
    let memory = MemoryCache::new(CacheOptions { capacity_bytes: config.cache_bytes, clock, tier: "leader" });
    let reader = Arc::new(CachedReader::new(memory, None, shard.clone()));
    let fanout = Fanout::default();
    let service = LeaderService::new(reader.clone(), shard.clone(), fanout.clone());
    let routes = Routes::new(tier_server(service, ServerLimits::default(), Drain::from(shutdown.token())))
        .add_service(health_service(readiness, SERVICES));
    let routes = with_reflection(routes, tao_proto::FILE_DESCRIPTOR_SET, SERVICES)?;
    tracing::info!(tier = "leader", address = %listener.local_addr()?, "listening for gRPC");
    tokio::select! {
        served = serve(listener, workers, routes, ServeOptions::default(), shutdown) => Ok(served?),
        never = keep_following(&client, &reader, &shard, &fanout, &gate) => match never {},
    }
}

async fn keep_following(
    client: &TierClient,
    reader: &CachedReader<Shard>,
    shard: &Shard,
    fanout: &Fanout,
    gate: &ReadyGate,
) -> Infallible {
    let meet = |info| {
        if !shard.meet(info) {
            return Err(Error::Internal {
                what: "the storage shard now belongs to another cluster: restart this leader".to_owned(),
            });
        }
        gate.ready();
        Ok(())
    };
    loop {
        let error = match client.subscribe("leader").await {
            Ok(events) => stream::follow(reader.memory(), events, fanout, meet).await,
            Err(error) => error,
        };
        tracing::warn!(%error, "no change stream from the storage shard");
        gate.not_ready(format!("no change stream from the storage shard: {error}"));
        tokio::time::sleep(RETRY).await;
    }
}
