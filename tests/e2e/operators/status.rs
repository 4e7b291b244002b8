//! `tao status` of a cluster of two databases, and of one that stands still.

use std::time::Duration;

use tao_harness::{Postgres, Process};
use tao_proto::v1::*;

use super::{json, tao};
use crate::cluster::{TAO, connect, ready, tier};

const WITHIN: Duration = Duration::from_secs(60);

/// A server, its address, and that of its admin port.
fn server(args: &[&str]) -> (Process, String, String) {
    let (mut process, address) = tier(args);
    let line = process.wait_line("listening for probes and metrics", WITHIN).unwrap();
    let admin = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    (process, address, format!("http://{admin}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_logs_and_caches_are_shown() {
    let postgres = Postgres::start().unwrap();
    let store = postgres.create_database("tao").unwrap();
    let (mut shard, address, shard_admin) = server(&["shard", "--store", &store]);
    let (_leader, address, leader_admin) = server(&["leader", "--shard", &address]);
    let (_follower, address, follower_admin) = server(&["follower", "--leader", &address]);
    ready(&address).await;
    let mut graph = connect(&address).await;
    let request = ObjectAddRequest { r#type: "user".to_owned(), ..Default::default() };
    let id = graph.object_add(request).await.unwrap().into_inner().object.unwrap().id;
    for _ in 0..9 {
        graph.object_get(ObjectGetRequest { id, options: None }).await.unwrap();
    }
    let admins = [shard_admin, leader_admin, follower_admin].join(",");
    let status = ["status", "--admin", &admins, "--store", &store];
    tao_harness::eventually(WITHIN, || {
        let (printed, code) = json(&status);
        anyhow::ensure!(code == Some(0), "{printed}");
        let (members, log) = (printed["members"].as_array().unwrap(), &printed["logs"][0]);
        let follower = &members[2]["caches"][0];
        anyhow::ensure!(members.len() == 3 && follower["tier"] == "follower", "{printed}");
        anyhow::ensure!(follower["hit_rate"].as_f64() > Some(0.8) && follower["logs"][0]["behind"] == 0, "{printed}");
        anyhow::ensure!(members[1]["caches"][0]["tier"] == "leader", "{printed}");
        anyhow::ensure!(log["shards"] == "0-1023" && log["intents"] == 0, "{printed}");
        anyhow::ensure!(log["servers"].as_array().unwrap().len() == 1, "{printed}");
        Ok(())
    })
    .unwrap();
    let text = tao(&status);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("  follower  ") && text.contains(" % hits, 1 entries") && text.contains("log 0  shards 0-1023"),
        "{text}"
    );

    // Live, until it is asked to stop.
    let mut live =
        Process::spawn(TAO, [&status[..], &["--watch", "--every", "1", "--output", "json"]].concat(), &[]).unwrap();
    tao_harness::eventually(WITHIN, || {
        anyhow::ensure!(live.log()?.lines().count() >= 2, "not yet");
        Ok(())
    })
    .unwrap();
    assert!(live.interrupt().unwrap().success(), "{}", live.log_tail());
    shard.kill9().unwrap();
    tao_harness::eventually(WITHIN, || {
        let (printed, code) = json(&status);
        anyhow::ensure!(code == Some(1), "{printed}");
        let problem = printed["members"][0]["problem"].as_str().unwrap().to_owned();
        anyhow::ensure!(problem.contains("can't reach"), "{printed}");
        Ok(())
    })
    .unwrap();
}
