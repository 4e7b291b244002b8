//! Where leaders come in. It is there before the store is, so that health can be asked for and callers hear why they have to wait.

use std::sync::{Arc, OnceLock};

use futures::stream::BoxStream;
use parking_lot::Mutex;
use tao_model::{Error, Result};
use tao_proto::internal;
use tao_rpc::{CallContext, Op, TierHandler, TierReply};
use tao_runtime::Gate;

use crate::service::ShardService;

/// Closed until there is a service to lead to; then open for good.
#[derive(Clone)]
pub struct Entrance {
    service: Arc<OnceLock<ShardService>>,
    why: Arc<Mutex<String>>,
    gate: Gate,
}

impl Entrance {
    /// Closed; the gate follows.
    pub fn new(gate: Gate) -> Self {
        let entrance = Self { service: Arc::default(), why: Arc::default(), gate };
        entrance.closed("opening the store".to_owned());
        entrance
    }

    /// Says why it is still closed.
    pub fn closed(&self, why: String) {
        self.gate.not_ready(why.as_str());
        *self.why.lock() = why;
    }

    /// Lets callers in.
    pub fn open(&self, service: ShardService) {
        // Opened once, by whoever has opened the store.
        let _ = self.service.set(service);
        self.gate.ready();
    }

    fn service(&self) -> Result<&ShardService> {
        self.service.get().ok_or_else(|| Error::unavailable(format!("the storage shard is {}", self.why.lock())))
    }
}

impl TierHandler for Entrance {
    fn admit(&self) -> Result<()> {
        self.service().map(drop)
    }

    async fn call(&self, context: CallContext, op: Op) -> Result<TierReply> {
        self.service()?.call(context, op).await
    }

    async fn subscribe(
        &self,
        request: internal::SubscribeRequest,
    ) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
        self.service()?.subscribe(request).await
    }
}
