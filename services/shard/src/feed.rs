//! The beginning of the change stream (DESIGN section 7): the store's ring, and `change_log` for what lies before it.

use std::sync::Arc;

use futures::stream::BoxStream;
use tao_model::{Error, Position, Result};
use tao_proto::internal;
use tao_store::Store;
use tao_stream::Origin;

/// A stream from where the listener is.
pub async fn stream(
    store: &Arc<dyn Store>,
    request: &internal::SubscribeRequest,
) -> Result<BoxStream<'static, Result<internal::SubscribeResponse>>> {
    let cluster = store.info().cluster;
    if !request.cluster.is_empty() && request.cluster[..] != cluster.0 {
        return Err(Error::invalid("cluster", format!("this storage shard belongs to cluster {cluster}")));
    }
    let origin = Origin::from(request);
    let resumed = if let Origin::After(position) = origin { position } else { Position::ZERO };
    let seen = request.seen.map(Position::from).unwrap_or_default().max(resumed);
    if store.ring().end().is_some_and(|end| seen > end) {
        // Another process has committed it, or it is not there any more: history was undone, and a new epoch begins.
        store.begin_epoch(seen).await?;
    }
    tao_stream::subscribe(store.ring(), store.clone(), origin).await
}
