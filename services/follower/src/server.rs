//! The life of a follower: connect to the leader, follow its change stream, serve clients, drain.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tao_cache::{CacheOptions, CachedReader, MemoryCache, RedisCache, RedisError, stream};
use tao_model::limits::MAX_REQUEST;
use tao_model::{Clock, ClusterInfo, Error, Schema};
use tao_proto::server::graph_service_server::GraphServiceServer;
use tao_rpc::{LinkOptions, TierClient};
use tao_runtime::{Gate, Listener, Readiness, ServeOptions, Shutdown, Workers, health_service, serve, with_reflection};
use tonic::service::Routes;

use crate::config::Config;
use crate::execute::Executor;
use crate::service::Graph;
use crate::upstream::Leader;

/// Between attempts to follow the leader's stream.
const RETRY: Duration = Duration::from_millis(100);
/// After this a client's connection is ended politely, so that load spreads over followers that came later.
const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);

/// What is served beside health and reflection.
const SERVICES: &[&str] = &["tao.v1.GraphService"];

/// Why a follower could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listener.
    #[error("can't serve: {0}")]
    Serve(#[from] io::Error),
    /// The leader's address.
    #[error("leader: {0}")]
    Address(#[from] tao_rpc::AddressError),
    /// The address of Redis.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// Server reflection.
    #[error("can't describe the services: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves clients until the shutdown begins and all that is under way is done.
pub async fn run<L: Listener>(
    config: Config,
    schema: Arc<Schema>,
    clock: Arc<dyn Clock>,
    listener: L,
    workers: &Workers,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let gate = readiness.gate("follower's change stream");
    gate.not_ready(format!("waiting for the leader at {}", config.leader));
    let client = TierClient::new(&config.leader, LinkOptions::default())?;
    let leader = Leader::new(client.clone());
    let redis = config.redis.as_deref().map(RedisCache::connect).transpose()?;
    let redis = redis.map(|redis| redis.of_schema(schema.fingerprint()));
    let memory = MemoryCache::new(CacheOptions { capacity_bytes: config.cache_bytes, clock, tier: "follower" });
    let reader = Arc::new(CachedReader::new(memory, redis, leader.clone()));
    let info: Arc<OnceLock<ClusterInfo>> = Arc::default();
    let executor = Executor { reader: reader.clone(), leader, schema, info: info.clone() };
    let graph = GraphServiceServer::new(Graph::new(executor)).max_decoding_message_size(MAX_REQUEST);
    let routes = Routes::new(graph).add_service(health_service(readiness, SERVICES));
    let routes = with_reflection(routes, tao_proto::FILE_DESCRIPTOR_SET, SERVICES)?;
    tracing::info!(tier = "follower", address = %listener.local_addr()?, "listening for gRPC");
    let options = ServeOptions {
        max_connection_age: Some(CONNECTION_AGE),
        max_connection_age_grace: Some(Duration::from_secs(60)),
        ..ServeOptions::default()
    };
    tokio::select! {
        served = serve(listener, workers, routes, options, shutdown) => Ok(served?),
        never = keep_following(&client, &reader, &info, &gate) => match never {},
    }
}

async fn keep_following(
    client: &TierClient,
    reader: &CachedReader<Leader>,
    info: &OnceLock<ClusterInfo>,
    gate: &Gate,
) -> Infallible {
    let meet = |met: ClusterInfo| {
        if *info.get_or_init(|| met) != met {
            return Err(Error::Internal {
                what: "the leader now belongs to another cluster: restart this follower".to_owned(),
            });
        }
        reader.meet(met.cluster);
        gate.ready();
        Ok(())
    };
    loop {
        let error = match client.subscribe("follower").await {
            Ok(events) => stream::follow(reader.memory(), events, &(), meet).await,
            Err(error) => error,
        };
        tracing::warn!(%error, "no change stream from the leader");
        if info.get().is_none() {
            gate.not_ready(format!("no change stream from the leader: {error}"));
        }
        tokio::time::sleep(RETRY).await;
    }
}
