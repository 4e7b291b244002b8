//! TCP_NODELAY, without which an answer can wait 40 ms, on every connection that the real program accepts or makes between tiers.

use std::collections::BTreeSet;

use tao_harness::{TempDir, tcp_ends};
use tao_proto::v1;

use crate::cluster::{connect, ready, tier};

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_of_every_tier_sends_at_once() {
    let data = TempDir::new().unwrap();
    let folder = data.path().to_string_lossy().into_owned();
    let (shard, shard_address) = tier(&["shard", "--store", &format!("sqlite:{folder}/tao.db")]);
    let (leader, leader_address) = tier(&["leader", "--shard", &shard_address]);
    let (follower, follower_address) = tier(&["follower", "--leader", &leader_address]);
    ready(&follower_address).await;
    let mut graph = connect(&follower_address).await;
    // A write, and a miss: so that all links have been used.
    let request = v1::ObjectAddRequest { r#type: "user".to_owned(), ..v1::ObjectAddRequest::default() };
    graph.object_add(request).await.unwrap();
    graph.object_get(v1::ObjectGetRequest { id: 1, ..v1::ObjectGetRequest::default() }).await.ok();

    let mut accepted = BTreeSet::new();
    let mut made = BTreeSet::new();
    for process in [&shard, &leader, &follower] {
        for end in tcp_ends(process.pid().unwrap()).unwrap() {
            assert!(end.nodelay, "{end:?} of\n{}", process.log_tail());
            accepted.insert(end.local.to_string());
            made.insert(end.peer.to_string());
        }
    }
    for address in [&shard_address, &leader_address, &follower_address] {
        assert!(accepted.contains(address), "{address} has accepted nothing: {accepted:?}");
    }
    for address in [&shard_address, &leader_address] {
        assert!(made.contains(address), "nobody has connected to {address}: {made:?}");
    }
    let ours = tcp_ends(std::process::id()).unwrap();
    assert!(ours.iter().any(|end| end.peer.to_string() == follower_address), "{ours:?}");
}
