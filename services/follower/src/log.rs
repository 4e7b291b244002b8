//! One log, as a follower has it: caches that its change stream keeps right.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tao_cache::stream::follow;
use tao_cache::{CachedReader, MemoryCache, RedisCache};
use tao_model::{ClusterInfo, Error, LogId, Result};
use tao_proto::internal::{self, subscribe_request::From};
use tao_runtime::Gate;
use tao_topology::{ClusterMap, Topology};
use tokio::time::sleep;

use crate::upstream::Leaders;

/// Between attempts to follow a leader's stream.
const RETRY: Duration = Duration::from_millis(100);

/// The cluster, once it was met.
#[derive(Clone)]
pub struct Meeting {
    map: Arc<OnceLock<ClusterMap>>,
    topology: Arc<Topology>,
}

impl Meeting {
    /// Nothing is known but the topology.
    pub fn new(topology: Arc<Topology>) -> Self {
        Self { map: Arc::default(), topology }
    }

    /// Where shards live.
    pub fn map(&self) -> Result<&ClusterMap> {
        self.map.get().ok_or_else(|| Error::unavailable("the follower has not met a leader yet"))
    }

    fn meet(&self, info: &ClusterInfo) -> Result<()> {
        let met = ClusterMap::new(info, self.topology.clone()).map_err(|what| Error::Internal { what })?;
        let known = self.map.get_or_init(|| met);
        if known.cluster != info.cluster || known.layout != info.layout {
            let what = "the leader now belongs to another cluster: restart this follower".to_owned();
            return Err(Error::Internal { what });
        }
        Ok(())
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    /// Its number.
    pub id: LogId,
    /// Reads through the caches.
    pub reader: Arc<CachedReader<Leaders>>,
    /// How far back its first stream begins.
    warm_start: Option<Duration>,
}

impl Log {
    /// Over an empty cache, and perhaps a Redis, which may be warm.
    pub fn new(
        id: LogId,
        memory: MemoryCache,
        redis: Option<RedisCache>,
        leaders: Leaders,
        warm_start: Duration,
    ) -> Self {
        let warm_start = redis.is_some().then_some(warm_start);
        Self { id, reader: Arc::new(CachedReader::new(memory, redis, leaders)), warm_start }
    }

    /// Follows the change stream of one of the leaders, and of the next when it breaks, from where this follower is.
    pub async fn keep_following(&self, leaders: &Leaders, meeting: &Meeting, gate: &Gate) -> Infallible {
        let memory = self.reader.memory();
        let meet = |info: ClusterInfo| {
            if info.log != self.id {
                let what = format!("the leader sends log {}, and was asked for log {}", info.log.0, self.id.0);
                return Err(Error::Internal { what });
            }
            meeting.meet(&info)?;
            self.reader.meet(info.cluster);
            gate.ready();
            Ok(())
        };
        let mut told = String::new();
        loop {
            let resume = memory.resume_point().map(|at| From::Resume(at.into()));
            let back = || self.warm_start.map(|back| From::BackMs(back.as_millis() as u64));
            let request = internal::SubscribeRequest {
                subscriber: "follower".to_owned(),
                log: self.id.0,
                cluster: meeting.map().map(|map| Bytes::copy_from_slice(&map.cluster.0)).unwrap_or_default(),
                seen: Some(memory.newest().into()),
                from: resume.or_else(back),
            };
            // Streams of several logs are spread over the leaders.
            let error = match leaders.group().subscribe(u64::from(self.id.0), request).await {
                Ok((events, server)) => {
                    let error = follow(memory, events, &(), meet).await;
                    server.broke();
                    told.clear();
                    error
                }
                Err(error) => error,
            };
            // Once for as long as it is the same.
            let why = error.to_string();
            if why != told {
                tracing::warn!(log = self.id.0, %error, "no change stream from a leader");
                told.clone_from(&why);
            }
            if meeting.map().is_err() {
                gate.not_ready(format!("waiting for a leader at {}: {why}", leaders.group().names()));
            }
            sleep(RETRY).await;
        }
    }
}
