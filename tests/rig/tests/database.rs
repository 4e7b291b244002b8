//! A database that is gone: what is cached is still served, writes say at once that they did not happen, and all comes back by itself.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tao_harness::eventually_async;
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_proto::v1::{
    AssocAddRequest, AssocRangeRequest, ObjectAddRequest, ObjectGetRequest, ObjectUpdateRequest, ReadOptions,
};
use tao_rig::cluster::{Cluster, Plan};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

/// Far longer than a server may take to see that its database is gone: a write that waits for it fails otherwise.
const PATIENCE: Duration = Duration::from_secs(20);
const COMES_BACK_WITHIN: Duration = Duration::from_secs(60);

type Graph = GraphServiceClient<Channel>;

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

async fn add_user(graph: &mut Graph) -> Result<(i64, String)> {
    let add = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    let added = graph.object_add(patient(add)).await?.into_inner();
    Ok((added.object.unwrap_or_default().id, added.session_token))
}

fn touch(id: i64) -> Request<ObjectUpdateRequest> {
    patient(ObjectUpdateRequest { id, add: [("n".to_owned(), 1)].into(), ..Default::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_database_stops_writes_only_and_only_while_it_is_stopped() -> Result<()> {
    let plan = Plan { logs: vec![1], leaders: 1, followers: 2, redis: None };
    let mut cluster = Cluster::start(&plan, 1)?;
    let mut graphs = Vec::new();
    for address in cluster.followers() {
        graphs.push(Graph::new(Endpoint::from_shared(format!("http://{address}"))?.connect().await?));
    }
    let (a, _) = add_user(&mut graphs[0]).await?;
    let (b, _) = add_user(&mut graphs[0]).await?;
    let follow = AssocAddRequest { id1: a, r#type: "follows".to_owned(), id2: b, ..Default::default() };
    let token = graphs[0].assoc_add(patient(follow)).await?.into_inner().session_token;
    let options = Some(ReadOptions { session_token: token, ..Default::default() });
    let get = ObjectGetRequest { id: a, options: options.clone() };
    let range = AssocRangeRequest { id1: a, r#type: "follows".to_owned(), options, ..Default::default() };
    for graph in &mut graphs {
        graph.object_get(patient(get.clone())).await?;
        graph.assoc_range(patient(range.clone())).await?;
    }

    for round in 0..3 {
        cluster.databases[0].stop_immediate()?;
        for graph in &mut graphs {
            for _ in 0..5 {
                assert_eq!(graph.object_get(patient(get.clone())).await?.into_inner().object.unwrap_or_default().id, a);
                assert_eq!(graph.assoc_range(patient(range.clone())).await?.into_inner().assocs.len(), 1);
            }
            for write in 0..3 {
                let status = graph.object_update(touch(b)).await.expect_err("there is no database");
                let info = status.get_details_error_info().with_context(|| format!("{status:?}"))?;
                let said = |key: &str| info.metadata.get(key).map(String::as_str);
                assert_eq!(status.code(), Code::Unavailable, "round {round}, write {write}: {status:?}");
                assert_eq!((said("retryable"), said("not_applied")), (Some("true"), Some("true")), "{status:?}");
            }
        }
        cluster.databases[0].start_again()?;
        let before = read_until_back(&mut graphs[0], b).await?;
        let after = write_until_back(&mut graphs[1], b).await?;
        assert_eq!(after, before + 1, "a write that did not happen did");
    }
    Ok(())
}

/// Reads past all caches.
async fn read_until_back(graph: &mut Graph, id: i64) -> Result<i64> {
    eventually_async(COMES_BACK_WITHIN, async || {
        let mut options = ReadOptions::default();
        options.set_consistency(tao_proto::v1::Consistency::Strong);
        let answer = graph.object_get(patient(ObjectGetRequest { id, options: Some(options) })).await?.into_inner();
        Ok(answer.object.unwrap_or_default().version)
    })
    .await
}

async fn write_until_back(graph: &mut Graph, id: i64) -> Result<i64> {
    eventually_async(COMES_BACK_WITHIN, async || {
        let answer = graph.object_update(touch(id)).await?.into_inner();
        let version = answer.object.unwrap_or_default().version;
        ensure!(version > 0, "an answer without an object");
        Ok(version)
    })
    .await
}
