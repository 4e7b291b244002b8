//! The life of a follower: connect to the leaders, follow their change streams, serve clients, drain.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use tao_cache::{CacheOptions, MemoryCache, RedisCache, RedisError};
use tao_model::limits::MAX_REQUEST;
use tao_model::{Clock, Schema};
use tao_proto::server::graph_service_server::GraphServiceServer;
use tao_rpc::{LinkOptions, TierGroup};
use tao_runtime::{
    Door, Listener, Readiness, ServeOptions, Shutdown, Workers, health_service, serve, with_guarded_reflection,
};
use tonic::service::Routes;

use crate::admission::{Admission, Admitted};
use crate::audit::Auditor;
use crate::config::Config;
use crate::execute::Executor;
use crate::guards::{guard_operators, known, wait_for_keys};
use crate::log::{Log, Meeting};
use crate::peers::Peers;
use crate::service::Graph;
use crate::upstream::Leaders;
use crate::watch::Watches;

/// How long what is under way on a connection that is to end may go on.
const CONNECTION_GRACE: Duration = Duration::from_secs(60);

/// Bytes that a pipeline puts around a request of the largest size: its number, tokens, cancels.
const AROUND_A_REQUEST: usize = 64 * 1024;

/// Bytes of large messages that come in, and of large answers that go out, all connections together.
const MAX_HELD: u64 = 256 << 20;

/// What comes by these is traced and timed, not they.
const STREAMS: &[&str] = &["/tao.v1.GraphService/Pipeline", "/tao.v1.GraphService/Watch"];

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
    let topology = config.topology.clone();
    let gate = readiness.gate("follower's change stream");
    gate.not_ready(format!("waiting for a leader at {}", topology.leaders().join(", ")));
    // Beside the connections of clients.
    let link = LinkOptions { runtimes: workers.handles(), ..config.link };
    let leaders = Leaders::new(TierGroup::new(topology.leaders(), &link)?);
    let mut logs = Vec::with_capacity(topology.logs().len());
    for place in topology.logs() {
        let redis = config.redis.as_deref().map(|url| RedisCache::connect(url, &workers.handles())).transpose()?;
        let redis = redis.map(|redis| redis.of_schema(schema.fingerprint()));
        let memory = MemoryCache::new(CacheOptions {
            capacity_bytes: config.cache_bytes / topology.logs().len() as u64,
            clock: clock.clone(),
            tier: "follower",
            log: place.id.0,
        });
        logs.push(Log::new(place.id, memory, redis, leaders.clone(), config.warm_start));
    }
    let meeting = Meeting::new(topology.clone());
    let admission = Arc::new(Admission::new(config.limits));
    let executor = Executor {
        logs: logs.clone().into(),
        leaders: leaders.clone(),
        schema,
        logs_writes: config.logs_writes,
        topology,
        meeting: meeting.clone(),
        admission: admission.clone(),
    };
    let auditor = Auditor::new(logs.clone(), meeting.clone());
    auditor.clone().answer_operators(&config.admin);
    guard_operators(&config.access, &config.admin);
    let _following_rules = config.access.follow();
    let keys = wait_for_keys(config.access.clone(), &readiness);
    let graph = GraphServiceServer::new(Graph::new(executor, config.access.clone(), Watches::new(config.max_watches)))
        .max_decoding_message_size(MAX_REQUEST + AROUND_A_REQUEST);
    let graph = Admitted::new(graph, admission.clone(), config.access.clone());
    let routes = Routes::new(health_service(readiness, SERVICES));
    let routes = if config.reflection {
        with_guarded_reflection(routes, tao_proto::FILE_DESCRIPTOR_SET, SERVICES, known(config.access.clone()))?
    } else {
        routes
    };
    let door = Door::from(routes).direct(graph);
    tracing::info!(tier = "follower", address = %listener.local_addr()?, "listening for gRPC");
    let options = ServeOptions {
        max_connections: config.max_connections,
        max_connections_per_address: config.max_connections_per_address,
        max_concurrent_streams: config.max_concurrent_streams,
        max_message_size: (MAX_REQUEST + AROUND_A_REQUEST) as u64,
        message_timeout: config.message_timeout,
        max_unfinished_messages: MAX_HELD,
        max_untaken_answers: MAX_HELD,
        max_connection_age: config.max_connection_age,
        max_connection_idle: config.max_connection_idle,
        streams: STREAMS,
        max_connection_age_grace: Some(CONNECTION_GRACE),
        ..ServeOptions::default()
    };
    let following = logs.iter().map(|log| Box::pin(log.keep_following(&leaders, &meeting, &gate)));
    tokio::select! {
        served = serve(Peers { listener, admission: admission.clone() }, workers, door, options, shutdown) => Ok(served?),
        (never, ..) = select_all(following) => match never {},
        never = keys => match never {},
        never = auditor.keep_auditing(config.audit_per_second) => match never {},
        never = admission.keep_governing(workers.handles()) => match never {},
    }
}
