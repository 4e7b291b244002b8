//! Limits by identity, and calls that are refused where they would pile up.

use std::time::Duration;

use tao_client::{Client, ClientOptions};
use tao_harness::{Process, eventually_async, http_get};
use tao_proto::v1::graph_service_client::GraphServiceClient;
use tao_proto::v1::*;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::cluster::{Graph, TAO, ready, tier};
use crate::faults::add_user;

/// Generous, since other suites run at the same time.
const WITHIN: Duration = Duration::from_secs(60);

/// A connection from an address of its own: on loopback, each is another peer.
async fn from(source: &str, follower: &str) -> Graph {
    let endpoint = Endpoint::from_shared(format!("http://{follower}")).unwrap();
    let channel = endpoint.local_address(Some(source.parse().unwrap())).tcp_nodelay(true).connect().await.unwrap();
    GraphServiceClient::new(channel)
}

/// Of a refusal for want of room.
fn check_refused(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((&*info.reason, &*info.metadata["retryable"]), ("OVERLOADED", "true"));
    assert_eq!(info.metadata["not_applied"], "true");
    let after = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(after > Duration::ZERO && after < Duration::from_secs(2), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_each_identitys_own() {
    let (_shard, shard) = tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    let (_follower, address) = tier(&["follower", "--leader", &leader, "--reads-per-second", "20"]);
    ready(&address).await;
    let (mut greedy, mut polite) = (from("127.0.0.7", &address).await, from("127.0.0.8", &address).await);
    let id = add_user(&mut polite).await;
    let get = || ObjectGetRequest { id, options: None };
    let mut asked = Vec::new();
    for _ in 0..300 {
        asked.push(greedy.object_get(get()).await);
    }
    let refused: Vec<_> = asked.iter().filter_map(|got| got.as_ref().err()).collect();
    assert!(asked[..20].iter().all(Result::is_ok) && !refused.is_empty());
    refused.into_iter().for_each(check_refused);
    for _ in 0..15 {
        polite.object_get(get()).await.expect("below its rate");
    }
    add_user(&mut greedy).await;

    // Over a pipeline, from a third address.
    let session = |attempts| {
        let options = ClientOptions { attempts, ..ClientOptions::default() };
        Client::connect(&address, options).unwrap().session()
    };
    let impatient = session(1);
    let got = futures::future::join_all((0..100).map(|_| impatient.object_get(get()))).await;
    let refused: Vec<_> = got.into_iter().filter_map(Result::err).collect();
    assert!(refused.iter().any(|error| error.reason() == "OVERLOADED" && error.retry_after().is_some()), "{refused:?}");
    assert!(refused.iter().all(tao_client::ClientError::is_overload), "{refused:?}");
    session(20).object_get(get()).await.expect("it comes back when it is told to");
}

/// Every metric of the follower with these labels, added up.
fn metric(admin: &str, name: &str, label: &str) -> anyhow::Result<f64> {
    let text = http_get(admin, "/metrics")?;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_refused_where_they_would_pile_up() {
    let (shard_process, shard) = tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    let args = ["follower", "--leader", &leader, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut follower = Process::spawn(TAO, args, &[("TAO_ADAPTIVE_LIMITS", "true")]).unwrap();
    let mut address_of = |what: &str| {
        let line = follower.wait_line(what, WITHIN).unwrap();
        line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let (admin, address) = (address_of("listening for probes and metrics"), address_of("listening for gRPC"));
    ready(&address).await;
    let (mut greedy, mut polite) = (from("127.0.0.7", &address).await, from("127.0.0.8", &address).await);
    let id = add_user(&mut greedy).await;
    greedy.object_get(ObjectGetRequest { id, options: None }).await.expect("into memory");

    shard_process.pause().unwrap();
    let before = metric(&admin, "tao_follower_leader_calls_limit", "write").unwrap();
    let piling: Vec<_> = (0..100)
        .map(|_| {
            let mut greedy = greedy.clone();
            tokio::spawn(async move {
                let mut add = Request::new(ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() });
                add.set_timeout(WITHIN);
                greedy.object_add(add).await
            })
        })
        .collect();
    let fallen = eventually_async(WITHIN, async || {
        let limit = metric(&admin, "tao_follower_leader_calls_limit", "write")?;
        let under_way = metric(&admin, "tao_follower_leader_calls_under_way", "write")?;
        anyhow::ensure!(under_way > limit, "{under_way} under way, and a limit of {limit}");
        Ok(limit)
    });
    assert!(fallen.await.unwrap() < before);
    let user = || ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    check_refused(&greedy.object_add(user()).await.unwrap_err());
    // Memory still answers, and who has nothing under way is let through to the leaders, who don't answer.
    greedy.object_get(ObjectGetRequest { id, options: None }).await.expect("from memory");
    let mut add = Request::new(user());
    add.set_timeout(Duration::from_secs(1));
    let late = polite.object_add(add).await.unwrap_err();
    let is_late = matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled | Code::Unavailable);
    assert!(is_late, "{late:?}");
    let shed = metric(&admin, "tao_follower_shed_total", "reason=\"leaders\"").unwrap();
    assert!(shed >= 1.0, "{shed}");

    shard_process.resume().unwrap();
    for piled in piling {
        // A storage shard that says nothing for long is taken for gone.
        let ended = piled.await.unwrap();
        assert!(ended.is_ok() || ended.as_ref().is_err_and(|status| status.code() == Code::Unavailable), "{ended:?}");
    }
    let added = eventually_async(WITHIN, async || Ok(greedy.clone().object_add(user()).await?));
    added.await.expect("all is well again");
    let idle = eventually_async(WITHIN, async || {
        let under_way = metric(&admin, "tao_follower_leader_calls_under_way", "write")?;
        anyhow::ensure!(under_way == 0.0, "{under_way} under way");
        Ok(())
    });
    idle.await.unwrap();
}
