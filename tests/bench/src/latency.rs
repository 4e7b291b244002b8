//! One caller, one call at a time: what a read of 50 edges takes when no cache has the list, and when the follower has it.

use std::time::Instant;

use anyhow::Result;
use tao_proto::v1::AssocRangeRequest;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tonic::transport::Endpoint;

/// Lists that are read at the most.
const LISTS: usize = 500;

/// Medians, in microseconds.
pub struct Reads {
    /// Through all tiers to the store.
    pub cold_us: f64,
    /// From the follower's memory.
    pub warm_us: f64,
}

/// Reads each list once, then once more.
pub async fn cold_and_warm(address: &str, objects: &[i64], atype: &str) -> Result<Reads> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
    let mut graph = GraphServiceClient::new(channel);
    let lists = &objects[..objects.len().min(LISTS)];
    let mut pass = async || -> Result<f64> {
        let mut times = Vec::with_capacity(lists.len());
        for id1 in lists {
            let request = AssocRangeRequest { id1: *id1, r#type: atype.to_owned(), limit: 50, ..Default::default() };
            let begun = Instant::now();
            graph.assoc_range(request).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
    };
    Ok(Reads { cold_us: pass().await?, warm_us: pass().await? })
}
