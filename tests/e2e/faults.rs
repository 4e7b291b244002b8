//! Processes and stores that die and come back: reads go on where they can, nothing acknowledged is lost, nothing stale is shown.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Graph, tier};
use tao_harness::{Process, TempDir};
use tao_proto::v1::*;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

/// Until the tiers have found each other again.
const RECOVER_WITHIN: Duration = Duration::from_secs(30);

fn number(n: i64) -> BTreeMap<String, Value> {
    [("n".to_owned(), Value { kind: Some(value::Kind::Int64Value(n)) })].into()
}

pub async fn add_user(graph: &mut Graph) -> i64 {
    let request = ObjectAddRequest { r#type: "user".to_owned(), data: number(0), ..Default::default() };
    graph.object_add(request).await.unwrap().into_inner().object.unwrap().id
}

fn within<T>(message: T, time: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

pub async fn set(graph: &mut Graph, id: i64, n: i64) -> Result<String, Status> {
    let update = ObjectUpdateRequest { id, set: number(n), ..Default::default() };
    Ok(graph.object_update(within(update, Duration::from_secs(2))).await?.into_inner().session_token)
}

/// Whether a call met a fault. What the way there says has a cause of its own, under whatever code: INTERNAL, when a connection was just
/// being ended politely.
fn is_fault(status: &Status) -> bool {
    // Cancelled: the client's own end of the deadline.
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

/// Repeats a write until it is done; the write is idempotent.
pub async fn set_until_done(graph: &mut Graph, id: i64, n: i64) -> String {
    let begun = Instant::now();
    loop {
        match set(graph, id, n).await {
            Ok(token) => return token,
            Err(status) => {
                assert!(is_fault(&status), "{status:?}");
                assert!(begun.elapsed() < RECOVER_WITHIN, "{status:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

pub async fn get(graph: &mut Graph, id: i64, token: &str) -> Result<i64, Status> {
    let options = Some(ReadOptions { session_token: token.to_owned(), ..Default::default() });
    let got = graph.object_get(within(ObjectGetRequest { id, options }, Duration::from_secs(5))).await?.into_inner();
    match got.object.unwrap().data["n"].kind {
        Some(value::Kind::Int64Value(n)) => Ok(n),
        ref other => panic!("{other:?}"),
    }
}

pub async fn get_until_done(graph: &mut Graph, id: i64, token: &str) -> i64 {
    let begun = Instant::now();
    loop {
        match get(graph, id, token).await {
            Ok(n) => return n,
            Err(status) => assert!(begun.elapsed() < RECOVER_WITHIN, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A chain on SQLite whose tiers listen on fixed ports, so that each can be killed and started again.
struct Chain {
    shard: Process,
    leader: Process,
    follower: Process,
    address: String,
    _data: TempDir,
}

fn chain() -> Chain {
    let data = TempDir::new().unwrap();
    let store = format!("sqlite:{}", data.join("tao.db").display());
    let port = || format!("127.0.0.1:{}", tao_harness::free_port().unwrap());
    let (shard_address, leader_address, follower_address) = (port(), port(), port());
    let run = |args: &[&str]| {
        let args = [args, &["--admin-listen", "127.0.0.1:0"]].concat();
        Process::spawn(crate::cluster::TAO, &args, &[]).unwrap()
    };
    // From the front to the back: a tier waits for the one behind it.
    let follower = run(&["follower", "--listen", &follower_address, "--leader", &leader_address]);
    let leader = run(&["leader", "--listen", &leader_address, "--shard", &shard_address]);
    let shard = run(&["shard", "--listen", &shard_address, "--store", &store]);
    let mut chain = Chain { shard, leader, follower, address: follower_address, _data: data };
    chain.follower.wait_line("listening for gRPC", RECOVER_WITHIN).unwrap();
    chain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_when_any_tier_is_killed() {
    let mut chain = chain();
    crate::cluster::ready(&chain.address).await;
    let mut graph = crate::cluster::connect(&chain.address).await;
    let id = add_user(&mut graph).await;
    let (mut n, mut token) = (0, String::new());
    for round in 0..9 {
        for _ in 0..20 {
            n += 1;
            token = set_until_done(&mut graph, id, n).await;
        }
        let killed = match round % 3 {
            0 => &mut chain.shard,
            1 => &mut chain.leader,
            _ => &mut chain.follower,
        };
        killed.kill9().unwrap();
        killed.start_again().unwrap();
        killed.wait_line("listening for gRPC", RECOVER_WITHIN).unwrap();
        if round % 3 == 2 {
            crate::cluster::ready(&chain.address).await;
            graph = crate::cluster::connect(&chain.address).await;
        }
        assert_eq!(get_until_done(&mut graph, id, &token).await, n, "round {round}");
    }
    // Ids go on after a restart: none is given twice.
    let other = add_user(&mut graph).await;
    assert_ne!(other, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_reads_go_on_and_writes_fail_fast_without_a_storage_shard() {
    let mut chain = chain();
    crate::cluster::ready(&chain.address).await;
    let mut graph = crate::cluster::connect(&chain.address).await;
    let id = add_user(&mut graph).await;
    let token = set(&mut graph, id, 7).await.unwrap();
    assert_eq!(get(&mut graph, id, &token).await.unwrap(), 7);
    chain.shard.kill9().unwrap();
    assert_eq!(get(&mut graph, id, "").await.unwrap(), 7, "from memory");
    let status = set(&mut graph, id, 8).await.unwrap_err();
    assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded), "{status:?}");
    assert_eq!(get(&mut graph, id, "").await.unwrap(), 7);
    chain.shard.start_again().unwrap();
    let token = set_until_done(&mut graph, id, 9).await;
    assert_eq!(get(&mut graph, id, &token).await.unwrap(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_go_on_when_redis_dies_and_use_it_again() {
    let mut cluster = Cluster::processes().await;
    let (mut a, mut b) = (cluster.connect(0).await, cluster.connect(1).await);
    let id = add_user(&mut a).await;
    for (n, alive) in [(1, true), (2, false), (3, false), (4, true), (5, true)] {
        let redis = cluster.redis_mut().unwrap();
        match (n, alive) {
            (2, _) => redis.kill().unwrap(),
            (4, _) => redis.restart().unwrap(),
            _ => {}
        }
        for step in 0..20 {
            let token = set(&mut a, id, n * 100 + step).await.unwrap();
            assert_eq!(get(&mut b, id, &token).await.unwrap(), n * 100 + step);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_follower_finishes_what_runs_and_exits_cleanly() {
    let (_shard, shard) = tier(&["shard", "--store", "memory:"]);
    let (_leader, leader) = tier(&["leader", "--shard", &shard]);
    let (mut follower, address) = tier(&["follower", "--leader", &leader]);
    crate::cluster::ready(&address).await;
    let mut graph = crate::cluster::connect(&address).await;
    let id = add_user(&mut graph).await;
    let running: Vec<_> = (0..50)
        .map(|n| {
            let mut graph = graph.clone();
            tokio::spawn(async move { set(&mut graph, id, n).await })
        })
        .collect();
    let status = tokio::task::spawn_blocking(move || follower.terminate()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    let mut answered = 0;
    for running in running {
        match running.await.unwrap() {
            Ok(_) => answered += 1,
            // A call that came too late is refused: by the transport, in one of its ways, not by the server.
            Err(status) => assert!(status.get_details_error_info().is_none(), "{status:?}"),
        }
    }
    let (_other, address) = tier(&["follower", "--leader", &leader]);
    crate::cluster::ready(&address).await;
    let get = ObjectGetRequest { id, options: None };
    let object = crate::cluster::connect(&address).await.object_get(get).await.unwrap().into_inner().object.unwrap();
    assert!(object.version > answered, "{answered} writes were acknowledged, and {} done", object.version - 1);
}

#[test]
fn configurations_that_ask_for_too_much_are_refused_with_a_sentence() {
    for (args, want) in [
        (vec!["leader", "--shard", "a:1", "--topology", "absent.toml"], "give one of the two"),
        (vec!["follower", "--topology", "absent.toml"], "absent.toml can't be read"),
        (vec!["shard", "--store", "mysql://x", "--shards", "0"], "shards: 10 shard bits"),
        (vec!["dev", "--listen", "0.0.0.0:1"], "not on loopback"),
    ] {
        let mut process = Process::spawn(crate::cluster::TAO, &args, &[]).unwrap();
        let status = process.wait(RECOVER_WITHIN).unwrap();
        let log = process.log_tail();
        assert!(!status.success() && log.contains(want), "{args:?}: {log}");
    }
}
