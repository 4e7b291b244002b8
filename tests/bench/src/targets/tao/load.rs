//! Fills a cluster with a graph, through its client API, in large batches side by side.

use anyhow::{Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::time::Duration;
use tao_client::v1::batch_item::Call;
use tao_client::v1::batch_result::Result as Answer;
use tao_client::v1::{AllocateIdsRequest, BatchItem, BatchRequest};
use tao_client::{Client, ClientOptions, Session};

use super::requests;
use crate::graph::Graph;
use crate::op::AType;
use crate::target::Progress;
use crate::targets::channels::Credentials;

/// Calls under way at once.
const SIDE_BY_SIDE: usize = 16;
/// Calls of one batch, and the payload bytes in it: an answer has them too, and no answer exceeds 3 MiB.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
/// Ids of one AllocateIds, which are all on one shard: few enough to spread the nodes, many enough to be quick.
const IDS: (usize, usize) = (16, 1_000);
/// Runs of ids that the nodes of a large graph are spread over.
const RUNS: usize = 8_192;
/// Of one batch, when others are before it.
const DEADLINE: Duration = Duration::from_secs(120);
/// Before items that were refused for now are sent again.
const PAUSE: Duration = Duration::from_millis(20);

/// Returns the nodes' ids.
pub async fn load(credentials: &Credentials, address: &str, graph: &Graph, progress: Progress<'_>) -> Result<Vec<i64>> {
    let options = ClientOptions { deadline: DEADLINE, ..super::client_options(credentials)? };
    let client = Client::connect(address, options)?;
    let ids = allocate(&client, graph.nodes() as usize).await?;
    let mut done = 0;
    let objects = (0..graph.nodes()).map(|node| {
        let payload = graph.payload(graph.object(node));
        (Call::ObjectAdd(requests::object_add(ids[node as usize], payload)), payload.len())
    });
    let edges =
        (0..graph.nodes()).flat_map(|node| graph.list(node).map(move |edge| (node, edge))).map(|(node, edge)| {
            let payload = graph.payload(edge.payload);
            let ends = (ids[node as usize], ids[edge.id2 as usize]);
            (Call::AssocAdd(requests::assoc_add(ends, AType::Link, edge.time, payload)), payload.len())
        });
    for calls in [&mut Batches::new(objects) as &mut dyn Iterator<Item = Vec<Call>>, &mut Batches::new(edges)] {
        let mut written =
            stream::iter(calls).map(|batch| write(client.session(), batch)).buffer_unordered(SIDE_BY_SIDE);
        while let Some(calls) = written.try_next().await? {
            done += calls as u64;
            progress(done);
        }
    }
    Ok(ids)
}

async fn allocate(client: &Client, nodes: usize) -> Result<Vec<i64>> {
    let run = (nodes / RUNS).clamp(IDS.0, IDS.1);
    let runs: Vec<Vec<i64>> = stream::iter((0..nodes).step_by(run))
        .map(|start| {
            let session = client.session();
            let request = AllocateIdsRequest { count: run.min(nodes - start) as i64, ..Default::default() };
            async move { session.allocate_ids(request).await.map(|answer| answer.ids) }
        })
        .buffered(SIDE_BY_SIDE)
        .try_collect()
        .await?;
    let ids = runs.concat();
    ensure!(ids.len() == nodes, "asked for {nodes} ids, got {}", ids.len());
    Ok(ids)
}

/// Sends a batch, and what was refused for now once more until it is done; how many calls it had.
async fn write(session: Session, mut calls: Vec<Call>) -> Result<usize> {
    let all = calls.len();
    loop {
        let items = calls.iter().map(|call| BatchItem { call: Some(call.clone()) }).collect();
        let results = match session.batch(BatchRequest { items, options: None }).await {
            Ok(answer) => answer.results,
            Err(error) if error.is_overload() => {
                tokio::time::sleep(error.retry_after().unwrap_or(PAUSE)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        ensure!(results.len() == calls.len(), "{} results for {} calls", results.len(), calls.len());
        let mut again = Vec::new();
        for (call, result) in calls.into_iter().zip(results) {
            match result.result {
                Some(Answer::Error(error)) if error.retryable => again.push(call),
                // The answer, or the first answer to a call that was made twice, is lost; the write is done.
                Some(Answer::Error(error)) if ["ALREADY_EXISTS", "ANSWER_TOO_LARGE"].contains(&&*error.reason) => {}
                Some(Answer::Error(error)) => bail!("{}: {}", error.reason, error.message),
                Some(_) => {}
                None => bail!("a call without an answer"),
            }
        }
        if again.is_empty() {
            return Ok(all);
        }
        calls = again;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Calls, each with the bytes of its payload, by batches.
struct Batches<I: Iterator> {
    calls: std::iter::Peekable<I>,
}

impl<I: Iterator<Item = (Call, usize)>> Batches<I> {
    fn new(calls: I) -> Self {
        Self { calls: calls.peekable() }
    }
}

impl<I: Iterator<Item = (Call, usize)>> Iterator for Batches<I> {
    type Item = Vec<Call>;

    fn next(&mut self) -> Option<Vec<Call>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some((call, size)) = self.calls.next() else { break };
            bytes += size;
            batch.push(call);
        }
        (!batch.is_empty()).then_some(batch)
    }
}
