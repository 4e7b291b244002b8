//! One log, as a leader has it: a cache that its change stream keeps right, and the ring that followers' streams are fed from.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tao_cache::stream::{Observer, follow};
use tao_cache::{CachedReader, MemoryCache};
use tao_model::{ClusterInfo, LogId, Result};
use tao_proto::internal::{self, subscribe_response::Event};
use tao_runtime::Gate as ReadyGate;
use tao_stream::{Piece, Ring};
use tokio::time::sleep;

use crate::upstream::Shards;

/// Between attempts to follow a storage shard's stream.
const RETRY: Duration = Duration::from_millis(100);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    /// Its number.
    pub id: LogId,
    /// Reads through the cache.
    pub reader: Arc<CachedReader<Shards>>,
    /// Its storage shards.
    pub shards: Shards,
    /// What followers' streams are fed from.
    pub ring: Ring,
}

impl Log {
    /// Over an empty cache.
    pub fn new(id: LogId, memory: MemoryCache, shards: Shards, ring: Ring) -> Self {
        Self { id, reader: Arc::new(CachedReader::new(memory, None, shards.clone())), shards, ring }
    }

    /// Follows the change stream of one of the storage shards, and of the next when it breaks, from where this leader is.
    pub async fn keep_following(&self, gate: &ReadyGate) -> Infallible {
        let memory = self.reader.memory();
        let meet = |info: ClusterInfo| {
            self.shards.meet(info)?;
            gate.ready();
            Ok(())
        };
        let mut told = String::new();
        loop {
            let request = internal::SubscribeRequest {
                subscriber: "leader".to_owned(),
                log: self.id.0,
                cluster: self.shards.cluster().map(|id| Bytes::copy_from_slice(&id.0)).unwrap_or_default(),
                seen: Some(memory.newest().into()),
                from: memory.resume_point().map(|at| internal::subscribe_request::From::Resume(at.into())),
            };
            let error = match self.shards.servers().subscribe(self.shards.key(), request).await {
                Ok((events, server)) => {
                    let error = follow(memory, events, self, meet).await;
                    server.broke();
                    told.clear();
                    error
                }
                Err(error) => error,
            };
            // Once for as long as it is the same.
            let why = error.to_string();
            if why != told {
                tracing::warn!(log = self.id.0, %error, "no change stream from a storage shard");
                told.clone_from(&why);
            }
            // Later, what is cached is served on, and the rest fails by itself.
            if memory.resume_point().is_none() {
                let names = self.shards.servers().names();
                gate.not_ready(format!("waiting for a storage shard of log {} at {names}: {why}", self.id.0));
            }
            sleep(RETRY).await;
        }
    }
}

impl Observer for Log {
    fn started(&self, start: &internal::Start, resumed: bool) {
        // Followers' streams go on over a break that this leader's own survived.
        if !resumed || self.ring.end().is_none() {
            self.ring.start(start.clone());
        }
    }

    fn applied(&self, event: internal::SubscribeResponse) -> Result<()> {
        match event.event {
            Some(Event::Changes(changes)) => {
                let piece = Piece::new(changes)?;
                self.ring.push(piece).map_err(|gap| tao_model::Error::Internal { what: gap.to_string() })
            }
            Some(Event::Heartbeat(heartbeat)) => {
                let position = heartbeat.position.unwrap_or_default().into();
                if heartbeat.time_ms > 0 {
                    self.ring.heartbeat(position, heartbeat.time_ms);
                }
                Ok(())
            }
            Some(Event::Start(_)) | None => Ok(()),
        }
    }
}
